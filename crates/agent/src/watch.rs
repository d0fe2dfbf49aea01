//! Wakes the agent when something happens in a folder that holds managed files or directories (inotify(7)).
//!
//! Only changes wake: opening and reading do not, so that looking never wakes itself. What inotify misses, such as
//! a folder above the watched one being swapped, the periodic resync catches.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

use crate::ready::register;

/// What makes a managed entry worth looking at.
const WANTED: WatchFlags = WatchFlags::ATTRIB
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Watches folders. Cheap to share; the descriptor closes with the last of it.
#[derive(Debug, Clone)]
pub struct Watch {
    fd: Arc<AsyncFd<OwnedFd>>,
    folders: Arc<Mutex<BTreeMap<i32, PathBuf>>>,
}

impl Watch {
    /// Starts watching nothing. Paths that something happened to come through `woken`; none of them is ever missed
    /// for lack of room, since the sender waits and inotify queues meanwhile.
    pub fn start(woken: mpsc::Sender<Vec<PathBuf>>) -> std::io::Result<Self> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watch = Self {
            fd: Arc::new(register(fd)?),
            folders: Arc::default(),
        };
        tokio::spawn(watch.clone().run(woken));
        Ok(watch)
    }

    /// Watches exactly these folders, as far as they exist; a missing one is watched through the nearest above it.
    pub fn set(&self, folders: &BTreeSet<PathBuf>) {
        let mut wanted: BTreeMap<i32, PathBuf> = BTreeMap::new();
        for folder in folders {
            let folder = plumb_driver::watch::nearest(folder);
            // Adding a folder that is watched already gives its number again, so this also mends what was lost.
            if let Ok(id) = inotify::add_watch(self.fd.get_ref(), &folder, WANTED) {
                wanted.insert(id, folder);
            }
        }
        let mut held = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        for id in held.keys().filter(|id| !wanted.contains_key(id)) {
            let _ = inotify::remove_watch(self.fd.get_ref(), *id);
        }
        *held = wanted;
    }

    async fn run(self, woken: mpsc::Sender<Vec<PathBuf>>) {
        loop {
            let Ok(mut ready) = self.fd.readable().await else {
                return;
            };
            let paths = self.read();
            ready.clear_ready();
            if !paths.is_empty() && woken.send(paths).await.is_err() {
                return;
            }
        }
    }

    /// Everything that is queued. A full queue (IN_Q_OVERFLOW) wakes every folder.
    fn read(&self) -> Vec<PathBuf> {
        let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(self.fd.get_ref(), &mut buffer);
        let mut paths = BTreeSet::new();
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                paths.extend(folders.values().cloned());
                continue;
            }
            let Some(folder) = folders.get(&event.wd()) else {
                continue;
            };
            match event.file_name() {
                Some(name) => paths.insert(folder.join(OsStr::from_bytes(name.to_bytes()))),
                None => paths.insert(folder.clone()),
            };
        }
        paths.into_iter().collect()
    }
}

/// Whether a change at `path` concerns a managed `target`: the entry itself, or a folder on the way to it.
pub fn concerns(path: &Path, target: &Path) -> bool {
    target.starts_with(path)
}
