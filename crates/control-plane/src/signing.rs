//! The key that signs plan files: `DATA/identity/plan.key` (mode 0600), made with the data folder, and never sent.
//!
//! A signature says that this control plane has planned exactly this, from this request, against this state. It says
//! nothing of whether anybody approves.

use std::fmt;
use std::path::Path;

use plumb_wire::plan_file::{PlanKey, Signature, signed_bytes};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::identity::{self, IdentityError};

const PLAN_KEY: &str = "plan.key";

/// Signs plan files.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    key: PlanKey,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// Opens the key in `DATA/identity`, or makes one where there is none yet: in a new folder, and in one of a version
    /// that signed nothing.
    ///
    /// # Errors
    /// When the file cannot be read or written, or holds no key.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(PLAN_KEY);
        let pkcs8 = match identity::read_bytes(&path)? {
            Some(pkcs8) => pkcs8,
            None => {
                let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| {
                    IdentityError::Make("the system gives no random numbers".to_owned())
                })?;
                identity::write_private(folder, PLAN_KEY, made.as_ref())?;
                made.as_ref().to_vec()
            }
        };
        let damaged = |why: &dyn fmt::Display| IdentityError::Damaged {
            path: path.clone(),
            why: why.to_string(),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|e| damaged(&e))?;
        let key = <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(|e| damaged(&e))?;
        Ok(Self {
            pair,
            key: PlanKey(key),
        })
    }

    /// The public half.
    pub fn key(&self) -> PlanKey {
        self.key
    }

    /// Signs a document.
    pub fn sign(&self, document: &[u8]) -> Signature {
        let signature = self.pair.sign(&signed_bytes(document));
        let mut bytes = [0; 64];
        bytes.copy_from_slice(signature.as_ref());
        Signature {
            key: self.key,
            bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_key_stays_is_private_and_shows_nowhere() {
        let temp = tempfile::tempdir().unwrap();
        let signer = Signer::open(temp.path()).unwrap();
        let path = temp.path().join(PLAN_KEY);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Signer::open(temp.path()).unwrap();
        assert_eq!(again.key(), signer.key());
        let signature = signer.sign(b"{}");
        assert!(signature.key.has_signed(b"{}", &again.sign(b"{}").bytes));
        assert!(!signature.key.has_signed(b"{ }", &signature.bytes));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Signer::open(other.path()).unwrap().key(), signer.key());
        let shown = format!("{signer:?}");
        assert!(
            shown.contains("ed25519:") && !shown.contains("pair"),
            "{shown}"
        );
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join(PLAN_KEY);
        std::fs::write(&path, "no key").unwrap();
        let error = Signer::open(temp.path()).unwrap_err().to_string();
        assert!(error.contains("plan.key is damaged"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"no key");
    }
}
