//! Carries out what rollouts decide: stores each step, tells the fleet, and takes back what failed.
//!
//! A step is worked out and stored in the same turn as applies are, so that the two never meet. What is decided is up to
//! `dispatch::rollout`; this looks, stores and tells.
//!
//! Guarantees: the fleet is told of a step once it is durable. What is taken back is held back before it is, so that a crash
//! in between leaves it held and taken back at the next start.

use std::sync::Weak;
use std::time::Duration;

use plumb_dispatch::MachineRecord;
use plumb_dispatch::rollout::{About, Began, Order as Say, Revert, Rollouts, Stored};
use plumb_ledger::LedgerError;
use plumb_model::Now;
use plumb_model::plan::{NeedsConsent, Plan};
use plumb_model::rollout::{HeldBack, RolloutRecord};
use plumb_model::state::RevisionKind;
use tokio::sync::watch;

use super::*;

/// Who takes back what failed.
const PLUMB: &str = "plumb";

/// The consent for content that is held back.
const HELD: &str = "held";

/// The shortest and the longest time between two looks, while anything is rolling.
const LOOKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

impl Current {
    /// What the planner counts on from.
    pub(super) fn counted(&self) -> Arc<Recorded> {
        if self.rollouts.all_as_recorded() {
            return self.recorded.clone();
        }
        Arc::new(self.rollouts.counted(&self.recorded))
    }

    /// Takes the next state, in which rollouts begin what they pace. `next` holds what each machine holds at first.
    pub(super) fn begin(
        &mut self,
        before: &Self,
        next: &mut Next,
        plan: &Plan,
        reverts: Option<&(OwnerName, ReleaseNumber)>,
        at: Timestamp,
    ) -> Vec<RolloutRecord> {
        let renamed = plan.owners.iter().filter_map(|change| {
            let from = change.renamed_from.clone()?;
            Some((change.owner.clone(), from))
        });
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
        self.rollouts = Arc::new(rollouts);
        records
    }

    pub(super) fn recording(&self) -> Result<Recording, Refusal> {
        Recording::with(&self.recorded, &self.assignments, &self.rollouts)
            .map_err(|e| refuse::storage(&e))
    }
}

