//! One YAML document with the places of everything in it, or as much of it as could be read.

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot};
use crate::events;
use crate::plain;
use crate::set::Written;
use crate::source::{Chunk, Mark, Range, Source};
use crate::spans::{Entry, Spans};
use crate::syntax;
use crate::tree::{Tree, Value};
use crate::value;

/// One document.
pub(crate) struct Document<'a> {
    pub source: &'a Source<'a>,
    /// What is in it; none if it could not be read.
    pub tree: Option<Tree<'a>>,
    /// What could be made out of `kind` and `name`, whatever else is wrong.
    pub kind: Option<(String, Spot)>,
    pub name: Option<(String, Spot)>,
}

/// Reads all documents of a file. What cannot be read is reported, and contributes its kind and name.
pub(crate) fn read<'a>(source: &'a Source<'a>, out: &mut Diagnostics) -> Vec<Document<'a>> {
    let chunks = source.chunks();
    let all = chunks
        .iter()
        .flat_map(|chunk| read_chunk(source, chunk, out));
    all.collect()
}

/// Reads the documents of a part of a file, which are hardly ever more than one.
pub(crate) fn read_chunk<'a>(
    source: &'a Source<'a>,
    chunk: &Chunk<'a>,
    out: &mut Diagnostics,
) -> Vec<Document<'a>> {
    if let Some(tree) = plain::read(chunk) {
        return vec![Document::new(source, tree)];
    }
    match events::read(source, chunk, out) {
        Some(spans) => values(source, chunk, spans, out),
        None => vec![salvage(source, chunk)],
    }
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
        return all.into_iter().map(|_| salvage(source, chunk)).collect();
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
                let tree = match &spans.root {
                    Some(root) => Tree::join(value, root),
                    None => Tree::NOTHING,
                };
                let document = Document::new(source, tree);
                for pointer in bad {
                    // It is merged into nothing, so only the event pass knows where it stands.
                    let place = spans.root.as_ref().and_then(|root| root.find(&pointer));
                    let spot = place.map_or_else(
                        || document.spot(&pointer),
                        |place| source.spot(place.entry.value),
                    );
                    out.push(
                        Diagnostic::error(
                            Code::BadMerge,
                            "`<<` merges a mapping, or a list of mappings",
                        )
                        .here(&spot)
                        .hint("write `<<: *name`, with `&name` in front of a mapping above"),
                    );
                }
                documents.push(document);
            }
            Some(Err(error)) => {
                out.push(foreign(source, chunk, &error));
                documents.push(salvage(source, chunk));
            }
            None => documents.push(salvage(source, chunk)),
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
    syntax::error(message, source, at, None)
}

/// A document that cannot be read still says what it is: its lines `kind: X` and `name: Y` are believed, so
/// that whoever refers to it is not told that it does not exist.
fn salvage<'a>(source: &'a Source<'a>, chunk: &Chunk<'a>) -> Document<'a> {
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
            // What is no name at all is part of what is wrong with the document.
            let named = word.starts_with(|c: char| c.is_alphanumeric());
            if slot.is_none() && named {
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
        tree: None,
        kind,
        name,
    }
}

impl<'a> Document<'a> {
    fn new(source: &'a Source<'a>, tree: Tree<'a>) -> Self {
        let mut document = Self {
            source,
            tree: None,
            kind: None,
            name: None,
        };
        let word = |key: &str| {
            let found = tree.value.get(key)?;
            let text = found.value.as_str()?.to_owned();
            Some((text, document.spot_of(found)))
        };
        (document.kind, document.name) = (word("kind"), word("name"));
        document.tree = Some(tree);
        document
    }

