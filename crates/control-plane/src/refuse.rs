//! From every error that a service can meet to what the caller is told: one exhaustive match for each.
//!
//! What is the caller's doing names the next step; what is the data folder's names the file, in full, with causes.

use std::error::Error;

use plumb_dispatch::rollout::OrderError;
use plumb_ledger::{
    ApplyError, ConsumeError, IdentityError as RecordError, LedgerError, TokenError,
};
use plumb_model::MachineName;
use plumb_planner::PlanError;
use plumb_wire::error::{Reason, Refusal};

use crate::blobs::BlobError;
use crate::identity::{CsrError, IdentityError};

/// How much of a refused plan's problems travels, in bytes: they ride in the trailers.
const MAX_PROBLEMS_BYTES: usize = 128 * 1024;

/// An error and its causes on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text.replace('\n', " ")
}

pub(crate) fn storage(error: &(dyn Error + 'static)) -> Refusal {
    let text = chain(error);
    tracing::error!("{text}");
    Refusal::new(Reason::Storage, text)
}

/// A name that is neither enrolled nor recorded.
pub(crate) fn unknown_machine(machine: &MachineName) -> Refusal {
    Refusal::new(
        Reason::NotFound,
        format!(
            "nobody knows a machine {machine}; `plumb machine list` shows those that are known"
        ),
    )
}

pub(crate) fn ledger(error: &LedgerError) -> Refusal {
    storage(error)
}

pub(crate) fn blob(error: &BlobError) -> Refusal {
    let reason = match error {
        BlobError::File { .. } => return storage(error),
        BlobError::TooLarge => Reason::TooLarge,
        BlobError::Mismatch { .. } | BlobError::NotHere { .. } => Reason::DigestMismatch,
        BlobError::Missing(_) => Reason::NotFound,
    };
    Refusal::new(reason, error.to_string())
}

pub(crate) fn csr(error: &CsrError) -> Refusal {
    let reason = match error {
        CsrError::TooLarge(_) | CsrError::Unreadable | CsrError::NotSigned | CsrError::Key => {
            Reason::BadRequestCertificate
        }
    };
    Refusal::new(reason, error.to_string())
}

pub(crate) fn identity(error: &IdentityError) -> Refusal {
    match error {
        IdentityError::File { .. } | IdentityError::Damaged { .. } | IdentityError::Make(_) => {
            storage(error)
        }
    }
}

pub(crate) fn consume(error: &ConsumeError) -> Refusal {
    let reason = match error {
        ConsumeError::Invalid => Reason::TokenUnknown,
        ConsumeError::Expired(_) => Reason::TokenExpired,
        ConsumeError::Used { .. } => Reason::TokenUsed,
        ConsumeError::OtherMachine { .. } => Reason::TokenForOther,
        ConsumeError::Ledger(error) => return ledger(error),
    };
    Refusal::new(reason, error.to_string())
}

pub(crate) fn record(error: &RecordError) -> Refusal {
    let reason = match error {
        RecordError::Unknown(_) | RecordError::OtherKey(_) => Reason::WrongKey,
        RecordError::Removed { .. } => Reason::MachineRemoved,
        RecordError::Ledger(error) => return ledger(error),
    };
    Refusal::new(reason, error.to_string())
}

pub(crate) fn token(error: &TokenError) -> Refusal {
    let reason = match error {
        TokenError::Exists(_) => Reason::NameTaken,
        TokenError::BadId { .. } => Reason::BadMessage,
        TokenError::Ledger(error) => return ledger(error),
    };
    Refusal::new(reason, chain(error))
}

/// An order to a rollout that does nothing.
pub(crate) fn rollout(error: &OrderError) -> Refusal {
    let reason = match error {
        OrderError::None(_) => Reason::NotFound,
        OrderError::Over(..) | OrderError::IsRevert(_) => Reason::PlanRefused,
    };
    Refusal::new(reason, error.to_string())
}

pub(crate) fn apply(error: &ApplyError) -> Refusal {
    match error {
        ApplyError::Moved {
            base,
            head,
            by,
            at,
        } => Refusal::new(
            Reason::BaseMoved,
            format!(
                "the plan was made against revision {base}, but {by} recorded revision {head} at {at}; run `plumb plan` again"
            ),
        )
        .with("base", base)
        .with("head", head)
        .with("by", by)
        .with("at", at),
        ApplyError::Ahead { base, head } => Refusal::new(
            Reason::BaseMoved,
            format!(
                "the plan was made against revision {base}, but only {head} is recorded here; run `plumb plan` again"
            ),
        )
        .with("base", base)
        .with("head", head),
        ApplyError::Inconsistent(_) => storage(error),
        ApplyError::Ledger(error) => ledger(error),
    }
}

pub(crate) fn plan(error: &PlanError) -> Refusal {
    let mut kept = error.problems.as_slice();
    let mut json = plumb_wire::convert::to_json(&kept);
    while json.len() > MAX_PROBLEMS_BYTES && kept.len() > 1 {
        kept = &kept[..kept.len() / 2];
        json = plumb_wire::convert::to_json(&kept);
    }
    let refusal = Refusal::new(Reason::PlanRefused, error.to_string().replace('\n', " "))
        .with("total", error.problems.len());
    match String::from_utf8(json) {
        Ok(json) if json.len() <= MAX_PROBLEMS_BYTES => refusal.with("problems", json),
        _ => refusal,
    }
}

/// A task of the control plane's own that did not come back.
pub(crate) fn panicked(error: &tokio::task::JoinError) -> Refusal {
    tracing::error!("a task failed: {error}");
    Refusal::new(
        Reason::Storage,
        "the control plane failed inside; see its log, and report it",
    )
}

/// Runs what blocks off the event loop.
pub(crate) async fn blocking<T, F>(work: F) -> Result<T, Refusal>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Refusal> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| panicked(&e))?
}
