//! Many agents in one process, to load a control plane with: real enrolment, real mTLS connections, the production link
//! and session, and every assignment synced to the disk before it is acknowledged. Nothing is converged: what is
//! assigned is said to be as it should be.
//!
//! `cargo xtask load` is run by `bench fleet`, or by hand. It says a line of JSON when it has enrolled all, and then answers
//! each line of its standard input with one: `mark`, `stats`, `complaints AFTER-MS`,
//! `sync-cost`, `chatter PER-SECOND`. At the end of its input it
//! ends.

mod disk;
mod enrol;
mod figures;
mod machine;
mod warnings;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;

use plumb_wire::client::Target;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use self::disk::Disk;
use self::figures::Figures;
pub use self::figures::now_ms;

/// What it is told.
#[derive(Debug)]
pub struct Options {
    /// The context of an admin of the control plane.
    pub context: PathBuf,
    /// How many agents.
    pub agents: usize,
    /// Where their data folders are made, or found.
    pub data: PathBuf,
}

/// What one of them is called. A workspace has to declare these for anything to reach them.
pub fn name(number: usize) -> String {
    format!("vm-{number:05}")
}

/// How a control plane is reached, out of a context file: its target, and the token.
pub fn context(path: &std::path::Path) -> Result<(Target, plumb_model::Secret), String> {
    let at = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read(path).map_err(|e| at(&e))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| at(&e))?;
    let field = |name: &str| {
        let text = value[name].as_str().map(str::to_owned);
        text.ok_or_else(|| at(&format!("no {name} in it")))
    };
    let target = Target {
        address: field("address")?,
        ca_pem: field("ca_pem")?,
        identity: None,
    };
    Ok((target, plumb_model::Secret::new(field("token")?)))
}

/// Lets this process have as many files open as the system allows.
pub fn raise_open_files() {
    let mut limit: Rlimit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer than it needs, connections fail and say so.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Runs until standard input ends.
pub fn run(options: &Options) -> Result<(), String> {
    raise_open_files();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let figures = Arc::new(Figures::default());
    warnings::count_into(figures.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    let disk = Disk::start(figures.clone());
    let enrolled = runtime.block_on(enrol::all(options))?;
    for (number, enrolled) in enrolled.into_iter().enumerate() {
        let folder = options.data.join(name(number));
        runtime.spawn(machine::run(
            enrolled,
            folder,
            disk.clone(),
            figures.clone(),
        ));
    }
    say(&json!({ "enrolled": options.agents }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|e| e.to_string())?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let answer = match words.as_slice() {
            ["mark"] => {
                figures.mark();
                json!({ "now_ms": figures::now_ms() })
            }
            ["stats"] => figures.show(),
            ["sync-cost"] => {
                let folder = options.data.join("bare");
                disk.bare(&folder, options.agents)
                    .map_or_else(|e| json!({ "error": e }), |ms| json!({ "ms": ms }))
            }
            ["complaints", after_ms] => figures.complaints_after(after_ms.parse().unwrap_or(0.0)),
            ["chatter", rate] => {
                figures.set_chatter(rate.parse().unwrap_or(0.0));
                json!({ "now_ms": figures::now_ms() })
            }
            _ => json!({ "error": format!("unknown: {line}") }),
        };
        say(&answer)?;
    }
    runtime.shutdown_background();
    Ok(())
}

fn say(line: &Value) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| e.to_string())
}
