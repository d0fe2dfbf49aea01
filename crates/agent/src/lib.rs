//! The agent: the tokio shell around `converge`, the drivers and the agent's end of the session.
//!
//! It decides nothing. One task, [`core`], owns the reconciler and the session; everything else feeds it events and
//! carries its effects out: [`link`] talks to the control plane, [`lanes`] run the drivers on threads that may block,
//! [`watch`] and [`exits`] wake it. The command line starts it, alone or beside a control plane.
//!
//! Invariants: an assignment is on this machine's disk before it is acknowledged or acted on; losing the control
//! plane, or this agent, stops no workload.

pub mod config;
mod contact;
mod content;
mod core;
mod error;
mod exits;
mod folder;
mod hands;
mod identity;
mod journal;
mod lanes;
mod link;
mod logs;
mod metrics;
mod ready;
mod secrets;
mod warned;
mod watch;

pub use self::core::{Running, start};
pub use config::Config;

/// The parts around a session, for whoever plays many machines in one process and converges none of them.
pub mod parts {
    pub use crate::folder::Keeper;
    pub use crate::identity::{Enrolled, Record, join};
    pub use crate::link::{LinkEvent, Uplink, run};
}
pub use error::AgentError;
pub use identity::Record;

use plumb_model::MachineName;

/// Enrols this machine, if it is not enrolled yet, and starts nothing. Who it is.
///
/// # Errors
/// When the folder cannot be used or is an agent's that runs, or the machine is not enrolled and cannot be.
pub async fn enrol(config: &Config) -> Result<MachineName, AgentError> {
    let folder = folder::Folder::open(&config.data)?;
    let enrolled = match identity::Enrolled::load(folder.path())? {
        Some(mut enrolled) => {
            if let Some(server) = &config.server {
                enrolled.moved_to(server)?;
            }
            enrolled
        }
        None => identity::join(config).await?,
    };
    Ok(enrolled.record.machine)
}

/// Who the agent with this data folder is, also while it runs.
///
/// # Errors
/// When it was never enrolled, or what is stored cannot be read.
pub fn enrolled_as(data: &std::path::Path) -> Result<MachineName, AgentError> {
    let enrolled = identity::Enrolled::load(data)?.ok_or(AgentError::NotEnrolled)?;
    Ok(enrolled.record.machine)
}

/// What is known of the enrolment of the agent with this data folder, also while it runs; none if it was never enrolled.
///
/// # Errors
/// When what is stored cannot be read.
pub fn enrolment(data: &std::path::Path) -> Result<Option<Record>, AgentError> {
    Ok(identity::Enrolled::load(data)?.map(|enrolled| enrolled.record))
}

/// Whether an agent with this data folder has been enrolled, so that it needs no token.
#[must_use]
pub fn is_enrolled(data: &std::path::Path) -> bool {
    data.join("identity").join("enrolled.json").is_file()
}
