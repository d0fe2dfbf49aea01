//! The agent: the tokio shell around `converge`, the drivers and the agent's end of the session.
//!
//! It decides nothing. One task, [`core`], owns the reconciler and the session; everything else feeds it events and
//! carries its effects out: [`link`] talks to the control plane, [`lanes`] run the drivers on threads that may block,
//! [`watch`] and [`exits`] wake it. The command line starts it, alone or beside a control plane.
//!
//! Invariants: an assignment is on this machine's disk before it is acknowledged or acted on; losing the control
//! plane, or this agent, stops no workload.

pub mod config;
mod content;
mod core;
mod error;
mod exits;
mod folder;
mod identity;
mod lanes;
mod link;
mod logs;
mod ready;
mod secrets;
mod watch;

pub use self::core::{Running, start};
pub use config::Config;
pub use error::AgentError;

/// Whether an agent with this data folder has been enrolled, so that it needs no token.
#[must_use]
pub fn is_enrolled(data: &std::path::Path) -> bool {
    data.join("identity").join("enrolled.json").is_file()
}
