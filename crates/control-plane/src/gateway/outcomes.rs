//! Writes down what became of releases, off the task that owns the fleet.

use plumb_ledger::Ledger;
use plumb_model::state::Outcome;
use plumb_model::{OwnerName, ReleaseNumber};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many outcomes may wait for the disk.
const OUTCOMES: usize = 1024;

/// What became of which release.
pub(super) type Noted = (OwnerName, ReleaseNumber, Outcome);

/// Writes outcomes in order, as many at a time as have gathered while the disk was busy.
pub(super) fn outcome_writer(ledger: Ledger) -> (mpsc::Sender<Noted>, JoinHandle<()>) {
    let (tx, mut rx) = mpsc::channel::<Noted>(OUTCOMES);
    let writer = tokio::spawn(async move {
        loop {
            let mut batch = Vec::new();
            if rx.recv_many(&mut batch, OUTCOMES).await == 0 {
                return;
            }
            let ledger = ledger.clone();
            let written = tokio::task::spawn_blocking(move || ledger.set_outcomes(batch)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("cannot note what became of releases: {error}"),
                Err(error) => tracing::error!("cannot note what became of releases: {error}"),
            }
        }
    });
    (tx, writer)
}
