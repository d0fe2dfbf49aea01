//! What operators do by hand, through the real programs: what is ordered stands, and is carried out once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, Port, ask, process, settled, wait};
use serde_json::Value;

use super::{answered_by, declare, serving};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Starts the agent with nobody to talk to, and waits until it has converged what its disk says.
fn start_alone(pair: &mut Pair) {
    let motd = pair.path("managed/motd");
    fs::remove_file(&motd).unwrap();
    pair.start_agent();
    wait("the agent has converged alone", PATIENCE, || {
        fs::read(&motd).ok().filter(|text| text == b"true\n")
    });
}

/// The folders of the app's incarnations, also of those that have ended.
fn incarnations(pair: &Pair) -> Vec<PathBuf> {
    let within = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
    };
    let slots = within(&pair.path("agent/processes/app"));
    let mut all: Vec<PathBuf> = slots.flat_map(|slot| within(&slot)).collect();
    all.sort();
    all
}

/// Mutations: let the agent obey orders before they are on its disk; leave them out of what it starts with.
#[test]
fn what_is_stopped_stays_so_over_kills_of_both_programs_an_apply_and_without_a_control_plane() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    // What its disk does not take, the agent does not obey: a folder is in the way of what it writes first.
    let beside = pair.path("agent/hands.new");
    fs::create_dir(&beside).unwrap();
    let said = pair.plumb(&["stop", "app"]);
    assert_ne!(said.code, Some(0), "{said:?}");
    assert!(
        format!("{said:?}").contains("cannot write orders by hand"),
        "{said:?}"
    );
    fs::remove_dir(&beside).unwrap();
    pair.plumb(&["start", "app"]).good();
    assert_eq!(answered_by(&port), before, "it was stopped for a while");

    let said = pair.plumb(&["stop", "app"]).good();
    assert!(said.contains("app is stopped on 1 machine"), "{said}");
    assert_eq!(ask(port.number), None);

    let plan = pair.plumb(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "it is no change: {plan:?}");
    assert!(
        plan.err.contains("app is stopped by") && plan.err.contains("`plumb start app` undoes it"),
        "{plan:?}"
    );
    let status = pair.plumb(&["status"]).good();
    assert!(
        status.contains("by hand") && status.contains("plumb start app"),
        "{status}"
    );
    assert!(
        pair.plumb(&["restart", "app"])
            .one_line()
            .contains("`plumb start app` starts it")
    );

    let stopped = incarnations(&pair);
    pair.kill_agent();
    pair.kill_server();
    start_alone(&mut pair);
    pair.start_server();
    pair.status_until("back", settled);
    assert_eq!(
        incarnations(&pair),
        stopped,
        "it was started without an order"
    );
    assert!(pair.running().is_empty());

    declare(&pair, &port, "two");
    pair.apply();
    assert!(pair.running().is_empty(), "an apply has started it");

    let said = pair.plumb(&["start", "app"]).good();
    assert!(said.contains("app is started on 1 machine"), "{said}");
    assert_eq!(wait("it answers", PATIENCE, || ask(port.number)).1, "two");
    assert_eq!(process(&pair.try_status().unwrap())["restarts"], 0);
    let plan = pair.plumb(&["plan"]);
    assert!(!plan.err.contains("stopped"), "{plan:?}");
    assert!(!pair.was_doubled());
}

/// Mutation: keep what failed when an order comes, or take it for the failure of the order.
#[test]
fn an_app_that_cannot_be_started_is_stopped_when_somebody_stops_it() {
    let pair = Pair::started();
    pair.write(
        "app.yaml",
        "kind: App\nname: app\nmachines: local\nrun: [/nowhere/at/all]\n",
    );
    pair.apply_detached();
    let state = |word| move |status: &Value| status["owners"][0]["state"] == word;
    pair.status_until("failed", state("failed"));
    let said = pair.plumb(&["stop", "app"]).good();
    assert!(said.contains("app is stopped on 1 machine"), "{said}");
    pair.status_until("stopped", state("stopped"));
}

