//! The life of a resource beyond one look at it: what an action led to, how a process goes through its
//! incarnations, when it is asked after its health and when it counts as steady.

use plumb_model::condition::{EventKind, MachineEvent};
use plumb_model::observation::Incarnation;
use plumb_model::{Action, Address, Observation, ResourceSpec};

use crate::backoff::{Chance, delay_ms};
use crate::decide::Why;
use crate::slot::Slot;
use crate::{Effect, Now, status};

/// A run of at least this long counts as a healthy spell: the next restart is immediate again.
const HEALTHY_SPELL_MS: u64 = 10_000;
/// A process without a health check counts as converged once it has lived this long, so that a program that
/// exits at once is never taken for a running one.
const STEADY_MS: u64 = 1_000;
/// A process that had proven itself is started again at once, so many times within [`FLAPPING_WINDOW_MS`]; then it
/// backs off like any other, so that one which comes up well and dies soon after does not go round for ever.
const PROVEN_RESTARTS: usize = 30;
/// Corrections and restarts are counted over this long.
pub(crate) const FLAPPING_WINDOW_MS: u64 = 60_000;
/// So many corrections within [`FLAPPING_WINDOW_MS`] mean that somebody fights with us over the resource: one a second
/// is more than people do by hand, and less than two programs that undo each other.
pub(crate) const FLAPPING_CORRECTIONS: usize = 60;
/// The longest pause between two tries. One minute, so that a mended cause is noticed within it.
pub(crate) const RETRY_MAX_MS: u64 = 60_000;

/// Adds an event for people.
pub(crate) fn emit(
    effects: &mut Vec<Effect>,
    now: Now,
    address: &Address,
    kind: EventKind,
    message: String,
) {
    effects.push(Effect::Emit(MachineEvent {
        at: now.wall,
        address: address.clone(),
        kind,
        message,
    }));
}

/// Says what a successful action was for, and counts corrections.
#[expect(
    clippy::too_many_arguments,
    reason = "all of it is what one sentence for people is made of"
)]
pub(crate) fn told_of_success(
    address: &Address,
    slot: &mut Slot,
    action: &Action,
    why: &Why,
    observation: &Observation,
    now: Now,
    began_ms: u64,
    effects: &mut Vec<Effect>,
) {
    let pid = match observation {
        Observation::Running(Incarnation { pid, .. }) if *pid != 0 => format!(" as pid {pid}"),
        // It has ended before anybody looked.
        _ => String::new(),
    };
    let took = now.mono_ms.saturating_sub(began_ms);
    match (action, why) {
        (Action::Write | Action::Start, Why::Drift(differs)) => {
            slot.corrections.push_back(now.mono_ms);
            if slot.corrections.len() >= FLAPPING_CORRECTIONS {
                if !slot.flapping {
                    let message = "it is changed again and again by something else; corrections are slowed down";
                    emit(
                        effects,
                        now,
                        address,
                        EventKind::DriftSeen,
                        message.to_owned(),
                    );
                }
                slot.flapping = true;
                let over = u32::try_from(slot.corrections.len() + 1 - FLAPPING_CORRECTIONS)
                    .unwrap_or(u32::MAX);
                slot.not_before_ms = now.mono_ms + delay_ms(over, 1_000, RETRY_MAX_MS);
            }
            let message = format!("{}; put right in {took} ms", status::describe(differs));
            emit(effects, now, address, EventKind::DriftCorrected, message);
        }
        (Action::Start, Why::Died(status)) => {
            slot.life.restarts += 1;
            emit(
                effects,
                now,
                address,
                EventKind::DriftCorrected,
                format!("{status}; started again{pid}"),
            );
        }
        (Action::Start, Why::Again) => emit(
            effects,
            now,
            address,
            EventKind::Applied,
            format!("started again{pid}, as an operator ordered"),
        ),
        (Action::Start, _) => {
            emit(
                effects,
                now,
                address,
                EventKind::Applied,
                format!("started{pid}"),
            );
        }
        (Action::Remove, _) => emit(
            effects,
            now,
            address,
            EventKind::Removed,
            match observation {
                Observation::Gone { note } => note.clone(),
                _ => "removed".to_owned(),
            },
        ),
        (Action::Adopt, _) => emit(
            effects,
            now,
            address,
            EventKind::Applied,
            "adopted; what was there before is kept under originals in the agent's data folder"
                .to_owned(),
        ),
        (Action::Move { from }, _) => {
            if let (Observation::Running(_), Some(old)) = (observation, from.first()) {
                let message = format!("goes on{pid} under this address, which was {old} before");
                emit(effects, now, address, EventKind::Applied, message);
            }
        }
        (Action::Write | Action::Stop, _) => {}
    }
}

