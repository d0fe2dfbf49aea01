//! `plumb rollout`: how machines move to their releases, and what an operator says to that.

use plumb_model::OwnerName;
use plumb_wire::client::{self, RolloutsClient};
use plumb_wire::v1;
use serde_json::{Value, json};

use crate::args::{Output, RolloutCommand, RolloutStatusArgs};
use crate::commands::Env;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::{Remote, Watch};
use crate::render;

/// Runs one of the commands.
pub async fn run(command: &RolloutCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut rollouts = Rollouts::connect(env).await?;
    match command {
        RolloutCommand::Status(args) => status(&mut rollouts, args, env).await,
        RolloutCommand::Pause { app } => {
            let owner = rollouts.one(app.as_ref(), &["running", "stalled"]).await?;
            let rollout = rollouts.pause(owner).await?;
            show(&rollout.into_iter().collect::<Vec<_>>(), env);
            Ok(Exit::Fine)
        }
        RolloutCommand::Resume { app } => {
            let owner = rollouts.one(app.as_ref(), &["paused", "failed"]).await?;
            let rollout = rollouts.resume(owner).await?;
            show(&rollout.into_iter().collect::<Vec<_>>(), env);
            Ok(Exit::Fine)
        }
        RolloutCommand::Abort {
            apply: Some(id), ..
        } => {
            let cancelled = rollouts.cancel(*id).await?;
            let aborted = &cancelled.aborted;
            match env.output {
                Output::Json => out::json(&json!({ "format": 1, "apply": id, "aborted": aborted })),
                Output::Text if aborted.is_empty() => out::line(&format!(
                    "Nothing of apply {id} is under way; `plumb rollback APP` goes back to an earlier release."
                )),
                Output::Text => out::line(&format!(
                    "Apply {id} is taken back: {}.",
                    aborted.join(", ")
                )),
            }
            Ok(Exit::Fine)
        }
        RolloutCommand::Abort { app, apply: None } => {
            let open = ["running", "stalled", "paused"];
            let owner = rollouts.one(app.as_ref(), &open).await?;
            let rollout = rollouts.abort(owner).await?;
            show(&rollout.into_iter().collect::<Vec<_>>(), env);
            Ok(Exit::Fine)
        }
    }
}

/// Shows rollouts once, or until they are over.
async fn status(
    rollouts: &mut Rollouts,
    args: &RolloutStatusArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let mut watch = match args.follow {
        true => Some(
            Remote::connect(&Context::find(env.context)?)
                .await?
                .watch()
                .await?,
        ),
        false => None,
    };
    if args.follow {
        out::streams();
    }
    let mut shown = String::new();
    let mut pinned = args.apply;
    loop {
        let (text, json, over, well) = match pinned {
            Some(id) => {
                let apply = rollouts.apply(id).await?;
                // The newest, if none was named, stays the one that is followed.
                pinned = Some(apply.id);
                let over = apply.state != "running";
                let well = apply.state == "done";
                (
                    render::rollout::apply(&apply, env.style),
                    apply_json(&apply),
                    over,
                    well,
                )
            }
            None => {
                let all = rollouts.list(args.app.as_ref()).await?;
                if let Some(app) = args.app.as_ref().filter(|_| all.is_empty()) {
                    return Err(CliError::Other(format!(
                        "{app} has no rollout: nothing of that name is recorded that says `rollout` and has a release; `plumb rollout status` lists those that do"
                    )));
                }
                let over = all
                    .iter()
                    .all(|r| matches!(r.phase.as_str(), "done" | "failed"));
                let bad = |r: &v1::Rollout| r.phase == "failed" || r.reverts.is_some();
                let well = !all.iter().any(bad);
                (
                    render::rollout::list(&all, env.style),
                    list_json(&all),
                    over,
                    well,
                )
            }
        };
        if text != shown {
            match env.output {
                Output::Json => out::json(&json),
                Output::Text => {
                    if args.follow && env.style.live {
                        out::print("\x1b[H\x1b[J");
                    }
                    out::print(&text);
                }
            }
            shown = text;
        }
        let Some(watch) = &mut watch else {
            return Ok(Exit::Fine);
        };
        if over {
            return Ok(if well { Exit::Fine } else { Exit::Failed });
        }
        if !changed(watch).await? {
            return Ok(Exit::Fine);
        }
    }
}

/// Waits for news. False: whoever follows has had enough.
async fn changed(watch: &mut Watch) -> Result<bool, CliError> {
    tokio::select! {
        news = watch.next() => match news? {
            Some(_) => Ok(true),
            None => Err(CliError::Other("the control plane ended the watch; run the command again".to_owned())),
        },
        _ = tokio::signal::ctrl_c() => Ok(false),
    }
}

