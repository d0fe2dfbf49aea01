//! The `Machines` service: who is there, who is no more, which of two is the machine, and by which CA all are known.
//!
//! It never decides what a machine holds; whether two agents are one machine is the fleet's to find, and when a step of a
//! rotation is due is [`rotation::due`]'s. [`Rotating`] carries the steps out, by itself once a rotation has begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plumb_dispatch::protocol::ToAgent;
use plumb_dispatch::view::MachineView;
use plumb_ledger::{MachineIdentity, TokenKind};
use plumb_model::capability::MachineFacts;
use plumb_model::{Generation, MachineName, Timestamp};
use plumb_wire::convert::{parse, parse_optional};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::audit::Detail;
use crate::guard::{Caller, FromMachine};
use crate::identity::{self, Identity, Issued, requested_key};
use crate::refuse;
use crate::roster::Order;
use crate::rotation::{self, Authorities, Cas, Dependents, Due, Phase, RotationError};
use crate::tenants::{Tenant, Tenants, tenant_of};
use crate::tls::{Tls, TlsError};

/// The most machines on one page.
const PAGE: usize = 500;

/// How many are on a page that nobody asked to be of a size.
const USUAL_PAGE: usize = 100;

/// How many names of those who hold a rotation up are told.
const NAMED: usize = 100;

/// How often is looked whether a rotation can go on.
const LOOK: Duration = Duration::from_secs(1);

/// Within how long one agent that has come is to renew, in milliseconds.
pub(crate) const RENEW_SOON_MS: u64 = 2_000;

/// How much longer that is for each machine when all are asked at once, in milliseconds: 100 handshakes and signatures a
/// second are a tenth of one core.
const RENEW_EACH_MS: u64 = 10;

/// The fewest characters by which an instance is named.
const MIN_INSTANCE: usize = 4;

/// The `Machines` service.
pub(crate) struct Machines {
    pub rotating: Rotating,
}

/// What a rotation of the CA needs.
#[derive(Clone)]
pub(crate) struct Rotating {
    pub authorities: Arc<Authorities>,
    pub tls: Arc<Tls>,
    pub tenants: Arc<Tenants>,
    pub now: fn() -> Timestamp,
}

fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| {
            Refusal::new(
                Reason::NoCredential,
                "this call came past the access rules and is refused; report it",
            )
            .into()
        })
}

/// An answer with what the audit log is to say of it.
fn noting<T>(answer: T, detail: String) -> Response<T> {
    let mut response = Response::new(answer);
    response.extensions_mut().insert(Detail(detail));
    response
}

fn closing() -> Refusal {
    Refusal::new(
        Reason::Closing,
        "the control plane is going down; try again",
    )
}

fn time(at: Option<Timestamp>) -> String {
    at.map(|at| at.to_string()).unwrap_or_default()
}

fn identity_of(identity: &MachineIdentity) -> v1::MachineIdentity {
    let seen = identity.seen.as_ref();
    v1::MachineIdentity {
        enrolled_at: identity.enrolled_at.to_string(),
        removed_at: time(identity.removed),
        public_key_sha256: identity.public_key_sha256.clone(),
        certificate_serial: identity.certificate_serial.clone(),
        certificate_not_after: time(seen.map(|seen| seen.not_after)),
        ca: seen.map(|seen| seen.ca.clone()).unwrap_or_default(),
    }
}

/// One machine, from what the fleet and the ledger know of it.
fn machine_of(
    tenant: &Tenant,
    name: &MachineName,
    view: Option<&MachineView>,
    facts: Option<&MachineFacts>,
    identity: Option<&MachineIdentity>,
) -> v1::Machine {
    let removed = identity.is_some_and(|identity| identity.removed.is_some());
    let (state, message) = match view {
        Some(view) => (
            view.state.as_str().replace(' ', "_"),
            view.message.clone().unwrap_or_default(),
        ),
        None if removed => (
            "removed".to_owned(),
            format!(
                "it was removed; enrol another under its name with `plumb token create --join --machine {name}`"
            ),
        ),
        None => (
            "never_seen".to_owned(),
            format!(
                "it is enrolled and in no blueprint, and its agent is not connected; start `plumb agent` on it, or remove it with `plumb machine remove {name}`"
            ),
        ),
    };
    let instances = tenant.roster.heard(name).into_iter().map(|seen| {
        let from = seen.from.map(|from| from.to_string());
        v1::AgentInstance {
            instance: seen.instance,
            from: from.unwrap_or_default(),
            last_seen: seen.at.to_string(),
        }
    });
    v1::Machine {
        name: name.to_string(),
        online: view.is_some_and(|view| view.online),
        state,
        message,
        last_seen: time(view.and_then(|view| view.last_seen)),
        facts: facts.map(v1::MachineFacts::from),
        generation: view.map_or(0, |view| view.generation.0),
        held: view.map_or(0, |view| view.acked.0),
        resources: view.map_or(0, |view| view.counts.total),
        converged: view.map_or(0, |view| view.counts.converged),
        identity: identity.map(identity_of),
        instances: instances.collect(),
    }
}

