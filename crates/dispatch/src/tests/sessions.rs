//! What the fleet does with sessions: fencing, expiry, regressed machines, deltas and snapshots.

use std::collections::BTreeMap;

use plumb_model::{Generation, Hash, MachineName};

use super::world::{
    World, all_well, assignment, at, directory, facts, identity, lineage, machine, now, recording,
    status, tombstone,
};
use crate::agent::{self, AgentSession, Held};
use crate::fleet::{ANSWER_WITHIN_MS, Effect, Event, Fleet, heartbeat_ms};
use crate::view::MachineWord;
use crate::{Hello, Refusal, RefusalKind, ToAgent, ToServer};

fn first() -> World {
    let first = assignment([directory("app", "/a", 0o755)]);
    World::new(recording(1, 1, &first, &[("app", 1)], &[]))
}

fn hello(generation: u64, hash: Option<Hash>, instance: &str) -> Hello {
    Hello {
        lineage: Some(lineage(1)),
        generation: Generation(generation),
        hash,
        instance: instance.into(),
        facts: facts(),
        trusted_cas: Vec::new(),
        versions: crate::version::SPOKEN,
        journal: None,
        hands: None,
        at: None,
    }
}

fn connect(fleet: &mut Fleet, session: u64, hello: Hello) -> Vec<Effect> {
    let event = Event::Connected {
        session,
        machine: machine(),
        hello,
    };
    fleet.handle(event, now(0))
}

fn closes(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|e| match e {
            Effect::Close { session, .. } => Some(*session),
            _ => None,
        })
        .collect()
}

fn sends_assignment(effects: &[Effect]) -> bool {
    effects.iter().any(|e| {
        matches!(
            e,
            Effect::Send {
                message: ToAgent::Snapshot { .. } | ToAgent::Delta { .. },
                ..
            }
        )
    })
}

#[test]
fn a_new_agent_gets_a_snapshot_a_known_one_a_delta_and_a_current_one_nothing() {
    let mut world = first();
    world.connect();
    world.flow();
    assert_eq!((world.snapshots, world.deltas), (1, 0));
    let second = assignment([directory("app", "/a", 0o700)]);
    world.record(recording(2, 2, &second, &[("app", 2)], &[]));
    world.flow();
    assert_eq!((world.snapshots, world.deltas), (1, 1));
    world.connect();
    world.flow();
    assert_eq!((world.snapshots, world.deltas), (1, 1));
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(2))
    );
}

/// Mutation: offer a delta without comparing its base with the hello's hash.
#[test]
fn an_agent_two_generations_behind_gets_a_snapshot() {
    let mut world = first();
    world.connect();
    world.flow();
    world.cut();
    for generation in [2, 3] {
        let next = assignment([directory("app", "/a", 0o700 + generation as u32)]);
        world.record(recording(generation, generation, &next, &[("app", 1)], &[]));
    }
    world.connect();
    world.flow();
    assert_eq!((world.snapshots, world.deltas), (2, 0));
}

/// Mutation: send although something is in flight.
#[test]
fn one_assignment_is_in_flight_and_the_latest_follows() {
    let mut world = first();
    world.connect();
    for generation in 2..6 {
        let next = assignment([directory("app", "/a", 0o700 + generation as u32)]);
        world.record(recording(generation, generation, &next, &[("app", 1)], &[]));
    }
    assert_eq!(world.snapshots + world.deltas, 1);
    world.flow();
    assert_eq!(world.snapshots + world.deltas, 2);
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(5))
    );
}

/// Mutation: drop the comparison of lineages in `Fleet::connected`.
#[test]
fn an_agent_of_another_lineage_is_sent_away_and_fences_nobody() {
    let mut world = first();
    world.connect();
    world.flow();
    let stranger = Hello {
        lineage: Some(lineage(2)),
        ..hello(0, None, "x")
    };
    let effects = connect(&mut world.fleet, 99, stranger);
    assert_eq!(closes(&effects), [99]);
    assert_eq!(world.fleet.session_of(&machine()), Some(1));
}

