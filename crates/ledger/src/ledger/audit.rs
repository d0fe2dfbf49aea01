//! The audit log of a workspace: who did what, one entry after another, each holding the hash of the one before.
//!
//! Entries are under `audit/NUMBER`, the newest one's number and hash under `audit-head`. Nothing here takes an entry
//! away or changes one, and [`Ledger::verify_audit`] finds where somebody else did. What it cannot find is a log that
//! was cut off at its end together with its head: for that, keep the head somewhere else and compare.

use plumb_model::{Hash, MachineName, OwnerName, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, MAX_SCAN, Txn};

/// The most entries that are added at once: each is a check and a write, beside those of the head.
pub const MAX_AUDIT_BATCH: usize = 60;

/// The longest text of one entry in bytes; what is longer is cut. So that a full batch stays within a transaction.
const MAX_TEXT_BYTES: usize = 4096;

/// How often an append starts again because another control plane was quicker.
const ATTEMPTS: usize = 100;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Actor {
    /// Whoever held this token for the API.
    Token(String),
    /// Whoever held this join token.
    JoinToken(String),
    /// This machine, by its certificate.
    Machine(MachineName),
    /// Nobody who could prove who he is.
    Nobody,
    /// The control plane itself.
    ControlPlane,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Token(name) => write!(f, "token {name}"),
            Self::JoinToken(id) => write!(f, "join token {id}"),
            Self::Machine(name) => write!(f, "machine {name}"),
            Self::Nobody => f.write_str("nobody"),
            Self::ControlPlane => f.write_str("control plane"),
        }
    }
}

/// What happened once. No secret is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, by the control plane's clock.
    pub at: Timestamp,
    /// Who.
    pub who: Actor,
    /// The address that the call came from; empty for the control plane's own doing.
    pub from: String,
    /// The method that was called, such as `ControlPlane/Apply`.
    pub method: String,
    /// Why it was refused, as the API says it; none if it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it did, or why it was refused, in a few words.
    pub detail: String,
    /// The apps, services and so on that it was about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub owners: Vec<OwnerName>,
}

/// An entry at its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditLink {
    /// Its number; the first is 1.
    pub number: u64,
    /// The hash of the record before it.
    pub before: Hash,
    /// What happened.
    pub entry: AuditEntry,
}

/// Where an audit log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The number of the newest entry; 0 if there is none.
    pub number: u64,
    /// The hash of its record: of the whole log, since each holds the one before.
    pub hash: Hash,
}

/// Where an audit log is broken, from the first place on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditBreak {
    /// The number of the entry that does not fit.
    pub number: u64,
    /// What is wrong there.
    pub why: String,
}

impl Ledger {
    fn audit_key(&self, number: u64) -> String {
        self.key(&format!("audit/{number:020}"))
    }

    fn audit_head_key(&self) -> String {
        self.key("audit-head")
    }

    /// What the first entry holds as the hash before it: no chain can be passed off as another workspace's.
    fn audit_start(&self) -> AuditHead {
        AuditHead {
            number: 0,
            hash: Hash::of(self.key("audit").as_bytes()),
        }
    }

