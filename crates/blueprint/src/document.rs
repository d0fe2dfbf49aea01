//! One YAML document with the places of everything in it, or as much of it as could be read.

use serde_json::Value;

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot};
use crate::events;
use crate::plain;
use crate::set::Written;
use crate::source::{Chunk, Mark, Range, Source};
use crate::spans::{Entry, Spans};
use crate::value;

/// One document.
pub(crate) struct Document<'a> {
    pub source: &'a Source<'a>,
    spans: Spans,
    /// Its value; none if it could not be read.
    pub value: Option<Value>,
    /// What could be made out of `kind` and `name`, whatever else is wrong.
    pub kind: Option<(String, Spot)>,
    pub name: Option<(String, Spot)>,
}

/// Reads all documents of a file. What cannot be read is reported, and contributes its kind and name.
pub(crate) fn read<'a>(source: &'a Source<'a>, out: &mut Diagnostics) -> Vec<Document<'a>> {
    let mut documents = Vec::new();
    for chunk in source.chunks() {
        if let Some((value, spans)) = plain::read(&chunk) {
            documents.push(Document::new(source, spans, value));
            continue;
        }
        match events::read(source, &chunk, out) {
            Some(spans) => documents.extend(values(source, &chunk, spans, out)),
            None => documents.push(salvage(source, &chunk, Spans::default())),
        }
    }
    documents
}

fn values<'a>(
    source: &'a Source<'a>,
    chunk: &Chunk<'a>,
    all: Vec<Spans>,
    out: &mut Diagnostics,
) -> Vec<Document<'a>> {
    if all.iter().all(|spans| spans.empty) {
        return Vec::new();
    }
    if all.iter().any(|spans| spans.unreadable) {
        return all
            .into_iter()
            .map(|spans| salvage(source, chunk, spans))
            .collect();
    }
    let mut values = value::read(chunk.text).into_iter();
    let mut documents = Vec::new();
    for spans in all {
        let read = values.next();
        if spans.empty && !matches!(read, Some(Err(_))) {
            continue;
        }
        match read {
            Some(Ok(mut value)) => {
                let mut bad = Vec::new();
                value::merge(&mut value, "", &mut bad);
                let document = Document::new(source, spans, value);
                for pointer in bad {
                    out.push(
                        Diagnostic::error(
                            Code::BadMerge,
                            "`<<` merges a mapping, or a list of mappings",
                        )
                        .here(&document.spot(&pointer))
                        .hint("write `<<: *name`, with `&name` in front of a mapping above"),
                    );
                }
                documents.push(document);
            }
            Some(Err(error)) => {
                out.push(foreign(source, chunk, &error));
                documents.push(salvage(source, chunk, spans));
            }
            None => documents.push(salvage(source, chunk, spans)),
        }
    }
    documents
}

/// serde_yaml's error, with its own idea of the place taken out of the text.
fn foreign(source: &Source<'_>, chunk: &Chunk<'_>, error: &serde_yaml::Error) -> Diagnostic {
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    let at = error.location().map_or(
        Mark {
            line: chunk.line,
            column: 0,
        },
        |l| Mark {
            line: chunk.line + (l.line() as u32).saturating_sub(1),
            column: (l.column() as u32).saturating_sub(1),
        },
    );
    events::syntax(message, source, at).here(&source.spot(Range { start: at, end: at }))
}

/// A document that cannot be read still says what it is: its lines `kind: X` and `name: Y` are believed, so
/// that whoever refers to it is not told that it does not exist.
fn salvage<'a>(source: &'a Source<'a>, chunk: &Chunk<'a>, spans: Spans) -> Document<'a> {
    let mut found = [None, None];
    for (number, line) in chunk.text.lines().enumerate() {
        for (slot, key) in found.iter_mut().zip(["kind:", "name:"]) {
            let Some(rest) = line.strip_prefix(key) else {
                continue;
            };
            let word = rest
                .split(" #")
                .next()
                .unwrap_or(rest)
                .trim()
                .trim_matches(['"', '\'']);
            if slot.is_none() && !word.is_empty() {
                let line_number = chunk.line + number as u32;
                let column = line.find(word).map_or(0, |at| line[..at].chars().count()) as u32;
                let start = Mark {
                    line: line_number,
                    column,
                };
                let end = Mark {
                    line: line_number,
                    column: column + word.chars().count() as u32,
                };
                *slot = Some((word.to_owned(), source.spot(Range { start, end })));
            }
        }
    }
    let [kind, name] = found;
    Document {
        source,
        spans,
        value: None,
        kind,
        name,
    }
}

