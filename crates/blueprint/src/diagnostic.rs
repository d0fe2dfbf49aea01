//! Problems as values: what is wrong, where, and what to write instead. Rendering is another module's job.

use serde::Serialize;

use crate::code::Code;
use crate::mask::{Credentials, without_users};

/// So many problems are kept in one run. A person reads a few; the bound keeps a hostile repository from
/// filling memory with messages.
pub const MAX_DIAGNOSTICS: usize = 1000;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Nothing can be planned.
    Error,
    /// Worth knowing.
    Warning,
}

/// A piece of one line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Span {
    /// The file, relative to the repository's root.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
    /// The number of characters, at least 1. It may point just past the end of the line.
    pub length: u32,
    /// What is to be said about this place.
    pub label: Option<String>,
    /// The place of the problem; the others explain it. Exactly one is primary, and it comes first.
    pub primary: bool,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong: a lowercase fragment.
    pub message: String,
    /// The file that it is in, or that it would be in.
    pub file: String,
    /// The places, the primary one first; none where there is no place.
    pub spans: Vec<Span>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            file: String::new(),
            spans: Vec::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(code: Code, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, message)
        }
    }

    /// Adds a place; the first one added is the primary one.
    pub(crate) fn at(self, spot: &Spot, label: impl Into<String>) -> Self {
        self.place(spot, Some(label.into()))
    }

    /// As [`Self::at`], without a word to it.
    pub(crate) fn here(self, spot: &Spot) -> Self {
        self.place(spot, None)
    }

    fn place(mut self, spot: &Spot, label: Option<String>) -> Self {
        let primary = self.spans.is_empty();
        if primary {
            self.file = spot.file.to_string();
        }
        self.spans.push(Span {
            file: spot.file.to_string(),
            line: spot.line,
            column: spot.column,
            length: spot.length.max(1),
            label,
            primary,
        });
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    pub(crate) fn in_file(mut self, file: &str) -> Self {
        self.file = file.to_owned();
        self
    }

    fn order(&self) -> (&str, u32, u32, Code, &str) {
        let (line, column) = self.spans.first().map_or((0, 0), |s| (s.line, s.column));
        (&self.file, line, column, self.code, &self.message)
    }
}

/// All problems of one run, sorted by file and position.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Diagnostics {
    /// The problems; at most [`MAX_DIAGNOSTICS`].
    pub items: Vec<Diagnostic>,
    /// How many more there were.
    pub omitted: u64,
    /// Credentials that were found where none belongs: no message repeats them, and [`crate::render`] blinds them.
    #[serde(skip)]
    pub(crate) credentials: Credentials,
}

impl Diagnostics {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The number of errors, those left out included.
    #[must_use]
    pub fn errors(&self) -> u64 {
        let kept = self.items.iter().filter(|d| d.severity == Severity::Error);
        kept.count() as u64 + self.omitted
    }

    /// Adds a problem, or counts it if there are too many already.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.items.len() < MAX_DIAGNOSTICS {
            return self.items.push(diagnostic);
        }
        if diagnostic.severity != Severity::Error {
            return;
        }
        // That a text cannot be read goes before what it says.
        let mut left = Some(diagnostic);
        if left.as_ref().is_some_and(|d| d.code.is_about_reading())
            && let Some(kept) = self
                .items
                .iter_mut()
                .rfind(|kept| !kept.code.is_about_reading())
            && let Some(new) = left.take()
        {
            left = Some(std::mem::replace(kept, new));
        }
        self.omitted += u64::from(left.is_some_and(|d| d.severity == Severity::Error));
    }

    /// Adds those of another part of the work.
    pub(crate) fn append(&mut self, others: Self) {
        others.items.into_iter().for_each(|item| self.push(item));
        self.omitted += others.omitted;
        self.credentials.append(others.credentials);
    }

    /// Brings it into its final order, each problem once.
    pub(crate) fn finish(mut self) -> Self {
        for item in &mut self.items {
            self.credentials.scrub(&mut item.message);
            let labels = item.spans.iter_mut().filter_map(|s| s.label.as_mut());
            labels
                .chain(&mut item.hint)
                .for_each(|text| self.credentials.scrub(text));
        }
        self.items.sort_by(|a, b| a.order().cmp(&b.order()));
        self.items.dedup();
        self
    }
}

impl std::fmt::Display for Diagnostics {
    /// One line each, without snippets: for logs and error chains.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, item) in self.items.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            let file = plumb_model::escape::line(&item.file);
            let message = plumb_model::escape::line(&item.message);
            match item.spans.first() {
                Some(span) => write!(f, "{file}:{}:{}: ", span.line, span.column)?,
                None => write!(f, "{file}: ")?,
            }
            write!(f, "{message} [{}]", item.code)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// A place in a file before it is told of: what every check carries around.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spot {
    pub file: std::sync::Arc<str>,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// In characters.
    pub length: u32,
}

/// A foreign text within a message: in backticks, without the user part of a URL, and cut where it would drown the message.
pub(crate) fn quote(text: &str) -> String {
    /// Enough to recognise any sensible name.
    const SHOWN_CHARS: usize = 60;
    // Before it is cut, since what is left of a URL may not be known for one.
    let clean = without_users(text);
    let text = clean.as_deref().unwrap_or(text);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

/// `a`, `a or b`, `a, b or c`.
pub(crate) fn alternatives(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
