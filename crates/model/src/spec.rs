//! What each resource should be. Defaults are already filled in: a spec holds no option that still
//! has to be decided.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::address::ResourceKind;
use crate::hash::Hash;
use crate::name::{OwnerName, PortName};
use crate::resource_spec;
use crate::spec_container::{ContainerSpec, ImageSpec, NetworkSpec, VolumeSpec};
use crate::spec_parts::{Limits, OnDisconnect, Schedule, SecretRef, SecretUse, ToolchainRef};
use crate::spec_service::{RouteSpec, ServiceSpec};
use crate::spec_source::{BuildSpec, CheckoutSpec, PackageSpec, TaskSpec, ToolchainSpec};

/// The permission bits of a file or directory, 0 to 0o7777. Text form: four octal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mode(pub u32);

impl Mode {
    /// Parses `644`, `0644` or `1777`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits =
            (3..=5).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = u32::from_str_radix(text, 8)
            .ok()
            .filter(|bits| digits && *bits <= 0o7777)?;
        Some(Self(bits))
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Mode {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
            .ok_or_else(|| format!("{text:?} is no file mode: write octal digits such as \"0644\""))
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> String {
        mode.to_string()
    }
}

/// The longest text that travels inside a spec, in bytes. Anything longer, or not UTF-8, is a blob
/// that the agent fetches by its digest: a spec must stay small enough to sit in a plan.
pub const MAX_INLINE_BYTES: usize = 32 * 1024;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileContent {
    /// Text of at most [`MAX_INLINE_BYTES`].
    Text(String),
    /// Text in which references to credentials [stay symbolic](crate::symbolic) until the agent fills them in. At most
    /// [`MAX_INLINE_BYTES`].
    Template(String),
    /// Bytes that are fetched by content.
    Blob {
        /// BLAKE3 of the bytes.
        digest: Hash,
        /// Their number.
        size: u64,
    },
}

impl FileContent {
    /// The digest of the bytes, wherever they are; of a template, that of its text with the references in it.
    #[must_use]
    pub fn digest(&self) -> Hash {
        match self {
            Self::Text(text) | Self::Template(text) => Hash::of(text.as_bytes()),
            Self::Blob { digest, .. } => *digest,
        }
    }

    /// The number of bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Text(text) | Self::Template(text) => text.len() as u64,
            Self::Blob { size, .. } => *size,
        }
    }
}

/// Whether a process should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It should.
    Running,
    /// It is recorded, and stays stopped.
    Stopped,
}

/// When a process that exited is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever its exit was.
    Always,
    /// Only after a non-zero exit status or a signal.
    OnFailure,
    /// Not at all.
    Never,
}

/// The restart policy with its bounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartSpec {
    /// When.
    pub policy: RestartPolicy,
    /// The second restart in a row waits this long, in milliseconds; each further one twice as long.
    pub initial_ms: u64,
    /// The longest wait, in milliseconds.
    pub max_ms: u64,
}

/// How a process is asked to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopSpec {
    /// The signal's number. 15 (TERM) unless told otherwise.
    pub signal: i32,
    /// How long it may take until KILL, in milliseconds.
    pub grace_ms: u64,
}

/// How much of a process's output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSpec {
    /// A log file is rotated before it grows past this many bytes.
    pub max_bytes: u64,
    /// How many rotated files are kept besides the current one.
    pub keep: u32,
}

/// What is asked to learn whether a process is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthProbe {
    /// GET this path over HTTP/1.1; any status in the ranges counts as healthy.
    Http {
        /// The address of the machine that is asked; none is 127.0.0.1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// The port's number.
        port: u16,
        /// The path, starting with `/`.
        path: String,
        /// Inclusive ranges of status codes.
        codes: Vec<(u16, u16)>,
    },
    /// Connect to this port.
    Tcp {
        /// The address of the machine that is asked; none is 127.0.0.1.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// The port's number.
        port: u16,
    },
}

