//! Random sequences of everything that can go wrong between an agent and its control plane, with the invariants
//! checked after each step.

use std::sync::Arc;

use plumb_model::{Assignment, Generation};
use proptest::prelude::*;

use super::world::{World, assignment, directory, machine, recording, tombstone};
use crate::Recording;
use crate::view::StateWord;

#[derive(Debug, Clone)]
enum Step {
    Record(u32),
    ToAgent(Fate),
    ToServer(Fate),
    Persist,
    FailToPersist,
    Cut,
    Connect,
    CrashAgent,
    CrashServer,
    Converge,
    Tick(u64),
}

#[derive(Debug, Clone)]
enum Fate {
    Deliver,
    Drop,
    Duplicate,
    Swap,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        5 => Just(Fate::Deliver),
        1 => Just(Fate::Drop),
        1 => Just(Fate::Duplicate),
        1 => Just(Fate::Swap),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u32..8).prop_map(Step::Record),
        8 => fate().prop_map(Step::ToAgent),
        8 => fate().prop_map(Step::ToServer),
        4 => Just(Step::Persist),
        1 => Just(Step::FailToPersist),
        1 => Just(Step::Cut),
        2 => Just(Step::Connect),
        1 => Just(Step::CrashAgent),
        1 => Just(Step::CrashServer),
        2 => Just(Step::Converge),
        2 => (0u64..70_000).prop_map(Step::Tick),
    ]
}

fn meet<T: Clone>(queue: &mut std::collections::VecDeque<T>, fate: &Fate) -> bool {
    match fate {
        Fate::Deliver => return true,
        Fate::Drop => drop(queue.pop_front()),
        Fate::Duplicate => {
            if let Some(first) = queue.front().cloned() {
                queue.push_front(first);
            }
        }
        Fate::Swap if queue.len() > 1 => queue.swap(0, 1),
        Fate::Swap => {}
    }
    false
}

/// The next revision: its content follows from `variant`, what it drops becomes a tombstone, and what was proven gone
/// is dropped for good.
fn next(world: &World, variant: u32) -> Recording {
    let before = &world.recording.machines[&machine()];
    let generation = before.generation.0 + 1;
    let revision = world.recording.revision.0 + 1;
    let settled = world.fleet.settled().remove(&machine()).unwrap_or_default();
    let mut entries = vec![directory("app", "/always", 0o700 + variant)];
    for bit in 0..3 {
        let path = format!("/{bit}");
        let address = super::world::at("app", &path);
        let old = before.assignment.as_ref().and_then(|a| a.get(&address));
        if variant & (1 << bit) != 0 {
            entries.push(directory("app", &path, 0o755));
        } else if let Some(old) = old
            && !settled.contains(&address)
        {
            entries.push(match old {
                plumb_model::Entry::Tombstone(_) => old.clone(),
                plumb_model::Entry::Resource(_) => tombstone("app", &path, generation),
            });
        }
    }
    let assignment: Arc<Assignment> = assignment(entries);
    if before.assignment.as_ref() == Some(&assignment) {
        return world.recording.clone();
    }
    recording(revision, generation, &assignment, &[("app", revision)], &[])
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Record(variant) => {
            let next = next(world, *variant);
            world.record(next);
        }
        Step::ToAgent(fate) => {
            if meet(&mut world.to_agent, fate) {
                world.deliver_to_agent();
            }
        }
        Step::ToServer(fate) => {
            if meet(&mut world.to_server, fate) {
                world.deliver_to_server();
            }
        }
        Step::Persist => drop(world.persist()),
        Step::FailToPersist => world.fail_to_persist(),
        Step::Cut => world.cut(),
        Step::Connect => world.connect(),
        Step::CrashAgent => world.crash_agent(),
        Step::CrashServer => world.crash_server(),
        Step::Converge => world.converge(),
        Step::Tick(ms) => world.tick(*ms),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_link_does_no_invariant_breaks_and_both_ends_agree_once_it_is_whole(
        steps in proptest::collection::vec(step(), 0..120)
    ) {
        let first = assignment([directory("app", "/always", 0o755)]);
        let mut world = World::new(recording(1, 1, &first, &[("app", 1)], &[]));
        let mut highest = Generation(0);
        for step in &steps {
            take(&mut world, step);
            world.check();
            let held = world.agent.held().map_or(Generation(0), |h| h.generation);
            prop_assert!(held >= highest, "the agent's generation went back from {highest} to {held}");
            highest = held;
        }
        world.heal();
        world.check();
        let record = world.recording.machines[&machine()].clone();
        let held = world.agent.held().cloned().unwrap();
        prop_assert_eq!(held.generation, record.generation);
        prop_assert_eq!(Some(held.assignment), record.assignment);
        prop_assert_eq!(held.releases, record.releases);
        let view = world.fleet.view();
        prop_assert_eq!(view.machines[0].acked, record.generation);
        prop_assert_eq!(view.owners[0].state, StateWord::Converged, "{:?}", view.owners[0].message);
    }
}