/// Machines by name behind the one given, from both the fleet and the ledger; one more than `limit` if there are more.
async fn machines_of(
    tenant: &Tenant,
    after: Option<MachineName>,
    limit: usize,
) -> Result<Vec<v1::Machine>, Refusal> {
    let from = after.clone();
    let known = tenant
        .gateway
        .look(move |fleet| {
            let views = fleet.machine_views(from.as_ref(), limit + 1);
            views
                .into_iter()
                .map(|view| {
                    let facts = fleet.facts_of(&view.name).cloned();
                    (view.name.clone(), (view, facts))
                })
                .collect::<BTreeMap<_, _>>()
        })
        .await
        .ok_or_else(closing)?;
    let enrolled: BTreeMap<MachineName, MachineIdentity> = tenant
        .access
        .machines_after(after.as_ref(), limit + 1)
        .into_iter()
        .map(|identity| (identity.machine.clone(), identity))
        .collect();
    let names: BTreeSet<&MachineName> = known.keys().chain(enrolled.keys()).collect();
    let machines = names.into_iter().take(limit + 1).map(|name| {
        let (view, facts) = match known.get(name) {
            Some((view, facts)) => (Some(view), facts.as_ref()),
            None => (None, None),
        };
        machine_of(tenant, name, view, facts, enrolled.get(name))
    });
    Ok(machines.collect())
}

