//! Artifacts and file contents by their digest: `DATA/blobs/HASH`.
//!
//! Guarantees: a file under its digest's name holds exactly those bytes, and was synced before the name was given;
//! what was not finished has another name. What was cut is kept for a day, and gone on with; whoever uploads the same blob
//! meanwhile does so in a file of his own, which goes with his connection. It never looks into a blob. All calls
//! block; the services make them off the event loop.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plumb_model::Hash;
use plumb_wire::MAX_BLOB_BYTES;

const UNFINISHED: &str = ".upload-";

/// Uploads that were cut: this and the digest.
const CUT: &str = ".cut-";

/// So many uploads that were cut are kept at most, and for so long.
const MAX_CUT: usize = 16;
/// What is too much is looked for with every so many uploads: the folder may hold many blobs.
const SWEEP_EVERY: u64 = 16;
const CUT_AGE: Duration = Duration::from_secs(24 * 3600);

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
    /// So many bytes of it are not here, or somebody else goes on with them.
    #[error(
        "{offset} bytes of the blob {digest} are not here any more; send it from the beginning"
    )]
    NotHere {
        /// Which blob.
        digest: Hash,
        /// Where it was to be gone on with.
        offset: u64,
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
    /// Those that are being written to a file that can be gone on with.
    busy: Arc<Mutex<BTreeSet<Hash>>>,
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
            busy: Arc::default(),
        })
    }

    fn cut_path(&self, digest: &Hash) -> PathBuf {
        self.folder.join(format!("{CUT}{digest}"))
    }

    /// How many bytes of a blob came in an upload that was cut; none while somebody goes on with it.
    #[must_use]
    pub fn came(&self, digest: &Hash) -> u64 {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if busy.contains(digest) {
            return 0;
        }
        fs::metadata(self.cut_path(digest)).map_or(0, |meta| meta.len())
    }

    /// Removes uploads that were cut long ago, and the oldest if there are too many.
    fn sweep(&self) -> io::Result<()> {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cut = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let digest = name
                .to_str()
                .and_then(|n| n.strip_prefix(CUT)?.parse().ok());
            if digest.is_some_and(|digest: Hash| !busy.contains(&digest)) {
                cut.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        cut.sort();
        let many = cut.len().saturating_sub(MAX_CUT);
        for (at, (modified, path)) in cut.iter().enumerate() {
            let old = modified.elapsed().is_ok_and(|age| age > CUT_AGE);
            if at < many || old {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: &Hash) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    /// Whether a blob is there, whole.
    #[must_use]
    pub fn has(&self, digest: &Hash) -> bool {
        self.path(digest).is_file()
    }

    /// Begins to store a blob, or goes on with an upload that was cut: `offset` bytes of it are here already.
    ///
    /// # Errors
    /// [`BlobError::NotHere`] if they are not, and if the disk refuses.
    pub fn upload(&self, digest: Hash, offset: u64) -> Result<Upload, BlobError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number.is_multiple_of(SWEEP_EVERY) {
            self.sweep().map_err(failed("tidy", &self.folder))?;
        }
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let place = busy.insert(digest).then(|| Place {
            digest,
            busy: self.busy.clone(),
        });
        drop(busy);
        let beside = match &place {
            Some(_) => self.cut_path(&digest),
            None if offset > 0 => return Err(BlobError::NotHere { digest, offset }),
            None => self.folder.join(format!("{UNFINISHED}{number}")),
        };
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed("create", &beside))?;
        let mut hasher = blake3::Hasher::new();
        let here = io::copy(&mut (&mut file).take(offset), &mut hasher)
            .map_err(failed("read", &beside))?;
        if here < offset {
            return Err(BlobError::NotHere { digest, offset });
        }
        file.set_len(offset).map_err(failed("cut", &beside))?;
        Ok(Upload {
            digest,
            path: self.path(&digest),
            folder: self.folder.clone(),
            beside,
            file,
            hasher,
            size: offset,
            keep: place.is_some(),
            finished: false,
            _place: place,
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

/// The right to write to the file of an upload that can be gone on with.
#[derive(Debug)]
struct Place {
    digest: Hash,
    busy: Arc<Mutex<BTreeSet<Hash>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&self.digest);
    }
}

/// A blob on its way in. Dropped before it is finished, what came stays, to be gone on with, unless there is something
/// wrong with it.
#[derive(Debug)]
pub struct Upload {
    digest: Hash,
    path: PathBuf,
    folder: PathBuf,
    beside: PathBuf,
    file: File,
    hasher: blake3::Hasher,
    size: u64,
    /// It can be gone on with.
    keep: bool,
    finished: bool,
    _place: Option<Place>,
}

impl Upload {
    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size += bytes.len() as u64;
        let written = match self.size > MAX_BLOB_BYTES {
            true => Err(BlobError::TooLarge),
            false => self
                .file
                .write_all(bytes)
                .map_err(failed("write", &self.beside)),
        };
        // Above all a full disk gets its room back.
        self.keep &= written.is_ok();
        self.hasher.update(bytes);
        written
    }

    /// Checks the digest, syncs, and gives the blob its name. Returns its size.
    pub fn finish(mut self) -> Result<u64, BlobError> {
        let found = Hash(*self.hasher.finalize().as_bytes());
        if found != self.digest {
            self.keep = false;
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
        if !(self.finished || self.keep && self.size > 0) {
            // Best effort: what is left is removed in time.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut upload = blobs.upload(digest, 0).unwrap();
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
        let mut upload = blobs.upload(Hash::of(b"hello"), 0).unwrap();
        upload.write(b"hellO").unwrap();
        assert!(matches!(upload.finish(), Err(BlobError::Mismatch { .. })));
        drop(blobs.upload(Hash::of(b"x"), 0).unwrap());
        assert!(names(temp.path()).is_empty());
        assert!(matches!(
            blobs.read(&Hash::of(b"x"), 0).err(),
            Some(BlobError::Missing(_))
        ));
    }

    /// Mutation: hash only what comes after the offset, or keep what did not match.
    #[test]
    fn an_upload_that_was_cut_is_gone_on_with_also_after_a_restart() {
        let temp = tempfile::tempdir().unwrap();
        let digest = Hash::of(b"hello world");
        let blobs = Blobs::open(temp.path()).unwrap();
        let mut upload = blobs.upload(digest, 0).unwrap();
        upload.write(b"hello ").unwrap();
        assert_eq!(blobs.came(&digest), 0, "somebody is at it");
        let mut other = blobs.upload(digest, 0).unwrap();
        other.write(b"hel").unwrap();
        assert!(matches!(
            blobs.upload(digest, 3).err(),
            Some(BlobError::NotHere { .. })
        ));
        drop(other);
        drop(upload);
        drop(blobs);
        let blobs = Blobs::open(temp.path()).unwrap();
        assert_eq!(blobs.came(&digest), 6);
        assert!(matches!(
            blobs.upload(digest, 7).err(),
            Some(BlobError::NotHere { .. })
        ));
        let mut upload = blobs.upload(digest, 6).unwrap();
        upload.write(b"World").unwrap();
        assert!(matches!(upload.finish(), Err(BlobError::Mismatch { .. })));
        assert_eq!(blobs.came(&digest), 0, "nothing wrong is gone on with");
        let mut upload = blobs.upload(digest, 0).unwrap();
        upload.write(b"hello wor").unwrap();
        drop(upload);
        let mut upload = blobs.upload(digest, 6).unwrap();
        upload.write(b"world").unwrap();
        assert_eq!(upload.finish().unwrap(), 11);
        assert_eq!(names(temp.path()), [digest.to_string()]);
    }

    #[test]
    fn no_more_than_some_uploads_that_were_cut_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(temp.path()).unwrap();
        for n in 0..40u8 {
            let mut upload = blobs.upload(Hash::of(&[n]), 0).unwrap();
            upload.write(b"some").unwrap();
        }
        assert!(names(temp.path()).len() <= MAX_CUT + 16);
    }

    #[test]
    fn what_was_cut_short_is_removed_at_the_next_start() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(".upload-0"), "half").unwrap();
        Blobs::open(temp.path()).unwrap();
        assert!(names(temp.path()).is_empty());
    }
}
