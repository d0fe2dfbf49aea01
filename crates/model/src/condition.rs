//! Named truths about a resource, as the agent reports them and people read them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::observation::{Exit, Found, ProbeResult};
use crate::{Generation, Timestamp};

/// Which truth. Absent means unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ConditionKind {
    /// It is as the observed generation says it should be.
    Converged,
    /// Its health check passes.
    Healthy,
    /// Somebody else has changed it.
    Drifted,
    /// Something outside it keeps it from converging.
    Blocked,
    /// Acting on it failed.
    Failed,
    /// One that only a newer version knows. Never said by this one, and passed over where it is heard.
    #[serde(other)]
    Unknown,
}

/// Why a condition is as it is: a closed set, for machines; the message is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// As it should be.
    AsDesired,
    /// Being worked on.
    Working,
    /// Waits for another resource.
    WaitsFor,
    /// Waits until it is tried again.
    BackingOff,
    /// Drift is only reported, as the blueprint says.
    ReportOnly,
    /// Somebody changes it again and again.
    Flapping,
    /// It is recorded as stopped.
    Stopped,
    /// Another program holds its port.
    PortTaken,
    /// The command does not exist or may not be executed.
    CommandNotFound,
    /// The program ended as soon as it was started, or again and again.
    ExitedAtOnce,
    /// The program ended.
    Exited,
    /// The health check fails.
    ProbeFailed,
    /// The health check passes.
    ProbePassed,
    /// The user or group does not exist, or this agent may not use it.
    UnknownUser,
    /// The agent may not do this.
    PermissionDenied,
    /// No space left, or the quota is used up.
    DiskFull,
    /// The file system is mounted read-only.
    ReadOnly,
    /// A part of the path is a symbolic link.
    SymlinkInPath,
    /// A part of the path is missing or is no directory.
    BadPath,
    /// Something that Plumb did not make is in the way.
    NotOurs,
    /// The content could not be fetched from the control plane.
    ContentMissing,
    /// The content is not what its digest says, or holds what may not be in it.
    BadContent,
    /// The machine cannot do this at all.
    LacksCapability,
    /// Any other failure of the operating system.
    Io,
    /// One that only a newer version knows; the message says what it is.
    #[serde(other)]
    Unknown,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which truth.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: bool,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
}

/// How many results of the health check are kept and reported.
pub const KEPT_PROBES: usize = 20;

/// What is known of a process beyond its conditions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// The id of the newest incarnation.
    pub incarnation: Option<String>,
    /// The process id of the command while it runs.
    pub pid: Option<u32>,
    /// When the newest incarnation was started.
    pub started: Option<Timestamp>,
    /// How often it was started again after an exit that nobody asked for.
    pub restarts: u64,
    /// How the one before ended.
    pub last_exit: Option<Exit>,
    /// The newest results of the health check, oldest first; at most [`KEPT_PROBES`].
    pub health: VecDeque<ProbeResult>,
    /// The newest order to start it again that has been carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<crate::OrderNumber>,
}

/// All that an agent says of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceStatus {
    /// Which.
    pub address: Address,
    /// The generation that it was observed under.
    pub generation: Generation,
    /// The conditions, by kind.
    pub conditions: Vec<Condition>,
    /// It was ordered removed, and is proven gone.
    pub gone: bool,
    /// More, of a process.
    pub process: Option<ProcessStatus>,
    /// What Plumb did not make and is in the way, if that is what [`Reason::NotOurs`] is about; or what stands there while
    /// somebody holds it, and afterwards what stood there then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<Found>>,
}

impl ResourceStatus {
    /// The condition of a kind, if it is known.
    #[must_use]
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Whether a condition is known to hold.
    #[must_use]
    pub fn is(&self, kind: ConditionKind) -> bool {
        self.condition(kind).is_some_and(|c| c.status)
    }
}

/// Something that happened on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineEvent {
    /// When.
    pub at: Timestamp,
    /// To what.
    pub address: Address,
    /// What sort of thing.
    pub kind: EventKind,
    /// In words: a fragment, without the address.
    pub message: String,
}

/// What sort of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was made or changed because a new generation says so.
    Applied,
    /// Somebody else's change was put right; a process that died was started again.
    DriftCorrected,
    /// Somebody else's change was seen and left.
    DriftSeen,
    /// A process that was already running was taken over by a new agent.
    Reattached,
    /// It was removed.
    Removed,
    /// It failed, or is kept from converging.
    Failed,
    /// It became healthy or unhealthy.
    HealthChanged,
    /// Something that only a newer version knows.
    #[serde(other)]
    Unknown,
}

impl EventKind {
    /// The word for JSON and the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::DriftCorrected => "drift_corrected",
            Self::DriftSeen => "drift_seen",
            Self::Reattached => "reattached",
            Self::Removed => "removed",
            Self::Failed => "failed",
            Self::HealthChanged => "health_changed",
            Self::Unknown => "unknown",
        }
    }
}
