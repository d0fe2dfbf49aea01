//! The mark of a complete artifact: a list of its members, by which a full check finds what was deleted or edited.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use plumb_model::{Hash, Mode};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, OFlags, ResolveFlags, fstat, openat2, readlinkat, statat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::unpack::{parent_of, text};

/// The format of marks that this version writes; another is taken as a difference, and unpacked again.
const FORMAT: u32 = 1;

/// One member. Its path is kept as bytes, since names need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) what: What,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Directory,
    Link(Vec<u8>),
    File { mode: Mode, size: u64, digest: Hash },
}

/// Writes a mark durably: beside, synced, renamed, the folder synced.
pub(super) fn write(path: &Path, entries: &[Entry]) -> io::Result<()> {
    let beside = path.with_extension("complete.partial-mark");
    let written = (|| {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        let mut out = BufWriter::new(file);
        let mut hasher = blake3::Hasher::new();
        let head = format!("plumb-artifact {FORMAT}\n");
        hasher.update(head.as_bytes());
        out.write_all(head.as_bytes())?;
        for entry in entries {
            let mut line = serde_json::to_vec(entry)?;
            line.push(b'\n');
            hasher.update(&line);
            out.write_all(&line)?;
        }
        writeln!(out, "{}", hasher.finalize().to_hex())?;
        out.into_inner()?.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Reads a mark.
///
/// # Errors
/// `InvalidData` if it is damaged or of another format.
pub(super) fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "the list of members is damaged");
    let bytes = fs::read(path)?;
    // The last line is the digest of all before it: 64 hex digits and a line feed.
    let (body, sum) = bytes
        .split_at_checked(bytes.len().wrapping_sub(65))
        .ok_or_else(bad)?;
    if sum.strip_suffix(b"\n") != Some(blake3::hash(body).to_hex().as_bytes()) {
        return Err(bad());
    }
    let mut lines = body.split(|b| *b == b'\n');
    if lines.next() != Some(format!("plumb-artifact {FORMAT}").as_bytes()) {
        return Err(bad());
    }
    lines
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(|_| bad()))
        .collect()
}

/// The first member that is not as it was unpacked, in words. What was added beside them is not looked at.
pub(super) fn first_difference(root: &OwnedFd, entries: &[Entry]) -> io::Result<Option<String>> {
    for entry in entries {
        if let Some(found) = difference(root, entry)? {
            return Ok(Some(format!("{} {found}", text(&entry.path))));
        }
    }
    Ok(None)
}

/// How a member differs from what was unpacked, if it does.
pub(super) fn difference(root: &OwnedFd, entry: &Entry) -> io::Result<Option<&'static str>> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let none = rustix::fs::Mode::empty();
    let (parent, name) = parent_of(&entry.path);
    let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = match openat2(root, parent, place, none, beneath) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Some("is missing")),
        Err(Errno::LOOP | Errno::NOTDIR) => {
            return Ok(Some("lies behind something that is no directory"));
        }
        Err(e) => return Err(e.into()),
    };
    let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(Some("is missing")),
        Err(e) => return Err(e.into()),
    };
    let mode = stat.st_mode & 0o7777;
    match (&entry.what, FileType::from_raw_mode(stat.st_mode)) {
        (What::Directory, FileType::Directory) => Ok((mode != 0o755).then_some("has another mode")),
        (What::Link(target), FileType::Symlink) => {
            let found = readlinkat(&dir, name, Vec::new())?;
            Ok((found.as_bytes() != target.as_slice()).then_some("leads elsewhere"))
        }
        (
            What::File {
                mode: wanted,
                size,
                digest,
            },
            FileType::RegularFile,
        ) => {
            if u64::try_from(stat.st_size) != Ok(*size) {
                return Ok(Some("was edited"));
            }
            if mode != wanted.0 {
                return Ok(Some("has another mode"));
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = openat2(&dir, name, flags, none, beneath)?;
            if FileType::from_raw_mode(fstat(&fd)?.st_mode) != FileType::RegularFile {
                return Ok(Some("was replaced"));
            }
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::from(fd).take(size.saturating_add(1)))?;
            let found = Hash(*hasher.finalize().as_bytes());
            Ok((found != *digest).then_some("was edited"))
        }
        _ => Ok(Some("was replaced by something else")),
    }
}
