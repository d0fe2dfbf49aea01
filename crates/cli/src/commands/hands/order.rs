//! `plumb stop`, `start` and `restart`: an order, followed until every machine has carried it out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{ResourceView, StateWord};
use plumb_model::escape;
use plumb_wire::v1;
use serde_json::json;

use super::{Hands, connect};
use crate::args::{HandArgs, Output};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render::count;

/// What is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Stand still.
    Stop,
    /// Run again.
    Start,
    /// Run anew.
    Restart,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Restart => "restart",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Stop => "stopped",
            Self::Start => "started",
            Self::Restart => "restarted",
        }
    }
}

/// How far a machine or a process has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Come {
    Done,
    /// Under way, and what it waits for.
    Under(String),
    /// Its machine is not there.
    Offline,
    Failed(String),
}

impl Come {
    fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Under(_) => "unfinished",
            Self::Offline => "offline",
            Self::Failed(_) => "failed",
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Done | Self::Offline => "",
            Self::Under(why) | Self::Failed(why) => why,
        }
    }
}

/// Gives an order, and follows it.
pub async fn order(verb: Verb, args: &HandArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut hands = connect(env).await?;
    // Watched from before it is given, so that nothing of what comes of it is missed.
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let mut watch = remote.watch().await?;
    let ordered = give(verb, args, &mut hands).await?;
    if args.detach {
        say(verb, args, &ordered, &BTreeMap::new(), env);
        return Ok(Exit::Fine);
    }
    let until = Instant::now() + args.timeout;
    let mut told = BTreeSet::new();
    let mut come: BTreeMap<String, Come> = BTreeMap::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let news = tokio::select! {
            news = watch.next() => news?,
            () = tokio::time::sleep(left) => break,
            _ = tokio::signal::ctrl_c() => break,
        };
        let Some(news) = news else {
            return Err(CliError::Other(format!(
                "the {} is recorded, but the control plane ended the watch; `plumb status` shows how far it has come",
                verb.word()
            )));
        };
        let Some(view) = news.view else { continue };
        for machine in &ordered {
            for process in &machine.processes {
                let now = process_come(verb, machine, process, &view);
                if env.output == Output::Text && now.0 == Come::Done && told.insert(process.clone())
                {
                    let text = format!("{process}: {}{}", verb.done(), now.1);
                    out::line(&escape::line(&text));
                }
            }
            come.insert(machine.machine.clone(), machine_come(verb, machine, &view));
        }
        // One that is offline may come back while others are waited for, but nobody waits for it alone.
        let over = |come: &Come| !matches!(come, Come::Under(_));
        if come.len() == ordered.len() && come.values().all(over) {
            break;
        }
    }
    say(verb, args, &ordered, &come, env);
    Ok(
        match come.values().all(|come| *come == Come::Done) && come.len() == ordered.len() {
            true => Exit::Fine,
            false => Exit::Failed,
        },
    )
}

async fn give(
    verb: Verb,
    args: &HandArgs,
    hands: &mut Hands,
) -> Result<Vec<v1::Ordered>, CliError> {
    let owner = args.app.to_string();
    let machine = args.machine.as_ref().map(ToString::to_string);
    let machine = machine.unwrap_or_default();
    let failed = hands.failed();
    Ok(match verb {
        Verb::Stop => {
            let asked = v1::StopAppRequest { owner, machine };
            let answer = hands.client.stop_app(asked).await;
            answer.map_err(failed)?.into_inner().machines
        }
        Verb::Start => {
            let asked = v1::StartAppRequest { owner, machine };
            let answer = hands.client.start_app(asked).await;
            answer.map_err(failed)?.into_inner().machines
        }
        Verb::Restart => {
            let asked = v1::RestartAppRequest { owner, machine };
            let answer = hands.client.restart_app(asked).await;
            answer.map_err(failed)?.into_inner().machines
        }
    })
}

