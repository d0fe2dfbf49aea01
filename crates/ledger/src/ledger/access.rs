//! Tokens and machine identities, as records: who may is decided in `control-plane`, and kept here.

use plumb_model::{Hash, MachineName, Timestamp};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, records};
use crate::store::{Committed, StoreError, Txn};

/// How often a record is read and changed again when somebody else was quicker. Each failure means that
/// another one succeeded.
const ATTEMPTS: usize = 100;

/// A token. Its secret is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// By what it is named and found; the grammar is that of [`plumb_model::name::check`].
    pub id: String,
    /// BLAKE3 of the secret.
    pub secret: Hash,
    /// What it is for.
    pub kind: TokenKind,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it is refused; none is never.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as it was noted with [`Ledger::touch_token`].
    pub last_used: Option<Timestamp>,
    /// The one use of a join token.
    pub consumed: Option<TokenUse>,
}

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// To call the API.
    Api {
        /// The name of the role; what it may do is the control plane's business.
        role: String,
        /// Whether it is for every workspace of the control plane, and not only for the one that keeps it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        all: bool,
    },
    /// To enrol one machine, once.
    Join {
        /// The only machine that it is for; none is any.
        machine: Option<MachineName>,
    },
}

/// How a join token was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// When.
    pub at: Timestamp,
    /// By which machine.
    pub machine: MachineName,
}

impl TokenRecord {
    /// Whether this is the token's secret. Takes the same time wherever the two differ.
    #[must_use]
    pub fn matches(&self, secret: &str) -> bool {
        // blake3's own comparison is the constant-time one.
        blake3::hash(secret.as_bytes()) == blake3::Hash::from_bytes(self.secret.0)
    }

    /// Whether it is for every workspace of the control plane.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        matches!(self.kind, TokenKind::Api { all: true, .. })
    }

    /// Whether it is refused by now.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expires| now >= expires)
    }
}

/// Why a token was not stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The id is taken.
    #[error("there is a token named {0} already; choose another name or remove that one")]
    Exists(String),
    /// The id is no name.
    #[error("{id:?} cannot name a token")]
    BadId {
        /// The id.
        id: String,
        /// What is wrong with it.
        #[source]
        source: plumb_model::NameError,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Why a join token was not consumed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConsumeError {
    /// No such token, one that is not for joining, or another secret. Which of them is not told.
    #[error("the join token is not valid; make one with `plumb token create --join`")]
    Invalid,
    /// It has expired.
    #[error("the join token expired at {0}; make one with `plumb token create --join`")]
    Expired(Timestamp),
    /// It has been used.
    #[error(
        "the join token was used by {machine} at {at}; make one with `plumb token create --join`"
    )]
    Used {
        /// When.
        at: Timestamp,
        /// By which machine.
        machine: MachineName,
    },
    /// It is for another machine.
    #[error("the join token is for machine {bound}, not for {machine}; make one for that machine")]
    OtherMachine {
        /// Whom it is for.
        bound: MachineName,
        /// Who came.
        machine: MachineName,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// A machine that was enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineIdentity {
    /// Its name.
    pub machine: MachineName,
    /// SHA-256 of its public key, in hex.
    pub public_key_sha256: String,
    /// The serial number of its newest certificate, in hex.
    pub certificate_serial: String,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
    /// When it was removed; its certificates are refused from then on.
    pub removed: Option<Timestamp>,
    /// What its agent came with when it last connected; none until it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<CertificateSeen>,
}

/// What an agent has proven when it connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateSeen {
    /// The SHA-256 digest of the CA that issued its certificate, in hex.
    pub ca: String,
    /// When that certificate runs out.
    pub not_after: Timestamp,
    /// The digests of the CAs that it trusts, as they are on its disk.
    pub trusts: Vec<String>,
}

