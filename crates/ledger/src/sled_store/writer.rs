//! The one thread that writes: it takes all transactions that wait, applies each, syncs once, then acknowledges all.
//!
//! Guarantees: transactions are applied one after the other; an answer, a conflict included, is given only once
//! everything that it rests on is durable; after a failed write nothing is ever acknowledged again; a full disk refuses
//! writes before sled has seen anything of them.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, PoisonError};

use super::mark::Mark;
use super::{Shared, caught, record};
use crate::store::{Committed, StoreError, Txn, Write};

/// The most transactions that share one sync: it bounds how long the first of them waits for the others.
const MAX_GROUP: usize = 64;

/// One transaction, and where its answer goes.
pub(super) struct Job {
    pub(super) txn: Txn,
    pub(super) answer: SyncSender<Result<Committed, StoreError>>,
}

/// What the writer owns.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// The number of the last transaction that sled has.
    pub(super) committed: u64,
    /// Syncs sled's file.
    pub(super) make_durable: Box<dyn Fn() -> io::Result<()> + Send>,
    pub(super) mark: Mark,
}

impl Writer {
    /// Works until the store is dropped.
    pub(super) fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut group = vec![first];
            group.extend(queue.try_iter().take(MAX_GROUP - 1));
            if let Some(reason) = self.shared.failure.get() {
                for job in group {
                    // Whoever asked may have gone away; here and below that is his own affair.
                    let _ = job.answer.send(Err(StoreError::NotReady(reason.clone())));
                }
                continue;
            }
            let group = match self.shared.has_room(&group) {
                Ok(()) => group,
                Err(full) => refuse(group, &full),
            };
            match self.commit(&group) {
                Ok(answers) => {
                    for (job, answer) in group.iter().zip(answers) {
                        let _ = job.answer.send(answer);
                    }
                }
                Err(reason) => {
                    tracing::error!(
                        reason,
                        "the store could not be written, and takes no more writes"
                    );
                    // Set before anybody is answered, so that whoever saw an error finds the store not ready.
                    let _ = self.shared.failure.set(reason.clone());
                    for job in group {
                        let _ = job.answer.send(Err(StoreError::Uncertain(reason.clone())));
                    }
                }
            }
        }
    }

    fn commit(&mut self, group: &[Job]) -> Result<Vec<Result<Committed, StoreError>>, String> {
        let before = self.committed;
        let mut answers = Vec::with_capacity(group.len());
        let mut touched = vec![record::COUNTER_KEY.to_vec()];
        for job in group {
            answers.push(self.apply(&job.txn, &mut touched)?);
        }
        if self.committed == before {
            return Ok(answers);
        }
        self.tidy(&touched)?;
        caught(|| self.shared.db.flush())?;
        (self.make_durable)().map_err(|e| format!("syncing its file: {e}"))?;
        if let Err(error) = self.mark.write(self.committed) {
            tracing::warn!(%error, "the store's mark could not be written; a loss may go unnoticed");
        }
        self.shared
            .unacknowledged
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(answers)
    }

    /// Has sled tidy the nodes of these keys while that can still be written: it does so when it comes by, and a read that
    /// comes by first would fail for good if what follows fails.
    fn tidy(&self, keys: &[Vec<u8>]) -> Result<(), String> {
        keys.iter()
            .try_for_each(|key| caught(|| self.shared.db.contains_key(key)).map(drop))
    }

    /// Hands a transaction to sled, and notes sled's keys. The outer error is the store's end, the inner one that of this
    /// transaction.
    fn apply(
        &mut self,
        txn: &Txn,
        touched: &mut Vec<Vec<u8>>,
    ) -> Result<Result<Committed, StoreError>, String> {
        match txn.conflicts(|key| self.shared.newest(key)) {
            Ok(conflicts) if conflicts.is_empty() => {}
            Ok(conflicts) => return Ok(Ok(Committed::Conflict(conflicts))),
            Err(error) => return Ok(Err(error)),
        }
        if txn.writes.is_empty() {
            return Ok(Ok(Committed::Yes));
        }
        let mut batch = sled::Batch::default();
        let mut befores = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            let key = write.key();
            match self.shared.newest(key) {
                Ok(before) => befores.push((key.to_vec(), before)),
                // A damaged value is not written over unseen: the operator is to learn of it.
                Err(error) => return Ok(Err(error)),
            }
            let old = caught(|| self.shared.db.get(record::head_key(key)))?;
            let old_pieces = old.as_ref().map_or(0, |head| record::pieces_of(head));
            touched.push(record::head_key(key));
            let new_pieces = match write {
                Write::Put { value, .. } => {
                    let (head, pieces) = record::encode(key, value);
                    batch.insert(record::head_key(key), head);
                    for (index, piece) in (1..).zip(&pieces) {
                        batch.insert(record::piece_key(key, index), *piece);
                    }
                    u16::try_from(pieces.len()).expect("values are at most 100 KiB")
                }
                Write::Delete { .. } => {
                    batch.remove(record::head_key(key));
                    0
                }
            };
            for index in new_pieces + 1..=old_pieces {
                batch.remove(record::piece_key(key, index));
            }
            touched.extend(
                (1..=new_pieces.max(old_pieces)).map(|index| record::piece_key(key, index)),
            );
        }
        let number = self.committed + 1;
        batch.insert(record::COUNTER_KEY, &record::encode_counter(number));
        {
            let mut unacknowledged = self
                .shared
                .unacknowledged
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            for (key, before) in befores {
                // The first one counts: what the key had when the group began.
                unacknowledged.entry(key).or_insert(before);
            }
        }
        caught(|| self.shared.db.apply_batch(batch))?;
        self.committed = number;
        Ok(Ok(Committed::Yes))
    }
}

/// Answers what would write, and hands on the rest.
fn refuse(group: Vec<Job>, why: &StoreError) -> Vec<Job> {
    let (writes, reads): (Vec<Job>, Vec<Job>) = group
        .into_iter()
        .partition(|job| !job.txn.writes.is_empty());
    tracing::warn!(%why, "a full disk refuses a write");
    for job in writes {
        let _ = job.answer.send(Err(why.clone()));
    }
    reads
}
