//! Removes what Plumb owns, and nothing else.

use plumb_model::{Fault, Observation, ResourceKind};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, fsync, statat, unlinkat};
use rustix::io::Errno;

use super::look::inode;
use super::originals::Originals;
use super::{Answers, Claim, Job, Nodes, claim, discard, forget, parents};
use crate::trouble;

impl Nodes {
    /// Removes the paths of one round, durably, and forgets them.
    ///
    /// Guarantees: only owned paths are touched; a file that Plumb found there and not made is kept first, unless it was before; a directory goes only if Plumb made it and it is empty, and otherwise
    /// stays and is nobody's from then on; a path is forgotten only after its removal is on the disk.
    pub(super) fn remove(&mut self, round: &[Job<'_>], answers: &mut Answers) {
        let Some(owned) = self.owned.as_mut() else {
            return;
        };
        let mut gone = Vec::new();
        for jobs in round.chunk_by(|a, b| a.parent == b.parent) {
            let folder = parents::open(jobs[0].parent, true);
            let mut touched = Vec::new();
            for job in jobs {
                let Claim::Mine { created } = claim(owned, job) else {
                    answers[job.index] = Some(Ok(Observation::Absent));
                    continue;
                };
                let removed = match &folder {
                    // Its folder is gone, and it went along.
                    Err(Errno::NOENT | Errno::NOTDIR) => Ok(Observation::Absent),
                    Err(e) => Err(parents::explain_left_over(*e, job.parent, job.name)),
                    Ok(dir) => {
                        discard(dir, &owned.temporary(job.path), self.kind);
                        keep_first(&self.originals, dir, job, self.kind, created)
                            .and_then(|()| remove_one(dir, job, self.kind, created))
                            .map(|left| tell(left, &self.originals, job, self.kind, created))
                    }
                };
                match removed {
                    Ok(seen) => touched.push((job, seen)),
                    Err(fault) => answers[job.index] = Some(Err(fault)),
                }
            }
            let synced = match &folder {
                Ok(dir) if !touched.is_empty() => fsync(dir),
                _ => Ok(()),
            };
            for (job, seen) in touched {
                match synced {
                    Ok(()) => gone.push((job, seen)),
                    Err(e) => {
                        answers[job.index] =
                            Some(Err(trouble::fault(e, "sync the directory", job.parent)));
                    }
                }
            }
        }
        let changes: Vec<_> = gone.iter().map(|(job, _)| forget(job)).collect();
        let failed = owned.append(&changes).err().map(|e| Fault::from(&e));
        for (job, seen) in gone {
            self.seen.forget(job.path);
            answers[job.index] = Some(match &failed {
                None => Ok(seen),
                Some(fault) => Err(fault.clone()),
            });
        }
    }
}

/// Keeps a file that was there before Plumb, and was as the blueprint says, so that nothing was kept of it yet.
fn keep_first(
    originals: &Originals,
    dir: &OwnedFd,
    job: &Job<'_>,
    kind: ResourceKind,
    created: bool,
) -> Result<(), Fault> {
    if created || kind != ResourceKind::File || originals.any(job.path) {
        return Ok(());
    }
    match statat(dir, job.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => originals
            .keep(dir, (job.path, job.name), inode(&stat))
            .map(|_| ()),
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(trouble::fault(e, "look at", job.path)),
    }
}

/// What is told of a removal: what stays at the path and why, or where what was there before Plumb is kept.
fn tell(
    left: Option<String>,
    originals: &Originals,
    job: &Job<'_>,
    kind: ResourceKind,
    created: bool,
) -> Observation {
    let kept = (kind == ResourceKind::File && !created)
        .then(|| originals.place(job.path))
        .flatten()
        .map(|place| {
            format!("what was there before Plumb is kept in {place} in the agent's data folder")
        });
    let note = match (left, kept) {
        (None, None) => return Observation::Absent,
        (Some(left), None) => format!("let go: {left}"),
        (Some(left), Some(kept)) => format!("let go: {left}; {kept}"),
        (None, Some(kept)) => format!("removed; {kept}"),
    };
    Observation::Gone { note }
}

/// Says what stays, where something does.
fn remove_one(
    dir: &OwnedFd,
    job: &Job<'_>,
    kind: ResourceKind,
    created: bool,
) -> Result<Option<String>, Fault> {
    let stat = match statat(dir, job.name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(trouble::fault(e, "look at", job.path)),
    };
    let found = FileType::from_raw_mode(stat.st_mode);
    let flags = match (kind, found) {
        // A directory where the file was is somebody else's, and so is what stands where the directory was.
        (ResourceKind::File, FileType::Directory) => return Ok(not_ours(found)),
        (ResourceKind::File, _) => AtFlags::empty(),
        (_, FileType::Directory) if created => AtFlags::REMOVEDIR,
        (_, FileType::Directory) => return left("it was there before Plumb, and stays"),
        _ => return Ok(not_ours(found)),
    };
    match unlinkat(dir, job.name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(None),
        Err(Errno::NOTEMPTY | Errno::EXIST) => left("it holds files that are not Plumb's"),
        Err(Errno::BUSY) => left("something is mounted there"),
        Err(e) => Err(trouble::fault(e, "remove", job.path)),
    }
}

fn left(why: &str) -> Result<Option<String>, Fault> {
    Ok(Some(why.to_owned()))
}

fn not_ours(found: FileType) -> Option<String> {
    let found = parents::type_name(found);
    Some(format!("{found} that is not Plumb's stands there"))
}
