//! The reconciler: keeps a slot for each resource and moves them all forward after each event.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::condition::EventKind;
use plumb_model::{
    Action, Address, Assignment, Depth, Entry, Fault, Generation, Hands, Hash, Observation,
    ProbeResult, Reason, Resource, ResourceKind, ResourceStatus,
};

use crate::backoff::{Chance, delay_ms};
use crate::decide::{Decision, Why};
use crate::hands::{ByHand, Progress, lay_over};
use crate::health::Turn;
use crate::life::{self, FLAPPING_CORRECTIONS, FLAPPING_WINDOW_MS, RETRY_MAX_MS, emit};
use crate::order::{self, Pending};
use crate::renames;
use crate::round::{Checked, Round};
use crate::slot::{Busy, Desired, Slot};
use crate::status;
use crate::{Effect, Event, Now, Work};

/// The first retry after a failed action; doubled each time up to [`RETRY_MAX_MS`].
const RETRY_INITIAL_MS: u64 = 500;
/// A stop that has not ended the process this long after its grace is asked for again, and the driver escalates.
const STOP_OVERDUE_MS: u64 = 3_000;

/// What the shell chooses.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Milliseconds between two looks at everything; each is jittered by a fifth.
    pub resync_ms: u64,
    /// Every so many resyncs, content is read in full.
    pub full_every: u32,
    /// Seeds the jitter.
    pub seed: u64,
}

/// Keeps one machine true to its assignment.
#[derive(Debug, Clone)]
pub struct Reconciler {
    settings: Settings,
    chance: Chance,
    slots: BTreeMap<Address, Slot>,
    missing: BTreeSet<Hash>,
    /// Address → hash of the resource that has converged there, also before this agent started.
    applied: BTreeMap<Address, Hash>,
    applied_moved: bool,
    next_resync_ms: Option<u64>,
    resyncs: u32,
    next_wake_ms: Option<u64>,
    by_hand: ByHand,
    /// When orders by hand call for something by themselves.
    by_hand_wake_ms: Option<u64>,
    round: Option<Round>,
    checked: Vec<Checked>,
}

impl Reconciler {
    /// Starts with nothing assigned. `applied` is what [`Reconciler::applied`] said before the agent was restarted.
    #[must_use]
    pub fn new(settings: Settings, applied: BTreeMap<Address, Hash>) -> Self {
        let chance = Chance(settings.seed);
        Self {
            settings,
            chance,
            slots: BTreeMap::new(),
            missing: BTreeSet::new(),
            applied,
            applied_moved: false,
            next_resync_ms: None,
            resyncs: 0,
            next_wake_ms: None,
            by_hand: ByHand::default(),
            by_hand_wake_ms: None,
            round: None,
            checked: Vec::new(),
        }
    }

    /// The orders by hand that the disk holds, and how far they had been carried out. Said once, before anything happens.
    pub fn restore_hands(&mut self, hands: Hands, progress: Progress) {
        self.by_hand.restore(hands, progress);
    }

    /// How far orders by hand will have been carried out once these are obeyed: to be written together with them.
    #[must_use]
    pub fn progress_with(&self, hands: &Hands) -> Progress {
        self.by_hand.progress_with(hands, &self.slots)
    }

    /// How far orders by hand have been carried out, if that moved since this was last asked: to be written to the disk,
    /// and then to be said as [`Event::Noted`] with the number.
    pub fn take_progress(&mut self) -> Option<(u64, Progress)> {
        self.by_hand.take_moved()
    }

    /// Whether somebody holds it, or did lately: then the shell tells what stands there, as [`Event::Shown`].
    #[must_use]
    pub fn is_held(&self, address: &Address) -> bool {
        self.by_hand.is_held(address)
    }

    /// The full checks that have ended since this was last asked.
    pub fn take_checked(&mut self) -> Vec<Checked> {
        std::mem::take(&mut self.checked)
    }

