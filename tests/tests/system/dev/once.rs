//! `--once` and `--keep`: what is left, and with which exit code.

use std::time::{Duration, Instant};

use plumb_tests::running::Mark;
use plumb_tests::world::{PATIENCE, World, alive, eventually, get};

use super::steady;

#[test]
fn once_converges_the_quickstart_and_leaves_nothing_running() {
    let world = World::quickstart("once");
    let out = world.run(&["dev", "--once"]).good();
    let (plan, rest) = out.split_once("\n\n  ").expect("a plan, then progress");
    insta::assert_snapshot!("quickstart_plan", steady(&world, plan));
    assert!(rest.contains("\nConverged.\n"), "{rest}");
    for (app, kind) in [("base", "Setup"), ("hello", "App")] {
        let row = rest.lines().find(|l| {
            l.split_whitespace()
                .eq([app, kind, "release", "1", "converged"])
                || {
                    let words: Vec<_> = l.split_whitespace().collect();
                    words.starts_with(&[app, kind, "release", "1", "converged"])
                }
        });
        assert!(row.is_some(), "{rest}");
    }
    assert_eq!(
        world.processes(),
        Vec::<u32>::new(),
        "nothing is left running"
    );
    let url = rest
        .split_whitespace()
        .find(|w| w.starts_with("http://"))
        .expect("a url");
    assert_eq!(get(url), None, "nobody serves any more");
    assert_eq!(
        std::fs::read_to_string(world.managed("motd")).unwrap(),
        "true to the blueprint\n",
        "files stay"
    );
}

