//! The bars of a large fleet: one control plane as a process, thousands of agents in another, and what the two cost.
//!
//! `PLUMB_FLEET` says how many agents; the bars are for 5,000.

pub mod commits;
mod control;
mod fleet;
pub mod one;
mod swarm;

use super::Table;

/// The fleet that the bars are for.
const AGENTS: usize = 5000;

/// How many agents a command that touches one resource each goes to.
const REACHED: usize = 1000;

/// The rows of the fleet.
pub fn run(table: &mut Table) -> Result<(), String> {
    fleet::run(table, agents())
}

/// How many agents.
fn agents() -> usize {
    let asked = std::env::var("PLUMB_FLEET").ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(AGENTS)
}