/// A health check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthSpec {
    /// What is asked.
    pub probe: HealthProbe,
    /// Milliseconds between two checks once the first has passed; until then at most one second.
    pub interval_ms: u64,
    /// How long one check may take, in milliseconds.
    pub timeout_ms: u64,
    /// So many passes in a row make an unhealthy process healthy. The first pass after a start is enough by itself.
    pub healthy_threshold: u32,
    /// So many failures in a row make a healthy process unhealthy, and have it restarted.
    pub unhealthy_threshold: u32,
}

/// Where a process runs: a folder inside an unpacked artifact, a checkout or what a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkDir {
    /// The artifact's digest, or the hash that stands for the checkout or build.
    pub artifact: Hash,
    /// A relative folder within it; empty for its root.
    pub dir: String,
    /// What the hash stands for.
    #[serde(default, skip_serializing_if = "WorkDirOf::is_artifact")]
    pub of: WorkDirOf,
}

/// What the hash of a [`WorkDir`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkDirOf {
    /// The packed bytes of an artifact.
    #[default]
    Artifact,
    /// A [`CheckoutSpec`].
    Checkout,
    /// A [`BuildSpec`].
    Build,
}

impl WorkDirOf {
    fn is_artifact(&self) -> bool {
        *self == Self::Artifact
    }
}

/// What of a spec's serialised form is left out where it says nothing, so that a field that a later version adds moves no
/// hash of what was recorded before it.
pub(crate) fn nothing<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

resource_spec! {
    /// A repository path, packed reproducibly as an uncompressed tar and unpacked by the agent into a folder
    /// named by its digest.
    pub struct ArtifactSpec: Artifact {
        /// BLAKE3 of the packed bytes.
        digest: Hash => Replace, By("the mark that unpacking leaves beside the folder once it is complete"), Public;
        /// The number of packed bytes.
        size: u64 => Replace, By("fixed by the digest"), Public;
    }
}

resource_spec! {
    /// A directory. Its content is nobody's business but that of the resources inside it.
    pub struct DirectorySpec: Directory {
        /// The absolute path, without `.`, `..` or a doubled slash.
        path: String => Replace, By("opened beneath / without following symbolic links"), Public;
        /// The permission bits.
        mode: Mode => InPlace, By("fstat"), Public;
        /// The user's name or number; none leaves it to the agent's user.
        owner: Option<String> => InPlace, By("fstat"), Public;
        /// The group's name or number; none leaves it to the agent's group.
        group: Option<String> => InPlace, By("fstat"), Public;
    }
}

resource_spec! {
    /// A regular file.
    pub struct FileSpec: File {
        /// The absolute path, without `.`, `..` or a doubled slash.
        path: String => Replace, By("opened beneath / without following symbolic links"), Public;
        /// What it holds.
        content: FileContent => InPlace, By("the bytes, when size, mtime, ctime or inode moved, and in every full check"), Public;
        /// The permission bits.
        mode: Mode => InPlace, By("fstat"), Public;
        /// The user's name or number; none leaves it to the agent's user.
        owner: Option<String> => InPlace, By("fstat"), Public;
        /// The group's name or number; none leaves it to the agent's group.
        group: Option<String> => InPlace, By("fstat"), Public;
        /// The apps that are told when its content has changed.
        #[serde(default, skip_serializing_if = "nothing")]
        notify: BTreeSet<OwnerName> => InPlace, Cannot("it is an order to others, not a state"), Public;
    }
}