/// Reads what is stored of rollouts. What the newest revision began and nobody could store any more is stored now. Blocks.
pub(crate) fn load_rollouts(
    ledger: &Ledger,
    recorded: &Recorded,
    assignments: &BTreeMap<MachineName, Arc<Assignment>>,
    at: Timestamp,
) -> Result<Rollouts, LedgerError> {
    let revision = recorded.state.revision;
    let newest = ledger.revision(revision)?;
    let held = ledger.held_back()?;
    let reverts = newest.as_ref().and_then(|newest| match &newest.kind {
        RevisionKind::Rollback { owner, .. } if newest.by == PLUMB => {
            Some((owner.clone(), held.get(owner)?.release))
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
    let positions = stored.positions.iter().map(|position| &position.at);
    let begun = recorded.state.machines.values();
    let begun = begun.filter_map(|machine| machine.rolling.as_ref());
    let mut bodies = BTreeMap::new();
    // A position of an older revision may name an assignment that nothing needs any more; it does not count.
    for rolling in begun.clone().chain(positions) {
        let counts = begun.clone().any(|begun| begun.since == rolling.since);
        if counts && !bodies.contains_key(&rolling.assignment) {
            let assignment = ledger.assignment(&rolling.assignment, recorded)?;
            let assignment = assignment.ok_or_else(|| LedgerError::Missing {
                key: format!("assignment {}", rolling.assignment),
            })?;
            bodies.insert(rolling.assignment, Arc::new(assignment));
        }
    }
    let (rollouts, new) = Rollouts::load(recorded, assignments, &stored, &bodies, at);
    store_records(ledger, revision, &new);
    Ok(rollouts)
}

/// Stores rollouts that begin. Where that fails they are begun anew by the next start.
fn store_records(ledger: &Ledger, revision: Revision, records: &[RolloutRecord]) {
    if let Err(error) = ledger.advance(revision, &BTreeMap::new(), &[], records) {
        tracing::error!("cannot note that rollouts have begun: {error}");
    }
}

/// What an operator told of a rollout came to.
type Told = Result<RolloutRecord, Refusal>;

impl Recorder {
    /// What a step asks, and everything about rollouts as it stands.
    pub fn rollouts(&self) -> Arc<Rollouts> {
        self.current().rollouts
    }

    fn clock(&self) -> Now {
        Now {
            wall: (self.now)(),
            mono_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Asks for consent where a plan brings back what was taken back.
    pub(super) fn ask_for_held(&self, before: &Current, planned: &mut Planned) {
        if planned.plan.kind != RevisionKind::Apply {
            return;
        }
        let held: Vec<&HeldBack> = planned
            .next
            .released
            .keys()
            .filter_map(|owner| before.held_back.get(owner))
            .filter(|held| {
                let now = planned.next.state.owners.get(&held.owner);
                now.is_some_and(|now| now.body == held.body)
            })
            .collect();
        if held.is_empty() {
            return;
        }
        let reasons: Vec<String> = held
            .iter()
            .map(|held| {
                format!(
                    "this brings back just what release {} of `{}` was, which was taken back ({})",
                    held.release, held.owner, held.why
                )
            })
            .collect();
        planned.plan.consents.push(NeedsConsent {
            allow: HELD.to_owned(),
            reason: reasons.join("; "),
        });
        planned.plan.approval = planned.plan.approval_hash();
    }

    /// Stores what a recorded revision began, and lets go of what was held back and came again with consent. Blocks.
    pub(super) fn begun(
        &self,
        current: &mut Current,
        records: &[RolloutRecord],
        allowed: &[String],
    ) {
        let revision = current.recorded.state.revision;
        store_records(&self.ledger, revision, records);
        if !allowed.iter().any(|name| name == HELD) {
            return;
        }
        let mut held_back = BTreeMap::clone(&current.held_back);
        held_back.retain(|owner, held| {
            let now = current.recorded.state.owners.get(owner);
            if now.is_none_or(|now| now.body != held.body) {
                return true;
            }
            if let Err(error) = self.ledger.let_go(owner) {
                tracing::error!("cannot let go of what was held back of {owner}: {error}");
            }
            false
        });
        current.held_back = Arc::new(held_back);
    }

    /// Looks, and carries out one step of every rollout. Whether anything may still have to be done.
    pub async fn roll(self: &Arc<Self>) -> bool {
        if self.rollouts().is_idle() {
            return false;
        }
        let turn = self.applying.clone().lock_owned().await;
        let this = self.clone();
        let rolled = tokio::spawn(async move {
            let rolled = this.roll_in_turn().await;
            drop(turn);
            rolled
        })
        .await;
        match rolled {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::warn!("rollouts cannot go on: {}", refusal.message),
            Err(error) => tracing::error!("rollouts cannot go on: {error}"),
        }
        !self.rollouts().is_idle()
    }

    async fn roll_in_turn(self: Arc<Self>) -> Result<(), Refusal> {
        let before = self.current();
        let asks = before.rollouts.asks_about();
        let sight = self.gateway.look(move |fleet| fleet.sight(&asks)).await;
        let Some(sight) = sight else {
            return Ok(());
        };
        let (next, step) = before.rollouts.step(&sight, self.clock());
        if !step.stores_nothing() {
            let ledger = self.ledger.clone();
            let revision = before.recorded.state.revision;
            let step = step.clone();
            refuse::blocking(move || {
                ledger
                    .advance(revision, &step.bodies, &step.positions, &step.records)
                    .map_err(|e| refuse::apply(&e))
            })
            .await?;
        }
        for record in &step.records {
            tracing::info!(
                owner = %record.owner, release = %record.release, phase = record.phase.as_str(), wave = record.waves,
                why = record.why.as_deref().unwrap_or_default(), "rollout"
            );
        }
        let moved: Vec<MachineName> = step.positions.iter().map(|p| p.machine.clone()).collect();
        self.go_on(Arc::new(next), &moved, step.shows).await;
        for revert in step.reverts {
            self.clone().revert(revert).await?;
        }
        Ok(())
    }

    /// Takes the next state of rollouts, and tells the fleet of the machines that it moves.
    async fn go_on(&self, rollouts: Arc<Rollouts>, moved: &[MachineName], shows: bool) {
        let current = {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            current.rollouts = rollouts;
            current.clone()
        };
        if moved.is_empty() && !shows {
            return;
        }
        let state = &current.recorded.state;
        let released = |owner: &OwnerName| state.owners.get(owner).map(|owner| owner.release);
        let machines = moved
            .iter()
            .filter_map(|name| {
                let machine = state.machines.get(name)?;
                let target = current.assignments.get(name);
                let record = MachineRecord::of(name, machine, target, &current.rollouts, &released);
                Some((name.clone(), record))
            })
            .collect();
        self.gateway
            .advanced(machines, current.rollouts.views())
            .await;
    }

    /// Tells a rollout what to do.
    pub async fn tell_rollout(self: &Arc<Self>, owner: OwnerName, say: Say, by: String) -> Told {
        let turn = self.applying.clone().lock_owned().await;
        let this = self.clone();
        tokio::spawn(async move {
            let told = this.tell_in_turn(owner, say, by).await;
            drop(turn);
            told
        })
        .await
        .map_err(|e| refuse::panicked(&e))?
    }

    async fn tell_in_turn(self: Arc<Self>, owner: OwnerName, say: Say, by: String) -> Told {
        let before = self.current();
        let at = (self.now)();
        let (next, record) = before
            .rollouts
            .order(&owner, say, &by, at)
            .map_err(|e| refuse::rollout(&e))?;
        self.store_record(&before, record.clone()).await?;
        self.go_on(Arc::new(next), &[], true).await;
        tracing::info!(%owner, release = %record.release, phase = record.phase.as_str(), %by, "rollout");
        Ok(record)
    }

    async fn store_record(&self, before: &Current, record: RolloutRecord) -> Result<(), Refusal> {
        let ledger = self.ledger.clone();
        let revision = before.recorded.state.revision;
        refuse::blocking(move || {
            ledger
                .advance(revision, &BTreeMap::new(), &[], &[record])
                .map_err(|e| refuse::apply(&e))
        })
        .await
    }

    /// Takes a failed release back: a new one with the content of the last good one. Where that cannot be, it stays as it is.
    async fn revert(self: Arc<Self>, revert: Revert) -> Result<(), Refusal> {
        let observed = self.observed().await?;
        let this = self.clone();
        let before = self.current();
        let was = before.assignments.clone();
        let back = revert.clone();
        let done = refuse::blocking(move || this.take_back(&back, &before, &observed)).await;
        match done {
            Ok((current, recording)) => {
                self.follow_by_hand(&was, &current).await;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
                self.gateway.recorded(recording).await;
                Ok(())
            }
            Err(refusal) => {
                let Revert { owner, release, .. } = &revert;
                tracing::error!(%owner, %release, "cannot be taken back: {}", refusal.message);
                let before = self.current();
                let at = (self.now)();
                let stays = before.rollouts.not_reverted(owner, &refusal.message, at);
                if let Some((next, record)) = stays {
                    self.store_record(&before, record).await?;
                    self.go_on(Arc::new(next), &[], true).await;
                }
                Ok(())
            }
        }
    }

    /// The blocking part of it. All that it needs is allowed: it brings back what was allowed before.
    fn take_back(
        &self,
        revert: &Revert,
        before: &Current,
        observed: &Observed,
    ) -> Result<(Current, Recording), Refusal> {
        let Revert {
            owner,
            release,
            why,
        } = revert;
        let good = self.last_good(owner, *release)?;
        let request = v1::PlanRequest {
            request: Some(v1::plan_request::Request::Rollback(v1::Rollback {
                owner: owner.to_string(),
                release: Some(good.0),
            })),
            commit: None,
        };
        let planned = self.plan_against(request, before, observed)?;
        let obstacles: Vec<String> = planned.plan.obstacles().collect();
        if let Some(first) = obstacles.first() {
            return Err(Refusal::new(Reason::PlanBlocked, first.clone()));
        }
        // Nothing would move, and the rollout would be taken back for ever.
        if !planned.next.released.contains_key(owner) {
            let message = format!("release {good}, the last that was good, has the same content");
            return Err(Refusal::new(Reason::PlanBlocked, message));
        }
        let mut before = before.clone();
        if let Some(now) = before.recorded.state.owners.get(owner) {
            let held = HeldBack {
                owner: owner.clone(),
                release: *release,
                body: now.body,
                why: why.clone(),
                at: (self.now)(),
            };
            self.ledger
                .hold_back(&held)
                .map_err(|e| refuse::ledger(&e))?;
            let mut held_back = BTreeMap::clone(&before.held_back);
            held_back.insert(owner.clone(), held);
            before.held_back = Arc::new(held_back);
        }
        let allowed = planned.plan.consents.iter().map(|c| c.allow.clone());
        let allowed = allowed.collect();
        let reverts = Some((owner.clone(), *release));
        let (_, current, recording) =
            self.commit(PLUMB.to_owned(), planned, allowed, &before, reverts)?;
        tracing::warn!(%owner, %release, %good, "taken back: {why}");
        Ok((current, recording))
    }

    /// The newest release before one that has converged, on every machine.
    fn last_good(
        &self,
        owner: &OwnerName,
        before: ReleaseNumber,
    ) -> Result<ReleaseNumber, Refusal> {
        let outcomes = self
            .ledger
            .outcomes(owner)
            .map_err(|e| refuse::ledger(&e))?;
        let good = outcomes
            .into_iter()
            .rev()
            .find(|(release, outcome)| *release < before && *outcome == Outcome::Converged);
        good.map(|(release, _)| release).ok_or_else(|| {
            let message = format!("no earlier release of {owner} has ever converged");
            Refusal::new(Reason::NotFound, message)
        })
    }
}

/// Carries rollouts on for as long as their workspace is served.
pub(crate) async fn keep_rolling(recorder: Weak<Recorder>, mut changes: watch::Receiver<u64>) {
    let mut busy = true;
    loop {
        if busy {
            let _ = tokio::time::timeout(LOOKS.1, changes.changed()).await;
            tokio::time::sleep(LOOKS.0).await;
        } else if changes.changed().await.is_err() {
            return;
        }
        changes.mark_unchanged();
        // It ends with its workspace.
        let Some(recorder) = recorder.upgrade() else {
            return;
        };
        if changes.has_changed().is_err() {
            return;
        }
        busy = recorder.roll().await;
    }
}
