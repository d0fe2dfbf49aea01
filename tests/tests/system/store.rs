//! The store under kill -9, under strace and on a full disk.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use plumb_ledger::{DataFolder, MAX_SCAN, SledStore, Store};

const WRITER: &str = env!("CARGO_BIN_EXE_ledger-writer");

struct Writer {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Writer {
    fn start(folder: &Path, threads: u32, count: u64) -> Self {
        let mut command = Command::new(WRITER);
        command.arg(folder);
        Self::of(command.arg(threads.to_string()).arg(count.to_string()))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn line(&mut self) -> Option<String> {
        self.lines.next().map(Result::unwrap)
    }

    /// Kills it, and reads what it had said by then.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.map(Result::unwrap).collect()
    }

    fn finish(mut self) -> Vec<String> {
        let lines = self.lines.map(Result::unwrap).collect();
        assert!(self.child.wait().unwrap().success(), "{lines:?}");
        lines
    }
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("ack ").map(|n| n.parse().unwrap())
}

fn assert_holds(line: &str, acknowledged: &BTreeSet<u64>, round: u32) {
    let numbers = line
        .strip_prefix("holds ")
        .expect("the numbers, or an error on stderr");
    let held: BTreeSet<u64> = numbers
        .split(',')
        .filter(|number| !number.is_empty())
        .map(|number| number.parse().unwrap())
        .collect();
    let lost: Vec<_> = acknowledged.difference(&held).collect();
    assert!(
        lost.is_empty(),
        "round {round}: acknowledged and lost: {lost:?}"
    );
}

fn held_after_reopening(folder: &Path) -> BTreeSet<u64> {
    let store = SledStore::open(&DataFolder::open(folder).unwrap()).unwrap();
    let mut numbers = BTreeSet::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(b"record/", after.as_deref(), MAX_SCAN).unwrap();
        let complete = page.len() < MAX_SCAN;
        after = page.last().map(|(key, _)| key.clone());
        let keys = page
            .iter()
            .map(|(key, _)| std::str::from_utf8(&key[7..]).unwrap());
        numbers.extend(keys.map(|key| key.parse::<u64>().unwrap()));
        if complete {
            return numbers;
        }
    }
}

/// Threat 35. Mutation: leave out `db.flush()` in `Writer::commit` of the ledger's `sled_store/writer.rs`.
///
/// Each round starts a writer on what the one before left, which tells what it finds, and kills it after some number of
/// acknowledgements; in every eighth round while it is still opening. A fresh folder every 50 rounds keeps
/// the reading back short.
#[test]
fn every_acknowledged_commit_survives_1000_kills() {
    const FOLDERS: u32 = 20;
    // Mostly waiting for the disk and for new processes, so more threads than cores are of use.
    const THREADS: u32 = 4;
    let kills: u32 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let folders = (thread..FOLDERS).step_by(THREADS as usize);
                scope.spawn(move || folders.map(kill_over_and_over).sum::<u32>())
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    });
    assert_eq!(kills, 1000);
}

/// Fifty rounds in a folder of its own; says how many kills that were.
fn kill_over_and_over(seed: u32) -> u32 {
    const ROUNDS: u32 = 50;
    let folder = tempfile::tempdir().unwrap();
    let mut known = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut writer = Writer::start(folder.path(), 4, u64::MAX / 2);
        assert_eq!(writer.line().as_deref(), Some("opening"));
        // A fixed sequence that visits every number in no plain order, and another one in each folder.
        let kill_after = (seed + round * 5 + round / 8) % 8;
        if kill_after > 0 {
            assert_holds(&writer.line().expect("it opens"), &known, round);
            for _ in 0..kill_after {
                let line = writer.line().expect("it goes on until it is killed");
                known.insert(acknowledged(&line).unwrap_or_else(|| panic!("{line}")));
            }
        }
        let rest = writer.kill();
        known.extend(rest.iter().filter_map(|line| acknowledged(line)));
    }
    let held = held_after_reopening(folder.path());
    let lost: Vec<_> = known.difference(&held).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    assert!(known.len() >= ROUNDS as usize, "{}", known.len());
    ROUNDS
}

/// One traced call: `PID NAME(ARGUMENTS) = RESULT`, where a call that was interrupted by another thread's is put
/// together again. `began` and `ended` are lines of the trace.
struct Call {
    text: String,
    began: usize,
    ended: usize,
}

fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: Vec<(String, String, usize)> = Vec::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let (pid, rest) = line.split_once(' ').expect("strace -f gives a pid");
        let rest = rest.trim_start();
        if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            unfinished.push((pid.to_owned(), start.trim_end().to_owned(), at));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let end = resumed.split_once("resumed>").expect("a resumed call").1;
            let index = unfinished
                .iter()
                .position(|(other, ..)| other == pid)
                .expect("what resumes has begun");
            let (_, start, began) = unfinished.remove(index);
            calls.push(Call {
                text: start + end,
                began,
                ended: at,
            });
        } else {
            calls.push(Call {
                text: rest.to_owned(),
                began: at,
                ended: at,
            });
        }
    }
    calls
}

