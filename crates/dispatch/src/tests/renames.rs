//! What leaves an assignment without a tombstone: renamed owners, and data that is kept.

use std::collections::BTreeMap;

use plumb_model::state::Outcome;
use plumb_model::{Entry, Generation, ReleaseNumber, ResourceKind, RunState};

use super::world::{
    World, assignment, at, directory, lineage, owner, process, recording, tombstone,
};
use crate::ToServer;
use crate::fleet::{Effect, Event, Fleet};

fn renamed(from: &str, to: &str) -> Entry {
    let (Entry::Resource(old), Entry::Resource(mut new)) = (
        process(from, 20_000, RunState::Running),
        process(to, 20_000, RunState::Running),
    ) else {
        unreachable!("processes are resources");
    };
    std::sync::Arc::make_mut(&mut new).renamed_from(&old);
    Entry::Resource(new)
}

fn settle(world: &mut World) -> Vec<(String, u64, Outcome)> {
    world.flow();
    world.converge();
    world.flow();
    world.check();
    assert_eq!(world.broken, [""; 0]);
    world
        .outcomes
        .drain(..)
        .map(|(o, r, outcome)| (o.to_string(), r, outcome))
        .collect()
}

/// Mutation: send a delta although it drops what has no tombstone; the agent then asks for a snapshot each time.
#[test]
fn a_rename_reaches_the_agent_in_one_snapshot_and_both_names_come_to_their_outcome() {
    let first = assignment([process("a", 20_000, RunState::Running)]);
    let mut world = World::new(recording(1, 1, &first, &[("a", 1)], &[]));
    world.connect();
    settle(&mut world);
    let second = assignment([renamed("a", "b")]);
    world.record(recording(2, 2, &second, &[("b", 1)], &[("a", 1)]));
    let (snapshots, deltas) = (world.snapshots, world.deltas);
    let outcomes = settle(&mut world);
    assert_eq!((world.snapshots, world.deltas), (snapshots, deltas));
    assert_eq!(world.agent.held().unwrap().generation, Generation(2));
    assert!(
        outcomes.contains(&("b".into(), 1, Outcome::Converged)),
        "{outcomes:?}"
    );
    let view = world.fleet.view();
    let names: Vec<_> = view.owners.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert!(view.is_settled());
}

/// Mutation: take a renamed owner for a removed one in `recorded`, and its last release is converging again.
#[test]
fn the_old_name_of_a_renamed_owner_goes_at_once_and_its_last_release_keeps_its_outcome() {
    for converged in [false, true] {
        let first = assignment([process("a", 20_000, RunState::Running)]);
        let mut world = World::new(recording(1, 1, &first, &[("a", 1)], &[]));
        world.connect();
        if converged {
            settle(&mut world);
        }
        // Also with its machine away: nothing of the old name is awaited from it.
        world.cut();
        world.outcomes.clear();
        let second = assignment([renamed("a", "b")]);
        world.record(recording(2, 2, &second, &[("b", 2)], &[("a", 1)]));
        let of_a: Vec<_> = world
            .outcomes
            .iter()
            .filter(|o| o.0 == owner("a"))
            .collect();
        let expected = (owner("a"), 1, Outcome::Superseded);
        assert_eq!(of_a, if converged { vec![] } else { vec![&expected] });
        assert!(
            world
                .fleet
                .view()
                .owners
                .iter()
                .all(|o| o.name == owner("b"))
        );
    }
}

