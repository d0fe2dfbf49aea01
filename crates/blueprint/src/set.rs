//! What a workspace's blueprints mean: typed, with every short form written out and every default filled in.
//!
//! A plain value: the command line sends it to the control plane as JSON, and the planner compiles it.
//! It depends on no key order and on no split over files, apart from `origins`, which are places.

mod check;
mod origins;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::plan::Origin;
use plumb_model::spec_service::{Backup, Engine};
use plumb_model::state::{MachineInfo, Rollout};
use plumb_model::{
    DriftPolicy, Limits, LogSpec, MachineName, Mode, OnDelete, OnDisconnect, OwnerName, PortName,
    ProcessName, RestartSpec, RunState, Schedule, SecretName, StopSpec, WorkspaceName,
};
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diagnostic::Diagnostics;

pub use check::{MAX_INSTANCES, SetError};
pub use origins::Origins;
pub(crate) use origins::Written;
pub use workload::{
    Compose, Container, ContainerPort, GitSource, Hook, ImageDecl, MountDecl, MountSourceDecl,
    Publish, RouteDecl, RuntimeDecl, SecretDecl, Workload,
};

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
    /// The Setups, by name. No name is that of two documents among Apps, Setups, Services, Volumes and Networks.
    pub setups: BTreeMap<OwnerName, Setup>,
    /// The Services, by name.
    pub services: BTreeMap<OwnerName, Service>,
    /// The Volumes, by name.
    pub volumes: BTreeMap<OwnerName, Volume>,
    /// The Networks, by name.
    pub networks: BTreeMap<OwnerName, Network>,
    /// The Registries, by the host that they hold a credential for.
    pub registries: BTreeMap<String, Registry>,
    /// Where things stand.
    pub origins: Origins,
    /// Every repository path that has to be read: the apps' sources (folders) and the Setups' file sources.
    pub paths: BTreeSet<String>,
    /// What is worth saying although nothing is wrong. Stays where the files are: it is not sent.
    #[serde(skip)]
    pub warnings: Diagnostics,
}

impl BlueprintSet {
    /// Where the thing at a JSON pointer of a document stands; the closest known place above it otherwise.
    #[must_use]
    pub fn origin(&self, kind: &str, name: &str, pointer: &str) -> Option<Origin> {
        self.origins.closest(kind, name, pointer)
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
    /// Every app with a port that has no route of its own is reachable at NAME.BASE_DOMAIN too.
    pub base_domain: Option<String>,
}

/// What a plan needs a consent for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// A plan that deletes more resources than this needs `--allow deletes`; none is no limit.
    pub deletes: Option<u32>,
    /// A plan that restarts or replaces more than this needs `--allow restarts`; none is no limit.
    pub restarts: Option<u32>,
    /// A plan that touches more machines than this needs `--allow machines`; none is no limit.
    pub machines: Option<u32>,
    /// Labels that each machine must have; a plan with one that lacks any needs `--allow labels`.
    pub required_labels: BTreeSet<String>,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// Instances are spread evenly over the values of this label first; none is over machines alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
    /// What its processes run out of; none is an empty folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What it consists of.
    pub workload: Workload,
    /// Its native processes; none unless it consists of those.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub processes: BTreeMap<ProcessName, Box<Process>>,
    /// The language runtime that its build and processes use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeDecl>,
    /// What is run, one after the other, to build it out of its source.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub build: Vec<Vec<Text>>,
    /// The hosts and paths that lead to it; the first is the primary one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteDecl>,
    /// Whose web server answers for its routes; none is where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Selector>,
    /// The secrets that it is handed, by the name of their environment variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretDecl>,
    /// The Services whose credentials are injected.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub uses: BTreeSet<OwnerName>,
    /// What each of its processes or its container may use up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When it is started, if it does not run all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What becomes of its processes while the control plane is not heard; none: they run on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_disconnect: Option<OnDisconnect>,
    /// Commands around each release, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// How machines move from one release to the next; none is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The name that it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<OwnerName>,
    /// The environment that all its processes share: the defaults, then the app's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
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
        /// The folder inside it where everything starts, without `.` and `..`; empty for the folder itself.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        dir: String,
    },
    /// A git repository of its own.
    Git(GitSource),
}

