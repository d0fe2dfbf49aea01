//! `plumb agent`.

use std::path::Path;
use std::time::Duration;

use plumb_agent::Config;
use plumb_driver::host::RunAs;
use plumb_model::{Secret, Timestamp};

use crate::args::{AgentArgs, AgentCommand, RunAsArg};
use crate::commands::server::ended;
use crate::error::CliError;
use crate::out::{self, Exit};

/// Runs this machine's agent until it is told to end, or installs it. Apps run on.
pub async fn run(arguments: AgentArgs) -> Result<Exit, CliError> {
    if let Some(AgentCommand::Install(install)) = &arguments.command {
        crate::install::install(install).await?;
        return Ok(Exit::Fine);
    }
    crate::logging::start(arguments.log_file.as_deref(), "info")?;
    if arguments.interval < Duration::from_secs(1) {
        return Err(CliError::Other("--interval must be at least 1s".to_owned()));
    }
    let data = arguments.data.unwrap_or_default();
    let data = std::path::absolute(&data).map_err(CliError::file("find", &data))?;
    let token = arguments
        .token
        .or_else(|| std::env::var("PLUMB_JOIN_TOKEN").ok())
        .filter(|token| !token.is_empty());
    let agent = plumb_agent::start(Config {
        server: arguments.server,
        token: token.map(Secret::new),
        machine: arguments.machine,
        interval: arguments.interval,
        run_as: run_as(arguments.run_as),
        ..config(&data)
    })
    .await?;
    tracing::info!(machine = %agent.machine, version = env!("CARGO_PKG_VERSION"), "agent started");
    out::line(&format!("Agent of machine {} started.", agent.machine));
    ended().await;
    agent.stop(false).await;
    Ok(Exit::Fine)
}

/// Whom apps run as: unless said otherwise, root's agent makes a user for each.
fn run_as(asked: Option<RunAsArg>) -> RunAs {
    match asked {
        Some(RunAsArg::AppUsers) => RunAs::AppUsers,
        Some(RunAsArg::Agent) => RunAs::Agent,
        None if rustix::process::geteuid().is_root() => RunAs::AppUsers,
        None => RunAs::Agent,
    }
}

/// What an agent is started with if nothing else is said.
pub fn config(data: &Path) -> Config {
    Config {
        data: data.to_owned(),
        server: None,
        token: None,
        machine: None,
        interval: Duration::from_secs(30),
        run_as: run_as(None),
        shim: shim(),
        now: Timestamp::now,
    }
}

/// This very binary, also when its file has been replaced meanwhile.
pub fn shim() -> Vec<std::ffi::OsString> {
    vec!["/proc/self/exe".into(), "shim".into()]
}
