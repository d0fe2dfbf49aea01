//! Immutable bodies by the hash of their bytes: cut into pieces for the store, and verified whenever they are read.
//!
//! `body/HASH` holds a byte for the layout, then either the bytes themselves or their number; in the latter
//! case they are in `body/HASH/000000` and so on. It is written after its pieces: a body that is there is whole.

use plumb_model::Hash;

use super::{Ledger, LedgerError};
use crate::store::{MAX_OPERATIONS, MAX_TRANSACTION_BYTES, Txn};

/// The longest piece in bytes, well below what a store takes as one value.
const PIECE_BYTES: usize = 64 * 1024;

const INLINE: u8 = 1;
const PIECES: u8 = 2;

impl Ledger {
    pub(super) fn body_key(&self, hash: &Hash) -> String {
        self.key(&format!("body/{hash}"))
    }

    fn piece_key(&self, hash: &Hash, index: usize) -> String {
        self.key(&format!("body/{hash}/{index:06}"))
    }

    /// The bytes with this hash; none if they were never stored.
    ///
    /// # Errors
    /// [`LedgerError::Unreadable`] if what is stored does not have this hash; see [`LedgerError`].
    pub fn body(&self, hash: &Hash) -> Result<Option<Vec<u8>>, LedgerError> {
        let key = self.body_key(hash);
        let Some(top) = self.store.get(key.as_bytes())? else {
            return Ok(None);
        };
        let unreadable = |reason: String| LedgerError::Unreadable {
            key: key.clone(),
            reason,
        };
        let bytes = match top.split_first() {
            Some((&INLINE, bytes)) => bytes.to_vec(),
            Some((&PIECES, length)) => {
                let length = <[u8; 8]>::try_from(length)
                    .ok()
                    .and_then(|length| usize::try_from(u64::from_be_bytes(length)).ok())
                    .ok_or_else(|| unreadable("its length is damaged".to_owned()))?;
                // Not allotted from the stored length, which may be damaged.
                let mut bytes = Vec::new();
                for index in 0..length.div_ceil(PIECE_BYTES) {
                    let piece_key = self.piece_key(hash, index);
                    let piece = self
                        .store
                        .get(piece_key.as_bytes())?
                        .ok_or(LedgerError::Missing { key: piece_key })?;
                    bytes.extend_from_slice(&piece);
                }
                if bytes.len() != length {
                    return Err(unreadable("its length does not match".to_owned()));
                }
                bytes
            }
            Some((&layout, _)) => {
                return Err(LedgerError::Newer {
                    key,
                    found: layout.into(),
                    reads: PIECES.into(),
                });
            }
            None => return Err(unreadable("it is empty".to_owned())),
        };
        if Hash::of(&bytes) != *hash {
            return Err(unreadable("its bytes do not have its hash".to_owned()));
        }
        Ok(Some(bytes))
    }

    /// Whether these bytes were stored.
    pub(super) fn has_body(&self, hash: &Hash) -> Result<bool, LedgerError> {
        Ok(self.store.get(self.body_key(hash).as_bytes())?.is_some())
    }

    /// Stores bytes, if they are not there yet, and says by which hash they are found.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn put_body(&self, bytes: &[u8]) -> Result<Hash, LedgerError> {
        let hash = Hash::of(bytes);
        self.put_bodies([(hash, bytes)].into_iter())?;
        Ok(hash)
    }

    /// Stores bodies in as few transactions as their number and size allow; not all or nothing.
    pub(super) fn put_bodies<B: AsRef<[u8]>>(
        &self,
        bodies: impl Iterator<Item = (Hash, B)>,
    ) -> Result<(), LedgerError> {
        let mut pending = Pending {
            ledger: self,
            txn: Txn::default(),
            bytes: 0,
        };
        for (hash, bytes) in bodies {
            if self.has_body(&hash)? {
                continue;
            }
            let bytes = bytes.as_ref();
            if bytes.len() <= PIECE_BYTES {
                let top = [&[INLINE], bytes].concat();
                pending.put(self.body_key(&hash), &top)?;
                continue;
            }
            for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                pending.put(self.piece_key(&hash, index), piece)?;
            }
            let top = [&[PIECES][..], &(bytes.len() as u64).to_be_bytes()].concat();
            pending.put(self.body_key(&hash), &top)?;
        }
        pending.commit()
    }
}

/// Writes that are gathered until a transaction is full.
struct Pending<'a> {
    ledger: &'a Ledger,
    txn: Txn,
    bytes: usize,
}

impl Pending<'_> {
    fn put(&mut self, key: String, value: &[u8]) -> Result<(), LedgerError> {
        let bytes = key.len() + value.len();
        let full =
            self.txn.writes.len() == MAX_OPERATIONS || self.bytes + bytes > MAX_TRANSACTION_BYTES;
        if full {
            self.commit()?;
        }
        self.bytes += bytes;
        self.txn = std::mem::take(&mut self.txn).put(key, value);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), LedgerError> {
        self.bytes = 0;
        let txn = std::mem::take(&mut self.txn);
        if !txn.writes.is_empty() {
            // Content under its own hash needs no check: whoever else writes it writes the same.
            let _ = self.ledger.store.commit(txn)?;
        }
        Ok(())
    }
}
