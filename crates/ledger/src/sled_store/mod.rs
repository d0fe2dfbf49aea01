//! The embedded store: sled, with what it lacks for "acknowledged means durable".
//!
//! - sled's `flush` does not sync its file, so the writer does that itself through a handle of its own before it
//!   acknowledges.
//! - What sled has in memory is ahead of the disk. Reads therefore see the values from before until the writer
//!   has synced: see [`Shared::unacknowledged`].
//! - sled writes a tree node past a quarter of a segment to a file that it never syncs, and a node holds up to
//!   some twenty pairs whatever their size. Values are cut into pieces ([`record`]) and segments are chosen so that
//!   no node comes near.
//! - sled takes a damaged log for one that was cut short, and forgets the rest. A mark beside it ([`mark`]) says
//!   how far it must reach.
//! - sled may panic on what it finds. Every call into it is caught and becomes an error.
//! - sled splits and merges nodes when it next comes by, be it to read: a read is a write then, and fails once a write has
//!   failed. The writer has that done before it acknowledges, and hands sled nothing when the disk is full ([`room`]).
//!
//! A power cut while sled moves live pages out of an old segment is covered by its own periodic sync only.

mod mark;
mod record;
mod room;
#[cfg(test)]
mod tests;
mod writer;

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::folder::{DataFolder, Lock};
use crate::store::{Committed, MAX_SCAN, Pair, Store, StoreError, Txn, show, validate_key};
use mark::Mark;
use writer::Job;

/// A node goes to an unsynced file past a quarter of this. The largest are inner nodes of 256 keys of 1 KiB, and
/// leaves of twenty pieces; both stay below 512 KiB. Not larger, since sled zeroes the rest of the current
/// segment at every opening.
const SEGMENT_BYTES: usize = 2 * 1024 * 1024;

/// sled's default is 1 GiB. What a control plane works with it holds itself, in a better form; what is read again and again is a
/// few MiB.
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

/// sled's own periodic flush and sync: only a backstop, since every acknowledged write is synced already.
const BACKSTOP_MS: u64 = 1000;

/// Transactions that wait for the writer. Past this, `commit` waits for a place.
const QUEUE: usize = 256;

/// How long an earlier store of this process may take to let go of sled's file after it was dropped.
const RELEASE: Duration = Duration::from_secs(5);

/// A [`Store`] in the `store` folder of a [`DataFolder`]. One thread writes, and concurrent commits share one sync.
/// Dropping it waits for the commits that have begun.
pub struct SledStore {
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// Held until sled has been closed.
    _lock: Arc<Lock>,
}

/// What readers and the writer share.
struct Shared {
    db: sled::Db,
    /// What the keys that sled has already changed, but the disk has not yet taken, had before. Readers hold the
    /// lock while they look into sled, and the writer notes a key here before it changes it, so that no reader
    /// ever sees a write before it is durable, nor half a transaction. After a failed write it stays as it is.
    unacknowledged: RwLock<BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Why no writes are taken any more.
    failure: OnceLock<String>,
    /// Says how many bytes may still be written to the disk.
    free: Free,
}

/// How the bytes that are free on the disk are found.
type Free = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

impl SledStore {
    /// Opens the store of a folder, or makes it.
    ///
    /// # Errors
    /// [`StoreError::Open`] if sled or the disk refuse, [`StoreError::Lost`] if acknowledged transactions are
    /// missing.
    pub fn open(folder: &DataFolder) -> Result<Self, StoreError> {
        let path = folder.path().to_owned();
        let free = Box::new(move || room::free(&path));
        Self::open_with(folder, |db_file| db_file.sync_data(), free)
    }

