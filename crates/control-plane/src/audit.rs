//! The audit log as the guard writes it: one writer for each workspace, and an answer only once the entry is durable.
//!
//! Entries that come while the disk is busy are written together. It decides nothing and knows no rule: the guard says
//! what is noted. Services say more about a call by putting [`Detail`] and [`Owners`] into their response.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plumb_ledger::{AuditEntry, Ledger, LedgerError, MAX_AUDIT_BATCH};
use plumb_model::OwnerName;
use tokio::sync::{mpsc, oneshot};

/// How many entries may wait for the writer; past it, whoever notes waits.
const QUEUE: usize = 256;

/// What a call did, in a few words, in the extensions of its response. Never a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail(pub String);

/// The apps, services and so on that a call was about, in the extensions of its response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners(pub Vec<OwnerName>);

/// Why something could not be noted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The control plane goes down.
    #[error("the control plane is going down")]
    Closing,
    /// The ledger. In full, with causes.
    #[error("{0}")]
    Ledger(String),
}

impl From<LedgerError> for AuditError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(crate::refuse::chain(&error))
    }
}

enum Job {
    Add(AuditEntry, oneshot::Sender<Result<(), AuditError>>),
    Stop(oneshot::Sender<()>),
}

/// The way to a workspace's audit log. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    ledger: Ledger,
    jobs: mpsc::Sender<Job>,
    written: Arc<AtomicU64>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}

impl Log {
    /// Starts the writer, which ends when nobody can reach it any more.
    pub(crate) fn start(ledger: Ledger) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let written = Arc::default();
        tokio::spawn(write(ledger.clone(), queue, Arc::clone(&written)));
        Self {
            ledger,
            jobs,
            written,
        }
    }

    /// How many entries were written since this was started.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Whether entries would be taken, as far as that is known without trying: an error says why not.
    ///
    /// # Errors
    /// See [`AuditError`].
    pub fn ready(&self) -> Result<(), AuditError> {
        self.ledger.ready().map_err(|e| LedgerError::from(e).into())
    }

    /// Adds an entry. It is durable when this returns.
    ///
    /// # Errors
    /// See [`AuditError`]; the entry may then have been added or not.
    pub async fn append(&self, entry: AuditEntry) -> Result<(), AuditError> {
        let (reply, answer) = oneshot::channel();
        self.jobs
            .send(Job::Add(entry, reply))
            .await
            .map_err(|_| AuditError::Closing)?;
        answer.await.map_err(|_| AuditError::Closing)?
    }

    /// Ends the writer, once what was handed to it is written; it holds the ledger no more when this returns.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.jobs.send(Job::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

async fn write(ledger: Ledger, mut queue: mpsc::Receiver<Job>, counter: Arc<AtomicU64>) {
    let mut jobs: Vec<Job> = Vec::new();
    // Dropped last, so that whoever waits for the end finds the ledger let go.
    let mut stopped = None;
    while queue.recv_many(&mut jobs, MAX_AUDIT_BATCH).await > 0 {
        let (mut entries, mut replies) = (Vec::new(), Vec::new());
        for job in jobs.drain(..) {
            match job {
                Job::Add(entry, reply) => {
                    entries.push(entry);
                    replies.push(reply);
                }
                Job::Stop(done) => {
                    queue.close();
                    stopped = Some(done);
                }
            }
        }
        if entries.is_empty() {
            continue;
        }
        let ledger = ledger.clone();
        let entered = entries.len() as u64;
        let written = tokio::task::spawn_blocking(move || ledger.append_audit(&entries)).await;
        let result = match written {
            Ok(Ok(_)) => {
                counter.fetch_add(entered, Ordering::Relaxed);
                Ok(())
            }
            Ok(Err(error)) => Err(AuditError::from(error)),
            Err(error) => Err(AuditError::Ledger(format!("the writer failed: {error}"))),
        };
        if let Err(error) = &result {
            tracing::error!("cannot write to the audit log: {error}");
        }
        for reply in replies {
            // Whoever has gone needs no answer.
            let _ = reply.send(result.clone());
        }
    }
    drop(ledger);
    drop(stopped);
}