/// One process of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// The command and its arguments, never empty. A string command has become `["/bin/sh", "-c", TEXT]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<Text>,
    /// Its own environment, which goes before the [app's](App::env).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Text>,
    /// Its ports. No two processes of an app share a port's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<PortName, Port>,
    /// Its health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// How many instances of this process there are over all machines; none is as many as the app has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// The folder inside the source in which it starts, without `.` and `..`; empty for the source itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub dir: String,
    /// Where its ports can be reached, for those that are not on loopback alone. It is handed the address as `HOST`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub publish: BTreeMap<PortName, Publish>,
    /// What it may use up; none is as the app says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// When it is started; none is as the app says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// The secrets that it is handed besides the app's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretDecl>,
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

/// Shared infrastructure such as a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Where it runs: exactly one machine.
    pub machines: Selector,
    /// What it is.
    pub engine: Engine,
    /// The version or the beginning of one.
    pub version: String,
    /// The port that it listens on; the engine's usual one unless told otherwise.
    pub port: u16,
    /// Where it can be reached.
    pub publish: Publish,
    /// The user that its clients are; the service's name, with `-` as `_`, unless told otherwise.
    pub user: String,
    /// The database that they use; the service's name, with `-` as `_`, unless told otherwise.
    pub database: String,
    /// When and where its data is backed up.
    pub backup: Option<Backup>,
    /// What becomes of its data when it is in no blueprint any more.
    pub on_delete: OnDelete,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// Whether it should run.
    pub state: RunState,
    /// The name that it had.
    pub renamed_from: Option<OwnerName>,
}

/// A volume of its own, which several apps may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Where it is.
    pub machines: Selector,
    /// What becomes of its data when it is in no blueprint any more.
    pub on_delete: OnDelete,
    /// The name that it had.
    pub renamed_from: Option<OwnerName>,
}

/// A network of its own, which several apps may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Where it is.
    pub machines: Selector,
    /// Its address range, such as `10.20.0.0/24`.
    pub subnet: Option<String>,
    /// Whether it is cut off from everything outside.
    pub internal: bool,
    /// The name that it had.
    pub renamed_from: Option<OwnerName>,
}

/// A credential for a registry of container images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Its document's name.
    pub name: String,
    /// The user.
    pub username: Option<String>,
    /// The secret that holds the password.
    pub password: Option<SecretName>,
}

/// A machine's own set-up: packages, files and directories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// Where it goes.
    pub machines: Selector,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// Packages of the operating system.
    pub packages: BTreeSet<String>,
    /// The name that it had.
    pub renamed_from: Option<OwnerName>,
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
    /// The apps that are told when its content has changed.
    pub notify: BTreeSet<OwnerName>,
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

/// A part of a [`Text`]. Nearly all are literal, so that is written as the text alone, and a reference as what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// As it stands. `$${` has become `${`, and `${vars.X}` its value.
    Literal(String),
    /// What this stands for.
    Ref(Reference),
}

impl Serialize for Segment {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Literal(text) => to.serialize_str(text),
            Self::Ref(reference) => [reference].serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Segment {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Segment;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text, or a reference in brackets")
            }

            fn visit_str<E>(self, text: &str) -> Result<Segment, E> {
                Ok(Segment::Literal(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Segment, E> {
                Ok(Segment::Literal(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Segment, A::Error> {
                match (all.next_element()?, all.next_element::<IgnoredAny>()?) {
                    (Some(reference), None) => Ok(Segment::Ref(reference)),
                    _ => Err(A::Error::invalid_length(0, &self)),
                }
            }
        }
        from.deserialize_any(Either)
    }
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
    /// `${service.X.url}`: holds a credential.
    ServiceUrl(OwnerName),
    /// `${service.X.host}`.
    ServiceHost(OwnerName),
    /// `${service.X.port}`.
    ServicePort(OwnerName),
    /// `${service.X.user}`.
    ServiceUser(OwnerName),
    /// `${service.X.database}`.
    ServiceDatabase(OwnerName),
    /// The password, for what `uses` injects: holds a credential, and cannot be written.
    ServicePassword(OwnerName),
    /// `${release}`: the number of the release; in `env` only.
    Release,
    /// `${commit}`: the commit that the blueprints come from.
    Commit,
}
