//! Unpacks an archive beneath a folder, taking every member for hostile until it is checked.
//!
//! Each member is made relative to a handle of its parent, which is opened beneath the root without following a link.
//! Only what [`pack`](super::pack) writes is known: files, directories, symbolic links that stay inside, and long names.
//! Anything else refuses the archive. The archive's digest has been verified before.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use plumb_model::{Fault, Hash, Mode, condition::Reason};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FileType, OFlags, ResolveFlags, fchmod, fsync, mkdirat, openat, openat2, renameat,
    statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use tar::EntryType;

use super::mark::{self, Entry, What};
use super::{MAX_BYTES, safe};
use crate::trouble;

/// The name under which a member is put right before it is renamed; the space keeps it out of a repository's way.
const BESIDE: &[u8] = b".plumb repair";

/// Reads a whole archive and compares its digest and size; on return it stands at its start.
pub(super) fn verify(blob: &mut File, expected: Hash, size: u64) -> Result<(), Fault> {
    let read = (|| {
        blob.rewind()?;
        let length = blob.metadata()?.len();
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut *blob)?;
        blob.rewind()?;
        Ok((length, Hash(*hasher.finalize().as_bytes())))
    })();
    let (length, found) = read
        .map_err(|e: io::Error| trouble::fault_of(&e, "read", &format!("the blob {expected}")))?;
    if found != expected || length != size {
        return Err(Fault::new(
            Reason::BadContent,
            format!(
                "the archive {} has {length} bytes with the digest {}, not the {size} that were announced; it is fetched again",
                expected.short(),
                found.short()
            ),
        ));
    }
    Ok(())
}

/// Unpacks into an empty folder.
pub(super) fn fresh(
    blob: &mut File,
    root: &OwnedFd,
    at: &Path,
    max_members: usize,
) -> Result<Vec<Entry>, Fault> {
    Unpacker::new(root, at, max_members, false).run(blob)
}

/// Puts right what differs from the archive in a folder that was unpacked before. What is right keeps its inode.
pub(super) fn repair(
    blob: &mut File,
    root: &OwnedFd,
    at: &Path,
    max_members: usize,
) -> Result<Vec<Entry>, Fault> {
    let entries = Unpacker::new(root, at, max_members, true).run(blob)?;
    rustix::fs::syncfs(root).map_err(|e| trouble::fault(e, "sync", &at.display().to_string()))?;
    Ok(entries)
}

/// A member's folder (`.` for the root) and its name.
pub(super) fn parent_of(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".", path),
    }
}

/// A path for people.
pub(super) fn text(path: &[u8]) -> String {
    plumb_model::escape::line(&String::from_utf8_lossy(path)).into_owned()
}

fn refused(path: &[u8], why: &str) -> Fault {
    Fault::new(
        Reason::BadContent,
        format!("the archive is refused: its member {} {why}", text(path)),
    )
}

