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
    /// The address that it had before its owner was renamed. An agent that still holds it there moves it here as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Address>,
    /// Something that Plumb did not make may be taken over here: a plan that showed what would be lost was approved. The
    /// original is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
    /// What.
    pub spec: ResourceSpec,
}

impl Resource {
    /// A resource that waits for nothing, has always been at its address and adopts nothing.
    #[must_use]
    pub fn new(address: Address, drift: DriftPolicy, spec: ResourceSpec) -> Self {
        Self {
            address,
            after: BTreeSet::new(),
            drift,
            was: None,
            adopt: false,
            spec,
        }
    }
}
