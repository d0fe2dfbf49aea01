//! The status of a workspace, and events, for people.

use std::fmt::Write;

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{MachineWord, OwnerView, ResourceView, StateWord};
use plumb_model::condition::{EventKind, MachineEvent};
use plumb_model::rollout::Phase;
use plumb_model::{ConditionKind, MachineName, ProbeOutcome, Timestamp, escape};

use crate::out::Style;
use crate::render::table::table;
use crate::render::time::{ago, clock, full};

/// A state, coloured.
pub fn state_word(state: StateWord, style: &Style) -> String {
    match state {
        StateWord::Converged => style.good(state.as_str()),
        StateWord::Stopped => style.faint(state.as_str()),
        StateWord::Failed => style.bad(state.as_str()),
        _ => style.change(state.as_str()),
    }
}

/// Renders a status.
pub fn status(view: &WorkspaceView, verbose: bool, style: &Style, now: Timestamp) -> String {
    let mut text = String::new();
    let mut rows = Vec::new();
    for machine in &view.machines {
        let word = match machine.state {
            MachineWord::Online => style.good(machine.state.as_str()),
            MachineWord::Regressed => style.bad(machine.state.as_str()),
            _ => style.change(machine.state.as_str()),
        };
        let seen = machine
            .last_seen
            .map(|at| format!("seen {} ago", ago(at, now)))
            .unwrap_or_default();
        let counts = machine.counts;
        let mut row = vec![
            style.bold(machine.name.as_str()),
            word,
            seen,
            format!("{}/{} resources", counts.converged, counts.total),
        ];
        if verbose {
            row.push(format!(
                "generation {} of {}",
                machine.acked, machine.generation
            ));
            row.push(machine.version.clone().unwrap_or_default());
        }
        if let Some(message) = &machine.message {
            row.push(escape::line(message).into_owned());
        }
        rows.push(row);
    }
    let _ = writeln!(text, "{}", style.bold("Machines"));
    text.push_str(&table("  ", &rows));
    if rows.is_empty() {
        text.push_str("  none yet: apply blueprints with a `kind: Machine`\n");
    }
    let _ = writeln!(text, "\n{}", style.bold("Apps and Setups"));
    if view.owners.is_empty() {
        text.push_str("  none recorded\n");
    }
    let rows: Vec<Vec<String>> = view
        .owners
        .iter()
        .map(|owner| owner_row(owner, style))
        .collect();
    text.push_str(&table("  ", &rows));
    let block = |text: &mut String, rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table("  ", &rows));
        }
    };
    block(&mut text, by_hand(view, style, now));
    block(
        &mut text,
        view.owners
            .iter()
            .filter_map(|owner| owner.rollout.as_ref())
            .filter(|rollout| rollout.phase != Phase::Done)
            .map(|rollout| vec![crate::rolling::line(rollout)])
            .collect(),
    );
    block(
        &mut text,
        view.owners
            .iter()
            .flat_map(|owner| processes(owner, verbose, style, now))
            .collect(),
    );
    block(
        &mut text,
        view.owners
            .iter()
            .flat_map(|owner| troubles(owner, verbose, style))
            .collect(),
    );
    if verbose {
        let _ = writeln!(
            text,
            "\n{}",
            style.faint(&format!("revision {}", view.revision))
        );
    }
    text
}

/// What is stopped or held by hand, and what keeps a machine from hearing of it.
fn by_hand(view: &WorkspaceView, style: &Style, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for machine in &view.machines {
        let Some(hands) = &machine.hands else {
            continue;
        };
        for (owner, stopped) in &hands.orders.stopped {
            let why = format!(
                "stopped by {} since {}; `plumb start {owner}` undoes it",
                stopped.by,
                full(stopped.since)
            );
            rows.push((format!("{owner} on {}", machine.name), why));
        }
        for (address, hold) in &hands.orders.holds {
            if hold.holds(now) {
                let until = full(hold.until);
                let why = format!("held by {} until {until}: {}", hold.by, hold.reason);
                rows.push((address.to_string(), why));
            }
        }
        if let Some(trouble) = &hands.trouble {
            rows.push((machine.name.to_string(), trouble.clone()));
        }
    }
    let clean = |text: &str| escape::line(text).into_owned();
    rows.iter()
        .map(|(what, why)| vec![style.change("by hand"), clean(what), clean(why)])
        .collect()
}