resource_spec! {
    /// A native process under a shim of its own.
    pub struct ProcessSpec: Process {
        /// The command and its arguments, never empty. A string command has become `["/bin/sh", "-c", TEXT]`.
        argv: Vec<String> => Restart, By("the hash of what the shim was started with"), Public;
        /// The whole environment but for PATH, HOME, USER, LOGNAME and SHELL, which the agent sets where the
        /// blueprint does not. `${release}` in a value is replaced when the process starts.
        env: BTreeMap<String, String> => Restart, By("the hash of what the shim was started with"), Public;
        /// Where it runs; none is a private empty folder.
        workdir: Option<WorkDir> => Restart, By("the hash of what the shim was started with"), Public;
        /// The user that it runs as; none lets the agent choose as it was told to.
        user: Option<String> => Restart, By("the hash of what the shim was started with"), Public;
        /// Its ports, by name. They are numbers by now, whatever the blueprint said.
        ports: BTreeMap<PortName, u16> => Restart, By("the hash of what the shim was started with"), Public;
        /// Its health check.
        health: Option<HealthSpec> => InPlace, Cannot("it is the agent's own doing, and takes effect at once"), Public;
        /// When it is started again.
        restart: RestartSpec => InPlace, Cannot("it is the agent's own doing, and takes effect at once"), Public;
        /// How it is stopped.
        stop: StopSpec => InPlace, Cannot("it is the agent's own doing, and takes effect at the next stop"), Public;
        /// How much output is kept.
        log: LogSpec => Restart, By("the hash of what the shim was started with"), Public;
        /// Whether it should run.
        state: RunState => Restart, By("the lock that a living shim holds"), Public;
        /// The language runtime that its command is found in.
        #[serde(default, skip_serializing_if = "nothing")]
        toolchain: Option<ToolchainRef> => Restart, By("the hash of what the shim was started with"), Public;
        /// The secrets that it is handed, by the name of their environment variable.
        #[serde(default, skip_serializing_if = "nothing")]
        secrets: BTreeMap<String, SecretUse> => Restart, By("the hash of what the shim was started with"), Sensitive;
        /// What it may use up.
        #[serde(default, skip_serializing_if = "nothing")]
        limits: Option<Limits> => InPlace, By("the files of its cgroup"), Public;
        /// When it is started, if it does not run all the time.
        #[serde(default, skip_serializing_if = "nothing")]
        schedule: Option<Schedule> => InPlace, Cannot("it is the agent's own doing, and takes effect at the next time"), Public;
        /// What becomes of it while the control plane is not heard; it runs on if nothing is said.
        #[serde(default, skip_serializing_if = "nothing")]
        on_disconnect: Option<OnDisconnect> => InPlace, Cannot("it is the agent's own doing, and takes effect the next time that the control plane is not heard"), Public;
    }
}

/// The fields of a [`ProcessSpec`] that a running incarnation embodies: if their hash moves, it must be restarted.
#[derive(Serialize)]
struct Incarnate<'a> {
    argv: &'a [String],
    env: &'a BTreeMap<String, String>,
    workdir: &'a Option<WorkDir>,
    user: &'a Option<String>,
    ports: &'a BTreeMap<PortName, u16>,
    log: &'a LogSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    toolchain: &'a Option<ToolchainRef>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<&'a str, SecretUse>,
}

impl ProcessSpec {
    /// The hash of what a running incarnation embodies. A change of health, restart or stop settings leaves it alone.
    #[must_use]
    pub fn incarnation_hash(&self) -> Hash {
        let Self {
            argv,
            env,
            workdir,
            user,
            ports,
            log,
            toolchain,
            secrets,
            health: _,
            restart: _,
            stop: _,
            state: _,
            limits: _,
            schedule: _,
            on_disconnect: _,
        } = self;
        Hash::of_json(&Incarnate {
            argv,
            env,
            workdir,
            user,
            ports,
            log,
            toolchain,
            secrets: secrets
                .iter()
                .map(|(variable, used)| (variable.as_str(), used.embodied()))
                .collect(),
        })
    }
}

/// The spec of a resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(
    clippy::large_enum_variant,
    reason = "most resources are processes and files, so boxing the large ones would add an allocation to nearly each"
)]
pub enum ResourceSpec {
    /// See [`ArtifactSpec`].
    Artifact(ArtifactSpec),
    /// See [`DirectorySpec`].
    Directory(DirectorySpec),
    /// See [`FileSpec`].
    File(FileSpec),
    /// See [`ProcessSpec`].
    Process(ProcessSpec),
    /// See [`PackageSpec`].
    Package(PackageSpec),
    /// See [`CheckoutSpec`].
    Checkout(CheckoutSpec),
    /// See [`ToolchainSpec`].
    Toolchain(ToolchainSpec),
    /// See [`BuildSpec`].
    Build(BuildSpec),
    /// See [`ImageSpec`].
    Image(ImageSpec),
    /// See [`NetworkSpec`].
    Network(NetworkSpec),
    /// See [`VolumeSpec`].
    Volume(VolumeSpec),
    /// See [`ServiceSpec`].
    Service(ServiceSpec),
    /// See [`TaskSpec`].
    Task(TaskSpec),
    /// See [`ContainerSpec`].
    Container(ContainerSpec),
    /// See [`RouteSpec`].
    Route(RouteSpec),
}

