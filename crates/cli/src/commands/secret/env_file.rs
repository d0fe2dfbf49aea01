//! Reads `.env` files: `NAME=value` lines, as shells and Compose read them. No error says a byte of a value.

use std::io::{self, Read};
use std::path::Path;

use plumb_model::{Secret, SecretName};

use crate::error::CliError;

/// The largest file, in bytes.
const MAX: u64 = 4 << 20;

/// Reads a file; `-` is standard input.
pub fn read(path: &Path) -> Result<Vec<(SecretName, Secret)>, CliError> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        io::stdin().lock().take(MAX).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(CliError::file("open", path))?;
        file.take(MAX).read_to_string(&mut text)
    };
    let text = Secret::new(text);
    read.map_err(CliError::file("read", path))?;
    let text = text.expose();
    if text.len() as u64 == MAX {
        return Err(CliError::Other(format!(
            "{} is larger than 4 MiB",
            path.display()
        )));
    }
    let all = parse(text)
        .map_err(|(line, why)| CliError::Other(format!("{}:{line}: {why}", path.display())))?;
    if all.is_empty() {
        return Err(CliError::Other(format!(
            "{} has no variable in it; write a line for each, NAME=value",
            path.display()
        )));
    }
    Ok(all)
}

/// Parses the text; an error has its line.
///
/// A value is what stands after `=`, without the blanks around it and a comment that begins with ` #`. In single quotes
/// it is taken as it is, in double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` stand for a character; both may go over
/// several lines. Nothing is expanded. The last of two lines for one name counts.
pub fn parse(text: &str) -> Result<Vec<(SecretName, Secret)>, (usize, String)> {
    let mut all: Vec<(SecretName, Secret)> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let number = index + 1;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, rest) = line.split_once('=').ok_or_else(|| {
            (
                number,
                "it is no line of the form NAME=value; a comment begins with #".to_owned(),
            )
        })?;
        let name = SecretName::new(name.trim())
            .map_err(|_| (number, "what stands before `=` is no name of a secret: write letters, digits, `-`, `_` and `.`".to_owned()))?;
        let rest = rest.trim_start();
        let value = match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let mut body = rest[1..].to_owned();
                loop {
                    if let Some(value) = quoted(&body, quote) {
                        break value;
                    }
                    let (_, more) = lines.next().ok_or_else(|| {
                        (
                            number,
                            format!("the value of {name} begins with {quote} and never ends"),
                        )
                    })?;
                    body.push('\n');
                    body.push_str(more);
                }
            }
            _ => {
                let end = rest.find(" #").unwrap_or(rest.len());
                rest[..end].trim_end().to_owned()
            }
        };
        if value.is_empty() {
            return Err((
                number,
                format!("{name} has no value: give it one, or take the line out"),
            ));
        }
        all.retain(|(known, _)| *known != name);
        all.push((name, Secret::new(value)));
    }
    Ok(all)
}

/// What stands before the closing quote; none if there is none yet.
fn quoted(body: &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => return Some(value),
            '\\' if quote == '"' => match chars.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => {
                    value.push('\\');
                    value.push(other);
                }
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_shells_and_compose_read_it() {
        let text = "# a comment\n\nPLAIN=one two # aside\nexport SHELL_STYLE = x#y \nSINGLE='a \\n $b # c'\nDOUBLE=\"a\\nb \\\"q\\\" \\$x \\d\"\nPEM=\"-----BEGIN\nline two\n-----END\" # aside\nTWICE=1\nTWICE=2\nurl=postgres://u:p@h/d?x=1\n";
        let all = parse(text).unwrap();
        let all: Vec<(&str, &str)> = all.iter().map(|(n, v)| (n.as_str(), v.expose())).collect();
        assert_eq!(
            all,
            [
                ("PLAIN", "one two"),
                ("SHELL_STYLE", "x#y"),
                ("SINGLE", "a \\n $b # c"),
                ("DOUBLE", "a\nb \"q\" $x \\d"),
                ("PEM", "-----BEGIN\nline two\n-----END"),
                ("TWICE", "2"),
                ("url", "postgres://u:p@h/d?x=1"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line_and_no_value_is_shown() {
        for (text, line) in [
            ("A=1\ncanary-only", 2),
            ("A=1\n\n B C=canary", 3),
            ("A='canary\n\n", 1),
            ("EMPTY=\n", 1),
        ] {
            let (found, why) = parse(text).unwrap_err();
            assert_eq!(found, line, "{text:?}: {why}");
            assert!(!why.contains("canary"), "{why}");
        }
    }
}
