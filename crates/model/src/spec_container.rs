//! Specs of containers and what they need: images, networks, volumes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::name::PortName;
use crate::resource_spec;
use crate::spec::{HealthSpec, LogSpec, RestartSpec, RunState, StopSpec, nothing};
use crate::spec_parts::{Limits, Schedule, SecretRef, SecretUse};

resource_spec! {
    /// A container image.
    pub struct ImageSpec: Image {
        /// As it is written: `registry.example.com/acme/catalog:2.3`.
        reference: String => Replace, By("the engine's list of images"), Public;
        /// The digest that it was resolved to, `sha256:…`; none where nobody has resolved it yet.
        digest: Option<String> => Replace, By("the engine's list of images"), Public;
        /// The user name for its registry; none where it needs none.
        #[serde(default, skip_serializing_if = "nothing")]
        username: Option<String> => InPlace, Cannot("it is used only while the image is pulled"), Public;
        /// The password for its registry.
        #[serde(default, skip_serializing_if = "nothing")]
        password: Option<SecretRef> => InPlace, Cannot("it is used only while the image is pulled"), Sensitive;
    }
}

resource_spec! {
    /// A network of containers.
    pub struct NetworkSpec: Network {
        /// Its address range, such as `10.20.0.0/24`; none leaves it to the engine.
        #[serde(default, skip_serializing_if = "nothing")]
        subnet: Option<String> => Replace, By("the engine's description of it"), Public;
        /// Whether it is cut off from everything outside.
        internal: bool => Replace, By("the engine's description of it"), Public;
    }
}

/// What becomes of data whose blueprint is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDelete {
    /// It stays where it is, and Plumb no longer looks after it.
    #[default]
    Keep,
    /// It is destroyed, once a plan that says so was approved with `--allow data-loss`.
    Destroy,
}

resource_spec! {
    /// A named volume.
    pub struct VolumeSpec: Volume {
        /// What becomes of its data when it is in no blueprint any more.
        on_delete: OnDelete => InPlace, Cannot("it says what the next plan may do"), Public;
    }
}

/// What a container is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerImage {
    /// An image by its reference and, once somebody has resolved it, its digest.
    Pulled {
        /// As it is written.
        reference: String,
        /// `sha256:…`.
        digest: Option<String>,
    },
    /// What a build of the same app made, by the hash of its spec.
    Built(Hash),
}

/// Where a port of a container can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedPort {
    /// The port inside the container.
    pub container: u16,
    /// The port of the machine.
    pub machine: u16,
    /// The address of the machine that it is bound to.
    pub address: String,
    /// `tcp` or `udp`.
    #[serde(default, skip_serializing_if = "nothing")]
    pub udp: bool,
}

/// What is mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// A volume by its name, or an absolute path of the machine.
    pub source: MountSource,
    /// Whether the container may not write to it.
    #[serde(default, skip_serializing_if = "nothing")]
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A volume: `OWNER/NAME`.
    Volume(String),
    /// A path of the machine.
    Path(String),
}

resource_spec! {
    /// A container.
    pub struct ContainerSpec: Container {
        /// What it is made from.
        image: ContainerImage => Restart, By("the engine's description of it"), Public;
        /// In place of the image's own; none keeps it.
        entrypoint: Option<Vec<String>> => Restart, By("the engine's description of it"), Public;
        /// In place of the image's own; none keeps it.
        command: Option<Vec<String>> => Restart, By("the engine's description of it"), Public;
        /// The environment besides the image's own.
        env: BTreeMap<String, String> => Restart, By("the engine's description of it"), Public;
        /// The secrets that it is handed, by the name of their environment variable.
        #[serde(default, skip_serializing_if = "nothing")]
        secrets: BTreeMap<String, SecretUse> => Restart, By("a label with their versions"), Sensitive;
        /// The folder in which it starts; none keeps the image's.
        #[serde(default, skip_serializing_if = "nothing")]
        workdir: Option<String> => Restart, By("the engine's description of it"), Public;
        /// The user that it runs as; none keeps the image's.
        #[serde(default, skip_serializing_if = "nothing")]
        user: Option<String> => Restart, By("the engine's description of it"), Public;
        /// Its ports, by name.
        ports: BTreeMap<PortName, PublishedPort> => Restart, By("the engine's description of it"), Public;
        /// What is mounted, by the path inside.
        #[serde(default, skip_serializing_if = "nothing")]
        mounts: BTreeMap<String, Mount> => Restart, By("the engine's description of it"), Public;
        /// The networks that it is in, each `OWNER/NAME`, besides the workspace's own.
        #[serde(default, skip_serializing_if = "nothing")]
        networks: BTreeSet<String> => InPlace, By("the engine's description of it"), Public;
        /// Labels besides Plumb's own.
        #[serde(default, skip_serializing_if = "nothing")]
        labels: BTreeMap<String, String> => Restart, By("the engine's description of it"), Public;
        /// Its health check.
        health: Option<HealthSpec> => InPlace, Cannot("it is the agent's own doing, and takes effect at once"), Public;
        /// When it is started again.
        restart: RestartSpec => InPlace, Cannot("it is the agent's own doing, and takes effect at once"), Public;
        /// How it is stopped.
        stop: StopSpec => InPlace, Cannot("it is the agent's own doing, and takes effect at the next stop"), Public;
        /// How much output is kept.
        log: LogSpec => Restart, By("the engine's description of it"), Public;
        /// What it may use up.
        #[serde(default, skip_serializing_if = "nothing")]
        limits: Option<Limits> => InPlace, By("the engine's description of it"), Public;
        /// When it is started, if it does not run all the time.
        #[serde(default, skip_serializing_if = "nothing")]
        schedule: Option<Schedule> => InPlace, Cannot("it is the agent's own doing, and takes effect at the next time"), Public;
        /// Whether it should run.
        state: RunState => Restart, By("the engine's description of it"), Public;
    }
}
