//! The first pass over a document: where each key and value stands, and whether the document is within its
//! limits. It must come before any other parser sees the text, since those take minutes or gigabytes over
//! what this refuses in milliseconds.
//!
//! It builds no values, and does not decide on types.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::source::{Chunk, Mark, Range, Source};
use crate::spans::{Entry, Kids, Place, Spans};
use crate::syntax;

/// The deepest nesting, aliases followed. The language itself goes six levels deep.
pub const MAX_DEPTH: usize = 64;

/// So many nodes may aliases add to a document. Enough to share an environment among a thousand processes,
/// and far from what costs noticeable time.
pub const MAX_ALIASED_NODES: u64 = 100_000;

/// Appends a key to a JSON pointer.
pub(crate) fn join(pointer: &str, key: &str) -> String {
    let mut out = String::with_capacity(pointer.len() + key.len() + 1);
    out.push_str(pointer);
    append(&mut out, key);
    out
}

/// The same in place.
pub(crate) fn append(pointer: &mut String, key: &str) {
    pointer.push('/');
    if !key.bytes().any(|b| matches!(b, b'~' | b'/')) {
        return pointer.push_str(key);
    }
    for c in key.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

enum Collection {
    List(Vec<Place>),
    Map {
        key: Option<Key>,
        seen: HashMap<String, Range>,
        kids: Vec<(Box<str>, Place)>,
    },
}

/// A key whose value comes next.
struct Key {
    text: String,
    range: Range,
    /// It stands in this mapping already. The first of two equal keys is the one whose value counts.
    again: bool,
}

struct Frame {
    collection: Collection,
    /// The key that stands for this whole collection.
    key: Option<Key>,
    start: Range,
    anchor: usize,
    /// Nodes in it so far, aliases followed, itself included.
    nodes: u64,
    /// Levels below and including it, so far.
    depth: usize,
    /// It stands where a key should.
    is_key: bool,
}

/// Reads one chunk. Gives the places of each of its documents, or nothing if it had to stop.
pub(crate) fn read(
    source: &Source<'_>,
    chunk: &Chunk<'_>,
    out: &mut Diagnostics,
) -> Option<Vec<Spans>> {
    let mut pass = Pass {
        source,
        line: chunk.line,
        out,
        docs: Vec::new(),
        stack: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
    };
    let mut parser = Parser::new_from_str(chunk.text);
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((event, span)) => {
                let range = Range {
                    start: pass.mark(span.start),
                    end: pass.mark(span.end),
                };
                pass.event(event, range)
            }
            Err(error) => {
                let at = pass.mark(*error.marker());
                // Its own bound on brackets, which it meets before it tells of the first one.
                Err(if error.info() == "recursion limit exceeded" {
                    too_deep().here(&source.spot(Range { start: at, end: at }))
                } else {
                    syntax::error(error.info(), source, at, pass.open_flow())
                })
            }
        };
        if let Err(fatal) = step {
            pass.out.push(fatal);
            return None;
        }
    }
    Some(pass.docs)
}

struct Pass<'a, 'b> {
    source: &'a Source<'a>,
    line: u32,
    out: &'b mut Diagnostics,
    docs: Vec<Spans>,
    stack: Vec<Frame>,
    /// What is behind each anchor: nodes and depth; none while it is still open.
    anchors: HashMap<usize, (u64, usize)>,
    aliased: u64,
}

impl Pass<'_, '_> {
    fn mark(&self, marker: saphyr_parser::Marker) -> Mark {
        Mark {
            line: self.line + (marker.line() as u32).saturating_sub(1),
            column: marker.col() as u32,
        }
    }