/// Follows a process through its incarnations.
pub(crate) fn note_process(
    address: &Address,
    slot: &mut Slot,
    observation: &Observation,
    now: Now,
    chance: &mut Chance,
    effects: &mut Vec<Effect>,
) {
    let Some(spec) = slot.last_process().cloned() else {
        return;
    };
    match observation {
        Observation::Running(run) => {
            if slot.life.health.incarnation.as_deref() != Some(&run.id) {
                slot.life.health.begin(&run.id, now.mono_ms);
                let lived = now
                    .wall
                    .as_millisecond()
                    .saturating_sub(run.started.as_millisecond());
                let lived = u64::try_from(lived).unwrap_or(0).min(now.mono_ms);
                slot.life.alive_since_ms = Some(now.mono_ms - lived);
                if slot.first_look && !slot.is_removal() && Some(run.spec) == slot.incarnation() {
                    emit(
                        effects,
                        now,
                        address,
                        EventKind::Reattached,
                        format!("already running as pid {}", run.pid),
                    );
                }
            }
        }
        Observation::Exited(run, exit) => {
            let was_healthy = slot.life.health.healthy == Some(true);
            slot.life.health.end();
            slot.life.last_exit = Some(exit.clone());
            let alive_since = slot.life.alive_since_ms.take();
            let counted = slot.life.counted.as_deref() == Some(&run.id);
            let asked = slot
                .life
                .asked
                .as_ref()
                .filter(|(id, ..)| *id == run.id)
                .map(|(_, _, why)| why.clone());
            let superseded = Some(run.spec) != slot.incarnation();
            let unasked = asked.is_none() && !run.stopping;
            if counted || superseded || !(unasked || asked == Some(Why::Unhealthy)) {
                return;
            }
            slot.life.counted = Some(run.id.clone());
            let lived = exit
                .at
                .as_millisecond()
                .saturating_sub(run.started.as_millisecond());
            let lived = alive_since
                .map_or(0, |since| now.mono_ms.saturating_sub(since))
                .max(u64::try_from(lived).unwrap_or(0));
            let recent = &mut slot.life.recent_ends;
            recent.push_back(now.mono_ms);
            while recent
                .front()
                .is_some_and(|end| end + FLAPPING_WINDOW_MS <= now.mono_ms)
            {
                recent.pop_front();
            }
            let proven = was_healthy || (spec.health.is_none() && lived >= STEADY_MS);
            if lived >= HEALTHY_SPELL_MS || (proven && recent.len() <= PROVEN_RESTARTS) {
                slot.life.ends_in_row = 0;
            }
            let wait = delay_ms(
                slot.life.ends_in_row,
                spec.restart.initial_ms,
                spec.restart.max_ms,
            );
            slot.not_before_ms = if wait == 0 {
                0
            } else {
                now.mono_ms + chance.jitter(wait)
            };
            slot.life.ends_in_row = slot.life.ends_in_row.saturating_add(1);
            if wait > 0 {
                let message = format!(
                    "{}; started again after a pause of about {wait} ms",
                    exit.status
                );
                emit(effects, now, address, EventKind::Failed, message);
            }
        }
        _ => {
            slot.life.health.end();
            slot.life.alive_since_ms = None;
        }
    }
}

/// Emits a due probe; says when the next probe, or the moment at which the process counts as steady, is due.
pub(crate) fn probe_or_steady(
    address: &Address,
    slot: &mut Slot,
    at: u64,
    effects: &mut Vec<Effect>,
) -> Option<u64> {
    let Some(Ok(Observation::Running(run))) = &slot.seen else {
        return None;
    };
    let run = run.clone();
    let spec = match &slot.resource()?.spec {
        ResourceSpec::Process(spec) => spec.clone(),
        _ => return None,
    };
    let Some(health) = &spec.health else {
        let steady_at = slot.steady_at()?;
        return (at < steady_at).then_some(steady_at);
    };
    let state = &mut slot.life.health;
    if state.probing {
        return None;
    }
    let due = *state.next_ms.get_or_insert(at);
    if at < due {
        return Some(due);
    }
    state.probing = true;
    effects.push(Effect::Probe {
        address: address.clone(),
        incarnation: run.id,
        probe: health.probe.clone(),
        timeout_ms: health.timeout_ms,
    });
    None
}

impl Slot {
    /// When a running process counts as steady: at once for most, after a second without a health check,
    /// after a whole healthy spell if it kept ending before.
    pub(crate) fn steady_at(&self) -> Option<u64> {
        let since = self.life.alive_since_ms?;
        let spell = if self.life.ends_in_row >= 2 {
            HEALTHY_SPELL_MS
        } else {
            STEADY_MS
        };
        Some(since + spell)
    }
}