struct Unpacker<'a> {
    root: &'a OwnedFd,
    at: &'a Path,
    max_members: usize,
    repair: bool,
    entries: Vec<Entry>,
    names: HashSet<Vec<u8>>,
    bytes: u64,
    /// The folder that the member before was in: members come sorted.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Unpacker<'a> {
    fn new(root: &'a OwnedFd, at: &'a Path, max_members: usize, repair: bool) -> Self {
        Self {
            root,
            at,
            max_members,
            repair,
            entries: Vec::new(),
            names: HashSet::new(),
            bytes: 0,
            parent: None,
        }
    }

    fn failed(&self, e: Errno, path: &[u8]) -> Fault {
        trouble::fault(
            e,
            "unpack",
            &format!("{}/{}", self.at.display(), text(path)),
        )
    }

    fn run(mut self, blob: &mut File) -> Result<Vec<Entry>, Fault> {
        let broken = |e: io::Error| {
            Fault::new(
                Reason::BadContent,
                format!("the archive cannot be read: {e}"),
            )
        };
        blob.rewind().map_err(broken)?;
        let mut archive = tar::Archive::new(blob);
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        // Raw, since the crate itself would read long names of any length into memory.
        for member in archive.entries().map_err(broken)?.raw(true) {
            let mut member = member.map_err(broken)?;
            let header = member.header().clone();
            let kind = header.entry_type();
            let size = header.entry_size().map_err(broken)?;
            if matches!(kind, EntryType::GNULongName | EntryType::GNULongLink) {
                let slot = match kind {
                    EntryType::GNULongName => &mut long_name,
                    _ => &mut long_link,
                };
                if size > safe::MAX_PATH_BYTES as u64 + 1 || slot.is_some() {
                    return Err(refused(b"@LongLink", "is no usable long name"));
                }
                let mut name = Vec::new();
                member.read_to_end(&mut name).map_err(broken)?;
                if name.last() == Some(&0) {
                    name.pop();
                }
                *slot = Some(name);
                continue;
            }
            let path = long_name
                .take()
                .unwrap_or_else(|| header.path_bytes().into_owned());
            let link = long_link
                .take()
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
            self.member(&mut member, &header, path, link, size)?;
        }
        if long_name.is_some() || long_link.is_some() {
            return Err(refused(b"@LongLink", "belongs to no other member"));
        }
        Ok(self.entries)
    }

    fn member(
        &mut self,
        content: &mut impl Read,
        header: &tar::Header,
        mut path: Vec<u8>,
        link: Option<Vec<u8>>,
        size: u64,
    ) -> Result<(), Fault> {
        let kind = header.entry_type();
        let what = match kind {
            EntryType::Regular => "file",
            EntryType::Directory => {
                // Other packers end a directory's name with a slash.
                if path.len() > 1 && path.ends_with(b"/") {
                    path.pop();
                }
                "directory"
            }
            EntryType::Symlink => "link",
            EntryType::Link => return Err(refused(&path, "is a hard link")),
            EntryType::Char | EntryType::Block => return Err(refused(&path, "is a device node")),
            EntryType::Fifo => return Err(refused(&path, "is a named pipe")),
            _ => return Err(refused(&path, "is of a type that Plumb does not pack")),
        };
        safe::member(&path).map_err(|why| refused(&path, why))?;
        if self.entries.len() >= self.max_members {
            let why = format!(
                "is one more than the {} members that are allowed",
                self.max_members
            );
            return Err(refused(&path, &why));
        }
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > MAX_BYTES {
            return Err(refused(&path, "takes the archive past 1 GiB"));
        }
        if !self.names.insert(path.clone()) {
            return Err(refused(&path, "is in it twice"));
        }
        let what = match (what, link) {
            ("file", _) => {
                let bits = header.mode().map_err(|_| refused(&path, "has no mode"))?;
                let mode = if bits & 0o111 == 0 { 0o644 } else { 0o755 };
                self.file(content, &path, Mode(mode), size)?
            }
            (_, _) if size != 0 => return Err(refused(&path, "has content, and is no file")),
            ("directory", _) => self.directory(&path)?,
            (_, Some(target)) => {
                safe::link(&path, &target).map_err(|why| refused(&path, why))?;
                self.link(&path, target)?
            }
            (_, None) => return Err(refused(&path, "is a symbolic link without a target")),
        };
        self.entries.push(Entry { path, what });
        Ok(())
    }

    /// Opens the folder of a member. It must have come before, as a directory.
    fn open_parent(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, _) = parent_of(path);
        if self.parent.as_ref().is_some_and(|(open, _)| open == parent) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let beneath =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let none = rustix::fs::Mode::empty();
        let fd = openat2(self.root, parent, flags, none, beneath).map_err(|e| match e {
            Errno::LOOP => refused(path, "would be written through a symbolic link"),
            Errno::NOENT => refused(path, "comes before the directory that it is in"),
            Errno::NOTDIR => refused(path, "lies in something that is no directory"),
            e => self.failed(e, path),
        })?;
        self.parent = Some((parent.to_vec(), fd));
        Ok(())
    }

    fn dir(&self) -> &OwnedFd {
        match &self.parent {
            Some((_, fd)) => fd,
            None => self.root,
        }
    }

    fn made(&self, made: Result<(), Errno>, path: &[u8]) -> Result<(), Fault> {
        made.map_err(|e| match e {
            Errno::EXIST => refused(path, "is in it twice"),
            e => self.failed(e, path),
        })
    }

    /// In a repair: clears what stands in a member's place. It is beneath the agent's own folder.
    fn clear(&self, path: &[u8]) -> Result<(), Fault> {
        let (_, name) = parent_of(path);
        remove_all(self.dir(), name).map_err(|e| self.failed(e, path))
    }

    fn directory(&mut self, path: &[u8]) -> Result<What, Fault> {
        self.open_parent(path)?;
        let (_, name) = parent_of(path);
        let stands = |dir: &OwnedFd| {
            statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory)
        };
        if !(self.repair && stands(self.dir())) {
            if self.repair {
                self.clear(path)?;
            }
            self.made(mkdirat(self.dir(), name, rustix::fs::Mode::RWXU), path)?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        openat(self.dir(), name, flags, rustix::fs::Mode::empty())
            .and_then(|fd| fchmod(&fd, rustix::fs::Mode::from_raw_mode(0o755)))
            .map_err(|e| self.failed(e, path))?;
        Ok(What::Directory)
    }

    fn link(&mut self, path: &[u8], target: Vec<u8>) -> Result<What, Fault> {
        self.open_parent(path)?;
        let entry = Entry {
            path: path.to_vec(),
            what: What::Link(target),
        };
        if !(self.repair && self.is_right(&entry)?) {
            if self.repair {
                self.clear(path)?;
            }
            let What::Link(target) = &entry.what else {
                return Ok(entry.what);
            };
            let made = symlinkat(target.as_slice(), self.dir(), parent_of(path).1);
            self.made(made, path)?;
        }
        Ok(entry.what)
    }

    fn is_right(&self, entry: &Entry) -> Result<bool, Fault> {
        mark::difference(self.root, entry)
            .map(|found| found.is_none())
            .map_err(|e| self.failed(Errno::from_io_error(&e).unwrap_or(Errno::IO), &entry.path))
    }

    fn file(
        &mut self,
        content: &mut impl Read,
        path: &[u8],
        mode: Mode,
        size: u64,
    ) -> Result<What, Fault> {
        self.open_parent(path)?;
        let (_, name) = parent_of(path);
        let name = if self.repair { BESIDE } else { name };
        if self.repair {
            remove_all(self.dir(), name).map_err(|e| self.failed(e, path))?;
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let owner_only = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let fd = match openat(self.dir(), name, flags, owner_only) {
            Err(Errno::EXIST) => return Err(refused(path, "is in it twice")),
            other => other.map_err(|e| self.failed(e, path))?,
        };
        let (fd, digest) = self.copy(content, fd, path, size)?;
        fchmod(&fd, rustix::fs::Mode::from_raw_mode(mode.0)).map_err(|e| self.failed(e, path))?;
        let what = What::File { mode, size, digest };
        if self.repair {
            let entry = Entry {
                path: path.to_vec(),
                what: what.clone(),
            };
            let done = if self.is_right(&entry)? {
                unlinkat(self.dir(), BESIDE, AtFlags::empty())
            } else {
                fsync(&fd).map_err(|e| self.failed(e, path))?;
                self.clear_directory(path)?;
                renameat(self.dir(), BESIDE, self.dir(), parent_of(path).1)
            };
            done.map_err(|e| self.failed(e, path))?;
        }
        Ok(what)
    }

    /// A rename replaces everything but a directory.
    fn clear_directory(&self, path: &[u8]) -> Result<(), Fault> {
        let (_, name) = parent_of(path);
        match statat(self.dir(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.clear(path)
            }
            _ => Ok(()),
        }
    }

    fn copy(
        &self,
        content: &mut impl Read,
        fd: OwnedFd,
        path: &[u8],
        size: u64,
    ) -> Result<(OwnedFd, Hash), Fault> {
        let mut file = File::from(fd);
        let mut hasher = blake3::Hasher::new();
        let room = usize::try_from(size).unwrap_or(1 << 16).clamp(1, 1 << 16);
        let mut buffer = vec![0; room];
        let mut done = 0u64;
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(refused(path, &format!("cannot be read: {e}"))),
            };
            hasher.update(&buffer[..n]);
            file.write_all(&buffer[..n])
                .map_err(|e| self.failed(Errno::from_io_error(&e).unwrap_or(Errno::IO), path))?;
            done += n as u64;
        }
        if done != size {
            return Err(refused(path, "is cut short"));
        }
        Ok((file.into(), Hash(*hasher.finalize().as_bytes())))
    }
}

/// Removes whatever stands at a name, a whole directory too, following no link.
fn remove_all(dir: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = openat(dir, name, flags, rustix::fs::Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&inner)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            remove_all(&inner, name)?;
        }
    }
    unlinkat(dir, name, AtFlags::REMOVEDIR)
}
