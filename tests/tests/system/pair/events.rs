//! What happened on a machine is told, also of the time when nobody listened, and by whom it was changed is noticed.

use std::fs;
use std::path::PathBuf;

use plumb_tests::pair::{PATIENCE, Pair, online, settled, wait};
use serde_json::Value;

use super::{HEALED, assert_the_app_heals, serving};

fn events(pair: &Pair, arguments: &[&str]) -> Value {
    let all = ["events", "--output", "json", "--limit", "1000"];
    let outcome = pair.plumb(&[&all, arguments].concat());
    serde_json::from_str(&outcome.out).expect("JSON")
}

fn list(events: &Value) -> &[Value] {
    events["events"].as_array().expect("events")
}

fn kinds(events: &[Value]) -> Vec<&str> {
    let kinds = events.iter().map(|event| event["kind"].as_str());
    kinds.map(|kind| kind.expect("a kind")).collect()
}

/// The newest segment of the agent's journal.
fn journal(pair: &Pair) -> PathBuf {
    let names = fs::read_dir(pair.path("agent/journal")).expect("a journal");
    let paths = names.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .max()
        .expect("a segment")
}

fn noted(pair: &Pair, what: &str, times: usize) {
    let what = format!("\"what\":\"{what}\"");
    wait("it is in the journal", PATIENCE, || {
        let text = fs::read_to_string(journal(pair)).ok()?;
        (text.matches(&what).count() >= times).then_some(())
    });
}

/// Kills the server, then the app, then changes the managed file; everything heals.
fn away(pair: &mut Pair, port: &plumb_tests::pair::Port) {
    let text = fs::read_to_string(journal(pair)).unwrap();
    let before = text.matches("\"what\":\"link_lost\"").count();
    pair.kill_server();
    noted(pair, "link_lost", before + 1);
    assert_the_app_heals(port, HEALED);
    let motd = pair.path("managed/motd");
    fs::write(&motd, "false\n").unwrap();
    wait("the file is restored", HEALED, || {
        fs::read(&motd).ok().filter(|text| text == b"true\n")
    });
}

/// Mutation: hand nothing over of what happened before the link was back, or let `away` out of the entries.
#[test]
fn what_happened_while_the_server_was_away_is_told_in_order_and_the_chain_holds() {
    let (mut pair, port) = serving();
    pair.status_until("settled", settled);
    away(&mut pair, &port);
    pair.start_server();
    pair.status_until("online", online);
    let told = wait("everything is handed over", PATIENCE, || {
        let told = events(&pair, &[]);
        let all = kinds(list(&told));
        let back = all.iter().filter(|kind| **kind == "link_back").count();
        (back >= 2).then_some(told)
    });
    let all = list(&told);
    let lost = all.iter().rposition(|e| e["kind"] == "link_lost").unwrap();
    let then: Vec<_> = all[lost..]
        .iter()
        .map(|e| (e["kind"].as_str().unwrap(), e["away"] == true))
        .filter(|(kind, _)| {
            ["link_lost", "process_ended", "drift_corrected", "link_back"].contains(kind)
        })
        .collect();
    assert_eq!(
        then,
        [
            ("link_lost", true),
            ("process_ended", true),
            ("drift_corrected", true),
            ("drift_corrected", true),
            ("link_back", false),
        ],
        "{told:#}"
    );
    let corrected: Vec<_> = all[lost..]
        .iter()
        .filter(|e| e["kind"] == "drift_corrected")
        .map(|e| e["address"].as_str().unwrap().split('/').nth(1).unwrap())
        .collect();
    assert_eq!(corrected, ["app", "base"]);
    assert!(kinds(all).contains(&"agent_started") && kinds(all).contains(&"assignment_taken"));
    assert!(kinds(all).contains(&"applied"));
    let journal = &told["journals"][0];
    assert_eq!(
        (&journal["machine"], &journal["broken_at"]),
        (&"local".into(), &0.into())
    );
    // Each entry of the journal once, in its order.
    let mut entries: Vec<_> = all.iter().filter_map(|e| e["entry"].as_u64()).collect();
    entries.sort_unstable();
    let expected: Vec<_> = (1..=journal["entries"].as_u64().unwrap()).collect();
    assert_eq!(entries, expected);
    for (filter, some) in [
        (["--app", "app"], "app"),
        (["--app", "base"], "base"),
        (["--machine", "local"], ""),
    ] {
        let filtered = events(&pair, &filter);
        assert!(!list(&filtered).is_empty(), "{filter:?}");
        let mark = format!("local/{some}");
        assert!(
            some.is_empty()
                || list(&filtered)
                    .iter()
                    .all(|e| e["address"].as_str().unwrap().starts_with(&mark)),
            "{filter:?}"
        );
    }
    let unknown = pair.plumb(&["events", "--machine", "other"]).one_line();
    assert!(
        unknown.contains("nobody knows a machine other"),
        "{unknown}"
    );
    let text = pair.plumb(&["events", "--since", "1h"]).good();
    assert!(
        text.contains("was killed by signal 9") && text.contains("away"),
        "{text}"
    );
}

