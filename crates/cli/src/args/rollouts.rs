//! The arguments of what concerns rollouts.

use clap::{Args, Subcommand};
use plumb_model::OwnerName;

/// What to do about rollouts.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Show how machines move to their releases, or what became of an apply.
    #[command(
        after_help = "Examples:\n  plumb rollout status                       every app that has a rollout\n  plumb rollout status web --follow          one, until it is over\n  plumb rollout status --apply 12 --follow   all that apply 12 has begun\n\nWith --follow it exits with 0 if all went well, and with 1 if anything failed or was taken back."
    )]
    Status(RolloutStatusArgs),
    /// Stop a rollout where it is, until it is resumed.
    Pause {
        /// The app; may be left out where only one is rolling.
        app: Option<OwnerName>,
    },
    /// Go on with a rollout that was paused or has failed.
    Resume {
        /// The app; may be left out where only one can be resumed.
        app: Option<OwnerName>,
    },
    /// End a rollout, and go back to the last release that converged.
    #[command(
        after_help = "Examples:\n  plumb rollout abort web\n  plumb rollout abort --apply 12     every rollout that apply 12 has begun\n\nIt goes back by a release of its own. What was aborted is held back: applying it again needs --allow held."
    )]
    Abort {
        /// The app; may be left out where only one is rolling.
        #[arg(conflicts_with = "apply")]
        app: Option<OwnerName>,
        /// All that this apply has begun and that is not over.
        #[arg(long, value_name = "ID")]
        apply: Option<u64>,
    },
}

/// What is to be shown.
#[derive(Debug, Args)]
pub struct RolloutStatusArgs {
    /// Only this app.
    pub app: Option<OwnerName>,
    /// What became of this apply: the number that `plumb apply` says.
    #[arg(long, value_name = "ID", conflicts_with = "app")]
    pub apply: Option<u64>,
    /// Stay until it is over, and show what changes.
    #[arg(long, short)]
    pub follow: bool,
}
