//! How far rollouts have come: where machines are, the newest rollout of each owner, and what is held back.
//!
//! `rollout/machine/NAME`, `rollout/owner/NAME` and `rollout/held/NAME`. These are overwritten, for the history is in
//! the revisions; the assignments that they name are bodies, and stay.

use std::collections::BTreeMap;

use plumb_model::rollout::{HeldBack, Position, RolloutRecord};
use plumb_model::{Hash, OwnerName, Revision};

use super::{ApplyError, Ledger, LedgerError, moved, records};
use crate::store::{Committed, MAX_OPERATIONS, Txn};

/// Writes beside the checks on the head and on who leads.
const WRITES: usize = MAX_OPERATIONS - 2;

impl Ledger {
    /// Stores a step of rollouts that was worked out against a revision.
    ///
    /// Flow: the new assignments are written first. Then the machines that move, in one transaction for each 126 of them, and
    /// the rollouts. Each machine's step counts by itself, so that a crash in between leaves some of them moved.
    ///
    /// # Guarantees
    /// Nothing is stored once another revision is the newest: each transaction checks the head.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn advance(
        &self,
        base: Revision,
        bodies: &BTreeMap<Hash, Vec<u8>>,
        positions: &[Position],
        rollouts: &[RolloutRecord],
    ) -> Result<(), ApplyError> {
        if positions.is_empty() && rollouts.is_empty() {
            return Ok(());
        }
        self.put_bodies(bodies.iter().map(|(hash, bytes)| (*hash, bytes)))?;
        let head_key = self.key("head");
        let seen = self.store.get(head_key.as_bytes())?;
        let head = seen
            .as_deref()
            .map(|bytes| records::parse(&head_key, bytes))
            .transpose()?;
        let revision = head
            .as_ref()
            .map_or(Revision(0), |h: &super::Head| h.revision);
        let Some(seen) = seen.filter(|_| revision == base) else {
            return Err(moved(base, head));
        };
        let positions = positions.iter().map(|position| {
            let key = self.key(&format!("rollout/machine/{}", position.machine));
            (key, records::encode(position))
        });
        let rollouts = rollouts.iter().map(|record| {
            let key = self.key(&format!("rollout/owner/{}", record.owner));
            (key, records::encode(record))
        });
        let mut writes = positions.chain(rollouts).peekable();
        while writes.peek().is_some() {
            let checked = Txn::default().equals(head_key.as_str(), seen.clone());
            let txn = (&mut writes)
                .take(WRITES)
                .fold(checked, |txn, (key, value)| txn.put(key, value));
            match self.commit(txn)? {
                Committed::Yes => {}
                Committed::Conflict(_) => return Err(moved(base, self.head()?)),
            }
        }
        Ok(())
    }

    /// Where machines are, as far as waves took them there. Those of older revisions may be among them.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn positions(&self) -> Result<Vec<Position>, LedgerError> {
        let all = self.read_all(&self.key("rollout/machine/"))?;
        Ok(all.into_iter().map(|(_, position)| position).collect())
    }

    /// The newest rollout of each owner that ever had one.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn rollouts(&self) -> Result<Vec<RolloutRecord>, LedgerError> {
        let all = self.read_all(&self.key("rollout/owner/"))?;
        Ok(all.into_iter().map(|(_, record)| record).collect())
    }

    /// Holds content back: the newest of its owner that was taken back.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn hold_back(&self, held: &HeldBack) -> Result<(), LedgerError> {
        let key = self.key(&format!("rollout/held/{}", held.owner));
        // Without a check there is no conflict.
        let _ = self.commit(Txn::default().put(key, records::encode(held)))?;
        Ok(())
    }

    /// Holds nothing of an owner back any more.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn let_go(&self, owner: &OwnerName) -> Result<(), LedgerError> {
        let key = self.key(&format!("rollout/held/{owner}"));
        // Without a check there is no conflict.
        let _ = self.commit(Txn::default().delete(key))?;
        Ok(())
    }

    /// What is held back.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn held_back(&self) -> Result<BTreeMap<OwnerName, HeldBack>, LedgerError> {
        let all = self.read_all::<HeldBack>(&self.key("rollout/held/"))?;
        let all = all.into_iter().map(|(_, held)| (held.owner.clone(), held));
        Ok(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use plumb_model::rollout::{Phase, Rolling};
    use plumb_model::state::Rollout;
    use plumb_model::{Generation, Lineage, MachineName, ReleaseNumber, Timestamp, WorkspaceName};

    use crate::MemoryStore;

    fn ledger() -> Ledger {
        let workspace = WorkspaceName::new("w").unwrap();
        Ledger::open(
            Arc::new(MemoryStore::new()),
            Lineage::from_random([1; 16]),
            workspace,
        )
    }

    fn position(n: usize, bytes: &[u8]) -> Position {
        Position {
            machine: MachineName::new(&format!("m{n}")).unwrap(),
            at: Rolling {
                since: Revision(1),
                generation: Generation(2),
                assignment: Hash::of(bytes),
                behind: BTreeMap::new(),
            },
        }
    }

    fn at_revision(ledger: &Ledger, revision: u64) {
        let head = super::super::Head {
            revision: Revision(revision),
            state: Hash::of(b""),
            by: "x".into(),
            at: Timestamp::UNIX_EPOCH,
        };
        let txn = Txn::default().put(ledger.key("head"), records::encode(&head));
        let _ = ledger.store.commit(txn).unwrap();
    }

    #[test]
    fn a_step_of_many_machines_is_stored_whole_and_read_back() {
        let ledger = ledger();
        at_revision(&ledger, 1);
        let body = b"assignment".to_vec();
        let positions: Vec<Position> = (0..300).map(|n| position(n, &body)).collect();
        let record = RolloutRecord {
            owner: OwnerName::new("web").unwrap(),
            release: ReleaseNumber(2),
            apply: Revision(1),
            settings: Rollout::default(),
            phase: Phase::Running,
            why: None,
            waves: 1,
            waited_ms: 5,
            reverts: None,
            reverts_why: None,
            started: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        };
        let bodies = BTreeMap::from([(Hash::of(&body), body.clone())]);
        let records = [record];
        ledger
            .advance(Revision(1), &bodies, &positions, &records)
            .unwrap();
        assert_eq!(ledger.positions().unwrap().len(), 300);
        assert_eq!(ledger.rollouts().unwrap(), records);
        assert_eq!(ledger.body(&Hash::of(&body)).unwrap(), Some(body));
    }

    /// Mutation: store a step without a check on the head.
    #[test]
    fn a_step_that_was_worked_out_against_an_older_revision_stores_nothing() {
        let ledger = ledger();
        at_revision(&ledger, 2);
        let stale = ledger.advance(Revision(1), &BTreeMap::new(), &[position(1, b"")], &[]);
        assert!(matches!(stale, Err(ApplyError::Moved { .. })), "{stale:?}");
        assert_eq!(ledger.positions().unwrap(), []);
    }
}