/// Threat row 37. Mutation: take every entry as it comes in `Head::take`, also one that says that the journal is damaged.
#[test]
fn a_journal_that_somebody_has_changed_is_reported() {
    let (mut pair, port) = serving();
    pair.status_until("settled", settled);
    assert_eq!(pair.plumb(&["events", "--verify"]).code, Some(0));
    away(&mut pair, &port);
    noted(&pair, "process_ended", 1);
    pair.kill_agent();
    let path = journal(&pair);
    let text = fs::read_to_string(&path).unwrap();
    let changed: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"process_ended\""))
        .collect();
    assert_ne!(changed, text);
    fs::write(&path, changed).unwrap();
    pair.start_agent();
    pair.start_server();
    pair.status_until("online", online);
    let told = wait("it is reported", PATIENCE, || {
        let told = events(&pair, &[]);
        let broken = told["journals"][0]["broken_at"] != 0;
        broken.then_some(told)
    });
    let all = kinds(list(&told));
    assert!(
        all.contains(&"journal_broken") || all.contains(&"journal_damaged"),
        "{told:#}"
    );
    let broken = "The journal of local is broken at entry";
    let outcome = pair.plumb(&["events"]);
    assert!(outcome.err.contains(broken), "{outcome:?}");
    let outcome = pair.plumb(&["events", "--verify"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.out.contains(broken), "{outcome:?}");
}

/// Mutation: begin a watch at the newest event whatever token it came with.
#[test]
fn following_goes_on_where_it_was_when_the_server_is_back() {
    let (mut pair, port) = serving();
    pair.status_until("settled", settled);
    let told = events(&pair, &[]);
    let token = told["resume_token"].as_str().unwrap().to_owned();
    let before: u64 = token.rsplit_once('-').unwrap().1.parse().unwrap();
    let mut command = pair.command();
    command.args(["events", "-f", "--output", "json", "--after", &token]);
    let mut follower = pair.start_daemon(&mut command, "events", "");
    away(&mut pair, &port);
    pair.start_server();
    pair.status_until("online", online);
    let told = wait("it goes on", PATIENCE, || {
        let lines = follower.printed();
        let told: Vec<Value> = lines
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        kinds(&told).contains(&"link_back").then_some(told)
    });
    let numbers: Vec<_> = told.iter().map(|e| e["number"].as_u64().unwrap()).collect();
    let expected: Vec<_> = (before + 1..=before + numbers.len() as u64).collect();
    assert_eq!(numbers, expected, "none is missed and none comes twice");
    assert!(kinds(&told).contains(&"drift_corrected"));
    assert!(follower.ended().is_none());
    follower.kill();
}