#[tonic::async_trait]
impl v1::machines_server::Machines for Machines {
    async fn list_machines(
        &self,
        request: Request<v1::ListMachinesRequest>,
    ) -> Result<Response<v1::ListMachinesResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let after = parse_optional::<MachineName>("page_token", &request.page_token)
            .map_err(Refusal::from)?;
        let limit = match request.page_size as usize {
            0 => USUAL_PAGE,
            size => size.min(PAGE),
        };
        let mut machines = machines_of(&tenant, after, limit).await?;
        let more = machines.len() > limit;
        machines.truncate(limit);
        let next_page_token = match machines.last() {
            Some(last) if more => last.name.clone(),
            _ => String::new(),
        };
        Ok(Response::new(v1::ListMachinesResponse {
            machines,
            next_page_token,
        }))
    }

    async fn get_machine(
        &self,
        request: Request<v1::GetMachineRequest>,
    ) -> Result<Response<v1::GetMachineResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let name: MachineName = parse("name", &request.get_ref().name).map_err(Refusal::from)?;
        let asked = name.clone();
        let known = tenant
            .gateway
            .look(move |fleet| {
                let view = fleet.machine_view(&asked)?;
                Some((view, fleet.facts_of(&asked).cloned()))
            })
            .await
            .ok_or_else(closing)?;
        let identity = tenant.access.machine(&name);
        if known.is_none() && identity.is_none() {
            return Err(refuse::unknown_machine(&name).into());
        }
        let (view, facts) = known.map_or((None, None), |(view, facts)| (Some(view), facts));
        let machine = machine_of(
            &tenant,
            &name,
            view.as_ref(),
            facts.as_ref(),
            identity.as_ref(),
        );
        Ok(Response::new(v1::GetMachineResponse {
            machine: Some(machine),
        }))
    }

    async fn remove_machine(
        &self,
        request: Request<v1::RemoveMachineRequest>,
    ) -> Result<Response<v1::RemoveMachineResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let name: MachineName = parse("name", &request.name).map_err(Refusal::from)?;
        let asked = name.clone();
        let view = tenant
            .gateway
            .look(move |fleet| fleet.machine_view(&asked))
            .await
            .ok_or_else(closing)?;
        let resources = view.map_or(0, |view| view.counts.total);
        if tenant.access.machine(&name).is_none() {
            return Err(Refusal::new(
                Reason::NotFound,
                format!("machine {name} was never enrolled, so there is nothing to remove; `plumb machine list` shows those that are"),
            )
            .into());
        }
        if resources > 0 && !request.force {
            return Err(Refusal::new(
                Reason::MachineInUse,
                format!(
                    "{resources} resources are recorded on machine {name}; take it out of the blueprints and apply first, so that they are removed from it, or give it up with `plumb machine remove {name} --force`"
                ),
            )
            .with("resources", resources)
            .into());
        }
        let (ledger, removing, now) = (tenant.ledger.clone(), name.clone(), (self.rotating.now)());
        // The same turn as joins and renewals, so that none of them comes in between.
        let turn = tenant.enrolling.clone().lock_owned().await;
        let access = tenant.access.clone();
        let removed = refuse::blocking(move || {
            let _turn = turn;
            let removed = ledger
                .remove_identity(&removing, now)
                .map_err(|e| refuse::record(&e))?;
            access.machine_stored(removed.clone());
            Ok(removed)
        })
        .await?;
        tenant.identity_moved(&name, true).await;
        tracing::info!(machine = %name, "machine removed");
        let force = if request.force { ", forced" } else { "" };
        let detail = format!("machine {name}{force}, {resources} resources recorded on it");
        let answer = v1::RemoveMachineResponse {
            removed_at: time(removed.removed),
            resources,
        };
        Ok(noting(answer, detail))
    }

    async fn keep_machine(
        &self,
        request: Request<v1::KeepMachineRequest>,
    ) -> Result<Response<v1::KeepMachineResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let name: MachineName = parse("name", &request.name).map_err(Refusal::from)?;
        let instance = instance(&tenant, &name, &request.instance)?;
        let code = identity::random::<16>().map_err(|e| refuse::storage(&e))?;
        let code: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
        let order = Order {
            instance: instance.clone(),
            code: code.clone(),
        };
        tenant.roster.order(&name, order);
        // Only to the one that is kept: the other one may be connected just now.
        let (asked, wanted) = (name.clone(), instance.clone());
        let here = tenant
            .gateway
            .look(move |fleet| fleet.instance_of(&asked).is_some_and(|now| now == wanted))
            .await
            .ok_or_else(closing)?;
        let told = here
            && tenant
                .gateway
                .tell(name.clone(), ToAgent::Rekey { code })
                .await;
        let detail = format!("machine {name}, agent {instance}");
        Ok(noting(v1::KeepMachineResponse { instance, told }, detail))
    }

    async fn recover_machines(
        &self,
        request: Request<v1::RecoverMachinesRequest>,
    ) -> Result<Response<v1::RecoverMachinesResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let by = caller(&request)?.name;
        let names = request
            .into_inner()
            .names
            .iter()
            .map(|name| parse::<MachineName>("names", name))
            .collect::<Result<BTreeSet<_>, _>>()
            .map_err(Refusal::from)?;
        let mut held: BTreeMap<MachineName, Generation> = tenant
            .gateway
            .look(|fleet| {
                let regressed = fleet.regressed();
                regressed.map(|(name, held)| (name.clone(), held)).collect()
            })
            .await
            .ok_or_else(closing)?;
        if let Some(other) = names.iter().find(|name| !held.contains_key(*name)) {
            return Err(Refusal::new(
                Reason::WrongState,
                format!("machine {other} does not hold more than is recorded, as far as it was heard since this control plane started; `plumb machine list` shows which do"),
            )
            .with("machine", other)
            .into());
        }
        if !names.is_empty() {
            held.retain(|name, _| names.contains(name));
        }
        if held.is_empty() {
            return Ok(Response::new(v1::RecoverMachinesResponse::default()));
        }
        let (revision, recovered) = tenant.recorder.recover(by, held).await?;
        let machines: Vec<v1::RecoveredMachine> = recovered
            .into_iter()
            .map(|(name, recovered)| v1::RecoveredMachine {
                name: name.into(),
                held: recovered.held.0,
                generation: recovered.generation.0,
            })
            .collect();
        let names: Vec<&str> = machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        let detail = format!("revision {revision}: {}", names.join(", "));
        let answer = v1::RecoverMachinesResponse {
            machines,
            revision: revision.0,
        };
        Ok(noting(answer, detail))
    }

    async fn get_ca(
        &self,
        request: Request<v1::GetCaRequest>,
    ) -> Result<Response<v1::GetCaResponse>, Status> {
        let caller = caller(&request)?;
        let rotating = self.rotating.clone();
        let cas = refuse::blocking(move || {
            rotating
                .authorities
                .told(&caller.name)
                .map_err(|e| refuse::identity(&e))?;
            Ok(rotating.authorities.now_in_force())
        })
        .await?;
        Ok(Response::new(self.rotating.told(&cas)))
    }

    async fn rotate_ca(
        &self,
        request: Request<v1::RotateCaRequest>,
    ) -> Result<Response<v1::GetCaResponse>, Status> {
        use v1::rotate_ca_request::Step;
        let caller = caller(&request)?;
        let step = match request.into_inner().step() {
            Step::Unspecified => {
                return Err(Refusal::new(Reason::BadMessage, "no step is named").into());
            }
            Step::Begin => Authorities::begin,
            Step::Finish => Authorities::finish,
        };
        let cas = self.rotating.step(step, Some(caller.name)).await?;
        let detail = format!("CA {}, {}", cas.issuing().digest(), cas.phase().as_str());
        Ok(noting(self.rotating.told(&cas), detail))
    }
}