impl ResourceSpec {
    /// The kind that this spec describes.
    #[must_use]
    pub fn kind(&self) -> ResourceKind {
        match self {
            Self::Artifact(_) => ResourceKind::Artifact,
            Self::Directory(_) => ResourceKind::Directory,
            Self::File(_) => ResourceKind::File,
            Self::Process(_) => ResourceKind::Process,
            Self::Package(_) => ResourceKind::Package,
            Self::Checkout(_) => ResourceKind::Checkout,
            Self::Toolchain(_) => ResourceKind::Toolchain,
            Self::Build(_) => ResourceKind::Build,
            Self::Image(_) => ResourceKind::Image,
            Self::Network(_) => ResourceKind::Network,
            Self::Volume(_) => ResourceKind::Volume,
            Self::Service(_) => ResourceKind::Service,
            Self::Task(_) => ResourceKind::Task,
            Self::Container(_) => ResourceKind::Container,
            Self::Route(_) => ResourceKind::Route,
        }
    }

    /// The digests of everything that the agent must fetch before it can act.
    pub fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> {
        match self {
            Self::Artifact(spec) => Some((spec.digest, spec.size)),
            Self::File(FileSpec {
                content: FileContent::Blob { digest, size },
                ..
            }) => Some((*digest, *size)),
            _ => None,
        }
        .into_iter()
    }

