//! What an assignment has renamed: finds, for each new address, the slot that it takes over, with all that is known of it.
//!
//! It moves nothing on the VM: the reconciler then has the driver do that, before anything else happens at either address.

use std::collections::BTreeMap;

use plumb_model::{Address, Assignment, Hash};

use crate::slot::{Busy, Moving, Slot};

/// A resource that was at another address before.
#[derive(Debug)]
pub(crate) struct Renamed {
    /// Where it may be held, newest first.
    from: Vec<Address>,
    /// The slot that it had there, if this agent knew it.
    source: Option<Box<Slot>>,
    /// The source converged under this very spec.
    same: bool,
}

/// Finds what is renamed and has not been moved yet. The slots that are taken over leave `before`; where the old address is
/// to hold something again, or an answer from it is still to come, a slot without a memory stays for it.
pub(crate) fn find(
    assignment: &Assignment,
    before: &mut BTreeMap<Address, Slot>,
    applied: &BTreeMap<Address, Hash>,
) -> BTreeMap<Address, Renamed> {
    let mut found = BTreeMap::new();
    for resource in assignment.resources() {
        let mut from: Vec<Address> = resource.addresses_before().into_iter().cloned().collect();
        if from.is_empty() {
            continue;
        }
        let here = before.get(&resource.address).and_then(Slot::resource);
        let known = here.is_some_and(|here| here.was == resource.was);
        // What converged under its new address was moved before that.
        let hash = Slot::hash_of(&resource.address, resource);
        if known || applied.get(&resource.address) == Some(&hash) {
            continue;
        }
        let source = match here {
            // Somebody lives here already: the driver decides what to do, and each keeps its memory.
            Some(_) => None,
            None => from
                .iter()
                .find(|old| before.get(*old).is_some_and(|slot| !slot.is_removal()))
                .and_then(|old| take(old, before)),
        };
        let same = source
            .as_ref()
            .and_then(|s| s.resource())
            .is_some_and(|old| old.spec == resource.spec && old.drift == resource.drift);
        // Renamed once more before the first move was done: what it was to take over is still where it was.
        if let Some(moving) = source.as_ref().and_then(|source| source.moving.as_ref()) {
            for old in &moving.from {
                if *old != resource.address && !from.contains(old) {
                    from.push(old.clone());
                }
            }
        }
        let renamed = Renamed {
            from,
            source: source.map(Box::new),
            same,
        };
        found.insert(resource.address.clone(), renamed);
    }
    found
}

/// Takes the slot at an old address, and leaves one that remembers nothing but what is under way there.
fn take(old: &Address, before: &mut BTreeMap<Address, Slot>) -> Option<Slot> {
    let slot = before.get_mut(old)?;
    let mut left = Slot::new(slot.desired.clone(), slot.generation);
    left.busy = slot.busy;
    left.stale = slot.busy != Busy::No;
    let mut taken = std::mem::replace(slot, left);
    // The answer goes to the old address, and would be awaited for ever.
    taken.life.health.probing = false;
    Some(taken)
}

impl Renamed {
    /// The slot before, as the reconciler wants it for an address whose resource has changed: `here` is what was at the new
    /// address, of which only what is under way still matters.
    pub fn slot_before(&self, address: &Address, here: Option<Slot>) -> Option<Slot> {
        let Some(source) = &self.source else {
            return here;
        };
        let mut slot = Slot::clone(source);
        slot.busy = here.map_or(Busy::No, |here| here.busy);
        if let Some(reported) = &mut slot.reported {
            reported.address = address.clone();
        }
        Some(slot)
    }

    /// Gives the new slot the rest of the memory, and notes that the driver has to be told.
    pub fn carry_over(self, slot: &mut Slot) {
        slot.moving = Some(Moving {
            from: self.from,
            failed: None,
            failures: 0,
            not_before_ms: 0,
        });
        let Some(source) = self.source.filter(|_| self.same) else {
            return;
        };
        // Nothing but the name has changed: it goes on where it was, its pauses after failures included.
        slot.life = source.life;
        slot.failed = source.failed;
        slot.failures = source.failures;
        slot.not_before_ms = source.not_before_ms;
        slot.corrections = source.corrections;
        slot.flapping = source.flapping;
        slot.told = source.told;
        slot.applied = source.applied;
    }
}
