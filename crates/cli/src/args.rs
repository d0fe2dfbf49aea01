//! The arguments, and the help texts that teach.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use plumb_model::{MachineName, OwnerName, WorkspaceName};
use plumb_planner::CONSENTS;

use crate::render::plan::PlanFormat;

pub mod access;
pub mod events;
mod hands;
mod machines;
pub mod operations;
mod rollouts;
pub mod secret;

pub use hands::{HandArgs, HoldArgs, ReconcileArgs};
pub use rollouts::{RolloutCommand, RolloutStatusArgs};

pub use machines::{
    AddArgs, AgentArgs, AgentCommand, CaCommand, InstallArgs, MachineCommand, RecoverArgs,
};

/// Keeps a fleet of VMs true to YAML blueprints.
#[derive(Debug, Parser)]
#[command(
    name = "plumb",
    version,
    about = "Keeps a fleet of VMs true to YAML blueprints",
    after_help = "First steps:\n  plumb dev blueprints-examples/quickstart   the whole road on this machine: plan, apply, serve, heal\n  plumb validate                             check the blueprints in this folder\n  plumb plan                                 show what an apply would change\n  plumb apply                                record it and follow until it has converged\n\nExit codes: 0 fine, 1 error, 2 there are changes (with --detailed-exitcode).",
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How to reach the control plane: the name of a context or the path of a context file.
    #[arg(long, global = true, env = "PLUMB_CONTEXT", value_name = "NAME|FILE")]
    pub context: Option<String>,
    /// How to print.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Show more: revisions, generations, hashes, health history.
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: a stable, versioned format.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check blueprints: every problem of every file at once, without a server.
    #[command(
        after_help = "Examples:\n  plumb validate                          the repository that this folder belongs to\n  plumb validate infra/                   the folder infra, within its whole repository\n  plumb validate --format sarif > plumb.sarif\n\nplumb explain CODE says what a code means. Exit codes: 0 valid, 1 there are errors."
    )]
    Validate(ValidateArgs),
    /// Say what a diagnostic's code means, with an example and how it is mended.
    #[command(after_help = "Examples:\n  plumb explain          all codes\n  plumb explain P0105")]
    Explain {
        /// The code, such as P0105.
        code: Option<String>,
    },
    /// Bring blueprints into canonical form; comments, order and meaning stay.
    #[command(
        after_help = "Examples:\n  plumb fmt                 every blueprint beneath this folder\n  plumb fmt --check         show what would change, and exit with 1 if anything would\n  plumb fmt - < a.yaml      standard input to standard output, for editors"
    )]
    Fmt(FmtArgs),
    /// Write a repository to start from, which `plumb dev` can run at once.
    #[command(after_help = "Examples:\n  plumb init shop\n  plumb init . --name shop")]
    Init {
        /// The folder; made if it is missing.
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The workspace's name; by default the folder's.
        #[arg(long)]
        name: Option<WorkspaceName>,
    },
    /// Show what an apply would change, and change nothing.
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  plumb plan\n  plumb plan --out release.plan   a signed file, for `plumb apply release.plan`\n  plumb plan --detailed-exitcode   exit with 2 if there are changes\n  plumb plan --output json         the plan as JSON; its schema is schemas/plan.json\n  plumb plan --format markdown     for a comment on a pull request\n  plumb plan --format html > plan.html   a page with the resource graph"
    )]
    Plan {
        /// What to do with plan files.
        #[command(subcommand)]
        command: Option<PlanCommand>,
        /// What to plan.
        #[command(flatten)]
        blueprints: Blueprints,
        /// Exit with 2 if there are changes.
        #[arg(long)]
        detailed_exitcode: bool,
        /// What of them.
        #[command(flatten)]
        ask: AskArgs,
        /// Plan against a file from `plumb snapshot`, without a control plane.
        #[arg(long, value_name = "FILE")]
        snapshot: Option<PathBuf>,
        /// What else to plan, and where to put it.
        #[command(flatten)]
        into: PlanInto,
        /// How to show it.
        #[command(flatten)]
        view: PlanArgs,
    },
    /// Show the plan in a file, without a server.
    #[command(
        after_help = "Examples:\n  plumb show release.plan\n  plumb show release.plan --output json   the plan, as `plumb plan --output json` prints it"
    )]
    Show {
        /// A file from `plumb plan --out`.
        file: PathBuf,
        /// How to show it.
        #[command(flatten)]
        view: PlanArgs,
    },
    /// Show what moving from one git commit's blueprints to another's would change, without a server.
    #[command(
        after_help = "Examples:\n  plumb diff main..HEAD            between two commits\n  plumb diff HEAD                  between the last commit and the files as they are\n  plumb diff v1.2..main infra/     of the blueprints in infra/"
    )]
    Diff {
        /// `A..B`, two commits; or `A`, a commit and the files as they are.
        #[arg(value_name = "A..B")]
        commits: String,
        /// Of which blueprints.
        #[command(flatten)]
        blueprints: Blueprints,
        /// Exit with 2 if there are changes.
        #[arg(long)]
        detailed_exitcode: bool,
        /// How to show it.
        #[command(flatten)]
        view: PlanArgs,
    },
    /// Save what is recorded and observed, without any secret, to plan against it offline.
    #[command(
        after_help = "Example:\n  plumb snapshot --out fleet.snapshot\n  plumb plan --snapshot fleet.snapshot"
    )]
    Snapshot {
        /// Where to save it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Plan, ask, record, and follow until it has converged.
    #[command(
        after_help = "Examples:\n  plumb apply                    asks before it records\n  plumb apply release.plan       exactly what `plumb plan --out release.plan` has shown\n  plumb apply --yes              for scripts\n  plumb apply --yes --detach     returns once it is recorded"
    )]
    Apply {
        /// What to apply: blueprints, or a plan file.
        #[command(flatten)]
        blueprints: Blueprints,
        /// What of them.
        #[command(flatten)]
        ask: AskArgs,
        /// How to apply.
        #[command(flatten)]
        apply: ApplyArgs,
        /// How to apply a plan file.
        #[command(flatten)]
        file: ApplyFileArgs,
    },
    /// Show how everything is.
    Status {
        /// Keep showing it as it changes, until Ctrl-C.
        #[arg(long, short)]
        watch: bool,
    },
    /// Stop an app's processes until `plumb start`, whatever is applied meanwhile.
    #[command(
        after_help = "Examples:\n  plumb stop hello                    on every machine, and on those that it comes to\n  plumb stop hello --machine web-1\n\nThe order is recorded, kept on the machine's own disk, and obeyed there over restarts and reboots, with or without\nthe control plane. It stands above rollouts, restart and drift policy. `plumb plan` and `plumb status` show it.\nExits with 0 once all of them stand still, and with 1 if a machine is offline or did not get there in time."
    )]
    Stop(HandArgs),
    /// Let an app run again that `plumb stop` has stopped, and start what has ended.
    #[command(
        after_help = "Examples:\n  plumb start hello\n  plumb start hello --machine web-1\n\nProcesses that run are left alone. An app that its blueprint says is stopped is started there, not here."
    )]
    Start(HandArgs),
    /// Start each process of an app again, once.
    #[command(
        after_help = "Examples:\n  plumb restart hello\n  plumb restart hello --machine web-1\n\nEach process that runs now is ended and started once, also if the connection or the agent breaks in between.\nAll at the same time: to go machine by machine, name them one after the other.\nExits with 0 once all run again and are healthy."
    )]
    Restart(HandArgs),
    /// Have machines checked in full, now, and put right what is wrong as always.
    #[command(
        after_help = "Examples:\n  plumb reconcile                     every machine\n  plumb reconcile --machine web-1\n  plumb reconcile --app hello\n\nEverything is looked at, contents too, and what was put off is tried again. It tells what was found and what came of it.\nExits with 0 if all is right now, or left as a blueprint or a hold says; with 1 if a machine could not be checked or something could not be put right."
    )]
    Reconcile(ReconcileArgs),
    /// Leave a resource as it is for a time: it is neither corrected nor changed, stopped or started.
    #[command(
        after_help = "Examples:\n  plumb hold base/file//etc/motd --for 2h --reason \"trying another greeting\"\n  plumb hold web-1/hello/process/app/0 --for 30m --reason \"under a debugger\"\n  plumb hold list                               what is held, what differs there, and the blueprint that would keep it\n  plumb hold --release base/file//etc/motd\n\nAfterwards what differs is put right, as its drift policy says."
    )]
    Hold(HoldArgs),
    /// Show what an app has written, from every machine that runs it.
    #[command(
        after_help = "Examples:\n  plumb logs hello --tail 20\n  plumb logs hello -f\n  plumb logs hello --since 10m"
    )]
    Logs {
        /// The app.
        app: OwnerName,
        /// Go on with what is written from now on.
        #[arg(long, short)]
        follow: bool,
        /// Nothing older than this: `10m`, `2h`, or a time such as 2026-11-21T08:00:00Z.
        #[arg(long, allow_hyphen_values = true)]
        since: Option<String>,
        /// At most this many of the newest lines of each process.
        #[arg(long)]
        tail: Option<u32>,
        /// Of one process only.
        #[arg(long)]
        process: Option<plumb_model::ProcessName>,
    },
    /// Show what was recorded: release, when, by whom, from which commit, with what outcome.
    History {
        /// Of one app or Setup only.
        app: Option<OwnerName>,
        /// At most this many revisions.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Go back to an earlier release of an app: shown as a plan, applied forward.
    #[command(
        after_help = "Examples:\n  plumb rollback hello      the newest earlier release that converged, never one that failed\n  plumb rollback hello 3"
    )]
    Rollback {
        /// The app or Setup.
        app: OwnerName,
        /// The release to go back to.
        release: Option<u64>,
        /// How to apply.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Remove everything that is recorded from every machine.
    Destroy {
        /// How to apply.
        #[command(flatten)]
        apply: ApplyArgs,
    },
    /// Run a control plane and an agent here, and keep this machine true to the blueprints while you edit them.
    #[command(
        after_help = "Examples:\n  plumb dev blueprints-examples/quickstart\n  plumb dev . --once --output json    converge, print the status, stop, exit with 0 or 1\n  plumb dev . --machine web-1         this machine plays web-1\n\nIn a second terminal: plumb status, plumb logs APP -f, plumb history, plumb rollback APP."
    )]
    Dev(DevArgs),
    /// Run a control plane.
    #[command(
        after_help = "Examples:\n  plumb server --data /var/lib/plumb/server --listen 0.0.0.0:7700\n  plumb server --print-config     what holds, and where each value comes from\n\nA flag goes before its variable (PLUMB_SERVER_…), that before the config file, that before the default. It writes a\ncontext with an admin token, which the other commands find."
    )]
    Server(operations::ServerArgs),
    /// Run the agent of this machine, or install it.
    #[command(
        after_help = "Examples:\n  plumb agent --server 203.0.113.1:7700 --token plumb-join_… --data /var/lib/plumb/agent\n  plumb agent --data /var/lib/plumb/agent     once it has joined, it knows the rest\n  plumb agent install --server 203.0.113.1:7700   with PLUMB_JOIN_TOKEN: join, and run as a service"
    )]
    Agent(AgentArgs),
    /// See, add and remove machines.
    Machine {
        /// What to do.
        #[command(subcommand)]
        command: MachineCommand,
    },
    /// See and replace the CA by which machines and control plane know each other.
    Ca {
        /// What to do.
        #[command(subcommand)]
        command: CaCommand,
    },
    /// Go on with machines that hold more than is recorded, as after an older backup was restored.
    #[command(
        after_help = "Examples:\n  plumb recover web-1\n  plumb recover --all --yes\n\nWhat is recorded now gets a generation above the one that the machine holds, and is brought about there."
    )]
    Recover(RecoverArgs),
    /// See and steer how machines move to their releases.
    Rollout {
        /// What to do.
        #[command(subcommand)]
        command: RolloutCommand,
    },
    /// Set, list and remove secrets. Blueprints name them; their values are kept by the control plane, encrypted.
    Secret {
        /// What to do.
        #[command(subcommand)]
        command: secret::SecretCommand,
    },
    /// Make, list and revoke tokens.
    Token {
        /// What to do.
        #[command(subcommand)]
        command: access::TokenCommand,
    },
    /// Log in to a control plane with a token, and keep both as a context.
    Login(access::LoginArgs),
    /// Remove a context, and the token in it, from this machine: the current one, or as --context says.
    Logout,
    /// List contexts, or choose the current one.
    Context {
        /// What to do.
        #[command(subcommand)]
        command: access::ContextCommand,
    },
    /// List the workspaces of the control plane, or make one.
    Workspace {
        /// What to do.
        #[command(subcommand)]
        command: access::WorkspaceCommand,
    },
    /// Show who did what in the workspace, or verify that nobody has touched the log of it.
    Audit(access::AuditArgs),
    /// Show what happened on machines, also while the control plane was away, and what happens.
    Events(events::EventsArgs),
    /// Print the JSON Schema of a kind of blueprint, or of all; or what a change of each resource's field costs.
    #[command(
        after_help = "Examples:\n  plumb schema App\n  plumb schema --coverage\n  plumb schema --coverage process"
    )]
    Schema {
        /// The kind of blueprint, such as App, or plan for the JSON of plans; with --coverage the kind of resource, such as process. Case does not matter.
        kind: Option<String>,
        /// Instead: for each field of each resource kind, what a change costs and how it is observed.
        #[arg(long)]
        coverage: bool,
    },
    /// Copy all that the control plane holds into a file, while it works; or its keys, which are never in that file.
    #[command(
        after_help = "Examples:\n  plumb backup monday.backup\n  plumb backup --keys plumb.keys --data /var/lib/plumb/server    on its machine; keep it elsewhere\n\nA backup is consistent: writes wait while the store is copied aside. Secrets are in it encrypted. Role: admin of all workspaces."
    )]
    Backup(operations::BackupArgs),
    /// Make a data folder of a backup, for `plumb server` to start on.
    #[command(
        after_help = "Examples:\n  plumb restore monday.backup --data /var/lib/plumb/server --keys plumb.keys\n  plumb restore monday.backup --data /var/lib/plumb/server --without-keys\n\nA backup that is not whole to the last bit is refused, and nothing is left behind. Machines that hold more than the\nbackup are left alone until `plumb recover`."
    )]
    Restore(operations::RestoreArgs),
    /// Look for what stands in the way: reachability, token, clocks, certificates, disk, modes, abilities.
    #[command(
        after_help = "Examples:\n  plumb doctor                                the context and what is behind it; on a machine also its data folders\n  plumb doctor --data /var/lib/plumb/agent    of one data folder\n\nExit codes: 0 nothing is in the way, 1 something is."
    )]
    Doctor(operations::DoctorArgs),
    /// Print the manual page, or write one for each command.
    #[command(
        after_help = "Examples:\n  plumb man | man -l -\n  plumb man --out /usr/local/share/man/man1"
    )]
    Man {
        /// Write all pages into this folder.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  plumb completions bash > /etc/bash_completion.d/plumb")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Whom apps run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RunAsArg {
    /// A system user for each app.
    AppUsers,
    /// The agent's own user.
    Agent,
}

