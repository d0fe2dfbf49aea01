//! What happened on the machines of a workspace, as far as it is kept, and how far each machine's journal was handed over.
//!
//! Events are under `event/NUMBER`, how far they reach under `event-head`, and each machine's journal under
//! `journal/MACHINE`. They are observations and no history: the oldest go when there are too many of them, or when they are
//! too old. An event and how far its journal was taken are written in one transaction, so that nothing is taken twice.

use std::time::Duration;

use plumb_model::journal::{Happening, Head};
use plumb_model::{MachineName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, Txn};

/// The most events that are added at once.
pub const MAX_EVENT_BATCH: usize = 40;

/// The most journals whose state is written at once.
pub const MAX_HEAD_BATCH: usize = 16;

/// The most events that one addition takes away: more than it can add, so that what is too much goes in time.
const MAX_PRUNED: u64 = 60;

/// How often an addition starts again because another control plane was quicker.
const ATTEMPTS: usize = 100;

/// What happened once on a machine. No secret is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Which machine.
    pub machine: MachineName,
    /// When, by the machine's clock.
    pub at: Timestamp,
    /// When the control plane stored it.
    pub received: Timestamp,
    /// The machine was not connected to a control plane.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
    /// The number of the entry in the machine's journal; none for what no journal holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<u64>,
    /// What happened.
    pub what: Happening,
}

/// Which events are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRange {
    /// The number of the oldest one that is kept.
    pub first: u64,
    /// The number of the newest one; one less than `first` if there is none.
    pub last: u64,
}

/// How many events are kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// At most so many.
    pub count: u64,
    /// At most for so long after they were stored.
    pub age: Duration,
}

const NONE: EventRange = EventRange { first: 1, last: 0 };

/// Events with their numbers.
pub type Numbered = Vec<(u64, EventRecord)>;

impl Ledger {
    fn event_key(&self, number: u64) -> String {
        self.key(&format!("event/{number:020}"))
    }

    fn event_head_key(&self) -> String {
        self.key("event-head")
    }

    fn journal_key(&self, machine: &MachineName) -> String {
        self.key(&format!("journal/{machine}"))
    }

