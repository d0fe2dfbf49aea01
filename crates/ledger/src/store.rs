//! The [`Store`] trait: keys, values and compare-and-set transactions, within limits that etcd shares.
//!
//! What every implementation promises is tested by [`crate::conformance::check`].

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The most checks and writes of one transaction together: etcd's `--max-txn-ops`.
pub const MAX_OPERATIONS: usize = 128;

/// The most bytes of keys and values in one transaction, checks included: below the 1.5 MiB that etcd takes
/// as one request.
pub const MAX_TRANSACTION_BYTES: usize = 1024 * 1024;

/// The longest value in bytes. sled writes far larger ones to files that it never syncs.
pub const MAX_VALUE_BYTES: usize = 100 * 1024;

/// The longest key in bytes. The shortest has one.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most pairs that one [`Store::scan`] returns, whatever it was asked for.
pub const MAX_SCAN: usize = 1000;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Ordered keys and values with compare-and-set transactions.
///
/// # Guarantees
/// - A transaction is applied whole or not at all, also across kill -9 and a power cut.
/// - [`Store::commit`] returns `Committed::Yes` only once the transaction is durable, as far as the
///   implementation keeps anything at all.
/// - `get` and `scan` return only what is durable: a transaction becomes visible, whole, when it has been
///   made durable and not before; whoever got `Committed::Yes` sees his own writes from then on.
/// - Transactions are serialisable. One `scan` sees one state; two calls may see different ones.
///
/// # Caveats
/// Calls block. A full disk refuses writes with [`StoreError::Full`] before anything is done, and for as long as it is full.
/// After a write that failed midway ([`StoreError::Uncertain`]) every further write is refused with
/// [`StoreError::NotReady`] until the store is opened anew; a read is answered from what was acknowledged, or fails.
pub trait Store: Send + Sync {
    /// The value of a key, if there is one.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The pairs whose key starts with `prefix` and, if `after` is given, is greater than `after`, in order of
    /// their bytes; at most `limit` and at most [`MAX_SCAN`] of them. Fewer than both mean that there are no more.
    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError>;

    /// Does all the writes if every check holds, and otherwise none.
    fn commit(&self, txn: Txn) -> Result<Committed, StoreError>;

    /// Whether writes would be taken: an error says why not.
    fn ready(&self) -> Result<(), StoreError>;
}

/// A transaction: checks, then writes. No key may be written twice; a key may be both checked and written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// What must hold.
    pub checks: Vec<Check>,
    /// What is done if it does.
    pub writes: Vec<Write>,
}

impl Txn {
    /// Demands that a key has no value.
    #[must_use]
    pub fn absent(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.checks.push(Check {
            key: key.into(),
            expect: Expect::Absent,
        });
        self
    }

    /// Demands that a key has exactly this value.
    #[must_use]
    pub fn equals(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.checks.push(Check {
            key: key.into(),
            expect: Expect::Equals(value.into()),
        });
        self
    }

    /// Gives a key a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Put {
            key: key.into(),
            value: value.into(),
        });
        self
    }

    /// Takes a key's value away; nothing happens if it has none.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.writes.push(Write::Delete { key: key.into() });
        self
    }

    /// The bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let checks = self.checks.iter().map(|check| match &check.expect {
            Expect::Absent => check.key.len(),
            Expect::Equals(value) => check.key.len() + value.len(),
        });
        let writes = self.writes.iter().map(|write| match write {
            Write::Put { key, value } => key.len() + value.len(),
            Write::Delete { key } => key.len(),
        });
        checks.chain(writes).sum()
    }

    /// Checks the limits that hold for every store.
    pub(crate) fn validate(&self) -> Result<(), StoreError> {
        let operations = self.checks.len() + self.writes.len();
        if operations > MAX_OPERATIONS {
            return Err(StoreError::TooManyOperations(operations));
        }
        let mut written = BTreeSet::new();
        let checked = self.checks.iter().map(|check| match &check.expect {
            Expect::Absent => (&check.key, 0),
            Expect::Equals(value) => (&check.key, value.len()),
        });
        let writes = self.writes.iter().map(|write| match write {
            Write::Put { key, value } => (key, value.len()),
            Write::Delete { key } => (key, 0),
        });
        for (key, value_bytes) in checked.chain(writes) {
            validate_key(key)?;
            if value_bytes > MAX_VALUE_BYTES {
                return Err(StoreError::ValueTooLong {
                    key: show(key),
                    bytes: value_bytes,
                });
            }
        }
        for write in &self.writes {
            if !written.insert(write.key()) {
                return Err(StoreError::WrittenTwice(show(write.key())));
            }
        }
        match self.bytes() {
            bytes if bytes > MAX_TRANSACTION_BYTES => Err(StoreError::TransactionTooLong(bytes)),
            _ => Ok(()),
        }
    }

    /// The keys whose check does not hold, given what each has.
    pub(crate) fn conflicts(
        &self,
        mut value_of: impl FnMut(&[u8]) -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut conflicts = Vec::new();
        for check in &self.checks {
            let value = value_of(&check.key)?;
            let holds = match &check.expect {
                Expect::Absent => value.is_none(),
                Expect::Equals(expected) => value.as_ref() == Some(expected),
            };
            if !holds {
                conflicts.push(check.key.clone());
            }
        }
        Ok(conflicts)
    }
}