/// What to do with plan files.
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Check a plan file: its signature, its blobs, and that it holds together. Exits with 1 if anything is wrong.
    #[command(
        after_help = "Examples:\n  plumb plan verify release.plan                   with the key of the control plane in the context\n  plumb plan verify release.plan --key server.key  with the one that `plumb plan key` printed"
    )]
    Verify {
        /// A file from `plumb plan --out`.
        file: PathBuf,
        /// The key to trust: a file that holds it, its text, or its id.
        #[arg(long, value_name = "KEYFILE|KEY|ID")]
        key: Option<String>,
    },
    /// Print the public key that signs the plan files of the control plane in the context.
    #[command(after_help = "Example:\n  plumb plan key > server.key")]
    Key,
}

/// What else to plan, and where to put it.
#[derive(Debug, Clone, Args)]
pub struct PlanInto {
    /// Save the plan, signed by the control plane, so that `plumb apply FILE` records exactly this or nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "snapshot")]
    pub out: Option<PathBuf>,
    /// Put everything that it needs into the file, so that it can be applied where the repository is not.
    /// An earlier release is known to its own control plane alone, so there is no bundle of a rollback.
    #[arg(long, requires = "out", conflicts_with_all = ["destroy", "rollback"])]
    pub bundle: bool,
    /// Plan removing everything.
    #[arg(long, conflicts_with_all = ["rollback", "snapshot", "path", "env", "targets", "refresh"])]
    pub destroy: bool,
    /// Plan going back to an earlier release of an app; without a number, as `plumb rollback` does.
    #[arg(long, value_name = "APP[@RELEASE]", value_parser = app_at_release, conflicts_with_all = ["snapshot", "path", "env", "targets", "refresh"])]
    pub rollback: Option<(OwnerName, Option<u64>)>,
}

