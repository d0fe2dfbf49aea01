//! Stage 5: from desired, observed and retry state to actions, in dependency order.
//!
//! Sans-IO: [`Reconciler::handle`] takes an event and the time, and returns effects. It never touches the VM,
//! reads no clock and draws no randomness of its own, so that the simulator runs this very code. The agent's shell
//! calls it and carries the effects out with drivers.
//!
//! Invariants: never two observations or actions at once on one resource; the latest desired state wins;
//! a failure blocks only what depends on it.

mod backoff;
pub mod decide;
pub mod hands;
mod health;
mod life;
mod order;
pub mod reconciler;
mod renames;
pub mod round;
mod slot;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use plumb_model::condition::MachineEvent;
use plumb_model::{
    Action, Address, Assignment, Depth, Fault, Found, Generation, Hands, Hash, HealthProbe,
    Observation, OwnerName, ProbeResult, Resource, ResourceKind, ResourceStatus,
};

pub use plumb_model::Now;
pub use reconciler::{Reconciler, Settings};

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new assignment is on the agent's disk and is to be held from now on.
    Assigned {
        /// Its generation.
        generation: Generation,
        /// What it says.
        assignment: Arc<Assignment>,
        /// Digests that it refers to and that are not on this machine yet.
        missing: Vec<Hash>,
    },
    /// Content has arrived from the control plane.
    Arrived(Hash),
    /// Something may have changed at these addresses.
    Woken(Vec<Address>),
    /// What drivers saw.
    Observed(Vec<(Address, Result<Observation, Fault>)>),
    /// What drivers did, and what is there now.
    Acted(Vec<(Address, Action, Result<Observation, Fault>)>),
    /// A health check came back.
    Probed {
        /// Whose.
        address: Address,
        /// The incarnation that was asked.
        incarnation: String,
        /// How it went.
        result: ProbeResult,
    },
    /// Other orders by hand are on this machine's disk, and are to be obeyed from now on.
    Hands(Hands),
    /// The progress of this number, from [`Reconciler::take_progress`], is on this machine's disk.
    Noted(u64),
    /// This stands at what somebody holds.
    Shown(Address, Found),
    /// The control plane is heard from now on, or has not been for so many milliseconds.
    Heard {
        /// None: it is.
        away_ms: Option<u64>,
    },
    /// Everything is to be checked in full, now; the answer comes by [`Reconciler::take_checked`].
    Check {
        /// To be named in the answer.
        request: u64,
        /// Only what belongs to this owner.
        owner: Option<OwnerName>,
    },
    /// Time has passed; see [`Reconciler::next_wake`].
    Tick,
}

/// One resource that a driver is to look at or act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Which.
    pub address: Address,
    /// What it should be; none if it is to be removed.
    pub resource: Option<Arc<Resource>>,
}

/// Something to be done by the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Look; answer with [`Event::Observed`].
    Observe {
        /// All are of this kind.
        kind: ResourceKind,
        /// How closely.
        depth: Depth,
        /// At what.
        work: Vec<Work>,
    },
    /// Act; answer with [`Event::Acted`].
    Act {
        /// All are of this kind.
        kind: ResourceKind,
        /// On what, and how.
        work: Vec<(Work, Action)>,
    },
    /// Ask after a process's health; answer with [`Event::Probed`].
    Probe {
        /// Whose.
        address: Address,
        /// The incarnation to name in the answer.
        incarnation: String,
        /// What to ask.
        probe: HealthProbe,
        /// How long it may take, in milliseconds.
        timeout_ms: u64,
    },
    /// These statuses moved.
    Report(Vec<ResourceStatus>),
    /// Something happened that people want to read.
    Emit(MachineEvent),
}
