//! The short way through a document in plain YAML: values and places in one pass, a twentieth of the time.
//!
//! Nearly every blueprint is written in a small part of YAML: block mappings and lists, flow collections on one line,
//! scalars on one line, literal blocks, ASCII. In that part all parsers agree, and nothing of it can choke one. This
//! reads exactly that part and gives up at the first thing outside it, so that it never reports a problem: the event
//! pass and serde_yaml then read the document as if this were not there. A test holds both ways against each other.
//!
//! Whatever is not plainly inside is outside: anchors, aliases, tags, merge keys, complex and repeated keys, empty
//! values, folded blocks, scalars and flow collections over several lines, tabs, `\r`, most escapes.

use std::borrow::Cow;

use crate::source::{Chunk, Mark, Range};
use crate::spans::Entry;
use crate::tree::{Map, Tree, Value};
use crate::value;

/// Deeper than the language goes; far within what the stack and the other passes take.
const MAX_DEPTH: usize = 16;
/// Both parsers take simple keys of at most 1,024 characters.
const MAX_KEY: usize = 256;

/// Reads a chunk that is one plain document.
pub(crate) fn read<'a>(chunk: &Chunk<'a>) -> Option<Tree<'a>> {
    if !chunk.text.ends_with('\n') {
        return None;
    }
    let mut pass = Pass {
        rest: chunk.text,
        number: chunk.line,
        line: None,
    };
    pass.next()?;
    if let Some(Line {
        indent: 0, text, ..
    }) = pass.line
        && let Some(behind) = text.strip_prefix("---")
    {
        ends(behind)?;
        pass.next()?;
    }
    let first = pass.line.filter(|line| line.indent == 0)?;
    let value = pass.map(0, 0)?;
    if pass.line.is_some() {
        return None;
    }
    let start = Mark {
        line: first.number,
        column: 0,
    };
    let range = Range { start, end: start };
    Some(Read(value, range, true).tree(None))
}

/// A line with something on it.
#[derive(Clone, Copy)]
struct Line<'a> {
    number: u32,
    indent: usize,
    /// Without its indentation.
    text: &'a str,
}

struct Pass<'a> {
    /// Behind the line.
    rest: &'a str,
    /// The number of the line that `rest` begins with.
    number: u32,
    /// The line that is looked at; none at the end.
    line: Option<Line<'a>>,
}

/// A value that was read, where it stands, and whether it is a block.
struct Read<'a>(Value<'a>, Range, bool);

impl<'a> Read<'a> {
    fn tree(self, key: Option<Range>) -> Tree<'a> {
        let Self(value, range, block) = self;
        let entry = Entry {
            key,
            value: range,
            block,
        };
        Tree {
            value,
            entry,
            own: true,
        }
    }
}

impl<'a> Pass<'a> {
    /// The next line, whatever is on it.
    fn raw(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    /// Goes on to the next line with something on it but a comment.
    fn next(&mut self) -> Option<()> {
        loop {
            let number = self.number;
            let Some(raw) = self.raw() else {
                self.line = None;
                return self.rest.is_empty().then_some(());
            };
            let text = raw.trim_start_matches(' ');
            match text.as_bytes().first() {
                None => {}
                Some(b'#') if text.bytes().all(is_printable) => {}
                Some(b'#') => return None,
                Some(_) => {
                    self.line = Some(Line {
                        number,
                        indent: raw.len() - text.len(),
                        text,
                    });
                    return Some(());
                }
            }
        }
    }

    /// The block mapping at an indentation.
    fn map(&mut self, indent: usize, depth: usize) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut members = Vec::new();
        while let Some(line) = self.line.filter(|line| line.indent >= indent) {
            if line.indent > indent {
                return None;
            }
            let (key, width) = key(line.text)?;
            let behind = line.text[width..].strip_prefix(':')?;
            let at = indent + width + 1;
            let key_range = on_line(line.number, indent, indent + width);
            let value = behind.trim_start_matches(' ');
            let blanks = behind.len() - value.len();
            let read = if value.is_empty() || ends(behind).is_some() {
                self.next()?;
                self.block(indent, depth + 1)?
            } else if blanks == 0 {
                return None;
            } else {
                self.value(value, line.number, at + blanks, indent, depth + 1)?
            };
            members.push((Cow::Borrowed(key), read.tree(Some(key_range))));
        }
        Map::new(members).map(Value::Object)
    }

