//! The few system calls of the shim that neither std nor rustix offers safely.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Gid, Signal, Uid};

use super::record::Identity;

/// The highest signal number of Linux.
const LAST_SIGNAL: i32 = 64;

/// Closes every descriptor from `first` on. Called once, before the shim has opened anything.
pub fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller has opened nothing yet, so no descriptor from `first` on belongs to a live value.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the kernel keep the exit statuses of children, in case this process was started with their signal ignored.
pub fn restore_child_signal() {
    restore_default(libc::SIGCHLD);
}

/// Restores a signal's default. Asks the kernel itself, since libc keeps two real-time signals from its callers.
fn restore_default(signal: i32) {
    // The kernel's `struct sigaction`, at most 32 bytes: all zero means the default, no flags, an empty mask.
    let default = [0_u64; 4];
    let none = std::ptr::null_mut::<u64>();
    let mask_bytes = 8_usize;
    // SAFETY: the kernel reads no more than `default` holds, writes nothing, and no handler is installed;
    // signals that cannot be set are refused.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            default.as_ptr(),
            none,
            mask_bytes,
        );
    }
}

/// Sends any signal, real-time ones too, to the process group of a leader that has not been reaped yet.
pub fn signal_group(leader: u32, signal: i32) -> io::Result<()> {
    let group = i32::try_from(leader).map_err(io::Error::other)?;
    // SAFETY: `kill` takes numbers and touches no memory.
    if unsafe { libc::kill(-group, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the command, between fork and exec, become the leader of a session of its own that dies with this
/// very thread, with umask 022, every signal at its default and, if one is named, as another user who can
/// gain no privileges.
pub fn detach(command: &mut Command, user: Option<&Identity>) {
    let shim = i32::try_from(std::process::id()).ok();
    let user = user.map(|user| {
        let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
        (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
    });
    let between = move || {
        rustix::process::setsid()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        for signal in 1..=LAST_SIGNAL {
            restore_default(signal);
        }
        if let Some((uid, gid, groups)) = &user {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)?;
            rustix::thread::set_no_new_privs(true)?;
        }
        // After the change of user, which clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid().map(|parent| parent.as_raw_pid()) != shim {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: between fork and exec of a single-threaded process; the closure makes system calls only and
    // neither allocates nor locks.
    unsafe { command.pre_exec(between) };
}
