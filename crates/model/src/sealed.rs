//! Bytes that only the holder of a key can read: AES-256-GCM, bound to what they are for. Pure: keys and nonces are handed
//! in. Control planes keep secrets in their store like this, agents on their disk.

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::hash::Hash;

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// The length of a nonce, in bytes. Drawn at random for each sealing: of 2^32 under one key, two are the same with a chance
/// of less than 2^-32 (NIST SP 800-38D, 8.3).
pub const NONCE_BYTES: usize = NONCE_LEN;

/// The first byte of what is sealed, so that another way of sealing can be told apart.
const FORMAT: u8 = 1;

/// A key. Shown by its id, and wiped when it is dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// That bytes could not be opened: they are damaged, were sealed with another key, or for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is damaged, was sealed with another key, or for something else")]
pub struct NotOpened;

impl Key {
    /// From random bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// From bytes, if they are as many as a key has.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::new)
    }

    /// From its text: 64 hex digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // The text form of a hash is the same: 32 bytes in hex.
        let hash: Hash = text.parse().ok()?;
        Some(Self::new(hash.0))
    }

    /// Its text, for the file that it is kept in.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(Hash(*self.0).to_string())
    }

    /// Its bytes, to be sealed with another key.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &*self.0
    }

    /// What it is called by: of a random key the id gives nothing away.
    #[must_use]
    pub fn id(&self) -> String {
        Hash::of(&*self.0).to_string()[..16].to_owned()
    }

    /// A hash of a value that only the holder of this key can compute, so that nobody else can try values out against it.
    #[must_use]
    pub fn digest(&self, value: &[u8]) -> Hash {
        let key = Zeroizing::new(blake3::derive_key(
            "plumb 2026-11 digests of secrets",
            &*self.0,
        ));
        Hash(*blake3::keyed_hash(&key, value).as_bytes())
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &*self.0)
            .expect("a key of AES-256 has exactly so many bytes");
        LessSafeKey::new(key)
    }

    /// Seals bytes for `what`, which must be given again to open them. `nonce` is drawn at random, and never used twice.
    #[must_use]
    pub fn seal(&self, nonce: [u8; NONCE_BYTES], what: &str, bytes: &[u8]) -> Vec<u8> {
        let mut sealed = Zeroizing::new(bytes.to_vec());
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(what.as_bytes()),
                &mut sealed,
            )
            .expect("nothing that is sealed comes near the limit of 64 GiB");
        let mut out = Vec::with_capacity(1 + NONCE_BYTES + sealed.len() + tag.as_ref().len());
        out.push(FORMAT);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        out.extend_from_slice(tag.as_ref());
        out
    }

    /// Opens what was sealed for `what`.
    ///
    /// # Errors
    /// If it was not, or not with this key, or has changed since.
    pub fn open(&self, what: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let (&format, rest) = sealed.split_first().ok_or(NotOpened)?;
        if format != FORMAT || rest.len() < NONCE_BYTES {
            return Err(NotOpened);
        }
        let (nonce, rest) = rest.split_at(NONCE_BYTES);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| NotOpened)?;
        let mut bytes = Zeroizing::new(rest.to_vec());
        let length = self
            .cipher()
            .open_in_place(nonce, Aad::from(what.as_bytes()), &mut bytes)
            .map_err(|_| NotOpened)?
            .len();
        bytes.truncate(length);
        Ok(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_for_its_purpose_and_unchanged_only() {
        let (key, other) = (Key::new([1; 32]), Key::new([2; 32]));
        let sealed = key.seal([7; NONCE_BYTES], "for a", b"canary-1");
        assert!(!sealed.windows(6).any(|part| part == b"canary"));
        assert_eq!(**key.open("for a", &sealed).unwrap(), *b"canary-1");
        assert!(other.open("for a", &sealed).is_err());
        assert!(key.open("for b", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open("for a", &changed).is_err(), "byte {at}");
            assert!(key.open("for a", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_key_reads_back_from_its_text_and_shows_its_id_alone() {
        let key = Key::new([0xab; 32]);
        let again = Key::parse(&key.text()).unwrap();
        assert_eq!(again.id(), key.id());
        let shown = format!("{key:?}");
        assert!(
            shown.contains(&key.id()) && !shown.contains("abab"),
            "{shown}"
        );
        assert!(Key::parse("ab").is_none() && Key::from_bytes(&[1; 31]).is_none());
        assert_ne!(key.digest(b"x"), Key::new([1; 32]).digest(b"x"));
        assert_ne!(key.digest(b"x"), key.digest(b"y"));
    }
}
