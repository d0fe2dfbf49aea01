//! A YAML text as a list of tokens with their places, comments among them.
//!
//! saphyr-parser knows where plain and block scalars begin and end, which is the hard part, but tells neither comments
//! nor where indicators stand. What lies between scalars is cut up here. The text has been parsed before, so that it
//! is known to be YAML; whatever is met all the same that no YAML has is an error, and the file is left alone.

use std::collections::VecDeque;

use saphyr_parser::{Event, Parser, ScalarStyle};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `%YAML 1.2`.
    Directive,
    /// `---`.
    DocumentStart,
    /// `...`.
    DocumentEnd,
    /// `-` of a block list.
    Dash,
    /// `?` of an explicit key.
    Question,
    /// `:` behind a key.
    Colon,
    /// `,`.
    Comma,
    /// `{`.
    OpenMap,
    /// `[`.
    OpenList,
    /// `}`.
    CloseMap,
    /// `]`.
    CloseList,
    /// `&name`.
    Anchor,
    /// `*name`.
    Alias,
    /// A text without quotes.
    Plain,
    /// A text in single quotes.
    Single,
    /// A text in double quotes.
    Double,
    /// `|-`.
    Header,
    /// The lines of a block scalar, without the last line break.
    Body {
        /// How far its text is indented.
        indent: usize,
    },
    /// `# why`.
    Comment,
}

/// One token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    /// As it is written, multi-line scalars with their indentation.
    pub text: &'a str,
    /// The number of line breaks since the token before; 0 means that it is on the same line.
    pub breaks: usize,
    /// In characters, from 0.
    pub column: usize,
    /// The number of blanks directly before it.
    pub gap: usize,
}

/// A scalar whose place the parser knows, in bytes.
struct Known {
    start: usize,
    end: usize,
    /// Of a block scalar, how far the line that [`telling`] chooses is indented within the text itself.
    block: Option<usize>,
}

/// Cuts a text up.
pub(super) fn read(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut lexer = Lexer {
        text,
        known: known(text)?,
        tokens: Vec::new(),
        at: 0,
        last_end: 0,
        line_start: 0,
        depth: 0,
        in_document: false,
    };
    while lexer.at < text.len() {
        lexer.step()?;
    }
    match lexer.known.front() {
        None => Ok(lexer.tokens),
        Some(left) => Err(format!("a text at byte {} was passed over", left.start)),
    }
}

/// The places of plain and block scalars.
fn known(text: &str) -> Result<VecDeque<Known>, String> {
    let offsets: Vec<usize> = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .collect();
    let byte = |index: usize| offsets.get(index).copied().unwrap_or(text.len());
    let mut out = VecDeque::new();
    let mut parser = Parser::new_from_str(text);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|e| format!("not YAML: {}", e.info()))?;
        if let Event::Scalar(value, style, anchor, _) = event {
            let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
            if block || (style == ScalarStyle::Plain && !value.is_empty()) {
                let mut start = byte(span.start.index());
                if anchor > 0 && !block {
                    start += behind_anchor(&text[start..]);
                }
                out.push_back(Known {
                    start,
                    end: byte(span.end.index()),
                    block: block.then(|| telling(&value)),
                });
            }
        }
    }
    Ok(out)
}

/// How far the first line that is not blank is indented; the length of the longest line if all are blank. The
/// difference of the two numbers, of the lines as written and of the text that they mean, is their indentation.
fn telling(text: &str) -> usize {
    let blanks = |line: &str| line.len() - line.trim_start_matches(' ').len();
    match text.split('\n').find(|line| blanks(line) < line.len()) {
        Some(line) => blanks(line),
        None => text.split('\n').map(str::len).max().unwrap_or(0),
    }
}

/// The length of an anchor and of the white space and comments that follow it; 0 if there is no anchor.
fn behind_anchor(text: &str) -> usize {
    if !text.starts_with('&') {
        return 0;
    }
    let mut at = name_len(text);
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start_matches([' ', '\t', '\n']).len();
        if !text[at..].starts_with('#') {
            return at;
        }
        at += text[at..].find('\n').unwrap_or(text.len() - at);
    }
}

/// How long a text is without the white space behind it. To YAML that is less than to Unicode: a no-break space or a line
/// separator is a character like any other.
fn trimmed(text: &str) -> usize {
    text.trim_end_matches([' ', '\t', '\n']).len()
}

/// The length of `&name` or `*name`.
fn name_len(text: &str) -> usize {
    text.find([' ', '\t', '\n', ',', '[', ']', '{', '}'])
        .unwrap_or(text.len())
}

struct Lexer<'a> {
    text: &'a str,
    known: VecDeque<Known>,
    tokens: Vec<Token<'a>>,
    at: usize,
    last_end: usize,
    line_start: usize,
    /// How many flow collections are open.
    depth: usize,
    /// Behind a directive's place.
    in_document: bool,
}

