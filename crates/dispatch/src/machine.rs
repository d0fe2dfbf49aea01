//! One machine as the control plane sees it: what it is to hold, what it holds, and what it last said.
//!
//! It never sends anything itself; the fleet owns the control flow and calls it.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::{Address, Assignment, Entry, Generation, Hash, ResourceStatus, Timestamp};

use crate::fleet::{ANSWER_WITHIN_MS, SILENT_PERIODS};
use crate::hands::MachineHands;
use crate::protocol::{Refusal, RefusalKind, SecretVersion, ToAgent};
use crate::record::MachineRecord;
use crate::statuses::Statuses;

/// A live session of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub id: u64,
    pub instance: String,
    /// When it last said anything.
    pub heard_ms: u64,
    /// The assignment that has been sent and not been answered.
    pub in_flight: Option<InFlight>,
    /// Resyncs in a row, without an ack between them.
    pub resyncs: u32,
    /// Deltas are of no use to this agent now.
    pub wants_snapshot: bool,
    /// The agent keeps a journal.
    pub journal: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub generation: Generation,
    pub sent_ms: u64,
}

/// An assignment that the agent did not take.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub refusal: Refusal,
    pub at_ms: u64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub record: Option<MachineRecord>,
    /// The assignment before the recorded one, as the base of deltas, until the agent has the recorded one.
    pub previous: Option<Arc<Assignment>>,
    pub session: Option<Session>,
    /// Why it is left alone, if it is ahead of the ledger.
    pub regressed: Option<String>,
    pub refused: Option<Refused>,
    /// Instances whose session another one took over, the newest last, and how often any of them came back since.
    pub superseded: VecDeque<String>,
    pub comebacks: u32,
    /// What the agent holds, as it last said; none if it was never heard.
    pub held: Option<(Generation, Option<Hash>)>,
    pub facts: Option<MachineFacts>,
    pub last_seen: Option<Timestamp>,
    /// How far its clock was ahead as it last connected, in milliseconds, the way here included; none if it did not tell.
    pub ahead_ms: Option<i64>,
    pub statuses: Statuses,
    /// What is ordered by hand.
    pub hands: MachineHands,
    /// Why its agent was refused the last time that it came, if it was since it speaks no version that this end does.
    pub incompatible: Option<String>,
    /// It was removed: nobody will ever say of it again how anything is.
    pub removed: bool,
}

/// How long an assignment that could not be stored is not offered again, in milliseconds: long enough to spare a full
/// disk, short enough that a person who made room sees it work.
pub(crate) const RETRY_STORE_MS: u64 = 30_000;

/// So many instances that lost their session are remembered: two agents that fight over one identity need two.
const KEPT_INSTANCES: usize = 8;

/// So many comebacks prove that two agents live. One comeback may be a hello of an agent that has died since, which a
/// control plane that stood still heard too late.
const MAX_COMEBACKS: u32 = 2;

/// So many resyncs in a row, and the machine is said to refuse: a snapshot that does not arrive whole three times will
/// not the fourth time.
pub(crate) const MAX_RESYNCS: u32 = 3;

impl Machine {
    pub fn assignment(&self) -> Option<&Arc<Assignment>> {
        self.record.as_ref()?.assignment.as_ref()
    }

    pub fn generation(&self) -> Generation {
        self.record.as_ref().map_or(Generation(0), |r| r.generation)
    }

    /// The versions of secrets that its recorded assignment names.
    pub fn named_secrets(&self) -> BTreeSet<SecretVersion> {
        let resources = self.assignment().into_iter().flat_map(|a| a.resources());
        resources
            .flat_map(|resource| resource.spec.secrets())
            .filter_map(|secret| Some((secret.name.clone(), secret.version?)))
            .collect()
    }

    pub fn is_online(&self) -> bool {
        self.session.is_some()
    }

