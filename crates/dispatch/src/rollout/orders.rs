//! What an operator may say to a rollout, and what each phase makes of it.

use plumb_model::rollout::{Phase, RolloutRecord};
use plumb_model::{OwnerName, Timestamp};

use super::Rollouts;

/// What is to become of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// No machine moves until it is resumed.
    Pause,
    /// It goes on: after a pause, or after it failed.
    Resume,
    /// It ends, and is taken back.
    Abort,
}

/// Why an order does nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is none.
    #[error("no rollout of {0} is recorded; `plumb rollout status` shows those that are")]
    None(OwnerName),
    /// It is over.
    #[error(
        "the rollout of {owner} to release {release} is {phase}, and nothing can be {what}; `plumb rollback {owner}` goes back to an earlier release",
        owner = .0.owner, release = .0.release, phase = .0.phase.as_str(), what = .1
    )]
    Over(Box<RolloutRecord>, &'static str),
    /// It takes a failed release back, and there is nothing behind that.
    #[error(
        "the rollout of {owner} to release {release} takes a failed one back and cannot be taken back itself; pause it, or apply something else",
        owner = .0.owner, release = .0.release
    )]
    IsRevert(Box<RolloutRecord>),
}

impl Rollouts {
    /// Carries an order out: the next state, and the record to store. Saying a thing twice changes nothing.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub fn order(
        &self,
        owner: &OwnerName,
        order: Order,
        by: &str,
        at: Timestamp,
    ) -> Result<(Self, RolloutRecord), OrderError> {
        let mut next = self.clone();
        let going = next
            .going
            .get_mut(owner)
            .ok_or_else(|| OrderError::None(owner.clone()))?;
        let record = &mut going.record;
        let over = |what| Err(OrderError::Over(Box::new(record.clone()), what));
        let (phase, why) = match (order, record.phase) {
            (Order::Pause, Phase::Running | Phase::Stalled) => {
                (Phase::Paused, Some(format!("paused by {by}")))
            }
            (Order::Pause, Phase::Paused)
            | (Order::Resume, Phase::Running | Phase::Stalled)
            | (Order::Abort, Phase::Reverting) => {
                return Ok((next, self.going[owner].record.clone()));
            }
            (Order::Pause, Phase::Reverting | Phase::Failed | Phase::Done) => {
                return over("paused");
            }
            (Order::Resume, Phase::Paused | Phase::Failed) => (Phase::Running, None),
            (Order::Resume, Phase::Reverting | Phase::Done) => return over("resumed"),
            (Order::Abort, Phase::Done) => return over("aborted"),
            (Order::Abort, _) if record.reverts.is_some() => {
                return Err(OrderError::IsRevert(Box::new(record.clone())));
            }
            (Order::Abort, Phase::Running | Phase::Stalled | Phase::Paused | Phase::Failed) => {
                (Phase::Reverting, Some(format!("aborted by {by}")))
            }
        };
        record.phase = phase;
        record.why = why;
        record.changed = at;
        record.waited_ms = 0;
        going.looked_ms = None;
        going.failing.clear();
        let record = going.record.clone();
        Ok((next, record))
    }

    /// Notes that a rollout could not be taken back: it stays where it is. The record to store, if that is news.
    #[must_use]
    pub fn not_reverted(
        &self,
        owner: &OwnerName,
        why: &str,
        at: Timestamp,
    ) -> Option<(Self, RolloutRecord)> {
        let mut next = self.clone();
        let going = next.going.get_mut(owner)?;
        let record = &mut going.record;
        if record.phase != Phase::Reverting {
            return None;
        }
        let before = record.why.take().unwrap_or_default();
        record.phase = Phase::Failed;
        record.why = Some(format!("{before}; it stays where it is: {why}"));
        record.changed = at;
        let record = going.record.clone();
        Some((next, record))
    }
}