/// Threat 35: a power cut, which kill -9 cannot show. Mutation: `open_with(folder, |_| Ok(()))` in
/// `SledStore::open`, which leaves out the `sync_data`; verified to fail.
#[test]
fn the_data_sync_comes_before_the_acknowledgement() {
    const COUNT: u64 = 60;
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("data");
    let trace_file = temp.path().join("trace");
    let lines = Writer::of(
        Command::new("strace")
            .args(["-f", "-y", "-s", "10000000"])
            .args(["-e", "trace=write,pwrite64,fdatasync,fsync,sync_file_range"])
            .arg("-o")
            .arg(&trace_file)
            .arg(WRITER)
            .arg(&folder)
            .args(["4", &COUNT.to_string()]),
    )
    .finish();
    let said: BTreeSet<u64> = lines.iter().filter_map(|line| acknowledged(line)).collect();
    assert_eq!(said.len() as u64, COUNT);

    let trace = String::from_utf8(std::fs::read(&trace_file).unwrap()).unwrap();
    let calls = calls(&trace);
    let db_file = format!(
        "<{}>",
        folder.join("store/db").canonicalize().unwrap().display()
    );
    let on_db = |call: &Call, name: &str| {
        let fd = call.text.split([',', ')']).next().unwrap_or_default();
        fd.starts_with(&format!("{name}(")) && fd.ends_with(&db_file)
    };
    let syncs: Vec<&Call> = calls
        .iter()
        .filter(|call| on_db(call, "fdatasync") && call.text.ends_with("= 0"))
        .collect();
    for number in said {
        let written = calls
            .iter()
            .filter(|call| on_db(call, "pwrite64"))
            .find(|call| call.text.contains(&format!("<record-{number}>")))
            .unwrap_or_else(|| panic!("record {number} was never written"));
        let line = format!("\"ack {number}\\n\"");
        let told = calls
            .iter()
            .find(|call| call.text.starts_with("write(1<") && call.text.contains(&line))
            .unwrap_or_else(|| panic!("record {number} was never acknowledged"));
        let synced = syncs
            .iter()
            .any(|sync| sync.began > written.ended && sync.ended < told.began);
        assert!(
            synced,
            "record {number} was acknowledged before its data was synced"
        );
    }
}

/// A small tmpfs, unmounted when it is dropped.
struct SmallDisk {
    at: PathBuf,
    _folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(size: &str) -> rustix::io::Result<Self> {
        use rustix::mount::{MountFlags, mount};
        let folder = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(format!("size={size},mode=0700")).unwrap();
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", folder.path(), "tmpfs", flags, options.as_c_str())?;
        Ok(Self {
            at: folder.path().to_owned(),
            _folder: folder,
        })
    }

    fn resize(&self, size: &str) {
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount_remount(
            &self.at,
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Failing, it leaves a mount of a few MiB behind; there is nothing better to do in a drop.
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// What the threads of a writer were told in the end, each once.
fn refusals(lines: &[String]) -> Vec<&str> {
    let refused = lines
        .iter()
        .filter_map(|line| line.strip_prefix("refused: "));
    let refused: Vec<&str> = refused.collect();
    assert_eq!(refused.len(), 4, "each thread once: {lines:?}");
    refused
}

fn assert_goes_on_in(folder: &Path, known: &BTreeSet<u64>) {
    let held = held_after_reopening(folder);
    let lost: Vec<_> = known.difference(&held).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let more = Writer::start(folder, 4, 20).finish();
    let more = more.iter().filter_map(|line| acknowledged(line));
    assert_eq!(more.count(), 20);
}

/// Threat 36. Mutation: leave out `has_room` in `Writer::run` of the ledger's `sled_store/writer.rs`.
#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_that_was_acknowledged() {
    let disk = match SmallDisk::mount("24m") {
        Ok(disk) => disk,
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            panic!("mounting a small tmpfs takes root: run scripts/test as root");
        }
        Err(error) => panic!("mounting a tmpfs: {error}"),
    };
    let folder = disk.at.join("data");
    let lines = Writer::start(&folder, 4, u64::MAX / 2).finish();
    let known: BTreeSet<u64> = lines.iter().filter_map(|line| acknowledged(line)).collect();
    assert!(known.len() > 10, "{known:?}");
    for refusal in refusals(&lines) {
        assert!(refusal.contains("bytes free"), "{refusal}");
        assert!(refusal.contains("free disk space"), "{refusal}");
    }
    let readable = format!("{} readable", known.len());
    assert_eq!(
        lines.last(),
        Some(&readable),
        "reads go on, of what was acknowledged"
    );
    // It is opened while the disk is full, too, and reads.
    assert_eq!(held_after_reopening(&folder), known);

    disk.resize("64m");
    assert_goes_on_in(&folder, &known);
}

/// Threat 36: a disk that refuses in the midst of a write, as one with a quota does. Mutation: answer the transactions of a
/// failed group as committed in `Writer::run`.
#[test]
fn a_write_that_fails_midway_is_no_acknowledgement_and_loses_none() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("data");
    // A limit on the size of a file, with the signal for it ignored, so that the write fails.
    let lines = Writer::of(
        Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f 6000; exec \"$@\"",
                "sh",
                WRITER,
            ])
            .arg(&folder)
            .args(["4", "1000000"]),
    )
    .finish();
    let known: BTreeSet<u64> = lines.iter().filter_map(|line| acknowledged(line)).collect();
    assert!(known.len() > 10, "{known:?}");
    for refusal in refusals(&lines) {
        assert!(refusal.contains("File too large"), "{refusal}");
        assert!(refusal.contains("restart plumb"), "{refusal}");
    }
    // sled may have been in the midst of changing a node; a read that comes by it says so.
    let last = lines.last().unwrap();
    assert!(
        *last == format!("{} readable", known.len())
            || last.starts_with("unreadable: ") && last.contains("cannot be read"),
        "{last}"
    );
    assert_goes_on_in(&folder, &known);
}
