//! What is said of a text that is not YAML: the slip behind the parser's complaint, where it can be made out. A parser notices
//! most slips only later, on a line that is in order.

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot};
use crate::source::{Mark, Range, Source};

/// What YAML lets stand behind a backslash between double quotes (YAML 1.2.2, 5.7), a line break apart.
const ESCAPES: &str = "0abt\tnvfre \"/\\N_LPxuU";

/// A syntax error in our own words as far as they go.
///
/// `info` is the parser's complaint, `at` its place, and `open` the bracket that it was within, if any.
pub(crate) fn error(info: &str, source: &Source<'_>, at: Mark, open: Option<Mark>) -> Diagnostic {
    tab(info, source, at)
        .or_else(|| missing_space(info, source, at))
        .or_else(|| bracket(source, at, open))
        .or_else(|| quoted(info, source, at))
        .unwrap_or_else(|| {
            problem(info.trim())
                .here(&spot(source, at, 1))
                .hint(hint(info, source, at))
        })
}

fn problem(what: &str) -> Diagnostic {
    Diagnostic::error(Code::Syntax, format!("this is not YAML: {what}"))
}

fn spot(source: &Source<'_>, start: Mark, length: u32) -> Spot {
    let end = Mark {
        column: start.column + length,
        ..start
    };
    source.spot(Range { start, end })
}

/// The column of a byte of a line.
fn column(line: &str, byte: usize) -> u32 {
    line[..byte].chars().count() as u32
}

/// A tab where YAML wants spaces. A text that goes on over a line break is told of at its start, so it may be on the next.
fn tab(info: &str, source: &Source<'_>, at: Mark) -> Option<Diagnostic> {
    let indents = |line: u32| {
        let text = source.line(line);
        let spaces = text.len() - text.trim_start_matches(' ').len();
        text[spaces..].starts_with('\t').then_some(Mark {
            line,
            column: spaces as u32,
        })
    };
    if let Some(tab) = indents(at.line).or_else(|| indents(at.line + 1)) {
        return Some(
            problem("a tab indents this line")
                .here(&spot(source, tab, 1))
                .hint("indent with spaces, two for each level"),
        );
    }
    let line = source.line(at.line);
    let colon = line.find(":\t").filter(|_| info.contains("':'"))?;
    let place = Mark {
        line: at.line,
        column: column(line, colon) + 1,
    };
    Some(
        problem("a tab follows the `:`")
            .here(&spot(source, place, 1))
            .hint("write a space after the `:`"),
    )
}

/// `name:x` is a text and no key, which shows where the next key begins.
fn missing_space(info: &str, source: &Source<'_>, at: Mark) -> Option<Diagnostic> {
    if !info.contains("simple key") {
        return None;
    }
    let number = (0..=at.line).rev().find(|number| {
        let line = source.line(*number).trim();
        *number < at.line && !line.is_empty() && !line.starts_with('#')
    })?;
    let line = source.line(number);
    let start = line.len() - line.trim_start().len();
    let key = line[start..].find(':').map(|at| &line[start..start + at])?;
    let place = Mark {
        line: number,
        column: column(line, start),
    };
    glued(line[start..].trim_end()).then(|| {
        problem("there is no space after the `:`, so that this is no key")
            .here(&spot(source, place, key.chars().count() as u32 + 1))
            .hint("write a space after the `:`")
    })
}

