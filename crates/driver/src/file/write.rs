//! Writes a batch of paths: all beside, one sync for each file system, rename, one sync for each folder.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Write};

use plumb_model::condition::Reason;
use plumb_model::{Depth, Fault, FileContent, Hash, ResourceKind, ResourceSpec};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid, chmodat, fchmod, fchown, fstat,
    fsync, mkdirat, openat, renameat, renameat_with, statat, syncfs, unlinkat,
};
use rustix::io::Errno;

use super::look::{CHUNK_BYTES, Thing, Wish, inode, look};
use super::originals::{Kept, Originals};
use super::parallel;
use super::users::Users;
use super::{Answers, Claim, Job, Nodes, as_it_should_be, claim, discard, forget, own, parents};
use crate::blobs::{BlobError, Blobs};
use crate::owned::{Change, Owned};
use crate::trouble;

/// Up to so many writes are each synced by themselves: a sync of the whole file system also waits for whatever others
/// have written to it, which is a bad bargain for a single healed file.
const SYNCED_SINGLY: usize = 4;

/// A folder of the round.
struct Folder {
    fd: OwnedFd,
    inode: (u64, u64),
}

/// What has to be done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is as it should be.
    Nothing,
    /// Only mode, owner or group differ; the inode that they differ on.
    Fix((u64, u64)),
    /// Nothing is there, and nothing may be when it is renamed into place.
    Create,
    /// Something of Plumb's is there, of this type.
    Replace(FileType),
}

/// A job with its decision.
struct Planned<'a> {
    job: Job<'a>,
    wish: Wish<'a>,
    step: Step,
    /// Plumb did not own the path before this round.
    fresh: bool,
    /// It is not of Plumb's making, and this was kept of it.
    kept: Option<Kept>,
}

/// What was changed, and has to be synced: a temporary, or with none the thing itself.
struct Staged {
    planned: usize,
    temporary: Option<String>,
    handle: Option<OwnedFd>,
}

