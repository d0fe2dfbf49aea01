//! The recorded state of one workspace: head, revision log, bodies, outcomes, tokens and machine identities.
//!
//! Everything is under `LINEAGE/WORKSPACE/`: `head`, `revision/N`, `body/HASH` and `body/HASH/PIECE`,
//! `outcome/OWNER/RELEASE`, `lead`, `token/ID`, `machine/NAME`, `rollout/…`, `hands/…`, `audit/N` and `audit-head`, `event/N`, `event-head` and `journal/MACHINE`; and in the home of a
//! control plane, its first workspace, `workspace/NAME` for every other one. What is stored stays: revisions, releases and the
//! bodies that they refer to are only ever added.

mod access;
mod audit;
mod body;
mod events;
mod hands;
mod lead;
#[cfg(test)]
mod recordings;
mod records;
mod rollouts;
mod secrets;
#[cfg(test)]
mod tests;
mod workspaces;

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_model::state::{self, Next, Outcome, Recorded, ReleaseBody, RevisionRecord, StateBody};
use plumb_model::{
    Assignment, Hash, Lineage, OwnerName, ReleaseNumber, Revision, Timestamp, WorkspaceName,
};
use serde::{Deserialize, Serialize};

pub use access::{
    CertificateSeen, ConsumeError, IdentityError, MachineIdentity, TokenError, TokenKind,
    TokenRecord, TokenUse,
};
pub use audit::{Actor, AuditBreak, AuditEntry, AuditHead, AuditLink, MAX_AUDIT_BATCH};
pub use events::{EventRange, EventRecord, MAX_EVENT_BATCH, MAX_HEAD_BATCH, Retention};
pub use records::RECORD_FORMAT;
pub use secrets::{KEPT_VERSIONS, SecretChange, SecretRecord, SecretVersionRecord};
pub use workspaces::WorkspaceRecord;

use crate::store::{Check, Committed, MAX_OPERATIONS, MAX_SCAN, Store, StoreError, Txn};

/// The recorded state of one workspace. Cheap to clone; clones share the store.
#[derive(Clone)]
pub struct Ledger {
    store: Arc<dyn Store>,
    lineage: Lineage,
    workspace: WorkspaceName,
    /// What shows that this one still leads; none if nobody asked for it.
    lead: Option<Check>,
}

/// Where a workspace is: the one record that an apply moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The revision.
    pub revision: Revision,
    /// The hash of its [`StateBody`].
    pub state: Hash,
    /// Who applied it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// An entry of the log. The record itself is a body: with many owners it outgrows one value.
#[derive(Debug, Serialize, Deserialize)]
struct LogEntry {
    record: Hash,
}

/// Why the ledger did not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record that is not what it should be.
    #[error("the record {key} cannot be read ({reason}); restore the data folder from a backup")]
    Unreadable {
        /// Its key.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// A record of a newer version.
    #[error(
        "the record {key} was written by a newer plumb (format {found}, this one reads up to {reads}); upgrade plumb"
    )]
    Newer {
        /// Its key.
        key: String,
        /// Its format.
        found: u32,
        /// The newest that is read.
        reads: u32,
    },
    /// Something refers to a body that is not there.
    #[error("the body {key} is missing; restore the data folder from a backup")]
    Missing {
        /// Its key.
        key: String,
    },
    /// Another control plane has taken the lead.
    #[error(
        "another control plane has taken over, so this one writes nothing any more; restart it, or leave it down"
    )]
    Superseded,
    /// The record has changed over and over while it was being changed here.
    #[error("the record {key} is being changed by many at once; try again")]
    Contended {
        /// Its key.
        key: String,
    },
}

/// Why an apply recorded nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else applied in between.
    #[error(
        "the plan was made against revision {base}, but {by} applied revision {head} at {at}; plan again"
    )]
    Moved {
        /// What the plan was made against.
        base: Revision,
        /// What is recorded now.
        head: Revision,
        /// Who recorded it.
        by: String,
        /// When.
        at: Timestamp,
    },
    /// The plan was made against a revision that was never recorded here, as after an older backup was restored.
    #[error(
        "the plan was made against revision {base}, but only {head} is recorded here; plan again"
    )]
    Ahead {
        /// What the plan was made against.
        base: Revision,
        /// What is recorded.
        head: Revision,
    },
    /// What is to be recorded contradicts itself.
    #[error("the next state cannot be recorded: {0}; this is a defect of plumb")]
    Inconsistent(String),
    /// The ledger. After [`StoreError::Uncertain`] the revision may have been recorded.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl From<StoreError> for ApplyError {
    fn from(error: StoreError) -> Self {
        Self::Ledger(error.into())
    }
}

