//! A file as it was handed in: decoded, cut into lines and documents, and places in it.

use std::sync::Arc;

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot};

/// The largest file in bytes. A blueprint of ten thousand resources fits; what is larger is not written by hand.
pub const MAX_FILE_BYTES: usize = 1 << 20;

/// A blueprint file, as the caller read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Relative to the repository's root, separated by `/`.
    pub path: String,
    /// Its bytes.
    pub text: Vec<u8>,
}

/// A decoded file.
pub(crate) struct Source<'a> {
    pub path: Arc<str>,
    pub text: &'a str,
    /// The byte ranges of the lines, without their line breaks.
    lines: Vec<(usize, usize)>,
    /// Every character is a byte, so that places need no counting.
    ascii: bool,
    /// The first control character that no text has, if there is one.
    control: Option<usize>,
}

/// A position as the YAML parser tells it: both counted from 0, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    pub line: u32,
    pub column: u32,
}

/// From a position up to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: Mark,
    pub end: Mark,
}

/// One document's text, and the number of lines before it.
pub(crate) struct Chunk<'a> {
    pub text: &'a str,
    pub line: u32,
}

/// What is said of a file that has too many bytes.
pub(crate) fn too_large(path: &str, bytes: u64) -> Diagnostic {
    Diagnostic::error(
        Code::FileTooLarge,
        format!("this file has {bytes} bytes, more than the {MAX_FILE_BYTES} that a blueprint may have"),
    )
    .in_file(path)
    .hint("split it over several files, and put large file contents in files of their own: `source: ./big.txt`")
}

impl<'a> Source<'a> {
    /// Decodes a file, or says why it is no text. A leading byte order mark is dropped.
    pub fn decode(file: &'a SourceFile, out: &mut Diagnostics) -> Option<Self> {
        let path: Arc<str> = file.path.as_str().into();
        if file.text.len() > MAX_FILE_BYTES {
            out.push(too_large(&path, file.text.len() as u64));
            return None;
        }
        let text = match std::str::from_utf8(&file.text) {
            Ok(text) => text,
            Err(error) => {
                let good = String::from_utf8_lossy(&file.text[..error.valid_up_to()]);
                let message = match file.text.as_slice() {
                    [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
                        "this file is UTF-32, not UTF-8".to_owned()
                    }
                    [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
                        "this file is UTF-16, not UTF-8".to_owned()
                    }
                    bytes => format!(
                        "this file is not UTF-8: byte 0x{:02x}",
                        bytes[error.valid_up_to()]
                    ),
                };
                let good = Source::new(path, &good);
                let spot = good.spot_at(good.text.len(), 1);
                out.push(
                    Diagnostic::error(Code::NotUtf8, message)
                        .here(&spot)
                        .hint("save it as UTF-8"),
                );
                return None;
            }
        };
        let source = Self::new(path, text);
        if let Some(at) = source.control {
            let (name, hint) = match source.text.as_bytes()[at] {
                0 => (
                    "a NUL byte".to_owned(),
                    "remove it; if each second byte of the file is one, it is UTF-16: save it as UTF-8",
                ),
                byte => (
                    format!("the control character U+{byte:04X}"),
                    "remove it; inside double quotes, YAML writes it as an escape such as \"\\e\"",
                ),
            };
            out.push(
                Diagnostic::error(Code::ControlCharacter, format!("this file holds {name}"))
                    .here(&source.spot_at(at, 1))
                    .hint(hint),
            );
            return None;
        }
        Some(source)
    }

    /// For rendering, where a file that is no text is shown as well as it can be.
    pub fn new(path: Arc<str>, text: &'a str) -> Self {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        // As long as most lines are.
        let mut lines = Vec::with_capacity(text.len() / 20 + 1);
        let mut start = 0;
        let mut ascii = true;
        let mut control = None;
        for (at, c) in text.bytes().enumerate() {
            match c {
                b' '..=b'~' | b'\t' => {}
                // YAML ends a line at a lone carriage return too, and counts its places so.
                b'\r' if text.as_bytes().get(at + 1) == Some(&b'\n') => {}
                b'\n' | b'\r' => {
                    let line = &text[start..at];
                    let end = if c == b'\n' {
                        line.trim_end_matches('\r')
                    } else {
                        line
                    };
                    lines.push((start, start + end.len()));
                    start = at + 1;
                }
                // Both parsers treat these as ends or as noise; a person cannot see them at all.
                0..=31 | 127 => control = control.or(Some(at)),
                128.. => ascii = false,
            }
        }
        // What follows the last line break is a line as well, if only an empty one.
        lines.push((start, text.len()));
        Self {
            path,
            ascii,
            text,
            lines,
            control,
        }
    }

