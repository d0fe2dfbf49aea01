//! The drivers for `file` and `directory`: they keep single paths as their specs say.
//!
//! Every path is reached through a handle of its folder that was opened without following a symbolic link, and
//! everything after that is relative to this handle and refuses links too. Nothing is ever removed recursively, and
//! nothing that Plumb does not own is overwritten unless it is adopted, and then it is kept. The agent calls them through
//! [`Driver`](crate::Driver).
//!
//! Reading order: `parents` opens folders, `look` compares, `found` describes what is not Plumb's, `originals` keeps it,
//! `write` changes, `remove` removes.

mod crash;
mod found;
mod look;
mod originals;
mod parallel;
mod parents;
mod remove;
mod users;
mod write;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;
use std::path::PathBuf;

use plumb_model::{Action, Address, Depth, Fault, Found, Observation, ResourceKind};
use plumb_model::{condition::Reason, observation::Difference};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::io::Errno;

use crate::blobs::Blobs;
use crate::host::Host;
use crate::owned::{Change, Owned};
use crate::{Driver, Target};
use found::{Told, found};
use look::{Seen, Thing, Wish};
use originals::Originals;
use users::Users;

/// The driver for regular files.
#[derive(Debug)]
pub struct FileDriver(Nodes);

/// The driver for directories.
#[derive(Debug)]
pub struct DirectoryDriver(Nodes);

impl FileDriver {
    /// Touches nothing yet: the ownership ledger is opened with the first question, so that a trouble with it becomes
    /// a condition of the resources.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self(Nodes::new(host, ResourceKind::File))
    }
}

impl DirectoryDriver {
    /// Touches nothing yet; see [`FileDriver::new`].
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self(Nodes::new(host, ResourceKind::Directory))
    }
}

impl Driver for FileDriver {
    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>> {
        self.0.observe(targets, depth)
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        self.0.act(work)
    }
}

impl Driver for DirectoryDriver {
    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>> {
        self.0.observe(targets, depth)
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        self.0.act(work)
    }
}

/// How many folders one round holds open at once. A process may have 1,024 files open by default.
const MAX_FOLDERS: usize = 256;

type Answers = Vec<Option<Result<Observation, Fault>>>;

/// What files and directories have in common: single paths in the file system.
#[derive(Debug)]
struct Nodes {
    kind: ResourceKind,
    data: PathBuf,
    blobs: Blobs,
    originals: Originals,
    owned: Option<Owned>,
    seen: Seen,
    told: Told,
}

/// One path of a batch.
#[derive(Debug, Clone, Copy)]
struct Job<'a> {
    /// Its place among the questions.
    index: usize,
    target: Target<'a>,
    path: &'a str,
    parent: &'a str,
    name: &'a str,
    /// What stands there may be taken over.
    adopt: bool,
}

impl<'a> Job<'a> {
    fn of(index: usize, target: &Target<'a>) -> Result<Self, Fault> {
        let path = &*target.address.name;
        let (parent, name) = parents::split(path)?;
        Ok(Self {
            index,
            target: *target,
            path,
            parent,
            name,
            adopt: false,
        })
    }
}

/// Whether a path is Plumb's, and by whose claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    /// This address owns it.
    Mine {
        created: bool,
    },
    /// Another address on this machine owned it; the blueprint moved it from one owner to another.
    Moved {
        created: bool,
    },
    None,
}

fn claim(owned: &Owned, job: &Job<'_>) -> Claim {
    match owned.holders(job.path) {
        [] => Claim::None,
        holders => match holders.iter().find(|h| h.address == *job.target.address) {
            Some(holder) => Claim::Mine {
                created: holder.created,
            },
            None => Claim::Moved {
                created: holders.iter().any(|h| h.created),
            },
        },
    }
}

/// The changes that make a path this address's own, and nobody else's.
fn own(owned: &Owned, job: &Job<'_>, created: bool, changes: &mut Vec<Change>) {
    for holder in owned.holders(job.path) {
        if holder.address != *job.target.address {
            changes.push(Change::Forget {
                address: holder.address.clone(),
                path: job.path.into(),
            });
        }
    }
    changes.push(Change::Own {
        address: job.target.address.clone(),
        path: job.path.into(),
        created,
    });
}

fn forget(job: &Job<'_>) -> Change {
    Change::Forget {
        address: job.target.address.clone(),
        path: job.path.into(),
    }
}

fn as_it_should_be() -> Observation {
    Observation::Present {
        differs: Vec::new(),
    }
}

impl Nodes {
    fn new(host: &Host, kind: ResourceKind) -> Self {
        Self {
            kind,
            data: host.data.clone(),
            blobs: Blobs::new(&host.data),
            originals: Originals::new(&host.data, kind),
            owned: None,
            seen: Seen::default(),
            told: Told::default(),
        }
    }

