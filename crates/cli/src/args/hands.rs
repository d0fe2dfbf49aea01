//! The arguments of what operators do by hand.

use std::time::Duration;

use clap::{Args, Subcommand};
use plumb_model::{MachineName, OwnerName};

use super::duration;

/// Which app, and how long to follow.
#[derive(Debug, Args)]
pub struct HandArgs {
    /// The app.
    pub app: OwnerName,
    /// Only on this machine.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// Return once it is recorded.
    #[arg(long)]
    pub detach: bool,
    /// How long to follow.
    #[arg(long, default_value = "2m", value_parser = duration, allow_hyphen_values = true)]
    pub timeout: Duration,
}

/// What is to be checked.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only this machine.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// Only what belongs to this app, Setup or other owner.
    #[arg(long)]
    pub app: Option<OwnerName>,
}

/// What is to be held.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct HoldArgs {
    /// What else to do.
    #[command(subcommand)]
    pub command: Option<HoldCommand>,
    /// The resource: its address MACHINE/OWNER/KIND/NAME as `plumb status --verbose` shows it, or the end of one that only
    /// one resource has.
    pub resource: Option<String>,
    /// For how long: 30m, 2h, 1d; at most 31d.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, allow_hyphen_values = true, required_unless_present = "release", requires = "resource")]
    pub length: Option<Duration>,
    /// Why, for whoever wonders later.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "release",
        requires = "resource"
    )]
    pub reason: Option<String>,
    /// Instead: end the hold of this resource before its time.
    #[arg(long, value_name = "RESOURCE", conflicts_with_all = ["resource", "length", "reason"])]
    pub release: Option<String>,
}

/// What else to do about holds.
#[derive(Debug, Subcommand)]
pub enum HoldCommand {
    /// Show what is held or stopped by hand, and what differs there, with the blueprint that would keep it.
    List,
}
