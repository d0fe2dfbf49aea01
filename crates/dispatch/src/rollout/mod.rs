//! Rollouts: in which steps machines move from what they hold to what is recorded for them, and when a step is due.
//!
//! Three pure functions of a state that the ledger keeps: [`Rollouts::begin`] with every revision, [`Rollouts::step`]
//! whenever something was seen or time has passed, and [`Rollouts::order`] when an operator says so. Each gives the next
//! state and what is to be stored of it; nothing counts before it is stored. The control plane and the simulator call them.
//!
//! What a machine holds meanwhile is put together from two assignments, line by line: the lines of each owner that has
//! moved there as they are recorded, those of each owner that has not as the machine holds them. No line is written anew.
//!
//! Invariants, held by tests: no step makes more instances of an app unavailable than its budget, counting those that are
//! down, away or of unknown health; what fails is taken back once; what one owner's resources wait for on a machine is
//! there before them; a generation moves only with its content.

mod begin;
mod compose;
mod orders;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::rollout::{Phase, Position, Rolling, RolloutRecord};
use plumb_model::state::{MachineState, Recorded};
use plumb_model::{
    Assignment, Generation, Hash, MachineName, OwnerName, ReleaseNumber, Revision, Timestamp,
};

pub use begin::{About, Began, Stored};
pub use orders::{Order, OrderError};
pub use step::{Revert, Step};

use crate::view::RolloutView;

/// One owner on one machine, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// How many of its instances the machine holds.
    pub instances: u32,
    /// How the worst of them is.
    pub health: Health,
}

/// How an owner is on a machine, under the generation that the machine is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All of it is as it should be, and healthy where it has a check.
    Available,
    /// It stands still, since an operator has stopped it. It counts as unavailable, and nobody waits for it.
    Stopped,
    /// Nobody knows: the machine is away, or has not spoken under its generation. It counts as unavailable.
    Unknown,
    /// It is not there yet, or unhealthy; in words.
    Unavailable(String),
    /// It has failed, and stays so until somebody acts; in words.
    Failed(String),
}

/// What is seen of the fleet, as far as rollouts ask.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sight {
    /// Machines whose agent is connected, and to which assignments can be sent.
    pub online: BTreeSet<MachineName>,
    /// Owners on machines.
    pub owners: BTreeMap<OwnerName, BTreeMap<MachineName, Seen>>,
}

/// A machine that rollouts take to what is recorded for it, or have taken there since the last apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The revision that began it.
    pub since: Revision,
    /// The generation of what it holds.
    pub generation: Generation,
    /// What it is to hold now.
    pub held: Arc<Assignment>,
    /// What is recorded for it in the end.
    pub target: Arc<Assignment>,
    /// The owners that have not moved there, with the release that it holds of each; 0 is none.
    pub behind: BTreeMap<OwnerName, ReleaseNumber>,
    /// What has to move before or along with each of those, as far as it follows from what waits for what.
    needs: compose::Needs,
}

/// A rollout, and what is only known while this process runs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Going {
    pub record: RolloutRecord,
    /// Since when each machine at the release has been available, on the monotonic clock.
    available: BTreeMap<MachineName, u64>,
    /// Since when it has been failing, without having been available in between.
    failing: BTreeMap<MachineName, u64>,
    /// How many machines had proven themselves when it was last looked at.
    proven: usize,
    /// When [`Rollouts::step`] last let it go on, on the monotonic clock: the time in between has passed for it. Nobody takes steps
    /// while nothing goes on, and that time is nobody's.
    looked_ms: Option<u64>,
    /// All that it waited for then were machines that are away.
    alone: bool,
    /// What it waits for, in words.
    waits: Option<String>,
    /// For the view.
    total: u32,
    moved: u32,
    healthy: u32,
}

impl Going {
    fn new(record: RolloutRecord) -> Self {
        Self {
            record,
            available: BTreeMap::new(),
            failing: BTreeMap::new(),
            proven: 0,
            looked_ms: None,
            alone: false,
            waits: None,
            total: 0,
            moved: 0,
            healthy: 0,
        }
    }
}

/// Every rollout of a workspace, and every machine that is not wholly at what is recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rollouts {
    machines: BTreeMap<MachineName, Standing>,
    going: BTreeMap<OwnerName, Going>,
}

impl Standing {
    /// As it is recorded.
    #[must_use]
    pub fn rolling(&self) -> Rolling {
        Rolling {
            since: self.since,
            generation: self.generation,
            assignment: self.held.hash(),
            behind: self.behind.clone(),
        }
    }
}

