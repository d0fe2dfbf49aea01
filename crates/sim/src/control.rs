//! One control plane's process: the production ledger, planner, rollouts and fleet, without a shell.
//!
//! It does what `control-plane`'s recorder does between its queue and its disk, in the same order of writes: plan again and
//! compare, begin rollouts, record, store what began; look, store a step, tell; hold back, then take back; raise the
//! generations of machines that are ahead. It has the lead of its ledger, as every control plane takes it when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_dispatch::rollout::{About, Began, Order, Revert, Sight, Stored};
use plumb_dispatch::view::RolloutView;
use plumb_dispatch::{Fleet, MachineRecord, Now, Recording, Rollouts, fleet};
use plumb_ledger::{ApplyError, Ledger, LedgerError};
use plumb_model::plan::Plan;
use plumb_model::rollout::{HeldBack, Phase, RolloutRecord};
use plumb_model::state::{
    MachineState, Next, Outcome, Recorded, ReleaseBody, RevisionKind, RevisionRecord,
};
use plumb_model::{
    Assignment, Entry, Generation, Hash, KnownSecrets, Lineage, MachineName, OwnerName,
    ReleaseNumber, Revision, Timestamp,
};
use plumb_planner::{Input, Observed, PlanError, Planned, Request, plan};

use crate::bugs::Bug;
use crate::store::Handle;
use crate::workload;

/// Who takes back what failed.
const PLUMB: &str = "plumb";

/// A running process.
pub struct Process {
    /// Its way to the store.
    pub handle: Arc<Handle>,
    /// The ledger, as long as it leads.
    pub ledger: Ledger,
    /// Its end of the sessions.
    pub fleet: Fleet,
    /// The recorded state as it holds it in memory.
    pub current: Current,
    bug: Option<Bug>,
}

/// The recorded state as a process holds it in memory.
#[derive(Clone)]
pub struct Current {
    /// What is recorded.
    pub recorded: Arc<Recorded>,
    /// What each machine comes to in the end.
    pub assignments: BTreeMap<MachineName, Arc<Assignment>>,
    /// Where machines are until then.
    pub rollouts: Rollouts,
    /// What was taken back, and does not come again by itself.
    pub held_back: BTreeMap<OwnerName, HeldBack>,
}

/// What a step of rollouts came to.
#[derive(Debug, Default)]
pub struct Advanced {
    /// The machines that it has moved.
    pub machines: BTreeMap<MachineName, MachineRecord>,
    /// How every rollout stands.
    pub rollouts: BTreeMap<OwnerName, RolloutView>,
    /// Whether anybody has to be told.
    pub shows: bool,
    /// What is to be taken back.
    pub reverts: Vec<Revert>,
    /// The rollouts before the step.
    pub before: Rollouts,
    /// What it was decided on.
    pub sight: Sight,
}

/// What was recorded.
#[derive(Debug)]
pub struct Done {
    /// Its revision.
    pub revision: Revision,
    /// The state's hash.
    pub state: Hash,
    /// The content of the releases that are new.
    pub released: BTreeMap<(OwnerName, ReleaseNumber), Arc<ReleaseBody>>,
    /// What the fleet is told.
    pub recording: Recording,
}

/// What came of an apply.
#[derive(Debug)]
pub enum Applied {
    /// It is recorded.
    Recorded(Box<Done>),
    /// It would do something else by now, or somebody else was quicker; nothing is.
    Moved,
    /// Something keeps it from being applied.
    Refused(String),
    /// There is nothing to do.
    Empty,
}