/// The one instance of a machine whose name begins so.
fn instance(tenant: &Tenant, machine: &MachineName, start: &str) -> Result<String, Refusal> {
    let heard = tenant.roster.heard(machine);
    let known = || {
        let names: Vec<String> = heard
            .iter()
            .map(|seen| seen.instance.chars().take(8).collect())
            .collect();
        match names.is_empty() {
            true => {
                format!("no agent of machine {machine} was heard since this control plane started")
            }
            false => format!("there are: {}", names.join(", ")),
        }
    };
    if start.len() < MIN_INSTANCE {
        return Err(Refusal::new(
            Reason::BadMessage,
            format!(
                "name the agent that stays by at least {MIN_INSTANCE} characters of its instance; {}",
                known()
            ),
        ));
    }
    let mut found = heard.iter().filter(|seen| seen.instance.starts_with(start));
    match (found.next(), found.next()) {
        (Some(seen), None) => Ok(seen.instance.clone()),
        (Some(_), Some(_)) => Err(Refusal::new(
            Reason::BadMessage,
            format!("more than one agent's instance begins so; {}", known()),
        )),
        (None, _) => Err(Refusal::new(
            Reason::NotFound,
            format!("no agent's instance begins so; {}", known()),
        )),
    }
}

/// Enrols another key for a machine, as it was ordered to take one. The one of the certificate that the call came with
/// counts no more when this returns.
pub(crate) async fn rekey(
    tenant: Arc<Tenant>,
    cas: Arc<Cas>,
    machine: FromMachine,
    request: v1::RekeyRequest,
) -> Result<Issued, Refusal> {
    let order = tenant.roster.ordered(&machine.name);
    if order.is_none_or(|order| order.code != request.code) {
        return Err(Refusal::new(
            Reason::NotFound,
            format!(
                "this agent of machine {} was not told to take another key",
                machine.name
            ),
        ));
    }
    let key = requested_key(&request.csr_der).map_err(|e| refuse::csr(&e))?;
    let turn = tenant.enrolling.clone().lock_owned().await;
    let (working, name) = (tenant.clone(), machine.name.clone());
    let issued = refuse::blocking(move || {
        let _turn = turn;
        let now = working.access.now();
        let before = working.access.machine(&machine.name);
        // It may have been removed, or enrolled anew, while this one waited for its turn.
        crate::access::enrolled_key(before.as_ref(), &machine.name, &machine.key)?;
        let identity = Identity {
            lineage: working.ledger.lineage().clone(),
            workspace: working.workspace.clone(),
            machine: machine.name.clone(),
        };
        let issued = cas
            .issuing()
            .issue(&key, &identity, now)
            .map_err(|e| refuse::identity(&e))?;
        let record = MachineIdentity {
            machine: machine.name.clone(),
            public_key_sha256: key.digest.0,
            certificate_serial: issued.serial.clone(),
            enrolled_at: before.map_or(now, |before| before.enrolled_at),
            removed: None,
            seen: None,
        };
        working
            .ledger
            .put_identity(&record)
            .map_err(|e| refuse::ledger(&e))?;
        working.access.machine_stored(record);
        tracing::info!(machine = %machine.name, "machine has another key");
        Ok(issued)
    })
    .await?;
    tenant.identity_moved(&name, false).await;
    Ok(issued)
}

