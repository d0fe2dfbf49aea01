//! Text in which some references stay symbolic until a process starts: `${release}`, so that a release number never
//! changes the hash of a spec, and the credentials of services (`${service.db.url}`, `${service.db.password}`), so that
//! no plan, log or record ever holds one. A literal `${` is written `$${`.

use crate::ReleaseNumber;

/// The one symbol that stays.
pub const RELEASE: &str = "${release}";

/// What begins a reference to a service's credential.
const SERVICE: &str = "${service.";

/// The reference to a credential of a service: `url` or `password`.
#[must_use]
pub fn service(name: &crate::OwnerName, what: &str) -> String {
    format!("{SERVICE}{name}.{what}}}")
}

/// Whether symbolic text holds a credential, and may therefore not be shown, however it came about.
#[must_use]
pub fn holds_credential(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let from = &rest[at..];
        if let Some(after) = from.strip_prefix("$${") {
            rest = after;
        } else if from.starts_with(SERVICE) {
            return true;
        } else {
            rest = &from[1..];
        }
    }
    false
}

/// Writes literal text so that [`expand`] gives it back unchanged.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

/// Appends what [`literal`] gives. Nearly no text has a `$` in it.
pub fn push_literal(out: &mut String, text: &str) {
    if text.contains('$') {
        out.push_str(&literal(text));
    } else {
        out.push_str(text);
    }
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
    fn a_credential_is_known_by_its_reference_and_a_literal_is_none() {
        let url = service(&crate::OwnerName::new("db").unwrap(), "url");
        assert_eq!(url, "${service.db.url}");
        assert!(holds_credential(&format!("x{url}y")));
        assert!(holds_credential(&format!("$${{a}}{url}")));
        assert!(!holds_credential(&literal(&url)));
        assert!(!holds_credential("${release} $ $$"));
    }

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
