//! A text that must not be seen: `Debug`, `Display` and `Serialize` redact it, and dropping wipes it.

use std::fmt;

use zeroize::Zeroizing;

/// What stands wherever a secret would be shown.
pub const REDACTED: &str = "(secret)";

/// A secret text. There is no `Deserialize`: whoever reads one from a file or a wire says so with [`Secret::new`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text in.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Hands the text out, to the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl serde::Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_way_of_printing_shows_it() {
        let secret = Secret::new("canary-7f3a".into());
        let shown = format!(
            "{secret} {secret:?} {secret:#?} {}",
            serde_json::to_string(&secret).unwrap()
        );
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(secret.expose(), "canary-7f3a");
    }
}