    /// What a key with nothing behind it on its line holds.
    fn block(&mut self, above: usize, depth: usize) -> Option<Read<'a>> {
        let line = self.line?;
        let is_list = line.text.starts_with("- ");
        let value = if is_list && line.indent >= above {
            self.list(line.indent, depth)?
        } else if line.indent > above {
            self.map(line.indent, depth)?
        } else {
            return None;
        };
        // A list that stands no deeper than its key is said to begin behind its first dash.
        let inner = is_list && line.indent == above;
        let at = line.indent + if inner { 2 } else { 0 };
        Some(Read(value, on_line(line.number, at, at), true))
    }

    /// The block list at an indentation.
    fn list(&mut self, indent: usize, depth: usize) -> Option<Value<'a>> {
        if depth > MAX_DEPTH {
            return None;
        }
        let mut items = Vec::new();
        while let Some(line) = self.line.filter(|line| line.indent >= indent) {
            if line.indent > indent {
                return None;
            }
            let Some(text) = line.text.strip_prefix("- ") else {
                break;
            };
            let at = indent + 2;
            let compact = key(text).is_some_and(|(_, width)| {
                let behind = &text[width..];
                behind == ":" || behind.starts_with(": ")
            });
            let read = if compact {
                self.line = Some(Line {
                    number: line.number,
                    indent: at,
                    text,
                });
                let value = self.map(at, depth + 1)?;
                Read(value, on_line(line.number, at, at), true)
            } else {
                self.value(text, line.number, at, indent, depth + 1)?
            };
            items.push(read.tree(None));
        }
        Some(Value::Array(items))
    }

    /// A value that begins on the line of its key or dash, and goes on to the next line with something on it.
    fn value(
        &mut self,
        text: &'a str,
        number: u32,
        column: usize,
        above: usize,
        depth: usize,
    ) -> Option<Read<'a>> {
        let flow = Flow {
            text,
            number,
            column,
        };
        let (read, end) = match text.as_bytes().first()? {
            b'|' => {
                let (value, range) = self.literal(text, above)?;
                self.next()?;
                return Some(Read(value, range, false));
            }
            b'{' | b'[' | b'"' | b'\'' => flow.value(0, depth)?,
            _ => {
                let end = plain(text)?;
                let value = resolve(&text[..end])?;
                let range = on_line(number, column, column + end);
                (Read(value, range, false), end)
            }
        };
        ends(&text[end..])?;
        self.next()?;
        Some(read)
    }

    /// A block of text behind `|` or `|-`. It is said to begin with its first line.
    fn literal(&mut self, text: &str, above: usize) -> Option<(Value<'a>, Range)> {
        let (strip, width) = if text.starts_with("|-") {
            (true, 2)
        } else {
            (false, 1)
        };
        ends(&text[width..])?;
        let mut out = String::new();
        let first = self.number;
        let mut indent = None;
        let mut blanks = 0;
        loop {
            let (before, line_number) = (self.rest, self.number);
            let Some(raw) = self.raw() else { break };
            let line = raw.trim_start_matches(' ');
            if raw.is_empty() && indent.is_some() {
                blanks += 1;
                continue;
            }
            if line.is_empty() || !line.bytes().all(is_printable) {
                return None;
            }
            let own = raw.len() - line.len();
            let indent = *indent.get_or_insert(own);
            if own <= above {
                (self.rest, self.number) = (before, line_number);
                break;
            }
            if own < indent {
                return None;
            }
            out.extend(std::iter::repeat_n('\n', std::mem::take(&mut blanks)));
            out.push_str(&raw[indent..]);
            out.push('\n');
        }
        if out.is_empty() {
            return None;
        }
        if strip {
            out.pop();
        }
        let mark = |line, column: usize| Mark {
            line,
            column: column as u32,
        };
        let range = Range {
            start: mark(first, indent?),
            end: mark(self.number, 0),
        };
        Some((Value::String(out.into()), range))
    }
}

