//! `plumb events`: what happened on the machines of the workspace, and what happens.

use std::time::Duration;

use plumb_model::{Timestamp, escape};
use plumb_wire::client::{self, CallError, ConnectError, EventLogClient};
use plumb_wire::error::Reason;
use plumb_wire::v1;
use serde_json::{Value, json};

use crate::args::Output;
use crate::args::events::EventsArgs;
use crate::commands::Env;
use crate::commands::logs::parse_since;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;
use crate::out::{self, Exit, Style};
use crate::render::time::full;

/// How long to wait before the control plane is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// So many tries may end with a refused token once the control plane was away: one on this machine writes its new token
/// a moment after it has begun to listen.
const REFUSED: u32 = 10;

/// A connection with a token.
type Events = Dialled<EventLogClient>;

/// What was read of the past.
struct Past {
    events: Vec<v1::Event>,
    journals: Vec<v1::Journal>,
    token: String,
}

/// Shows events, and goes on with them if it is asked to.
pub async fn run(args: &EventsArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let since = args.since.as_deref().map(parse_since).transpose()?;
    let mut token = match &args.after {
        Some(token) => token.clone(),
        None => {
            let past = past(&mut connect(env).await?, args, since).await?;
            if args.verify {
                return Ok(verify(&past.journals, env));
            }
            if !args.follow {
                show(&past, env);
                return Ok(Exit::Fine);
            }
            for event in &past.events {
                tell(event, env);
            }
            past.token
        }
    };
    out::streams();
    let (mut away, mut refused) = (false, 0);
    loop {
        let followed = tokio::select! {
            followed = follow(args, env, &mut token, &mut away) => followed,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        };
        if let Err(error) = followed {
            if !passes(&error, away && refused < REFUSED) {
                return Err(error);
            }
            refused += u32::from(away);
        }
        if !away {
            refused = 0;
            out::note("The control plane is away; this goes on when it is back.");
            away = true;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        }
    }
}

/// Whether trying again may help.
fn passes(error: &CliError, starting: bool) -> bool {
    match error {
        CliError::Connect(ConnectError::Unreachable { .. })
        | CliError::Call(CallError::Lost { .. }) => true,
        CliError::Call(CallError::Refused(refusal)) => refusal.reason == Reason::Closing,
        CliError::Call(CallError::WrongToken(_)) => starting,
        _ => false,
    }
}

/// The context is read anew each time: a control plane on this machine writes another token when it starts.
async fn connect(env: &Env<'_>) -> Result<Events, CliError> {
    Events::to(&Context::find(env.context)?, client::events_with).await
}

/// Reads the past, oldest first.
async fn past(
    client: &mut Events,
    args: &EventsArgs,
    since: Option<Timestamp>,
) -> Result<Past, CliError> {
    let mut past = Past {
        events: Vec::new(),
        journals: Vec::new(),
        token: String::new(),
    };
    let mut page_token = String::new();
    loop {
        let left = args.limit.max(1) - past.events.len();
        let asked = v1::ListEventsRequest {
            machine: text(args.machine.as_ref()),
            owner: text(args.app.as_ref()),
            since: text(since.as_ref()),
            page_size: u32::try_from(left).unwrap_or(u32::MAX),
            page_token: std::mem::take(&mut page_token),
        };
        let answer = client.client.list_events(asked).await;
        let page = answer.map_err(client.failed())?.into_inner();
        if past.token.is_empty() {
            past.token = page.resume_token;
            past.journals = page.journals;
        }
        past.events.extend(page.events);
        past.events.truncate(args.limit.max(1));
        if page.next_page_token.is_empty() || past.events.len() >= args.limit.max(1) {
            break;
        }
        page_token = page.next_page_token;
    }
    // As they happened: what was handed over later may have happened before.
    past.events.sort_by_cached_key(|event| {
        let at: Option<Timestamp> = event.at.parse().ok();
        (at, event.machine.clone(), event.number)
    });
    Ok(past)
}

/// Follows until the stream ends; `token` is where to go on.
async fn follow(
    args: &EventsArgs,
    env: &Env<'_>,
    token: &mut String,
    away: &mut bool,
) -> Result<(), CliError> {
    let mut client = connect(env).await?;
    let asked = v1::WatchEventsRequest {
        machine: text(args.machine.as_ref()),
        owner: text(args.app.as_ref()),
        resume_token: token.clone(),
    };
    let answer = client.client.watch_events(asked).await;
    let mut stream = answer.map_err(client.failed())?.into_inner();
    while let Some(news) = stream.message().await.map_err(client.failed())? {
        if std::mem::take(away) {
            out::note("The control plane is back.");
        }
        if news.missed > 0 {
            out::note(&format!(
                "{} events were dropped from the store before they could be shown.",
                news.missed
            ));
        }
        for event in &news.events {
            tell(event, env);
        }
        *token = news.resume_token;
    }
    Ok(())
}

