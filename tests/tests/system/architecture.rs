//! The walls between the crates, held against what cargo itself says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// A crate's place in the table of docs/ARCHITECTURE.md.
struct Row {
    name: &'static str,
    /// Of the road from 1 to 6; none for what stands beside it.
    stage: Option<u32>,
}

const fn row(name: &'static str, stage: Option<u32>) -> Row {
    Row { name, stage }
}

/// The table, from the top. A crate depends only on crates above it.
const TABLE: [Row; 12] = [
    row("plumb-model", None),
    row("plumb-blueprint", Some(1)),
    row("plumb-planner", Some(2)),
    row("plumb-ledger", Some(3)),
    row("plumb-dispatch", Some(4)),
    row("plumb-converge", Some(5)),
    row("plumb-driver", Some(6)),
    row("plumb-wire", None),
    row("plumb-control-plane", None),
    row("plumb-agent", None),
    row("plumb-sim", None),
    row("plumb", None),
];

/// The one stage that may use another: what it compiles is what the other has read.
const APART: (&str, &str) = ("plumb-planner", "plumb-blueprint");

/// Builds and tests the rest, and is part of nothing.
const EXEMPT: [&str; 2] = ["plumb-xtask", "plumb-tests"];

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(root())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn cargo(arguments: &[&str]) -> String {
    run(
        &std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()),
        arguments,
    )
}

/// Each crate of the workspace with the crates of the workspace that it uses outside its tests.
fn workspace() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = cargo(&["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let uses = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap();
        dependencies
            .iter()
            .filter(|d| d["path"].is_string() && d["kind"] != "dev")
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect()
    };
    packages
        .iter()
        .map(|p| (p["name"].as_str().unwrap().to_owned(), uses(p)))
        .collect()
}

/// What is wrong with these arrows.
fn wrong_arrows(crates: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let place = |name: &str| TABLE.iter().position(|row| row.name == name);
    let mut wrong = Vec::new();
    for (from, uses) in crates {
        if EXEMPT.contains(&from.as_str()) {
            continue;
        }
        let Some(at) = place(from) else {
            wrong.push(format!("{from} has no row in the table"));
            continue;
        };
        for to in uses {
            let Some(above) = place(to).filter(|above| *above < at) else {
                wrong.push(format!("{from} uses {to}, which is not above it"));
                continue;
            };
            let stages = TABLE[at].stage.is_some() && TABLE[above].stage.is_some();
            if stages && (from.as_str(), to.as_str()) != APART {
                wrong.push(format!("{from} uses {to}, and both are stages"));
            }
        }
    }
    wrong
}

#[test]
fn a_crate_depends_only_on_crates_above_it_and_a_stage_on_no_other_stage() {
    assert_eq!(wrong_arrows(&workspace()), Vec::<String>::new());
}

#[test]
fn an_arrow_that_points_down_or_across_is_found() {
    let check = |from: &str, to: &str, expected: Option<&str>| {
        let one = BTreeMap::from([(from.to_owned(), BTreeSet::from([to.to_owned()]))]);
        assert_eq!(wrong_arrows(&one), expected.into_iter().collect::<Vec<_>>());
    };
    check("plumb-planner", "plumb-blueprint", None);
    check("plumb-agent", "plumb-driver", None);
    check(
        "plumb-model",
        "plumb-wire",
        Some("plumb-model uses plumb-wire, which is not above it"),
    );
    check(
        "plumb-dispatch",
        "plumb-ledger",
        Some("plumb-dispatch uses plumb-ledger, and both are stages"),
    );
    check(
        "plumb-new",
        "plumb-model",
        Some("plumb-new has no row in the table"),
    );
}

#[test]
fn every_row_of_the_table_is_a_crate() {
    let crates = workspace();
    let known: BTreeSet<&str> = TABLE.iter().map(|r| r.name).chain(EXEMPT).collect();
    assert_eq!(known, crates.keys().map(String::as_str).collect());
}

#[test]
fn the_table_of_the_architecture_page_is_this_one() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows: Vec<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| [`")?.split_once("`](../crates/"))
        .map(|(name, _)| match name {
            "cli" => "plumb".to_owned(),
            name => format!("plumb-{name}"),
        })
        .collect();
    let here: Vec<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(rows, here);
}