    /// Which events are there.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn events_kept(&self) -> Result<EventRange, LedgerError> {
        Ok(self.read(&self.event_head_key())?.unwrap_or(NONE))
    }

    /// How far a machine's journal was handed over; none if it never was.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn journal(&self, machine: &MachineName) -> Result<Option<Head>, LedgerError> {
        self.read(&self.journal_key(machine))
    }

    /// How far every machine's journal was handed over, by machine.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn journals(&self) -> Result<Vec<(MachineName, Head)>, LedgerError> {
        let prefix = self.key("journal/");
        let all = self.read_all(&prefix)?.into_iter();
        Ok(all
            .filter_map(|(key, head)| Some((key.get(prefix.len()..)?.parse().ok()?, head)))
            .collect())
    }

    /// Forgets how far a machine's journal was handed over, since the machine was removed. Its events stay.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn forget_journal(&self, machine: &MachineName) -> Result<(), LedgerError> {
        let _ = self.commit(Txn::default().delete(self.journal_key(machine)))?;
        Ok(())
    }

    /// Adds events, in order, at most [`MAX_EVENT_BATCH`] of them, and notes how far at most [`MAX_HEAD_BATCH`] journals
    /// were taken. Takes away what is too old or too much.
    ///
    /// # Guarantees
    /// All of it is durable when it returns, or nothing of it is there, but for
    /// [`StoreError::Uncertain`](crate::StoreError::Uncertain).
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn add_events(
        &self,
        events: &[EventRecord],
        journals: &[(MachineName, Head)],
        keep: Retention,
        now: Timestamp,
    ) -> Result<EventRange, LedgerError> {
        let head_key = self.event_head_key();
        for _ in 0..ATTEMPTS {
            let seen = self.store.get(head_key.as_bytes())?;
            let mut range = match seen.as_deref() {
                Some(bytes) => records::parse(&head_key, bytes)?,
                None => NONE,
            };
            let mut txn = match seen {
                Some(bytes) => Txn::default().equals(head_key.as_str(), bytes),
                None => Txn::default().absent(head_key.as_str()),
            };
            for event in events {
                range.last += 1;
                txn = txn.put(self.event_key(range.last), records::encode(event));
            }
            for (machine, head) in journals {
                txn = txn.put(self.journal_key(machine), records::encode(head));
            }
            let kept_before = range.last.saturating_sub(events.len() as u64);
            for _ in 0..MAX_PRUNED {
                let many = range.last + 1 - range.first > keep.count;
                if range.first > kept_before
                    || !(many || self.is_past(range.first, keep.age, now)?)
                {
                    break;
                }
                txn = txn.delete(self.event_key(range.first));
                range.first += 1;
            }
            let txn = txn.put(head_key.as_str(), records::encode(&range));
            if self.commit(txn)? == Committed::Yes {
                return Ok(range);
            }
        }
        Err(LedgerError::Contended { key: head_key })
    }

    fn is_past(&self, number: u64, age: Duration, now: Timestamp) -> Result<bool, LedgerError> {
        let event: Option<EventRecord> = self.read(&self.event_key(number))?;
        // One that is not there has gone already.
        Ok(event.is_none_or(|event| {
            let old = Duration::try_from(event.received.until(now).unwrap_or_default());
            old.is_ok_and(|old| old > age)
        }))
    }

    /// The events after a number that are wanted, oldest first: at most `limit`, out of at most `look` that are looked at.
    /// Also the number of the last one that was looked at.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn events_after(
        &self,
        after: u64,
        limit: usize,
        look: usize,
        wanted: impl Fn(&EventRecord) -> bool,
    ) -> Result<(Numbered, u64), LedgerError> {
        let range = self.events_kept()?;
        let mut at = after.max(range.first - 1);
        let mut found = Vec::new();
        for _ in 0..look {
            if at >= range.last || found.len() >= limit {
                break;
            }
            at += 1;
            if let Some(event) = self.read(&self.event_key(at))?
                && wanted(&event)
            {
                found.push((at, event));
            }
        }
        Ok((found, at))
    }

    /// The events before a number (all if it is none) that are wanted, newest first: at most `limit`, out of at most `look`
    /// that are looked at. Also before which to go on; none where there are no more.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn events_before(
        &self,
        before: Option<u64>,
        limit: usize,
        look: usize,
        wanted: impl Fn(&EventRecord) -> bool,
    ) -> Result<(Numbered, Option<u64>), LedgerError> {
        let range = self.events_kept()?;
        let mut at = before.unwrap_or(u64::MAX).min(range.last + 1);
        let mut found = Vec::new();
        for _ in 0..look {
            if at <= range.first {
                return Ok((found, None));
            }
            if found.len() >= limit {
                break;
            }
            at -= 1;
            if let Some(event) = self.read(&self.event_key(at))?
                && wanted(&event)
            {
                found.push((at, event));
            }
        }
        Ok((found, (at > range.first).then_some(at)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_model::{Generation, Hash, Lineage, WorkspaceName};

    use super::*;
    use crate::{MAX_SCAN, MemoryStore};

    fn ledger(store: &Arc<MemoryStore>, workspace: &str) -> Ledger {
        Ledger::open(
            store.clone(),
            Lineage::from_random([1; 16]),
            WorkspaceName::new(workspace).unwrap(),
        )
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn machine() -> MachineName {
        MachineName::new("web-1").unwrap()
    }

    fn event(number: u64, second: i64) -> EventRecord {
        EventRecord {
            machine: machine(),
            at: at(second),
            received: at(second),
            away: number.is_multiple_of(2),
            entry: Some(number),
            what: Happening::AssignmentTaken {
                generation: Generation(number),
            },
        }
    }

    const KEEP: Retention = Retention {
        count: 1000,
        age: Duration::from_secs(3600),
    };

    fn numbers(found: &[(u64, EventRecord)]) -> Vec<u64> {
        found.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn events_read_back_in_both_directions_page_by_page_and_not_from_another_workspace() {
        let store = Arc::new(MemoryStore::default());
        let ledger = self::ledger(&store, "shop");
        assert_eq!(ledger.events_kept().unwrap(), NONE);
        assert_eq!(ledger.events_before(None, 9, 9, |_| true).unwrap().1, None);
        for n in 1..=5 {
            ledger.add_events(&[event(n, 0)], &[], KEEP, at(0)).unwrap();
        }
        let odd = |event: &EventRecord| !event.away;
        let (found, next) = ledger.events_after(0, 2, 9, odd).unwrap();
        assert_eq!((numbers(&found), next), (vec![1, 3], 3));
        let (found, next) = ledger.events_after(next, 2, 9, odd).unwrap();
        assert_eq!((numbers(&found), next), (vec![5], 5));
        assert_eq!(ledger.events_after(5, 2, 9, odd).unwrap(), (vec![], 5));
        let (found, next) = ledger.events_before(None, 2, 9, |_| true).unwrap();
        assert_eq!((numbers(&found), next), (vec![5, 4], Some(4)));
        let (found, next) = ledger.events_before(next, 9, 9, |_| true).unwrap();
        assert_eq!((numbers(&found), next), (vec![3, 2, 1], None));
        assert_eq!(found[2].1, event(1, 0));
        let other = self::ledger(&store, "crm");
        assert_eq!(other.events_kept().unwrap(), NONE);
        assert_eq!(other.events_after(0, 9, 9, |_| true).unwrap().0, []);
    }

    /// Mutation: leave out either bound of the retention.
    #[test]
    fn the_oldest_go_by_number_and_by_age() {
        let store = Arc::new(MemoryStore::default());
        let ledger = self::ledger(&store, "shop");
        let few = Retention { count: 50, ..KEEP };
        for n in 0..10 {
            let events: Vec<_> = (0..MAX_EVENT_BATCH as u64)
                .map(|k| event(n * 40 + k, 0))
                .collect();
            ledger.add_events(&events, &[], few, at(0)).unwrap();
        }
        let range = ledger.events_kept().unwrap();
        assert_eq!((range.first, range.last), (351, 400));
        assert_eq!(ledger.events_after(0, 1, 9, |_| true).unwrap().0[0].0, 351);
        ledger
            .add_events(&[event(1, 4000)], &[], few, at(4000))
            .unwrap();
        let range = ledger.events_kept().unwrap();
        assert_eq!((range.first, range.last), (401, 401), "all others are old");
        let prefix = ledger.key("event/");
        let kept = ledger.store.scan(prefix.as_bytes(), None, MAX_SCAN);
        assert_eq!(kept.unwrap().len(), 1);
    }

    #[test]
    fn how_far_a_journal_was_taken_is_kept_with_what_was_taken() {
        let store = Arc::new(MemoryStore::default());
        let ledger = self::ledger(&store, "shop");
        assert_eq!(ledger.journal(&machine()).unwrap(), None);
        let head = Head::start("c".into(), Hash::of(b"x"));
        let journals = [(machine(), head.clone())];
        ledger.add_events(&[], &journals, KEEP, at(0)).unwrap();
        assert_eq!(ledger.journal(&machine()).unwrap(), Some(head.clone()));
        assert_eq!(ledger.journals().unwrap(), journals);
        assert_eq!(self::ledger(&store, "crm").journals().unwrap(), []);
        ledger.forget_journal(&machine()).unwrap();
        assert_eq!(ledger.journals().unwrap(), []);
    }

    #[test]
    fn the_longest_batch_is_one_transaction() {
        let store = Arc::new(MemoryStore::default());
        let ledger = self::ledger(&store, "shop");
        let long = EventRecord {
            what: Happening::Damaged {
                why: "\u{1}".repeat(100_000),
            }
            .bounded(),
            ..event(1, 0)
        };
        let heads: Vec<_> = (0..MAX_HEAD_BATCH)
            .map(|n| {
                let name = MachineName::new(&format!("m-{n}")).unwrap();
                (name, Head::start("c".into(), Hash::of(b"x")))
            })
            .collect();
        let tiny = Retention { count: 1, ..KEEP };
        for _ in 0..3 {
            let events = vec![long.clone(); MAX_EVENT_BATCH];
            ledger.add_events(&events, &heads, tiny, at(0)).unwrap();
        }
        // What one batch has brought is never taken away by itself.
        let range = ledger.events_kept().unwrap();
        assert_eq!(range.last - range.first + 1, MAX_EVENT_BATCH as u64);
    }
}
