//! `plumb dev`: a control plane and an agent in one process, which talk over the real gRPC with mTLS.
//!
//! Flow: read the blueprints, start both, plan, apply, follow; then plan and apply again whenever a blueprint is
//! saved, until Ctrl-C. An invalid save shows its diagnostics and changes nothing.

mod secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::{EventKind, RecursiveMode, Watcher};
use plumb_control_plane as control_plane;
use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{OwnerView, StateWord};
use plumb_driver::host::RunAs;
use plumb_model::{Address, MachineName};
use plumb_planner::Ask;
use tokio::sync::mpsc;

use crate::args::{DevArgs, Output};
use crate::commands::apply::{note_silent, outcome, shown};
use crate::commands::server::{self, ended};
use crate::commands::{Env, agent::shim};
use crate::context;
use crate::error::CliError;
use crate::follow::{self, Ended, Follow, PATIENCE, Tell, follow, tell};
use crate::out::{self, Exit};
use crate::remote::{News, Remote, Watch};
use crate::render;
use crate::repository::{Read, Repository};

/// Saves that come within this time of one another are taken together: editors write beside and rename.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long the agent may take to connect to the control plane of the same process.
const CONNECT: Duration = Duration::from_secs(10);
/// The time between two looks at everything.
const INTERVAL: Duration = Duration::from_secs(30);

/// What was started.
struct Pair {
    server: control_plane::Running,
    agent: plumb_agent::Running,
}

impl Pair {
    /// Stops the apps (unless they are kept), then the agent, then the control plane.
    async fn stop(self, keep: bool) {
        self.agent.stop(!keep).await;
        self.server.stop().await;
    }
}

/// Runs `plumb dev`.
pub async fn run(args: &DevArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let repository = Repository::find(&args.blueprints)?;
    // Watched before anything is read, so that no save falls between the reading and the watching.
    let (saved, mut saves) = mpsc::channel(1);
    let _watcher = if args.once {
        None
    } else {
        Some(watch_files(&repository.root, saved)?)
    };
    let read = repository.read(env.output, env.style)?;
    let machine = machine(args, &read)?;
    let workspace = read.set.workspace.name.clone();
    let data = data_folder(args, workspace.as_str())?;
    // In one terminal with the plan and the progress, only errors of the two daemons are shown, unless asked for.
    server::log_to_stderr("error");

    let server = server::start(&data.join("server"), ([127, 0, 0, 1], 0).into(), workspace).await?;
    let context = server::context(&server);
    let written = match context.write(env.context) {
        Ok(written) => written,
        Err(error) => {
            server.stop().await;
            return Err(error);
        }
    };
    if let Some(remark) = written.remark()
        && env.output == Output::Text
    {
        out::line(&remark);
    }
    let mut remote = Remote::connect(&context).await?;
    secrets::take(&repository.root, &context, env.output == Output::Text).await?;
    let agent_data = data.join("agent");
    let token = if plumb_agent::is_enrolled(&agent_data) {
        None
    } else {
        Some(remote.create_join_token(Some(&machine), 60).await?.0)
    };
    let agent = plumb_agent::start(plumb_agent::Config {
        data: agent_data,
        server: Some(context.address.clone()),
        token,
        machine: Some(machine.clone()),
        interval: INTERVAL,
        metrics: None,
        run_as: RunAs::Agent,
        shim: shim(),
        now: plumb_model::Timestamp::now,
    })
    .await;
    let agent = match agent {
        Ok(agent) => agent,
        Err(error) => {
            server.stop().await;
            return Err(error.into());
        }
    };
    let pair = Pair { server, agent };
    let result = tokio::select! {
        result = work(&mut remote, &repository, read, &machine, &mut saves, args, env) => result,
        () = ended() => Ok(Exit::Fine),
        // Nobody is there any more to stop later what was started.
        () = hung_up() => Ok(Exit::Fine),
        exit = out::lost(!args.once) => Ok(exit),
    };
    drop(remote);
    if env.output == Output::Text {
        out::line(if args.keep {
            "Stopping; the apps run on."
        } else {
            "Stopping the apps, the agent and the control plane."
        });
    }
    tokio::select! {
        () = pair.stop(args.keep) => result,
        () = ended() => Err(CliError::Other(
            "ended at once; apps that were still stopping may run on: the next `plumb dev` takes them over".to_owned(),
        )),
    }
}

