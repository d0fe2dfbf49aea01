//! Copies of all that a control plane holds, and how a data folder is made of one again.
//!
//! Flow of a backup: the store is held still and its pairs are copied aside, into a file of the data folder that has no
//! name any more; then that is sent, and behind it the blobs, which never change. Flow of a restore: everything is written into
//! a folder beside, and only a backup that was whole to its last byte gets the name that was asked for.
//!
//! The keys of the control plane (of its CA, of secrets, of plan files) are never in a backup and never go over the API:
//! whoever may read the data folder copies them into a file of their own.

mod format;
mod keys;
mod restore;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plumb_ledger::{MAX_SCAN, Store};
use plumb_model::{Hash, Lineage, Timestamp, WorkspaceName};
use plumb_wire::{PIECE_BYTES, v1};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

pub use format::{BackupError, Frame, Header, Reader};
pub use keys::{KeyFile, copy_keys};
pub use restore::{Restored, restore};

use crate::measured::Measured;
use crate::refuse;
use format::{Entry, FORMAT, Writer, failed};

/// How many pieces may wait for whoever takes the backup.
const AHEAD: usize = 4;

/// The pieces of a backup.
pub(crate) type Pieces = ReceiverStream<Result<v1::BackupResponse, Status>>;

/// What backups are taken from.
pub(crate) struct Source {
    data: PathBuf,
    lineage: Lineage,
    workspace: WorkspaceName,
    now: fn() -> Timestamp,
    store: Arc<Measured>,
    /// One at a time: each holds a thread, and room on the disk.
    turn: Arc<Semaphore>,
    number: AtomicU64,
}

/// A backup whose store was copied aside.
pub(crate) struct Taken {
    spool: File,
    writer: Writer<io::Sink>,
    files: Vec<(Entry, PathBuf)>,
    small: Vec<(Entry, Vec<u8>)>,
    _turn: OwnedSemaphorePermit,
}

impl Source {
    /// What a control plane with this data folder, store and home workspace holds.
    pub fn new(
        data: &Path,
        lineage: Lineage,
        workspace: WorkspaceName,
        now: fn() -> Timestamp,
        store: Arc<Measured>,
    ) -> Self {
        Self {
            data: data.to_owned(),
            lineage,
            workspace,
            now,
            store,
            turn: Arc::new(Semaphore::new(1)),
            number: AtomicU64::new(0),
        }
    }

    /// Copies the store aside, and finds out what else belongs to it. Blocks; commits wait meanwhile.
    ///
    /// # Errors
    /// When the disk or the store refuse, and when another backup is being taken.
    pub fn take(&self, with_blobs: bool) -> Result<Taken, BackupError> {
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| {
            BackupError::Refused(
                "another backup is being taken; try again when it is over".to_owned(),
            )
        })?;
        let header = Header {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lineage: self.lineage.clone(),
            workspace: self.workspace.clone(),
            at: (self.now)(),
            blobs: with_blobs,
        };
        let spool = self.spool()?;
        let buffered = io::BufWriter::with_capacity(PIECE_BYTES, spool);
        let (buffered, writer) = self
            .store
            .still(|store| self.pairs(store, buffered, &header))?;
        let unwritten = |source| failed("write", &self.data)(source);
        let mut spool = buffered
            .into_inner()
            .map_err(|e| unwritten(e.into_error()))?;
        spool.rewind().map_err(unwritten)?;
        Ok(Taken {
            spool,
            writer,
            files: if with_blobs {
                self.blobs()?
            } else {
                Vec::new()
            },
            small: self.certificates()?,
            _turn: turn,
        })
    }

    /// A file in the data folder that is gone when it is closed, whatever happens.
    fn spool(&self) -> Result<File, BackupError> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.data.join(format!(".backup-{number}"));
        // What an earlier process may have left in the moment before it was unlinked.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("create", &path))?;
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        Ok(file)
    }

    fn pairs<W: Write>(
        &self,
        store: &dyn Store,
        out: W,
        header: &Header,
    ) -> Result<(W, Writer<io::Sink>), BackupError> {
        let unwritten = |source| failed("write", &self.data)(source);
        let mut writer = Writer::new(out, header).map_err(unwritten)?;
        let mut after: Option<Vec<u8>> = None;
        loop {
            // The copy must not be what fills the disk.
            let refused = |e: &dyn std::error::Error| BackupError::Refused(e.to_string());
            store.ready().map_err(|e| refused(&e))?;
            let pairs = store
                .scan(b"", after.as_deref(), MAX_SCAN)
                .map_err(|e| refused(&e))?;
            for (key, value) in &pairs {
                writer.pair(key, value).map_err(unwritten)?;
            }
            match pairs.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        Ok(writer.onto(io::sink()))
    }

    /// The blobs of all workspaces.
    fn blobs(&self) -> Result<Vec<(Entry, PathBuf)>, BackupError> {
        let mut found = Vec::new();
        list_blobs(&self.data.join("blobs"), "blobs", &mut found)?;
        for name in names(&self.data.join("workspaces"))? {
            if WorkspaceName::new(&name).is_ok() {
                let folder = self.data.join("workspaces").join(&name).join("blobs");
                list_blobs(&folder, &format!("workspaces/{name}/blobs"), &mut found)?;
            }
        }
        Ok(found)
    }

    /// What everybody may know of the CAs.
    fn certificates(&self) -> Result<Vec<(Entry, Vec<u8>)>, BackupError> {
        let folder = self.data.join("identity");
        let mut found = Vec::new();
        for name in names(&folder)? {
            if !format::is_public(&name) {
                continue;
            }
            let path = folder.join(&name);
            let bytes = fs::read(&path).map_err(failed("read", &path))?;
            let path = format!("identity/{name}");
            let size = bytes.len() as u64;
            found.push((Entry { path, size }, bytes));
        }
        Ok(found)
    }
}

