//! The agent's own ledger: plain files in its data folder.
//!
//! Guarantees: a file is written beside, synced, renamed and its folder synced, and the one before is kept; the
//! folder is locked for as long as the agent lives; a newer format is refused before anything is written.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plumb_converge::hands::Progress;
use plumb_dispatch::agent::Held;
use plumb_dispatch::hands::WrittenOrders;
use plumb_model::{Address, Assignment, Generation, Hash, OwnerName, ReleaseNumber};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::hands::{self, Page};

/// The newest format of the folder that this version reads and the one it writes.
const FORMAT: u32 = 1;

/// The agent's data folder, locked.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct HeldHead {
    format: u32,
    generation: Generation,
    hash: Hash,
    releases: BTreeMap<OwnerName, ReleaseNumber>,
}

impl Folder {
    /// Opens and locks the folder, and makes it if it is missing.
    pub fn open(path: &Path) -> Result<Self, AgentError> {
        let at = |doing, source| AgentError::Folder {
            doing,
            path: path.to_owned(),
            source,
        };
        // Its mode is about to be changed: that must not happen to a folder that was named by mistake.
        let holds_things = fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some());
        if holds_things && !path.join("format").is_file() && !path.join("lock").is_file() {
            return Err(AgentError::Foreign(path.to_owned()));
        }
        // Apps run in folders beneath this one, as other users: they may pass through, and see nothing.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(path)
            .map_err(|e| at("make", e))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))
            .map_err(|e| at("set the mode of", e))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|e| at("open the lock of", e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() {
                "?".to_owned()
            } else {
                pid.trim().to_owned()
            };
            return Err(AgentError::Locked {
                folder: path.to_owned(),
                pid,
            });
        }
        let format_path = path.join("format");
        match fs::read_to_string(&format_path) {
            Ok(text) => {
                let format = text.trim().parse().map_err(|_| AgentError::Damaged {
                    path: format_path.clone(),
                    why: "it holds no number".to_owned(),
                })?;
                if format > FORMAT {
                    return Err(AgentError::Newer {
                        folder: path.to_owned(),
                        format,
                        known: FORMAT,
                    });
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                replace(&format_path, format!("{FORMAT}\n").as_bytes(), 0o600)
                    .map_err(|e| at("write to", e))?;
            }
            Err(e) => return Err(at("read the format of", e)),
        }
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(format!("{}\n", std::process::id()).as_bytes()))
            .map_err(|e| at("write to", e))?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The assignment on the disk; the one before it if the newest is damaged.
    pub fn load_held(&self) -> Result<Option<Held>, AgentError> {
        let newest = self.held_path();
        let (held, before) = (
            read_held(&newest),
            read_held(&newest.with_extension("previous")),
        );
        match (held, before) {
            (Ok(Some(held)), _) => Ok(Some(held)),
            (Ok(None), Ok(before)) => Ok(before),
            (Err(why), Ok(Some(before))) => {
                tracing::warn!(path = %newest.display(), why, "the newest assignment is damaged; the one before it is used");
                Ok(Some(before))
            }
            (Err(why), _) | (Ok(None), Err(why)) => Err(AgentError::Damaged { path: newest, why }),
        }
    }

    fn held_path(&self) -> PathBuf {
        self.path.join("assignment").join("held")
    }

    /// Returns a writer of assignments that can go to another thread.
    pub fn keeper(&self) -> Keeper {
        Keeper::of(&self.path)
    }

    /// What had converged when the agent last wrote it down. Advice: without it, drift is taken for a pending change.
    pub fn load_applied(&self) -> BTreeMap<Address, Hash> {
        fs::read(self.path.join("applied.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }
}

/// Writes into the folder from threads that may block.
#[derive(Debug, Clone)]
pub struct Keeper {
    path: PathBuf,
}

impl Keeper {
    /// A writer into a folder that nobody else writes into.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Writes an assignment, durably.
    pub fn save_held(&self, held: &Held) -> io::Result<()> {
        let folder = self.path.join("assignment");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)?;
        let head = HeldHead {
            format: FORMAT,
            generation: held.generation,
            hash: held.hash,
            releases: held.releases.clone(),
        };
        let mut bytes = serde_json::to_vec(&head)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(&held.assignment.bytes());
        let path = folder.join("held");
        if path.exists() {
            let previous = path.with_extension("previous");
            let _ = fs::remove_file(&previous);
            fs::hard_link(&path, &previous)?;
        }
        replace(&path, &bytes, 0o600)
    }

    /// Writes orders by hand of which none has been carried out yet, durably.
    pub fn save_orders(&self, orders: &Arc<WrittenOrders>) -> io::Result<()> {
        let page = Page {
            orders: orders.clone(),
            progress: Progress::default(),
            version: None,
        };
        hands::write(&hands::path(&self.path), &page)
    }

    /// Writes down what has converged. Not synced: losing it costs nothing but a less exact message.
    pub fn save_applied(&self, applied: &BTreeMap<Address, Hash>) -> io::Result<()> {
        let path = self.path.join("applied.json");
        let beside = path.with_extension("new");
        fs::write(&beside, serde_json::to_vec(applied)?)?;
        fs::rename(&beside, &path)
    }
}

fn read_held(path: &Path) -> Result<Option<Held>, String> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.to_string()),
    };
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or("it has no first line")?;
    let head: HeldHead = serde_json::from_slice(&bytes[..end]).map_err(|e| e.to_string())?;
    let body = &bytes[end + 1..];
    if head.format > FORMAT {
        return Err(format!(
            "it was written by a newer plumb (format {})",
            head.format
        ));
    }
    if Hash::of(body) != head.hash {
        return Err("its content is not what its hash says".to_owned());
    }
    let assignment = Assignment::parse(body).map_err(|e| e.to_string())?;
    Ok(Some(Held::new(
        head.generation,
        head.releases,
        Arc::new(assignment),
    )))
}

/// Writes beside, syncs, renames and syncs the folder.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_model::assignment::{self, Header};
    use plumb_model::{Lineage, MachineName, WorkspaceName};

    fn held(generation: u64) -> Held {
        let header = Header {
            format: assignment::FORMAT,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new("m").unwrap(),
        };
        Held::new(
            Generation(generation),
            BTreeMap::new(),
            Arc::new(Assignment::build(header, [])),
        )
    }

    #[test]
    fn an_assignment_reads_back_and_a_damaged_one_falls_back_to_the_one_before() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path()).unwrap();
        assert_eq!(folder.load_held().unwrap(), None);
        folder.keeper().save_held(&held(1)).unwrap();
        folder.keeper().save_held(&held(2)).unwrap();
        assert_eq!(folder.load_held().unwrap(), Some(held(2)));
        let path = data.path().join("assignment/held");
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(folder.load_held().unwrap(), Some(held(1)));
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("theirs"), "x").unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = Folder::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds other things"), "{error}");
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o755);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_in_use_or_of_a_newer_version_is_refused_in_one_line() {
        let data = tempfile::tempdir().unwrap();
        let folder = Folder::open(data.path()).unwrap();
        let error = Folder::open(data.path()).unwrap_err().to_string();
        assert!(
            error.contains(&format!("in use by process {}", std::process::id())),
            "{error}"
        );
        drop(folder);
        fs::write(data.path().join("format"), "2\n").unwrap();
        let error = Folder::open(data.path()).unwrap_err().to_string();
        assert!(
            error.contains("written by a newer plumb (format 2"),
            "{error}"
        );
    }
}
