//! The control plane's data folder: one owner at a time, of a known format and lineage.
//!
//! Layout: `lock` (held with flock, the owner's process id inside), `format` (a number), `lineage` (a UUID),
//! `store/` (sled's files) and `store.mark` (how many transactions were acknowledged). The shells add folders
//! of their own beside these, after it was opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_model::Lineage;
use rustix::fs::{FlockOperation, flock};

/// The newest format of a data folder that this version reads, and the one that it writes.
pub const DATA_FORMAT: u32 = 1;

const LOCK: &str = "lock";
const FORMAT: &str = "format";
const LINEAGE: &str = "lineage";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Somebody has it open.
    #[error(
        "the data folder {folder} is in use by process {pid}; stop that process or choose another --data"
    )]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds the lock: what the lock file says, or `unknown`.
        pid: String,
    },
    /// It was written by a newer version. Nothing in it was touched.
    #[error(
        "the data folder {folder} was written by a newer plumb (format {found}, this one reads up to {DATA_FORMAT}); \
         upgrade plumb or choose another --data"
    )]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It holds other things.
    #[error(
        "the folder {folder} is not empty and is no data folder of plumb; choose another --data"
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
    },
    /// One of its files does not say what it should.
    #[error(
        "{file} is damaged: {reason}; restore the data folder from a backup or choose another --data"
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The system refused something.
    #[error("cannot {step} {path}; check the path, its permissions and the disk")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.to_owned();
    move |source| FolderError::Io { step, path, source }
}

/// A data folder that this process owns for as long as the value, or a store opened in it, lives.
#[derive(Debug, Clone)]
pub struct DataFolder {
    path: PathBuf,
    lineage: Lineage,
    lock: Arc<Lock>,
}

/// The held lock; closing the file releases it.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataFolder {
    /// Opens a folder, or makes one (mode 0700) with a new lineage where there is none.
    ///
    /// Flow: the format is looked at before anything is made or written, then the lock is taken, then the
    /// format is looked at again, then what is missing is written.
    ///
    /// # Errors
    /// See [`FolderError`]. A folder of a newer format, one that is locked and one that is not Plumb's are left
    /// exactly as they were.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        if read_format(path)?.is_none() {
            refuse_foreign(path)?;
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create the data folder", path))?;
        // A relative path would change its meaning if the process changed its directory.
        let path = path.canonicalize().map_err(failed("resolve", path))?;
        let mut lock = take_lock(&path)?;
        let format = read_format(&path)?;
        write_pid(&mut lock, &path)?;
        let lineage = match read_small(&path.join(LINEAGE))? {
            Some(text) => Lineage::new(text.trim()).map_err(|e| FolderError::Damaged {
                file: path.join(LINEAGE),
                reason: e.to_string(),
            })?,
            None if format.is_some() => {
                return Err(FolderError::Damaged {
                    file: path.join(LINEAGE),
                    reason: "it is missing".to_owned(),
                });
            }
            None => {
                let lineage = Lineage::from_random(random(&path)?);
                put(&path, LINEAGE, format!("{lineage}\n").as_bytes())?;
                lineage
            }
        };
        // The format comes last: a folder that has one is complete.
        if format.is_none() {
            put(&path, FORMAT, format!("{DATA_FORMAT}\n").as_bytes())?;
        }
        Ok(Self {
            path,
            lineage,
            lock: Arc::new(Lock { _file: lock }),
        })
    }

    /// The folder's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of the history that is kept here, made with the folder.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Where sled's files are.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Where the number of the last acknowledged transaction is.
    pub(crate) fn mark_path(&self) -> PathBuf {
        self.path.join("store.mark")
    }

    /// A share of the lock.
    pub(crate) fn lock(&self) -> Arc<Lock> {
        Arc::clone(&self.lock)
    }
}

fn read_small(path: &Path) -> Result<Option<String>, FolderError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn read_format(folder: &Path) -> Result<Option<u32>, FolderError> {
    let file = folder.join(FORMAT);
    let Some(text) = read_small(&file)? else {
        return Ok(None);
    };
    match text.trim().parse() {
        Ok(found) if found > DATA_FORMAT => Err(FolderError::Newer {
            folder: folder.to_owned(),
            found,
        }),
        Ok(0) | Err(_) => Err(FolderError::Damaged {
            file,
            reason: format!("{:?} is no format number", text.trim()),
        }),
        Ok(found) => Ok(Some(found)),
    }
}