impl<'a> Document<'a> {
    fn new(source: &'a Source<'a>, spans: Spans, value: Value) -> Self {
        let mut document = Self {
            source,
            spans,
            value: None,
            kind: None,
            name: None,
        };
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        document.kind = text("kind").map(|word| (word, document.spot("/kind")));
        document.name = text("name").map(|word| (word, document.spot("/name")));
        document.value = Some(value);
        document
    }

    /// The best place to show for a value: itself, or its key if it spreads over several lines.
    pub fn spot(&self, pointer: &str) -> Spot {
        match self.spans.nearest(pointer) {
            Some(entry) => {
                let bare = entry.value.start == entry.value.end;
                match entry.key {
                    Some(key) if entry.block || bare => self.source.spot(key),
                    None if pointer.is_empty() && entry.block => self.head(entry.value.start),
                    None if entry.block => self.source.spot(self.rest_of_line(entry.value.start)),
                    _ => self.source.spot(entry.value),
                }
            }
            None => self.head(Mark { line: 0, column: 0 }),
        }
    }

    /// The line that says what the document is.
    fn head(&self, start: Mark) -> Spot {
        match self.spans.get("/kind") {
            Some(Entry {
                key: Some(key),
                value,
                ..
            }) => self.source.spot(Range {
                start: key.start,
                end: value.end,
            }),
            _ => self.source.spot(self.rest_of_line(start)),
        }
    }

    fn rest_of_line(&self, start: Mark) -> Range {
        let width = self.source.line(start.line).trim_end().chars().count() as u32;
        Range {
            start,
            end: Mark {
                column: width.max(start.column),
                ..start
            },
        }
    }

    /// The place of a key.
    pub fn key_spot(&self, pointer: &str) -> Spot {
        match self.spans.nearest(pointer).and_then(|entry| entry.key) {
            Some(key) => self.source.spot(key),
            None => self.spot(pointer),
        }
    }

    /// How a value is written, if it stands on one line.
    pub fn text_of(&self, pointer: &str) -> Option<String> {
        let range = self.spans.get(pointer)?.value;
        (range.start.line == range.end.line).then(|| {
            self.source.text[self.source.byte(range.start)..self.source.byte(range.end)]
                .trim()
                .to_owned()
        })
    }

    /// The place of the `nth` occurrence (from 0) of a text inside a value; the value's own if it is written
    /// otherwise.
    pub fn inside(&self, pointer: &str, needle: &str, nth: usize) -> Spot {
        let found = self.spans.get(pointer).and_then(|entry| {
            let (from, to) = (
                self.source.byte(entry.value.start),
                self.source.byte(entry.value.end),
            );
            let text = self.source.text.get(from..to)?;
            let (at, _) = text.match_indices(needle).nth(nth)?;
            Some(
                self.source
                    .spot_at(from + at, needle.chars().count() as u32),
            )
        });
        found.unwrap_or_else(|| self.spot(pointer))
    }

    /// Where the document and its keys stand, if it has a name.
    pub fn written(&self) -> Option<Written> {
        let (_, spot) = self.name.as_ref()?;
        let mut written = Written::new(&spot.file, spot.line, spot.column);
        self.spans.upper(|pointer, entry| {
            let start = entry.key.unwrap_or(entry.value).start;
            let (line, column) = self.source.place(start);
            written.key(pointer, line, column);
        });
        Some(written)
    }
}