/// Mutation: keep the old session in `Fleet::sessions`; its words would still be heard.
#[test]
fn a_new_hello_fences_the_old_session_whatever_its_instance() {
    for instance in ["same", "other"] {
        let mut fleet = first().fleet;
        connect(&mut fleet, 1, hello(0, None, "same"));
        let effects = connect(&mut fleet, 2, hello(0, None, instance));
        assert_eq!(closes(&effects), [1]);
        let held = fleet
            .machines
            .get(&machine())
            .unwrap()
            .assignment()
            .unwrap()
            .hash();
        let late = ToServer::Ack {
            generation: Generation(1),
            hash: held,
        };
        fleet.handle(
            Event::Message {
                session: 1,
                message: late,
            },
            now(1),
        );
        assert_eq!(fleet.view().machines[0].acked, Generation(0));
        fleet.handle(Event::Disconnected { session: 1 }, now(1));
        assert_eq!(fleet.session_of(&machine()), Some(2));
    }
}

fn check_regressed(hello: Hello) {
    let mut fleet = first().fleet;
    let effects = connect(&mut fleet, 1, hello);
    assert!(!sends_assignment(&effects));
    let machine_view = fleet.view().machines[0].clone();
    assert_eq!(machine_view.state, MachineWord::Regressed);
    assert!(
        machine_view
            .message
            .unwrap()
            .contains("restore the newer copy")
    );
}

/// Mutation: turn `>` into `>=` on the next line's rule, or drop it, in `Machine::compare`.
#[test]
fn an_agent_ahead_of_the_ledger_is_left_alone() {
    check_regressed(hello(7, Some(Hash::of(b"x")), "i"));
}

/// Mutation: drop the comparison of hashes in `Machine::compare`.
#[test]
fn an_agent_with_other_content_at_the_same_generation_is_left_alone() {
    check_regressed(hello(1, Some(Hash::of(b"x")), "i"));
}

/// Mutation: clear `regressed` whenever the record is ahead again.
#[test]
fn a_regressed_machine_is_left_alone_however_far_the_ledger_advances_until_it_is_recovered() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(7, Some(Hash::of(b"x")), "i"));
    let later = assignment([directory("app", "/a", 0o700)]);
    let effects = fleet.handle(
        Event::Recorded(recording(2, 9, &later, &[("app", 2)], &[])),
        now(1),
    );
    assert!(!sends_assignment(&effects));
    let effects = connect(&mut fleet, 2, hello(7, Some(Hash::of(b"x")), "i"));
    assert!(!sends_assignment(&effects));
    let effects = fleet.handle(Event::Recovered(machine()), now(2));
    assert!(sends_assignment(&effects));
}

#[test]
fn recovering_onto_a_record_that_is_still_behind_changes_nothing() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(7, Some(Hash::of(b"x")), "i"));
    let effects = fleet.handle(Event::Recovered(machine()), now(2));
    assert!(!sends_assignment(&effects));
    assert_eq!(fleet.view().machines[0].state, MachineWord::Regressed);
}

/// Mutation: expire by the wall clock, or not at all.
#[test]
fn a_session_that_is_silent_for_three_periods_is_closed() {
    let mut fleet = first().fleet;
    let period = heartbeat_ms(1);
    connect(&mut fleet, 1, hello(0, None, "i"));
    let mut closed_at = None;
    for second in 1..=60 {
        let effects = fleet.handle(Event::Tick, now(second * 1000));
        if !closes(&effects).is_empty() {
            closed_at.get_or_insert(second * 1000);
        }
    }
    assert_eq!(closed_at, Some(3 * period + 1000));
    assert_eq!(fleet.view().machines[0].state, MachineWord::Offline);
}

/// Mutation: take `now.wall` for deadlines.
#[test]
fn a_clock_that_jumps_ten_years_expires_nobody() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(0, None, "i"));
    let mut later = now(1000);
    later.wall = now(10 * 365 * 24 * 3_600_000).wall;
    assert!(closes(&fleet.handle(Event::Tick, later)).is_empty());
}

/// Mutation: drop the look at the tick before in `Fleet::tick`.
#[test]
fn a_control_plane_that_slept_expires_nobody() {
    let mut fleet = first().fleet;
    fleet.handle(Event::Tick, now(0));
    connect(&mut fleet, 1, hello(0, None, "i"));
    assert!(closes(&fleet.handle(Event::Tick, now(60_000))).is_empty());
}

