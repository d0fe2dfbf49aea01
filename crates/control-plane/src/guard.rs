//! Holds every call against its rule, before any service sees it, and finds the workspace that it is for.
//!
//! Guarantees: a path that is not in [`RULES`](crate::access::RULES) is denied, whoever calls; a token counts only by
//! its secret's hash, compared in constant time, and only for the workspace that it was made in, by exact match; a
//! client certificate counts only if this control plane issued it, for the workspace that it names, to the key that is
//! enrolled there now; every change, and every refusal of somebody who was known, is durable in the audit log of its
//! workspace before it is answered; what streams to a token's holder ends with the token. It never reads a request's body. Pages for
//! probes and Prometheus are answered here too, by the same rules.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use plumb_ledger::{Actor, AuditEntry};
use plumb_model::{MachineName, Timestamp, WorkspaceName};
use plumb_wire::client::WORKSPACE_HEADER;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::pages::Page;
use plumb_wire::token::ApiToken;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};

use crate::access::{Role, Row, Rule, enrolled_key, rule};
use crate::audit::{AuditError, Detail, Owners};
use crate::cut;
use crate::identity::{self, CaKeyId, KeyDigest, Peer};
use crate::limits::{Counted, Limits};
use crate::metrics::code_of;
use crate::operations::{METRICS_PAGE, Operations};
use crate::rotation::Authorities;
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

/// The caller that the guard has let in.
pub(crate) fn caller_of<T>(request: &tonic::Request<T>) -> Result<Caller, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    caller.ok_or_else(|| past_the_rules().into())
}

/// What a call gets that no guard has seen.
pub(crate) fn past_the_rules() -> Refusal {
    Refusal::new(
        Reason::NoCredential,
        "this call came past the access rules and is refused; report it",
    )
}

/// The machine that a call came from, in the request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromMachine {
    /// Its name.
    pub name: MachineName,
    /// The key of the certificate that proved it.
    pub key: KeyDigest,
    /// The CA that issued that certificate.
    pub issuer: CaKeyId,
    /// When the certificate runs out.
    pub not_after: Timestamp,
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
    /// With what says when the token counts no more.
    Caller(Caller, Arc<Tenant>, watch::Receiver<bool>),
    Machine(FromMachine, Arc<Tenant>),
}

/// A refusal, and who it was that is refused, where that is known: then it is noted in the audit log of his workspace.
struct Refused {
    refusal: Refusal,
    known: Option<(Actor, Arc<Tenant>)>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            known: None,
        }
    }
}

/// In the request of a call whose proof is in its message: the service that finds it out says here who called, and
/// into which workspace, as soon as that is proven.
#[derive(Clone, Default)]
pub(crate) struct Whose(Arc<OnceLock<(Actor, Arc<Tenant>)>>);

impl Whose {
    /// The slot of a request; one that nobody reads if the guard has left none.
    pub fn of<T>(request: &tonic::Request<T>) -> Self {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .unwrap_or_default()
    }

    /// Says who calls.
    pub fn is(&self, actor: Actor, tenant: Arc<Tenant>) {
        // The first to say so was right.
        let _ = self.0.set((actor, tenant));
    }
}

/// Holds a call against its rule.
fn check(tenants: &Tenants, row: Option<&Row>, shown: &Shown<'_>) -> Result<Proven, Refused> {
    let Some(row) = row else {
        let refusal = Refusal::new(
            Reason::NoSuchMethod,
            "nobody may call this method: it does not exist, or has no access rule in this version of the control plane",
        );
        // Somebody who is known and tries doors is worth a note.
        let known = check_token(tenants, shown, Role::Viewer, false).ok();
        return Err(Refused {
            refusal,
            known: known.map(|(caller, tenant, _)| (Actor::Token(caller.name), tenant)),
        });
    };
    match row.rule {
        Rule::Public | Rule::ProofInMessage => Ok(Proven::Nothing),
        Rule::Machine => check_machine(tenants, shown.certificate)
            .map(|(machine, tenant)| Proven::Machine(machine, tenant)),
        Rule::Role(least) => check_token(tenants, shown, least, false)
            .map(|(caller, tenant, ended)| Proven::Caller(caller, tenant, ended)),
        Rule::AdminOfAll => check_token(tenants, shown, Role::Admin, true)
            .map(|(caller, tenant, ended)| Proven::Caller(caller, tenant, ended)),
    }
}

