//! What an agent is told when it is started.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use plumb_driver::host::RunAs;
use plumb_model::{MachineName, Secret, Timestamp};

/// What an agent is told when it is started.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its data folder, absolute; made if it is missing.
    pub data: PathBuf,
    /// `HOST:PORT` of the control plane; none uses the one that it was enrolled with.
    pub server: Option<String>,
    /// A join token, for the first start.
    pub token: Option<Secret>,
    /// The name that the machine wants, where the token does not fix one.
    pub machine: Option<MachineName>,
    /// The time between two looks at everything.
    pub interval: Duration,
    /// Where to serve numbers for Prometheus, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Whom processes run as.
    pub run_as: RunAs,
    /// The command, with leading arguments, that becomes a shim.
    pub shim: Vec<OsString>,
    /// The clock by which certificates are renewed: [`Timestamp::now`] outside tests.
    pub now: fn() -> Timestamp,
}
