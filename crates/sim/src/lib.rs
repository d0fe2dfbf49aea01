//! A seeded fleet under faults, running the production logic of stages 2 to 5: planner, ledger, dispatch, converge.
//!
//! Three control planes share one store, and 50 agents live in virtual time. Operators apply, roll out in waves, pause,
//! abort, roll back, rotate secrets, remove machines and destroy; links are cut in one direction or both, and lose, double
//! and reorder what they carry; agents, control planes and whole VMs die at any point, a control plane at any write to its
//! store; some stand still for a minute and go on as if nothing had been; clocks jump, an older copy of the store is put
//! back, VMs are copied, strangers tamper. Named invariants are checked with every step, and once the faults end, everything
//! must come to rest as recorded. The same seed gives the same run, so that a failing one can be looked at again.
//!
//! It opens no socket, reads no clock, touches no disk, and is used by tests and its own runner alone.

pub mod bugs;
pub mod chance;
pub mod store;
pub mod workload;

pub mod agent;
pub mod control;
pub mod vm;

pub mod world;

pub use bugs::Bug;
pub use world::{Once, Options, Report, run};

/// What to say of a seed that fails: what broke, how to run it again, and the end of what happened.
#[must_use]
pub fn explain(options: Options, report: &Report) -> String {
    let traced = run(Options {
        traced: true,
        ..options
    });
    let lines = &traced.lines;
    let first = lines.iter().position(|line| line.contains(" BROKEN: "));
    let end = first.map_or(lines.len(), |at| (at + 5).min(lines.len()));
    let begin = end.saturating_sub(60);
    let seed = options.seed;
    format!(
        "seed {seed}:\n  {}\nrun it again: cargo run -p plumb-sim -- --seeds {seed} --machines {} --trace\nwhat happened before it broke first:\n  {}\n",
        report.broken.join("\n  "),
        options.machines,
        lines[begin..end].join("\n  ")
    )
}

#[cfg(test)]
mod tests;
