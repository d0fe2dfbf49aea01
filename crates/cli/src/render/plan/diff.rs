//! What differs between two texts: a unified diff of lines, and what changed inside a line or a value. What comes out is
//! clean: it can be shown as it is, but for what HTML or Markdown ask for on top.

use std::ops::Range;

use plumb_model::escape;
use similar::{Algorithm, ChangeTag, DiffOp, DiffTag, TextDiff, capture_diff_slices};

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;

/// Texts of more lines than this are not compared: it takes time that grows with the square.
const MAX_COMPARED_LINES: usize = 4_000;

/// Lines and values longer than this, in bytes, are not compared word by word.
const MAX_COMPARED_BYTES: usize = 2_000;

/// A run of text, and whether it is what changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Whether it is what changed.
    pub changed: bool,
    /// Clean text.
    pub text: String,
}

/// What a line of a diff is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// Where the next lines stand.
    Place,
    /// As it was.
    Same,
    /// It goes.
    Old,
    /// It comes.
    New,
}

impl Tag {
    /// What stands before the line.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Place => "",
            Self::Same => " ",
            Self::Old => "-",
            Self::New => "+",
        }
    }
}

/// One line of a diff.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What it is.
    pub tag: Tag,
    /// What stands in it.
    pub parts: Vec<Part>,
}

impl Line {
    fn of(tag: Tag, text: String) -> Self {
        let changed = false;
        Self {
            tag,
            parts: vec![Part { changed, text }],
        }
    }

    /// The whole line without its sign.
    pub fn text(&self) -> String {
        self.parts.iter().map(|p| p.text.as_str()).collect()
    }
}

/// A line with everything in it visible. In a changed line that includes tabs and the spaces at its end.
fn visible(line: &str, changed: bool) -> String {
    let clean = escape::line(line).replace('\t', if changed { "⇥   " } else { "    " });
    if !changed {
        return clean;
    }
    let kept = clean.trim_end_matches(' ');
    let spaces = clean.len() - kept.len();
    format!("{kept}{}", "·".repeat(spaces))
}

/// A unified diff of two texts, with what changed inside lines that were changed rather than replaced.
pub fn unified(old: &str, new: &str) -> Vec<Line> {
    let count = |text: &str| text.lines().count();
    if count(old) + count(new) > MAX_COMPARED_LINES {
        let text = format!("{} lines become {} others", count(old), count(new));
        return vec![Line::of(Tag::Place, text)];
    }
    let diff = TextDiff::from_lines(old, new);
    let mut lines = Vec::new();
    let groups = diff.grouped_ops(CONTEXT);
    let whole = old.is_empty() || new.is_empty();
    for group in &groups {
        if !whole && let (Some(first), Some(last)) = (group.first(), group.last()) {
            let place = |range: Range<usize>| match range.len() {
                1 => format!("{}", range.start + 1),
                len => format!("{},{len}", range.start + 1),
            };
            let before = first.old_range().start..last.old_range().end;
            let after = first.new_range().start..last.new_range().end;
            let text = format!("@@ -{} +{} @@", place(before), place(after));
            lines.push(Line::of(Tag::Place, text));
        }
        for op in group {
            push(&mut lines, &diff, op);
        }
    }
    lines
}

fn push(lines: &mut Vec<Line>, diff: &TextDiff<'_, '_, str>, op: &DiffOp) {
    let changed = op.tag() != DiffTag::Equal;
    let mut old = Vec::new();
    let mut new = Vec::new();
    let mut ends = [false; 2];
    for change in diff.iter_changes(op) {
        let line = change.value().trim_end_matches('\n');
        match change.tag() {
            ChangeTag::Equal => lines.push(Line::of(Tag::Same, visible(line, false))),
            ChangeTag::Delete => {
                old.push(line);
                ends[0] = change.missing_newline();
            }
            ChangeTag::Insert => {
                new.push(line);
                ends[1] = change.missing_newline();
            }
        }
    }
    if !changed {
        return;
    }
    // Lines of a replaced block belong together one by one only if there are as many.
    let pairs: Vec<_> = if old.len() == new.len() {
        old.iter().zip(&new).map(|(a, b)| inline(a, b)).collect()
    } else {
        Vec::new()
    };
    let no_newline = |lines: &mut Vec<Line>| {
        lines.push(Line::of(Tag::Place, "\\ no newline at the end".to_owned()));
    };
    let (mut before, mut after): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let plain = |lines: &[&str]| -> Vec<Vec<Part>> {
        lines
            .iter()
            .map(|line| Line::of(Tag::Same, visible(line, true)).parts)
            .collect()
    };
    if before.is_empty() {
        (before, after) = (plain(&old), plain(&new));
    }
    lines.extend(before.into_iter().map(|parts| Line {
        tag: Tag::Old,
        parts,
    }));
    if ends[0] && !ends[1] {
        no_newline(lines);
    }
    lines.extend(after.into_iter().map(|parts| Line {
        tag: Tag::New,
        parts,
    }));
    if ends[1] && !ends[0] {
        no_newline(lines);
    }
}