    /// Where the audit log ends.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn audit_head(&self) -> Result<AuditHead, LedgerError> {
        let head = self.read(&self.audit_head_key())?;
        Ok(head.unwrap_or_else(|| self.audit_start()))
    }

    /// Adds entries, in order, at most [`MAX_AUDIT_BATCH`] of them.
    ///
    /// # Guarantees
    /// All of them are durable when it returns, and none is there if it fails, but for
    /// [`StoreError::Uncertain`](crate::StoreError::Uncertain).
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn append_audit(&self, entries: &[AuditEntry]) -> Result<AuditHead, LedgerError> {
        let head_key = self.audit_head_key();
        for _ in 0..ATTEMPTS {
            let seen = self.store.get(head_key.as_bytes())?;
            let mut head = match seen.as_deref() {
                Some(bytes) => records::parse(&head_key, bytes)?,
                None => self.audit_start(),
            };
            let mut txn = match seen {
                Some(bytes) => Txn::default().equals(head_key.as_str(), bytes),
                None => Txn::default().absent(head_key.as_str()),
            };
            for entry in entries {
                let link = AuditLink {
                    number: head.number + 1,
                    before: head.hash,
                    entry: bounded(entry),
                };
                let key = self.audit_key(link.number);
                let bytes = records::encode(&link);
                head = AuditHead {
                    number: link.number,
                    hash: Hash::of(&bytes),
                };
                txn = txn.absent(key.as_str()).put(key, bytes);
            }
            let txn = txn.put(head_key.as_str(), records::encode(&head));
            match self.commit(txn)? {
                Committed::Yes => return Ok(head),
                Committed::Conflict(keys) if keys.iter().any(|k| k == head_key.as_bytes()) => {}
                Committed::Conflict(_) => {
                    return Err(LedgerError::Unreadable {
                        key: self.audit_key(head.number),
                        reason: "it is there already, though the log has not come so far"
                            .to_owned(),
                    });
                }
            }
        }
        Err(LedgerError::Contended { key: head_key })
    }

    /// The entries before a number (all if it is none), newest first, that are wanted: at most `limit`, out of at most
    /// `look` that are looked at. Also where to go on; none at the first entry.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
        look: usize,
        wanted: impl Fn(&AuditEntry) -> bool,
    ) -> Result<(Vec<AuditLink>, Option<u64>), LedgerError> {
        let newest = self.audit_head()?.number;
        let mut next = before.map_or(newest, |before| before.saturating_sub(1).min(newest));
        let mut found = Vec::new();
        for _ in 0..look {
            if next == 0 {
                return Ok((found, None));
            }
            if found.len() >= limit {
                break;
            }
            let key = self.audit_key(next);
            let link: AuditLink = self.read(&key)?.ok_or(LedgerError::Missing { key })?;
            if wanted(&link.entry) {
                found.push(link);
            }
            next -= 1;
        }
        Ok((found, (next > 0).then_some(next + 1)))
    }

    /// Reads the whole log and holds each entry against the one before it, and the last against the head. `Ok(Err)` says
    /// where it breaks.
    ///
    /// # Errors
    /// See [`LedgerError`]; an entry that cannot be read is no error but a break.
    pub fn verify_audit(&self) -> Result<Result<AuditHead, AuditBreak>, LedgerError> {
        // First, so that what is added meanwhile is no break.
        let head = self.audit_head()?;
        let prefix = self.key("audit/");
        let mut at = self.audit_start();
        let mut after: Option<Vec<u8>> = None;
        let broken = |number, why: &str| {
            Ok(Err(AuditBreak {
                number,
                why: why.to_owned(),
            }))
        };
        while at.number < head.number {
            let page = self
                .store
                .scan(prefix.as_bytes(), after.as_deref(), MAX_SCAN)?;
            if page.is_empty() {
                return broken(
                    at.number + 1,
                    "the log ends before it, though its head is later",
                );
            }
            for (key, bytes) in page {
                let number = at.number + 1;
                if number > head.number {
                    break;
                }
                if key != self.audit_key(number).as_bytes() {
                    return broken(number, "it is missing");
                }
                let key_text = String::from_utf8_lossy(&key).into_owned();
                let link: AuditLink = match records::parse(&key_text, &bytes) {
                    Ok(link) => link,
                    Err(LedgerError::Newer { .. }) => {
                        return broken(number, "a newer plumb wrote it; verify it with that one");
                    }
                    Err(_) => return broken(number, "it cannot be read"),
                };
                if link.number != number {
                    return broken(number, "it holds another number");
                }
                if link.before != at.hash {
                    return broken(
                        number,
                        "the hash that it holds is not that of the entry before it: one of the two was changed",
                    );
                }
                at = AuditHead {
                    number,
                    hash: Hash::of(&bytes),
                };
                after = Some(key);
            }
        }
        if at != head {
            return broken(
                head.number,
                "it is not what the head of the log says: it was changed, or the head was",
            );
        }
        Ok(Ok(head))
    }
}

