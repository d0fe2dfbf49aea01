//! The part of the recorded state that dispatch acts on: which machine is to hold what, and which release each owner
//! is at.
//!
//! It never reads the ledger itself. The control plane makes one at start and after every apply.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::state::{MachineInfo, MachineState, OwnerKind, Recorded};
use plumb_model::{Assignment, Generation, Hash, MachineName, OwnerName, ReleaseNumber, Revision};

use crate::protocol::Releases;
use crate::rollout::Rollouts;
use crate::view::RolloutView;

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineRecord {
    /// What the blueprint says of it.
    pub info: MachineInfo,
    /// The generation of its assignment.
    pub generation: Generation,
    /// Its assignment, which the recorded state names by this very hash; none at generation 0.
    pub assignment: Option<Arc<Assignment>>,
    /// The releases that it holds.
    pub releases: Releases,
    /// It goes as soon as all that was ordered removed from it is.
    pub leaving: bool,
    /// The owners that have not moved to their release on it.
    pub behind: BTreeSet<OwnerName>,
}

/// One owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnerRecord {
    /// Its release; for one that was removed, the release number of the removal.
    pub release: ReleaseNumber,
    /// App or Setup; of a removed one it may not be known any more.
    pub kind: Option<OwnerKind>,
    /// It is in no blueprint any more.
    pub removed: bool,
}

/// All of it, at one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// The revision.
    pub revision: Revision,
    /// Every machine.
    pub machines: BTreeMap<MachineName, MachineRecord>,
    /// Every owner that ever was.
    pub owners: BTreeMap<OwnerName, OwnerRecord>,
    /// The rollouts, as they stand.
    pub rollouts: BTreeMap<OwnerName, RolloutView>,
}

/// Why state and assignments do not belong together. Each means that the ledger is damaged or was misread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// A machine's assignment was not handed in.
    #[error("the assignment of machine {0} at generation {1} is missing")]
    Missing(MachineName, Generation),
    /// Its bytes are not those that the state names, or for another machine.
    #[error(
        "the state names assignment {expected:?} for machine {machine}, but {found:?} was found"
    )]
    Other {
        /// The machine.
        machine: MachineName,
        /// What the state names.
        expected: Hash,
        /// What there is.
        found: Hash,
    },
}

impl Recording {
    /// Takes what dispatch needs out of the recorded state, where nothing moves in waves.
    ///
    /// `assignments` holds each machine's current assignment; those of machines at generation 0 may be left out.
    ///
    /// # Errors
    /// If an assignment is missing or is not the one that the state names by hash.
    pub fn new(
        recorded: &Recorded,
        assignments: &BTreeMap<MachineName, Arc<Assignment>>,
    ) -> Result<Self, RecordingError> {
        Self::with(recorded, assignments, &Rollouts::default())
    }

    /// Takes what dispatch needs out of the recorded state, where machines stand as the rollouts say.
    ///
    /// `targets` holds each machine's recorded assignment; those of machines at generation 0 may be left out.
    ///
    /// # Errors
    /// If an assignment is missing or is not the one that the state names by hash.
    pub fn with(
        recorded: &Recorded,
        targets: &BTreeMap<MachineName, Arc<Assignment>>,
        rollouts: &Rollouts,
    ) -> Result<Self, RecordingError> {
        let state = &recorded.state;
        let mut owners: BTreeMap<_, _> = state
            .last_release
            .iter()
            .map(|(owner, release)| {
                let record = OwnerRecord {
                    release: *release,
                    kind: None,
                    removed: true,
                };
                (owner.clone(), record)
            })
            .collect();
        for (owner, at) in &state.owners {
            let record = OwnerRecord {
                release: at.release,
                kind: recorded.releases.get(owner).map(|body| body.kind),
                removed: false,
            };
            owners.insert(owner.clone(), record);
        }
        let mut machines = BTreeMap::new();
        for (name, machine) in &state.machines {
            if machine.generation != Generation(0) {
                let found = targets
                    .get(name)
                    .ok_or_else(|| RecordingError::Missing(name.clone(), machine.generation))?;
                if found.hash() != machine.assignment || found.header().machine != *name {
                    return Err(RecordingError::Other {
                        machine: name.clone(),
                        expected: machine.assignment,
                        found: found.hash(),
                    });
                }
            }
            let released = |owner: &OwnerName| owners.get(owner).map(|record| record.release);
            let target = targets.get(name);
            let record = MachineRecord::of(name, machine, target, rollouts, &released);
            machines.insert(name.clone(), record);
        }
        Ok(Self {
            revision: state.revision,
            machines,
            owners,
            rollouts: rollouts.views(),
        })
    }
}

impl MachineRecord {
    /// One machine, as the rollouts say that it stands.
    pub fn of(
        name: &MachineName,
        machine: &MachineState,
        target: Option<&Arc<Assignment>>,
        rollouts: &Rollouts,
        released: &dyn Fn(&OwnerName) -> Option<ReleaseNumber>,
    ) -> Self {
        let standing = rollouts.standing(name);
        let assignment = match standing {
            Some(standing) => Some(standing.held.clone()),
            None => target
                .filter(|_| machine.generation != Generation(0))
                .cloned(),
        };
        let behind = standing.map(|standing| &standing.behind);
        let release = |owner: &OwnerName| {
            let held = behind.and_then(|behind| behind.get(owner)).copied();
            held.filter(|held| held.0 > 0).or_else(|| released(owner))
        };
        let releases = assignment
            .iter()
            .flat_map(|a| a.entries())
            .filter_map(|entry| {
                let owner = &entry.address().owner;
                Some((owner.clone(), release(owner)?))
            })
            .collect();
        Self {
            info: machine.info.clone(),
            generation: rollouts.generation(name, machine),
            assignment,
            releases,
            leaving: machine.leaving,
            behind: behind
                .into_iter()
                .flatten()
                .map(|(o, _)| o.clone())
                .collect(),
        }
    }
}
