//! `plumb agent install`: the program, the unit and the identity of an agent, put where they belong.
//!
//! Guarantees: done again it changes nothing that has not changed, and stops nothing that runs; the join token is used at
//! once and stands in no file; without systemd it says so, and starts the agent as well as can be.

mod unit;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plumb_agent::Config;
use plumb_model::{MachineName, Secret};

use crate::args::InstallArgs;
use crate::error::CliError;
use crate::out;

use unit::{LOG_FILE, PROGRAM_PATH, UNIT, UNIT_PATH, arguments, is_plain};

/// What runs as process 1, as far as services go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Init {
    Systemd,
    Other(String),
}

impl Init {
    fn find() -> Self {
        // What sd_booted(3) looks at.
        if Path::new("/run/systemd/system").is_dir() {
            return Self::Systemd;
        }
        let name = fs::read_to_string("/proc/1/comm").unwrap_or_default();
        Self::Other(match name.trim() {
            "" => "unknown".to_owned(),
            name => name.to_owned(),
        })
    }
}

/// Installs.
///
/// # Errors
/// When it is not root's to do, a file cannot be written, the machine cannot join, or systemd refuses.
pub async fn install(args: &InstallArgs) -> Result<(), CliError> {
    let root = args.root.clone().unwrap_or_else(|| PathBuf::from("/"));
    let into_root = args.root.is_some();
    if !into_root && !rustix::process::geteuid().is_root() {
        return Err(CliError::Other(
            "installing an agent takes root: run it with sudo, or into a folder with --root DIR"
                .to_owned(),
        ));
    }
    if !is_plain(&args.data) {
        return Err(CliError::Other(format!(
            "--data {} cannot stand in a unit: give an absolute path of letters, digits and . _ - + @",
            args.data.display()
        )));
    }
    let beneath = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    let data = beneath(&args.data);
    // First what may fail for reasons of the network, so that nothing is left half done.
    let machine = enrol(args, &data).await?;
    out::line(&format!("This machine is {machine}."));

    let program = root.join(PROGRAM_PATH);
    let copied = copy_program(&program)?;
    write_file(
        &root.join(UNIT_PATH),
        unit::unit(&args.data, args.run_as).as_bytes(),
        0o644,
    )?;
    make_folder(
        &beneath(Path::new(LOG_FILE).parent().unwrap_or(Path::new("/"))),
        0o750,
    )?;
    out::line(&format!(
        "{} {} and {}.",
        if copied { "Wrote" } else { "Kept" },
        program.display(),
        root.join(UNIT_PATH).display()
    ));
    if into_root || args.no_start {
        out::line(&format!(
            "Nothing was started. On the machine: systemctl enable --now {UNIT}"
        ));
        return Ok(());
    }
    match Init::find() {
        Init::Systemd => start_unit(),
        Init::Other(name) => start_alone(&name, &program, args),
    }
}

/// Joins, if the machine has not joined yet.
async fn enrol(args: &InstallArgs, data: &Path) -> Result<MachineName, CliError> {
    let token = match args.join.as_deref() {
        Some("-") => {
            let mut text = String::new();
            io::stdin()
                .read_line(&mut text)
                .map_err(CliError::file("read", "standard input"))?;
            Some(text.trim().to_owned())
        }
        Some(token) => Some(token.to_owned()),
        None => std::env::var("PLUMB_JOIN_TOKEN").ok(),
    };
    if let Some(folder) = data.parent() {
        make_folder(folder, 0o711)?;
    }
    let config = Config {
        data: data.to_owned(),
        server: args.server.clone(),
        token: token.filter(|token| !token.is_empty()).map(Secret::new),
        machine: args.machine.clone(),
        ..crate::commands::agent::config(data)
    };
    match plumb_agent::enrol(&config).await {
        // It runs: then it has joined, and this is an upgrade.
        Err(plumb_agent::AgentError::Locked { .. }) if plumb_agent::is_enrolled(data) => {
            Ok(plumb_agent::enrolled_as(data)?)
        }
        enrolled => Ok(enrolled?),
    }
}

/// Puts this very program there. Whether it was not there already.
fn copy_program(to: &Path) -> Result<bool, CliError> {
    let from = Path::new("/proc/self/exe");
    let same = |a: &Path, b: &Path| {
        let (Ok(a), Ok(b)) = (fs::metadata(a), fs::metadata(b)) else {
            return false;
        };
        a.dev() == b.dev() && a.ino() == b.ino()
    };
    if same(from, to) {
        return Ok(false);
    }
    if let Some(folder) = to.parent() {
        make_folder(folder, 0o755)?;
    }
    let copy = || {
        let mut beside = beside(to)?;
        io::copy(&mut File::open(from)?, &mut beside)?;
        persist(beside, to, 0o755)
    };
    copy().map_err(CliError::file("write", to))?;
    Ok(true)
}

fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new("/")))
}

fn persist(beside: tempfile::NamedTempFile, path: &Path, mode: u32) -> io::Result<()> {
    beside
        .as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    beside.as_file().sync_all()?;
    // What runs keeps the file that it was started from.
    beside.persist(path).map_err(|e| e.error)?;
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        make_folder(folder, 0o755)?;
    }
    let write = || {
        let mut beside = beside(path)?;
        beside.write_all(bytes)?;
        persist(beside, path, mode)
    };
    write().map_err(CliError::file("write", path))
}

fn make_folder(path: &Path, mode: u32) -> Result<(), CliError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(CliError::file("make the folder", path))
}

fn start_unit() -> Result<(), CliError> {
    for arguments in [
        &["daemon-reload"][..],
        &["enable", UNIT],
        &["restart", UNIT],
    ] {
        let done = Command::new("systemctl")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(CliError::file("run", "systemctl"))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(CliError::Other(format!(
                "systemctl {} failed: {}; see journalctl -u {UNIT}",
                arguments.join(" "),
                plumb_model::escape::line(said.trim())
            )));
        }
    }
    out::line(&format!("Started {UNIT}; it logs to {LOG_FILE}."));
    Ok(())
}

/// Without systemd: the agent as a process of its own, which nobody starts again.
fn start_alone(init: &str, program: &Path, args: &InstallArgs) -> Result<(), CliError> {
    out::note(&format!(
        "systemd is not process 1 here ({init} is), so the unit is written and not used: the agent is started once, and neither after a reboot nor after it ends. Have your init run: {} {}",
        program.display(),
        arguments(&args.data, args.run_as).join(" ")
    ));
    let child = Command::new(program)
        .args(arguments(&args.data, args.run_as))
        .env_remove("PLUMB_JOIN_TOKEN")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Neither the terminal's Ctrl-C nor the end of an ssh session concerns it.
        .process_group(0)
        .spawn()
        .map_err(CliError::file("start", program))?;
    out::line(&format!(
        "Started the agent as process {}; it logs to {LOG_FILE}.",
        child.id()
    ));
    Ok(())
}
