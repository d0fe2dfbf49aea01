//! The control plane goes away, comes back, comes back older, or is another one.

use std::fs;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, alive, online, process, settled, signal, wait};
use rustix::process::Signal;

use super::{
    HEALED, answered_by, assert_the_app_heals, assert_the_file_heals, copy, declare, serving,
};

#[test]
fn without_the_server_apps_run_on_and_heal_and_back_it_knows_everything() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    let history = pair.plumb(&["history", "--output", "json"]).good();
    pair.kill_server();
    assert_eq!(answered_by(&port), before);
    assert_the_file_heals(&pair, HEALED);
    let healed = assert_the_app_heals(&port, HEALED);

    pair.start_server();
    let status = pair.status_until("settled again", settled);
    assert_eq!(process(&status)["pid"], healed);
    assert_eq!(process(&status)["restarts"], 1);
    assert_eq!(pair.plumb(&["history", "--output", "json"]).good(), history);
    let plan = pair.plumb(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "{plan:?}");
    assert_eq!(answered_by(&port), healed);
    assert!(!pair.was_doubled());
}

#[test]
fn an_agent_comes_back_to_its_server_by_itself_after_many_crashes() {
    let mut pair = Pair::started();
    pair.status_until("online", online);
    for _ in 0..4 {
        pair.kill_server();
        pair.start_server();
        pair.status_until("online again", online);
    }
}

#[test]
fn a_server_that_stands_still_for_a_while_holds_nothing_up() {
    let (pair, port) = serving();
    let server = pair.server.as_ref().unwrap().pid();
    signal(server, Signal::STOP);
    let healed = assert_the_app_heals(&port, HEALED);
    assert_the_file_heals(&pair, HEALED);
    // Time itself is what is waited for: longer than any round trip.
    std::thread::sleep(Duration::from_secs(3));
    signal(server, Signal::CONT);
    let status = pair.status_until("told of the restart", |status| {
        settled(status) && process(status)["pid"] == healed
    });
    assert_eq!(process(&status)["restarts"], 1);
    assert_eq!(answered_by(&port), healed);
}

/// Row 37. Mutation: let `Machine::greeted` send a snapshot to an agent that is ahead.
#[test]
fn a_server_restored_from_a_backup_leaves_machines_that_are_ahead_alone() {
    let (mut pair, port) = serving();
    assert!(pair.server.take().unwrap().end().success());
    copy(&pair.path("server"), &pair.path("backup"));
    pair.start_server();
    pair.status_until("online", online);
    declare(&pair, &port, "two");
    pair.apply();
    let before = wait("the new version answers", PATIENCE, || {
        plumb_tests::pair::ask(port.number).filter(|(_, version)| version == "two")
    });

    pair.kill_server();
    fs::remove_dir_all(pair.path("server")).unwrap();
    fs::rename(pair.path("backup"), pair.path("server")).unwrap();
    pair.start_server();
    let status = pair.status_until("regressed", |status| {
        status["machines"][0]["state"] == "regressed"
    });
    let message = status["machines"][0]["message"].as_str().unwrap();
    assert!(message.contains("restore the newer copy"), "{message}");
    assert_eq!(plumb_tests::pair::ask(port.number).unwrap(), before);
    // Left alone by the server, and still kept true by its own agent.
    assert_the_file_heals(&pair, HEALED);
    assert_eq!(pair.incarnation().pid, before.0);
}

#[test]
fn an_agent_that_finds_another_control_plane_keeps_its_workloads_and_says_so() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    pair.kill_server();
    fs::rename(pair.path("server"), pair.path("kept")).unwrap();
    pair.start_server();
    let said = wait("the agent says so", PATIENCE, || {
        let log = pair.agent.as_ref().unwrap().log();
        log.lines()
            .find(|line| {
                line.contains("WARN") && (line.contains("CA") || line.contains("certificate"))
            })
            .map(str::to_owned)
    });
    assert!(said.contains(&pair.address()), "{said}");
    assert_eq!(answered_by(&port), before);
    assert_the_file_heals(&pair, HEALED);

    pair.kill_server();
    fs::remove_dir_all(pair.path("server")).unwrap();
    fs::rename(pair.path("kept"), pair.path("server")).unwrap();
    pair.start_server();
    let status = pair.status_until("back", settled);
    assert_eq!(process(&status)["pid"], before);
}

