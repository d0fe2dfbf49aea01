//! kill -9 of every program of a fleet in turn, each during an apply.

use std::time::Duration;

use plumb_tests::fleet::Fleet;

const AGENTS: usize = 20;

/// How many agents are killed during one apply.
const AT_ONCE: usize = 5;

/// Row 35 of a whole fleet. Mutation: take only the shims that this very agent has started for living, and leave the look for
/// them out of the process driver's `start`; either is enough. An ack before the disk has it shows in `disk`: here the next
/// hello puts it right.
#[test]
fn each_of_twenty_agents_and_their_server_may_be_killed_during_an_apply() {
    let mut fleet = Fleet::started(AGENTS);
    fleet.apply(1);
    fleet.settle(1);
    let mut round = 1;
    for first in (0..AGENTS).step_by(AT_ONCE) {
        round += 1;
        fleet.apply(round);
        for number in first..first + AT_ONCE {
            fleet.kill(number);
            // Each at another moment of what the apply sets going: taken, stored, stopped, started, told.
            std::thread::sleep(Duration::from_millis(15 * (number - first) as u64));
        }
        for number in first..first + AT_ONCE {
            fleet.start(number);
        }
        fleet.wait_for(0..AGENTS, round);
    }
    fleet.settle(round);

    // The server, while all of them answer it.
    for pause_ms in [0, 20, 60] {
        round += 1;
        fleet.apply(round);
        std::thread::sleep(Duration::from_millis(pause_ms));
        fleet.pair.kill_server();
        fleet.pair.start_server();
    }
    fleet.settle(round);
}
