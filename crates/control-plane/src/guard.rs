//! Holds every call against its rule, before any service sees it, and finds the workspace that it is for.
//!
//! Guarantees: a path that is not in [`RULES`](crate::access::RULES) is denied, whoever calls; a token counts only by
//! its secret's hash, compared in constant time, and only for the workspace that it was made in, by exact match; a
//! client certificate counts only if this control plane issued it, for the workspace that it names, to the key that is
//! enrolled there now. It never reads a request's body.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use plumb_model::{MachineName, WorkspaceName};
use plumb_wire::client::WORKSPACE_HEADER;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::token::ApiToken;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::access::{Role, Rule, enrolled_key, rule};
use crate::identity::{self, KeyDigest, Peer};
use crate::tenants::{Tenant, Tenants};

/// The token that a call came with, in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Whether it is for every workspace of this control plane.
    pub all: bool,
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
    workspace: Option<&'a [u8]>,
    certificate: Option<&'a [u8]>,
}

/// What a call has proven.
enum Proven {
    Nothing,
    Caller(Caller, Arc<Tenant>),
    Machine(FromMachine, Arc<Tenant>),
}

/// Holds a call against its rule.
fn check(tenants: &Tenants, path: &str, shown: &Shown<'_>) -> Result<Proven, Refusal> {
    let Some(row) = rule(path) else {
        return Err(Refusal::new(
            Reason::NoSuchMethod,
            "nobody may call this method: it does not exist, or has no access rule in this version of the control plane",
        ));
    };
    match row.rule {
        Rule::Public | Rule::ProofInMessage => Ok(Proven::Nothing),
        Rule::Machine => check_machine(tenants, shown.certificate)
            .map(|(machine, tenant)| Proven::Machine(machine, tenant)),
        Rule::Role(least) => check_token(tenants, shown, least)
            .map(|(caller, tenant)| Proven::Caller(caller, tenant)),
    }
}

fn check_token(
    tenants: &Tenants,
    shown: &Shown<'_>,
    least: Role,
) -> Result<(Caller, Arc<Tenant>), Refusal> {
    let header = shown.authorization.ok_or_else(|| {
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
    let (own, record) = tenants
        .token(&token.id, token.secret.expose())
        .ok_or_else(bad)?;
    let role = own.access.role(&record).ok_or_else(bad)?;
    let all = record.is_for_all();
    let tenant = match shown.workspace {
        None => own,
        Some(asked) => asked_workspace(tenants, own, all, asked, &token.id)?,
    };
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
    let caller = Caller {
        name: token.id,
        role,
        all,
    };
    Ok((caller, tenant))
}

/// The workspace that a call asks for: the token's own, or any for a token of all. Whoever may not go there is not
/// told whether it exists.
fn asked_workspace(
    tenants: &Tenants,
    own: Arc<Tenant>,
    all: bool,
    asked: &[u8],
    token: &str,
) -> Result<Arc<Tenant>, Refusal> {
    if asked == own.workspace.as_str().as_bytes() {
        return Ok(own);
    }
    if !all {
        return Err(Refusal::new(
            Reason::OtherWorkspace,
            format!(
                "the token {token} is for workspace {}, and this call is for another; use a token of that workspace",
                own.workspace
            ),
        )
        .with("workspace", &own.workspace));
    }
    std::str::from_utf8(asked)
        .ok()
        .and_then(|name| WorkspaceName::new(name).ok())
        .and_then(|name| tenants.get(&name))
        .ok_or_else(|| {
            Refusal::new(
                Reason::NotFound,
                "there is no such workspace on this control plane; `plumb workspace list` shows those that are",
            )
        })
}

fn check_machine(
    tenants: &Tenants,
    certificate: Option<&[u8]>,
) -> Result<(FromMachine, Arc<Tenant>), Refusal> {
    let certificate = certificate.ok_or_else(|| {
        Refusal::new(
            Reason::NoCredential,
            "this call needs a machine's certificate; enrol the machine with `plumb agent --token`",
        )
    })?;
    let peer = identity::peer(certificate)
        .map_err(|e| Refusal::new(Reason::BadCertificate, e.to_string()))?;
    let tenant = check_peer(tenants, &peer)?;
    let machine = FromMachine {
        name: peer.identity.machine,
        key: peer.key,
    };
    Ok((machine, tenant))
}

fn check_peer(tenants: &Tenants, peer: &Peer) -> Result<Arc<Tenant>, Refusal> {
    let Peer { identity, key, .. } = peer;
    let tenant = tenants
        .get(&identity.workspace)
        .filter(|_| identity.lineage == *tenants.lineage())
        .ok_or_else(|| {
            Refusal::new(
                Reason::BadCertificate,
                "the certificate is for another control plane or workspace; enrol the machine here with `plumb token create --join`",
            )
        })?;
    let record = tenant.access.machine(&identity.machine);
    enrolled_key(record.as_ref(), &identity.machine, key)?;
    Ok(tenant)
}

/// Puts [`Guard`] around all services of a server.
#[derive(Clone)]
pub(crate) struct GuardLayer(pub Arc<Tenants>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            tenants: self.0.clone(),
            inner,
        }
    }
}

/// Holds every call against its rule, and leaves in the request's extensions what it has proven: a [`Caller`] or a
/// [`FromMachine`], and the [`Tenant`] that the call is for.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    tenants: Arc<Tenants>,
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
        let header = |name| request.headers().get(name).map(|value| value.as_bytes());
        let shown = Shown {
            authorization: header(header::AUTHORIZATION.as_str()),
            workspace: header(WORKSPACE_HEADER),
            certificate: certificates
                .as_ref()
                .and_then(|chain| chain.first())
                .map(|certificate| certificate.as_ref()),
        };
        let proven = check(&self.tenants, request.uri().path(), &shown);
        // Whatever a proxy or a bug may have left there must not pass for proof.
        let extensions = request.extensions_mut();
        extensions.remove::<Caller>();
        extensions.remove::<FromMachine>();
        extensions.remove::<Arc<Tenant>>();
        match proven {
            Ok(Proven::Nothing) => {}
            Ok(Proven::Caller(caller, tenant)) => {
                extensions.insert(caller);
                extensions.insert(tenant);
            }
            Ok(Proven::Machine(machine, tenant)) => {
                extensions.insert(machine);
                extensions.insert(tenant);
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
mod tests;
