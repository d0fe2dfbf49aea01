//! The agent dies, is replaced, or is doubled, and the apps know nothing of it.

use std::fs;
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, alive, ask, process, settled, signal, wait};
use rustix::process::Signal;

use super::{answered_by, assert_the_file_heals, declare, serving};

/// The numbers that the app has counted, as `plumb logs` tells them.
fn counted(pair: &Pair) -> Vec<u64> {
    let out = pair.plumb(&["logs", "app"]).good();
    let numbers = out.lines().map(|line| {
        let (_, number) = line.rsplit_once("line ").expect("a counted line");
        number.parse().expect("a number")
    });
    numbers.collect()
}

/// Row 29. Mutation: let `start` not look for a living incarnation.
#[test]
fn an_app_outlives_its_agent_and_the_next_one_adopts_it_without_a_gap_in_its_log() {
    let mut pair = Pair::started();
    pair.write_app(&["--count", "300"], "log: { max_size: 64Mi, keep: 1 }\n");
    pair.apply();
    let before = pair.incarnation();
    let logged = || {
        let log = pair_log(&pair);
        fs::metadata(log).map(|log| log.len()).unwrap_or(0)
    };
    let at_death = logged();
    pair.kill_agent();
    let pair_ref = &pair;
    wait("the app goes on writing without an agent", PATIENCE, || {
        let now = fs::metadata(pair_log(pair_ref)).unwrap().len();
        (now > at_death + 50_000).then_some(())
    });
    pair.start_agent();
    let status = pair.status_until("adopted", settled);
    assert_eq!(pair.incarnation(), before);
    assert_eq!(process(&status)["pid"], before.pid);
    assert_eq!(process(&status)["restarts"], 0);

    let numbers = counted(&pair);
    assert!(numbers.len() > 1000, "{}", numbers.len());
    let expected: Vec<u64> = (0..numbers.len() as u64).collect();
    assert!(numbers == expected, "a number is missing or doubled");
    assert!(!pair.was_doubled());
}

fn pair_log(pair: &Pair) -> std::path::PathBuf {
    pair.path("agent/logs/app/app.0.log")
}

/// Row 29. Mutation: let a start go ahead while the lock of the incarnation before is held.
#[test]
fn an_agent_killed_at_any_moment_of_an_apply_never_doubles_the_app_and_converges() {
    let (mut pair, port) = serving();
    for (round, delay) in [0, 5, 15, 30, 45, 60, 90, 130, 200, 400]
        .into_iter()
        .enumerate()
    {
        let version = format!("round-{round}");
        declare(&pair, &port, &version);
        pair.apply_detached();
        // The moment of the blow is what is tried out.
        std::thread::sleep(Duration::from_millis(delay));
        pair.kill_agent();
        assert!(pair.running().len() <= 1, "{:?}", pair.running());
        pair.start_agent();
        wait(&format!("{version} answers"), PATIENCE, || {
            ask(port.number).filter(|(_, answered)| *answered == version)
        });
    }
    let status = pair.status_until("settled", settled);
    assert_eq!(process(&status)["pid"], answered_by(&port));
    assert_eq!(pair.running().len(), 1);
    assert!(!pair.was_doubled());
}

#[test]
fn an_app_that_died_while_no_agent_lived_is_started_by_the_next() {
    let (mut pair, port) = serving();
    let before = pair.incarnation();
    pair.kill_agent();
    signal(before.pid, Signal::KILL);
    wait("app and shim have ended", PATIENCE, || {
        (!alive(before.pid) && !alive(before.shim)).then_some(())
    });
    assert_eq!(ask(port.number), None);
    pair.start_agent();
    let after = answered_by(&port);
    assert_ne!(after, before.pid);
    let status = pair.status_until("settled", settled);
    assert_eq!(process(&status)["pid"], after);
    assert_eq!(
        process(&status)["last_exit"]["status"]["signal"],
        9,
        "{status:#}"
    );
    assert!(!pair.was_doubled());
}

#[test]
fn after_a_reboot_without_a_server_the_agent_alone_brings_everything_back() {
    let (mut pair, port) = serving();
    let before = pair.incarnation();
    pair.kill_server();
    pair.kill_agent();
    signal(before.shim, Signal::KILL);
    wait("the app is gone with its shim", PATIENCE, || {
        (!alive(before.pid)).then_some(())
    });
    fs::remove_dir_all(pair.path("managed")).unwrap();
    fs::create_dir(pair.path("managed")).unwrap();

    pair.start_agent();
    assert_ne!(answered_by(&port), before.pid);
    wait("the file is back", PATIENCE, || {
        fs::read(pair.path("managed/motd")).ok()
    });
    assert_eq!(pair.running().len(), 1);
    assert!(!pair.was_doubled());
    let alone = answered_by(&port);
    pair.start_server();
    let status = pair.status_until("settled", settled);
    assert_eq!(process(&status)["pid"], alone);
}

#[test]
fn term_ends_the_agent_and_leaves_its_workloads_running() {
    let (mut pair, port) = serving();
    let before = pair.incarnation();
    assert!(pair.agent.take().unwrap().end().success());
    assert_eq!(answered_by(&port), before.pid);
    assert!(alive(before.shim));
    pair.status_until("offline", |status| {
        status["machines"][0]["state"] == "offline"
    });
    pair.start_agent();
    let status = pair.status_until("settled", settled);
    assert_eq!(pair.incarnation(), before);
    assert_eq!(process(&status)["restarts"], 0);
    assert_the_file_heals(&pair, super::HEALED);
}

#[test]
fn two_agents_never_share_a_data_folder() {
    let (pair, port) = serving();
    let before = answered_by(&port);
    let line = pair.run(&mut pair.agent_command("agent")).one_line();
    let pid = pair.agent.as_ref().unwrap().pid();
    assert!(line.contains(&format!("process {pid}")), "{line}");
    assert_eq!(answered_by(&port), before);
}
