//! Which workspaces a control plane serves besides its home: one record for each, kept in the home's ledger.

use plumb_model::{Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, Txn};

/// A workspace besides the home.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRecord {
    /// Its name.
    pub name: WorkspaceName,
    /// When it was made.
    pub created: Timestamp,
    /// The token that made it.
    pub by: String,
}

impl Ledger {
    /// Notes a new workspace, here in the home. Whether it is new.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn add_workspace(&self, record: &WorkspaceRecord) -> Result<bool, LedgerError> {
        if record.name == *self.workspace() {
            return Ok(false);
        }
        let key = self.key(&format!("workspace/{}", record.name));
        let txn = Txn::default()
            .absent(key.as_str())
            .put(key, records::encode(record));
        Ok(self.commit(txn)? == Committed::Yes)
    }

    /// The workspaces besides this home, by name.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn workspaces(&self) -> Result<Vec<WorkspaceRecord>, LedgerError> {
        let all = self.read_all(&self.key("workspace/"))?;
        Ok(all.into_iter().map(|(_, record)| record).collect())
    }
}