/// The pieces that are compared: words, and every other character by itself.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut start = 0;
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        let word = c.is_alphanumeric();
        if at > start && !(word && in_word) {
            tokens.push(&text[start..at]);
            start = at;
        }
        in_word = word;
    }
    if start < text.len() {
        tokens.push(&text[start..]);
    }
    tokens
}

/// What changed between two lines, in both. Where hardly anything is the same, all of it did.
pub fn inline(old: &str, new: &str) -> (Vec<Part>, Vec<Part>) {
    let all = |text: &str| {
        let changed = true;
        vec![Part {
            changed,
            text: visible(text, true),
        }]
    };
    if old.len().max(new.len()) > MAX_COMPARED_BYTES {
        return (all(old), all(new));
    }
    let (a, b) = (tokens(old), tokens(new));
    let ops = capture_diff_slices(Algorithm::Myers, &a, &b);
    let same: usize = ops
        .iter()
        .filter(|op| op.tag() == DiffTag::Equal)
        .flat_map(|op| &a[op.old_range()])
        .map(|t| t.len())
        .sum();
    if same * 3 < old.len().max(new.len()) {
        return (all(old), all(new));
    }
    let parts = |tokens: &[&str], range: &dyn Fn(&DiffOp) -> Range<usize>| {
        let mut parts: Vec<Part> = Vec::new();
        let mut left = ops.iter().filter(|op| !range(op).is_empty()).count();
        for op in &ops {
            let text = tokens[range(op)].concat();
            if text.is_empty() {
                continue;
            }
            left -= 1;
            let changed = op.tag() != DiffTag::Equal;
            // Only spaces at the end of the line are at its end.
            let text = if left == 0 {
                visible(&text, true)
            } else {
                escape::line(&text).replace('\t', "⇥   ")
            };
            match parts.last_mut() {
                Some(last) if last.changed == changed => last.text.push_str(&text),
                _ => parts.push(Part { changed, text }),
            }
        }
        parts
    };
    (
        parts(&a, &|op| op.old_range()),
        parts(&b, &|op| op.new_range()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(parts: &[Part]) -> String {
        parts
            .iter()
            .map(|p| {
                if p.changed {
                    format!("[{}]", p.text)
                } else {
                    p.text.clone()
                }
            })
            .collect()
    }

    #[test]
    fn inside_a_value_only_what_changed_is_marked() {
        for (old, new, a, b) in [
            (
                "postgres://shop@db-1:5432/shop",
                "postgres://shop@db-2:5432/shop",
                "postgres://shop@db-[1]:5432/shop",
                "postgres://shop@db-[2]:5432/shop",
            ),
            ("one", "two", "[one]", "[two]"),
            ("a b", "a b ", "a b", "a b[·]"),
            ("x\ty", "x y", "x[⇥   ]y", "x[ ]y"),
        ] {
            let (left, right) = inline(old, new);
            assert_eq!((marked(&left).as_str(), marked(&right).as_str()), (a, b));
        }
    }

    #[test]
    fn a_diff_says_where_it_is_and_what_is_invisible() {
        let old: String = (1..=20).map(|n| format!("line {n}\n")).collect();
        let new = old.replace("line 9\n", "line 9 \n") + "end";
        let lines: Vec<String> = unified(&old, &new)
            .iter()
            .map(|l| format!("{}{}", l.tag.sign(), l.text()))
            .collect();
        assert_eq!(
            lines.join("\n"),
            "@@ -6,7 +6,7 @@\n line 6\n line 7\n line 8\n-line 9\n+line 9·\n line 10\n line 11\n line 12\n\
             @@ -18,3 +18,4 @@\n line 18\n line 19\n line 20\n+end\n\\ no newline at the end"
        );
    }

    #[test]
    fn two_huge_texts_are_not_compared() {
        let text = "x\n".repeat(MAX_COMPARED_LINES);
        assert_eq!(
            unified(&text, "y\n")[0].text(),
            "4000 lines become 1 others"
        );
    }
}
