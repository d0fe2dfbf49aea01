//! What a machine holds between two assignments, and which owners have to move there together or in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::claim::{Claim, each_claim};
use plumb_model::{Address, Assignment, Entry, OwnerName, Tombstone};

/// For each owner that is behind, every other one that has to move before or along with it, directly or not.
pub(super) type Needs = BTreeMap<OwnerName, BTreeSet<OwnerName>>;

fn resource(assignment: &Assignment, address: &Address) -> bool {
    matches!(assignment.get(address), Some(Entry::Resource(_)))
}

/// What the instances of an owner are counted by: what runs, or the owner as one where nothing of it does.
pub(super) fn instances(assignment: &Assignment, owner: &OwnerName) -> u32 {
    let mut any = false;
    let mut running = 0;
    for resource in assignment.resources() {
        if resource.address.owner == *owner {
            any = true;
            running += u32::from(resource.address.kind.runs());
        }
    }
    running.max(u32::from(any))
}

/// The addresses that what is recorded had before, where a machine is not told of it yet.
pub(super) fn renamed<'a>(held: &Assignment, target: &'a Assignment) -> BTreeSet<&'a Address> {
    let new = target.resources();
    new.filter(|new| !resource(held, &new.address))
        .flat_map(|new| new.addresses_before())
        .collect()
}

/// Whether only orders to remove come or go, of what the machine does not hold: such a difference touches nothing. An order
/// that goes since a resource comes which was `renamed` from there is none of those: the agent may still have it there.
pub(super) fn touches_nothing(
    held: &Assignment,
    target: &Assignment,
    owner: &OwnerName,
    renamed: &BTreeSet<&Address>,
) -> bool {
    let of_owner = |entry: &&Entry| entry.address().owner == *owner;
    let stays = |entry: &Entry| match entry {
        Entry::Resource(_) => target.get(entry.address()) == Some(entry),
        Entry::Tombstone(_) => {
            !resource(target, entry.address()) && !renamed.contains(entry.address())
        }
    };
    let was = |entry: &Entry| match entry {
        Entry::Resource(_) => held.get(entry.address()) == Some(entry),
        Entry::Tombstone(_) => !resource(held, entry.address()),
    };
    held.entries().filter(of_owner).all(stays) && target.entries().filter(of_owner).all(was)
}

/// The content between two: as recorded, but for the owners that are behind.
pub(super) fn between(
    held: &Arc<Assignment>,
    target: &Arc<Assignment>,
    behind: &BTreeSet<OwnerName>,
) -> Arc<Assignment> {
    if behind.is_empty() {
        return target.clone();
    }
    let mut between = target.with_lines_of(held, behind);
    let mut unsaid = unsaid(held, target, behind, &between);
    for order in left(held, &between) {
        if unsaid
            .iter()
            .all(|entry| entry.address() != order.address())
        {
            unsaid.push(order);
        }
    }
    if !unsaid.is_empty() {
        let entries = between.entries().cloned().chain(unsaid);
        between = Assignment::build(between.header().clone(), entries);
    }
    if between.hash() == held.hash() {
        held.clone()
    } else {
        Arc::new(between)
    }
}

/// The orders to remove that owners which are behind are to have, of what the machine is told nothing of, and what is held
/// takes nothing over from. They wait for nothing: an agent that missed an assignment may still have it under a name that
/// nobody will speak of again.
fn unsaid(
    held: &Assignment,
    target: &Assignment,
    behind: &BTreeSet<OwnerName>,
    between: &Assignment,
) -> Vec<Entry> {
    let of_behind = |entry: &&Entry| {
        let address = entry.address();
        matches!(entry, Entry::Tombstone(_))
            && behind.contains(&address.owner)
            && held.get(address).is_none()
    };
    let mut unsaid: Vec<Entry> = target.entries().filter(of_behind).cloned().collect();
    if !unsaid.is_empty() {
        let resources = between.resources();
        let taken_over: BTreeSet<&Address> = resources
            .flat_map(|resource| resource.addresses_before())
            .collect();
        unsaid.retain(|entry| !taken_over.contains(entry.address()));
    }
    unsaid
}

