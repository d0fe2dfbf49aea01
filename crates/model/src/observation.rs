//! What an agent sees of one resource, what it can do about it, and how that can fail.

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::address::{Address, ResourceKind};
use crate::condition::Reason;
use crate::hash::Hash;
use crate::spec::Mode;

/// How closely a driver looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Content is read only where size, mtime, ctime or inode moved since it was last found right.
    Quick,
    /// Everything is read.
    Full,
}

/// A field that is not as the spec says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The field of the spec (`content`, `mode`, …), or `type` where something else stands there.
    pub field: String,
    /// What was found, for people.
    pub found: String,
}

/// What was seen at an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observation {
    /// Nothing is there.
    Absent,
    /// Nothing of Plumb's is there any more since it was removed a moment ago, and there is more to tell of it.
    Gone {
        /// What is left or kept and where, for people.
        note: String,
    },
    /// It is there and Plumb's own; these owned fields differ from the spec.
    Present {
        /// Empty: as it should be.
        differs: Vec<Difference>,
    },
    /// Something is there that Plumb did not make, and it differs from the spec.
    Foreign {
        /// What it is, for people.
        what: String,
        /// The same for a plan, which shows what adopting it would change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Box<Found>>,
    },
    /// An incarnation of the process is alive under its shim.
    Running(Incarnation),
    /// The newest incarnation has ended.
    Exited(Incarnation, Exit),
}

/// The longest text of a foreign file that is told, in bytes: longer than nearly every configuration file.
pub const MAX_FOUND_TEXT_BYTES: u64 = 16 * 1024;

/// What stands where Plumb wants to put something, and was not made by Plumb. It may hold somebody's secret, so of its
/// content only that is told which every user of the machine may read anyway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What it is.
    pub kind: FoundKind,
    /// Its permission bits.
    pub mode: Mode,
    /// The name of its user; the number where it has none.
    pub owner: String,
    /// The name of its group; the number where it has none.
    pub group: String,
    /// Its length in bytes, if it is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The hash of its content, if it is a file that everybody may read, and not a very large one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Hash>,
    /// Its content, if it is a file that everybody may read, is UTF-8 and not longer than [`MAX_FOUND_TEXT_BYTES`]. Never
    /// safe to show as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl Found {
    /// Whether a resource of this kind can take it over: only a regular file can become a file, and only a directory a
    /// directory. Anything else would have to be destroyed first, which Plumb does to nothing that it did not make.
    #[must_use]
    pub fn fits(&self, kind: ResourceKind) -> bool {
        matches!(
            (self.kind, kind),
            (FoundKind::File, ResourceKind::File) | (FoundKind::Directory, ResourceKind::Directory)
        )
    }
}

/// What sort of thing stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FoundKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, wherever it leads.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A device.
    Device,
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// One run of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Its id: unique on the machine, and in the environment of everything it starts.
    pub id: String,
    /// The [`incarnation_hash`](crate::ProcessSpec::incarnation_hash) of the spec that it was started with.
    pub spec: Hash,
    /// The process id of the command.
    pub pid: u32,
    /// When it was started.
    pub started: Timestamp,
    /// A stop has been asked for already.
    pub stopping: bool,
}

/// How an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How.
    pub status: ExitStatus,
    /// When.
    pub at: Timestamp,
}

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitStatus {
    /// It returned this.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// It ended with its shim or with the machine, and nobody saw how.
    Unknown,
}

impl std::fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with status {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
            Self::Unknown => f.write_str("ended unseen"),
        }
    }
}

/// What a driver is told to do. It never chooses among these itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Artifact, directory, file: make it as the spec says.
    Write,
    /// Process: start a new incarnation. Only when none is alive.
    Start,
    /// Process: ask the living incarnation to end; returns at once, and the shim sends KILL after the grace.
    Stop,
    /// Remove every trace that is Plumb's. Only when no incarnation is alive.
    Remove,
    /// File, directory: take over what stands there and was not made by Plumb, keep what it was, and make it as the spec
    /// says.
    Adopt,
    /// Hold at this address from now on what is held at the first of these where anything is: its owner was renamed. Nothing
    /// is made anew. To do it again changes nothing.
    Move {
        /// The addresses that it had before, newest first.
        from: Vec<Address>,
    },
}

/// Why a driver could not observe or act: a closed reason and a sentence with the path or port in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The closed reason.
    pub reason: Reason,
    /// What happened, where, and what to do; a fragment, without the address.
    pub message: String,
}

impl Fault {
    /// Puts a fault together.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// How one health check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeOutcome {
    /// As it should.
    Passed,
    /// Not.
    Failed,
}

/// One result of a health check, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeResult {
    /// When it began.
    pub at: Timestamp,
    /// How it went.
    pub outcome: ProbeOutcome,
    /// The HTTP status code, if there was one.
    pub code: Option<u16>,
    /// How long it took, in milliseconds.
    pub millis: u32,
    /// What went wrong.
    pub error: Option<String>,
}
