//! `plumb plan`, `apply`, `rollback` and `destroy`: everything that begins with a plan.

use std::collections::BTreeSet;

use plumb_model::plan::{ChangeAction, Plan};
use plumb_model::{OwnerName, SecretName};
use plumb_planner::Problem;
use plumb_wire::client::CallError;

use crate::args::{ApplyArgs, AskArgs, Blueprints, Output, PlanInto};
use crate::commands::{Env, plan_file};
use crate::context::Context;
use crate::error::CliError;
use crate::events;
use crate::follow::{Ended, Follow, Tell, follow, tell};
use crate::offline;
use crate::out::{self, Exit};
use crate::remote::{self, Applied, Planned, Remote};
use crate::render;
use crate::render::plan::PlanFormat;
use crate::repository::{Repository, Silent, Sources};

/// `plumb plan`.
pub async fn plan(
    blueprints: &Blueprints,
    ask: &AskArgs,
    into: &PlanInto,
    detailed_exitcode: bool,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    if let Some(file) = &into.out {
        plan_file::check_target(file)?;
    }
    let context = Context::find(env.context);
    let mut silent = Silent::default();
    let (request, mut sources) = match (&into.rollback, into.destroy) {
        (Some((owner, release)), _) => (remote::rollback(owner, *release), None),
        (None, true) => (remote::destroy(), None),
        (None, false) => {
            let repository = Repository::find(blueprints)?;
            let read = repository.read(env.output, env.style)?;
            let sources = repository.sources(&read.set, env.output, env.style)?;
            let request = remote::blueprints(&read, &sources, &ask.ask(), repository.commit())?;
            silent = read.silent;
            (request, Some(sources))
        }
    };
    let mut remote = Remote::connect(&context?).await?;
    let Some(file) = &into.out else {
        let planned = shown(remote.plan(request).await, env)?;
        show(&planned, env);
        note_silent(&planned.plan, &silent);
        note_by_hand(&remote, env).await;
        return ended(&planned.plan, detailed_exitcode);
    };
    let signed = shown(remote.sign(request).await, env)?;
    let bundled = sources.as_mut().filter(|_| into.bundle);
    let plan = plan_file::save(file, signed, bundled, env)?;
    note_silent(&plan, &silent);
    ended(&plan, detailed_exitcode)
}

/// How a command ends that has shown a plan which somebody may want to apply.
fn ended(plan: &Plan, detailed_exitcode: bool) -> Result<Exit, CliError> {
    match plan.obstacles().count() {
        0 => Ok(read(plan, detailed_exitcode)),
        1 => Err(CliError::Other(
            "this plan cannot be applied, for the reason that it gives".to_owned(),
        )),
        n => Err(CliError::Other(format!(
            "this plan cannot be applied, for the {n} reasons that it gives"
        ))),
    }
}

