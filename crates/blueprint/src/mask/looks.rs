//! What looks like a credential in a text, whether or not the text can be read as YAML: what stands behind a key of a
//! secret's name, the user part of URLs, private keys, and tokens that are known by their beginning. Linear in the text's
//! length, since it sees files that nobody has checked.

use std::ops::Range;

use plumb_model::SecretName;

/// Keys that end in one of these, `_`, `-` and `.` left out, are those of secrets.
const ENDINGS: [&str; 16] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "privatekey",
    "secretkey",
    "accesskey",
    "signingkey",
    "encryptionkey",
    "credential",
    "credentials",
    "secretkeybase",
    "authkey",
    "masterkey",
];

/// And those whose last word is one of these.
const LAST_WORDS: [&str; 2] = ["pass", "pwd"];

/// What tokens begin with.
const TOKENS: [&str; 13] = [
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "sk_live_",
    "rk_live_",
    "xoxa-",
    "xoxb-",
    "xoxp-",
    "xoxr-",
    "xoxs-",
];

/// The fewest characters behind the beginning of a token.
const MIN_TOKEN: usize = 10;

/// Longer keys are nobody's.
const MAX_KEY_BYTES: usize = 64;

const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_PRIVATE: &str = "PRIVATE KEY-----";
const PEM_END: &str = "-----END ";

/// Whether a key is the name of something secret: `password`, `DB_PASSWORD`, `apiKey`.
pub(crate) fn is_secret_key(key: &str) -> bool {
    // Every variable is asked this, so nothing is copied, and few endings are looked at.
    let mut bare = key.chars().rev().filter(|c| c.is_alphanumeric());
    let Some(final_letter) = bare.next().map(|c| c.to_ascii_lowercase()) else {
        return false;
    };
    let ends_with = |ending: &str| {
        let mut bare = bare.clone();
        let mut wanted = ending.chars().rev();
        wanted.next() == Some(final_letter)
            && wanted.all(|c| bare.next().is_some_and(|b| b.to_ascii_lowercase() == c))
    };
    let last = || key.rsplit(['_', '-', '.']).next().unwrap_or_default();
    ENDINGS.iter().any(|ending| ends_with(ending))
        || LAST_WORDS
            .iter()
            .any(|word| last().eq_ignore_ascii_case(word))
}

/// Whether a text surely holds a credential, whatever its key: a URL with a password, a token, a private key.
pub(crate) fn is_credential(text: &str) -> bool {
    let with_password = |range: &Range<usize>| {
        let user = &text[range.clone()];
        let password = user.split_once(':').map_or("", |(_, password)| password);
        // A reference, a variable of a shell, or a gap to be filled in.
        let open = user.contains(['$', '{', '<', '/', '*']);
        text[..range.start].ends_with("://") && !password.is_empty() && !open
    };
    let signs = Signs::of(text);
    signs.at && users(text).iter().any(with_password)
        || signs.token && !tokens(text).is_empty()
        || signs.dashes
            && text
                .find(PEM_BEGIN)
                .is_some_and(|at| text[at..].contains(PEM_PRIVATE))
}

/// What of a credential may be in a text. Nearly every text of every blueprint is asked for, and nearly none has any of it.
#[derive(Default)]
struct Signs {
    /// `@`.
    at: bool,
    /// Two dashes, as at the beginning of a private key.
    dashes: bool,
    /// Two bytes that a token could begin with where a word begins.
    token: bool,
}

impl Signs {
    fn of(text: &str) -> Self {
        let mut signs = Self::default();
        let mut before = b' ';
        let bytes = text.as_bytes();
        for (at, &byte) in bytes.iter().enumerate() {
            match byte {
                b'@' => signs.at = true,
                b'-' => signs.dashes |= before == b'-',
                b'g' | b's' | b'r' | b'x' | b'A' => {
                    let inside = before.is_ascii_alphanumeric() || matches!(before, b'_' | b'-');
                    let begins = matches!(
                        (byte, bytes.get(at + 1)),
                        (b'g', Some(b'h' | b'i' | b'l'))
                            | (b's' | b'r', Some(b'k'))
                            | (b'x', Some(b'o'))
                            | (b'A', Some(b'K'))
                    );
                    signs.token |= begins && !inside;
                }
                _ => {}
            }
            before = byte;
        }
        signs
    }
}

/// The byte ranges of a text of several lines that look like a credential.
pub(super) fn of_text(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let mut block: Option<Block> = None;
    let mut pem = false;
    let mut start = 0;
    for whole in text.split_inclusive(['\n', '\r']) {
        let line = whole.trim_end_matches(['\n', '\r']);
        let at = start;
        start += whole.len();
        let trimmed = line.trim_start();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - trimmed.len();
        let all = at + indent..at + line.len();
        if pem || (line.contains(PEM_BEGIN) && line.contains(PEM_PRIVATE)) {
            pem = !line.contains(PEM_END) && line != "---";
            let from = line.find(PEM_BEGIN).unwrap_or(indent);
            out.push(at + from..all.end);
        }
        if let Some(inside) = &block {
            let item = inside.nested && indent == inside.indent && trimmed.starts_with("- ");
            if indent > inside.indent || item {
                if !(inside.nested && entry(line).is_some()) {
                    out.push(all);
                    continue;
                }
            } else {
                block = None;
            }
        }
        out.extend(of_line(line).into_iter().map(|r| at + r.start..at + r.end));
        if let Some((indent, key, value)) = entry(line)
            && is_secret_key(key)
            && !is_name(key, value)
        {
            let head = value.starts_with(['{', '[', '#', '&']) || value.is_empty();
            block = Some(Block {
                indent,
                nested: head,
            });
        }
    }
    out
}

