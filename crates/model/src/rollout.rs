//! What is recorded of a rollout: how far each owner's release has come, what each machine holds meanwhile, and what is
//! held back after it failed.
//!
//! Plain values. `dispatch` decides on them, the ledger stores them, and the planner uses [`waves`] to say beforehand how a
//! rollout will go.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::name::{MachineName, OwnerName};
use crate::state::{Rollout, RolloutStrategy};
use crate::{Generation, ReleaseNumber, Revision, Timestamp};

/// What a machine holds while it is not yet at all that is recorded for it: it begins here with its revision, and goes on in
/// a [`Position`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// The revision that began it. A position of another one no longer counts.
    pub since: Revision,
    /// The generation of what it holds.
    pub generation: Generation,
    /// The hash of the assignment that it holds.
    pub assignment: Hash,
    /// The owners that have not moved there, with the release that the machine holds of each; 0 is none.
    pub behind: BTreeMap<OwnerName, ReleaseNumber>,
}

/// What a machine holds after the newest wave that moved it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The machine.
    pub machine: MachineName,
    /// What it holds.
    pub at: Rolling,
}

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It moves machines, or waits until those that it moved have proven themselves.
    Running,
    /// Nothing moves until somebody resumes it.
    Paused,
    /// Its deadline has passed for a reason that is not the release's, such as a machine that is away. It goes on by itself.
    Stalled,
    /// It has failed or was aborted, and is about to be taken back.
    Reverting,
    /// It has failed and stays where it is; somebody has to act.
    Failed,
    /// Every machine is at the release and has proven itself.
    Done,
}

impl Phase {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stalled => "stalled",
            Self::Reverting => "reverting",
            Self::Failed => "failed",
            Self::Done => "done",
        }
    }

    /// Whether machines may still be moved by it without anybody's doing.
    #[must_use]
    pub fn goes_on(self) -> bool {
        matches!(self, Self::Running | Self::Stalled)
    }

    /// Whether nothing more becomes of it by itself.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Failed | Self::Done)
    }
}

/// The newest rollout of an owner. It says nothing of single machines: those are in their [`Position`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRecord {
    /// Whose.
    pub owner: OwnerName,
    /// The release that machines move to.
    pub release: ReleaseNumber,
    /// The apply that began it: its id is the number of its revision.
    pub apply: Revision,
    /// How machines move.
    pub settings: Rollout,
    /// How it stands.
    pub phase: Phase,
    /// Why, where the phase alone does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The waves so far.
    pub waves: u32,
    /// For so many milliseconds it has run without progress. The time of a pause does not count, nor any in which no control
    /// plane ran.
    pub waited_ms: u64,
    /// It takes this release back, which had failed. Such a rollout is never taken back itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts: Option<ReleaseNumber>,
    /// Why that one had failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverts_why: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When its phase last changed, or a wave was made.
    pub changed: Timestamp,
}

/// Content that was taken back, and does not come again unless somebody says so expressly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Whose.
    pub owner: OwnerName,
    /// The release that was taken back.
    pub release: ReleaseNumber,
    /// The hash of its content.
    pub body: Hash,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

/// How many instances may be unavailable at once: what is set, or as many as must be, since the old one stops before the
/// new one starts and the instances of one machine change together.
#[must_use]
pub fn budget(settings: &Rollout, on_one_machine: u32) -> u32 {
    settings.max_unavailable.max(on_one_machine).max(1)
}

/// The waves in which machines move, if nothing comes in between: machines with their number of instances, in the order in
/// which they are taken. The instances of one machine change together.
#[must_use]
pub fn waves(settings: &Rollout, instances: &BTreeMap<MachineName, u32>) -> Vec<Vec<MachineName>> {
    let most = instances.values().copied().max().unwrap_or(0);
    let room = settings.batch.max(1).min(budget(settings, most));
    let mut waves: Vec<Vec<MachineName>> = Vec::new();
    // Nobody joins the wave of the canary.
    let mut used = room;
    for (machine, count) in instances {
        let alone = settings.strategy == RolloutStrategy::Canary && waves.len() < 2;
        match waves.last_mut().filter(|_| !alone && used + count <= room) {
            Some(wave) => {
                wave.push(machine.clone());
                used += count;
            }
            None => {
                waves.push(vec![machine.clone()]);
                used = *count;
            }
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(strategy: RolloutStrategy, batch: u32, away: u32, instances: &[u32]) -> Vec<usize> {
        let settings = Rollout {
            strategy,
            batch,
            max_unavailable: away,
            ..Rollout::default()
        };
        let machines = instances.iter().enumerate().map(|(n, count)| {
            let name = MachineName::new(&format!("m{n}")).unwrap();
            (name, *count)
        });
        let waves = waves(&settings, &machines.collect());
        waves.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_wave_holds_no_more_than_batch_and_budget_let_it() {
        use RolloutStrategy::{Canary, Rolling};
        assert_eq!(sizes(Rolling, 2, 2, &[1; 5]), [2, 2, 1]);
        assert_eq!(sizes(Rolling, 3, 1, &[1; 3]), [1, 1, 1]);
        assert_eq!(sizes(Rolling, 2, 2, &[2, 1, 1, 3]), [1, 2, 1]);
        assert_eq!(sizes(Canary, 2, 2, &[1; 6]), [1, 2, 2, 1]);
        assert_eq!(sizes(Canary, 3, 0, &[1; 3]), [1, 1, 1]);
        assert_eq!(sizes(Rolling, 1, 1, &[]), [0; 0]);
    }
}
