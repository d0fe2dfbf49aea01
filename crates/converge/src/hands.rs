//! What operators have ordered by hand, laid over what the blueprints say.
//!
//! An order to stop and a hold are the highest word there is on a resource: above a new assignment, remedies, restart and
//! drift policy. They change no spec; [`lay_over`] puts them beside each slot before anything is decided about it.
//!
//! A restart ends one certain incarnation, the one that ran when the order was first looked at. Which one that is gets
//! noted on the disk before it is touched, so that no crash, reconnect or repeated order ends another one.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::hands::{Hands, Hold, Restart, Stopped};
use plumb_model::{Address, Found, Observation, OrderNumber, OwnerName, ResourceSpec, RunState};
use serde::{Deserialize, Serialize};

use crate::Now;
use crate::slot::{Busy, Slot};

/// How far one process has come with an order to start it again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// The order.
    pub id: OrderNumber,
    /// One that runs is left alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_start: bool,
    /// The incarnation that another one is to follow; none before that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<String>,
    /// Nothing is left to be done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
}

/// What has become of orders by hand on this machine: kept on its disk together with them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The newest order to start again that was taken up, of each owner.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    taken: BTreeMap<OwnerName, OrderNumber>,
    /// How far each process has come with it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    again: BTreeMap<Address, Again>,
    /// What stands, or stood, at what is held or was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    shown: BTreeMap<Address, Box<Found>>,
}

impl Progress {
    /// With these orders: each process that there is of an owner is to be started again, once for each order.
    fn with<'a>(&self, hands: &Hands, processes: impl Iterator<Item = &'a Address>) -> Self {
        let mut next = self.clone();
        let processes: BTreeSet<&Address> = processes.collect();
        // Of one that comes again later, an order that was taken up does not count.
        next.again.retain(|address, _| processes.contains(address));
        next.shown
            .retain(|address, _| hands.holds.contains_key(address));
        let is_new = |owner: &OwnerName, restart: &Restart| {
            self.taken
                .get(owner)
                .is_none_or(|known| *known < restart.id)
        };
        for address in processes {
            if let Some(restart) = hands.restarts.get(&address.owner)
                && is_new(&address.owner, restart)
            {
                let again = Again {
                    id: restart.id,
                    only_start: restart.only_start,
                    ends: None,
                    done: false,
                };
                next.again.insert(address.clone(), again);
            }
        }
        for (owner, restart) in &hands.restarts {
            if is_new(owner, restart) {
                next.taken.insert(owner.clone(), restart.id);
            }
        }
        next
    }
}

/// Why a process is to stand still though its spec says that it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// Somebody has stopped its owner.
    ByHand(Stopped),
    /// Nothing was heard of the control plane for so many milliseconds.
    Away(u64),
}

/// What is laid over one slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Overlay {
    pub halt: Option<Halt>,
    /// The incarnation that another one is to follow. It has been noted.
    pub again: Option<String>,
    /// A hold that counts.
    pub held: Option<Hold>,
    /// What stands there while it is held, or stood there then.
    pub shown: Option<Box<Found>>,
    /// The newest order to start it again that has been carried out.
    pub restarted: Option<OrderNumber>,
}

/// Orders by hand, and how far they have been carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct ByHand {
    hands: Hands,
    progress: Progress,
    /// Counts the changes of `progress`, and which of them is on the disk.
    version: u64,
    noted: u64,
    told: u64,
    /// In which change each incarnation was marked: it is not touched before that is on the disk.
    marked: BTreeMap<Address, u64>,
    /// Since when nothing was heard of the control plane, on the monotonic clock; may lie before its beginning.
    away_since_ms: Option<i64>,
}

impl ByHand {
    /// What the disk holds, at the start.
    pub fn restore(&mut self, hands: Hands, progress: Progress) {
        self.hands = hands;
        self.progress = progress;
    }

    /// What the progress is with these orders.
    pub fn progress_with(&self, hands: &Hands, slots: &BTreeMap<Address, Slot>) -> Progress {
        let processes = slots
            .iter()
            .filter(|(_, slot)| slot.resource().is_some() && slot.last_process().is_some())
            .map(|(address, _)| address);
        self.progress.with(hands, processes)
    }

    /// Other orders are on the disk.
    pub fn ordered(&mut self, hands: Hands, slots: &BTreeMap<Address, Slot>) {
        self.progress = self.progress_with(&hands, slots);
        self.hands = hands;
        self.version += 1;
    }

    /// The progress, if it has moved since this was last asked, and the number to say once it is on the disk.
    pub fn take_moved(&mut self) -> Option<(u64, Progress)> {
        if self.told == self.version {
            return None;
        }
        self.told = self.version;
        Some((self.version, self.progress.clone()))
    }

    /// The progress of this number is on the disk.
    pub fn noted(&mut self, version: u64) {
        self.noted = self.noted.max(version);
        let noted = self.noted;
        self.marked.retain(|_, at| *at > noted);
    }

    /// Whether somebody holds it, or did lately.
    pub fn is_held(&self, address: &Address) -> bool {
        self.hands.holds.contains_key(address)
    }

    /// This stands at what is held.
    pub fn shown(&mut self, address: Address, found: Found) {
        if self.is_held(&address)
            && self.progress.shown.get(&address).map(|known| &**known) != Some(&found)
        {
            self.progress.shown.insert(address, Box::new(found));
            self.version += 1;
        }
    }

