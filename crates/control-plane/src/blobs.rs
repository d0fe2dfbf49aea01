//! Artifacts and file contents by their digest: `DATA/blobs/HASH`.
//!
//! Guarantees: a file under its digest's name holds exactly those bytes, and was synced before the name was given;
//! what was not finished has another name and is removed at the next start. It never looks into a blob. All calls
//! block; the services make them off the event loop.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use plumb_model::Hash;
use plumb_wire::MAX_BLOB_BYTES;

const UNFINISHED: &str = ".upload-";

/// Why a blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system refused.
    #[error("cannot {step} {path}; check the disk of the control plane")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It grew past [`MAX_BLOB_BYTES`].
    #[error("a blob holds at most {MAX_BLOB_BYTES} bytes; leave large files out of what is packed")]
    TooLarge,
    /// Its bytes are not what its name says.
    #[error("the bytes that came have the digest {found}, not {expected}; send them again")]
    Mismatch {
        /// What was announced.
        expected: Hash,
        /// What came.
        found: Hash,
    },
    /// There is none of that digest.
    #[error("there is no blob {0}")]
    Missing(Hash),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::File { step, path, source }
}

/// The folder of blobs.
#[derive(Debug)]
pub struct Blobs {
    folder: PathBuf,
    next: AtomicU64,
}

impl Blobs {
    /// Opens the folder, or makes it, and removes what an earlier process did not finish.
    pub fn open(folder: &Path) -> Result<Self, BlobError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create", folder))?;
        for entry in fs::read_dir(folder).map_err(failed("read", folder))? {
            let entry = entry.map_err(failed("read", folder))?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path()).map_err(failed("remove", &entry.path()))?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            next: AtomicU64::new(0),
        })
    }

    fn path(&self, digest: &Hash) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Whether a blob is there, whole.
    #[must_use]
    pub fn has(&self, digest: &Hash) -> bool {
        self.path(digest).is_file()
    }

    /// Begins to store a blob.
    pub fn upload(&self, digest: Hash) -> Result<Upload, BlobError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let beside = self.folder.join(format!("{UNFINISHED}{number}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed("create", &beside))?;
        Ok(Upload {
            digest,
            path: self.path(&digest),
            folder: self.folder.clone(),
            beside,
            file,
            hasher: blake3::Hasher::new(),
            size: 0,
            finished: false,
        })
    }

    /// Opens a blob at an offset, and says how many bytes it has in all.
    pub fn read(&self, digest: &Hash, offset: u64) -> Result<(File, u64), BlobError> {
        let path = self.path(digest);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(*digest));
            }
            Err(source) => return Err(failed("open", &path)(source)),
        };
        let total = file.metadata().map_err(failed("read", &path))?.len();
        file.seek(SeekFrom::Start(offset.min(total)))
            .map_err(failed("read", &path))?;
        Ok((file, total))
    }
}

/// A blob on its way in. Dropped before it is finished, it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    digest: Hash,
    path: PathBuf,
    folder: PathBuf,
    beside: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
    finished: bool,
}

impl Upload {
    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        if self.size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge);
        }
        self.hasher.update(bytes);
        self.file
            .write_all(bytes)
            .map_err(failed("write", &self.beside))
    }

    /// Checks the digest, syncs, and gives the blob its name. Returns its size.
    pub fn finish(mut self) -> Result<u64, BlobError> {
        let found = Hash(*self.hasher.finalize().as_bytes());
        if found != self.digest {
            return Err(BlobError::Mismatch {
                expected: self.digest,
                found,
            });
        }
        self.file.sync_all().map_err(failed("sync", &self.beside))?;
        fs::rename(&self.beside, &self.path).map_err(failed("rename", &self.beside))?;
        self.finished = true;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync", &self.folder))?;
        Ok(self.size)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            // Best effort: the next start removes what is left.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_blob_reads_back_from_any_offset() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(temp.path()).unwrap();
        let digest = Hash::of(b"hello");
        let mut upload = blobs.upload(digest).unwrap();
        assert!(!blobs.has(&digest));
        upload.write(b"hel").unwrap();
        upload.write(b"lo").unwrap();
        assert_eq!(upload.finish().unwrap(), 5);
        for (offset, expected) in [(0, "hello"), (3, "lo"), (5, ""), (99, "")] {
            let (mut reader, total) = blobs.read(&digest, offset).unwrap();
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), total), (expected, 5));
        }
        assert_eq!(names(temp.path()), [digest.to_string()]);
    }

    /// Mutation: leave the comparison of digests in `finish` out.
    #[test]
    fn other_bytes_than_announced_leave_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(temp.path()).unwrap();
        let mut upload = blobs.upload(Hash::of(b"hello")).unwrap();
        upload.write(b"hellO").unwrap();
        assert!(matches!(upload.finish(), Err(BlobError::Mismatch { .. })));
        drop(blobs.upload(Hash::of(b"x")).unwrap());
        assert!(names(temp.path()).is_empty());
        assert!(matches!(
            blobs.read(&Hash::of(b"x"), 0).err(),
            Some(BlobError::Missing(_))
        ));
    }

    #[test]
    fn what_was_cut_short_is_removed_at_the_next_start() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(".upload-0"), "half").unwrap();
        Blobs::open(temp.path()).unwrap();
        assert!(names(temp.path()).is_empty());
    }
}
