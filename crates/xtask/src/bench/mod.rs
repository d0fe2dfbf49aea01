//! The bars, measured side by side in one run. Each prints its median, its spread and the bar.
//!
//! Times of whole programs are taken from outside, on the release binary beside this one; times of one stage call the
//! production code. The machine's own speed is told by a calibration loop, so that numbers of two days compare.

pub mod bare;
mod files;
pub mod fleet;
mod fleet_live;
mod idle;
mod live;
mod plan;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What can be measured.
pub const NAMES: [&str; 10] = [
    "size", "once", "restart", "files", "plan", "heal", "idle", "commits", "apply", "fleet",
];

/// One benchmark; it adds its rows.
type Step = fn(&mut Table) -> Result<(), String>;

/// Runs all benchmarks, or those that are named.
pub fn run(only: &[&str]) -> ExitCode {
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    if let Some(unknown) = only.iter().find(|n| !NAMES.contains(n)) {
        eprintln!("no benchmark {unknown:?}; there are {}", NAMES.join(" "));
        return ExitCode::from(1);
    }
    let mut table = Table::default();
    table.row("calibration loop", &ms(&repeat(9, calibrate)), "");
    let steps: [(&str, Step); 10] = [
        ("size", world::size),
        ("once", live::once),
        ("restart", live::restart),
        ("files", files::run),
        ("plan", plan::run),
        ("heal", live::heal),
        ("idle", idle::run),
        ("commits", fleet_live::commits::run),
        ("apply", fleet_live::one::run),
        ("fleet", fleet_live::run),
    ];
    let mut failed = false;
    for (name, step) in steps {
        if wanted(name)
            && let Err(why) = step(&mut table)
        {
            eprintln!("{name}: {why}");
            failed = true;
        }
    }
    println!("{}", table.text);
    ExitCode::from(u8::from(failed))
}

/// A fixed amount of integer work.
fn calibrate() -> Duration {
    let began = Instant::now();
    let mut state = 1u64;
    for _ in 0..50_000_000u32 {
        state = std::hint::black_box(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
    }
    std::hint::black_box(state);
    began.elapsed()
}

/// Takes a measurement several times, after one that is thrown away.
pub fn repeat(times: usize, mut measure: impl FnMut() -> Duration) -> Vec<Duration> {
    measure();
    (0..times).map(|_| measure()).collect()
}

/// The middle one.
pub fn median(all: &[Duration]) -> Duration {
    let mut sorted = all.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Median and spread in milliseconds.
pub fn ms(all: &[Duration]) -> String {
    let show = |d: Option<&Duration>| d.map_or(0.0, |d| d.as_secs_f64() * 1e3);
    format!(
        "{:.1} ms ({:.1} to {:.1}, n={})",
        show(Some(&median(all))),
        show(all.iter().min()),
        show(all.iter().max()),
        all.len()
    )
}

/// What is printed at the end: Markdown, as it stands in docs/BENCHMARKS.md.
pub struct Table {
    text: String,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            text: "| what | measured | bar |\n|---|---|---|\n".to_owned(),
        }
    }
}

impl Table {
    /// Adds a row, and shows it at once.
    pub fn row(&mut self, what: &str, measured: &str, bar: &str) {
        eprintln!("{what}: {measured} (bar: {bar})");
        self.text
            .push_str(&format!("| {what} | {measured} | {bar} |\n"));
    }
}
