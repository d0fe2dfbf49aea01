//! The state that applying a plan records: release numbers, assignments, generations and tombstones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::assignment::{self, Assignment, Entry, Header, Tombstone};
use plumb_model::state::{FORMAT, MachineInfo, MachineState, Next, OwnerState, StateBody};
use plumb_model::{Address, Generation, Hash, MachineName, OwnerName, Resource};

use crate::desired::{Desired, is_forgotten};
use crate::{Input, Observed};

/// Works the next state out. Equal content keeps its release number and its generation.
pub(crate) fn next(desired: &Desired, input: &Input<'_>) -> Next {
    let recorded = &input.recorded.state;
    let mut bodies = BTreeMap::new();
    let mut released = BTreeMap::new();
    let mut last_release = recorded.last_release.clone();
    let mut owners = BTreeMap::new();
    for (owner, body) in &desired.owners {
        let old_name = desired.renamed.get(owner);
        let same = input
            .recorded
            .releases
            .get(owner)
            .is_some_and(|old| Arc::ptr_eq(old, body) || old == body);
        let state = match recorded.owners.get(owner) {
            Some(state) if same => state.clone(),
            _ => {
                let bytes = body.bytes();
                let hash = Hash::of(&bytes);
                bodies.insert(hash, bytes);
                // A renamed owner counts on from where it was.
                let numbers = [Some(owner), old_name];
                let last = numbers
                    .into_iter()
                    .flatten()
                    .filter_map(|name| last_release.get(name).copied());
                let release = last.max().unwrap_or_default().next();
                last_release.insert(owner.clone(), release);
                released.insert(owner.clone(), release);
                OwnerState {
                    release,
                    body: hash,
                }
            }
        };
        owners.insert(owner.clone(), state);
    }
    let renamed: BTreeSet<&OwnerName> = desired.renamed.values().collect();
    for owner in recorded
        .owners
        .keys()
        .filter(|owner| !desired.owners.contains_key(*owner) && !renamed.contains(owner))
    {
        let release = last_release.get(owner).copied().unwrap_or_default().next();
        last_release.insert(owner.clone(), release);
        released.insert(owner.clone(), release);
    }

    let mut by_machine: BTreeMap<&MachineName, BTreeMap<&Address, &Resource>> = BTreeMap::new();
    for resource in desired.resources() {
        by_machine
            .entry(&resource.address.machine)
            .or_default()
            .insert(&resource.address, resource);
    }
    let mut held: BTreeMap<&MachineName, Vec<&Address>> = BTreeMap::new();
    // What has moved along with its owner's name is not gone, and what is forgotten is to stay.
    let moved_from: BTreeSet<&Address> = desired.moved.values().collect();
    for resource in input.recorded.releases.values().flat_map(|b| &b.resources) {
        if moved_from.contains(&resource.address) || is_forgotten(resource) {
            continue;
        }
        held.entry(&resource.address.machine)
            .or_default()
            .push(&resource.address);
    }
    let mut machines = BTreeMap::new();
    let mut moved = BTreeMap::new();
    let names = desired.machines.keys().chain(
        recorded
            .machines
            .keys()
            .filter(|m| !desired.machines.contains_key(*m)),
    );
    for name in names {
        let old = recorded.machines.get(name);
        let next = MachineNext {
            name,
            info: desired.machines.get(name).cloned(),
            old,
            wanted: by_machine.remove(name).unwrap_or_default(),
            held: held.remove(name).unwrap_or_default(),
        };
        if let Some((state, bytes)) = machine(next, input) {
            if old.map(|o| o.assignment) != Some(state.assignment) {
                moved.insert(name.clone(), state.generation);
                bodies.insert(state.assignment, bytes);
            }
            machines.insert(name.clone(), state);
        }
    }

    let state = StateBody {
        format: FORMAT,
        revision: recorded.revision.next(),
        manifest: desired.manifest.clone(),
        owners,
        machines,
        last_release,
    };
    Next {
        state,
        bodies,
        released,
        moved,
    }
}