fn check_token(
    tenants: &Tenants,
    shown: &Shown<'_>,
    least: Role,
    of_all: bool,
) -> Result<(Caller, Arc<Tenant>, watch::Receiver<bool>), Refused> {
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
    let (own, found) = tenants
        .token(&token.id, token.secret.expose())
        .ok_or_else(bad)?;
    let role = own.access.role(&found.record).ok_or_else(bad)?;
    let all = found.record.is_for_all();
    let known = |refusal: Refusal, tenant: &Arc<Tenant>| Refused {
        refusal,
        known: Some((Actor::Token(token.id.clone()), tenant.clone())),
    };
    let tenant = match shown.workspace {
        None => own,
        Some(asked) => asked_workspace(tenants, &own, all, asked, &token.id)
            .map_err(|refusal| known(refusal, &own))?,
    };
    if role < least {
        let refusal = Refusal::new(
            Reason::RoleTooLow,
            format!(
                "the token {} has the role {role}, and this call needs {least}; use a token of that role",
                token.id
            ),
        )
        .with("role", role)
        .with("needed", least);
        return Err(known(refusal, &tenant));
    }
    if of_all && !all {
        let refusal = Refusal::new(
            Reason::RoleTooLow,
            format!(
                "the token {} is for workspace {} only, and this call needs an admin's token for all workspaces, such as `local` of the control plane itself",
                token.id, tenant.workspace
            ),
        );
        return Err(known(refusal, &tenant));
    }
    let caller = Caller {
        name: token.id,
        role,
        all,
    };
    Ok((caller, tenant, found.ended))
}