/// Mutation: end whatever incarnation runs when the order is looked at again.
#[test]
fn a_restart_happens_once_wherever_the_agent_dies_and_the_stream_breaks_in_between() {
    let (mut pair, port) = serving();
    for delay in [0, 10, 40, 120, 400] {
        let before = answered_by(&port);
        let said = pair.plumb(&["restart", "app", "--detach", "--output", "json"]);
        let number = json(&said.good())["machines"][0]["number"].clone();
        std::thread::sleep(Duration::from_millis(delay));
        pair.kill_agent();
        pair.start_agent();
        let status = pair.status_until("restarted", |status| {
            settled(status) && process(status)["restarted"] == number
        });
        let after = answered_by(&port);
        assert_ne!(after, before);

        pair.kill_server();
        pair.start_server();
        pair.kill_agent();
        pair.start_agent();
        pair.status_until("settled again", settled);
        assert_eq!(answered_by(&port), after, "it was started again");
        let again = pair.try_status().unwrap();
        assert_eq!(
            process(&again)["incarnation"],
            process(&status)["incarnation"]
        );
        assert_eq!(process(&again)["restarts"], 0);
    }
    assert!(!pair.was_doubled());
}

#[test]
fn a_restart_is_followed_until_all_run_again() {
    let (pair, port) = serving();
    let before = answered_by(&port);
    let said = pair.plumb(&["restart", "app"]).good();
    assert!(said.contains("app/process/app/0: restarted, pid"), "{said}");
    assert!(said.contains("app is restarted on 1 machine"), "{said}");
    assert_ne!(answered_by(&port), before);
    let audit = pair.plumb(&["audit"]).good();
    assert!(audit.contains("app was restarted everywhere"), "{audit}");
}

/// Mutation: leave holds out of what is laid over resources.
#[test]
fn what_is_held_is_left_alone_shown_with_its_patch_and_put_right_afterwards() {
    let (pair, port) = serving();
    answered_by(&port);
    // Of files only that is told which everybody on the machine may read.
    for folder in ["", "managed"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(pair.path(folder), open).unwrap();
    }
    let motd = pair.path("managed/motd");
    let resource = format!("base/file/{}", motd.display());
    let hold = |length: &str| {
        let reason = "trying another greeting";
        let said = pair.plumb(&["hold", &resource, "--for", length, "--reason", reason]);
        assert!(said.good().contains("is held until"));
    };
    hold("1h");
    fs::write(&motd, "mine\n").unwrap();
    let held = wait("the difference is told", PATIENCE, || {
        let said = pair.plumb(&["hold", "list"]).good();
        Some(said).filter(|said| said.contains("mine"))
    });
    assert!(held.contains("-true") && held.contains("+mine"), "{held}");
    assert!(held.contains("content: |\n          mine\n"), "{held}");
    let checked = pair.plumb(&["reconcile", "--output", "json"]);
    let checked = json(&checked.good());
    assert_eq!(checked["findings"][0]["came"], "held", "{checked}");
    assert_eq!(fs::read(&motd).unwrap(), b"mine\n");
    let plan = pair.plumb(&["plan"]);
    assert!(plan.err.contains("trying another greeting"), "{plan:?}");

    // A shorter one takes its place, and runs out.
    hold("1s");
    wait("it is put right", PATIENCE, || {
        fs::read(&motd).ok().filter(|text| text == b"true\n")
    });
    let over = pair.plumb(&["hold", "list"]).good();
    assert!(
        over.contains("was held") && over.contains("+mine"),
        "{over}"
    );

    hold("1h");
    pair.plumb(&["hold", "--release", &resource]).good();
    fs::write(&motd, "mine\n").unwrap();
    wait("it is put right at once", PATIENCE, || {
        fs::read(&motd).ok().filter(|text| text == b"true\n")
    });
    let checked = pair.plumb(&["reconcile", "--machine", "local"]).good();
    assert!(checked.contains("all as they should be"), "{checked}");
}

