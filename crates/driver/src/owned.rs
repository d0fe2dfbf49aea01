//! What on this machine is Plumb's: a small journal for each resource kind, under DATA/owned.
//!
//! A path is claimed, durably, before it is made, so that a crash leaves nothing behind that Plumb does not know as
//! its own. The drivers of files, directories and artifacts call this. It never touches what the journal lists.
//!
//! The journal is append-only lines of `CHECKSUM JSON`, one for each batch of changes. A torn last line was never
//! acknowledged and is dropped; damage before it is refused, with the repair in the message. Opening compacts it (write beside, fsync, rename, fsync the folder).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_model::{Address, Fault, ResourceKind, condition::Reason};
use serde::{Deserialize, Serialize};

use crate::trouble;

/// The newest journal format that this version reads and the one it writes.
pub const FORMAT: u32 = 1;

/// Dead changes that a journal may hold beyond twice its living ones before it is compacted while open: enough that
/// compaction is rare, and few enough that the file stays small.
const SLACK_CHANGES: usize = 1024;

/// Why ownership cannot be read or recorded.
#[derive(Debug, thiserror::Error)]
pub enum OwnedError {
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
    /// A line before the last is not what was written.
    #[error(
        "line {line} of {path} is damaged; move the file away (mv {path} {path}.damaged): files that are as they should be are then taken over again"
    )]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Written by a newer Plumb.
    #[error(
        "{path} has format {found}, newer than the {FORMAT} that this version reads; upgrade plumb on this machine"
    )]
    NewerFormat {
        /// The journal.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl From<&OwnedError> for Fault {
    fn from(error: &OwnedError) -> Self {
        match error {
            OwnedError::Io {
                doing,
                path,
                source,
            } => trouble::fault_of(source, doing, &path.display().to_string()),
            other => Fault::new(Reason::Io, other.to_string()),
        }
    }
}

/// One who owns a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its address.
    pub address: Address,
    /// Whether Plumb made what is there; otherwise it was found as it should be, and taken over.
    pub created: bool,
    /// Grows with every claim: of two claims the newer has the higher.
    pub order: u64,
}

/// A change of ownership; a line of the journal holds one batch of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// From now on the address owns the path.
    Own {
        /// Who.
        address: Address,
        /// The absolute path, or the digest of an artifact.
        path: Box<str>,
        /// Whether Plumb makes it.
        created: bool,
    },
    /// It does so no more.
    Forget {
        /// Who.
        address: Address,
        /// What.
        path: Box<str>,
    },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    /// Makes the names of temporary files unguessable, and so Plumb's own.
    salt: String,
}

/// The ownership ledger of one kind. One process has it open: the agent, which holds the lock of its data folder.
#[derive(Debug)]
pub struct Owned {
    path: PathBuf,
    file: File,
    bytes: u64,
    changes: usize,
    salt: String,
    held: BTreeMap<Box<str>, Vec<Holder>>,
    next_order: u64,
    /// An append failed half-way: the file is written anew before the next one.
    torn: bool,
}

fn checksum(json: &[u8]) -> String {
    blake3::hash(json).to_hex()[..16].to_owned()
}

fn encode(out: &mut Vec<u8>, value: &impl Serialize) {
    let json = serde_json::to_vec(value).expect("journal lines are always JSON");
    out.extend_from_slice(checksum(&json).as_bytes());
    out.push(b' ');
    out.extend_from_slice(&json);
    out.push(b'\n');
}

fn decode(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = (line.get(..16)?, line.get(17..)?);
    (line[16] == b' ' && checksum(json).as_bytes() == sum).then_some(json)
}

