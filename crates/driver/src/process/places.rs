//! Where each process keeps its things: at the place that its address names, unless its owner was renamed. A rename moves no
//! file, since a living shim holds paths: it is noted here that the new address has the old place, and the old address
//! another one.
//!
//! The note is one small file, `DATA/owned/process.json`, which is written beside, synced and renamed, so that a rename has
//! happened or has not. It is there only where something was ever renamed. It starts, stops and removes nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_model::condition::Reason;
use plumb_model::{Address, Fault, OwnerName};
use serde::{Deserialize, Serialize};

use super::{io_fault, users};

/// The newest format that this version reads and the one it writes.
const FORMAT: u32 = 1;

/// Every place that is not where its address says. A place is written `OWNER/PROCESS.SLOT`, and an address stands for the
/// place that it names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Places {
    format: u32,
    /// Address → place.
    places: BTreeMap<String, String>,
    /// Address → the address that it has taken over from, so that doing it again does nothing.
    moved: BTreeMap<String, String>,
    /// Owner → system user: files elsewhere belong to it, so it stays with whoever runs on.
    users: BTreeMap<OwnerName, String>,
    /// Owner → the owner whose system user it has taken over.
    users_moved: BTreeMap<OwnerName, OwnerName>,
}

/// The place that an address names.
fn named(address: &Address) -> String {
    let name = address.name.replacen('/', ".", 1);
    format!("{}/{name}", address.owner)
}

fn file(data: &Path) -> PathBuf {
    data.join("owned").join("process.json")
}

impl Places {
    /// Reads the note; without one, every process is at the place that its address names.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or was written by a newer Plumb.
    pub fn load(data: &Path) -> Result<Self, Fault> {
        let path = file(data);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io_fault(&error, "cannot read", &path)),
        };
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| {
            Fault::new(
                Reason::Io,
                format!(
                    "{} is damaged ({error}); restore it from a backup, or stop the renamed processes by hand and remove it",
                    path.display()
                ),
            )
        };
        let found: Format = serde_json::from_slice(&bytes).map_err(damaged)?;
        if found.format > FORMAT {
            return Err(Fault::new(
                Reason::LacksCapability,
                format!(
                    "{} was written by a newer plumb (format {}): upgrade the agent",
                    path.display(),
                    found.format
                ),
            ));
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Writes the note, durably.
    ///
    /// # Errors
    /// If it cannot be written; then the one before still counts.
    pub fn save(&self, data: &Path) -> Result<(), Fault> {
        let path = file(data);
        let beside = path.with_extension("json.new");
        let written = (|| {
            let folder = data.join("owned");
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)?;
            let _ = fs::remove_file(&beside);
            let mut out = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&beside)?;
            let noted = Self {
                format: FORMAT,
                ..self.clone()
            };
            out.write_all(&serde_json::to_vec(&noted)?)?;
            out.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&folder)?.sync_all()
        })();
        written.map_err(|error: io::Error| io_fault(&error, "cannot write", &path))
    }

    /// Where the process at an address keeps its things: `OWNER/PROCESS.SLOT`, of whichever owner.
    #[must_use]
    pub fn of(&self, address: &Address) -> String {
        self.at(&named(address))
    }

    fn at(&self, address: &str) -> String {
        self.places
            .get(address)
            .cloned()
            .unwrap_or_else(|| address.to_owned())
    }

    fn set(&mut self, address: String, place: String) {
        if address == place {
            self.places.remove(&address);
        } else {
            self.places.insert(address, place);
        }
    }

    /// The system user of an owner, where each has its own.
    #[must_use]
    pub fn user(&self, owner: &OwnerName) -> String {
        let noted = self.users.get(owner).cloned();
        noted.unwrap_or_else(|| users::app_user(owner))
    }

    /// Gives an address the place of the first of its old addresses that has anything at its own, and that one another
    /// place. Where it was done already, or something is at the address's own place, nothing moves.
    pub fn take_over(&mut self, to: &Address, from: &[Address], exists: impl Fn(&str) -> bool) {
        let (Some(newest), new) = (from.first(), named(to)) else {
            return;
        };
        if self.moved.get(&new) == Some(&named(newest)) {
            return;
        }
        let old = from.iter().find(|old| exists(&self.of(old)));
        if let Some(old) = old.filter(|_| !exists(&self.at(&new))) {
            let (name, place) = (named(old), self.of(old));
            self.set(new.clone(), place);
            let free = self.free(&name, &exists);
            self.moved.remove(&name);
            self.set(name, free);
            self.take_over_user(&to.owner, &old.owner);
        }
        self.moved.insert(new, named(newest));
    }

    /// A place that nobody has, like the one that an address names. No address can name one with a `+`.
    fn free(&self, address: &str, exists: &impl Fn(&str) -> bool) -> String {
        let taken = |place: &str| self.places.values().any(|p| p == place) || exists(place);
        let mut place = address.to_owned();
        for number in 2.. {
            if !taken(&place) {
                break;
            }
            place = format!("{address}+{number}");
        }
        place
    }

    fn take_over_user(&mut self, to: &OwnerName, from: &OwnerName) {
        if to == from || self.users_moved.get(to) == Some(from) {
            return;
        }
        let user = self.user(from);
        self.set_user(to, user);
        let taken = |user: &String| self.users.values().any(|u| u == user);
        let mut free = users::app_user(from);
        for number in 2.. {
            if !taken(&free) {
                break;
            }
            free = users::app_user_again(from, number);
        }
        self.set_user(from, free);
        self.users_moved.remove(from);
        self.users_moved.insert(to.clone(), from.clone());
    }

    fn set_user(&mut self, owner: &OwnerName, user: String) {
        if user == users::app_user(owner) {
            self.users.remove(owner);
        } else {
            self.users.insert(owner.clone(), user);
        }
    }

    /// Forgets an address of which nothing is left, and every place that nobody needs any more. As long as the place that an
    /// address names is another's, its own stays noted, or it would take the other's things for its own.
    pub fn forget(&mut self, address: &Address, exists: impl Fn(&str) -> bool) {
        self.moved.remove(&named(address));
        loop {
            let unused = self.places.iter().find(|(name, place)| {
                let wanted = self.places.values().any(|p| p == *name) || exists(name);
                !exists(place) && !wanted
            });
            let Some((name, _)) = unused else { return };
            let name = name.clone();
            self.places.remove(&name);
        }
    }

    /// What is at a place that an owner's address does not name, as `PROCESS.SLOT` and the place.
    pub fn elsewhere<'a>(
        &'a self,
        owner: &'a OwnerName,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.places.iter().filter_map(|(name, place)| {
            let (of, slot) = name.split_once('/')?;
            (of == owner.as_str()).then_some((slot, place.as_str()))
        })
    }

    /// Whether the place that an address names, `OWNER/PROCESS.SLOT`, is that of another address.
    #[must_use]
    pub fn is_let(&self, place: &str) -> bool {
        self.places.contains_key(place)
    }
}
