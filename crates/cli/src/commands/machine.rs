//! `plumb machine`: who is there, and who comes and goes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_model::{MachineName, Timestamp};
use plumb_wire::v1;
use serde_json::json;

use crate::args::{AddArgs, MachineCommand, Output};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::fleet::Fleet;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render::machine;
use crate::ssh::{Address, Ssh};

/// How long a join token for a machine that is being added is good, in seconds.
const TOKEN_SECONDS: u32 = 900;

/// How often is looked whether a machine has come.
const LOOK: Duration = Duration::from_millis(250);

/// Runs one of the commands.
pub async fn run(command: &MachineCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    match command {
        MachineCommand::List => list(env).await,
        MachineCommand::Show { name } => show(name, env).await,
        MachineCommand::Add(args) => add(args, env).await,
        MachineCommand::Remove { name, force } => remove(name, *force, env).await,
        MachineCommand::Keep { name, instance } => keep(name, instance, env).await,
    }
}

async fn list(env: &Env<'_>) -> Result<Exit, CliError> {
    let machines = Fleet::connect(env).await?.list().await?;
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "machines": machines.iter().map(machine::json).collect::<Vec<_>>(),
        })),
        Output::Text => out::print(&machine::list(&machines, env.style, Timestamp::now())),
    }
    Ok(Exit::Fine)
}

async fn show(name: &MachineName, env: &Env<'_>) -> Result<Exit, CliError> {
    let found = Fleet::connect(env).await?.get(name).await?;
    match env.output {
        Output::Json => out::json(&json!({ "format": 1, "machine": machine::json(&found) })),
        Output::Text => out::print(&machine::show(&found, env.style, Timestamp::now())),
    }
    Ok(Exit::Fine)
}

async fn remove(name: &MachineName, force: bool, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut fleet = Fleet::connect(env).await?;
    let removed = fleet.remove(name, force).await?;
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "machine": name,
            "removed_at": removed.removed_at,
            "resources": removed.resources,
        })),
        Output::Text => {
            out::line(&format!("Removed machine {name}; its agent is cut off."));
            if removed.resources > 0 {
                out::note(&format!(
                    "{} resources are still recorded on it: take it out of the blueprints and apply. What runs there goes on until it is stopped.",
                    removed.resources
                ));
            }
        }
    }
    Ok(Exit::Fine)
}

async fn keep(name: &MachineName, instance: &str, env: &Env<'_>) -> Result<Exit, CliError> {
    let kept = Fleet::connect(env).await?.keep(name, instance).await?;
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "machine": name,
            "instance": kept.instance,
            "told": kept.told,
        })),
        Output::Text => {
            let short: String = kept.instance.chars().take(8).collect();
            let when = if kept.told {
                "makes another key now"
            } else {
                "makes another key when it next connects, within about half a minute"
            };
            out::line(&format!(
                "The agent {short} of machine {name} stays and {when}; every other one is shut out from then on."
            ));
        }
    }
    Ok(Exit::Fine)
}

/// What is known of the other side before anything is changed there.
struct There {
    /// What goes before a command that takes root.
    sudo: &'static str,
}

async fn add(args: &AddArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let address = Address::parse(&args.target)?;
    let context = Context::find(env.context)?;
    let server = server_for(args, &address, &context)?;
    let mut fleet = Fleet::connect(env).await?;
    if let Ok(known) = fleet.get(&args.name).await
        && known
            .identity
            .as_ref()
            .is_some_and(|i| i.removed_at.is_empty())
    {
        return Err(CliError::Other(format!(
            "a machine named {0} is enrolled already; choose another name, or remove that one with `plumb machine remove {0}`",
            args.name
        )));
    }
    let ssh = Ssh::new(address, args.identity.clone(), args.ssh_option.clone())?;
    let binary = args
        .binary
        .clone()
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let there = look(&ssh, args.binary.is_some())?;
    let program = copy(&ssh, &binary)?;
    let (token, _) = Remote::connect(&context)
        .await?
        .create_join_token(Some(&args.name), TOKEN_SECONDS)
        .await?;
    let no_start = if args.no_start { " --no-start" } else { "" };
    // Every word of it is plain: the server was checked, the program's name is mktemp's, the name's grammar is narrow.
    let command = format!(
        "{sudo}{program} agent install --join - --server {server} --machine {name}{no_start}; code=$?; rm -f {program}; exit $code",
        sudo = there.sudo,
        name = args.name
    );
    let said = ssh.run(
        "installing the agent",
        &command,
        format!("{}\n", token.expose()).as_bytes(),
    )?;
    if env.output == Output::Text {
        for line in said.lines() {
            out::line(&format!(
                "{}: {}",
                args.name,
                plumb_model::escape::line(line)
            ));
        }
    }
    drop(ssh);
    let online = if args.no_start {
        false
    } else {
        come_online(&mut fleet, args).await?;
        true
    };
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "machine": args.name,
            "online": online,
        })),
        Output::Text if online => out::line(&format!("Machine {} is online.", args.name)),
        Output::Text => out::line(&format!("Machine {} has joined.", args.name)),
    }
    Ok(Exit::Fine)
}

