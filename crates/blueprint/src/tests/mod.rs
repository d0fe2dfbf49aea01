//! Whole runs: files in, a set or rendered problems out.

mod bad;
mod good;
mod threats;

use crate::{BlueprintSet, Code, Diagnostics, Options, SourceFile, parse, render};

pub(crate) const MANIFEST: &str = "kind: Workspace\nname: shop\nvars: { domain: example.com }\n";
pub(crate) const MACHINES: &str = "kind: Machine\nname: web-1\nlabels: { role: web, zone: fra }\naddress: { private: 10.0.0.10 }\n---\nkind: Machine\nname: web-2\nlabels: { role: web, zone: nbg }\naddress: { private: 10.0.0.11 }\n";

/// The Compose file that stands beside every test's blueprints.
pub(crate) const COMPOSE: &str = "services:\n  web:\n    image: wiki:3\n    ports: [\"8099:80\"]\n    volumes: [data:/var/lib/wiki]\nvolumes:\n  data:\n";

pub(crate) fn files(list: &[(&str, &str)]) -> Vec<SourceFile> {
    list.iter()
        .map(|(path, text)| SourceFile {
            path: (*path).into(),
            text: text.as_bytes().to_vec(),
        })
        .collect()
}

pub(crate) fn run(list: &[(&str, &str)]) -> Result<BlueprintSet, Diagnostics> {
    let options = Options {
        others: files(&[("wiki/compose.yaml", COMPOSE), ("apps/c.yaml", COMPOSE)]),
        ..Options::default()
    };
    parse(&files(list), &options)
}

/// One file beside a manifest and two machines.
pub(crate) fn with(text: &str) -> Result<BlueprintSet, Diagnostics> {
    run(&[
        ("plumb.yaml", MANIFEST),
        ("machines.yaml", MACHINES),
        ("apps/x.yaml", text),
    ])
}

/// The set, or a panic with the rendered problems.
pub(crate) fn good(text: &str) -> BlueprintSet {
    with(text).unwrap_or_else(|problems| {
        panic!(
            "{}",
            render(
                &problems,
                &files(&[
                    ("apps/x.yaml", text),
                    ("plumb.yaml", MANIFEST),
                    ("machines.yaml", MACHINES)
                ]),
                false
            )
        )
    })
}

/// `CODE line:column` of every problem of the file `apps/x.yaml`.
pub(crate) fn codes(text: &str) -> Vec<String> {
    let problems = match with(text) {
        Ok(set) => set.warnings,
        Err(problems) => problems,
    };
    problems
        .items
        .iter()
        .map(|d| {
            let at = d.spans.first().map_or_else(
                || "-".to_owned(),
                |s| format!("{}:{}+{}", s.line, s.column, s.length),
            );
            format!("{} {at}", d.code)
        })
        .collect()
}

pub(crate) fn rendered(list: &[(&str, &str)]) -> String {
    let files = files(list);
    match parse(&files, &Options::default()) {
        Ok(set) => render(&set.warnings, &files, false),
        Err(problems) => render(&problems, &files, false),
    }
}

pub(crate) fn only_code(result: Result<BlueprintSet, Diagnostics>) -> Code {
    let problems = result.expect_err("it must be refused");
    assert_eq!(problems.items.len(), 1, "{problems}");
    problems.items[0].code
}
