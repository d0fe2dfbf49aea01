//! Text in which `${release}` stays symbolic until a process starts, so that a release number never changes
//! the hash of a spec. A literal `${` is written `$${`.

use crate::ReleaseNumber;

/// The one symbol that stays.
pub const RELEASE: &str = "${release}";

/// Writes literal text so that [`expand`] gives it back unchanged.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Puts the release in, and turns `$${` back into `${`.
#[must_use]
pub fn expand(text: &str, release: Option<ReleaseNumber>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        if let Some(after) = from.strip_prefix("$${") {
            out.push_str("${");
            rest = after;
        } else if let Some(after) = from.strip_prefix(RELEASE) {
            out.push_str(&release.map_or_else(String::new, |r| r.to_string()));
            rest = after;
        } else {
            out.push('$');
            rest = &from[1..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_text_comes_back_and_the_symbol_is_replaced() {
        for text in [
            "",
            "$",
            "$$",
            "${release}",
            "$${release}",
            "a${b}c$",
            "$$${x",
        ] {
            assert_eq!(expand(&literal(text), Some(ReleaseNumber(7))), text);
        }
        assert_eq!(
            expand("v${release}-${release}", Some(ReleaseNumber(7))),
            "v7-7"
        );
    }
}
