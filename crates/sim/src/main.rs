//! Runs seeds of the simulator by hand: `cargo run -p plumb-sim -- --seeds FROM..TO [--machines N] [--jobs N] [--trace]`.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use plumb_sim::{Options, explain, run};

const USAGE: &str = "usage: plumb-sim --seeds N | FROM..TO [--machines N] [--jobs N] [--trace]";

struct Asked {
    from: u64,
    to: u64,
    machines: usize,
    jobs: usize,
    traced: bool,
}

fn asked(mut arguments: impl Iterator<Item = String>) -> Option<Asked> {
    let mut asked = Asked {
        from: 0,
        to: 200,
        machines: 50,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        traced: false,
    };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seeds" => {
                let text = arguments.next()?;
                let (from, to) = match text.split_once("..") {
                    Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
                    None => (text.parse().ok()?, text.parse::<u64>().ok()? + 1),
                };
                (asked.from, asked.to) = (from, to);
            }
            "--machines" => asked.machines = arguments.next()?.parse().ok()?,
            "--jobs" => asked.jobs = arguments.next()?.parse().ok()?,
            "--trace" => asked.traced = true,
            _ => return None,
        }
    }
    Some(asked)
}

fn main() -> ExitCode {
    let Some(asked) = asked(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let (next, failed) = (AtomicU64::new(asked.from), AtomicU64::new(0));
    let began = Instant::now();
    let totals: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..asked.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= asked.to {
                        return;
                    }
                    let options = Options {
                        machines: asked.machines,
                        traced: asked.traced,
                        ..Options::new(seed)
                    };
                    let report = run(options);
                    if asked.traced {
                        println!("{}", report.lines.join("\n"));
                    }
                    if let Ok(mut totals) = totals.lock() {
                        for (what, count) in &report.counts {
                            *totals.entry(what).or_default() += count;
                        }
                    }
                    if !report.broken.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("{}", explain(options, &report));
                    }
                    let done = seed + 1 - asked.from;
                    if done.is_multiple_of(100) {
                        println!("{done} seeds in {} s", began.elapsed().as_secs());
                    }
                }
            });
        }
    });
    println!("{:?}", totals.into_inner().unwrap_or_default());
    let (failed, count) = (failed.into_inner(), asked.to - asked.from);
    println!(
        "{count} seeds of {} agents in {} s: {failed} broke an invariant",
        asked.machines,
        began.elapsed().as_secs()
    );
    ExitCode::from(u8::from(failed > 0))
}
