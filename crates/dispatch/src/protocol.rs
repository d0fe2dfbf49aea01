//! What agent and control plane say to each other on the control stream, as plain values.
//!
//! It never says how they are encoded or cut into pieces: the wire does, so snapshots are whole here. Both
//! session state machines and the wire's conversions call it.
//!
//! Flow: the agent opens the stream and says [`ToServer::Hello`]; the server answers [`ToAgent::Welcome`] or
//! [`ToAgent::Goodbye`]; then each side speaks when it has something to say. Every assignment is answered with
//! one of [`ToServer::Ack`], [`ToServer::Resync`] and [`ToServer::Refused`]; the ack of a later one answers it too.

use std::collections::BTreeMap;

pub use plumb_model::Now;

use plumb_model::capability::MachineFacts;
use plumb_model::condition::MachineEvent;
use plumb_model::journal::Mark;
use plumb_model::{
    Delta, Generation, Hash, Lineage, OwnerName, ProcessName, ReleaseNumber, ResourceStatus,
    Secret, SecretName, Timestamp,
};

use plumb_model::hands::Finding;

use crate::hands::HeldOrders;

use crate::journal::Chunk;
use crate::version::Versions;

/// Which release each owner on a machine is at.
pub type Releases = BTreeMap<OwnerName, ReleaseNumber>;

/// The first words of an agent on a new stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Whose history it obeys; none until it has held an assignment.
    pub lineage: Option<Lineage>,
    /// The generation on its disk; 0 is none.
    pub generation: Generation,
    /// The hash of that assignment's bytes; none together with generation 0.
    pub hash: Option<Hash>,
    /// Made anew each time that the agent's process starts, so that two agents under one identity can be told apart.
    pub instance: String,
    /// What it says of its machine.
    pub facts: MachineFacts,
    /// The digests, in hex, of the CAs that it trusts; none from a version that cannot be asked to renew.
    pub trusted_cas: Vec<String>,
    /// The versions of this protocol that it speaks.
    pub versions: Versions,
    /// Where its journal ends; none from a version that keeps none.
    pub journal: Option<Mark>,
    /// The orders by hand on its disk; none from a version that takes none.
    pub hands: Option<HeldOrders>,
    /// What its clock says as it says this; none from a version that does not tell.
    pub at: Option<Timestamp>,
}

/// Why an agent does not take an assignment: a closed set, for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalKind {
    /// It carries another lineage than the one that the agent obeys.
    OtherLineage,
    /// It is for another machine or workspace.
    OtherMachine,
    /// The agent already holds a higher generation.
    LowerGeneration,
    /// The agent holds the same generation with other content.
    OtherContent,
    /// It says nothing at all, and nobody confirmed that it should.
    Empty,
    /// Its bytes cannot be read, by this version at least, or are not what their hash says.
    Unreadable,
    /// It could not be written to the agent's disk. The only refusal that may pass by itself.
    NotStored,
}

impl RefusalKind {
    /// The word for JSON and the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherLineage => "other_lineage",
            Self::OtherMachine => "other_machine",
            Self::LowerGeneration => "lower_generation",
            Self::OtherContent => "other_content",
            Self::Empty => "empty",
            Self::Unreadable => "unreadable",
            Self::NotStored => "not_stored",
        }
    }
}

/// A refusal, with a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The generation that was refused.
    pub generation: Generation,
    /// Why, for machines.
    pub kind: RefusalKind,
    /// Why, for people: a fragment that says what is held and what came.
    pub message: String,
}

/// What an agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "one message at a time is held, and it is sent on at once"
)]
pub enum ToServer {
    /// The first message of a stream, and only that.
    Hello(Hello),
    /// This assignment is on the agent's disk, synced.
    Ack {
        /// Its generation.
        generation: Generation,
        /// The hash of its bytes.
        hash: Hash,
    },
    /// A delta did not fit; a snapshot is wanted.
    Resync {
        /// What did not fit, for people.
        reason: String,
    },
    /// An assignment was not taken.
    Refused(Refusal),
    /// How resources are. At most [`MAX_STATUSES`] in one message.
    Status {
        /// All that was said before is void; what follows in this and later messages is the whole.
        complete: bool,
        /// The statuses.
        resources: Vec<ResourceStatus>,
    },
    /// What happened. At most [`MAX_EVENTS`] in one message.
    Events {
        /// Oldest first.
        events: Vec<MachineEvent>,
        /// How many more were lost since the last such message, because nobody could be told.
        dropped: u64,
    },
    /// Nothing but a sign of life.
    Heartbeat,
    /// Entries of the machine's journal.
    Journal(Chunk),
    /// Secrets that the assignment on the disk names are not on this machine. At most [`MAX_SECRETS`] in one message.
    WantSecrets(Vec<SecretVersion>),
    /// What became of orders by hand.
    HandsAnswer {
        /// Which.
        orders: HeldOrders,
        /// Why they were not taken, for people; none: they are on the agent's disk, synced.
        refused: Option<String>,
    },
    /// What a full check has come to.
    Reconciled(Reconciled),
    /// A log that was asked for cannot be sent.
    LogsFailed {
        /// Which request.
        request: u64,
        /// Why, for people.
        message: String,
    },
}