/// How to apply a plan file.
#[derive(Debug, Clone, Args)]
pub struct ApplyFileArgs {
    /// Of a plan file: if something was recorded since it was made, plan again, and go on if the plan is the same.
    #[arg(long)]
    pub rebase: bool,
    /// Of a plan file that another control plane has signed: the key to trust, as a file, a text or an id.
    #[arg(long, value_name = "KEYFILE|KEY|ID")]
    pub key: Option<String>,
}

/// Which blueprints.
#[derive(Debug, Clone, Args)]
pub struct Blueprints {
    /// A folder of the blueprint repository; the manifest `plumb.yaml` is looked for here and above.
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The environment whose overlay `plumb.NAME.yaml` is laid over the manifest.
    #[arg(long)]
    pub env: Option<String>,
}

/// What of the blueprints is planned.
#[derive(Debug, Clone, Default, Args)]
pub struct AskArgs {
    /// Only this app, Setup, Service, Volume or Network, with what it depends on. May be given several times.
    #[arg(long = "target", value_name = "NAME")]
    pub targets: Vec<OwnerName>,
    /// Look every branch, tag and version range up again, instead of keeping what is recorded for it.
    #[arg(long)]
    pub refresh: bool,
}

impl AskArgs {
    /// For the planner.
    pub fn ask(&self) -> plumb_planner::Ask {
        plumb_planner::Ask {
            targets: self.targets.iter().cloned().collect(),
            refresh: if self.refresh {
                plumb_planner::Refresh::All
            } else {
                plumb_planner::Refresh::Nothing
            },
            ..plumb_planner::Ask::default()
        }
    }
}

