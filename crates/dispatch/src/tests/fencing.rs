//! Each rule of the fence, with the mutation that its test catches.

use plumb_model::{Assignment, Generation, Hash, Header, MachineName, WorkspaceName};

use super::world::{
    World, assignment, directory, facts, header, identity, lineage, now, recording, tombstone,
};
use crate::agent::{AgentSession, Effect, Event, Held};
use crate::{Refusal, RefusalKind, ToAgent, ToServer};

fn held(generation: u64, mode: u32) -> Held {
    let assignment = assignment([directory("app", "/a", mode)]);
    Held::new(Generation(generation), Default::default(), assignment)
}

/// An agent that holds generation 5 and has been welcomed.
fn agent() -> AgentSession {
    let mut agent = AgentSession::new(identity(), facts(), Some(held(5, 0o755)));
    agent.handle(
        Event::Connected {
            instance: "i".into(),
        },
        now(0),
    );
    agent.handle(Event::Received(welcome(1)), now(0));
    assert!(agent.is_online());
    agent
}

fn welcome(of: u8) -> ToAgent {
    ToAgent::Welcome {
        session: 1,
        lineage: lineage(of),
        heartbeat_ms: 15_000,
        server_time: now(0).wall,
        protocol: crate::version::SPOKEN.newest,
        version: "0.1.0".into(),
    }
}

fn snapshot(generation: u64, assignment: &Assignment, confirm_empty: bool) -> Event {
    Event::Received(ToAgent::Snapshot {
        generation: Generation(generation),
        hash: assignment.hash(),
        releases: Default::default(),
        bytes: assignment.bytes(),
        confirm_empty,
    })
}

/// Offers it, and checks that it is refused for this reason, that nothing is written, and that the agent says so.
fn refused(generation: u64, offered: &Assignment, kind: RefusalKind) {
    let mut agent = agent();
    let effects = agent.handle(snapshot(generation, offered, false), now(1));
    assert!(
        matches!(&effects[..], [Effect::Send(ToServer::Refused(Refusal { kind: k, generation: g, .. }))]
            if *k == kind && g.0 == generation),
        "{kind:?}: {effects:?}"
    );
    assert_eq!(agent.held().map(|h| h.generation), Some(Generation(5)));
    assert!(agent.trouble().is_some());
}

fn other_header(change: impl FnOnce(&mut Header)) -> Assignment {
    let mut header = header();
    change(&mut header);
    Assignment::build(header, [])
}

/// Mutation: drop the comparison of lineages in `fence`.
#[test]
fn another_lineage_is_refused() {
    let other = other_header(|h| h.lineage = lineage(2));
    refused(6, &other, RefusalKind::OtherLineage);
}

/// Mutation: drop the comparison of machine or workspace in `fence`.
#[test]
fn what_is_for_another_machine_or_workspace_is_refused() {
    let other = other_header(|h| h.machine = MachineName::new("m2").unwrap());
    refused(6, &other, RefusalKind::OtherMachine);
    let other = other_header(|h| h.workspace = WorkspaceName::new("x").unwrap());
    refused(6, &other, RefusalKind::OtherMachine);
}

/// Mutation: turn `<` into `>` or drop the comparison of generations in `fence`.
#[test]
fn a_lower_generation_is_refused() {
    refused(4, &held(4, 0o700).assignment, RefusalKind::LowerGeneration);
    refused(4, &held(5, 0o755).assignment, RefusalKind::LowerGeneration);
}

/// Mutation: let generation 0 through; an agent that holds nothing would take it.
#[test]
fn generation_zero_is_no_assignment() {
    let mut agent = AgentSession::new(identity(), facts(), None);
    agent.handle(
        Event::Connected {
            instance: "i".into(),
        },
        now(0),
    );
    let effects = agent.handle(snapshot(0, &held(1, 0o755).assignment, false), now(1));
    assert!(
        matches!(&effects[..], [Effect::Send(ToServer::Refused(r))] if r.kind == RefusalKind::LowerGeneration)
    );
}

/// Mutation: answer `Same` without comparing hashes in `fence`.
#[test]
fn the_same_generation_with_other_content_is_refused() {
    refused(5, &held(5, 0o700).assignment, RefusalKind::OtherContent);
}

/// Mutation: drop the check for an empty assignment, or its exception, in `fence`.
#[test]
fn an_empty_snapshot_is_taken_only_when_confirmed() {
    let empty = assignment([]);
    refused(6, &empty, RefusalKind::Empty);
    let effects = agent().handle(snapshot(6, &empty, true), now(1));
    assert!(matches!(&effects[..], [Effect::Persist(_)]), "{effects:?}");
}

/// Mutation: emit the ack together with `Persist`.
#[test]
fn nothing_is_acknowledged_or_adopted_before_it_is_on_the_disk() {
    let mut agent = agent();
    let next = held(6, 0o700);
    let effects = agent.handle(snapshot(6, &next.assignment, false), now(1));
    assert_eq!(effects, [Effect::Persist(next.clone())]);
    let effects = agent.handle(
        Event::Persisted {
            generation: Generation(7),
        },
        now(2),
    );
    assert_eq!(effects, [], "another generation's write proves nothing");
    let effects = agent.handle(
        Event::Persisted {
            generation: Generation(6),
        },
        now(3),
    );
    let ack = ToServer::Ack {
        generation: Generation(6),
        hash: next.hash,
    };
    assert_eq!(effects, [Effect::Send(ack), Effect::Adopt(next)]);
}

