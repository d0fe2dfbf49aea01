//! What a machine can do, as its agent found out at start and says in its hello.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One ability.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Capability {
    /// Managing files and directories without following links (openat2, Linux 5.6).
    Files,
    /// Running native processes under a shim (pidfd, Linux 5.3).
    Processes,
    /// Giving files to other users and groups.
    Chown,
    /// Running processes as users other than the agent's own, and making such users.
    Users,
    /// Installing packages of the operating system.
    Packages,
    /// Fetching git repositories.
    Git,
    /// Installing language runtimes.
    Runtimes,
    /// Building on the machine.
    Builds,
    /// Running containers, with their images, networks and volumes.
    Containers,
    /// Running shared infrastructure such as databases.
    Services,
    /// Answering for hosts and paths in front of apps.
    Routes,
    /// Receiving secrets.
    Secrets,
    /// Limiting memory, CPU and the number of processes.
    Limits,
    /// Starting processes at set times.
    Schedules,
    /// Running commands before and after a release.
    Tasks,
    /// Restarting apps when a file has changed.
    Notify,
    /// Moving from one release to the next in waves.
    Rollouts,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Files,
        Self::Processes,
        Self::Chown,
        Self::Users,
        Self::Packages,
        Self::Git,
        Self::Runtimes,
        Self::Builds,
        Self::Containers,
        Self::Services,
        Self::Routes,
        Self::Secrets,
        Self::Limits,
        Self::Schedules,
        Self::Tasks,
        Self::Notify,
        Self::Rollouts,
    ];

    /// The word for people and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Processes => "processes",
            Self::Chown => "chown",
            Self::Users => "users",
            Self::Packages => "packages",
            Self::Git => "git",
            Self::Runtimes => "runtimes",
            Self::Builds => "builds",
            Self::Containers => "containers",
            Self::Services => "services",
            Self::Routes => "routes",
            Self::Secrets => "secrets",
            Self::Limits => "limits",
            Self::Schedules => "schedules",
            Self::Tasks => "tasks",
            Self::Notify => "notify",
            Self::Rollouts => "rollouts",
        }
    }
}

/// Whether a machine has an ability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Availability {
    /// It has.
    Has {
        /// The version or means, for people.
        detail: String,
    },
    /// It has not.
    Lacks {
        /// Why.
        why: String,
        /// What to do or run on the machine to get it.
        remedy: String,
    },
}

/// All that is known of a machine's abilities. One that is not listed is unknown to that agent's version. Cheap to clone: most
/// machines of a fleet can do the same, and lack the same for the same reasons.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capabilities(pub Arc<BTreeMap<Capability, Availability>>);

impl FromIterator<(Capability, Availability)> for Capabilities {
    fn from_iter<T: IntoIterator<Item = (Capability, Availability)>>(all: T) -> Self {
        Self(Arc::new(all.into_iter().collect()))
    }
}

impl Serialize for Capabilities {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Capabilities {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(from).map(|all| Self(Arc::new(all)))
    }
}

impl Capabilities {
    /// Why an ability is lacking and what to do about it, or `None` if the machine has it.
    #[must_use]
    pub fn lack(&self, capability: Capability) -> Option<(String, String)> {
        match self.0.get(&capability) {
            Some(Availability::Has { .. }) => None,
            Some(Availability::Lacks { why, remedy }) => Some((why.clone(), remedy.clone())),
            None => Some((
                "its agent does not know of it".to_owned(),
                "upgrade plumb on that machine".to_owned(),
            )),
        }
    }
}

/// What an agent says of its machine when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineFacts {
    /// The agent's version.
    pub version: String,
    /// `x86_64` or `aarch64`.
    pub arch: String,
    /// The host's name.
    pub hostname: String,
    /// The kernel's release.
    pub kernel: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The host itself; an agent of an older version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Box<HostFacts>>,
}

/// What a machine is made of, and how much of it was free when its agent last connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostFacts {
    /// The operating system, as it names itself, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// How many processors the agent may use.
    pub cpus: u32,
    /// The memory, in bytes.
    pub memory_bytes: u64,
    /// How much of it is available, in bytes.
    pub memory_available_bytes: u64,
    /// The file system that holds the agent's data, in bytes.
    pub disk_bytes: u64,
    /// How much of it is free for users other than root, in bytes.
    pub disk_free_bytes: u64,
}