#[test]
fn heartbeats_keep_a_session_and_one_that_never_answers_loses_it() {
    let mut world = first();
    world.connect();
    while world.deliver_to_agent() {}
    assert!(world.persisting.is_some(), "and the disk never answers");
    for _ in 0..ANSWER_WITHIN_MS / 5000 {
        world.tick(5000);
        while world.deliver_to_server() {}
        assert!(world.session.is_some());
    }
    world.tick(5000);
    assert!(world.session.is_none());
}

#[test]
fn an_agent_that_asks_for_snapshots_without_end_is_said_to_refuse() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(0, None, "i"));
    let mut snapshots = 1;
    for _ in 0..10 {
        let message = ToServer::Resync {
            reason: "torn".into(),
        };
        let effects = fleet.handle(
            Event::Message {
                session: 1,
                message,
            },
            now(1),
        );
        snapshots += u32::from(sends_assignment(&effects));
    }
    assert_eq!(snapshots, crate::machine::MAX_RESYNCS);
    assert!(fleet.view().machines[0].message.is_some());
}

#[test]
fn the_heartbeat_period_grows_with_the_fleet_within_bounds() {
    for (machines, expected) in [
        (0, 15_000),
        (3000, 15_000),
        (6000, 30_000),
        (1 << 40, 120_000),
    ] {
        assert_eq!(heartbeat_ms(machines), expected);
    }
}

#[test]
fn an_agent_beats_when_its_period_is_over_and_not_before() {
    let mut world = first();
    world.connect();
    world.flow();
    world.tick(14_999);
    assert!(world.to_server.is_empty());
    world.tick(1);
    assert_eq!(world.to_server, [ToServer::Heartbeat]);
    assert_eq!(world.agent.next_tick_ms(), Some(30_000));
}

#[test]
fn a_machine_that_no_blueprint_names_may_connect_and_is_forgotten_when_it_goes() {
    let mut fleet = Fleet::new(lineage(1), Default::default(), &BTreeMap::new());
    let effects = connect(&mut fleet, 1, hello(0, None, "i"));
    assert!(!sends_assignment(&effects));
    assert_eq!(fleet.view().machines[0].state, MachineWord::Unassigned);
    fleet.handle(Event::Disconnected { session: 1 }, now(1));
    assert_eq!(fleet.view().machines, []);
}

/// Mutation: take whatever recording comes.
#[test]
fn an_older_recording_that_comes_late_is_not_taken() {
    let mut world = first();
    let older = world.recording.clone();
    let second = assignment([directory("app", "/a", 0o700)]);
    world.record(recording(2, 2, &second, &[("app", 2)], &[]));
    world.fleet.handle(Event::Recorded(older), now(1));
    assert_eq!(world.fleet.view().revision.0, 2);
}

/// Mutation: call every status after a connect complete.
#[test]
fn an_agent_that_has_just_started_voids_nothing_that_the_server_knows() {
    let both = assignment([directory("app", "/a", 0o755), directory("app", "/b", 0o755)]);
    let held = Held::new(Generation(1), Default::default(), both);
    let mut agent = AgentSession::new(identity(), facts(), Some(held.clone()));
    let mut well = super::world::all_well(&held);
    let completes = |effects: &[agent::Effect]| -> Vec<bool> {
        effects
            .iter()
            .filter_map(|e| match e {
                agent::Effect::Send(ToServer::Status { complete, .. }) => Some(*complete),
                _ => None,
            })
            .collect()
    };
    agent.handle(agent::Event::StatusChanged(vec![well.remove(0)]), now(0));
    let instance = "i".into();
    agent.handle(agent::Event::Connected { instance }, now(0));
    let welcome = ToAgent::Welcome {
        session: 1,
        lineage: lineage(1),
        heartbeat_ms: 1000,
        server_time: now(120_000).wall,
        protocol: crate::version::SPOKEN.newest,
        version: "0.1.0".into(),
    };
    let effects = agent.handle(agent::Event::Received(welcome), now(0));
    assert_eq!(completes(&effects), [false]);
    assert!(agent.skew().unwrap().contains("120 s behind"));
    let effects = agent.handle(agent::Event::StatusChanged(well.clone()), now(1));
    assert_eq!(completes(&effects), [true]);
    let effects = agent.handle(agent::Event::StatusChanged(well), now(2));
    assert_eq!(completes(&effects), [false]);
}

