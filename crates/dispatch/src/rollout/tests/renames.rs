//! What was renamed or is to go, where machines move at different times: something is said throughout of whatever an agent
//! may still have. Each of these was found by the simulator.

use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_model::state::RolloutStrategy;
use plumb_model::{
    Address, Assignment, Entry, Generation, Header, Lineage, OwnerName, Resource, Tombstone,
    WorkspaceName,
};

use super::{app, body, machine, owner};
use crate::rollout::{begin, compose};

fn assignment(entries: &[Entry]) -> Arc<Assignment> {
    let header = Header {
        format: plumb_model::assignment::FORMAT,
        lineage: Lineage::from_random([1; 16]),
        workspace: WorkspaceName::new("w").unwrap(),
        machine: machine(0),
    };
    Arc::new(Assignment::build(header, entries.to_vec()))
}

/// What an app of this name has on the machine.
fn of(name: &str) -> Arc<Resource> {
    let app = app(1, 1, RolloutStrategy::Rolling);
    body(&owner(name), &app).resources.remove(0)
}

/// The same under another name.
fn renamed(name: &str, from: &Resource) -> Arc<Resource> {
    let mut new = of(name);
    Arc::make_mut(&mut new).renamed_from(from);
    new
}

fn gone(address: &Address) -> Entry {
    Entry::Tombstone(Tombstone {
        address: address.clone(),
        since: Generation(3),
    })
}

/// Where `b` has a pace of its own, this address is spoken of until `b` moves, and whoever is behind moves along with it.
fn moves_with_b(held: &Arc<Assignment>, target: &Arc<Assignment>, address: &Address) {
    let paced = |name: &OwnerName| *name == owner("b");
    let behind = begin::behind(held, target, &paced);
    let between = compose::between(held, target, &behind);
    assert!(between.get(address).is_some(), "{behind:?}");
    let needs = compose::needs(held, target, &behind);
    let along = compose::along(&needs, &owner("b"), &paced).unwrap();
    assert_eq!(along, behind, "they move in one go");
}

/// Seed 198: a machine was away while an app left it, was to come back, and was renamed. Mutation: take the tombstone's going
/// for a difference that touches nothing, or let it move without the resource that was renamed from there.
#[test]
fn an_order_to_remove_stays_until_what_was_renamed_from_there_comes() {
    let was = of("a");
    let held = assignment(&[gone(&was.address)]);
    let target = assignment(&[Entry::Resource(renamed("b", &was))]);
    moves_with_b(&held, &target, &was.address);
}

/// Seed 305. Mutation: link a new name with the first only of those that it had before.
#[test]
fn what_was_renamed_twice_goes_along_with_whatever_it_was_held_as() {
    let first = of("a");
    let second = renamed("c", &first);
    // It was under its second name before, and that order to remove it is still there.
    let held = assignment(&[Entry::Resource(first.clone()), gone(&second.address)]);
    let target = assignment(&[Entry::Resource(renamed("b", &second))]);
    moves_with_b(&held, &target, &first.address);
}

/// Seed 1145: a name is given to another app while an agent that was away still has the first under it. Mutation: leave
/// `unsaid` out of `between`.
#[test]
fn what_nothing_is_said_of_is_removed_whether_or_not_its_name_has_moved() {
    let first = of("a");
    let second = renamed("b", &first);
    // The machine is told that `a` is called `b`; then `b` goes, and another app is called `a`, at its own pace.
    let held = assignment(&[Entry::Resource(second.clone())]);
    let target = assignment(&[gone(&first.address), gone(&second.address)]);
    let between = compose::between(&held, &target, &BTreeSet::from([owner("a")]));
    assert_eq!(between.get(&first.address), Some(&gone(&first.address)));
    // As long as it is to be taken over from there, nothing there goes.
    let both = BTreeSet::from([owner("a"), owner("b")]);
    let between = compose::between(&held, &target, &both);
    assert_eq!(between.get(&first.address), None);
}

/// Seed 7126: the same, where the other app has something at the very address. Mutation: leave `left` out of `between`.
#[test]
fn what_is_left_under_an_old_name_goes_before_another_app_comes_there() {
    let first = of("a");
    let second = renamed("b", &first);
    let held = assignment(&[Entry::Resource(second.clone())]);
    let target = assignment(&[Entry::Resource(first.clone()), gone(&second.address)]);
    let between = compose::between(&held, &target, &BTreeSet::from([owner("a")]));
    assert_eq!(between.get(&first.address), Some(&gone(&first.address)));
    let between = compose::between(&between, &target, &BTreeSet::from([owner("a")]));
    assert_eq!(
        between.get(&first.address),
        Some(&gone(&first.address)),
        "it stays"
    );
    let between = compose::between(&between, &target, &BTreeSet::new());
    assert_eq!(between.get(&first.address), target.get(&first.address));
}