/// The workspace that a call asks for: the token's own, or any for a token of all. Whoever may not go there is not
/// told whether it exists.
fn asked_workspace(
    tenants: &Tenants,
    own: &Arc<Tenant>,
    all: bool,
    asked: &[u8],
    token: &str,
) -> Result<Arc<Tenant>, Refusal> {
    if asked == own.workspace.as_str().as_bytes() {
        return Ok(own.clone());
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
) -> Result<(FromMachine, Arc<Tenant>), Refused> {
    let certificate = certificate.ok_or_else(|| {
        Refusal::new(
            Reason::NoCredential,
            "this call needs a machine's certificate; enrol the machine with `plumb agent --token`",
        )
    })?;
    let peer = identity::peer(certificate)
        .map_err(|e| Refusal::new(Reason::BadCertificate, e.to_string()))?;
    let tenant = check_peer(tenants, &peer).map_err(|refusal| Refused {
        refusal,
        known: tenants
            .get(&peer.identity.workspace)
            .map(|tenant| (Actor::Machine(peer.identity.machine.clone()), tenant)),
    })?;
    // TLS has looked at it when the connection was made, which may be long ago.
    if tenant.access.now() >= peer.not_after {
        return Err(Refusal::new(
            Reason::CertificateExpired,
            format!(
                "the certificate of machine {} ran out at {}; it may do one thing, renew, which its agent does by itself",
                peer.identity.machine, peer.not_after
            ),
        )
        .into());
    }
    let machine = FromMachine {
        name: peer.identity.machine,
        key: peer.key,
        issuer: peer.issuer,
        not_after: peer.not_after,
    };
    Ok((machine, tenant))
}

/// Refuses a certificate of a CA that was dropped since the connection was made.
fn of_a_trusted_ca(proven: Proven, authorities: &Authorities) -> Result<Proven, Refusal> {
    match &proven {
        Proven::Machine(machine, _) if !authorities.now_in_force().trusts(machine.issuer) => {
            Err(Refusal::new(
                Reason::BadCertificate,
                "the CA that issued the certificate has been replaced; renew it",
            ))
        }
        _ => Ok(proven),
    }
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
pub(crate) struct GuardLayer(pub Arc<Gate>);

/// What the guard holds calls against.
pub(crate) struct Gate {
    /// The workspaces.
    pub tenants: Arc<Tenants>,
    /// The CAs that count.
    pub authorities: Arc<Authorities>,
    /// How often one may call.
    pub limits: Arc<Limits>,
    /// Knows the pages, and is told of every answer.
    pub operations: Operations,
    /// The clock, for the audit log.
    pub now: fn() -> Timestamp,
    /// When it was made: what [`Gate::limits`] counts from.
    pub started: Instant,
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard {
            gate: self.0.clone(),
            inner,
        }
    }
}

/// A call, as far as notes of it go.
struct Call {
    path: String,
    from: Option<IpAddr>,
}

impl Call {
    fn entry(&self, gate: &Gate, who: Actor) -> AuditEntry {
        let method = self.path.trim_start_matches('/');
        AuditEntry {
            at: (gate.now)(),
            who,
            from: self
                .from
                .map(|ip| ip.to_canonical().to_string())
                .unwrap_or_default(),
            method: method
                .strip_prefix("plumb.v1.")
                .unwrap_or(method)
                .to_owned(),
            refused: None,
            detail: String::new(),
            owners: Vec::new(),
        }
    }
}

fn too_often(what: &str, wait: Duration) -> Refusal {
    let ms = wait.as_millis();
    let seconds = wait.as_secs_f64().ceil();
    Refusal::new(
        Reason::RateLimited,
        format!("too many {what} in a short time; try again in {seconds} s"),
    )
    .with("retry_after_ms", ms)
}

impl Gate {
    fn take(&self, counted: Counted) -> Result<(), Duration> {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.limits.take(counted, now_ms)
    }

    /// Counts a refusal of a call that had proven nothing. The refusal, or that there were too many.
    fn unproven(&self, call: &Call, refusal: Refusal) -> Refusal {
        self.limits.note_unproven();
        match self.refused_from(call) {
            Ok(()) => refusal,
            Err(wait) => too_often("refused calls from this address", wait),
        }
    }

    fn refused_from(&self, call: &Call) -> Result<(), Duration> {
        match call.from {
            Some(ip) => self.take(Counted::RefusedSource(Counted::network(ip))),
            None => Ok(()),
        }
    }

    /// What a refused call is answered with, once it is noted or counted.
    async fn refuse(&self, call: &Call, refused: Refused) -> Refusal {
        let Refused { refusal, known } = refused;
        tracing::debug!(
            path = call.path,
            reason = refusal.reason.as_str(),
            "call refused"
        );
        let Some((who, tenant)) = known else {
            return self.unproven(call, refusal);
        };
        let counted = Counted::RefusedCaller(tenant.workspace.to_string(), who.to_string());
        if let Err(wait) = self.take(counted) {
            // Counted, and not noted one by one: the entries before say what goes on.
            return too_often("refused calls of this caller", wait);
        }
        let entry = AuditEntry {
            refused: Some(refusal.reason.as_str().to_owned()),
            detail: refusal.message.clone(),
            ..call.entry(self, who)
        };
        match tenant.audit.append(entry).await {
            Ok(()) => refusal,
            Err(error) => Refusal::new(
                Reason::Storage,
                format!(
                    "the call was refused ({}), and nothing was changed; nor could that be noted in the audit log: {error}",
                    refusal.reason.as_str()
                ),
            ),
        }
    }

    /// Notes what became of a call that may have changed something. The response, or that it could not be noted.
    async fn note(
        &self,
        call: &Call,
        (who, tenant): (Actor, Arc<Tenant>),
        response: Response<Body>,
    ) -> Response<Body> {
        let mut entry = call.entry(self, who);
        if let Some(status) = Status::from_header_map(response.headers())
            && status.code() != tonic::Code::Ok
        {
            let reason = Refusal::of(&status).map(|refusal| refusal.reason.as_str());
            entry.refused =
                Some(reason.map_or_else(|| format!("{:?}", status.code()), str::to_owned));
            entry.detail = status.message().to_owned();
        }
        let extensions = response.extensions();
        if let Some(Detail(detail)) = extensions.get() {
            entry.detail.clone_from(detail);
        }
        if let Some(Owners(owners)) = extensions.get() {
            entry.owners.clone_from(owners);
        }
        let refused = entry.refused.clone();
        let detail = entry.detail.clone();
        match tenant.audit.append(entry).await {
            Ok(()) => response,
            Err(error) => unnoted(&error, refused.as_deref(), &detail),
        }
    }
}

/// The answer to a call that was carried out and could not be noted: what happened, honestly.
fn unnoted(error: &AuditError, refused: Option<&str>, detail: &str) -> Response<Body> {
    let what = match (refused, detail) {
        (Some(reason), _) => format!("the call was refused ({reason}), and nothing was changed"),
        (None, "") => "the call WAS carried out".to_owned(),
        (None, detail) => format!("the call WAS carried out ({detail})"),
    };
    let refusal = Refusal::new(
        Reason::Storage,
        format!(
            "{what}; but it could not be noted in the audit log: {error}; mend the disk of the control plane, restart it, and look at `plumb status` and `plumb history` before you try again"
        ),
    );
    Status::from(refusal).into_http()
}

/// Holds every call against its rule, and leaves in the request's extensions what it has proven: a [`Caller`] or a
/// [`FromMachine`], and the [`Tenant`] that the call is for; or a [`Whose`] for the service to say so.
#[derive(Clone)]
pub(crate) struct Guard<S> {
    gate: Arc<Gate>,
    inner: S,
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() == Method::GET
            && let Some(page) = self.gate.open_page(&request)
        {
            return Box::pin(std::future::ready(Ok(page_response(page))));
        }
        let metrics = self.gate.operations.metrics.clone();
        let row = rule(request.uri().path());
        let page = row.is_some_and(|row| row.path == METRICS_PAGE);
        let began = Instant::now();
        let answer = self.held_against_its_rule(request);
        Box::pin(async move {
            let response = answer.await?;
            metrics.answered(row, code_of(&response), began.elapsed());
            match Status::from_header_map(response.headers()) {
                Some(status) if page => Ok(page_response(refused_page(&status))),
                _ => Ok(response),
            }
        })
    }
}

