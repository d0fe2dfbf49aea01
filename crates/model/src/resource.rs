//! One resource as it is assigned to a machine.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::spec::ResourceSpec;

/// What the agent does about a difference that somebody else made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DriftPolicy {
    /// Put it right.
    #[default]
    Enforce,
    /// Say so, and leave it.
    Report,
    /// Leave it.
    Ignore,
}

/// A resource: what should be at an address, and what must be there first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Where.
    pub address: Address,
    /// What must have converged before this is acted on. Acyclic; all on the same machine.
    pub after: BTreeSet<Address>,
    /// What to do about drift.
    pub drift: DriftPolicy,
    /// What.
    pub spec: ResourceSpec,
}
