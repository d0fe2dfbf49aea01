//! Bad input: all of it in one run, at its place, and nothing recorded.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plumb_tests::pair::peak_memory;
use plumb_tests::world::{Said, World};

use crate::dev::steady;

/// A file set with every sort of mistake of the issue.
fn mistaken(workspace: &str) -> World {
    let world = World::quickstart(workspace);
    world.write("syntax.yaml", "kind: App\nname: syntax\nrun: [python3\n");
    world.write(
        "keys.yaml",
        "kind: App\nname: keys\nmachines: local\nrun: sleep 1\nprots: { http: auto }\nreplicas: many\nenv:\n  URL: ${app.nobody.url}\n  WHAT: ${vars.greting}\n",
    );
    world.write(
        "twice.yaml",
        "kind: Setup\nname: hello\nmachines: all\nfiles: {}\n",
    );
    world.write(
        "ports.yaml",
        "kind: App\nname: left\nmachines: local\nrun: sleep 1\nports: { http: 8080 }\n---\nkind: App\nname: right\nmachines: locl\nrun: sleep 1\nports: { http: 8080 }\n---\nkind: App\nname: third\nmachines: local\nrun: sleep 1\nports: { http: 8080 }\n",
    );
    world
}

#[test]
fn every_mistake_is_reported_in_one_run_at_its_place_with_a_hint() {
    let world = mistaken("mistakes");
    let said = world.run(&["validate"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    insta::assert_snapshot!("every_mistake", steady(&world, &said.err));
    for place in [
        "syntax.yaml:",
        "keys.yaml:5:1",
        "keys.yaml:6:11",
        "keys.yaml:8:",
        "keys.yaml:9:",
        "twice.yaml:2:7",
        "ports.yaml:5:",
        "ports.yaml:9:11",
    ] {
        assert!(said.err.contains(place), "{place}: {}", said.err);
    }
    let json = world.run(&["validate", "--output", "json"]);
    assert_eq!((json.code, json.err.as_str()), (Some(1), ""));
    let value: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let items = value["diagnostics"]["items"].as_array().unwrap();
    assert!(items.len() >= 8, "{value:#}");
    assert!(
        items
            .iter()
            .all(|i| i["code"].is_string() && i["file"].is_string() && i["message"].is_string())
    );
}

#[test]
fn bad_input_records_nothing_whatever_command_meets_it() {
    let world = mistaken("nothing");
    let problems = world.run(&["validate"]).err;
    world.run(&["dev", "--once"]).one_problem(&problems);
    assert!(!world.path("state").exists(), "dev has made nothing");
    let server = world.server("server", "here");
    for command in [&["plan"][..], &["apply", "--yes"][..]] {
        world.run(command).one_problem(&problems);
    }
    assert_eq!(world.status()["revision"], 0);
    assert!(
        world
            .run(&["history"])
            .good()
            .contains("Nothing has been applied yet")
    );
    assert_eq!(server.stop().code, Some(0));
}

/// Says that a command failed with just these problems.
trait OneProblem {
    fn one_problem(self, problems: &str);
}

impl OneProblem for plumb_tests::world::Said {
    #[track_caller]
    fn one_problem(self, problems: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""));
        assert_eq!(self.err, problems);
    }
}

#[test]
fn a_good_set_of_blueprints_is_said_to_be_valid() {
    let world = World::quickstart("valid");
    let out = world.run(&["validate"]).good();
    assert_eq!(
        out,
        "Valid. Workspace valid: 1 machine, 1 app, 1 Setup in 3 files.\n"
    );
    let json = world.run(&["validate", "--output", "json"]).json();
    assert_eq!(json["diagnostics"]["items"], serde_json::json!([]));
}

#[test]
fn a_usage_error_exits_with_1_and_shows_the_usage() {
    let world = World::new("usage");
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["plan", "--nope"],
        &["logs"],
        &["status", "--output", "xml"],
        &["token", "create"],
        &["logs", "No Such Name"],
        &["apply", "--timeout", "soon"],
        &["rollback", "app", "first"],
    ] {
        let said = world.run(arguments);
        assert_eq!(
            (said.code, said.out.as_str()),
            (Some(1), ""),
            "{arguments:?}"
        );
        assert!(said.err.contains("--help"), "{arguments:?}: {}", said.err);
    }
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["dev", "--help"],
        &["apply", "-h"],
    ] {
        let said = world.run(arguments);
        assert_eq!(
            (said.code, said.err.as_str()),
            (Some(0), ""),
            "{arguments:?}"
        );
        assert!(said.out.contains("plumb"), "{arguments:?}");
    }
}

