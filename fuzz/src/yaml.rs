//! Blueprint files: any bytes give a set or problems, and a set gives a plan.

use std::collections::BTreeSet;

use plumb_blueprint::{BlueprintSet, Diagnostics, Options, SourceFile, parse};

use crate::{apply, problems};

/// Starts a file in an input; the rest of the line is its path.
const MARKER: &[u8] = b"#= ";

const MANIFEST: &str = "kind: Workspace\nname: shop\nvars: { domain: example.com }\n";
const MACHINES: &str = "kind: Machine\nname: web-1\nlabels: { role: web }\naddress: { private: 10.0.0.10 }\n---\nkind: Machine\nname: web-2\nlabels: { role: web }\naddress: { private: 10.0.0.11 }\n";

fn file(path: &str, text: &[u8]) -> SourceFile {
    SourceFile {
        path: path.to_owned(),
        text: text.to_vec(),
    }
}

/// Cuts an input into files at the lines that start with `#= PATH`. One without such a line is a file beside a
/// manifest and two machines, so that a single document means something.
#[must_use]
pub fn files(data: &[u8]) -> Vec<SourceFile> {
    let mut files: Vec<SourceFile> = Vec::new();
    let mut paths = BTreeSet::new();
    let mut before = Vec::new();
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if let Some(path) = line.strip_prefix(MARKER) {
            let path = String::from_utf8_lossy(path).trim_end().to_owned();
            // Two files of one path cannot be: the rest of the input belongs to the one that is there.
            if !path.is_empty() && paths.insert(path.clone()) {
                files.push(file(&path, b""));
                continue;
            }
        }
        match files.last_mut() {
            Some(file) => file.text.extend_from_slice(line),
            None => before.extend_from_slice(line),
        }
    }
    if files.is_empty() {
        files = vec![
            file("plumb.yaml", MANIFEST.as_bytes()),
            file("machines.yaml", MACHINES.as_bytes()),
            file("apps/x.yaml", &before),
        ];
    }
    files
}

/// Reads them as `plumb validate` would, with the overlay that is there.
pub(crate) fn read(files: &[SourceFile]) -> Result<BlueprintSet, Diagnostics> {
    let overlaid = files
        .iter()
        .any(|file| file.path.ends_with("plumb.staging.yaml"));
    let env = overlaid.then(|| "staging".to_owned());
    parse(
        files,
        &Options {
            env,
            ..Options::default()
        },
    )
}

/// Holds all of it for one input.
pub fn check(data: &[u8]) {
    let files = files(data);
    let result = read(&files);
    let reversed: Vec<SourceFile> = files.iter().rev().cloned().collect();
    assert!(read(&reversed) == result, "the order of the files matters");
    match result {
        Ok(set) => {
            problems::check(&set.warnings, &files);
            let bytes = serde_json::to_vec(&set).expect("a set is JSON");
            let read: BlueprintSet = serde_json::from_slice(&bytes).expect("a set reads back");
            let sent = BlueprintSet {
                warnings: Diagnostics::default(),
                ..set
            };
            assert!(read == sent, "a set reads back as another");
            apply::check(&sent);
        }
        Err(found) => {
            assert!(found.errors() > 0, "refused without a word");
            problems::check(&found, &files);
        }
    }
}