/// Whether a text looks like a key that lacks the space between its colon and its value.
pub(crate) fn glued(text: &str) -> bool {
    let Some((key, value)) = text.split_once(':') else {
        return false;
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    !key.is_empty() && key.bytes().all(word) && !value.is_empty() && !value.starts_with([' ', '/'])
}

/// A bracket of an earlier line that is still open.
fn bracket(source: &Source<'_>, at: Mark, open: Option<Mark>) -> Option<Diagnostic> {
    let open = open.filter(|open| open.line < at.line)?;
    let byte = source.byte(open);
    let (bracket, close) = match source.text.as_bytes().get(byte)? {
        b'[' => ('[', ']'),
        _ => ('{', '}'),
    };
    Some(
        problem(&format!("this `{bracket}` is not closed"))
            .here(&spot(source, open, 1))
            .hint(format!(
                "close it with `{close}`; quote it if it begins a text"
            )),
    )
}

/// A quote that is not closed, or an escape that there is not.
fn quoted(info: &str, source: &Source<'_>, at: Mark) -> Option<Diagnostic> {
    if !info.contains("quoted scalar") {
        return None;
    }
    let text = &source.text[source.byte(at)..];
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    if info.contains("end of stream") || info.contains("document indicator") {
        return Some(
            problem("this quote is not closed")
                .here(&spot(source, at, 1))
                .hint(format!("close it with `{quote}`")),
        );
    }
    if !info.contains("escape") && !info.contains("hex") {
        return None;
    }
    let mut place = Mark {
        column: at.column + 1,
        ..at
    };
    let mut chars = text.chars().skip(1).peekable();
    while let Some(c) = chars.next() {
        if c == '\\' {
            match chars.next() {
                Some('\n') => {
                    place = Mark {
                        line: place.line + 1,
                        column: 0,
                    };
                }
                Some('x' | 'u' | 'U') if info.contains("hex") => {
                    return Some(
                        problem("this escape lacks digits")
                            .here(&spot(source, place, 2))
                            .hint("`\\x` is followed by two hexadecimal digits, `\\u` by four, `\\U` by eight; `\\\\` is a backslash"),
                    );
                }
                Some(next) if ESCAPES.contains(next) => place.column += 2,
                Some(next) => {
                    return Some(
                        problem("there is no such escape")
                            .here(&spot(source, place, 1 + u32::from(!next.is_control())))
                            .hint("write `\\\\` for a backslash, or put the text in single quotes, which have no escapes"),
                    );
                }
                None => return None,
            }
        } else if c == '\n' {
            place = Mark {
                line: place.line + 1,
                column: 0,
            };
        } else if c == quote {
            return None;
        } else {
            place.column += 1;
        }
    }
    None
}

fn hint(info: &str, source: &Source<'_>, at: Mark) -> &'static str {
    let line = source.line(at.line);
    if info.contains("unknown anchor") {
        "an alias `*name` needs an anchor `&name` before it, in the same document; quote a text that starts with `*`"
    } else if info.contains("mapping values are not allowed") {
        "a text that holds `: ` wants quotes; a nested key wants its own, deeper line"
    } else if [": *", ": &", ": @", ": %", ": `"]
        .iter()
        .any(|start| line.contains(start))
    {
        "a text that starts with one of `* & ! % @` or a backtick wants quotes"
    } else {
        "look here and on the line before for a bracket, quote or `:` that is not closed or stands too deep"
    }
}

#[cfg(test)]
mod tests {
    use crate::{Options, SourceFile, parse};

    /// Mutations: point at where the parser noticed; leave out any of the slips.
    #[test]
    fn the_slip_itself_is_pointed_at() {
        for (text, place, said, hint) in [
            ("env:\n\tA: b\n", "5:1+1", "a tab indents", "spaces"),
            ("run: x\n\tports: {}\n", "5:1+1", "a tab indents", "spaces"),
            ("run:\tx y: z\n", "4:5+1", "a tab follows", "space"),
            ("run:x\nports: {}\n", "4:1+4", "no space after", "space"),
            (
                "run:x\n\n# so\nports: {}\n",
                "4:1+4",
                "no space after",
                "space",
            ),
            ("env:\n  A: b\n  B:c\n", "6:3+2", "no space after", "space"),
            ("secrets: [m,\n  n\nrun: x\n", "4:10+1", "`[` is not", "`]`"),
            ("env: {A: b\nrun: x\n", "4:6+1", "`{` is not", "`}`"),
            ("run: \"x\\qy\"\n", "4:8+2", "no such escape", "single"),
            (
                "run: \"\\\\ \\n\n  \\q\"\n",
                "5:3+2",
                "no such escape",
                "single",
            ),
            ("run: \"\\x1\"\n", "4:7+2", "lacks digits", "two hexa"),
            ("run: \"x\n", "4:6+1", "quote is not closed", "`\"`"),
            ("run: 'x\n", "4:6+1", "quote is not closed", "`'`"),
            ("run: a: b\n", "4:7+1", "mapping values", "wants quotes"),
            ("run: *b\n", "4:6+1", "unknown anchor", "`&name`"),
        ] {
            let files = [
                SourceFile {
                    path: "plumb.yaml".to_owned(),
                    text: b"kind: Workspace\nname: w\n---\nkind: Machine\nname: m\n".to_vec(),
                },
                SourceFile {
                    path: "x.yaml".to_owned(),
                    text: format!("kind: App\nname: x\nmachines: m\n{text}").into_bytes(),
                },
            ];
            let found = parse(&files, &Options::default()).expect_err(text);
            let [one] = found.items.as_slice() else {
                panic!("{text}: {:#?}", found.items);
            };
            let span = &one.spans[0];
            let at = format!("{}:{}+{}", span.line, span.column, span.length);
            assert_eq!(at, place, "{text}: {}", one.message);
            assert!(one.message.contains(said), "{text}: {}", one.message);
            let hinted = one.hint.as_deref().unwrap_or_default();
            assert!(hinted.contains(hint), "{text}: {hinted}");
        }
    }
}