/// Mutation: fence against `held` alone; generation 6 could replace a 7 that is already on the disk.
#[test]
fn what_is_being_written_counts_as_held() {
    let mut agent = agent();
    agent.handle(snapshot(7, &held(7, 0o700).assignment, false), now(1));
    let effects = agent.handle(snapshot(6, &held(6, 0o711).assignment, false), now(2));
    assert!(
        matches!(&effects[..], [Effect::Send(ToServer::Refused(r))] if r.kind == RefusalKind::LowerGeneration)
    );
}

/// Mutation: write the second at once, or queue both.
#[test]
fn of_those_that_arrive_during_a_write_only_the_newest_is_written_next() {
    let mut agent = agent();
    agent.handle(snapshot(6, &held(6, 0o700).assignment, false), now(1));
    for generation in [7, 8] {
        let offered = held(generation, 0o700 + generation as u32);
        let effects = agent.handle(snapshot(generation, &offered.assignment, false), now(2));
        assert_eq!(effects, []);
    }
    let effects = agent.handle(
        Event::Persisted {
            generation: Generation(6),
        },
        now(3),
    );
    assert!(matches!(effects.last(), Some(Effect::Persist(h)) if h.generation == Generation(8)));
}

/// Mutation: parse before the hash is compared, or not compare it.
#[test]
fn bytes_that_are_not_what_their_hash_says_are_asked_for_again() {
    let next = held(6, 0o700);
    let mut bytes = next.assignment.bytes();
    bytes.pop();
    let effects = agent().handle(
        Event::Received(ToAgent::Snapshot {
            generation: Generation(6),
            hash: next.hash,
            releases: Default::default(),
            bytes,
            confirm_empty: false,
        }),
        now(1),
    );
    assert!(matches!(
        &effects[..],
        [Effect::Send(ToServer::Resync { .. })]
    ));
}

/// Mutation: refuse nothing that cannot be parsed, or panic on it.
#[test]
fn a_newer_format_is_refused_before_anything_is_written() {
    let bytes = br#"{"format":99,"more":true}"#.to_vec();
    let effects = agent().handle(
        Event::Received(ToAgent::Snapshot {
            generation: Generation(6),
            hash: Hash::of(&bytes),
            releases: Default::default(),
            bytes,
            confirm_empty: false,
        }),
        now(1),
    );
    assert!(
        matches!(&effects[..], [Effect::Send(ToServer::Refused(r))] if r.kind == RefusalKind::Unreadable),
        "{effects:?}"
    );
}

fn delta(generation: u64, from: &Assignment, to: &Assignment) -> Event {
    Event::Received(ToAgent::Delta {
        generation: Generation(generation),
        releases: Default::default(),
        delta: from.delta_to(to),
    })
}

/// Mutation: apply a delta to whatever is held.
#[test]
fn a_delta_from_another_base_asks_for_a_snapshot() {
    let effects = agent().handle(
        delta(6, &held(4, 0o711).assignment, &held(6, 0o700).assignment),
        now(1),
    );
    assert!(matches!(
        &effects[..],
        [Effect::Send(ToServer::Resync { .. })]
    ));
}

/// Mutation: drop the look at what a delta removes in `AgentSession::apply`.
#[test]
fn a_delta_removes_nothing_that_has_no_tombstone() {
    let base = held(5, 0o755).assignment;
    let effects = agent().handle(delta(6, &base, &assignment([])), now(1));
    assert!(matches!(
        &effects[..],
        [Effect::Send(ToServer::Resync { reason })] if reason.contains("without a tombstone")
    ));
    let buried = assignment([tombstone("app", "/a", 4)]);
    let held = Held::new(Generation(5), Default::default(), buried.clone());
    let mut agent = AgentSession::new(identity(), facts(), Some(held));
    agent.handle(
        Event::Connected {
            instance: "i".into(),
        },
        now(0),
    );
    let effects = agent.handle(delta(6, &buried, &assignment([])), now(1));
    assert!(matches!(&effects[..], [Effect::Persist(_)]), "{effects:?}");
}

/// Mutation: skip the comparison of lineages in the welcome.
#[test]
fn an_agent_leaves_a_control_plane_of_another_lineage() {
    let mut agent = agent();
    agent.handle(Event::Disconnected, now(1));
    agent.handle(
        Event::Connected {
            instance: "i".into(),
        },
        now(1),
    );
    let effects = agent.handle(Event::Received(welcome(2)), now(2));
    assert!(matches!(&effects[..], [Effect::Disconnect { reason }] if reason.contains("lineage")));
    assert!(!agent.is_online());
}

/// Mutation: forget the queued or the failed write in `not_persisted`.
#[test]
fn a_full_disk_refuses_and_the_old_assignment_stays() {
    let first = assignment([directory("app", "/a", 0o755)]);
    let mut world = World::new(recording(1, 1, &first, &[("app", 1)], &[]));
    world.connect();
    world.flow();
    let second = assignment([directory("app", "/a", 0o700)]);
    world.record(recording(2, 2, &second, &[("app", 2)], &[]));
    world.deliver_to_agent();
    world.fail_to_persist();
    world.flow();
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(1))
    );
    let message = world.fleet.view().machines[0].message.clone().unwrap();
    assert!(message.contains("no space left"), "{message}");
    world.tick(crate::machine::RETRY_STORE_MS / 2);
    assert!(world.to_agent.is_empty(), "too early to offer it again");
    world.tick(crate::machine::RETRY_STORE_MS / 2);
    world.flow();
    assert_eq!(
        world.agent.held().map(|h| h.generation),
        Some(Generation(2))
    );
    assert_eq!(world.fleet.view().machines[0].message, None);
}
