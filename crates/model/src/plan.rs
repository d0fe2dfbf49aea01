//! The plan: the reviewed difference between recorded state and blueprints.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::Address;
use crate::capability::Capability;
use crate::coverage::Cost;
use crate::hash::Hash;
use crate::known_secrets::UnsetSecret;
use crate::name::{MachineName, OwnerName, WorkspaceName};
use crate::resource::DriftPolicy;
use crate::state::{Commit, OwnerKind, ResolutionKey, RevisionKind};
use crate::{ReleaseNumber, Revision};

/// The version of the plan's JSON.
pub const FORMAT: u32 = 1;

/// A place in a blueprint.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// The file, relative to the repository's root.
    pub file: String,
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            crate::escape::line(&self.file),
            self.line,
            self.column
        )
    }
}

/// What happens to a resource.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ChangeAction {
    /// It is made.
    Create,
    /// It is changed where it is.
    Update,
    /// The new one is made, then the old one removed.
    ReplaceCreateFirst,
    /// The old one is removed, then the new one made.
    ReplaceDeleteFirst,
    /// It is removed.
    Delete,
    /// It is left as it is, and Plumb no longer looks after it.
    Forget,
    /// Something that is already there becomes Plumb's.
    Adopt,
    /// Nothing happens.
    NoOp,
}

/// One differing attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttributeChange {
    /// The field, then keys, joined by dots.
    pub path: String,
    /// What is recorded.
    pub before: Option<Value>,
    /// What is to be.
    pub after: Option<Value>,
    /// The values are hidden.
    pub sensitive: bool,
    /// A keyed hash over both hidden values, so that an approval covers what it does not show. None where nothing is hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Hash>,
    /// The value is known only once it has been applied.
    pub unknown: bool,
    /// What the change costs.
    pub cost: Cost,
}

/// What happens to one resource, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Which resource.
    pub address: Address,
    /// What happens.
    pub action: ChangeAction,
    /// Why, each a sentence fragment.
    pub reasons: Vec<String>,
    /// What differs.
    pub attributes: Vec<AttributeChange>,
    /// What it waits for or what keeps it from being done, each a sentence fragment that says which of the two.
    pub blocked_by: Vec<String>,
    /// The dearest cost among the attributes; none where nothing runs yet or any more.
    pub cost: Option<Cost>,
    /// What is felt of it, which is less than its cost where nothing runs now.
    #[serde(default)]
    pub felt: Felt,
    /// What users of the app will notice, if anything: the reason for the downtime.
    pub downtime: Option<String>,
    /// Where in the blueprints it comes from. Outside the approval hash.
    pub origin: Option<Origin>,
}

/// What happens to a machine's own record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineChange {
    /// Which machine.
    pub machine: MachineName,
    /// Create, Update or Delete.
    pub action: ChangeAction,
    /// What differs.
    pub attributes: Vec<AttributeChange>,
}

/// An app, Setup, Service, Volume or Network as the plan touches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnerChange {
    /// Which.
    pub owner: OwnerName,
    /// What kind of blueprint it is.
    pub kind: OwnerKind,
    /// Create, Update, Delete, or Forget where all that it had is data that stays.
    pub action: ChangeAction,
    /// The name that it had, if the blueprint renames it.
    pub renamed_from: Option<OwnerName>,
    /// The release that it is at.
    pub from: Option<ReleaseNumber>,
    /// The release that this makes.
    pub to: ReleaseNumber,
    /// What its users will notice.
    pub felt: Felt,
    /// Why it is down for a time, each a sentence fragment, sorted; empty: no downtime.
    pub downtime: BTreeSet<String>,
    /// Resources with data that are destroyed.
    pub data_loss: BTreeSet<Address>,
    /// Where its blueprint stands. Outside the approval hash.
    pub origin: Option<Origin>,
}

/// What will be felt of a change, from least to most.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Felt {
    /// Nothing that runs is touched.
    #[default]
    Nothing,
    /// Changed in place.
    InPlace,
    /// What runs reads its configuration again.
    Reload,
    /// Something starts that did not run before.
    Start,
    /// Some of what runs is stopped, and the rest goes on.
    StopPart,
    /// What runs is stopped and started.
    Restart,
    /// What runs is made anew.
    Replace,
    /// What runs is stopped.
    Stop,
}

/// How much a plan touches.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct BlastRadius {
    /// Machines whose assignment moves.
    pub machines: BTreeSet<MachineName>,
    /// Running things that are restarted or made anew.
    pub restarts: u32,
    /// Resources that are replaced.
    pub replacements: u32,
    /// Resources that are deleted.
    pub deletes: u32,
    /// Resources with data that are deleted or made anew.
    pub data_deletes: u32,
    /// For each app, how many of its processes are unavailable at once at the worst moment.
    pub peak_unavailable: BTreeMap<OwnerName, u32>,
}

/// The monthly cost of the machines, per currency, in hundredths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct MonthlyCost {
    /// Before.
    pub before_cents: BTreeMap<String, u64>,
    /// After.
    pub after_cents: BTreeMap<String, u64>,
}

/// Something that is recorded and differs on the VM, without anybody having asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DriftNote {
    /// Where.
    pub address: Address,
    /// What was seen.
    pub message: String,
    /// What is done about it, whether or not this plan is applied.
    pub policy: DriftPolicy,
}

