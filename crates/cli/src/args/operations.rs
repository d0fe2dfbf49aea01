//! The arguments of what concerns a control plane and its machine rather than what runs on them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use plumb_model::WorkspaceName;

use super::listening;

/// How a control plane is run. What is not given comes from the environment, the config file or the defaults.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Its data folder, made if it is missing.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where it listens; 127.0.0.1:7700 unless something else is said.
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub listen: Option<SocketAddr>,
    /// Serve /healthz and /readyz over plain HTTP here, for probes that speak no TLS; and, on a loopback address, /metrics.
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub http: Option<SocketAddr>,
    /// The workspace that it holds; `main` unless something else is said.
    #[arg(long)]
    pub workspace: Option<WorkspaceName>,
    /// Log to this file, as one JSON object a line, and not to standard error. It is rotated at 10 MiB; five older ones
    /// are kept.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// The config file; /etc/plumb/server.yaml where that is there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show every setting with its value and where that comes from, and start nothing.
    #[arg(long)]
    pub print_config: bool,
}

/// The config file of `plumb server`, where it is there.
pub const SERVER_CONFIG: &str = "/etc/plumb/server.yaml";

/// The config file of `plumb agent`, where it is there.
pub const AGENT_CONFIG: &str = "/etc/plumb/agent.yaml";

/// What is backed up, and to where.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write; it must not exist.
    #[arg(required_unless_present = "keys")]
    pub file: Option<PathBuf>,
    /// Leave artifacts and large files out. After a restore they are sent again with the next apply from the repository.
    #[arg(long)]
    pub without_blobs: bool,
    /// Copy the keys of the control plane (of its CA, of secrets, of plan files) into this file, mode 0600. They never go
    /// over the API, so this reads its data folder: run it on its machine, as its user. Keep the file apart from backups.
    #[arg(long, value_name = "FILE", requires = "data")]
    pub keys: Option<PathBuf>,
    /// The data folder of the control plane, for --keys.
    #[arg(long, value_name = "DIR", requires = "keys")]
    pub data: Option<PathBuf>,
}

/// What is restored, and to where.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A file from `plumb backup`.
    pub file: PathBuf,
    /// The data folder to make; it must be empty or missing.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// A file from `plumb backup --keys` of the same control plane.
    #[arg(long, value_name = "FILE")]
    pub keys: Option<PathBuf>,
    /// Restore without the keys: the control plane gets a new CA, so every machine and every person has to join and log in
    /// anew, and secrets can be read only where their key is given from outside.
    #[arg(long, conflicts_with = "keys")]
    pub without_keys: bool,
}

/// What is looked at.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Look at this data folder, of a control plane or of an agent. By default at those beneath /var/lib/plumb, where they are.
    #[arg(long, value_name = "DIR")]
    pub data: Vec<PathBuf>,
}
