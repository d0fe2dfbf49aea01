//! Programs that stand still for a minute, as a machine does that swaps, is moved or sleeps.

use std::time::{Duration, Instant};

use plumb_tests::fleet::{Fleet, PATIENCE, name};
use plumb_tests::pair::{signal, wait};
use rustix::process::Signal;

const MINUTE: Duration = Duration::from_secs(60);

/// Row 39 of agents. Mutation: leave the silence out of `Fleet::tick` and the keepalive out of the server, either of which is
/// enough, so that nobody is ever missed.
#[test]
fn agents_that_stand_still_for_a_minute_are_missed_hold_nobody_up_and_catch_up() {
    const AGENTS: usize = 6;
    const STILL: usize = 2;
    let fleet = Fleet::started(AGENTS);
    fleet.apply(1);
    fleet.settle(1);
    let before: Vec<_> = (0..STILL).map(|number| fleet.running(number)).collect();
    for number in 0..STILL {
        signal(fleet.pid(number), Signal::STOP);
    }
    let began = Instant::now();
    fleet.apply(2);
    fleet.wait_for(STILL..AGENTS, 2);
    // Their workloads run on, under what they held.
    for (number, before) in before.iter().enumerate() {
        assert_eq!(fleet.running(number), *before);
        assert!(fleet.is_at(number, 1));
    }
    let others: Vec<String> = (STILL..AGENTS).map(name).collect();
    wait("those who stand still are missed", MINUTE, || {
        (fleet.online() == others).then_some(())
    });
    std::thread::sleep(MINUTE.saturating_sub(began.elapsed()));
    for number in 0..STILL {
        signal(fleet.pid(number), Signal::CONT);
    }
    fleet.settle(2);
}

/// Row 39 of the server. After a minute the agents have given the connection up themselves, so `stalled` in `Fleet::tick` makes
/// no difference here; `a_control_plane_that_slept_expires_nobody` of `dispatch` fails without it.
#[test]
fn a_server_that_stands_still_for_a_minute_is_waited_for_and_loses_nothing() {
    const AGENTS: usize = 2;
    let fleet = Fleet::started(AGENTS);
    fleet.apply(1);
    fleet.settle(1);
    let before: Vec<_> = (0..AGENTS).map(|number| fleet.running(number)).collect();
    let server = fleet.pair.server.as_ref().expect("it runs").pid();
    signal(server, Signal::STOP);
    std::thread::sleep(MINUTE);
    for (number, before) in before.iter().enumerate() {
        assert_eq!(fleet.running(number), *before, "workloads run on");
    }
    signal(server, Signal::CONT);
    wait("the agents are back", PATIENCE, || {
        (fleet.online().len() == AGENTS).then_some(())
    });
    fleet.apply(2);
    fleet.settle(2);
}