fn owner_row(owner: &OwnerView, style: &Style) -> Vec<String> {
    vec![
        style.bold(owner.name.as_str()),
        // What is in no blueprint any more, and not yet proven gone.
        owner.kind.map_or("(removed)", |k| k.as_str()).to_owned(),
        format!("release {}", owner.release),
        state_word(owner.state, style),
        owner.urls.join(" "),
    ]
}

fn processes(owner: &OwnerView, verbose: bool, style: &Style, now: Timestamp) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for resource in &owner.resources {
        let Some(process) = &resource.process else {
            continue;
        };
        let health = match resource.condition(ConditionKind::Healthy) {
            Some(c) if c.status => style.good("healthy"),
            Some(_) => style.change("not healthy"),
            None => String::new(),
        };
        let pid = process
            .pid
            .map_or_else(|| "not running".to_owned(), |pid| format!("pid {pid}"));
        let up = process
            .started
            .filter(|_| process.pid.is_some())
            .map(|at| format!("up {}", ago(at, now)));
        rows.push(vec![
            format!("{}/{}", owner.name, resource.address.name),
            format!("on {}", resource.address.machine),
            pid,
            up.unwrap_or_default(),
            format!(
                "{} restart{}",
                process.restarts,
                if process.restarts == 1 { "" } else { "s" }
            ),
            health,
        ]);
        if verbose {
            for result in process.health.iter().rev().take(5) {
                let outcome = match result.outcome {
                    ProbeOutcome::Passed => style.good("passed"),
                    ProbeOutcome::Failed => style.bad("failed"),
                };
                let code = result
                    .code
                    .map(|c| format!("status {c}, "))
                    .unwrap_or_default();
                let error = result
                    .error
                    .as_deref()
                    .map(|e| format!(": {}", escape::line(e)))
                    .unwrap_or_default();
                rows.push(vec![
                    String::new(),
                    format!("check {}", clock(result.at)),
                    outcome,
                    format!("{code}{} ms{error}", result.millis),
                ]);
            }
        }
    }
    rows
}

fn troubles(owner: &OwnerView, verbose: bool, style: &Style) -> Vec<Vec<String>> {
    let interesting = |r: &&ResourceView| {
        verbose || !matches!(r.state, StateWord::Converged | StateWord::Stopped)
    };
    owner
        .resources
        .iter()
        .filter(interesting)
        .take(if verbose { usize::MAX } else { 20 })
        .map(|r| {
            vec![
                state_word(r.state, style),
                escape::line(&r.address.to_string()).into_owned(),
                escape::line(r.message.as_deref().unwrap_or_default()).into_owned(),
            ]
        })
        .collect()
}

/// One event on one line.
pub fn event_line(machine: &MachineName, event: &MachineEvent, style: &Style) -> String {
    let (mark, what) = match event.kind {
        EventKind::Applied => (style.good("•"), ""),
        EventKind::DriftCorrected => (style.change("↺"), "drift corrected: "),
        EventKind::DriftSeen => (style.change("!"), "drift seen and left: "),
        EventKind::Reattached => (style.good("•"), "taken over: "),
        EventKind::Removed => (style.bad("-"), ""),
        EventKind::Failed => (style.bad("✗"), ""),
        EventKind::HealthChanged | EventKind::Unknown => (style.good("•"), ""),
    };
    let address = &event.address;
    format!(
        "  {} {mark} {machine} {}/{} {}: {what}{}",
        style.faint(&clock(event.at)),
        address.owner,
        address.kind,
        escape::line(&address.name),
        escape::line(&event.message),
    )
}