#[test]
fn a_folder_without_blueprints_is_one_line_with_the_next_step() {
    let world = World::new("empty");
    std::fs::create_dir(world.path("elsewhere")).unwrap();
    let elsewhere = world.path("elsewhere").display().to_string();
    for command in ["validate", "plan", "apply", "dev"] {
        let line = world.run(&[command, &elsewhere]).one_line();
        assert!(
            line.contains("plumb.yaml") && line.contains("kind: Workspace"),
            "{line}"
        );
        let line = world.run(&[command, "/no/such/folder"]).one_line();
        assert!(line.contains("/no/such/folder"), "{line}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let world = World::quickstart("pipe");
    let plumb = plumb_tests::plumb();
    for arguments in ["schema", "--help", "completions bash", "validate"] {
        let mut command = Command::new("bash");
        command.env("PLUMB", &plumb).current_dir(world.path("repo"));
        command.args([
            "-c",
            &format!("set -o pipefail; \"$PLUMB\" {arguments} | (exec 0<&-; sleep 0.2)"),
        ]);
        let said = world.run_command(&mut command);
        assert_eq!(said.err, "", "{arguments}");
        assert_eq!(said.code, Some(0), "{arguments}");
    }
    let mut command = Command::new("bash");
    command
        .env("PLUMB", &plumb)
        .args(["-c", "set -o pipefail; \"$PLUMB\" schema | head -1"]);
    let said = world.run_command(&mut command);
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (Some(0), "{\n", "")
    );
}

/// Runs `plumb validate` with one file more, and gives what was said and the most memory that was seen in use, in bytes.
fn validate_with(world: &World, name: &str, bytes: &[u8], size: Option<u64>) -> (Said, u64) {
    let path = world.path("repo").join(name);
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(bytes).unwrap();
    if let Some(size) = size {
        file.set_len(size).unwrap();
    }
    let mut command = world.command();
    command.arg("validate");
    // What is said fits into the pipes, so that the process ends by itself.
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        peak = peak.max(peak_memory(child.id()));
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().unwrap();
    std::fs::remove_file(&path).unwrap();
    let said = Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (said, peak)
}

/// Threat rows 1 and 3, in the whole process. Mutations: take `events::read` or `MAX_ALIASED_NODES` out of
/// `blueprint::document` (1); `MAX_DEPTH` out of `blueprint::events`, the bound of `repository::read_text`, the checks of
/// `Source::decode` (3).
#[test]
fn rows_1_and_3_what_would_choke_a_parser_is_refused_within_bounds() {
    let world = World::quickstart("choke");
    let mut bomb = "kind: App\nname: bomb\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let one = format!("*a{}, ", level - 1).repeat(10);
        bomb += &format!("a{level}: &a{level} [{one}]\n");
    }
    let flow = format!("kind: App\nname: deep\nx: {}\n", "[".repeat(100_000));
    let mut block = "kind: App\nname: deep\nx:\n".to_owned();
    for level in 1..1000 {
        block += &format!("{}y:\n", " ".repeat(level));
    }
    let check = |what: &str, bytes: &[u8], size: Option<u64>, expected: &str| {
        let began = Instant::now();
        let (said, peak) = validate_with(&world, "hostile.yaml", bytes, size);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{what}");
        assert!(said.err.contains(expected), "{what}: {}", said.err);
        assert!(said.err.contains("hostile.yaml"), "{what}: {}", said.err);
        assert!(said.err.len() < 4096, "{what}: {}", said.err.len());
        assert!(peak > 0 && peak < 64 << 20, "{what}: {peak} bytes");
        // No measurement: only that it did not begin to choke, on whatever machine this is.
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
    };
    check(
        "alias bomb",
        bomb.as_bytes(),
        None,
        "aliases blow this document up",
    );
    check(
        "100,000 levels",
        flow.as_bytes(),
        None,
        "nested more than 64 levels deep",
    );
    check(
        "1,000 levels",
        block.as_bytes(),
        None,
        "nested more than 64 levels deep",
    );
    let start = b"kind: App\nname: large\n";
    check(
        "100 MB",
        start,
        Some(100_000_000),
        "this file has 100000000 bytes",
    );
    check(
        "invalid UTF-8",
        b"kind: App\nname: \xff\n",
        None,
        "this file is not UTF-8",
    );
    check(
        "UTF-16",
        b"\xff\xfekind: App\nkind: App\n",
        None,
        "this file is UTF-16, not UTF-8",
    );
    check(
        "NUL",
        b"kind: App\nname: a\0b\n",
        None,
        "this file holds a NUL byte",
    );
    // A byte order mark is no mistake, only no part of the first key.
    let bom = "\u{feff}kind: App\nname: marked\nmachines: local\nrun: sleep 1\n";
    let (said, _) = validate_with(&world, "marked.yaml", bom.as_bytes(), None);
    assert!(said.good().contains("2 apps"));
}