    /// Its value; none if it could not be read.
    pub fn value(&self) -> Option<&Value<'a>> {
        self.tree.as_ref().map(|tree| &tree.value)
    }

    /// The best place to show for what is at a pointer: see [`Self::spot_of`].
    pub fn spot(&self, pointer: &str) -> Spot {
        match &self.tree {
            Some(tree) => self.spot_of(tree.nearest(pointer)),
            None => self.head(Mark { line: 0, column: 0 }),
        }
    }

    /// The best place to show for a value within it: the value itself, or its key if it spreads over several lines.
    pub fn spot_of(&self, tree: &Tree<'_>) -> Spot {
        let entry = &tree.entry;
        let bare = entry.value.start == entry.value.end;
        match entry.key {
            Some(key) if entry.block || bare => self.source.spot(key),
            None if entry.block && self.is_root(tree) => self.head(entry.value.start),
            None if entry.block => self.source.spot(self.rest_of_line(entry.value.start)),
            _ => self.source.spot(entry.value),
        }
    }

    fn is_root(&self, tree: &Tree<'_>) -> bool {
        let root = self.tree.as_ref();
        root.is_some_and(|root| std::ptr::addr_eq(root, tree))
    }

    /// The line that says what the document is.
    fn head(&self, start: Mark) -> Spot {
        let kind = self.value().and_then(|value| value.get("kind"));
        match kind.filter(|kind| kind.own).map(|kind| kind.entry) {
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
        match &self.tree {
            Some(tree) => self.key_spot_of(tree.nearest(pointer)),
            None => self.spot(pointer),
        }
    }

    /// The place of a value's key; its own if it has none.
    pub fn key_spot_of(&self, tree: &Tree<'_>) -> Spot {
        match tree.entry.key {
            Some(key) => self.source.spot(key),
            None => self.spot_of(tree),
        }
    }

    /// How a value is written, if it stands on one line.
    pub fn text_of(&self, pointer: &str) -> Option<String> {
        let tree = self.tree.as_ref()?.nearest(pointer);
        let range = tree.own.then_some(tree.entry.value)?;
        (range.start.line == range.end.line).then(|| {
            self.source.text[self.source.byte(range.start)..self.source.byte(range.end)]
                .trim()
                .to_owned()
        })
    }

    /// The place of the `nth` occurrence (from 0) of a text inside a value; the value's own if it is written
    /// otherwise.
    pub fn inside(&self, tree: &Tree<'_>, needle: &str, nth: usize) -> Spot {
        let found = tree.own.then_some(tree.entry.value).and_then(|range| {
            let (from, to) = (self.source.byte(range.start), self.source.byte(range.end));
            let text = self.source.text.get(from..to)?;
            let at = nth_of(text, needle, nth)?;
            Some(
                self.source
                    .spot_at(from + at, needle.chars().count() as u32),
            )
        });
        found.unwrap_or_else(|| self.spot_of(tree))
    }

    /// Where the document and its keys stand, if it has a name.
    pub fn written(&self) -> Option<Written> {
        let (_, spot) = self.name.as_ref()?;
        let mut written = Written::new(&spot.file, spot.line, spot.column);
        if let Some(tree) = &self.tree {
            tree.upper(|pointer, entry| {
                let start = entry.key.unwrap_or(entry.value).start;
                let (line, column) = self.source.place(start);
                written.key(pointer, line, column);
            });
        }
        Some(written)
    }
}

/// Where the `nth` occurrence (from 0) of a text in another begins. Looking for its first character is much quicker than
/// getting ready to look for all of it.
fn nth_of(text: &str, needle: &str, nth: usize) -> Option<usize> {
    let first = needle.chars().next()?;
    let (mut from, mut left) = (0, nth);
    loop {
        let at = from + text[from..].find(first)?;
        if !text[at..].starts_with(needle) {
            from = at + first.len_utf8();
        } else if left == 0 {
            return Some(at);
        } else {
            left -= 1;
            from = at + needle.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::nth_of;

    #[test]
    fn occurrences_are_counted_one_behind_the_other() {
        for (needle, nth, expected) in [
            ("11", 0, Some(0)),
            ("11", 1, Some(4)),
            ("11", 2, None),
            ("ä", 0, Some(7)),
            ("1 ", 1, Some(5)),
            ("", 0, None),
        ] {
            assert_eq!(nth_of("111 11 ä", needle, nth), expected, "{needle} {nth}");
        }
    }
}
