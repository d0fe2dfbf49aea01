//! `plumb server`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use plumb_control_plane as control_plane;
use plumb_model::{Timestamp, WorkspaceName};

use crate::args::listening;
use crate::args::operations::{SERVER_CONFIG, ServerArgs};
use crate::commands::Env;
use crate::config::{self, Places, Setting};
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};

/// What can be set, and how.
const SETTINGS: &[Setting] = &[
    setting("data", "--data", "PLUMB_SERVER_DATA", None),
    setting(
        "listen",
        "--listen",
        "PLUMB_SERVER_LISTEN",
        Some("127.0.0.1:7700"),
    ),
    setting("http", "--http", "PLUMB_SERVER_HTTP", None),
    setting(
        "workspace",
        "--workspace",
        "PLUMB_SERVER_WORKSPACE",
        Some("main"),
    ),
    setting("log_file", "--log-file", "PLUMB_SERVER_LOG_FILE", None),
    // Both daemons may be told by the one variable how much to log.
    setting("log", "PLUMB_LOG", "PLUMB_LOG", Some("info")),
];

/// A setting.
pub const fn setting(
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    default: Option<&'static str>,
) -> Setting {
    Setting {
        key,
        flag,
        env,
        default,
    }
}

/// Runs a control plane until it is told to end (TERM or Ctrl-C).
pub async fn run(args: &ServerArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let usual = Path::new(SERVER_CONFIG);
    let text = |path: &Option<PathBuf>| path.as_ref().map(|p| p.to_string_lossy().into_owned());
    let flags = [
        ("data", text(&args.data)),
        ("listen", args.listen.map(|a| a.to_string())),
        ("http", args.http.map(|a| a.to_string())),
        (
            "workspace",
            args.workspace.as_ref().map(ToString::to_string),
        ),
        ("log_file", text(&args.log_file)),
    ];
    let places = Places {
        asked: args.config.as_deref(),
        usual,
        env: &|name| std::env::var(name).ok(),
    };
    let settings = config::resolve(SETTINGS, &flags, &places)?;
    if args.print_config {
        config::print(&settings, env);
        return Ok(Exit::Fine);
    }
    let data: PathBuf = settings.need("data", usual)?;
    let workspace = settings.need("workspace", usual)?;
    let http = settings.get_with("http", listening)?;
    let log_file: Option<PathBuf> = settings.get("log_file")?;
    let log: String = settings.need("log", usual)?;
    let listen = match settings.get_with("listen", listening)? {
        Some(listen) => listen,
        None => settings.need("listen", usual)?,
    };
    crate::logging::start(log_file.as_deref(), &log)?;
    raise_open_files();
    let mut running = start_with(&data, listen, http, workspace).await?;
    let written = match context(&running).write(env.context) {
        Ok(written) => written,
        Err(error) => {
            running.stop().await;
            return Err(error);
        }
    };
    context(&running).renew_others();
    out::line(&format!(
        "Control plane of workspace {} listening on {}; context written to {}",
        running.workspace,
        running.local_addr,
        written.path.display()
    ));
    if let Some(address) = running.http_addr {
        out::line(&format!("Pages for probes at http://{address}/readyz"));
    }
    if let Some(remark) = written.remark() {
        out::line(&remark);
    }
    let failed = tokio::select! {
        () = ended() => None,
        why = running.failed() => Some(why),
    };
    if let Some(why) = failed {
        return Err(CliError::Other(format!("the control plane ended: {why}")));
    }
    running.stop().await;
    Ok(Exit::Fine)
}

/// Lets this process have as many files open as the system allows: every agent is a connection, and a process is commonly given
/// 1,024 to begin with. Nothing that this program starts inherits it, since a control plane starts nothing.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(
            "cannot raise the number of open files: {error}; agents beyond it are kept out"
        );
    }
}

/// Starts a control plane.
pub async fn start(
    data: &Path,
    listen: SocketAddr,
    workspace: WorkspaceName,
) -> Result<control_plane::Running, CliError> {
    start_with(data, listen, None, workspace).await
}

async fn start_with(
    data: &Path,
    listen: SocketAddr,
    http: Option<SocketAddr>,
    workspace: WorkspaceName,
) -> Result<control_plane::Running, CliError> {
    let data = std::path::absolute(data).map_err(CliError::file("find", data))?;
    let config = control_plane::Config {
        data,
        listen,
        http,
        workspace,
        now: Timestamp::now,
        limits: control_plane::limits::LimitRates::default(),
    };
    Ok(control_plane::start(config).await?)
}

/// How a control plane on this machine is reached.
pub fn context(running: &control_plane::Running) -> Context {
    let mut address = running.local_addr;
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Context {
        address: address.to_string(),
        ca_pem: running.ca_pem.clone(),
        token: running.admin_token.clone(),
        workspace: running.workspace.clone(),
        plan_key: Some(running.plan_key),
        origin: None,
    }
}

/// Resolves when somebody wants the program to end.
pub async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

/// Daemons log to standard error; `PLUMB_LOG` chooses how much (`warn`, `info`, `debug`).
pub fn log_to_stderr(unless_chosen: &str) {
    // Only a file can be beyond reach.
    let _ = crate::logging::start(None, unless_chosen);
}
