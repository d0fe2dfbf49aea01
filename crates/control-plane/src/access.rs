//! Who may call what: one table of rules, held against every call before any service sees it.
//!
//! Guarantees: a path that is not in [`RULES`] is denied, whoever calls; a client certificate counts only if this
//! control plane issued it for this workspace to the key that is enrolled now; a token counts only by its secret's
//! hash, compared in constant time. It never reads a request's body, and never writes to the ledger: `start` and the
//! services tell it of new tokens and identities.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use plumb_ledger::{MachineIdentity, TokenKind, TokenRecord};
use plumb_model::{Lineage, MachineName, Timestamp, WorkspaceName};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::token::ApiToken;
use plumb_wire::v1;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::identity::{self, KeyDigest, Peer};

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

/// Every method that may be called at all, and by whom.
pub const RULES: &[(&str, Rule)] = &[
    ("/plumb.v1.Enrollment/Join", Rule::ProofInMessage),
    ("/plumb.v1.Enrollment/Renew", Rule::ProofInMessage),
    ("/plumb.v1.Agents/Session", Rule::Machine),
    ("/plumb.v1.Agents/FetchBlob", Rule::Machine),
    ("/plumb.v1.Agents/PushLogs", Rule::Machine),
    ("/plumb.v1.ControlPlane/GetInfo", Rule::Role(Role::Viewer)),
    ("/plumb.v1.ControlPlane/Plan", Rule::Role(Role::Planner)),
    ("/plumb.v1.ControlPlane/Snapshot", Rule::Role(Role::Planner)),
    ("/plumb.v1.ControlPlane/Apply", Rule::Role(Role::Deployer)),
    ("/plumb.v1.ControlPlane/SignPlan", Rule::Role(Role::Planner)),
    (
        "/plumb.v1.ControlPlane/ApplySigned",
        Rule::Role(Role::Deployer),
    ),
    (
        "/plumb.v1.ControlPlane/MissingBlobs",
        Rule::Role(Role::Deployer),
    ),
    (
        "/plumb.v1.ControlPlane/UploadBlob",
        Rule::Role(Role::Deployer),
    ),
    ("/plumb.v1.ControlPlane/Watch", Rule::Role(Role::Viewer)),
    ("/plumb.v1.ControlPlane/GetStatus", Rule::Role(Role::Viewer)),
    ("/plumb.v1.ControlPlane/History", Rule::Role(Role::Viewer)),
    ("/plumb.v1.ControlPlane/Logs", Rule::Role(Role::Viewer)),
    (
        "/plumb.v1.ControlPlane/CreateToken",
        Rule::Role(Role::Admin),
    ),
    ("/grpc.health.v1.Health/Check", Rule::Public),
    ("/grpc.health.v1.Health/Watch", Rule::Public),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Role(Role::Viewer),
    ),
];

/// The rule of a method; none: denied.
#[must_use]
pub fn rule(path: &str) -> Option<Rule> {
    RULES
        .iter()
        .find(|(method, _)| *method == path)
        .map(|(_, rule)| *rule)
}

/// The token that a call came with, in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: Role,
}

/// The machine that a call came from, in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromMachine {
    /// Its name.
    pub name: MachineName,
    /// The key of the certificate that proved it.
    pub key: KeyDigest,
}

/// What a call has shown of itself before anything was checked.
#[derive(Debug, Default)]
struct Shown<'a> {
    authorization: Option<&'a [u8]>,
    certificate: Option<&'a [u8]>,
}

/// What a call has proven.
#[derive(Debug, PartialEq, Eq)]
enum Proven {
    Nothing,
    Caller(Caller),
    Machine(FromMachine),
}

/// The tokens and identities that count now. Shared by the guard and the services.
#[derive(Debug)]
pub struct Access {
    lineage: Lineage,
    workspace: WorkspaceName,
    now: fn() -> Timestamp,
    tokens: RwLock<BTreeMap<String, TokenRecord>>,
    machines: RwLock<BTreeMap<MachineName, MachineIdentity>>,
}