/// Mutation: take every ack for what is held now.
#[test]
fn an_old_ack_that_comes_again_takes_nothing_back() {
    let mut world = first();
    world.connect();
    world.flow();
    let old = world.agent.held().map(|h| (h.generation, h.hash)).unwrap();
    let second = assignment([directory("app", "/a", 0o700)]);
    world.record(recording(2, 2, &second, &[("app", 2)], &[]));
    world.flow();
    let again = ToServer::Ack {
        generation: old.0,
        hash: old.1,
    };
    let effects = world.fleet(Event::Message {
        session: 1,
        message: again,
    });
    assert!(!sends_assignment(&effects));
    assert_eq!(world.fleet.view().machines[0].acked, Generation(2));
}

/// Mutation: leave `confirm_empty` false in `Machine::next_assignment`.
#[test]
fn an_empty_assignment_that_was_recorded_is_taken_by_an_agent_that_holds_nothing() {
    let mut world = World::new(recording(1, 1, &assignment([]), &[], &[]));
    world.connect();
    world.flow();
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(1))
    );
}

/// Mutation: offer again whatever was refused, once some time has passed.
#[test]
fn what_an_agent_will_always_refuse_is_not_offered_again_until_something_else_is_recorded() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(0, None, "i"));
    let message = ToServer::Refused(Refusal {
        generation: Generation(1),
        kind: RefusalKind::Unreadable,
        message: "line 2 of the assignment cannot be read".into(),
    });
    let session = 1;
    let effects = fleet.handle(Event::Message { session, message }, now(1));
    assert!(effects.iter().any(|e| matches!(
        e,
        Effect::Outcome {
            outcome: plumb_model::state::Outcome::Failed,
            ..
        }
    )));
    for second in 1..=40 {
        let effects = fleet.handle(Event::Tick, now(second * 1000));
        assert!(!sends_assignment(&effects), "after {second} s");
    }
    assert!(fleet.session_of(&machine()).is_some());
    let second = assignment([directory("app", "/a", 0o700)]);
    let next = recording(2, 2, &second, &[("app", 2)], &[]);
    assert!(sends_assignment(
        &fleet.handle(Event::Recorded(next), now(41_000))
    ));
}

/// Mutation: count no comebacks, or do not ask for them in `next_assignment`.
#[test]
fn two_agents_that_live_under_one_identity_are_quarantined_until_an_operator_keeps_one() {
    let mut fleet = first().fleet;
    for (session, instance) in [(1, "one"), (2, "copy"), (3, "one")] {
        let effects = connect(&mut fleet, session, hello(0, None, instance));
        assert!(sends_assignment(&effects), "{instance} {session}");
        assert_eq!(fleet.view().machines[0].message, None);
    }
    let effects = connect(&mut fleet, 4, hello(0, None, "copy"));
    assert_eq!(closes(&effects), [3]);
    assert!(!sends_assignment(&effects));
    let message = fleet.view().machines[0].message.clone().unwrap();
    assert!(message.contains("two agents"), "{message}");
    assert!(
        message.contains("plumb machine keep m1 copy`"),
        "the one command that settles it: {message}"
    );
    assert_eq!(fleet.view().machines[0].state, MachineWord::Quarantined);
    // Nobody knows which of them speaks.
    let status = ToServer::Status {
        complete: true,
        resources: vec![status(&at("app", "/a"), 1, Vec::new())],
    };
    fleet.handle(
        Event::Message {
            session: 4,
            message: status,
        },
        now(0),
    );
    assert_eq!(fleet.statuses().count(), 0);
    // Neither going away nor starting anew settles it.
    fleet.handle(Event::Disconnected { session: 4 }, now(0));
    assert_eq!(fleet.view().machines[0].state, MachineWord::Quarantined);
    let effects = connect(&mut fleet, 5, hello(0, None, "restarted"));
    assert!(!sends_assignment(&effects));
    let settled = Event::Identity {
        machine: machine(),
        removed: false,
    };
    assert_eq!(closes(&fleet.handle(settled, now(0))), [5]);
    let effects = connect(&mut fleet, 6, hello(0, None, "copy"));
    assert!(sends_assignment(&effects));
    assert_eq!(fleet.view().machines[0].message, None);
}

