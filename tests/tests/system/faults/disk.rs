//! Full disks: the server's and an agent's, each a small tmpfs.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plumb_tests::fleet::{Fleet, PATIENCE, name};
use plumb_tests::pair::{Pair, wait};

/// A tmpfs of this size over a folder, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn over(folder: &Path, size: &str) -> Self {
        use rustix::mount::{MountFlags, mount};
        fs::create_dir_all(folder).unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=0711")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", folder, "tmpfs", flags, options.as_c_str())
            .expect("mounting a small tmpfs takes root: run scripts/test as root");
        Self(folder.to_owned())
    }

    /// Fills it to the last byte.
    fn fill(&self) {
        let mut ballast = File::create(self.ballast()).unwrap();
        let mut piece = 1024 * 1024;
        while piece > 0 {
            if ballast.write_all(&vec![0; piece]).is_err() {
                piece /= 2;
            }
        }
    }

    /// Makes room again.
    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// Row 36. Mutation: let the store's `has_room` say yes whatever is free. (Left out of `Writer::run` alone, the guard, which
/// asks `ready` first, refuses still; the ledger's own tests see that.)
#[test]
fn with_the_servers_disk_full_applies_are_refused_reads_answered_and_workloads_run() {
    let mut pair = Pair::new();
    let disk = SmallDisk::over(&pair.path("server"), "48m");
    pair.start_server();
    pair.join();
    pair.write_app(&[], "");
    pair.apply();
    let before = pair.incarnation();
    let history = pair.plumb(&["history", "--output", "json"]).good();

    disk.fill();
    pair.write_app(&[], "env: { ROUND: two }\n");
    let line = pair
        .plumb(&["apply", "--yes", "--detach", "--allow", "restarts"])
        .err;
    assert!(line.contains("free disk space"), "{line}");
    assert_eq!(
        pair.plumb(&["history", "--output", "json"]).good(),
        history,
        "reads are answered, and nothing was recorded"
    );
    assert_eq!(
        pair.running(),
        std::slice::from_ref(&before),
        "and what runs, runs on"
    );

    disk.free();
    pair.apply();
    let after = pair.incarnation();
    assert_ne!(after, before);
    // What keeps the folder busy goes before the disk does.
    drop(pair);
    drop(disk);
}

/// Rows 35 and 36 of an agent. Mutations: acknowledge whatever `save_held` says, or acknowledge or adopt before it has said
/// anything; never offer again what could not be stored.
#[test]
fn with_an_agents_disk_full_its_assignment_waits_and_the_others_go_on() {
    let mut fleet = Fleet::started(2);
    fleet.apply(1);
    fleet.settle(1);
    let before = fleet.running(0);
    // Only where it keeps what it is assigned: the disk of its workloads is another matter.
    fleet.kill(0);
    let folder = fleet.pair.path(&name(0)).join("assignment");
    let held = fs::read(folder.join("held")).unwrap();
    let disk = SmallDisk::over(&folder, "1m");
    fs::write(folder.join("held"), held).unwrap();
    fleet.start(0);
    wait("it is back", PATIENCE, || {
        (fleet.online().len() == 2).then_some(())
    });

    disk.fill();
    fleet.apply(2);
    fleet.wait_for([1], 2);
    wait("the status says why", PATIENCE, || {
        let status = fleet.pair.plumb(&["status", "--output", "json"]).out;
        status.contains("could not be stored").then_some(())
    });
    assert!(fleet.is_at(0, 1));
    assert_eq!(fleet.running(0), before, "its workload runs on");

    disk.free();
    // It is offered again half a minute after it could not be stored.
    wait("it is taken", Duration::from_secs(90), || {
        fleet.is_at(0, 2).then_some(())
    });
    fleet.settle(2);
    fleet.kill(0);
    drop(disk);
}