    /// The text of a line, counted from 0; empty past the end.
    pub fn line(&self, line: u32) -> &'a str {
        self.lines
            .get(line as usize)
            .map_or("", |(start, end)| &self.text[*start..*end])
    }

    /// The byte at which a position stands.
    pub fn byte(&self, mark: Mark) -> usize {
        let Some((start, end)) = self.lines.get(mark.line as usize) else {
            return self.text.len();
        };
        let line = &self.text[*start..*end];
        let column = mark.column as usize;
        if self.ascii || line.is_ascii() {
            return start + column.min(line.len());
        }
        line.char_indices()
            .nth(column)
            .map_or(*end, |(at, _)| start + at)
    }

    /// A position behind the end of its line or of the text is moved to that end: a parser may say that a text ends too
    /// early at a line that is not there, and serde_yaml knows line breaks that are none any more.
    fn inside(&self, mark: Mark) -> Mark {
        let last = self.lines.len().saturating_sub(1) as u32;
        let line = mark.line.min(last);
        let end = self.chars(self.line(line));
        let column = if mark.line > last {
            end
        } else {
            mark.column.min(end)
        };
        Mark { line, column }
    }

    /// The number of characters of a part of it.
    fn chars(&self, part: &str) -> u32 {
        if self.ascii {
            part.len() as u32
        } else {
            part.chars().count() as u32
        }
    }

    /// The line and column of a position, both from 1.
    pub fn place(&self, mark: Mark) -> (u32, u32) {
        let mark = self.inside(mark);
        (mark.line + 1, mark.column + 1)
    }

    /// What to point at for a range: its first line's share of it.
    pub fn spot(&self, range: Range) -> Spot {
        let (start, end) = (self.inside(range.start), self.inside(range.end));
        let from = self.byte(start);
        let to = if start.line == end.line {
            self.byte(end)
        } else {
            from.max(
                self.lines
                    .get(start.line as usize)
                    .map_or(0, |(_, end)| *end),
            )
        };
        // The parser counts the blanks behind a quoted text as its.
        let shown = self.text.get(from..to).unwrap_or_default().trim_end();
        let length = self.chars(shown);
        Spot {
            file: Arc::clone(&self.path),
            line: start.line + 1,
            column: start.column + 1,
            length: length.max(1),
        }
    }

    /// What to point at for so many characters from a byte on.
    pub fn spot_at(&self, byte: usize, chars: u32) -> Spot {
        let line = self.lines.partition_point(|(start, _)| *start <= byte) - 1;
        let before = &self.text[self.lines[line].0..byte];
        Spot {
            file: Arc::clone(&self.path),
            line: line as u32 + 1,
            column: self.chars(before) + 1,
            length: chars,
        }
    }

    /// Cuts the file at its `---` lines, so that a broken document leaves the others readable. YAML takes
    /// `---` at the start of a line for a boundary even inside a block of text.
    pub fn chunks(&self) -> Vec<Chunk<'a>> {
        let mut chunks = Vec::new();
        let (mut from, mut from_line, mut content) = (0, 0, false);
        for (number, (start, _)) in self.lines.iter().enumerate() {
            let line = self.line(number as u32);
            let marker = line
                .strip_prefix("---")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
            if marker && content {
                chunks.push(Chunk {
                    text: &self.text[from..*start],
                    line: from_line,
                });
                (from, from_line) = (*start, number as u32);
            }
            // Directives and comments belong to the document that follows them.
            let prelude = || {
                let bare = line.trim_start();
                bare.is_empty() || bare.starts_with('#') || line.starts_with('%')
            };
            content = content || marker || !prelude();
        }
        chunks.push(Chunk {
            text: &self.text[from..],
            line: from_line,
        });
        chunks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &str) -> Vec<(String, u32)> {
        let source = Source::new("x".into(), text);
        let cut = source.chunks();
        cut.iter().map(|c| (c.text.to_owned(), c.line)).collect()
    }

    #[test]
    fn a_file_is_cut_at_its_document_markers_and_nothing_is_lost() {
        for text in [
            "",
            "a: 1\n",
            "---\na: 1\n---\nb: 1\n",
            "# c\n---\na: 1\n--- # x\nb: 2",
            "%YAML 1.2\n---\na: 1\n",
            "a: |\n  ---\n  x\n---x: 1\n",
            "a: 1\r\n---\r\nb: 2\r\n",
        ] {
            let joined: String = chunks(text).into_iter().map(|(t, _)| t).collect();
            assert_eq!(joined, text);
        }
        assert_eq!(
            chunks("# c\n---\na: 1\n--- # x\nb: 2\n"),
            [
                ("# c\n---\na: 1\n".into(), 0),
                ("--- # x\nb: 2\n".into(), 3)
            ]
        );
        assert_eq!(chunks("a: |\n  ---\n---x: 1\n").len(), 1);
    }

    #[test]
    fn a_byte_that_is_no_text_is_placed_as_everything_else_is() {
        for (bytes, expected) in [
            (&b"\xef\xbb\xbfa\xe8"[..], (1, 2)),
            (b"a\rb\xe8", (2, 2)),
            (b"a\r\n\xe8", (2, 1)),
        ] {
            let file = SourceFile {
                path: "x".into(),
                text: bytes.to_vec(),
            };
            let mut out = Diagnostics::default();
            assert!(Source::decode(&file, &mut out).is_none());
            let span = &out.items[0].spans[0];
            assert_eq!((span.line, span.column), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_place_behind_the_last_line_is_the_end_of_that_line() {
        for (text, line, expected) in [
            ("%S", 1, (1, 3)),
            ("a\nb", 7, (2, 2)),
            ("a\n", 1, (2, 1)),
            ("a\rb", 1, (2, 1)),
            ("a\r\nb", 1, (2, 1)),
            ("", 0, (1, 1)),
        ] {
            let source = Source::new("x".into(), text);
            let mark = Mark { line, column: 0 };
            let spot = source.spot(Range {
                start: mark,
                end: mark,
            });
            assert_eq!((spot.line, spot.column), expected, "{text:?}");
        }
    }

    #[test]
    fn columns_count_characters_and_a_byte_order_mark_counts_nothing() {
        let source = Source::new("x".into(), "\u{feff}ä: ö\nb");
        let mark = Mark { line: 0, column: 3 };
        assert_eq!(&source.text[source.byte(mark)..source.byte(mark) + 2], "ö");
        let spot = source.spot_at(source.byte(mark), 1);
        assert_eq!((spot.line, spot.column), (1, 4));
    }
}
