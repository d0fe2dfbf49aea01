//! What `plumb status` shows: the fold of everything that agents have said, as plain serialisable values.
//!
//! It decides nothing and changes nothing. The API calls [`Fleet::view`](crate::Fleet::view) and sends the result on;
//! its JSON is a stable format, in which fields may be added and never change their meaning.

use std::collections::BTreeMap;

use plumb_model::observation::Exit;
use plumb_model::rollout::Phase;
use plumb_model::state::{Outcome, OwnerKind, RolloutStrategy};
use plumb_model::{
    Address, Condition, ConditionKind, Generation, Hands, MachineName, OrderNumber, OwnerName,
    PortName, ProbeResult, ReleaseNumber, ResourceKind, Revision, RunState, Timestamp,
};
use serde::{Deserialize, Serialize};

/// The version of the view's JSON.
pub const FORMAT: u32 = 1;

/// One word for how something is. In the order in which a worse one hides a better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateWord {
    /// Recorded as stopped, and so it is.
    Stopped,
    /// As it should be.
    Converged,
    /// It has converged, and is unhealthy, drifted, or on a machine that is not heard of now.
    Degraded,
    /// Ordered removed, and not yet proven gone.
    Removing,
    /// Under way.
    Converging,
    /// Nothing goes on until a machine comes (back).
    Waiting,
    /// Somebody has to act.
    Failed,
}

impl StateWord {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Converged => "converged",
            Self::Degraded => "degraded",
            Self::Removing => "removing",
            Self::Converging => "converging",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

/// How a machine stands to the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineWord {
    /// Its agent is connected.
    Online,
    /// It is not.
    Offline,
    /// It has never been since this control plane started.
    NeverSeen,
    /// It is ahead of the control plane's records, and left alone.
    Regressed,
    /// Its agent is connected, and no blueprint names it.
    Unassigned,
    /// Two agents live under its identity, and nothing is sent to either.
    Quarantined,
}

impl MachineWord {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::NeverSeen => "never seen",
            Self::Regressed => "regressed",
            Self::Unassigned => "unassigned",
            Self::Quarantined => "quarantined",
        }
    }
}

/// How many resources are how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// All of them; what is proven gone is not counted.
    pub total: u64,
    /// Converged or stopped as recorded.
    pub converged: u64,
    /// Degraded.
    pub degraded: u64,
    /// Under way, being removed or waiting.
    pub pending: u64,
    /// Failed.
    pub failed: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, word: StateWord) {
        self.total += 1;
        match word {
            StateWord::Stopped | StateWord::Converged => self.converged += 1,
            StateWord::Degraded => self.degraded += 1,
            StateWord::Removing | StateWord::Converging | StateWord::Waiting => self.pending += 1,
            StateWord::Failed => self.failed += 1,
        }
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineView {
    /// Its name.
    pub name: MachineName,
    /// Its agent is connected.
    pub online: bool,
    /// How it stands.
    pub state: MachineWord,
    /// What is wrong and what to do, if anything is.
    pub message: Option<String>,
    /// When its agent last said anything.
    pub last_seen: Option<Timestamp>,
    /// The agent's version.
    pub version: Option<String>,
    /// The host's name.
    pub hostname: Option<String>,
    /// `x86_64` or `aarch64`.
    pub arch: Option<String>,
    /// The generation that it is to hold.
    pub generation: Generation,
    /// The generation that it holds, as it last said; 0 is none.
    pub acked: Generation,
    /// It goes as soon as all that was ordered removed from it is.
    pub leaving: bool,
    /// Its resources.
    pub counts: Counts,
    /// What is ordered for it by hand, if anything ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hands: Option<HandsView>,
}

/// How far a machine has come with what is ordered for it by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandsView {
    /// The number of the orders that it is to hold.
    pub number: OrderNumber,
    /// It holds them on its disk and obeys them.
    pub delivered: bool,
    /// What keeps it from that, if anything but its absence does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What is ordered: what stands still, and what is held.
    pub orders: Hands,
}

