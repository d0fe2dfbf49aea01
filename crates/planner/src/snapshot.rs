//! Everything that a plan depends on besides the blueprints, as bytes: what is recorded and what was observed, so that
//! anybody can plan against it later, without a control plane.
//!
//! The control plane writes one, `plumb plan --snapshot` reads it. There is no secret in it, since there is none in what
//! is recorded: specs name secrets, and hold no value; of each the versions and keyed hashes are told.
//!
//! The first line is `plumb-snapshot FORMAT DIGEST`, with the BLAKE3 digest of all that follows: one JSON line for each
//! part, the head first.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::state::{Recorded, ReleaseBody, StateBody};
use plumb_model::{
    Address, Hash, KnownSecrets, Lineage, MachineName, OwnerName, ResourceStatus, Timestamp,
    WorkspaceName, parallel,
};
use serde::{Deserialize, Serialize};

use crate::Observed;

/// The format that this version writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A snapshot larger than this is refused, in bytes: far beyond 100,000 resources.
pub const MAX_BYTES: u64 = 1 << 30;

/// How the first line begins.
const MAGIC: &str = "plumb-snapshot";

/// What a control plane knew at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// Who took it, of what, when; none of one that was put together here.
    pub head: Option<Head>,
    /// What was recorded.
    pub recorded: Recorded,
    /// What was known of the fleet.
    pub observed: Observed,
    /// Which secrets were set.
    pub secrets: KnownSecrets,
}

/// Who took a snapshot, of what, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Whose history it is.
    pub lineage: Lineage,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// When it was taken.
    pub at: Timestamp,
    /// By which version of Plumb.
    pub version: String,
}

/// Why bytes are no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Something else altogether.
    #[error("it is no snapshot: make one with `plumb snapshot --out FILE`")]
    NotOne,
    /// Written by a newer Plumb.
    #[error(
        "the snapshot has format {0}, newer than the {FORMAT} that this version reads; upgrade plumb"
    )]
    Newer(u32),
    /// Cut short or changed.
    #[error(
        "the snapshot was cut short or changed since it was taken; take it again with `plumb snapshot`"
    )]
    Damaged,
    /// A line that is not what it should be; counted from 1.
    #[error("line {0} of the snapshot cannot be read: {1}")]
    Line(usize, String),
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Write<'a> {
    Head(&'a Head),
    State(&'a StateBody),
    Release(&'a ReleaseBody),
    Machine(&'a MachineName, &'a MachineFacts),
    Status(&'a ResourceStatus),
    Secrets(&'a KnownSecrets),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "one line at a time is held, and nearly all are releases and statuses"
)]
enum Read {
    Head(Head),
    State(StateBody),
    Release(ReleaseBody),
    Machine(MachineName, MachineFacts),
    Status(ResourceStatus),
    Secrets(KnownSecrets),
}

impl Snapshot {
    /// The bytes of a snapshot.
    ///
    /// # Panics
    /// Never: model values are always JSON.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let mut line = |part: &Write<'_>| {
            serde_json::to_writer(&mut body, part).expect("model values are always JSON");
            body.push(b'\n');
        };
        if let Some(head) = &self.head {
            line(&Write::Head(head));
        }
        line(&Write::State(&self.recorded.state));
        for release in self.recorded.releases.values() {
            line(&Write::Release(release));
        }
        for (machine, facts) in &self.observed.machines {
            line(&Write::Machine(machine, facts));
        }
        for status in self.observed.statuses.values() {
            line(&Write::Status(status));
        }
        if self.secrets.0.is_some() {
            line(&Write::Secrets(&self.secrets));
        }
        let mut bytes = format!("{MAGIC} {FORMAT} {}\n", Hash::of(&body)).into_bytes();
        bytes.append(&mut body);
        bytes
    }

    /// Reads the bytes of [`Snapshot::bytes`].
    ///
    /// # Errors
    /// Anything else, with what to do.
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let end = bytes
            .iter()
            .take(128)
            .position(|b| *b == b'\n')
            .ok_or(SnapshotError::NotOne)?;
        let first = std::str::from_utf8(&bytes[..end]).map_err(|_| SnapshotError::NotOne)?;
        let mut words = first.split(' ');
        let (Some(MAGIC), Some(format), Some(digest), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(SnapshotError::NotOne);
        };
        let format: u32 = format.parse().map_err(|_| SnapshotError::NotOne)?;
        if format > FORMAT {
            return Err(SnapshotError::Newer(format));
        }
        let body = &bytes[end + 1..];
        if digest.parse() != Ok(Hash::of(body)) {
            return Err(SnapshotError::Damaged);
        }
        let mut snapshot = Self::default();
        let mut releases = BTreeMap::<OwnerName, Arc<ReleaseBody>>::new();
        let mut statuses = BTreeMap::<Address, Arc<ResourceStatus>>::new();
        // Checked as a whole, which is much quicker than text by text.
        let text = std::str::from_utf8(body).map_err(|_| SnapshotError::Damaged)?;
        let lines = text.lines().enumerate().collect();
        let read = parallel::each(lines, body.len(), |(at, line)| {
            serde_json::from_str::<Read>(line)
                .map(Box::new)
                .map_err(|e| SnapshotError::Line(at + 2, e.to_string()))
        });
        for read in read {
            match *read? {
                Read::Head(head) => snapshot.head = Some(head),
                Read::State(state) => snapshot.recorded.state = state,
                Read::Release(body) => {
                    releases.insert(body.owner.clone(), Arc::new(body));
                }
                Read::Machine(name, facts) => {
                    snapshot.observed.machines.insert(name, facts);
                }
                Read::Secrets(secrets) => snapshot.secrets = secrets,
                Read::Status(status) => {
                    statuses.insert(status.address.clone(), Arc::new(status));
                }
            }
        }
        snapshot.recorded.releases = releases;
        snapshot.observed.statuses = statuses;
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::World;

    fn taken() -> Snapshot {
        let app = "kind: App\nname: hello\nmachines: all\nrun: ./hello\nports: { http: auto }\n";
        let mut world = World::new(&["a", "b"], app);
        world.go();
        Snapshot {
            head: Some(Head {
                lineage: Lineage::from_random([7; 16]),
                workspace: WorkspaceName::new("w").unwrap(),
                at: "2026-11-21T08:00:00Z".parse().unwrap(),
                version: "0.1.0".to_owned(),
            }),
            recorded: world.recorded.clone(),
            observed: world.observed.clone(),
            secrets: KnownSecrets(Some(BTreeMap::new())),
        }
    }

    #[test]
    fn a_snapshot_reads_back_as_it_was() {
        let snapshot = taken();
        assert!(!snapshot.recorded.releases.is_empty());
        assert_eq!(Snapshot::parse(&snapshot.bytes()), Ok(snapshot));
    }

    #[test]
    fn what_was_cut_changed_or_made_by_a_newer_version_is_refused() {
        let bytes = taken().bytes();
        for cut in [0, 5, 60, 90, bytes.len() / 2, bytes.len() - 1] {
            assert!(Snapshot::parse(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut flipped = bytes.clone();
        let at = flipped.len() - 10;
        flipped[at] ^= 1;
        assert_eq!(Snapshot::parse(&flipped), Err(SnapshotError::Damaged));
        let newer = String::from_utf8(bytes).unwrap().replacen(" 1 ", " 2 ", 1);
        assert_eq!(
            Snapshot::parse(newer.as_bytes()),
            Err(SnapshotError::Newer(2))
        );
        assert_eq!(
            Snapshot::parse(b"kind: App\nname: x\n"),
            Err(SnapshotError::NotOne)
        );
    }
}