/// What is deeper than a key of a secret's name.
struct Block {
    /// The column of the key.
    indent: usize,
    /// Keys may stand in it, such as `secret: NAME`.
    nested: bool,
}

/// The column, key and value of a line that begins with a key.
fn entry(line: &str) -> Option<(usize, &str, &str)> {
    let mut rest = line.trim_start();
    while let Some(item) = rest.strip_prefix("- ") {
        rest = item.trim_start();
    }
    let indent = line.len() - rest.len();
    let (key, value) = rest.split_once(':')?;
    if !(value.is_empty() || value.starts_with([' ', '\t'])) {
        return None;
    }
    let key = key.trim().trim_matches(['"', '\'']);
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!key.is_empty() && key.chars().all(plain)).then_some((indent, key, value.trim()))
}

/// Whether a key named `secret` names one, as it should.
fn is_name(key: &str, value: &str) -> bool {
    let word = value.split(" #").next().unwrap_or(value).trim();
    key == "secret" && SecretName::new(word.trim_matches(['"', '\''])).is_ok()
}

/// The byte ranges of a line that look like a credential.
fn of_line(line: &str) -> Vec<Range<usize>> {
    let mut out = users(line);
    out.extend(queries(line));
    out.extend(tokens(line));
    let mut from = 0;
    while let Some(found) = line[from..].find([':', '=']) {
        let at = from + found;
        from = at + 1;
        if let Some(value) = value_behind(line, at) {
            from = from.max(value.end);
            out.push(value);
        }
    }
    out
}

/// The value behind a `:` or `=` that stands behind a key of a secret's name.
fn value_behind(line: &str, at: usize) -> Option<Range<usize>> {
    let mut window = at.saturating_sub(MAX_KEY_BYTES);
    while !line.is_char_boundary(window) {
        window += 1;
    }
    let before = line[window..at].trim_end();
    let bare = before.trim_end_matches(['"', '\'']);
    let quoted = bare.len() < before.len();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let key = &bare[bare.rfind(|c| !plain(c)).map_or(0, |n| {
        n + bare[n..].chars().next().map_or(1, char::len_utf8)
    })..];
    if !is_secret_key(key) {
        return None;
    }
    let assignment = line[at..].starts_with('=');
    let rest = &line[at + 1..];
    let value = if assignment { rest } else { rest.trim_start() };
    let spaced = assignment || quoted || value.len() < rest.len();
    if value.is_empty() || !spaced || value.starts_with(['{', '|', '>', '#']) {
        return None;
    }
    let start = line.len() - value.len();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    let length = match quote {
        Some(quote) => value[1..].find(quote).map_or(value.len(), |n| n + 2),
        None if assignment => value
            .find([' ', '\t', '"', '\'', ',', ']', '}'])
            .unwrap_or(value.len()),
        // Within `{ … }` the value ends before the next entry.
        None if line[..at].contains('{') && !value.starts_with("${") => {
            value.find([',', '}']).unwrap_or(value.len())
        }
        None => value.len(),
    };
    let shown = &value[..length];
    let bare = shown.trim_matches(['"', '\'']);
    let harmless = bare.contains("${")
        || (assignment && bare.starts_with('$'))
        || matches!(bare, "" | "true" | "false" | "null" | "~")
        || is_name(key, bare);
    (!harmless).then(|| start..start + shown.trim_end().len())
}

/// The tokens of a line: what blanks and quotes divide.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let divides = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | ',' | '[' | ']');
    let mut at = 0;
    text.split_inclusive(divides).map(move |word| {
        let start = at;
        at += word.len();
        (start, word.trim_end_matches(divides))
    })
}

fn is_web(before: &str) -> bool {
    let ends = |scheme: &str| {
        let from = before.len().checked_sub(scheme.len());
        from.and_then(|n| before.get(n..))
            .is_some_and(|end| end.eq_ignore_ascii_case(scheme))
    };
    ends("http") || ends("https")
}

/// The user parts of URLs, and of `me:secret@host:path`, which has no scheme.
pub(super) fn users(text: &str) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    for (at, word) in words(text) {
        let url = word.find("://").map(|n| n + 3);
        if let Some(start) = url
            && let Some((user, _)) = word[start..].rsplit_once('@')
        {
            if is_web(&word[..start - 3]) || user.contains(':') {
                out.push(at + start..at + start + user.len());
            }
        } else if let Some((user, _)) = word.rsplit_once('@') {
            let user = &user[user.rfind('{').map_or(0, |n| n + 1)..];
            let end = at + word.rfind('@').unwrap_or_default();
            if user.contains(':') && !user.contains('/') {
                out.push(end - user.len()..end);
            }
        }
    }
    out
}

/// The queries and fragments of URLs.
fn queries(text: &str) -> Vec<Range<usize>> {
    let found = words(text).filter_map(|(at, word)| {
        let start = word.find("://")? + 3;
        let query = word[start..].find(['?', '#'])?;
        is_web(&word[..start - 3]).then(|| at + start + query..at + word.len())
    });
    found.collect()
}

/// Tokens that are known by their beginning.
fn tokens(text: &str) -> Vec<Range<usize>> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut out = Vec::new();
    let mut at = 0;
    for piece in text.split_inclusive(|c| !part(c)) {
        let word = piece.trim_end_matches(|c| !part(c));
        let known = TOKENS.iter().any(|begin| {
            word.strip_prefix(begin)
                .is_some_and(|rest| rest.len() >= MIN_TOKEN)
        });
        let amazon = word.len() == 20
            && word.starts_with("AKIA")
            && word
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        if known || amazon {
            out.push(at..at + word.len());
        }
        at += piece.len();
    }
    out
}
