//! The canonical form of a blueprint file, as gofmt has one for Go: two blanks of indentation, one blank where one is
//! needed, at most one empty line, LF. Comments, order, quotes and line breaks stay as they are.
//!
//! It changes white space and nothing else, and never trusts itself: what it made is read again and held against what
//! was there, values, tokens and comments, before anybody sees it. It never touches a file that does not parse.
//! `plumb fmt` calls it; so do tests of our own examples.
//!
//! `tokens` cuts the text up, `layout` puts it together again.

mod layout;
mod tokens;

#[cfg(test)]
mod tests;

use serde::Deserialize;

use crate::diagnostic::{Diagnostics, Severity};
use crate::parse::{Options, parse};
use crate::source::SourceFile;
use layout::Brackets;
use tokens::{Kind, Token};

/// Why a file was not formatted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FormatError {
    /// It cannot be read. The problems are those of its YAML; whether it makes sense as a blueprint is not asked.
    #[error("it cannot be read as YAML")]
    Unreadable(Diagnostics),
    /// The formatter would have changed what the file means: a defect of plumb.
    #[error(
        "a defect in plumb: {0}; the file is left as it is, please report it together with the file"
    )]
    Defect(String),
}

/// Formats a file. The result is in canonical form already if it is equal to the file's text.
///
/// # Errors
/// If the file does not parse, or if the result would not mean the same.
pub fn format(file: &SourceFile) -> Result<String, FormatError> {
    readable(file)?;
    // It has just been parsed, so it is UTF-8.
    let text = String::from_utf8_lossy(&file.text);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let before = tokens::read(&text).map_err(FormatError::Defect)?;
    // The parser takes a closing bracket in the column of its key in some places only; where not, all of them hang.
    let mut outcome = Err(String::new());
    for brackets in [Brackets::Level, Brackets::Hanging] {
        let formatted = layout::layout(&before, &text, brackets);
        outcome = same(&text, &before, &formatted).map(|()| formatted);
        if outcome.is_ok() {
            break;
        }
    }
    outcome.map_err(FormatError::Defect)
}

/// Refuses what the parser refuses as YAML. It comes first, since it holds the limits that no other pass does.
fn readable(file: &SourceFile) -> Result<(), FormatError> {
    let Err(mut problems) = parse(std::slice::from_ref(file), &Options::default()) else {
        return Ok(());
    };
    // Of more problems than are kept these are kept.
    problems
        .items
        .retain(|d| d.severity == Severity::Error && d.code.is_about_reading());
    match problems.items.is_empty() {
        true => Ok(()),
        false => Err(FormatError::Unreadable(problems)),
    }
}

/// Says in what the formatted text differs from the one before, other than in white space.
fn same(text: &str, before: &[Token<'_>], formatted: &str) -> Result<(), String> {
    if formatted == text {
        return Ok(());
    }
    let after = tokens::read(formatted)
        .map_err(|why| format!("the formatted text cannot be read again: {why}"))?;
    if words(before, false) != words(&after, false) {
        return Err("formatting would change the text itself".to_owned());
    }
    if words(before, true) != words(&after, true) {
        return Err("formatting would change a comment".to_owned());
    }
    match (values(text), values(formatted)) {
        (Ok(one), Ok(two)) if one == two => Ok(()),
        (Ok(_), Ok(_)) => Err("formatting would change a value".to_owned()),
        (Err(why), _) => Err(format!("the text cannot be read: {why}")),
        (_, Err(why)) => Err(format!("the formatted text cannot be read again: {why}")),
    }
}

/// The comments, or all tokens but the comments, without white space.
fn words(tokens: &[Token<'_>], comments: bool) -> Vec<(std::mem::Discriminant<Kind>, String)> {
    tokens
        .iter()
        .filter(|token| (token.kind == Kind::Comment) == comments)
        .map(|token| {
            let text = token.text.chars().filter(|c| !c.is_whitespace());
            (std::mem::discriminant(&token.kind), text.collect())
        })
        .collect()
}

fn values(text: &str) -> Result<Vec<serde_yaml::Value>, serde_yaml::Error> {
    serde_yaml::Deserializer::from_str(text)
        .map(serde_yaml::Value::deserialize)
        .collect()
}
