//! From what agents say to outcomes and status.

use std::collections::BTreeMap;

use plumb_model::condition::{EventKind, MachineEvent};
use plumb_model::state::Outcome;
use plumb_model::{
    Address, ConditionKind, Generation, MachineName, Reason, ResourceKind, ResourceStatus, RunState,
};

use super::world::{
    World, all_well, assignment, at, condition, directory, lineage, machine, now, owner, process,
    recording, status, tombstone,
};
use crate::fleet::{Effect, Event, Fleet, KEPT_EVENTS};
use crate::view::{StateWord, WorkspaceView};
use crate::{ToServer, agent};

/// A world whose agent holds an app of one directory and one process at generation 1, and has said nothing of them.
fn app() -> World {
    let first = assignment([
        directory("app", "/a", 0o755),
        process("app", 20_000, RunState::Running),
    ]);
    let mut world = World::new(recording(1, 1, &first, &[("app", 1)], &[]));
    world.connect();
    world.flow();
    world
}

fn web() -> Address {
    Address::new(&machine(), &owner("app"), ResourceKind::Process, "web/0")
}

fn say(world: &mut World, statuses: Vec<ResourceStatus>) {
    world.agent(agent::Event::StatusChanged(statuses));
    world.flow();
}

fn outcomes(world: &mut World) -> Vec<(u64, Outcome)> {
    world.outcomes.drain(..).map(|(_, r, o)| (r, o)).collect()
}

fn state(world: &World) -> StateWord {
    world.fleet.view().owners[0].state
}

fn conditions(
    converged: Option<Reason>,
    other: Option<(ConditionKind, bool, Reason)>,
) -> Vec<plumb_model::Condition> {
    let mut all = vec![match converged {
        None => condition(ConditionKind::Converged, true, Reason::AsDesired),
        Some(reason) => condition(ConditionKind::Converged, false, reason),
    }];
    all.extend(other.map(|(kind, status, reason)| condition(kind, status, reason)));
    all
}

#[test]
fn what_a_process_says_of_itself_decides_the_state_of_its_app() {
    use ConditionKind::{Blocked, Drifted, Failed, Healthy};
    let cases = [
        (
            conditions(None, Some((Healthy, true, Reason::ProbePassed))),
            StateWord::Converged,
            Some(Outcome::Converged),
        ),
        // Mutation: count a process with a check as done before its check has passed.
        (conditions(None, None), StateWord::Converging, None),
        (
            conditions(None, Some((Healthy, false, Reason::Working))),
            StateWord::Converging,
            None,
        ),
        (
            conditions(None, Some((Healthy, false, Reason::ProbeFailed))),
            StateWord::Degraded,
            Some(Outcome::Failed),
        ),
        (
            conditions(Some(Reason::Working), None),
            StateWord::Converging,
            None,
        ),
        (
            conditions(Some(Reason::Exited), None),
            StateWord::Converging,
            None,
        ),
        (
            conditions(
                Some(Reason::WaitsFor),
                Some((Blocked, true, Reason::WaitsFor)),
            ),
            StateWord::Converging,
            None,
        ),
        (
            conditions(
                Some(Reason::PortTaken),
                Some((Blocked, true, Reason::PortTaken)),
            ),
            StateWord::Failed,
            Some(Outcome::Failed),
        ),
        (
            conditions(
                Some(Reason::ExitedAtOnce),
                Some((Failed, true, Reason::ExitedAtOnce)),
            ),
            StateWord::Failed,
            Some(Outcome::Failed),
        ),
        (
            conditions(None, Some((Drifted, true, Reason::Flapping))),
            StateWord::Converging,
            None,
        ),
    ];
    for (conditions, word, outcome) in cases {
        let mut world = app();
        world.outcomes.clear();
        let shown = format!("{conditions:?}");
        let well = vec![status(
            &at("app", "/a"),
            1,
            super::folding::conditions(None, None),
        )];
        say(&mut world, well);
        say(&mut world, vec![status(&web(), 1, conditions)]);
        assert_eq!(state(&world), word, "{shown}");
        let got = outcomes(&mut world).pop().map(|(_, o)| o);
        assert_eq!(got, outcome, "{shown}");
    }
}

/// Mutation: judge by any status, whatever generation it was observed under.
#[test]
fn what_was_seen_under_an_older_generation_converges_nothing() {
    let mut world = app();
    world.converge();
    world.flow();
    assert_eq!(state(&world), StateWord::Converged);
    let next = assignment([
        directory("app", "/a", 0o700),
        process("app", 20_000, RunState::Running),
    ]);
    world.outcomes.clear();
    world.record(recording(2, 2, &next, &[("app", 2)], &[]));
    world.flow();
    assert_eq!(state(&world), StateWord::Converging);
    assert_eq!(outcomes(&mut world), [(2, Outcome::Converging)]);
    world.converge();
    world.flow();
    assert_eq!(outcomes(&mut world), [(2, Outcome::Converged)]);
}