    /// Notes which of the agent's processes says hello, whose session `old` was if it still has one.
    ///
    /// A process that ends never comes back, and its successor has another instance. So one that comes back after it was
    /// superseded lives beside its successor. A process that was never heard before is a restart. Once two are known to
    /// live it stays so, whoever is started anew, until an operator says which one is the machine: by then the other
    /// may have come anywhere.
    pub fn greeted_by(&mut self, instance: &str, old: Option<&str>) {
        if self.superseded.iter().any(|known| known == instance) {
            self.comebacks = self.comebacks.saturating_add(1);
        } else if old != Some(instance) && !self.is_cloned() {
            self.comebacks = 0;
        }
        if let Some(old) = old.filter(|old| *old != instance)
            && !self.superseded.iter().any(|known| known == old)
        {
            self.superseded.push_back(old.to_owned());
            if self.superseded.len() > KEPT_INSTANCES {
                self.superseded.pop_front();
            }
        }
    }

    /// Whether two agents live under this machine's identity. Nothing is sent to either of them.
    pub fn is_cloned(&self) -> bool {
        self.comebacks >= MAX_COMEBACKS
    }

    /// Whether there is anything to say of it: of one that was removed and that nothing is recorded of there is not.
    pub fn is_shown(&self) -> bool {
        self.record.is_some() || self.session.is_some() || self.is_cloned()
    }

    /// Whether nothing has to be remembered of it once nothing is recorded of it and nobody is connected: neither that it
    /// was removed, nor who took whose session over, by which a copy is known.
    pub fn is_forgettable(&self) -> bool {
        !self.removed && self.superseded.is_empty()
    }

    /// Forgets everything that was heard under an identity that counts no more. What is recorded stays.
    pub fn forget_identity(&mut self, removed: bool) {
        *self = Self {
            hands: MachineHands {
                written: self.hands.written.take(),
                ..MachineHands::default()
            },
            record: self.record.take(),
            previous: self.previous.take(),
            removed,
            ..Self::default()
        };
        self.give_up();
    }

    /// Of a machine that was removed nobody can prove any more that what was ordered removed is gone, so it counts as
    /// that.
    fn give_up(&mut self) {
        if !self.removed {
            return;
        }
        let generation = self.generation();
        let gone = self.assignment().map(|assignment| {
            let tombstones = assignment.entries().filter_map(|entry| match entry {
                Entry::Tombstone(tombstone) => Some(&tombstone.address),
                Entry::Resource(_) => None,
            });
            tombstones
                .map(|address| ResourceStatus {
                    address: address.clone(),
                    generation,
                    conditions: Vec::new(),
                    gone: true,
                    process: None,
                    found: None,
                })
                .collect()
        });
        self.statuses = gone.unwrap_or_default();
    }

    /// Takes a new record, and keeps the assignment before it.
    pub fn set_record(&mut self, record: MachineRecord) {
        let before = self.assignment().map(|a| a.hash());
        if before != record.assignment.as_ref().map(|a| a.hash()) {
            self.previous = self.record.take().and_then(|r| r.assignment);
        }
        self.record = Some(record);
        if let Some(assignment) = self.assignment().cloned() {
            self.statuses
                .retain(|status| assignment.get(&status.address).is_some());
        } else {
            self.statuses.clear();
        }
        self.give_up();
    }

    /// Compares what the agent says it holds with the record, and notes whether the record has fallen behind.
    ///
    /// Once regressed it stays so, however far the record advances, until the two agree again or an operator says to
    /// go on: a record that was restored from an older copy does not become the truth by being applied to.
    pub fn compare(&mut self) {
        let (Some(record), Some((generation, hash))) = (&self.record, self.held) else {
            return;
        };
        let recorded = record.assignment.as_ref().map(|a| a.hash());
        let remedy = "it was probably restored from an older copy. Nothing is sent to this machine: restore the newer copy, or go on from what is recorded with `plumb recover`";
        if generation > record.generation {
            self.regressed = Some(format!(
                "holds generation {generation}, but the control plane's records end at {}; {remedy}",
                record.generation
            ));
        } else if generation == record.generation && hash != recorded {
            self.regressed = Some(format!(
                "holds generation {generation} with other content than the control plane recorded; {remedy}"
            ));
        } else if generation == record.generation {
            self.regressed = None;
            // It has what is recorded, so that the next delta starts there.
            self.previous = None;
        }
    }