/// A refusal for somebody who speaks HTTP and no gRPC.
fn refused_page(status: &Status) -> Page {
    let number = match status.code() {
        tonic::Code::Unauthenticated => 401,
        tonic::Code::PermissionDenied => 403,
        tonic::Code::ResourceExhausted => 429,
        tonic::Code::Unavailable => 503,
        _ => 500,
    };
    Page::text(number, format!("{}\n", status.message()))
}

fn page_response(page: Page) -> Response<Body> {
    let mut response = Response::new(Body::new(page.body));
    *response.status_mut() = StatusCode::from_u16(page.status).unwrap_or_default();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(page.content_type),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl<S> Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    fn held_against_its_rule(&mut self, mut request: Request<Body>) -> Answer<S::Error> {
        let gate = self.gate.clone();
        let connection = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let certificates = connection.and_then(TlsConnectInfo::peer_certs);
        let from = source_of(&request);
        let header = |name| request.headers().get(name).map(|value| value.as_bytes());
        let shown = Shown {
            authorization: header(header::AUTHORIZATION.as_str()),
            workspace: header(WORKSPACE_HEADER),
            certificate: certificates
                .as_ref()
                .and_then(|chain| chain.first())
                .map(|certificate| certificate.as_ref()),
        };
        let path = request.uri().path();
        let row = rule(path);
        let proven = check(&gate.tenants, row, &shown)
            .and_then(|proven| Ok(of_a_trusted_ca(proven, &gate.authorities)?));
        // Whatever a proxy or a bug may have left there must not pass for proof.
        let extensions = request.extensions_mut();
        extensions.remove::<Caller>();
        extensions.remove::<FromMachine>();
        extensions.remove::<Arc<Tenant>>();
        extensions.remove::<Whose>();
        // An agent's own calls: the most there are, and the longest. Nothing is wrapped around them.
        if let Ok(Proven::Machine(machine, tenant)) = proven {
            extensions.insert(machine);
            extensions.insert(tenant);
            return Box::pin(self.inner.call(request));
        }
        let call = Call {
            path: request.uri().path().to_owned(),
            from,
        };
        if let Err(refusal) = gate.admit(&call, &proven) {
            return answer(refusal);
        }
        match (row, proven) {
            (_, Err(refused)) => Box::pin(async move {
                let refusal = gate.refuse(&call, refused).await;
                Ok(Status::from(refusal).into_http())
            }),
            (Some(row), Ok(Proven::Caller(caller, tenant, ended))) => {
                if row.mutates
                    && let Err(error) = tenant.audit.ready()
                {
                    return answer(unready(&error));
                }
                if row.path == METRICS_PAGE {
                    return Box::pin(async move {
                        let only = (!caller.all).then_some(&tenant);
                        Ok(page_response(gate.operations.numbers(only).await))
                    });
                }
                let who = (Actor::Token(caller.name.clone()), tenant.clone());
                let mut request = request.map(|body| cut::request(body, ended.clone()));
                request.extensions_mut().insert(caller);
                request.extensions_mut().insert(tenant);
                let answer = self.inner.call(request);
                let mutates = row.mutates;
                Box::pin(async move {
                    let mut response = answer.await?;
                    if mutates {
                        response = gate.note(&call, who, response).await;
                    }
                    Ok(response.map(|body| cut::response(body, ended)))
                })
            }
            (Some(row), Ok(_)) if row.rule == Rule::ProofInMessage => {
                let whose = Whose::default();
                request.extensions_mut().insert(whose.clone());
                let answer = self.inner.call(request);
                let mutates = row.mutates;
                Box::pin(async move {
                    let response = answer.await?;
                    match whose.0.get().cloned() {
                        Some(who) if mutates => Ok(gate.note(&call, who, response).await),
                        Some(_) => Ok(response),
                        None => Ok(gate.count(&call, response)),
                    }
                })
            }
            (_, Ok(_)) => Box::pin(self.inner.call(request)),
        }
    }
}

