//! The arguments of `plumb events`.

use clap::Args;
use plumb_model::{MachineName, OwnerName};

/// Which events.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  plumb events --since 1h\n  plumb events --machine web-1 --app hello\n  plumb events -f --output json\n  plumb events --verify            exits with 1 where a journal is broken\n\nAgents note what happens on their machines in a chain of entries, also while no control plane is there, and hand it over\nwhen it is back; such events are marked `away`. A journal that somebody has tampered with is named at the end. With -f it goes on where it was when the control plane was away."
)]
pub struct EventsArgs {
    /// Only what happened on this machine.
    #[arg(long)]
    pub machine: Option<MachineName>,
    /// Only what happened to this app, service and so on.
    #[arg(long)]
    pub app: Option<OwnerName>,
    /// Nothing older: a time such as 1h, or RFC 3339.
    #[arg(long, allow_hyphen_values = true)]
    pub since: Option<String>,
    /// The most events, the newest of them.
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Instead: how far each machine's journal was taken, and whether it holds together; exits with 1 if one does not.
    #[arg(long, conflicts_with_all = ["app", "since", "limit", "follow"])]
    pub verify: bool,
    /// Go on with what happens from now on.
    #[arg(long, short)]
    pub follow: bool,
    /// With -f: show what came after the event with this resume token, as JSON holds them, and go on.
    #[arg(long, value_name = "TOKEN", requires = "follow", conflicts_with_all = ["since", "limit"])]
    pub after: Option<String>,
}
