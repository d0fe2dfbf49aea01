//! Parts that several resource specs share: secrets, limits, schedules, language runtimes.

use serde::{Deserialize, Serialize};

use crate::coverage::Cost;
use crate::hash::Hash;
use crate::name::SecretName;
use crate::spec::nothing;

/// A secret as everything but its last user knows it: by name and version, never by value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRef {
    /// Which.
    pub name: SecretName,
    /// Which version; none is the newest when it is handed over.
    #[serde(default, skip_serializing_if = "nothing")]
    pub version: Option<u64>,
    /// A keyed hash of the value, so that two versions of equal value are told apart from a change.
    #[serde(default, skip_serializing_if = "nothing")]
    pub digest: Option<Hash>,
}

impl SecretRef {
    /// A secret whose version nobody has looked up yet.
    #[must_use]
    pub fn unresolved(name: SecretName) -> Self {
        Self {
            name,
            version: None,
            digest: None,
        }
    }

    /// What stands for its value where a machine waits for it; none where nobody knows the version.
    #[must_use]
    pub fn awaited(&self) -> Option<Hash> {
        let version = self.version?;
        Some(Hash::of(
            format!("secret {} {version}", self.name).as_bytes(),
        ))
    }
}

/// How a process or container gets a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretUse {
    /// Which.
    pub secret: SecretRef,
    /// In which form.
    #[serde(rename = "as")]
    pub form: SecretForm,
    /// What becomes of what runs when the secret gets another version.
    #[serde(default, skip_serializing_if = "nothing")]
    pub on_change: OnSecretChange,
    /// Machines keep it in memory alone: after a reboot it is handed over anew.
    #[serde(default, skip_serializing_if = "nothing")]
    pub memory_only: bool,
}

impl SecretUse {
    /// A secret that is handed over in a form, with the defaults for all else.
    #[must_use]
    pub fn new(secret: SecretRef, form: SecretForm) -> Self {
        Self {
            secret,
            form,
            on_change: OnSecretChange::default(),
            memory_only: false,
        }
    }

    /// What of it something that runs embodies: if that moves, it is started anew. A version that what runs is only told
    /// of is no part of it.
    #[must_use]
    pub fn embodied(&self) -> Self {
        let secret = match self.on_change {
            OnSecretChange::Restart => self.secret.clone(),
            OnSecretChange::Reload | OnSecretChange::Signal(_) | OnSecretChange::Nothing => {
                SecretRef::unresolved(self.secret.name.clone())
            }
        };
        Self::new(secret, self.form)
    }

    /// What it costs to go from one use to another under the same variable, where that is less than the field's row of the
    /// coverage table says: nothing has to be started anew.
    #[must_use]
    pub fn cheaper(&self, after: &Self) -> Option<Cost> {
        if self.embodied() != after.embodied() {
            return None;
        }
        let told = self.secret != after.secret && after.on_change != OnSecretChange::Nothing;
        Some(if told { Cost::Reload } else { Cost::InPlace })
    }
}

/// What becomes of what runs with a secret that gets another version. Only a file can change while something runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSecretChange {
    /// It is started anew.
    #[default]
    Restart,
    /// The file is written anew, and it gets SIGHUP, on which daemons read their configuration again by convention.
    Reload,
    /// The file is written anew, and it gets the signal of this number.
    Signal(i32),
    /// The file is written anew, and it is told nothing.
    Nothing,
}

impl OnSecretChange {
    /// The signal that what runs gets once the file is there.
    #[must_use]
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Reload => Some(1),
            Self::Signal(number) => Some(number),
            Self::Restart | Self::Nothing => None,
        }
    }
}

/// The form in which a secret is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretForm {
    /// As an environment variable of its name.
    Env,
    /// As a file of mode 0400 on a tmpfs, with its path in the variable NAME_FILE.
    File,
}

/// What a workload may use up. What is none is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "nothing")]
    pub memory_bytes: Option<u64>,
    /// Thousandths of a CPU core.
    #[serde(default, skip_serializing_if = "nothing")]
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "nothing")]
    pub processes: Option<u64>,
}

/// What becomes of a process while the control plane is not heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnDisconnect {
    /// It is stopped once nothing was heard for so many milliseconds, and started again when something is.
    pub stop_after_ms: u64,
}

/// When something is started that does not run all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Five fields, as crontab(5) has them.
    pub cron: String,
    /// The IANA name of the time zone that they are read in.
    pub timezone: String,
    /// What happens when the last run has not ended.
    pub overlap: Overlap,
    /// A run is ended after so many milliseconds.
    #[serde(default, skip_serializing_if = "nothing")]
    pub timeout_ms: Option<u64>,
}

/// What happens when a run is due and the last one has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// The new one is left out.
    #[default]
    Skip,
    /// The new one waits.
    Queue,
    /// The last one is ended.
    Replace,
    /// Both run.
    Allow,
}

/// A language runtime that Plumb can install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Node.js.
    Node,
    /// Python.
    Python,
    /// Go.
    Go,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// Java.
    Java,
    /// .NET.
    Dotnet,
    /// Rust.
    Rust,
    /// Bun.
    Bun,
    /// Deno.
    Deno,
}

impl Runtime {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Node,
        Self::Python,
        Self::Go,
        Self::Ruby,
        Self::Php,
        Self::Java,
        Self::Dotnet,
        Self::Rust,
        Self::Bun,
        Self::Deno,
    ];

    /// The word of the blueprint language.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Python => "python",
            Self::Go => "go",
            Self::Ruby => "ruby",
            Self::Php => "php",
            Self::Java => "java",
            Self::Dotnet => "dotnet",
            Self::Rust => "rust",
            Self::Bun => "bun",
            Self::Deno => "deno",
        }
    }
}

/// A language runtime at one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolchainRef {
    /// Which.
    pub runtime: Runtime,
    /// The exact version; the range as it is written where nobody has resolved it yet.
    pub version: String,
}
