//! Owners that are renamed, and files that are adopted, from the blueprint to the machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use plumb_tests::pair::{PATIENCE, Pair, alive, ask, settled, signal, wait};
use rustix::process::Signal;

use super::{answered_by, serving};

/// Renames the app in its blueprint.
fn rename(pair: &Pair, from: &str, to: &str) {
    let path = pair.path("repo/app.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(
        &format!("name: {from}\n"),
        &format!("name: {to}\nrenamed_from: {from}\n"),
    );
    assert!(text.contains("renamed_from"), "{text}");
    fs::write(path, text).unwrap();
}

/// Mutation: leave `renames::find` out of `converge`.
#[test]
fn a_renamed_app_runs_on_and_is_watched_logged_and_healed_under_its_new_name() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    let logged = pair.plumb(&["logs", "app"]).good();
    rename(&pair, "app", "web");
    pair.apply();
    pair.status_until("settled", settled);
    assert_eq!(answered_by(&port), before);
    let out = pair.plumb(&["logs", "web"]).good();
    assert!(
        out.contains(logged.lines().next().unwrap_or_default()),
        "{out}"
    );
    let plan = pair.plumb(&["plan", "--detailed-exitcode"]);
    assert_eq!(plan.code, Some(0), "{}", plan.out);
    // Its death is noticed at once, not with the next resync.
    signal(before, Signal::KILL);
    let (after, _) = wait("it serves again", std::time::Duration::from_secs(5), || {
        ask(port.number).filter(|(pid, _)| *pid != before)
    });
    // And a new agent finds it.
    pair.kill_agent();
    pair.start_agent();
    pair.status_until("settled again", settled);
    assert_eq!(answered_by(&port), after);
    assert!(alive(after));
    assert!(!pair.was_doubled());
}

#[test]
fn an_app_that_is_renamed_twice_while_its_agent_is_away_runs_on() {
    let (mut pair, port) = serving();
    let before = answered_by(&port);
    pair.kill_agent();
    rename(&pair, "app", "web");
    pair.apply_detached();
    let path = pair.path("repo/app.yaml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("renamed_from: app\n", "")).unwrap();
    rename(&pair, "web", "shop");
    pair.apply_detached();
    pair.start_agent();
    let status = pair.status_until("settled", settled);
    assert_eq!(answered_by(&port), before);
    assert!(
        status["owners"]
            .as_array()
            .unwrap()
            .iter()
            .any(|o| o["name"] == "shop")
    );
    assert!(!pair.was_doubled());
}

/// Mutation: leave `found` out of the status, and the plan knows of nothing to adopt.
#[test]
fn a_file_that_was_there_is_adopted_with_consent_alone_and_what_it_was_is_kept() {
    let pair = Pair::started();
    let motd = pair.path("managed/motd");
    fs::create_dir_all(motd.parent().unwrap()).unwrap();
    fs::write(&motd, "theirs\n").unwrap();
    fs::set_permissions(&motd, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "kind: Setup\nname: base\nmachines: local\nfiles:\n  {}: {{ content: \"ours\\n\" }}\n",
        motd.display()
    );
    pair.write("base.yaml", text);
    let first = pair.plumb(&["apply", "--yes"]);
    assert_eq!(first.code, Some(1), "{}{}", first.out, first.err);
    assert_eq!(fs::read(&motd).unwrap(), b"theirs\n");
    let plan = pair.plumb(&["plan"]);
    assert!(plan.out.contains("adopt"), "{}{}", plan.out, plan.err);
    let refused = pair.plumb(&["apply", "--yes"]);
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert_eq!(fs::read(&motd).unwrap(), b"theirs\n");
    pair.plumb(&["apply", "--yes", "--allow", "adopt"]).good();
    wait("it is adopted", PATIENCE, || {
        fs::read(&motd).ok().filter(|text| text == b"ours\n")
    });
    pair.status_until("settled", settled);
    let kept: Vec<_> = fs::read_dir(pair.path("agent/originals"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(
        fs::read(kept[0].path().join("1/content")).unwrap(),
        b"theirs\n"
    );
    assert_eq!(pair.plumb(&["plan", "--detailed-exitcode"]).code, Some(0));
}
