//! `plumb logs`.

use std::time::Duration;

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{ResourceView, StateWord};
use plumb_model::{OwnerName, ProcessName, ResourceKind, Timestamp, escape};
use plumb_wire::v1;

use crate::args::{self, Output};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;

/// Prints log lines. The text is escaped for people, and exact in JSON.
pub async fn run(
    app: &OwnerName,
    process: Option<&ProcessName>,
    follow: bool,
    since: Option<&str>,
    tail: Option<u32>,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let since = since.map(parse_since).transpose()?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    // What there can be logs of is known before anybody is asked for them.
    let remark = remark(&remote.status().await?, app, process)?;
    let request = v1::LogsRequest {
        owner: app.to_string(),
        process: process.map(ToString::to_string).unwrap_or_default(),
        machine: String::new(),
        follow,
        since: since.map(|at| at.to_string()).unwrap_or_default(),
        tail,
    };
    let mut stream = remote.logs(request).await?;
    if follow && let Some(Remark::Stopped(text) | Remark::NeverRan(text)) = &remark {
        out::note(text);
    }
    out::streams();
    let mut silent = true;
    loop {
        let news = tokio::select! {
            news = stream.message() => news,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        };
        let Some(news) = news.map_err(|status| remote.sort(&status))? else {
            if !follow {
                match (&remark, silent) {
                    (Some(Remark::Stopped(text)), _) | (Some(Remark::NeverRan(text)), true) => {
                        out::note(text);
                    }
                    (None, true) => out::note(&format!("{app} has printed nothing that is kept.")),
                    (_, false) => {}
                }
            }
            return Ok(Exit::Fine);
        };
        match news.news {
            Some(v1::logs_response::News::Batch(batch)) => {
                silent &= batch.lines.is_empty();
                print_batch(&news.machine, &batch, env);
            }
            Some(v1::logs_response::News::Notice(notice)) => {
                out::note(&format!("{}: {}", news.machine, escape::line(&notice)));
            }
            None => {}
        }
    }
}

/// What is to be said beside the lines.
#[derive(Debug, PartialEq, Eq)]
enum Remark {
    /// There can be none. Told after the fact only if there were none: a control plane that was just started does not know.
    NeverRan(String),
    /// No more will come.
    Stopped(String),
}

