//! Tokens put together again in canonical form.
//!
//! Lines stay lines: a line is never joined with another one (but for an empty pair of brackets) nor broken. What is
//! decided is the indentation of each line, the blanks within it, and the column of a comment behind it.

use super::tokens::{Kind, Token};

/// One level of indentation.
const STEP: usize = 2;

/// Where a closing bracket on a line of its own goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brackets {
    /// In the column of the key that the collection belongs to. The parser does not take that everywhere.
    Level,
    /// One level deeper.
    Hanging,
}

/// Puts the tokens of a text together.
pub(super) fn layout(tokens: &[Token<'_>], text: &str, brackets: Brackets) -> String {
    let mut layout = Layout {
        tokens,
        lines: Vec::new(),
        frames: Vec::new(),
        flow: 0,
        flow_base: 0,
        brackets,
        waiting: Vec::new(),
    };
    for at in 0..tokens.len() {
        layout.token(at);
    }
    layout.flush(0, 0);
    let mut out = render(&layout.lines);
    // Whether a text ends with a line break is part of it.
    if let Some(Kind::Body { .. }) = tokens.last().map(|t| t.kind)
        && !text.ends_with('\n')
        && !header(tokens).contains('-')
    {
        out.pop();
    }
    out
}

/// An open block collection: the column of its keys or dashes, as it was and as it becomes.
#[derive(Debug, Clone, Copy)]
struct Frame {
    list: bool,
    old: usize,
    new: usize,
}

/// A line of the result.
#[derive(Debug, Default)]
struct Line {
    text: String,
    /// A comment behind the text.
    comment: Option<Trailing>,
}

#[derive(Debug)]
struct Trailing {
    text: String,
    /// Where it stood.
    column: usize,
    /// How far from the text.
    gap: usize,
}

struct Layout<'a> {
    tokens: &'a [Token<'a>],
    lines: Vec<Line>,
    frames: Vec<Frame>,
    /// How many flow collections are open, and how far the line of the outermost one is indented.
    flow: usize,
    flow_base: usize,
    brackets: Brackets,
    /// Comments on lines of their own, until it is known what they stand above.
    waiting: Vec<usize>,
}

impl<'a> Layout<'a> {
    fn token(&mut self, at: usize) {
        let token = self.tokens[at];
        let starts = at == 0 || token.breaks > 0;
        match token.kind {
            Kind::Comment if starts => return self.waiting.push(at),
            Kind::Comment => {
                if let Some(line) = self.lines.last_mut() {
                    line.comment = Some(Trailing {
                        text: comment(token.text),
                        column: token.column,
                        gap: token.gap.max(1),
                    });
                }
                return;
            }
            Kind::Body { indent } => return self.body(at, indent),
            _ => {}
        }
        let before = self.frames.clone();
        let indent = self.indent(at, starts);
        let closes_empty = at > 0 && closes(self.tokens[at - 1].kind, token.kind);
        if starts && !closes_empty {
            let inner = std::mem::replace(&mut self.frames, before);
            self.flush(indent, token.column);
            self.frames = inner;
            self.blank(token);
            self.lines.push(Line {
                text: " ".repeat(indent),
                comment: None,
            });
        } else if let Some(line) = self.lines.last_mut()
            && at > 0
        {
            line.text
                .push_str(space(self.tokens[at - 1].kind, token.kind));
        }
        self.collection(token.kind, starts, indent);
        self.write(token);
    }

    /// How far the line is indented that begins with this token; opens and closes block collections.
    fn indent(&mut self, at: usize, starts: bool) -> usize {
        let token = self.tokens[at];
        if self.flow > 0 {
            let closer = matches!(token.kind, Kind::CloseMap | Kind::CloseList);
            let depth = self.flow - usize::from(closer);
            return self.flow_base + STEP * depth;
        }
        match token.kind {
            Kind::DocumentStart | Kind::DocumentEnd | Kind::Directive => {
                self.frames.clear();
                0
            }
            Kind::Dash => self.open(token.column, true),
            Kind::Question => self.open(token.column, false),
            Kind::Colon if starts => self.open(token.column, false),
            _ if self.is_key(at) => self.open(token.column, false),
            _ => self.frames.last().map_or(0, |frame| frame.new + STEP),
        }
    }

