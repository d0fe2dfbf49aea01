//! The rows of the threat table that this crate holds. Each test bears its row's number, and names the
//! mutation under which it fails.

use std::time::{Duration, Instant};

use super::{MACHINES, MANIFEST, codes, only_code, rendered, run, with};
use crate::{Code, MAX_FILE_BYTES, Options, SourceFile, parse};

/// What the table allows; the real times are milliseconds.
const DEADLINE: Duration = Duration::from_secs(1);

fn refused_quickly(text: &str, expected: Code) {
    let start = Instant::now();
    let found = with(text).expect_err("it must be refused");
    assert!(
        start.elapsed() < DEADLINE,
        "{expected:?} took {:?}",
        start.elapsed()
    );
    assert!(found.items.iter().any(|d| d.code == expected), "{found}");
}

/// Row 1. Mutation: drop the count of aliased nodes, or run `value::read` before `events::read`.
#[test]
fn row_1_an_alias_bomb_is_refused_at_once() {
    let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let one = format!("*a{}", n - 1);
        laughs.push_str(&format!("a{n}: &a{n} [{}]\n", [one.as_str(); 9].join(", ")));
    }
    refused_quickly(&laughs, Code::AliasBomb);
    // Quadratic: one long list, repeated often. 20 kB took serde_yaml 13 s.
    let list = vec!["x"; 5000].join(",");
    let uses = vec!["*l"; 5000].join(",");
    refused_quickly(&format!("a: &l [{list}]\nb: [{uses}]\n"), Code::AliasBomb);
    refused_quickly("a: &a [*a]\n", Code::AliasBomb);
    refused_quickly("a: &a { b: *a }\n", Code::AliasBomb);
    // Depth that only shows once aliases are followed.
    let mut deep = String::from("a0: &a0 [x]\n");
    for n in 1..100 {
        deep.push_str(&format!("a{n}: &a{n} [*a{}]\n", n - 1));
    }
    refused_quickly(&deep, Code::TooDeep);
}

/// Row 2. Mutation: `Pass::key` without the map of seen keys; `deny_unknown_fields` off any written type.
#[test]
fn row_2_duplicate_and_unknown_keys_are_errors_at_their_place() {
    assert_eq!(
        codes("kind: App\nname: a\nmachines: all\nrun: x\nrun: y\n"),
        ["P0007 5:1+3"]
    );
    assert_eq!(
        codes("kind: App\nname: a\nmachines: all\nrun: x\nenv: { A: a, \"A\": b }\n"),
        ["P0007 5:14+3"]
    );
    for (parent, text) in [
        ("App", "run: x\nzzz: 1\n"),
        ("source", "run: x\nsource: { path: ., zzz: 1 }\n"),
        ("process", "processes: { a: { run: x, zzz: 1 } }\n"),
        ("port", "run: x\nports: { http: { port: 1, zzz: 1 } }\n"),
        (
            "health",
            "run: x\nports: { http: 1 }\nhealth: { path: /, zzz: 1 }\n",
        ),
        ("restart", "run: x\nrestart: { zzz: 1 }\n"),
        ("backoff", "run: x\nrestart: { backoff: { zzz: 1 } }\n"),
        ("stop", "run: x\nstop: { zzz: 1 }\n"),
        ("log", "run: x\nlog: { zzz: 1 }\n"),
    ] {
        let found = codes(&format!("kind: App\nname: a\nmachines: all\n{text}"));
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("P0105")),
            "{parent}: {found:?}"
        );
    }
    for text in [
        "kind: Setup\nname: s\nmachines: all\nzzz: 1\n",
        "kind: Setup\nname: s\nmachines: all\nfiles: { /a: { content: x, zzz: 1 } }\n",
        "kind: Setup\nname: s\nmachines: all\ndirectories: { /a: { zzz: 1 } }\n",
        "kind: Machine\nname: m\nzzz: 1\n",
        "kind: Machine\nname: m\naddress: { zzz: a }\n",
        "kind: Machine\nname: m\nprice: { monthly: 1, currency: EUR, zzz: 1 }\n",
    ] {
        let found = codes(text);
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with("P0105")),
            "{text}: {found:?}"
        );
    }
    for text in [
        "zzz: 1",
        "policy: { zzz: 1 }",
        "defaults: { zzz: {} }",
        "defaults: { App: { zzz: 1 } }",
        "defaults: { Setup: { zzz: 1 } }",
    ] {
        assert_eq!(
            only_code(run(&[("plumb.yaml", &format!("{MANIFEST}{text}\n"))])),
            Code::UnknownKey,
            "{text}"
        );
    }
}

