//! `plumb server`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use plumb_control_plane as control_plane;
use plumb_model::{Timestamp, WorkspaceName};

use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};

/// Runs a control plane until it is told to end (TERM or Ctrl-C).
pub async fn run(
    data: &Path,
    listen: SocketAddr,
    workspace: WorkspaceName,
    log_file: Option<&Path>,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    crate::logging::start(log_file, "info")?;
    let mut running = start(data, listen, workspace).await?;
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

/// Starts a control plane.
pub async fn start(
    data: &Path,
    listen: SocketAddr,
    workspace: WorkspaceName,
) -> Result<control_plane::Running, CliError> {
    let data = std::path::absolute(data).map_err(CliError::file("find", data))?;
    let config = control_plane::Config {
        data,
        listen,
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