#[test]
fn term_ends_the_server_cleanly_and_a_second_one_is_refused_in_one_line() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    let pid = pair.server.as_ref().unwrap().pid();
    let mut second = pair.command();
    second.arg("server").arg("--data").arg(pair.path("server"));
    second.args(["--listen", "127.0.0.1:0"]);
    let line = pair.run(&mut second).one_line();
    assert!(line.contains(&pid.to_string()), "{line}");

    assert!(pair.server.take().unwrap().end().success());
    assert!(!alive(pid));
    let line = pair.plumb(&["status"]).one_line();
    assert!(line.contains(&pair.address()), "{line}");
    assert_eq!(answered_by(&port), before);
    pair.start_server();
    pair.status_until("settled", settled);
    assert_eq!(answered_by(&port), before);
}

/// Row 35. Mutation: acknowledge an apply before its revision is durable.
#[test]
fn a_server_killed_at_any_moment_of_an_apply_has_recorded_all_of_it_or_nothing() {
    let (mut pair, port) = serving();
    let revision = |pair: &Pair| {
        let status = pair.status_until("answered", |_| true);
        status["revision"].as_u64().unwrap()
    };
    for (round, delay) in [5, 20, 35, 50, 65, 80, 110, 160].into_iter().enumerate() {
        let version = format!("round-{round}");
        let before = revision(&pair);
        declare(&pair, &port, &version);
        let apply = pair
            .command()
            .args(["apply", "--yes", "--detach"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The moment of the blow is what is tried out.
        std::thread::sleep(Duration::from_millis(delay));
        pair.kill_server();
        let applied = apply.wait_with_output().unwrap();
        pair.start_server();
        let after = revision(&pair);
        let plan = pair.plumb(&["plan", "--detailed-exitcode"]);
        if applied.status.success() {
            assert_eq!(after, before + 1, "{applied:?}");
        } else {
            let said = String::from_utf8_lossy(&applied.stderr);
            assert_eq!(said.trim_end().lines().count(), 1, "{said}");
        }
        match after - before {
            0 => assert_eq!(plan.code, Some(2), "{plan:?}"),
            1 => assert_eq!(plan.code, Some(0), "{plan:?}"),
            _ => panic!("{before} to {after}"),
        }
        // An agent that comes back between the plan and its apply moves what was approved.
        pair.status_until("settled", settled);
        pair.apply_detached();
        wait(&format!("{version} answers"), PATIENCE, || {
            plumb_tests::pair::ask(port.number).filter(|(_, answered)| *answered == version)
        });
    }
    assert!(!pair.was_doubled());
}

#[test]
fn commands_that_follow_end_in_one_line_when_the_server_dies() {
    let mut pair = Pair::started();
    pair.write_app(&["--say", "hello"], "");
    pair.apply();
    let follow = |arguments: &[&str]| {
        let mut child = pair
            .command()
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut some = [0; 16];
        assert!(out.read(&mut some).unwrap() > 0);
        (child, out)
    };
    let following = [
        follow(&["status", "--watch"]),
        follow(&["logs", "app", "-f"]),
    ];
    pair.kill_server();
    for (mut child, mut out) in following {
        let status = wait("it ends", PATIENCE, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(1));
        let mut rest = Vec::new();
        out.read_to_end(&mut rest).unwrap();
        let mut said = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut said)
            .unwrap();
        assert!(said.starts_with("error: "), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}