    /// Opens the ledger if it is not, and then removes the temporaries that a crash left.
    fn open(&mut self) -> Result<(), Fault> {
        if self.owned.is_none() {
            let owned = Owned::open(&self.data, self.kind).map_err(|e| Fault::from(&e))?;
            sweep(&owned, self.kind);
            self.owned = Some(owned);
        }
        Ok(())
    }

    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>> {
        if let Err(fault) = self.open() {
            return targets.iter().map(|_| Err(fault.clone())).collect();
        }
        let Some(owned) = self.owned.as_mut() else {
            return Vec::new();
        };
        let mut answers: Answers = vec![None; targets.len()];
        let mut jobs = jobs(targets.iter().enumerate(), &mut answers);
        prove_unclaimed(owned, targets.iter(), &mut answers);
        // One folder after the other, so that each is opened once and no more than one is held open.
        jobs.sort_by_key(|job| job.parent);
        let mut users = Users::default();
        let mut changes = Vec::new();
        let mut claimed = Vec::new();
        let mut folder: Option<(&str, Result<OwnedFd, Errno>)> = None;
        for job in &jobs {
            let dir = match &folder {
                Some((path, dir)) if *path == job.parent => dir,
                _ => {
                    &folder
                        .insert((job.parent, parents::open(job.parent, false)))
                        .1
                }
            };
            let before = changes.len();
            let answer = match (dir, job.target.spec) {
                // What was never claimed was never made, whatever stands in the way to it.
                (_, None) if !matches!(claim(owned, job), Claim::Mine { .. }) => {
                    Ok(Observation::Absent)
                }
                // What has no folder is not there. That the folder must be made first, acting on it will say.
                (Err(Errno::NOENT | Errno::NOTDIR), Some(_)) => Ok(Observation::Absent),
                (Err(Errno::NOENT | Errno::NOTDIR), None) => {
                    observe_left_over(owned, None, job, &mut changes)
                }
                (Err(e), None) => Err(parents::explain_left_over(*e, job.parent, job.name)),
                (Err(e), Some(_)) => Err(parents::explain(*e, job.parent, job.name)),
                (Ok(dir), None) => observe_left_over(owned, Some(dir), job, &mut changes),
                (Ok(dir), Some(spec)) => Wish::of(spec, job.path, &mut users)
                    .and_then(|wish| {
                        look::look(dir, (job.path, job.name), &wish, depth, &mut self.seen)
                    })
                    .map(|look| {
                        let told = &mut self.told;
                        observation((owned, dir, job), look, &mut users, told, &mut changes)
                    }),
            };
            if changes.len() > before {
                claimed.push(job.index);
            }
            answers[job.index] = Some(answer);
        }
        if let Err(error) = owned.append(&changes) {
            let fault = Fault::from(&error);
            for index in claimed {
                answers[index] = Some(Err(fault.clone()));
            }
        }
        finish(answers)
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        if let Err(fault) = self.open() {
            return work.iter().map(|_| Err(fault.clone())).collect();
        }
        let mut answers: Answers = vec![None; work.len()];
        let all = jobs(
            work.iter().map(|(target, _)| target).enumerate(),
            &mut answers,
        );
        if let Some(owned) = &self.owned {
            prove_unclaimed(owned, work.iter().map(|(target, _)| target), &mut answers);
        }
        let (mut writes, mut removes, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        for mut job in all {
            match (&work[job.index].1, job.target.spec) {
                (Action::Write, Some(spec)) => writes.push((job, spec)),
                (Action::Adopt, Some(spec)) => {
                    job.adopt = true;
                    writes.push((job, spec));
                }
                (Action::Move { from }, _) => moves.push((job, from.as_slice())),
                (Action::Remove, _) => removes.push(job),
                (action, _) => {
                    answers[job.index] = Some(Err(Fault::new(
                        Reason::Io,
                        format!("{action:?} is nothing that can be done to {}", job.path),
                    )));
                }
            }
        }
        // Inner directories go before outer ones, and come after them.
        let kind = self.kind;
        let depth = |path: &str| match kind {
            ResourceKind::Directory => path.bytes().filter(|b| *b == b'/').count(),
            _ => 0,
        };
        removes.sort_by_key(|job| (std::cmp::Reverse(depth(job.path)), job.parent));
        writes.sort_by_key(|(job, _)| (depth(job.path), job.parent));
        self.take_over(&moves, &mut answers);
        for round in removes.chunk_by(|a, b| depth(a.path) == depth(b.path)) {
            self.remove(round, &mut answers);
        }
        for level in writes.chunk_by(|(a, _), (b, _)| depth(a.path) == depth(b.path)) {
            let mut rest = level;
            while !rest.is_empty() {
                let mut folders = 0;
                let mut last = None;
                let end = rest.iter().position(|(job, _)| {
                    folders += usize::from(last.replace(job.parent) != Some(job.parent));
                    folders > MAX_FOLDERS
                });
                let (round, after) = rest.split_at(end.unwrap_or(rest.len()));
                self.write(round, &mut answers);
                rest = after;
            }
        }
        finish(answers)
    }
}

impl Nodes {
    /// Makes the new addresses of a renamed owner the holders of what the old ones held. The paths stay what they are.
    fn take_over(&mut self, moves: &[(Job<'_>, &[Address])], answers: &mut Answers) {
        let Some(owned) = self.owned.as_mut() else {
            return;
        };
        let mut changes = Vec::new();
        for (job, from) in moves {
            let held = |by: &Address| owned.holders(job.path).iter().find(|h| h.address == *by);
            if held(job.target.address).is_none()
                && let Some(holder) = from.iter().find_map(held)
            {
                own(owned, job, holder.created, &mut changes);
            }
        }
        let failed = owned.append(&changes).err().map(|e| Fault::from(&e));
        let targets: Vec<Target<'_>> = moves.iter().map(|(job, _)| job.target).collect();
        let seen = match failed {
            Some(fault) => moves.iter().map(|_| Err(fault.clone())).collect(),
            None => self.observe(&targets, Depth::Quick),
        };
        for ((job, _), seen) in moves.iter().zip(seen) {
            answers[job.index] = Some(seen);
        }
    }
}

fn jobs<'a, 'b: 'a>(
    targets: impl Iterator<Item = (usize, &'a Target<'b>)>,
    answers: &mut Answers,
) -> Vec<Job<'b>> {
    targets
        .filter_map(|(index, target)| match Job::of(index, target) {
            Ok(job) => Some(job),
            Err(fault) => {
                answers[index] = Some(Err(fault));
                None
            }
        })
        .collect()
}

/// What is to go and cannot even be a path was never made.
fn prove_unclaimed<'a, 'b: 'a>(
    owned: &Owned,
    targets: impl Iterator<Item = &'a Target<'b>>,
    answers: &mut Answers,
) {
    for (target, answer) in targets.zip(answers) {
        if matches!(answer, Some(Err(_)))
            && target.spec.is_none()
            && owned.holders(&target.address.name).is_empty()
        {
            *answer = Some(Ok(Observation::Absent));
        }
    }
}