/// How a command ends that has shown a plan which is only to be read.
pub fn read(plan: &Plan, detailed_exitcode: bool) -> Exit {
    if detailed_exitcode && !plan.is_empty() {
        Exit::Changes
    } else {
        Exit::Fine
    }
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
    // Both are work for more than one core only in part, so they are done side by side. The blueprints' problems go first.
    let (read, snapshot) = std::thread::scope(|scope| {
        let snapshot = scope.spawn(|| offline::snapshot(snapshot));
        let read = repository.read(env.output, env.style);
        (read, snapshot.join())
    });
    let read = read?;
    let sources = repository.sources(&read.set, env.output, env.style)?;
    let snapshot = snapshot.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let commit = repository.commit();
    let request = sources.request(read.set, ask.ask());
    match offline::plan(&request, &snapshot, commit.as_ref()) {
        Ok(planned) => {
            show_plan(&planned.plan, env);
            note_silent(&planned.plan, &read.silent);
            let ended = ended(&planned.plan, detailed_exitcode);
            // The process ends here, and with it goes its memory: giving back each piece by itself takes time.
            std::mem::forget((planned, snapshot, request));
            ended
        }
        Err(e) => {
            show_problems(&e.problems, env);
            Ok(Exit::Failed)
        }
    }
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
    let mut sources = repository.sources(&read.set, env.output, env.style)?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(
        remote
            .plan_blueprints(&read, &sources, &ask.ask(), repository.commit())
            .await,
        env,
    )?;
    note_silent(&planned.plan, &read.silent);
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

/// What follows `plumb secret set --apply`.
pub async fn renew_secrets(
    names: &[SecretName],
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let planned = shown(remote.plan(remote::renew_secrets(names)).await, env)?;
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
    if env.plan_view().format == PlanFormat::Json {
        // Every key that the control plane sent, also those that this version does not know.
        out::print(&render::plan::json(&String::from_utf8_lossy(&planned.json)));
        out::print("\n");
    } else {
        show_plan(&planned.plan, env);
    }
}

/// Shows a plan that this process has read.
pub fn show_plan(plan: &Plan, env: &Env<'_>) {
    out::print(&render::plan::render(plan, &env.plan_view()));
}

/// Says what is stopped or held by hand: a plan changes nothing about that, and it none about the plan.
async fn note_by_hand(remote: &Remote, env: &Env<'_>) {
    if env.plan_view().format == PlanFormat::Text {
        for note in super::hands::notes(remote).await {
            out::note(&note);
        }
    }
}

/// Where a plan removes something, says which files may have declared it and do not any more.
pub fn note_silent(plan: &Plan, silent: &Silent) {
    let gone = |action| matches!(action, ChangeAction::Delete | ChangeAction::Forget);
    if plan.owners.iter().any(|owner| gone(owner.action))
        && let Some(note) = silent.note()
    {
        out::note(&note);
    }
}

/// So often a plan that nobody looks at is made again.
const AGAIN: u32 = 5;

/// Shows a plan, asks, records it, and follows it.
async fn go(
    remote: &mut Remote,
    planned: Planned,
    sources: Option<&mut Sources>,
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let (mut planned, mut sources) = (planned, sources);
    let mut again = 0;
    let recorded = loop {
        if env.output == Output::Text {
            show(&planned, env);
        }
        if !approved(&planned.plan, how, env)? {
            return Ok(Exit::Failed);
        }
        if planned.plan.is_empty() {
            break None;
        }
        if let Some(sources) = sources.take() {
            remote.upload(sources).await?;
        }
        match remote.apply(&planned, &how.allow).await {
            Ok(applied) => break Some(applied),
            // With `--yes` nobody has looked at the plan: what is approved is whatever it says, within what is allowed. A
            // machine that has just come back, say, has more stopped for the same change.
            Err(error) if how.yes && again < AGAIN && error.is_plan_changed() => {
                again += 1;
                out::note(
                    "What the machines say has changed since this was planned; planning again.",
                );
                planned = shown(remote.plan_again(&planned).await, env)?;
            }
            Err(error) => return Err(error),
        }
    };
    let base = planned.plan.base.0;
    finish(remote, base, recorded, how, env).await
}

/// Whether a plan that was shown may go ahead: all that it needs consent for is allowed, and somebody has said yes.
pub fn approved(plan: &Plan, how: &ApplyArgs, env: &Env<'_>) -> Result<bool, CliError> {
    let text = env.output == Output::Text;
    if !text {
        events::planned(plan);
    }
    let missing: BTreeSet<&str> = plan
        .consents
        .iter()
        .map(|c| c.allow.as_str())
        .filter(|allow| !how.allow.iter().any(|a| a == allow))
        .collect();
    if !missing.is_empty() {
        return Err(CliError::Other(format!(
            "the plan needs consent: run it again with --allow {}; nothing was changed",
            missing.into_iter().collect::<Vec<_>>().join(",")
        )));
    }
    if plan.is_empty() || how.yes {
        return Ok(true);
    }
    if !(out::can_ask() && text) {
        return Err(CliError::NeedsYes);
    }
    let yes = out::ask("\nApply this?");
    if !yes {
        out::line("Nothing was changed.");
    }
    Ok(yes)
}

/// Tells what was recorded, and follows it unless it is to go on by itself. `base` is the revision that holds it where
/// nothing was to be recorded.
pub async fn finish(
    remote: &mut Remote,
    base: u64,
    recorded: Option<Applied>,
    how: &ApplyArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let text = env.output == Output::Text;
    let revision = recorded.as_ref().map_or(base, |r| r.revision);
    if !text {
        events::recorded(revision, recorded.as_ref());
    } else if recorded.as_ref().is_some_and(|r| r.before) {
        out::line(&format!(
            "\nExactly this is recorded already, as revision {revision}; nothing to do."
        ));
    }
    if how.detach {
        if text {
            if let Some(applied) = &recorded {
                out::line(&format!(
                    "Follow it with `plumb rollout status --apply {} --follow`.",
                    applied.revision
                ));
            }
            if recorded.is_some() {
                out::line("Recorded.");
            }
        } else {
            events::outcome("recorded", revision, recorded.as_ref(), &[], None);
        }
        return Ok(Exit::Fine);
    }
    if text {
        out::line("");
    }
    let what = Follow {
        revision,
        machine: None,
        timeout: how.timeout,
        tell: if text { Tell::Lines } else { Tell::Events },
    };
    let followed = async {
        let mut watch = remote.watch().await?;
        follow(&mut watch, &what, None, env.style).await
    };
    let (ended, view) = match followed.await {
        Ok(ended) => ended,
        Err(error) => {
            // It is recorded, whatever becomes of whoever follows it: a program must not read on for ever.
            if !text {
                events::outcome("unknown", revision, recorded.as_ref(), &[], None);
            }
            return Err(error);
        }
    };
    if text {
        tell(&ended, env.style);
        if ended == Ended::Converged {
            for url in view.iter().flat_map(|v| &v.owners).flat_map(|o| &o.urls) {
                out::line(&format!("  {url}"));
            }
        }
    } else {
        let (outcome, open) = outcome(&ended);
        events::outcome(outcome, revision, recorded.as_ref(), &open, view.as_ref());
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
pub fn shown<T>(result: Result<T, CliError>, env: &Env<'_>) -> Result<T, CliError> {
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