/// Something that a resource asks of its machine and the machine cannot do. A plan with one of these for a resource that
/// it creates or changes can be read, and not applied.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Lack {
    /// Which resource.
    pub address: Address,
    /// What it asks for, in words: `a container`, `limits`.
    pub asks_for: String,
    /// The capability behind it.
    pub capability: Capability,
    /// Why the machine lacks it.
    pub why: String,
    /// What to do or run on the machine to get it.
    pub remedy: String,
    /// Whether the resource is as it was: then nothing is kept from being applied.
    pub unchanged: bool,
    /// Where in the blueprints it comes from.
    pub origin: Option<Origin>,
}

/// What a moving name meant when it was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resolution {
    /// The digest, commit or version; none where nobody has resolved it: such a plan can be read, and not applied.
    pub resolved: Option<String>,
    /// What is recorded, where that is something else.
    pub before: Option<String>,
}

/// What to write in place of a moving name that nobody has looked up: this version looks nothing up, wherever it plans. A
/// sentence fragment.
#[must_use]
pub fn instead_of(key: &ResolutionKey) -> &'static str {
    match key.0.split(' ').next() {
        Some("git") => {
            "write `commit:` with the whole id of a commit in place of the branch or tag"
        }
        Some("image") => "write the image with its digest, `NAME@sha256:…`",
        Some("runtime") => "write an exact version, such as `node@20.11.1`",
        Some("service") => "write an exact version, such as `postgres@16.3`",
        _ => "plan where the files of the repository are",
    }
}

/// Says that nobody knows what a moving name means, and what to do. A sentence fragment.
#[must_use]
pub fn unresolved(key: &ResolutionKey) -> String {
    format!(
        "nobody has looked up what `{key}` means, and this version of Plumb cannot: {}",
        instead_of(key)
    )
}

/// Why something is not done now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NotDone {
    /// What it is about: a machine, an owner or an address.
    pub subject: String,
    /// Why, and what will get it done.
    pub reason: String,
}

/// Something that an apply must be told to go ahead with, by `--allow NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct NeedsConsent {
    /// The name that `--allow` takes.
    pub allow: String,
    /// Why it is asked for.
    pub reason: String,
}

/// A plan. Immutable and complete: whoever executes it has no choice left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// The manifest's name, or that of the recorded one.
    pub workspace: Option<WorkspaceName>,
    /// What is being planned.
    pub kind: RevisionKind,
    /// The revision that it was planned against. Outside the approval hash.
    pub base: Revision,
    /// The commit that the blueprints come from. Outside the approval hash.
    pub commit: Option<Commit>,
    /// Machines that come, change or go.
    pub machines: Vec<MachineChange>,
    /// Apps, Setups, Services, Volumes and Networks that come, change or go.
    pub owners: Vec<OwnerChange>,
    /// Every resource that changes, sorted by address.
    pub changes: Vec<Change>,
    /// Required order among the changed resources: the first before the second. Acyclic; reversed for deletes.
    pub order: Vec<(Address, Address)>,
    /// The owners that were asked for, with those that they depend on; empty is all. Outside the approval hash.
    pub targets: BTreeSet<OwnerName>,
    /// What moving names stood for.
    pub resolutions: BTreeMap<ResolutionKey, Resolution>,
    /// How much is touched.
    pub blast_radius: BlastRadius,
    /// What it costs.
    pub monthly_cost: MonthlyCost,
    /// Drift seen when it was planned. Outside the approval hash.
    pub drift: Vec<DriftNote>,
    /// What is not done now, and why.
    pub not_done: Vec<NotDone>,
    /// What machines cannot do. Outside the approval hash.
    pub lacks: Vec<Lack>,
    /// Secrets that nobody has set. Outside the approval hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unset_secrets: Vec<UnsetSecret>,
    /// What it must be allowed to do.
    pub consents: Vec<NeedsConsent>,
    /// The number of resources that stay as they are.
    pub unchanged: u64,
    /// What approves exactly this: a hash over changes, order, resolutions, blast radius and consents.
    pub approval: Hash,
}

impl Plan {
    /// Whether applying it would change nothing. A renamed workspace is a change of what is recorded even where
    /// nothing else moves: it shows in the consents alone.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && self.machines.is_empty()
            && self.owners.is_empty()
            && self.consents.is_empty()
    }

    /// What keeps it from being applied, whatever is allowed: names that nobody has resolved, and what machines lack for
    /// something that it creates or changes. Each is a sentence fragment that says what to do.
    pub fn obstacles(&self) -> impl Iterator<Item = String> {
        let unresolved = self
            .resolutions
            .iter()
            .filter(|(_, resolution)| resolution.resolved.is_none())
            .map(|(key, _)| unresolved(key));
        let lacks = self
            .lacks
            .iter()
            .filter(|lack| !lack.unchanged)
            .map(|lack| {
                format!(
                    "`{}` asks for {}, which machine `{}` cannot do: {}; {}",
                    lack.address, lack.asks_for, lack.address.machine, lack.why, lack.remedy
                )
            });
        let unset = self
            .unset_secrets
            .iter()
            .map(|unset| format!("{}: {}", unset.what(), unset.remedy()));
        unresolved.chain(lacks).chain(unset)
    }

    /// The approval hash of its content as it stands: see [`approval`](crate::approval) for what it covers.
    #[must_use]
    pub fn approval_hash(&self) -> Hash {
        crate::approval::hash(self)
    }
}