#[test]
fn once_prints_one_json_document_and_nothing_else() {
    let world = World::quickstart("json");
    let said = world.run(&["dev", "--once", "--output", "json"]);
    assert_eq!(said.err, "");
    let value = said.json();
    assert_eq!(value["format"], 1);
    assert_eq!(value["outcome"], "converged");
    assert_eq!(value["open"], serde_json::json!([]));
    assert_eq!(value["status"]["format"], 1);
    assert_eq!(value["status"]["revision"], 1);
    assert_eq!(value["status"]["machines"][0]["name"], "local");
    let owners = value["status"]["owners"].as_array().unwrap();
    assert_eq!(owners.len(), 2);
    assert!(
        owners.iter().all(|o| o["state"] == "converged"),
        "{value:#}"
    );
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[test]
fn once_again_changes_nothing_and_converges_again() {
    let world = World::quickstart("again");
    let first = world.run(&["dev", "--once", "--output", "json"]).json();
    let second = world.run(&["dev", "--once"]).good();
    assert!(
        second.contains("No changes: 5 resources are recorded as the blueprints say."),
        "{second}"
    );
    assert!(second.contains("\nConverged.\n"), "{second}");
    assert_eq!(first["status"]["revision"], 1);
}

#[test]
fn once_exits_with_1_and_says_why_when_it_cannot_converge() {
    let world = World::new("never");
    world.write(
        "a.yaml",
        "kind: App\nname: web\nmachines: local\nrun: [no-such-program]\n",
    );
    for output in ["text", "json"] {
        let began = Instant::now();
        let said = world.run(&["dev", "--once", "--output", output]);
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "it does not wait for a miracle"
        );
        assert_eq!(said.code, Some(1), "{said:?}");
        assert!(said.out.contains("no-such-program"), "{said:?}");
        assert!(said.out.contains("local/web/process/app/0"), "{said:?}");
        if output == "json" {
            let value: serde_json::Value = serde_json::from_str(&said.out).unwrap();
            assert_eq!(value["outcome"], "failed");
            assert_eq!(value["open"].as_array().unwrap().len(), 1);
        }
    }
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[test]
fn keep_leaves_the_app_serving_and_the_next_dev_takes_it_over() {
    let world = World::quickstart("keep");
    let first = world.run(&["dev", "--once", "--keep"]).good();
    let url = first
        .split_whitespace()
        .find(|w| w.starts_with("http://"))
        .expect("a url")
        .to_owned();
    let (code, body) = get(&url).expect("it serves on");
    assert_eq!(code, 200);

    let dev = world.dev(&["--keep"]).ready();
    assert_eq!(
        get(&url).expect("it still does").1,
        body,
        "the very same process"
    );
    dev.expect(Mark::default(), "taken over", PATIENCE);
    let said = dev.stop();
    assert_eq!(said.code, Some(0));
    assert!(said.out.contains("the apps run on"), "{}", said.out);
    assert_eq!(get(&url).expect("and still").1, body);

    let _ = world.run(&["dev", "--once"]).good();
    assert_eq!(get(&url), None);
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[test]
fn ctrl_c_stops_everything_within_ten_seconds_even_what_ignores_it() {
    let world = World::quickstart("stop");
    // Neither the shell nor its child ends on TERM.
    world.write(
        "deaf.yaml",
        "kind: App\nname: deaf\nmachines: local\nrun: \"trap '' TERM; sleep 1000 & wait; sleep 1000\"\n",
    );
    let dev = world.dev(&[]).ready();
    let pid = dev.app_pid();
    assert!(alive(pid));
    assert!(
        world.processes().len() >= 6,
        "dev, two shims, their apps, and a child"
    );
    let said = dev.stop();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(
        said.out
            .contains("Stopping the apps, the agent and the control plane.")
    );
    assert_eq!(world.processes(), Vec::<u32>::new());
}

#[test]
fn ctrl_c_while_it_converges_stops_too() {
    let world = World::quickstart("early");
    let dev = world.dev(&[]);
    dev.expect(Mark::default(), "Plan for workspace", PATIENCE);
    assert_eq!(dev.stop().code, Some(0));
    assert_eq!(world.processes(), Vec::<u32>::new());
    // What was cut short goes on the next time.
    let _ = world.run(&["dev", "--once"]).good();
}

#[test]
fn the_machine_to_play_is_chosen_by_name() {
    let world = World::new("machines");
    world.write("m.yaml", "kind: Machine\nname: web-1\n");
    world.write(
        "apps.yaml",
        "kind: App\nname: here\nmachines: web-1\nrun: sleep 1000\n---\nkind: App\nname: there\nmachines: local\nrun: sleep 1000\n",
    );
    let line = world.run(&["dev", "--once"]).one_line();
    assert!(
        line.contains("--machine") && line.contains("local, web-1"),
        "{line}"
    );
    let line = world
        .run(&["dev", "--once", "--machine", "web-2"])
        .one_line();
    assert!(line.contains("did you mean web-1?"), "{line}");

    let value = world
        .run(&["dev", "--once", "--machine", "web-1", "--output", "json"])
        .json();
    let state = |name: &str| {
        let owners = value["status"]["owners"].as_array().unwrap();
        owners.iter().find(|o| o["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!(state("here"), "converged");
    assert_eq!(state("there"), "waiting", "nobody plays the other machine");
}

#[test]
fn a_second_dev_of_the_same_workspace_is_told_who_holds_the_folder() {
    let world = World::quickstart("locked");
    let dev = world.dev(&[]).ready();
    let line = world.run(&["dev", "--once"]).one_line();
    assert!(line.contains(&format!("process {}", dev.pid())), "{line}");
    let url = dev.url("hello");
    eventually("the first one serves on", PATIENCE, || {
        get(&url).filter(|(code, _)| *code == 200)
    });
    assert_eq!(dev.stop().code, Some(0));
}

#[test]
fn a_folder_of_a_newer_version_is_left_as_it_is() {
    let world = World::new("newer");
    world.write(
        "a.yaml",
        "kind: App\nname: web\nmachines: local\nrun: sleep 1000\n",
    );
    let _ = world.run(&["dev", "--once"]).good();
    for part in ["server", "agent"] {
        let format = world.path(&format!("state/plumb/dev/newer/{part}/format"));
        let before = std::fs::read_to_string(&format).unwrap();
        let number: String = before.chars().filter(char::is_ascii_digit).collect();
        std::fs::write(&format, before.replace(&number, "99")).unwrap();
        let line = world.run(&["dev", "--once"]).one_line();
        assert!(line.contains("newer") && line.contains("99"), "{line}");
        assert!(
            line.contains("upgrade") || line.contains("--data"),
            "the next step: {line}"
        );
        std::fs::write(&format, before).unwrap();
    }
    assert_eq!(world.processes(), Vec::<u32>::new());
    let _ = world.run(&["dev", "--once"]).good();
}

#[test]
fn data_says_where_the_state_is_kept() {
    let world = World::new("elsewhere");
    world.write(
        "s.yaml",
        &format!(
            "kind: Setup\nname: s\nmachines: local\nfiles:\n  {}: {{ content: x }}\n",
            world.managed("x")
        ),
    );
    let data = world.path("some/where");
    let _ = world
        .run(&["dev", "--once", "--data", data.to_str().unwrap()])
        .good();
    assert!(data.join("server").is_dir() && data.join("agent").is_dir());
    assert!(
        !world.path("state").exists(),
        "nothing is kept in the usual place"
    );
}
