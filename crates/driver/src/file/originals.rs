//! Keeps what Plumb did not make and is about to change or remove: a copy in DATA/originals, with whose it was.
//!
//! Layout: `originals/HASH/N/` with `about.json` and, of a file, `content`; HASH is the BLAKE3 of kind and path, as
//! `about.json` says in words. N counts up, so a copy never takes the place of another. Plumb never removes one, and puts
//! none back by itself. All of it is the agent's user's alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_model::{Fault, Hash, Mode, ResourceKind, Timestamp, condition::Reason};
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, Stat, fstat, openat};
use serde::{Deserialize, Serialize};

use super::look::{CHUNK_BYTES, inode, wide};
use crate::trouble;

/// The name of the description.
const ABOUT: &str = "about.json";
/// The name of the copy.
const CONTENT: &str = "content";

/// What was there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    kind: ResourceKind,
    path: String,
    mode: Mode,
    uid: u32,
    gid: u32,
    size: Option<u64>,
    digest: Option<Hash>,
    kept_at: Timestamp,
}

impl About {
    /// Whether both describe the same thing, whenever it was kept.
    fn is_like(&self, other: &Self) -> bool {
        let at = self.kept_at;
        *self
            == Self {
                kept_at: at,
                ..other.clone()
            }
    }
}

/// By what a file is known to be the one that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kept {
    inode: (u64, u64),
    size: u64,
    modified: (u64, u64),
}

impl Kept {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: inode(stat),
            size: wide(stat.st_size),
            modified: (wide(stat.st_mtime), wide(stat.st_mtime_nsec)),
        }
    }
}

/// The folder of originals.
#[derive(Debug, Clone)]
pub(super) struct Originals {
    folder: PathBuf,
    kind: ResourceKind,
}

impl Originals {
    pub(super) fn new(data: &Path, kind: ResourceKind) -> Self {
        Self {
            folder: data.join("originals"),
            kind,
        }
    }

    fn of(&self, path: &str) -> PathBuf {
        let hash = Hash::of(format!("{} {path}", self.kind).as_bytes());
        self.folder.join(hash.to_string())
    }

    /// The highest number that was given, if any was.
    fn newest(&self, path: &str) -> Option<u64> {
        fs::read_dir(self.of(path))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .max()
    }

    /// Where the newest thing that was kept of a path is, from the agent's data folder on.
    pub(super) fn place(&self, path: &str) -> Option<String> {
        let newest = self.newest(path)?;
        let home = self.of(path);
        let hash = home.file_name()?.to_string_lossy();
        Some(format!("originals/{hash}/{newest}"))
    }

    /// Whether anything was ever kept of a path.
    pub(super) fn any(&self, path: &str) -> bool {
        self.newest(path).is_some()
    }

    /// Keeps what stands at `name` in a folder, durably; what is kept already is not kept twice.
    ///
    /// # Errors
    /// If it is not the thing that was looked at, is changed meanwhile, or there is no room for a copy. Then nothing was
    /// touched.
    pub(super) fn keep(
        &self,
        dir: &OwnedFd,
        (path, name): (&str, &str),
        looked_at: (u64, u64),
    ) -> Result<Kept, Fault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = openat(dir, name, flags, rustix::fs::Mode::empty())
            .map_err(|e| trouble::fault(e, "keep a copy of", path))?;
        let stat = fstat(&fd).map_err(|e| trouble::fault(e, "look at", path))?;
        let kept = Kept::of(&stat);
        if kept.inode != looked_at {
            return Err(moved_on(path));
        }
        let home = self.of(path);
        let failed = |e: &io::Error| {
            let at = home.display().to_string();
            trouble::fault_of(e, &format!("keep a copy of {path} in"), &at)
        };
        self.copy(path, &home, File::from(fd), &stat)
            .map_err(|e| failed(&e))?
            .then_some(kept)
            .ok_or_else(|| moved_on(path))
    }

    /// Says whether the copy is whole: whether nobody wrote to the original meanwhile.
    fn copy(&self, path: &str, home: &Path, mut source: File, stat: &Stat) -> io::Result<bool> {
        DirBuilder::new().recursive(true).mode(0o700).create(home)?;
        let newest = self.newest(path);
        let number = newest.unwrap_or(0) + 1;
        let partial = home.join(format!("{number}.partial"));
        remove_tree(&partial)?;
        DirBuilder::new().mode(0o700).create(&partial)?;
        let mut digest = None;
        if self.kind == ResourceKind::File {
            let mut copy = fresh(&partial.join(CONTENT))?;
            let (length, found) = copy_all(&mut source, &mut copy)?;
            let after = fstat(&source)?;
            if length != wide(stat.st_size) || Kept::of(&after) != Kept::of(stat) {
                remove_tree(&partial)?;
                return Ok(false);
            }
            copy.sync_all()?;
            digest = Some(found);
        }
        let about = About {
            kind: self.kind,
            path: path.to_owned(),
            mode: Mode(stat.st_mode & 0o7777),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: digest.map(|_| wide(stat.st_size)),
            digest,
            kept_at: Timestamp::now(),
        };
        let before = newest.and_then(|n| read(&home.join(n.to_string())));
        if before.is_some_and(|before| before.is_like(&about)) {
            // A crash came between keeping and writing; this is the second try.
            remove_tree(&partial)?;
            return Ok(true);
        }
        let mut file = fresh(&partial.join(ABOUT))?;
        file.write_all(&serde_json::to_vec_pretty(&about)?)?;
        file.sync_all()?;
        File::open(&partial)?.sync_all()?;
        super::crash::point("copied");
        fs::rename(&partial, home.join(number.to_string()))?;
        // The folders above may be as new as this one.
        for folder in home.ancestors().take(3) {
            File::open(folder)?.sync_all()?;
        }
        Ok(true)
    }
}

fn read(folder: &Path) -> Option<About> {
    let about: About = serde_json::from_slice(&fs::read(folder.join(ABOUT)).ok()?).ok()?;
    let length = fs::symlink_metadata(folder.join(CONTENT)).map(|m| m.size());
    (length.ok() == about.size).then_some(about)
}

fn moved_on(path: &str) -> Fault {
    Fault::new(
        Reason::Io,
        format!("{path} was changed by somebody else while it was kept; it is tried again"),
    )
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn copy_all(source: &mut File, copy: &mut File) -> io::Result<(u64, Hash)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((length, Hash(*hasher.finalize().as_bytes()))),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                copy.write_all(&buffer[..n])?;
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
