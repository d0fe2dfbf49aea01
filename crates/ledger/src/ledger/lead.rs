//! Who leads: of several control planes on one store, the one that took the lead last.
//!
//! A lead is a record, `lead`, with a number that only ever goes up and a name that no other run has. A ledger that was
//! made by [`Ledger::lead`] adds a check on that very record to each transaction that anybody reads anything out of, so
//! that whoever stood still for a minute, while another took over, writes nothing any more: not even what the head alone
//! would let pass, such as a wave of a rollout.
//!
//! It does not say when to take over. Leases and the like only save work; this is what has to hold.

use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Check, Committed, Expect, Txn};

/// How often a lead is tried for when others are quicker.
const ATTEMPTS: usize = 100;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LeadRecord {
    /// Goes up with each lead.
    number: u64,
    /// A run of a control plane.
    holder: String,
}

impl Ledger {
    /// Takes the lead: the same ledger, whose writes fail with [`LedgerError::Superseded`] as soon as another has taken it.
    /// What is read before this may be older than what the leader before has written last, so read after it.
    ///
    /// `holder` names a run of a control plane, and is never used for another one: numbers are counted anew where an older
    /// copy of the store was restored.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn lead(&self, holder: &str) -> Result<Self, LedgerError> {
        let key = self.key("lead");
        for _ in 0..ATTEMPTS {
            let before = self.store.get(key.as_bytes())?;
            let number = match before.as_deref() {
                Some(bytes) => records::parse::<LeadRecord>(&key, bytes)?.number,
                None => 0,
            };
            let record = records::encode(&LeadRecord {
                number: number + 1,
                holder: holder.to_owned(),
            });
            let txn = match before {
                Some(bytes) => Txn::default().equals(key.as_str(), bytes),
                None => Txn::default().absent(key.as_str()),
            };
            let txn = txn.put(key.as_str(), record.clone());
            if self.store.commit(txn)? == Committed::Yes {
                let lead = Check {
                    key: key.into_bytes(),
                    expect: Expect::Equals(record),
                };
                return Ok(Self {
                    lead: Some(lead),
                    ..self.clone()
                });
            }
        }
        Err(LedgerError::Contended { key })
    }

    /// Whether nobody else has taken the lead since. True of a ledger that never took it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn leads(&self) -> Result<bool, LedgerError> {
        let Some(lead) = &self.lead else {
            return Ok(true);
        };
        let now = self.store.get(&lead.key)?;
        Ok(matches!(&lead.expect, Expect::Equals(mine) if now.as_ref() == Some(mine)))
    }

    /// Commits, as long as nobody else has taken the lead. The check is one more operation.
    pub(super) fn commit(&self, mut txn: Txn) -> Result<Committed, LedgerError> {
        txn.checks.extend(self.lead.clone());
        match (self.store.commit(txn)?, &self.lead) {
            (Committed::Conflict(keys), Some(lead)) if keys.contains(&lead.key) => {
                Err(LedgerError::Superseded)
            }
            (committed, _) => Ok(committed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use plumb_model::rollout::{HeldBack, Position, Rolling};
    use plumb_model::state::{Next, Outcome, Recorded, RevisionKind, RevisionRecord};
    use plumb_model::{
        Generation, Hash, Lineage, MachineName, OwnerName, ReleaseNumber, Revision, Timestamp,
        WorkspaceName,
    };

    use super::*;
    use crate::{ApplyError, MemoryStore};

    fn ledger() -> Ledger {
        let workspace = WorkspaceName::new("w").unwrap();
        Ledger::open(
            Arc::new(MemoryStore::new()),
            Lineage::from_random([1; 16]),
            workspace,
        )
    }

    fn revision(number: u64) -> (Next, RevisionRecord) {
        let mut state = Recorded::default().state;
        state.revision = Revision(number);
        let record = RevisionRecord {
            revision: Revision(number),
            at: Timestamp::UNIX_EPOCH,
            by: "x".to_owned(),
            commit: None,
            kind: RevisionKind::Apply,
            approval: Hash::of(b""),
            state: Hash::of(&state.bytes()),
            released: BTreeMap::new(),
            allowed: Vec::new(),
            renamed: BTreeMap::new(),
        };
        let next = Next {
            state,
            bodies: BTreeMap::new(),
            released: BTreeMap::new(),
            moved: BTreeMap::new(),
        };
        (next, record)
    }

    fn position(n: usize) -> Position {
        Position {
            machine: MachineName::new(&format!("m{n}")).unwrap(),
            at: Rolling {
                since: Revision(1),
                generation: Generation(2),
                assignment: Hash::of(b"x"),
                behind: BTreeMap::new(),
            },
        }
    }

    /// Row 39 of the threats: a leader that stood still writes nothing once another leads. Mutation: have `commit` add no
    /// check. (The head alone lets the wave, the outcome and what is held back pass.)
    #[test]
    fn whoever_was_superseded_writes_nothing_any_more() {
        let ledger = ledger();
        let old = ledger.lead("old").unwrap();
        let (next, record) = revision(1);
        old.apply(Revision(0), &next, &record).unwrap();
        let new = ledger.lead("new").unwrap();
        assert!(new.leads().unwrap() && !old.leads().unwrap());

        let web = OwnerName::new("web").unwrap();
        let held = HeldBack {
            owner: web.clone(),
            release: ReleaseNumber(1),
            body: Hash::of(b""),
            why: "x".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        let (next, record) = revision(2);
        let superseded = ApplyError::Ledger(LedgerError::Superseded);
        let wave = old.advance(Revision(1), &BTreeMap::new(), &[position(1)], &[]);
        assert_eq!(wave, Err(superseded.clone()));
        assert_eq!(old.apply(Revision(1), &next, &record), Err(superseded));
        let outcome = old.set_outcome(&web, ReleaseNumber(1), Outcome::Failed);
        assert_eq!(outcome, Err(LedgerError::Superseded));
        assert_eq!(old.hold_back(&held), Err(LedgerError::Superseded));
        assert_eq!(old.let_go(&web), Err(LedgerError::Superseded));
        assert_eq!(new.positions().unwrap(), []);
        assert!(new.outcomes(&web).unwrap().is_empty() && new.held_back().unwrap().is_empty());

        let many: Vec<Position> = (0..300).map(position).collect();
        new.advance(Revision(1), &BTreeMap::new(), &many, &[])
            .unwrap();
        assert_eq!(new.positions().unwrap().len(), 300);
        new.apply(Revision(1), &next, &record).unwrap();
    }

    /// Mutation: name the lead by its number alone.
    #[test]
    fn a_lead_of_another_history_is_not_taken_for_this_one() {
        let (one, other) = (ledger(), ledger());
        let old = one.lead("before the restore").unwrap();
        let new = other.lead("after it").unwrap();
        assert_ne!(old.lead, new.lead);
    }
}
