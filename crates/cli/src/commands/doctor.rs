//! `plumb doctor`: what stands in the way of a control plane, an agent or somebody who uses them, and what to do about it.
//!
//! It looks and changes nothing. From here: the context, the way to the control plane, the token, both clocks, what the
//! control plane says of itself. On a machine: its data folders, their modes, disk, keys, certificates, and what an agent can do.

mod folders;

use std::path::{Path, PathBuf};

use plumb_model::{Timestamp, escape};
use plumb_wire::client::{self, OperationsClient};
use plumb_wire::v1::{self, HealthState};
use serde_json::json;

use crate::args::Output;
use crate::args::operations::DoctorArgs;
use crate::commands::Env;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::{CliError, chain};
use crate::out::{self, Exit, Style};
use crate::render::table::table;

/// Where the units keep their data.
const USUAL: [&str; 2] = ["/var/lib/plumb/server", "/var/lib/plumb/agent"];

/// How far two clocks may be apart, in milliseconds: beyond the first somebody should look, beyond the second times in
/// logs mislead, and certificates begin to be refused.
const SKEW_MS: (i64, i64) = (2_000, 60_000);

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Working, and somebody should look.
    Warn,
    /// In the way.
    Fail,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    state: State,
    /// What it belongs to: `context` or a folder.
    on: String,
    /// What was looked at.
    check: &'static str,
    /// How it is.
    says: String,
    /// What to do; empty if nothing.
    remedy: String,
}

/// What was found out about one thing.
pub(super) struct Findings {
    on: String,
    all: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(on: impl Into<String>) -> Self {
        Self {
            on: on.into(),
            all: Vec::new(),
        }
    }

    fn add(&mut self, state: State, check: &'static str, says: String, remedy: &str) {
        self.all.push(Finding {
            state,
            on: self.on.clone(),
            check,
            says,
            remedy: remedy.to_owned(),
        });
    }

    pub(super) fn ok(&mut self, check: &'static str, says: impl Into<String>) {
        self.add(State::Ok, check, says.into(), "");
    }

    pub(super) fn warn(&mut self, check: &'static str, says: impl Into<String>, remedy: &str) {
        self.add(State::Warn, check, says.into(), remedy);
    }

    pub(super) fn fail(&mut self, check: &'static str, says: impl Into<String>, remedy: &str) {
        self.add(State::Fail, check, says.into(), remedy);
    }
}

/// Looks at everything that there is here; fails if anything does.
pub async fn run(args: &DoctorArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut found = Vec::new();
    let folders: Vec<PathBuf> = match args.data.is_empty() {
        true => USUAL
            .map(PathBuf::from)
            .into_iter()
            .filter(|f| f.exists())
            .collect(),
        false => args.data.clone(),
    };
    // On a machine of the fleet there is no context, and none is needed.
    match Context::find(env.context) {
        Err(CliError::NoContext | CliError::NoHome(..)) if !folders.is_empty() => {}
        context => found.extend(look_from_here(context).await),
    }
    for folder in &folders {
        found.extend(folders::look(folder, !args.data.is_empty()).await);
    }
    match env.output {
        Output::Json => out::json(&json_of(&found)),
        Output::Text => out::print(&text_of(&found, env.style)),
    }
    let failed = found.iter().any(|finding| finding.state == State::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Fine })
}

fn json_of(found: &[Finding]) -> serde_json::Value {
    let checks: Vec<_> = found
        .iter()
        .map(|finding| {
            json!({
                "state": finding.state.as_str(),
                "on": finding.on,
                "check": finding.check,
                "says": finding.says,
                "remedy": finding.remedy,
            })
        })
        .collect();
    let worst = found
        .iter()
        .map(|finding| finding.state)
        .max_by_key(|state| *state as u8)
        .unwrap_or(State::Ok);
    json!({ "format": 1, "state": worst.as_str(), "checks": checks })
}

fn text_of(found: &[Finding], style: &Style) -> String {
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|finding| {
            let state = match finding.state {
                State::Ok => style.good("ok"),
                State::Warn => style.change("warn"),
                State::Fail => style.bad("fail"),
            };
            let says = match finding.remedy.is_empty() {
                true => finding.says.clone(),
                false => format!("{}; {}", finding.says, finding.remedy),
            };
            vec![
                state,
                escape::line(&finding.on).into_owned(),
                finding.check.to_owned(),
                escape::line(&says).into_owned(),
            ]
        })
        .collect();
    let count = |state| found.iter().filter(|f| f.state == state).count();
    format!(
        "{}{} ok, {} to look at, {} in the way\n",
        table("", &rows),
        count(State::Ok),
        count(State::Warn),
        count(State::Fail)
    )
}

/// Everything that is seen from where the commands are given.
async fn look_from_here(context: Result<Context, CliError>) -> Vec<Finding> {
    let mut found = Findings::of("context");
    let context = match context {
        Ok(context) => context,
        Err(error) => {
            found.fail("file", chain(&error), "");
            return found.all;
        }
    };
    if let Some(path) = &context.origin {
        context_file(path, &mut found);
    }
    let dialled: Result<Dialled<OperationsClient>, _> =
        Dialled::to(&context, client::operations_with).await;
    let mut operations = match dialled {
        Ok(operations) => operations,
        Err(error) => {
            found.fail("reach", chain(&error), "");
            return found.all;
        }
    };
    found.ok(
        "reach",
        format!("{} answers, and is the one of the context", context.address),
    );
    let began = Timestamp::now();
    let answer = operations.client.get_health(v1::GetHealthRequest {}).await;
    let ended = Timestamp::now();
    match answer {
        Ok(answer) => {
            found.ok(
                "token",
                format!("it counts in workspace {}", context.workspace),
            );
            control_plane(&answer.into_inner(), (began, ended), &mut found);
        }
        Err(status) => found.fail("token", chain(&operations.failed()(status)), ""),
    }
    found.all
}