impl Rotating {
    /// Takes a step, and has it come into force everywhere.
    async fn step(
        &self,
        step: fn(&Authorities, Timestamp) -> Result<Arc<Cas>, RotationError>,
        by: Option<String>,
    ) -> Result<Arc<Cas>, Refusal> {
        let this = self.clone();
        let cas = refuse::blocking(move || {
            let cas = step(&this.authorities, (this.now)()).map_err(|e| rotation_refused(&e))?;
            if let Some(by) = by {
                // Whoever takes a step is told of it.
                this.authorities
                    .told(&by)
                    .map_err(|e| refuse::identity(&e))?;
            }
            this.tls.set(&cas).map_err(|e| tls_refused(&e))?;
            Ok(cas)
        })
        .await?;
        tracing::info!(phase = cas.phase().as_str(), ca = %cas.issuing().digest(), "the CA is being rotated");
        for tenant in self.tenants.list() {
            if cas.phase() == Phase::Steady {
                tenant.gateway.cut_untrusted(cas.clone()).await;
            } else {
                let mut machines = 0;
                tenant.access.each_machine(|_| machines += 1);
                tenant
                    .gateway
                    .renew_all(RENEW_SOON_MS + RENEW_EACH_MS * machines)
                    .await;
            }
        }
        Ok(cas)
    }

    /// Takes every step of a rotation once it is due, for as long as the control plane runs.
    pub async fn keep_going(self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let cas = self.authorities.now_in_force();
            if cas.phase() == Phase::Steady {
                continue;
            }
            let step = match rotation::due(cas.phase(), &self.dependents(&cas)) {
                None => continue,
                Some(Due::Issue) => Authorities::issue,
                Some(Due::Finish) => Authorities::finish,
            };
            if let Err(refusal) = self.step(step, None).await {
                tracing::warn!("a rotation of the CA does not go on: {}", refusal.message);
            }
        }
    }

    /// Who would be lost if the older CA were dropped now.
    fn dependents(&self, cas: &Cas) -> Dependents {
        let mut left = Dependents::default();
        let (Some(old), Some(new)) = (cas.leaving(), cas.coming()) else {
            return left;
        };
        let (old, new) = (old.digest().to_string(), new.digest().to_string());
        let tenants = self.tenants.list();
        // One workspace's names need no more words.
        let shown = |tenant: &Tenant, name: &str| match tenants.len() {
            1 => name.to_owned(),
            _ => format!("{}/{name}", tenant.workspace),
        };
        let now = (self.now)();
        for tenant in &tenants {
            tenant.access.each_machine(|machine| {
                if machine.removed.is_some() {
                    return;
                }
                let name = || shown(tenant, machine.machine.as_str());
                match &machine.seen {
                    Some(seen) if seen.trusts.contains(&new) => {
                        if seen.ca == old {
                            left.on_old.push(name());
                        }
                    }
                    _ => {
                        left.unaware.push(name());
                        left.on_old.push(name());
                    }
                }
            });
            tenant.access.each_token(|token| {
                if token.is_expired(now) {
                    return;
                }
                match &token.kind {
                    TokenKind::Api { .. } if !cas.has_told(&token.id) => {
                        left.tokens.push(shown(tenant, &token.id));
                    }
                    TokenKind::Join { .. }
                        if token.consumed.is_none()
                            && (cas.phase() == Phase::Spreading || token.created < cas.since()) =>
                    {
                        left.joins.push(shown(tenant, &token.id));
                    }
                    TokenKind::Api { .. } | TokenKind::Join { .. } => {}
                }
            });
        }
        left
    }

    fn told(&self, cas: &Cas) -> v1::GetCaResponse {
        let left = self.dependents(cas);
        let first = |mut names: Vec<String>| {
            names.truncate(NAMED);
            names
        };
        v1::GetCaResponse {
            phase: cas.phase().as_str().to_owned(),
            since: cas.since().to_string(),
            cas: cas
                .trusted()
                .map(|ca| v1::Ca {
                    digest: ca.digest().to_string(),
                    certificate_der: ca.certificate_der().to_vec(),
                    not_after: ca.not_after().to_string(),
                    issuing: ca.number() == cas.issuing().number(),
                })
                .collect(),
            unaware_machines: first(left.unaware),
            machines_on_old: first(left.on_old),
            unaware_tokens: first(left.tokens),
            join_tokens: first(left.joins),
        }
    }
}

fn rotation_refused(error: &RotationError) -> Refusal {
    match error {
        RotationError::UnderWay(_) | RotationError::NoneUnderWay => {
            Refusal::new(Reason::WrongState, error.to_string())
        }
        RotationError::Identity(error) => refuse::identity(error),
    }
}

fn tls_refused(error: &TlsError) -> Refusal {
    match error {
        TlsError::Identity(error) => refuse::identity(error),
        TlsError::Setup(_) => refuse::storage(error),
    }
}
