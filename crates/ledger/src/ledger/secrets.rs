//! Secrets as records: sealed values and the wrapped keys that open them. What they hold is read nowhere in this crate.
//!
//! A secret is one record, `secret/NAME`, with what is told of it, and one for each value that is kept,
//! `secret-value/NAME/VERSION`. A version's number is never given twice, not even to a secret that was removed in between.

use std::collections::BTreeMap;

use plumb_model::{Hash, SecretName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, Txn};

/// How often a record is read and changed again when somebody else was quicker.
const ATTEMPTS: usize = 100;

/// How many versions of one secret are kept: as many as releases of an app, any of which may be gone back to.
pub const KEPT_VERSIONS: usize = 50;

/// A secret, without its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Its name.
    pub name: SecretName,
    /// The id of the key that wraps its data key.
    pub kek: String,
    /// Its data key, sealed with that one: base64. Empty once it is removed.
    pub data_key: String,
    /// The highest version that was ever given.
    pub last: u64,
    /// The versions that are kept. Empty once it is removed.
    pub versions: BTreeMap<u64, SecretVersionRecord>,
}

/// One version of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersionRecord {
    /// When it was set.
    pub set_at: Timestamp,
    /// The name of the token that set it.
    pub set_by: String,
    /// A hash of its value under the secret's data key.
    pub digest: Hash,
}

impl SecretRecord {
    /// The newest version; none if it was removed.
    #[must_use]
    pub fn current(&self) -> Option<u64> {
        self.versions.keys().next_back().copied()
    }
}

/// A value as it is stored.
#[derive(Serialize, Deserialize)]
struct ValueRecord {
    sealed: String,
}

/// What becomes of a secret.
#[derive(Debug, Clone)]
pub struct SecretChange {
    /// Its record.
    pub record: SecretRecord,
    /// A version that comes, with its sealed value in base64.
    pub value: Option<(u64, String)>,
}

impl Ledger {
    fn secret_key(&self, name: &SecretName) -> String {
        self.key(&format!("secret/{name}"))
    }

    fn value_key(&self, name: &SecretName, version: u64) -> String {
        self.key(&format!("secret-value/{name}/{version:020}"))
    }

    /// A secret, removed ones included; none if it was never set.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn secret(&self, name: &SecretName) -> Result<Option<SecretRecord>, LedgerError> {
        self.read(&self.secret_key(name))
    }

    /// All secrets, removed ones included, by name.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn secrets(&self) -> Result<Vec<SecretRecord>, LedgerError> {
        let all = self.read_all(&self.key("secret/"))?;
        Ok(all.into_iter().map(|(_, record)| record).collect())
    }

    /// The sealed value of one version, in base64.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn secret_value(
        &self,
        name: &SecretName,
        version: u64,
    ) -> Result<Option<String>, LedgerError> {
        let record: Option<ValueRecord> = self.read(&self.value_key(name, version))?;
        Ok(record.map(|record| record.sealed))
    }

    /// Reads a secret, has it changed, and writes it together with its values if nobody else has written it meanwhile;
    /// otherwise again. Values of versions that the record no longer lists go with it. None changes nothing.
    ///
    /// # Errors
    /// The caller's, and those of the ledger.
    pub fn change_secret<R, E: From<LedgerError>>(
        &self,
        name: &SecretName,
        mut change: impl FnMut(Option<&SecretRecord>) -> Result<(Option<SecretChange>, R), E>,
    ) -> Result<R, E> {
        let key = self.secret_key(name);
        for _ in 0..ATTEMPTS {
            let before = self.store.get(key.as_bytes()).map_err(LedgerError::from)?;
            let record: Option<SecretRecord> = before
                .as_deref()
                .map(|bytes| records::parse(&key, bytes))
                .transpose()?;
            let (change, result) = change(record.as_ref())?;
            let Some(SecretChange {
                record: after,
                value,
            }) = change
            else {
                return Ok(result);
            };
            let mut txn = match before {
                Some(before) => Txn::default().equals(key.as_str(), before),
                None => Txn::default().absent(key.as_str()),
            };
            txn = txn.put(key.as_str(), records::encode(&after));
            if let Some((version, sealed)) = value {
                txn = txn.put(
                    self.value_key(name, version),
                    records::encode(&ValueRecord { sealed }),
                );
            }
            let gone = record.iter().flat_map(|record| record.versions.keys());
            for version in gone.filter(|version| !after.versions.contains_key(version)) {
                txn = txn.delete(self.value_key(name, *version));
            }
            if self.commit(txn)? == Committed::Yes {
                return Ok(result);
            }
        }
        Err(LedgerError::Contended { key }.into())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_model::{Lineage, WorkspaceName};

    use super::*;
    use crate::MemoryStore;

    fn version() -> SecretVersionRecord {
        SecretVersionRecord {
            set_at: Timestamp::UNIX_EPOCH,
            set_by: "local".to_owned(),
            digest: Hash::of(b"x"),
        }
    }

    #[test]
    fn values_come_and_go_with_the_versions_that_the_record_lists() {
        let store = Arc::new(MemoryStore::default());
        let open = |workspace: &str| {
            Ledger::open(
                store.clone(),
                Lineage::from_random([1; 16]),
                WorkspaceName::new(workspace).unwrap(),
            )
        };
        let ledger = open("a");
        let name = SecretName::new("KEY").unwrap();
        let set = |number: u64, kept: &[u64]| {
            let record = SecretRecord {
                name: name.clone(),
                kek: "k".to_owned(),
                data_key: "d".to_owned(),
                last: number,
                versions: kept.iter().map(|v| (*v, version())).collect(),
            };
            let value = Some((number, format!("sealed {number}")));
            ledger
                .change_secret(&name, |_| {
                    let record = record.clone();
                    let value = value.clone();
                    Ok::<_, LedgerError>((Some(SecretChange { record, value }), ()))
                })
                .unwrap();
        };
        set(1, &[1]);
        set(2, &[1, 2]);
        assert_eq!(ledger.secret_value(&name, 1).unwrap().unwrap(), "sealed 1");
        set(3, &[2, 3]);
        assert_eq!(ledger.secret_value(&name, 1).unwrap(), None);
        assert_eq!(ledger.secret(&name).unwrap().unwrap().current(), Some(3));
        assert_eq!(ledger.secrets().unwrap().len(), 1);
        // Another workspace of the same store knows nothing of it.
        assert!(open("b").secrets().unwrap().is_empty());
        assert_eq!(open("b").secret_value(&name, 3).unwrap(), None);
    }
}