/// A value on one line, within brackets or quotes.
struct Flow<'a> {
    text: &'a str,
    number: u32,
    column: usize,
}

impl<'a> Flow<'a> {
    fn range(&self, from: usize, to: usize) -> Range {
        on_line(self.number, self.column + from, self.column + to)
    }

    /// The byte at a place, blanks passed over.
    fn skip(&self, mut at: usize) -> Option<(usize, u8)> {
        loop {
            match *self.text.as_bytes().get(at)? {
                b' ' => at += 1,
                byte => return Some((at, byte)),
            }
        }
    }

    /// The value at a place, and where it ends.
    fn value(&self, from: usize, depth: usize) -> Option<(Read<'a>, usize)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let text = &self.text[from..];
        let (value, end) = match text.as_bytes().first()? {
            b'{' => self.map(from + 1, depth)?,
            b'[' => self.list(from + 1, depth)?,
            b'"' | b'\'' => {
                let (text, width) = quoted(text)?;
                (Value::String(text), from + width)
            }
            _ => {
                let width = plain_in_flow(text)?;
                (resolve(&text[..width])?, from + width)
            }
        };
        Some((Read(value, self.range(from, end), false), end))
    }

    fn map(&self, from: usize, depth: usize) -> Option<(Value<'a>, usize)> {
        let mut members = Vec::new();
        let (mut at, mut byte) = self.skip(from)?;
        while byte != b'}' {
            let (key, width) = key(&self.text[at..])?;
            let key_range = self.range(at, at + width);
            let behind = at + width;
            if !self.text[behind..].starts_with(": ") {
                return None;
            }
            let (value_at, _) = self.skip(behind + 1)?;
            let (read, end) = self.value(value_at, depth + 1)?;
            members.push((Cow::Borrowed(key), read.tree(Some(key_range))));
            (at, byte) = self.skip(end)?;
            if byte == b',' {
                (at, byte) = self.skip(at + 1)?;
                if byte == b'}' {
                    return None;
                }
            } else if byte != b'}' {
                return None;
            }
        }
        Some((Value::Object(Map::new(members)?), at + 1))
    }

    fn list(&self, from: usize, depth: usize) -> Option<(Value<'a>, usize)> {
        let mut items = Vec::new();
        let (mut at, mut byte) = self.skip(from)?;
        while byte != b']' {
            let (read, end) = self.value(at, depth + 1)?;
            items.push(read.tree(None));
            (at, byte) = self.skip(end)?;
            if byte == b',' {
                (at, byte) = self.skip(at + 1)?;
                if byte == b']' {
                    return None;
                }
            } else if byte != b']' {
                return None;
            }
        }
        Some((Value::Array(items), at + 1))
    }
}

fn on_line(number: u32, from: usize, to: usize) -> Range {
    let mark = |column: usize| Mark {
        line: number,
        column: column as u32,
    };
    Range {
        start: mark(from),
        end: mark(to),
    }
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

/// Whether there is nothing behind a value but blanks and a comment.
fn ends(behind: &str) -> Option<()> {
    let rest = behind.trim_start_matches(' ');
    let comment = rest.starts_with('#') && rest.len() < behind.len();
    (rest.is_empty() || comment && rest.bytes().all(is_printable)).then_some(())
}

/// A key, and how wide it is written.
fn key(text: &str) -> Option<(&str, usize)> {
    if let Some(inner) = text.strip_prefix('"') {
        let width = inner
            .bytes()
            .take(MAX_KEY)
            .position(|b| matches!(b, b'"' | b'\\') || !is_printable(b))?;
        return inner[width..]
            .starts_with('"')
            .then_some((&inner[..width], width + 2));
    }
    let width = text
        .bytes()
        .take(MAX_KEY)
        .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/')))?;
    let first = text.as_bytes().first()?;
    (width > 0 && !matches!(first, b'-' | b'.')).then_some((&text[..width], width))
}

/// Whether a plain scalar may begin with this.
fn begins(text: &str) -> bool {
    match text.as_bytes() {
        [b'-', next, ..] => next.is_ascii_alphanumeric() || matches!(next, b'-' | b'.'),
        [first, ..] => {
            first.is_ascii_alphanumeric()
                || matches!(first, b'_' | b'/' | b'.' | b'$' | b'+' | b'~' | b'(' | b'^')
        }
        [] => false,
    }
}

/// How wide the plain scalar at the start of a text is, outside of brackets.
fn plain(text: &str) -> Option<usize> {
    if !begins(text) {
        return None;
    }
    let bytes = text.as_bytes();
    let mut end = bytes.len();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b':' if matches!(bytes.get(at + 1), None | Some(b' ')) => return None,
            b'#' if bytes[at - 1] == b' ' => {
                end = at;
                break;
            }
            byte if !is_printable(*byte) => return None,
            _ => {}
        }
    }
    Some(text[..end].trim_end_matches(' ').len())
}