#[test]
fn a_release_that_is_overtaken_is_superseded_and_one_that_failed_may_still_converge() {
    let mut world = app();
    world.outcomes.clear();
    let failed = conditions(
        Some(Reason::ExitedAtOnce),
        Some((ConditionKind::Failed, true, Reason::ExitedAtOnce)),
    );
    say(&mut world, vec![status(&web(), 1, failed)]);
    world.converge();
    world.flow();
    assert_eq!(
        outcomes(&mut world),
        [(1, Outcome::Failed), (1, Outcome::Converged)]
    );
    for release in [2, 3] {
        let next = assignment([directory("app", "/a", 0o700 + release as u32)]);
        world.record(recording(release, release, &next, &[("app", release)], &[]));
    }
    assert_eq!(
        outcomes(&mut world),
        [
            (2, Outcome::Converging),
            (2, Outcome::Superseded),
            (3, Outcome::Converging)
        ]
    );
}

/// Mutation: take an outcome back when the app fails later.
#[test]
fn a_converged_release_stays_converged_in_history_whatever_its_status() {
    let mut world = app();
    world.converge();
    world.flow();
    world.outcomes.clear();
    let failed = conditions(
        Some(Reason::ExitedAtOnce),
        Some((ConditionKind::Failed, true, Reason::ExitedAtOnce)),
    );
    say(&mut world, vec![status(&web(), 1, failed)]);
    assert_eq!(outcomes(&mut world), []);
    assert_eq!(state(&world), StateWord::Failed);
    let message = world.fleet.view().owners[0].message.clone().unwrap();
    assert_eq!(message, "m1/app/process/web/0: ExitedAtOnce");
}

#[test]
fn an_owner_that_was_removed_is_shown_until_all_of_it_is_proven_gone() {
    let mut world = app();
    world.converge();
    world.flow();
    world.outcomes.clear();
    let buried = assignment([tombstone("app", "/a", 2)]);
    world.record(recording(2, 2, &buried, &[], &[("app", 2)]));
    world.flow();
    assert_eq!(state(&world), StateWord::Removing);
    assert!(!world.fleet.view().is_settled());
    assert!(world.fleet.settled().is_empty());
    world.converge();
    world.flow();
    assert_eq!(
        outcomes(&mut world),
        [(2, Outcome::Converging), (2, Outcome::Removed)]
    );
    assert!(world.fleet.settled()[&machine()].contains(&at("app", "/a")));
    assert!(world.fleet.view().is_settled());
    assert_eq!(world.fleet.view().owners, []);
    world.record(recording(3, 3, &assignment([]), &[], &[("app", 2)]));
    world.flow();
    assert!(world.fleet.owners.is_empty());
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(3)),
        "an empty assignment that was recorded is taken"
    );
}

/// Mutation: take a proof from before the order, or for something that was made again.
#[test]
fn only_a_proof_under_the_order_or_later_settles_a_tombstone() {
    let mut world = app();
    let buried = assignment([tombstone("app", "/a", 2)]);
    world.record(recording(2, 2, &buried, &[], &[("app", 2)]));
    world.flow();
    let gone = |generation| ResourceStatus {
        gone: true,
        ..status(&at("app", "/a"), generation, Vec::new())
    };
    say(&mut world, vec![gone(1)]);
    assert!(world.fleet.settled().is_empty());
    say(&mut world, vec![gone(2)]);
    assert_eq!(world.fleet.settled().len(), 1);
    let again = assignment([directory("app", "/a", 0o755)]);
    world.record(recording(3, 3, &again, &[("app", 3)], &[]));
    world.flow();
    assert!(world.fleet.settled().is_empty());
    assert_eq!(state(&world), StateWord::Converging);
}

#[test]
fn what_is_said_of_unknown_addresses_and_of_other_machines_is_dropped_and_counted() {
    let mut world = app();
    let event = |machine: &str| MachineEvent {
        at: now(0).wall,
        address: Address::new(
            &MachineName::new(machine).unwrap(),
            &owner("app"),
            ResourceKind::File,
            "/x",
        ),
        kind: EventKind::Applied,
        message: String::new(),
    };
    let unknown = status(&at("app", "/unknown"), 1, Vec::new());
    let future = status(&at("app", "/a"), 2, Vec::new());
    let say = [
        ToServer::Status {
            complete: false,
            resources: vec![unknown, future],
        },
        ToServer::Events {
            events: vec![event("m1"), event("m2")],
            dropped: 5,
        },
    ];
    for message in say {
        let session = 1;
        world.fleet(Event::Message { session, message });
    }
    let view = world.fleet.view();
    assert_eq!((view.dropped_statuses, view.dropped_events), (2, 6));
    assert_eq!(world.fleet.events().count(), 1);
}