impl Ledger {
    /// The ledger of a workspace. Nothing is read or written yet.
    #[must_use]
    pub fn open(store: Arc<dyn Store>, lineage: Lineage, workspace: WorkspaceName) -> Self {
        Self {
            store,
            lineage,
            workspace,
            lead: None,
        }
    }

    /// Whose history this is.
    #[must_use]
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Which workspace this is.
    #[must_use]
    pub fn workspace(&self) -> &WorkspaceName {
        &self.workspace
    }

    /// Whether writes would be taken: an error says why not.
    ///
    /// # Errors
    /// [`StoreError::NotReady`], [`StoreError::Full`].
    pub fn ready(&self) -> Result<(), StoreError> {
        self.store.ready()
    }

    fn key(&self, rest: &str) -> String {
        format!("{}/{}/{rest}", self.lineage, self.workspace)
    }

    fn log_key(&self, revision: Revision) -> String {
        // Zero-padded to the longest u64, so that a scan is in order.
        self.key(&format!("revision/{:020}", revision.0))
    }

    /// Where the workspace is; none if nothing was ever applied.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn head(&self) -> Result<Option<Head>, LedgerError> {
        self.read(&self.key("head"))
    }

    /// The recorded state with the current releases' bodies; an empty one if nothing was ever applied.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn load(&self) -> Result<Recorded, LedgerError> {
        let Some(head) = self.head()? else {
            return Ok(Recorded::default());
        };
        let missing = |hash: &Hash| LedgerError::Missing {
            key: self.body_key(hash),
        };
        let state = self
            .state(&head.state)?
            .ok_or_else(|| missing(&head.state))?;
        let mut releases = BTreeMap::new();
        for (owner, recorded) in &state.owners {
            let body = self
                .release(&recorded.body)?
                .ok_or_else(|| missing(&recorded.body))?;
            releases.insert(owner.clone(), Arc::new(body));
        }
        Ok(Recorded { state, releases })
    }

    /// The state with this hash (of [`Head::state`] or [`RevisionRecord::state`]).
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn state(&self, hash: &Hash) -> Result<Option<StateBody>, LedgerError> {
        self.parsed(hash, state::FORMAT)
    }

    /// The release body with this hash.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn release(&self, hash: &Hash) -> Result<Option<ReleaseBody>, LedgerError> {
        self.parsed(hash, state::FORMAT)
    }

    /// The assignment with this hash, where what is recorded is not held twice.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn assignment(
        &self,
        hash: &Hash,
        recorded: &Recorded,
    ) -> Result<Option<Assignment>, LedgerError> {
        let Some(bytes) = self.body(hash)? else {
            return Ok(None);
        };
        let assignment = Assignment::parse_sharing(&bytes, |address| recorded.resource(address));
        let assignment = assignment.map_err(|e| LedgerError::Unreadable {
            key: self.body_key(hash),
            reason: e.to_string(),
        })?;
        Ok(Some(assignment))
    }

    fn parsed<T: serde::de::DeserializeOwned>(
        &self,
        hash: &Hash,
        reads: u32,
    ) -> Result<Option<T>, LedgerError> {
        match self.body(hash)? {
            Some(bytes) => records::parse_body(&self.body_key(hash), &bytes, reads).map(Some),
            None => Ok(None),
        }
    }

    /// Records the next revision.
    ///
    /// Flow: the new bodies are written first, in as many transactions as they need. Then one small transaction,
    /// the same whatever the number of machines, moves the head and adds to the log.
    ///
    /// # Guarantees
    /// Of several that start from one base, one is recorded and the others get [`ApplyError::Moved`]. What is
    /// recorded is complete: every body that it newly refers to is there. Otherwise nothing that anybody reads has changed;
    /// bodies that nothing refers to may stay behind.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub fn apply(
        &self,
        base: Revision,
        next: &Next,
        record: &RevisionRecord,
    ) -> Result<Head, ApplyError> {
        let state = next.state.bytes();
        let state_hash = Hash::of(&state);
        check_consistent(base, next, record, state_hash)?;
        let head_key = self.key("head");
        // The check below is on these very bytes, so that nothing hangs on encoding the same way for ever.
        let seen_bytes = self.store.get(head_key.as_bytes())?;
        let seen: Option<Head> = seen_bytes
            .as_deref()
            .map(|bytes| records::parse(&head_key, bytes))
            .transpose()?;
        if seen.as_ref().map_or(Revision(0), |head| head.revision) != base {
            return Err(moved(base, seen));
        }
        let record_bytes = records::encode(record);
        let record_hash = Hash::of(&record_bytes);
        let own = [(state_hash, &state), (record_hash, &record_bytes)];
        self.put_bodies(next.bodies.iter().map(|(hash, bytes)| (*hash, bytes)))?;
        self.check_complete(next)?;
        self.put_bodies(own.into_iter())?;

        let head = Head {
            revision: next.state.revision,
            state: state_hash,
            by: record.by.clone(),
            at: record.at,
        };
        let log_key = self.log_key(head.revision);
        let txn = match seen_bytes {
            Some(bytes) => Txn::default().equals(head_key.as_str(), bytes),
            None => Txn::default().absent(head_key.as_str()),
        };
        let entry = LogEntry {
            record: record_hash,
        };
        let txn = txn
            .absent(log_key.as_str())
            .put(head_key, records::encode(&head))
            .put(log_key.as_str(), records::encode(&entry));
        match self.commit(txn)? {
            Committed::Yes => Ok(head),
            Committed::Conflict(_) => match self.head()? {
                Some(now) if Some(&now) == seen.as_ref() => {
                    Err(ApplyError::Ledger(LedgerError::Unreadable {
                        key: log_key,
                        reason: "it is there already, though the head has not come so far"
                            .to_owned(),
                    }))
                }
                now => Err(moved(base, now)),
            },
        }
    }

    /// Whoever moved must have his body: looked up only for those, so that the cost is that of the change.
    fn check_complete(&self, next: &Next) -> Result<(), ApplyError> {
        let machines = next.moved.keys().map(|name| {
            let hash = next.state.machines.get(name).map(|m| m.assignment);
            (format!("machine {name}"), hash)
        });
        let owners = next.released.keys().map(|name| {
            let hash = next.state.owners.get(name).map(|o| o.body);
            (format!("release of {name}"), hash)
        });
        for (what, hash) in machines.chain(owners) {
            // None: the machine or owner is gone from the state.
            let Some(hash) = hash else { continue };
            if !next.bodies.contains_key(&hash) && !self.has_body(&hash)? {
                return Err(ApplyError::Inconsistent(format!(
                    "the body of {what} is missing"
                )));
            }
        }
        Ok(())
    }

    /// The record of one revision.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn revision(&self, revision: Revision) -> Result<Option<RevisionRecord>, LedgerError> {
        let Some(entry) = self.read::<LogEntry>(&self.log_key(revision))? else {
            return Ok(None);
        };
        match self.body(&entry.record)? {
            Some(bytes) => records::parse(&self.body_key(&entry.record), &bytes).map(Some),
            None => Err(LedgerError::Missing {
                key: self.body_key(&entry.record),
            }),
        }
    }

    /// The log, newest first, at most `limit` entries.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn revisions(&self, limit: usize) -> Result<Vec<RevisionRecord>, LedgerError> {
        self.revisions_where(limit, |_| true)
    }

    /// The revisions that made a release of an owner or removed it, under this name or one that it had before, newest
    /// first, at most `limit`: [`with_name`](plumb_model::state::with_name) says under which.
    /// Reads back through the log until it has so many.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn releases(
        &self,
        owner: &OwnerName,
        limit: usize,
    ) -> Result<Vec<RevisionRecord>, LedgerError> {
        let mut name = owner.clone();
        self.revisions_where(limit, |record| {
            let released = record.released.contains_key(&name);
            if let Some(before) = record.renamed.get(&name) {
                name.clone_from(before);
            }
            released
        })
    }

    /// The log as [`Ledger::revisions`] and [`Ledger::releases`] have it, of revisions older than one: for pages of it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn history(
        &self,
        owner: Option<&OwnerName>,
        before: Revision,
        limit: usize,
    ) -> Result<Vec<RevisionRecord>, LedgerError> {
        let mut name = owner.cloned();
        self.revisions_where(limit, |record| {
            // Names have to be followed from the newest on, wherever the page begins.
            let released = name.as_mut().is_none_or(|name| {
                let released = record.released.contains_key(name);
                if let Some(earlier) = record.renamed.get(name) {
                    name.clone_from(earlier);
                }
                released
            });
            released && record.revision < before
        })
    }

    fn revisions_where(
        &self,
        limit: usize,
        mut wanted: impl FnMut(&RevisionRecord) -> bool,
    ) -> Result<Vec<RevisionRecord>, LedgerError> {
        let mut found = Vec::new();
        let newest = self.head()?.map_or(0, |head| head.revision.0);
        for number in (1..=newest).rev() {
            if found.len() >= limit {
                break;
            }
            let record = self
                .revision(Revision(number))?
                .ok_or_else(|| LedgerError::Missing {
                    key: self.log_key(Revision(number)),
                })?;
            if wanted(&record) {
                found.push(record);
            }
        }
        Ok(found)
    }

    fn outcome_key(&self, owner: &OwnerName, release: ReleaseNumber) -> String {
        self.key(&format!("outcome/{owner}/{:020}", release.0))
    }

    /// Notes what became of a release; the last note counts.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn set_outcome(
        &self,
        owner: &OwnerName,
        release: ReleaseNumber,
        outcome: Outcome,
    ) -> Result<(), LedgerError> {
        self.set_outcomes([(owner.clone(), release, outcome)])
    }

    /// Notes what became of many releases, as few transactions as possible; not all or nothing.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn set_outcomes(
        &self,
        outcomes: impl IntoIterator<Item = (OwnerName, ReleaseNumber, Outcome)>,
    ) -> Result<(), LedgerError> {
        // By key, so that of two notes for one release the later wins.
        let writes: BTreeMap<String, Vec<u8>> = outcomes
            .into_iter()
            .map(|(owner, release, outcome)| {
                let note = OutcomeNote { outcome };
                (self.outcome_key(&owner, release), records::encode(&note))
            })
            .collect();
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            // One is the check on who leads.
            let txn = (&mut writes)
                .take(MAX_OPERATIONS - 1)
                .fold(Txn::default(), |txn, (key, value)| txn.put(key, value));
            // Without a check there is no conflict.
            let _ = self.commit(txn)?;
        }
        Ok(())
    }

    /// What became of an owner's releases, as far as it was noted.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn outcomes(
        &self,
        owner: &OwnerName,
    ) -> Result<BTreeMap<ReleaseNumber, Outcome>, LedgerError> {
        let prefix = self.key(&format!("outcome/{owner}/"));
        let notes = self.read_all::<OutcomeNote>(&prefix)?;
        notes
            .into_iter()
            .map(|(key, note)| match key[prefix.len()..].parse() {
                Ok(number) => Ok((ReleaseNumber(number), note.outcome)),
                Err(_) => Err(LedgerError::Unreadable {
                    key,
                    reason: "its key does not end in a release number".to_owned(),
                }),
            })
            .collect()
    }

    fn read<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, LedgerError> {
        match self.store.get(key.as_bytes())? {
            Some(bytes) => records::parse(key, &bytes).map(Some),
            None => Ok(None),
        }
    }

    fn read_all<T: serde::de::DeserializeOwned>(
        &self,
        prefix: &str,
    ) -> Result<Vec<(String, T)>, LedgerError> {
        let mut all = Vec::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self
                .store
                .scan(prefix.as_bytes(), after.as_deref(), MAX_SCAN)?;
            let complete = page.len() < MAX_SCAN;
            after = page.last().map(|(key, _)| key.clone());
            for (key, value) in page {
                let key = String::from_utf8_lossy(&key).into_owned();
                let record = records::parse(&key, &value)?;
                all.push((key, record));
            }
            if complete {
                return Ok(all);
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct OutcomeNote {
    outcome: Outcome,
}

fn moved(base: Revision, head: Option<Head>) -> ApplyError {
    match head {
        Some(head) if head.revision >= base => ApplyError::Moved {
            base,
            head: head.revision,
            by: head.by,
            at: head.at,
        },
        other => ApplyError::Ahead {
            base,
            head: other.map_or(Revision(0), |head| head.revision),
        },
    }
}

fn check_consistent(
    base: Revision,
    next: &Next,
    record: &RevisionRecord,
    state: Hash,
) -> Result<(), ApplyError> {
    let wrong = |what: String| Err(ApplyError::Inconsistent(what));
    if next.state.revision != base.next() || record.revision != base.next() {
        return wrong(format!(
            "after revision {base} comes {}, but the state says {} and its record {}",
            base.next(),
            next.state.revision,
            record.revision
        ));
    }
    if record.state != state {
        return wrong("its record names another state".to_owned());
    }
    for (hash, bytes) in &next.bodies {
        if Hash::of(bytes) != *hash {
            return wrong(format!("the body {hash} has another hash"));
        }
    }
    Ok(())
}