/// More, of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessView {
    /// Whether it should run.
    pub state: Option<RunState>,
    /// The process id while it runs.
    pub pid: Option<u32>,
    /// The id of the newest incarnation.
    pub incarnation: Option<String>,
    /// When that was started.
    pub started: Option<Timestamp>,
    /// How often it was started again after an exit that nobody asked for.
    pub restarts: u64,
    /// How the one before ended.
    pub last_exit: Option<Exit>,
    /// Its ports, by name.
    pub ports: BTreeMap<PortName, u16>,
    /// The newest results of its health check, oldest first.
    pub health: Vec<ProbeResult>,
    /// The newest order to start it again that has been carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarted: Option<OrderNumber>,
}

/// One resource, or one that is being removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Where.
    pub address: Address,
    /// What sort of thing.
    pub kind: ResourceKind,
    /// How it is.
    pub state: StateWord,
    /// Why, if it is not as it should be.
    pub message: Option<String>,
    /// The generation that it was last observed under, if it was.
    pub generation: Option<Generation>,
    /// What the agent last said of it.
    pub conditions: Vec<Condition>,
    /// More, of a process.
    pub process: Option<ProcessView>,
}

/// One App or Setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerView {
    /// Its name.
    pub name: OwnerName,
    /// App or Setup; of a removed one it may not be known any more.
    pub kind: Option<OwnerKind>,
    /// Its release.
    pub release: ReleaseNumber,
    /// What has become of that release.
    pub outcome: Outcome,
    /// How it is now.
    pub state: StateWord,
    /// The worst resource and why, if it is not as it should be.
    pub message: Option<String>,
    /// Where it answers.
    pub urls: Vec<String>,
    /// Its resources.
    pub counts: Counts,
    /// Each of them, sorted by address.
    pub resources: Vec<ResourceView>,
    /// How its machines move to the release, where they move in waves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutView>,
}

/// A rollout, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutView {
    /// Whose.
    pub owner: OwnerName,
    /// The release that machines move to.
    pub release: ReleaseNumber,
    /// The apply that began it.
    pub apply: Revision,
    /// In which way machines move.
    pub strategy: RolloutStrategy,
    /// So many instances at a time.
    pub batch: u32,
    /// So many instances may be unavailable at once.
    pub max_unavailable: u32,
    /// An instance has proven itself once it has been healthy for so many milliseconds.
    pub min_healthy_ms: u64,
    /// So long may nothing go on, in milliseconds.
    pub deadline_ms: u64,
    /// Whether it is taken back if it fails.
    pub auto_revert: bool,
    /// How it stands.
    pub phase: Phase,
    /// Why, where the phase alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it waits for just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
    /// The waves so far.
    pub waves: u32,
    /// It has run without progress for so many milliseconds.
    pub waited_ms: u64,
    /// All instances that the release has or will have.
    pub instances: u32,
    /// Those of them that are at the release.
    pub moved: u32,
    /// Those of these that are available.
    pub healthy: u32,
    /// The machines that have not moved, by name.
    pub behind: Vec<MachineName>,
    /// The failed release that it takes back, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<ReleaseNumber>,
    /// Why that one had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_why: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When its phase last changed, or a wave was made.
    pub changed: Timestamp,
}

/// A whole workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceView {
    /// [`FORMAT`].
    pub format: u32,
    /// The revision that is recorded.
    pub revision: Revision,
    /// Machines, by name.
    pub machines: Vec<MachineView>,
    /// Apps and Setups, by name.
    pub owners: Vec<OwnerView>,
    /// Statuses that came for addresses or generations which nothing was recorded of, since the control plane started.
    pub dropped_statuses: u64,
    /// Events that were lost while an agent could not tell them, or were of no machine of the sender's.
    pub dropped_events: u64,
}

impl WorkspaceView {
    /// Whether everything is as it should be, for good: what `--once` and `apply` wait for.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.owners
            .iter()
            .all(|o| matches!(o.state, StateWord::Converged | StateWord::Stopped))
    }
}

impl ResourceView {
    /// The condition of a kind, if it is known.
    #[must_use]
    pub fn condition(&self, kind: ConditionKind) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }
}