/// The address of the control plane as the other machine reaches it.
fn server_for(args: &AddArgs, address: &Address, context: &Context) -> Result<String, CliError> {
    let server = args
        .server
        .clone()
        .unwrap_or_else(|| context.address.clone());
    let host = server
        .rsplit_once(':')
        .map_or(server.as_str(), |(host, _)| host);
    let here = |host: &str| {
        matches!(
            host.trim_matches(['[', ']']),
            "localhost" | "127.0.0.1" | "::1"
        )
    };
    if args.server.is_none() && here(host) && !here(&address.host) {
        return Err(CliError::Other(format!(
            "the context knows the control plane as {server}, which is this machine itself; say with --server HOST:PORT how {} reaches it",
            address.host
        )));
    }
    let plain = server
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
    if !plain || !server.contains(':') || server.starts_with('-') {
        return Err(CliError::Other(format!(
            "{:?} is no address of a control plane: write HOST:PORT",
            plumb_model::escape::line(&server)
        )));
    }
    Ok(server)
}

/// Looks at the other side: that it runs Linux on this architecture, and how one becomes root there.
fn look(ssh: &Ssh, other_binary: bool) -> Result<There, CliError> {
    let said = ssh.run("looking around", "uname -s; uname -m; id -u", b"")?;
    let mut lines = said.lines().map(str::trim);
    let (system, arch, uid) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    if system != "Linux" {
        return Err(CliError::Other(format!(
            "agents run on Linux, and that machine runs {:?}",
            plumb_model::escape::line(system)
        )));
    }
    let ours = std::env::consts::ARCH;
    if arch != ours && !other_binary {
        return Err(CliError::Other(format!(
            "that machine is {:?} and this program is for {ours}; give the one for it with --binary FILE",
            plumb_model::escape::line(arch)
        )));
    }
    if uid == "0" {
        return Ok(There { sudo: "" });
    }
    ssh.run("becoming root with sudo", "sudo -n true", b"")
        .map_err(|error| {
            CliError::Other(format!(
                "{error}; log in as root, or let the user run sudo without a password"
            ))
        })?;
    Ok(There { sudo: "sudo -n " })
}

/// Copies the program over. Where it is.
fn copy(ssh: &Ssh, binary: &Path) -> Result<String, CliError> {
    let said = ssh.send(
        "copying the program",
        "f=$(mktemp /tmp/plumb.XXXXXXXXXX) && cat > \"$f\" && chmod 700 \"$f\" && \"$f\" --version >/dev/null && echo \"$f\"",
        binary,
    )?;
    let program = said.trim();
    let plain = program.starts_with("/tmp/plumb.")
        && program
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"/.".contains(&b));
    if !plain {
        return Err(CliError::Other(format!(
            "copying the program ended with {:?}, and not with its place; see what the login shell prints there",
            plumb_model::escape::line(program)
        )));
    }
    Ok(program.to_owned())
}

async fn come_online(fleet: &mut Fleet, args: &AddArgs) -> Result<(), CliError> {
    let until = Instant::now() + args.timeout;
    loop {
        let found: v1::Machine = fleet.get(&args.name).await?;
        if found.online {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(CliError::Other(format!(
                "machine {} has joined and was not online within {} s; see /var/log/plumb/agent.log there, and that it reaches the control plane",
                args.name,
                args.timeout.as_secs()
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}
