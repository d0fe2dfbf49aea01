//! Making foreign text safe to show on a terminal: control, escape and bidirectional characters are
//! written as `\u{…}`, so that a name, a log line or a diff can neither move the cursor nor reorder text.

use std::borrow::Cow;

fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\t')
        || matches!(c, '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
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
        assert!(matches!(
            super::line("plain ä"),
            std::borrow::Cow::Borrowed(_)
        ));
    }
}
