//! From a slot to the conditions that people read.

use plumb_model::condition::ProcessStatus;
use plumb_model::hands::Hold;
use plumb_model::{Address, Condition, ConditionKind, Fault, Observation, Reason, ResourceStatus};

use crate::Now;
use crate::decide::{Decision, Why};
use crate::hands::Halt;
use crate::slot::{Busy, Slot};

/// Faults that something outside the resource causes; the others are its own failures.
fn is_blocked(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::CommandNotFound | Reason::ExitedAtOnce | Reason::BadContent | Reason::Io
    )
}

struct Verdict {
    converged: bool,
    reason: Reason,
    message: String,
    drifted: Option<(Reason, String)>,
    fault: Option<(ConditionKind, Reason, String)>,
}

fn verdict<'a>(
    slot: &Slot,
    waits_for: impl FnOnce() -> Option<&'a Address>,
    now: Now,
) -> Option<Verdict> {
    let plain = |converged, reason, message: &str| Verdict {
        converged,
        reason,
        message: message.to_owned(),
        drifted: None,
        fault: None,
    };
    let faulty = |fault: &Fault| {
        let kind = if is_blocked(fault.reason) {
            ConditionKind::Blocked
        } else {
            ConditionKind::Failed
        };
        Verdict {
            fault: Some((kind, fault.reason, fault.message.clone())),
            ..plain(false, fault.reason, &fault.message)
        }
    };
    if let Some(moving) = &slot.moving {
        return Some(match &moving.failed {
            Some(fault) => faulty(fault),
            None => plain(
                false,
                Reason::Working,
                "being taken over from its old address",
            ),
        });
    }
    if let Some(fault) = &slot.failed {
        return Some(faulty(fault));
    }
    if slot.missing {
        return Some(plain(false, Reason::ContentMissing, what_is_fetched(slot)));
    }
    let seen = slot.seen.as_ref()?;
    if let Err(fault) = seen {
        return Some(faulty(fault));
    }
    if !slot.is_fresh() && matches!(slot.decision(), Some(Decision::Settled)) {
        return Some(plain(false, Reason::Working, "to be looked at again"));
    }
    let mut verdict = match slot.decision()? {
        Decision::Settled => match (seen, slot.last_process()) {
            (Ok(Observation::Running(_)), Some(process)) => {
                let steady =
                    process.health.is_some() || slot.steady_at().is_none_or(|at| at <= now.mono_ms);
                if steady {
                    plain(true, Reason::AsDesired, "running")
                } else {
                    plain(
                        false,
                        Reason::Working,
                        "started a moment ago; watched until it has proven steady",
                    )
                }
            }
            (_, Some(_)) if !slot.is_removal() => plain(true, Reason::Stopped, &stopped(slot)),
            _ => plain(true, Reason::AsDesired, "as the blueprint says"),
        },
        Decision::Gone => match seen {
            Ok(Observation::Gone { note }) => plain(true, Reason::AsDesired, note),
            _ => plain(true, Reason::AsDesired, "removed"),
        },
        Decision::Ended(status) => {
            let text = format!("{status}, and its restart policy leaves it so");
            if status == plumb_model::observation::ExitStatus::Code(0) {
                plain(true, Reason::Exited, &text)
            } else {
                faulty(&Fault::new(Reason::ExitedAtOnce, text))
            }
        }
        Decision::Held(differs) => {
            let held = slot.overlay.held.as_ref();
            let by = held.map(held_by).unwrap_or_default();
            match differs.as_slice() {
                [] => plain(
                    false,
                    Reason::WaitsFor,
                    &format!("{by}; what is recorded comes about after that"),
                ),
                differs => Verdict {
                    drifted: Some((
                        Reason::ReportOnly,
                        format!("{}; left: {by}", describe(differs)),
                    )),
                    ..plain(true, Reason::ReportOnly, &format!("converged once; {by}"))
                },
            }
        }
        Decision::Stopping => plain(false, Reason::Working, "stopping"),
        Decision::Foreign(what) => faulty(&Fault::new(Reason::NotOurs, what)),
        Decision::Leave(differs) => {
            let found = describe(&differs);
            let ignored = slot
                .resource()
                .is_some_and(|r| r.drift == plumb_model::DriftPolicy::Ignore);
            Verdict {
                drifted: (!ignored).then(|| {
                    (
                        Reason::ReportOnly,
                        format!("{found}; left, as the blueprint says"),
                    )
                }),
                ..plain(
                    true,
                    Reason::ReportOnly,
                    "converged once; drift is left, as the blueprint says",
                )
            }
        }
        Decision::Act(_, why) => {
            if let Some(before) = waits_for() {
                plain(false, Reason::WaitsFor, &format!("waits for {before}"))
            } else {
                act_verdict(slot, &why, &plain, &faulty)
            }
        }
    };
    if slot.flapping {
        verdict.drifted = Some((
            Reason::Flapping,
            "it is changed again and again by something else; corrections are slowed down"
                .to_owned(),
        ));
    }
    Some(verdict)
}

fn act_verdict(
    slot: &Slot,
    why: &Why,
    plain: &dyn Fn(bool, Reason, &str) -> Verdict,
    faulty: &dyn Fn(&Fault) -> Verdict,
) -> Verdict {
    let waiting = slot.busy == Busy::No && slot.not_before_ms > 0;
    match why {
        Why::Died(status) if slot.life.ends_in_row > 0 && waiting => faulty(&Fault::new(
            Reason::ExitedAtOnce,
            format!(
                "{status}, {} in a row without a healthy spell; started again after a pause. See `plumb logs`",
                times(slot.life.ends_in_row)
            ),
        )),
        Why::Died(status) => plain(
            false,
            Reason::Exited,
            &format!("{status}; being started again"),
        ),
        Why::Unhealthy => plain(false, Reason::ProbeFailed, "unhealthy; being restarted"),
        Why::Drift(differs) => Verdict {
            drifted: Some((Reason::Working, describe(differs))),
            ..plain(false, Reason::Working, "being put right")
        },
        Why::Desired => plain(false, Reason::Working, "being worked on"),
        Why::Again => plain(
            false,
            Reason::Working,
            "being started again, as an operator ordered",
        ),
    }
}

