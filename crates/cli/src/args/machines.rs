//! The arguments of what concerns machines, their agents and the CA.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use plumb_model::MachineName;

use super::{RunAsArg, duration, listening};

/// Run the agent of this machine, or install it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct AgentArgs {
    /// What else to do with the agent.
    #[command(subcommand)]
    pub command: Option<AgentCommand>,
    /// The control plane's address, HOST:PORT. Needed once.
    #[arg(long)]
    pub server: Option<String>,
    // The variable is read by the command: clap would take it for an argument, beside which there is no subcommand.
    /// A join token from `plumb token create --join`. Needed once. Better handed over in PLUMB_JOIN_TOKEN, since
    /// command lines can be read by every user of the machine.
    #[arg(long)]
    pub token: Option<String>,
    /// The agent's data folder, made if it is missing.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The machine's name, where the token does not fix it.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// The time between two looks at everything; 30s unless something else is said.
    #[arg(long, value_name = "TIME")]
    pub interval: Option<String>,
    /// Whom apps run as: `app-users` makes a system user for each app (the default for root), `agent` runs all as
    /// the agent's own user.
    #[arg(long, value_enum)]
    pub run_as: Option<RunAsArg>,
    /// Log to this file, as one JSON object a line, and not to standard error. It is rotated at 10 MiB; five older ones
    /// are kept.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// Serve numbers for Prometheus at /metrics here, over plain HTTP, and /healthz; off unless it is said. An address other
    /// than loopback lets everybody who reaches it read the names of apps.
    #[arg(long, value_name = "ADDR", value_parser = listening)]
    pub metrics: Option<SocketAddr>,
    /// The config file; /etc/plumb/agent.yaml where that is there.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Show every setting with its value and where that comes from, and start nothing.
    #[arg(long)]
    pub print_config: bool,
}

/// What else to do with the agent.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Make this machine one of a control plane's: join, install the agent as a service, and start it.
    #[command(
        after_help = "Examples:\n  PLUMB_JOIN_TOKEN=… plumb agent install --server 203.0.113.1:7700\n  plumb agent install --server 203.0.113.1:7700 --join - < token\n\nIt copies this program to /usr/local/bin/plumb and writes /etc/systemd/system/plumb-agent.service. Done again, it\nupgrades: what runs goes on running."
    )]
    Install(InstallArgs),
}

/// How an agent is installed.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// The control plane's address as this machine reaches it, HOST:PORT. Not needed once it has joined.
    #[arg(long)]
    pub server: Option<String>,
    /// A join token from `plumb token create --join`, or `-` to read it from standard input. Better handed over in
    /// PLUMB_JOIN_TOKEN, since command lines can be read by every user of the machine. Not needed once it has joined.
    #[arg(long, value_name = "TOKEN|-")]
    pub join: Option<String>,
    /// The machine's name, where the token does not fix it.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// The agent's data folder.
    #[arg(long, default_value = "/var/lib/plumb/agent")]
    pub data: PathBuf,
    /// Whom apps run as.
    #[arg(long, value_enum)]
    pub run_as: Option<RunAsArg>,
    /// Install only, and start nothing.
    #[arg(long)]
    pub no_start: bool,
    /// Install into this folder as if it were /, and start nothing: for images.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// What to do with machines.
#[derive(Debug, Subcommand)]
pub enum MachineCommand {
    /// List the machines of the workspace.
    #[command(after_help = "Examples:\n  plumb machine list\n  plumb machine list --output json")]
    List,
    /// Show one machine: its host, what its agent can do, by what it is known.
    #[command(after_help = "Example:\n  plumb machine show web-1")]
    Show {
        /// Its name.
        name: MachineName,
    },
    /// Make a machine that is reached with ssh one of the workspace: copies the program, installs the agent as a service,
    /// joins.
    #[command(
        after_help = "Examples:\n  plumb machine add ssh://root@203.0.113.7 --name web-1 --server plumb.example.com:7700\n  plumb machine add ssh://deploy@web-2.example.com:2222 --name web-2 --identity ~/.ssh/deploy\n\nThe user is root or may use sudo without a password. ssh asks about host keys and passwords as it always does."
    )]
    Add(AddArgs),
    /// Take a machine's identity away: its agent is cut off at once. What runs there goes on until somebody stops it.
    #[command(
        after_help = "Examples:\n  plumb machine remove web-1\n  plumb machine remove web-1 --force    it is lost: what was recorded on it counts as gone"
    )]
    Remove {
        /// Its name.
        name: MachineName,
        /// Although something is recorded on it.
        #[arg(long)]
        force: bool,
    },
    /// Of two agents that live under one identity, keep one and shut the other out.
    #[command(
        after_help = "Example:\n  plumb machine keep web-1 3f2a91c4\n\nThe agent that is kept makes another key. `plumb machine show NAME` says where each of them connects from."
    )]
    Keep {
        /// The machine's name.
        name: MachineName,
        /// The beginning of the instance of the agent that stays, as `plumb machine show` and the message say it.
        instance: String,
    },
}

/// How a machine is added.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// How it is reached.
    #[arg(value_name = "ssh://USER@HOST[:PORT]")]
    pub target: String,
    /// The name that it gets.
    #[arg(long)]
    pub name: MachineName,
    /// The control plane's address as that machine reaches it, HOST:PORT; by default the one in the context.
    #[arg(long)]
    pub server: Option<String>,
    /// The private key for ssh.
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// An option for ssh, as its -o takes it. May be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub ssh_option: Vec<String>,
    /// The plumb program to install, for a machine of another architecture; by default this one.
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// Install and join only, and start nothing.
    #[arg(long)]
    pub no_start: bool,
    /// How long the machine may take to come online.
    #[arg(long, default_value = "1m", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// What to do with the control plane's CA.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Show the CAs, how far a rotation is, and who it waits for.
    Status,
    /// Replace the CA: make the next one, have everybody learn of it, have it issue, drop the older one. The steps follow
    /// by themselves, each as soon as nobody is lost by it.
    #[command(
        after_help = "Examples:\n  plumb ca rotate             returns once it has begun; plumb ca status shows how far it is\n  plumb ca rotate --finish    drops the older CA now: whoever still depends on it has to join or log in anew"
    )]
    Rotate {
        /// Drop the older CA now, whoever still depends on it.
        #[arg(long)]
        finish: bool,
    },
}

/// Which machines go on from what is recorded.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Their names.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub machines: Vec<MachineName>,
    /// All that hold more than is recorded.
    #[arg(long)]
    pub all: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}
