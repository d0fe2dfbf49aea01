//! The control plane: the production ledger, planner and fleet, without a shell.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_dispatch::{Fleet, Recording};
use plumb_ledger::{ApplyError, Ledger, LedgerError, MemoryStore};
use plumb_model::state::{Next, Outcome, Recorded, ReleaseBody, RevisionKind, RevisionRecord};
use plumb_model::{
    Generation, Hash, Lineage, MachineName, OwnerName, ReleaseNumber, Revision, Timestamp,
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
}

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
        }
    }

    /// Starts the process: everything is read back from the ledger.
    ///
    /// # Errors
    /// If the ledger cannot be read, which is a defect.
    pub fn start(&mut self) -> Result<(), ControlError> {
        let recorded = self.ledger.load()?;
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
        Ok(Recording::new(recorded, &assignments)?)
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
        let recorded = self.ledger.load()?;
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
        let Next {
            state,
            released,
            moved,
            ..
        } = &planned.next;
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
        match self.ledger.apply(base, &planned.next, &record) {
            Ok(_) => {}
            Err(ApplyError::Moved { .. }) => return Ok(false),
            Err(e) => return Err(ControlError::Apply(e)),
        }
        for (name, generation) in moved {
            if let Some(machine) = state.machines.get(name) {
                self.history
                    .insert((name.clone(), *generation), machine.assignment);
            }
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

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}
