//! What is recorded of a workspace: which release each owner is at, and what each machine was assigned.
//!
//! The planner reads a [`Recorded`] and produces a [`Next`]; the ledger stores one and loads the other,
//! and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::address::Address;
use crate::hash::Hash;
use crate::name::{MachineName, OwnerName, SecretName, WorkspaceName};
use crate::resource::Resource;
use crate::rollout::Rolling;
use crate::{Generation, ReleaseNumber, Revision};

/// The newest format of [`StateBody`] and [`ReleaseBody`] that this version reads and the one it writes.
pub const FORMAT: u32 = 1;

/// What a blueprint says of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MachineInfo {
    /// Free-form labels, which selectors match.
    pub labels: BTreeMap<String, String>,
    /// Addresses by network (`public`, `private`).
    pub address: BTreeMap<String, String>,
    /// What it costs.
    pub price: Option<Price>,
}

/// A monthly price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Hundredths of the currency's unit each month.
    pub monthly_cents: u64,
    /// The currency's ISO 4217 code.
    pub currency: String,
}

/// What kind of blueprint owns resources.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum OwnerKind {
    /// An app.
    App,
    /// A machine's own set-up.
    Setup,
    /// Shared infrastructure.
    Service,
    /// A volume of its own, which several apps may use.
    Volume,
    /// A network of its own, which several apps may use.
    Network,
}

impl OwnerKind {
    /// The word of the blueprint language.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "App",
            Self::Setup => "Setup",
            Self::Service => "Service",
            Self::Volume => "Volume",
            Self::Network => "Network",
        }
    }
}

/// The content of one release: every rendered resource of one owner on all machines. Stored whole, so that
/// rolling back needs nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseBody {
    /// [`FORMAT`].
    pub format: u32,
    /// Whose it is.
    pub owner: OwnerName,
    /// What kind of blueprint it is.
    pub kind: OwnerKind,
    /// All resources, sorted by address.
    #[serde(deserialize_with = "exact")]
    pub resources: Vec<Arc<Resource>>,
    /// What its moving names meant when it was planned. They stay until their text changes or somebody asks for a refresh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resolutions: BTreeMap<ResolutionKey, String>,
    /// How machines move to it, where the blueprint says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
}

/// Of what a list was given to grow into nothing is kept: a control plane and a planner hold many of these, for long.
fn exact<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Arc<Resource>>, D::Error> {
    let mut resources = Vec::deserialize(from)?;
    resources.shrink_to_fit();
    Ok(resources)
}

impl ReleaseBody {
    /// The resource at an address.
    #[must_use]
    pub fn resource(&self, address: &Address) -> Option<&Arc<Resource>> {
        let at = self.resources.binary_search_by(|r| r.address.cmp(address));
        at.ok().map(|at| &self.resources[at])
    }
}

/// How machines move from one release of an app to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// In which way.
    pub strategy: RolloutStrategy,
    /// So many instances at a time.
    pub batch: u32,
    /// So many instances may be unavailable at once.
    pub max_unavailable: u32,
    /// An instance counts once it has been healthy for so many milliseconds.
    pub min_healthy_ms: u64,
    /// The rollout has failed after so many milliseconds without progress.
    pub deadline_ms: u64,
    /// Whether a failed rollout goes back to the last good release.
    pub auto_revert: bool,
}

/// In which way machines move from one release to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutStrategy {
    /// The new one starts beside the old one, which goes once the new one answers.
    #[default]
    BlueGreen,
    /// The old one stops, then the new one starts, batch by batch.
    Rolling,
    /// One instance first, and the others once it has proven itself.
    Canary,
}

impl Default for Rollout {
    /// One at a time, none unavailable, 10 s of health, 5 minutes, back by itself.
    fn default() -> Self {
        Self {
            strategy: RolloutStrategy::BlueGreen,
            batch: 1,
            max_unavailable: 0,
            min_healthy_ms: 10_000,
            deadline_ms: 300_000,
            auto_revert: true,
        }
    }
}

/// A moving name as it is written: what a [resolution](crate::plan::Resolution) is looked up by. Text form:
/// `git URL branch main`, `image REFERENCE`, `runtime node@20`, `path app`.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
pub struct ResolutionKey(pub String);

impl std::fmt::Display for ResolutionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

