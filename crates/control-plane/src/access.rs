//! Who may call what: the roles, the one table of rules, and the tokens and identities that count in a workspace.
//!
//! `guard` holds every call against the table. Nothing here writes to the ledger: `start` and the services tell of
//! new tokens and identities.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};

use plumb_ledger::{MachineIdentity, TokenKind, TokenRecord};
use plumb_model::{MachineName, Timestamp};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tokio::sync::watch;

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
    /// An admin's token that is for all workspaces.
    AdminOfAll,
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
const OPERATOR: Rule = Rule::Role(Role::Operator);
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
    mutates("/plumb.v1.Agents/Rekey", Rule::Machine),
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
    reads("/plumb.v1.Machines/ListMachines", VIEWER),
    reads("/plumb.v1.Machines/GetMachine", VIEWER),
    mutates("/plumb.v1.Machines/RemoveMachine", ADMIN),
    mutates("/plumb.v1.Machines/KeepMachine", ADMIN),
    mutates("/plumb.v1.Machines/RecoverMachines", OPERATOR),
    reads("/plumb.v1.Machines/GetCa", VIEWER),
    mutates("/plumb.v1.Machines/RotateCa", Rule::AdminOfAll),
    reads("/plumb.v1.Rollouts/ListRollouts", VIEWER),
    mutates("/plumb.v1.Rollouts/PauseRollout", DEPLOYER),
    mutates("/plumb.v1.Rollouts/ResumeRollout", DEPLOYER),
    mutates("/plumb.v1.Rollouts/AbortRollout", DEPLOYER),
    reads("/plumb.v1.Rollouts/GetApply", VIEWER),
    mutates("/plumb.v1.Rollouts/CancelApply", DEPLOYER),
    mutates("/plumb.v1.Hands/StopApp", OPERATOR),
    mutates("/plumb.v1.Hands/StartApp", OPERATOR),
    mutates("/plumb.v1.Hands/RestartApp", OPERATOR),
    mutates("/plumb.v1.Hands/HoldResource", OPERATOR),
    mutates("/plumb.v1.Hands/ReleaseResource", OPERATOR),
    reads("/plumb.v1.Hands/ListHands", VIEWER),
    mutates("/plumb.v1.Hands/Reconcile", OPERATOR),
    reads("/plumb.v1.EventLog/ListEvents", VIEWER),
    reads("/plumb.v1.EventLog/WatchEvents", VIEWER),
    reads("/plumb.v1.Access/ListTokens", ADMIN),
    mutates("/plumb.v1.Access/RevokeToken", ADMIN),
    reads("/plumb.v1.Access/ListWorkspaces", VIEWER),
    mutates("/plumb.v1.Access/CreateWorkspace", Rule::AdminOfAll),
    reads("/plumb.v1.Access/ListAudit", ADMIN),
    reads("/plumb.v1.Access/VerifyAudit", ADMIN),
    mutates("/plumb.v1.Secrets/SetSecret", OPERATOR),
    reads("/plumb.v1.Secrets/ListSecrets", VIEWER),
    mutates("/plumb.v1.Secrets/RemoveSecret", OPERATOR),
    mutates("/plumb.v1.Secrets/RotateKey", Rule::AdminOfAll),
    reads("/plumb.v1.Operations/GetHealth", VIEWER),
    // Everything of all workspaces leaves the house: that is worth a note, though it changes nothing.
    mutates("/plumb.v1.Operations/Backup", Rule::AdminOfAll),
    // A page, not a method: the numbers for Prometheus.
    reads(crate::operations::METRICS_PAGE, VIEWER),
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

/// A token that counts now.
#[derive(Debug)]
struct Held {
    record: TokenRecord,
    /// Turns true when the token counts no more: what streams to its holder ends then.
    ended: watch::Sender<bool>,
    /// When it was last used, in milliseconds of Unix time; 0 if not since the last note.
    used_ms: AtomicI64,
}

/// A token whose secret was shown, and what tells of its end.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The token.
    pub record: TokenRecord,
    /// Turns true when it counts no more; so does the end of it.
    pub ended: watch::Receiver<bool>,
}

