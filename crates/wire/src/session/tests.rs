//! What goes over the wire comes back as it was, within its bounds.

use plumb_model::capability::MachineFacts;
use plumb_model::condition::{EventKind, MachineEvent};
use plumb_model::{Address, Found, FoundKind, Hash, Lineage, Mode, Timestamp};

use super::*;

fn address(name: &str) -> Address {
    format!("m/o/file/{name}").parse().unwrap()
}

fn found(text: String) -> Found {
    Found {
        kind: FoundKind::File,
        mode: Mode(0o644),
        owner: "root".into(),
        group: "root".into(),
        size: Some(text.len() as u64),
        digest: Some(Hash::of(text.as_bytes())),
        text: Some(text),
    }
}

/// Mutation: leave `bounded` out of the conversion.
#[test]
fn a_text_that_no_agent_may_send_is_not_kept() {
    for (length, kept) in [
        (MAX_FOUND_TEXT_BYTES, true),
        (MAX_FOUND_TEXT_BYTES + 1, false),
    ] {
        let text = "x".repeat(usize::try_from(length).unwrap());
        let message = ToServer::Status {
            complete: false,
            resources: vec![ResourceStatus {
                address: address("/a"),
                generation: Generation(1),
                conditions: Vec::new(),
                gone: false,
                process: None,
                found: Some(Box::new(found(text))),
            }],
        };
        let mut from = FromAgent::default();
        let got = to_server(message)
            .into_iter()
            .find_map(|m| from.take(m).unwrap());
        let Some(ToServer::Status { resources, .. }) = got else {
            panic!("{got:?}");
        };
        let found = resources[0].found.as_ref().unwrap();
        assert_eq!(found.text.is_some(), kept, "{length} bytes");
    }
}

fn there_and_back_up(message: ToServer) -> usize {
    let sent = to_server(message.clone());
    let count = sent.len();
    let mut from = FromAgent::default();
    let mut got: Vec<_> = sent
        .into_iter()
        .filter_map(|m| from.take(m).unwrap())
        .collect();
    assert_eq!(got.len(), 1);
    assert_eq!(got.pop(), Some(message));
    count
}

fn there_and_back_down(message: ToAgent) -> usize {
    let sent = to_agent(message.clone());
    let count = sent.len();
    let mut from = FromServer::default();
    let mut got: Vec<_> = sent
        .into_iter()
        .filter_map(|m| from.take(m).unwrap())
        .collect();
    assert_eq!(got.len(), 1);
    assert_eq!(got.pop(), Some(message));
    count
}

#[test]
fn everything_an_agent_says_reads_back() {
    there_and_back_up(ToServer::Hello(Hello {
        lineage: Some(Lineage::from_random([3; 16])),
        generation: Generation(4),
        hash: Some(Hash::of(b"x")),
        instance: "i".into(),
        facts: MachineFacts {
            version: "1".into(),
            arch: "x86_64".into(),
            hostname: "h".into(),
            kernel: "k".into(),
            capabilities: Default::default(),
            host: Some(Box::new(plumb_model::capability::HostFacts {
                os: "Debian".into(),
                cpus: 2,
                memory_bytes: 4,
                memory_available_bytes: 3,
                disk_bytes: 9,
                disk_free_bytes: 8,
            })),
        },
        trusted_cas: vec!["a".repeat(64)],
        versions: Versions {
            oldest: 2,
            newest: 3,
        },
        journal: Some(Mark {
            chain: "c".into(),
            number: 4,
            hash: Hash::of(b"j"),
        }),
        hands: Some(HeldOrders {
            number: OrderNumber(3),
            hash: Some(Hash::of(b"h")),
        }),
        at: Some("2026-11-22T08:00:00.125Z".parse().unwrap()),
    }));
    there_and_back_up(ToServer::Ack {
        generation: Generation(1),
        hash: Hash::of(b"y"),
    });
    there_and_back_up(ToServer::Resync { reason: "r".into() });
    for kind in REFUSALS {
        there_and_back_up(ToServer::Refused(Refusal {
            generation: Generation(2),
            kind,
            message: "m".into(),
        }));
    }
    let status = ResourceStatus {
        address: address("/a\nb"),
        generation: Generation(1),
        conditions: Vec::new(),
        gone: true,
        process: None,
        found: Some(Box::new(found("a\nb".to_owned()))),
    };
    there_and_back_up(ToServer::Status {
        complete: true,
        resources: vec![status.clone(), status],
    });
    there_and_back_up(ToServer::Status {
        complete: false,
        resources: Vec::new(),
    });
    there_and_back_up(ToServer::Heartbeat);
    there_and_back_up(ToServer::Journal(Chunk {
        newest: Mark {
            chain: "c".into(),
            number: 4,
            hash: Hash::of(b"j"),
        },
        lines: vec![b"{}".to_vec(), Vec::new()],
    }));
    for refused in [None, Some("no space".to_owned())] {
        let orders = HeldOrders {
            number: OrderNumber(3),
            hash: refused.is_none().then(|| Hash::of(b"h")),
        };
        there_and_back_up(ToServer::HandsAnswer { orders, refused });
    }
    there_and_back_up(ToServer::Reconciled(Reconciled {
        request: 4,
        checked: 9,
        findings: vec![plumb_model::hands::Finding {
            address: address("/a\nb"),
            found: "missing".into(),
            came: plumb_model::hands::Came::Corrected,
            why: String::new(),
        }],
        more: 1,
    }));
    there_and_back_up(ToServer::WantSecrets(vec![(
        plumb_model::SecretName::new("KEY").unwrap(),
        7,
    )]));
    there_and_back_up(ToServer::LogsFailed {
        request: 1,
        message: "m".into(),
    });
    let event = |message: String| MachineEvent {
        at: Timestamp::UNIX_EPOCH,
        address: address("/a"),
        kind: EventKind::Removed,
        message,
    };
    let pieces = there_and_back_up(ToServer::Events {
        events: vec![event("x".repeat(3 * PIECE_BYTES)), event("y".into())],
        dropped: 9,
    });
    assert_eq!(pieces, 4);
}

