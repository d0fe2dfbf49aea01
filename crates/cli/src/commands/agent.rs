//! `plumb agent`.

use std::path::PathBuf;
use std::time::Duration;

use plumb_agent::Config;
use plumb_driver::host::RunAs;
use plumb_model::{MachineName, Secret};

use crate::args::RunAsArg;
use crate::commands::server::{ended, log_to_stderr};
use crate::error::CliError;
use crate::out::{self, Exit};

/// The arguments.
pub struct Arguments {
    /// `HOST:PORT`.
    pub server: Option<String>,
    /// A join token.
    pub token: Option<String>,
    /// The data folder.
    pub data: PathBuf,
    /// The wanted name.
    pub machine: Option<MachineName>,
    /// Between two looks at everything.
    pub interval: Duration,
    /// Whom apps run as.
    pub run_as: Option<RunAsArg>,
}

/// Runs this machine's agent until it is told to end. Apps run on.
pub async fn run(arguments: Arguments) -> Result<Exit, CliError> {
    log_to_stderr("info");
    if arguments.interval < Duration::from_secs(1) {
        return Err(CliError::Other("--interval must be at least 1s".to_owned()));
    }
    let data =
        std::path::absolute(&arguments.data).map_err(CliError::file("find", &arguments.data))?;
    let root = rustix::process::geteuid().is_root();
    let run_as = match arguments.run_as {
        Some(RunAsArg::AppUsers) => RunAs::AppUsers,
        Some(RunAsArg::Agent) => RunAs::Agent,
        None if root => RunAs::AppUsers,
        None => RunAs::Agent,
    };
    let agent = plumb_agent::start(Config {
        data,
        server: arguments.server,
        token: arguments.token.map(Secret::new),
        machine: arguments.machine,
        interval: arguments.interval,
        run_as,
        shim: shim(),
    })
    .await?;
    out::line(&format!("Agent of machine {} started.", agent.machine));
    ended().await;
    agent.stop(false).await;
    Ok(Exit::Fine)
}

/// This very binary, also when its file has been replaced meanwhile.
pub fn shim() -> Vec<std::ffi::OsString> {
    vec!["/proc/self/exe".into(), "shim".into()]
}