/// What to check, and how to tell.
#[derive(Debug, Clone, Args)]
pub struct ValidateArgs {
    /// Folders and files. The whole repository that each belongs to is checked; shown, and counted by the exit code,
    /// is what touches the paths. The folder `.` stands for its whole repository.
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// The environment whose overlay `plumb.NAME.yaml` is laid over the manifest.
    #[arg(long)]
    pub env: Option<String>,
    /// How to tell. All but text go to standard output.
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
}

/// How to tell of problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// For people.
    Text,
    /// For programs: a stable, versioned format.
    Json,
    /// SARIF 2.1.0, for code scanners.
    Sarif,
    /// JUnit XML, for CI systems.
    Junit,
    /// Workflow commands of GitHub Actions.
    Github,
    /// GitLab Code Quality.
    Gitlab,
}

/// What to format.
#[derive(Debug, Clone, Args)]
pub struct FmtArgs {
    /// Folders and files; `-` is standard input. In folders, YAML files with a top-level `kind` are formatted.
    #[arg(default_value = ".")]
    pub paths: Vec<PathBuf>,
    /// Change nothing: show what would change as a unified diff, and exit with 1 if anything would.
    #[arg(long)]
    pub check: bool,
}

/// How a plan is shown.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct PlanArgs {
    /// In which form the plan is printed; `--output json` is `--format json`.
    #[arg(long, value_enum)]
    pub format: Option<PlanFormat>,
    /// Fold and cut nothing, and show the defaults of what is new too.
    #[arg(long)]
    pub full: bool,
}

