//! The control plane: the production ledger, planner and fleet, without a shell.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_dispatch::rollout::{About, Began, Order, Stored};
use plumb_dispatch::view::RolloutView;
use plumb_dispatch::{Fleet, MachineRecord, Now, Recording, Rollouts};
use plumb_ledger::{ApplyError, Ledger, LedgerError, MemoryStore};
use plumb_model::rollout::Phase;
use plumb_model::state::{Next, Outcome, Recorded, ReleaseBody, RevisionKind, RevisionRecord};
use plumb_model::{
    Assignment, Generation, Hash, Lineage, MachineName, OwnerName, ReleaseNumber, Revision,
    Timestamp,
};
use plumb_planner::{Input, Observed, PlanError, Planned, Request, plan};

use crate::workload;

/// The ledger, and the fleet while the process runs.
pub struct Control {
    /// What survives.
    pub ledger: Ledger,
    /// What does not.
    pub fleet: Option<Fleet>,
    /// Every assignment that was ever recorded.
    pub history: BTreeMap<(MachineName, Generation), Hash>,
    /// Every release body that was ever recorded.
    pub bodies: BTreeMap<(OwnerName, ReleaseNumber), Arc<ReleaseBody>>,
    /// What the recorded state was made from.
    pub last: Option<Request>,
    /// Where machines are that rollouts take there in steps, while the process runs.
    pub rollouts: Rollouts,
}

/// The machines that a step of rollouts has moved, and how every rollout stands.
pub type Advanced = (
    BTreeMap<MachineName, MachineRecord>,
    BTreeMap<OwnerName, RolloutView>,
);

