//! The files of an incarnation's folder: the whole protocol between a driver and a shim, which may be of
//! different versions of Plumb.
//!
//! | name | written by | what |
//! |---|---|---|
//! | `spec.json` | driver, before the start | [`Spec`] |
//! | `lock` | driver, before the start | empty; an exclusive `flock` on it is held exactly while the shim lives |
//! | `control` | driver | a FIFO; the shim reads `stop SIGNAL GRACE_MS` and `signal N` from it, a line each |
//! | `state.json` | shim, once the command runs | [`State`] |
//! | `exit.json` | shim, once the command has ended | [`Ended`] |
//! | `stop.json` | driver, at the start and when the spec changes in place | how to stop it once no spec says so any more |
//! | `stopping` | driver, when it asks for the stop | [`Stopping`] |
//! | `shim.err` | shim | what it had to say when it failed |

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plumb_model::observation::ExitStatus;
use plumb_model::{Hash, Timestamp};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The version of this protocol that is written. A shim refuses any other; a driver takes over shims of this
/// and lower ones.
pub const PROTOCOL: u32 = 1;

/// The version of a [`Spec`] whose secrets are handed over apart: a shim that knows nothing of them must not start it.
pub const PROTOCOL_WITH_SECRETS: u32 = 2;

/// The most bytes of secrets that are handed to a shim: what Linux takes as a whole environment.
pub const MAX_SECRETS_BYTES: usize = 2 << 20;

/// See [`Spec`].
pub const SPEC: &str = "spec.json";
/// Held exactly while the shim lives.
pub const LOCK: &str = "lock";
/// The FIFO.
pub const CONTROL: &str = "control";
/// See [`State`].
pub const STATE: &str = "state.json";
/// See [`Ended`].
pub const EXIT: &str = "exit.json";
/// See [`Stopping`].
pub const STOPPING: &str = "stopping";
/// The name of the file that says how the command is stopped; see [`StopSpec`](plumb_model::StopSpec).
pub const STOP: &str = "stop.json";
/// What the shim had to say.
pub const ERRORS: &str = "shim.err";

/// The environment variable that marks every process of an incarnation as Plumb's own.
pub const MARK: &str = "PLUMB_INCARNATION";

/// The longest record that is read, in bytes: far above any spec, whose texts are bounded by the plan.
const MAX_RECORD_BYTES: u64 = 4 << 20;

/// What a shim is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// [`PROTOCOL`], or [`PROTOCOL_WITH_SECRETS`] where it has some.
    pub protocol: u32,
    /// The incarnation's id.
    pub incarnation: String,
    /// The hash of the process spec that it embodies.
    pub spec: Hash,
    /// The program: absolute, or relative to `cwd` and with a slash in it.
    pub program: PathBuf,
    /// The command as written; the first is what the program sees as its own name.
    pub argv: Vec<String>,
    /// The exact environment, but for secrets.
    pub env: BTreeMap<String, String>,
    /// Variables with secrets come over the pipe of the answer, before it: their length in bytes, four of them, the lowest
    /// first, and a JSON object of variables and values. They are written nowhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets: bool,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// Another user to run as; none is the shim's own.
    pub user: Option<Identity>,
    /// Where the output goes.
    pub log: Log,
}

/// The numbers of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user's number.
    pub uid: u32,
    /// The number of the user's first group.
    pub gid: u32,
    /// The numbers of all the user's groups.
    pub groups: Vec<u32>,
}

/// Where output goes and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// The current file; rotated ones have `.1`, `.2` … added.
    pub path: PathBuf,
    /// Rotated before it grows past this many bytes.
    pub max_bytes: u64,
    /// How many rotated files are kept.
    pub keep: u32,
}

/// A process, so that no other one that got the same number later is taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since boot, as the kernel tells.
    pub ticks: u64,
}

/// A command that runs, or ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The protocol version of the shim.
    pub protocol: u32,
    /// The incarnation's id.
    pub incarnation: String,
    /// The hash of the process spec that it embodies.
    pub spec: Hash,
    /// The shim.
    pub shim: ProcessId,
    /// The command.
    pub command: ProcessId,
    /// The boot of the machine in which both run.
    pub boot: String,
    /// When the command was started.
    pub started: Timestamp,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: Timestamp,
}

/// That a stop has been asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopping {
    /// When, in milliseconds since boot, suspended time included.
    pub at_ms: u64,
    /// How long the command may take, in milliseconds.
    pub grace_ms: u64,
}

/// Reads a record; none if there is no such file or it is not whole, as after a power cut.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> Option<T> {
    let path = folder.join(name);
    if fs::symlink_metadata(&path).ok()?.len() > MAX_RECORD_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Writes a record beside and renames it, so that nobody reads half of one. Not synced: after a power cut
/// nothing that it tells of is alive.
pub fn write<T: Serialize>(folder: &Path, name: &str, value: &T) -> io::Result<()> {
    let beside = folder.join(format!("{name}.new"));
    let bytes = serde_json::to_vec(value)?;
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?
        .write_all(&bytes)?;
    fs::rename(&beside, folder.join(name))
}