/// Without a format, the folder may hold only what an interrupted first opening leaves.
fn refuse_foreign(folder: &Path) -> Result<(), FolderError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed("read the folder", folder)(source)),
    };
    for entry in entries {
        let name = entry
            .map_err(failed("read the folder", folder))?
            .file_name();
        let ours = [LOCK, LINEAGE, ".lineage.new", ".format.new"];
        if !ours.iter().any(|known| name == *known) {
            return Err(FolderError::Foreign {
                folder: folder.to_owned(),
            });
        }
    }
    Ok(())
}

fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            let pid = match (read, text.trim()) {
                (Ok(_), pid) if !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) => pid,
                _ => "unknown",
            };
            Err(FolderError::Locked {
                folder: folder.to_owned(),
                pid: pid.to_owned(),
            })
        }
        Err(e) => Err(failed("lock", &path)(e.into())),
    }
}

fn write_pid(lock: &mut File, folder: &Path) -> Result<(), FolderError> {
    let pid = format!("{}\n", std::process::id());
    lock.set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| lock.write_all(pid.as_bytes()))
        .map_err(failed("write", &folder.join(LOCK)))
}

fn random(folder: &Path) -> Result<[u8; 16], FolderError> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(failed("draw a random lineage for", folder))?;
    Ok(bytes)
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), FolderError> {
    let path = folder.join(name);
    write_durably(&path, bytes).map_err(failed("write", &path))
}

/// Writes a file of mode 0600 beside, syncs it, renames it and syncs its folder: after a crash it is there whole, or as it
/// was before.
///
/// # Errors
/// When the operating system refuses, and with `InvalidInput` for a path without a folder and a name.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let beside = folder.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn everything_in(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        let files = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        files
            .map(|path| {
                let modified = path.metadata().unwrap().modified().unwrap();
                (
                    path.clone(),
                    (fs::read(&path).unwrap_or_default(), modified),
                )
            })
            .collect()
    }

    #[test]
    fn the_lineage_stays_and_the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let first = DataFolder::open(&path).unwrap().lineage().clone();
        assert_eq!(DataFolder::open(&path).unwrap().lineage(), &first);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let other = DataFolder::open(&temp.path().join("c")).unwrap();
        assert_ne!(other.lineage(), &first);
    }

    #[test]
    fn a_second_opener_is_told_who_holds_the_folder_and_changes_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let held = DataFolder::open(temp.path()).unwrap();
        let before = everything_in(temp.path());
        let error = DataFolder::open(temp.path()).unwrap_err();
        let expected = format!(
            "the data folder {} is in use by process {}; stop that process or choose another --data",
            temp.path().display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(everything_in(temp.path()), before);
        drop(held);
        DataFolder::open(temp.path()).unwrap();
    }

    /// Threat 37 (restored from a newer version) and the rule that a newer format is refused before anything is
    /// written. Mutation: take the lock and write the process id before the format is read.
    #[test]
    fn a_newer_format_is_refused_before_anything_is_written() {
        let temp = tempfile::tempdir().unwrap();
        drop(DataFolder::open(temp.path()).unwrap());
        fs::write(temp.path().join(FORMAT), "2\n").unwrap();
        fs::write(temp.path().join(LOCK), "").unwrap();
        let before = everything_in(temp.path());
        let error = DataFolder::open(temp.path()).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "was written by a newer plumb (format 2, this one reads up to 1); upgrade plumb or choose another --data"
            ),
            "{error}"
        );
        assert_eq!(everything_in(temp.path()), before);
    }

    #[test]
    fn a_folder_that_holds_other_things_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "x").unwrap();
        let before = everything_in(temp.path());
        assert!(matches!(
            DataFolder::open(temp.path()),
            Err(FolderError::Foreign { .. })
        ));
        assert_eq!(everything_in(temp.path()), before);
    }

    #[test]
    fn damaged_files_are_named() {
        for (name, content) in [(FORMAT, "one"), (FORMAT, "0"), (LINEAGE, "nonsense")] {
            let temp = tempfile::tempdir().unwrap();
            drop(DataFolder::open(temp.path()).unwrap());
            fs::write(temp.path().join(name), content).unwrap();
            let error = DataFolder::open(temp.path()).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_first_opening_that_was_cut_short_is_finished() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(LOCK), "").unwrap();
        fs::write(temp.path().join(".lineage.new"), "6f2a").unwrap();
        DataFolder::open(temp.path()).unwrap();
    }
}
