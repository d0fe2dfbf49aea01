//! Every explanation is true: its wrong example yields its code, and nothing else; its right one yields nothing.

use super::{diagnostics_page, explain, explanations};
use crate::Code;
use crate::source::SourceFile;

/// Codes without an example: nets below the others, those that are given no longer, and what takes a look at other files.
const NETS: [Code; 4] = [
    Code::KindWithoutDriver,
    Code::KeyWithoutDriver,
    Code::AgainstSchema,
    Code::UnusableSource,
];

#[test]
fn every_code_is_explained_once_and_in_order() {
    let explained: Vec<Code> = explanations().iter().map(|e| e.code).collect();
    assert_eq!(
        explained,
        Code::ALL,
        "each code of code.rs has its `@code` in explain/codes.txt, in the same order"
    );
    for one in explanations() {
        assert!(one.text.len() > 20 && one.title.len() > 5, "{one:?}");
        assert!(!one.title.ends_with('.'), "{one:?}");
    }
}

/// Mutation: exchange the two examples of a code.
#[test]
fn each_wrong_example_yields_its_code_alone_and_each_right_one_nothing() {
    let mut untrue = Vec::new();
    for one in explanations() {
        let (Some(wrong), Some(right)) = (&one.wrong, &one.right) else {
            assert!(NETS.contains(&one.code), "{} has no examples", one.code);
            continue;
        };
        let codes = |example| {
            let (problems, _) = one.run(example);
            problems.items.iter().map(|d| d.code).collect::<Vec<_>>()
        };
        if codes(wrong).is_empty() || codes(wrong).iter().any(|code| *code != one.code) {
            untrue.push(format!(
                "{} wrong: {:?}\n{}",
                one.code,
                codes(wrong),
                one.shown(false)
            ));
        }
        if !codes(right).is_empty() {
            let (problems, _) = one.run(right);
            untrue.push(format!("{} right: {problems}", one.code));
        }
    }
    assert!(untrue.is_empty(), "{}", untrue.join("\n"));
}

#[test]
fn right_examples_are_in_canonical_form() {
    for one in explanations() {
        if let Some(right) = &one.right {
            let file = SourceFile {
                path: right.file.clone(),
                text: right.text.clone().into_bytes(),
            };
            assert_eq!(crate::format(&file).as_deref(), Ok(right.text.as_str()));
        }
    }
}

#[test]
fn a_mistyped_code_finds_the_one_that_was_meant() {
    assert_eq!(explain("p0105").map(|e| e.code), Ok(Code::UnknownKey));
    assert!(matches!(explain("P105"), Err(Some(near)) if near.starts_with("P01")));
    assert_eq!(explain("nonsense"), Err(None));
}

/// Refresh with `PLUMB_UPDATE=1 cargo test -p plumb-blueprint diagnostics_page`.
#[test]
fn the_diagnostics_page_is_current() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/diagnostics.md");
    let page = diagnostics_page();
    if std::env::var_os("PLUMB_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/diagnostics.md is stale: run `PLUMB_UPDATE=1 cargo test -p plumb-blueprint diagnostics_page`"
    );
}

#[test]
fn the_published_schemas_are_schemas() {
    for schema in crate::Kind::ALL
        .into_iter()
        .map(crate::schema)
        .chain([crate::schema_of_any()])
    {
        assert!(jsonschema::meta::is_valid(&schema), "{schema}");
    }
}
