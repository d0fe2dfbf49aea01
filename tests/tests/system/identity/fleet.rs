//! Machines that run: shown, removed, copied, and moved to another CA.

use std::fs;
use std::time::Duration;

use plumb_tests::pair::{PATIENCE, Pair, online, settled, wait};
use serde_json::Value;

fn json(pair: &Pair, arguments: &[&str]) -> Value {
    let said = pair
        .plumb(&[arguments, &["--output", "json"]].concat())
        .good();
    serde_json::from_str(&said).expect("a command prints JSON")
}

fn machine(pair: &Pair) -> Value {
    json(pair, &["machine", "show", "local"])["machine"].clone()
}

/// Rows 19 and 21, through the real programs. Mutation: leave `identity_moved` out of `remove_machine`.
#[test]
fn a_removed_machine_is_cut_off_and_its_apps_run_on_until_it_joins_anew() {
    let mut pair = Pair::started();
    pair.write_app(&[], "");
    pair.apply();
    pair.status_until("settled", settled);
    let before = pair.incarnation().pid;
    let listed = json(&pair, &["machine", "list"]);
    assert_eq!(listed["machines"][0]["name"], "local");
    assert_eq!(listed["machines"][0]["online"], true);

    let line = pair.plumb(&["machine", "remove", "local"]).one_line();
    assert!(line.contains("--force"), "{line}");
    pair.plumb(&["machine", "remove", "local", "--force"])
        .good();
    wait("the stream is cut", Duration::from_secs(5), || {
        (machine(&pair)["online"] == false).then_some(())
    });
    let audited = wait("the agent is told why", PATIENCE, || {
        let log = pair.agent.as_ref().unwrap().log();
        log.contains("has been removed").then_some(log)
    });
    assert!(audited.contains("enrol it anew"), "{audited}");
    assert_eq!(
        pair.incarnation().pid,
        before,
        "losing the control plane stops no workload"
    );

    // The name begins anew with another folder, and what ran is another's by now.
    pair.kill_agent();
    fs::rename(pair.path("agent"), pair.path("gone")).unwrap();
    plumb_tests::pair::signal(before, rustix::process::Signal::KILL);
    pair.join();
    pair.status_until("settled", settled);
    assert_eq!(machine(&pair)["state"], "online");
}

/// Mutation: leave `anew` out of `Tenant::joined`, and the journal is called broken for ever.
#[test]
fn a_machine_that_joins_anew_without_having_been_removed_begins_a_journal_that_is_whole() {
    let mut pair = Pair::started();
    pair.write_app(&[], "");
    pair.apply();
    pair.status_until("settled", settled);
    let entries = |pair: &Pair| json(pair, &["events", "--verify"])["journals"][0].clone();
    wait("its journal is handed over", PATIENCE, || {
        (entries(&pair)["entries"].as_u64()? > 0).then_some(())
    });
    let before = pair.incarnation().pid;
    pair.kill_agent();
    plumb_tests::pair::signal(before, rustix::process::Signal::KILL);
    fs::rename(pair.path("agent"), pair.path("gone")).unwrap();
    pair.join();
    pair.status_until("settled", settled);
    let journal = wait("the new journal is handed over", PATIENCE, || {
        let journal = entries(&pair);
        (journal["entries"].as_u64()? > 0).then_some(journal)
    });
    assert_eq!(journal["broken_at"], 0, "{journal}");
    pair.plumb(&["events", "--verify"]).good();

    let unknown = pair.plumb(&["events", "--machine", "nobody"]).one_line();
    assert!(
        unknown.contains("nobody knows a machine nobody"),
        "{unknown}"
    );
}

/// A copied VM: the same folder, two agents. Mutation: leave the order out of `Greeting::ask`.
#[test]
fn of_a_machine_and_its_copy_one_command_keeps_the_one_and_shuts_the_other_out() {
    let pair = Pair::started();
    pair.status_until("online", online);
    super::super::pair::copy(&pair.path("agent"), &pair.path("copy"));
    let _ = fs::remove_file(pair.path("copy/lock"));
    let mut copy = pair.start_other_agent("copy");
    let shown = wait("the two are quarantined", PATIENCE * 3, || {
        let shown = machine(&pair);
        (shown["state"] == "quarantined").then_some(shown)
    });
    let message = shown["message"].as_str().unwrap();
    let command = message.split('`').nth(1).expect(message);
    let mut words: Vec<&str> = command.split(' ').skip(1).collect();
    assert_eq!(words[..3], ["machine", "keep", "local"], "{message}");
    // The one that is not connected just now: the order waits for it.
    let both = message.split(['(', ')']).nth(1).expect(message);
    let other = both.split(" and ").find(|instance| *instance != words[3]);
    words[3] = other.expect(message);
    pair.plumb(&words).good();
    let out = "is not enrolled with this key";
    wait("one of them is shut out", PATIENCE * 3, || {
        let both = [pair.agent.as_ref().unwrap().log(), copy.log()];
        (both.iter().filter(|log| log.contains(out)).count() == 1).then_some(())
    });
    wait("the other one is the machine", PATIENCE * 3, || {
        let shown = machine(&pair);
        (shown["online"] == true && shown["state"] == "unassigned").then_some(())
    });
    copy.kill();
}

/// Mutation: leave the `Renew` order out of `step`, or the CAs out of what a renewal answers.
#[test]
fn the_ca_is_replaced_while_an_app_is_applied_and_both_ends_learn_of_it_by_themselves() {
    let mut pair = Pair::started();
    pair.write_app(&[], "");
    pair.apply();
    let context = pair.path("config/plumb/contexts/main.json");
    let cas = || {
        let text = fs::read_to_string(&context).unwrap();
        text.matches("BEGIN CERTIFICATE").count()
    };
    let old = fs::read_to_string(&context).unwrap();
    assert_eq!(cas(), 1);
    let begun = json(&pair, &["ca", "rotate"]);
    assert_eq!(begun["phase"], "spreading");
    assert_eq!(cas(), 2, "the context knows both");
    pair.write_app(&[], "env: { VERSION: two }\n");
    pair.apply();
    let done = wait("the old one goes by itself", PATIENCE * 2, || {
        let state = json(&pair, &["ca", "status"]);
        (state["phase"] == "steady").then_some(state)
    });
    assert_eq!(done["cas"].as_array().unwrap().len(), 1);
    assert_eq!(cas(), 1);
    assert_ne!(fs::read_to_string(&context).unwrap(), old);
    assert!(pair.path("server/identity/ca-2.key").exists());
    assert!(!pair.path("server/identity/ca.key").exists());
    // Both ends start again with what they have on their disks.
    pair.kill_agent();
    pair.start_agent();
    pair.status_until("settled", settled);
    pair.kill_server();
    pair.start_server();
    pair.status_until("settled", settled);
}
