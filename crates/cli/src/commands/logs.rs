//! `plumb logs`.

use std::time::Duration;

use plumb_model::{OwnerName, ProcessName, Timestamp, escape};
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
    let request = v1::LogsRequest {
        owner: app.to_string(),
        process: process.map(ToString::to_string).unwrap_or_default(),
        machine: String::new(),
        follow,
        since: since.map(|at| at.to_string()).unwrap_or_default(),
        tail,
    };
    let mut stream = remote.logs(request).await?;
    loop {
        let news = tokio::select! {
            news = stream.message() => news,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        };
        let Some(news) = news.map_err(|status| remote.sort(&status))? else {
            return Ok(Exit::Fine);
        };
        match news.news {
            Some(v1::logs_response::News::Batch(batch)) => print_batch(&news.machine, &batch, env),
            Some(v1::logs_response::News::Notice(notice)) => {
                out::note(&format!("{}: {}", news.machine, escape::line(&notice)));
            }
            None => {}
        }
    }
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
fn parse_since(text: &str) -> Result<Timestamp, CliError> {
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