/// What one machine's next state is made of.
struct MachineNext<'a> {
    name: &'a MachineName,
    /// What the blueprints say of it; none if they speak of it no more.
    info: Option<MachineInfo>,
    old: Option<&'a MachineState>,
    wanted: BTreeMap<&'a Address, &'a Resource>,
    /// What is recorded on it and would be removed if it were not wanted.
    held: Vec<&'a Address>,
}

/// One machine's next state, or none if it has left and nothing of it remains.
fn machine(next: MachineNext<'_>, input: &Input<'_>) -> Option<(MachineState, Vec<u8>)> {
    // A machine that comes starts at the number of its revision. No generation is ever higher than that, so one
    // that left and comes again stays above what its agent may still hold and what was once proven under it.
    let generation = next
        .old
        .map_or(Generation(input.recorded.state.revision.0), |o| {
            o.generation
        });
    let pending = pending_tombstones(&next, generation.next());
    let MachineNext {
        name,
        info,
        old,
        wanted,
        held: _,
    } = next;
    let settled = still_unsettled(&pending, input.observed);
    let build = |tombstones: &BTreeMap<Address, Generation>| {
        let header = Header {
            format: assignment::FORMAT,
            lineage: input.lineage.clone(),
            workspace: input.workspace.clone(),
            machine: name.clone(),
        };
        let resources = wanted.values().map(|r| Entry::Resource((*r).clone()));
        let tombstones = tombstones.iter().map(|(address, since)| {
            Entry::Tombstone(Tombstone {
                address: address.clone(),
                since: *since,
            })
        });
        Assignment::build(header, resources.chain(tombstones))
    };
    // Settled tombstones go only along with another change, so that removing them never makes a revision of its own.
    let unchanged = old.is_some_and(|o| build(&pending).hash() == o.assignment);
    let tombstones = if unchanged { pending } else { settled };
    let leaving = info.is_none();
    if leaving
        && wanted.is_empty()
        && (tombstones.is_empty() || still_unsettled(&tombstones, input.observed).is_empty())
    {
        return None;
    }
    let assignment = build(&tombstones);
    let hash = assignment.hash();
    let generation = if old.is_some_and(|o| o.assignment == hash) {
        generation
    } else {
        generation.next()
    };
    let info = info
        .or_else(|| old.map(|o| o.info.clone()))
        .unwrap_or_default();
    Some((
        MachineState {
            info,
            generation,
            assignment: hash,
            tombstones,
            leaving,
        },
        assignment.bytes(),
    ))
}

/// Every tombstone of a machine: those recorded and not desired again, and one for each resource that goes.
fn pending_tombstones(next: &MachineNext<'_>, since: Generation) -> BTreeMap<Address, Generation> {
    let mut tombstones: BTreeMap<Address, Generation> = next
        .old
        .iter()
        .flat_map(|o| &o.tombstones)
        .filter(|(address, _)| !next.wanted.contains_key(address))
        .map(|(address, since)| (address.clone(), *since))
        .collect();
    for address in next.held.iter().filter(|a| !next.wanted.contains_key(*a)) {
        tombstones.entry((*address).clone()).or_insert(since);
    }
    tombstones
}

/// Those of which no agent has proven, under the ordering generation or a later one, that nothing is left.
fn still_unsettled(
    tombstones: &BTreeMap<Address, Generation>,
    observed: &Observed,
) -> BTreeMap<Address, Generation> {
    let proven = |address: &Address, since: Generation| {
        observed
            .statuses
            .get(address)
            .is_some_and(|status| status.gone && status.generation >= since)
    };
    tombstones
        .iter()
        .filter(|(address, since)| !proven(address, **since))
        .map(|(address, since)| (address.clone(), *since))
        .collect()
}