/// Why an identity was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// No such machine.
    #[error("machine {0} was never enrolled; enrol it with a join token")]
    Unknown(MachineName),
    /// It was removed.
    #[error("machine {machine} was removed at {at}; enrol it anew with a join token")]
    Removed {
        /// Which.
        machine: MachineName,
        /// When.
        at: Timestamp,
    },
    /// It was enrolled with another key.
    #[error("machine {0} was enrolled with another key; enrol it anew with a join token")]
    OtherKey(MachineName),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Ledger {
    fn token_key(&self, id: &str) -> Result<String, TokenError> {
        plumb_model::name::check(id).map_err(|source| TokenError::BadId {
            id: id.to_owned(),
            source,
        })?;
        Ok(self.key(&format!("token/{id}")))
    }

    fn machine_key(&self, machine: &MachineName) -> String {
        self.key(&format!("machine/{machine}"))
    }

    /// Stores a new token.
    ///
    /// # Errors
    /// [`TokenError::Exists`] if there is one of that name, which then stays as it is.
    pub fn put_token(&self, token: &TokenRecord) -> Result<(), TokenError> {
        let key = self.token_key(&token.id)?;
        let txn = Txn::default()
            .absent(key.as_str())
            .put(key, records::encode(token));
        match self.commit(txn)? {
            Committed::Yes => Ok(()),
            Committed::Conflict(_) => Err(TokenError::Exists(token.id.clone())),
        }
    }

    /// A token; none too if the id is no name.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn get_token(&self, id: &str) -> Result<Option<TokenRecord>, LedgerError> {
        match self.token_key(id) {
            Ok(key) => self.read(&key),
            Err(_) => Ok(None),
        }
    }

    /// All tokens, by id.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn list_tokens(&self) -> Result<Vec<TokenRecord>, LedgerError> {
        let all = self.read_all(&self.key("token/"))?;
        Ok(all.into_iter().map(|(_, token)| token).collect())
    }

    /// Removes a token, and says whether there was one.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn remove_token(&self, id: &str) -> Result<bool, LedgerError> {
        let Ok(key) = self.token_key(id) else {
            return Ok(false);
        };
        let existed = self.store.get(key.as_bytes())?.is_some();
        // Without a check there is no conflict.
        let _ = self.commit(Txn::default().delete(key))?;
        Ok(existed)
    }

    /// Notes when a token was last used. A token that is gone stays gone.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn touch_token(&self, id: &str, now: Timestamp) -> Result<(), LedgerError> {
        let Ok(key) = self.token_key(id) else {
            return Ok(());
        };
        self.change(&key, |token: Option<TokenRecord>| {
            let token = token.map(|token| TokenRecord {
                last_used: Some(now),
                ..token
            });
            Ok::<_, LedgerError>((token, ()))
        })
    }

    /// Uses a join token up for a machine.
    ///
    /// # Guarantees
    /// Of however many that come with one token, on one server or several, one succeeds, and that is durable when
    /// it returns.
    ///
    /// # Errors
    /// See [`ConsumeError`]; the token is then as it was.
    pub fn consume_join(
        &self,
        id: &str,
        secret: &str,
        machine: &MachineName,
        now: Timestamp,
    ) -> Result<TokenRecord, ConsumeError> {
        let key = self.token_key(id).map_err(|_| ConsumeError::Invalid)?;
        self.change(&key, |token: Option<TokenRecord>| {
            let token = token.ok_or(ConsumeError::Invalid)?;
            // The secret comes first: without it nothing is told about the token.
            let bound = match &token.kind {
                TokenKind::Join { machine } if token.matches(secret) => machine.clone(),
                _ => return Err(ConsumeError::Invalid),
            };
            if let Some(TokenUse { at, machine }) = token.consumed {
                return Err(ConsumeError::Used { at, machine });
            }
            if let Some(expires) = token.expires_at.filter(|_| token.is_expired(now)) {
                return Err(ConsumeError::Expired(expires));
            }
            if let Some(bound) = bound.filter(|bound| bound != machine) {
                return Err(ConsumeError::OtherMachine {
                    bound,
                    machine: machine.clone(),
                });
            }
            let used = TokenRecord {
                last_used: Some(now),
                consumed: Some(TokenUse {
                    at: now,
                    machine: machine.clone(),
                }),
                ..token
            };
            Ok((Some(used.clone()), used))
        })
    }

    /// Stores the identity of a machine that was just enrolled, over an earlier one if there is one: the join
    /// token is the proof.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn put_identity(&self, identity: &MachineIdentity) -> Result<(), LedgerError> {
        let key = self.machine_key(&identity.machine);
        // Without a check there is no conflict.
        let _ = self
            .store
            .commit(Txn::default().put(key, records::encode(identity)))?;
        Ok(())
    }

    /// The identity of a machine, removed ones included; none if it was never enrolled.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn identity(&self, machine: &MachineName) -> Result<Option<MachineIdentity>, LedgerError> {
        self.read(&self.machine_key(machine))
    }

    /// All identities, removed ones included, by name.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn identities(&self) -> Result<Vec<MachineIdentity>, LedgerError> {
        let all = self.read_all(&self.key("machine/"))?;
        Ok(all.into_iter().map(|(_, identity)| identity).collect())
    }

    /// Notes a machine's new certificate, if it has the key that was enrolled and was not removed in the meantime.
    ///
    /// # Errors
    /// See [`IdentityError`]; the identity is then as it was.
    pub fn renew_identity(
        &self,
        machine: &MachineName,
        public_key_sha256: &str,
        certificate_serial: &str,
    ) -> Result<MachineIdentity, IdentityError> {
        self.change(
            &self.machine_key(machine),
            |identity: Option<MachineIdentity>| {
                let identity = identity.ok_or_else(|| IdentityError::Unknown(machine.clone()))?;
                if let Some(at) = identity.removed {
                    return Err(IdentityError::Removed {
                        machine: machine.clone(),
                        at,
                    });
                }
                if identity.public_key_sha256 != public_key_sha256 {
                    return Err(IdentityError::OtherKey(machine.clone()));
                }
                let renewed = MachineIdentity {
                    certificate_serial: certificate_serial.to_owned(),
                    ..identity
                };
                Ok((Some(renewed.clone()), renewed))
            },
        )
    }

    /// Notes what an agent came with. Nothing is written for a machine that was removed, or has another key by now.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn note_seen(
        &self,
        machine: &MachineName,
        public_key_sha256: &str,
        seen: &CertificateSeen,
    ) -> Result<Option<MachineIdentity>, IdentityError> {
        self.change(
            &self.machine_key(machine),
            |identity: Option<MachineIdentity>| {
                let noted = identity
                    .filter(|i| i.removed.is_none() && i.public_key_sha256 == public_key_sha256)
                    .map(|identity| MachineIdentity {
                        seen: Some(seen.clone()),
                        ..identity
                    });
                Ok((noted.clone(), noted))
            },
        )
    }

    /// Removes a machine: from now on its certificates are refused. Removing it again changes nothing.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub fn remove_identity(
        &self,
        machine: &MachineName,
        now: Timestamp,
    ) -> Result<MachineIdentity, IdentityError> {
        self.change(
            &self.machine_key(machine),
            |identity: Option<MachineIdentity>| {
                let identity = identity.ok_or_else(|| IdentityError::Unknown(machine.clone()))?;
                let removed = MachineIdentity {
                    removed: identity.removed.or(Some(now)),
                    ..identity
                };
                Ok((Some(removed.clone()), removed))
            },
        )
    }

    /// Reads a record, has it changed, and writes it if nobody else has written it meanwhile; otherwise again.
    /// Nothing is written where the change gives none.
    fn change<T, R, E>(
        &self,
        key: &str,
        change: impl Fn(Option<T>) -> Result<(Option<T>, R), E>,
    ) -> Result<R, E>
    where
        T: Serialize + DeserializeOwned,
        E: From<LedgerError>,
    {
        let in_store = |e: StoreError| E::from(LedgerError::from(e));
        for _ in 0..ATTEMPTS {
            let before = self.store.get(key.as_bytes()).map_err(in_store)?;
            let record = before
                .as_deref()
                .map(|bytes| records::parse(key, bytes))
                .transpose()?;
            let (after, result) = change(record)?;
            let Some(after) = after else {
                return Ok(result);
            };
            let txn = match before {
                Some(before) => Txn::default().equals(key, before),
                None => Txn::default().absent(key),
            };
            let txn = txn.put(key, records::encode(&after));
            if self.commit(txn)? == Committed::Yes {
                return Ok(result);
            }
        }
        Err(LedgerError::Contended {
            key: key.to_owned(),
        }
        .into())
    }
}