/// The tokens and the identities of one workspace that count now. Shared by the guard and the services. Join tokens that
/// have served are not among them: there may be as many as machines.
#[derive(Debug)]
pub struct Access {
    now: fn() -> Timestamp,
    tokens: RwLock<BTreeMap<String, Held>>,
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
        let machines = machines
            .into_iter()
            .map(|m| (m.machine.clone(), m))
            .collect();
        let access = Self {
            now,
            tokens: RwLock::default(),
            machines: RwLock::new(machines),
        };
        for token in tokens {
            access.token_stored(token);
        }
        access
    }

    /// Takes note of a token that the ledger has stored.
    pub fn token_stored(&self, token: TokenRecord) {
        // One that has served is of no use to anybody; the ledger keeps it for those who ask.
        if token.consumed.is_some() {
            return;
        }
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        let held = Held {
            record: token,
            ended: watch::Sender::new(false),
            used_ms: AtomicI64::new(0),
        };
        tokens.insert(held.record.id.clone(), held);
    }

    /// Takes note of a token that the ledger has let go: it is refused from now on, and its streams end.
    pub fn token_revoked(&self, id: &str) {
        let mut tokens = self.tokens.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever watches sees its end.
        tokens.remove(id);
    }

    /// Ends the streams of tokens that have run out.
    pub fn end_expired(&self) {
        let now = (self.now)();
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        for held in tokens.values().filter(|held| held.record.is_expired(now)) {
            held.ended
                .send_if_modified(|ended| !std::mem::replace(ended, true));
        }
    }

    /// The tokens that were used since the last call of this, with when.
    #[must_use]
    pub fn take_uses(&self) -> Vec<(String, Timestamp)> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let uses = tokens.iter().filter_map(|(id, held)| {
            let ms = held.used_ms.swap(0, Ordering::Relaxed);
            Some((id.clone(), at(ms)?))
        });
        uses.collect()
    }

    /// When a token was used since that was last noted in the ledger.
    #[must_use]
    pub fn used_since(&self, id: &str) -> Option<Timestamp> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        at(tokens.get(id)?.used_ms.load(Ordering::Relaxed))
    }

    /// Takes note of an identity that the ledger has stored.
    pub fn machine_stored(&self, machine: MachineIdentity) {
        let mut machines = self
            .machines
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        machines.insert(machine.machine.clone(), machine);
    }

    /// The clock's time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Every machine that was ever enrolled, by name: at most `limit`, behind the one given.
    #[must_use]
    pub fn machines_after(
        &self,
        after: Option<&MachineName>,
        limit: usize,
    ) -> Vec<MachineIdentity> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines
            .range::<MachineName, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, identity)| identity.clone())
            .collect()
    }

    /// Looks at every machine that was ever enrolled.
    pub fn each_machine(&self, look: impl FnMut(&MachineIdentity)) {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.values().for_each(look);
    }

    /// Looks at every token.
    pub fn each_token(&self, look: impl FnMut(&TokenRecord)) {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        tokens.values().map(|held| &held.record).for_each(look);
    }

    /// The identity of a machine, if it was ever enrolled.
    #[must_use]
    pub fn machine(&self, name: &MachineName) -> Option<MachineIdentity> {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.get(name).cloned()
    }

    /// How many machines are enrolled and were not removed.
    #[must_use]
    pub fn machines(&self) -> usize {
        let machines = self.machines.read().unwrap_or_else(PoisonError::into_inner);
        machines.values().filter(|m| m.removed.is_none()).count()
    }

    /// The token of this id, if that is its secret, and with it the time of its last use.
    #[must_use]
    pub fn token(&self, id: &str, secret: &str) -> Option<Shown> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let held = tokens.get(id).filter(|held| held.record.matches(secret))?;
        held.used_ms
            .store((self.now)().as_millisecond(), Ordering::Relaxed);
        Some(Shown {
            record: held.record.clone(),
            ended: held.ended.subscribe(),
        })
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

/// A time that was noted in milliseconds; 0 is none.
fn at(ms: i64) -> Option<Timestamp> {
    (ms != 0)
        .then(|| Timestamp::from_millisecond(ms).ok())
        .flatten()
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
                "machine {machine} is not enrolled with this key; enrol it with `plumb token create --join --machine {machine}`, and start its agent with an empty data folder"
            ),
        )),
    }
}