fn show(rollouts: &[v1::Rollout], env: &Env<'_>) {
    match env.output {
        Output::Json => out::json(&list_json(rollouts)),
        Output::Text => out::print(&render::rollout::list(rollouts, env.style)),
    }
}

fn list_json(rollouts: &[v1::Rollout]) -> Value {
    let rollouts: Vec<Value> = rollouts.iter().map(rollout_json).collect();
    json!({ "format": 1, "rollouts": rollouts })
}

fn rollout_json(rollout: &v1::Rollout) -> Value {
    json!({
        "owner": rollout.owner,
        "release": rollout.release,
        "apply": rollout.apply,
        "strategy": rollout.strategy,
        "batch": rollout.batch,
        "max_unavailable": rollout.max_unavailable,
        "min_healthy_ms": rollout.min_healthy_ms,
        "deadline_ms": rollout.deadline_ms,
        "auto_revert": rollout.auto_revert,
        "phase": rollout.phase,
        "why": rollout.why,
        "waits": rollout.waits,
        "waves": rollout.waves,
        "instances": rollout.instances,
        "moved": rollout.moved,
        "healthy": rollout.healthy,
        "behind": rollout.behind,
        "reverts": rollout.reverts,
        "started": rollout.started,
        "changed": rollout.changed,
    })
}

fn apply_json(apply: &v1::Apply) -> Value {
    let release = |release: &v1::AppliedRelease| {
        json!({
            "owner": release.owner,
            "release": release.release,
            "outcome": release.outcome,
            "reverted_by": release.reverted_by,
            "rollout": release.rollout.as_ref().map(rollout_json),
        })
    };
    let releases: Vec<Value> = apply.releases.iter().map(release).collect();
    json!({
        "format": 1,
        "apply": apply.id,
        "by": apply.by,
        "at": apply.at,
        "state": apply.state,
        "releases": releases,
    })
}

/// A connection with a token.
type Rollouts = Dialled<RolloutsClient>;

impl Rollouts {
    async fn connect(env: &Env<'_>) -> Result<Self, CliError> {
        Self::to(&Context::find(env.context)?, client::rollouts_with).await
    }

    async fn list(&mut self, app: Option<&OwnerName>) -> Result<Vec<v1::Rollout>, CliError> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let asked = v1::ListRolloutsRequest {
                owner: app.map(ToString::to_string).unwrap_or_default(),
                page_size: 0,
                page_token,
            };
            let answer = self.client.list_rollouts(asked).await;
            let page = answer.map_err(self.failed())?.into_inner();
            all.extend(page.rollouts);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// The app that is meant: the one that is named, or the only one in one of these phases.
    async fn one(&mut self, app: Option<&OwnerName>, phases: &[&str]) -> Result<String, CliError> {
        if let Some(app) = app {
            return Ok(app.to_string());
        }
        let all = self.list(None).await?;
        let open: Vec<&str> = all
            .iter()
            .filter(|rollout| phases.contains(&rollout.phase.as_str()))
            .map(|rollout| rollout.owner.as_str())
            .collect();
        match open.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => Err(CliError::Other(format!(
                "no rollout is {}; `plumb rollout status` shows how they stand",
                phases.join(" or ")
            ))),
            several => Err(CliError::Other(format!(
                "several apps have one: name the one that is meant, of {}",
                several.join(", ")
            ))),
        }
    }

    async fn pause(&mut self, owner: String) -> Result<Option<v1::Rollout>, CliError> {
        let answer = self.client.pause_rollout(v1::PauseRolloutRequest { owner });
        let answer = answer.await;
        Ok(answer.map_err(self.failed())?.into_inner().rollout)
    }

    async fn resume(&mut self, owner: String) -> Result<Option<v1::Rollout>, CliError> {
        let answer = self
            .client
            .resume_rollout(v1::ResumeRolloutRequest { owner });
        let answer = answer.await;
        Ok(answer.map_err(self.failed())?.into_inner().rollout)
    }

    async fn abort(&mut self, owner: String) -> Result<Option<v1::Rollout>, CliError> {
        let answer = self.client.abort_rollout(v1::AbortRolloutRequest { owner });
        let answer = answer.await;
        Ok(answer.map_err(self.failed())?.into_inner().rollout)
    }

    async fn apply(&mut self, id: u64) -> Result<v1::Apply, CliError> {
        let answer = self.client.get_apply(v1::GetApplyRequest { id }).await;
        let apply = answer.map_err(self.failed())?.into_inner().apply;
        apply.ok_or_else(|| CliError::Answer("it holds no apply".to_owned()))
    }

    async fn cancel(&mut self, id: u64) -> Result<v1::CancelApplyResponse, CliError> {
        let answer = self.client.cancel_apply(v1::CancelApplyRequest { id });
        let answer = answer.await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }
}
