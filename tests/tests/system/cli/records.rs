//! What was recorded, going back to it, and removing it all.

use std::path::Path;

use plumb_tests::world::{World, get};

use super::other;
use crate::dev::steady;

/// A row of a table, as its cells.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .collect()
        })
        .collect()
}

#[test]
fn history_tells_release_time_author_commit_and_outcome_and_rollback_goes_forward() {
    let world = World::quickstart("history");
    world.git(&["init", "--quiet"]);
    world.git(&["add", "."]);
    world.git(&["commit", "--quiet", "--message", "Start with a greeting"]);
    let dev = world.dev(&[]).ready();
    let url = dev.url("hello");
    let folder = other(&world, "second");
    let _ = world.run(&["apply", &folder, "--yes"]).good();
    assert!(get(&url).unwrap().1.starts_with("second (release 2, "));

    let table = world.run(&["history", "hello"]).good();
    let cells = rows(&table);
    assert_eq!(
        cells[0],
        [
            "APP",
            "RELEASE",
            "WHEN (UTC)",
            "BY",
            "WHY",
            "COMMIT",
            "OUTCOME"
        ]
    );
    assert_eq!(cells.len(), 3, "{table}");
    for (row, release, dirty) in [(&cells[1], "2", "+changes"), (&cells[2], "1", " Ada")] {
        assert_eq!(
            (row[0], row[1], row[3], row[4], row[6]),
            ("hello", release, "local", "apply", "converged")
        );
        assert!(
            row[5].ends_with(" Ada Lovelace <ada@example.org> \"Start with a greeting\""),
            "{row:?}"
        );
        assert!(row[5][10..].starts_with(dirty), "{row:?}");
        assert_eq!(row[2].len(), "2026-11-21 08:00:00".len());
    }
    let json = world.run(&["history", "--output", "json"]).json();
    assert_eq!(
        json["history"][0]["record"]["commit"]["author"],
        "Ada Lovelace <ada@example.org>"
    );
    assert_eq!(json["history"][1]["record"]["commit"]["dirty"], false);
    assert_eq!(json["history"][0]["outcomes"]["hello"], "converged");
    let one = world
        .run(&["history", "--limit", "1", "--output", "json"])
        .json();
    assert_eq!(one["history"].as_array().unwrap().len(), 1);

    let said = world.run(&["rollback", "hello"]);
    assert_eq!(said.code, Some(1), "nobody can be asked");
    insta::assert_snapshot!("plan_of_a_rollback", steady(&world, &said.out));
    assert!(
        get(&url).unwrap().1.starts_with("second "),
        "nothing was changed"
    );
    let out = world.run(&["rollback", "hello", "1", "--yes"]).good();
    assert!(out.contains("\nConverged.\n"), "{out}");
    assert!(
        get(&url)
            .unwrap()
            .1
            .starts_with("true to the blueprint (release 3, "),
        "forward, as a new release"
    );
    let motd = || std::fs::read_to_string(world.managed("motd")).unwrap();
    assert_eq!(motd(), "second\n", "the Setup was not asked for");
    let table = world.run(&["history", "hello"]).good();
    let newest = &rows(&table)[1];
    assert_eq!((newest[1], newest[4]), ("3", "rollback to 1"), "{table}");

    let _ = world.run(&["rollback", "base", "--yes"]).good();
    assert_eq!(motd(), "true to the blueprint\n");
    for (arguments, why) in [
        (&["rollback", "hello", "99", "--yes"][..], "99"),
        (&["rollback", "nobody", "--yes"][..], "nobody"),
    ] {
        let line = world.run(arguments).one_line();
        assert!(line.contains(why), "{line}");
    }
    drop(dev);
}

#[test]
fn destroy_proves_that_everything_is_gone() {
    let world = World::quickstart("destroy");
    // What it did not make it does not remove.
    std::fs::write(world.managed("mine"), "mine").unwrap();
    world.edit(
        "base.yaml",
        &format!("  {}: {{ mode", world.managed("").trim_end_matches('/')),
        &format!("  {}: {{ mode", world.managed("own")),
    );
    let dev = world.dev(&[]).ready();
    let (url, app) = (dev.url("hello"), dev.app_pid());
    assert!(world.path("managed/own").is_dir());
    let said = world.run(&["destroy"]);
    assert_eq!(said.code, Some(1));
    assert!(
        said.out.contains("everything is removed") && said.err.contains("--yes"),
        "{said:?}"
    );
    assert!(get(&url).is_some(), "nothing was changed");

    let said = world.run(&["destroy", "--yes"]);
    assert_eq!(said.code, Some(0), "{said:?}");
    for gone in ["motd", "app.toml", "own"] {
        assert!(!Path::new(&world.managed(gone)).exists(), "{gone}");
    }
    assert_eq!(
        std::fs::read_to_string(world.managed("mine")).unwrap(),
        "mine"
    );
    assert_eq!(get(&url), None);
    assert!(!plumb_tests::world::alive(app));
    assert_eq!(world.processes(), [dev.pid()], "the shim is gone too");
    assert_eq!(world.status()["owners"], serde_json::json!([]));
    let text = world.run(&["status"]).good();
    assert!(text.contains("none recorded"), "{text}");
    let agent = world.path("state/plumb/dev/destroy/agent");
    let left = |name: &str| std::fs::read_dir(agent.join(name)).map_or(0, Iterator::count);
    assert_eq!(
        (left("processes"), left("artifacts")),
        (0, 0),
        "nothing of it is kept"
    );
    let table = world.run(&["history"]).good();
    assert!(
        table.contains("destroy") && table.contains("removed"),
        "{table}"
    );

    // And all of it comes back when it is applied again.
    let out = world.run(&["apply", "--yes"]).good();
    assert!(out.contains("\nConverged.\n"), "{out}");
    assert!(Path::new(&world.managed("motd")).is_file());
    drop(dev);
}
