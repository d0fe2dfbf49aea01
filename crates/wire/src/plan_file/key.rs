//! Keys that sign plan files, as far as everybody may know them: the public key, its short id, and what a signature
//! covers. The private key never leaves the control plane, and nothing here makes one.

use std::fmt;
use std::str::FromStr;

use plumb_model::Hash;
use ring::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::convert::WireError;
use crate::v1;

/// What stands before the signed bytes, so that a signature over a plan file is good for nothing else.
pub const DOMAIN: &[u8] = b"plumb plan file, format 1\n";

/// How the text of a public key begins.
const KEY_PREFIX: &str = "ed25519:";

/// How many hex digits a key's id has: 128 bits, so that nobody finds another key of the same id.
const ID_DIGITS: usize = 32;

/// Why a text names no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a public key.
    #[error(
        "not a public key: expected `ed25519:` and 64 hex digits, as `plumb plan key` prints it"
    )]
    Key,
    /// Not an id.
    #[error(
        "not the id of a key: expected {ID_DIGITS} hex digits, as `plumb plan verify` shows it"
    )]
    Id,
}

/// The public half of an ed25519 key. Text form: `ed25519:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PlanKey(pub [u8; 32]);

impl PlanKey {
    /// The id: the first half of the key's BLAKE3 digest.
    #[must_use]
    pub fn id(&self) -> KeyId {
        let mut digest = Hash::of(&self.0).to_string();
        digest.truncate(ID_DIGITS);
        KeyId(digest)
    }

    /// Whether this key has signed exactly these bytes as a plan file's document.
    #[must_use]
    pub fn has_signed(&self, document: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&signed_bytes(document), signature)
            .is_ok()
    }
}

/// What is signed: the domain, then the document as it is.
#[must_use]
pub fn signed_bytes(document: &[u8]) -> Vec<u8> {
    [DOMAIN, document].concat()
}

impl fmt::Display for PlanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KEY_PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PlanKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PlanKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = text.strip_prefix(KEY_PREFIX).ok_or(KeyError::Key)?;
        unhex(digits).map(Self).ok_or(KeyError::Key)
    }
}

impl TryFrom<String> for PlanKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PlanKey> for String {
    fn from(key: PlanKey) -> Self {
        key.to_string()
    }
}

/// A public key's id, for people to compare and to trust by: 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == ID_DIGITS && text.bytes().all(digits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Id)
        }
    }
}

/// A signature over a document, with the key that is said to have made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Whose it is said to be.
    pub key: PlanKey,
    /// The signature.
    pub bytes: [u8; 64],
}

impl Signature {
    /// Reads a signature as it travels.
    ///
    /// # Errors
    /// With the field that has another length than it must.
    pub fn from_wire(signed: &v1::SignedPlan) -> Result<Self, WireError> {
        fn exactly<const N: usize>(
            field: &'static str,
            bytes: &[u8],
        ) -> Result<[u8; N], WireError> {
            bytes.try_into().map_err(|_| WireError::Field {
                field,
                why: format!("{} bytes where {N} are expected", bytes.len()),
            })
        }
        Ok(Self {
            key: PlanKey(exactly("signed.public_key", &signed.public_key)?),
            bytes: exactly("signed.signature", &signed.signature)?,
        })
    }

    /// A document with its signature, as it travels.
    #[must_use]
    pub fn to_wire(&self, document: Vec<u8>) -> v1::SignedPlan {
        v1::SignedPlan {
            document,
            public_key: self.key.0.to_vec(),
            signature: self.bytes.to_vec(),
        }
    }
}

/// Exactly so many bytes from lower-case hex digits.
pub(super) fn unhex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ids_read_back_and_nothing_else_passes_for_one() {
        let key = PlanKey([0xab; 32]);
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
        assert_ne!(key.id(), PlanKey([0xac; 32]).id());
        let digits = "ab".repeat(32);
        for bad in [
            String::new(),
            digits.clone(),
            format!("ed25519:{}", digits.to_uppercase()),
            format!("ed25519:{}", &digits[2..]),
            format!("ed25519:{digits}ab"),
            format!("rsa:{digits}"),
        ] {
            assert_eq!(bad.parse::<PlanKey>(), Err(KeyError::Key), "{bad}");
            assert_eq!(bad.parse::<KeyId>(), Err(KeyError::Id), "{bad}");
        }
    }
}