impl<'a> Lexer<'a> {
    fn step(&mut self) -> Result<(), String> {
        let rest = &self.text[self.at..];
        let Some(first) = rest.chars().next() else {
            return Ok(());
        };
        if first == '\n' {
            self.at += 1;
            self.line_start = self.at;
            return Ok(());
        }
        if first == ' ' || first == '\t' {
            self.at += 1;
            return Ok(());
        }
        // YAML takes a byte order mark before each document (YAML 1.2.2, section 5.2). It is no part of what is written there.
        if first == '\u{feff}' && self.at == self.line_start {
            self.at += first.len_utf8();
            self.line_start = self.at;
            return Ok(());
        }
        if first == '#' {
            let line = rest.split('\n').next().unwrap_or(rest);
            self.push(Kind::Comment, trimmed(line));
            return Ok(());
        }
        if let Some(known) = self.known.front()
            && known.block.is_none()
            && known.start == self.at
        {
            let text = &self.text[self.at..known.end];
            self.known.pop_front();
            self.in_document = true;
            self.push(Kind::Plain, trimmed(text));
            return Ok(());
        }
        if self.at == self.line_start && self.depth == 0 {
            let marker = |word| {
                rest.strip_prefix(word)
                    .is_some_and(|r: &str| r.is_empty() || r.starts_with([' ', '\t', '\n']))
            };
            if marker("---") {
                self.in_document = true;
                self.push(Kind::DocumentStart, 3);
                return Ok(());
            }
            if marker("...") {
                self.in_document = false;
                self.push(Kind::DocumentEnd, 3);
                return Ok(());
            }
            if first == '%' && !self.in_document {
                let line = rest.split('\n').next().unwrap_or(rest);
                let line = line.split(" #").next().unwrap_or(line);
                self.push(Kind::Directive, trimmed(line));
                return Ok(());
            }
        }
        self.in_document = true;
        let (kind, len) = match first {
            '"' => (Kind::Double, quoted(rest, '"')?),
            '\'' => (Kind::Single, quoted(rest, '\'')?),
            '|' | '>' if self.depth == 0 => return self.block(),
            '&' => (Kind::Anchor, name_len(rest)),
            '*' => (Kind::Alias, name_len(rest)),
            '{' => (Kind::OpenMap, 1),
            '[' => (Kind::OpenList, 1),
            '}' => (Kind::CloseMap, 1),
            ']' => (Kind::CloseList, 1),
            ',' => (Kind::Comma, 1),
            '-' => (Kind::Dash, 1),
            '?' => (Kind::Question, 1),
            ':' => (Kind::Colon, 1),
            other => return Err(format!("what is {other:?} at byte {}?", self.at)),
        };
        match kind {
            Kind::OpenMap | Kind::OpenList => self.depth += 1,
            Kind::CloseMap | Kind::CloseList => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.push(kind, len);
        Ok(())
    }

    /// A token of so many bytes, here.
    fn push(&mut self, kind: Kind, len: usize) {
        let text = &self.text[self.at..self.at + len];
        let between = &self.text[self.last_end..self.at];
        self.tokens.push(Token {
            kind,
            text,
            breaks: between.matches('\n').count(),
            column: self.text[self.line_start..self.at].chars().count(),
            gap: between.len() - between.trim_end_matches([' ', '\t']).len(),
        });
        if let Some(last) = text.rfind('\n') {
            self.line_start = self.at + last + 1;
        }
        self.at += len;
        self.last_end = self.at;
    }

    /// The header of a block scalar, its comment, and its body.
    fn block(&mut self) -> Result<(), String> {
        let known = self.known.pop_front();
        let Some((end, inner)) = known.and_then(|k| Some((k.end, k.block?))) else {
            return Err(format!("no text is known at byte {}", self.at));
        };
        let rest = &self.text[self.at..];
        let header = rest.find([' ', '\t', '\n']).unwrap_or(rest.len());
        let keep = rest[..header].contains('+');
        self.push(Kind::Header, header);
        let rest = &self.text[self.at..];
        let line = rest.split('\n').next().unwrap_or(rest);
        if let Some(comment) = line.find('#') {
            self.at += comment;
            self.push(Kind::Comment, trimmed(&line[comment..]));
        }
        let Some(from) = self.text[self.at..].find('\n').map(|n| self.at + n + 1) else {
            return Ok(());
        };
        if end <= from {
            return Ok(());
        }
        // The parser counts the indentation of whatever comes next as the text's.
        let region = &self.text[from..end];
        let last = region.rfind('\n').map_or(0, |last| last + 1);
        let region = if region[last..].trim_matches([' ', '\t']).is_empty() {
            &region[..last]
        } else {
            region
        };
        let indent = telling(region).saturating_sub(inner);
        let kept = if keep {
            region.strip_suffix('\n').unwrap_or(region)
        } else {
            // Empty lines at the end are no part of the text. Those with more blanks than its indentation are.
            let mut end = 0;
            let mut at = 0;
            for line in region.split_inclusive('\n') {
                let bare = line.strip_suffix('\n').unwrap_or(line);
                if bare.len() > indent || !bare.trim_matches(' ').is_empty() {
                    end = at + bare.len();
                }
                at += line.len();
            }
            &region[..end]
        };
        if kept.is_empty() && !(keep && region.starts_with('\n')) {
            return Ok(());
        }
        self.at = from;
        self.line_start = from;
        self.push(Kind::Body { indent }, kept.len());
        Ok(())
    }
}

/// The length of a text in quotes.
fn quoted(text: &str, quote: char) -> Result<usize, String> {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if quote == '"' => at += 2,
            b if b == quote as u8 => {
                if quote == '\'' && bytes.get(at + 1) == Some(&b'\'') {
                    at += 2;
                } else {
                    return Ok(at + 1);
                }
            }
            _ => at += 1,
        }
    }
    Err("a quote is not closed".to_owned())
}