#[test]
fn events_are_bounded_on_both_ends() {
    let mut world = app();
    world.cut();
    let event = |n: usize| MachineEvent {
        at: now(0).wall,
        address: at("app", "/a"),
        kind: EventKind::DriftCorrected,
        message: n.to_string(),
    };
    for round in 0..3 {
        let events = (0..KEPT_EVENTS).map(|n| event(round * KEPT_EVENTS + n));
        world.agent(agent::Event::EventsHappened(events.collect()));
    }
    world.connect();
    world.flow();
    assert_eq!(world.fleet.events().count(), KEPT_EVENTS);
    let last = world.fleet.events().next_back().unwrap();
    assert_eq!(last.message, (3 * KEPT_EVENTS - 1).to_string());
    assert_eq!(world.fleet.view().dropped_events, 2 * KEPT_EVENTS as u64);
}

#[test]
fn an_app_is_waiting_before_its_machine_comes_and_degraded_when_it_goes() {
    let first = assignment([directory("app", "/a", 0o755)]);
    let mut world = World::new(recording(1, 1, &first, &[("app", 1)], &[]));
    assert_eq!(state(&world), StateWord::Waiting);
    world.connect();
    world.flow();
    assert_eq!(state(&world), StateWord::Converging);
    world.converge();
    world.flow();
    assert_eq!(state(&world), StateWord::Converged);
    assert!(world.fleet.view().is_settled());
    world.cut();
    assert_eq!(state(&world), StateWord::Degraded);
}

/// Mutation: keep what an agent said under a generation that it no longer holds.
#[test]
fn an_agent_that_lost_its_disk_has_said_nothing() {
    let mut world = app();
    world.converge();
    world.flow();
    world.disk = None;
    world.crash_agent();
    world.connect();
    assert_eq!(state(&world), StateWord::Converging);
    world.flow();
    world.converge();
    world.flow();
    assert_eq!(state(&world), StateWord::Converged);
}

#[test]
fn a_stopped_app_is_stopped_and_answers_nowhere() {
    let first = assignment([
        directory("app", "/a", 0o755),
        process("app", 20_000, RunState::Stopped),
    ]);
    let mut world = World::new(recording(1, 1, &first, &[("app", 1)], &[]));
    world.connect();
    world.flow();
    world.converge();
    world.flow();
    let view = world.fleet.view();
    assert_eq!(view.owners[0].state, StateWord::Stopped);
    assert_eq!(view.owners[0].urls, Vec::<String>::new());
}

#[test]
fn an_app_answers_at_its_machines_address_or_at_this_one() {
    let mut world = app();
    assert_eq!(
        world.fleet.view().owners[0].urls,
        ["http://127.0.0.1:20000"]
    );
    let mut moved = world.recording.clone();
    let info = &mut moved.machines.get_mut(&machine()).unwrap().info;
    info.address.insert("private".into(), "10.0.0.7".into());
    world.record(moved.clone());
    assert_eq!(world.fleet.view().owners[0].urls, ["http://10.0.0.7:20000"]);
    let info = &mut moved.machines.get_mut(&machine()).unwrap().info;
    info.address.insert("public".into(), "2001:db8::7".into());
    world.record(moved);
    assert_eq!(
        world.fleet.view().owners[0].urls,
        ["http://[2001:db8::7]:20000"]
    );
}

#[test]
fn the_view_is_json_that_reads_back() {
    let mut world = app();
    world.converge();
    world.flow();
    let view = world.fleet.view();
    let text = serde_json::to_string(&view).unwrap();
    assert!(text.starts_with(
        r#"{"format":1,"revision":1,"machines":[{"name":"m1","online":true,"state":"online""#
    ));
    assert_eq!(serde_json::from_str::<WorkspaceView>(&text).unwrap(), view);
}

#[test]
fn a_control_plane_that_starts_again_takes_no_outcome_back_and_learns_the_rest() {
    let mut world = app();
    world.converge();
    world.flow();
    let known = BTreeMap::from([(
        (owner("app"), plumb_model::ReleaseNumber(1)),
        Outcome::Converged,
    )]);
    world.cut();
    world.fleet = Fleet::new(lineage(1), world.recording.clone(), &known);
    world.outcomes.clear();
    world.connect();
    world.flow();
    assert_eq!(outcomes(&mut world), []);
    assert_eq!(state(&world), StateWord::Converged);
    let held = world.adopted.clone().unwrap();
    let said = Event::Message {
        session: world.session.unwrap(),
        message: ToServer::Status {
            complete: true,
            resources: all_well(&held),
        },
    };
    assert_eq!(world.fleet(said), [Effect::Changed]);
}
