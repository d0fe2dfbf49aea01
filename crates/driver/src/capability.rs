//! Finds out what this machine can do, by trying. The agent calls it once at start and says the result in its hello.
//! Nothing is changed on the machine.

use std::path::Path;

use plumb_model::capability::{Availability, HostFacts, MachineFacts};
use plumb_model::{Capabilities, Capability};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

/// The bits of CAP_CHOWN, CAP_SETGID and CAP_SETUID in `/proc/self/status` (linux/capability.h).
const CAP_CHOWN: u64 = 1;
const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;

/// Where the command that makes users is looked for: root's usual PATH, whatever the agent's is.
const ADMIN_FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Tries every ability of this machine.
#[must_use]
pub fn probe() -> Capabilities {
    let kernel = kernel();
    let rights = rights();
    let tried = [
        (Capability::Files, files(&kernel)),
        (Capability::Processes, processes(&kernel)),
        (Capability::Chown, chown(rights)),
        (Capability::Users, users(rights)),
        (
            Capability::Secrets,
            Availability::Has {
                detail: crate::secrets::describe(),
            },
        ),
    ];
    tried
        .into_iter()
        .chain(crate::undriven::lacking())
        .collect()
}

/// Everything that an agent of this version says of its machine.
#[must_use]
pub fn machine_facts(version: &str) -> MachineFacts {
    MachineFacts {
        version: version.to_owned(),
        arch: rustix::system::uname()
            .machine()
            .to_string_lossy()
            .into_owned(),
        hostname: hostname(),
        kernel: kernel(),
        capabilities: probe(),
        host: None,
    }
}

/// What this machine is made of; `data` is a folder on the file system that counts. What cannot be found out is 0.
#[must_use]
pub fn host_facts(data: &Path) -> HostFacts {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let disk = rustix::fs::statvfs(data).ok();
    let disk = disk.as_ref();
    let os = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let blocks = |count: u64, size: u64| count.saturating_mul(size);
    HostFacts {
        os: os_name(&os),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: kibibytes(&memory, "MemTotal:"),
        memory_available_bytes: kibibytes(&memory, "MemAvailable:"),
        disk_bytes: disk.map_or(0, |disk| blocks(disk.f_blocks, disk.f_frsize)),
        disk_free_bytes: disk.map_or(0, |disk| blocks(disk.f_bavail, disk.f_frsize)),
    }
}

/// A line of /proc/meminfo, in bytes.
fn kibibytes(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0).saturating_mul(1024)
}

/// The name in an os-release file.
fn os_name(os_release: &str) -> String {
    let name = os_release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux");
    name.trim_matches(['"', '\'']).to_owned()
}

fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// The kernel's name for the host, or the one that it would get at boot if it has none yet.
fn hostname() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    if !matches!(name.as_str(), "" | "(none)" | "localhost") {
        return name;
    }
    std::fs::read_to_string("/etc/hostname")
        .ok()
        .and_then(|text| text.split_whitespace().next().map(str::to_owned))
        .unwrap_or(name)
}

fn has(detail: impl Into<String>) -> Availability {
    Availability::Has {
        detail: detail.into(),
    }
}

fn lacks(why: impl Into<String>, remedy: &str) -> Availability {
    Availability::Lacks {
        why: why.into(),
        remedy: remedy.to_owned(),
    }
}

fn files(kernel: &str) -> Availability {
    let tried = openat2(
        CWD,
        "/",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    );
    match tried {
        Ok(_) => has(format!("openat2, Linux {kernel}")),
        Err(e) => lacks(
            format!("openat2 fails on Linux {kernel}: {e}"),
            "run Linux 5.10 or newer; in a container, allow openat2 in its seccomp profile",
        ),
    }
}

fn processes(kernel: &str) -> Availability {
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => has(format!("pidfd, Linux {kernel}")),
        Err(e) => lacks(
            format!("pidfd_open fails on Linux {kernel}: {e}"),
            "run Linux 5.10 or newer; in a container, allow pidfd_open in its seccomp profile",
        ),
    }
}

/// The effective capabilities of this process. Without /proc none are known of.
fn rights() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| effective(&status))
        .unwrap_or(0)
}

fn effective(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

fn chown(rights: u64) -> Availability {
    if rights & CAP_CHOWN != 0 {
        has("CAP_CHOWN")
    } else {
        lacks(
            "the agent does not run as root",
            "run `plumb agent` as root, or leave owner and group out of the blueprint",
        )
    }
}

fn users(rights: u64) -> Availability {
    if rights & (CAP_SETUID | CAP_SETGID) != CAP_SETUID | CAP_SETGID {
        return lacks(
            "the agent does not run as root",
            "run `plumb agent` as root, or leave `user` out of the blueprint",
        );
    }
    let useradd = ADMIN_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join("useradd"))
        .find(|path| path.exists());
    match useradd {
        Some(path) => has(path.display().to_string()),
        None => lacks(
            "the command useradd is missing",
            "install it: `apt-get install passwd`, or `dnf install shadow-utils`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ability_is_answered_and_what_is_lacking_has_a_remedy() {
        let facts = machine_facts("0.1.0");
        assert!(facts.capabilities.0.keys().copied().eq(Capability::ALL));
        assert_eq!(facts.capabilities.lack(Capability::Files), None);
        assert_eq!(facts.capabilities.lack(Capability::Processes), None);
        assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty());
        for rights in [0, CAP_SETUID, CAP_SETGID] {
            for lacking in [chown(rights), users(rights)] {
                let Availability::Lacks { why, remedy } = lacking else {
                    panic!("an agent without rights can do nothing for others");
                };
                assert!(!why.is_empty() && remedy.contains("plumb agent"));
            }
        }
    }

    #[test]
    fn what_a_host_is_made_of_is_found_out_and_what_cannot_be_is_nothing() {
        let facts = host_facts(Path::new("/"));
        assert!(
            facts.cpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes > 0,
            "{facts:?}"
        );
        assert!(
            facts.memory_available_bytes <= facts.memory_bytes,
            "{facts:?}"
        );
        assert!(facts.disk_free_bytes <= facts.disk_bytes, "{facts:?}");
        assert_eq!(host_facts(Path::new("/nowhere")).disk_bytes, 0);
        assert_eq!(kibibytes("MemTotal:  16 kB\n", "MemTotal:"), 16 * 1024);
        assert_eq!(kibibytes("MemTotal: many\n", "MemTotal:"), 0);
        assert_eq!(os_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_name(""), "Linux");
    }

    #[test]
    fn the_effective_rights_are_read_from_their_own_line() {
        let status = "CapPrm:\t0000000000000001\nCapEff:\t00000000000000c1\n";
        assert_eq!(effective(status), Some(0xc1));
        assert_eq!(effective("Name:\tx\n"), None);
    }
}
