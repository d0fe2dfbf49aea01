//! Opens the folder that a managed path is in, following no symbolic link, and explains why where it cannot.

use plumb_model::{Fault, condition::Reason};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2, readlinkat, statat};
use rustix::io::Errno;

use crate::trouble;

/// Opens a directory by its absolute path. No component may be a symbolic link, the last one included: the kernel
/// holds that in one call, so nothing can be swapped between a check and the opening. `readable` gives a handle that
/// can be synced; otherwise it is a mere place.
pub(super) fn open(path: &str, readable: bool) -> Result<OwnedFd, Errno> {
    let access = if readable {
        OFlags::RDONLY
    } else {
        OFlags::PATH
    };
    openat2(
        CWD,
        path,
        access | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

/// Splits a managed path into its folder and its name.
pub(super) fn split(path: &str) -> Result<(&str, &str), Fault> {
    let bad = |why: &str| {
        Fault::new(
            Reason::BadPath,
            format!("{path:?} cannot be managed: {why}"),
        )
    };
    let Some(rest) = path.strip_prefix('/') else {
        return Err(bad("write an absolute path, starting with /"));
    };
    if rest.is_empty() {
        return Err(bad("the root directory belongs to the machine"));
    }
    if rest.contains('\0') {
        return Err(bad("a path holds no NUL character"));
    }
    if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad(
            "write it without `.`, `..`, a doubled slash or a slash at the end",
        ));
    }
    let at = path.rfind('/').unwrap_or(0);
    Ok((if at == 0 { "/" } else { &path[..at] }, &path[at + 1..]))
}

/// Says why a folder could not be opened, naming the first component that stands in the way. The walk serves the
/// message only; nothing is ever written on the strength of it.
pub(super) fn explain(errno: Errno, parent: &str, name: &str) -> Fault {
    explain_with(errno, parent, &|| match std::fs::canonicalize(parent) {
        Ok(real) => format!(
            "Plumb follows none: write {} in the blueprint instead",
            real.join(name).display()
        ),
        Err(_) => "which leads nowhere; replace it by a directory".to_owned(),
    })
}

/// The same of something that Plumb made and is to remove.
pub(super) fn explain_left_over(errno: Errno, parent: &str, name: &str) -> Fault {
    explain_with(errno, parent, &|| {
        format!(
            "Plumb follows none, and made {name} when there was none: put the directory back, or take the link away"
        )
    })
}

fn explain_with(errno: Errno, parent: &str, instead: &dyn Fn() -> String) -> Fault {
    let ends = parent
        .char_indices()
        .skip(1)
        .filter(|(_, c)| *c == '/')
        .map(|(at, _)| at)
        .chain([parent.len()]);
    for end in ends {
        let prefix = &parent[..end];
        let kind = match statat(CWD, prefix, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => {
                return Fault::new(
                    Reason::BadPath,
                    format!(
                        "the directory {prefix} does not exist; declare it under `directories` of a Setup"
                    ),
                );
            }
            Err(e) => return trouble::fault(e, "open", prefix),
        };
        match kind {
            FileType::Directory => {}
            FileType::Symlink => return symlink(prefix, &instead()),
            other => {
                return Fault::new(
                    Reason::BadPath,
                    format!(
                        "{prefix} is {}, not a directory; move it away or choose another path",
                        type_name(other)
                    ),
                );
            }
        }
    }
    trouble::fault(errno, "open the directory", parent)
}

fn symlink(prefix: &str, instead: &str) -> Fault {
    let leads = readlinkat(CWD, prefix, Vec::new())
        .map(|to| to.to_string_lossy().into_owned())
        .unwrap_or_default();
    Fault::new(
        Reason::SymlinkInPath,
        format!("{prefix} is a symbolic link to {leads}; {instead}"),
    )
}

/// What a thing is, with its article, for people.
pub(super) fn type_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "something of an unknown type",
    }
}