/// Keys are held to the limits in reads too, so that every implementation answers alike.
pub(crate) fn validate_key(key: &[u8]) -> Result<(), StoreError> {
    match key.len() {
        0 => Err(StoreError::EmptyKey),
        bytes if bytes > MAX_KEY_BYTES => Err(StoreError::KeyTooLong(bytes)),
        _ => Ok(()),
    }
}

/// A condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Which key.
    pub key: Vec<u8>,
    /// What is expected of it.
    pub expect: Expect,
}

/// What a check expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// No value.
    Absent,
    /// Exactly this value.
    Equals(Vec<u8>),
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Gives a key a value.
    Put {
        /// Which key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Takes a key's value away, if it has one.
    Delete {
        /// Which key.
        key: Vec<u8>,
    },
}

impl Write {
    /// The key that is written.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Committed {
    /// It was applied, and is durable.
    Yes,
    /// Nothing was applied: these keys were not as expected, in the order of the checks.
    Conflict(Vec<Vec<u8>>),
}

/// Why a store did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A limit.
    #[error(
        "a transaction has at most {MAX_OPERATIONS} checks and writes, this one has {0}; split it"
    )]
    TooManyOperations(usize),
    /// A limit.
    #[error("a transaction has at most {MAX_TRANSACTION_BYTES} bytes, this one has {0}; split it")]
    TransactionTooLong(usize),
    /// A limit.
    #[error(
        "a value has at most {MAX_VALUE_BYTES} bytes, the one for {key} has {bytes}; store it in pieces"
    )]
    ValueTooLong {
        /// Whose value.
        key: String,
        /// Its length.
        bytes: usize,
    },
    /// A limit.
    #[error("a key has at most {MAX_KEY_BYTES} bytes, this one has {0}")]
    KeyTooLong(usize),
    /// A limit.
    #[error("a key may not be empty")]
    EmptyKey,
    /// A key is written by two writes of one transaction.
    #[error("the key {0} is written twice in one transaction; keep one of the writes")]
    WrittenTwice(String),
    /// What is stored is not what was written.
    #[error(
        "the stored value of {key} is damaged ({reason}); restore the data folder from a backup"
    )]
    Damaged {
        /// Which key.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// A value of a newer version.
    #[error(
        "the stored value of {key} was written by a newer plumb (format {found}, this one reads up to {reads}); upgrade plumb"
    )]
    NewerValue {
        /// Which key.
        key: String,
        /// Its format.
        found: u8,
        /// The newest that is read.
        reads: u8,
    },
    /// The store cannot be opened.
    #[error(
        "the store in {path} cannot be opened ({reason}); check the disk, or restore the folder from a backup"
    )]
    Open {
        /// Its folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// It opens, but acknowledged transactions are missing.
    #[error(
        "the store in {path} has lost acknowledged writes: it ends at transaction {held}, but {acknowledged} were \
         acknowledged; restore the data folder from a backup, or remove {mark} to go on without them"
    )]
    Lost {
        /// Its folder.
        path: PathBuf,
        /// The number of the last transaction that is there.
        held: u64,
        /// The number of the last one that was acknowledged.
        acknowledged: u64,
        /// The file that says so.
        mark: PathBuf,
    },
    /// A read failed.
    #[error("{key} cannot be read from the store ({reason}); check the disk, then restart plumb")]
    Read {
        /// Which key or prefix.
        key: String,
        /// What went wrong.
        reason: String,
    },
    /// The disk has no room. Nothing of this transaction was done.
    #[error(
        "the disk of the data folder has {free} bytes free, and a write needs {needed}; free disk space: writes are taken \
         again then, without a restart"
    )]
    Full {
        /// The bytes that are free.
        free: u64,
        /// The bytes that must be.
        needed: u64,
    },
    /// The write of this very transaction failed, and only a restart will tell whether it was kept.
    #[error(
        "the store could not be written ({0}); whether this transaction was kept shows after a restart; free disk space or \
         check the disk, then restart plumb"
    )]
    Uncertain(String),
    /// An earlier write failed. Nothing of this transaction was done.
    #[error(
        "the store takes no writes since one has failed ({0}); free disk space or check the disk, then restart plumb"
    )]
    NotReady(String),
}

/// A key as it is shown in messages.
pub(crate) fn show(key: &[u8]) -> String {
    plumb_model::escape::line(&String::from_utf8_lossy(key)).to_string()
}
