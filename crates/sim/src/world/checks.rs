//! The invariants that hold at every moment, on every machine.

use std::collections::BTreeSet;

use plumb_converge as converge;
use plumb_model::{Action, Address, Assignment, ConditionKind, Entry, ResourceStatus};

use super::{UNNOTICED_MS, World};
use crate::vm::Thing;

impl World {
    /// Nothing is made before what it waits for is as it should be, unless a stranger came in between.
    pub(super) fn check_order(&mut self, machine: usize, work: &converge::Work, action: &Action) {
        let at = &self.machines[machine];
        let (Action::Write | Action::Start, Some(held)) = (action, &at.disk.held) else {
            return;
        };
        // As it is recorded: what the agent makes of that may be the mistake.
        let Some(Entry::Resource(resource)) = held.assignment.get(&work.address) else {
            return;
        };
        let early = resource.after.iter().find(|before| {
            let touched = at.vm.touched.get(before);
            let recently = touched.is_some_and(|touched| self.now_ms - touched < UNNOTICED_MS);
            match held.assignment.get(before) {
                Some(Entry::Resource(before)) => !recently && !at.vm.is_as(before),
                _ => false,
            }
        });
        if let Some(before) = early {
            let (before, address) = (before.clone(), work.address.clone());
            self.broke(format!(
                "what a resource waits for comes first: {address} was made before {before}"
            ));
        }
    }

    /// Nothing that was renamed is ended at its old address, or made anew at the new one while it is at the old.
    pub(super) fn check_rename(&mut self, machine: usize, work: &converge::Work, action: &Action) {
        let at = &self.machines[machine];
        let Some(held) = &at.disk.held else { return };
        let alive = |address: &Address| matches!(at.vm.thing(address), Some(Thing::Alive(_)));
        let wrong = match (action, &work.resource) {
            (Action::Stop | Action::Remove, None) => held.assignment.resources().find(|resource| {
                resource.addresses_before().contains(&&work.address)
                    && at.vm.thing(&resource.address).is_none()
                    && held.assignment.get(&work.address).is_none()
            }),
            (Action::Start, Some(resource)) => held.assignment.resources().find(|other| {
                let before = resource.addresses_before();
                let left = |old: &&Address| alive(old) && held.assignment.get(old).is_none();
                other.address == work.address && before.iter().any(left)
            }),
            _ => None,
        };
        let wrong = wrong.map(|resource| {
            let (generation, address) = (held.generation, &work.address);
            let before = resource.addresses_before();
            format!(
                "{action:?} of {address} under {generation}, where {} was {before:?}",
                resource.address
            )
        });
        if let Some(wrong) = wrong {
            self.broke(format!("a rename restarts nothing: {wrong}"));
        }
    }

    /// What an agent says of a resource is so, unless a stranger came in between.
    pub(super) fn check_statuses(&mut self, machine: usize, statuses: &[ResourceStatus]) {
        let at = &self.machines[machine];
        let Some(held) = &at.disk.held else { return };
        let mut wrong = Vec::new();
        for status in statuses {
            let recently = at
                .vm
                .touched
                .get(&status.address)
                .is_some_and(|touched| self.now_ms - touched < UNNOTICED_MS);
            if status.generation != held.generation || recently {
                continue;
            }
            match held.assignment.get(&status.address) {
                Some(Entry::Resource(resource))
                    if status.is(ConditionKind::Converged) && !at.vm.is_as(resource) =>
                {
                    wrong.push(format!(
                        "converged means that it is so: {} under {} is {:?}",
                        status.address,
                        status.generation,
                        at.vm.thing(&status.address)
                    ));
                }
                Some(Entry::Tombstone(_))
                    if status.gone
                        && !matches!(
                            at.vm.thing(&status.address),
                            None | Some(Thing::Foreign(_))
                        ) =>
                {
                    wrong.push(format!("gone means that it is gone: {}", status.address));
                }
                _ => {}
            }
        }
        for what in wrong {
            self.broke(what);
        }
    }

    /// Nothing is ended or removed for good unless a tombstone says so, or it is what was left where something else has been
    /// taken over from: then both were there, under the old name and the new. Where an older copy of the store was put back, the
    /// complete snapshot of the new history says it too, of what only the lost one knew.
    pub(super) fn check_removal(&mut self, machine: usize, work: &converge::Work, action: &Action) {
        let ends = match action {
            Action::Remove => true,
            Action::Stop => work.resource.is_none(),
            _ => false,
        };
        let held = self.machines[machine].disk.held.as_ref();
        let entry = held.and_then(|held| held.assignment.get(&work.address));
        let by_snapshot = entry.is_none() && self.is_orphan(&work.address);
        let left = entry.is_none()
            && held.is_some_and(|held| {
                held.assignment.resources().any(|resource| {
                    resource.addresses_before().contains(&&work.address)
                        && self.machines[machine].vm.thing(&resource.address).is_some()
                })
            });
        if ends && !by_snapshot && !left && !matches!(entry, Some(Entry::Tombstone(_))) {
            let (address, entry) = (&work.address, entry.cloned());
            self.broke(format!(
                "nothing is destroyed without a tombstone: {action:?} of {address}, of which is said {entry:?}"
            ));
        }
    }

    /// Whether no record has to speak of what is there: an older copy of the store knew nothing of it, or another VM under
    /// the same name has proven that it is gone.
    pub(super) fn is_orphan(&self, address: &Address) -> bool {
        self.orphans.contains(address) || self.copied.contains(&address.machine)
    }

    /// What Plumb made on a VM and an assignment does not speak of. What an older copy of the store knew nothing of stays
    /// where it is.
    pub(super) fn untracked(&self, machine: usize, assignment: &Assignment) -> Vec<String> {
        let at = &self.machines[machine];
        let before: BTreeSet<&Address> = assignment
            .resources()
            .flat_map(|resource| resource.addresses_before())
            .collect();
        let lost = |address: &&Address| {
            assignment.get(address).is_none()
                && !before.contains(address)
                && !self.is_orphan(address)
        };
        let lost = at.vm.addresses().filter(lost);
        lost.map(|address| format!("nothing owned is untracked: {address}"))
            .collect()
    }
}
