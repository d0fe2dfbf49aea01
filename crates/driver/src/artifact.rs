//! The driver for `artifact`: an archive that was fetched as a blob, unpacked into a folder named by its digest.
//!
//! Packing ([`pack`]) is the CLI's, unpacking the agent's. A folder is complete once its mark stands beside it; the mark
//! lists every member, so that a full check finds what was deleted or edited. Several addresses may hold one digest: it
//! goes with the last of them. Of each address the digest before the newest is kept too, since a process of the release
//! before may still run in it.

mod mark;
pub mod pack;
mod safe;
mod unpack;

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use plumb_model::{
    Action, Address, Depth, Fault, Hash, Observation, ResourceKind, ResourceSpec,
    condition::Reason, observation::Difference,
};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};

pub use pack::{PackError, Packed, pack, pack_into};

use crate::blobs::Blobs;
use crate::host::Host;
use crate::owned::{Change, Owned};
use crate::{Driver, Target, trouble};

/// The most bytes that an archive may have, packed or unpacked: more is data, and does not belong into a repository.
pub const MAX_BYTES: u64 = 1 << 30;

/// The most members that an archive may have.
pub const MAX_MEMBERS: usize = 200_000;

/// How many digests of one address are kept: the newest, and the one that a process may still run in.
const KEPT_DIGESTS: usize = 2;

/// The driver for artifacts.
#[derive(Debug)]
pub struct ArtifactDriver {
    data: PathBuf,
    folder: PathBuf,
    blobs: Blobs,
    owned: Option<Owned>,
    /// [`MAX_MEMBERS`], but in a test that need not make so many.
    max_members: usize,
}

/// Where an unpacked artifact is, or would be, under an agent's data folder.
#[must_use]
pub fn folder(data: &Path, digest: Hash) -> PathBuf {
    data.join("artifacts").join(digest.to_string())
}