fn text(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn broken(journal: &v1::Journal) -> String {
    format!(
        "The journal of {} is broken at entry {}: {}",
        escape::line(&journal.machine),
        journal.broken_at,
        escape::line(&journal.why)
    )
}

fn verify(journals: &[v1::Journal], env: &Env<'_>) -> Exit {
    let whole = journals.iter().all(|journal| journal.broken_at == 0);
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "whole": whole,
            "journals": journals.iter().map(journal_json).collect::<Vec<_>>(),
        })),
        Output::Text => {
            for journal in journals {
                out::line(&match journal.broken_at {
                    0 => format!(
                        "The journal of {} is whole: {} entries. Its head is {}",
                        escape::line(&journal.machine),
                        journal.entries,
                        escape::line(&journal.head)
                    ),
                    _ => broken(journal),
                });
            }
            if journals.is_empty() {
                out::line("No machine has handed a journal over yet.");
            }
        }
    }
    match whole {
        true => Exit::Fine,
        false => Exit::Failed,
    }
}

fn show(past: &Past, env: &Env<'_>) {
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "events": past.events.iter().map(event_json).collect::<Vec<_>>(),
            "journals": past.journals.iter().map(journal_json).collect::<Vec<_>>(),
            "resume_token": past.token,
        })),
        Output::Text => {
            if past.events.is_empty() {
                out::line("Nothing of that kind has happened, as far as events are kept.");
            }
            for event in &past.events {
                tell(event, env);
            }
            for journal in past.journals.iter().filter(|j| j.broken_at > 0) {
                out::note(&broken(journal));
            }
        }
    }
}

fn tell(event: &v1::Event, env: &Env<'_>) {
    match env.output {
        Output::Json => out::json(&event_json(event)),
        Output::Text => out::line(&line(event, env.style)),
    }
}

/// One event on one line.
fn line(event: &v1::Event, style: &Style) -> String {
    let at = event.at.parse().map_or_else(|_| "-".to_owned(), full);
    let mark = match event.kind.as_str() {
        "failed" | "removed" | "condition_set" | "link_lost" | "journal_broken"
        | "journal_damaged" | "lost" | "dropped" => style.bad("✗"),
        "drift_corrected" | "drift_seen" | "process_ended" => style.change("↺"),
        _ => style.good("•"),
    };
    // The machine stands before it already.
    let what = match event.address.split_once('/') {
        Some((_, rest)) => format!("{}: ", escape::line(rest)),
        None => String::new(),
    };
    let away = if event.away { "  away" } else { "" };
    format!(
        "{} {mark} {} {what}{}{}",
        style.faint(&at),
        escape::line(&event.machine),
        escape::line(&event.message),
        style.faint(away)
    )
}

fn event_json(event: &v1::Event) -> Value {
    json!({
        "format": 1,
        "number": event.number,
        "resume_token": event.resume_token,
        "machine": event.machine,
        "at": event.at,
        "received": event.received,
        "away": event.away,
        "entry": event.entry,
        "kind": event.kind,
        "address": event.address,
        "message": event.message,
    })
}

fn journal_json(journal: &v1::Journal) -> Value {
    json!({
        "machine": journal.machine,
        "entries": journal.entries,
        "head": journal.head,
        "broken_at": journal.broken_at,
        "why": journal.why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, address: &str, message: &str, away: bool) -> v1::Event {
        v1::Event {
            machine: "web-1".into(),
            at: "2026-11-21T20:42:19.5Z".into(),
            away,
            kind: kind.into(),
            address: address.into(),
            message: message.into(),
            ..v1::Event::default()
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let lines = [
            event("link_lost", "", "lost the control plane", true),
            event(
                "process_ended",
                "web-1/web/process/app/0",
                "was killed by signal 9",
                true,
            ),
            event(
                "failed",
                "web-1/web/file//a\nb",
                "no\u{1b}[2J space\n",
                false,
            ),
        ]
        .map(|event| {
            line(
                &event,
                &Style {
                    color: false,
                    live: false,
                },
            )
        });
        insta::assert_snapshot!(lines[..2].join("\n"), @r"
        2026-11-21 20:42:19 ✗ web-1 lost the control plane  away
        2026-11-21 20:42:19 ↺ web-1 web/process/app/0: was killed by signal 9  away
        ");
        assert!(lines[2].ends_with("space\\n"), "{}", lines[2]);
        assert!(!lines[2].chars().any(char::is_control), "{:?}", lines[2]);
    }
}