#[test]
fn everything_the_control_plane_says_reads_back() {
    let releases = Releases::from([(OwnerName::new("o").unwrap(), ReleaseNumber(3))]);
    there_and_back_down(ToAgent::Welcome {
        session: 1,
        lineage: Lineage::from_random([3; 16]),
        heartbeat_ms: 10_000,
        server_time: "2026-11-21T02:00:00.123456789Z".parse().unwrap(),
        protocol: 2,
        version: "0.1.0".into(),
    });
    for (size, pieces) in [
        (0, 1),
        (1, 1),
        (PIECE_BYTES, 1),
        (PIECE_BYTES + 1, 2),
        (5 * PIECE_BYTES, 5),
    ] {
        let count = there_and_back_down(ToAgent::Snapshot {
            generation: Generation(7),
            hash: Hash::of(b"z"),
            releases: releases.clone(),
            bytes: vec![b'x'; size],
            confirm_empty: true,
        });
        assert_eq!(count, pieces, "{size} bytes");
    }
    there_and_back_down(ToAgent::Delta {
        generation: Generation(8),
        releases,
        delta: Delta {
            applies_to: Hash::of(b"a"),
            results_in: Hash::of(b"b"),
            upserts: vec![b"{\"one\":1}\n".to_vec(), b"{}\n".to_vec()],
            removes: vec![address("/x\ny"), address("/z")],
        },
    });
    there_and_back_down(ToAgent::OpenLogs(LogsRequest {
        request: 5,
        owner: OwnerName::new("o").unwrap(),
        process: None,
        follow: true,
        since: Some(Timestamp::UNIX_EPOCH),
        tail: Some(0),
    }));
    there_and_back_down(ToAgent::CloseLogs { request: 5 });
    let version = |n: u64| (plumb_model::SecretName::new("KEY").unwrap(), n);
    there_and_back_down(ToAgent::Secrets {
        values: vec![(version(2), Secret::new("v".into()))],
        missing: vec![version(1)],
    });
    there_and_back_down(ToAgent::Hands {
        bytes: b"{}".to_vec(),
    });
    for owner in [None, Some(OwnerName::new("o").unwrap())] {
        there_and_back_down(ToAgent::Reconcile { request: 2, owner });
    }
    there_and_back_down(ToAgent::JournalStored {
        chain: "c".into(),
        through: 4,
    });
    there_and_back_down(ToAgent::Goodbye { reason: "g".into() });
    there_and_back_down(ToAgent::Renew { within_ms: 9 });
    there_and_back_down(ToAgent::Rekey { code: "c".into() });
}

#[test]
fn what_a_newer_version_says_is_passed_over() {
    let up = v1::AgentMessage { message: None };
    assert_eq!(FromAgent::default().take(up), Ok(None));
    let down = v1::ServerMessage { message: None };
    assert_eq!(FromServer::default().take(down), Ok(None));
}

#[test]
fn a_payload_past_its_bound_is_refused_and_let_go() {
    let mut pieces = Pieces::default();
    pieces.push(&[0; 60], 100).unwrap();
    assert_eq!(pieces.push(&[0; 60], 100), Err(WireError::TooLarge(100)));
    assert_eq!(pieces.0.capacity(), 0);
}

#[test]
fn a_delta_that_announces_more_lines_than_come_is_refused() {
    let mut from = FromServer::default();
    let message = v1::ServerMessage {
        message: Some(Down::Delta(v1::Delta {
            upserts: u64::MAX,
            applies_to: Hash::of(b"a").to_string(),
            results_in: Hash::of(b"b").to_string(),
            ..Default::default()
        })),
    };
    assert!(matches!(from.take(message), Err(WireError::Field { .. })));
}