/// The names in a folder, in order; none if there is no such folder.
fn names(folder: &Path) -> Result<Vec<String>, BackupError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed("read", folder)(e)),
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names: Vec<String> = names
        .collect::<io::Result<_>>()
        .map_err(failed("read", folder))?;
    names.sort();
    Ok(names)
}

fn list_blobs(
    folder: &Path,
    at: &str,
    found: &mut Vec<(Entry, PathBuf)>,
) -> Result<(), BackupError> {
    for name in names(folder)? {
        if name.parse::<Hash>().is_err() {
            continue;
        }
        let path = folder.join(&name);
        let size = fs::metadata(&path).map_err(failed("read", &path))?.len();
        let entry = Entry {
            path: format!("{at}/{name}"),
            size,
        };
        found.push((entry, path));
    }
    Ok(())
}

impl Taken {
    /// Sends it, as fast as it is taken.
    pub fn pieces(self) -> Pieces {
        let (tx, rx) = mpsc::channel(AHEAD);
        tokio::task::spawn_blocking(move || {
            let pieces = Sender {
                tx: tx.clone(),
                piece: Vec::new(),
            };
            if let Err(error) = self.send(pieces)
                && !tx.is_closed()
            {
                let _ = tx.blocking_send(Err(refuse::storage(&error).into()));
            }
        });
        ReceiverStream::new(rx)
    }

    fn send(mut self, mut out: Sender) -> Result<(), BackupError> {
        let here = Path::new("the backup");
        let unsent = |source| failed("send", here)(source);
        io::copy(&mut self.spool, &mut out).map_err(unsent)?;
        let (_, mut writer) = self.writer.onto(out);
        for (entry, bytes) in &self.small {
            writer.file(entry, bytes.as_slice()).map_err(unsent)?;
        }
        for (entry, path) in &self.files {
            let file = File::open(path).map_err(failed("open", path))?;
            writer
                .file(entry, file.take(entry.size))
                .map_err(failed("send", path))?;
        }
        writer.finish().map_err(unsent)?;
        Ok(())
    }
}

/// Makes messages of what is written.
struct Sender {
    tx: mpsc::Sender<Result<v1::BackupResponse, Status>>,
    piece: Vec<u8>,
}

impl Sender {
    fn send(&mut self) -> io::Result<()> {
        let data = std::mem::take(&mut self.piece);
        self.tx
            .blocking_send(Ok(v1::BackupResponse { data }))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = PIECE_BYTES - self.piece.len();
        let taken = bytes.len().min(room);
        self.piece.extend_from_slice(&bytes[..taken]);
        if self.piece.len() == PIECE_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.piece.is_empty() {
            true => Ok(()),
            false => self.send(),
        }
    }
}

#[cfg(test)]
mod tests;
