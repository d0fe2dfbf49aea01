//! What version 2 of the session protocol added, in both directions.

use plumb_dispatch::hands::HeldOrders;
use plumb_dispatch::journal::Chunk;
use plumb_dispatch::protocol::{Hello, Reconciled, ToAgent, ToServer};
use plumb_dispatch::version::Versions;
use plumb_model::hands::{Came, Finding};
use plumb_model::journal::{Entry, Happening, Mark};
use plumb_model::{Generation, Hash, OrderNumber};

use super::v1_session::{at, facts, lineage, owner};
use super::{heard_of_agent, heard_of_server, names, record};
use crate::session::{to_agent, to_server};

const VERSION: &str = "v2";

fn line() -> Vec<u8> {
    Entry {
        number: 1,
        before: Hash::of(b"start"),
        at: at(1),
        away: true,
        what: Happening::AssignmentTaken {
            generation: Generation(7),
        },
    }
    .line()
}

fn mark() -> Mark {
    Mark {
        chain: "00112233445566778899aabbccddeeff".into(),
        number: 1,
        hash: Hash::of(&line()),
    }
}

fn orders() -> HeldOrders {
    HeldOrders {
        number: OrderNumber(4),
        hash: Some(Hash::of(b"orders")),
    }
}

fn of_agents() -> Vec<(&'static str, Vec<ToServer>)> {
    let hello = Hello {
        lineage: Some(lineage()),
        generation: Generation(7),
        hash: Some(Hash::of(b"held")),
        instance: "00112233445566778899aabbccddeeff".into(),
        facts: facts(),
        trusted_cas: vec!["a".repeat(64)],
        versions: Versions {
            oldest: 1,
            newest: 2,
        },
        journal: Some(mark()),
        hands: Some(orders()),
        at: None,
    };
    vec![
        ("agent-hello", vec![ToServer::Hello(hello)]),
        (
            "agent-journal-entries",
            vec![ToServer::Journal(Chunk {
                newest: mark(),
                lines: vec![line()],
            })],
        ),
        (
            "agent-hands-answer",
            vec![
                ToServer::HandsAnswer {
                    orders: orders(),
                    refused: None,
                },
                ToServer::HandsAnswer {
                    orders: orders(),
                    refused: Some("no space".into()),
                },
            ],
        ),
        (
            "agent-reconciled",
            vec![ToServer::Reconciled(Reconciled {
                request: 3,
                checked: 10,
                findings: vec![Finding {
                    address: "web-1/web/file//srv/web/index.html".parse().unwrap(),
                    found: "content differs".into(),
                    came: Came::Corrected,
                    why: String::new(),
                }],
                more: 2,
            })],
        ),
    ]
}

fn of_servers() -> Vec<(&'static str, Vec<ToAgent>)> {
    vec![
        (
            "server-welcome",
            vec![ToAgent::Welcome {
                session: 12,
                lineage: lineage(),
                heartbeat_ms: 15_000,
                server_time: at(7),
                protocol: 2,
                version: "0.1.0".into(),
            }],
        ),
        (
            "server-journal-stored",
            vec![ToAgent::JournalStored {
                chain: mark().chain,
                through: 1,
            }],
        ),
        (
            "server-hands-orders",
            vec![ToAgent::Hands {
                bytes: b"{\"format\":1}".to_vec(),
            }],
        ),
        (
            "server-reconcile",
            vec![
                ToAgent::Reconcile {
                    request: 3,
                    owner: Some(owner()),
                },
                ToAgent::Reconcile {
                    request: 4,
                    owner: None,
                },
            ],
        ),
    ]
}

/// Threat row 42. Mutation: give a field of `agents.proto` another number.
#[test]
fn what_version_2_added_means_what_it_meant() {
    for (name, said) in of_agents() {
        let sent: Vec<_> = said.iter().cloned().flat_map(to_server).collect();
        record(VERSION, name, &sent);
        assert_eq!(heard_of_agent(VERSION, name), said, "{name}");
    }
    for (name, said) in of_servers() {
        let sent: Vec<_> = said.iter().cloned().flat_map(to_agent).collect();
        record(VERSION, name, &sent);
        assert_eq!(heard_of_server(VERSION, name), said, "{name}");
    }
    let mut known: Vec<_> = of_agents().iter().map(|(n, _)| (*n).to_owned()).collect();
    known.extend(of_servers().iter().map(|(n, _)| (*n).to_owned()));
    known.sort();
    assert_eq!(names(VERSION), known);
}

/// Threat row 42. Mutation: have `FromAgent` refuse a reason, a condition or an event that it does not know.
#[test]
fn what_only_a_newer_version_knows_is_passed_over_and_the_session_goes_on() {
    use crate::session::{FromAgent, FromServer};
    use crate::v1;
    use crate::v1::agent_message::Message as Up;
    use prost::Message;

    let mut from = FromAgent::default();
    let mut hear = |message: Up| {
        let message = Some(message);
        from.take(v1::AgentMessage { message }).unwrap().unwrap()
    };
    let payload = br#"{"address":"web-1/web/file//a","generation":7,"conditions":[{"kind":"Levitating","status":true,"reason":"AsDesired","message":"m","since":"2026-09-21T14:13:21Z"},{"kind":"Failed","status":true,"reason":"Gravity","message":"m","since":"2026-09-21T14:13:21Z"}],"gone":false,"process":null}
{"address":"web-1/web/file//b","generation":7,"conditions":"of another shape"}
"#;
    let ToServer::Status { resources, .. } = hear(Up::Status(v1::Status {
        complete: true,
        payload: payload.to_vec(),
    })) else {
        panic!("a status");
    };
    assert_eq!(resources.len(), 1);
    let conditions: Vec<_> = resources[0]
        .conditions
        .iter()
        .map(|c| (c.kind, c.reason))
        .collect();
    assert_eq!(
        conditions,
        [(
            plumb_model::ConditionKind::Failed,
            plumb_model::Reason::Unknown
        )]
    );
    let payload = br#"{"at":"2026-09-21T14:13:21Z","address":"web-1/web/file//a","kind":"levitated","message":"m"}
"#;
    let ToServer::Events { events, .. } = hear(Up::Events(v1::Events {
        payload: payload.to_vec(),
        dropped: 0,
    })) else {
        panic!("events");
    };
    assert_eq!(events[0].kind, plumb_model::condition::EventKind::Unknown);
    let ToServer::Refused(refusal) = hear(Up::Refused(v1::Refused {
        generation: 8,
        kind: "too_beautiful".into(),
        message: "m".into(),
    })) else {
        panic!("a refusal");
    };
    assert_eq!(refusal.message, "m");
    // A message of a number that nobody has given yet.
    let unknown = [0xf2, 0x2e, 0x02, 0x08, 0x01];
    let up = v1::AgentMessage::decode(unknown.as_slice()).unwrap();
    assert_eq!(FromAgent::default().take(up), Ok(None));
    let down = v1::ServerMessage::decode(unknown.as_slice()).unwrap();
    assert_eq!(FromServer::default().take(down), Ok(None));
}
