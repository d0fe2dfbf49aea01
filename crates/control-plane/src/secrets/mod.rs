//! The secrets of a workspace: set, told of, handed to the machines that use them, never shown.
//!
//! Envelope encryption: every secret has a data key of its own, which seals its values; the data key is stored beside
//! them, wrapped by a key-encryption key that is not in the store ([`keys`]). So whoever steals the store or a backup of it
//! has ciphertext, and another key-encryption key means wrapping small keys anew and no value. What is sealed is bound to
//! lineage, workspace, name and version: no record can be put in another's place.
//!
//! It never logs a value, nor returns one but to [`Vault::value`], which the gateway alone calls, for machines whose
//! recorded assignment names that very version.

pub(crate) mod keys;
pub(crate) mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use plumb_dispatch::protocol::{SecretVersion, ToAgent};
use plumb_ledger::{
    KEPT_VERSIONS, Ledger, LedgerError, SecretChange, SecretRecord, SecretVersionRecord,
};
use plumb_model::sealed::{KEY_BYTES, Key, NONCE_BYTES};
use plumb_model::{KnownSecret, KnownSecrets, Secret, SecretName, Timestamp};
use zeroize::Zeroizing;

use crate::identity::IdentityError;
use keys::Keys;

/// The longest value, in bytes: sealed and written as base64 it fits into one value of the store, and it fits into an
/// environment variable, which Linux bounds at 128 KiB.
pub(crate) const MAX_VALUE: usize = 64 * 1024;

/// The most bytes of values in one message to a machine, so that a heartbeat behind it does not wait long.
const MAX_MESSAGE: usize = 512 * 1024;