impl ReleaseBody {
    /// The exact bytes that are stored and hashed.
    ///
    /// # Panics
    /// Never: the value is always JSON.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("model values are always JSON")
    }

    /// The very same bytes, with where in them each resource's own JSON stands, in order: whoever needs that too has it
    /// without writing it again.
    ///
    /// # Panics
    /// Never: the value is always JSON.
    #[must_use]
    pub fn bytes_by_resource(&self) -> (Vec<u8>, Vec<Range<usize>>) {
        #[derive(Serialize)]
        struct Around<'a> {
            format: u32,
            owner: &'a OwnerName,
            kind: OwnerKind,
            resources: [(); 0],
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            resolutions: &'a BTreeMap<ResolutionKey, String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            rollout: &'a Option<Rollout>,
        }
        // A new field of the release does not compile before it stands there too.
        let Self {
            format,
            owner,
            kind,
            resources,
            resolutions,
            rollout,
        } = self;
        let around = Around {
            format: *format,
            owner,
            kind: *kind,
            resources: [],
            resolutions,
            rollout,
        };
        let around = serde_json::to_vec(&around).expect("model values are always JSON");
        // No name, of which alone what stands before consists, can hold this.
        const LIST: &[u8] = b"\"resources\":[";
        let at = around
            .windows(LIST.len())
            .position(|part| part == LIST)
            .expect("the list of resources is written")
            + LIST.len();
        let mut bytes = Vec::with_capacity(around.len() + 512 * resources.len());
        bytes.extend_from_slice(&around[..at]);
        let mut each = Vec::with_capacity(resources.len());
        for (index, resource) in resources.iter().enumerate() {
            if index > 0 {
                bytes.push(b',');
            }
            let start = bytes.len();
            serde_json::to_writer(&mut bytes, resource).expect("model values are always JSON");
            each.push(start..bytes.len());
        }
        bytes.extend_from_slice(&around[at..]);
        (bytes, each)
    }
}

/// An owner in the recorded state, by reference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerState {
    /// Its current release.
    pub release: ReleaseNumber,
    /// The hash of that release's [`ReleaseBody`].
    pub body: Hash,
}

/// A machine in the recorded state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineState {
    /// What the blueprint says of it.
    pub info: MachineInfo,
    /// The generation of its assignment. While it is rolling, the one that it would have had at once.
    pub generation: Generation,
    /// The hash of its assignment's bytes. While it is rolling, the one that it comes to in the end.
    pub assignment: Hash,
    /// What has been ordered removed and not yet been proven gone.
    pub tombstones: BTreeMap<Address, Generation>,
    /// It is in no blueprint any more, and kept only until its tombstones are settled.
    pub leaving: bool,
    /// What it holds meanwhile, where rollouts take it there in steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolling: Option<Rolling>,
}

/// The whole recorded state of a workspace at one revision, with bodies by hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBody {
    /// [`FORMAT`].
    pub format: u32,
    /// The revision that this is.
    pub revision: Revision,
    /// The name in the manifest that was applied.
    pub manifest: Option<WorkspaceName>,
    /// Every owner.
    pub owners: BTreeMap<OwnerName, OwnerState>,
    /// Every machine.
    pub machines: BTreeMap<MachineName, MachineState>,
    /// The highest release number ever given to each owner, deleted ones included, so that none is used twice.
    pub last_release: BTreeMap<OwnerName, ReleaseNumber>,
    /// The generation that a machine had when it left, where that is above the number of the revision. One that comes back
    /// under its name counts on from there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<MachineName, Generation>,
}

impl Default for StateBody {
    fn default() -> Self {
        Self {
            format: FORMAT,
            revision: Revision(0),
            manifest: None,
            owners: BTreeMap::new(),
            machines: BTreeMap::new(),
            last_release: BTreeMap::new(),
            left: BTreeMap::new(),
        }
    }
}

impl StateBody {
    /// The exact bytes that are stored and hashed.
    ///
    /// # Panics
    /// Never: the value is always JSON.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("model values are always JSON")
    }
}

/// The recorded state with the current releases' bodies at hand: what the planner plans against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The state.
    pub state: StateBody,
    /// The body of every owner's current release.
    pub releases: BTreeMap<OwnerName, Arc<ReleaseBody>>,
}

/// Why a plan's next state does not hold together: a defect of whoever made it.
#[derive(Debug, thiserror::Error)]
pub enum NextError {
    /// A body that the state refers to is neither new nor recorded.
    #[error("the content of the next release of {0} is missing")]
    Missing(OwnerName),
    /// A body that cannot be read.
    #[error("the content of the next release of {0} cannot be read")]
    Unreadable(OwnerName, #[source] serde_json::Error),
}

impl Recorded {
    /// The resource that is recorded at an address.
    #[must_use]
    pub fn resource(&self, address: &Address) -> Option<&Arc<Resource>> {
        self.releases.get(&address.owner)?.resource(address)
    }

    /// What is recorded once a plan that was made against this has been applied. Bodies are read back from the very bytes
    /// that are stored; those that did not move are shared.
    ///
    /// # Errors
    /// The plan was made against something else.
    pub fn after(&self, next: &Next) -> Result<Self, NextError> {
        let mut releases = BTreeMap::new();
        for (owner, state) in &next.state.owners {
            let held = self.state.owners.get(owner);
            let kept = self
                .releases
                .get(owner)
                .filter(|_| held.is_some_and(|held| held.body == state.body));
            let body = match (kept, next.bodies.get(&state.body)) {
                (Some(body), _) => body.clone(),
                (None, Some(bytes)) => {
                    let mut read: ReleaseBody = serde_json::from_slice(bytes)
                        .map_err(|e| NextError::Unreadable(owner.clone(), e))?;
                    for resource in &mut read.resources {
                        // What has not moved is held by machines, too.
                        if let Some(same) =
                            self.resource(&resource.address).filter(|r| *r == resource)
                        {
                            *resource = same.clone();
                        }
                    }
                    Arc::new(read)
                }
                (None, None) => return Err(NextError::Missing(owner.clone())),
            };
            releases.insert(owner.clone(), body);
        }
        Ok(Self {
            state: next.state.clone(),
            releases,
        })
    }
}

/// What an apply records: the next state and every immutable body that it refers to and that may be new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The state, complete with its revision, generations and release numbers.
    pub state: StateBody,
    /// Bodies by the hash of their exact bytes: releases and assignments.
    pub bodies: BTreeMap<Hash, Vec<u8>>,
    /// The owners whose release number moved, with the new number.
    pub released: BTreeMap<OwnerName, ReleaseNumber>,
    /// The machines whose generation moved, with the new one.
    pub moved: BTreeMap<MachineName, Generation>,
}

