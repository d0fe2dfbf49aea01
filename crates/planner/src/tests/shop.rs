//! The example shop plans: for a fleet that was never heard of, so that nothing is judged by what machines can do.

use std::collections::BTreeMap;
use std::path::Path;

use plumb_blueprint::{BlueprintSet, Options, SourceFile, parse, render};
use plumb_model::state::Recorded;
use plumb_model::{Hash, Lineage, WorkspaceName};

use crate::{Input, Observed, Request, Source, plan};

fn shop(root: &Path) -> BlueprintSet {
    let mut files = Vec::new();
    for folder in ["", "machines", "apps"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml") {
                files.push(SourceFile {
                    path: path
                        .strip_prefix(root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                    text: std::fs::read(&path).unwrap(),
                });
            }
        }
    }
    let read = |path: String| SourceFile {
        text: std::fs::read(root.join(&path)).unwrap(),
        path,
    };
    let options = Options {
        others: plumb_blueprint::others(&files)
            .into_iter()
            .map(read)
            .collect(),
        ..Options::default()
    };
    parse(&files, &options)
        .unwrap_or_else(|problems| panic!("{}", render(&problems, &files, false)))
}

/// Every resource kind of the language but those of the Compose file, which the command line hands in, is in the plan.
fn every_kind_is_planned(root: &Path) {
    let blueprint = shop(root);
    let source = |path: &String| Source {
        digest: Hash::of(path.as_bytes()),
        size: 1024,
        text: None,
    };
    let sources: BTreeMap<String, Source> = blueprint
        .paths
        .iter()
        .map(|path| (path.clone(), source(path)))
        .collect();
    let request = Request::Apply {
        blueprint,
        sources,
        ask: Default::default(),
    };
    let planned = plan(Input {
        request: &request,
        recorded: &Recorded::default(),
        lineage: &Lineage::from_random([1; 16]),
        workspace: &WorkspaceName::new("shop").unwrap(),
        observed: &Observed::default(),
        secrets: plumb_model::KnownSecrets::UNASKED,
        commit: None,
    });
    let planned = planned.unwrap_or_else(|problems| panic!("{problems:#?}"));
    let mut kinds: Vec<String> = planned
        .plan
        .changes
        .iter()
        .map(|change| change.address.kind.to_string())
        .collect();
    kinds.sort();
    kinds.dedup();
    for kind in [
        "artifact",
        "build",
        "checkout",
        "container",
        "directory",
        "file",
        "image",
        "network",
        "package",
        "process",
        "route",
        "service",
        "task",
        "toolchain",
        "volume",
    ] {
        assert!(kinds.iter().any(|k| k == kind), "no {kind} among {kinds:?}");
    }
}

#[test]
fn the_example_shop_is_planned_with_every_kind_of_resource() {
    every_kind_is_planned(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints-examples/shop"),
    );
}