    /// When [`Event::Tick`] is wanted, on the monotonic clock, if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        self.next_wake_ms
    }

    /// What has converged, for the shell to keep across restarts: it tells drift from a change that is still to be made.
    #[must_use]
    pub fn applied(&self) -> &BTreeMap<Address, Hash> {
        &self.applied
    }

    /// Whether [`Reconciler::applied`] moved since this was last asked.
    pub fn take_applied_moved(&mut self) -> bool {
        std::mem::take(&mut self.applied_moved)
    }

    /// The newest status of everything that is known.
    pub fn statuses(&self) -> impl Iterator<Item = &ResourceStatus> {
        self.slots
            .values()
            .filter_map(|slot| slot.reported.as_ref())
    }

    /// Whether no process runs, and none is just being started or looked at: what a shell waits for that ends together
    /// with its workloads, after it has assigned them as stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.slots
            .iter()
            .filter(|(address, _)| address.kind == ResourceKind::Process)
            .all(|(_, slot)| {
                slot.busy == Busy::No
                    && !matches!(slot.seen, None | Some(Ok(Observation::Running(_))))
            })
    }

    /// The desired resources, for the shell to know what to watch.
    pub fn desired(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.slots.values().filter_map(Slot::resource)
    }

    /// Takes an event in and moves everything forward.
    ///
    /// Guarantees: at most one observation or action is under way for each address; each effect that asks for an
    /// answer is asked once. Assumes that the shell answers every `Observe` and `Act`, also when it failed.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Assigned {
                generation,
                assignment,
                missing,
            } => self.assign(generation, &assignment, missing, now),
            Event::Arrived(hash) => self.arrived(hash),
            Event::Woken(addresses) => self.woken(&addresses, now),
            Event::Observed(results) => {
                for (address, result) in results {
                    self.observed(&address, result, now, &mut effects);
                }
            }
            Event::Acted(results) => {
                for (address, action, result) in results {
                    self.acted(&address, &action, result, now, &mut effects);
                }
            }
            Event::Probed {
                address,
                incarnation,
                result,
            } => {
                self.probed(&address, &incarnation, result, now, &mut effects);
            }
            Event::Hands(hands) => self.by_hand.ordered(hands, &self.slots),
            Event::Noted(version) => self.by_hand.noted(version),
            Event::Shown(address, found) => self.by_hand.shown(address, found),
            Event::Heard { away_ms } => self.by_hand.heard(away_ms, now),
            Event::Check { request, owner } => {
                self.end_round(u64::MAX, now);
                let round = Round::begin(request, owner.as_ref(), &mut self.slots, now);
                self.round = Some(round);
            }
            Event::Tick => {}
        }
        self.by_hand_wake_ms = lay_over(
            &mut self.slots,
            &mut self.by_hand,
            &mut self.applied,
            &mut self.applied_moved,
            now,
        );
        self.resync(now);
        self.advance(now, &mut effects);
        self.report(now, &mut effects);
        self.end_round(now.mono_ms, now);
        effects
    }

    /// Ends the full check that is under way, if it is over by then.
    fn end_round(&mut self, by_ms: u64, now: Now) {
        let Some(round) = &mut self.round else { return };
        let at = Now {
            mono_ms: by_ms,
            ..now
        };
        if let Some(checked) = round.step(&self.slots, at) {
            self.checked.push(checked);
            self.round = None;
        }
    }

    fn assign(
        &mut self,
        generation: Generation,
        assignment: &Assignment,
        missing: Vec<Hash>,
        now: Now,
    ) {
        self.missing = missing.into_iter().collect();
        let mut before = std::mem::take(&mut self.slots);
        let mut renamed = renames::find(assignment, &mut before, &self.applied);
        for entry in assignment.entries() {
            let address = entry.address().clone();
            let old = before.remove(&address);
            let slot = match (entry, renamed.remove(&address)) {
                (Entry::Resource(resource), None) => {
                    self.slot_for_resource(resource, generation, old)
                }
                (Entry::Resource(resource), Some(renamed)) => {
                    let before = renamed.slot_before(&address, old);
                    let mut slot = self.slot_for_resource(resource, generation, before);
                    renamed.carry_over(&mut slot);
                    slot
                }
                (Entry::Tombstone(_), _) => slot_for_removal(generation, old),
            };
            self.slots.insert(address, slot);
        }
        for (address, old) in before {
            // A settled tombstone is spoken of no more. Anything else that a complete assignment leaves out is to go, but
            // for data: that goes by an express order alone.
            if !(old.is_removal() && old.gone || address.kind.holds_data()) {
                self.slots
                    .insert(address, slot_for_removal(generation, Some(old)));
            }
        }
        let slots = &self.slots;
        let kept = self.applied.len();
        self.applied
            .retain(|address, _| slots.get(address).is_some_and(|slot| !slot.is_removal()));
        self.applied_moved |= kept != self.applied.len();
        self.next_resync_ms
            .get_or_insert(now.mono_ms + self.settings.resync_ms);
    }

    fn slot_for_resource(
        &self,
        resource: &Resource,
        generation: Generation,
        old: Option<Slot>,
    ) -> Slot {
        let hash = Slot::hash_of(&resource.address, resource);
        let missing = resource.spec.awaits().any(|it| self.missing.contains(&it));
        let mut slot = match old {
            Some(mut old) if !old.is_removal() && old.spec_hash == Some(hash) => {
                old.generation = generation;
                old.missing = missing;
                old.look(Depth::Quick);
                return old;
            }
            Some(old) => {
                let mut slot = Slot::new(Desired::Resource(Arc::new(resource.clone())), generation);
                slot.moving = old.moving;
                slot.busy = old.busy;
                slot.stale = old.busy != Busy::No;
                slot.seen = old.seen;
                slot.reported = old.reported;
                slot.life = old.life;
                slot.life.ends_in_row = 0;
                slot.life.health.next_ms = slot.life.health.next_ms.map(|_| 0);
                slot.first_look = false;
                slot
            }
            None => Slot::new(Desired::Resource(Arc::new(resource.clone())), generation),
        };
        slot.spec_hash = Some(hash);
        slot.missing = missing;
        slot.applied = self.applied.get(&resource.address) == Some(&hash);
        slot
    }

    fn arrived(&mut self, hash: Hash) {
        self.missing.remove(&hash);
        for slot in self.slots.values_mut().filter(|slot| slot.missing) {
            let still = slot
                .resource()
                .is_some_and(|r| r.spec.awaits().any(|it| self.missing.contains(&it)));
            if !still {
                slot.missing = false;
                slot.look(Depth::Quick);
            }
        }
    }

    fn woken(&mut self, addresses: &[Address], now: Now) {
        for address in addresses {
            if let Some(slot) = self.slots.get_mut(address) {
                slot.look(Depth::Quick);
                if slot.failed.is_some() || matches!(slot.seen, Some(Err(_))) {
                    slot.not_before_ms = slot.not_before_ms.min(now.mono_ms);
                }
            }
        }
    }

    fn resync(&mut self, now: Now) {
        let Some(due) = self.next_resync_ms else {
            return;
        };
        if now.mono_ms < due {
            return;
        }
        self.resyncs = self.resyncs.wrapping_add(1);
        let full =
            self.settings.full_every > 0 && self.resyncs.is_multiple_of(self.settings.full_every);
        let depth = if full { Depth::Full } else { Depth::Quick };
        for slot in self.slots.values_mut() {
            if !(slot.is_removal() && slot.gone) {
                slot.look(depth);
            }
        }
        self.next_resync_ms = Some(now.mono_ms + self.chance.jitter(self.settings.resync_ms));
    }

    fn observed(
        &mut self,
        address: &Address,
        result: Result<Observation, Fault>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(address) else {
            return;
        };
        slot.busy = Busy::No;
        if std::mem::take(&mut slot.stale) {
            slot.look(Depth::Full);
            return;
        }
        self.take_in(address, result, now, effects);
    }

    fn acted(
        &mut self,
        address: &Address,
        action: &Action,
        result: Result<Observation, Fault>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(address) else {
            return;
        };
        slot.busy = Busy::No;
        if std::mem::take(&mut slot.stale) {
            slot.acting_for = None;
            slot.look(Depth::Full);
            return;
        }
        if let (Action::Move { .. }, Some(moving), Err(fault)) = (action, &mut slot.moving, &result)
        {
            moving.failures = moving.failures.saturating_add(1);
            let wait = retry_ms(fault, moving.failures);
            moving.not_before_ms = now.mono_ms + self.chance.jitter(wait);
            if moving.failed.as_ref().map(|f| f.reason) != Some(fault.reason) {
                let message = fault.message.clone();
                emit(effects, now, address, EventKind::Failed, message);
            }
            moving.failed = Some(fault.clone());
            return;
        }
        let (why, began_ms) = slot
            .acting_for
            .take()
            .unwrap_or((Why::Desired, now.mono_ms));
        match result {
            Ok(observation) => {
                if matches!(action, Action::Move { .. }) {
                    // Whatever it had to wait for at its old address, it waits for here.
                    slot.moving = None;
                } else {
                    slot.failed = None;
                    slot.failures = 0;
                }
                life::told_of_success(
                    address,
                    slot,
                    action,
                    &why,
                    &observation,
                    now,
                    began_ms,
                    effects,
                );
                self.take_in(address, Ok(observation), now, effects);
            }
            Err(fault) => {
                slot.failures = slot.failures.saturating_add(1);
                let wait = retry_ms(&fault, slot.failures);
                slot.not_before_ms = now.mono_ms + self.chance.jitter(wait);
                if slot.failed.as_ref().map(|f| f.reason) != Some(fault.reason) {
                    emit(
                        effects,
                        now,
                        address,
                        EventKind::Failed,
                        fault.message.clone(),
                    );
                }
                slot.failed = Some(fault);
            }
        }
    }

    /// Takes an observation in, wherever it comes from.
    fn take_in(
        &mut self,
        address: &Address,
        result: Result<Observation, Fault>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(address) else {
            return;
        };
        slot.seen_under = slot.generation;
        match &result {
            Err(fault) => {
                slot.failures = slot.failures.saturating_add(1);
                let wait = retry_ms(fault, slot.failures);
                slot.not_before_ms = now.mono_ms + self.chance.jitter(wait);
                let same = matches!(&slot.seen, Some(Err(before)) if before.reason == fault.reason);
                if !same {
                    emit(
                        effects,
                        now,
                        address,
                        EventKind::Failed,
                        fault.message.clone(),
                    );
                }
            }
            Ok(observation) => {
                if matches!(slot.seen, Some(Err(_))) {
                    slot.failures = 0;
                    slot.not_before_ms = 0;
                }
                life::note_process(address, slot, observation, now, &mut self.chance, effects);
            }
        }
        slot.seen = Some(result);
        slot.first_look = false;
        if let Some(round) = &mut self.round {
            round.looked(address, slot);
        }
        match slot.decision() {
            Some(Decision::Settled | Decision::Gone | Decision::Ended(_)) => {
                slot.failed = None;
                slot.told = false;
            }
            Some(Decision::Leave(differs) | Decision::Held(differs))
                if !slot.told && !differs.is_empty() =>
            {
                slot.told = true;
                emit(
                    effects,
                    now,
                    address,
                    EventKind::DriftSeen,
                    status::describe(&differs),
                );
            }
            _ => {}
        }
        if matches!(slot.decision(), Some(Decision::Gone)) {
            slot.gone = true;
        } else if slot.is_removal() {
            slot.gone = false;
        }
    }

    fn probed(
        &mut self,
        address: &Address,
        incarnation: &str,
        result: ProbeResult,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(slot) = self.slots.get_mut(address) else {
            return;
        };
        let Some(spec) = slot.last_process().and_then(|p| p.health.clone()) else {
            slot.life.health.probing = false;
            return;
        };
        if slot.life.health.incarnation.as_deref() != Some(incarnation) {
            return;
        }
        let error = result.error.clone();
        let first = slot.life.health.healthy.is_none();
        match slot.life.health.record(result, &spec, now.mono_ms) {
            Turn::None => {}
            Turn::Healthy => {
                let message = if first { "healthy" } else { "healthy again" };
                emit(
                    effects,
                    now,
                    address,
                    EventKind::HealthChanged,
                    message.to_owned(),
                );
            }
            Turn::Unhealthy => {
                let why = error.unwrap_or_default();
                let message = format!(
                    "unhealthy after {} failed checks: {why}",
                    spec.unhealthy_threshold
                );
                emit(effects, now, address, EventKind::HealthChanged, message);
            }
        }
    }

    /// Emits every observation, action and probe that is due, and works out when to be woken next.
    fn advance(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let at = now.mono_ms;
        let others = [
            self.by_hand_wake_ms,
            self.round.as_ref().map(Round::until_ms),
        ];
        let mut wake: Option<u64> = others
            .into_iter()
            .chain([self.next_resync_ms])
            .flatten()
            .min();
        let mut wake_at = |ms: u64| wake = Some(wake.map_or(ms, |w| w.min(ms)));
        let mut looks: BTreeMap<(ResourceKind, Depth), Vec<Work>> = BTreeMap::new();
        let mut acts: BTreeMap<ResourceKind, Vec<(Work, Action)>> = BTreeMap::new();
        let pending = Pending::of(&self.slots);
        // Only what would be acted on has to be asked for what it waits for, and that is little once all is well.
        let blocked: BTreeSet<Address> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                let idle = slot.busy == Busy::No && slot.look.is_none();
                idle && matches!(slot.decision(), Some(Decision::Act(..)))
            })
            .filter(|(address, _)| order::waits_for(address, &self.slots, &pending).is_some())
            .map(|(address, _)| address.clone())
            .collect();
        let left_alone: BTreeSet<Address> = self
            .slots
            .keys()
            .filter(|address| pending.taken_by(address).is_some())
            .cloned()
            .collect();
        let busy: BTreeSet<Address> = left_alone
            .iter()
            .filter(|address| self.slots.get(*address).is_some_and(|s| s.busy != Busy::No))
            .cloned()
            .collect();
        drop(pending);
        for (address, slot) in &mut self.slots {
            while slot
                .corrections
                .front()
                .is_some_and(|c| c + FLAPPING_WINDOW_MS <= at)
            {
                slot.corrections.pop_front();
            }
            slot.flapping &= slot.corrections.len() >= FLAPPING_CORRECTIONS;
            if slot.flapping
                && let Some(oldest) = slot.corrections.front()
            {
                wake_at(oldest + FLAPPING_WINDOW_MS);
            }
            if slot.busy != Busy::No {
                continue;
            }
            if let Some(moving) = &slot.moving {
                if moving.from.iter().any(|from| busy.contains(from)) {
                    continue;
                }
                if at < moving.not_before_ms {
                    wake_at(moving.not_before_ms);
                    continue;
                }
                let from = moving.from.clone();
                acts.entry(address.kind)
                    .or_default()
                    .push((work_for(address, slot), Action::Move { from }));
                slot.busy = Busy::Acting;
                slot.acting_for = Some((Why::Desired, at));
                continue;
            }
            if left_alone.contains(address) {
                continue;
            }
            let fault_wait = matches!(slot.seen, Some(Err(_))) && at < slot.not_before_ms;
            if fault_wait {
                wake_at(slot.not_before_ms);
                continue;
            }
            if slot.look.is_none() && matches!(slot.seen, Some(Err(_))) {
                slot.look = Some(Depth::Quick);
            }
            if let Some(depth) = slot.look {
                looks
                    .entry((address.kind, depth))
                    .or_default()
                    .push(work_for(address, slot));
                slot.look = None;
                slot.busy = Busy::Observing;
                continue;
            }
            match slot.decision() {
                Some(Decision::Act(action, why)) => {
                    if slot.missing || blocked.contains(address) {
                        continue;
                    }
                    if at < slot.not_before_ms {
                        wake_at(slot.not_before_ms);
                        continue;
                    }
                    acts.entry(address.kind)
                        .or_default()
                        .push((work_for(address, slot), action.clone()));
                    slot.not_before_ms = 0;
                    slot.busy = Busy::Acting;
                    if action == Action::Stop
                        && let Some(Ok(Observation::Running(run))) = &slot.seen
                    {
                        slot.life.asked = Some((run.id.clone(), at, why.clone()));
                    }
                    slot.acting_for = Some((why, at));
                    continue;
                }
                Some(Decision::Stopping) => {
                    let grace = slot.last_process().map_or(10_000, |p| p.stop.grace_ms);
                    let Some(Ok(Observation::Running(run))) = &slot.seen else {
                        continue;
                    };
                    let asked_at = match &slot.life.asked {
                        Some((id, asked_at, _)) if *id == run.id => *asked_at,
                        _ => {
                            slot.life.asked = Some((run.id.clone(), at, Why::Desired));
                            at
                        }
                    };
                    let overdue = asked_at + grace + STOP_OVERDUE_MS;
                    if at < overdue {
                        wake_at(overdue);
                    } else {
                        acts.entry(address.kind)
                            .or_default()
                            .push((work_for(address, slot), Action::Stop));
                        slot.life.asked = Some((run.id.clone(), at, Why::Desired));
                        slot.busy = Busy::Acting;
                        slot.acting_for = Some((Why::Desired, at));
                    }
                    continue;
                }
                _ => {}
            }
            if let Some(due) = life::probe_or_steady(address, slot, at, effects) {
                wake_at(due);
            }
            if slot.converged() && !slot.is_removal() && slot.overlay.halt.is_none() {
                slot.applied = true;
                if let Some(hash) = slot.spec_hash
                    && self.applied.get(address) != Some(&hash)
                {
                    self.applied.insert(address.clone(), hash);
                    self.applied_moved = true;
                }
            }
        }
        effects.extend(
            looks
                .into_iter()
                .map(|((kind, depth), work)| Effect::Observe { kind, depth, work }),
        );
        effects.extend(
            acts.into_iter()
                .map(|(kind, work)| Effect::Act { kind, work }),
        );
        self.next_wake_ms = wake;
    }

    fn report(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let pending = Pending::of(&self.slots);
        let moved: Vec<(Address, ResourceStatus)> = self
            .slots
            .iter()
            .filter_map(|(address, slot)| {
                let waits_for = || order::waits_for(address, &self.slots, &pending);
                let status = status::status(address, slot, waits_for, now)?;
                (slot.reported.as_ref() != Some(&status)).then(|| (address.clone(), status))
            })
            .collect();
        drop(pending);
        if moved.is_empty() {
            return;
        }
        for (address, status) in &moved {
            if let Some(slot) = self.slots.get_mut(address) {
                slot.reported = Some(status.clone());
            }
        }
        effects.push(Effect::Report(
            moved.into_iter().map(|(_, status)| status).collect(),
        ));
    }
}

/// How long to wait before the next try. What the machine cannot do at all it will not be able to do in a second either.
fn retry_ms(fault: &Fault, failures: u32) -> u64 {
    match fault.reason {
        Reason::LacksCapability => RETRY_MAX_MS,
        _ => delay_ms(failures, RETRY_INITIAL_MS, RETRY_MAX_MS),
    }
}

fn work_for(address: &Address, slot: &Slot) -> Work {
    Work {
        address: address.clone(),
        resource: slot.resource().cloned(),
    }
}

fn slot_for_removal(generation: Generation, old: Option<Slot>) -> Slot {
    match old {
        Some(mut old) if old.is_removal() => {
            old.generation = generation;
            if !old.gone {
                old.look(Depth::Quick);
            } else {
                old.seen_under = generation;
            }
            old
        }
        Some(old) => {
            let was = old.resource().cloned();
            let mut slot = Slot::new(Desired::Removed { was }, generation);
            slot.busy = old.busy;
            slot.stale = old.busy != Busy::No;
            slot.seen = old.seen;
            slot.life = old.life;
            slot.reported = old.reported;
            slot.first_look = false;
            slot
        }
        None => Slot::new(Desired::Removed { was: None }, generation),
    }
}