impl Command {
    /// How this command is to show its plan, if it has one.
    pub fn plan_args(&self) -> PlanArgs {
        match self {
            Self::Plan { view, .. } | Self::Show { view, .. } | Self::Diff { view, .. } => *view,
            Self::Apply { apply, .. }
            | Self::Rollback { apply, .. }
            | Self::Destroy { apply, .. } => PlanArgs {
                format: None,
                full: apply.full,
            },
            _ => PlanArgs::default(),
        }
    }
}

/// How to apply.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Fold and cut nothing in the plan, and show the defaults of what is new too.
    #[arg(long)]
    pub full: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Return once it is recorded.
    #[arg(long)]
    pub detach: bool,
    /// Allow what the plan asks consent for, by name.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", value_parser = PossibleValuesParser::new(CONSENTS))]
    pub allow: Vec<String>,
    /// How long to follow.
    #[arg(long, default_value = "10m", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// How to develop.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Which blueprints.
    #[command(flatten)]
    pub blueprints: Blueprints,
    /// Converge, print the final status, stop, and exit with 0 or 1.
    #[arg(long)]
    pub once: bool,
    /// Leave the apps running at the end.
    #[arg(long)]
    pub keep: bool,
    /// Which machine of the workspace this one plays. Not needed if there is only one.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// Where to keep state; by default a folder for each workspace in the user's state folder.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Allow what the plan asks consent for, by name.
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", value_parser = PossibleValuesParser::new(CONSENTS))]
    pub allow: Vec<String>,
    /// How long `--once` waits.
    #[arg(long, default_value = "2m", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// `hello` or `hello@3`.
