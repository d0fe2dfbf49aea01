//! Seeds that every change must pass.

mod prefixes;

use crate::{Options, Report, run};

/// So many seeds on every test run; `PLUMB_SIM_SEEDS=FROM..TO` looks at others.
const SEEDS: std::ops::Range<u64> = 0..24;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("PLUMB_SIM_SEEDS") else {
        return SEEDS;
    };
    let (from, to) = text.split_once("..").expect("PLUMB_SIM_SEEDS is FROM..TO");
    let number = |text: &str| text.parse().expect("PLUMB_SIM_SEEDS is FROM..TO");
    number(from)..number(to)
}

#[test]
fn no_invariant_breaks_under_faults_and_the_fleet_comes_to_rest_as_recorded() {
    let mut worst = 0;
    let mut counts = [0; 7];
    let mut failed = Vec::new();
    for seed in seeds() {
        let report = run(Options::new(seed)).unwrap();
        worst = worst.max(report.rested_ms.unwrap_or(0));
        let of = [
            report.crashes,
            report.cuts,
            report.conflicts,
            report.assignments,
            report.renames,
            report.adoptions,
            report.waves,
        ];
        counts.iter_mut().zip(of).for_each(|(sum, n)| *sum += n);
        if !report.broken.is_empty() {
            failed.push(format!("seed {seed}:\n  {}", report.broken.join("\n  ")));
        }
    }
    println!(
        "longest way to rest: {worst} ms; crashes, cuts, conflicts, assignments, renames, adoptions, waves: {counts:?}"
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    if seeds() == SEEDS {
        assert!(
            counts.iter().all(|n| *n > 0),
            "something never happened: {counts:?}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let report: fn(u64) -> Report = |seed| run(Options::new(seed)).unwrap();
    assert_eq!(report(3), report(3));
    assert_ne!(report(3).trace, report(4).trace);
}
