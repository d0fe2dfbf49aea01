//! Every message of the session protocol of version 1, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use plumb_dispatch::protocol::{Hello, LogsRequest, Refusal, Releases, ToAgent, ToServer};
use plumb_dispatch::version::Versions;
use plumb_model::assignment::{self, Header, Tombstone};
use plumb_model::capability::{Availability, Capabilities, HostFacts, MachineFacts};
use plumb_model::condition::{EventKind, MachineEvent, ProcessStatus};
use plumb_model::observation::{Exit, ExitStatus};
use plumb_model::{
    Assignment, Capability, Condition, ConditionKind, Delta, DirectorySpec, DriftPolicy, Entry,
    FileContent, FileSpec, Found, FoundKind, Generation, Hash, HealthProbe, HealthSpec, Lineage,
    LogSpec, MachineName, Mode, OwnerName, PortName, ProbeOutcome, ProbeResult, ProcessName,
    ProcessSpec, Reason, ReleaseNumber, Resource, ResourceSpec, ResourceStatus, RestartPolicy,
    RestartSpec, RunState, Secret, SecretName, StopSpec, Timestamp, WorkspaceName,
};

use super::{heard_of_agent, heard_of_server, names, record};
use crate::PIECE_BYTES;
use crate::session::{REFUSALS, to_agent, to_server};

const VERSION: &str = "v1";

pub(super) fn lineage() -> Lineage {
    Lineage::from_random([3; 16])
}

pub(super) fn machine() -> MachineName {
    MachineName::new("web-1").unwrap()
}

pub(super) fn workspace() -> WorkspaceName {
    WorkspaceName::new("shop").unwrap()
}