impl Nodes {
    /// Makes the paths of one round as they should be.
    ///
    /// Flow: open the folders; look at each path and decide; keep what Plumb did not make and is about to change; claim what is
    /// new (one sync of the journal); write each
    /// temporary; sync each file system once; rename each; sync each folder once; check that each folder still stands
    /// where it was opened.
    ///
    /// Guarantees: one path's failure fails no other; nothing is written outside the folders that were opened without
    /// following links; a path holds the old content or the new, never a part; a failure leaves no temporary and no
    /// claim on what was not made.
    pub(super) fn write(&mut self, round: &[(Job<'_>, &ResourceSpec)], answers: &mut Answers) {
        let Some(owned) = self.owned.as_mut() else {
            return;
        };
        let mut folders: HashMap<&str, Result<Folder, Errno>> = HashMap::new();
        for (job, _) in round {
            folders.entry(job.parent).or_insert_with(|| {
                let fd = parents::open(job.parent, true)?;
                let inode = inode(&fstat(&fd)?);
                Ok(Folder { fd, inode })
            });
        }

        // Decide.
        let mut users = Users::default();
        let mut changes = Vec::new();
        let mut planned: Vec<Planned<'_>> = Vec::new();
        for (job, spec) in round {
            let decided = match &folders[job.parent] {
                Err(e) => Err(parents::explain(*e, job.parent, job.name)),
                Ok(folder) => Wish::of(spec, job.path, &mut users).and_then(|wish| {
                    let seen = &mut self.seen;
                    let look = look(&folder.fd, (job.path, job.name), &wish, Depth::Quick, seen)?;
                    let claims = changes.len();
                    let Decision { step, fresh, keep } =
                        decide(owned, self.kind, job, look, &mut changes)?;
                    let kept = keep
                        .filter(|_| job.adopt && fresh || !self.originals.any(job.path))
                        .map(|inode| {
                            let names = (job.path, job.name);
                            self.originals.keep(&folder.fd, names, inode)
                        })
                        .transpose()
                        .inspect_err(|_| changes.truncate(claims))?;
                    Ok(Planned {
                        job: *job,
                        wish,
                        step,
                        fresh,
                        kept,
                    })
                }),
            };
            match decided {
                Ok(plan) => planned.push(plan),
                Err(fault) => answers[job.index] = Some(Err(fault)),
            }
        }
        super::crash::point("kept");
        if let Err(error) = owned.append(&changes) {
            let fault = Fault::from(&error);
            for plan in &planned {
                answers[plan.job.index] = Some(Err(fault.clone()));
            }
            return;
        }
        super::crash::point("claimed");

        // Write beside.
        let mut failed: BTreeMap<usize, Fault> = BTreeMap::new();
        let mut staged: Vec<Staged> = Vec::new();
        let few = planned.iter().filter(|p| p.step != Step::Nothing).count() <= SYNCED_SINGLY;
        let owned_now = &*owned;
        let made =
            parallel::map(&planned, |plan| {
                let folder = folders[plan.job.parent].as_ref().ok()?;
                let temporary = owned_now.temporary(plan.job.path);
                let made = stage(&folder.fd, plan, temporary, &self.blobs);
                // Many handles at once would run into the limit of open files.
                Some(made.map(|made| {
                    made.map(|(temporary, handle)| (temporary, handle.filter(|_| few)))
                }))
            });
        for (at, made) in made.into_iter().enumerate() {
            match made {
                None | Some(Ok(None)) => {}
                Some(Ok(Some((temporary, handle)))) => staged.push(Staged {
                    planned: at,
                    temporary,
                    handle,
                }),
                Some(Err(fault)) => {
                    failed.insert(at, fault);
                }
            }
        }

        super::crash::point("staged");

        // Sync, rename, sync the folders.
        let folder_of = |at: usize| folders[planned[at].job.parent].as_ref().ok();
        sync_content(&staged, folder_of, &planned, &mut failed);
        let mut touched: BTreeSet<&str> = BTreeSet::new();
        let originals = &self.originals;
        let renamed = parallel::map(&staged, |stage| {
            let (plan, folder) = (&planned[stage.planned], folder_of(stage.planned)?);
            let temporary = stage.temporary.as_ref()?;
            let fault = match failed.get(&stage.planned) {
                Some(_) => None,
                None => rename(&folder.fd, temporary, plan, originals).err(),
            };
            let done = fault.is_none() && !failed.contains_key(&stage.planned);
            if !done {
                discard(&folder.fd, temporary, self.kind);
            }
            Some((done, fault))
        });
        for (stage, renamed) in staged.iter().zip(renamed) {
            match renamed {
                None => {}
                Some((true, _)) => {
                    touched.insert(planned[stage.planned].job.parent);
                }
                Some((false, Some(fault))) => {
                    failed.insert(stage.planned, fault);
                }
                Some((false, None)) => {}
            }
        }
        let mut broken: HashMap<&str, Fault> = HashMap::new();
        for parent in touched {
            let Ok(folder) = &folders[parent] else {
                continue;
            };
            if let Err(e) = fsync(&folder.fd) {
                broken.insert(parent, trouble::fault(e, "sync the directory", parent));
            } else if let Err(fault) = still_there(folder, parent) {
                broken.insert(parent, fault);
            }
        }

        // Answer, and give up the claims on what was not made.
        let mut given_up = Vec::new();
        for (at, plan) in planned.iter().enumerate() {
            let touched = plan.step != Step::Nothing;
            let fault = failed
                .remove(&at)
                .inspect(|_| {
                    if plan.fresh && (plan.step == Step::Create || plan.job.adopt) {
                        given_up.push(forget(&plan.job));
                    }
                })
                .or_else(|| broken.get(plan.job.parent).filter(|_| touched).cloned());
            answers[plan.job.index] = Some(fault.map_or_else(|| Ok(as_it_should_be()), Err));
        }
        if let Err(error) = owned.append(&given_up) {
            tracing::warn!(%error, "cannot give up the claim on files that were not written");
        }
    }
}

/// What a path needs.
struct Decision {
    step: Step,
    /// The path is new to Plumb.
    fresh: bool,
    /// The inode that is to be kept before it is changed.
    keep: Option<(u64, u64)>,
}

/// Decides what a path needs, and adds the claim that must be on the disk before anything is done to it.
fn decide(
    owned: &Owned,
    kind: ResourceKind,
    job: &Job<'_>,
    look: Option<Thing>,
    changes: &mut Vec<Change>,
) -> Result<Decision, Fault> {
    let claim = claim(owned, job);
    let fresh = claim == Claim::None;
    let Some(thing) = look else {
        if claim != (Claim::Mine { created: true }) {
            own(owned, job, true, changes);
        }
        return Ok(Decision {
            step: Step::Create,
            fresh,
            keep: None,
        });
    };
    let fits = match kind {
        ResourceKind::Directory => thing.kind == FileType::Directory,
        _ => thing.kind == FileType::RegularFile,
    };
    match claim {
        Claim::Mine { .. } => {}
        Claim::Moved { created } => own(owned, job, created, changes),
        Claim::None if thing.differs.is_empty() || job.adopt && fits => {
            own(owned, job, false, changes);
        }
        Claim::None => return Err(not_ours(job, &thing)),
    }
    let step = if thing.differs.is_empty() {
        Step::Nothing
    } else if thing.content_right && !thing.linked {
        Step::Fix(thing.inode)
    } else {
        Step::Replace(thing.kind)
    };
    let made_here = matches!(
        claim,
        Claim::Mine { created: true } | Claim::Moved { created: true }
    );
    let keep = (fits && !made_here && step != Step::Nothing).then_some(thing.inode);
    Ok(Decision { step, fresh, keep })
}

fn not_ours(job: &Job<'_>, thing: &Thing) -> Fault {
    let path = job.path;
    Fault::new(
        Reason::NotOurs,
        format!(
            "{path} exists and was not made by Plumb ({}); adopt it with the next plan (`plumb apply --allow adopt`), or move it away (mv {path} {path}.orig)",
            thing.what()
        ),
    )
}

type StagedParts = (Option<String>, Option<OwnedFd>);

/// Does what a path needs, up to the rename. Leaves no temporary behind if it fails.
fn stage(
    dir: &OwnedFd,
    plan: &Planned<'_>,
    temporary: String,
    blobs: &Blobs,
) -> Result<Option<StagedParts>, Fault> {
    match plan.step {
        Step::Nothing => return Ok(None),
        Step::Fix(inode) => {
            if let Some(handle) = fix(dir, plan, inode)? {
                return Ok(Some((None, handle)));
            }
            // It is another file by now, or cannot be opened: a new one takes its place.
        }
        Step::Create | Step::Replace(_) => {}
    }
    let made = match plan.wish.content {
        Some(content) => write_file(dir, plan, &temporary, content, blobs),
        None => make_directory(dir, plan, &temporary),
    };
    match made {
        Ok(handle) => Ok(Some((Some(temporary), Some(handle)))),
        Err(fault) => {
            let kind = match plan.wish.content {
                Some(_) => ResourceKind::File,
                None => ResourceKind::Directory,
            };
            discard(dir, &temporary, kind);
            Err(fault)
        }
    }
}

/// Puts mode, owner and group right on the inode that was looked at. `None` if that cannot be done in place.
fn fix(
    dir: &OwnedFd,
    plan: &Planned<'_>,
    looked_at: (u64, u64),
) -> Result<Option<Option<OwnedFd>>, Fault> {
    let directory = plan.wish.content.is_none();
    let base = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = if directory {
        base | OFlags::DIRECTORY
    } else {
        base
    };
    let opened = openat(dir, plan.job.name, flags | OFlags::RDONLY, Mode::empty());
    let fd = match opened {
        Ok(fd) => fd,
        // Somebody took away the right to read a directory of the agent's own: a mere place is enough to give it back.
        Err(Errno::ACCESS) if directory => {
            let place = openat(dir, plan.job.name, flags | OFlags::PATH, Mode::empty())
                .map_err(|e| trouble::fault(e, "open", plan.job.path))?;
            let stat = fstat(&place).map_err(|e| trouble::fault(e, "look at", plan.job.path))?;
            if inode(&stat) != looked_at {
                return Err(swapped(plan));
            }
            use rustix::fd::AsRawFd;
            let link = format!("/proc/self/fd/{}", place.as_raw_fd());
            chmodat(
                CWD,
                link,
                Mode::from_raw_mode(plan.wish.mode),
                AtFlags::empty(),
            )
            .map_err(|e| trouble::fault(e, "change the mode of", plan.job.path))?;
            return Ok(Some(None));
        }
        Err(_) if !directory => return Ok(None),
        Err(e) => return Err(trouble::fault(e, "open", plan.job.path)),
    };
    let stat = fstat(&fd).map_err(|e| trouble::fault(e, "look at", plan.job.path))?;
    if inode(&stat) != looked_at || (!directory && super::look::wide(stat.st_nlink) > 1) {
        return if directory {
            Err(swapped(plan))
        } else {
            Ok(None)
        };
    }
    attributes(&fd, plan)?;
    Ok(Some(Some(fd)))
}

fn swapped(plan: &Planned<'_>) -> Fault {
    Fault::new(
        Reason::Io,
        format!(
            "{} was replaced while it was changed; it is looked at again",
            plan.job.path
        ),
    )
}

/// Sets owner, group and mode, in this order since a change of owner clears the set-user-ID bit.
fn attributes(fd: &OwnedFd, plan: &Planned<'_>) -> Result<(), Fault> {
    let wish = &plan.wish;
    if wish.owner.is_some() || wish.group.is_some() {
        let owner = wish.owner.map(|(number, _)| Uid::from_raw(number));
        let group = wish.group.map(|(number, _)| Gid::from_raw(number));
        fchown(fd, owner, group).map_err(|e| match e {
            Errno::PERM => Fault::new(
                Reason::UnknownUser,
                format!(
                    "the agent may not give {} to {}; run it as root, or leave owner and group out",
                    plan.job.path,
                    [("user", wish.owner), ("group", wish.group)]
                        .iter()
                        .filter_map(|(what, who)| who.map(|(_, name)| format!("{what} {name}")))
                        .collect::<Vec<_>>()
                        .join(" and "),
                ),
            ),
            e => trouble::fault(e, "change the owner of", plan.job.path),
        })?;
    }
    fchmod(fd, Mode::from_raw_mode(wish.mode))
        .map_err(|e| trouble::fault(e, "change the mode of", plan.job.path))
}

fn write_file(
    dir: &OwnedFd,
    plan: &Planned<'_>,
    temporary: &str,
    content: &FileContent,
    blobs: &Blobs,
) -> Result<OwnedFd, Fault> {
    // The source is opened first, so that missing content touches nothing.
    let source = match content {
        FileContent::Text(_) => None,
        FileContent::Template(_) => {
            return Err(Fault::new(
                plumb_model::Reason::LacksCapability,
                format!(
                    "{} holds the credential of a service, which this version of plumb cannot fill in",
                    plan.job.path
                ),
            ));
        }
        FileContent::Blob { digest, .. } => Some((*digest, blobs.open(*digest)?)),
    };
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Nobody else reads it before it has its mode.
    let create = || openat(dir, temporary, flags, Mode::RUSR | Mode::WUSR);
    let fd = match create() {
        // Left by a crash: the name is one that only the journal can tell.
        Err(Errno::EXIST) => unlinkat(dir, temporary, AtFlags::empty()).and_then(|()| create()),
        other => other,
    }
    .map_err(|e| trouble::fault(e, "write", plan.job.path))?;
    let mut file = File::from(fd);
    let failed = |e: &std::io::Error| trouble::fault_of(e, "write", plan.job.path);
    match (content, source) {
        (FileContent::Text(text), _) => file.write_all(text.as_bytes()).map_err(|e| failed(&e))?,
        (_, Some((expected, mut blob))) => {
            let mut hasher = blake3::Hasher::new();
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let n = match blob.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(e) => {
                        let path = blobs.path(expected).display().to_string();
                        return Err(trouble::fault_of(&e, "read", &path));
                    }
                };
                hasher.update(&buffer[..n]);
                file.write_all(&buffer[..n]).map_err(|e| failed(&e))?;
            }
            let found = Hash(*hasher.finalize().as_bytes());
            if found != expected {
                // It was whole when it was stored, so the disk lost it: fetching it again is the remedy.
                let _ = blobs.remove(expected);
                return Err(BlobError::Digest { expected, found }.into());
            }
        }
        // A template has been refused above.
        (FileContent::Template(_), None) => {}
        (FileContent::Blob { digest, .. }, None) => return Err(BlobError::Missing(*digest).into()),
    }
    let fd = OwnedFd::from(file);
    attributes(&fd, plan)?;
    Ok(fd)
}