impl Access {
    /// Starts with what the ledger holds.
    #[must_use]
    pub fn new(
        lineage: Lineage,
        workspace: WorkspaceName,
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
            lineage,
            workspace,
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

    /// Holds a call against its rule.
    fn check(&self, path: &str, shown: &Shown<'_>) -> Result<Proven, Refusal> {
        let Some(rule) = rule(path) else {
            return Err(Refusal::new(
                Reason::NoSuchMethod,
                "nobody may call this method: it does not exist, or has no access rule in this version of the control plane",
            ));
        };
        match rule {
            Rule::Public | Rule::ProofInMessage => Ok(Proven::Nothing),
            Rule::Machine => self.check_machine(shown.certificate).map(Proven::Machine),
            Rule::Role(least) => self
                .check_token(shown.authorization, least)
                .map(Proven::Caller),
        }
    }

    fn check_token(&self, header: Option<&[u8]>, least: Role) -> Result<Caller, Refusal> {
        let header = header.ok_or_else(|| {
            Refusal::new(
                Reason::NoCredential,
                "this call needs a token; choose a context with --context or PLUMB_CONTEXT",
            )
        })?;
        let bad = || {
            Refusal::new(
                Reason::BadToken,
                "the control plane does not know this token; use the newest context file, or have a token made with `plumb token create`",
            )
        };
        let token: ApiToken = std::str::from_utf8(header)
            .ok()
            .and_then(|text| text.strip_prefix("Bearer "))
            .and_then(|text| text.parse().ok())
            .ok_or_else(bad)?;
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        let record = tokens.get(&token.id).ok_or_else(bad)?;
        let TokenKind::Api { role } = &record.kind else {
            return Err(bad());
        };
        if !record.matches(token.secret.expose()) || record.is_expired((self.now)()) {
            return Err(bad());
        }
        let role = Role::named(role).ok_or_else(bad)?;
        if role < least {
            return Err(Refusal::new(
                Reason::RoleTooLow,
                format!(
                    "the token {} has the role {role}, and this call needs {least}; use a token of that role",
                    token.id
                ),
            )
            .with("role", role)
            .with("needed", least));
        }
        Ok(Caller {
            name: token.id,
            role,
        })
    }

    fn check_machine(&self, certificate: Option<&[u8]>) -> Result<FromMachine, Refusal> {
        let certificate = certificate.ok_or_else(|| {
            Refusal::new(
                Reason::NoCredential,
                "this call needs a machine's certificate; enrol the machine with `plumb agent --token`",
            )
        })?;
        let peer = identity::peer(certificate)
            .map_err(|e| Refusal::new(Reason::BadCertificate, e.to_string()))?;
        self.check_peer(&peer)?;
        Ok(FromMachine {
            name: peer.identity.machine,
            key: peer.key,
        })
    }

    fn check_peer(&self, peer: &Peer) -> Result<(), Refusal> {
        let Peer { identity, key } = peer;
        if identity.lineage != self.lineage || identity.workspace != self.workspace {
            return Err(Refusal::new(
                Reason::BadCertificate,
                "the certificate is for another control plane or workspace; enrol the machine here with `plumb token create --join`",
            ));
        }
        let record = self.machine(&identity.machine);
        enrolled_key(record.as_ref(), &identity.machine, key)
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

/// Puts [`Guard`] around all services of a server.
#[derive(Debug, Clone)]
pub struct GuardLayer(pub Arc<Access>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            access: self.0.clone(),
            inner,
        }
    }
}

/// Holds every call against its rule, and leaves in the request's extensions what it has proven: a [`Caller`] or a
/// [`FromMachine`].
#[derive(Debug, Clone)]
pub struct Guard<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let certificates = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs);
        let shown = Shown {
            authorization: request
                .headers()
                .get(header::AUTHORIZATION)
                .map(|value| value.as_bytes()),
            certificate: certificates
                .as_ref()
                .and_then(|chain| chain.first())
                .map(|certificate| certificate.as_ref()),
        };
        let proven = self.access.check(request.uri().path(), &shown);
        // Whatever a proxy or a bug may have left there must not pass for proof.
        request.extensions_mut().remove::<Caller>();
        request.extensions_mut().remove::<FromMachine>();
        match proven {
            Ok(Proven::Nothing) => {}
            Ok(Proven::Caller(caller)) => {
                request.extensions_mut().insert(caller);
            }
            Ok(Proven::Machine(machine)) => {
                request.extensions_mut().insert(machine);
            }
            Err(refusal) => {
                tracing::debug!(
                    path = request.uri().path(),
                    reason = refusal.reason.as_str(),
                    "call refused"
                );
                let response = Status::from(refusal).into_http();
                return Box::pin(std::future::ready(Ok(response)));
            }
        }
        Box::pin(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use plumb_model::{Hash, Secret};

    use super::*;
    use crate::identity::Identity;

    fn now() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn token(id: &str, kind: TokenKind) -> (TokenRecord, String) {
        let secret = id.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        let secret = format!("{secret:0>64}");
        let record = TokenRecord {
            id: id.to_owned(),
            secret: Hash::of(secret.as_bytes()),
            kind,
            created: now(),
            expires_at: None,
            last_used: None,
            consumed: None,
        };
        let token = ApiToken {
            id: id.to_owned(),
            secret: Secret::new(secret),
        };
        (record, format!("Bearer {}", token.text().expose()))
    }

    fn api(id: &str, role: Role) -> (TokenRecord, String) {
        let role = role.as_str().to_owned();
        token(id, TokenKind::Api { role })
    }

    fn access(tokens: Vec<TokenRecord>, machines: Vec<MachineIdentity>) -> Access {
        Access::new(
            Lineage::from_random([1; 16]),
            WorkspaceName::new("shop").unwrap(),
            now,
            tokens,
            machines,
        )
    }

    /// Threat 22, and 18: nothing that is not listed passes. Mutation: drop a row of [`RULES`], or let `check` return
    /// `Ok(Proven::Nothing)` where `rule` finds none.
    #[test]
    fn every_method_that_is_served_has_one_rule_and_any_other_path_is_denied() {
        let ruled: BTreeSet<&str> = RULES.iter().map(|(path, _)| *path).collect();
        assert_eq!(ruled.len(), RULES.len(), "a path has two rules");
        for method in plumb_wire::METHODS {
            assert!(ruled.contains(method), "{method} has no rule");
        }
        for path in ruled.iter().filter(|p| p.starts_with("/plumb.v1.")) {
            assert!(plumb_wire::METHODS.contains(path), "{path} is not served");
        }
        let (record, bearer) = api("root", Role::Admin);
        let access = access(vec![record], Vec::new());
        for path in [
            "",
            "/",
            "/plumb.v1.ControlPlane/Drop",
            "/plumb.v1.ControlPlane/Plan/",
            "//plumb.v1.ControlPlane/Plan",
            "/plumb.v1.controlplane/plan",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            let shown = Shown {
                authorization: Some(bearer.as_bytes()),
                certificate: None,
            };
            let refusal = access.check(path, &shown).unwrap_err();
            assert_eq!(refusal.reason, Reason::NoSuchMethod, "{path}");
        }
    }

    /// Threat 22: every RPC × every role × nobody. Mutation: compare roles with `<=`, or leave the comparison out.
    #[test]
    fn every_rpc_takes_exactly_the_roles_that_reach_it() {
        let tokens: Vec<_> = Role::ALL
            .iter()
            .map(|role| (*role, api(role.as_str(), *role)))
            .collect();
        let records = tokens
            .iter()
            .map(|(_, (record, _))| record.clone())
            .collect();
        let access = access(records, Vec::new());
        for (path, rule) in RULES {
            let nobody = access.check(path, &Shown::default());
            match rule {
                Rule::Public | Rule::ProofInMessage => assert_eq!(nobody, Ok(Proven::Nothing)),
                Rule::Machine | Rule::Role(_) => {
                    assert_eq!(nobody.unwrap_err().reason, Reason::NoCredential, "{path}");
                }
            }
            for (role, (_, bearer)) in &tokens {
                let shown = Shown {
                    authorization: Some(bearer.as_bytes()),
                    certificate: None,
                };
                let got = access.check(path, &shown);
                match rule {
                    Rule::Public | Rule::ProofInMessage => {}
                    // A token never stands in for a certificate.
                    Rule::Machine => {
                        assert_eq!(got.unwrap_err().reason, Reason::NoCredential, "{path}");
                    }
                    Rule::Role(least) if role >= least => assert!(got.is_ok(), "{path} {role}"),
                    Rule::Role(_) => {
                        assert_eq!(got.unwrap_err().reason, Reason::RoleTooLow, "{path} {role}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_token_counts_only_whole_unexpired_and_of_the_right_kind() {
        let (good, bearer) = api("good", Role::Admin);
        let (join, join_bearer) = token("joiner", TokenKind::Join { machine: None });
        let (mut old, old_bearer) = api("old", Role::Admin);
        old.expires_at = Some(now());
        let (strange, strange_bearer) = token("strange", TokenKind::Api { role: "god".into() });
        let access = access(vec![good, join, old, strange], Vec::new());
        let check = |bearer: &str| {
            let shown = Shown {
                authorization: Some(bearer.as_bytes()),
                certificate: None,
            };
            access.check("/plumb.v1.ControlPlane/GetInfo", &shown)
        };
        assert!(check(&bearer).is_ok());
        let other = api("other", Role::Admin).1;
        let foreign = bearer.replace("good", "gooo");
        let mut flipped = bearer.clone();
        flipped.pop();
        flipped.push('f');
        for bad in [
            join_bearer.as_str(),
            &old_bearer,
            &strange_bearer,
            &other,
            &foreign,
            &flipped,
            &bearer[..bearer.len() - 1],
            "Bearer ",
            "",
            bearer.trim_start_matches("Bearer "),
        ] {
            let refusal = check(bad).unwrap_err();
            assert_eq!(refusal.reason, Reason::BadToken, "{bad}");
            assert!(!refusal.message.contains(bad) || bad.is_empty());
        }
    }

    /// Threat 22 (a foreign workspace) and 19. Mutation: leave one of the comparisons of `check_peer` or
    /// `enrolled_key` out.
    #[test]
    fn a_certificate_counts_only_here_for_the_enrolled_key_of_a_machine_that_was_not_removed() {
        let machine = MachineName::new("web-1").unwrap();
        let key = |c: &str| KeyDigest(c.repeat(64));
        let record = MachineIdentity {
            machine: machine.clone(),
            public_key_sha256: key("a").0,
            certificate_serial: "1".into(),
            enrolled_at: now(),
            removed: None,
        };
        let access = access(Vec::new(), vec![record.clone()]);
        let good = Peer {
            identity: Identity {
                lineage: Lineage::from_random([1; 16]),
                workspace: WorkspaceName::new("shop").unwrap(),
                machine: machine.clone(),
            },
            key: key("a"),
        };
        let check = |change: &dyn Fn(&mut Peer), expected: Option<Reason>| {
            let mut peer = good.clone();
            change(&mut peer);
            let got = access.check_peer(&peer).err().map(|r| r.reason);
            assert_eq!(got, expected, "{peer:?}");
        };
        check(&|_| {}, None);
        check(&|p| p.key = key("b"), Some(Reason::WrongKey));
        check(
            &|p| p.identity.workspace = WorkspaceName::new("shop2").unwrap(),
            Some(Reason::BadCertificate),
        );
        check(
            &|p| p.identity.lineage = Lineage::from_random([2; 16]),
            Some(Reason::BadCertificate),
        );
        check(
            &|p| p.identity.machine = MachineName::new("web-2").unwrap(),
            Some(Reason::WrongKey),
        );
        access.machine_stored(MachineIdentity {
            removed: Some(now()),
            ..record.clone()
        });
        check(&|_| {}, Some(Reason::MachineRemoved));
        // The name is used again: the old key has nothing to do with it.
        access.machine_stored(MachineIdentity {
            public_key_sha256: key("c").0,
            ..record
        });
        check(&|_| {}, Some(Reason::WrongKey));
        check(&|p| p.key = key("c"), None);
    }
}