/// The names of the packages that a crate is linked with, on this host.
fn linked(package: &str) -> BTreeSet<String> {
    let tree = cargo(&[
        "tree",
        "--package",
        package,
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--locked",
    ]);
    tree.lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_decides_is_not_linked_with_what_waits() {
    for name in [
        "plumb-model",
        "plumb-planner",
        "plumb-dispatch",
        "plumb-converge",
    ] {
        let linked = linked(name);
        for bad in ["tokio", "mio", "tonic", "hyper", "sled", "notify", "rustix"] {
            assert!(!linked.contains(bad), "{name} is linked with {bad}");
        }
    }
}

#[test]
fn ring_is_the_one_crypto_provider() {
    let linked = linked("plumb");
    assert!(linked.contains("ring"));
    // What `cargo tree -i aws-lc-sys` would show; an error there may mean this or a package that was never heard of.
    assert!(!linked.contains("aws-lc-sys") && !linked.contains("openssl-sys"));
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    assert!(
        !lock.contains("\"aws-lc-sys\""),
        "no platform and no feature pulls it in"
    );
}

/// A path of somebody's own machine helps no reader of a clone.
#[test]
fn no_file_names_a_folder_of_one_persons_machine() {
    // In pieces, so that this file is not found itself.
    let roots = ["home", "root", "Users", "work", "workspace", "mnt"].join("|");
    let pattern = format!("(^|[^A-Za-z0-9_.~}}-])/({roots})/[A-Za-z0-9_.]");
    let output = Command::new("git")
        .args([
            "grep",
            "-nIE",
            &pattern,
            "--",
            ".",
            ":!LICENSE",
            ":!Cargo.lock",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    // 1: nothing found. Anything above: git could not look.
    let found = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        (output.status.code(), found.as_ref()),
        (Some(1), ""),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `a/{b,c}.rs` is two paths.
fn expanded(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else {
        return vec![text.to_owned()];
    };
    let (choices, after) = rest.split_once('}').expect("a brace that closes");
    choices
        .split(',')
        .map(|choice| format!("{before}{choice}{after}"))
        .collect()
}

/// The paths that a page names: what stands in backticks and has a slash or the ending of a file, and the targets of links.
fn named_paths(page: &str) -> BTreeSet<String> {
    // Inside code spans only; every second piece is one.
    let spans = page.split('`').skip(1).step_by(2);
    let file = |text: &str| {
        [".rs", ".md", ".toml", ".yaml"]
            .iter()
            .any(|end| text.ends_with(end))
    };
    let part = |c: char| c.is_ascii_alphanumeric() || "/._-{},".contains(c);
    let paths = spans
        .filter(|text| text.chars().all(part) && !text.contains(", "))
        .filter(|text| {
            file(text) || text.contains('/') && !text.ends_with('/') && !text.contains("${")
        })
        .flat_map(expanded);
    let links = page
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .filter(|target| !target.contains(':'));
    paths.chain(links).collect()
}

/// Whether something is there: from the root, from a crate's folder, from its sources, or beneath the system tests.
fn exists(path: &str, files: &[String]) -> bool {
    let ends = |tail: &str| {
        files
            .iter()
            .any(|file| file == tail || file.ends_with(&format!("/{tail}")))
    };
    let path = path.trim_start_matches("../");
    root().join(path).exists()
        || root().join("docs").join(path).exists()
        || root().join("crates").join(path).exists()
        || ends(path)
        || ends(&format!("{path}.rs"))
        || ends(&format!("{path}/mod.rs"))
}

/// Mutation: rename a file that the page names.
#[test]
fn every_path_that_the_architecture_names_is_there() {
    let page = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    // The quickstart's file, and addresses of resources.
    let others = [
        "hello.yaml",
        "local/hello/artifact/source",
        "local/hello/process/app/0",
    ];
    let files: Vec<String> = run(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    )
    .lines()
    .map(str::to_owned)
    .collect();
    let named = named_paths(&page);
    assert!(named.len() > 100, "{}", named.len());
    let missing: Vec<&String> = named
        .iter()
        .filter(|path| !others.contains(&path.as_str()) && !exists(path, &files))
        .collect();
    assert!(missing.is_empty(), "docs/ARCHITECTURE.md names {missing:?}");
}
