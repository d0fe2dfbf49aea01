//! The state that applying a plan records: release numbers, assignments, generations and tombstones.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use plumb_model::assignment::{self, Header, Line, Tombstone};
use plumb_model::state::{
    FORMAT, MachineInfo, MachineState, Next, OwnerState, ReleaseBody, StateBody,
};
use plumb_model::{Address, Generation, Hash, MachineName, OwnerName, Resource, parallel};

use crate::desired::{Desired, is_forgotten, touched};
use crate::{Input, Observed};

/// Works the next state out. Equal content keeps its release number and its generation.
pub(crate) fn next(desired: &Desired, input: &Input<'_>) -> Next {
    let recorded = &input.recorded.state;
    let mut bodies = BTreeMap::new();
    let mut released = BTreeMap::new();
    let mut written = written(desired, input);
    let mut last_release = recorded.last_release.clone();
    let mut owners = BTreeMap::new();
    for (owner, body) in &desired.owners {
        let old_name = desired.renamed.get(owner);
        let state = match recorded.owners.get(owner) {
            Some(state) if is_recorded(owner, body, input) => state.clone(),
            _ => {
                let hash = match written.get(owner) {
                    Some(written) => written.hash,
                    None => Hash::of(&body.bytes()),
                };
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

    let touched = touched(&desired.machines, &desired.owners, input);
    let mut by_machine: BTreeMap<&MachineName, Vec<Wanted<'_>>> = BTreeMap::new();
    for (owner, body) in &desired.owners {
        if touched.is_empty() {
            break;
        }
        for (index, resource) in body.resources.iter().enumerate() {
            let wanted = Wanted {
                resource,
                owner,
                index,
            };
            let machine = &resource.address.machine;
            if touched.contains(machine) {
                by_machine.entry(machine).or_default().push(wanted);
            }
        }
    }
    let held = held(desired, input, &touched);
    // What has moved along with its owner's name is not gone, and what is forgotten is to stay.
    let moved_from: BTreeSet<&Address> = desired.moved.values().collect();
    let mut machines = BTreeMap::new();
    let mut moved = BTreeMap::new();
    let names = desired.machines.keys().chain(
        recorded
            .machines
            .keys()
            .filter(|m| !desired.machines.contains_key(*m)),
    );
    let all: Vec<MachineNext<'_>> = names
        .map(|name| {
            let mut wanted = by_machine.remove(name).unwrap_or_default();
            wanted.sort_by(|a, b| a.resource.address.cmp(&b.resource.address));
            MachineNext {
                name,
                info: desired.machines.get(name).cloned(),
                old: recorded.machines.get(name),
                wanted,
                held: held.get(name).map(Vec::as_slice).unwrap_or_default(),
                moved_from: &moved_from,
                written: &written,
                touched: touched.contains(name),
            }
        })
        .collect();
    let size = all.iter().map(|m| m.wanted.len()).sum::<usize>() * parallel::A_RESOURCE;
    for (name, done) in parallel::each(all, size, |next| (next.name, machine(&next, input))) {
        let Some((state, bytes)) = done else {
            continue;
        };
        if let Some(bytes) = bytes {
            moved.insert(name.clone(), state.generation);
            bodies.insert(state.assignment, bytes);
        }
        machines.insert(name.clone(), state);
    }
    // Only now are the bytes of the releases no longer looked into.
    for (owner, state) in &owners {
        let new = input.recorded.state.owners.get(owner).map(|o| o.body) != Some(state.body);
        if let Some(written) = written.remove(owner).filter(|_| new) {
            bodies.insert(state.body, written.bytes);
        }
    }

    let state = StateBody {
        format: FORMAT,
        revision: recorded.revision.next(),
        manifest: desired.manifest.clone(),
        owners,
        left: left(recorded, &machines),
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

/// The generations of machines that are gone, where waves took them above the number of the revision.
fn left(
    recorded: &StateBody,
    machines: &BTreeMap<MachineName, MachineState>,
) -> BTreeMap<MachineName, Generation> {
    let gone = recorded
        .machines
        .iter()
        .map(|(name, m)| (name, m.generation));
    let before = recorded.left.iter().map(|(name, at)| (name, *at));
    gone.chain(before)
        .filter(|(name, at)| !machines.contains_key(*name) && at.0 > recorded.revision.0)
        .map(|(name, at)| (name.clone(), at))
        .collect()
}

/// A release as the bytes that it is stored as, with where in them each of its resources stands.
struct Written {
    bytes: Vec<u8>,
    each: Vec<Range<usize>>,
    hash: Hash,
}

/// Whether an owner's content is that of the release that it is at.
fn is_recorded(owner: &OwnerName, body: &Arc<ReleaseBody>, input: &Input<'_>) -> bool {
    let old = input.recorded.releases.get(owner);
    old.is_some_and(|old| Arc::ptr_eq(old, body) || old == body)
}

/// Writes every release that is not at hand in the same words already.
fn written<'a>(desired: &'a Desired, input: &Input<'_>) -> BTreeMap<&'a OwnerName, Written> {
    let new: Vec<_> = desired
        .owners
        .iter()
        .filter(|(owner, body)| {
            !is_recorded(owner, body, input) || !input.recorded.state.owners.contains_key(*owner)
        })
        .collect();
    let resources: usize = new.iter().map(|(_, body)| body.resources.len()).sum();
    let all = parallel::each(new, resources * parallel::A_RESOURCE, |(owner, body)| {
        let (bytes, each) = body.bytes_by_resource();
        let hash = Hash::of(&bytes);
        (owner, Written { bytes, each, hash })
    });
    all.into_iter().collect()
}

/// Every recorded resource of these machines.
fn held<'a>(
    desired: &Desired,
    input: &'a Input<'_>,
    machines: &BTreeSet<&MachineName>,
) -> BTreeMap<&'a MachineName, Vec<Held<'a>>> {
    let mut held: BTreeMap<&MachineName, Vec<Held<'_>>> = BTreeMap::new();
    if machines.is_empty() {
        return held;
    }
    for (owner, body) in &input.recorded.releases {
        let now = desired.owners.get(owner);
        let same = now.is_some_and(|now| Arc::ptr_eq(now, body));
        for resource in &body.resources {
            let machine = &resource.address.machine;
            if machines.contains(machine) {
                let one = Held { resource, same };
                held.entry(machine).or_default().push(one);
            }
        }
    }
    held
}

/// Something that is recorded on a machine.
struct Held<'a> {
    resource: &'a Resource,
    /// It is desired just as it is.
    same: bool,
}

/// Something that is to be on a machine.
struct Wanted<'a> {
    resource: &'a Resource,
    owner: &'a OwnerName,
    /// Which of its owner's it is.
    index: usize,
}

/// What one machine's next state is made of.
struct MachineNext<'a> {
    name: &'a MachineName,
    /// What the blueprints say of it; none if they speak of it no more.
    info: Option<MachineInfo>,
    old: Option<&'a MachineState>,
    /// Sorted by address.
    wanted: Vec<Wanted<'a>>,
    /// What is recorded on it.
    held: &'a [Held<'a>],
    /// What has moved along with its owner's name.
    moved_from: &'a BTreeSet<&'a Address>,
    written: &'a BTreeMap<&'a OwnerName, Written>,
    /// Otherwise it stays as it is recorded, and what is wanted and recorded on it is not listed here.
    touched: bool,
}