impl Rollouts {
    /// Whether [`Rollouts::step`] has nothing to do or to look at before somebody says something.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let over = |going: &Going| going.record.phase.is_over();
        self.going.values().all(over) && self.machines.values().all(|m| m.behind.is_empty())
    }

    /// The owners that a step asks about.
    #[must_use]
    pub fn asks_about(&self) -> BTreeSet<OwnerName> {
        let live = |going: &&Going| going.record.phase != Phase::Done;
        let live = self.going.values().filter(live);
        live.map(|going| going.record.owner.clone()).collect()
    }

    /// What a machine holds that is not wholly at what is recorded, or was taken there by waves.
    #[must_use]
    pub fn standing(&self, machine: &MachineName) -> Option<&Standing> {
        self.machines.get(machine)
    }

    /// The newest rollout of each owner that has one.
    pub fn records(&self) -> impl Iterator<Item = &RolloutRecord> {
        self.going.values().map(|going| &going.record)
    }

    /// The newest rollout of an owner.
    #[must_use]
    pub fn record(&self, owner: &OwnerName) -> Option<&RolloutRecord> {
        self.going.get(owner).map(|going| &going.record)
    }

    /// The generation that a machine is to hold now.
    #[must_use]
    pub fn generation(&self, name: &MachineName, state: &MachineState) -> Generation {
        self.machines
            .get(name)
            .map_or(state.generation, |standing| standing.generation)
    }

    /// Whether every machine is just where the state says, so that nothing has to be counted anew.
    #[must_use]
    pub fn all_as_recorded(&self) -> bool {
        self.machines.is_empty()
    }

    /// The same state, in which each machine has the generation that it is to hold now: what the planner counts on from.
    #[must_use]
    pub fn counted(&self, recorded: &Recorded) -> Recorded {
        let mut recorded = recorded.clone();
        for (name, standing) in &self.machines {
            if let Some(machine) = recorded.state.machines.get_mut(name) {
                machine.generation = standing.generation;
            }
        }
        recorded
    }

    /// How each rollout stands, for people.
    #[must_use]
    pub fn views(&self) -> BTreeMap<OwnerName, RolloutView> {
        let view = |going: &Going| {
            let record = &going.record;
            let settings = &record.settings;
            let behind = self.behind(&record.owner);
            RolloutView {
                owner: record.owner.clone(),
                release: record.release,
                apply: record.apply,
                strategy: settings.strategy,
                batch: settings.batch,
                max_unavailable: settings.max_unavailable,
                min_healthy_ms: settings.min_healthy_ms,
                deadline_ms: settings.deadline_ms,
                auto_revert: settings.auto_revert,
                phase: record.phase,
                why: record.why.clone(),
                waits: going.waits.clone().filter(|_| record.phase.goes_on()),
                waves: record.waves,
                waited_ms: record.waited_ms,
                instances: going.total,
                moved: going.moved,
                healthy: going.healthy,
                behind: behind.cloned().collect(),
                reverts: record.reverts,
                reverts_why: record.reverts_why.clone(),
                started: record.started,
                changed: record.changed,
            }
        };
        self.going
            .iter()
            .map(|(owner, going)| (owner.clone(), view(going)))
            .collect()
    }

    /// The machines that have not moved to an owner's release.
    fn behind<'a>(&'a self, owner: &'a OwnerName) -> impl Iterator<Item = &'a MachineName> {
        self.machines
            .iter()
            .filter(|(_, standing)| standing.behind.contains_key(owner))
            .map(|(name, _)| name)
    }

    /// Reads back what was stored. `stored` comes out of the ledger, and `assignments` holds each of its assignments by hash.
    ///
    /// A revision whose rollouts were not stored any more, since the control plane ended in between, has them begun here;
    /// they are to be stored. Positions of another revision than the one that began a machine's steps count no more.
    #[must_use]
    pub fn load(
        recorded: &Recorded,
        targets: &BTreeMap<MachineName, Arc<Assignment>>,
        stored: &Stored,
        assignments: &BTreeMap<Hash, Arc<Assignment>>,
        at: Timestamp,
    ) -> (Self, Vec<RolloutRecord>) {
        begin::load(recorded, targets, stored, assignments, at)
    }

    /// Where a machine is, as it is stored.
    fn position(&self, machine: &MachineName) -> Option<Position> {
        let standing = self.machines.get(machine)?;
        Some(Position {
            machine: machine.clone(),
            at: standing.rolling(),
        })
    }
}
