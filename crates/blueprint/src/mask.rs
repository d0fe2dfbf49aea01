//! Keeps credentials that do not belong into a blueprint out of what is shown of it.
//!
//! Two nets: texts that were found to be credentials ([`Credentials`]) are hidden wherever they turn up, in messages as in
//! lines of a file; and in every file of which lines are shown, [`Credentials::blind`] hides what [`looks`] like one, since a file that
//! cannot be read in full still has its lines shown. It never decides what is an error.

mod looks;

use plumb_model::SecretName;
use serde_json::Value;

use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document;
use crate::source::{Source, SourceFile};

pub(crate) use looks::{is_credential, is_secret_key};

/// The warning of a text that surely is a credential, or that is the value of a variable with a secret's name; none if
/// it is neither. The text itself is not in it.
pub(crate) fn warning(
    variable: Option<&str>,
    what: impl FnOnce() -> String,
    text: &str,
) -> Option<Diagnostic> {
    let named = variable.is_some_and(is_secret_key)
        && !text.contains("${")
        // A path, a switch and a gap are none.
        && !text.starts_with(['/', '<'])
        && !matches!(text, "" | "true" | "false" | "yes" | "no" | "0" | "1");
    if !named && !is_credential(text) {
        return None;
    }
    let what = what();
    let secret = variable.unwrap_or("NAME");
    Some(
        Diagnostic::warning(
            Code::LikelyCredential,
            format!("{what} looks like a credential: it would be stored, sent and shown in plans as it stands"),
        )
        .hint(format!("name a secret: `secrets: [{secret}]`")),
    )
}

/// Shorter texts are hidden only in their places: they occur everywhere.
const MIN_HIDDEN_BYTES: usize = 4;

/// What takes the place of a hidden character in a line, so that columns stay what they are.
const BLIND: char = '*';

/// What takes the place of a hidden text in a message.
const HIDDEN: &str = "(hidden)";

/// Texts that were found to be credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials(Vec<plumb_model::Secret>);

impl Credentials {
    /// Notes a credential; of one of several lines, each line.
    pub fn add(&mut self, text: &str) {
        for line in text.lines().map(str::trim) {
            let known = self.0.iter().any(|s| s.expose() == line);
            if line.len() >= MIN_HIDDEN_BYTES && !known {
                self.0.push(plumb_model::Secret::new(line.to_owned()));
            }
        }
    }

    /// Notes those of another part of the work.
    pub fn append(&mut self, others: Self) {
        others.0.iter().for_each(|secret| self.add(secret.expose()));
    }

    /// Notes what stands in a document where only the name of a secret may, or behind a key of a secret's name.
    pub fn of_document(&mut self, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            match key.as_str() {
                "secrets" => self.of_secrets(value),
                "processes" => {
                    let processes = value.as_object().into_iter().flatten();
                    processes
                        .filter_map(|(_, process)| process.get("secrets"))
                        .for_each(|secrets| self.of_secrets(secrets));
                }
                key if is_secret_key(key) => self.all(value),
                _ => {}
            }
        }
    }

    /// Whatever is not the name of a secret where one is expected is probably its value.
    fn of_secrets(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                for entry in map.values() {
                    match entry {
                        Value::String(_) => self.unless_name(entry),
                        Value::Object(entry) => entry
                            .iter()
                            .filter(|(key, _)| !matches!(key.as_str(), "secret" | "as"))
                            .for_each(|(_, value)| self.all(value)),
                        other => self.all(other),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.unless_name(item)),
            other => self.all(other),
        }
    }

    fn unless_name(&mut self, value: &Value) {
        if value.as_str().is_none_or(|t| SecretName::new(t).is_err()) {
            self.all(value);
        }
    }

    /// Every text and number in a value, the name that `secret` gives left out.
    fn all(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.add(text),
            Value::Number(number) => self.add(&number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.all(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    match key.as_str() {
                        "secret" => self.unless_name(value),
                        _ => self.all(value),
                    }
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// A message without them, and without the user part of URLs.
    pub fn scrub(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                *text = text.replace(secret.expose(), HIDDEN);
            }
        }
        if let Some(clean) = without_users(text) {
            *text = clean;
        }
    }

    /// The text of a file without them and without what looks like one, of as many characters and the same lines.
    pub fn blind(&self, text: &str) -> String {
        let mut ranges = looks::of_text(text);
        for secret in &self.0 {
            let found = text.match_indices(secret.expose());
            ranges.extend(found.map(|(at, found)| at..at + found.len()));
        }
        cover(text, ranges)
    }
}