impl MachineNext<'_> {
    fn wants(&self, address: &Address) -> bool {
        let at = |wanted: &Wanted<'_>| wanted.resource.address.cmp(address);
        self.wanted.binary_search_by(at).is_ok()
    }

    /// Whether exactly what is recorded on it is wanted. Then nothing has to be written to know its assignment, as long
    /// as the same workspace is planned.
    fn wants_what_it_holds(&self) -> bool {
        self.held.len() == self.wanted.len() && self.held.iter().all(|held| held.same)
    }

    /// The bytes of the assignment with these tombstones.
    fn assignment(
        &self,
        tombstones: &BTreeMap<Address, Generation>,
        input: &Input<'_>,
    ) -> (Hash, Vec<u8>) {
        let header = Header {
            format: assignment::FORMAT,
            lineage: input.lineage.clone(),
            workspace: input.workspace.clone(),
            machine: self.name.clone(),
        };
        let resources = self.wanted.iter().map(|wanted| {
            let json = match self.written.get(wanted.owner) {
                Some(written) => Cow::Borrowed(&written.bytes[written.each[wanted.index].clone()]),
                None => Cow::Owned(
                    serde_json::to_vec(wanted.resource).expect("model values are always JSON"),
                ),
            };
            (&wanted.resource.address, Part::Resource(json))
        });
        let tombstones = tombstones.iter().map(|(address, since)| {
            let tombstone = Tombstone {
                address: address.clone(),
                since: *since,
            };
            (address, Part::Tombstone(tombstone))
        });
        let mut lines: Vec<(&Address, Part<'_>)> = resources.chain(tombstones).collect();
        lines.sort_by(|a, b| a.0.cmp(b.0));
        let lines = lines.iter().map(|(_, part)| match part {
            Part::Resource(json) => Line::Resource(json),
            Part::Tombstone(tombstone) => Line::Tombstone(tombstone),
        });
        let bytes = assignment::write(&header, lines);
        (Hash::of(&bytes), bytes)
    }
}