fn make_directory(dir: &OwnedFd, plan: &Planned<'_>, temporary: &str) -> Result<OwnedFd, Fault> {
    let make = || mkdirat(dir, temporary, Mode::RWXU);
    match make() {
        Err(Errno::EXIST) => unlinkat(dir, temporary, AtFlags::REMOVEDIR).and_then(|()| make()),
        other => other,
    }
    .map_err(|e| trouble::fault(e, "make", plan.job.path))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, temporary, flags, Mode::empty())
        .map_err(|e| trouble::fault(e, "make", plan.job.path))?;
    // Whoever may write to the folder could have put another directory under the name.
    let stat = fstat(&fd).map_err(|e| trouble::fault(e, "look at", plan.job.path))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(swapped(plan));
    }
    attributes(&fd, plan)?;
    Ok(fd)
}

/// Makes the content of everything staged durable: each by itself if there are few, otherwise each file system once.
fn sync_content<'a>(
    staged: &[Staged],
    folder_of: impl Fn(usize) -> Option<&'a Folder>,
    planned: &[Planned<'_>],
    failed: &mut BTreeMap<usize, Fault>,
) {
    let mut systems: HashMap<u64, Result<(), Errno>> = HashMap::new();
    for stage in staged {
        let synced = match (&stage.handle, folder_of(stage.planned)) {
            (Some(handle), _) => fsync(handle),
            // The folder's handle is older than what was written, so it is told of every failure to write it back.
            (None, Some(folder)) => *systems
                .entry(folder.inode.0)
                .or_insert_with(|| syncfs(&folder.fd)),
            (None, None) => Ok(()),
        };
        if let Err(e) = synced {
            let path = planned[stage.planned].job.path;
            failed.insert(stage.planned, trouble::fault(e, "sync", path));
        }
    }
}

