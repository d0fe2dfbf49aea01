//! Content that was downloaded, by its digest: DATA/blobs/HASH.
//!
//! A blob appears under its name only once all its bytes are on the disk and have the right digest; until then it is
//! HASH.partial, which a broken download goes on with. The agent writes here; the file and artifact drivers read. Nothing
//! here fetches.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_model::{Fault, Hash, condition::Reason};

use crate::trouble;

/// How much is read at a time, in bytes: large enough that the hash, not the system call, takes the time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The operating system refused.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// It is not here.
    #[error("the content {0} has not been fetched from the control plane yet")]
    Missing(Hash),
    /// More or fewer bytes came than were announced.
    #[error("the content {digest} was announced with {announced} bytes, but {found} came")]
    Size {
        /// Which.
        digest: Hash,
        /// How many there should be.
        announced: u64,
        /// How many there are.
        found: u64,
    },
    /// The bytes are others than the digest says. They have been thrown away.
    #[error("the content that came for {expected} has the digest {found}; it was thrown away")]
    Digest {
        /// What was asked for.
        expected: Hash,
        /// What came.
        found: Hash,
    },
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        match &error {
            BlobError::Io {
                doing,
                path,
                source,
            } => trouble::fault_of(source, doing, &path.display().to_string()),
            BlobError::Missing(_) => Fault::new(Reason::ContentMissing, error.to_string()),
            BlobError::Size { .. } | BlobError::Digest { .. } => {
                Fault::new(Reason::BadContent, error.to_string())
            }
        }
    }
}

/// The folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    folder: PathBuf,
}

impl Blobs {
    /// The blobs under an agent's data folder. Touches nothing yet.
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self {
            folder: data.join("blobs"),
        }
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn path(&self, digest: Hash) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    fn partial(&self, digest: Hash) -> PathBuf {
        self.folder.join(format!("{digest}.partial"))
    }

    fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
        let path = path.to_owned();
        move |source| BlobError::Io {
            doing,
            path,
            source,
        }
    }

    /// Whether a blob is here whole.
    #[must_use]
    pub fn has(&self, digest: Hash) -> bool {
        fs::symlink_metadata(self.path(digest)).is_ok_and(|m| m.is_file())
    }

    /// Opens a blob for reading. Its digest was right when it was stored; whoever acts on it checks again.
    pub fn open(&self, digest: Hash) -> Result<File, BlobError> {
        let path = self.path(digest);
        File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => BlobError::Missing(digest),
            _ => Self::failed("read", &path)(e),
        })
    }

    /// Every whole blob with its size in bytes, sorted by digest.
    pub fn list(&self) -> Result<Vec<(Hash, u64)>, BlobError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Self::failed("list", &self.folder)(e)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Self::failed("list", &self.folder))?;
            let digest = entry.file_name().to_str().and_then(|n| n.parse().ok());
            if let (Some(digest), Ok(meta)) = (digest, entry.metadata()) {
                found.push((digest, meta.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Begins or goes on with a download: ask for the bytes from [`Incoming::offset`] on.
    pub fn begin(&self, digest: Hash, size: u64) -> Result<Incoming, BlobError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(Self::failed("make", &self.folder))?;
        let path = self.partial(digest);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(Self::failed("open", &path))?;
        // A transfer that was given up may still be writing its last piece: it ends before this one looks what is there.
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
            .map_err(|e| Self::failed("lock", &path)(e.into()))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut offset = 0;
        loop {
            let n = file
                .read(&mut buffer)
                .map_err(Self::failed("read", &path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            offset += n as u64;
        }
        if offset > size {
            file.set_len(0).map_err(Self::failed("truncate", &path))?;
            hasher.reset();
            offset = 0;
        }
        Ok(Incoming {
            blobs: self.clone(),
            path,
            file,
            hasher,
            offset,
            size,
            digest,
        })
    }

    /// Stores bytes that are already at hand, durably.
    pub fn put(&self, bytes: &[u8]) -> Result<Hash, BlobError> {
        let digest = Hash::of(bytes);
        if !self.has(digest) {
            let mut incoming = self.begin(digest, bytes.len() as u64)?;
            let rest = usize::try_from(incoming.offset()).unwrap_or(bytes.len());
            incoming.write(&bytes[rest.min(bytes.len())..])?;
            incoming.finish()?;
        }
        Ok(digest)
    }

    /// Removes a blob and what was downloaded of it. It is fine if there is none.
    pub fn remove(&self, digest: Hash) -> Result<(), BlobError> {
        for path in [self.path(digest), self.partial(digest)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Self::failed("remove", &path)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes every blob and partial download but these.
    pub fn retain(&self, wanted: &BTreeSet<Hash>) -> Result<(), BlobError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Self::failed("list", &self.folder)(e)),
        };
        for entry in entries {
            let name = entry
                .map_err(Self::failed("list", &self.folder))?
                .file_name();
            let digest = name
                .to_str()
                .and_then(|n| n.strip_suffix(".partial").unwrap_or(n).parse().ok());
            if let Some(digest) = digest
                && !wanted.contains(&digest)
            {
                self.remove(digest)?;
            }
        }
        Ok(())
    }
}

/// A blob that is being downloaded. Dropped without [`Incoming::finish`], what has come stays for the next try.
#[derive(Debug)]
pub struct Incoming {
    blobs: Blobs,
    path: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    offset: u64,
    size: u64,
    digest: Hash,
}

impl Incoming {
    /// How many bytes are here already: where to go on.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next bytes. More than were announced are refused before they are written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let after = self.offset.saturating_add(bytes.len() as u64);
        if after > self.size {
            return Err(BlobError::Size {
                digest: self.digest,
                announced: self.size,
                found: after,
            });
        }
        if let Err(e) = self.file.write_all(bytes) {
            // Half of the bytes may have been written: cut back to what is hashed.
            let _ = self.file.set_len(self.offset);
            return Err(Blobs::failed("write", &self.path)(e));
        }
        self.hasher.update(bytes);
        self.offset = after;
        Ok(())
    }

    /// Checks size and digest, and makes the blob appear under its name, durably. On a wrong digest everything that came
    /// is thrown away; on a wrong size it stays, to be gone on with.
    pub fn finish(self) -> Result<(), BlobError> {
        if self.offset != self.size {
            return Err(BlobError::Size {
                digest: self.digest,
                announced: self.size,
                found: self.offset,
            });
        }
        let found = Hash(*self.hasher.finalize().as_bytes());
        if found != self.digest {
            let _ = fs::remove_file(&self.path);
            return Err(BlobError::Digest {
                expected: self.digest,
                found,
            });
        }
        let done = self.blobs.path(self.digest);
        self.file
            .sync_all()
            .map_err(Blobs::failed("sync", &self.path))?;
        fs::rename(&self.path, &done).map_err(Blobs::failed("rename", &self.path))?;
        File::open(&self.blobs.folder)
            .and_then(|f| f.sync_all())
            .map_err(Blobs::failed("sync", &self.blobs.folder))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_download_goes_on_where_it_stopped() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(data.path());
        let bytes: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
        let digest = Hash::of(&bytes);
        let mut first = blobs.begin(digest, bytes.len() as u64).unwrap();
        first.write(&bytes[..70_000]).unwrap();
        drop(first);
        assert!(!blobs.has(digest));
        let mut second = blobs.begin(digest, bytes.len() as u64).unwrap();
        assert_eq!(second.offset(), 70_000);
        second.write(&bytes[70_000..]).unwrap();
        second.finish().unwrap();
        assert_eq!(fs::read(blobs.path(digest)).unwrap(), bytes);
        assert_eq!(blobs.list().unwrap(), [(digest, bytes.len() as u64)]);
        blobs.retain(&BTreeSet::new()).unwrap();
        assert_eq!(blobs.list().unwrap(), []);
    }

    /// Mutation: rename before the digest is compared.
    #[test]
    fn wrong_bytes_never_appear_and_are_thrown_away() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(data.path());
        let digest = Hash::of(b"right");
        let mut incoming = blobs.begin(digest, 5).unwrap();
        incoming.write(b"wrong").unwrap();
        assert!(matches!(
            incoming.write(b"more"),
            Err(BlobError::Size { .. })
        ));
        assert!(matches!(incoming.finish(), Err(BlobError::Digest { .. })));
        assert!(!blobs.has(digest));
        assert_eq!(blobs.begin(digest, 5).unwrap().offset(), 0);
        assert!(matches!(blobs.open(digest), Err(BlobError::Missing(_))));
    }

    /// Mutation: leave the lock out.
    #[test]
    fn two_transfers_of_one_blob_do_not_mix_their_bytes() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(data.path());
        let digest = Hash::of(b"hello");
        let mut first = blobs.begin(digest, 5).unwrap();
        let second = std::thread::spawn({
            let blobs = blobs.clone();
            move || {
                let mut second = blobs.begin(digest, 5).unwrap();
                let offset = usize::try_from(second.offset()).unwrap();
                second.write(&b"hello"[offset..]).unwrap();
                second.finish().unwrap();
            }
        });
        first.write(b"hel").unwrap();
        drop(first);
        second.join().unwrap();
        assert_eq!(fs::read(blobs.path(digest)).unwrap(), b"hello");
    }

    #[test]
    fn bytes_at_hand_are_stored_once() {
        let data = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(data.path());
        let digest = blobs.put(b"x").unwrap();
        assert_eq!(blobs.put(b"x").unwrap(), digest);
        assert_eq!(blobs.put(b"").unwrap(), Hash::of(b""));
        assert_eq!(blobs.list().unwrap().len(), 2);
    }
}