    /// The control plane is heard from now on, or has not been for so many milliseconds.
    pub fn heard(&mut self, away_ms: Option<u64>, now: Now) {
        self.away_since_ms = away_ms.map(|ms| {
            let now = i64::try_from(now.mono_ms).unwrap_or(i64::MAX);
            now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX))
        });
    }

    fn halt(&self, address: &Address, slot: &Slot, now: Now, wake: &mut Wake) -> Option<Halt> {
        let ResourceSpec::Process(spec) = &slot.resource()?.spec else {
            return None;
        };
        if let Some(stopped) = self.hands.stopped.get(&address.owner) {
            return Some(Halt::ByHand(stopped.clone()));
        }
        let after = spec.on_disconnect.as_ref()?.stop_after_ms;
        let due = self
            .away_since_ms?
            .saturating_add(i64::try_from(after).unwrap_or(i64::MAX));
        // One that lies before the beginning of the clock is due already.
        let due = u64::try_from(due).unwrap_or(0);
        if now.mono_ms >= due {
            return Some(Halt::Away(after));
        }
        wake.at(due);
        None
    }

    fn hold(&self, address: &Address, now: Now, wake: &mut Wake) -> Option<Hold> {
        let hold = self.hands.holds.get(address)?;
        if !hold.holds(now.wall) {
            return None;
        }
        let left = hold.until.duration_since(now.wall).as_millis().max(0);
        // One more, so that it is over then.
        wake.at(now.mono_ms + u64::try_from(left).unwrap_or(u64::MAX / 2) + 1);
        Some(hold.clone())
    }

    /// Takes a process one step on with an order to start it again.
    fn step(&mut self, address: &Address, slot: &mut Slot) {
        let Some(again) = self.progress.again.get(address).filter(|again| !again.done) else {
            return;
        };
        let mut next = again.clone();
        let stands = match slot.resource().map(|resource| &resource.spec) {
            Some(ResourceSpec::Process(spec)) => spec.state == RunState::Stopped,
            // It is a process no more, or is to go.
            _ => true,
        };
        if stands || slot.overlay.halt.is_some() {
            next.done = true;
        } else if slot.busy != Busy::No || !slot.is_fresh() {
            return;
        } else {
            match (&next.ends, &slot.seen) {
                (_, None | Some(Err(_))) => return,
                (None, Some(Ok(Observation::Running(_)))) if next.only_start => next.done = true,
                (None, Some(Ok(Observation::Running(run) | Observation::Exited(run, _)))) => {
                    next.ends = Some(run.id.clone());
                }
                (Some(ends), Some(Ok(Observation::Running(run) | Observation::Exited(run, _))))
                    if *ends == run.id =>
                {
                    return;
                }
                // Another one follows already, or nothing is there, and what the blueprint says comes about by itself.
                (_, Some(Ok(_))) => next.done = true,
            }
        }
        // Whatever it was put off for, somebody wants it now.
        slot.not_before_ms = 0;
        slot.life.ends_in_row = 0;
        self.version += 1;
        self.marked.insert(address.clone(), self.version);
        self.progress.again.insert(address.clone(), next);
    }
}

/// The earliest of several moments, on the monotonic clock.
#[derive(Debug, Default)]
pub(crate) struct Wake(pub Option<u64>);

impl Wake {
    fn at(&mut self, ms: u64) {
        self.0 = Some(self.0.map_or(ms, |wake| wake.min(ms)));
    }
}

/// Puts beside each slot what is ordered of it. When to do so again, if nothing happens before.
///
/// What is stopped counts as never having converged: when it is let go it is started, whatever its drift policy says.
pub(crate) fn lay_over(
    slots: &mut BTreeMap<Address, Slot>,
    by_hand: &mut ByHand,
    applied: &mut BTreeMap<Address, plumb_model::Hash>,
    applied_moved: &mut bool,
    now: Now,
) -> Option<u64> {
    let mut wake = Wake::default();
    let idle = by_hand.hands.is_empty()
        && by_hand.progress == Progress::default()
        && by_hand.away_since_ms.is_none();
    for (address, slot) in slots {
        if idle && slot.overlay == Overlay::default() {
            continue;
        }
        let before = slot.overlay.clone();
        slot.overlay.halt = by_hand.halt(address, slot, now, &mut wake);
        slot.overlay.held = by_hand.hold(address, now, &mut wake);
        slot.overlay.shown = by_hand.progress.shown.get(address).cloned();
        by_hand.step(address, slot);
        let again = by_hand.progress.again.get(address);
        let durable = !by_hand.marked.contains_key(address);
        slot.overlay.again = again
            .filter(|again| !again.done && durable)
            .and_then(|again| again.ends.clone());
        slot.overlay.restarted = again.filter(|again| again.done).map(|again| again.id);
        if before.halt.is_some() != slot.overlay.halt.is_some() {
            slot.not_before_ms = 0;
            // What could not be done is not what is wanted any more.
            slot.failed = None;
            slot.failures = 0;
            slot.applied = false;
            *applied_moved |= applied.remove(address).is_some();
        }
        if before.held.is_some() && slot.overlay.held.is_none() {
            // Whatever was done to it meanwhile is looked at closely, once.
            slot.look(plumb_model::Depth::Full);
            slot.told = false;
        }
    }
    wake.0
}
