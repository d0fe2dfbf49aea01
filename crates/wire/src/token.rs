//! The text forms of tokens. The secret in them is never shown, logged or stored: only handed to the one place
//! that compares or sends it.

use std::fmt;
use std::str::FromStr;

use plumb_model::{Secret, name};

/// How many hex digits the id of a join token has: 8 random bytes.
pub const ID_DIGITS: usize = 16;

/// How many hex digits a secret has: 32 random bytes.
pub const SECRET_DIGITS: usize = 64;

/// Why a text is not a token. Never quotes it, since it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not an API token.
    #[error("not an API token: expected plumb_NAME_SECRET, as the context file holds it")]
    NotAnApiToken,
    /// Not a join token.
    #[error(
        "not a join token: expected plumb-join_ID_SECRET_DIGEST, as `plumb token create --join` printed it, whole"
    )]
    NotAJoinToken,
}

fn hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// A token for the API: `plumb_NAME_SECRET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiToken {
    /// Its name, which it is looked up by; it follows the grammar of every name, so it holds no `_`.
    pub id: String,
    /// What proves it.
    pub secret: Secret,
}

impl ApiToken {
    /// The whole text.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!("plumb_{}_{}", self.id, self.secret.expose()))
    }
}

impl FromStr for ApiToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text
            .strip_prefix("plumb_")
            .ok_or(TokenError::NotAnApiToken)?;
        match rest.split_once('_') {
            Some((id, secret)) if name::check(id).is_ok() && hex(secret, SECRET_DIGITS) => {
                Ok(Self {
                    id: id.to_owned(),
                    secret: Secret::new(secret.to_owned()),
                })
            }
            _ => Err(TokenError::NotAnApiToken),
        }
    }
}

/// The SHA-256 digest of a CA certificate in DER: what a joining agent pins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaDigest(pub [u8; 32]);

impl CaDigest {
    /// The digest of a certificate.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
}

impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why a text is not the digest of a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not the digest of a certificate: expected 64 hex digits, as `plumb token create` prints them"
)]
pub struct NotADigest;

impl FromStr for CaDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if !hex(text, 64) {
            return Err(NotADigest);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotADigest)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotADigest)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A token to join with, once: `plumb-join_ID_SECRET_DIGEST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// What it is looked up by.
    pub id: String,
    /// What proves it.
    pub secret: Secret,
    /// The control plane to give it to, and to no other.
    pub ca: CaDigest,
}

impl JoinToken {
    /// The whole text.
    #[must_use]
    pub fn text(&self) -> Secret {
        Secret::new(format!(
            "plumb-join_{}_{}_{}",
            self.id,
            self.secret.expose(),
            self.ca
        ))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let bad = TokenError::NotAJoinToken;
        let rest = text.strip_prefix("plumb-join_").ok_or(bad)?;
        let parts: Vec<&str> = rest.split('_').collect();
        let [id, secret, ca] = parts[..] else {
            return Err(bad);
        };
        if !hex(id, ID_DIGITS) || !hex(secret, SECRET_DIGITS) {
            return Err(bad);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: Secret::new(secret.to_owned()),
            ca: ca.parse().map_err(|_| bad)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_nothing_shows_their_secrets() {
        let secret = "ab".repeat(32);
        let api = ApiToken {
            id: "local".into(),
            secret: Secret::new(secret.clone()),
        };
        assert_eq!(api.text().expose().parse(), Ok(api.clone()));
        let join = JoinToken {
            id: "0123456789abcdef".into(),
            secret: api.secret.clone(),
            ca: CaDigest::of(b"x"),
        };
        assert_eq!(join.text().expose().parse(), Ok(join.clone()));
        assert!(!format!("{api:?}{join:?}{}", join.text()).contains(&secret));
    }

    #[test]
    fn anything_else_is_refused_without_being_quoted() {
        for bad in [
            "",
            "plumb_",
            "plumb_x_y",
            "plumb-join_0123456789abcdef",
            "plumb_0123456789abcdef_canary",
        ] {
            let error = bad.parse::<ApiToken>().unwrap_err().to_string();
            assert!(!error.contains("canary"), "{error}");
            assert!(bad.parse::<JoinToken>().is_err());
        }
    }
}