impl ArtifactDriver {
    /// Touches nothing yet: the ownership ledger is opened with the first question.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self {
            data: host.data.clone(),
            folder: host.data.join("artifacts"),
            blobs: Blobs::new(&host.data),
            owned: None,
            max_members: MAX_MEMBERS,
        }
    }

    fn open(&mut self) -> Result<(), Fault> {
        if self.owned.is_none() {
            let owned =
                Owned::open(&self.data, ResourceKind::Artifact).map_err(|e| Fault::from(&e))?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&self.folder)
                // The apps' users read here, whatever the umask was.
                .and_then(|()| fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755)))
                .map_err(|e| self.failed(&e, "make", &self.folder))?;
            self.sweep();
            self.owned = Some(owned);
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error, doing: &str, path: &Path) -> Fault {
        trouble::fault_of(error, doing, &path.display().to_string())
    }

    /// Removes what a crash left half unpacked or half removed. The folder is the agent's alone.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.contains(".partial-") || name.contains(".gone-") {
                let _ = remove_tree(&entry.path());
            }
        }
    }

    fn complete(&self, digest: Hash) -> PathBuf {
        self.folder.join(format!("{digest}.complete"))
    }

    fn unpacked(&self, digest: Hash) -> PathBuf {
        self.folder.join(digest.to_string())
    }

    fn observe_one(&mut self, target: &Target<'_>, depth: Depth) -> Result<Observation, Fault> {
        let spec = match target.spec {
            Some(ResourceSpec::Artifact(spec)) => spec,
            Some(_) => return Err(wrong_kind(target.address)),
            None => return self.observe_left_over(target.address),
        };
        let (mark, folder) = (self.complete(spec.digest), self.unpacked(spec.digest));
        let is_file = fs::symlink_metadata(&mark).is_ok_and(|m| m.is_file());
        let is_folder = fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir());
        if !is_file || !is_folder {
            return Ok(Observation::Absent);
        }
        let differs = match depth {
            Depth::Quick => None,
            Depth::Full => match mark::read(&mark) {
                Ok(entries) => open_folder(&folder)
                    .and_then(|root| mark::first_difference(&root, &entries))
                    .map_err(|e| self.failed(&e, "check", &folder))?,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => Some(e.to_string()),
                Err(e) => return Err(self.failed(&e, "read", &mark)),
            },
        };
        self.hold(target.address, spec.digest)?;
        Ok(Observation::Present {
            differs: differs
                .map(|found| Difference {
                    field: "digest".to_owned(),
                    found,
                })
                .into_iter()
                .collect(),
        })
    }

    fn observe_left_over(&self, address: &Address) -> Result<Observation, Fault> {
        let held = self.owned.iter().flat_map(|o| o.of(address)).count();
        Ok(if held == 0 {
            Observation::Absent
        } else {
            Observation::Present {
                differs: Vec::new(),
            }
        })
    }

    /// Makes an address the newest holder of a digest, durably.
    fn hold(&mut self, address: &Address, digest: Hash) -> Result<(), Fault> {
        let Some(owned) = self.owned.as_mut() else {
            return Ok(());
        };
        let path: Box<str> = digest.to_string().into();
        if owned
            .of(address)
            .last()
            .is_some_and(|(newest, _)| **newest == *path)
        {
            return Ok(());
        }
        owned
            .append(&[Change::Own {
                address: address.clone(),
                path,
                created: true,
            }])
            .map_err(|e| Fault::from(&e))
    }

    fn write(&mut self, target: &Target<'_>) -> Result<Observation, Fault> {
        let Some(ResourceSpec::Artifact(spec)) = target.spec else {
            return Err(wrong_kind(target.address));
        };
        let digest = spec.digest;
        let mut blob = self.blobs.open(digest)?;
        unpack::verify(&mut blob, digest, spec.size).inspect_err(|fault| {
            if fault.reason == Reason::BadContent {
                // It was whole when it was stored, so the disk lost it: fetching it again is the remedy.
                let _ = self.blobs.remove(digest);
            }
        })?;
        self.hold(target.address, digest)?;
        let (mark, folder) = (self.complete(digest), self.unpacked(digest));
        let is_folder = fs::symlink_metadata(&folder).is_ok_and(|m| m.is_dir());
        if is_folder && mark.exists() {
            // A process may run in it: what differs is put right where it is.
            open_folder(&folder)
                .map_err(|e| self.failed(&e, "open", &folder))
                .and_then(|root| unpack::repair(&mut blob, &root, &folder, self.max_members))
                .and_then(|entries| self.mark(&mark, &entries))?;
        } else {
            self.unpack(&mut blob, digest)?;
        }
        self.prune(target.address)?;
        Ok(Observation::Present {
            differs: Vec::new(),
        })
    }

    /// Unpacks beside, syncs, renames, and marks: a folder without its mark does not count.
    fn unpack(&self, blob: &mut File, digest: Hash) -> Result<(), Fault> {
        let partial = self
            .folder
            .join(format!("{digest}.partial-{}", std::process::id()));
        let folder = self.unpacked(digest);
        let unpacked = (|| {
            remove_tree(&partial).map_err(|e| self.failed(&e, "remove", &partial))?;
            fs::DirBuilder::new()
                .mode(0o755)
                .create(&partial)
                .and_then(|()| fs::set_permissions(&partial, fs::Permissions::from_mode(0o755)))
                .map_err(|e| self.failed(&e, "make", &partial))?;
            let root = open_folder(&partial).map_err(|e| self.failed(&e, "open", &partial))?;
            let entries = unpack::fresh(blob, &root, &partial, self.max_members)?;
            rustix::fs::syncfs(&root)
                .map_err(|e| trouble::fault(e, "sync", &partial.display().to_string()))?;
            remove_tree(&folder).map_err(|e| self.failed(&e, "remove", &folder))?;
            fs::rename(&partial, &folder).map_err(|e| self.failed(&e, "rename to", &folder))?;
            Ok(entries)
        })();
        match unpacked {
            Ok(entries) => self.mark(&self.complete(digest), &entries),
            Err(fault) => {
                let _ = remove_tree(&partial);
                Err(fault)
            }
        }
    }

    fn mark(&self, path: &Path, entries: &[mark::Entry]) -> Result<(), Fault> {
        mark::write(path, entries).map_err(|e| self.failed(&e, "write", path))
    }

    /// Lets go of the digests of an address that are older than the kept ones.
    fn prune(&mut self, address: &Address) -> Result<(), Fault> {
        let old: Vec<Box<str>> = self
            .owned
            .iter()
            .flat_map(|o| o.of(address))
            .map(|(p, _)| p.into())
            .collect();
        let old = &old[..old.len().saturating_sub(KEPT_DIGESTS)];
        self.let_go(address, old)
    }

    fn let_go(&mut self, address: &Address, digests: &[Box<str>]) -> Result<(), Fault> {
        for path in digests {
            let Some(owned) = self.owned.as_ref() else {
                return Ok(());
            };
            let shared = owned.holders(path).iter().any(|h| h.address != *address);
            if !shared && let Ok(digest) = path.parse() {
                self.destroy(digest)?;
            }
        }
        let changes: Vec<_> = digests
            .iter()
            .map(|path| Change::Forget {
                address: address.clone(),
                path: path.clone(),
            })
            .collect();
        match self.owned.as_mut() {
            Some(owned) => owned.append(&changes).map_err(|e| Fault::from(&e)),
            None => Ok(()),
        }
    }

    /// Removes a digest's mark, folder and blob, in this order: what is half removed never looks complete.
    fn destroy(&self, digest: Hash) -> Result<(), Fault> {
        let (mark, folder) = (self.complete(digest), self.unpacked(digest));
        let gone = self
            .folder
            .join(format!("{digest}.gone-{}", std::process::id()));
        absent(fs::remove_file(&mark)).map_err(|e| self.failed(&e, "remove", &mark))?;
        remove_tree(&gone).map_err(|e| self.failed(&e, "remove", &gone))?;
        absent(fs::rename(&folder, &gone)).map_err(|e| self.failed(&e, "remove", &folder))?;
        remove_tree(&gone).map_err(|e| self.failed(&e, "remove", &gone))?;
        self.blobs.remove(digest)?;
        File::open(&self.folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| self.failed(&e, "sync", &self.folder))
    }

    /// Makes the new address of a renamed owner the holder of what the old one held.
    fn take_over(&mut self, target: &Target<'_>, from: &[Address]) -> Result<Observation, Fault> {
        if let Some(owned) = self.owned.as_mut()
            && owned.of(target.address).is_empty()
            && let Some(old) = from.iter().find(|old| !owned.of(old).is_empty())
        {
            let held = owned.of(old);
            let changes: Vec<Change> = held
                .iter()
                .flat_map(|(path, holder)| {
                    let (path, created) = (Box::<str>::from(*path), holder.created);
                    let own = Change::Own {
                        address: target.address.clone(),
                        path: path.clone(),
                        created,
                    };
                    let forget = Change::Forget {
                        address: (*old).clone(),
                        path,
                    };
                    [own, forget]
                })
                .collect();
            owned.append(&changes).map_err(|e| Fault::from(&e))?;
        }
        self.observe_one(target, Depth::Quick)
    }

    fn remove(&mut self, address: &Address) -> Result<Observation, Fault> {
        let held: Vec<Box<str>> = self
            .owned
            .iter()
            .flat_map(|o| o.of(address))
            .map(|(p, _)| p.into())
            .collect();
        self.let_go(address, &held)?;
        Ok(Observation::Absent)
    }
}

fn wrong_kind(address: &Address) -> Fault {
    Fault::new(
        Reason::Io,
        format!("{address} was given to the driver of artifacts, and is none"),
    )
}

fn absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a tree of the agent's own, following no link; a single file too. It is fine if nothing is there.
fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

impl Driver for ArtifactDriver {
    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>> {
        if let Err(fault) = self.open() {
            return targets.iter().map(|_| Err(fault.clone())).collect();
        }
        targets
            .iter()
            .map(|target| self.observe_one(target, depth))
            .collect()
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        if let Err(fault) = self.open() {
            return work.iter().map(|_| Err(fault.clone())).collect();
        }
        work.iter()
            .map(|(target, action)| match action {
                Action::Write => self.write(target),
                Action::Remove => self.remove(target.address),
                Action::Move { from } => self.take_over(target, from),
                Action::Start | Action::Stop | Action::Adopt => Err(Fault::new(
                    Reason::Io,
                    format!("{action:?} is nothing that can be done to an artifact"),
                )),
            })
            .collect()
    }
}