/// Where a call comes from.
fn source_of<B>(request: &Request<B>) -> Option<IpAddr> {
    let connection = request
        .extensions()
        .get::<TlsConnectInfo<TcpConnectInfo>>()?;
    Some(connection.get_ref().remote_addr()?.ip())
}

fn answer<E: Send + 'static>(refusal: Refusal) -> Answer<E> {
    Box::pin(std::future::ready(Ok(Status::from(refusal).into_http())))
}

fn unready(error: &AuditError) -> Refusal {
    Refusal::new(
        Reason::Storage,
        format!(
            "nothing was changed: the audit log takes no entries ({error}); mend the disk of the control plane, and restart it"
        ),
    )
}

impl Gate {
    /// A page that anybody may read, as often as an address may call.
    fn open_page<B>(&self, request: &Request<B>) -> Option<Page> {
        let page = self.operations.open_page(request.uri().path())?;
        let counted = source_of(request).map(|ip| Counted::Source(Counted::network(ip)));
        match counted.map_or(Ok(()), |counted| self.take(counted)) {
            Ok(()) => Some(page),
            Err(_) => Some(Page::text(429, "too many calls from this address\n")),
        }
    }

    /// Whether a call may come now, however good it is.
    fn admit(&self, call: &Call, proven: &Result<Proven, Refused>) -> Result<(), Refusal> {
        if let Some(ip) = call.from {
            self.take(Counted::Source(Counted::network(ip)))
                .map_err(|wait| too_often("calls from this address", wait))?;
        }
        if let Ok(Proven::Caller(caller, tenant, _)) = proven {
            let workspace = tenant.workspace.to_string();
            self.take(Counted::Token(workspace, caller.name.clone()))
                .map_err(|wait| {
                    too_often(&format!("calls with the token {}", caller.name), wait)
                })?;
        }
        Ok(())
    }

    /// Counts the refusal of a call that did not prove in its message who it was.
    fn count(&self, call: &Call, response: Response<Body>) -> Response<Body> {
        let refused = Status::from_header_map(response.headers())
            .filter(|status| status.code() != tonic::Code::Ok);
        let Some(status) = refused else {
            return response;
        };
        match Refusal::of(&status) {
            Some(refusal) => Status::from(self.unproven(call, refusal)).into_http(),
            None => response,
        }
    }
}

#[cfg(test)]
mod tests;