/// Why the simulated control plane cannot go on; each is a defect.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The ledger.
    #[error("the ledger failed")]
    Ledger(#[from] LedgerError),
    /// What was recorded does not fit together.
    #[error("what is recorded does not fit together")]
    Recording(#[from] plumb_dispatch::RecordingError),
    /// An apply failed for another reason than that the base had moved.
    #[error("an apply failed")]
    Apply(#[source] ApplyError),
    /// A planned next state does not hold together.
    #[error("a plan does not hold together")]
    Next(#[source] plumb_model::state::NextError),
    /// A state refers to an assignment that is not there.
    #[error("the assignment of {0} is missing")]
    Missing(MachineName),
}

/// The lineage of every run.
#[must_use]
pub fn lineage() -> Lineage {
    Lineage::from_random([7; 16])
}

impl Control {
    /// An empty ledger, and nothing running.
    #[must_use]
    pub fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        Self {
            ledger: Ledger::open(store, lineage(), workload::workspace()),
            fleet: None,
            history: BTreeMap::new(),
            bodies: BTreeMap::new(),
            last: None,
            rollouts: Rollouts::default(),
        }
    }

    /// Starts the process: everything is read back from the ledger.
    ///
    /// # Errors
    /// If the ledger cannot be read, which is a defect.
    pub fn start(&mut self, at: Timestamp) -> Result<(), ControlError> {
        let recorded = self.ledger.load()?;
        self.load_rollouts(&recorded, at)?;
        let mut outcomes: BTreeMap<(OwnerName, ReleaseNumber), Outcome> = BTreeMap::new();
        for owner in recorded.state.last_release.keys() {
            for (release, outcome) in self.ledger.outcomes(owner)? {
                outcomes.insert((owner.clone(), release), outcome);
            }
        }
        let recording = self.recording(&recorded)?;
        self.fleet = Some(Fleet::new(lineage(), recording, &outcomes));
        Ok(())
    }

    /// What dispatch is told of the recorded state.
    ///
    /// # Errors
    /// If the ledger cannot be read, which is a defect.
    pub fn recording(&self, recorded: &Recorded) -> Result<Recording, ControlError> {
        let targets = self.targets(recorded)?;
        Ok(Recording::with(recorded, &targets, &self.rollouts)?)
    }

    /// What each machine comes to in the end.
    fn targets(
        &self,
        recorded: &Recorded,
    ) -> Result<BTreeMap<MachineName, Arc<Assignment>>, ControlError> {
        let mut assignments = BTreeMap::new();
        for (name, machine) in &recorded.state.machines {
            if machine.generation == Generation(0) {
                continue;
            }
            let assignment = self
                .ledger
                .assignment(&machine.assignment)?
                .ok_or_else(|| ControlError::Missing(name.clone()))?;
            assignments.insert(name.clone(), Arc::new(assignment));
        }
        Ok(assignments)
    }

    /// Reads back how far rollouts have come.
    fn load_rollouts(&mut self, recorded: &Recorded, at: Timestamp) -> Result<(), ControlError> {
        let revision = recorded.state.revision;
        let newest = self.ledger.revision(revision)?;
        let released = newest.into_iter().flat_map(|newest| newest.released);
        let stored = Stored {
            positions: self.ledger.positions()?,
            records: self.ledger.rollouts()?,
            released: released
                .map(|(owner, (release, _))| (owner, release))
                .collect(),
            reverts: None,
        };
        let begun = recorded
            .state
            .machines
            .values()
            .filter_map(|m| m.rolling.as_ref());
        let positions = stored.positions.iter().map(|position| &position.at);
        let mut bodies = BTreeMap::new();
        for rolling in begun.chain(positions) {
            if let Some(assignment) = self.ledger.assignment(&rolling.assignment)? {
                bodies.insert(rolling.assignment, Arc::new(assignment));
            }
        }
        let targets = self.targets(recorded)?;
        let (rollouts, new) = Rollouts::load(recorded, &targets, &stored, &bodies, at);
        self.ledger
            .advance(revision, &BTreeMap::new(), &[], &new)
            .map_err(ControlError::Apply)?;
        self.rollouts = rollouts;
        Ok(())
    }

    /// Looks, and carries out one step of every rollout. None while the process is down, or if nothing moved.
    ///
    /// # Errors
    /// If the ledger cannot be read or written, which is a defect.
    pub fn roll(&mut self, now: Now) -> Result<Option<Advanced>, ControlError> {
        let Some(fleet) = self.fleet.as_ref().filter(|_| !self.rollouts.is_idle()) else {
            return Ok(None);
        };
        let sight = fleet.sight(&self.rollouts.asks_about());
        let (next, step) = self.rollouts.step(&sight, now);
        let recorded = self.ledger.load()?;
        self.ledger
            .advance(
                recorded.state.revision,
                &step.bodies,
                &step.positions,
                &step.records,
            )
            .map_err(ControlError::Apply)?;
        self.rollouts = next;
        if step.positions.is_empty() && !step.shows {
            return Ok(None);
        }
        for position in &step.positions {
            let at = (position.machine.clone(), position.at.generation);
            self.history.insert(at, position.at.assignment);
        }
        let state = &recorded.state;
        let targets = self.targets(&recorded)?;
        let released = |owner: &OwnerName| state.owners.get(owner).map(|owner| owner.release);
        let machines = step.positions.iter().filter_map(|position| {
            let name = &position.machine;
            let (machine, target) = (state.machines.get(name)?, targets.get(name));
            let record = MachineRecord::of(name, machine, target, &self.rollouts, &released);
            Some((name.clone(), record))
        });
        Ok(Some((machines.collect(), self.rollouts.views())))
    }

    /// An operator looks after what has failed: it is tried again.
    ///
    /// # Errors
    /// If the ledger cannot be written, which is a defect.
    pub fn resume(&mut self, at: Timestamp) -> Result<(), ControlError> {
        let failed: Vec<OwnerName> = self
            .rollouts
            .records()
            .filter(|record| record.phase == Phase::Failed)
            .map(|record| record.owner.clone())
            .collect();
        let revision = self.ledger.load()?.state.revision;
        for owner in failed {
            if let Ok((next, record)) = self.rollouts.order(&owner, Order::Resume, "sim", at) {
                self.ledger
                    .advance(revision, &BTreeMap::new(), &[], &[record])
                    .map_err(ControlError::Apply)?;
                self.rollouts = next;
            }
        }
        Ok(())
    }

    /// Plans a request against what is recorded and observed now. None while the process is down.
    ///
    /// # Errors
    /// If the ledger cannot be read, which is a defect.
    pub fn plan(
        &self,
        request: &Request,
    ) -> Result<Option<Result<Planned, PlanError>>, ControlError> {
        let Some(fleet) = &self.fleet else {
            return Ok(None);
        };
        let recorded = self.rollouts.counted(&self.ledger.load()?);
        let observed = Observed {
            machines: fleet
                .facts()
                .map(|(name, facts)| (name.clone(), facts.clone()))
                .collect(),
            statuses: fleet
                .statuses()
                .map(|status| (status.address.clone(), status.clone()))
                .collect(),
            nobody_asked: false,
        };
        Ok(Some(plan(Input {
            request,
            recorded: &recorded,
            lineage: &lineage(),
            workspace: &workload::workspace(),
            observed: &observed,
            secrets: plumb_model::KnownSecrets::UNASKED,
            commit: None,
        })))
    }

    /// Records what was planned. Says whether it was; it is not if somebody else was quicker.
    ///
    /// # Errors
    /// If it fails for any other reason, which is a defect.
    pub fn apply(
        &mut self,
        request: Request,
        planned: &Planned,
        at: Timestamp,
    ) -> Result<bool, ControlError> {
        let before = self.ledger.load()?;
        let mut next = planned.next.clone();
        // Whoever was quicker has recorded another state than the one that was planned against.
        let began = match before.state.revision.next() == next.state.revision {
            true => Some(self.begin(&before, planned, &mut next, at)?),
            false => None,
        };
        let Next {
            state, released, ..
        } = &next;
        let kind = match &request {
            Request::Apply { .. } => RevisionKind::Apply,
            Request::Rollback { owner, to, .. } => RevisionKind::Rollback {
                owner: owner.clone(),
                to: *to,
            },
            Request::Destroy => RevisionKind::Destroy,
            Request::Secrets { names } => RevisionKind::Secrets {
                names: names.clone(),
            },
        };
        let record = RevisionRecord {
            revision: state.revision,
            at,
            by: "sim".to_owned(),
            commit: None,
            kind,
            approval: planned.plan.approval,
            state: Hash::of(&state.bytes()),
            released: released
                .iter()
                .map(|(owner, release)| {
                    let body = state.owners.get(owner).map(|o| o.body);
                    (owner.clone(), (*release, body))
                })
                .collect(),
            allowed: Vec::new(),
            renamed: BTreeMap::new(),
        };
        let base = Revision(state.revision.0 - 1);
        match self.ledger.apply(base, &next, &record) {
            Ok(_) => {}
            Err(ApplyError::Moved { .. }) => return Ok(false),
            Err(e) => return Err(ControlError::Apply(e)),
        }
        if let Some(began) = began {
            self.ledger
                .advance(state.revision, &BTreeMap::new(), &[], &began.records)
                .map_err(ControlError::Apply)?;
            self.rollouts = began.rollouts;
        }
        for (name, machine) in &state.machines {
            let (generation, assignment) = match &machine.rolling {
                Some(rolling) => (rolling.generation, rolling.assignment),
                None => (machine.generation, machine.assignment),
            };
            self.history.insert((name.clone(), generation), assignment);
        }
        let recorded = self.ledger.load()?;
        for (owner, body) in &recorded.releases {
            let release = recorded.state.owners[owner].release;
            self.bodies.insert((owner.clone(), release), body.clone());
        }
        self.last = Some(request);
        Ok(true)
    }
}

impl Control {
    /// What each machine holds of a next state at first.
    fn begin(
        &self,
        before: &Recorded,
        planned: &Planned,
        next: &mut Next,
        at: Timestamp,
    ) -> Result<Began, ControlError> {
        let after = before.after(next).map_err(ControlError::Next)?;
        let was = self.targets(before)?;
        let mut targets = BTreeMap::new();
        for (name, machine) in &next.state.machines {
            let kept = was
                .get(name)
                .filter(|held| held.hash() == machine.assignment);
            let new = next.bodies.get(&machine.assignment);
            let new = new.and_then(|bytes| Assignment::parse(bytes).ok());
            if let Some(target) = kept.cloned().or_else(|| new.map(Arc::new)) {
                targets.insert(name.clone(), target);
            }
        }
        let renamed = planned.plan.owners.iter();
        let renamed =
            renamed.filter_map(|change| Some((change.owner.clone(), change.renamed_from.clone()?)));
        Ok(self.rollouts.begin(
            About {
                before,
                was: &was,
                targets: &targets,
                releases: &after.releases,
                renamed: &renamed.collect(),
                reverts: None,
                at,
            },
            next,
        ))
    }
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
