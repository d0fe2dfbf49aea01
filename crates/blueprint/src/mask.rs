//! Keeps credentials that do not belong into a blueprint out of what is shown of it.
//!
//! Two nets: texts that were found to be credentials are hidden wherever they turn up, in messages as in lines of a
//! file; and in every line that is shown, the user part of URLs and what stands behind `password:` is hidden, since a
//! file that cannot be read in full still has its lines shown.

use std::borrow::Cow;
use std::ops::Range;

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

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A message without them.
    pub fn scrub(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                *text = text.replace(secret.expose(), HIDDEN);
            }
        }
    }

    /// A line of a file without them and without what looks like one, of as many characters.
    pub fn line<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut hidden = looks(text);
        for secret in &self.0 {
            hidden.extend(
                text.match_indices(secret.expose())
                    .map(|(at, found)| at..at + found.len()),
            );
        }
        if hidden.is_empty() {
            return Cow::Borrowed(text);
        }
        let blind = |at: usize| hidden.iter().any(|range| range.contains(&at));
        let chars = text.char_indices();
        Cow::Owned(
            chars
                .map(|(at, c)| if blind(at) { BLIND } else { c })
                .collect(),
        )
    }
}

/// The byte ranges of a line that look like a credential.
fn looks(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    for (at, _) in text.match_indices("://") {
        let start = at + 3;
        let web = text[..at].to_ascii_lowercase().ends_with("http")
            || text[..at].to_ascii_lowercase().ends_with("https");
        let end = text[start..]
            .find([' ', '\t', '"', '\'', ','])
            .map_or(text.len(), |n| start + n);
        let url = &text[start..end];
        if let Some((user, _)) = url.rsplit_once('@')
            && (web || user.contains(':'))
        {
            out.push(start..start + user.len());
        }
        if let (true, Some(query)) = (web, url.find(['?', '#'])) {
            out.push(start + query..end);
        }
    }
    // `me:secret@host:path`, which has no scheme.
    for (at, _) in text.match_indices('@') {
        let start = text[..at]
            .rfind([' ', '\t', '"', '\'', ',', '{', '['])
            .map_or(0, |n| n + 1);
        let user = &text[start..at];
        if user.contains(':') && !user.contains('/') {
            out.push(start..at);
        }
    }
    for (at, word) in text.match_indices("password") {
        let before = text[..at].chars().next_back();
        let rest = &text[at + word.len()..];
        let trimmed = rest.trim_start_matches(['"', '\'', ' ']);
        let own =
            !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$'));
        let (true, Some(value)) = (own, trimmed.strip_prefix(':')) else {
            continue;
        };
        let value = value.trim_start();
        let start = text.len() - value.len();
        if value.is_empty() || value.starts_with(['{', '|', '>', '#']) {
            continue;
        }
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let length = match quote {
            Some(quote) => value[1..].find(quote).map_or(value.len(), |n| n + 2),
            // Within `{ … }` the value ends before the next entry.
            None if text[..at].contains('{') => value.find([',', '}']).unwrap_or(value.len()),
            None => value.len(),
        };
        out.push(start..start + length);
    }
    out
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
            ("A: ${service.db.password}", "A: ${service.db.password}"),
            ("image: a/b@sha256:0", "image: a/b@sha256:0"),
            ("run: x", "run: x"),
        ] {
            assert_eq!(Credentials::default().line(line), expected);
        }
    }

    #[test]
    fn a_known_credential_is_hidden_everywhere() {
        let mut known = Credentials::default();
        known.add("canary-1\n  canary-2");
        known.add("x");
        assert_eq!(known.line("x: canary-2 ä"), "x: ******** ä");
        let mut message = "no canary-1".to_owned();
        known.scrub(&mut message);
        assert_eq!(message, "no (hidden)");
        assert!(!format!("{known:?}").contains("canary"));
    }
}
