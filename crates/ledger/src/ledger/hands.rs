//! What is ordered by hand: `hands/machine/NAME`, which is overwritten with ever higher numbers, and `hands/everywhere`,
//! what is stopped on whichever machine it comes to. Who ordered what, and when, is in the audit log.

use std::collections::BTreeMap;

use plumb_model::hands::Stopped;
use plumb_model::{Orders, OwnerName};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, MAX_OPERATIONS, Txn};

/// So many machines in one transaction: each takes a check and a write.
const MACHINES: usize = MAX_OPERATIONS / 2;

impl Ledger {
    /// Stores orders, as many as fit in one transaction at a time. A crash in between leaves some of them stored, and none
    /// in halves.
    ///
    /// # Guarantees
    /// The number of a machine's orders never goes back.
    ///
    /// # Errors
    /// See [`LedgerError`]; [`LedgerError::Contended`] if somebody else stored such a number for a machine, or a higher one.
    pub fn store_orders(&self, orders: &[Orders]) -> Result<(), LedgerError> {
        for some in orders.chunks(MACHINES) {
            let mut txn = Txn::default();
            for orders in some {
                let key = self.key(&format!("hands/machine/{}", orders.machine));
                let seen = self.store.get(key.as_bytes())?;
                let before: Option<Orders> = seen
                    .as_deref()
                    .map(|bytes| records::parse(&key, bytes))
                    .transpose()?;
                if before.is_some_and(|before| before.number >= orders.number) {
                    return Err(LedgerError::Contended { key });
                }
                txn = match seen {
                    Some(bytes) => txn.equals(key.as_str(), bytes),
                    None => txn.absent(key.as_str()),
                };
                txn = txn.put(key, records::encode(orders));
            }
            if let Committed::Conflict(_) = self.store.commit(txn)? {
                let key = self.key("hands/machine/");
                return Err(LedgerError::Contended { key });
            }
        }
        Ok(())
    }

    /// What is ordered for each machine that anything ever was for.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn orders(&self) -> Result<Vec<Orders>, LedgerError> {
        let all = self.read_all(&self.key("hands/machine/"))?;
        Ok(all.into_iter().map(|(_, orders)| orders).collect())
    }

    /// Stores what is stopped on whichever machine it comes to: the whole of it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn store_stopped(&self, stopped: &BTreeMap<OwnerName, Stopped>) -> Result<(), LedgerError> {
        let key = self.key("hands/everywhere");
        // Without a check there is no conflict.
        let _ = self
            .store
            .commit(Txn::default().put(key, records::encode(stopped)))?;
        Ok(())
    }

    /// What is stopped on whichever machine it comes to.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn stopped(&self) -> Result<BTreeMap<OwnerName, Stopped>, LedgerError> {
        Ok(self
            .read(&self.key("hands/everywhere"))?
            .unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_model::hands::{FORMAT, Hands};
    use plumb_model::{Lineage, MachineName, OrderNumber, Timestamp, WorkspaceName};

    use super::*;
    use crate::MemoryStore;

    fn orders(machine: usize, number: u64) -> Orders {
        Orders {
            format: FORMAT,
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("w").unwrap(),
            machine: MachineName::new(&format!("m{machine}")).unwrap(),
            number: OrderNumber(number),
            hands: Hands::default(),
        }
    }

    /// Mutation: store without the look at the number that is there.
    #[test]
    fn orders_of_many_machines_are_stored_and_their_numbers_never_go_back() {
        let workspace = WorkspaceName::new("w").unwrap();
        let lineage = Lineage::from_random([1; 16]);
        let ledger = Ledger::open(Arc::new(MemoryStore::new()), lineage, workspace);
        let all: Vec<Orders> = (0..150).map(|n| orders(n, 2)).collect();
        ledger.store_orders(&all).unwrap();
        assert_eq!(ledger.orders().unwrap().len(), 150);
        for number in [1, 2] {
            let stale = ledger.store_orders(&[orders(7, number)]);
            assert!(matches!(stale, Err(LedgerError::Contended { .. })));
        }
        ledger.store_orders(&[orders(7, 3)]).unwrap();

        assert_eq!(ledger.stopped().unwrap(), BTreeMap::new());
        let stopped = Stopped {
            by: "anna".into(),
            since: Timestamp::UNIX_EPOCH,
        };
        let stopped = BTreeMap::from([(OwnerName::new("hello").unwrap(), stopped)]);
        ledger.store_stopped(&stopped).unwrap();
        assert_eq!(ledger.stopped().unwrap(), stopped);
    }
}