/// Renames a temporary to its place.
fn rename(
    dir: &OwnedFd,
    temporary: &str,
    plan: &Planned<'_>,
    originals: &Originals,
) -> Result<(), Fault> {
    let Job { name, path, .. } = plan.job;
    if let Some(kept) = plan.kept {
        return exchange(dir, temporary, plan, kept, originals);
    }
    match plan.step {
        Step::Create => {
            match renameat_with(dir, temporary, dir, name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => {
                    return Err(Fault::new(
                        Reason::NotOurs,
                        format!(
                            "{path} was made by somebody else while Plumb was writing it; move it away (mv {path} {path}.orig)"
                        ),
                    ));
                }
                // Some network file systems have no such flag.
                Err(Errno::INVAL) => {}
                Err(e) => return Err(trouble::fault(e, "rename to", path)),
            }
        }
        Step::Replace(FileType::Directory) if plan.wish.content.is_some() => {
            match unlinkat(dir, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::BUSY) => {
                    return Err(Fault::new(
                        Reason::BadPath,
                        format!(
                            "a directory that is not empty stands at {path}; Plumb removes none: move it away (mv {path} {path}.orig)"
                        ),
                    ));
                }
                Err(e) => return Err(trouble::fault(e, "replace", path)),
            }
        }
        Step::Replace(_) if plan.wish.content.is_none() => {
            match unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(trouble::fault(e, "replace", path)),
            }
        }
        _ => {}
    }
    renameat(dir, temporary, dir, name).map_err(|e| trouble::fault(e, "rename to", path))
}