/// One line of an assignment.
enum Part<'a> {
    Resource(Cow<'a, [u8]>),
    Tombstone(Tombstone),
}

/// One machine's next state, with its assignment if that moves; none if it has left and nothing of it remains.
fn machine(next: &MachineNext<'_>, input: &Input<'_>) -> Option<(MachineState, Option<Vec<u8>>)> {
    // A machine that comes starts at the number of its revision. Where a generation was higher when its machine left, that is
    // kept: so one that comes again stays above what its agent may still hold and what was once proven under it.
    let recorded = &input.recorded.state;
    if let (false, Some(old), Some(info)) = (next.touched, next.old, &next.info) {
        let state = MachineState {
            info: info.clone(),
            leaving: false,
            rolling: None,
            ..old.clone()
        };
        return Some((state, None));
    }
    let first = Generation(recorded.revision.0);
    let first = first.max(recorded.left.get(next.name).copied().unwrap_or_default());
    let generation = next.old.map_or(first, |o| o.generation);
    let pending = pending_tombstones(next, generation.next());
    let old = next.old;
    let settled = still_unsettled(&pending, input.observed);
    // Settled tombstones go only along with another change, so that removing them never makes a revision of its own.
    let unchanged = old.is_some_and(|o| {
        let same_content = pending == o.tombstones && next.wants_what_it_holds();
        (same_content && input.is_of_the_recorded_workspace())
            || next.assignment(&pending, input).0 == o.assignment
    });
    let tombstones = if unchanged { pending } else { settled };
    let leaving = next.info.is_none();
    if leaving
        && next.wanted.is_empty()
        && (tombstones.is_empty() || still_unsettled(&tombstones, input.observed).is_empty())
    {
        return None;
    }
    let (hash, bytes) = match old {
        Some(old) if unchanged => (old.assignment, None),
        _ => {
            let (hash, bytes) = next.assignment(&tombstones, input);
            let moves = old.is_none_or(|o| o.assignment != hash);
            (hash, moves.then_some(bytes))
        }
    };
    let generation = if bytes.is_none() {
        generation
    } else {
        generation.next()
    };
    let info = next.info.clone();
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
            rolling: None,
        },
        bytes,
    ))
}

/// Every tombstone of a machine: those recorded and not desired again, and one for each resource that goes. What is recorded
/// had other addresses before it was renamed, and an agent that has not heard of that yet has it there: unless something that
/// is wanted takes over from those too, they get theirs.
fn pending_tombstones(next: &MachineNext<'_>, since: Generation) -> BTreeMap<Address, Generation> {
    let mut tombstones: BTreeMap<Address, Generation> = next
        .old
        .iter()
        .flat_map(|o| &o.tombstones)
        .filter(|(address, _)| !next.wants(address))
        .map(|(address, since)| (address.clone(), *since))
        .collect();
    let mut taken_over: Option<BTreeSet<&Address>> = None;
    for Held { resource, same } in next.held {
        if *same || is_forgotten(resource) {
            continue;
        }
        let address = &resource.address;
        let goes = |address: &Address| !next.wants(address) && !next.moved_from.contains(address);
        if goes(address) {
            tombstones.entry(address.clone()).or_insert(since);
        }
        for before in resource.addresses_before() {
            let wanted = || next.wanted.iter().map(|wanted| wanted.resource);
            let taken_over = taken_over
                .get_or_insert_with(|| wanted().flat_map(Resource::addresses_before).collect());
            if goes(before) && !taken_over.contains(before) {
                tombstones.entry(before.clone()).or_insert(since);
            }
        }
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
