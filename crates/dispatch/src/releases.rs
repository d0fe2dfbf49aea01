//! What becomes of each release: taken up when it is recorded, and settled by what agents say.
//!
//! It sends nothing to agents. The fleet calls it with every recording and after every message that may settle something.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::rollout::Phase;
use plumb_model::state::{Outcome, OwnerKind};
use plumb_model::{Generation, MachineName, OwnerName, ReleaseNumber};

use crate::fleet::{Effect, Fleet};
use crate::judge::{Progress, judge};
use crate::machine::Machine;
use crate::record::{MachineRecord, OwnerRecord, Recording};
use crate::view::RolloutView;

/// An owner's current release and how far it has come.
#[derive(Debug)]
pub(crate) struct Track {
    pub release: ReleaseNumber,
    pub kind: Option<OwnerKind>,
    pub removed: bool,
    /// It goes on under another name; what it left behind is still shown here until it is gone.
    pub renamed: bool,
    /// The generation that brought the release to each machine.
    pub brought: BTreeMap<MachineName, Generation>,
    pub outcome: Outcome,
    /// A machine that it was last seen to wait for: while that one or one behind it is not done, nobody needs to look at all the
    /// others.
    pub waits_for: Option<MachineName>,
}

/// How far an owner has come on one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Come {
    done: bool,
    failed: bool,
}

impl Track {
    /// Of an owner that is in no blueprint and on no machine any more.
    pub fn of_removed(record: &OwnerRecord) -> Self {
        Self {
            release: record.release,
            kind: record.kind,
            removed: true,
            renamed: false,
            brought: BTreeMap::new(),
            outcome: Outcome::Converging,
            waits_for: None,
        }
    }
}

