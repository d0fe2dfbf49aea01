//! Who may call what: the roles, the one table of rules, and the tokens and identities that count in a workspace.
//!
//! `guard` holds every call against the table. Nothing here writes to the ledger: `start` and the services tell of
//! new tokens and identities.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};

use plumb_ledger::{MachineIdentity, TokenKind, TokenRecord};
use plumb_model::{MachineName, Timestamp};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;

use crate::identity::KeyDigest;

/// What a token may do. Each contains those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Read status, history and logs.
    Viewer,
    /// Plan.
    Planner,
    /// Apply, roll back, destroy.
    Deployer,
    /// Stop, hold and recover.
    Operator,
    /// Make tokens and manage machines.
    Admin,
}

impl Role {
    /// Every role, from the least to the most.
    pub const ALL: [Self; 5] = [
        Self::Viewer,
        Self::Planner,
        Self::Deployer,
        Self::Operator,
        Self::Admin,
    ];

    /// The word, as it is stored and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Planner => "planner",
            Self::Deployer => "deployer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role of a word; none if there is no such role.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == word)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Planner => Self::Planner,
            Role::Deployer => Self::Deployer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// What a call must prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing.
    Public,
    /// Nothing here: the message itself carries the proof, a join token or a signature by the enrolled key.
    ProofInMessage,
    /// The certificate of an enrolled machine.
    Machine,
    /// A token of this role or more.
    Role(Role),
}

/// What the table says of one method.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its path.
    pub path: &'static str,
    /// What a call must prove.
    pub rule: Rule,
    /// Whether it changes anything that people rely on. Every such call is noted in the audit log before it is answered.
    pub mutates: bool,
}

const fn reads(path: &'static str, rule: Rule) -> Row {
    Row {
        path,
        rule,
        mutates: false,
    }
}

const fn mutates(path: &'static str, rule: Rule) -> Row {
    Row {
        path,
        rule,
        mutates: true,
    }
}

const VIEWER: Rule = Rule::Role(Role::Viewer);
const PLANNER: Rule = Rule::Role(Role::Planner);
const DEPLOYER: Rule = Rule::Role(Role::Deployer);
const ADMIN: Rule = Rule::Role(Role::Admin);

/// Every method that may be called at all, by whom, and whether it changes anything.
///
/// What agents do day by day does not count as a change: a renewal prolongs what a join has given, and what a session
/// says are observations. A blob that was uploaded means nothing until an apply, which counts, names its digest.
pub const RULES: &[Row] = &[
    mutates("/plumb.v1.Enrollment/Join", Rule::ProofInMessage),
    reads("/plumb.v1.Enrollment/Renew", Rule::ProofInMessage),
    reads("/plumb.v1.Agents/Session", Rule::Machine),
    reads("/plumb.v1.Agents/FetchBlob", Rule::Machine),
    reads("/plumb.v1.Agents/PushLogs", Rule::Machine),
    reads("/plumb.v1.ControlPlane/GetInfo", VIEWER),
    reads("/plumb.v1.ControlPlane/Plan", PLANNER),
    reads("/plumb.v1.ControlPlane/Snapshot", PLANNER),
    mutates("/plumb.v1.ControlPlane/Apply", DEPLOYER),
    reads("/plumb.v1.ControlPlane/SignPlan", PLANNER),
    mutates("/plumb.v1.ControlPlane/ApplySigned", DEPLOYER),
    reads("/plumb.v1.ControlPlane/MissingBlobs", DEPLOYER),
    reads("/plumb.v1.ControlPlane/UploadBlob", DEPLOYER),
    reads("/plumb.v1.ControlPlane/Watch", VIEWER),
    reads("/plumb.v1.ControlPlane/GetStatus", VIEWER),
    reads("/plumb.v1.ControlPlane/History", VIEWER),
    reads("/plumb.v1.ControlPlane/Logs", VIEWER),
    mutates("/plumb.v1.ControlPlane/CreateToken", ADMIN),
    reads("/grpc.health.v1.Health/Check", Rule::Public),
    reads("/grpc.health.v1.Health/Watch", Rule::Public),
    reads(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        VIEWER,
    ),
];

/// What the table says of a method; none: denied.
#[must_use]
pub fn rule(path: &str) -> Option<&'static Row> {
    RULES.iter().find(|row| row.path == path)
}

/// The tokens and identities of one workspace that count now. Shared by the guard and the services.
#[derive(Debug)]
pub struct Access {
    now: fn() -> Timestamp,
    tokens: RwLock<BTreeMap<String, TokenRecord>>,
    machines: RwLock<BTreeMap<MachineName, MachineIdentity>>,
}

impl Access {
    /// Starts with what the ledger holds.
    #[must_use]
    pub fn new(
        now: fn() -> Timestamp,
        tokens: Vec<TokenRecord>,
        machines: Vec<MachineIdentity>,
    ) -> Self {
        let tokens = tokens.into_iter().map(|t| (t.id.clone(), t)).collect();
        let machines = machines
            .into_iter()
            .map(|m| (m.machine.clone(), m))
            .collect();
        Self {
            now,
            tokens: RwLock::new(tokens),
            machines: RwLock::new(machines),
        }
    }

    /// Takes note of a token that the ledger has stored.
    pub fn token_stored(&self, token: TokenRecord) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(token.id.clone(), token);
    }

    /// Takes note of an identity that the ledger has stored.
    pub fn machine_stored(&self, machine: MachineIdentity) {
        let mut machines = self
            .machines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        machines.insert(machine.machine.clone(), machine);
    }

    /// The identity of a machine, if it was ever enrolled.
    #[must_use]
    pub fn machine(&self, name: &MachineName) -> Option<MachineIdentity> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned()
    }

    /// The token of this id, if that is its secret.
    #[must_use]
    pub fn token(&self, id: &str, secret: &str) -> Option<TokenRecord> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens
            .get(id)
            .filter(|record| record.matches(secret))
            .cloned()
    }

    /// The role of a token for the API; none if it has run out, or is for something else.
    #[must_use]
    pub fn role(&self, record: &TokenRecord) -> Option<Role> {
        match &record.kind {
            TokenKind::Api { role, .. } if !record.is_expired((self.now)()) => Role::named(role),
            TokenKind::Api { .. } | TokenKind::Join { .. } => None,
        }
    }
}

/// Whether a machine is enrolled with this key and has not been removed. The one check for calls and for renewal.
pub fn enrolled_key(
    record: Option<&MachineIdentity>,
    machine: &MachineName,
    key: &KeyDigest,
) -> Result<(), Refusal> {
    match record {
        Some(record) if record.removed.is_some() && record.public_key_sha256 == key.0 => {
            Err(Refusal::new(
                Reason::MachineRemoved,
                format!(
                    "machine {machine} has been removed; enrol it anew with `plumb token create --join`"
                ),
            ))
        }
        Some(record) if record.removed.is_none() && record.public_key_sha256 == key.0 => Ok(()),
        _ => Err(Refusal::new(
            Reason::WrongKey,
            format!(
                "machine {machine} is not enrolled with this key; enrol it with `plumb token create --join --machine {machine}`"
            ),
        )),
    }
}