pub(super) fn owner() -> OwnerName {
    OwnerName::new("web").unwrap()
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

fn resource(kind: &str, name: &str, spec: ResourceSpec) -> Resource {
    Resource {
        address: format!("web-1/web/{kind}/{name}").parse().unwrap(),
        after: plumb_model::Addresses::new(),
        drift: DriftPolicy::Enforce,
        was: None,
        was_before: Vec::new(),
        adopt: false,
        spec,
    }
}

fn entries(text: &str) -> Vec<Entry> {
    let directory = resource(
        "directory",
        "/srv/web",
        ResourceSpec::Directory(DirectorySpec {
            path: "/srv/web".into(),
            mode: Mode(0o755),
            owner: None,
            group: None,
        }),
    );
    let mut file = resource(
        "file",
        "/srv/web/index.html",
        ResourceSpec::File(FileSpec {
            path: "/srv/web/index.html".into(),
            content: FileContent::Text(text.into()),
            mode: Mode(0o644),
            owner: None,
            group: None,
            notify: BTreeSet::new(),
        }),
    );
    file.after.insert(directory.address.clone());
    let process = resource(
        "process",
        "app/0",
        ResourceSpec::Process(ProcessSpec {
            argv: vec!["python3".into(), "-m".into(), "http.server".into()],
            env: BTreeMap::from([("PORT".into(), "20000".into())]),
            workdir: None,
            user: None,
            ports: BTreeMap::from([(PortName::new("http").unwrap(), 20000)]),
            health: Some(HealthSpec {
                probe: HealthProbe::Http {
                    host: None,
                    port: 20000,
                    path: "/".into(),
                    codes: vec![(200, 399)],
                },
                interval_ms: 1000,
                timeout_ms: 500,
                healthy_threshold: 1,
                unhealthy_threshold: 3,
            }),
            restart: RestartSpec {
                policy: RestartPolicy::Always,
                initial_ms: 1000,
                max_ms: 60_000,
            },
            stop: StopSpec {
                signal: 15,
                grace_ms: 10_000,
            },
            log: LogSpec {
                max_bytes: 1 << 20,
                keep: 1,
            },
            state: RunState::Running,
            limits: None,
            schedule: None,
            on_disconnect: None,
            secrets: BTreeMap::new(),
            toolchain: None,
        }),
    );
    let tombstone = Tombstone {
        address: "web-1/old/file//etc/old.conf".parse().unwrap(),
        since: Generation(2),
    };
    vec![
        Entry::from(directory),
        Entry::from(file),
        Entry::from(process),
        Entry::Tombstone(tombstone),
    ]
}

pub(super) fn assignment(text: &str) -> Assignment {
    let header = Header {
        format: assignment::FORMAT,
        lineage: lineage(),
        workspace: workspace(),
        machine: machine(),
    };
    Assignment::build(header, entries(text))
}

pub(super) fn releases() -> Releases {
    Releases::from([(owner(), ReleaseNumber(3))])
}

pub(super) fn facts() -> MachineFacts {
    MachineFacts {
        version: "0.1.0".into(),
        arch: "x86_64".into(),
        hostname: "web-1.example.com".into(),
        kernel: "6.1.0".into(),
        capabilities: Capabilities::from_iter([
            (
                Capability::Files,
                Availability::Has {
                    detail: "openat2".into(),
                },
            ),
            (
                Capability::Users,
                Availability::Lacks {
                    why: "the agent does not run as root".into(),
                    remedy: "run it as root".into(),
                },
            ),
        ]),
        host: Some(Box::new(HostFacts {
            os: "Debian GNU/Linux 12".into(),
            cpus: 2,
            memory_bytes: 4 << 30,
            memory_available_bytes: 3 << 30,
            disk_bytes: 40 << 30,
            disk_free_bytes: 20 << 30,
        })),
    }
}

fn status() -> ResourceStatus {
    let condition = |kind, status, reason, message: &str| Condition {
        kind,
        status,
        reason,
        message: message.into(),
        since: at(1),
    };
    ResourceStatus {
        address: "web-1/web/process/app/0".parse().unwrap(),
        generation: Generation(7),
        conditions: vec![
            condition(ConditionKind::Converged, true, Reason::AsDesired, "running"),
            condition(
                ConditionKind::Healthy,
                false,
                Reason::ProbeFailed,
                "503 instead of 200 to 399",
            ),
        ],
        gone: false,
        process: Some(ProcessStatus {
            incarnation: Some("0123abcd".into()),
            pid: Some(4711),
            started: Some(at(2)),
            restarts: 1,
            last_exit: Some(Exit {
                status: ExitStatus::Signal(9),
                at: at(3),
            }),
            health: [ProbeResult {
                at: at(4),
                outcome: ProbeOutcome::Failed,
                code: Some(503),
                millis: 12,
                error: Some("503 instead of 200 to 399".into()),
            }]
            .into(),
            ..ProcessStatus::default()
        }),
        found: None,
    }
}

fn in_the_way() -> ResourceStatus {
    ResourceStatus {
        address: "web-1/web/file//srv/web/index.html".parse().unwrap(),
        generation: Generation(7),
        conditions: vec![Condition {
            kind: ConditionKind::Blocked,
            status: true,
            reason: Reason::NotOurs,
            message: "a file that Plumb did not make is there".into(),
            since: at(5),
        }],
        gone: false,
        process: None,
        found: Some(Box::new(Found {
            kind: FoundKind::File,
            mode: Mode(0o644),
            owner: "root".into(),
            group: "root".into(),
            size: Some(6),
            digest: Some(Hash::of(b"theirs")),
            text: Some("theirs".into()),
        })),
    }
}

fn events() -> Vec<MachineEvent> {
    [
        EventKind::Applied,
        EventKind::DriftCorrected,
        EventKind::DriftSeen,
        EventKind::Reattached,
        EventKind::Removed,
        EventKind::Failed,
        EventKind::HealthChanged,
    ]
    .into_iter()
    .map(|kind| MachineEvent {
        at: at(6),
        address: "web-1/web/process/app/0".parse().unwrap(),
        kind,
        message: format!("{kind:?}"),
    })
    .collect()
}

fn secret(version: u64) -> (SecretName, u64) {
    (SecretName::new("API_KEY").unwrap(), version)
}

/// What agents say, by the name of its recording.
fn of_agents() -> Vec<(&'static str, Vec<ToServer>)> {
    let hello = Hello {
        lineage: Some(lineage()),
        generation: Generation(7),
        hash: Some(assignment("old").hash()),
        instance: "00112233445566778899aabbccddeeff".into(),
        facts: facts(),
        trusted_cas: vec!["a".repeat(64)],
        versions: Versions {
            oldest: 1,
            newest: 1,
        },
        journal: None,
        hands: None,
        at: None,
    };
    let first = Hello {
        lineage: None,
        generation: Generation(0),
        hash: None,
        ..hello.clone()
    };
    let refused = REFUSALS.into_iter().map(|kind| {
        ToServer::Refused(Refusal {
            generation: Generation(8),
            kind,
            message: kind.as_str().into(),
        })
    });
    let mut long = in_the_way();
    long.conditions[0].message = "x".repeat(PIECE_BYTES);
    vec![
        ("agent-hello", vec![ToServer::Hello(hello)]),
        ("agent-hello-first", vec![ToServer::Hello(first)]),
        (
            "agent-ack",
            vec![ToServer::Ack {
                generation: Generation(8),
                hash: assignment("new").hash(),
            }],
        ),
        (
            "agent-resync",
            vec![ToServer::Resync {
                reason: "the delta applies to something else".into(),
            }],
        ),
        ("agent-refused", refused.collect()),
        (
            "agent-status",
            vec![
                ToServer::Status {
                    complete: true,
                    resources: vec![status(), in_the_way()],
                },
                ToServer::Status {
                    complete: false,
                    resources: Vec::new(),
                },
            ],
        ),
        (
            "agent-status-in-pieces",
            vec![ToServer::Status {
                complete: false,
                resources: vec![long],
            }],
        ),
        (
            "agent-events",
            vec![ToServer::Events {
                events: events(),
                dropped: 2,
            }],
        ),
        ("agent-heartbeat", vec![ToServer::Heartbeat]),
        (
            "agent-want-secrets",
            vec![ToServer::WantSecrets(vec![secret(1), secret(2)])],
        ),
        (
            "agent-logs-failed",
            vec![ToServer::LogsFailed {
                request: 5,
                message: "there are no logs of web".into(),
            }],
        ),
    ]
}

/// What control planes say, by the name of its recording.
fn of_servers() -> Vec<(&'static str, Vec<ToAgent>)> {
    let (old, new) = (assignment("old"), assignment("new"));
    let snapshot = |assignment: &Assignment, generation| ToAgent::Snapshot {
        generation: Generation(generation),
        hash: assignment.hash(),
        releases: releases(),
        bytes: assignment.bytes(),
        confirm_empty: false,
    };
    let large = assignment(&"x".repeat(2 * PIECE_BYTES));
    vec![
        (
            "server-welcome",
            vec![ToAgent::Welcome {
                session: 12,
                lineage: lineage(),
                heartbeat_ms: 15_000,
                server_time: at(7),
                protocol: 1,
                version: String::new(),
            }],
        ),
        ("server-snapshot", vec![snapshot(&old, 7)]),
        ("server-snapshot-in-pieces", vec![snapshot(&large, 9)]),
        (
            "server-delta",
            vec![ToAgent::Delta {
                generation: Generation(8),
                releases: releases(),
                delta: old.delta_to(&new),
            }],
        ),
        (
            "server-delta-removes",
            vec![ToAgent::Delta {
                generation: Generation(9),
                releases: releases(),
                delta: Delta {
                    applies_to: new.hash(),
                    results_in: old.hash(),
                    upserts: Vec::new(),
                    removes: vec!["web-1/old/file//etc/old.conf".parse().unwrap()],
                },
            }],
        ),
        (
            "server-open-logs",
            vec![ToAgent::OpenLogs(LogsRequest {
                request: 5,
                owner: owner(),
                process: Some(ProcessName::new("app").unwrap()),
                follow: true,
                since: Some(at(8)),
                tail: Some(100),
            })],
        ),
        ("server-close-logs", vec![ToAgent::CloseLogs { request: 5 }]),
        (
            "server-secret-values",
            vec![ToAgent::Secrets {
                values: vec![(secret(2), Secret::new("not-a-real-value".into()))],
                missing: vec![secret(1)],
            }],
        ),
        ("server-renew", vec![ToAgent::Renew { within_ms: 60_000 }]),
        (
            "server-rekey",
            vec![ToAgent::Rekey {
                code: "0123456789".into(),
            }],
        ),
        (
            "server-goodbye",
            vec![ToAgent::Goodbye {
                reason: "the control plane is going down".into(),
            }],
        ),
    ]
}

/// Threat row 42. Mutation: give a field of `agents.proto` another number, or rename a variant of `Reason`.
#[test]
fn what_agents_and_control_planes_of_version_1_say_means_what_it_meant() {
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
}

#[test]
fn there_is_no_recording_of_version_1_that_no_test_reads() {
    let mut known: Vec<String> = of_agents().into_iter().map(|(n, _)| n.to_owned()).collect();
    known.extend(of_servers().into_iter().map(|(n, _)| n.to_owned()));
    known.extend(super::v1_values::names().map(str::to_owned));
    known.sort();
    assert_eq!(names(VERSION), known);
}