/// Puts a temporary in the place of what was kept. If somebody has put something else there since, that is kept too.
fn exchange(
    dir: &OwnedFd,
    temporary: &str,
    plan: &Planned<'_>,
    kept: Kept,
    originals: &Originals,
) -> Result<(), Fault> {
    let Job { name, path, .. } = plan.job;
    let swap = || renameat_with(dir, temporary, dir, name, RenameFlags::EXCHANGE);
    let look = |name: &str| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    match swap() {
        Ok(()) => {}
        // Some network file systems cannot do this in one step.
        Err(Errno::INVAL) if look(name).is_ok_and(|stat| Kept::of(&stat) == kept) => {
            return renameat(dir, temporary, dir, name)
                .map_err(|e| trouble::fault(e, "rename to", path));
        }
        Err(Errno::INVAL | Errno::NOENT) => return Err(swapped(plan)),
        Err(e) => return Err(trouble::fault(e, "rename to", path)),
    }
    let displaced = look(temporary).map_err(|e| trouble::fault(e, "look at", path))?;
    if Kept::of(&displaced) != kept {
        let is_file = FileType::from_raw_mode(displaced.st_mode) == FileType::RegularFile;
        let kept = if is_file {
            originals.keep(dir, (path, temporary), inode(&displaced))
        } else {
            Err(swapped(plan))
        };
        if let Err(fault) = kept {
            swap().map_err(|e| trouble::fault(e, "put back", path))?;
            return Err(fault);
        }
    }
    super::crash::point("swapped");
    unlinkat(dir, temporary, AtFlags::empty()).map_err(|e| trouble::fault(e, "replace", path))
}

/// Whether the folder still stands at its path: what was written into one that was moved away is not where it should be.
fn still_there(folder: &Folder, parent: &str) -> Result<(), Fault> {
    let now = parents::open(parent, false).map_err(|e| parents::explain(e, parent, ""))?;
    let stat = fstat(&now).map_err(|e| trouble::fault(e, "look at", parent))?;
    if inode(&stat) == folder.inode {
        Ok(())
    } else {
        Err(Fault::new(
            Reason::Io,
            format!(
                "the directory {parent} was replaced while Plumb wrote to it; it is tried again"
            ),
        ))
    }
}
