//! Typed names: parsed once at the edge, correct ever after.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name in bytes: what a DNS label and a cgroup folder both take.
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No character at all.
    #[error("a name may not be empty")]
    Empty,
    /// Longer than [`MAX_NAME_BYTES`].
    #[error("a name has at most {MAX_NAME_BYTES} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside the grammar, and where it stands (counted from 0).
    #[error(
        "{0:?} may not stand in a name: use a-z, 0-9 and '-', and start and end with a letter or digit"
    )]
    BadCharacter(char, usize),
    /// A character that may not stand in the name of a secret, and where it stands (counted from 0).
    #[error(
        "{0:?} may not stand in the name of a secret: use letters, digits, '-', '_' and '.', and start with a letter or digit"
    )]
    BadSecretCharacter(char, usize),
    /// Longer than [`MAX_SECRET_NAME_BYTES`].
    #[error(
        "the name of a secret has at most {MAX_SECRET_NAME_BYTES} characters, this one has {0}"
    )]
    TooLongSecret(usize),
    /// A lineage that is not a UUID.
    #[error("not a lineage: expected a UUID such as 6f2a1c1e-8d0b-4b53-9d7c-0a4c8f1b2d3e")]
    NotALineage,
}

/// Checks `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`, the grammar of every name in the language.
pub fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    for (at, c) in text.char_indices() {
        let inner = at > 0 && at + c.len_utf8() < text.len();
        let good = c.is_ascii_lowercase() || c.is_ascii_digit() || (c == '-' && inner);
        if !good {
            return Err(NameError::BadCharacter(c, at));
        }
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong(text.len()));
    }
    Ok(())
}

/// The longest name of a secret in bytes.
pub const MAX_SECRET_NAME_BYTES: usize = 128;

/// Checks `[A-Za-z0-9]([-_.A-Za-z0-9]{0,127})`: the names of secrets, which are often those of environment variables.
pub fn check_secret(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    for (at, c) in text.char_indices() {
        let good = c.is_ascii_alphanumeric() || (at > 0 && matches!(c, '-' | '_' | '.'));
        if !good {
            return Err(NameError::BadSecretCharacter(c, at));
        }
    }
    if text.len() > MAX_SECRET_NAME_BYTES {
        return Err(NameError::TooLongSecret(text.len()));
    }
    Ok(())
}

/// Reads a text and makes something of it, without a copy in between.
pub(crate) struct Reads<F>(pub F);

impl<T, E: fmt::Display, F: Fn(&str) -> Result<T, E>> de::Visitor<'_> for Reads<F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<X: de::Error>(self, text: &str) -> Result<T, X> {
        (self.0)(text).map_err(X::custom)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        name! { $(#[$doc])* $name, check }
    };
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        // Shared: a name stands in the address of everything that goes by it.
        #[derive(Clone, PartialEq, Eq, Hash)]
        pub struct $name(Arc<str>);

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Reads(Self::new))
            }
        }

        impl $name {
            #[doc = concat!("Parses a name; the grammar is that of [`", stringify!($check), "`].")]
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().into()
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    };
}

name! {
    /// The tenant boundary: one blueprint repository and its recorded state.
    WorkspaceName
}
name! {
    /// A VM that an agent manages.
    MachineName
}
name! {
    /// An App, Service, Setup, Volume or Network: whatever owns resources. Unique across them in a workspace.
    OwnerName
}
name! {
    /// One process of an App.
    ProcessName
}
name! {
    /// A named port of an App.
    PortName
}

name! {
    /// A secret of the workspace: its name, never its value.
    SecretName, check_secret
}

/// The identity of one control plane's history: a UUID made with its data folder. Everything that is
/// keyed, certified or labelled carries it, so that two clusters never take each other's things.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lineage(Box<str>);

impl Lineage {
    /// Parses the usual text form of a UUID.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let groups = [8, 4, 4, 4, 12];
        let parts: Vec<&str> = text.split('-').collect();
        let good = parts.len() == groups.len()
            && parts.iter().zip(groups).all(|(part, len)| {
                part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            });
        if good {
            Ok(Self(text.into()))
        } else {
            Err(NameError::NotALineage)
        }
    }

    /// Makes a version 4 UUID out of 16 random bytes that the caller supplies.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let text = [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-");
        Self(text.into())
    }

    /// The lineage as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Lineage {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl std::str::FromStr for Lineage {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> String {
        lineage.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_takes_what_the_language_promises_and_nothing_else() {
        for good in ["a", "0", "web-1", "a--b", &"x".repeat(63)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let long = "x".repeat(64);
        for bad in [
            "", "-a", "a-", "A", "a_b", "a.b", "a b", "a;b", "$(x)", "a\nb", "..", "ä", &long,
        ] {
            assert!(check(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_lineage_made_from_bytes_reads_back() {
        let lineage = Lineage::from_random([7; 16]);
        assert_eq!(Lineage::new(lineage.as_str()), Ok(lineage));
    }
}