/// Row 3. Mutation: drop the depth limit (the stack overflows), the size limit, or a check in `decode`.
#[test]
fn row_3_what_no_parser_should_see_is_refused_before_it_does() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(100_000),
        (0..1000)
            .map(|n| format!("{}a:\n", " ".repeat(n)))
            .collect(),
    ] {
        refused_quickly(&text, Code::TooDeep);
    }
    let file = |text: Vec<u8>| SourceFile {
        path: "x.yaml".into(),
        text,
    };
    let manifest = file(MANIFEST.as_bytes().to_vec());
    for (bytes, expected, at) in [
        (vec![b'a'; 100 << 20], Code::FileTooLarge, None),
        (vec![b'a'; MAX_FILE_BYTES + 1], Code::FileTooLarge, None),
        (
            b"kind: App\nname: \xff\n".to_vec(),
            Code::NotUtf8,
            Some((2, 7)),
        ),
        (b"\xff\xfek\0".to_vec(), Code::NotUtf8, Some((1, 1))),
        (
            b"kind: App\nname: a\0b\n".to_vec(),
            Code::ControlCharacter,
            Some((2, 8)),
        ),
        (
            b"a: \x1b[31m\n".to_vec(),
            Code::ControlCharacter,
            Some((1, 4)),
        ),
    ] {
        let start = Instant::now();
        let problems = parse(&[manifest.clone(), file(bytes)], &Options::default()).unwrap_err();
        assert!(start.elapsed() < DEADLINE);
        assert_eq!(problems.items[0].code, expected, "{problems}");
        let span = problems.items[0].spans.first().map(|s| (s.line, s.column));
        assert_eq!(span, at, "{expected:?}");
    }
    assert!(run(&[("plumb.yaml", &format!("\u{feff}{MANIFEST}"))]).is_ok());
}

/// Row 4. Mutation: take any name as it is, in `Reader::parse_name` or in a grammar of `scalar`.
#[test]
fn row_4_a_hostile_name_is_a_grammar_error() {
    let long = "x".repeat(10_000);
    for bad in [
        "a;b", "$(x)", "a\\nb", "-x", "..", "../x", "a/b", "A", "", "a b", "`id`", "a\\0b", &long,
    ] {
        for text in [
            format!("kind: Machine\nname: \"{bad}\"\n"),
            format!("kind: App\nname: \"{bad}\"\nmachines: all\nrun: x\n"),
            format!("kind: Setup\nname: \"{bad}\"\nmachines: all\n"),
            format!("kind: App\nname: a\nmachines: \"{bad}\"\nrun: x\n"),
            format!("kind: App\nname: a\nmachines: [\"{bad}\"]\nrun: x\n"),
            format!("kind: App\nname: a\nmachines: all\nprocesses: {{ \"{bad}\": x }}\n"),
            format!("kind: App\nname: a\nmachines: all\nrun: x\nports: {{ \"{bad}\": auto }}\n"),
        ] {
            // A flow key is at most 1,024 characters long, so a very long one is a syntax error.
            let found = codes(&text);
            assert!(
                matches!(found.as_slice(), [one, ..] if one.starts_with("P0201") || bad.len() > 1000 && one.starts_with("P0004")),
                "{text}: {found:?}"
            );
        }
        let manifest = format!("kind: Workspace\nname: \"{bad}\"\n");
        assert_eq!(
            only_code(run(&[("plumb.yaml", &manifest)])),
            Code::BadName,
            "{bad}"
        );
    }
    for (text, code) in [
        (
            "kind: App\nname: a\nmachines: all\nrun: x\nuser: \"a;b\"\n",
            "P0206",
        ),
        (
            "kind: App\nname: a\nmachines: all\nrun: x\nenv: { \"A=B\": x }\n",
            "P0205",
        ),
        (
            "kind: App\nname: a\nmachines: all\nrun: \"x\\0y\"\n",
            "P0213",
        ),
        (
            "kind: App\nname: a\nmachines: all\nrun: x\nenv: { A: \"x\\0y\" }\n",
            "P0213",
        ),
        (
            "kind: Setup\nname: s\nmachines: all\nfiles: { \"/a\\0b\": { content: x } }\n",
            "P0204",
        ),
        (
            "kind: Setup\nname: s\nmachines: all\ndirectories: { \"/a\\nb\": {} }\n",
            "P0204",
        ),
        (
            "kind: App\nname: a\nmachines: all\nrun: x\nports: { a: 1 }\nhealth: \"/ HTTP/1.1\\r\\nX: y\"\n",
            "P0210",
        ),
    ] {
        let found = codes(text);
        assert!(
            matches!(found.as_slice(), [one] if one.starts_with(code)),
            "{text}: {found:?}"
        );
    }
}

