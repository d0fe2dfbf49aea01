//! The VM as the drivers are told of it: where the agent keeps its things and how it may run processes.

use std::ffi::OsString;
use std::path::PathBuf;

use plumb_model::{Lineage, WorkspaceName};

use crate::secrets::Secrets;

/// Which user a process runs as when its blueprint does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// The agent's own.
    Agent,
    /// A system user `plumb-APP` for each app, made when it is first needed. Takes root.
    AppUsers,
}

/// What every driver knows of its machine.
#[derive(Debug, Clone)]
pub struct Host {
    /// The agent's data folder, absolute.
    pub data: PathBuf,
    /// Whose machine this is.
    pub lineage: Lineage,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// How processes run.
    pub run_as: RunAs,
    /// The command, with leading arguments, that becomes a shim.
    pub shim: Vec<OsString>,
    /// The secrets that this machine has.
    pub secrets: Secrets,
}
