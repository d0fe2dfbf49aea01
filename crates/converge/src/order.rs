//! What must wait for what on one machine.
//!
//! A resource waits for what it names in `after`, and for removals that conflict with it. Where something was renamed, its
//! old address waits until the new one has taken over what is there. Removals run the other
//! way round: processes first, then files, then directories from the innermost, then artifacts.

use std::collections::BTreeMap;

use plumb_model::{Address, ResourceKind, ResourceSpec};

use crate::slot::{Desired, Slot};

/// What is still under way and others may have to wait for: collected once for many questions.
pub(crate) struct Pending<'a> {
    removals: Vec<(&'a Address, &'a Slot)>,
    /// Addresses whose things are to be taken over, and by which address.
    moves: BTreeMap<&'a Address, &'a Address>,
}

impl<'a> Pending<'a> {
    pub fn of(slots: &'a BTreeMap<Address, Slot>) -> Self {
        let removals = slots
            .iter()
            .filter(|(_, slot)| slot.is_removal() && !slot.gone)
            .collect();
        let moves = slots
            .iter()
            .filter_map(|(to, slot)| Some((to, slot.moving.as_ref()?)))
            .flat_map(|(to, moving)| moving.from.iter().map(move |from| (from, to)))
            .collect();
        Self { removals, moves }
    }

    /// Who is to take over what is at this address, before anything else is done there.
    pub fn taken_by(&self, address: &Address) -> Option<&'a Address> {
        self.moves.get(address).copied()
    }
}

/// The first address that this one waits for, if any.
pub(crate) fn waits_for<'a>(
    address: &Address,
    slots: &'a BTreeMap<Address, Slot>,
    pending: &Pending<'a>,
) -> Option<&'a Address> {
    let slot = slots.get(address)?;
    if slot.moving.is_some() {
        return None;
    }
    if let Some(to) = pending.taken_by(address) {
        return Some(to);
    }
    let mut removals = pending.removals.iter().copied();
    match &slot.desired {
        Desired::Resource(resource) => resource
            .after
            .iter()
            .find_map(|before| {
                let (key, slot) = slots.get_key_value(before)?;
                (!slot.converged()).then_some(key)
            })
            .or_else(|| {
                removals
                    .find(|(other, slot)| conflicts(address, &resource.spec, other, slot))
                    .map(|(other, _)| other)
            }),
        Desired::Removed { .. } if slot.gone => None,
        Desired::Removed { .. } => removals
            .find(|(other, _)| removed_before(other, address))
            .map(|(other, _)| other),
    }
}

/// Whether the removal of `other` must come before `address` can be made: they take the same path or port.
fn conflicts(address: &Address, spec: &ResourceSpec, other: &Address, other_slot: &Slot) -> bool {
    let is_path = |kind| matches!(kind, ResourceKind::File | ResourceKind::Directory);
    if is_path(address.kind) && is_path(other.kind) {
        // A removed directory above a new file is only emptied of what is Plumb's, so it is no conflict.
        return address.name == other.name
            || beneath(&address.name, &other.name) && other.kind == ResourceKind::File;
    }
    match (spec, other.kind) {
        (ResourceSpec::Process(new), ResourceKind::Process) => match other_slot.last_process() {
            Some(old) => old
                .ports
                .values()
                .any(|port| new.ports.values().any(|p| p == port)),
            // What it was is not known any more, so it may hold any port.
            None => !new.ports.is_empty(),
        },
        _ => false,
    }
}

/// Whether, of two removals, the first goes first.
fn removed_before(first: &Address, second: &Address) -> bool {
    use ResourceKind::{Artifact, Directory, File, Process};
    match (first.kind, second.kind) {
        (Process, Artifact) => first.owner == second.owner,
        (Process, File | Directory) => first.owner == second.owner,
        (File | Directory, Directory) => beneath(&first.name, &second.name),
        _ => false,
    }
}

fn beneath(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}