/// What a full check has come to on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// Which request it answers.
    pub request: u64,
    /// How many resources were checked.
    pub checked: u64,
    /// Those that were not as they should be. At most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many more there were.
    pub more: u64,
}

/// One version of a secret.
pub type SecretVersion = (SecretName, u64);

/// Which log is wanted, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsRequest {
    /// Chosen by the server; the agent names it when it opens the log's own stream.
    pub request: u64,
    /// Whose log.
    pub owner: OwnerName,
    /// Of one process only.
    pub process: Option<ProcessName>,
    /// Keep sending what is written from now on.
    pub follow: bool,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
    /// Only so many of the last lines.
    pub tail: Option<u32>,
}

/// What the control plane says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToAgent {
    /// The answer to a hello that is accepted.
    Welcome {
        /// The session's number, for logs.
        session: u64,
        /// The control plane's lineage.
        lineage: Lineage,
        /// Say something at least this often, in milliseconds.
        heartbeat_ms: u64,
        /// The server's clock.
        server_time: Timestamp,
        /// The version of this protocol that both go on with.
        protocol: u32,
        /// The control plane's version, for people; empty from one that does not say it.
        version: String,
    },
    /// The machine's journal is stored through an entry; what comes after it is wanted.
    JournalStored {
        /// Which chain.
        chain: String,
        /// The number of the last entry that is stored.
        through: u64,
    },
    /// A whole assignment.
    Snapshot {
        /// Its generation.
        generation: Generation,
        /// The hash of `bytes`.
        hash: Hash,
        /// The releases that it holds.
        releases: Releases,
        /// The bytes of [`plumb_model::Assignment::bytes`].
        bytes: Vec<u8>,
        /// It is empty, and that is meant.
        confirm_empty: bool,
    },
    /// The lines that lead from the assignment that is held to the next.
    Delta {
        /// The generation that it leads to.
        generation: Generation,
        /// The releases that the result holds.
        releases: Releases,
        /// The lines.
        delta: Delta,
    },
    /// Open a stream for a log.
    OpenLogs(LogsRequest),
    /// Nobody listens to that log any more.
    CloseLogs {
        /// Which request.
        request: u64,
    },
    /// What operators have ordered by hand: the bytes of [`plumb_model::Orders::bytes`].
    Hands {
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Check everything in full, now, and say what that has come to.
    Reconcile {
        /// To be said with the answer.
        request: u64,
        /// Only what belongs to this owner.
        owner: Option<OwnerName>,
    },
    /// Secrets that were asked for.
    Secrets {
        /// Those that may be had.
        values: Vec<(SecretVersion, Secret)>,
        /// Those that cannot be had: nobody has set them, or they are kept no longer.
        missing: Vec<SecretVersion>,
    },
    /// Renew the certificate, and connect anew. Not for the session: the shell that holds the certificate does it.
    Renew {
        /// At a random moment within so many milliseconds.
        within_ms: u64,
    },
    /// Make another key, and have it enrolled. Not for the session: the shell that holds the key does it.
    Rekey {
        /// To be said along with the new key.
        code: String,
    },
    /// The server ends the session.
    Goodbye {
        /// Why and what to do, for people.
        reason: String,
    },
}

/// The most statuses in one message: with twenty probe results each, that is about 1 MiB, well under gRPC's 4 MiB.
pub const MAX_STATUSES: usize = 256;

/// The most secrets that are asked for in one message.
pub const MAX_SECRETS: usize = 64;

/// The most findings that a full check tells; the others are counted.
pub const MAX_FINDINGS: usize = 1000;

/// The most events in one message.
pub const MAX_EVENTS: usize = 256;