/// Why a secret cannot be set, had or removed. Never says a byte of a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// The value is none that can be handed over.
    #[error("the value of the secret {name} {why}")]
    Value {
        /// Whose.
        name: SecretName,
        /// What is wrong with it, and what to do.
        why: &'static str,
    },
    /// There is no such secret, or version of it.
    #[error(
        "there is no secret {0}; `plumb secret list` shows what there is, and `plumb secret set {0}` sets it"
    )]
    Unknown(SecretName),
    /// The key that wraps it is missing.
    #[error(
        "the key {kek} that opens the secret {name} is not here; give the control plane the file that holds it (see `plumb secret rotate-key --help`), or set the secret again"
    )]
    KeyMissing {
        /// Whose.
        name: SecretName,
        /// The id of the key.
        kek: String,
    },
    /// What is stored cannot be opened.
    #[error(
        "what is stored of the secret {0} is damaged; set it again, or restore the data folder from a backup"
    )]
    Damaged(SecretName),
    /// Keys.
    #[error(transparent)]
    Keys(#[from] IdentityError),
    /// No random bytes.
    #[error("the system's random source failed: {0}")]
    Random(std::io::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What came of setting a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    /// The version that holds the value.
    pub version: u64,
    /// It held it before.
    pub unchanged: bool,
}

/// The secrets of one workspace. All of it blocks.
#[derive(Clone)]
pub(crate) struct Vault {
    ledger: Ledger,
    keys: Arc<Keys>,
    now: fn() -> Timestamp,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Vault {
    /// The vault of a workspace.
    pub fn new(ledger: Ledger, keys: Arc<Keys>, now: fn() -> Timestamp) -> Self {
        Self { ledger, keys, now }
    }

    /// What the planner is told: names, versions and keyed hashes.
    pub fn known(&self) -> Result<KnownSecrets, SecretError> {
        let records = self.ledger.secrets()?;
        let known = records.into_iter().filter_map(|record| {
            let current = record.current()?;
            let versions = record.versions.iter();
            let versions = versions.map(|(version, v)| (*version, v.digest)).collect();
            Some((record.name, KnownSecret { current, versions }))
        });
        Ok(KnownSecrets(Some(known.collect())))
    }

    /// The secrets that are set, by name.
    pub fn list(&self) -> Result<Vec<SecretRecord>, SecretError> {
        let mut all = self.ledger.secrets()?;
        all.retain(|record| record.current().is_some());
        Ok(all)
    }

    /// Sets a secret. `in_use` are versions that something recorded uses: they are kept, however many there are.
    pub fn set(
        &self,
        name: &SecretName,
        value: &Secret,
        by: &str,
        must_exist: bool,
        in_use: &BTreeSet<u64>,
    ) -> Result<Set, SecretError> {
        check(name, value.expose())?;
        let _wrapping = self.keys.wrapping();
        self.ledger.change_secret(name, |record| {
            let current = record.and_then(SecretRecord::current);
            if must_exist && current.is_none() {
                return Err(SecretError::Unknown(name.clone()));
            }
            let opened = match record.filter(|record| record.current().is_some()) {
                Some(record) => match self.data_key(record) {
                    Ok(key) => Some((key, record.clone())),
                    // Nobody can ever read those versions again, and a new value is all that mends it.
                    Err(SecretError::KeyMissing { .. } | SecretError::Damaged(_)) => None,
                    Err(error) => return Err(error),
                },
                None => None,
            };
            let last = record.map_or(0, |record| record.last);
            let (key, mut record) = match opened {
                Some(opened) => opened,
                None => self.fresh(name, last)?,
            };
            let digest = key.digest(value.expose().as_bytes());
            let newest = record.current().and_then(|v| record.versions.get(&v));
            if newest.is_some_and(|newest| newest.digest == digest) {
                let set = Set {
                    version: record.last,
                    unchanged: true,
                };
                return Ok((None, set));
            }
            let version = last + 1;
            let what = self.value_of(name, version);
            let sealed = key.seal(nonce()?, &what, value.expose().as_bytes());
            record.last = version;
            record.versions.insert(
                version,
                SecretVersionRecord {
                    set_at: (self.now)(),
                    set_by: by.to_owned(),
                    digest,
                },
            );
            prune(&mut record.versions, in_use);
            let change = SecretChange {
                record,
                value: Some((version, STANDARD.encode(sealed))),
            };
            let set = Set {
                version,
                unchanged: false,
            };
            Ok((Some(change), set))
        })
    }

    /// Removes a secret with all its values. Says how many there were.
    pub fn remove(&self, name: &SecretName) -> Result<u32, SecretError> {
        self.ledger.change_secret(name, |record| {
            let record = record
                .filter(|record| record.current().is_some())
                .ok_or_else(|| SecretError::Unknown(name.clone()))?;
            let count = u32::try_from(record.versions.len()).unwrap_or(u32::MAX);
            let record = SecretRecord {
                data_key: String::new(),
                versions: BTreeMap::new(),
                ..record.clone()
            };
            let value = None;
            Ok((Some(SecretChange { record, value }), count))
        })
    }

    /// The value of one version, for a machine that uses it; none if it is not kept.
    pub fn value(&self, name: &SecretName, version: u64) -> Result<Option<Secret>, SecretError> {
        let Some(record) = self.ledger.secret(name)? else {
            return Ok(None);
        };
        if !record.versions.contains_key(&version) {
            return Ok(None);
        }
        let Some(sealed) = self.ledger.secret_value(name, version)? else {
            return Ok(None);
        };
        let damaged = || SecretError::Damaged(name.clone());
        let sealed = STANDARD.decode(sealed).map_err(|_| damaged())?;
        let value = self
            .data_key(&record)?
            .open(&self.value_of(name, version), &sealed)
            .map_err(|_| damaged())?;
        let value = std::str::from_utf8(&value).map_err(|_| damaged())?;
        Ok(Some(Secret::new(value.to_owned())))
    }

    /// What is said to a machine that asked for these secrets and may have them. At most [`MAX_MESSAGE`] of values in each.
    pub fn messages(&self, asked: Vec<SecretVersion>) -> Vec<ToAgent> {
        let mut messages = Vec::new();
        let (mut values, mut missing, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (name, version) in asked {
            match self.value(&name, version) {
                Ok(Some(value)) => {
                    if bytes + value.expose().len() > MAX_MESSAGE {
                        let values = std::mem::take(&mut values);
                        messages.push(ToAgent::Secrets {
                            values,
                            missing: Vec::new(),
                        });
                        bytes = 0;
                    }
                    bytes += value.expose().len();
                    values.push(((name, version), value));
                }
                Ok(None) => missing.push((name, version)),
                Err(error) => {
                    tracing::error!(%name, version, "a machine waits for a secret: {}", crate::refuse::chain(&error));
                    missing.push((name, version));
                }
            }
        }
        messages.push(ToAgent::Secrets { values, missing });
        messages
    }

    /// The secrets whose key is not here, by name.
    pub fn unreadable(&self) -> Result<Vec<SecretName>, SecretError> {
        let all = self.list()?.into_iter();
        Ok(all
            .filter(|record| self.data_key(record).is_err())
            .map(|record| record.name)
            .collect())
    }

    /// Wraps every data key that is not wrapped in the newest key. Only while a rotation keeps everybody else off.
    fn rewrap(&self) -> Result<u64, SecretError> {
        let newest = self.keys.newest();
        let mut count = 0;
        for record in self.list()? {
            if record.kek == newest.id() {
                continue;
            }
            let name = record.name;
            count += self.ledger.change_secret(&name, |record| {
                let Some(record) =
                    record.filter(|record| record.current().is_some() && record.kek != newest.id())
                else {
                    return Ok((None, 0));
                };
                let key = self.data_key(record)?;
                let record = SecretRecord {
                    kek: newest.id(),
                    data_key: self.wrap(&newest, &key, &name)?,
                    ..record.clone()
                };
                let value = None;
                Ok::<_, SecretError>((Some(SecretChange { record, value }), 1))
            })?;
        }
        Ok(count)
    }

    /// A new data key, and the record of a secret without a version.
    fn fresh(&self, name: &SecretName, last: u64) -> Result<(Key, SecretRecord), SecretError> {
        let key = crate::identity::random::<KEY_BYTES>().map_err(SecretError::Random)?;
        let (key, kek) = (Key::new(key), self.keys.newest());
        let record = SecretRecord {
            name: name.clone(),
            kek: kek.id(),
            data_key: self.wrap(&kek, &key, name)?,
            last,
            versions: BTreeMap::new(),
        };
        Ok((key, record))
    }

    fn wrap(&self, kek: &Key, key: &Key, name: &SecretName) -> Result<String, SecretError> {
        let sealed = kek.seal(nonce()?, &self.data_key_of(name), key.expose());
        Ok(STANDARD.encode(sealed))
    }

    fn data_key(&self, record: &SecretRecord) -> Result<Key, SecretError> {
        let kek = self
            .keys
            .named(&record.kek)
            .ok_or_else(|| SecretError::KeyMissing {
                name: record.name.clone(),
                kek: record.kek.clone(),
            })?;
        let damaged = || SecretError::Damaged(record.name.clone());
        let sealed = STANDARD.decode(&record.data_key).map_err(|_| damaged())?;
        let key: Zeroizing<Vec<u8>> = kek
            .open(&self.data_key_of(&record.name), &sealed)
            .map_err(|_| damaged())?;
        Key::from_bytes(&key).ok_or_else(damaged)
    }

    fn data_key_of(&self, name: &SecretName) -> String {
        let (lineage, workspace) = (self.ledger.lineage(), self.ledger.workspace());
        format!("plumb data key\n{lineage}\n{workspace}\n{name}")
    }

    fn value_of(&self, name: &SecretName, version: u64) -> String {
        let (lineage, workspace) = (self.ledger.lineage(), self.ledger.workspace());
        format!("plumb secret\n{lineage}\n{workspace}\n{name}\n{version}")
    }
}

/// Wraps the data keys of all workspaces in a new key-encryption key, or goes on where that was cut short. Returns the
/// key's id, and how many were wrapped.
///
/// Flow: the new key is on the disk before anything is wrapped in it, and the old one leaves it after nothing is wrapped
/// in that any more. So it may end anywhere, and what is stored can be opened with what is on the disk.
pub(crate) fn rotate(keys: &Keys, vaults: &[Vault]) -> Result<(String, u64), SecretError> {
    let _alone = keys.rotating();
    keys.begin()?;
    let mut count = 0;
    for vault in vaults {
        count += vault.rewrap()?;
    }
    keys.finish()?;
    Ok((keys.newest().id(), count))
}

/// Whether a value is one that can be handed over.
fn check(name: &SecretName, value: &str) -> Result<(), SecretError> {
    let why = if value.is_empty() {
        "is empty; to take it away run `plumb secret rm`"
    } else if value.len() > MAX_VALUE {
        "is longer than 64 KiB; keep large files elsewhere, and their key here"
    } else if value.contains('\0') {
        "has a NUL in it, which neither an environment variable nor a text file can hold; encode it, for example as base64"
    } else {
        return Ok(());
    };
    Err(SecretError::Value {
        name: name.clone(),
        why,
    })
}

/// Drops the oldest versions beyond those that are kept, but for those in use.
fn prune(versions: &mut BTreeMap<u64, SecretVersionRecord>, in_use: &BTreeSet<u64>) {
    let over = versions.len().saturating_sub(KEPT_VERSIONS);
    let oldest: Vec<u64> = versions.keys().take(over).copied().collect();
    for version in oldest {
        if !in_use.contains(&version) {
            versions.remove(&version);
        }
    }
}

fn nonce() -> Result<[u8; NONCE_BYTES], SecretError> {
    crate::identity::random().map_err(SecretError::Random)
}
