//! `plumb agent`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use plumb_agent::Config;
use plumb_driver::host::RunAs;
use plumb_model::{Secret, Timestamp};

use crate::args::operations::AGENT_CONFIG;
use crate::args::{AgentArgs, AgentCommand, RunAsArg, duration, listening};
use crate::commands::Env;
use crate::commands::server::{ended, setting};
use crate::config::{self, Places, Resolved, Setting};
use crate::error::CliError;
use crate::out::{self, Exit};

/// What can be set, and how.
const SETTINGS: &[Setting] = &[
    setting("data", "--data", "PLUMB_AGENT_DATA", None),
    setting("server", "--server", "PLUMB_AGENT_SERVER", None),
    setting("machine", "--machine", "PLUMB_AGENT_MACHINE", None),
    setting(
        "interval",
        "--interval",
        "PLUMB_AGENT_INTERVAL",
        Some("30s"),
    ),
    setting("run_as", "--run-as", "PLUMB_AGENT_RUN_AS", None),
    setting("metrics", "--metrics", "PLUMB_AGENT_METRICS", None),
    setting("log_file", "--log-file", "PLUMB_AGENT_LOG_FILE", None),
    setting("log", "PLUMB_LOG", "PLUMB_LOG", Some("info")),
];

/// Runs this machine's agent until it is told to end, or installs it. Apps run on.
pub async fn run(arguments: AgentArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    if let Some(AgentCommand::Install(install)) = &arguments.command {
        crate::install::install(install).await?;
        return Ok(Exit::Fine);
    }
    let usual = Path::new(AGENT_CONFIG);
    let settings = resolve(&arguments, usual)?;
    if arguments.print_config {
        config::print(&settings, env);
        return Ok(Exit::Fine);
    }
    let data: PathBuf = settings.need("data", usual)?;
    let log_file: Option<PathBuf> = settings.get("log_file")?;
    let log: String = settings.need("log", usual)?;
    let server: Option<String> = settings.get("server")?;
    let server = server.map(|url| super::login::address(&url)).transpose()?;
    let machine = settings.get("machine")?;
    let metrics = settings.get_with("metrics", listening)?;
    let asked = settings.get_with("run_as", |text| RunAsArg::from_str(text, false))?;
    let interval = settings
        .get_with("interval", duration)?
        .unwrap_or(Duration::from_secs(30));
    crate::logging::start(log_file.as_deref(), &log)?;
    if interval < Duration::from_secs(1) {
        return Err(CliError::Other("--interval must be at least 1s".to_owned()));
    }
    let data = std::path::absolute(&data).map_err(CliError::file("find", &data))?;
    let token = arguments
        .token
        .or_else(|| std::env::var("PLUMB_JOIN_TOKEN").ok())
        .filter(|token| !token.is_empty());
    let agent = plumb_agent::start(Config {
        server,
        token: token.map(Secret::new),
        machine,
        interval,
        metrics,
        run_as: run_as(asked),
        ..config(&data)
    })
    .await?;
    tracing::info!(machine = %agent.machine, version = env!("CARGO_PKG_VERSION"), "agent started");
    out::line(&format!("Agent of machine {} started.", agent.machine));
    if let Some(address) = agent.metrics {
        out::line(&format!(
            "Numbers for Prometheus at http://{address}/metrics"
        ));
    }
    ended().await;
    agent.stop(false).await;
    Ok(Exit::Fine)
}

fn resolve(arguments: &AgentArgs, usual: &Path) -> Result<Resolved, CliError> {
    let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
    let run_as = arguments.run_as.and_then(|asked| asked.to_possible_value());
    let flags = [
        ("data", text(&arguments.data)),
        ("server", arguments.server.clone()),
        (
            "machine",
            arguments.machine.as_ref().map(ToString::to_string),
        ),
        ("interval", arguments.interval.clone()),
        ("run_as", run_as.map(|value| value.get_name().to_owned())),
        ("metrics", arguments.metrics.map(|a| a.to_string())),
        ("log_file", text(&arguments.log_file)),
    ];
    let places = Places {
        asked: arguments.config.as_deref(),
        usual,
        env: &|name| std::env::var(name).ok(),
    };
    config::resolve(SETTINGS, &flags, &places)
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
        metrics: None,
        run_as: run_as(None),
        shim: shim(),
        now: Timestamp::now,
    }
}

/// This very binary, also when its file has been replaced meanwhile.
pub fn shim() -> Vec<std::ffi::OsString> {
    vec!["/proc/self/exe".into(), "shim".into()]
}
