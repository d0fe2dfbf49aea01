//! A seeded fleet under faults, running the production logic of stages 2 to 5: planner, ledger, dispatch, converge.
//!
//! One control plane and a few agents live in virtual time: an operator applies, rolls back and destroys; links are cut
//! in one direction or both; agents, control plane and whole VMs die at any point; strangers tamper with what is managed.
//! Named invariants are checked on the way, and once the faults end, everything must come to rest as recorded. The same
//! seed gives the same run, so that a failing one can be looked at again.
//!
//! It opens no socket, reads no clock, touches no disk, and is used by tests alone.

pub mod chance;
pub mod workload;

pub mod agent;
pub mod control;
pub mod vm;

pub mod world;

pub use world::{Options, Report, run};

#[cfg(test)]
mod tests;