/// Orders to remove what goes under the names that it had before, where nothing else is said of those yet: what is to be there
/// next is of an owner that is behind. They go when that comes.
fn left(held: &Assignment, between: &Assignment) -> Vec<Entry> {
    let mut left = Vec::new();
    let mut taken_over: Option<BTreeSet<&Address>> = None;
    for old in held.resources() {
        let Some(Entry::Tombstone(order)) = between.get(&old.address) else {
            continue;
        };
        for before in old.addresses_before() {
            let taken_over = taken_over.get_or_insert_with(|| {
                let resources = between.resources();
                resources
                    .flat_map(|resource| resource.addresses_before())
                    .collect()
            });
            if between.get(before).is_none() && !taken_over.contains(before) {
                left.push(Entry::Tombstone(Tombstone {
                    address: before.clone(),
                    since: order.since,
                }));
            }
        }
    }
    left
}

/// What has to move before or along with what, among the owners that are behind on a machine.
///
/// A resource needs what it is `after`, unless that is there already just as recorded. Whatever is removed goes only once
/// nothing that is still held is `after` it. What takes over a path, port or route waits until it is let go. What was
/// renamed moves in one go, or it would be there twice, or of what an agent still has at its old address nothing would be said.
pub(super) fn needs(held: &Assignment, target: &Assignment, behind: &BTreeSet<OwnerName>) -> Needs {
    let mut needs: Needs = behind
        .iter()
        .map(|owner| (owner.clone(), BTreeSet::new()))
        .collect();
    if behind.len() < 2 {
        return needs;
    }
    let mut edge = |from: &OwnerName, to: &OwnerName| {
        if from != to
            && behind.contains(to)
            && let Some(set) = needs.get_mut(from)
        {
            set.insert(to.clone());
        }
    };
    let mut claimed: BTreeMap<Claim<'_>, &Address> = BTreeMap::new();
    for old in held.resources() {
        each_claim(old, |claim| {
            claimed.insert(claim, &old.address);
        });
        for before in &old.after {
            if resource(held, before) && !resource(target, before) {
                edge(&before.owner, &old.address.owner);
            }
        }
    }
    for new in target.resources() {
        let owner = &new.address.owner;
        for before in &new.after {
            if held.get(before) != target.get(before) {
                edge(owner, &before.owner);
            }
        }
        if !resource(held, &new.address) {
            // It may have had more than one, and what is held may be at an older one, beside what is said of a newer one.
            for old in new.addresses_before() {
                if held.get(old).is_some() {
                    edge(owner, &old.owner);
                    edge(&old.owner, owner);
                }
            }
        }
        each_claim(new, |claim| {
            if let Some(old) = claimed.get(&claim) {
                edge(owner, &old.owner);
            }
        });
    }
    closed(&needs)
}

/// With what is needed by what is needed.
fn closed(needs: &Needs) -> Needs {
    let reach = |owner: &OwnerName| {
        let mut reached = BTreeSet::new();
        let mut open = vec![owner];
        while let Some(next) = open.pop() {
            for needed in needs.get(next).into_iter().flatten() {
                if needed != owner && reached.insert(needed.clone()) {
                    open.push(needed);
                }
            }
        }
        reached
    };
    needs
        .keys()
        .map(|owner| (owner.clone(), reach(owner)))
        .collect()
}

/// The owners that move along when one does, itself among them; or the one whose own rollout has to come first.
pub(super) fn along<'a>(
    needs: &'a Needs,
    owner: &'a OwnerName,
    paced: &dyn Fn(&OwnerName) -> bool,
) -> Result<BTreeSet<OwnerName>, &'a OwnerName> {
    let needed = needs.get(owner);
    let first = needed.into_iter().flatten().find(|other| {
        let mutual = needs.get(*other).is_some_and(|back| back.contains(owner));
        paced(other) && !mutual
    });
    match first {
        Some(first) => Err(first),
        None => {
            let needed = needed.into_iter().flatten();
            Ok(needed.chain([owner]).cloned().collect())
        }
    }
}

/// The owners that nothing holds back: those without a pace of their own that need none which has one and stays.
pub(super) fn free(
    needs: &Needs,
    moving: &BTreeSet<OwnerName>,
    paced: &dyn Fn(&OwnerName) -> bool,
) -> BTreeSet<OwnerName> {
    let stays = |owner: &OwnerName| paced(owner) && !moving.contains(owner);
    needs
        .iter()
        .filter(|(owner, needed)| !stays(owner) && !needed.iter().any(stays))
        .map(|(owner, _)| owner.clone())
        .collect()
}