/// The same within brackets.
fn plain_in_flow(text: &str) -> Option<usize> {
    if !begins(text) {
        return None;
    }
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b',' | b']' | b'}' => return Some(text[..at].trim_end_matches(' ').len()),
            b':' if bytes
                .get(at + 1)
                .is_none_or(|b| !b.is_ascii_alphanumeric() && *b != b'/') =>
            {
                return None;
            }
            b'-' if matches!(
                bytes.get(at + 1),
                None | Some(b' ' | b',' | b'[' | b']' | b'{' | b'}')
            ) =>
            {
                return None;
            }
            b'{' | b'[' | b'?' | b'#' => return None,
            byte if !is_printable(*byte) => return None,
            _ => {}
        }
    }
    None
}

/// A text in quotes, and how wide it is written.
fn quoted(text: &str) -> Option<(Cow<'_, str>, usize)> {
    let double = text.starts_with('"');
    let bytes = text.as_bytes();
    let mut out = Cow::Borrowed("");
    let mut from = 1;
    loop {
        let stop = from
            + bytes[from..].iter().position(|b| {
                !is_printable(*b)
                    || if double {
                        matches!(b, b'"' | b'\\')
                    } else {
                        *b == b'\''
                    }
            })?;
        out += &text[from..stop];
        let next = bytes.get(stop + 1);
        out += match (bytes[stop], next) {
            (b'\'', Some(b'\'')) if !double => "'",
            (b'"' | b'\'', _) => return Some((out, stop + 1)),
            (b'\\', Some(b'n')) => "\n",
            (b'\\', Some(b't')) => "\t",
            (b'\\', Some(b'"')) => "\"",
            (b'\\', Some(b'\\')) => "\\",
            _ => return None,
        };
        from = stop + 2;
    }
}

/// What a plain scalar is. What may be some number or other is left to serde_yaml to decide on.
fn resolve(text: &str) -> Option<Value<'_>> {
    let first = *text.as_bytes().first()?;
    let is_text = Value::String(Cow::Borrowed(text));
    Some(match text {
        "null" | "Null" | "NULL" | "~" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) => is_text,
        _ if text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit()) => {
            if first == b'0' && text.len() > 1 {
                is_text
            } else {
                Value::Number(text.parse::<u64>().ok()?.into())
            }
        }
        _ if !may_be_number(text) => is_text,
        _ => match value::read(text).as_mut_slice() {
            [Ok(value)] => match value.take() {
                serde_json::Value::Number(number) => Value::Number(number),
                serde_json::Value::String(_) => is_text,
                _ => return None,
            },
            _ => return None,
        },
    })
}

