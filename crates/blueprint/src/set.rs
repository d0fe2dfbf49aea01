//! What a workspace's blueprints mean: typed, with every short form written out and every default filled in.
//!
//! A plain value: the command line sends it to the control plane as JSON, and the planner compiles it.
//! It depends on no key order and on no split over files, apart from `origins`, which are places.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::plan::Origin;
use plumb_model::state::MachineInfo;
use plumb_model::{
    DriftPolicy, LogSpec, MachineName, Mode, OwnerName, PortName, ProcessName, RestartSpec,
    RunState, StopSpec, WorkspaceName,
};
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostics;

/// All blueprints of one workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlueprintSet {
    /// The manifest, with the chosen overlay laid over it.
    pub workspace: Workspace,
    /// The machines, by name.
    pub machines: BTreeMap<MachineName, MachineInfo>,
    /// The apps, by name.
    pub apps: BTreeMap<OwnerName, App>,
    /// The Setups, by name. No name is both an app's and a Setup's.
    pub setups: BTreeMap<OwnerName, Setup>,
    /// Where things stand: `App/hello` is the document's name, `App/hello#/ports/http` the key at that JSON
    /// pointer of the written YAML. Two levels deep.
    pub origins: BTreeMap<String, Origin>,
    /// Every repository path that has to be read: the apps' sources (folders) and the Setups' file sources.
    pub paths: BTreeSet<String>,
    /// What is worth saying although nothing is wrong. Stays where the files are: it is not sent.
    #[serde(skip)]
    pub warnings: Diagnostics,
}

impl BlueprintSet {
    /// Where the thing at a JSON pointer of a document stands; the closest known place above it otherwise.
    #[must_use]
    pub fn origin(&self, kind: &str, name: &str, pointer: &str) -> Option<&Origin> {
        let mut at = pointer;
        loop {
            let key = if at.is_empty() {
                format!("{kind}/{name}")
            } else {
                format!("{kind}/{name}#{at}")
            };
            match self.origins.get(&key) {
                Some(origin) => return Some(origin),
                None => at = &at[..at.rfind('/')?],
            }
        }
    }
}

/// The manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    /// The workspace's name.
    pub name: WorkspaceName,
    /// The values behind `${vars.X}`, which are already substituted everywhere.
    pub vars: BTreeMap<String, String>,
    /// What a plan needs a consent for.
    pub policy: Policy,
}

/// What a plan needs a consent for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A plan that deletes more resources than this needs `--allow deletes`; none is no limit.
    pub deletes: Option<u32>,
    /// Whether a plan may destroy data without `--allow data-loss`.
    pub data_loss: DataLoss,
}

/// Whether a plan may destroy data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataLoss {
    /// Only with `--allow data-loss`.
    #[default]
    Deny,
    /// Yes.
    Allow,
}

/// Which machines something goes to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// All of them.
    All,
    /// These, sorted, each once. Every one of them exists.
    Names(Vec<MachineName>),
    /// Those that have all of these labels. At least one does.
    Labels(BTreeMap<String, String>),
}

impl Selector {
    /// Whether a machine is meant.
    #[must_use]
    pub fn matches(&self, name: &MachineName, info: &MachineInfo) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.contains(name),
            Self::Labels(labels) => labels.iter().all(|(k, v)| info.labels.get(k) == Some(v)),
        }
    }
}

/// An app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Where it runs.
    pub machines: Selector,
    /// How many instances it has over all these machines; none is one on each.
    pub replicas: Option<u32>,
    /// What its processes run out of; none is an empty folder.
    pub source: Option<Source>,
    /// Its processes; at least one.
    pub processes: BTreeMap<ProcessName, Process>,
    /// The environment that all its processes share: the defaults, then the app's own.
    pub env: BTreeMap<String, Text>,
    /// When a process is started again.
    pub restart: RestartSpec,
    /// How a process is stopped.
    pub stop: StopSpec,
    /// How much output of each process is kept.
    pub log: LogSpec,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// Whether it should run.
    pub state: RunState,
    /// The user that it runs as; none leaves it to the agent.
    pub user: Option<String>,
}

