//! What a durable commit costs, beside the least that could be durable: an append and an fdatasync.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use plumb_ledger::{Committed, DataFolder, SledStore, Store, Txn};

use super::super::Table;

/// How many commits one caller makes in a row, and each of many.
const IN_A_ROW: usize = 300;

/// How often the three are measured in turn; the disk of a shared machine varies from second to second.
const ROUNDS: usize = 5;

/// The callers of the second bar.
const CALLERS: usize = 32;

/// What is written: about a small record.
const VALUE: [u8; 256] = [7; 256];

/// One caller against the bare loop, and many callers against one.
pub fn run(table: &mut Table) -> Result<(), String> {
    let folder = tempfile::Builder::new()
        .prefix("plumb-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let data = DataFolder::open(&folder.path().join("data")).map_err(|e| e.to_string())?;
    let store = Arc::new(SledStore::open(&data).map_err(|e| e.to_string())?);
    let (mut bare, mut one, mut many) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let rates = (
            appends(&folder.path().join("bare"))?,
            commits(&store, round, 1)?,
            commits(&store, round, CALLERS)?,
        );
        // The first round makes files grow and pages load.
        if round > 0 {
            bare.push(rates.0);
            one.push(rates.1);
            many.push(rates.2);
        }
    }
    let (bare, one, many) = (middle(bare), middle(one), middle(many));
    table.row("append and fdatasync, bare", &format!("{bare:.0}/s"), "");
    table.row(
        "durable commits, one caller",
        &format!("{one:.0}/s, {:.2} × the bare loop", one / bare),
        "≥ 0.25 ×",
    );
    table.row(
        "durable commits, 32 callers",
        &format!("{many:.0}/s, {:.1} × one caller", many / one),
        "≥ 3 ×",
    );
    Ok(())
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Appends of a record's size, each synced: so many a second.
fn appends(path: &Path) -> Result<f64, String> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|e| e.to_string())?;
    let began = Instant::now();
    for _ in 0..IN_A_ROW {
        file.write_all(&VALUE)
            .and_then(|()| file.sync_data())
            .map_err(|e| e.to_string())?;
    }
    Ok(IN_A_ROW as f64 / began.elapsed().as_secs_f64())
}

/// Commits of one record each, by so many callers at once: so many a second.
fn commits(store: &Arc<SledStore>, round: usize, callers: usize) -> Result<f64, String> {
    let began = Instant::now();
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                scope.spawn(move || {
                    for n in 0..IN_A_ROW {
                        let key = format!("bench/{callers}/{caller:02}/{round}/{n:04}");
                        match store.commit(Txn::default().absent(key.clone()).put(key, VALUE)) {
                            Ok(Committed::Yes) => {}
                            other => return Err(format!("a commit was not taken: {other:?}")),
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined
            .map(|result| result.unwrap_or_else(|_| Err("a caller panicked".to_owned())))
            .collect()
    });
    results.into_iter().collect::<Result<(), String>>()?;
    Ok((callers * IN_A_ROW) as f64 / began.elapsed().as_secs_f64())
}
