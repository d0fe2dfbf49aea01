//! What `/proc` says: who a process is, which processes carry a mark, who holds a port or a file. It signals
//! only through pidfds, and only after it has checked whom the pidfd means.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::shim::record::{MARK, ProcessId};

/// The largest environment that is searched for a mark: what the kernel allows a program to be started with
/// at its default stack limit.
const MAX_ENVIRON_BYTES: u64 = 6 << 20;

/// When a process was started, in clock ticks since boot; none if there is no such process.
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 2;
    let fields = std::str::from_utf8(stat.get(after..)?).ok()?;
    // Field 22 of proc(5); the first one after the name is field 3.
    fields.split(' ').nth(19)?.parse().ok()
}

/// A process that lives now, by number.
pub fn identify(pid: u32) -> Option<ProcessId> {
    start_ticks(pid).map(|ticks| ProcessId { pid, ticks })
}

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

/// Milliseconds since boot, suspended time included: no clock jump moves it.
pub fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// A descriptor for exactly this process, or none if it has ended or its number has gone to another.
pub fn open(process: ProcessId) -> Option<OwnedFd> {
    let pidfd = open_pid(process.pid)?;
    // Checked after opening: from here on the descriptor means whoever had these ticks.
    (start_ticks(process.pid) == Some(process.ticks)).then_some(pidfd)
}

fn open_pid(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// The numbers of all processes.
pub fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The environment of a process, as it was started. For the moment in which it becomes another program one has neither an
/// environment nor a command line: such a one is looked at again, for a few milliseconds. Kernel threads and zombies, which
/// have no program, never have either.
fn environ(pid: u32) -> Option<Vec<u8>> {
    for _ in 0..10 {
        let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
        let mut environ = Vec::new();
        let read = file.take(MAX_ENVIRON_BYTES).read_to_end(&mut environ);
        read.ok()?;
        let becoming = || {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
                && fs::read_link(format!("/proc/{pid}/exe")).is_ok()
        };
        if !environ.is_empty() || !becoming() {
            return Some(environ);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    None
}

fn marks(pid: u32, ids: &BTreeSet<String>) -> bool {
    let Some(environ) = environ(pid) else {
        return false;
    };
    environ.split(|byte| *byte == 0).any(|entry| {
        std::str::from_utf8(entry)
            .ok()
            .and_then(|entry| entry.strip_prefix(MARK)?.strip_prefix('='))
            .is_some_and(|id| ids.contains(id))
    })
}

/// Sends KILL to every process whose environment carries one of the marks, and says how many there were.
/// One that this user may not look into is not seen.
pub fn kill_marked(ids: &BTreeSet<String>) -> usize {
    let own = std::process::id();
    let mut killed = 0;
    for pid in pids() {
        if pid == own || !marks(pid, ids) {
            continue;
        }
        // Looked at again through the open descriptor, in case the number has just gone to another.
        if let Some(pidfd) = open_pid(pid)
            && marks(pid, ids)
            && pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
        {
            killed += 1;
        }
    }
    killed
}

/// Who listens on a TCP port: pid and program name. None if nobody does or this user may not look.
pub fn listener(port: u16) -> Option<(u32, String)> {
    let mut sockets = BTreeSet::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let Ok(text) = fs::read_to_string(table) else {
            continue;
        };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) =
                (fields.get(1), fields.get(3), fields.get(9))
            else {
                continue;
            };
            let on_port = local
                .rsplit_once(':')
                .and_then(|(_, hex)| u16::from_str_radix(hex, 16).ok())
                == Some(port);
            // 0A is TCP_LISTEN.
            if on_port && *state == "0A" {
                sockets.insert(format!("socket:[{inode}]"));
            }
        }
    }
    if sockets.is_empty() {
        return None;
    }
    let pid = pids().find(|pid| {
        descriptors(*pid).any(|fd| {
            fs::read_link(fd).is_ok_and(|to| to.to_str().is_some_and(|to| sockets.contains(to)))
        })
    })?;
    Some((pid, name(pid)))
}

/// The processes that hold a file open and name `folder` on their command line.
pub fn holders(file: &Path, folder: &Path) -> Vec<u32> {
    let Ok(wanted) = fs::metadata(file) else {
        return Vec::new();
    };
    let folder = folder.as_os_str().as_encoded_bytes();
    pids()
        .filter(|pid| {
            let named = fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == folder));
            named
                && descriptors(*pid).any(|fd| {
                    fs::metadata(fd)
                        .is_ok_and(|m| m.ino() == wanted.ino() && m.dev() == wanted.dev())
                })
        })
        .collect()
}

fn descriptors(pid: u32) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// A program's name as the kernel keeps it, safe to show.
fn name(pid: u32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    plumb_model::escape::line(String::from_utf8_lossy(&name).trim_end()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_own_start_and_a_pidfd_needs_the_right_one() {
        let own = identify(std::process::id()).unwrap();
        assert!(open(own).is_some());
        let stranger = ProcessId {
            ticks: own.ticks + 1,
            ..own
        };
        assert!(open(stranger).is_none());
    }

    #[test]
    fn a_listener_is_found_by_its_port() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (pid, _) = listener(socket.local_addr().unwrap().port()).unwrap();
        assert_eq!(pid, std::process::id());
    }
}
