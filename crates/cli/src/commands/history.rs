//! `plumb history`.

use std::collections::BTreeSet;

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
    if let Some(app) = app.filter(|_| history.is_empty()) {
        let everything = remote.history(None, 1000).await?;
        let known: BTreeSet<&str> = everything
            .iter()
            .flat_map(|(record, _)| record.released.keys().map(OwnerName::as_str))
            .collect();
        if !known.is_empty() {
            return Err(CliError::Other(unknown(app, &known)));
        }
    }
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
    // Releases under a name that it had are its own too.
    let mut name = app.cloned();
    for (record, outcomes) in &history {
        let why = match &record.kind {
            RevisionKind::Apply => "apply".to_owned(),
            RevisionKind::Rollback { to, .. } => format!("rollback to {to}"),
            RevisionKind::Destroy => "destroy".to_owned(),
            RevisionKind::Secrets { names } => {
                let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                format!("secret {}", names.join(", "))
            }
            RevisionKind::Recover { machines } => {
                let names: Vec<&str> = machines.keys().map(|name| name.as_str()).collect();
                format!("recover {}", names.join(", "))
            }
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
            .filter(|(owner, _)| name.as_ref().is_none_or(|name| name == *owner))
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
        if let Some(before) = name.as_ref().and_then(|name| record.renamed.get(name)) {
            name = Some(before.clone());
        }
    }
    if rows.len() == 1 {
        out::line("Nothing has been applied yet.");
    } else {
        out::print(&table("", &rows));
    }
    Ok(Exit::Fine)
}

/// What is said of an app that no revision released.
fn unknown(app: &OwnerName, known: &BTreeSet<&str>) -> String {
    let hint = plumb_blueprint::nearest(app.as_str(), known.iter().copied())
        .map(|name| format!("; did you mean {name}?"))
        .unwrap_or_default();
    let known: Vec<&str> = known.iter().copied().collect();
    format!(
        "nothing of the name {app} was ever applied{hint}; there are: {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_never_was_is_told_with_those_that_were() {
        let known = BTreeSet::from(["hello", "shop"]);
        let said = |name: &str| unknown(&name.parse().unwrap(), &known);
        assert_eq!(
            said("helo"),
            "nothing of the name helo was ever applied; did you mean hello?; there are: hello, shop"
        );
        assert_eq!(
            said("nope"),
            "nothing of the name nope was ever applied; there are: hello, shop"
        );
    }
}