impl Owned {
    /// Opens DATA/owned/KIND.journal, making it if it is not there.
    pub fn open(data: &Path, kind: ResourceKind) -> Result<Self, OwnedError> {
        let folder = data.join("owned");
        let path = folder.join(format!("{kind}.journal"));
        let failed = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| OwnedError::Io {
                doing,
                path,
                source,
            }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(failed("make", &folder))?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(failed("read", &path)(e)),
        };
        let mut journal = Journal::default();
        journal.read(&path, &text)?;
        let salt = match journal.head.take() {
            Some(head) => head.salt,
            None => {
                let mut random = [0; 16];
                File::open("/dev/urandom")
                    .and_then(|mut f| f.read_exact(&mut random))
                    .map_err(failed("read", Path::new("/dev/urandom")))?;
                random.iter().map(|b| format!("{b:02x}")).collect()
            }
        };
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut owned = Self {
            path,
            file,
            bytes: text.len() as u64,
            changes: journal.changes,
            salt,
            held: journal.held,
            next_order: journal.next_order,
            torn: journal.torn || text.is_empty(),
        };
        if owned.torn || owned.changes != owned.living() {
            owned.compact()?;
        }
        Ok(owned)
    }

    /// Who owns a path, oldest claim first.
    #[must_use]
    pub fn holders(&self, path: &str) -> &[Holder] {
        self.held.get(path).map_or(&[], Vec::as_slice)
    }

    /// The paths that an address owns, oldest claim first. Looks at every entry: for kinds that have few.
    #[must_use]
    pub fn of(&self, address: &Address) -> Vec<(&str, &Holder)> {
        let mut found: Vec<_> = self
            .held
            .iter()
            .flat_map(|(path, holders)| holders.iter().map(move |h| (&**path, h)))
            .filter(|(_, holder)| holder.address == *address)
            .collect();
        found.sort_by_key(|(_, holder)| holder.order);
        found
    }

    /// Every path that somebody owns, sorted.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(|path| &**path)
    }

    /// The name of the temporary that stands beside `path` while it is written. Nobody who cannot read the journal can
    /// guess it, so whatever bears it beside an owned path is Plumb's own, left by a crash.
    #[must_use]
    pub fn temporary(&self, path: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.salt.as_bytes());
        hasher.update(path.as_bytes());
        format!(".plumb-{}", &hasher.finalize().to_hex()[..20])
    }

    /// Records changes, all with one data sync; on return they are durable. On an error none is recorded.
    pub fn append(&mut self, changes: &[Change]) -> Result<(), OwnedError> {
        if changes.is_empty() {
            return Ok(());
        }
        if self.torn || self.changes > 2 * self.living() + SLACK_CHANGES {
            self.compact()?;
        }
        let mut text = Vec::new();
        encode(&mut text, &changes);
        let written = self
            .file
            .write_all(&text)
            .and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // The tail is cut off so that a crash from here on finds a whole journal.
            self.torn = true;
            let _ = self.file.set_len(self.bytes);
            return Err(OwnedError::Io {
                doing: "append to",
                path: self.path.clone(),
                source,
            });
        }
        self.bytes += text.len() as u64;
        self.changes += changes.len();
        for change in changes {
            apply(&mut self.held, &mut self.next_order, change.clone());
        }
        Ok(())
    }

    fn living(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    fn compact(&mut self) -> Result<(), OwnedError> {
        let mut text = Vec::new();
        encode(
            &mut text,
            &Head {
                format: FORMAT,
                salt: self.salt.clone(),
            },
        );
        let mut all: Vec<(&str, &Holder)> = self
            .held
            .iter()
            .flat_map(|(path, holders)| holders.iter().map(move |h| (&**path, h)))
            .collect();
        all.sort_by_key(|(_, holder)| holder.order);
        for (path, holder) in &all {
            encode(
                &mut text,
                &[Change::Own {
                    address: holder.address.clone(),
                    path: (*path).into(),
                    created: holder.created,
                }],
            );
        }
        let beside = self.path.with_extension("journal.new");
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&beside, &self.path)?;
            if let Some(folder) = self.path.parent() {
                File::open(folder)?.sync_all()?;
            }
            OpenOptions::new().append(true).open(&self.path)
        })();
        match written {
            Ok(file) => {
                self.file = file;
                self.bytes = text.len() as u64;
                self.changes = all.len();
                self.torn = false;
                Ok(())
            }
            Err(source) => {
                // The file under the name may be the old or the new one: the next append decides by writing it again.
                self.torn = true;
                let _ = fs::remove_file(&beside);
                Err(OwnedError::Io {
                    doing: "write",
                    path: beside,
                    source,
                })
            }
        }
    }
}

/// What a journal says.
#[derive(Default)]
struct Journal {
    head: Option<Head>,
    held: BTreeMap<Box<str>, Vec<Holder>>,
    next_order: u64,
    changes: usize,
    torn: bool,
}

impl Journal {
    fn read(&mut self, path: &Path, text: &[u8]) -> Result<(), OwnedError> {
        let mut lines = text.split_inclusive(|b| *b == b'\n').enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let damaged = || OwnedError::Damaged {
                path: path.to_owned(),
                line: index + 1,
            };
            let Some(json) = decode(line) else {
                // Only the very last line can be torn by a crash, and then nobody was told that it was recorded: it
                // has no end, or holds zeros where a page did not reach the disk. The first is never torn, since it
                // is renamed into place.
                let unfinished = !line.ends_with(b"\n") || line.contains(&0);
                if lines.peek().is_none() && index > 0 && unfinished {
                    self.torn = true;
                    break;
                }
                return Err(damaged());
            };
            if self.head.is_none() {
                let read: Head = serde_json::from_slice(json).map_err(|_| damaged())?;
                if read.format > FORMAT {
                    return Err(OwnedError::NewerFormat {
                        path: path.to_owned(),
                        found: read.format,
                    });
                }
                self.head = Some(read);
                continue;
            }
            let batch: Vec<Change> = serde_json::from_slice(json).map_err(|_| damaged())?;
            self.changes += batch.len();
            for change in batch {
                apply(&mut self.held, &mut self.next_order, change);
            }
        }
        Ok(())
    }
}