/// Mutation: forget in `gone` whatever is in no blueprint.
#[test]
fn a_copy_is_noticed_of_a_machine_that_is_in_no_blueprint_and_of_two_that_are_never_there_at_once()
{
    let mut fleet = Fleet::new(lineage(1), Default::default(), &BTreeMap::new());
    for (session, instance) in [(1, "one"), (2, "copy"), (3, "one"), (4, "copy")] {
        connect(&mut fleet, session, hello(0, None, instance));
        if session > 1 {
            fleet.handle(Event::Disconnected { session }, now(0));
        }
        // Whoever is not connected comes when nobody is, and the one before is known all the same.
        if session == 3 {
            connect(&mut fleet, 30, hello(0, None, "one"));
        }
    }
    connect(&mut fleet, 5, hello(0, None, "one"));
    connect(&mut fleet, 6, hello(0, None, "copy"));
    assert_eq!(fleet.view().machines[0].state, MachineWord::Quarantined);
}

/// Row 19. Mutation: in `forget_identity`, keep the statuses, or what was held.
#[test]
fn a_removed_machines_name_used_again_inherits_nothing_that_was_heard_of_the_one_before() {
    let mut world = first();
    world.connect();
    world.flow();
    let message = ToServer::Status {
        complete: true,
        resources: all_well(&world.adopted.clone().unwrap()),
    };
    let session = world.session.unwrap();
    world
        .fleet
        .handle(Event::Message { session, message }, now(0));
    assert!(world.fleet.statuses().count() > 0);
    let gone = |removed| Event::Identity {
        machine: machine(),
        removed,
    };
    world.fleet.handle(gone(true), now(0));
    let view = world.fleet.view().machines[0].clone();
    assert_eq!(world.fleet.statuses().count(), 0);
    assert_eq!(
        (view.acked, view.last_seen, view.hostname),
        (Generation(0), None, None)
    );
    let message = view.message.unwrap();
    assert!(message.contains("has been removed"), "{message}");
    world.fleet.handle(gone(false), now(0));
    let effects = connect(&mut world.fleet, 90, hello(0, None, "new"));
    assert!(sends_assignment(&effects));
    assert_eq!(world.fleet.statuses().count(), 0);
}

/// Mutation: leave `give_up` out of `set_record`: the release that removes the app never ends.
#[test]
fn what_is_ordered_removed_from_a_machine_that_was_removed_counts_as_gone() {
    let mut world = first();
    world.connect();
    world.flow();
    let removed = Event::Identity {
        machine: machine(),
        removed: true,
    };
    world.fleet.handle(removed, now(0));
    let second = assignment([tombstone("app", "/a", 2)]);
    let next = recording(2, 2, &second, &[], &[("app", 2)]);
    let effects = world.fleet.handle(Event::Recorded(next), now(0));
    assert!(
        effects.iter().any(|effect| matches!(effect, Effect::Outcome { outcome, .. } if *outcome == plumb_model::state::Outcome::Removed)),
        "{effects:?}"
    );
    assert_eq!(world.fleet.settled().len(), 1);
}

/// Mutation: count a comeback for an instance that only connects anew.
#[test]
fn an_agent_that_reconnects_or_restarts_often_is_no_copy() {
    let mut fleet = first().fleet;
    for session in 1..20 {
        let instance = format!("start-{}", session / 4);
        let effects = connect(&mut fleet, session, hello(0, None, &instance));
        assert!(sends_assignment(&effects), "{session}");
    }
}

/// Mutation: keep what each machine says that it can do for itself.
#[test]
fn machines_that_can_do_the_same_hold_it_once() {
    let mut fleet = first().fleet;
    connect(&mut fleet, 1, hello(0, None, "one"));
    let event = Event::Connected {
        session: 2,
        machine: MachineName::new("another").unwrap(),
        hello: hello(0, None, "two"),
    };
    fleet.handle(event, now(0));
    let facts: Vec<_> = fleet.facts().map(|(_, facts)| facts).collect();
    assert_eq!(facts.len(), 2);
    let (one, two) = (&facts[0].capabilities.0, &facts[1].capabilities.0);
    assert!(std::sync::Arc::ptr_eq(one, two));
}

