//! Stage 3: the recorded state of a workspace, append-only and durable.
//!
//! [`Ledger`] speaks in revisions, releases, tokens and identities; it stands on a [`Store`], which knows
//! only keys, values and compare-and-set transactions. [`SledStore`] keeps them in a [`DataFolder`] on this
//! host's disk, [`MemoryStore`] for as long as the process lives; [`conformance::check`] holds them alike.
//!
//! Nothing here decides anything, and nothing here is asynchronous: calls block until the disk has answered,
//! so the control plane makes them off its event loop. Called by `control-plane` and `sim`.

pub mod conformance;
mod folder;
mod ledger;
mod memory;
mod sled_store;
mod store;

pub use folder::{DATA_FORMAT, DataFolder, FolderError, write_durably};
pub use ledger::{
    Actor, ApplyError, AuditBreak, AuditEntry, AuditHead, AuditLink, CertificateSeen, ConsumeError,
    Head, IdentityError, Ledger, LedgerError, MAX_AUDIT_BATCH, MachineIdentity, RECORD_FORMAT,
    TokenError, TokenKind, TokenRecord, TokenUse, WorkspaceRecord,
};
pub use ledger::{EventRange, EventRecord, MAX_EVENT_BATCH, MAX_HEAD_BATCH, Retention};
pub use ledger::{KEPT_VERSIONS, SecretChange, SecretRecord, SecretVersionRecord};
pub use memory::MemoryStore;
pub use sled_store::SledStore;
pub use store::{
    Check, Committed, Expect, MAX_KEY_BYTES, MAX_OPERATIONS, MAX_SCAN, MAX_TRANSACTION_BYTES,
    MAX_VALUE_BYTES, Pair, Store, StoreError, Txn, Write,
};
