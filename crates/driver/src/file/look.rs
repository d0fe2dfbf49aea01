//! Compares what stands at a path with what should, reading content only where its quick fingerprint moved.

use std::collections::HashMap;
use std::io::Read;
use std::time::{Duration, SystemTime};

use plumb_model::{Depth, DirectorySpec, Fault, FileContent, FileSpec, Hash, Mode, ResourceSpec};
use plumb_model::{condition::Reason, observation::Difference};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::parents::type_name;
use super::users::Users;
use crate::trouble;

/// A file whose ctime is this close to the time of looking could still change without its ctime moving, since the
/// kernel stamps files with a clock that ticks every 4 to 10 ms. Its content is read again next time, as git does.
const RACY: Duration = Duration::from_millis(20);

/// How much is read at a time, in bytes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// What should be at a path, with its users resolved.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish<'a> {
    pub(super) mode: u32,
    pub(super) owner: Option<(u32, &'a str)>,
    pub(super) group: Option<(u32, &'a str)>,
    /// None: it is a directory.
    pub(super) content: Option<&'a FileContent>,
}

impl<'a> Wish<'a> {
    pub(super) fn of(spec: &'a ResourceSpec, path: &str, users: &mut Users) -> Result<Self, Fault> {
        let (spec_path, mode, owner, group, content) = match spec {
            ResourceSpec::File(FileSpec {
                path,
                content,
                mode,
                owner,
                group,
                notify: _,
            }) => (path, mode, owner, group, Some(content)),
            ResourceSpec::Directory(DirectorySpec {
                path,
                mode,
                owner,
                group,
            }) => (path, mode, owner, group, None),
            other => {
                return Err(Fault::new(
                    Reason::Io,
                    format!("{path} is assigned as {}, which is no file", other.kind()),
                ));
            }
        };
        if spec_path != path {
            return Err(Fault::new(
                Reason::BadPath,
                format!("the address says {path}, but the spec says {spec_path}"),
            ));
        }
        let owner = match owner {
            Some(name) => Some((users.user(name)?, name.as_str())),
            None => None,
        };
        let group = match group {
            Some(name) => Some((users.group(name)?, name.as_str())),
            None => None,
        };
        Ok(Self {
            mode: mode.0,
            owner,
            group,
            content,
        })
    }
}

/// Something that stands at a path.
#[derive(Debug)]
pub(super) struct Thing {
    pub(super) kind: FileType,
    /// Identifies the inode: a handle that is opened later must be of the same one.
    pub(super) inode: (u64, u64),
    /// More names than one lead to it, so that changing it in place would change another file too.
    pub(super) linked: bool,
    pub(super) differs: Vec<Difference>,
    /// The type and the content are right; at most mode, owner and group differ.
    pub(super) content_right: bool,
    pub(super) stat: Stat,
    target: Option<String>,
}

impl Thing {
    /// Describes it for people.
    pub(super) fn what(&self) -> String {
        let (size, mode) = (self.stat.st_size, self.stat.st_mode & 0o7777);
        match (self.kind, &self.target) {
            (FileType::Symlink, Some(target)) => format!("a symbolic link to {target}"),
            (FileType::RegularFile, _) => {
                format!("a regular file of {size} bytes with mode {mode:04o}")
            }
            (kind, _) => format!("{} with mode {mode:04o}", type_name(kind)),
        }
    }
}

/// Which contents were found right, and by what fingerprint they are known again. 16 bytes for each path: a hash over
/// the fingerprint and the content's digest.
#[derive(Debug, Default)]
pub(super) struct Seen {
    marks: HashMap<Box<str>, [u8; 16]>,
}

impl Seen {
    fn mark(stat: &Stat, digest: Hash) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new();
        let (seconds, nanos) = ctime(stat);
        let mut bytes = [0; 9 * 8];
        for (slot, value) in bytes.chunks_exact_mut(8).zip([
            wide(stat.st_dev),
            wide(stat.st_ino),
            wide(stat.st_size),
            wide(stat.st_mtime),
            wide(stat.st_mtime_nsec),
            seconds,
            nanos,
            u64::from(stat.st_mode),
            (u64::from(stat.st_uid) << 32) | u64::from(stat.st_gid),
        ]) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
        hasher.update(&bytes);
        hasher.update(&digest.0);
        let mut mark = [0; 16];
        mark.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        mark
    }

    pub(super) fn forget(&mut self, path: &str) {
        self.marks.remove(path);
    }
}