/// The text of a blueprint file as it may be shown: credentials that stand in it are covered with `*`, and every line has
/// the length that it had. What is not UTF-8 is replaced.
#[must_use]
pub fn blinded(file: &SourceFile) -> String {
    let text = String::from_utf8_lossy(&file.text);
    let mut credentials = Credentials::default();
    let mut ignored = Diagnostics::default();
    if let Some(source) = Source::decode(file, &mut ignored) {
        for document in document::read(&source, &mut ignored) {
            if let Some(value) = document.value() {
                credentials.of_document(&value.to_json());
            }
        }
    }
    credentials.blind(&text)
}

/// A message without the user part of the URLs in it; none if there is none.
pub(crate) fn without_users(text: &str) -> Option<String> {
    let mut ranges = looks::users(text);
    if ranges.is_empty() {
        return None;
    }
    ranges.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges.into_iter().filter(|range| !range.is_empty()) {
        if range.start >= from {
            out.push_str(&text[from..range.start]);
            out.push_str(HIDDEN);
        }
        from = from.max(range.end);
    }
    out.push_str(&text[from..]);
    Some(out)
}

/// Covers byte ranges of a text; line breaks stay.
fn cover(text: &str, mut ranges: Vec<std::ops::Range<usize>>) -> String {
    ranges.sort_by_key(|range| range.start);
    let mut ranges = ranges.into_iter().peekable();
    let mut end = 0;
    let covered = text.char_indices().map(|(at, c)| {
        while let Some(range) = ranges.next_if(|range| range.start <= at) {
            end = end.max(range.end);
        }
        if at < end && !matches!(c, '\n' | '\r') {
            BLIND
        } else {
            c
        }
    });
    covered.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_credential_is_blinded_and_columns_stay() {
        for (line, expected) in [
            ("git: https://me:pw@a.b/c", "git: https://*****@a.b/c"),
            ("git: https://token@a.b/c", "git: https://*****@a.b/c"),
            ("git: ssh://git@a.b/c", "git: ssh://git@a.b/c"),
            ("git: ssh://git:pw@a.b/c", "git: ssh://******@a.b/c"),
            ("git: git@a.b:c", "git: git@a.b:c"),
            ("git: me:pw@a.b:c", "git: *****@a.b:c"),
            ("git: https://a.b/c?t=x", "git: https://a.b/c****"),
            ("password: hunter2, yes", "password: ************"),
            ("{ password: hunter2, a: b }", "{ password: *******, a: b }"),
            ("\"password\" : \"a b\" # x", "\"password\" : ***** # x"),
            ("password: { secret: A }", "password: { secret: A }"),
            ("{ secret: \"S3cret !\" }", "{ secret: ********** }"),
            ("A: ${service.db.password}", "A: ${service.db.password}"),
            ("image: a/b@sha256:0", "image: a/b@sha256:0"),
            ("run: x", "run: x"),
            ("Password: S3cret", "Password: ******"),
            ("{ apiKey: S3cret, b: c }", "{ apiKey: ******, b: c }"),
            ("- PASSWORD=S3cret", "- PASSWORD=******"),
            ("run: x --token=S3cret y", "run: x --token=****** y"),
            ("run: x --token=$TOKEN y", "run: x --token=$TOKEN y"),
            ("DB_PASS: S3cret", "DB_PASS: ******"),
            ("compass: north", "compass: north"),
            ("image: a/token:latest", "image: a/token:latest"),
            ("password: !S3cretPw x", "password: ***********"),
            ("A: ghp_0123456789abcdef", "A: ********************"),
            ("passwd: |\n  S3cret\nb: c", "passwd: |\n  ******\nb: c"),
            (
                "password:\n  secret: A\nb: c",
                "password:\n  secret: A\nb: c",
            ),
            ("password:\n- S3cret\nb: c", "password:\n********\nb: c"),
            ("token: a\n  b\nc: d", "token: *\n  *\nc: d"),
        ] {
            assert_eq!(Credentials::default().blind(line), expected);
        }
    }

    #[test]
    fn a_known_credential_is_hidden_everywhere() {
        let mut known = Credentials::default();
        known.add("canary-1\n  canary-2");
        known.add("x");
        assert_eq!(known.blind("x: canary-2 ä"), "x: ******** ä");
        let mut message = "no canary-1".to_owned();
        known.scrub(&mut message);
        assert_eq!(message, "no (hidden)");
        assert!(!format!("{known:?}").contains("canary"));
    }
}