/// Row 7. Mutation: leave out any of the checks of `cross`.
#[test]
fn row_7_what_is_claimed_twice_is_refused_with_both_claims() {
    let app = |name: &str, machines: &str, rest: &str| {
        format!("kind: App\nname: {name}\nmachines: {machines}\nrun: x\n{rest}---\n")
    };
    let setup = |name: &str, machines: &str, rest: &str| {
        format!("kind: Setup\nname: {name}\nmachines: {machines}\n{rest}---\n")
    };
    for (text, expected) in [
        (
            app("a", "all", "ports: { http: 80 }\n") + &app("b", "web-1", "ports: { http: 80 }\n"),
            vec![Code::PortClash],
        ),
        (
            app("a", "web-2", "ports: { http: 80 }\n")
                + &app("b", "web-1", "ports: { http: 80 }\n"),
            vec![],
        ),
        (
            app("a", "all", "ports: { x: 80, y: 80 }\n"),
            vec![Code::PortClash],
        ),
        (
            app("a", "all", "replicas: 3\nports: { x: 80 }\n"),
            vec![Code::PortClash],
        ),
        (
            app("a", "all", "replicas: 1\nports: { x: 80 }\n")
                + &app("b", "web-1", "ports: { x: 80 }\n"),
            vec![],
        ),
        (
            app("a", "all", "") + &app("a", "all", ""),
            vec![Code::DuplicateName],
        ),
        (
            app("a", "all", "") + &setup("a", "all", ""),
            vec![Code::DuplicateName],
        ),
        (
            "kind: Machine\nname: web-1\n".to_owned(),
            vec![Code::DuplicateName],
        ),
        (
            setup("a", "all", "files: { /x: { content: a } }\n")
                + &setup("b", "web-2", "directories: { /x: {} }\n"),
            vec![Code::PathClash],
        ),
        (
            setup("a", "web-1", "files: { /x: { content: a } }\n")
                + &setup("b", "web-2", "files: { /x: { content: a } }\n"),
            vec![],
        ),
        (
            setup("a", "all", "files: { /x: { content: a } }\n")
                + &setup("b", "all", "files: { /x/y/z: { content: a } }\n"),
            vec![Code::PathClash],
        ),
        (
            setup("a", "all", "directories: { /x: {} }\n")
                + &setup("b", "all", "files: { /x/y/z: { content: a } }\n"),
            vec![],
        ),
    ] {
        let problems = with(&text).err().unwrap_or_default();
        let found: Vec<Code> = problems.items.iter().map(|d| d.code).collect();
        assert_eq!(found, expected, "{text}{problems}");
        let both = |d: &crate::Diagnostic| d.spans.len() == 2 || d.message.contains("3 instances");
        assert!(problems.items.iter().all(both), "{text}{problems:?}");
    }
    let clash = app("a", "all", "ports: { http: 8080 }\n")
        + &app(
            "b",
            "web-1",
            "ports: { admin: 8080 }\nenv: { X: \"${app.c.url}\" }\n",
        );
    insta::assert_snapshot!(
        "row_7",
        rendered(&[
            ("plumb.yaml", MANIFEST),
            ("m.yaml", MACHINES),
            ("x.yaml", &clash)
        ])
    );
}

/// Row 8, as far as a parser can see it: nothing at all is no empty workspace. Mutation: make up a manifest.
/// That fewer things than before, or another name, need a consent is for the planner to say.
#[test]
fn row_8_an_emptied_repository_is_no_workspace() {
    assert_eq!(only_code(run(&[])), Code::NoManifest);
    assert_eq!(
        only_code(run(&[("plumb.yaml", ""), ("apps/x.yaml", "# gone\n")])),
        Code::NoManifest
    );
}
