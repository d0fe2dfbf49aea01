//! System tests: the real parts, together, on this host. One binary for all, a module for each subject.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that panics fails its test, as it should"
)]

mod access;
mod architecture;
mod cli;
mod dev;
mod faults;
mod identity;
mod operations;
mod pair;
mod readme;
mod store;