/// The fields of `struct stat` have other widths on other machines; times before 1970 become 0, which only costs a read.
pub(super) fn wide(value: impl TryInto<u64>) -> u64 {
    value.try_into().unwrap_or(0)
}

fn ctime(stat: &Stat) -> (u64, u64) {
    (wide(stat.st_ctime), wide(stat.st_ctime_nsec))
}

pub(super) fn inode(stat: &Stat) -> (u64, u64) {
    (wide(stat.st_dev), wide(stat.st_ino))
}

/// Compares what stands at `name` in a folder with the wish.
///
/// # Errors
/// What keeps the agent from looking at all.
pub(super) fn look(
    dir: &OwnedFd,
    (path, name): (&str, &str),
    wish: &Wish<'_>,
    depth: Depth,
    seen: &mut Seen,
) -> Result<Option<Thing>, Fault> {
    // The clock is read before the file, so that whatever happens to the file from here on gets a later ctime.
    let now = SystemTime::now();
    let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => {
            seen.forget(path);
            return Ok(None);
        }
        Err(e) => return Err(trouble::fault(e, "look at", path)),
    };
    let kind = FileType::from_raw_mode(stat.st_mode);
    let target = (kind == FileType::Symlink)
        .then(|| readlinkat(dir, name, Vec::new()).ok())
        .flatten()
        .map(|t| t.to_string_lossy().into_owned());
    let mut thing = Thing {
        kind,
        inode: inode(&stat),
        linked: kind == FileType::RegularFile && wide(stat.st_nlink) > 1,
        differs: Vec::new(),
        content_right: false,
        stat,
        target,
    };
    let wanted = match wish.content {
        Some(_) => FileType::RegularFile,
        None => FileType::Directory,
    };
    if kind != wanted {
        let found = thing.what();
        thing.differs.push(difference("type", found));
        return Ok(Some(thing));
    }
    attributes(&stat, wish, &mut thing.differs);
    let mode_differs = stat.st_mode & 0o7777 != wish.mode;
    thing.content_right = true;
    if let Some(content) = wish.content {
        let found = if wide(stat.st_size) == content.size() {
            let racy = is_racy(&stat, now);
            match content_of(dir, (path, name), (&stat, racy), content, depth, seen) {
                // Somebody took the right to read it away; writing it anew gives it back.
                Err(Errno::ACCESS) if mode_differs => Some("it cannot be read".to_owned()),
                Err(e) => return Err(trouble::fault(e, "read", path)),
                Ok(found) => found,
            }
        } else {
            Some(format!(
                "{} bytes instead of {}",
                stat.st_size,
                content.size()
            ))
        };
        if let Some(found) = found {
            seen.forget(path);
            thing.content_right = false;
            thing.differs.insert(0, difference("content", found));
        }
    }
    Ok(Some(thing))
}

fn difference(field: &str, found: impl Into<String>) -> Difference {
    Difference {
        field: field.to_owned(),
        found: found.into(),
    }
}

fn attributes(stat: &Stat, wish: &Wish<'_>, differs: &mut Vec<Difference>) {
    let mode = stat.st_mode & 0o7777;
    if mode != wish.mode {
        differs.push(difference("mode", Mode(mode).to_string()));
    }
    for (field, wanted, found) in [
        ("owner", wish.owner, stat.st_uid),
        ("group", wish.group, stat.st_gid),
    ] {
        if let Some((number, _)) = wanted
            && number != found
        {
            differs.push(difference(field, found.to_string()));
        }
    }
}

