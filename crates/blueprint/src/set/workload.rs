//! What an app can be besides native processes, and everything around it: containers, Compose projects, static sites,
//! builds, routes, secrets, hooks, rollouts.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::spec_parts::Runtime;
use plumb_model::spec_source::{GitRef, TaskMoment};
use plumb_model::{
    OnDelete, OnSecretChange, PortName, ProcessName, RestartSpec, SecretForm, SecretName, StopSpec,
};
use serde::{Deserialize, Serialize};

use super::{Health, Text};

/// What an app consists of: exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workload {
    /// Its native [processes](super::App::processes), at least one.
    Processes,
    /// One container.
    Container(Box<Container>),
    /// The services of a Compose file.
    Compose(Compose),
    /// The files of a folder, served by the machine's web server.
    Static {
        /// The folder inside the source, without `.` and `..`; empty for the source itself.
        dir: String,
    },
}

/// Where an app's git sources come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitSource {
    /// The URL: https or ssh, and without a credential.
    pub url: String,
    /// What is wanted of it.
    pub wanted: GitRef,
    /// The folder inside it, without `.` and `..`; empty for its root.
    pub dir: String,
    /// Whether a push to the branch deploys.
    pub follow: bool,
}

/// A language runtime, as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeDecl {
    /// Which.
    pub runtime: Runtime,
    /// The version or the beginning of one: `20`, `3.12`, `1.22.4`.
    pub version: String,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// What it is made from.
    pub image: ImageDecl,
    /// In place of the image's own entry point.
    pub entrypoint: Option<Vec<Text>>,
    /// In place of the image's own command.
    pub command: Option<Vec<Text>>,
    /// The whole environment besides the image's own: the defaults, then the app's.
    pub env: BTreeMap<String, Text>,
    /// Its ports, by name.
    pub ports: BTreeMap<PortName, ContainerPort>,
    /// What is mounted, by the absolute path inside.
    pub mounts: BTreeMap<String, MountDecl>,
    /// Networks: a Network document's name, or one of the Compose project's own. Empty: only the workspace's.
    pub networks: BTreeSet<String>,
    /// Its health check. The ports in it are names of [`Container::ports`].
    pub health: Option<Health>,
    /// The folder in which it starts.
    pub workdir: Option<String>,
    /// The user that it runs as.
    pub user: Option<String>,
    /// Labels besides Plumb's own.
    pub labels: BTreeMap<String, String>,
    /// Other containers of the same app that must be up before it.
    pub after: BTreeSet<ProcessName>,
    /// When it is started again; none is as the app says.
    pub restart: Option<RestartSpec>,
    /// How it is stopped; none is as the app says.
    pub stop: Option<StopSpec>,
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageDecl {
    /// An image, as it is written: `registry.example.com/acme/catalog:2.3`, or with `@sha256:…`.
    Reference(String),
    /// A Dockerfile of the app's source.
    Dockerfile {
        /// Relative to the context, without `.` and `..`.
        path: String,
        /// The stage that is built; none is the last.
        target: Option<String>,
        /// Build arguments.
        args: BTreeMap<String, Text>,
        /// The folder of the source that is sent along, without `.` and `..`; empty for the source itself. `path` is
        /// relative to it.
        context: String,
    },
}

/// A port of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerPort {
    /// Inside the container.
    pub container: u16,
    /// On the machine: a number, or allotted by the planner.
    pub machine: super::Port,
    /// Where it can be reached.
    pub publish: Publish,
    /// Whether it is UDP.
    pub udp: bool,
}

/// Where a port can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Publish {
    /// From the same machine: 127.0.0.1.
    #[default]
    Loopback,
    /// From the other machines: the machine's private address.
    Private,
    /// From everywhere: 0.0.0.0.
    Public,
    /// This address of the machine.
    Address(String),
}

/// What is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountDecl {
    /// What.
    pub source: MountSourceDecl,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSourceDecl {
    /// A volume: that of the Volume document of this name, or otherwise one of the app's own, which is kept when the app
    /// is deleted.
    Volume(String),
    /// An absolute path of the machine.
    Path(String),
}

/// A Compose file, as far as it is read here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compose {
    /// The file, relative to the repository's root.
    pub path: String,
    /// Its services.
    pub services: BTreeMap<ProcessName, Container>,
    /// Its named volumes, with what becomes of their data.
    pub volumes: BTreeMap<String, OnDelete>,
    /// Its networks.
    pub networks: BTreeMap<String, super::Network>,
}

/// A host and path that lead to an app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteDecl {
    /// The host: a domain name, or one that begins with `*.`.
    pub host: String,
    /// The path that requests must begin with; `/` is all.
    pub path: String,
}

/// What is left out of the set that is sent, so that a control plane of an older version takes what it knows.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A secret that an app uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretDecl {
    /// Which.
    pub secret: SecretName,
    /// In which form it is handed over.
    pub form: SecretForm,
    /// What becomes of what runs when it gets another version. A restart unless told otherwise.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_change: OnSecretChange,
    /// Machines keep it in memory alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memory_only: bool,
}

/// A command around a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// When.
    pub moment: TaskMoment,
    /// The command and its arguments.
    pub argv: Vec<Text>,
    /// Whether going back to the release before is safe after it has run. True unless told otherwise.
    pub reversible: bool,
    /// It has failed after so many milliseconds. 600,000 unless told otherwise.
    pub timeout_ms: u64,
}