    /// Finds or opens the block collection whose entries stand in this column, closing those further right.
    fn open(&mut self, column: usize, list: bool) -> usize {
        while self
            .frames
            .last()
            .is_some_and(|top| top.old > column || (top.old == column && top.list && !list))
        {
            self.frames.pop();
        }
        match self.frames.last() {
            Some(top) if top.old == column && top.list == list => top.new,
            top => {
                // A list may stand in the column of its key; it is indented all the same.
                let new = top.map_or(0, |top| top.new + STEP);
                self.frames.push(Frame {
                    list,
                    old: column,
                    new,
                });
                new
            }
        }
    }

    /// Whether a key begins here: a scalar, its anchor before it, and `:` behind it on the same line.
    fn is_key(&self, at: usize) -> bool {
        let kind = |at: usize| self.tokens.get(at).map(|t| t.kind);
        let joined = |at: usize| self.tokens.get(at).is_some_and(|t| t.breaks == 0);
        if at > 0 && kind(at - 1) == Some(Kind::Anchor) && joined(at) {
            return false;
        }
        let name = if kind(at) == Some(Kind::Anchor) && joined(at + 1) {
            at + 1
        } else {
            at
        };
        matches!(
            kind(name),
            Some(Kind::Plain | Kind::Single | Kind::Double | Kind::Alias)
        ) && kind(name + 1) == Some(Kind::Colon)
            && joined(name + 1)
    }

    fn collection(&mut self, kind: Kind, starts: bool, indent: usize) {
        match kind {
            Kind::OpenMap | Kind::OpenList => {
                if self.flow == 0 {
                    self.flow_base = match self.frames.last() {
                        _ if starts => indent,
                        Some(frame) if frame.list || self.brackets == Brackets::Hanging => {
                            frame.new + STEP
                        }
                        Some(frame) => frame.new,
                        None => 0,
                    };
                }
                self.flow += 1;
            }
            Kind::CloseMap | Kind::CloseList => self.flow = self.flow.saturating_sub(1),
            _ => {}
        }
    }

    /// Adds a token to the last line; further lines of a text are indented below what it belongs to.
    fn write(&mut self, token: Token<'_>) {
        let below = if self.flow > 0 {
            self.flow_base + STEP * (self.flow + 1)
        } else {
            self.frames.last().map_or(0, |frame| frame.new) + STEP
        };
        for (number, line) in token.text.split('\n').enumerate() {
            let text = inner(line, number > 0, token.kind);
            if number == 0 {
                if let Some(last) = self.lines.last_mut() {
                    last.text.push_str(text);
                }
            } else {
                let indent = if text.is_empty() { 0 } else { below };
                self.lines.push(Line {
                    text: format!("{}{text}", " ".repeat(indent)),
                    comment: None,
                });
            }
        }
    }

    /// The lines of a block scalar, moved as a whole.
    fn body(&mut self, at: usize, indent: usize) {
        let explicit = header(&self.tokens[..at])
            .chars()
            .find_map(|c| c.to_digit(10))
            .map(|n| n as usize);
        let parent = self.frames.last().map_or(0, |frame| frame.new);
        let new = parent + explicit.unwrap_or(STEP);
        for line in self.tokens[at].text.split('\n') {
            let text = line.get(indent..).unwrap_or_default();
            let indent = if text.is_empty() { 0 } else { new };
            self.lines.push(Line {
                text: format!("{}{text}", " ".repeat(indent)),
                comment: None,
            });
        }
    }

    /// Writes the comments that were waiting, above a line of this indentation that stood in this column.
    fn flush(&mut self, indent: usize, column: usize) {
        for at in std::mem::take(&mut self.waiting) {
            let token = self.tokens[at];
            let indent = self.comment_indent(at, token.column, indent, column);
            self.blank(token);
            self.lines.push(Line {
                text: format!("{}{}", " ".repeat(indent), comment(token.text)),
                comment: None,
            });
        }
    }