    /// The secrets that it needs, in the order of their places.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let uses = match self {
            Self::Process(spec) => &spec.secrets,
            Self::Build(spec) => &spec.secrets,
            Self::Task(spec) => &spec.secrets,
            Self::Container(spec) => &spec.secrets,
            Self::Image(spec) => return spec.password.iter().collect(),
            Self::Service(spec) => return vec![&spec.password],
            _ => return Vec::new(),
        };
        uses.values().map(|used| &used.secret).collect()
    }

    /// The same, to be changed.
    pub fn secrets_mut(&mut self) -> Vec<&mut SecretRef> {
        let uses = match self {
            Self::Process(spec) => &mut spec.secrets,
            Self::Build(spec) => &mut spec.secrets,
            Self::Task(spec) => &mut spec.secrets,
            Self::Container(spec) => &mut spec.secrets,
            Self::Image(spec) => return spec.password.iter_mut().collect(),
            Self::Service(spec) => return vec![&mut spec.password],
            _ => return Vec::new(),
        };
        uses.values_mut().map(|used| &mut used.secret).collect()
    }

    /// Whether one of its uses of a secret asks for keeping it in memory alone.
    #[must_use]
    pub fn keeps_in_memory(&self, secret: &SecretRef) -> bool {
        let uses = match self {
            Self::Process(spec) => &spec.secrets,
            Self::Build(spec) => &spec.secrets,
            Self::Task(spec) => &spec.secrets,
            Self::Container(spec) => &spec.secrets,
            _ => return false,
        };
        uses.values()
            .any(|used| used.memory_only && used.secret == *secret)
    }

    /// What stands for the content and the secrets that must be on its machine before it can be acted on.
    pub fn awaits(&self) -> impl Iterator<Item = Hash> {
        let secrets = self.secrets().into_iter().filter_map(SecretRef::awaited);
        self.blobs().map(|(digest, _)| digest).chain(secrets)
    }

    /// The fields as a JSON object, for diffs.
    ///
    /// # Panics
    /// Never: each spec is a struct.
    #[must_use]
    pub fn fields(&self) -> serde_json::Map<String, serde_json::Value> {
        let value = match self {
            Self::Artifact(spec) => serde_json::to_value(spec),
            Self::Directory(spec) => serde_json::to_value(spec),
            Self::File(spec) => serde_json::to_value(spec),
            Self::Process(spec) => serde_json::to_value(spec),
            Self::Package(spec) => serde_json::to_value(spec),
            Self::Checkout(spec) => serde_json::to_value(spec),
            Self::Toolchain(spec) => serde_json::to_value(spec),
            Self::Build(spec) => serde_json::to_value(spec),
            Self::Image(spec) => serde_json::to_value(spec),
            Self::Network(spec) => serde_json::to_value(spec),
            Self::Volume(spec) => serde_json::to_value(spec),
            Self::Service(spec) => serde_json::to_value(spec),
            Self::Task(spec) => serde_json::to_value(spec),
            Self::Container(spec) => serde_json::to_value(spec),
            Self::Route(spec) => serde_json::to_value(spec),
        };
        match value.expect("model values are always JSON") {
            serde_json::Value::Object(map) => map,
            _ => unreachable!("each spec is a struct"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coverage::{Cost, Covered};

    fn process() -> ProcessSpec {
        ProcessSpec {
            argv: vec!["true".into()],
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            ports: BTreeMap::new(),
            health: None,
            restart: RestartSpec {
                policy: RestartPolicy::Always,
                initial_ms: 1000,
                max_ms: 60_000,
            },
            stop: StopSpec {
                signal: 15,
                grace_ms: 10_000,
            },
            log: LogSpec {
                max_bytes: 1 << 20,
                keep: 2,
            },
            state: RunState::Running,
            toolchain: None,
            secrets: BTreeMap::new(),
            limits: None,
            schedule: None,
            on_disconnect: None,
        }
    }

    /// Mutation: leave a `Restart` field out of `Incarnate`, and a change of it would go unnoticed.
    #[test]
    fn the_incarnation_hash_moves_exactly_with_the_fields_that_cost_a_restart() {
        let base = process();
        let mut fields = ResourceSpec::Process(base.clone()).fields();
        let changed = serde_json::json!({
            "argv": ["false"], "env": {"A": "b"}, "user": "nobody", "ports": {"http": 1},
            "workdir": {"artifact": Hash::of(b"x"), "dir": ""},
            "health": {"probe": {"tcp": {"port": 1}}, "interval_ms": 1, "timeout_ms": 1, "healthy_threshold": 1, "unhealthy_threshold": 1},
            "restart": {"policy": "never", "initial_ms": 1, "max_ms": 1},
            "stop": {"signal": 2, "grace_ms": 1}, "log": {"max_bytes": 1, "keep": 1}, "state": "stopped",
            "toolchain": {"runtime": "node", "version": "20.1.0"},
            "secrets": {"KEY": {"secret": {"name": "KEY", "version": 1}, "as": "env"}},
            "limits": {"memory_bytes": 1},
            "schedule": {"cron": "* * * * *", "timezone": "UTC", "overlap": "skip"},
            "on_disconnect": {"stop_after_ms": 1000},
        });
        for row in ProcessSpec::FIELDS {
            let kept = fields.insert(row.name.into(), changed[row.name].clone());
            let spec: ProcessSpec = serde_json::from_value(fields.clone().into()).unwrap();
            assert_ne!(spec, base, "{} did not change", row.name);
            let moved = spec.incarnation_hash() != base.incarnation_hash();
            let expected = row.cost >= Cost::Restart && row.name != "state";
            assert_eq!(moved, expected, "{}", row.name);
            // A field that says nothing is not written at all.
            match kept {
                Some(kept) => fields.insert(row.name.into(), kept),
                None => fields.remove(row.name),
            };
        }
    }

    #[test]
    fn a_mode_is_octal_digits_and_nothing_else() {
        assert_eq!(Mode::parse("644"), Some(Mode(0o644)));
        assert_eq!(Mode::parse("1777").unwrap().to_string(), "1777");
        for bad in ["", "8", "64", "99999", "0o644", "+644", "rw-r--r--"] {
            assert_eq!(Mode::parse(bad), None, "{bad}");
        }
    }
}