    fn event(&mut self, event: Event<'_>, range: Range) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) => {
                self.aliased = 0;
                self.docs.push(Spans {
                    empty: true,
                    ..Spans::default()
                });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.as_deref(), range);
                if anchor > 0 {
                    self.anchors.insert(anchor, (1, 1));
                }
                if self.wants_key() {
                    self.key(text.into_owned(), range);
                } else {
                    if !(self.stack.is_empty()
                        && text.is_empty() | (text == "~")
                        && style == ScalarStyle::Plain)
                    {
                        self.used();
                    }
                    let key = self.take_key();
                    self.place(key, range, false, Kids::None);
                    self.count(1);
                }
            }
            Event::Alias(anchor) => {
                let spot = self.source.spot(range);
                let Some(&(nodes, depth)) = self.anchors.get(&anchor) else {
                    return Err(Diagnostic::error(
                        Code::AliasBomb,
                        "this alias refers to what it stands in",
                    )
                    .here(&spot)
                    .hint("an alias may only repeat what was complete before it"));
                };
                self.aliased += nodes;
                if self.aliased > MAX_ALIASED_NODES {
                    return Err(Diagnostic::error(
                        Code::AliasBomb,
                        format!("aliases blow this document up beyond {MAX_ALIASED_NODES} further values"),
                    )
                    .at(&spot, format!("this alone stands for {nodes}"))
                    .hint("write it out, or put what is shared under `defaults` in plumb.yaml"));
                }
                if self.stack.len() + depth > MAX_DEPTH {
                    return Err(too_deep().here(&spot));
                }
                if self.wants_key() {
                    self.bad_key(range);
                    self.key(
                        format!("\u{0}alias {}:{}", range.start.line, range.start.column),
                        range,
                    );
                } else {
                    let key = self.take_key();
                    self.place(key, range, false, Kids::None);
                    self.count(nodes);
                    if let Some(frame) = self.stack.last_mut() {
                        frame.depth = frame.depth.max(depth + 1);
                    }
                }
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.as_deref(), range);
                self.open(Collection::List(Vec::new()), anchor, range)?;
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.as_deref(), range);
                self.open(
                    Collection::Map {
                        key: None,
                        seen: HashMap::new(),
                        kids: Vec::new(),
                    },
                    anchor,
                    range,
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(range),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn used(&mut self) {
        if let Some(doc) = self.docs.last_mut() {
            doc.empty = false;
        }
    }

    fn unreadable(&mut self) {
        if let Some(doc) = self.docs.last_mut() {
            doc.unreadable = true;
        }
    }

    fn tag(&mut self, tag: Option<&saphyr_parser::Tag>, range: Range) {
        if tag.is_none() {
            return;
        }
        let spot = self.source.spot(range);
        self.out.push(
            Diagnostic::error(
                Code::Tag,
                // Not which one: `password: !x` is the beginning of a password.
                "YAML tags have no meaning here",
            )
            .here(&spot)
            .hint("remove the tag; quote the value if it is meant as text"),
        );
        self.unreadable();
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Frame {
                collection: Collection::Map { key: None, .. },
                ..
            })
        )
    }

    fn bad_key(&mut self, range: Range) {
        let spot = self.source.spot(range);
        self.out.push(
            Diagnostic::error(Code::KeyNotText, "a key must be a plain text")
                .here(&spot)
                .hint("write the key out; if it starts with `{`, `[` or `*`, quote it"),
        );
        self.unreadable();
    }

    fn key(&mut self, text: String, range: Range) {
        let Some(Frame {
            collection: Collection::Map { key, seen, .. },
            ..
        }) = self.stack.last_mut()
        else {
            return;
        };
        let first = seen.get(&text).copied();
        if let Some(first) = first {
            let (first, second) = (self.source.spot(first), self.source.spot(range));
            self.out.push(
                Diagnostic::error(
                    Code::DuplicateKey,
                    format!("{} stands here twice", quote(&text)),
                )
                .at(&second, "again here")
                .at(&first, "first here")
                .hint("remove one of them, or rename it"),
            );
        } else {
            seen.insert(text.clone(), range);
        }
        *key = Some(Key {
            text,
            range,
            again: first.is_some(),
        });
    }

    /// The key in front of the value that comes next, if it is in a mapping.
    fn take_key(&mut self) -> Option<Key> {
        match self.stack.last_mut().map(|frame| &mut frame.collection) {
            Some(Collection::Map { key, .. }) => key.take(),
            _ => None,
        }
    }

    /// Notes where a value stands, once all that is in it is known.
    fn place(&mut self, key: Option<Key>, value: Range, block: bool, kids: Kids) {
        let place = Place {
            entry: Entry {
                key: key.as_ref().map(|key| key.range),
                value,
                block,
            },
            kids,
        };
        match self.stack.last_mut().map(|frame| &mut frame.collection) {
            None => {
                if let Some(doc) = self.docs.last_mut() {
                    doc.root.get_or_insert(place);
                }
            }
            Some(Collection::List(kids)) => kids.push(place),
            Some(Collection::Map { kids, .. }) => {
                if let Some(key) = key
                    && !key.again
                {
                    kids.push((key.text.into(), place));
                }
            }
        }
    }

    fn count(&mut self, nodes: u64) {
        if let Some(frame) = self.stack.last_mut() {
            frame.nodes += nodes;
            frame.depth = frame.depth.max(2);
        }
    }

    fn open(
        &mut self,
        collection: Collection,
        anchor: usize,
        range: Range,
    ) -> Result<(), Diagnostic> {
        self.used();
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep().here(&self.source.spot(range)));
        }
        let is_key = self.wants_key();
        let key = if is_key {
            self.bad_key(range);
            let here = format!("\u{0}key {}:{}", range.start.line, range.start.column);
            self.key(here, range);
            None
        } else {
            self.take_key()
        };
        self.stack.push(Frame {
            collection,
            key,
            start: range,
            anchor,
            nodes: 1,
            depth: 1,
            is_key,
        });
        Ok(())
    }

    fn close(&mut self, range: Range) {
        let Some(frame) = self.stack.pop() else {
            return;
        };
        if frame.anchor > 0 {
            self.anchors
                .insert(frame.anchor, (frame.nodes, frame.depth));
        }
        if let Some(parent) = self.stack.last_mut() {
            parent.nodes += frame.nodes;
            parent.depth = parent.depth.max(frame.depth + 1);
        }
        if frame.is_key {
            return;
        }
        let (start, end) = (frame.start.start, range.end);
        // A collection in braces on one line can be shown as a whole.
        let flow = frame.start.end > frame.start.start && self.opens_flow(frame.start);
        let block = !flow || start.line != end.line;
        let kids = match frame.collection {
            Collection::List(kids) => Kids::List(kids),
            Collection::Map { kids, .. } => Kids::map(kids),
        };
        let end = if block { start } else { end };
        self.place(frame.key, Range { start, end }, block, kids);
    }

    /// The innermost bracket that is not closed yet.
    fn open_flow(&self) -> Option<Mark> {
        let open = self.stack.iter().rev().map(|frame| frame.start);
        open.map(|range| (range, self.opens_flow(range)))
            .find_map(|(range, flow)| flow.then_some(range.start))
    }

    fn opens_flow(&self, range: Range) -> bool {
        self.source.text[self.source.byte(range.start)..].starts_with(['{', '['])
    }
}

fn too_deep() -> Diagnostic {
    Diagnostic::error(
        Code::TooDeep,
        format!("nested more than {MAX_DEPTH} levels deep"),
    )
    .hint("no blueprint needs that; is a bracket left open?")
}