/// Threat row 42. Mutation: leave the agreement on a version out of `connected`.
#[test]
fn an_agent_two_versions_apart_is_refused_by_name_and_one_version_apart_is_taken() {
    use crate::version::{PLUMB, SPOKEN, Versions};
    let said = |versions: Versions| {
        let mut world = first();
        let mut hello = hello(0, None, "i");
        hello.versions = versions;
        hello.facts.version = "9.9.9".into();
        connect(&mut world.fleet, 7, hello)
    };
    let at = |by: i64| Versions {
        oldest: u32::try_from(i64::from(SPOKEN.oldest) + by).unwrap_or(0),
        newest: u32::try_from(i64::from(SPOKEN.newest) + by).unwrap_or(0),
    };
    for (by, agreed) in [(-1, SPOKEN.oldest), (0, SPOKEN.newest), (1, SPOKEN.newest)] {
        let effects = said(at(by));
        let Effect::Send {
            message: ToAgent::Welcome { protocol, .. },
            ..
        } = &effects[0]
        else {
            panic!("{by}: {effects:?}");
        };
        assert_eq!(*protocol, agreed, "{by}");
    }
    let effects = said(at(2));
    let [
        Effect::Send {
            message: ToAgent::Goodbye { reason },
            ..
        },
        Effect::Close { .. },
        Effect::Changed,
    ] = effects.as_slice()
    else {
        panic!("{effects:?}");
    };
    for part in ["plumb 9.9.9", PLUMB, "upgrade the control plane first"] {
        assert!(reason.contains(part), "{reason}");
    }
}

/// Threat row 42. Mutation: leave the look at the version out of the welcome.
#[test]
fn a_control_plane_that_goes_on_with_another_version_than_the_agent_speaks_is_left_by_name() {
    use crate::version::Versions;
    for protocol in [1, 9] {
        let mut agent = agent::AgentSession::new(identity(), facts(), None);
        agent.speaks(Versions {
            oldest: 3,
            newest: 4,
        });
        let instance = "i".into();
        agent.handle(agent::Event::Connected { instance }, now(0));
        let welcome = ToAgent::Welcome {
            session: 1,
            lineage: lineage(1),
            heartbeat_ms: 1000,
            server_time: now(0).wall,
            protocol,
            version: "0.1.0".into(),
        };
        let effects = agent.handle(agent::Event::Received(welcome), now(0));
        let [agent::Effect::Disconnect { reason }] = effects.as_slice() else {
            panic!("{effects:?}");
        };
        assert!(reason.contains("versions 3 to 4"), "{reason}");
        assert!(reason.contains(&format!("version {protocol}")), "{reason}");
        assert!(!agent.is_online());
    }
}

/// Mutation: hand a journal over before the control plane has said from where, or hear that of a clone.
#[test]
fn a_journal_is_greeted_once_its_agent_is_welcomed_and_chunks_are_passed_on() {
    use crate::journal::Chunk;
    use plumb_model::journal::Mark;
    let mark = Mark {
        chain: "c".into(),
        number: 3,
        hash: Hash::of(b"j"),
    };
    let mut world = first();
    let mut hello = hello(0, None, "i");
    hello.journal = Some(mark.clone());
    let effects = connect(&mut world.fleet, 7, hello);
    assert!(effects.contains(&Effect::JournalGreeted {
        session: 7,
        machine: machine(),
        mark: mark.clone(),
    }));
    assert!(world.fleet.keeps_journal(&machine()));
    let chunk = Chunk {
        newest: mark,
        lines: vec![b"{}".to_vec()],
    };
    let event = Event::Message {
        session: 7,
        message: ToServer::Journal(chunk.clone()),
    };
    assert_eq!(
        world.fleet.handle(event, now(1)),
        [Effect::JournalHanded {
            session: 7,
            machine: machine(),
            chunk,
        }]
    );
}
