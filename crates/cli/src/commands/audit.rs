//! `plumb audit`.

use plumb_model::escape;
use plumb_wire::v1;

use crate::access::Access;
use crate::args::Output;
use crate::args::access::AuditArgs;
use crate::commands::Env;
use crate::commands::logs::parse_since;
use crate::commands::token::minute;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::table::table;

/// Shows who did what in the workspace, newest first, or verifies the log.
pub async fn run(args: &AuditArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let json = args.json || env.output == Output::Json;
    let since = args.since.as_deref().map(parse_since).transpose()?;
    let mut access = Access::connect(&Context::find(env.context)?).await?;
    if args.verify {
        return verify(access.verify().await?, json);
    }
    let since = since.map(|at| at.to_string()).unwrap_or_default();
    let owner = args.owner.as_ref().map(ToString::to_string);
    let entries = access
        .audit(&since, &owner.unwrap_or_default(), args.limit.max(1))
        .await?;
    if json {
        let entries: Vec<_> = entries
            .iter()
            .map(|e| {
                serde_json::json!({
                    "number": e.number,
                    "at": e.at,
                    "who": e.who,
                    "from": e.from,
                    "method": e.method,
                    "refused": e.refused,
                    "detail": e.detail,
                    "owners": e.owners,
                })
            })
            .collect();
        out::json(&serde_json::json!({ "format": 1, "audit": entries }));
        return Ok(Exit::Fine);
    }
    out::print(&shown(&entries, env));
    Ok(Exit::Fine)
}

fn shown(entries: &[v1::AuditEntry], env: &Env<'_>) -> String {
    let head = ["NO", "WHEN (UTC)", "WHO", "FROM", "CALL", "WHAT"];
    let mut rows = vec![head.iter().map(|h| env.style.faint(h)).collect::<Vec<_>>()];
    for entry in entries {
        let what = match entry.refused.as_str() {
            "" => entry.detail.clone(),
            reason => format!("refused, {reason}: {}", entry.detail),
        };
        let from = if entry.from.is_empty() {
            "-"
        } else {
            &entry.from
        };
        rows.push(vec![
            entry.number.to_string(),
            minute(&entry.at),
            escape::line(&entry.who).into_owned(),
            escape::line(from).into_owned(),
            escape::line(&entry.method).into_owned(),
            escape::line(&what).into_owned(),
        ]);
    }
    table("", &rows)
}

fn verify(answer: v1::VerifyAuditResponse, json: bool) -> Result<Exit, CliError> {
    let whole = answer.broken_at == 0;
    if json {
        out::json(&serde_json::json!({
            "format": 1,
            "whole": whole,
            "entries": answer.entries,
            "head": answer.head,
            "broken_at": answer.broken_at,
            "why": answer.why,
        }));
        return Ok(if whole { Exit::Fine } else { Exit::Failed });
    }
    if !whole {
        return Err(CliError::Other(format!(
            "the audit log is broken at entry {} of {}: {}; compare it with a backup, and with `plumb history`",
            answer.broken_at,
            answer.entries,
            escape::line(&answer.why)
        )));
    }
    out::line(&format!(
        "The audit log is whole: {} entries. Its head is {}",
        answer.entries,
        escape::line(&answer.head)
    ));
    out::note(
        "Keep number and head elsewhere: they show later that nothing was cut off at the end.",
    );
    Ok(Exit::Fine)
}