/// Mutation: count an instance that somebody has stopped as not healthy.
#[test]
fn a_stop_stands_above_a_rollout_which_goes_on_without_it() {
    let port = Port::take();
    let pair = Pair::started();
    let number = port.number.to_string();
    let write = |version: &str| {
        let more = format!(
            "ports: {{ http: {number} }}\nenv: {{ VERSION: {version} }}\nstop: 2s\nhealth: {{ tcp: http, interval: 1s }}\n\
             rollout: {{ strategy: rolling, batch: 1, min_healthy: 1s, deadline: 20s, auto_revert: true }}\n"
        );
        pair.write_app(&["--port", &number], &more);
    };
    write("one");
    pair.apply();
    pair.plumb(&["stop", "app"]).good();
    write("two");
    pair.apply();
    let status = pair.try_status().unwrap();
    assert_eq!(
        status["owners"][0]["rollout"]["phase"], "done",
        "{status:#}"
    );
    assert_eq!(status["owners"][0]["state"], "stopped", "{status:#}");
    assert!(pair.running().is_empty());
    pair.plumb(&["start", "app"]).good();
    assert_eq!(wait("it answers", PATIENCE, || ask(port.number)).1, "two");
}

/// Mutation: forget at the agent's start when the control plane was last heard.
#[test]
fn an_app_that_asks_for_it_is_stopped_without_a_control_plane_and_started_with_it() {
    let port = Port::take();
    let mut pair = Pair::started();
    let number = port.number.to_string();
    let more = format!(
        "ports: {{ http: {number} }}\nenv: {{ VERSION: one }}\nstop: 2s\non_disconnect: {{ stop_after: 15s }}\n"
    );
    pair.write_app(&["--port", &number], &more);
    pair.apply();
    pair.kill_server();
    pair.kill_agent();
    // All of that time passes while nobody looks, so that nothing is left of it when the agent is back.
    std::thread::sleep(Duration::from_secs(16));
    pair.start_agent();
    wait("it is stopped", Duration::from_secs(10), || {
        pair.running().is_empty().then_some(())
    });
    pair.start_server();
    wait("it runs again", PATIENCE, || ask(port.number));
    assert!(!pair.was_doubled());
}

#[test]
fn what_nobody_has_or_says_is_refused_with_what_was_probably_meant() {
    let (pair, _port) = serving();
    for (words, hint) in [
        (&["stop", "ap"][..], "did you mean app?"),
        (
            &["restart", "app", "--machine", "locl"],
            "did you mean local?",
        ),
        (&["stop", "base"], "has no processes"),
        (
            &[
                "hold",
                "local/base/file/nope",
                "--for",
                "1h",
                "--reason",
                "x",
            ],
            "no resource",
        ),
        (
            &[
                "hold",
                "local/app/process/app/1",
                "--for",
                "1h",
                "--reason",
                "x",
            ],
            "did you mean local/app/process/app/0?",
        ),
        (
            &[
                "hold",
                "local/app/process/app/0",
                "--for",
                "40d",
                "--reason",
                "x",
            ],
            "31 days",
        ),
        (
            &[
                "hold",
                "local/app/process/app/0",
                "--for",
                "1h",
                "--reason",
                " ",
            ],
            "needs a reason",
        ),
        (
            &["hold", "--release", "local/app/process/app/0"],
            "nothing is held",
        ),
        (&["reconcile", "--app", "ap"], "did you mean app?"),
        (&["reconcile", "--machine", "locl"], "did you mean local?"),
    ] {
        let said = pair.plumb(words).one_line();
        assert!(said.contains(hint), "{words:?}: {said}");
    }
    for (words, hint) in [
        (
            &["hold", "x", "--for", "soon", "--reason", "x"][..],
            "is no duration",
        ),
        (&["hold", "x", "--for", "1h"], "--reason"),
        (&["stop", "App!"], "App!"),
    ] {
        let said = pair.plumb(words);
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.err.contains(hint), "{words:?}: {said:?}");
    }
}
