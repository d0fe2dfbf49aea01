//! `plumb plan`, `apply`, `rollback` and `destroy`: everything that begins with a plan.

use plumb_model::OwnerName;
use plumb_planner::Problem;
use plumb_wire::client::CallError;

use crate::args::{ApplyArgs, AskArgs, Blueprints, Output};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::follow::{Ended, Follow, follow, tell};
use crate::offline;
use crate::out::{self, Exit};
use crate::remote::{Planned, Remote};
use crate::render;
use crate::repository::{Repository, Sources};

/// `plumb plan`.
pub async fn plan(
    blueprints: &Blueprints,
    ask: &AskArgs,
    detailed_exitcode: bool,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let repository = Repository::find(blueprints)?;
    let read = repository.read(env.output, env.style)?;
    let sources = repository.sources(&read.set)?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(
        remote
            .plan_blueprints(&read, &sources, &ask.ask(), repository.commit())
            .await,
        env,
    )?;
    show(&planned, env);
    let changes = detailed_exitcode && !planned.plan.is_empty();
    Ok(if changes { Exit::Changes } else { Exit::Fine })
}

/// `plumb plan --snapshot`.
pub fn plan_offline(
    blueprints: &Blueprints,
    ask: &AskArgs,
    snapshot: &std::path::Path,
    detailed_exitcode: bool,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let repository = Repository::find(blueprints)?;
    let read = repository.read(env.output, env.style)?;
    let sources = repository.sources(&read.set)?;
    let snapshot = offline::snapshot(snapshot)?;
    let commit = repository.commit();
    match offline::plan(
        &sources.request(read.set, ask.ask()),
        &snapshot,
        commit.as_ref(),
    ) {
        Ok(planned) => show_offline(&planned.plan, detailed_exitcode, env),
        Err(e) => {
            show_problems(&e.problems, env);
            Ok(Exit::Failed)
        }
    }
}

/// Shows a plan that was made here, and ends as its content says.
pub fn show_offline(
    plan: &plumb_model::plan::Plan,
    detailed_exitcode: bool,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    match env.output {
        Output::Json => out::json(plan),
        Output::Text => out::print(&render::plan::plan(plan, env.verbose, env.style)),
    }
    Ok(if detailed_exitcode && !plan.is_empty() {
        Exit::Changes
    } else {
        Exit::Fine
    })
}

/// `plumb apply`.
pub async fn apply(
    blueprints: &Blueprints,
    ask: &AskArgs,
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let repository = Repository::find(blueprints)?;
    let read = repository.read(env.output, env.style)?;
    let mut sources = repository.sources(&read.set)?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(
        remote
            .plan_blueprints(&read, &sources, &ask.ask(), repository.commit())
            .await,
        env,
    )?;
    go(&mut remote, planned, Some(&mut sources), how, env).await
}

/// `plumb rollback`.
pub async fn rollback(
    app: &OwnerName,
    release: Option<u64>,
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(remote.plan_rollback(app, release).await, env)?;
    go(&mut remote, planned, None, how, env).await
}

/// `plumb destroy`.
pub async fn destroy(how: &ApplyArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(remote.plan_destroy().await, env)?;
    go(&mut remote, planned, None, how, env).await
}

/// Shows a plan.
pub fn show(planned: &Planned, env: &Env<'_>) {
    match env.output {
        Output::Json => {
            out::print(&String::from_utf8_lossy(&planned.json));
            out::print("\n");
        }
        Output::Text => out::print(&render::plan::plan(&planned.plan, env.verbose, env.style)),
    }
}

/// Shows a plan, asks, records it, and follows it.
async fn go(
    remote: &mut Remote,
    planned: Planned,
    sources: Option<&mut Sources>,
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let text = env.output == Output::Text;
    if text {
        show(&planned, env);
    }
    let missing: Vec<&str> = planned
        .plan
        .consents
        .iter()
        .map(|c| c.allow.as_str())
        .filter(|allow| !how.allow.iter().any(|a| a == allow))
        .collect();
    if !missing.is_empty() {
        return Err(CliError::Other(format!(
            "the plan needs consent: run it again with --allow {}; nothing was changed",
            missing.join(",")
        )));
    }
    let recorded = if planned.plan.is_empty() {
        None
    } else {
        if !how.yes {
            if !(out::can_ask() && text) {
                return Err(CliError::NeedsYes);
            }
            if !out::ask("\nApply this?") {
                out::line("Nothing was changed.");
                return Ok(Exit::Failed);
            }
        }
        if let Some(sources) = sources {
            remote.upload(sources).await?;
        }
        Some(remote.apply(&planned, &how.allow).await?)
    };
    let revision = recorded
        .as_ref()
        .map_or(planned.plan.base.0, |r| r.revision);
    if how.detach {
        if text {
            out::line("Recorded.");
        } else {
            out::json(
                &serde_json::json!({ "format": 1, "revision": revision, "outcome": "recorded" }),
            );
        }
        return Ok(Exit::Fine);
    }
    if text {
        out::line("");
    }
    let mut watch = remote.watch().await?;
    let what = Follow {
        revision,
        machine: None,
        timeout: how.timeout,
        quiet: !text,
    };
    let (ended, view) = follow(&mut watch, &what, None, env.style).await?;
    if text {
        tell(&ended, env.style);
        if ended == Ended::Converged {
            for url in view.iter().flat_map(|v| &v.owners).flat_map(|o| &o.urls) {
                out::line(&format!("  {url}"));
            }
        }
    } else {
        let (outcome, open) = outcome(&ended);
        let releases = recorded.map(|r| r.releases).unwrap_or_default();
        out::json(&serde_json::json!({
            "format": 1, "revision": revision, "releases": releases, "outcome": outcome, "open": open, "status": view,
        }));
    }
    Ok(if ended == Ended::Converged {
        Exit::Fine
    } else {
        Exit::Failed
    })
}

/// The word for JSON, and what is open.
pub fn outcome(ended: &Ended) -> (&'static str, Vec<String>) {
    match ended {
        Ended::Converged => ("converged", Vec::new()),
        Ended::Failed(open) => ("failed", open.clone()),
        Ended::Waiting(open) => ("waiting", open.clone()),
        Ended::TimedOut(open) => ("timed_out", open.clone()),
    }
}

/// Shows the places of a refused plan before its one line.
pub fn shown(result: Result<Planned, CliError>, env: &Env<'_>) -> Result<Planned, CliError> {
    if let Err(CliError::Call(CallError::Refused(refusal))) = &result
        && let Some(problems) = refusal.metadata.get("problems")
        && let Ok(problems) = serde_json::from_str::<Vec<Problem>>(problems)
    {
        show_problems(&problems, env);
        let count = problems.len();
        let plural = if count == 1 { "" } else { "s" };
        return Err(CliError::Invalid(format!(
            "{count} problem{plural} in the plan; nothing was changed"
        )));
    }
    result
}

/// Shows what only planning finds.
pub fn show_problems(problems: &[Problem], env: &Env<'_>) {
    if env.output == Output::Json {
        return out::json(&serde_json::json!({ "format": 1, "problems": problems }));
    }
    for problem in problems {
        let message = plumb_model::escape::line(&problem.message).into_owned();
        out::note(&format!(
            "{}: {}",
            env.style.bad("error"),
            env.style.bold(&message)
        ));
        if let Some(origin) = &problem.origin {
            out::note(&format!("  --> {origin}"));
        }
        if let Some(hint) = &problem.hint {
            out::note(&format!("  = help: {}", plumb_model::escape::line(hint)));
        }
    }
}
