//! A machine that cannot do what it is assigned: said clearly, and in nobody's way.

use std::fs;

use plumb_tests::pair::{PATIENCE, Pair, ask, online, process, settled, wait};
use serde_json::Value;

use super::{Port, answered_by, declare};

fn resource<'a>(status: &'a Value, owner: &str, kind: &str) -> Option<&'a Value> {
    let owners = status["owners"].as_array()?;
    let owner = owners.iter().find(|o| o["name"] == owner)?;
    let mut all = owner["resources"].as_array()?.iter();
    all.find(|r| r["kind"] == kind)
}

/// Mutation: have the undriven driver answer `Present`, or let its fault pass by itself in `judge`.
#[test]
fn a_container_on_an_agent_that_cannot_run_one_is_blocked_by_itself_and_settles_when_it_goes() {
    let mut pair = Pair::new();
    pair.start_server();
    let port = Port::take();
    declare(&pair, &port, "one");
    pair.write(
        "box.yaml",
        "kind: App\nname: box\nmachines: local\nimage: nginx@sha256:\
         0000000000000000000000000000000000000000000000000000000000000000\n",
    );
    // The machine was never heard of, so nobody can say yet what it lacks.
    pair.apply_detached();
    pair.join();
    let status = pair.status_until("blocked", |status| {
        online(status) && resource(status, "box", "image").is_some_and(|r| r["state"] == "failed")
    });
    let image = resource(&status, "box", "image").unwrap();
    let message = image["message"].as_str().unwrap();
    assert!(message.contains("nothing of the kind image"), "{message}");
    let reasons: Vec<_> = image["conditions"].as_array().unwrap().iter().collect();
    assert!(
        reasons
            .iter()
            .any(|c| c["kind"] == "Blocked" && c["reason"] == "LacksCapability"),
        "{reasons:?}"
    );
    let container = resource(&status, "box", "container").unwrap();
    assert_eq!(container["message"], "waits for local/box/image/app");
    // What does not need it is there.
    let before = answered_by(&port);
    wait("the file is there", PATIENCE, || {
        fs::read(pair.path("managed/motd")).ok()
    });

    // By now it is known, so what is recorded is warned of, and a change to it cannot be applied.
    let warned = pair.plumb(&["plan"]);
    assert_eq!(warned.code, Some(0), "{}", warned.out);
    assert!(warned.out.contains("warning: "), "{}", warned.out);
    let written = fs::read_to_string(pair.path("repo/box.yaml")).unwrap();
    pair.write("box.yaml", format!("{written}env: {{ COLOUR: blue }}\n"));
    let refused = pair.plumb(&["plan"]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    pair.write("box.yaml", written);
    // A new agent says the same, and restarts nothing.
    pair.kill_agent();
    pair.start_agent();
    pair.status_until("blocked again", |status| {
        resource(status, "box", "image").is_some_and(|r| r["state"] == "failed") && online(status)
    });
    assert_eq!(ask(port.number).map(|(pid, _)| pid), Some(before));

    fs::remove_file(pair.path("repo/box.yaml")).unwrap();
    pair.apply();
    let status = pair.status_until("settled", settled);
    assert!(resource(&status, "box", "container").is_none());
    assert_eq!(process(&status)["pid"], before);
    assert!(!pair.was_doubled());
}