fn is_racy(stat: &Stat, now: SystemTime) -> bool {
    let (seconds, nanos) = ctime(stat);
    let changed =
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    // A ctime in the future is one too: the clock was set back.
    now.duration_since(changed).map_or(true, |age| age < RACY)
}

/// How the content differs, if it does. The sizes are known to be the same.
fn content_of(
    dir: &OwnedFd,
    (path, name): (&str, &str),
    (stat, racy): (&Stat, bool),
    content: &FileContent,
    depth: Depth,
    seen: &mut Seen,
) -> Result<Option<String>, Errno> {
    let wanted = content.digest();
    let mark = Seen::mark(stat, wanted);
    if depth == Depth::Quick && seen.marks.get(path) == Some(&mark) {
        return Ok(None);
    }
    // Without NONBLOCK a pipe that was put there since would hold the agent up for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, rustix::fs::Mode::empty())?;
    let opened = fstat(&fd)?;
    if inode(&opened) != inode(stat) {
        return Ok(Some("it was replaced while it was read".to_owned()));
    }
    let found = hash(std::fs::File::from(fd), content.size())
        .map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    if found != wanted {
        return Ok(Some(format!("other content (BLAKE3 {})", found.short())));
    }
    if racy {
        seen.forget(path);
    } else {
        seen.marks.insert(path.into(), mark);
    }
    Ok(None)
}

/// Hashes a file, giving up one byte past the size that it should have.
fn hash(file: std::fs::File, size: u64) -> std::io::Result<Hash> {
    let mut hasher = blake3::Hasher::new();
    let mut file = file.take(size.saturating_add(1));
    // Small files, the many, take one small buffer.
    let room = usize::try_from(size).unwrap_or(CHUNK_BYTES) + 1;
    let mut buffer = vec![0; room.min(CHUNK_BYTES)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Hash(*hasher.finalize().as_bytes())),
            Ok(n) => {
                hasher.update(&buffer[..n]);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether anything stands at `name` in a folder.
pub(super) fn exists(dir: impl AsFd, path: &str, name: &str) -> Result<bool, Fault> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(trouble::fault(e, "look at", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: trust every fingerprint, or only those of the past.
    #[test]
    fn a_fingerprint_within_the_clocks_tick_or_from_the_future_is_not_trusted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = fstat(file.as_file()).unwrap();
        let (seconds, nanos) = ctime(&stat);
        let changed =
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos);
        for (millis, racy) in [
            (0, true),
            (10, true),
            (19, true),
            (20, false),
            (3_600_000, false),
        ] {
            let now = changed + Duration::from_millis(millis);
            assert_eq!(is_racy(&stat, now), racy, "{millis} ms after");
        }
        assert!(is_racy(&stat, changed - Duration::from_secs(3600)));
    }

    /// Mutation: leave a field out of the mark.
    #[test]
    fn the_mark_moves_with_every_field_of_the_fingerprint_and_with_the_digest() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stat = fstat(file.as_file()).unwrap();
        let base = Seen::mark(&stat, Hash::of(b"x"));
        assert_eq!(Seen::mark(&stat, Hash::of(b"x")), base);
        assert_ne!(Seen::mark(&stat, Hash::of(b"y")), base);
        type Change = fn(&mut Stat);
        let changes: [Change; 10] = [
            |s| s.st_dev += 1,
            |s| s.st_ino += 1,
            |s| s.st_size += 1,
            |s| s.st_mtime += 1,
            |s| s.st_mtime_nsec += 1,
            |s| s.st_ctime += 1,
            |s| s.st_ctime_nsec += 1,
            |s| s.st_mode ^= 1,
            |s| s.st_uid += 1,
            |s| s.st_gid += 1,
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut moved = stat;
            change(&mut moved);
            assert_ne!(Seen::mark(&moved, Hash::of(b"x")), base, "field {at}");
        }
    }
}