/// Why a process cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The ledger.
    #[error("the ledger failed: {0}")]
    Ledger(#[from] LedgerError),
    /// What was recorded does not fit together.
    #[error("what is recorded does not fit together: {0}")]
    Recording(#[from] plumb_dispatch::RecordingError),
    /// An apply failed for another reason than that the base had moved.
    #[error("an apply failed: {0}")]
    Apply(#[source] ApplyError),
    /// A planned next state does not hold together.
    #[error("a plan does not hold together: {0}")]
    Next(#[source] plumb_model::state::NextError),
    /// What was planned once could not be planned again.
    #[error("it cannot be planned: {0}")]
    Plan(#[source] PlanError),
}

impl ControlError {
    /// Whether it is no defect: another control plane has taken over. It is seen by the lead, or by the head before that.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        matches!(
            self,
            Self::Ledger(LedgerError::Superseded)
                | Self::Apply(
                    ApplyError::Ledger(LedgerError::Superseded)
                        | ApplyError::Moved { .. }
                        | ApplyError::Ahead { .. }
                )
        )
    }
}

/// The lineage of every run.
#[must_use]
pub fn lineage() -> Lineage {
    Lineage::from_random([7; 16])
}

fn assignments_of(
    ledger: &Ledger,
    recorded: &Recorded,
) -> Result<BTreeMap<MachineName, Arc<Assignment>>, LedgerError> {
    let mut all = BTreeMap::new();
    for (name, machine) in &recorded.state.machines {
        if machine.generation != Generation(0) {
            let assignment = assignment(ledger, &machine.assignment, recorded)?;
            all.insert(name.clone(), assignment);
        }
    }
    Ok(all)
}

fn assignment(
    ledger: &Ledger,
    hash: &Hash,
    recorded: &Recorded,
) -> Result<Arc<Assignment>, LedgerError> {
    let found = ledger.assignment(hash, recorded)?;
    let key = || format!("assignment {hash}");
    found
        .map(Arc::new)
        .ok_or_else(|| LedgerError::Missing { key: key() })
}

impl Current {
    fn load(ledger: &Ledger, at: Timestamp) -> Result<Self, ControlError> {
        let recorded = ledger.load()?;
        let assignments = assignments_of(ledger, &recorded)?;
        let revision = recorded.state.revision;
        let newest = ledger.revision(revision)?;
        let held_back = ledger.held_back()?;
        let reverts = newest.as_ref().and_then(|newest| match &newest.kind {
            RevisionKind::Rollback { owner, .. } if newest.by == PLUMB => {
                Some((owner.clone(), held_back.get(owner)?.release))
            }
            _ => None,
        });
        let released = newest.into_iter().flat_map(|newest| newest.released);
        let stored = Stored {
            positions: ledger.positions()?,
            records: ledger.rollouts()?,
            released: released
                .map(|(owner, (release, _))| (owner, release))
                .collect(),
            reverts,
        };
        let begun = recorded.state.machines.values();
        let begun: Vec<_> = begun.filter_map(|m| m.rolling.as_ref()).collect();
        let positions = stored.positions.iter().map(|position| &position.at);
        let mut bodies = BTreeMap::new();
        for rolling in begun.iter().copied().chain(positions) {
            if begun.iter().any(|begun| begun.since == rolling.since) {
                let body = assignment(ledger, &rolling.assignment, &recorded)?;
                bodies.insert(rolling.assignment, body);
            }
        }
        let (rollouts, new) = Rollouts::load(&recorded, &assignments, &stored, &bodies, at);
        store_records(ledger, revision, &new)?;
        Ok(Self {
            recorded: Arc::new(recorded),
            assignments,
            rollouts,
            held_back,
        })
    }

    fn recording(&self) -> Result<Recording, ControlError> {
        Ok(Recording::with(
            &self.recorded,
            &self.assignments,
            &self.rollouts,
        )?)
    }

    /// The generation and content that each machine is to hold now.
    pub fn given(&self) -> impl Iterator<Item = (&MachineName, Generation, Hash)> {
        let state = &self.recorded.state;
        let recorded = state.machines.iter().filter(|(_, m)| m.generation.0 > 0);
        recorded.map(|(name, machine)| match self.rollouts.standing(name) {
            Some(standing) => (name, standing.generation, standing.held.hash()),
            None => (name, machine.generation, machine.assignment),
        })
    }

    /// What is held in memory once `next` is recorded.
    fn after(&self, next: &Next) -> Result<Self, ControlError> {
        let recorded = self.recorded.after(next).map_err(ControlError::Next)?;
        let mut assignments = BTreeMap::new();
        for (name, machine) in &next.state.machines {
            let kept = self.assignments.get(name);
            let kept = kept.filter(|held| held.hash() == machine.assignment);
            let new = next.bodies.get(&machine.assignment);
            let new = new.and_then(|bytes| Assignment::parse(bytes).ok());
            if let Some(target) = kept.cloned().or_else(|| new.map(Arc::new))
                && machine.generation.0 > 0
            {
                assignments.insert(name.clone(), target);
            }
        }
        Ok(Self {
            recorded: Arc::new(recorded),
            assignments,
            rollouts: self.rollouts.clone(),
            held_back: self.held_back.clone(),
        })
    }

    /// Takes the next state, in which rollouts begin what they pace.
    fn begin(
        &mut self,
        before: &Self,
        next: &mut Next,
        plan: &Plan,
        reverts: Option<&(OwnerName, ReleaseNumber)>,
        at: Timestamp,
    ) -> Vec<RolloutRecord> {
        let renamed = plan.owners.iter();
        let renamed =
            renamed.filter_map(|change| Some((change.owner.clone(), change.renamed_from.clone()?)));
        let Began { rollouts, records } = before.rollouts.begin(
            About {
                before: &before.recorded,
                was: &before.assignments,
                targets: &self.assignments,
                releases: &self.recorded.releases,
                renamed: &renamed.collect(),
                reverts,
                at,
            },
            next,
        );
        self.recorded = Arc::new(Recorded {
            state: next.state.clone(),
            releases: self.recorded.releases.clone(),
        });
        self.rollouts = rollouts;
        records
    }
}

/// Stores rollouts that begin. Where that fails they are begun anew by the next start.
fn store_records(
    ledger: &Ledger,
    revision: Revision,
    records: &[RolloutRecord],
) -> Result<(), ControlError> {
    ledger
        .advance(revision, &BTreeMap::new(), &[], records)
        .map_err(ControlError::Apply)
}

impl Process {
    /// Starts a process: it takes the lead, and reads everything back.
    ///
    /// # Errors
    /// If the ledger cannot be read or written.
    pub fn start(
        handle: Arc<Handle>,
        holder: &str,
        removed: &BTreeSet<MachineName>,
        now: Now,
        bug: Option<Bug>,
    ) -> Result<Self, ControlError> {
        let ledger = Ledger::open(handle.clone(), lineage(), workload::workspace());
        let ledger = match bug {
            Some(Bug::Unfenced) => ledger,
            _ => ledger.lead(holder)?,
        };
        let current = Current::load(&ledger, now.wall)?;
        let recording = current.recording()?;
        let mut outcomes: BTreeMap<(OwnerName, ReleaseNumber), Outcome> = BTreeMap::new();
        for owner in recording.owners.keys() {
            for (release, outcome) in ledger.outcomes(owner)? {
                outcomes.insert((owner.clone(), release), outcome);
            }
        }
        let mut fleet = Fleet::new(lineage(), recording, &outcomes);
        for machine in removed {
            // Nobody is connected, and nobody waits for what comes of it.
            let machine = machine.clone();
            let removed = true;
            let _ = fleet.handle(fleet::Event::Identity { machine, removed }, now);
        }
        Ok(Self {
            handle,
            ledger,
            fleet,
            current,
            bug,
        })
    }

    /// Plans a request against what is recorded and observed now.
    ///
    /// # Errors
    /// As the planner says.
    pub fn plan(&self, request: &Request, secrets: &KnownSecrets) -> Result<Planned, PlanError> {
        let recorded = match self.current.rollouts.all_as_recorded() {
            true => self.current.recorded.clone(),
            false => Arc::new(self.current.rollouts.counted(&self.current.recorded)),
        };
        let fleet = &self.fleet;
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
        plan(Input {
            request,
            recorded: &recorded,
            lineage: &lineage(),
            workspace: &workload::workspace(),
            observed: &observed,
            secrets,
            commit: None,
        })
    }

    /// Plans again, and records it if it is what was approved.
    ///
    /// # Errors
    /// If the ledger fails, or another control plane leads.
    pub fn apply(
        &mut self,
        request: &Request,
        (base, approval): (Revision, Hash),
        secrets: &KnownSecrets,
        at: Timestamp,
    ) -> Result<Applied, ControlError> {
        if base != self.current.recorded.state.revision {
            return Ok(Applied::Moved);
        }
        let planned = match self.plan(request, secrets) {
            Ok(planned) if planned.plan.approval == approval => planned,
            _ => return Ok(Applied::Moved),
        };
        if let Some(first) = planned.plan.obstacles().next() {
            return Ok(Applied::Refused(first));
        }
        if planned.plan.is_empty() {
            return Ok(Applied::Empty);
        }
        let brings_back: Vec<OwnerName> = self.brings_back(&planned);
        let done = self.commit("sim", planned, None, at)?;
        for owner in brings_back {
            self.ledger.let_go(&owner)?;
            self.current.held_back.remove(&owner);
        }
        Ok(Applied::Recorded(Box::new(done)))
    }

    /// The owners whose content was taken back and comes again: a person has said yes to that.
    fn brings_back(&self, planned: &Planned) -> Vec<OwnerName> {
        let released = planned.next.released.keys().filter(|owner| {
            let now = planned.next.state.owners.get(owner);
            let held = self.current.held_back.get(owner);
            matches!((held, now), (Some(held), Some(now)) if held.body == now.body)
        });
        released.cloned().collect()
    }

    fn commit(
        &mut self,
        by: &str,
        planned: Planned,
        reverts: Option<&(OwnerName, ReleaseNumber)>,
        at: Timestamp,
    ) -> Result<Done, ControlError> {
        let Planned { plan, mut next } = planned;
        self.plant(&mut next);
        let base = self.current.recorded.state.revision;
        let mut current = self.current.after(&next)?;
        let records = current.begin(&self.current, &mut next, &plan, reverts, at);
        if self.bug == Some(Bug::ReusesGeneration) {
            self.reuse_generations(&mut next);
            current.recorded = Arc::new(Recorded {
                state: next.state.clone(),
                releases: current.recorded.releases.clone(),
            });
        }
        let record = RevisionRecord {
            revision: next.state.revision,
            at,
            by: by.to_owned(),
            commit: None,
            kind: plan.kind,
            approval: plan.approval,
            state: Hash::of(&next.state.bytes()),
            released: next
                .released
                .iter()
                .map(|(owner, release)| {
                    let body = next.state.owners.get(owner).map(|o| o.body);
                    (owner.clone(), (*release, body))
                })
                .collect(),
            allowed: Vec::new(),
            renamed: plan
                .owners
                .iter()
                .filter_map(|owner| Some((owner.owner.clone(), owner.renamed_from.clone()?)))
                .collect(),
        };
        let recording = current.recording()?;
        self.ledger
            .apply(base, &next, &record)
            .map_err(ControlError::Apply)?;
        // Once recorded it is acknowledged, whatever becomes of the notes on rollouts: the next start makes them anew.
        let noted = store_records(&self.ledger, record.revision, &records);
        self.current = current;
        if let Err(error) = noted
            && !self.handle.is_blown()
        {
            return Err(error);
        }
        let releases = &self.current.recorded.releases;
        let released = next.released.iter().filter_map(|(owner, release)| {
            let body = releases.get(owner)?.clone();
            Some(((owner.clone(), *release), body))
        });
        Ok(Done {
            revision: record.revision,
            state: record.state,
            released: released.collect(),
            recording,
        })
    }

    /// What a control plane with a bug makes of a planned state.
    fn plant(&self, next: &mut Next) {
        if self.bug == Some(Bug::DropsTombstones) {
            for machine in next.state.machines.values_mut() {
                drop_tombstones(machine, &mut next.bodies);
            }
        }
        if self.bug == Some(Bug::RecordsOther) {
            for machine in next.state.machines.values_mut() {
                machine
                    .info
                    .labels
                    .insert("by".to_owned(), "mistake".to_owned());
            }
        }
    }

    /// What a control plane makes of them that counts wrongly.
    fn reuse_generations(&self, next: &mut Next) {
        for (name, machine) in &mut next.state.machines {
            let before = self.current.recorded.state.machines.get(name);
            if let Some(before) = before.filter(|b| b.assignment != machine.assignment) {
                machine.generation = before.generation.max(Generation(1));
            }
        }
    }

    /// Looks, and carries out one step of every rollout. None if there is nothing to look at.
    ///
    /// # Errors
    /// If the ledger fails, or another control plane leads.
    pub fn roll(&mut self, now: Now) -> Result<Option<Advanced>, ControlError> {
        let before = self.current.rollouts.clone();
        if before.is_idle() {
            return Ok(None);
        }
        let mut sight = self.fleet.sight(&before.asks_about());
        if self.bug == Some(Bug::IgnoresBudget) {
            let all = sight.owners.values_mut().flat_map(BTreeMap::values_mut);
            all.for_each(|seen| seen.health = plumb_dispatch::rollout::Health::Available);
        }
        let (next, step) = before.step(&sight, now);
        let state = &self.current.recorded.state;
        self.ledger
            .advance(state.revision, &step.bodies, &step.positions, &step.records)
            .map_err(ControlError::Apply)?;
        let released = |owner: &OwnerName| state.owners.get(owner).map(|owner| owner.release);
        let mut machines = BTreeMap::new();
        for position in &step.positions {
            let name = &position.machine;
            if let Some(machine) = state.machines.get(name) {
                let target = self.current.assignments.get(name);
                let record = MachineRecord::of(name, machine, target, &next, &released);
                machines.insert(name.clone(), record);
            }
        }
        let rollouts = next.views();
        self.current.rollouts = next;
        Ok(Some(Advanced {
            machines,
            rollouts,
            shows: step.shows,
            reverts: step.reverts,
            before,
            sight,
        }))
    }

    /// Tells a rollout what to do. Whether that was possible.
    ///
    /// # Errors
    /// If the ledger fails, or another control plane leads.
    pub fn order(
        &mut self,
        owner: &OwnerName,
        order: Order,
        at: Timestamp,
    ) -> Result<bool, ControlError> {
        let Ok((next, record)) = self.current.rollouts.order(owner, order, "sim", at) else {
            return Ok(false);
        };
        self.store_record(record)?;
        self.current.rollouts = next;
        Ok(true)
    }

    fn store_record(&self, record: RolloutRecord) -> Result<(), ControlError> {
        let revision = self.current.recorded.state.revision;
        store_records(&self.ledger, revision, &[record])
    }

    /// The owners whose rollout stands still until an operator looks after it.
    #[must_use]
    pub fn stuck(&self) -> Vec<OwnerName> {
        let stuck = |phase| matches!(phase, Phase::Failed | Phase::Paused);
        let records = self.current.rollouts.records();
        let records = records.filter(|record| stuck(record.phase));
        records.map(|record| record.owner.clone()).collect()
    }

    /// Takes a failed release back. None if it has to stay as it is.
    ///
    /// # Errors
    /// If the ledger fails, or another control plane leads.
    pub fn take_back(
        &mut self,
        revert: &Revert,
        secrets: &KnownSecrets,
        at: Timestamp,
    ) -> Result<Option<(Request, Done)>, ControlError> {
        let Revert {
            owner,
            release,
            why,
        } = revert;
        let outcomes = self.ledger.outcomes(owner)?;
        let good = outcomes
            .into_iter()
            .rev()
            .find(|(number, outcome)| *number < *release && *outcome == Outcome::Converged);
        let body = match good {
            Some((good, _)) => self.body(owner, good)?.map(|body| (good, body)),
            None => None,
        };
        let request = body.map(|(to, body)| Request::Rollback {
            owner: owner.clone(),
            to,
            body: Arc::new(body),
        });
        let planned = request.as_ref().map(|r| self.plan(r, secrets));
        let (Some(request), Some(Ok(planned))) = (request, planned) else {
            return self.stays(owner, at);
        };
        if planned.plan.obstacles().next().is_some() {
            return self.stays(owner, at);
        }
        if !planned.next.released.contains_key(owner) {
            return self.stays(owner, at);
        }
        if let Some(now) = self.current.recorded.state.owners.get(owner) {
            let held = HeldBack {
                owner: owner.clone(),
                release: *release,
                body: now.body,
                why: why.clone(),
                at,
            };
            self.ledger.hold_back(&held)?;
            self.current.held_back.insert(owner.clone(), held);
        }
        let reverts = (owner.clone(), *release);
        let done = self.commit(PLUMB, planned, Some(&reverts), at)?;
        Ok(Some((request, done)))
    }

    fn stays<T>(&mut self, owner: &OwnerName, at: Timestamp) -> Result<Option<T>, ControlError> {
        let why = "there is nothing to go back to";
        if let Some((next, record)) = self.current.rollouts.not_reverted(owner, why, at) {
            self.store_record(record)?;
            self.current.rollouts = next;
        }
        Ok(None)
    }

    /// The content of an earlier release.
    fn body(
        &self,
        owner: &OwnerName,
        release: ReleaseNumber,
    ) -> Result<Option<ReleaseBody>, ControlError> {
        let history = self.ledger.releases(owner, usize::MAX)?;
        let found = plumb_model::state::with_name(owner, &history).find_map(|(name, record)| {
            let (number, body) = record.released.get(&name)?;
            (*number == release).then_some(*body)?
        });
        match found {
            Some(hash) => Ok(self.ledger.release(&hash)?),
            None => Ok(None),
        }
    }

    /// Goes on with machines that hold more than is recorded.
    ///
    /// # Errors
    /// If the ledger fails, or another control plane leads.
    pub fn recover(
        &mut self,
        at: Timestamp,
    ) -> Result<Option<(Done, Vec<MachineName>)>, ControlError> {
        let held: BTreeMap<MachineName, Generation> = self
            .fleet
            .regressed()
            .map(|(name, held)| (name.clone(), held))
            .collect();
        let mut state = self.current.rollouts.counted(&self.current.recorded).state;
        state.revision = state.revision.next();
        let mut moved = BTreeMap::new();
        for (name, machine) in &mut state.machines {
            if let Some(held) = held.get(name) {
                machine.generation = (*held).max(machine.generation).next();
                moved.insert(name.clone(), machine.generation);
            }
        }
        if moved.is_empty() {
            return Ok(None);
        }
        let names = moved.keys().cloned().collect();
        let mut next = Next {
            state,
            moved: moved.clone(),
            bodies: BTreeMap::new(),
            released: BTreeMap::new(),
        };
        let rollouts = self.current.rollouts.raised(&mut next);
        let mut current = self.current.after(&next)?;
        current.rollouts = rollouts;
        let state = Hash::of(&next.state.bytes());
        let record = RevisionRecord {
            revision: next.state.revision,
            at,
            by: "sim".to_owned(),
            commit: None,
            kind: RevisionKind::Recover { machines: moved },
            approval: state,
            state,
            released: BTreeMap::new(),
            allowed: Vec::new(),
            renamed: BTreeMap::new(),
        };
        let recording = current.recording()?;
        self.ledger
            .apply(self.current.recorded.state.revision, &next, &record)
            .map_err(ControlError::Apply)?;
        self.current = current;
        let done = Done {
            revision: record.revision,
            state,
            released: BTreeMap::new(),
            recording,
        };
        Ok(Some((done, names)))
    }
}

/// The same assignment without a word of what is to go.
fn drop_tombstones(machine: &mut MachineState, bodies: &mut BTreeMap<Hash, Vec<u8>>) {
    let bytes = bodies.get(&machine.assignment);
    let Some(held) = bytes.and_then(|bytes| Assignment::parse(bytes).ok()) else {
        return;
    };
    let kept = held.entries();
    let kept = kept.filter(|entry| matches!(entry, Entry::Resource(_)));
    let without = Assignment::build(held.header().clone(), kept.cloned());
    machine.assignment = without.hash();
    bodies.insert(without.hash(), without.bytes());
}