    /// What to send the agent now, if anything; it is in flight from then on.
    pub fn next_assignment(&mut self, now_ms: u64) -> Option<ToAgent> {
        let record = self.record.as_ref()?;
        let assignment = record.assignment.as_ref()?;
        let session = self.session.as_mut()?;
        let (held, hash) = self.held?;
        let refused = self.refused.as_ref().is_some_and(|refused| {
            refused.refusal.generation >= record.generation
                && (refused.refusal.kind != RefusalKind::NotStored
                    || now_ms.saturating_sub(refused.at_ms) < RETRY_STORE_MS)
        });
        if self.regressed.is_some()
            || self.comebacks >= MAX_COMEBACKS
            || session.in_flight.is_some()
            || refused
            || held >= record.generation
        {
            return None;
        }
        session.in_flight = Some(InFlight {
            generation: record.generation,
            sent_ms: now_ms,
        });
        let delta = self
            .previous
            .as_ref()
            .filter(|base| !session.wants_snapshot && hash == Some(base.hash()))
            .and_then(|base| {
                let delta = base.delta_to(assignment);
                let only_tombstones_go = delta
                    .removes
                    .iter()
                    .all(|a| matches!(base.get(a), Some(Entry::Tombstone(_))));
                (only_tombstones_go && base.header() == assignment.header()).then_some(delta)
            });
        Some(match delta {
            Some(delta) => ToAgent::Delta {
                generation: record.generation,
                releases: record.releases.clone(),
                delta,
            },
            None => ToAgent::Snapshot {
                generation: record.generation,
                hash: assignment.hash(),
                releases: record.releases.clone(),
                bytes: assignment.bytes(),
                // The recorded state names this very assignment by hash, so its emptiness was planned and approved.
                confirm_empty: assignment.is_empty(),
            },
        })
    }

    /// The session that is to be closed, and why: nothing was heard of it for too long, or no answer.
    pub fn overdue(&self, now_ms: u64, heartbeat_ms: u64) -> Option<(u64, String)> {
        let session = self.session.as_ref()?;
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms);
        let silent = since(session.heard_ms);
        if silent > heartbeat_ms.saturating_mul(SILENT_PERIODS) {
            let reason = format!("nothing was heard for {} s", silent / 1000);
            return Some((session.id, reason));
        }
        let late = |sent_ms: u64| since(sent_ms) > ANSWER_WITHIN_MS;
        let orders = self.hands.in_flight.filter(|(_, sent_ms)| late(*sent_ms));
        let orders = orders.map(|(number, _)| format!("orders by hand {number} were"));
        let generation = session.in_flight.filter(|flight| late(flight.sent_ms));
        let generation = generation.map(|flight| format!("generation {} was", flight.generation));
        let what = orders.or(generation)?;
        let seconds = ANSWER_WITHIN_MS / 1000;
        Some((
            session.id,
            format!("{what} not answered within {seconds} s"),
        ))
    }

    /// Folds statuses in, and says how many were dropped: of addresses that the record does not speak of, or under a
    /// generation that it has not reached.
    pub fn fold(&mut self, complete: bool, statuses: Vec<ResourceStatus>) -> u64 {
        let Some(assignment) = self.assignment().cloned() else {
            return statuses.len() as u64;
        };
        let recorded = self.generation();
        if complete {
            self.statuses.clear();
        }
        let mut dropped = 0;
        for mut status in statuses {
            let known = assignment.get(&status.address);
            let Some(known) = known.filter(|_| status.generation <= recorded) else {
                dropped += 1;
                continue;
            };
            // The same, shared with what is recorded.
            status.address = known.address().clone();
            let newer = self
                .statuses
                .get(&status.address)
                .is_none_or(|old| old.generation <= status.generation);
            if newer {
                self.statuses.insert(status);
            }
        }
        dropped
    }

    /// The addresses whose tombstone the agent has proven at the tombstone's generation or later.
    pub fn settled(&self) -> BTreeSet<Address> {
        let Some(assignment) = self.assignment().filter(|_| self.regressed.is_none()) else {
            return BTreeSet::new();
        };
        assignment
            .entries()
            .filter_map(|entry| match entry {
                Entry::Tombstone(tombstone) => Some(tombstone),
                Entry::Resource(_) => None,
            })
            .filter(|t| {
                self.statuses
                    .get(&t.address)
                    .is_some_and(|s| s.gone && s.generation >= t.since)
            })
            .map(|t| t.address.clone())
            .collect()
    }
}