/// Where an app's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A folder or file of the blueprint repository.
    Path {
        /// Relative to the repository's root, without `.` and `..`; the root itself is `.`.
        path: String,
    },
}

/// One process of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The command and its arguments, never empty. A string command has become `["/bin/sh", "-c", TEXT]`.
    pub argv: Vec<Text>,
    /// The whole environment: the defaults, then the app's, then its own.
    pub env: BTreeMap<String, Text>,
    /// Its ports. No two processes of an app share a port's name.
    pub ports: BTreeMap<PortName, Port>,
    /// Its health check.
    pub health: Option<Health>,
    /// How many instances of this process there are over all machines; none is as many as the app has.
    pub replicas: Option<u32>,
    /// The folder inside the source in which it starts, without `.` and `..`; empty for the source itself.
    pub dir: String,
}

/// A port's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Port {
    /// The planner allots one.
    Auto,
    /// This one, 1 to 65535.
    Fixed(u16),
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Milliseconds between two checks. 30,000 unless told otherwise.
    pub interval_ms: u64,
    /// How long a check may take, in milliseconds. 5,000 unless told otherwise.
    pub timeout_ms: u64,
    /// So many passes make it healthy. 2 unless told otherwise.
    pub healthy_threshold: u32,
    /// So many failures make it unhealthy. 3 unless told otherwise.
    pub unhealthy_threshold: u32,
}

/// What a health check asks. The port is one of the same process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// GET a path.
    Http {
        /// Of which port.
        port: PortName,
        /// The path, starting with `/`; printable ASCII without spaces.
        path: String,
        /// Inclusive ranges of status codes that count as healthy. 200 to 399 unless told otherwise.
        codes: Vec<(u16, u16)>,
    },
    /// Connect.
    Tcp {
        /// To which port.
        port: PortName,
    },
}

/// A machine's own set-up: files and directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Where it goes.
    pub machines: Selector,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// Files by absolute, normalised path.
    pub files: BTreeMap<String, FileDecl>,
    /// Directories by absolute, normalised path.
    pub directories: BTreeMap<String, DirDecl>,
}

/// A file of a Setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDecl {
    /// What it holds.
    pub content: Content,
    /// The permission bits. 0644 unless told otherwise.
    pub mode: Mode,
    /// The user's name or number; none leaves it to the agent's user.
    pub owner: Option<String>,
    /// The group's name or number; none leaves it to the agent's group.
    pub group: Option<String>,
}

/// What a file of a Setup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// This text.
    Text(Text),
    /// The bytes of this file of the repository, whose path is relative to its root.
    Source(String),
}

/// A directory of a Setup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirDecl {
    /// The permission bits. 0755 unless told otherwise.
    pub mode: Mode,
    /// The user's name or number; none leaves it to the agent's user.
    pub owner: Option<String>,
    /// The group's name or number; none leaves it to the agent's group.
    pub group: Option<String>,
}

/// A text that may refer to things that only the planner knows. Neighbouring literals are joined; an empty
/// text has no segment.
pub type Text = Vec<Segment>;

/// A part of a [`Text`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// As it stands. `$${` has become `${`, and `${vars.X}` its value.
    Literal(String),
    /// What this stands for.
    Ref(Reference),
}

/// What a text may refer to: a closed set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// `${machine.name}`: the machine that it is rendered for.
    MachineName,
    /// `${machine.labels.X}`. Every selected machine has this label.
    MachineLabel(String),
    /// `${machine.address}`. Every selected machine has one.
    MachineAddress,
    /// `${app.X.url}`. The app exists and has one port, or one that is called `http`.
    AppUrl(OwnerName),
    /// `${app.X.host}`. The app exists.
    AppHost(OwnerName),
    /// `${app.X.ports.P}`. The app exists and has the port.
    AppPort(OwnerName, PortName),
    /// `${release}`: the number of the release; in `env` only.
    Release,
    /// `${commit}`: the commit that the blueprints come from.
    Commit,
}
