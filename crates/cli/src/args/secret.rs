//! The arguments of `plumb secret`. No value of a secret is ever an argument: command lines can be read by every user of a
//! machine, and stay in the history of shells.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use plumb_model::SecretName;

use super::ApplyArgs;

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Set a secret, or give it another value. The value is asked for without showing it, or read from standard input
    /// or a file; never from the command line.
    #[command(
        after_help = "Examples:\n  plumb secret set STRIPE_KEY                       asks for it\n  pass show stripe | plumb secret set STRIPE_KEY    reads one line\n  plumb secret set tls --file key.pem --apply       and hands it over at once\n  plumb secret set COOKIE_KEY --generate\n\nWhat uses it gets the new version with the next apply: restarted, reloaded or signalled, as its blueprint says."
    )]
    Set {
        /// Its name, as blueprints use it.
        name: SecretName,
        /// Where the value comes from.
        #[command(flatten)]
        value: ValueFrom,
        /// What comes next.
        #[command(flatten)]
        then: Then,
    },
    /// Give a secret that is set another value, as `set` does; one that is not set is refused.
    #[command(
        after_help = "Examples:\n  plumb secret rotate COOKIE_KEY --generate --apply\n  plumb secret rotate STRIPE_KEY < new-key"
    )]
    Rotate {
        /// Its name.
        name: SecretName,
        /// Where the value comes from.
        #[command(flatten)]
        value: ValueFrom,
        /// What comes next.
        #[command(flatten)]
        then: Then,
    },
    /// Set every variable of a `.env` file as a secret of its name.
    #[command(after_help = "Example:\n  plumb secret import production.env")]
    Import {
        /// The file; `-` is standard input.
        file: PathBuf,
        /// What comes next.
        #[command(flatten)]
        then: Then,
    },
    /// List secrets: versions, when and by whom they were set, and what uses them. Never their values.
    List,
    /// Remove a secret with all its versions.
    #[command(after_help = "Example:\n  plumb secret rm STRIPE_KEY")]
    Rm {
        /// Its name.
        name: SecretName,
        /// Even if something that is recorded uses it.
        #[arg(long)]
        force: bool,
    },
    /// Make another key-encryption key, and wrap the key of every secret in it. May be run again if it was cut short.
    #[command(
        after_help = "The key is DATA/identity/secrets.key of the control plane, unless it was started with a key of your own: a file named by PLUMB_SECRET_KEY_FILE, the systemd credential plumb-secret-key, or PLUMB_SECRET_KEY, each with 64 hex digits a line (`openssl rand -hex 32`). To rotate a key of your own, put the new one on the first line and leave the old one below, start the control plane again, and run this; then take the old one out."
    )]
    RotateKey,
}

/// Where a value comes from: the terminal, unless something else is named or standard input is none.
#[derive(Debug, Clone, Args)]
pub struct ValueFrom {
    /// From a file, byte by byte; `-` is standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    pub file: Option<PathBuf>,
    /// Make it: 32 random bytes, as 64 hex digits. It is shown nowhere.
    #[arg(long)]
    pub generate: bool,
}

/// What happens after a secret was set.
#[derive(Debug, Clone, Args)]
pub struct Then {
    /// Plan and apply at once that what is recorded uses the new version.
    #[arg(long)]
    pub apply: bool,
    /// How to apply.
    #[command(flatten)]
    pub how: ApplyArgs,
}