    /// A comment stands with what follows it, unless it is further right: then it belongs to what it is inside of.
    fn comment_indent(&self, at: usize, column: usize, indent: usize, next: usize) -> usize {
        if self.flow > 0 {
            return self.flow_base + STEP * self.flow;
        }
        if column <= next {
            return indent;
        }
        let open = self.tokens[..at]
            .iter()
            .rev()
            .find(|t| t.kind != Kind::Comment)
            .is_some_and(|t| {
                matches!(
                    t.kind,
                    Kind::Colon | Kind::Dash | Kind::Question | Kind::Anchor
                )
            });
        let around = self.frames.iter().rev().find(|frame| frame.old <= column);
        let inside = match (around, self.frames.last()) {
            (Some(_), Some(last)) if open && last.old < column => last.new + STEP,
            (Some(around), _) => around.new,
            (None, _) => 0,
        };
        inside.max(indent)
    }

    /// One empty line where there were any, but not at the start.
    fn blank(&mut self, token: Token<'_>) {
        if token.breaks > 1 && !self.lines.is_empty() {
            self.lines.push(Line::default());
        }
    }
}

/// The header of the last block scalar.
fn header<'a>(tokens: &[Token<'a>]) -> &'a str {
    let last = tokens.iter().rev().find(|t| t.kind == Kind::Header);
    last.map_or("", |token| token.text)
}

/// One line of a text without the white space that means nothing.
fn inner(line: &str, further: bool, kind: Kind) -> &str {
    const BLANKS: [char; 2] = [' ', '\t'];
    let line = if further {
        line.trim_start_matches(BLANKS)
    } else {
        line
    };
    let text = line.trim_end_matches(BLANKS);
    let escapes = text.len() - text.trim_end_matches('\\').len();
    if kind == Kind::Double && escapes % 2 == 1 && text.len() < line.len() {
        // The blank behind a backslash is escaped, so it means something.
        return &line[..=text.len()];
    }
    text
}

/// An opening bracket and its closing one.
fn closes(open: Kind, close: Kind) -> bool {
    matches!(
        (open, close),
        (Kind::OpenMap, Kind::CloseMap) | (Kind::OpenList, Kind::CloseList)
    )
}

/// What goes between two tokens of one line.
fn space(before: Kind, kind: Kind) -> &'static str {
    match (before, kind) {
        (Kind::OpenMap, Kind::CloseMap) | (Kind::OpenList, Kind::CloseList) => "",
        // Where nothing stands between, a blank keeps what is before from growing.
        (Kind::Colon | Kind::Anchor, _) => " ",
        (Kind::Alias, Kind::Colon) => " ",
        (_, Kind::CloseList) => "",
        (_, Kind::Comma) => "",
        (Kind::OpenList, _) => "",
        (
            Kind::Plain | Kind::Single | Kind::Double | Kind::CloseMap | Kind::CloseList,
            Kind::Colon,
        ) => "",
        _ => " ",
    }
}

/// A comment with a blank behind its `#`, unless that would spoil a line of signs.
fn comment(text: &str) -> String {
    match text.strip_prefix('#') {
        Some(rest)
            if rest.starts_with(|c: char| c.is_alphanumeric() || "\"'`([{<$@&*_/".contains(c)) =>
        {
            format!("# {rest}")
        }
        _ => text.to_owned(),
    }
}

/// The text of all lines. Comments behind neighbouring lines that stood in one column stand in one column again.
fn render(lines: &[Line]) -> String {
    let mut out = String::new();
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        let Some(first) = &line.comment else {
            out.push_str(&line.text);
            out.push('\n');
            at += 1;
            continue;
        };
        let group: Vec<(&Line, &Trailing)> = lines[at..]
            .iter()
            .map_while(|line| line.comment.as_ref().map(|comment| (line, comment)))
            .take_while(|(_, comment)| comment.column == first.column)
            .collect();
        let width = |line: &Line| line.text.chars().count();
        let widest = group.iter().map(|(line, _)| width(line)).max().unwrap_or(0);
        let gap = group
            .iter()
            .map(|(_, comment)| comment.gap)
            .min()
            .unwrap_or(1);
        for (line, comment) in &group {
            let blanks = widest + gap - width(line);
            out.push_str(&format!(
                "{}{}{}\n",
                line.text,
                " ".repeat(blanks),
                comment.text
            ));
        }
        at += group.len();
    }
    out
}