/// Ends when the terminal is closed; never if the signal of that is ignored, as under nohup.
async fn hung_up() {
    use tokio::signal::unix::{SignalKind, signal};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if ignores_hangup(&status) {
        return std::future::pending().await;
    }
    match signal(SignalKind::hangup()) {
        Ok(mut hangup) => {
            hangup.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Whether a process ignores SIGHUP, by its `/proc/PID/status`.
fn ignores_hangup(status: &str) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}

/// Which machine of the workspace this one plays.
fn machine(args: &DevArgs, read: &Read) -> Result<MachineName, CliError> {
    let known: Vec<String> = read.set.machines.keys().map(ToString::to_string).collect();
    match (&args.machine, read.set.machines.len()) {
        (Some(machine), _) if read.set.machines.contains_key(machine) => Ok(machine.clone()),
        (Some(machine), _) => {
            let hint = plumb_blueprint::nearest(machine.as_str(), known.iter().map(String::as_str));
            let hint = hint
                .map(|n| format!("; did you mean {n}?"))
                .unwrap_or_default();
            Err(CliError::Other(format!(
                "no machine {machine} in these blueprints{hint}; there are: {}",
                known.join(", ")
            )))
        }
        (None, 1) => read
            .set
            .machines
            .keys()
            .next()
            .cloned()
            .ok_or_else(no_machine),
        (None, 0) => Err(no_machine()),
        (None, _) => Err(CliError::Other(format!(
            "these blueprints have several machines; say which one this machine plays with --machine: {}",
            known.join(", ")
        ))),
    }
}

fn no_machine() -> CliError {
    CliError::Other(
        "these blueprints have no machine; add a document with `kind: Machine` and `name: local`"
            .to_owned(),
    )
}

fn data_folder(args: &DevArgs, workspace: &str) -> Result<PathBuf, CliError> {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => context::base("XDG_STATE_HOME", ".local/state", "state", "--data")?
            .join("dev")
            .join(workspace),
    };
    std::path::absolute(&data).map_err(CliError::file("find", data))
}

/// Everything between start and stop.
async fn work(
    remote: &mut Remote,
    repository: &Repository,
    read: Read,
    machine: &MachineName,
    saves: &mut mpsc::Receiver<()>,
    args: &DevArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let mut watch = remote.watch().await?;
    let view = online(&mut watch, machine, env).await?;
    let revision = apply(remote, repository, &read, args, env).await?;
    let text = env.output == Output::Text;
    let what = Follow {
        revision,
        machine: Some(machine.clone()),
        timeout: args.timeout,
        tell: if text { Tell::Lines } else { Tell::Nothing },
    };
    let (ended, view) = follow(&mut watch, &what, Some(view), env.style).await?;
    if args.once {
        report(&ended, view.as_ref(), env);
        return Ok(if ended == Ended::Converged {
            Exit::Fine
        } else {
            Exit::Failed
        });
    }
    if text {
        tell(&ended, env.style);
        answers(view.as_ref());
    } else {
        report(&ended, view.as_ref(), env);
    }
    if text {
        out::line(&format!(
            "\nWatching {}. Save a blueprint to apply it; Ctrl-C stops {}.\nIn a second terminal: plumb status | logs APP -f | history | rollback APP\n",
            repository.root.display(),
            if args.keep {
                "watching and leaves the apps running"
            } else {
                "everything"
            }
        ));
    }
    // What follows is told of the first time, but for what was just told.
    let failing = view.map(|view| follow::failing(&view, &what));
    let failures = match ended {
        Ended::Failed(_) => Failures::told(failing.unwrap_or_default()),
        _ => Failures::default(),
    };
    let known = Known { what, failures };
    stay(remote, repository, &mut watch, saves, known, args, env).await
}

/// Waits until the agent is connected, so that the plan knows what the machine can do. Returns the status by then, after
/// which no news need come any more.
async fn online(
    watch: &mut Watch,
    machine: &MachineName,
    env: &Env<'_>,
) -> Result<WorkspaceView, CliError> {
    let wait = async {
        loop {
            let news = watch.next().await?;
            for (machine, event) in news.iter().flat_map(|news| &news.events) {
                // What runs already is taken over before anything is planned.
                if env.output == Output::Text {
                    out::line(&render::status::event_line(machine, event, env.style));
                }
            }
            match news {
                Some(News {
                    view: Some(view), ..
                }) if view.machines.iter().any(|m| m.name == *machine && m.online) => {
                    return Ok(view);
                }
                Some(_) => {}
                None => {
                    return Err(CliError::Other(
                        "the control plane ended while it started".to_owned(),
                    ));
                }
            }
        }
    };
    tokio::time::timeout(CONNECT, wait).await.unwrap_or_else(|_| {
        Err(CliError::Other("the agent did not reach the control plane of this very process; see PLUMB_LOG=info".to_owned()))
    })
}

/// Plans, shows, and applies; returns the revision that holds it.
async fn apply(
    remote: &mut Remote,
    repository: &Repository,
    read: &Read,
    args: &DevArgs,
    env: &Env<'_>,
) -> Result<u64, CliError> {
    let mut sources = repository.sources(&read.set, env.output, env.style)?;
    let planned = shown(
        remote
            .plan_blueprints(read, &sources, &Ask::default(), repository.commit())
            .await,
        env,
    )?;
    if env.output == Output::Text {
        out::print(&render::plan::render(&planned.plan, &env.plan_view()));
        out::line("");
    }
    note_silent(&planned.plan, &read.silent);
    if planned.plan.is_empty() {
        return Ok(planned.plan.base.0);
    }
    remote.upload(&mut sources).await?;
    Ok(remote.apply(&planned, &args.allow).await?.revision)
}

fn report(ended: &Ended, view: Option<&WorkspaceView>, env: &Env<'_>) {
    match env.output {
        Output::Json => {
            let (outcome, open) = outcome(ended);
            out::json(
                &serde_json::json!({ "format": 1, "outcome": outcome, "open": open, "status": view }),
            );
        }
        Output::Text => {
            tell(ended, env.style);
            if let Some(view) = view {
                out::line("");
                out::print(&render::status::status(
                    view,
                    env.verbose,
                    env.style,
                    plumb_model::Timestamp::now(),
                ));
            }
        }
    }
}

/// Where what runs answers. What does not run may have its port taken by anybody.
fn answers(view: Option<&WorkspaceView>) {
    let runs =
        |owner: &&OwnerView| matches!(owner.state, StateWord::Converged | StateWord::Degraded);
    for owner in view.iter().flat_map(|v| &v.owners).filter(runs) {
        for url in &owner.urls {
            out::line(&format!("  {} answers at {url}", owner.name));
        }
    }
}

/// Stays, shows what happens, and applies what is saved.
async fn stay(
    remote: &mut Remote,
    repository: &Repository,
    watch: &mut Watch,
    saves: &mut mpsc::Receiver<()>,
    known: Known,
    args: &DevArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let Known {
        mut what,
        mut failures,
    } = known;
    let mut applied = false;
    loop {
        let due = failures.since.map(|since| since + PATIENCE);
        tokio::select! {
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                let failed = failures.take();
                if !failed.is_empty() {
                    tell_failed(Ended::Failed(failed), env);
                }
            }
            news = watch.next() => {
                let news = news?.ok_or_else(|| CliError::Other("the control plane ended".to_owned()))?;
                show_news(&news, &mut applied, env);
                if let Some(view) = &news.view {
                    failures.see(follow::failing(view, &what), view.is_settled(), Instant::now());
                }
            }
            Some(()) = saves.recv() => {
                tokio::time::sleep(DEBOUNCE).await;
                while saves.try_recv().is_ok() {}
                if let Some(revision) = reapply(remote, repository, args, env).await {
                    applied = true;
                    what.revision = revision;
                    failures = Failures::default();
                }
            }
        }
    }
}