/// Refuses what cannot have logs, and says what is to be said of what may have none or no more.
fn remark(
    view: &WorkspaceView,
    app: &OwnerName,
    process: Option<&ProcessName>,
) -> Result<Option<Remark>, CliError> {
    let Some(owner) = view.owners.iter().find(|owner| owner.name == *app) else {
        let names = || view.owners.iter().map(|owner| owner.name.as_str());
        let near = plumb_blueprint::nearest(app.as_str(), names());
        return Err(CliError::Other(match near {
            Some(near) => format!("there is no {app} here; did you mean {near}?"),
            None if view.owners.is_empty() => {
                format!("there is no {app} here: nothing is recorded yet")
            }
            None => format!(
                "there is no {app} here; there are: {}",
                names().collect::<Vec<_>>().join(", ")
            ),
        }));
    };
    // The name of a process is PROCESS/SLOT.
    let name = |r: &ResourceView| {
        r.address
            .name
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let processes: Vec<&ResourceView> = owner
        .resources
        .iter()
        .filter(|r| r.kind == ResourceKind::Process)
        .collect();
    let wanted = |r: &&&ResourceView| process.is_none_or(|p| name(r) == p.as_str());
    let shown: Vec<&&ResourceView> = processes.iter().filter(wanted).collect();
    if shown.is_empty() {
        return Err(CliError::Other(match process {
            Some(process) if !processes.is_empty() => {
                let mut names: Vec<String> = processes.iter().map(|r| name(r)).collect();
                names.dedup();
                format!(
                    "{app} has no process {process}; it has: {}",
                    names.join(", ")
                )
            }
            _ => format!("{app} has no process of its own, so there are no logs of it"),
        }));
    }
    let ran = |r: &&&ResourceView| r.process.as_ref().is_some_and(|p| p.incarnation.is_some());
    if !shown.iter().any(ran) {
        let why = shown.iter().find_map(|r| r.message.as_deref());
        let why = why.unwrap_or(owner.state.as_str());
        return Ok(Some(Remark::NeverRan(format!(
            "{app} has not run, as far as is known: {}",
            escape::line(why)
        ))));
    }
    let stopped = shown.iter().all(|r| r.state == StateWord::Stopped);
    let text = || format!("{app} is stopped; this is all that it printed until then.");
    Ok(stopped.then(|| Remark::Stopped(text())))
}

fn print_batch(machine: &str, batch: &v1::LogBatch, env: &Env<'_>) {
    let mut text = String::new();
    if batch.dropped > 0 && env.output == Output::Text {
        text.push_str(&format!("… {} lines dropped\n", batch.dropped));
    }
    for line in &batch.lines {
        let content = String::from_utf8_lossy(&line.text);
        match env.output {
            Output::Json => {
                let value = serde_json::json!({
                    "machine": machine, "process": batch.process, "slot": batch.slot, "at": line.at,
                    "stream": if line.stderr { "stderr" } else { "stdout" }, "text": content,
                });
                text.push_str(&value.to_string());
            }
            Output::Text => {
                let prefix = format!("{} {machine} {}/{}", line.at, batch.process, batch.slot);
                text.push_str(&env.style.faint(&prefix));
                text.push_str(if line.stderr { " ! " } else { "   " });
                text.push_str(&escape::line(&content));
            }
        }
        text.push('\n');
    }
    out::print(&text);
}

/// A duration before now, or a time.
pub(super) fn parse_since(text: &str) -> Result<Timestamp, CliError> {
    if let Ok(before) = args::duration(text) {
        let now = Timestamp::now();
        return Ok(now.checked_sub(jiff_span(before)).unwrap_or(now));
    }
    text.parse().map_err(|_| {
        CliError::Other(format!("--since {text:?} is neither a duration such as 10m nor a time such as 2026-11-21T08:00:00Z"))
    })
}

fn jiff_span(duration: Duration) -> jiff::SignedDuration {
    jiff::SignedDuration::try_from(duration).unwrap_or(jiff::SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource(address: &str, state: &str, incarnation: Option<&str>) -> Value {
        let kind = address.split('/').nth(2);
        let process = json!({
            "state": null, "pid": null, "incarnation": incarnation, "started": null, "restarts": 0,
            "last_exit": null, "ports": {}, "health": [],
        });
        json!({
            "address": address, "kind": kind, "state": state, "message": null, "generation": null, "conditions": [],
            "process": if kind == Some("process") { process } else { Value::Null },
        })
    }

    fn owner(name: &str, state: &str, resources: Vec<Value>) -> Value {
        let counts =
            json!({ "total": 0, "converged": 0, "degraded": 0, "pending": 0, "failed": 0 });
        json!({
            "name": name, "kind": null, "release": 1, "outcome": "converging", "state": state, "message": null, "urls": [],
            "counts": counts, "resources": resources,
        })
    }

    fn view(owners: Vec<Value>) -> WorkspaceView {
        serde_json::from_value(json!({
            "format": 1, "revision": 1, "machines": [], "owners": owners, "dropped_statuses": 0, "dropped_events": 0,
        }))
        .unwrap()
    }

    /// Mutations: ask the machines for whatever is named; take what was never started for stopped.
    #[test]
    fn what_has_no_logs_is_refused_and_what_has_none_yet_or_no_more_is_said() {
        let view = view(vec![
            owner(
                "base",
                "converged",
                vec![resource("m/base/file//etc/motd", "converged", None)],
            ),
            owner(
                "hello",
                "converged",
                vec![resource("m/hello/process/web/0", "converged", Some("i"))],
            ),
            owner(
                "late",
                "waiting",
                vec![resource("m/late/process/web/0", "waiting", None)],
            ),
            owner(
                "old",
                "stopped",
                vec![resource("m/old/process/web/0", "stopped", Some("i"))],
            ),
        ]);
        let check = |app: &str, process: Option<&str>, expected: &str| {
            let process = process.map(|p| p.parse().unwrap());
            let said = match remark(&view, &app.parse().unwrap(), process.as_ref()) {
                Ok(None) => String::new(),
                Ok(Some(Remark::NeverRan(text) | Remark::Stopped(text))) => text,
                Err(error) => format!("error: {error}"),
            };
            assert_eq!(said, expected);
        };
        check("hello", None, "");
        check("hello", Some("web"), "");
        check(
            "hello",
            Some("worker"),
            "error: hello has no process worker; it has: web",
        );
        check(
            "helo",
            None,
            "error: there is no helo here; did you mean hello?",
        );
        check(
            "zzz",
            None,
            "error: there is no zzz here; there are: base, hello, late, old",
        );
        check(
            "base",
            None,
            "error: base has no process of its own, so there are no logs of it",
        );
        check(
            "late",
            None,
            "late has not run, as far as is known: waiting",
        );
        check(
            "old",
            None,
            "old is stopped; this is all that it printed until then.",
        );
    }
}
