//! Describes what stands at a path and was not made by Plumb, so that a plan can show what adopting it would change. It
//! changes nothing, and tells no content that not everybody on the machine may read.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;

use plumb_model::observation::MAX_FOUND_TEXT_BYTES;
use plumb_model::{Found, FoundKind, Hash, Mode};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Stat, fstat, openat, statat};

use super::look::{inode, wide};
use super::users::Users;

/// The largest foreign file that is hashed, in bytes: it is read anew at each look.
const MAX_HASHED_BYTES: u64 = 4 << 20;

/// How much text of foreign files all resources of a machine tell together, in bytes: statuses are held in memory and sent
/// whole.
const MAX_TOLD_BYTES: usize = 1 << 20;

/// Which texts are told, so that one that was told once goes on being told.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<Box<str>, usize>);

impl Told {
    pub(super) fn forget(&mut self, path: &str) {
        self.0.remove(path);
    }

    fn has_room(&mut self, path: &str, bytes: usize) -> bool {
        self.0.remove(path);
        let told: usize = self.0.values().sum();
        let fits = told + bytes <= MAX_TOLD_BYTES;
        if fits {
            self.0.insert(path.into(), bytes);
        }
        fits
    }
}

/// Describes what stands at `name` in a folder. `stat` was taken there a moment ago.
pub(super) fn found(
    dir: &OwnedFd,
    (path, parent, name): (&str, &str, &str),
    stat: &Stat,
    users: &mut Users,
    told: &mut Told,
) -> Found {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => FoundKind::File,
        FileType::Directory => FoundKind::Directory,
        FileType::Symlink => FoundKind::Symlink,
        FileType::Fifo => FoundKind::Fifo,
        FileType::Socket => FoundKind::Socket,
        FileType::CharacterDevice | FileType::BlockDevice => FoundKind::Device,
        FileType::Unknown => FoundKind::Unknown,
    };
    let is_file = kind == FoundKind::File;
    let size = wide(stat.st_size);
    let public =
        is_file && stat.st_mode & 0o004 != 0 && size <= MAX_HASHED_BYTES && open_to_all(parent);
    let content = if public { read(dir, name, stat) } else { None };
    let digest = content.as_ref().map(|bytes| Hash::of(bytes));
    let text = content
        .filter(|_| size <= MAX_FOUND_TEXT_BYTES)
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|text| told.has_room(path, text.len()));
    if text.is_none() {
        told.forget(path);
    }
    Found {
        kind,
        mode: Mode(stat.st_mode & 0o7777),
        owner: users.name_of_user(stat.st_uid),
        group: users.name_of_group(stat.st_gid),
        size: is_file.then_some(size),
        digest,
        text,
    }
}

/// Whether every user may pass through a folder and all above it: without that, a file's own mode opens it to nobody.
fn open_to_all(folder: &str) -> bool {
    let ends = folder
        .char_indices()
        .filter(|(_, c)| *c == '/')
        .map(|(at, _)| at.max(1));
    ends.chain([folder.len()]).all(|end| {
        statat(CWD, &folder[..end], AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_mode & 0o001 != 0)
    })
}

/// The content of the very file that was looked at, if it is still of that length.
fn read(dir: &OwnedFd, name: &str, stat: &Stat) -> Option<Vec<u8>> {
    // Without NONBLOCK a pipe that was put there since would hold the agent up for ever.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = openat(dir, name, flags, rustix::fs::Mode::empty()).ok()?;
    let opened = fstat(&fd).ok()?;
    // Its mode may have been tightened since.
    if inode(&opened) != inode(stat) || opened.st_mode != stat.st_mode {
        return None;
    }
    let size = wide(stat.st_size);
    let mut bytes = Vec::new();
    File::from(fd).take(size + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}