fn apply(held: &mut BTreeMap<Box<str>, Vec<Holder>>, next_order: &mut u64, change: Change) {
    match change {
        Change::Own {
            address,
            path,
            created,
        } => {
            let holders = held.entry(path).or_default();
            holders.retain(|h| h.address != address);
            holders.push(Holder {
                address,
                created,
                order: *next_order,
            });
            *next_order += 1;
        }
        Change::Forget { address, path } => {
            if let Some(holders) = held.get_mut(&path) {
                holders.retain(|h| h.address != address);
                if holders.is_empty() {
                    held.remove(&path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(path: &str) -> Change {
        Change::Own {
            address: format!("m/base/file/{path}").parse().unwrap(),
            path: path.into(),
            created: true,
        }
    }

    fn forget(path: &str) -> Change {
        Change::Forget {
            address: format!("m/base/file/{path}").parse().unwrap(),
            path: path.into(),
        }
    }

    fn open(data: &Path) -> Result<Owned, OwnedError> {
        Owned::open(data, ResourceKind::File)
    }

    #[test]
    fn what_was_recorded_is_there_after_opening_again_and_the_journal_is_compact() {
        let data = tempfile::tempdir().unwrap();
        let mut owned = open(data.path()).unwrap();
        owned.append(&[own("/a"), own("/b"), own("/c")]).unwrap();
        owned.append(&[forget("/b"), own("/a")]).unwrap();
        let name = owned.temporary("/a");
        for _ in 0..2 {
            let again = open(data.path()).unwrap();
            assert_eq!(again.paths().collect::<Vec<_>>(), ["/a", "/c"]);
            assert_eq!(again.temporary("/a"), name);
            assert_eq!(again.changes, 2);
        }
    }

    /// Mutation: accept a last line whose checksum is wrong, or refuse it.
    #[test]
    fn a_torn_last_line_is_dropped_at_every_length() {
        let data = tempfile::tempdir().unwrap();
        let mut owned = open(data.path()).unwrap();
        owned.append(&[own("/a")]).unwrap();
        let before = owned.bytes as usize;
        owned.append(&[own("/b")]).unwrap();
        let path = data.path().join("owned/file.journal");
        let whole = fs::read(&path).unwrap();
        for length in before..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let mut again = open(data.path()).unwrap();
            assert_eq!(again.paths().collect::<Vec<_>>(), ["/a"], "cut at {length}");
            again.append(&[own("/z")]).unwrap();
            assert_eq!(open(data.path()).unwrap().held.len(), 2);
        }
    }

    /// Threat 37, the agent's side. Mutations: skip lines that cannot be read; leave out the checksum; take a line
    /// that two were merged into for a torn one.
    #[test]
    fn a_flipped_bit_anywhere_is_refused_with_the_repair() {
        let data = tempfile::tempdir().unwrap();
        let mut owned = open(data.path()).unwrap();
        owned.append(&[own("/a")]).unwrap();
        owned.append(&[own("/b")]).unwrap();
        let path = data.path().join("owned/file.journal");
        let whole = fs::read(&path).unwrap();
        // The very last line feed apart: without it the line is one that a crash cut off.
        for at in 0..whole.len() - 1 {
            let mut text = whole.clone();
            text[at] ^= 1;
            fs::write(&path, &text).unwrap();
            let error = open(data.path()).expect_err(&format!("flipped at {at}"));
            assert!(matches!(error, OwnedError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("mv "), "{error}");
            assert_eq!(fs::read(&path).unwrap(), text, "nothing was written");
        }
        let mut zeros = whole.clone();
        let last = whole.len() - 20;
        zeros[last..last + 10].fill(0);
        fs::write(&path, zeros).unwrap();
        assert_eq!(open(data.path()).unwrap().held.len(), 1);
    }

    #[test]
    fn a_newer_format_is_refused_before_anything_is_written() {
        let data = tempfile::tempdir().unwrap();
        fs::create_dir(data.path().join("owned")).unwrap();
        let mut text = Vec::new();
        encode(
            &mut text,
            &Head {
                format: FORMAT + 1,
                salt: "s".into(),
            },
        );
        let path = data.path().join("owned/file.journal");
        fs::write(&path, &text).unwrap();
        assert!(matches!(
            open(data.path()).unwrap_err(),
            OwnedError::NewerFormat { .. }
        ));
        assert_eq!(fs::read(&path).unwrap(), text);
    }
}