/// A git commit, as far as it is told about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Commit {
    /// The full object id.
    pub id: String,
    /// `Name <mail>` of its author.
    pub author: String,
    /// Its first line.
    pub subject: String,
    /// Whether the working tree differed from it.
    pub dirty: bool,
}

/// Why a revision was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevisionKind {
    /// Blueprints were applied.
    Apply,
    /// An owner went back to an earlier release's content.
    Rollback {
        /// The owner.
        owner: OwnerName,
        /// The release whose content it took.
        to: ReleaseNumber,
    },
    /// Everything was removed.
    Destroy,
    /// What uses these secrets went on to their newest versions.
    Secrets {
        /// Which.
        names: BTreeSet<SecretName>,
    },
    /// Machines that held more than was recorded went on from what is recorded.
    Recover {
        /// Which, each with the generation that it holds from then on.
        machines: BTreeMap<MachineName, Generation>,
    },
}

/// The record of one revision, in the append-only log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// When it was recorded.
    pub at: crate::Timestamp,
    /// Who applied it: the name of the token that was used.
    pub by: String,
    /// The commit that the blueprints came from.
    pub commit: Option<Commit>,
    /// Why.
    pub kind: RevisionKind,
    /// The approval hash of the plan that was applied.
    pub approval: Hash,
    /// The hash of the [`StateBody`] that it led to.
    pub state: Hash,
    /// The releases that it made, with the hash of each body; none for an owner that it removed.
    pub released: BTreeMap<OwnerName, (ReleaseNumber, Option<Hash>)>,
    /// What it needed consent for and was allowed, by the names that `--allow` takes, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<String>,
    /// The owners that it renamed, with the names that they had.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub renamed: BTreeMap<OwnerName, OwnerName>,
}

/// Each of these records, which come newest first, with the name that an owner had when it was made.
pub fn with_name<'a>(
    owner: &OwnerName,
    records: impl IntoIterator<Item = &'a RevisionRecord>,
) -> impl Iterator<Item = (OwnerName, &'a RevisionRecord)> {
    let mut name = owner.clone();
    records.into_iter().map(move |record| {
        let before = record.renamed.get(&name).unwrap_or(&name).clone();
        (std::mem::replace(&mut name, before), record)
    })
}

/// What became of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not everything has reported yet.
    Converging,
    /// Every machine reported it converged, and healthy where there is a check.
    Converged,
    /// A machine reported a failure and it has not converged since.
    Failed,
    /// The next release came before it converged.
    Superseded,
    /// It removed the owner, and all was proven gone.
    Removed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DriftPolicy;
    use crate::spec::{DirectorySpec, Mode, ResourceSpec};

    fn resource(path: &str) -> Resource {
        let spec = DirectorySpec {
            path: path.into(),
            mode: Mode(0o755),
            owner: Some("\"resources\":[".into()),
            group: None,
        };
        let address = format!("m/o/directory/{path}").parse().unwrap();
        Resource::new(address, DriftPolicy::Enforce, ResourceSpec::Directory(spec))
    }

    #[test]
    fn the_bytes_of_a_release_are_the_same_when_each_resource_is_found_in_them() {
        let key = ResolutionKey("runtime node@20".to_owned());
        for resources in [
            vec![],
            vec![resource("/a")],
            vec![resource("/a"), resource("/b")],
        ] {
            for rollout in [None, Some(Rollout::default())] {
                for resolutions in [
                    BTreeMap::new(),
                    BTreeMap::from([(key.clone(), "20.1.0".to_owned())]),
                ] {
                    let body = ReleaseBody {
                        format: FORMAT,
                        owner: OwnerName::new("o").unwrap(),
                        kind: OwnerKind::Setup,
                        resources: resources.iter().cloned().map(Arc::new).collect(),
                        resolutions,
                        rollout: rollout.clone(),
                    };
                    let (bytes, each) = body.bytes_by_resource();
                    assert_eq!(bytes, body.bytes());
                    assert_eq!(each.len(), resources.len());
                    for (range, resource) in each.into_iter().zip(&resources) {
                        assert_eq!(bytes[range], serde_json::to_vec(resource).unwrap());
                    }
                }
            }
        }
    }
}
