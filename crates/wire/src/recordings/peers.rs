//! Today's control plane and agent, each with a peer of version 1 whose every word is a recording.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_dispatch::agent::{AgentSession, Effect as AgentEffect, Event as AgentEvent};
use plumb_dispatch::fleet::{Effect as FleetEffect, Event as FleetEvent};
use plumb_dispatch::protocol::{ToAgent, ToServer};
use plumb_dispatch::{Fleet, Identity, Now, Recording};
use plumb_model::state::{MachineState, OwnerKind, OwnerState, Recorded, ReleaseBody};
use plumb_model::{Assignment, Generation, Hash, ReleaseNumber, Revision, Timestamp};
use prost::Message;

use super::v1_session::{assignment, facts, lineage, machine, owner, workspace};
use super::{heard_of_agent, heard_of_server};
use crate::session::{to_agent, to_server};

/// The fields of `AgentMessage` and `ServerMessage` that a peer of version 1 knows.
const AGENT_V1: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15];
const SERVER_V1: [u64; 10] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13];

fn now(mono_ms: u64) -> Now {
    Now {
        wall: Timestamp::from_second(1_790_000_000).unwrap(),
        mono_ms,
    }
}

/// The number of the field that a message of the control stream holds.
fn field(message: &impl Message) -> u64 {
    let bytes = message.encode_to_vec();
    let key = prost::encoding::decode_varint(&mut bytes.as_slice()).expect("it says something");
    key >> 3
}

fn recording(generation: u64, assignment: &Arc<Assignment>) -> Recording {
    let mut recorded = Recorded::default();
    recorded.state.revision = Revision(generation);
    let body = Arc::new(ReleaseBody {
        rollout: None,
        resolutions: Default::default(),
        format: plumb_model::state::FORMAT,
        owner: owner(),
        kind: OwnerKind::App,
        resources: Vec::new(),
    });
    let at = OwnerState {
        release: ReleaseNumber(3),
        body: Hash::of(&body.bytes()),
    };
    recorded.state.owners.insert(owner(), at);
    recorded.releases.insert(owner(), body);
    recorded
        .state
        .last_release
        .insert(owner(), ReleaseNumber(3));
    recorded.state.machines.insert(
        machine(),
        MachineState {
            info: Default::default(),
            generation: Generation(generation),
            assignment: assignment.hash(),
            tombstones: BTreeMap::new(),
            leaving: false,
            rolling: None,
        },
    );
    Recording::new(
        &recorded,
        &BTreeMap::from([(machine(), assignment.clone())]),
    )
    .unwrap()
}

/// A control plane, and the one session that an agent has with it.
struct Server {
    fleet: Fleet,
    closed: Vec<String>,
}

impl Server {
    fn hears(&mut self, message: ToServer) -> Vec<ToAgent> {
        let event = match message {
            ToServer::Hello(hello) => FleetEvent::Connected {
                session: 1,
                machine: machine(),
                hello,
            },
            message => FleetEvent::Message {
                session: 1,
                message,
            },
        };
        let mut said = Vec::new();
        for effect in self.fleet.handle(event, now(0)) {
            match effect {
                FleetEffect::Send { message, .. } => said.push(message),
                FleetEffect::Close { reason, .. } => self.closed.push(reason),
                _ => {}
            }
        }
        said
    }
}

/// Threat row 42. Mutation: have the welcome wait for something that only this version's hello holds.
#[test]
fn an_agent_of_version_1_is_served_by_this_control_plane() {
    let new = Arc::new(assignment("new"));
    let mut server = Server {
        fleet: Fleet::new(lineage(), recording(8, &new), &BTreeMap::new()),
        closed: Vec::new(),
    };
    let mut said = Vec::new();
    for name in [
        "agent-hello-first",
        "agent-ack",
        "agent-status",
        "agent-status-in-pieces",
        "agent-events",
        "agent-heartbeat",
        "agent-want-secrets",
        "agent-logs-failed",
        "agent-refused",
    ] {
        for message in heard_of_agent("v1", name) {
            said.extend(server.hears(message));
        }
    }
    assert_eq!(server.closed, Vec::<String>::new());
    assert!(matches!(said[0], ToAgent::Welcome { .. }), "{said:?}");
    let ToAgent::Snapshot {
        generation, bytes, ..
    } = &said[1]
    else {
        panic!("{said:?}");
    };
    assert_eq!((*generation, bytes), (Generation(8), &new.bytes()));
    for message in said.into_iter().flat_map(to_agent) {
        assert!(SERVER_V1.contains(&field(&message)), "{message:?}");
    }
    let view = server.fleet.view();
    assert_eq!(view.machines[0].acked, Generation(8));
    assert_eq!(
        view.machines[0].hostname.as_deref(),
        Some("web-1.example.com")
    );
    let told: Vec<_> = server
        .fleet
        .statuses()
        .map(|s| s.address.to_string())
        .collect();
    assert_eq!(
        told,
        [
            "web-1/web/file//srv/web/index.html",
            "web-1/web/process/app/0"
        ]
    );
    assert_eq!(server.fleet.events().count(), 7);
}

/// Threat row 42. Mutation: have the agent wait for something that only this version's welcome holds.
#[test]
fn a_control_plane_of_version_1_is_obeyed_by_this_agent() {
    let identity = Identity {
        workspace: workspace(),
        machine: machine(),
        lineage: None,
    };
    let mut agent = AgentSession::new(identity, facts(), None);
    let mut said = Vec::new();
    let mut did = Vec::new();
    let mut events: std::collections::VecDeque<AgentEvent> = [AgentEvent::Connected {
        instance: "i".into(),
    }]
    .into();
    for name in [
        "server-welcome",
        "server-snapshot",
        "server-delta",
        "server-snapshot-in-pieces",
        "server-open-logs",
        "server-close-logs",
        "server-secret-values",
        "server-renew",
        "server-rekey",
        "server-goodbye",
    ] {
        events.extend(
            heard_of_server("v1", name)
                .into_iter()
                .map(AgentEvent::Received),
        );
        while let Some(event) = events.pop_front() {
            for effect in agent.handle(event, now(0)) {
                match effect {
                    AgentEffect::Send(message) => said.push(message),
                    AgentEffect::Persist(held) => events.push_front(AgentEvent::Persisted {
                        generation: held.generation,
                    }),
                    other => did.push(other),
                }
            }
        }
    }
    let acked: Vec<_> = said
        .iter()
        .filter_map(|message| match message {
            ToServer::Ack { generation, .. } => Some(generation.0),
            _ => None,
        })
        .collect();
    assert_eq!(acked, [7, 8, 9]);
    let held = agent.held().expect("it holds something");
    assert_eq!(held.generation, Generation(9));
    assert!(
        matches!(
            did.as_slice(),
            [
                AgentEffect::Adopt(_),
                AgentEffect::Adopt(_),
                AgentEffect::Adopt(_),
                AgentEffect::OpenLogs(_),
                AgentEffect::CloseLogs { request: 5 },
                AgentEffect::SecretsCame { .. },
                AgentEffect::Disconnect { .. },
            ]
        ),
        "{did:?}"
    );
    for message in said.into_iter().flat_map(to_server) {
        assert!(AGENT_V1.contains(&field(&message)), "{message:?}");
    }
}
