//! Which files of a repository are blueprints, and which were meant to be.

use std::io::Read as _;
use std::path::Path;

use super::MANIFEST;

/// A blueprint file as it was found.
pub enum Blueprint {
    /// Its bytes.
    Text(Vec<u8>),
    /// It is too large to be one; so many bytes, which nobody read.
    TooLarge(u64),
}

/// The beginning of a file, one byte more than a blueprint may have at most, so that a larger file is not taken for its
/// beginning; and how many bytes the file has.
pub fn read_text(path: &Path) -> std::io::Result<(Vec<u8>, u64)> {
    let limit = plumb_blueprint::MAX_FILE_BYTES as u64 + 1;
    let file = crate::regular::open(path)?;
    let size = file.metadata()?.len();
    let mut text = Vec::with_capacity(size.min(limit) as usize);
    file.take(limit).read_to_end(&mut text)?;
    Ok((text, size))
}

/// Whether a file is YAML by its name, however that is written.
pub fn is_yaml(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Whether a document of a file has a `kind` where its keys stand, in any of the ways in which YAML lets one write it, or
/// nearly: what is wrong with it is then told. To pass over such a file would remove what it declares.
fn has_kind(text: &[u8]) -> bool {
    // The column of the keys of the document.
    let mut column = None;
    text.split(|b| *b == b'\n').any(|line| {
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        let line = match line.strip_prefix(b"---") {
            Some(rest) => {
                column = None;
                rest.trim_ascii_start()
            }
            None => line,
        };
        let key = line.trim_ascii_start();
        if key.is_empty() || key.starts_with(b"#") {
            return false;
        }
        let here = line.len() - key.len();
        *column.get_or_insert(here) == here && (key.starts_with(b"{") || is_kind_key(key))
    })
}

/// Whether a line that begins with a key begins with `kind`: plain or quoted, with an anchor, a tag or a `?` before it, with
/// space before its colon, or with a slip of the pen there.
fn is_kind_key(line: &[u8]) -> bool {
    let mut key = line;
    loop {
        key = key.trim_ascii_start();
        key = match key {
            // Nothing that a key begins with: a no-break space, a NUL.
            [0..=31 | 127.., rest @ ..] => rest,
            [b'?', rest @ ..] => rest,
            [b'&' | b'!', ..] => match key.iter().position(u8::is_ascii_whitespace) {
                Some(end) => &key[end..],
                None => return false,
            },
            _ => break,
        };
    }
    let (key, quote) = match key {
        [quote @ (b'"' | b'\''), rest @ ..] => (rest, Some(*quote)),
        _ => (key, None),
    };
    let Some(rest) = key.strip_prefix(b"kind") else {
        return false;
    };
    let rest = match quote {
        Some(quote) => match rest {
            [end, rest @ ..] if *end == quote => rest,
            _ => return false,
        },
        None => rest,
    };
    match rest.trim_ascii() {
        [] | [b':', ..] => true,
        word => {
            rest.first().is_some_and(u8::is_ascii_whitespace)
                && plumb_blueprint::Kind::ALL
                    .iter()
                    .any(|kind| kind.as_str().as_bytes() == word)
        }
    }
}

/// The bytes of a blueprint file, or none if no document of it, or of what is looked at of a large one, has a `kind`.
pub fn read_blueprint(path: &Path) -> std::io::Result<Option<Blueprint>> {
    let (text, size) = read_text(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let named = name == MANIFEST || (name.starts_with("plumb.") && name.ends_with(".yaml"));
    if !named && !has_kind(&text) && !meant_to_be(&text) {
        return Ok(None);
    }
    let too_large = text.len() > plumb_blueprint::MAX_FILE_BYTES;
    Ok(Some(if too_large {
        // It may have grown since it was measured.
        Blueprint::TooLarge(size.max(text.len() as u64))
    } else {
        Blueprint::Text(text)
    }))
}

/// Whether a file without a `kind` was surely meant to be a blueprint: it is UTF-16, in which nothing can be found, or it
/// has a `name` and a slip of the pen where `kind` would be. To pass over such a file would remove what it declares.
fn meant_to_be(text: &[u8]) -> bool {
    if matches!(text, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return true;
    }
    // Without its mark, UTF-16 begins with a character of ASCII all the same.
    if let [0, b'#'..=b'z', 0, ..] | [b'#'..=b'z', 0, _, 0, ..] = text {
        return true;
    }
    let keys = || {
        text.split(|b| *b == b'\n').filter_map(|line| {
            let line = std::str::from_utf8(line).ok()?;
            let (key, _) = line.split_once(':')?;
            key.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_')
                .then_some(key)
        })
    };
    keys().any(|key| key == "name")
        && keys().any(|key| {
            let key = key.to_ascii_lowercase();
            key == "kind" || plumb_blueprint::nearest(&key, ["kind"]).is_some()
        })
}

/// Whether a YAML file holds nothing but comments and white space.
pub fn is_empty(path: &Path) -> bool {
    /// No file with so much in it was emptied.
    const MOST: u64 = 64 * 1024;
    let mut text = Vec::new();
    let read = crate::regular::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    let empty = |line: &[u8]| {
        let line = line.trim_ascii();
        line.is_empty() || line.starts_with(b"#") || line == b"---" || line == b"..."
    };
    read.is_ok_and(|bytes| (bytes as u64) < MOST) && text.split(|b| *b == b'\n').all(empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: look for `kind:` at the beginning of a line alone.
    #[test]
    fn a_kind_is_a_kind_however_it_is_written() {
        for (text, expected) in [
            ("kind: App\n", true),
            ("# first\n---\nkind : App\n", true),
            ("  kind: App\n  name: x\n", true),
            ("? kind\n: App\n", true),
            ("&a kind: App\n", true),
            ("!!str kind: App\n", true),
            ("\"kind\": App\n", true),
            ("'kind' : App\n", true),
            ("--- {kind: App}\n", true),
            ("kind App\nname: x\n", true),
            ("\u{a0}kind: App\n", true),
            ("\0kind: App\n", true),
            ("a: 1\n---\n kind: App\n", true),
            ("kindness: 3\n", false),
            ("spec:\n  kind: App\n", false),
            ("- kind: App\n", false),
            ("kind of text\n", false),
            ("# kind: App\n", false),
        ] {
            assert_eq!(has_kind(text.as_bytes()), expected, "{text}");
        }
        assert!(meant_to_be(b"k\0i\0n\0d\0:\0"), "UTF-16 without its mark");
        assert!(meant_to_be(b"\0k\0i\0n\0d"), "the other way round");
    }

    #[test]
    fn a_slip_of_the_pen_does_not_make_a_blueprint_something_else() {
        for (text, expected) in [
            ("knd: App\nname: two\n", true),
            ("Kind: App\nname: two\n", true),
            ("kinds: App\nname: two\n", true),
            ("name: two\nservices: {}\n", false),
            ("kin_d_of: x\nname: y\n", false),
            ("site_name: docs\nnav: []\n", false),
            ("# knd: App\n- name: x\n", false),
            ("", false),
        ] {
            assert_eq!(meant_to_be(text.as_bytes()), expected, "{text}");
        }
        assert!(meant_to_be(b"\xff\xfek\0i\0n\0d\0"));
    }
}