fn finish(answers: Answers) -> Vec<Result<Observation, Fault>> {
    answers
        .into_iter()
        .map(|answer| {
            answer.expect("each question was put into exactly one round, which answers it")
        })
        .collect()
}

/// Describes what stands at a managed path, whoever made it; none if nothing does or it cannot be told. It tells no content
/// that not everybody on the machine may read.
#[must_use]
pub fn found_at(path: &str) -> Option<Found> {
    let (parent, name) = parents::split(path).ok()?;
    let dir = parents::open(parent, false).ok()?;
    let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let names = (path, parent, name);
    let (mut users, mut told) = (Users::default(), Told::default());
    Some(found(&dir, names, &stat, &mut users, &mut told))
}

/// Whether what an address owned is still there. What is gone is forgotten, so that a file that somebody else makes
/// there later is not taken for Plumb's.
fn observe_left_over(
    owned: &Owned,
    dir: Option<&OwnedFd>,
    job: &Job<'_>,
    changes: &mut Vec<Change>,
) -> Result<Observation, Fault> {
    if !matches!(claim(owned, job), Claim::Mine { .. }) {
        return Ok(Observation::Absent);
    }
    let there = match dir {
        Some(dir) => look::exists(dir, job.path, job.name)?,
        None => false,
    };
    if there {
        return Ok(as_it_should_be());
    }
    changes.push(forget(job));
    Ok(Observation::Absent)
}

/// Puts what was seen into the words of an observation, and takes over what is already as it should be: that loses nothing,
/// and an agent that has lost its notes finds its own files again by it.
fn observation(
    (owned, dir, job): (&Owned, &OwnedFd, &Job<'_>),
    look: Option<Thing>,
    users: &mut Users,
    told: &mut Told,
    changes: &mut Vec<Change>,
) -> Observation {
    let Some(thing) = look else {
        told.forget(job.path);
        return Observation::Absent;
    };
    let differs: Vec<Difference> = thing.differs.clone();
    match claim(owned, job) {
        Claim::Mine { .. } => {}
        // From now on the new owner's: the old one's tombstone must not remove it.
        Claim::Moved { created } => own(owned, job, created, changes),
        Claim::None if differs.is_empty() => own(owned, job, false, changes),
        Claim::None => {
            let names = (job.path, job.parent, job.name);
            return Observation::Foreign {
                what: thing.what(),
                found: Some(Box::new(found(dir, names, &thing.stat, users, told))),
            };
        }
    }
    told.forget(job.path);
    Observation::Present { differs }
}

/// Removes the temporaries of owned paths: left by a crash between writing and renaming. What cannot be removed now
/// stays until its path is written or removed.
fn sweep(owned: &Owned, kind: ResourceKind) {
    let mut folders: HashMap<&str, Option<OwnedFd>> = HashMap::new();
    for path in owned.paths() {
        let Ok((parent, _)) = parents::split(path) else {
            continue;
        };
        if folders.len() >= MAX_FOLDERS {
            folders.clear();
        }
        let dir = folders
            .entry(parent)
            .or_insert_with(|| parents::open(parent, false).ok());
        if let Some(dir) = dir {
            discard(dir, &owned.temporary(path), kind);
        }
    }
}

/// Removes a temporary, if it is there.
fn discard(dir: &OwnedFd, temporary: &str, kind: ResourceKind) {
    let flags = match kind {
        ResourceKind::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    let _ = unlinkat(dir, temporary, flags);
}
