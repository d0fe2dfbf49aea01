//! A plan as it is read: on a terminal, in a pull request, as a page in a browser, and by programs.
//!
//! [`outline`] puts a plan in reading order and [`group`] makes one entry of the same change on many machines; [`words`],
//! [`named`], [`value`] and [`diff`] say things the same way everywhere. [`text`], [`markdown`] and [`html`] lay that out, and decide
//! nothing. Whatever comes from a blueprint is made clean before it is laid out: no format hands on a control character.
//!
//! Called by every command that shows a plan. It never asks a control plane anything.

pub(crate) mod diff;
mod graph;
mod group;
mod html;
mod markdown;
mod named;
mod outline;
mod text;
mod value;
mod wide;
mod words;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use clap::ValueEnum;
use plumb_model::escape;
use plumb_model::plan::Plan;

use crate::args::Output;
use crate::commands::Env;
use crate::out::{self, Style};

/// In which form a plan is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people, on a terminal.
    Text,
    /// For a pull request: at most 65,536 characters.
    Markdown,
    /// For programs: a stable, versioned format; its schema is schemas/plan.json.
    Json,
    /// One self-contained page with the resource graph.
    Html,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy)]
pub struct PlanView {
    /// In which form.
    pub format: PlanFormat,
    /// Nothing is folded or cut, and defaults of what is new are shown too.
    pub full: bool,
    /// The base revision and the approval hash are shown too.
    pub verbose: bool,
    /// The columns of the terminal.
    pub width: usize,
    /// What the terminal can show.
    pub style: Style,
}

impl PlanView {
    /// What a command's arguments ask for.
    pub fn of(env: &Env<'_>) -> Self {
        let format = env.plan.format.unwrap_or(match env.output {
            Output::Text => PlanFormat::Text,
            Output::Json => PlanFormat::Json,
        });
        Self {
            format,
            full: env.plan.full,
            verbose: env.verbose,
            width: out::width(),
            style: *env.style,
        }
    }
}

/// Renders a plan. Ends with a line break.
pub fn render(plan: &Plan, view: &PlanView) -> String {
    match view.format {
        PlanFormat::Text => text::render(plan, view),
        PlanFormat::Markdown => markdown::render(plan, view),
        PlanFormat::Json => {
            let text = serde_json::to_string(plan).expect("a plan is always JSON");
            json(&text) + "\n"
        }
        PlanFormat::Html => html::render(plan, view),
    }
}

/// JSON that says the same without a character that may not be shown: in JSON such characters stand in strings alone, and
/// each can be written as an escape.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if escape::is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}
