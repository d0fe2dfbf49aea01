//! Why an agent cannot start. Each shows as one line with the next step.

use std::path::PathBuf;

use plumb_model::MachineName;
use plumb_wire::client::{CallError, ConnectError};
use plumb_wire::token::TokenError;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Another agent uses the data folder.
    #[error("the agent's folder {folder} is in use by process {pid}; stop that one, or choose another --data", folder = .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, as far as is known.
        pid: String,
    },
    /// The folder holds other things.
    #[error("{folder} holds other things than an agent's data; give an empty or a new folder with --data", folder = .0.display())]
    Foreign(PathBuf),
    /// The data folder is another machine's.
    #[error("the agent's folder {folder} is that of machine {machine}, not of {asked}; leave --machine out, or choose another --data", folder = .folder.display())]
    OtherMachine {
        /// The folder.
        folder: PathBuf,
        /// Whose it is.
        machine: MachineName,
        /// Whose was asked for.
        asked: MachineName,
    },
    /// The data folder was written by a newer version.
    #[error("the agent's folder {folder} was written by a newer plumb (format {format}, this one reads up to {known}); upgrade plumb, or choose another --data", folder = .folder.display())]
    Newer {
        /// The folder.
        folder: PathBuf,
        /// Its format.
        format: u32,
        /// What this version reads.
        known: u32,
    },
    /// Reading or writing the folder failed.
    #[error("cannot {doing} {path}: {source}; see that the folder is writable and has space, or choose another --data", path = .path.display())]
    Folder {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The address of the numbers.
    #[error(
        "cannot serve numbers at {address}: {source}; stop what listens there, or choose another --metrics"
    )]
    Metrics {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// What is stored is damaged.
    #[error("{path} is damaged: {why}; move the folder away and enrol the machine again with `plumb token create --join`", path = .path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// How.
        why: String,
    },
    /// It was never enrolled and has nothing to enrol with.
    #[error(
        "this machine is not enrolled yet: start the agent with --server HOST:PORT and a --token from `plumb token create --join`"
    )]
    NotEnrolled,
    /// The token cannot be one.
    #[error("the join token cannot be used: {0}")]
    Token(#[from] TokenError),
    /// The control plane was not reached, or is another.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The control plane refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A key or certificate request could not be made.
    #[error("cannot make a key or certificate request: {0}")]
    Crypto(String),
}
