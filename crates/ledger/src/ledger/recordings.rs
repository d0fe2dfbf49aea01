//! Frozen bytes of every record that the ledger stores, held against what they mean: `crates/ledger/recordings/`.
//!
//! A recording is never written anew: what an earlier version has stored stays as it is on somebody's disk.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use plumb_model::condition::EventKind;
use plumb_model::journal::{Happening, Head as JournalHead};
use plumb_model::rollout::{HeldBack, Position, Rolling};
use plumb_model::state::{Commit, Outcome, RevisionKind, RevisionRecord};
use plumb_model::{
    Generation, Hash, MachineName, OwnerName, ReleaseNumber, Revision, SecretName, Timestamp,
    WorkspaceName,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

fn path(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("recordings/v1");
    folder.join(format!("{name}.json"))
}

/// Reads a recording back, and what is written of that: an older version has to be able to read it too.
fn hold<T>(name: &str, value: &T)
where
    T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let path = path(name);
    if !path.exists() && std::env::var_os("PLUMB_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, records::encode(value)).unwrap();
    }
    let bytes = std::fs::read(&path).expect("a recording of this name");
    let read: T = records::parse(name, &bytes).expect("it can be read");
    assert_eq!(read, *value, "{name}");
    assert_eq!(
        String::from_utf8_lossy(&records::encode(&read)),
        String::from_utf8_lossy(&bytes),
        "{name}"
    );
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn machine() -> MachineName {
    MachineName::new("web-1").unwrap()
}

fn owner() -> OwnerName {
    OwnerName::new("web").unwrap()
}

fn hash(text: &str) -> Hash {
    Hash::of(text.as_bytes())
}

fn revision(kind: RevisionKind) -> RevisionRecord {
    RevisionRecord {
        revision: Revision(7),
        at: at(1),
        by: "ci".into(),
        commit: Some(Commit {
            id: "0123456789abcdef0123456789abcdef01234567".into(),
            author: "Ann <ann@example.com>".into(),
            subject: "Serve the shop".into(),
            dirty: true,
        }),
        kind,
        approval: hash("approval"),
        state: hash("state"),
        released: BTreeMap::from([(owner(), (ReleaseNumber(3), Some(hash("body"))))]),
        allowed: vec!["deletes".into()],
        renamed: BTreeMap::from([(owner(), OwnerName::new("site").unwrap())]),
    }
}

fn token(kind: TokenKind) -> TokenRecord {
    TokenRecord {
        id: "ci".into(),
        secret: hash("secret"),
        kind,
        created: at(1),
        expires_at: Some(at(2)),
        last_used: Some(at(3)),
        consumed: Some(TokenUse {
            at: at(4),
            machine: machine(),
        }),
    }
}

fn event(what: Happening) -> EventRecord {
    EventRecord {
        machine: machine(),
        at: at(1),
        received: at(2),
        away: true,
        entry: Some(9),
        what,
    }
}

/// Threat row 42. Mutation: rename a field of one of these records, or take a default away from one.
#[test]
fn what_was_stored_in_format_1_means_what_it_meant() {
    let head = Head {
        revision: Revision(7),
        state: hash("state"),
        by: "ci".into(),
        at: at(1),
    };
    hold("head", &head);
    hold("revision-apply", &revision(RevisionKind::Apply));
    let rollback = RevisionKind::Rollback {
        owner: owner(),
        to: ReleaseNumber(2),
    };
    hold("revision-rollback", &revision(rollback));
    hold("revision-destroy", &revision(RevisionKind::Destroy));
    let secrets = RevisionKind::Secrets {
        names: BTreeSet::from([SecretName::new("API_KEY").unwrap()]),
    };
    hold("revision-secrets", &revision(secrets));
    let recover = RevisionKind::Recover {
        machines: BTreeMap::from([(machine(), Generation(9))]),
    };
    hold("revision-recover", &revision(recover));
    for (name, outcome) in [
        ("outcome-converging", Outcome::Converging),
        ("outcome-converged", Outcome::Converged),
        ("outcome-failed", Outcome::Failed),
        ("outcome-superseded", Outcome::Superseded),
        ("outcome-removed", Outcome::Removed),
    ] {
        hold(name, &outcome);
    }
    let api = TokenKind::Api {
        role: "deployer".into(),
        all: true,
    };
    hold("token-api", &token(api));
    let join = TokenKind::Join {
        machine: Some(machine()),
    };
    hold("token-join", &token(join));
    let identity = MachineIdentity {
        machine: machine(),
        public_key_sha256: "a".repeat(64),
        certificate_serial: "01".into(),
        enrolled_at: at(1),
        removed: Some(at(2)),
        seen: Some(CertificateSeen {
            ca: "b".repeat(64),
            not_after: at(3),
            trusts: vec!["b".repeat(64)],
        }),
    };
    hold("machine", &identity);
    let audit = AuditLink {
        number: 4,
        before: hash("before"),
        entry: AuditEntry {
            at: at(1),
            who: Actor::Token("ci".into()),
            from: "10.0.0.1".into(),
            method: "ControlPlane/Apply".into(),
            refused: Some("BASE_MOVED".into()),
            detail: "revision 7".into(),
            owners: vec![owner()],
        },
    };
    hold("audit", &audit);
    let audit_head = AuditHead {
        number: 4,
        hash: hash("audit"),
    };
    hold("audit-head", &audit_head);
    let workspace = WorkspaceRecord {
        name: WorkspaceName::new("crm").unwrap(),
        created: at(1),
        by: "root".into(),
    };
    hold("workspace", &workspace);
    let secret = SecretRecord {
        name: SecretName::new("API_KEY").unwrap(),
        kek: "k1".into(),
        data_key: "c2VhbGVk".into(),
        last: 2,
        versions: BTreeMap::from([(
            2,
            SecretVersionRecord {
                set_at: at(1),
                set_by: "ops".into(),
                digest: hash("digest"),
            },
        )]),
    };
    hold("secret", &secret);
    let position = Position {
        machine: machine(),
        at: Rolling {
            since: Revision(7),
            generation: Generation(9),
            assignment: hash("assignment"),
            behind: BTreeMap::from([(owner(), ReleaseNumber(2))]),
        },
    };
    hold("rollout-position", &position);
    let held = HeldBack {
        owner: owner(),
        release: ReleaseNumber(3),
        body: hash("body"),
        why: "web-1 fails".into(),
        at: at(1),
    };
    hold("rollout-held-back", &held);
    hold("event-range", &EventRange { first: 2, last: 9 });
    hold("journal", &JournalHead::start("c".into(), hash("start")));
    let address: plumb_model::Address = "web-1/web/process/app/0".parse().unwrap();
    for (name, what) in [
        (
            "event-agent-started",
            Happening::AgentStarted {
                version: "0.1.0".into(),
                boot: "b".into(),
                booted: Some(true),
            },
        ),
        (
            "event-link-back",
            Happening::LinkBack {
                away_ms: Some(4000),
            },
        ),
        ("event-link-lost", Happening::LinkLost),
        (
            "event-assignment-taken",
            Happening::AssignmentTaken {
                generation: Generation(9),
            },
        ),
        (
            "event-resource",
            Happening::Resource {
                address: address.clone(),
                kind: EventKind::DriftCorrected,
                message: "put right".into(),
            },
        ),
        (
            "event-process-ended",
            Happening::ProcessEnded {
                address: address.clone(),
                status: plumb_model::observation::ExitStatus::Signal(9),
            },
        ),
        (
            "event-condition",
            Happening::Condition {
                address,
                condition: plumb_model::ConditionKind::Blocked,
                set: true,
                reason: Some(plumb_model::Reason::PortTaken),
                message: "port 80 is taken".into(),
            },
        ),
        (
            "event-dropped",
            Happening::Dropped {
                entries: 3,
                through: 5,
                hash: hash("five"),
            },
        ),
        ("event-lost", Happening::Lost { entries: 2 }),
        ("event-damaged", Happening::Damaged { why: "w".into() }),
        (
            "event-begun",
            Happening::Begun {
                why: Some("w".into()),
            },
        ),
        (
            "event-broken",
            Happening::ChainBroken {
                number: 4,
                why: "w".into(),
            },
        ),
    ] {
        hold(name, &event(what));
    }
}

/// Threat row 42. Mutation: read a record before its format.
#[test]
fn a_record_of_a_newer_format_is_refused_by_name_and_one_with_more_fields_is_read() {
    let bytes = br#"{"format":2,"record":{"first":"not a number"}}"#;
    let error = records::parse::<EventRange>("event-head", bytes).unwrap_err();
    assert!(
        matches!(error, LedgerError::Newer { found: 2, .. }),
        "{error}"
    );
    let bytes = br#"{"format":1,"more":1,"record":{"first":2,"last":9,"colour":"blue"}}"#;
    let range: EventRange = records::parse("event-head", bytes).unwrap();
    assert_eq!(range, EventRange { first: 2, last: 9 });
}
