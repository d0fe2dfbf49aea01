//! Which control plane is talked to, and what is said when that does not work: one line with the next step.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use plumb_tests::world::{Said, World};
use serde_json::Value;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn dev_writes_a_private_context_that_other_commands_find() {
    let world = World::quickstart("private");
    let dev = world.dev(&[]).ready();
    assert_eq!(mode(&world.context()), 0o600);
    assert_eq!(mode(world.context().parent().unwrap()), 0o700);
    let named = world
        .run(&["status", "--context", "private", "--output", "json"])
        .json();
    assert_eq!(named["revision"], 1);

    // Another control plane leaves the current one to the other terminals; both can be chosen, in each of three ways.
    let server = world.server("other", "other");
    assert_eq!(mode(&world.path("config/plumb/contexts/other.json")), 0o600);
    let revision = |said: Said| said.json()["revision"].clone();
    let status = ["status", "--output", "json"];
    assert_eq!(
        revision(world.run(&status)),
        1,
        "the first is the current one while it runs"
    );
    let path = world.context().display().to_string();
    for chosen in ["private", &path] {
        assert_eq!(
            revision(world.run(&["status", "--output", "json", "--context", chosen])),
            1
        );
        let by_variable = |extra: &[&str]| {
            world.run_command(
                world
                    .command()
                    .env("PLUMB_CONTEXT", chosen)
                    .args(status)
                    .args(extra),
            )
        };
        assert_eq!(revision(by_variable(&[])), 1);
        assert_eq!(
            revision(by_variable(&["--context", "other"])),
            0,
            "the flag is stronger"
        );
    }
    let line = world.run(&["status", "--context", "nope"]).one_line();
    assert!(
        line.contains("\"nope\"") && line.contains("private") && line.contains("other"),
        "{line}"
    );
    assert_eq!(server.stop().code, Some(0));
    assert_eq!(dev.stop().code, Some(0));
}

/// A context file like another one with changes.
fn altered(world: &World, name: &str, change: impl FnOnce(&mut Value)) -> String {
    let text = fs::read(world.path("config/plumb/contexts/real.json")).unwrap();
    let mut value: Value = serde_json::from_slice(&text).unwrap();
    change(&mut value);
    let path = world.path(&format!("config/{name}.json"));
    fs::write(&path, value.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn what_keeps_a_command_from_its_control_plane_is_one_line_with_the_next_step() {
    let world = World::quickstart("refused");
    let line = world.run(&["status"]).one_line();
    assert!(
        line.contains("plumb dev") && line.contains("--context"),
        "no context: {line}"
    );

    let server = world.server("real", "real");
    let stranger = world.server("stranger", "stranger");
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let strange: Value = serde_json::from_slice(
        &fs::read(world.path("config/plumb/contexts/stranger.json")).unwrap(),
    )
    .unwrap();

    let unreachable = altered(&world, "unreachable", |c| {
        c["address"] = nobody.as_str().into()
    });
    let nonsense = altered(&world, "nonsense", |c| c["address"] = "somewhere".into());
    let token = altered(&world, "token", |c| {
        let token = c["token"].as_str().unwrap();
        let last = if token.ends_with('0') { '1' } else { '0' };
        c["token"] = format!("{}{last}", &token[..token.len() - 1]).into();
    });
    let no_token = altered(&world, "notoken", |c| c["token"] = "line\nbreak".into());
    let ca = altered(&world, "ca", |c| c["ca_pem"] = strange["ca_pem"].clone());
    let bad_ca = altered(&world, "badca", |c| c["ca_pem"] = "nonsense".into());
    let damaged = world.path("config/damaged.json").display().to_string();
    fs::write(&damaged, "{ \"format\": 1, \"address\"").unwrap();
    let missing = world.path("config/missing.json").display().to_string();

    for (context, cause, step) in [
        (
            &unreachable,
            nobody.as_str(),
            "start it with `plumb server`",
        ),
        (&nonsense, "somewhere", "write HOST:PORT"),
        (&token, "token", "plumb"),
        (
            &no_token,
            "token",
            "start `plumb dev` or `plumb server` again",
        ),
        (&ca, "is not the control plane", "get a new context file"),
        (
            &bad_ca,
            "is not the control plane",
            "get a new context file",
        ),
        (
            &damaged,
            "damaged.json",
            "start `plumb dev` or `plumb server` again",
        ),
        (&missing, "missing.json", "--context"),
    ] {
        for command in [
            &["status"][..],
            &["status", "--watch"],
            &["plan"],
            &["apply", "--yes"],
            &["logs", "hello"],
            &["history"],
            &["rollback", "hello"],
            &["destroy", "--yes"],
            &["token", "create", "--join"],
        ] {
            let line = world
                .run_command(world.command().args(command).args(["--context", context]))
                .one_line();
            assert!(line.contains(cause), "{command:?}: {line}");
            assert!(line.contains(step), "{command:?}: {line}");
        }
    }
    assert_eq!(
        world
            .run(&["status", "--context", "real", "--output", "json"])
            .json()["revision"],
        0
    );

    // The folder of the one that runs is its own.
    let data = world.path("real").display().to_string();
    let line = world
        .run(&["server", "--data", &data, "--listen", "127.0.0.1:0"])
        .one_line();
    assert!(
        line.contains(&format!("process {}", server.pid())) && line.contains(&data),
        "{line}"
    );
    assert_eq!(stranger.stop().code, Some(0));
    assert_eq!(server.stop().code, Some(0));

    let format = world.path("real/format");
    let before = fs::read_to_string(&format).unwrap();
    let number: String = before.chars().filter(char::is_ascii_digit).collect();
    fs::write(&format, before.replace(&number, "99")).unwrap();
    let line = world
        .run(&["server", "--data", &data, "--listen", "127.0.0.1:0"])
        .one_line();
    assert!(line.contains("99") && line.contains("newer"), "{line}");
}

#[test]
fn the_token_is_told_nowhere_even_when_everything_is_logged() {
    let mut world = World::quickstart("canary");
    world.traced = true;
    // The world searches everything that was printed, and every file but the context, when it ends.
    let mut command = world.command();
    command
        .env("PLUMB_LOG", "trace")
        .args(["dev", "--once", "--verbose"]);
    let said = world.run_command(&mut command);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.err.contains("TRACE"), "it did log everything");
}
