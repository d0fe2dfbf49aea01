//! Turns an errno into a fault that a person can act on. Every module of files and artifacts calls it; it performs no I/O.

use plumb_model::{Fault, condition::Reason};
use rustix::io::Errno;

/// Says in plain words why an operation on `path` failed; `doing` is what was tried, such as "write".
#[must_use]
pub fn fault(errno: Errno, doing: &str, path: &str) -> Fault {
    let (reason, cause) = match errno {
        Errno::NOSPC => (
            Reason::DiskFull,
            "no space is left on its file system; free some".to_owned(),
        ),
        Errno::DQUOT => (
            Reason::DiskFull,
            "the disk quota is used up; free some space or raise the quota".to_owned(),
        ),
        Errno::ROFS => (
            Reason::ReadOnly,
            "its file system is mounted read-only; mount it read-write or choose another path"
                .to_owned(),
        ),
        Errno::ACCESS => (
            Reason::PermissionDenied,
            "the agent's user may not do this; grant it access or run the agent as root".to_owned(),
        ),
        Errno::PERM => (
            Reason::PermissionDenied,
            "the operation is not permitted; run the agent as root, or clear an immutable attribute with chattr -i"
                .to_owned(),
        ),
        Errno::NOENT => (Reason::BadPath, "it or a part of its path does not exist".to_owned()),
        Errno::NOTDIR => (Reason::BadPath, "a part of its path is not a directory".to_owned()),
        Errno::BUSY => (
            Reason::BadPath,
            "something is mounted there; unmount it or choose another path".to_owned(),
        ),
        Errno::NAMETOOLONG => (
            Reason::BadPath,
            "the path or its last part is too long for the file system".to_owned(),
        ),
        Errno::LOOP => (
            Reason::SymlinkInPath,
            "a symbolic link stands in the way, and Plumb follows none".to_owned(),
        ),
        Errno::NOSYS => (
            Reason::LacksCapability,
            "the kernel lacks openat2; Plumb needs Linux 5.6 or newer".to_owned(),
        ),
        other => (Reason::Io, std::io::Error::from(other).to_string()),
    };
    Fault::new(reason, format!("cannot {doing} {path}: {cause}"))
}

/// The same for an error of the standard library.
#[must_use]
pub fn fault_of(error: &std::io::Error, doing: &str, path: &str) -> Fault {
    match Errno::from_io_error(error) {
        Some(errno) => fault(errno, doing, path),
        None => Fault::new(Reason::Io, format!("cannot {doing} {path}: {error}")),
    }
}