fn app_at_release(text: &str) -> Result<(OwnerName, Option<u64>), String> {
    let (owner, release) = match text.split_once('@') {
        Some((owner, release)) => {
            let number = release.parse().map_err(|_| {
                format!("{release:?} is no release: write its number, as in hello@3")
            })?;
            (owner, Some(number))
        }
        None => (text, None),
    };
    let owner = OwnerName::new(owner).map_err(|e| e.to_string())?;
    Ok((owner, release))
}

/// Where something is to listen: an IP address and a port.
pub fn listening(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| {
        "write an IP address and a port up to 65535, such as 127.0.0.1:7700, or 0.0.0.0:7700 for every address of the machine".to_owned()
    })
}

/// `500ms`, `10s`, `5m`, `1h`, `2d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{text:?} is no duration: write 10s, 5m or 1h"))?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("{text:?} is no duration: write 10s, 5m or 1h")),
    };
    number
        .checked_mul(millis)
        .filter(|ms| *ms > 0 && *ms <= 366 * 86_400_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not between 1ms and 366d"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_consents_that_there_are_can_be_allowed() {
        for command in ["apply", "destroy", "dev"] {
            let parse = |allow: &str| Cli::try_parse_from(["plumb", command, "--allow", allow]);
            parse(&CONSENTS.join(",")).unwrap();
            for (bad, hint) in [
                ("delete", "'deletes'"),
                ("deletes,dataloss", "'data-loss'"),
                ("all", "adopt"),
                ("", "adopt"),
                ("deletes,", "adopt"),
            ] {
                let error = parse(bad).unwrap_err().to_string();
                assert!(error.contains(hint), "{command} {bad:?}: {error}");
            }
        }
    }

    #[test]
    fn where_to_listen_is_an_address_and_a_port() {
        assert!(listening("[::1]:7700").is_ok());
        for bad in ["", "7700", "localhost:7700", "127.0.0.1", "127.0.0.1:70000"] {
            let error = listening(bad).unwrap_err();
            assert!(error.contains("127.0.0.1:7700"), "{bad}: {error}");
        }
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "s", "1y", "-1s", "0s", "99999999999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        // One that is negative is a duration that is wrong, and no flag that is unknown.
        for words in [
            &[
                "plumb", "token", "create", "ci", "--role", "viewer", "--ttl", "-1h",
            ][..],
            &["plumb", "restart", "web", "--timeout", "-5m"],
            &["plumb", "hold", "web", "--reason", "x", "--for", "-2h"],
        ] {
            let error = Cli::try_parse_from(words).unwrap_err().to_string();
            assert!(error.contains("is no duration"), "{words:?}: {error}");
        }
    }
}
