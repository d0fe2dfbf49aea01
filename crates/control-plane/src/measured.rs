//! A store that counts what is committed to it, and that can be held still while it is copied.
//!
//! It changes nothing of what the store beneath promises. Commits share a lock that a copy takes alone: so what
//! [`Measured::still`] sees is one state, however many reads it takes. Commits wait meanwhile; reads do not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use plumb_ledger::{Committed, Pair, Store, StoreError, Txn};
use plumb_wire::exposition::{Exposition, Histogram, Kind};

/// See the [module](self).
pub(crate) struct Measured {
    store: Box<dyn Store>,
    still: RwLock<()>,
    committed: AtomicU64,
    conflicts: AtomicU64,
    failed: AtomicU64,
    took: Histogram,
}

impl Measured {
    /// Counts what this store is asked from now on.
    pub fn new(store: impl Store + 'static) -> Self {
        Self {
            store: Box::new(store),
            still: RwLock::default(),
            committed: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            took: Histogram::default(),
        }
    }

    /// Works on a store that nobody writes to meanwhile. Blocks until the commits under way have ended, and holds up
    /// those that come.
    pub fn still<T>(&self, work: impl FnOnce(&dyn Store) -> T) -> T {
        let _alone = self.still.write().unwrap_or_else(PoisonError::into_inner);
        work(self.store.as_ref())
    }

    /// Writes down what was counted.
    pub fn write(&self, text: &mut Exposition) {
        text.family(
            "plumb_store_commits_total",
            Kind::Counter,
            "Transactions of the store, by what became of them.",
        );
        for (result, count) in [
            ("committed", &self.committed),
            ("conflict", &self.conflicts),
            ("failed", &self.failed),
        ] {
            let count = count.load(Ordering::Relaxed) as f64;
            text.sample(&[("result", result)], count);
        }
        text.family(
            "plumb_store_commit_duration_seconds",
            Kind::Histogram,
            "How long transactions took until they were durable.",
        )
        .histogram(&[], &self.took);
        text.single(
            "plumb_store_ready",
            Kind::Gauge,
            "Whether the store takes writes.",
            f64::from(u8::from(self.store.ready().is_ok())),
        );
    }
}

impl Store for Measured {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.store.scan(prefix, after, limit)
    }

    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let _shared = self.still.read().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let result = self.store.commit(txn);
        let counter = match &result {
            Ok(Committed::Yes) => {
                self.took.count(began.elapsed());
                &self.committed
            }
            Ok(Committed::Conflict(_)) => &self.conflicts,
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.store.ready()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_ledger::MemoryStore;
    use std::sync::Arc;

    /// Mutation: leave the lock out of `commit`.
    #[test]
    fn nothing_is_committed_while_the_store_is_held_still() {
        let store = Arc::new(Measured::new(MemoryStore::default()));
        let other = store.clone();
        let (began, has_begun) = std::sync::mpsc::channel();
        let writer = store.still(|held| {
            let writer = std::thread::spawn(move || {
                began.send(()).unwrap();
                other.commit(Txn::default().put("a", "1")).unwrap()
            });
            has_begun.recv().unwrap();
            for _ in 0..1000 {
                assert_eq!(held.get(b"a"), Ok(None));
                std::thread::yield_now();
            }
            writer
        });
        assert_eq!(writer.join().unwrap(), Committed::Yes);
        assert_eq!(store.get(b"a"), Ok(Some(b"1".to_vec())));
        let again = store.commit(Txn::default().absent("a")).unwrap();
        assert!(matches!(again, Committed::Conflict(_)));
        let mut text = Exposition::default();
        store.write(&mut text);
        let text = text.finish();
        for line in [
            "plumb_store_commits_total{result=\"committed\"} 1",
            "plumb_store_commits_total{result=\"conflict\"} 1",
            "plumb_store_commit_duration_seconds_count 1",
            "plumb_store_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
}
