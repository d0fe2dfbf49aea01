//! What each diagnostic code means: what is wrong and why it matters, an example with the very diagnostic, and the same
//! example mended. `plumb explain CODE` prints one; `docs/diagnostics.md` holds them all.
//!
//! The texts are in `codes.txt`. Its lines that begin with `@` divide it: `@code CODE TITLE` begins a code, with its text
//! below; `@wrong FILE` and `@right FILE` begin the two examples, each a file beside [`MANIFEST`] or in its place;
//! `@generated NAME` stands for an example that cannot be shown as text; `@env NAME` chooses an environment for both;
//! `@net` says that there is none. Tests run every example.

mod generated;
mod page;

#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use serde::Serialize;

use crate::code::Code;
use crate::diagnostic::Diagnostics;
use crate::nearest::nearest;
use crate::parse::{Options, parse};
use crate::render::render;
use crate::source::SourceFile;

pub use page::diagnostics_page;

/// The manifest that stands beside every example, unless the example brings its own.
pub const MANIFEST: &str = "kind: Workspace
name: shop
vars: { domain: example.com }
---
kind: Machine
name: web-1
labels: { role: web }
address: { private: 10.0.0.10 }
";

/// An example of this name is a Compose file.
const COMPOSE: &str = "compose.yaml";

/// The app that stands beside an example that is a Compose file.
const WIKI: &str = "kind: App
name: wiki
machines: web-1
compose: compose.yaml
";

/// An example of a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Example {
    /// The file's name.
    pub file: String,
    /// The file's text; for one that cannot be shown, a description in brackets.
    pub text: String,
    /// Which generator makes the real bytes.
    #[serde(skip)]
    generated: Option<String>,
}

/// What a code means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The code.
    pub code: Code,
    /// A few words.
    pub title: String,
    /// What is wrong and why it matters.
    pub text: String,
    /// The environment that the examples are read for.
    pub env: Option<String>,
    /// A file that yields the code, if there is one.
    pub wrong: Option<Example>,
    /// The same file without the problem.
    pub right: Option<Example>,
}

impl Explanation {
    /// The diagnostics of an example, and the files that they are about.
    fn run(&self, example: &Example) -> (Diagnostics, Vec<SourceFile>) {
        let mut files = Vec::new();
        if example.file != "plumb.yaml" {
            files.push(SourceFile {
                path: "plumb.yaml".to_owned(),
                text: MANIFEST.as_bytes().to_vec(),
            });
        }
        files.push(SourceFile {
            path: example.file.clone(),
            text: match &example.generated {
                Some(name) => generated::bytes(name),
                None => example.text.clone().into_bytes(),
            },
        });
        let mut options = Options {
            env: self.env.clone(),
            ..Options::default()
        };
        if example.file == COMPOSE {
            options.others.extend(files.pop());
            files.push(SourceFile {
                path: "wiki.yaml".to_owned(),
                text: WIKI.as_bytes().to_vec(),
            });
        }
        let parsed = parse(&files, &options);
        files.append(&mut options.others);
        match parsed {
            Ok(set) => (set.warnings, files),
            Err(problems) => (problems, files),
        }
    }

    /// What is said of the wrong example, as `plumb validate` shows it.
    #[must_use]
    pub fn shown(&self, color: bool) -> String {
        let Some(wrong) = &self.wrong else {
            return String::new();
        };
        let (problems, files) = self.run(wrong);
        render(&problems, &files, color).trim_end().to_owned()
    }
}

/// What all codes mean, in the order of their numbers.
#[must_use]
pub fn explanations() -> &'static [Explanation] {
    static ALL: LazyLock<Vec<Explanation>> = LazyLock::new(|| read(include_str!("codes.txt")));
    &ALL
}

/// What a code means. Case does not matter.
///
/// # Errors
/// The code that was probably meant, if there is no such code and one is close.
pub fn explain(code: &str) -> Result<&'static Explanation, Option<&'static str>> {
    let all = explanations();
    let found = all
        .iter()
        .find(|e| e.code.as_str().eq_ignore_ascii_case(code));
    found.ok_or_else(|| nearest(code, all.iter().map(|e| e.code.as_str())))
}

/// Reads `codes.txt`. What it cannot make sense of is left out, and missed by the tests.
fn read(text: &str) -> Vec<Explanation> {
    let mut all: Vec<Explanation> = Vec::new();
    let mut example: Option<bool> = None;
    for line in text.lines() {
        let (word, rest) = match line.strip_prefix('@') {
            Some(line) => line.split_once(' ').unwrap_or((line, "")),
            None => ("", line),
        };
        if word == "code" {
            let (code, title) = rest.split_once(' ').unwrap_or((rest, ""));
            if let Some(code) = Code::ALL.iter().find(|c| c.as_str() == code) {
                all.push(Explanation {
                    code: *code,
                    title: title.to_owned(),
                    text: String::new(),
                    env: None,
                    wrong: None,
                    right: None,
                });
            }
            example = None;
            continue;
        }
        let Some(one) = all.last_mut() else { continue };
        let new = |generated: Option<&str>| {
            Some(Example {
                file: if generated.is_some() {
                    "hello.yaml"
                } else {
                    rest
                }
                .to_owned(),
                text: generated.map_or(String::new(), generated::description),
                generated: generated.map(str::to_owned),
            })
        };
        match word {
            "env" => one.env = Some(rest.to_owned()),
            "net" => {}
            "generated" => one.wrong = new(Some(rest)),
            "wrong" => (one.wrong, example) = (new(None), Some(false)),
            "right" => (one.right, example) = (new(None), Some(true)),
            _ => match (example, &mut one.wrong, &mut one.right) {
                (Some(false), Some(example), _) | (Some(true), _, Some(example)) => {
                    example.text.push_str(line);
                    example.text.push('\n');
                }
                _ => one.text.push_str(line),
            },
        }
    }
    all
}
