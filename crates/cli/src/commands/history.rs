//! `plumb history`.

use plumb_model::state::RevisionKind;
use plumb_model::{OwnerName, escape};

use crate::args::Output;
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render::table::table;
use crate::render::time::full;

/// Lists releases, newest first: number, when, by whom, from which commit and author, with what outcome.
pub async fn run(app: Option<&OwnerName>, limit: u32, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let history = remote.history(app, limit.clamp(1, 1000)).await?;
    if env.output == Output::Json {
        let entries: Vec<_> = history
            .iter()
            .map(|(record, outcomes)| serde_json::json!({ "record": record, "outcomes": outcomes }))
            .collect();
        out::json(&serde_json::json!({ "format": 1, "history": entries }));
        return Ok(Exit::Fine);
    }
    let mut head = vec![
        "APP",
        "RELEASE",
        "WHEN (UTC)",
        "BY",
        "WHY",
        "COMMIT",
        "OUTCOME",
    ];
    if env.verbose {
        head.extend(["REVISION", "ALLOWED"]);
    }
    let mut rows = vec![head.into_iter().map(|h| env.style.faint(h)).collect()];
    for (record, outcomes) in &history {
        let why = match &record.kind {
            RevisionKind::Apply => "apply".to_owned(),
            RevisionKind::Rollback { to, .. } => format!("rollback to {to}"),
            RevisionKind::Destroy => "destroy".to_owned(),
        };
        let commit = record.commit.as_ref().map_or_else(
            || "-".to_owned(),
            |c| {
                let dirty = if c.dirty { "+changes" } else { "" };
                let id = c.id.get(..10).unwrap_or(&c.id);
                escape::line(&format!("{id}{dirty} {} \"{}\"", c.author, c.subject)).into_owned()
            },
        );
        for (owner, (release, _)) in record
            .released
            .iter()
            .filter(|(owner, _)| app.is_none_or(|a| a == *owner))
        {
            let outcome = outcomes.get(owner.as_str()).map_or("-", String::as_str);
            let outcome = match outcome {
                "converged" | "removed" => env.style.good(outcome),
                "failed" => env.style.bad(outcome),
                other => env.style.change(other),
            };
            let mut row = vec![
                env.style.bold(owner.as_str()),
                release.to_string(),
                full(record.at),
                escape::line(&record.by).into_owned(),
                why.clone(),
                commit.clone(),
                outcome,
            ];
            if env.verbose {
                let allowed = match record.allowed.as_slice() {
                    [] => "-".to_owned(),
                    names => escape::line(&names.join(",")).into_owned(),
                };
                row.extend([record.revision.to_string(), allowed]);
            }
            rows.push(row);
        }
    }
    if rows.len() == 1 {
        out::line("Nothing has been applied yet.");
    } else {
        out::print(&table("", &rows));
    }
    Ok(Exit::Fine)
}
