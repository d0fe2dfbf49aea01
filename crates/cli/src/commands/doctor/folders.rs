//! What is seen in the data folders of a control plane and of an agent.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use plumb_model::{Capability, Timestamp};
use plumb_wire::client::{self, Target};
use rustix::fs::{FlockOperation, flock};

use super::{Finding, Findings};
use crate::error::chain;

/// Below this the control plane refuses writes, so that what is recorded can still be read.
const RESERVE: u64 = 16 * 1024 * 1024;

/// Below this somebody should look.
const SCARCE: u64 = 512 * 1024 * 1024;

/// How long before its end a certificate should have been renewed, in seconds: they live for a day, and are renewed in the
/// second half of that.
const LATE: i64 = 2 * 3600;

/// Looks at a data folder, whichever it is: one that was asked for, or one where they usually are.
pub(super) async fn look(folder: &Path, asked: bool) -> Vec<Finding> {
    let mut found = Findings::of(folder.display().to_string());
    let agent = folder.join("identity/enrolled.json").is_file();
    let server = folder.join("lineage").is_file();
    if let Err(error) = fs::read_dir(folder) {
        found.fail(
            "folder",
            format!("it cannot be looked into: {error}"),
            "run this as the user that it belongs to",
        );
        return found.all;
    }
    if !agent && !server {
        let says = "it is no data folder of a control plane, nor of an agent that has joined";
        let remedy = "give the one that --data names; an agent joins with `plumb agent install`";
        match asked {
            true => found.fail("folder", says, remedy),
            // Whoever tried to join in vain has left it there.
            false => found.warn("folder", says, remedy),
        }
        return found.all;
    }
    mode(folder, if server { 0o700 } else { 0o711 }, &mut found);
    running(folder, server, &mut found);
    disk(folder, &mut found);
    keys(&folder.join("identity"), &mut found);
    if server {
        secrets_key(&folder.join("identity"), &mut found);
    } else {
        enrolled(folder, &mut found).await;
        capabilities(&mut found);
    }
    found.all
}

fn mode(folder: &Path, most: u32, found: &mut Findings) {
    match fs::metadata(folder) {
        Ok(metadata) if metadata.mode() & 0o777 & !most != 0 => found.fail(
            "folder",
            format!(
                "its mode is {:04o}, which lets others in",
                metadata.mode() & 0o7777
            ),
            &format!("chmod {most:03o} {}", folder.display()),
        ),
        Ok(metadata) => found.ok("folder", format!("mode {:04o}", metadata.mode() & 0o7777)),
        Err(error) => found.fail("folder", error.to_string(), ""),
    }
}

/// Whether somebody works with it: whoever does holds its lock.
fn running(folder: &Path, server: bool, found: &mut Findings) {
    let who = if server { "control plane" } else { "agent" };
    let path = folder.join("lock");
    let Ok(lock) = File::open(&path) else {
        found.warn("process", format!("no {who} has ever run on it"), "");
        return;
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => {
            let unit = if server {
                "plumb server"
            } else {
                "systemctl start plumb-agent"
            };
            found.warn(
                "process",
                format!("no {who} runs on it"),
                &format!("start it: {unit}"),
            );
        }
        Err(_) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            found.ok(
                "process",
                format!("the {who} runs as process {}", pid.trim()),
            );
        }
    }
}

fn disk(folder: &Path, found: &mut Findings) {
    let Ok(disk) = rustix::fs::statvfs(folder) else {
        found.warn("disk", "nobody can say how much of it is free", "");
        return;
    };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let says = format!("{} MiB are free", free / 1024 / 1024);
    match free {
        ..RESERVE => found.fail(
            "disk",
            says,
            "free disk space: nothing is written below 16 MiB",
        ),
        RESERVE..SCARCE => found.warn("disk", says, "free disk space, or make it larger"),
        _ if disk.f_files > 0 && disk.f_favail == 0 => {
            found.fail("disk", "it has no inode free", "remove files from it");
        }
        _ => found.ok("disk", says),
    }
}

/// Every key is its owner's alone.
fn keys(folder: &Path, found: &mut Findings) {
    let Ok(entries) = fs::read_dir(folder) else {
        found.warn("keys", "there are none yet", "");
        return;
    };
    let mut looked = 0;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let private = name.ends_with(".key") || (name.starts_with("key") && name.ends_with(".pem"));
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if !private {
            continue;
        }
        looked += 1;
        if metadata.mode() & 0o077 != 0 {
            found.fail(
                "keys",
                format!(
                    "identity/{name} can be read by others (mode {:04o})",
                    metadata.mode() & 0o7777
                ),
                &format!("chmod 600 {}", entry.path().display()),
            );
            return;
        }
    }
    found.ok(
        "keys",
        format!("{looked} keys, each read by its owner alone"),
    );
}

fn secrets_key(identity: &Path, found: &mut Findings) {
    match identity.join("secrets.key").is_file() {
        true => found.ok("backup", "`plumb backup --keys` copies all of its keys"),
        false => found.warn(
            "backup",
            "the key of secrets is not in it",
            "keep a copy of the file that PLUMB_SECRET_KEY_FILE names, apart from backups",
        ),
    }
}

async fn enrolled(folder: &Path, found: &mut Findings) {
    let record = match plumb_agent::enrolment(folder) {
        Ok(Some(record)) => record,
        Ok(None) => return,
        Err(error) => {
            found.fail("identity", chain(&error), "");
            return;
        }
    };
    let left = record.not_after.as_second() - Timestamp::now().as_second();
    let says = format!(
        "machine {} of workspace {}, by a certificate that runs out at {}",
        record.machine, record.workspace, record.not_after
    );
    match left {
        ..=0 => found.warn(
            "certificate",
            says,
            "the agent renews it by itself once it reaches the control plane; apps run on meanwhile",
        ),
        1..LATE => found.warn("certificate", says, "see the log of the agent for why it was not renewed"),
        _ => found.ok("certificate", says),
    }
    let target = Target {
        address: record.server.clone(),
        ca_pem: record.ca_pem.clone(),
        identity: None,
    };
    match client::connect(&target).await {
        Ok(_) => found.ok(
            "reach",
            format!("the control plane at {} answers", record.server),
        ),
        Err(error) => found.fail("reach", error.to_string(), "apps run on meanwhile"),
    }
}

/// What this machine cannot do that a blueprint may ask for. No reason to worry where none does.
fn capabilities(found: &mut Findings) {
    let all = plumb_driver::capability::probe();
    let lacking: Vec<(Capability, String, String)> = all
        .0
        .keys()
        .filter_map(|capability| {
            let (why, remedy) = all.lack(*capability)?;
            Some((*capability, why, remedy))
        })
        .collect();
    let has = all.0.len() - lacking.len();
    found.ok(
        "abilities",
        format!("{has} of {} that blueprints may ask for", all.0.len()),
    );
    // What no agent of this version can do is said by the plan that asks for it.
    for (capability, why, remedy) in lacking {
        if why.ends_with(" yet") {
            continue;
        }
        found.warn(
            "abilities",
            format!("it lacks {}: {why}", capability.as_str()),
            &remedy,
        );
    }
}
