//! Drivers: one module for each resource kind, which observe and act on one VM.
//!
//! A driver never decides: it says what it sees and does what it is told. It knows neither other kinds nor
//! the protocol. The agent calls it, on threads that may block.

pub mod artifact;
pub mod blobs;
pub mod capability;
pub mod file;
pub mod health;
pub mod host;
pub mod logs;
pub mod owned;
pub mod process;
pub mod secrets;
pub mod shim;
mod trouble;
pub mod undriven;
pub mod watch;

pub use plumb_model::Depth;
use plumb_model::{Action, Address, Fault, Observation, ReleaseNumber, ResourceSpec};

/// What a driver is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Which resource.
    pub address: &'a Address,
    /// What it should be. None asks about whatever of Plumb's own is left at the address, to remove it.
    pub spec: Option<&'a ResourceSpec>,
    /// The owner's release, for `${release}`.
    pub release: Option<ReleaseNumber>,
}

/// Observes and acts on the resources of one kind. Answers come in the order of the questions, one for each.
pub trait Driver: Send {
    /// Says what is there. Changes nothing.
    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>>;

    /// Acts on a batch, durably, and says what is there afterwards.
    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>>;
}