fn context_file(path: &Path, found: &mut Findings) {
    use std::os::unix::fs::MetadataExt;
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.mode() & 0o077 != 0 => found.fail(
            "file",
            format!(
                "{} can be read by others (mode {:04o}), and holds a token",
                path.display(),
                metadata.mode() & 0o7777
            ),
            &format!("chmod 600 {}, and have the token revoked", path.display()),
        ),
        Ok(_) => found.ok(
            "file",
            format!("{} is read by its owner alone", path.display()),
        ),
        Err(error) => found.fail("file", format!("{}: {error}", path.display()), ""),
    }
}

/// What the control plane says of itself. The clock is held against the moment in the middle of the exchange.
fn control_plane(
    health: &v1::GetHealthResponse,
    (began, ended): (Timestamp, Timestamp),
    found: &mut Findings,
) {
    let own = env!("CARGO_PKG_VERSION");
    match health.version == own {
        true => found.ok("version", format!("both are plumb {own}")),
        false => found.warn(
            "version",
            format!(
                "the control plane is plumb {}, and this is {own}",
                health.version
            ),
            "upgrade the older one; one version apart they work together",
        ),
    }
    let remedy =
        "set the clock of the machine that is wrong, such as with systemd-timesyncd or chrony";
    match health.now.parse::<Timestamp>() {
        Ok(there) => {
            let (began, ended) = (began.as_millisecond(), ended.as_millisecond());
            let middle = began + (ended - began) / 2;
            let apart = (there.as_millisecond() - middle).abs();
            // Half the way there and back is not known.
            let sure = apart - (ended - began) / 2;
            let says = format!("the two clocks are {} apart", seconds(apart));
            match sure {
                sure if sure <= SKEW_MS.0 => found.ok("clock", says),
                sure if sure <= SKEW_MS.1 => found.warn("clock", says, remedy),
                _ => found.fail("clock", says, remedy),
            }
        }
        Err(_) => found.warn("clock", "the control plane does not tell its time", ""),
    }
    for part in &health.parts {
        let check = match part.name.as_str() {
            "store" => "store",
            "agents" => "agents",
            "ca" => "ca",
            _ => "part",
        };
        let says = match check {
            "part" => format!("{}: {}", part.name, part.message),
            _ => part.message.clone(),
        };
        match HealthState::try_from(part.state) {
            Ok(HealthState::Ok) => found.ok(check, says),
            Ok(HealthState::Failed) => found.fail(check, says, ""),
            _ => found.warn(check, says, ""),
        }
    }
}

fn seconds(ms: i64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(now: &str) -> v1::GetHealthResponse {
        let part = |name: &str, state: HealthState, message: &str| v1::HealthPart {
            name: name.to_owned(),
            state: state.into(),
            message: message.to_owned(),
        };
        v1::GetHealthResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: now.to_owned(),
            started: now.to_owned(),
            ready: false,
            parts: vec![
                part(
                    "store",
                    HealthState::Failed,
                    "the disk is full; free disk space",
                ),
                part("agents", HealthState::Warn, "1 of 2 machines are connected"),
                part("ca", HealthState::Ok, "is good until 2036-11-18T12:00:00Z"),
                part("future", HealthState::Ok, "something new"),
            ],
        }
    }

    #[test]
    fn clocks_that_are_apart_are_found_and_the_way_there_is_not_counted() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        for (there, state) in [
            ("2026-11-21T12:00:01Z", State::Ok),
            // The answer took ten seconds: it may have been written at any moment of them.
            ("2026-11-21T12:00:11Z", State::Ok),
            ("2026-11-21T12:00:30Z", State::Warn),
            ("2026-11-21T11:59:30Z", State::Warn),
            ("2026-11-21T13:00:00Z", State::Fail),
            ("2016-11-21T12:00:00Z", State::Fail),
        ] {
            let mut found = Findings::of("context");
            let exchange = (at("2026-11-21T12:00:00Z"), at("2026-11-21T12:00:10Z"));
            control_plane(&health(there), exchange, &mut found);
            let clock = found.all.iter().find(|f| f.check == "clock").unwrap();
            assert_eq!(clock.state, state, "{clock:?}");
            assert_eq!(clock.remedy.is_empty(), state == State::Ok);
        }
    }

    #[test]
    fn every_finding_is_a_line_with_what_to_do() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let mut found = Findings::of("context");
        let exchange = (at("2026-11-21T12:00:00Z"), at("2026-11-21T12:00:00Z"));
        control_plane(&health("2026-11-21T12:00:30.25Z"), exchange, &mut found);
        let style = Style {
            color: false,
            live: false,
        };
        let text = text_of(&found.all, &style).replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!(text, @r"
        ok    context  version  both are plumb VERSION
        warn  context  clock    the two clocks are 30.250 s apart; set the clock of the machine that is wrong, such as with systemd-timesyncd or chrony
        fail  context  store    the disk is full; free disk space
        warn  context  agents   1 of 2 machines are connected
        ok    context  ca       is good until 2036-11-18T12:00:00Z
        ok    context  part     future: something new
        3 ok, 2 to look at, 1 in the way
        ");
        let json = json_of(&found.all);
        assert_eq!(json["state"], "fail");
        assert_eq!(json["checks"][2]["check"], "store");
    }
}