impl Fleet {
    /// Takes the new state; says which releases it supersedes and which it starts.
    pub(crate) fn recorded(&mut self, recording: Recording, out: &mut Vec<Effect>) {
        // Two applies may tell of themselves in the wrong order; the state only moves forward.
        if recording.revision < self.revision {
            return;
        }
        self.changed = true;
        let runs = self.revision.0 > 0;
        self.revision = recording.revision;
        let left: Vec<_> = self
            .machines
            .iter()
            .filter(|(name, m)| m.record.is_some() && !recording.machines.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in left {
            // An agent whose machine has left stays connected, and waits to be assigned again.
            if let Some(machine) = self.machines.get_mut(&name) {
                machine.record = None;
                machine.previous = None;
                machine.refused = None;
                machine.regressed = None;
                machine.statuses.clear();
                if let Some(session) = &mut machine.session {
                    session.in_flight = None;
                } else if machine.is_forgettable() {
                    self.machines.remove(&name);
                }
            }
        }
        self.rollouts = recording.rollouts;
        for (name, record) in recording.machines {
            let machine = self.machines.of(name);
            machine.set_record(record);
            machine.compare();
        }
        for (owner, record) in recording.owners {
            let track = self.owners.get_mut(&owner);
            if let Some(track) = track {
                if track.release == record.release && track.removed == record.removed {
                    track.kind = record.kind.or(track.kind);
                    continue;
                }
                // Gone without a release of its own: it was renamed, and counts on under its new name.
                let renamed = record.removed && track.release == record.release;
                if track.outcome == Outcome::Converging {
                    out.push(Effect::Outcome {
                        owner: owner.clone(),
                        release: track.release,
                        outcome: Outcome::Superseded,
                    });
                    if renamed {
                        track.outcome = Outcome::Superseded;
                    }
                }
                if renamed {
                    track.removed = true;
                    track.renamed = true;
                    continue;
                }
            }
            let brought = self.brought(&owner);
            // What is told of an owner that had gone before is only that it goes from where it was before it was renamed.
            let over = runs || brought.is_empty();
            if record.removed && over && !self.owners.contains_key(&owner) {
                continue;
            }
            let kind = record
                .kind
                .or_else(|| self.owners.get(&owner).and_then(|t| t.kind));
            let track = Track {
                release: record.release,
                kind,
                removed: record.removed,
                renamed: false,
                brought,
                outcome: Outcome::Converging,
                waits_for: None,
            };
            out.push(Effect::Outcome {
                owner: owner.clone(),
                release: track.release,
                outcome: Outcome::Converging,
            });
            self.owners.insert(owner, track);
        }
    }

    /// Takes what a wave has moved, and how the rollouts stand. Release by release nothing is new.
    pub(crate) fn advanced(
        &mut self,
        machines: BTreeMap<MachineName, MachineRecord>,
        rollouts: BTreeMap<OwnerName, RolloutView>,
        out: &mut Vec<Effect>,
    ) {
        self.changed = true;
        for (name, record) in machines {
            let machine = self.machines.of(name.clone());
            let before = machine.record.as_ref().map(|r| r.behind.clone());
            let generation = record.generation;
            let moved = before.unwrap_or_default();
            let moved: Vec<_> = moved.difference(&record.behind).cloned().collect();
            machine.set_record(record);
            machine.compare();
            for owner in moved {
                if let Some(track) = self.owners.get_mut(&owner) {
                    track.brought.insert(name.clone(), generation);
                }
            }
        }
        for (owner, rollout) in &rollouts {
            let failed = matches!(rollout.phase, Phase::Failed | Phase::Reverting);
            if let Some(track) = self.owners.get_mut(owner)
                && failed
                && track.release == rollout.release
                && track.outcome == Outcome::Converging
            {
                track.outcome = Outcome::Failed;
                out.push(Effect::Outcome {
                    owner: owner.clone(),
                    release: track.release,
                    outcome: Outcome::Failed,
                });
            }
        }
        self.rollouts = rollouts;
    }

    /// Whether an owner's rollout has still to say that its release has proven itself.
    fn is_rolling(&self, owner: &OwnerName, track: &Track) -> bool {
        self.rollouts.get(owner).is_some_and(|rollout| {
            rollout.release == track.release && rollout.phase != Phase::Done && !track.removed
        })
    }

    /// Whether any machine speaks of an owner.
    fn is_spoken_of(&self, owner: &OwnerName) -> bool {
        let assignments = self.machines.values().filter_map(Machine::assignment);
        assignments
            .flat_map(|assignment| assignment.entries())
            .any(|entry| entry.address().owner == *owner)
    }

    /// The machines that speak of an owner, each with its generation now.
    fn brought(&self, owner: &OwnerName) -> BTreeMap<MachineName, Generation> {
        self.machines
            .iter()
            .filter(|(_, machine)| {
                machine
                    .assignment()
                    .is_some_and(|a| a.entries().any(|e| e.address().owner == *owner))
            })
            .map(|(name, machine)| (name.clone(), machine.generation()))
            .collect()
    }

    pub(crate) fn judge_machine(&mut self, name: &MachineName, out: &mut Vec<Effect>) {
        let owners: BTreeSet<_> = self
            .machines
            .get(name)
            .and_then(|m| m.assignment())
            .into_iter()
            .flat_map(|a| a.entries())
            .map(|entry| entry.address().owner.clone())
            .collect();
        self.judge_after(&owners, name, out);
    }

    /// Says what became of releases whose outcome has moved.
    ///
    /// A release has converged once every resource of its owner, on every machine, is converged (and healthy, where it
    /// has a check) under the generation that brought it or a later one, and whatever it dropped is proven gone. It has
    /// failed once one of them is failed or blocked for a reason that does not pass by itself, or unhealthy, or once a
    /// machine has refused its assignment. A converged release stays converged whatever happens later: that is status.
    pub(crate) fn judge_owners(&mut self, owners: &BTreeSet<OwnerName>, out: &mut Vec<Effect>) {
        self.judge_some(owners, None, out);
    }

    /// The same, after something was heard of one machine, and after everything before was judged. What a large fleet says
    /// is so much that looking at all of it after every word would take longer than the next word.
    pub(crate) fn judge_after(
        &mut self,
        owners: &BTreeSet<OwnerName>,
        moved: &MachineName,
        out: &mut Vec<Effect>,
    ) {
        self.judge_some(owners, Some(moved), out);
    }

    fn judge_some(
        &mut self,
        owners: &BTreeSet<OwnerName>,
        moved: Option<&MachineName>,
        out: &mut Vec<Effect>,
    ) {
        for owner in owners {
            let Some(track) = self.owners.get(owner) else {
                continue;
            };
            if track.renamed || !matches!(track.outcome, Outcome::Converging | Outcome::Failed) {
                continue;
            }
            let short = moved.and_then(|moved| self.judge_by_one(owner, track, moved));
            let (outcome, waits_for) = match short {
                Some((outcome, waits_for)) => (outcome, waits_for.cloned()),
                None => self.judge_owner(owner, track),
            };
            // What is settled the short way is what looking at everybody would say.
            #[cfg(test)]
            assert_eq!(
                outcome.unwrap_or(track.outcome),
                self.judge_owner(owner, track).0.unwrap_or(track.outcome),
                "{owner}"
            );
            let Some(track) = self.owners.get_mut(owner) else {
                continue;
            };
            track.waits_for = waits_for;
            if let Some(outcome) = outcome
                && track.outcome != outcome
            {
                track.outcome = outcome;
                self.changed = true;
                out.push(Effect::Outcome {
                    owner: owner.clone(),
                    release: track.release,
                    outcome,
                });
            }
        }
        self.forget_removed();
    }

    /// What an owner's release has come to, as far as the machine that moved settles that and any is still waited for, and
    /// which one. None if all have to be looked at.
    fn judge_by_one<'a>(
        &'a self,
        owner: &OwnerName,
        track: &'a Track,
        moved: &MachineName,
    ) -> Option<(Option<Outcome>, Option<&'a MachineName>)> {
        let waits_for = match &track.waits_for {
            _ if self.is_rolling(owner, track) => track.waits_for.as_ref(),
            // Those before it were done when they were passed. Whoever is not any more is found once the end is reached.
            Some(last) => Some(self.waits_for(owner, track, last)?),
            None => return None,
        };
        // What had failed elsewhere was said when it did.
        let machine = self.machines.get(moved)?;
        let failed = come(owner, track, moved, machine).failed;
        Some((failed.then_some(Outcome::Failed), waits_for))
    }

