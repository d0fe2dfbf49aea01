//! The agent dies, is replaced, or is doubled, and the apps know nothing of it.

use std::fs;
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, alive, ask, process, settled, signal, wait};
use rustix::process::Signal;

use super::{answered_by, assert_the_file_heals, copy, declare, serving};

/// The numbers that the app has counted, as `plumb logs` tells them.
fn counted(pair: &Pair) -> Vec<u64> {
    let out = pair.plumb(&["logs", "app"]).good();
    let numbers = out.lines().map(|line| {
        let (_, number) = line.rsplit_once("line ").expect("a counted line");
        number.parse().expect("a number")
    });
    numbers.collect()
}

/// Row 29. Mutation: take only the shims that this very agent has started for living.
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

/// Row 29. Mutation: take only the shims that this very agent has started for living, and leave the look for them out of the
/// process driver's `start`; either is enough.
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
    // Two instances would have been noticed.
    let another = std::process::Command::new(plumb_tests::plumb().with_file_name("standing-app"))
        .arg("--lock")
        .arg(pair.path("alone"))
        .output()
        .unwrap();
    assert!(!another.status.success() && pair.was_doubled());
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
fn an_apply_to_a_machine_that_is_away_is_recorded_and_waits_for_it() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    pair.kill_agent();
    pair.status_until("offline", |status| {
        status["machines"][0]["state"] == "offline"
    });
    declare(&pair, &port, "two");
    let applied = pair.plumb(&["apply", "--yes"]);
    assert!(
        applied.out.contains("until these are settled"),
        "{applied:?}"
    );
    assert_eq!(answered_by(&port), before);
    pair.start_agent();
    wait("the new version answers", PATIENCE, || {
        ask(port.number).filter(|(_, version)| version == "two")
    });
    pair.status_until("settled", settled);
    assert!(!pair.was_doubled());
}

/// A copied VM. Mutation: let `Machine::is_cloned` say no.
#[test]
fn a_copy_of_a_machine_is_noticed_and_no_app_is_touched() {
    let (mut pair, port) = serving();
    let before = pair.incarnation();
    copy(&pair.path("agent/identity"), &pair.path("copied/identity"));
    fs::copy(pair.path("agent/format"), pair.path("copied/format")).unwrap();
    let mut clone = pair.start_other_agent("copied");
    let status = pair.status_until("the copy is noticed", |status| {
        status["machines"][0]["message"].is_string()
    });
    let message = status["machines"][0]["message"].as_str().unwrap();
    assert!(message.contains("two agents"), "{message}");
    let text = pair.plumb(&["status"]).good();
    assert!(text.contains("two agents"), "{text}");
    assert_eq!(pair.incarnation(), before);
    assert_eq!(answered_by(&port), before.pid);
    clone.kill();
    pair.kill_agent();
    pair.start_agent();
    // It stays so until somebody says which one is the machine: here the one that has just come.
    let instance = plumb_tests::pair::wait("it is heard", plumb_tests::pair::PATIENCE, || {
        let shown = pair
            .plumb(&["machine", "show", "local", "--output", "json"])
            .good();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let machine = &shown["machine"];
        assert_eq!(machine["state"], "quarantined", "{machine}");
        let newest = machine["instances"].as_array()?.last()?["instance"]
            .as_str()?
            .to_owned();
        (machine["online"] == true).then_some(newest)
    });
    pair.plumb(&["machine", "keep", "local", &instance]).good();
    pair.status_until("settled", settled);
    assert_eq!(pair.incarnation(), before);
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