/// Who holds something, until when and why.
pub(crate) fn held_by(hold: &Hold) -> String {
    format!(
        "held by {} until {} ({})",
        hold.by,
        hold.until.strftime("%Y-%m-%d %H:%M:%SZ"),
        hold.reason
    )
}

/// Why a process stands still.
fn stopped(slot: &Slot) -> String {
    match (&slot.overlay.halt, slot.resource()) {
        (Some(Halt::ByHand(stopped)), Some(resource)) => format!(
            "stopped by {} since {}; `plumb start {}` undoes it",
            stopped.by,
            stopped.since.strftime("%Y-%m-%d %H:%M:%SZ"),
            resource.address.owner
        ),
        (Some(Halt::Away(after)), _) => format!(
            "stopped, as the blueprint says: the control plane was not heard for {} s; started again when it is",
            after / 1000
        ),
        _ => "stopped, as the blueprint says".to_owned(),
    }
}

fn times(n: u32) -> String {
    if n == 1 {
        "once".to_owned()
    } else {
        format!("{n} times")
    }
}

/// What something waits for before it can be acted on.
fn what_is_fetched(slot: &Slot) -> &'static str {
    let is_content = slot
        .resource()
        .is_some_and(|resource| resource.spec.blobs().next().is_some());
    if is_content {
        "its content is being fetched"
    } else {
        "its secrets are not on this machine yet: it waits for the control plane to hand them over"
    }
}

/// Differences in words.
pub(crate) fn describe(differs: &[plumb_model::observation::Difference]) -> String {
    let parts: Vec<String> = differs
        .iter()
        .map(|d| match d.field.as_str() {
            // These say all there is to say by themselves.
            "existence" | "state" => d.found.clone(),
            field => format!("{field}: {}", d.found),
        })
        .collect();
    parts.join("; ")
}

/// Builds the status; a condition that says the same as before keeps its `since`.
pub(crate) fn status<'a>(
    address: &Address,
    slot: &Slot,
    waits_for: impl FnOnce() -> Option<&'a Address>,
    now: Now,
) -> Option<ResourceStatus> {
    let verdict = verdict(slot, waits_for, now)?;
    let mut conditions = vec![(
        ConditionKind::Converged,
        verdict.converged,
        verdict.reason,
        verdict.message,
    )];
    let process = slot.last_process();
    let running = matches!(slot.seen, Some(Ok(Observation::Running(_))));
    if let (Some(healthy), true) = (
        slot.life.health.healthy,
        running && process.is_some_and(|p| p.health.is_some()),
    ) {
        let last = slot.life.health.results.back();
        let message = match (healthy, last.and_then(|r| r.error.clone())) {
            (true, _) => "its health check passes".to_owned(),
            (false, Some(error)) => format!("its health check fails: {error}"),
            (false, None) => "its health check fails".to_owned(),
        };
        let reason = if healthy {
            Reason::ProbePassed
        } else {
            Reason::ProbeFailed
        };
        conditions.push((ConditionKind::Healthy, healthy, reason, message));
    } else if running && process.is_some_and(|p| p.health.is_some()) && !slot.is_removal() {
        let why = slot
            .life
            .health
            .results
            .back()
            .and_then(|r| r.error.clone());
        let message = why.map_or_else(
            || "not asked yet".to_owned(),
            |why| format!("no check has passed yet: {why}"),
        );
        conditions.push((ConditionKind::Healthy, false, Reason::Working, message));
    }
    if let Some((reason, message)) = verdict.drifted {
        conditions.push((ConditionKind::Drifted, true, reason, message));
    }
    if let Some((kind, reason, message)) = verdict.fault {
        conditions.push((kind, true, reason, message));
    }
    let conditions = conditions
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = slot.reported.as_ref().and_then(|r| r.condition(kind));
            let since = before
                .filter(|b| b.status == status && b.reason == reason)
                .map_or(now.wall, |b| b.since);
            Condition {
                kind,
                status,
                reason,
                message,
                since,
            }
        })
        .collect();
    let gone = slot.is_removal() && slot.gone;
    let process = process.map(|_| process_status(slot));
    let found = match (&slot.seen, slot.decision()) {
        (Some(Ok(Observation::Foreign { found, .. })), Some(Decision::Foreign(_))) => found.clone(),
        _ => slot.overlay.shown.clone(),
    };
    Some(ResourceStatus {
        address: address.clone(),
        generation: slot.seen_under,
        conditions,
        gone,
        process,
        found,
    })
}

fn process_status(slot: &Slot) -> ProcessStatus {
    let life = &slot.life;
    let base = ProcessStatus {
        restarts: life.restarts,
        last_exit: life.last_exit.clone(),
        health: life.health.results.clone(),
        restarted: slot.overlay.restarted,
        ..ProcessStatus::default()
    };
    match &slot.seen {
        Some(Ok(Observation::Running(run))) => ProcessStatus {
            incarnation: Some(run.id.clone()),
            pid: Some(run.pid),
            started: Some(run.started),
            ..base
        },
        Some(Ok(Observation::Exited(run, exit))) => ProcessStatus {
            incarnation: Some(run.id.clone()),
            started: Some(run.started),
            last_exit: Some(exit.clone()),
            ..base
        },
        _ => base,
    }
}
