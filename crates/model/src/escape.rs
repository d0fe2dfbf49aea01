//! Making foreign text safe to show on a terminal: control, escape and bidirectional characters are
//! written as `\u{…}`, so that a name, a log line or a diff can neither move the cursor nor reorder text.

use std::borrow::Cow;

/// Whether a character may not be shown as it is: it moves the cursor, reorders text, or takes no room, so that a reader
/// sees something else than there is. A tab counts as safe.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c,
            '\u{00ad}' | '\u{034f}' | '\u{061c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Escapes one line of text; a line break counts as unsafe too.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn terminal_sequences_and_bidi_are_defused() {
        assert_eq!(
            super::line("a\u{1b}[31m\r\u{202e}b\tc"),
            "a\\u{1b}[31m\\r\\u{202e}b\tc"
        );
        for invisible in [
            '\u{ad}',
            '\u{200b}',
            '\u{2066}',
            '\u{3164}',
            '\u{e0041}',
            '\u{9b}',
        ] {
            assert!(!super::line(&invisible.to_string()).contains(invisible));
        }
        assert!(matches!(
            super::line("plain ä"),
            std::borrow::Cow::Borrowed(_)
        ));
    }
}
