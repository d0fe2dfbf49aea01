//! Diagnostics as a person reads them: rustc's manner, with the line, a caret under the very place, and what
//! to write instead. Safe for a terminal whatever the files hold.

use std::borrow::Cow;
use std::collections::HashMap;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use plumb_model::escape;

use crate::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use crate::source::{Source, SourceFile};

/// So many problems are shown; whoever has more fixes these first.
const MAX_SHOWN: usize = 100;

/// Two places of one file that are at most so many lines apart are shown in one piece.
const JOINED_LINES: u32 = 6;

/// Longer lines are cut behind the place: nobody reads them on a terminal, and laying them out takes time.
const MAX_LINE_CHARS: usize = 400;

/// Renders all problems, one paragraph each. The files are those that were parsed; a place in a file that is
/// not among them is shown without its line.
#[must_use]
pub fn render(diagnostics: &Diagnostics, files: &[SourceFile], color: bool) -> String {
    let renderer = if color {
        Renderer::styled()
    } else {
        Renderer::plain()
    };
    let wanted: std::collections::HashSet<&str> = diagnostics
        .items
        .iter()
        .take(MAX_SHOWN)
        .flat_map(|d| d.spans.iter().map(|s| s.file.as_str()))
        .collect();
    let texts: HashMap<&str, String> = files
        .iter()
        .filter(|file| wanted.contains(file.path.as_str()))
        .map(|file| {
            let text = String::from_utf8_lossy(&file.text);
            (file.path.as_str(), diagnostics.credentials.blind(&text))
        })
        .collect();
    let sources: HashMap<&str, Source<'_>> = texts
        .iter()
        .map(|(path, text)| (*path, Source::new((*path).into(), text)))
        .collect();
    let mut out = String::new();
    for diagnostic in diagnostics.items.iter().take(MAX_SHOWN) {
        out.push_str(&one(&renderer, diagnostic, &sources));
        out.push_str("\n\n");
    }
    let more = diagnostics.items.len().saturating_sub(MAX_SHOWN) as u64 + diagnostics.omitted;
    if more > 0 {
        out.push_str(&format!("and {more} more\n"));
    }
    out
}

/// A piece of a file: some neighbouring lines and the places in them.
struct Piece<'a> {
    path: String,
    first_line: u32,
    text: String,
    marks: Vec<(std::ops::Range<usize>, &'a Span)>,
}

fn one(
    renderer: &Renderer,
    diagnostic: &Diagnostic,
    sources: &HashMap<&str, Source<'_>>,
) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(escape::line(&diagnostic.message))
        .id(diagnostic.code.as_str());
    let mut group = title.elements(std::iter::empty::<Origin<'_>>());
    if diagnostic.spans.is_empty() {
        group = group.element(Origin::path(escape::line(&diagnostic.file)));
    }
    for piece in pieces(&diagnostic.spans, sources) {
        let Piece {
            path,
            first_line,
            text,
            marks,
        } = piece;
        if text.is_empty() && marks.is_empty() {
            group = group.element(Origin::path(path).line(first_line as usize));
            continue;
        }
        let annotations = marks.into_iter().map(|(range, span)| {
            let kind = if span.primary {
                AnnotationKind::Primary
            } else {
                AnnotationKind::Context
            };
            kind.span(range)
                .label(span.label.as_deref().map(escape::line))
        });
        let snippet = Snippet::source(text)
            .line_start(first_line as usize)
            .path(path)
            .annotations(annotations);
        group = group.element(snippet);
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(escape::line(hint)));
    }
    renderer.render(&[group])
}

fn pieces<'a>(spans: &'a [Span], sources: &HashMap<&str, Source<'_>>) -> Vec<Piece<'a>> {
    let mut groups: Vec<Vec<&Span>> = Vec::new();
    for span in spans {
        let near = |group: &&mut Vec<&Span>| {
            group
                .iter()
                .any(|s| s.file == span.file && s.line.abs_diff(span.line) <= JOINED_LINES)
        };
        match groups.iter_mut().find(near) {
            Some(group) => group.push(span),
            None => groups.push(vec![span]),
        }
    }
    groups
        .into_iter()
        .map(|group| piece(&group, sources))
        .collect()
}

fn piece<'a>(spans: &[&'a Span], sources: &HashMap<&str, Source<'_>>) -> Piece<'a> {
    let first = spans.iter().map(|s| s.line).min().unwrap_or(1);
    let last = spans.iter().map(|s| s.line).max().unwrap_or(1);
    let file = spans.first().map_or("", |s| s.file.as_str());
    let mut piece = Piece {
        path: escape::line(file).into_owned(),
        first_line: first,
        text: String::new(),
        marks: Vec::new(),
    };
    let Some(source) = sources.get(file) else {
        return piece;
    };
    for number in first..=last {
        let line = source.line(number - 1);
        let start = piece.text.len();
        let here = || spans.iter().filter(|s| s.line == number);
        let needed = here()
            .map(|s| (s.column + s.length) as usize)
            .max()
            .unwrap_or(0)
            .min(MAX_LINE_CHARS * 16);
        let shown: String = line
            .chars()
            .take(needed + MAX_LINE_CHARS)
            .map(visible)
            .collect();
        let offset = |column: usize| {
            shown
                .char_indices()
                .nth(column)
                .map_or(shown.len(), |(at, _)| at)
        };
        for span in here() {
            let from = offset(span.column as usize - 1);
            let to = offset((span.column - 1 + span.length) as usize);
            piece.marks.push((start + from..start + to, *span));
        }
        piece.text.push_str(&shown);
        piece.text.push('\n');
    }
    // A place past the end of a line needs something to stand under.
    let end = piece.text.len();
    for (range, _) in &mut piece.marks {
        if range.start >= range.end {
            range.end = (range.start + 1).min(end);
        }
    }
    piece
}

/// One character for one, so that columns stay what they are.
fn visible(c: char) -> char {
    let mut buffer = [0; 4];
    let text: &str = c.encode_utf8(&mut buffer);
    match escape::line(text) {
        Cow::Borrowed(_) => c,
        Cow::Owned(_) => '\u{fffd}',
    }
}