    /// The first machine that an owner's release waits for, from this one on.
    fn waits_for<'a>(
        &'a self,
        owner: &OwnerName,
        track: &Track,
        from: &'a MachineName,
    ) -> Option<&'a MachineName> {
        let mut machines = self.machines.range(from..);
        let waits = |name, machine| !come(owner, track, name, machine).done;
        machines.find_map(|(name, machine)| waits(name, machine).then_some(name))
    }

    /// What an owner's release has come to, if that is settled either way, and a machine that it waits for.
    fn judge_owner(
        &self,
        owner: &OwnerName,
        track: &Track,
    ) -> (Option<Outcome>, Option<MachineName>) {
        let mut waits_for = None;
        let mut failed = false;
        for (name, machine) in self.machines.iter() {
            let come = come(owner, track, name, machine);
            failed |= come.failed;
            if !come.done && waits_for.is_none() {
                waits_for = Some(name.clone());
            }
        }
        let all_done = waits_for.is_none() && !self.is_rolling(owner, track);
        let outcome = match (all_done, failed) {
            (true, _) if track.removed => Some(Outcome::Removed),
            (true, _) => Some(Outcome::Converged),
            (false, true) => Some(Outcome::Failed),
            (false, false) => None,
        };
        (outcome, waits_for)
    }

    /// Drops owners that were removed, once nothing speaks of them any more.
    pub(crate) fn forget_removed(&mut self) {
        let done: Vec<_> = self
            .owners
            .iter()
            .filter(|(owner, track)| {
                let settled = track.renamed || track.outcome != Outcome::Converging;
                track.removed && settled && !self.is_spoken_of(owner)
            })
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in done {
            self.owners.remove(&owner);
        }
    }
}

/// How far an owner has come on one machine; one that holds nothing of it is done.
fn come(owner: &OwnerName, track: &Track, name: &MachineName, machine: &Machine) -> Come {
    let mut come = Come {
        done: true,
        failed: false,
    };
    let behind = machine.record.as_ref();
    if behind.is_some_and(|record| record.behind.contains(owner)) {
        come.done = false;
        return come;
    }
    let Some(assignment) = machine.assignment() else {
        return come;
    };
    let least = track
        .brought
        .get(name)
        .copied()
        .unwrap_or(machine.generation());
    let mut any = false;
    for entry in assignment.entries().filter(|e| e.address().owner == *owner) {
        any = true;
        let status = machine.statuses.get(entry.address());
        match judge(entry, status, least) {
            Progress::Done | Progress::Drifted(_) => {}
            Progress::Pending(_) => come.done = false,
            Progress::Unhealthy(_) | Progress::Failed(_) => {
                come.done = false;
                come.failed = true;
            }
        }
    }
    if any && machine.regressed.is_some() {
        come.done = false;
    }
    if any && machine.refused.is_some() {
        come.done = false;
        come.failed = true;
    }
    come
}