/// Mutation: forget a renamed owner although a machine still has something to remove of it.
#[test]
fn what_a_renamed_owner_dropped_is_shown_under_its_old_name_until_it_is_gone() {
    let both = [
        directory("a", "/a", 0o755),
        process("a", 20_000, RunState::Running),
    ];
    let mut world = World::new(recording(1, 1, &assignment(both), &[("a", 1)], &[]));
    world.connect();
    settle(&mut world);
    let second = assignment([tombstone("a", "/a", 2), renamed("a", "b")]);
    world.record(recording(2, 2, &second, &[("b", 2)], &[("a", 1)]));
    let names = |world: &World| -> Vec<String> {
        world
            .fleet
            .view()
            .owners
            .iter()
            .map(|o| o.name.to_string())
            .collect()
    };
    assert_eq!(names(&world), ["a", "b"]);
    let outcomes = settle(&mut world);
    assert!(
        outcomes.iter().all(|(name, ..)| name == "b"),
        "{outcomes:?}"
    );
    assert_eq!(names(&world), ["b"]);
    let third = assignment([renamed("a", "b")]);
    world.record(recording(3, 3, &third, &[("b", 2)], &[("a", 1)]));
    settle(&mut world);
    assert_eq!(names(&world), ["b"]);
}

#[test]
fn data_that_is_forgotten_leaves_without_a_tombstone_a_refusal_or_a_word_in_the_status() {
    let volume = |entry: Entry| match entry {
        Entry::Resource(mut resource) => {
            std::sync::Arc::make_mut(&mut resource).address.kind = ResourceKind::Volume;
            Entry::Resource(resource)
        }
        tombstone => tombstone,
    };
    for rest in [vec![directory("app", "/a", 0o755)], vec![]] {
        let with = [volume(directory("data", "files", 0o700))]
            .into_iter()
            .chain(rest.clone());
        let first = assignment(with);
        let mut world = World::new(recording(1, 1, &first, &[("app", 1), ("data", 1)], &[]));
        world.connect();
        settle(&mut world);
        let second = assignment(rest);
        world.record(recording(2, 2, &second, &[("app", 1)], &[("data", 2)]));
        let outcomes = settle(&mut world);
        assert!(
            outcomes.contains(&("data".into(), 2, Outcome::Removed)),
            "{outcomes:?}"
        );
        assert_eq!(world.agent.held().unwrap().assignment, second);
        let view = world.fleet.view();
        assert!(view.owners.iter().all(|o| o.name != owner("data")) && view.is_settled());
    }
}

#[test]
fn an_outcome_that_a_crash_kept_from_being_told_is_told_after_it() {
    let held = assignment([directory("app", "/a", 0o755)]);
    let state = recording(2, 2, &held, &[("app", 1)], &[("gone", 2), ("old", 2)]);
    let outcomes = BTreeMap::from([
        ((owner("gone"), ReleaseNumber(2)), Outcome::Converging),
        ((owner("old"), ReleaseNumber(2)), Outcome::Removed),
    ]);
    let mut fleet = Fleet::new(lineage(1), state, &outcomes);
    let told = |effects: Vec<Effect>| -> Vec<_> {
        let outcome = |effect| match effect {
            Effect::Outcome { owner, outcome, .. } => Some((owner.to_string(), outcome)),
            _ => None,
        };
        effects.into_iter().filter_map(outcome).collect()
    };
    let first = told(fleet.handle(Event::Tick, super::world::now(0)));
    assert_eq!(first, [("gone".to_owned(), Outcome::Removed)]);
    assert_eq!(told(fleet.handle(Event::Tick, super::world::now(1000))), []);
}

#[test]
fn a_rename_and_a_tombstone_of_the_old_name_settle_both() {
    let first = assignment([directory("a", "/a", 0o755)]);
    let mut world = World::new(recording(1, 1, &first, &[("a", 1)], &[]));
    world.connect();
    settle(&mut world);
    let second = assignment([tombstone("a", "/a", 2), renamed("a", "b")]);
    world.record(recording(2, 2, &second, &[("b", 1)], &[("a", 2)]));
    let outcomes = settle(&mut world);
    assert!(
        outcomes.contains(&("a".into(), 2, Outcome::Removed)),
        "{outcomes:?}"
    );
    assert!(
        world
            .fleet
            .settled()
            .values()
            .any(|s| s.contains(&at("a", "/a")))
    );
    let refused = |m: &ToServer| matches!(m, ToServer::Refused(_) | ToServer::Resync { .. });
    assert!(!world.to_server.iter().any(refused));
}
