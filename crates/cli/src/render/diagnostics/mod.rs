//! What `plumb validate` found, in the formats of those who read it: programs, code scanners, CI systems.
//!
//! [`Report`] is the one thing that all formats are made from. Each format is a pure function from it to a text, in a
//! module of its own, and safe whatever file names and messages hold.

mod github;
mod gitlab;
mod json;
mod junit;
mod sarif;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use plumb_blueprint::{Diagnostic, Severity};
use plumb_model::escape;
use plumb_planner::Problem;

pub use github::github;
pub use gitlab::gitlab;
pub use json::json;
pub use junit::junit;
pub use sarif::sarif;

/// The rule of problems that only planning finds; they have no codes of their own.
pub const PLAN: &str = "plan";

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Relative to [`Report::base`], separated by `/`.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// The column behind the last character.
    pub end_column: u32,
    /// What is to be said about it.
    pub label: Option<String>,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its code, or [`PLAN`].
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
    /// The file that it is in.
    pub file: String,
    /// Its places, the one to point at first.
    pub places: Vec<Place>,
}

/// Everything that was found in one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The folder that all files are relative to.
    pub base: PathBuf,
    /// Every file that was checked.
    pub files: Vec<String>,
    /// The problems, by file and place.
    pub findings: Vec<Finding>,
    /// How many more there were than are kept.
    pub omitted: u64,
}

impl Finding {
    /// A problem of a blueprint; `prefix` leads from the report's base to the repository.
    pub fn of(diagnostic: &Diagnostic, prefix: &str) -> Self {
        Self {
            rule: diagnostic.code.as_str(),
            severity: diagnostic.severity,
            message: diagnostic.message.clone(),
            hint: diagnostic.hint.clone(),
            file: format!("{prefix}{}", diagnostic.file),
            places: diagnostic
                .spans
                .iter()
                .map(|span| Place {
                    file: format!("{prefix}{}", span.file),
                    line: span.line,
                    column: span.column,
                    end_column: span.column.saturating_add(span.length),
                    label: span.label.clone(),
                })
                .collect(),
        }
    }

    /// A problem of planning. Without a place it is put down to the manifest.
    pub fn planned(problem: &Problem, prefix: &str) -> Self {
        let origin = problem.origin.as_ref();
        let file = origin.map_or(crate::repository::MANIFEST, |origin| origin.file.as_str());
        Self {
            rule: PLAN,
            severity: Severity::Error,
            message: problem.message.clone(),
            hint: problem.hint.clone(),
            file: format!("{prefix}{file}"),
            places: origin
                .map(|origin| Place {
                    file: format!("{prefix}{}", origin.file),
                    line: origin.line,
                    column: origin.column,
                    end_column: origin.column.saturating_add(1),
                    label: None,
                })
                .into_iter()
                .collect(),
        }
    }

    /// The message, its hint and its other places, a line each; nothing in them breaks a line or moves a cursor.
    fn lines(&self) -> Vec<String> {
        let mut lines = vec![escape::line(&self.message).into_owned()];
        if let Some(hint) = &self.hint {
            lines.push(format!("help: {}", escape::line(hint)));
        }
        for place in self.places.iter().skip(1) {
            let label = place.label.as_deref().unwrap_or("see also");
            lines.push(format!(
                "{}: {}:{}:{}",
                escape::line(label),
                escape::line(&place.file),
                place.line,
                place.column
            ));
        }
        lines
    }
}

/// What a rule is about, in a few words and in full.
fn rule_texts(rule: &str) -> (String, String) {
    match plumb_blueprint::explain(rule) {
        Ok(one) => (one.title.clone(), one.text.clone()),
        Err(_) => (
            "It cannot be planned".to_owned(),
            "The blueprints are valid, but what they ask for cannot be planned: two things claim the same place, or a machine cannot do it.".to_owned(),
        ),
    }
}