/// Whether serde_yaml has to be asked. `10s`, `20Mi`, `203.0.113.7` and `---` are none: a number has digits, at most one
/// point, and no other letters than these, `.inf` and `.nan` apart.
fn may_be_number(text: &str) -> bool {
    let word = text.trim_start_matches(['+', '-']);
    let named = matches!(word, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN");
    let of_number = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'x' | b'o' | b'+' | b'-' | b'.');
    named
        || text.bytes().all(of_number)
            && text.bytes().any(|b| b.is_ascii_digit())
            && text.bytes().filter(|b| *b == b'.').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostics;
    use crate::events;
    use crate::source::Source;

    /// Whether it is plain. If so, the long way must come to the same values and the same places.
    fn agrees(text: &str) -> bool {
        let source = Source::new("x.yaml".into(), text);
        let mut plain = true;
        for chunk in source.chunks() {
            let Some(tree) = read(&chunk) else {
                plain = false;
                continue;
            };
            let mut out = Diagnostics::default();
            let long = events::read(&source, &chunk, &mut out);
            assert!(out.is_empty(), "{out}\n{text}");
            let Some([other]) = long.as_deref() else {
                panic!("one document for one, the other for none\n{text}");
            };
            assert!(!other.unreadable && !other.empty, "{text}");
            let read = value::read(chunk.text);
            let [Ok(long)] = read.as_slice() else {
                panic!("{read:?}\n{text}");
            };
            assert_eq!(tree.value.to_json(), *long, "{text}");
            let mut merged = long.clone();
            let mut bad = Vec::new();
            value::merge(&mut merged, "", &mut bad);
            assert_eq!(&merged, long, "{text}");
            let other = Tree::join(merged, other.root.as_ref().unwrap());
            same(&source, &tree, &other);
        }
        plain
    }

    fn same(source: &Source<'_>, one: &Tree<'_>, other: &Tree<'_>) {
        let text = source.text;
        let key = |tree: &Tree<'_>| tree.entry.key.map(|key| source.spot(key));
        assert_eq!(key(one), key(other), "{text}");
        assert_eq!(one.entry.block, other.entry.block, "{text}");
        assert_eq!(one.own, other.own, "{text}");
        // The parser counts what follows a value as its: blanks, a comment, a literal's last line break or not.
        let (one_at, other_at) = (one.entry.value, other.entry.value);
        assert_eq!(one_at.start, other_at.start, "{text}");
        let (one_end, other_end) = (source.byte(one_at.end), source.byte(other_at.end));
        let more = &text[one_end.min(other_end)..one_end.max(other_end)];
        let more = more.trim();
        assert!(
            more.is_empty() || more.starts_with('#'),
            "{more:?} in {text}"
        );
        match (&one.value, &other.value) {
            (Value::Array(one), Value::Array(other)) => {
                assert_eq!(one.len(), other.len(), "{text}");
                one.iter().zip(other).for_each(|(a, b)| same(source, a, b));
            }
            (Value::Object(one), Value::Object(other)) => {
                assert_eq!(one.len(), other.len(), "{text}");
                for ((key, a), (other, b)) in one.iter().zip(other.iter()) {
                    assert_eq!(key, other, "{text}");
                    same(source, a, b);
                }
            }
            (one, other) => assert_eq!(one, other, "{text}"),
        }
    }

    const PLAIN: [&str; 12] = [
        "kind: App\nname: hello\nmachines: [web-1, web-2]\nrun: exec ./x --listen :$PORT # as told\nports: { http: 8080, \"x y\": auto }\n",
        "# before\n---\na: 1\nb: 1.10\nc: 0x1f\nd: 0123\ne: 12:30:45\nf: 1e3\ng: .5\nh: -1\ni: no\nj: 10s\nk: 10.0.0.1\nl: +1\nm: -.inf\n",
        "a:\n  b:\n    c: x\n  # between\n\n  d: y\ne:\n- one\n- two\nf:\n  - { a: b, c: [d, \"e\"] }\n  - g: h\n    i: j\n  - 'it''s'\n",
        "files:\n  /etc/motd:\n    content: |\n      one\n        two: x\n\n      # three\n    mode: \"0644\"\n  /etc/x: { content: \"a\\n\\\"b\\\\\" }\n",
        "a: |-\n  x\n\n\n",
        "a: |\n  x\n  y\n",
        "a: b c  d   # x\nb: http://x:80/#y\nc: a#b\n",
        "a: [--queue, -x, /y, 1, true, null, ~, x:y, http://z/]\n",
        "a: { }\nb: [ ]\nc: {}\nd: []\n",
        "80: x\ntrue: y\nnull: z\n1.5: a\n",
        "a: 99999999999999999999999\nb: -5\nc: 0\nd: 00\ne: 1_000\nf: 0b11\ng: 0o17\nh: 1.\ni: 2026-11-01\n",
        "a:\n- b: |\n    x\n  c: y\n- d: [z]\n\n# end\n",
    ];

    #[test]
    fn what_is_plain_is_read_as_on_the_long_way() {
        for text in PLAIN {
            assert!(agrees(text), "this should be plain:\n{text}");
        }
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_long_way() {
        for text in [
            "",
            "# x\n",
            "---\n",
            "a: 1",
            "a:\n",
            "a: &x 1\n",
            "a: *x\n",
            "a: !t 1\n",
            "<<: { a: 1 }\n",
            "? a\n: b\n",
            "a: 1\na: 2\n",
            "a: x\n  y\n",
            "a: \"x\n  y\"\n",
            "a: >\n  x\n",
            "a: [x,\n  y]\n",
            "a:\tx\n",
            "a: x\r\n",
            "a: ä\n",
            "- a\n",
            "a\n",
            "a: x: y\n",
            "a: x:\n",
            "a: @x\n",
            "a: \"\\x41\"\n",
            "{ a: 1 }\n",
            "a: { b: }\n",
            "a: [x,]\n",
            "%YAML 1.2\n---\na: 1\n",
            "a: 1\n...\n",
            " a: 1\n",
            "a:\n    b: 1\n  c: 2\n",
            "a: ]\n",
        ] {
            assert!(!agrees(text), "this should not be plain:\n{text}");
        }
    }

    /// What fuzzing has found to be worth keeping, the examples, and the fleets of other tests.
    #[test]
    fn every_text_of_the_corpus_is_read_as_on_the_long_way() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut folders = ["fuzz/corpus/yaml", "fuzz/corpus/fmt", "blueprints-examples"]
            .map(|folder| root.join(folder))
            .to_vec();
        let (mut plain, mut texts) = (0, 0);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let file = crate::source::SourceFile {
                    path: path.display().to_string(),
                    text: std::fs::read(&path).unwrap(),
                };
                if let Some(source) = Source::decode(&file, &mut Diagnostics::default()) {
                    plain += usize::from(agrees(source.text));
                    texts += 1;
                }
            }
        }
        assert!(plain > 10 && texts > 100, "{plain} of {texts} are plain");
    }

    /// Texts that are nearly plain, changed at random places, always the same ones. `PLUMB_CASES` asks for more.
    /// Mutations: take `#` without a blank before it for a comment; let `: ` pass in `plain`; drop the check of a
    /// line's indentation in `map`.
    #[test]
    fn whatever_is_taken_for_plain_is_read_as_on_the_long_way() {
        let cases = std::env::var("PLUMB_CASES").ok();
        let cases = cases.and_then(|n| n.parse().ok()).unwrap_or(6000);
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below.max(1) as u64) as usize
        };
        let pieces = [
            " ", "  ", "\n", "\n  ", "\n\n", ":", ": ", " #", "#", "- ", "-", "\"", "'", "{", "}",
            "[", "]", ", ", ",", "|", "|-\n  ", "&a ", "*a", "!", "~", "0", "1", "x", ".", "+",
            "?", "? ", "\t", "\\", "\\n", "%", "@", "$", "<<: ", "---\n", "...\n", "e", "null",
            "=", "(", "0x", "inf", "_", "''", "ä", ">\n ",
        ];
        let (mut plain, mut failed) = (0, 0);
        for _ in 0..cases {
            let mut text = PLAIN[random(PLAIN.len())].to_owned();
            for _ in 0..=random(3) {
                let at = (0..=random(text.len() + 1))
                    .rev()
                    .find(|at| text.is_char_boundary(*at));
                let at = at.unwrap_or(0);
                let mut to = (at + random(3) * random(4)).min(text.len());
                while !text.is_char_boundary(to) {
                    to += 1;
                }
                text.replace_range(at..to, pieces[random(pieces.len())]);
            }
            // All of them in one run, since each is worth a look.
            match std::panic::catch_unwind(|| agrees(&text)) {
                Ok(agreed) => plain += usize::from(agreed),
                Err(_) => failed += 1,
            }
        }
        assert_eq!(failed, 0);
        assert!(
            plain > cases / 10,
            "only {plain} of {cases} were plain: this tests nothing"
        );
    }
}
