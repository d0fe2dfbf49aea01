//! The arguments of the commands about access: tokens, login, contexts, workspaces, audit.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};
use plumb_model::{MachineName, OwnerName, WorkspaceName};

use super::duration;

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Read status, history and logs.
    Viewer,
    /// Plan.
    Planner,
    /// Apply, roll back, destroy.
    Deployer,
    /// Stop, hold and recover.
    Operator,
    /// Make tokens and manage machines.
    Admin,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token; its text is printed once and kept nowhere.
    #[command(
        group = ArgGroup::new("kind").required(true).args(["join", "name"]),
        after_help = "Examples:\n  plumb token create --join --machine web-1         for a machine, once\n  plumb token create ci --role deployer --ttl 90d   for people and tools"
    )]
    Create {
        /// The name of a token for people and tools, which stands in the history beside what was done with it.
        name: Option<String>,
        /// A token with which one machine joins, once.
        #[arg(long)]
        join: bool,
        /// The name that the machine gets; without it the agent says one.
        #[arg(long, conflicts_with = "name")]
        machine: Option<MachineName>,
        /// What the token may do; each role contains those before it.
        #[arg(long, value_enum, default_value = "viewer", conflicts_with = "join")]
        role: RoleArg,
        /// How long it is good for: 1h unless told otherwise with --join, and else until it is revoked.
        #[arg(long, value_parser = duration, allow_hyphen_values = true)]
        ttl: Option<Duration>,
        /// For every workspace of the control plane, and to make more of them. An admin's only.
        #[arg(long, conflicts_with = "join")]
        all_workspaces: bool,
    },
    /// List the tokens of the workspace: role, expiry, last use. Never their texts.
    List,
    /// Take a token back. It is refused at once, and what streams to its holder is cut.
    #[command(after_help = "Example:\n  plumb token revoke ci")]
    Revoke {
        /// Its id, as `plumb token list` shows it.
        id: String,
    },
}

/// How to get to a control plane, with a token that somebody has made.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("trust").required(true).args(["ca", "pin"]),
    after_help = "Examples:\n  plumb login https://plumb.example.com:7700 --pin 3f1c…        asks for the token\n  pass show plumb | plumb login 10.0.0.1:7700 --ca ca.pem --token-stdin\n\nThe context is named after the workspace, or as --context says, and is the current one from then on."
)]
pub struct LoginArgs {
    /// Its address: https://HOST:PORT or HOST:PORT.
    pub url: String,
    /// Read the token from standard input instead of asking for it.
    #[arg(long)]
    pub token_stdin: bool,
    /// A file with the certificate of its CA, in PEM.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The SHA-256 digest of the certificate of its CA, as `plumb token create` prints it.
    #[arg(long, value_name = "DIGEST")]
    pub pin: Option<String>,
    /// The workspace to work in, for a token that is for all of them.
    #[arg(long)]
    pub workspace: Option<WorkspaceName>,
}

/// What to do with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// List the contexts; a star marks the current one.
    List,
    /// Make a context the current one.
    Use {
        /// Its name.
        name: String,
    },
}

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// List the workspaces that the token may go into.
    List,
    /// Make a workspace on the control plane, with state, machines and tokens of its own, and a context for it.
    #[command(after_help = "Example:\n  plumb workspace create crm\n  plumb --context crm status")]
    Create {
        /// Its name.
        name: WorkspaceName,
    },
}

/// Which part of the audit log.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  plumb audit --since 24h --owner web\n  plumb audit --verify      exits with 1 where the chain is broken"
)]
pub struct AuditArgs {
    /// Nothing older: a time such as 24h, or RFC 3339.
    #[arg(long, allow_hyphen_values = true)]
    pub since: Option<String>,
    /// Only what was about this app, service and so on.
    #[arg(long)]
    pub owner: Option<OwnerName>,
    /// The most entries.
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Hold each entry against the one before it, and say where the chain is broken.
    #[arg(long, conflicts_with_all = ["since", "owner", "limit"])]
    pub verify: bool,
    /// Print JSON: short for --output json.
    #[arg(long)]
    pub json: bool,
}
