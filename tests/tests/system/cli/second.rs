//! From a second terminal, while `dev` runs.

use std::time::Duration;

use plumb_tests::running::Mark;
use plumb_tests::world::{PATIENCE, World, eventually, get, signal};
use rustix::process::Signal;

use super::other;
use crate::dev::steady;

#[test]
fn plan_shows_the_difference_changes_nothing_and_says_so_by_its_exit_code() {
    let world = World::quickstart("plan");
    let dev = world.dev(&[]).ready();
    let none = world.run(&["plan", "--detailed-exitcode"]).good();
    assert!(none.contains("No changes: 5 resources"), "{none}");
    let folder = other(&world, "changed");
    let plan = world.run(&["plan", &folder]).good();
    insta::assert_snapshot!("plan_of_a_change", steady(&world, &plan));
    let said = world.run(&["plan", &folder, "--detailed-exitcode"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert_eq!(said.out, plan, "the same plan, every time");
    let json = world.run(&["plan", &folder, "--output", "json"]).json();
    assert_eq!(json["format"], 1);
    assert_eq!(json["base"], 1);
    assert_eq!(json["changes"].as_array().unwrap().len(), 2, "{json:#}");
    assert!(!plan.contains('\x1b'), "no colours in a pipe");
    assert_eq!(world.status()["revision"], 1, "nothing was recorded");
    assert_eq!(
        std::fs::read_to_string(world.managed("motd")).unwrap(),
        "true to the blueprint\n"
    );
    drop(dev);
}

#[test]
fn apply_wants_yes_where_nobody_can_be_asked_and_follows_until_it_has_converged() {
    let world = World::quickstart("apply");
    let dev = world.dev(&[]).ready();
    let folder = other(&world, "first");
    let said = world.run(&["apply", &folder]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("Plan: 0 to create, 2 to change"),
        "{}",
        said.out
    );
    assert_eq!(
        said.err,
        "error: nobody is there to ask: look at the plan above, and run the command again with --yes\n"
    );
    assert_eq!(world.status()["revision"], 1, "nothing was recorded");

    let mark = dev.mark();
    let out = world.run(&["apply", &folder, "--yes"]).good();
    assert!(out.contains("\nConverged.\n"), "{out}");
    let url = out.lines().last().unwrap().trim().to_owned();
    assert!(
        get(&url).unwrap().1.starts_with("first (release 2, "),
        "it serves when apply says so"
    );
    dev.expect(mark, "hello/process app/0: started as pid", PATIENCE);

    let lines = world
        .run(&["apply", &other(&world, "next"), "--yes", "--output", "json"])
        .good();
    let json: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(json["outcome"], "converged", "{json:#}");
    assert_eq!(json["revision"], 3);
    assert_eq!(
        json["releases"],
        serde_json::json!({ "base": 3, "hello": 3 })
    );

    let out = world
        .run(&["apply", &other(&world, "last"), "--yes", "--detach"])
        .good();
    assert!(out.ends_with("Recorded.\n"), "{out}");
    eventually("it converges all the same", PATIENCE, || {
        get(&url).filter(|(_, body)| body.starts_with("last "))
    });
    let said = world
        .run(&["apply", &other(&world, "last"), "--yes"])
        .good();
    assert!(said.contains("No changes"), "{said}");
    assert_eq!(
        world.status()["revision"],
        4,
        "an apply of nothing records nothing"
    );
    drop(dev);
}

#[test]
fn apply_asks_on_a_terminal_and_takes_no_for_an_answer() {
    let world = World::quickstart("ask");
    let dev = world.dev(&[]).ready();
    let folder = other(&world, "asked");
    for (answer, ends, code, revision) in [
        ("n\n", "Nothing was changed.", 1, 1),
        ("\n", "Nothing was changed.", 1, 1),
        ("y\n", "Converged.", 0, 2),
    ] {
        let mut terminal = world.terminal(&["apply", &folder]);
        terminal.expect(Mark::default(), "Apply this? [y/N]", PATIENCE);
        assert_eq!(world.status()["revision"], 1, "nothing before the answer");
        terminal.send(answer);
        terminal.expect(Mark::default(), ends, PATIENCE);
        let said = terminal.end(PATIENCE);
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.out.contains("\x1b[32m"), "colours on a terminal");
        assert_eq!(world.status()["revision"], revision);
    }
    drop(dev);
}

#[test]
fn of_two_applies_at_once_one_wins_and_the_other_is_told_what_moved() {
    let world = World::quickstart("two");
    let dev = world.dev(&[]).ready();
    // Both have planned against the same revision, and wait for their answer.
    let (one, two) = (other(&world, "one"), other(&world, "two"));
    let mut terminals = [&one, &two].map(|folder| world.terminal(&["apply", folder, "--detach"]));
    for terminal in &terminals {
        terminal.expect(Mark::default(), "Apply this? [y/N]", PATIENCE);
    }
    for terminal in &mut terminals {
        terminal.send("y\n");
    }
    let mut said = terminals.map(|terminal| terminal.end(PATIENCE));
    said.sort_by_key(|said| said.code);
    let [winner, loser] = said;
    assert_eq!(
        (winner.code, loser.code),
        (Some(0), Some(1)),
        "{winner:?}\n{loser:?}"
    );
    assert!(winner.out.contains("Recorded."), "{winner:?}");
    let line = loser
        .out
        .lines()
        .find(|l| l.contains("error:"))
        .expect("a line of error");
    assert!(
        line.contains("made against revision 1, but local recorded revision 2 at "),
        "{line}"
    );
    assert!(
        line.contains("run `plumb plan` again"),
        "the next step: {line}"
    );
    let status = world.until("the winner's has converged", |s| {
        s["owners"][1]["state"] == "converged"
    });
    assert_eq!(status["revision"], 2, "the loser recorded nothing");
    drop(dev);
}

#[test]
fn status_tells_once_as_json_and_as_it_changes() {
    let world = World::quickstart("status");
    let dev = world.dev(&[]).ready();
    let text = world.run(&["status"]).good();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert!(
        text.starts_with("Machines\n  local  online  seen "),
        "{text}"
    );
    assert!(
        words.contains(&dev.url("hello").as_str()) && words.contains(&"healthy"),
        "{text}"
    );
    let json = world.status();
    assert_eq!(json["format"], 1);
    assert_eq!(json["machines"][0]["counts"]["converged"], 5);
    let verbose = world.run(&["status", "--verbose"]).good();
    assert!(
        verbose.contains("revision 1\n") && verbose.contains("status 200"),
        "{verbose}"
    );

    let watch = world.start(&["status", "--watch"]);
    watch.expect(Mark::default(), "0 restarts  healthy", PATIENCE);
    signal(dev.app_pid(), Signal::KILL);
    watch.expect(Mark::default(), "1 restart  healthy", PATIENCE);
    assert_eq!(watch.stop().code, Some(0), "Ctrl-C is no error");
    let watch = world.start(&["status", "--watch", "--output", "json"]);
    let line = watch.expect(Mark::default(), "}\n", PATIENCE);
    let json: serde_json::Value = serde_json::from_str(&line).expect("a document on each line");
    assert_eq!(json["revision"], 1);
    // A watch that loses its control plane says so, in a line.
    let _ = dev.stop();
    let line = watch.end(PATIENCE).err;
    assert!(
        line.starts_with("error: ") && line.trim_end().lines().count() == 1,
        "{line}"
    );
}

#[test]
fn logs_show_what_an_app_wrote_and_what_it_writes() {
    let world = World::quickstart("logs");
    let dev = world.dev(&[]).ready();
    let url = dev.url("hello");
    for n in 0..3 {
        let _ = get(&format!("{url}/line-{n}"));
        // One by one, since lines that are read together bear the same time.
        eventually("the line is there", PATIENCE, || {
            let out = world.run(&["logs", "hello"]).good();
            out.contains(&format!("GET /line-{n}")).then_some(())
        });
    }
    let all = eventually("the lines are there", PATIENCE, || {
        Some(world.run(&["logs", "hello"]).good()).filter(|out| out.contains("GET /line-2"))
    });
    assert!(
        all.contains("app/0   listening on 127.0.0.1:"),
        "standard output: {all}"
    );
    assert!(
        all.contains("app/0 ! ") && all.contains("GET /line-0"),
        "standard error: {all}"
    );
    let tail = world.run(&["logs", "hello", "--tail", "2"]).good();
    assert_eq!(tail.lines().count(), 2, "{tail}");
    assert!(
        tail.contains("GET /line-1") && tail.contains("GET /line-2"),
        "{tail}"
    );

    // Since the time of the last line but one: that and the last.
    let since = tail.split_whitespace().next().unwrap();
    assert_eq!(world.run(&["logs", "hello", "--since", since]).good(), tail);
    assert_eq!(world.run(&["logs", "hello", "--since", "1h"]).good(), all);
    assert_eq!(
        world
            .run(&["logs", "hello", "--since", "2100-01-01T00:00:00Z"])
            .good(),
        ""
    );

    let json = world
        .run(&["logs", "hello", "--tail", "1", "--output", "json"])
        .json();
    assert_eq!(json["machine"], "local");
    assert_eq!(json["stream"], "stderr");
    assert!(json["text"].as_str().unwrap().contains("GET /line-2"));

    let follow = world.start(&["logs", "hello", "-f", "--tail", "1"]);
    follow.expect(Mark::default(), "GET /line-2", PATIENCE);
    let _ = get(&format!("{url}/live"));
    follow.expect(Mark::default(), "GET /live", Duration::from_secs(2));
    // The next incarnation is followed too.
    signal(dev.app_pid(), Signal::KILL);
    eventually("it serves again", PATIENCE, || {
        get(&format!("{url}/reborn"))
    });
    follow.expect(Mark::default(), "GET /reborn", Duration::from_secs(2));
    let said = follow.stop();
    assert_eq!(said.code, Some(0), "Ctrl-C is no error");
    assert!(!said.out.contains("line-1"), "{}", said.out);
    assert!(world.run(&["logs", "nobody"]).one_line().contains("nobody"));
    assert!(
        world
            .run(&["logs", "hello", "--since", "soon"])
            .one_line()
            .contains("10m")
    );
    drop(dev);
}
