//! The plain values that every part of Plumb shares: typed names and addresses, resource specs,
//! canonical hashes, plans, assignments, observations and conditions.
//!
//! Nothing here performs I/O, knows a wire format or reads a clock. Every other crate calls it.

pub mod address;
mod approval;
pub mod assignment;
pub mod capability;
pub mod claim;
pub mod condition;
pub mod coverage;
pub mod coverage_doc;
pub mod escape;
pub mod hands;
pub mod hash;
pub mod injected;
pub mod journal;
pub mod known_secrets;
pub mod name;
pub mod observation;
pub mod parallel;
pub mod plan;
pub mod plan_schema;
pub mod resource;
pub mod rollout;
pub mod sealed;
pub mod secret;
pub mod spec;
pub mod spec_container;
pub mod spec_parts;
pub mod spec_service;
pub mod spec_source;
pub mod state;
pub mod symbolic;

pub use address::{Address, Addresses, ResourceKind};
pub use assignment::{Assignment, Delta, Entry, Header, Tombstone};
pub use capability::{Capabilities, Capability};
pub use condition::{Condition, ConditionKind, Reason, ResourceStatus};
pub use hands::{Hands, Hold, OrderNumber, Orders};
pub use hash::Hash;
pub use known_secrets::{KnownSecret, KnownSecrets, UnsetSecret};
pub use name::{
    Lineage, MachineName, NameError, OwnerName, PortName, ProcessName, SecretName, WorkspaceName,
};
pub use observation::{
    Action, Depth, Fault, Found, FoundKind, Observation, ProbeOutcome, ProbeResult,
};
pub use resource::{DriftPolicy, Resource};
pub use secret::Secret;
pub use spec::{
    ArtifactSpec, DirectorySpec, FileContent, FileSpec, HealthProbe, HealthSpec, LogSpec, Mode,
    ProcessSpec, ResourceSpec, RestartPolicy, RestartSpec, RunState, StopSpec,
};
pub use spec_container::{ContainerSpec, ImageSpec, NetworkSpec, OnDelete, VolumeSpec};
pub use spec_parts::{
    Limits, OnDisconnect, OnSecretChange, Schedule, SecretForm, SecretRef, SecretUse, ToolchainRef,
};
pub use spec_service::{RouteSpec, ServiceSpec};
pub use spec_source::{BuildSpec, CheckoutSpec, PackageSpec, TaskSpec, ToolchainSpec};

/// An instant in UTC. Shown and serialised as RFC 3339.
pub type Timestamp = jiff::Timestamp;

/// The time, as it is handed to whatever decides: two clocks, so that setting a VM's clock by an hour or by ten
/// years expires and delays nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since any fixed point of this process; never goes back.
    pub mono_ms: u64,
    /// The time of day, for what people read.
    pub wall: Timestamp,
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// The number of a workspace's recorded state; each apply makes the next one. 0 is "nothing applied".
    Revision
}
counter! {
    /// Orders the contents of one machine's assignment. Moves only when that content moves; 0 is "none".
    Generation
}
counter! {
    /// One app (or Setup) as it was applied. Counts from 1 for each owner.
    ReleaseNumber
}