    /// Opens with the calls that make sled's file durable and that look at the disk handed in, so that a test can have
    /// them fail.
    fn open_with(
        folder: &DataFolder,
        sync: impl Fn(&File) -> io::Result<()> + Send + 'static,
        free: Free,
    ) -> Result<Self, StoreError> {
        let path = folder.store_path();
        let refused = |reason: String| StoreError::Open {
            path: path.clone(),
            reason,
        };
        remove_unfinished_snapshots(&path).map_err(|e| refused(e.to_string()))?;
        let db = open_sled(&path).map_err(refused)?;
        let db_file =
            sync_files(&path, folder.path()).map_err(|e| refused(format!("syncing it: {e}")))?;
        let held = caught(|| db.get(record::COUNTER_KEY))
            .map_err(refused)?
            .map_or(Ok(0), |bytes| record::decode_counter(&bytes))
            .map_err(refused)?;
        let mark_path = folder.mark_path();
        let (mark, acknowledged) =
            Mark::open(&mark_path).map_err(|e| refused(format!("{}: {e}", mark_path.display())))?;
        if acknowledged.is_some_and(|acknowledged| acknowledged > held) {
            return Err(StoreError::Lost {
                path,
                held,
                acknowledged: acknowledged.unwrap_or_default(),
                mark: mark_path,
            });
        }
        let shared = Arc::new(Shared {
            db,
            unacknowledged: RwLock::default(),
            failure: OnceLock::new(),
            free,
        });
        let (jobs, queue) = sync_channel(QUEUE);
        let writer = writer::Writer {
            shared: Arc::clone(&shared),
            committed: held,
            make_durable: Box::new(move || sync(&db_file)),
            mark,
        };
        let writer = std::thread::Builder::new()
            .name("ledger-writer".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|e| refused(format!("starting its writer: {e}")))?;
        Ok(Self {
            jobs: Some(jobs),
            writer: Some(writer),
            shared,
            _lock: folder.lock(),
        })
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has nothing left to finish.
            let _ = writer.join();
        }
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        validate_key(key)?;
        let unacknowledged = self.shared.before();
        match unacknowledged.get(key) {
            Some(before) => Ok(before.clone()),
            None => self.shared.newest(key),
        }
    }

    fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Pair>, StoreError> {
        let limit = limit.min(MAX_SCAN);
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after.to_vec()),
            _ => Bound::Included(prefix.to_vec()),
        };
        let unacknowledged = self.shared.before();
        let mut found: BTreeMap<Vec<u8>, Vec<u8>> = unacknowledged
            .range((start.clone(), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(key, before)| Some((key.clone(), before.clone()?)))
            .collect();
        let start = match start {
            Bound::Excluded(key) => Bound::Excluded(record::head_key(&key)),
            Bound::Included(key) => Bound::Included(record::head_key(&key)),
            Bound::Unbounded => Bound::Unbounded,
        };
        let mut heads = self.shared.db.range((start, Bound::Unbounded));
        let mut taken = 0;
        while taken < limit {
            let next = caught(|| heads.next().transpose()).map_err(|reason| StoreError::Read {
                key: show(prefix),
                reason,
            })?;
            let Some(key) = next.and_then(|(head, _)| record::key_of(&head).map(<[u8]>::to_vec))
            else {
                break;
            };
            if !key.starts_with(prefix) {
                break;
            }
            if unacknowledged.contains_key(&key) {
                continue;
            }
            if let Some(value) = self.shared.newest(&key)? {
                found.insert(key, value);
                taken += 1;
            }
        }
        Ok(found.into_iter().take(limit).collect())
    }

    fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        txn.validate()?;
        self.shared.works()?;
        let (answer, answered) = sync_channel(1);
        let gone = || StoreError::Uncertain("its writer has ended".to_owned());
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(Job { txn, answer }).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())?
    }

    fn ready(&self) -> Result<(), StoreError> {
        self.shared.works()?;
        self.shared.has_room(&[])
    }
}

impl Shared {
    /// Whether no write has failed.
    fn works(&self) -> Result<(), StoreError> {
        match self.failure.get() {
            Some(reason) => Err(StoreError::NotReady(reason.clone())),
            None => Ok(()),
        }
    }

    /// Whether the disk has room for transactions.
    fn has_room(&self, group: &[Job]) -> Result<(), StoreError> {
        room::check((self.free)(), group.iter().map(|job| &job.txn))
    }

    fn before(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
        self.unacknowledged
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What sled has for a key now, durable or not.
    fn newest(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |at: Vec<u8>| {
            caught(|| self.db.get(at)).map_err(|reason| StoreError::Read {
                key: show(key),
                reason,
            })
        };
        match read(record::head_key(key))? {
            Some(head) => {
                record::decode(key, &head, |index| read(record::piece_key(key, index))).map(Some)
            }
            None => Ok(None),
        }
    }
}

/// Calls into sled: its errors and its panics alike become a text.
fn caught<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|e| sled_text(&e)),
        Err(panic) => Err(format!("sled gave up: {}", panic_text(&*panic))),
    }
}

/// How sled says that its lock is held, by a process or by one of its own threads that has not ended yet.
const LOCKED: &str = "could not acquire lock";

/// What sled's error says to people. sled hands on an error of the system as its debug text, in which the system's
/// number is all that matters.
fn sled_text(error: &sled::Error) -> String {
    let sled::Error::Io(io) = error else {
        return error.to_string();
    };
    let text = io.to_string();
    // What says more is told, and matched, as it is: `open_sled` waits for a lock by these words.
    if text.contains(LOCKED) {
        return text;
    }
    let number = text
        .split_once("Os { code: ")
        .and_then(|(_, rest)| rest.split_once(','))
        .and_then(|(number, _)| number.parse().ok());
    match number {
        Some(number) => io::Error::from_raw_os_error(number).to_string(),
        None => text,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

/// sled refuses to open beside a snapshot that it did not finish. Only called under the folder's lock.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// sled closes its file on threads of its own, some time after a store was dropped. Whoever else could hold
/// it does not have the folder's lock, so waiting is safe.
fn open_sled(path: &Path) -> Result<sled::Db, String> {
    let deadline = Instant::now() + RELEASE;
    let config = sled::Config::new()
        .path(path)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(Some(BACKSTOP_MS));
    loop {
        match caught(|| config.open()) {
            Err(reason) if reason.contains(LOCKED) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// sled syncs neither its settings nor the names of the files that it makes. Hands out the handle on its
/// `db` file that commits are synced through.
fn sync_files(store: &Path, parent: &Path) -> io::Result<File> {
    File::open(store.join("conf"))?.sync_all()?;
    let db_file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(store.join("db"))?;
    db_file.sync_all()?;
    File::open(store)?.sync_all()?;
    File::open(parent)?.sync_all()?;
    Ok(db_file)
}