/// What whoever stays knows already.
struct Known {
    /// What was followed last.
    what: Follow,
    failures: Failures,
}

/// What fails while nothing is followed. A first try that fails and a second that does not are no news.
#[derive(Default)]
struct Failures {
    /// What fails now, and why.
    failing: BTreeMap<Address, String>,
    /// Since when something fails that nobody was told of.
    since: Option<Instant>,
    /// What was told, until it is put right: what goes on failing, each time for another reason, is told once.
    told: BTreeSet<Address>,
}

impl Failures {
    /// Those of which everybody knows already.
    fn told(failing: BTreeMap<Address, String>) -> Self {
        Self {
            told: failing.keys().cloned().collect(),
            failing,
            since: None,
        }
    }

    /// Takes in what fails now; `settled` if nothing does, and nothing is under way that may.
    fn see(&mut self, failing: BTreeMap<Address, String>, settled: bool, now: Instant) {
        self.failing = failing;
        if settled {
            self.told.clear();
        }
        if self
            .failing
            .keys()
            .all(|address| self.told.contains(address))
        {
            self.since = None;
        } else {
            self.since.get_or_insert(now);
        }
    }

    /// What is to be told now.
    fn take(&mut self) -> Vec<String> {
        self.since = None;
        let new = self
            .failing
            .iter()
            .filter(|(address, _)| !self.told.contains(*address));
        let texts = new.map(|(_, text)| text.clone()).collect();
        self.told.extend(self.failing.keys().cloned());
        texts
    }
}

/// Tells of failures that nobody waited for.
fn tell_failed(failed: Ended, env: &Env<'_>) {
    match env.output {
        Output::Text => tell(&failed, env.style),
        Output::Json => {
            let (outcome, open) = outcome(&failed);
            out::json(&serde_json::json!({ "format": 1, "outcome": outcome, "open": open }));
        }
    }
}