/// The entry with its texts cut to what is kept.
fn bounded(entry: &AuditEntry) -> AuditEntry {
    let mut entry = entry.clone();
    for text in [&mut entry.detail, &mut entry.method, &mut entry.from] {
        if text.len() > MAX_TEXT_BYTES {
            let mut end = MAX_TEXT_BYTES;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
    }
    // Names have at most 63 bytes.
    entry.owners.truncate(MAX_TEXT_BYTES / 64);
    entry
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumb_model::{Lineage, WorkspaceName};

    use super::*;
    use crate::MemoryStore;

    fn ledger(store: &Arc<MemoryStore>, workspace: &str) -> Ledger {
        Ledger::open(
            store.clone(),
            Lineage::from_random([1; 16]),
            WorkspaceName::new(workspace).unwrap(),
        )
    }

    fn entry(detail: &str) -> AuditEntry {
        AuditEntry {
            at: Timestamp::UNIX_EPOCH,
            who: Actor::Token("ci".into()),
            from: "10.0.0.1".into(),
            method: "ControlPlane/Apply".into(),
            refused: None,
            detail: detail.into(),
            owners: vec![OwnerName::new("web").unwrap()],
        }
    }

    fn five() -> (Arc<MemoryStore>, Ledger) {
        let store = Arc::new(MemoryStore::default());
        let ledger = ledger(&store, "shop");
        ledger.append_audit(&[entry("1"), entry("2")]).unwrap();
        ledger.append_audit(&[entry("3")]).unwrap();
        ledger.append_audit(&[entry("4"), entry("5")]).unwrap();
        (store, ledger)
    }

    #[test]
    fn entries_read_back_newest_first_page_by_page_and_the_chain_holds() {
        let (_, ledger) = five();
        let read = |before, limit, look| {
            let (links, next) = ledger
                .audit(before, limit, look, |e| e.detail != "3")
                .unwrap();
            let details: Vec<_> = links.into_iter().map(|l| l.entry.detail).collect();
            (details.join(" "), next)
        };
        assert_eq!(read(None, 10, 10), ("5 4 2 1".into(), None));
        assert_eq!(read(None, 2, 10), ("5 4".into(), Some(4)));
        assert_eq!(read(Some(4), 2, 10), ("2 1".into(), None));
        assert_eq!(read(None, 9, 3), ("5 4".into(), Some(3)));
        assert_eq!(read(Some(1), 9, 9), (String::new(), None));
        assert_eq!(
            ledger.verify_audit().unwrap(),
            Ok(ledger.audit_head().unwrap())
        );
    }

    /// Mutation: leave out any one of the comparisons in `verify_audit`.
    #[test]
    fn whatever_was_changed_taken_away_or_brought_from_elsewhere_is_found_where_it_is() {
        type Tamper = fn(&Ledger, Txn) -> Txn;
        let other = |ledger: &Ledger, number: u64, detail: &str| {
            let key = ledger.audit_key(number);
            let mut link: AuditLink = ledger.read(&key).unwrap().unwrap();
            link.entry.detail = detail.into();
            records::encode(&link)
        };
        let cases: [(Tamper, u64); 6] = [
            // Its successor notices.
            (|l, txn| txn.put(l.audit_key(2), b"{}".to_vec()), 2),
            (|l, txn| txn.delete(l.audit_key(3)), 3),
            (|l, txn| txn.delete(l.audit_key(1)), 1),
            (|l, txn| txn.delete(l.audit_key(5)), 5),
            (
                |l, txn| {
                    let fourth = l.store.get(l.audit_key(4).as_bytes()).unwrap().unwrap();
                    txn.put(l.audit_key(3), fourth)
                },
                3,
            ),
            (
                |l, txn| {
                    let head = AuditHead {
                        number: 5,
                        hash: Hash::of(b"x"),
                    };
                    txn.put(l.audit_head_key(), records::encode(&head))
                },
                5,
            ),
        ];
        for (tamper, number) in cases {
            let (store, ledger) = five();
            let _ = crate::Store::commit(&*store, tamper(&ledger, Txn::default())).unwrap();
            let found = ledger.verify_audit().unwrap().unwrap_err();
            assert_eq!(found.number, number, "{found:?}");
        }
        for (changed, noticed) in [(2, 3), (4, 5), (5, 5)] {
            let (store, ledger) = five();
            let bytes = other(&ledger, changed, "nothing happened");
            let txn = Txn::default().put(ledger.audit_key(changed), bytes);
            let _ = crate::Store::commit(&*store, txn).unwrap();
            let found = ledger.verify_audit().unwrap().unwrap_err();
            assert_eq!(found.number, noticed, "{found:?}");
        }
        // A whole log of another workspace.
        let (store, shop) = five();
        let crm = self::ledger(&store, "crm");
        let mut txn = Txn::default();
        for number in 1..=5 {
            let bytes = store_get(&store, &shop.audit_key(number));
            txn = txn.put(crm.audit_key(number), bytes);
        }
        let txn = txn.put(
            crm.audit_head_key(),
            store_get(&store, &shop.audit_head_key()),
        );
        let _ = crate::Store::commit(&*store, txn).unwrap();
        assert_eq!(crm.verify_audit().unwrap().unwrap_err().number, 1);
    }

    fn store_get(store: &MemoryStore, key: &str) -> Vec<u8> {
        crate::Store::get(store, key.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_batch_of_the_longest_entries_fits_and_is_cut() {
        let store = Arc::new(MemoryStore::default());
        let ledger = ledger(&store, "shop");
        let long = entry(&"ä".repeat(100_000));
        ledger.append_audit(&vec![long; MAX_AUDIT_BATCH]).unwrap();
        let (links, _) = ledger.audit(None, 1, 1, |_| true).unwrap();
        assert_eq!(links[0].number, MAX_AUDIT_BATCH as u64);
        assert!(links[0].entry.detail.len() <= MAX_TEXT_BYTES + '…'.len_utf8());
    }
}
