//! How much room text takes on a terminal: wide characters take two columns, combining ones none. The text is clean
//! already; nothing here escapes.

use std::borrow::Cow;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The columns that a text takes.
pub fn width(text: &str) -> usize {
    UnicodeWidthStr::width(text)
}

/// The columns that a character takes.
pub fn of(c: char) -> usize {
    UnicodeWidthChar::width(c).unwrap_or(0)
}

/// The text, or as much of it as fits with a `…` behind it.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if width(text) <= columns {
        return Cow::Borrowed(text);
    }
    let mut room = columns.saturating_sub(1);
    let kept: String = text
        .chars()
        .take_while(|c| {
            let fits = of(*c) <= room;
            room = room.saturating_sub(of(*c));
            fits
        })
        .collect();
    Cow::Owned(kept + "…")
}

/// The text with spaces behind it, so that it takes at least so many columns.
pub fn pad(text: &str, columns: usize) -> String {
    let missing = columns.saturating_sub(width(text));
    format!("{text}{}", " ".repeat(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_and_combining_characters_take_the_room_that_they_take() {
        assert_eq!(width("日本"), 4);
        assert_eq!(width("e\u{301}"), 1);
        assert_eq!(cut("日本語", 5), "日本…");
        assert_eq!(cut("日本語", 4), "日…");
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(pad("日", 4), "日  ");
    }
}
