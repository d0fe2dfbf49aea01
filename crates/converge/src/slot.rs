//! One resource: what it should be, what was last seen, and what is under way.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use plumb_model::{
    Address, Depth, Fault, Generation, Hash, Observation, ProcessSpec, Resource, ResourceSpec,
    ResourceStatus,
};

use crate::decide::{Decision, Known, Why, decide, decide_removal, hold};
use crate::hands::Overlay;
use crate::health::Health;

/// What should become of it.
#[derive(Debug, Clone)]
pub(crate) enum Desired {
    Resource(Arc<Resource>),
    /// With what it was, where that is still known.
    Removed {
        was: Option<Arc<Resource>>,
    },
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    No,
    Observing,
    Acting,
}

/// The life of the process behind a process resource, beyond one observation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    pub health: Health,
    pub restarts: u64,
    /// Unasked ends in a row without a healthy spell between them.
    pub ends_in_row: u32,
    /// When it ended unasked, newest last, on the monotonic clock.
    pub recent_ends: VecDeque<u64>,
    /// The incarnation whose end has been counted.
    pub counted: Option<String>,
    /// The incarnation that was asked to stop, since when, and why.
    pub asked: Option<(String, u64, Why)>,
    /// When the running incarnation was first seen alive, on the monotonic clock.
    pub alive_since_ms: Option<u64>,
    pub last_exit: Option<plumb_model::observation::Exit>,
}

/// What is held elsewhere is to be held here from now on, before anything else is done at either address.
#[derive(Debug, Clone)]
pub(crate) struct Moving {
    /// The addresses that it may be held at, newest first.
    pub from: Vec<Address>,
    /// The last try failed like this.
    pub failed: Option<Fault>,
    pub failures: u32,
    pub not_before_ms: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub desired: Desired,
    /// Its owner was renamed, and the driver has not been told yet.
    pub moving: Option<Moving>,
    /// The hash of the desired resource, to know whether it converged before.
    pub spec_hash: Option<Hash>,
    pub generation: Generation,
    /// The generation that the last observation was made under.
    pub seen_under: Generation,
    pub busy: Busy,
    /// It must be looked at (again), this closely.
    pub look: Option<Depth>,
    pub seen: Option<Result<Observation, Fault>>,
    /// The last action failed like this, and nothing has been seen since that would make it moot.
    pub failed: Option<Fault>,
    pub failures: u32,
    pub not_before_ms: u64,
    /// What the action under way is for.
    pub acting_for: Option<(Why, u64)>,
    /// This spec has converged here before.
    pub applied: bool,
    pub gone: bool,
    /// When differences were put right, newest last, on the monotonic clock.
    pub corrections: VecDeque<u64>,
    pub flapping: bool,
    /// Drift that the blueprint says to leave has been told of.
    pub told: bool,
    pub life: Life,
    pub reported: Option<ResourceStatus>,
    /// Digests that must arrive first.
    pub missing: bool,
    /// It was running before this agent looked for the first time.
    pub first_look: bool,
    /// The answer under way was asked for under another spec, and says nothing about this one.
    pub stale: bool,
    /// What is ordered of it by hand.
    pub overlay: Overlay,
    /// See [`incarnation`](Self::incarnation).
    incarnation: OnceLock<Hash>,
}

impl Slot {
    pub fn new(desired: Desired, generation: Generation) -> Self {
        Self {
            desired,
            moving: None,
            spec_hash: None,
            generation,
            seen_under: Generation(0),
            busy: Busy::No,
            look: Some(Depth::Full),
            seen: None,
            failed: None,
            failures: 0,
            not_before_ms: 0,
            acting_for: None,
            applied: false,
            gone: false,
            corrections: VecDeque::new(),
            flapping: false,
            told: false,
            life: Life::default(),
            reported: None,
            missing: false,
            first_look: true,
            stale: false,
            overlay: Overlay::default(),
            incarnation: OnceLock::new(),
        }
    }

    pub fn is_removal(&self) -> bool {
        matches!(self.desired, Desired::Removed { .. })
    }

    pub fn resource(&self) -> Option<&Arc<Resource>> {
        match &self.desired {
            Desired::Resource(resource) => Some(resource),
            Desired::Removed { .. } => None,
        }
    }

    /// What it is or was as a process, if that is known.
    pub fn last_process(&self) -> Option<&ProcessSpec> {
        let resource = match &self.desired {
            Desired::Resource(resource) => Some(resource),
            Desired::Removed { was } => was.as_ref(),
        };
        match &resource?.spec {
            ResourceSpec::Process(spec) => Some(spec),
            _ => None,
        }
    }

    /// The hash that a running incarnation of what it is or was has, if that is a process. Worked out once: it is asked for
    /// with every look.
    pub fn incarnation(&self) -> Option<Hash> {
        let spec = self.last_process()?;
        Some(*self.incarnation.get_or_init(|| spec.incarnation_hash()))
    }

    pub fn look(&mut self, depth: Depth) {
        self.look = self.look.max(Some(depth));
    }

    /// What the last observation calls for, if there is one.
    pub fn decision(&self) -> Option<Decision> {
        let observed = match self.seen.as_ref()? {
            Ok(observed) => observed,
            Err(_) => return None,
        };
        let decision = match &self.desired {
            Desired::Removed { .. } => decide_removal(observed),
            Desired::Resource(resource) => {
                let asked_to_stop = match observed {
                    Observation::Exited(run, _) => {
                        self.life
                            .asked
                            .as_ref()
                            .is_some_and(|(id, ..)| *id == run.id)
                            || run.stopping
                    }
                    _ => false,
                };
                let known = Known {
                    applied: self.applied,
                    unhealthy: self.life.health.healthy == Some(false),
                    asked_to_stop,
                    halted: self.overlay.halt.is_some(),
                    again: self.overlay.again.as_deref(),
                    incarnation: self.incarnation(),
                };
                decide(resource, observed, known)
            }
        };
        // What somebody has ordered expressly is done all the same.
        let by_hand = self.overlay.halt.is_some() || self.overlay.again.is_some();
        Some(match self.overlay.held {
            Some(_) if !by_hand => hold(decision),
            _ => decision,
        })
    }

    /// Whether it is as it should be, as far as those who wait for it care.
    pub fn converged(&self) -> bool {
        let settled = match self.decision() {
            Some(Decision::Settled) => true,
            Some(Decision::Leave(_)) => true,
            Some(Decision::Held(differs)) => !differs.is_empty(),
            Some(Decision::Ended(status)) => {
                status == plumb_model::observation::ExitStatus::Code(0)
            }
            Some(Decision::Gone) => self.is_removal(),
            _ => false,
        };
        settled
            && self.moving.is_none()
            && self.is_fresh()
            && self.busy != Busy::Acting
            && self.failed.is_none()
    }

    /// Whether it has been looked at since this spec was given: what was seen under another one says nothing about it.
    pub fn is_fresh(&self) -> bool {
        self.seen_under != Generation(0)
    }

    /// The hash by which a resource that converged is known again after a restart of the agent.
    pub fn hash_of(address: &Address, resource: &Resource) -> Hash {
        assert_eq!(*address, resource.address);
        Hash::of_json(resource)
    }
}
