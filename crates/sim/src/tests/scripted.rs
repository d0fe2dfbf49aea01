//! Histories that are played on purpose, and those that once broke something.

use crate::store::Side;
use crate::{Once, Options, explain, run};

/// A control plane dies at each of its first writes, before and after the store has kept it, and another one takes over.
#[test]
fn a_crash_at_every_ledger_write_loses_nothing_and_comes_to_rest() {
    let quiet = Options {
        machines: 4,
        storm_ms: 60_000,
        quiet: true,
        ..Options::new(7)
    };
    let whole = run(quiet);
    assert_eq!(whole.broken, Vec::<String>::new());
    let mut crashes = 0;
    for write in 0..whole.written {
        for side in [Side::Before, Side::After] {
            let options = Options {
                dies_at: Some((write, side)),
                ..quiet
            };
            let report = run(options);
            crashes += report.counts.get("crashes").copied().unwrap_or(0);
            assert!(
                report.broken.is_empty(),
                "{write} {side:?}: {}",
                explain(options, &report)
            );
        }
    }
    println!("{crashes} crashes at {} writes", whole.written);
    assert!(
        crashes >= whole.written,
        "{crashes} crashes at {} writes",
        whole.written
    );
}

/// Some fleets to which nothing happens but what is on purpose.
fn calm(seed: u64, once: Once) -> Options {
    Options {
        machines: 6,
        quiet: true,
        once: Some(once),
        ..Options::new(seed)
    }
}

/// Row 38 of the threats: partitions, one-way too, delay, doubled and reordered messages, and a reconnect of everybody.
#[test]
fn a_bad_network_ends_in_what_is_recorded() {
    let mut counts = std::collections::BTreeMap::new();
    for seed in 1000..1010 {
        let options = Options {
            machines: 12,
            ..Options::new(seed)
        };
        let report = run(options);
        assert!(report.broken.is_empty(), "{}", explain(options, &report));
        for (what, count) in report.counts {
            *counts.entry(what).or_insert(0) += count;
        }
    }
    for what in ["cuts", "noisy links", "partitions", "slow readers"] {
        assert!(counts.contains_key(what), "{what}: {counts:?}");
    }
}

/// Row 39 of the threats: of two leaders, the one that stood still for 60 s writes nothing more. The mutation is
/// [`crate::Bug::Unfenced`], in `bugs.rs`.
#[test]
fn a_leader_that_stood_still_for_a_minute_is_fenced() {
    let mut fenced = 0;
    for seed in 0..10 {
        let options = calm(seed, Once::LeaderPauses);
        let report = run(options);
        assert!(report.broken.is_empty(), "{}", explain(options, &report));
        fenced += report.counts.get("fenced").copied().unwrap_or(0);
    }
    // In so calm a fleet the old leader mostly finds out before it writes; among faults it does not.
    fenced += (0..24)
        .map(|seed| {
            let report = run(Options {
                machines: 8,
                ..Options::new(seed)
            });
            report.counts.get("fenced").copied().unwrap_or(0)
        })
        .sum::<u64>();
    assert!(fenced > 0, "no write of an old leader came to be fenced");
}

/// Row 40 of the threats: clocks on the wall jump by an hour and by ten years, and nobody is taken for dead.
#[test]
fn clocks_that_jump_end_no_session_and_keep_nobody_waiting() {
    let ended = |options| run(options).counts.get("closed").copied().unwrap_or(0);
    for seed in 0..5 {
        let options = calm(seed, Once::ClocksJump);
        let report = run(options);
        assert!(report.broken.is_empty(), "{}", explain(options, &report));
        let still = ended(Options {
            once: None,
            ..options
        });
        assert_eq!(ended(options), still, "seed {seed}");
    }
}