/// Shows what happened; and, once after something was applied, that it has converged.
fn show_news(news: &News, applied: &mut bool, env: &Env<'_>) {
    for (machine, event) in &news.events {
        match env.output {
            Output::Text => out::line(&render::status::event_line(machine, event, env.style)),
            Output::Json => {
                out::json(&serde_json::json!({ "format": 1, "machine": machine, "event": event }))
            }
        }
    }
    if let Some(view) = &news.view
        && *applied
        && view.is_settled()
    {
        *applied = false;
        if env.output == Output::Text {
            out::line(&format!("  {}", env.style.good("converged")));
            answers(Some(view));
        }
    }
}

/// Takes a save in. What is wrong is shown, and nothing changes. Returns the revision, if something was recorded.
async fn reapply(
    remote: &mut Remote,
    repository: &Repository,
    args: &DevArgs,
    env: &Env<'_>,
) -> Option<u64> {
    let result = async {
        let text = env.output == Output::Text;
        secrets::take(&repository.root, &remote.context, text).await?;
        let read = repository.read(env.output, env.style)?;
        let mut sources = repository.sources(&read.set, env.output, env.style)?;
        let planned = shown(
            remote
                .plan_blueprints(&read, &sources, &Ask::default(), repository.commit())
                .await,
            env,
        )?;
        if planned.plan.is_empty() {
            return Ok(None);
        }
        if env.output == Output::Text {
            out::print(&format!(
                "\n{}\n",
                render::plan::render(&planned.plan, &env.plan_view())
            ));
        }
        note_silent(&planned.plan, &read.silent);
        remote.upload(&mut sources).await?;
        let applied = remote.apply(&planned, &args.allow).await?;
        Ok::<_, CliError>(Some(applied.revision))
    };
    result.await.unwrap_or_else(|error| {
        out::complain(&crate::error::chain(&error));
        None
    })
}

/// Tells of every change beneath the root that may concern a blueprint or a source.
fn watch_files(
    root: &Path,
    saved: mpsc::Sender<()>,
) -> Result<notify::RecommendedWatcher, CliError> {
    let broken = |e: notify::Error| {
        CliError::Other(format!(
            "cannot watch {}: {e}; see fs.inotify.max_user_watches",
            root.display()
        ))
    };
    let hidden_from = root.to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let changed = matches!(
            event.kind,
            EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_)
        );
        let visible = event.paths.iter().any(|path| {
            let inner = path.strip_prefix(&hidden_from).unwrap_or(path);
            let hidden = inner
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with('.'));
            !hidden || inner == Path::new(secrets::FILE)
        });
        if changed && visible {
            // One pending save is enough: everything is read anew.
            let _ = saved.try_send(());
        }
    })
    .map_err(broken)?;
    watcher
        .watch(root, RecursiveMode::Recursive)
        .map_err(broken)?;
    Ok(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: take another bit of the mask.
    #[test]
    fn a_hangup_that_is_ignored_is_seen_in_the_status_of_the_process() {
        for (status, ignored) in [
            ("Name:\tplumb\nSigIgn:\t0000000000001001\n", true),
            (
                "SigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n",
                false,
            ),
            ("", false),
        ] {
            assert_eq!(ignores_hangup(status), ignored, "{status}");
        }
    }

    /// Mutations: tell at once; tell again; keep on waiting for what was put right; never forget what was told.
    #[test]
    fn a_failure_that_lasts_is_told_once_and_one_that_passes_is_not() {
        let mut failures = Failures::default();
        let now = Instant::now();
        let one = |why: &str| {
            let address: Address = "m/base/file//etc/motd".parse().unwrap();
            BTreeMap::from([(address, why.to_owned())])
        };
        failures.see(one("not ours"), false, now);
        failures.see(one("not ours"), false, now + PATIENCE);
        assert_eq!(failures.since, Some(now), "the first look counts");
        failures.see(BTreeMap::new(), true, now);
        assert_eq!(failures.since, None, "it was put right");
        failures.see(one("not ours"), false, now);
        assert_eq!(failures.take(), ["not ours"]);
        failures.see(one("still not ours"), false, now);
        failures.see(BTreeMap::new(), false, now);
        failures.see(one("not ours again"), false, now);
        assert_eq!(failures.since, None, "it was told, and never put right");
        assert_eq!(failures.take(), [""; 0]);
        failures.see(BTreeMap::new(), true, now);
        failures.see(one("not ours"), false, now);
        assert_eq!(failures.since, Some(now), "it was right meanwhile");
        let mut known = Failures::told(one("not ours"));
        known.see(one("not ours"), false, now);
        assert_eq!(known.since, None);
    }
}
