//! The store that control planes share, and the handle on it that each of their processes has.
//!
//! The store is the ledger's own one in memory. A handle breaks when it is told to, at any one of its writes, before or
//! after it was kept, as a process that is killed there would leave it; from then on it does nothing. The store can be
//! copied and put back, as with a backup.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumb_ledger::{Committed, MemoryStore, Pair, Store, StoreError, Txn};

/// What all control planes stand on.
#[derive(Debug, Default)]
pub struct Shared {
    store: Mutex<Arc<MemoryStore>>,
    written: Mutex<u64>,
    /// A planted bug: what was acknowledged last is not kept when its writer dies.
    forgets: Option<Mutex<Option<MemoryStore>>>,
}

/// On which side of a write its process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Nothing of it was kept.
    Before,
    /// It was kept, and nobody was told.
    After,
}

#[derive(Debug, Clone, Copy)]
enum Fuse {
    Whole,
    /// After so many writes more.
    Lit(u64, Side),
    Blown,
}

/// One process's way to the store.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    store: Arc<MemoryStore>,
    fuse: Mutex<Fuse>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// An empty store. `forgets` plants the bug that a store acknowledges before it keeps.
    #[must_use]
    pub fn new(forgets: bool) -> Self {
        Self {
            forgets: forgets.then(Mutex::default),
            ..Self::default()
        }
    }

    fn store(&self) -> Arc<MemoryStore> {
        lock(&self.store).clone()
    }

    /// A way to it for a new process.
    #[must_use]
    pub fn handle(self: &Arc<Self>) -> Arc<Handle> {
        Arc::new(Handle {
            shared: self.clone(),
            store: self.store(),
            fuse: Mutex::new(Fuse::Whole),
        })
    }

    /// A copy of what it holds now.
    #[must_use]
    pub fn backup(&self) -> MemoryStore {
        self.store().copy()
    }

    /// Puts a copy back. Processes that have the one before must be dead.
    pub fn restore(&self, backup: &MemoryStore) {
        *lock(&self.store) = Arc::new(backup.copy());
    }

    /// How many writes were kept.
    #[must_use]
    pub fn written(&self) -> u64 {
        *lock(&self.written)
    }

    /// A process that wrote has died. Does nothing unless the store forgets.
    pub fn writer_died(&self) {
        if let Some(before) = self.forgets.as_ref().and_then(|kept| lock(kept).take()) {
            self.restore(&before);
        }
    }

    /// Whether anything in it holds this text.
    #[must_use]
    pub fn holds(&self, text: &str) -> bool {
        let store = self.store();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.scan(b"", after.as_deref(), usize::MAX);
            let page = page.unwrap_or_default();
            let Some((last, _)) = page.last() else {
                return false;
            };
            after = Some(last.clone());
            let text = text.as_bytes();
            let has = |bytes: &[u8]| bytes.windows(text.len()).any(|part| part == text);
            if page.iter().any(|(key, value)| has(key) || has(value)) {
                return true;
            }
        }
    }
}

impl Handle {
    /// Breaks at the write after so many more.
    pub fn light(&self, writes: u64, side: Side) {
        let mut fuse = lock(&self.fuse);
        if matches!(*fuse, Fuse::Whole) {
            *fuse = Fuse::Lit(writes, side);
        }
    }

    /// Does not break any more, unless it has.
    pub fn spare(&self) {
        let mut fuse = lock(&self.fuse);
        if matches!(*fuse, Fuse::Lit(..)) {
            *fuse = Fuse::Whole;
        }
    }

    /// Whether it has broken: its process is dead.
    #[must_use]
    pub fn is_blown(&self) -> bool {
        matches!(*lock(&self.fuse), Fuse::Blown)
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.is_blown() {
            true => Err(StoreError::NotReady("the process was killed".to_owned())),
            false => Ok(()),
        }
    }

    fn keep(&self, txn: Txn) -> Result<Committed, StoreError> {
        if let Some(kept) = &self.shared.forgets
            && !txn.checks.is_empty()
        {
            *lock(kept) = Some(self.store.copy());
        }
        let committed = self.store.commit(txn)?;
        *lock(&self.shared.written) += u64::from(committed == Committed::Yes);
        Ok(committed)
    }
}

impl Store for Handle {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.check()?;
        self.store.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        self.check()?;
        self.store.scan(prefix, after, limit)
    }

    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        self.check()?;
        let breaks = {
            let mut fuse = lock(&self.fuse);
            match &mut *fuse {
                Fuse::Lit(0, side) => {
                    let side = *side;
                    *fuse = Fuse::Blown;
                    Some(side)
                }
                Fuse::Lit(left, _) => {
                    *left -= 1;
                    None
                }
                Fuse::Whole | Fuse::Blown => None,
            }
        };
        if breaks == Some(Side::Before) {
            return Err(StoreError::Uncertain("killed before it".to_owned()));
        }
        let committed = self.keep(txn)?;
        if breaks == Some(Side::After) {
            return Err(StoreError::Uncertain("killed after it".to_owned()));
        }
        Ok(committed)
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.check()
    }
}
