//! Stage 2: compile blueprints into resources for each machine, and diff them against what is recorded.
//!
//! A pure function: no store, no clock, no randomness, nothing looked up. The same input in any order and any
//! file split gives the same plan. The control plane calls it before it records anything, and the CLI offline.

mod capability;
pub mod compile;
mod desired;
mod diff;
mod next;
pub mod snapshot;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::BlueprintSet;
use plumb_model::capability::MachineFacts;
use plumb_model::plan::{Origin, Plan};
use plumb_model::state::{Commit, Next, Recorded, ReleaseBody, ResolutionKey};
use plumb_model::{
    Address, Hash, KnownSecrets, Lineage, MachineName, OwnerName, ReleaseNumber, ResourceStatus,
    SecretName, WorkspaceName,
};
use serde::{Deserialize, Serialize};

pub use desired::Desired;
pub use diff::CONSENTS;

/// What a repository path held when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// BLAKE3 of the packed folder, or of the file's bytes.
    pub digest: Hash,
    /// The number of those bytes.
    pub size: u64,
    /// The bytes of a file, if they are UTF-8 and at most [`MAX_INLINE_BYTES`](plumb_model::spec::MAX_INLINE_BYTES).
    pub text: Option<String>,
}

/// What is to be planned.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one request at a time is held, and nearly always an apply"
)]
pub enum Request {
    /// These blueprints.
    Apply {
        /// All of them, valid.
        blueprint: BlueprintSet,
        /// What each of [`BlueprintSet::paths`] holds.
        sources: BTreeMap<String, Source>,
        /// What of them, and with what was found out beforehand.
        ask: Ask,
    },
    /// An owner's earlier content, forward.
    Rollback {
        /// The owner.
        owner: OwnerName,
        /// The release whose content it takes.
        to: ReleaseNumber,
        /// That content.
        body: Arc<ReleaseBody>,
    },
    /// Nothing: everything that is recorded is removed.
    Destroy,
    /// What is recorded, with these secrets at their newest versions.
    Secrets {
        /// Which.
        names: BTreeSet<SecretName>,
    },
}

/// How blueprints are planned. The default is all of them, with every moving name as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ask {
    /// What moving names mean now, as somebody found out who could look them up. It counts for names that have no
    /// recorded meaning, and for those that are to be refreshed.
    pub resolved: BTreeMap<ResolutionKey, String>,
    /// Which recorded meanings are given up.
    pub refresh: Refresh,
    /// Only these owners, with what they depend on; everything else stays as it is recorded. Empty is all.
    pub targets: BTreeSet<OwnerName>,
}

/// Which moving names lose the meaning that is recorded for them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refresh {
    /// None: each keeps it as long as its text stays the same.
    #[default]
    Nothing,
    /// Each.
    All,
    /// These.
    Only(BTreeSet<ResolutionKey>),
}

impl Refresh {
    /// Whether a name's recorded meaning is given up.
    #[must_use]
    pub fn asks_for(&self, key: &ResolutionKey) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// What is known of the fleet just now. It never decides what should be, only what can be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Observed {
    /// Machines whose agents have been heard of, with what they said of themselves.
    pub machines: BTreeMap<MachineName, MachineFacts>,
    /// The newest statuses.
    pub statuses: BTreeMap<Address, Arc<ResourceStatus>>,
    /// No fleet was asked, as between two commits: then no machine is waited for.
    pub nobody_asked: bool,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// What is to be planned.
    pub request: &'a Request,
    /// What is recorded.
    pub recorded: &'a Recorded,
    /// Whose history this is.
    pub lineage: &'a Lineage,
    /// The workspace.
    pub workspace: &'a WorkspaceName,
    /// What is known of the fleet.
    pub observed: &'a Observed,
    /// Which secrets are set, and in which versions.
    pub secrets: &'a KnownSecrets,
    /// The commit that the blueprints come from.
    pub commit: Option<&'a Commit>,
}

impl Input<'_> {
    /// Whether the blueprints are of the workspace that is recorded: what is recorded was written in its name then.
    fn is_of_the_recorded_workspace(&self) -> bool {
        match self.request {
            Request::Apply { blueprint, .. } => {
                self.recorded.state.manifest.as_ref() == Some(&blueprint.workspace.name)
            }
            Request::Rollback { .. } | Request::Destroy | Request::Secrets { .. } => true,
        }
    }
}

/// A plan together with the state that applying it records.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// For people and CI.
    pub plan: Plan,
    /// For the ledger.
    pub next: Next,
}

/// One reason why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Where, if it comes from a blueprint.
    pub origin: Option<Origin>,
    /// What to write or run instead.
    pub hint: Option<String>,
}

/// Why there is no plan: every problem at once. Nothing has been recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.summary())]
pub struct PlanError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl PlanError {
    fn summary(&self) -> String {
        match self.problems.as_slice() {
            [] => "the plan failed".to_owned(),
            [one] => one.message.clone(),
            [first, rest @ ..] => format!("{} (and {} more)", first.message, rest.len()),
        }
    }
}

/// Plans.
///
/// # Errors
/// Every problem that keeps the request from being planned, at once.
pub fn plan(input: Input<'_>) -> Result<Planned, PlanError> {
    let desired = desired(&input)?;
    let next = next::next(&desired, &input);
    let plan = diff::diff(&desired, &input, &next);
    Ok(Planned { plan, next })
}

/// Looks for what would keep a request from being planned, and makes no plan of it: whatever is wrong is found while it is
/// compiled.
///
/// # Errors
/// Those of [`plan`].
pub fn check(input: Input<'_>) -> Result<(), PlanError> {
    // The process of whoever only wants to know this ends soon, and its memory with it.
    desired(&input).map(std::mem::forget)
}

fn desired(input: &Input<'_>) -> Result<Desired, PlanError> {
    Ok(match input.request {
        Request::Apply {
            blueprint,
            sources,
            ask,
        } => compile::compile(blueprint, sources, ask, input)?,
        Request::Rollback { owner, to, body } => {
            Desired::rolled_back(input.recorded, owner, *to, body)?
        }
        Request::Destroy => Desired::nothing(input.recorded),
        Request::Secrets { names } => {
            Desired::with_newest_secrets(input.recorded, names, input.secrets)?
        }
    })
}
