//! Where files of secrets may be: on a tmpfs, in a folder that nobody else can write to.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plumb_model::Hash;

/// The data folder of the agent that a machine usually has. Its files are beneath `/run/plumb` itself; those of any other
/// agent of the same machine have a folder of their own there.
const USUAL_DATA: &str = "/var/lib/plumb/agent";

/// What statfs(2) calls a tmpfs and a ramfs: neither is on a disk.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The folder beneath which an agent with this data folder writes files of secrets: `/run/plumb` for root, and otherwise
/// `$XDG_RUNTIME_DIR/plumb`, or else a folder in `/dev/shm`. The first that is on a tmpfs; none if there is none. Nothing
/// is made.
#[must_use]
pub fn runtime_folder(data: &Path) -> Option<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut bases = Vec::new();
    if uid == 0 {
        bases.push(PathBuf::from("/run"));
    } else {
        bases.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
        bases.push(PathBuf::from(format!("/run/user/{uid}")));
    }
    let base = bases.into_iter().find(|base| is_in_memory(base));
    let folder = match base {
        Some(base) => base.join("plumb"),
        None => {
            let shared = Path::new("/dev/shm");
            is_in_memory(shared).then(|| shared.join(format!("plumb-{uid}")))?
        }
    };
    if data == Path::new(USUAL_DATA) {
        return Some(folder);
    }
    let own = Hash::of(data.as_os_str().as_bytes()).short();
    Some(folder.join("agents").join(own))
}

/// Whether a folder is there and on no disk.
pub(super) fn is_in_memory(folder: &Path) -> bool {
    let kind = |stat: rustix::fs::StatFs| {
        #[allow(
            clippy::unnecessary_cast,
            reason = "the type of this field differs between architectures"
        )]
        let kind = stat.f_type as i64;
        kind
    };
    folder.is_absolute()
        && rustix::fs::statfs(folder).is_ok_and(|stat| IN_MEMORY.contains(&kind(stat)))
}

/// What an agent says of how it hands secrets over.
#[must_use]
pub fn describe() -> String {
    match runtime_folder(Path::new(USUAL_DATA)) {
        Some(folder) => format!(
            "in the environment, and in files on a tmpfs at {}",
            folder.display()
        ),
        None => "in the environment alone: this machine has no tmpfs for files".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_secrets_are_on_no_disk_and_each_agent_has_its_own_folder() {
        let usual = runtime_folder(Path::new(USUAL_DATA)).unwrap();
        let other = runtime_folder(Path::new("/srv/agent")).unwrap();
        assert!(other.starts_with(&usual) && other != usual);
        assert!(is_in_memory(usual.parent().unwrap()), "{usual:?}");
        assert!(!is_in_memory(Path::new("/proc")) && !is_in_memory(Path::new("/no/such")));
    }
}
