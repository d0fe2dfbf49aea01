//! A store that lives as long as the process: for tests, `sim` and a `dev` that is to leave nothing.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLock};

use crate::store::{Committed, MAX_SCAN, Pair, Store, StoreError, Txn, Write, validate_key};

/// A [`Store`] in memory. What it acknowledges is kept until it is dropped.
#[derive(Debug, Default)]
pub struct MemoryStore {
    pairs: RwLock<BTreeMap<Vec<u8>, Vec<u8>>>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another store with what this one holds now: a backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Self {
            pairs: RwLock::new(pairs.clone()),
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        validate_key(key)?;
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs.get(key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let pairs = self.pairs.read().unwrap_or_else(PoisonError::into_inner);
        Ok(pairs
            .range((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit.min(MAX_SCAN))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        txn.validate()?;
        let mut pairs = self.pairs.write().unwrap_or_else(PoisonError::into_inner);
        let conflicts = txn.conflicts(|key| Ok(pairs.get(key).cloned()))?;
        if !conflicts.is_empty() {
            return Ok(Committed::Conflict(conflicts));
        }
        for write in txn.writes {
            match write {
                Write::Put { key, value } => pairs.insert(key, value),
                Write::Delete { key } => pairs.remove(&key),
            };
        }
        Ok(Committed::Yes)
    }

    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_memory_store_does_what_every_store_does() {
        crate::conformance::check(|| Box::new(super::MemoryStore::new()));
    }
}
