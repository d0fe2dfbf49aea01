//! Writes numbered records into a store as fast as it can, and says each number once it is acknowledged: what
//! the crash tests of `tests/system/store.rs` kill and trace.
//!
//! `ledger-writer FOLDER THREADS COUNT` prints `opening`, then `holds` and the numbers that the store has, then
//! `ack N` for each commit, and ends after COUNT commits or, with `refused: WHY`, at the first that fails. Last it prints
//! how many it can read.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use plumb_ledger::{Committed, DataFolder, MAX_SCAN, SledStore, Store, Txn};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, threads, count] = &arguments[..] else {
        return Err("usage: ledger-writer FOLDER THREADS COUNT".into());
    };
    let (threads, count): (u64, u64) = (threads.parse()?, count.parse()?);
    say("opening");
    let store = SledStore::open(&DataFolder::open(Path::new(folder))?)?;
    let held = held(&store)?;
    let numbers: Vec<String> = held.iter().map(u64::to_string).collect();
    say(&format!("holds {}", numbers.join(",")));

    let first = held.last().map_or(1, |last| last + 1);
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + count {
                        return;
                    }
                    match store.commit(record(number)) {
                        Ok(Committed::Yes) => say(&format!("ack {number}")),
                        Ok(Committed::Conflict(_)) => return say("refused: the number is taken"),
                        Err(error) => return say(&format!("refused: {error}")),
                    }
                }
            });
        }
    });
    if let Err(error) = store.ready() {
        say(&format!("not ready: {error}"));
    }
    // What was acknowledged before a full disk must still be readable with it.
    match self::held(&store) {
        Ok(numbers) => say(&format!("{} readable", numbers.len())),
        Err(error) => say(&format!("unreadable: {error}")),
    }
    Ok(())
}

/// Two keys in one transaction, so that a torn one shows. Most values are small; some are cut into pieces.
fn record(number: u64) -> Txn {
    Txn::default()
        .absent(format!("record/{number:020}"))
        .put(format!("record/{number:020}"), value(number))
        .put(format!("mirror/{number:020}"), number.to_be_bytes())
}

fn value(number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(7) {
        40 * 1024
    } else {
        200
    };
    let text = format!("<record-{number}>");
    text.bytes().cycle().take(length).collect()
}

/// The numbers that the store has; an error if one is torn or not what was written.
fn held(store: &dyn Store) -> Result<BTreeSet<u64>, Box<dyn Error>> {
    let (records, mirrors) = (pairs(store, "record/")?, pairs(store, "mirror/")?);
    let mut numbers = BTreeSet::new();
    for (key, found) in &records {
        let number = key.parse()?;
        if *found != value(number) {
            return Err(format!("record {number} is not what was written").into());
        }
        numbers.insert(number);
    }
    let mirrored: BTreeSet<u64> = mirrors
        .keys()
        .map(|key| key.parse())
        .collect::<Result<_, _>>()?;
    if numbers != mirrored {
        return Err(format!("torn transactions: {numbers:?} are not {mirrored:?}").into());
    }
    Ok(numbers)
}

fn pairs(store: &dyn Store, prefix: &str) -> Result<BTreeMap<String, Vec<u8>>, Box<dyn Error>> {
    let mut all = BTreeMap::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = store.scan(prefix.as_bytes(), after.as_deref(), MAX_SCAN)?;
        let complete = page.len() < MAX_SCAN;
        after = page.last().map(|(key, _)| key.clone());
        for (key, value) in page {
            all.insert(String::from_utf8(key[prefix.len()..].to_vec())?, value);
        }
        if complete {
            return Ok(all);
        }
    }
}

/// One write for a line, so that whoever reads or traces it never sees half of one.
fn say(line: &str) {
    let line = format!("{line}\n");
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        // Whoever listened is gone, as when the test has failed; without an end the disk would fill up.
        std::process::exit(1);
    }
}