fn machine_come(verb: Verb, ordered: &v1::Ordered, view: &WorkspaceView) -> Come {
    let machine = view
        .machines
        .iter()
        .find(|m| m.name.as_str() == ordered.machine);
    let Some(machine) = machine else {
        return Come::Failed("the machine is gone".to_owned());
    };
    if !machine.online {
        return Come::Offline;
    }
    if let Some(hands) = &machine.hands {
        // The first view may be from before the order, and tell of the trouble with the one before it.
        if hands.number.0 < ordered.number {
            return Come::Under("the machine does not have it yet".to_owned());
        }
        if let Some(trouble) = &hands.trouble {
            return Come::Failed(trouble.clone());
        }
        if !hands.delivered {
            return Come::Under("the machine does not have it yet".to_owned());
        }
    }
    let all = ordered.processes.iter();
    let all = all.map(|process| process_come(verb, ordered, process, view).0);
    all.max().unwrap_or(Come::Done)
}

/// With what there is to add about one that is done.
fn process_come(
    verb: Verb,
    ordered: &v1::Ordered,
    process: &str,
    view: &WorkspaceView,
) -> (Come, String) {
    let resources = view.owners.iter().flat_map(|owner| &owner.resources);
    let found = resources
        .filter(|r| r.process.is_some())
        .find(|r| r.address.to_string() == process);
    // It has left the records meanwhile.
    let Some(found) = found else {
        return (Come::Done, ", and is recorded no more".to_owned());
    };
    let message = found.message.clone().unwrap_or_default();
    let under = |what: &str| {
        let why = if message.is_empty() { what } else { &message };
        (Come::Under(why.to_owned()), String::new())
    };
    if verb == Verb::Stop {
        return match found.state {
            StateWord::Stopped => (Come::Done, String::new()),
            // What has failed is what it was to do before, until the agent says that it stands still.
            _ => under("it is being stopped"),
        };
    }
    let restarted = found.process.as_ref().and_then(|p| p.restarted);
    if restarted.is_none_or(|id| id.0 < ordered.number) {
        return under("it is being started");
    }
    match found.state {
        StateWord::Converged | StateWord::Stopped => (Come::Done, running(found)),
        StateWord::Failed => (Come::Failed(message.clone()), String::new()),
        _ => under("it has started, and has not proven itself yet"),
    }
}

fn running(found: &ResourceView) -> String {
    let pid = found.process.as_ref().and_then(|p| p.pid);
    let health = found.condition(plumb_model::ConditionKind::Healthy);
    let pid = pid.map_or(String::new(), |pid| format!(", pid {pid}"));
    match health {
        Some(c) if c.status => format!("{pid}, healthy"),
        _ => pid,
    }
}

fn say(
    verb: Verb,
    args: &HandArgs,
    ordered: &[v1::Ordered],
    come: &BTreeMap<String, Come>,
    env: &Env<'_>,
) {
    let recorded = Come::Under("recorded".to_owned());
    if env.output == Output::Json {
        let machines = ordered.iter().map(|machine| {
            let come = come.get(&machine.machine).unwrap_or(&recorded);
            json!({
                "machine": machine.machine,
                "number": machine.number,
                "online": machine.online,
                "processes": machine.processes,
                "outcome": if args.detach { "recorded" } else { come.word() },
                "message": if args.detach { "" } else { come.message() },
            })
        });
        let machines: Vec<_> = machines.collect();
        out::json(&json!({
            "format": 1, "order": verb.word(), "app": args.app.as_str(), "machines": machines,
        }));
        return;
    }
    let app = &args.app;
    if args.detach {
        out::line(&format!(
            "Recorded: {} {app} on {}.",
            verb.word(),
            count(ordered.len(), "machine")
        ));
        return;
    }
    for machine in ordered {
        let name = &machine.machine;
        match come.get(name).unwrap_or(&recorded) {
            Come::Done => {}
            Come::Offline => out::note(&format!(
                "{name} is offline: it has the order as soon as its agent connects"
            )),
            Come::Under(why) => out::note(&escape::line(&format!(
                "{name} has not got there in time: {why}; the order stands, and `plumb status` shows how far it has come"
            ))),
            Come::Failed(why) => out::note(&escape::line(&format!("{name}: {why}"))),
        }
    }
    let done = come.values().filter(|come| **come == Come::Done).count();
    let text = match (done == ordered.len(), verb) {
        (true, Verb::Stop) => format!(
            "{app} is stopped on {}, and stays so until `plumb start {app}`.",
            count(done, "machine")
        ),
        (true, _) => format!("{app} is {} on {}.", verb.done(), count(done, "machine")),
        (false, _) => format!(
            "{app} is {} on {done} of {}.",
            verb.done(),
            count(ordered.len(), "machine")
        ),
    };
    out::line(&text);
}
