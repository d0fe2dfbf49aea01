//! The `Hands` service: what operators do by hand, from the wire to the desk and back.
//!
//! It holds no state and decides nothing: [`Desk`](super::Desk) does, and agents carry out.

use std::sync::Arc;
use std::time::Duration;

use plumb_dispatch::protocol::Reconciled;
use plumb_model::hands::{Hold, MAX_HOLD_DAYS, MAX_REASON_BYTES};
use plumb_model::{
    Address, ConditionKind, FileContent, MachineName, OwnerName, ResourceSpec, Timestamp,
};
use plumb_wire::convert::{parse, parse_optional};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Sent, Verb, closing};
use crate::access_service::page;
use crate::audit::{Detail, Owners};
use crate::guard::caller_of;
use crate::tenants::{Tenant, tenant_of};

/// The longest that a machine may take to answer for its check: longer than the agent takes at most.
const CHECK_WITHIN: Duration = Duration::from_secs(75);

/// How many machines' answers wait for the caller.
const ANSWERS: usize = 64;

/// The `Hands` service.
pub(crate) struct HandsService;

/// Says in the audit log what was done, and to whom.
fn noted<T>(message: T, detail: String, owner: &OwnerName) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(Detail(detail));
    let owners = Owners(vec![owner.clone()]);
    response.extensions_mut().insert(owners);
    response
}

fn to_wire(sent: Vec<Sent>) -> Vec<v1::Ordered> {
    sent.into_iter()
        .map(|sent| v1::Ordered {
            machine: sent.machine.into(),
            number: sent.number.map_or(0, |number| number.0),
            online: sent.online,
            processes: sent.processes.iter().map(ToString::to_string).collect(),
        })
        .collect()
}

async fn order(
    tenant: &Arc<Tenant>,
    verb: Verb,
    (owner, machine): (&str, &str),
    by: String,
) -> Result<(Vec<v1::Ordered>, String, OwnerName), Refusal> {
    let owner: OwnerName = parse("owner", owner)?;
    let machine: Option<MachineName> = parse_optional("machine", machine)?;
    let said = match verb {
        Verb::Stop => "stopped",
        Verb::Start => "started",
        Verb::Restart => "restarted",
    };
    let place = machine.as_ref().map_or_else(
        || "everywhere".to_owned(),
        |machine| format!("on {machine}"),
    );
    let sent = tenant.hands.order(verb, owner.clone(), machine, by).await?;
    Ok((to_wire(sent), format!("{owner} was {said} {place}"), owner))
}

fn hold_to_wire(address: &Address, hold: &Hold) -> v1::HandOrder {
    v1::HandOrder {
        what: "hold".to_owned(),
        machine: address.machine.to_string(),
        owner: address.owner.to_string(),
        resource: address.to_string(),
        by: hold.by.clone(),
        since: hold.since.to_string(),
        until: hold.until.to_string(),
        reason: hold.reason.clone(),
        ..v1::HandOrder::default()
    }
}

fn reason(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let bad = |message: String| Err(Refusal::new(Reason::BadMessage, message));
    if text.is_empty() {
        return bad("a hold needs a reason, for whoever wonders later".to_owned());
    }
    if text.len() > MAX_REASON_BYTES || text.contains(char::is_control) {
        return bad(format!(
            "the reason must be one line of at most {MAX_REASON_BYTES} bytes"
        ));
    }
    Ok(text.to_owned())
}

fn length(for_ms: u64) -> Result<Duration, Refusal> {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    if for_ms == 0 || for_ms > MAX_HOLD_DAYS * DAY_MS {
        let message = format!(
            "a hold lasts from a moment to {MAX_HOLD_DAYS} days; what is to differ for longer belongs into a blueprint"
        );
        return Err(Refusal::new(Reason::BadMessage, message));
    }
    Ok(Duration::from_millis(for_ms))
}

/// Adds what the machine says of what is held there.
fn seen(fleet: &plumb_dispatch::Fleet, address: &Address, order: &mut v1::HandOrder) {
    let status = fleet.status_of(address);
    let drifted = status
        .and_then(|status| status.condition(ConditionKind::Drifted))
        .filter(|c| c.status);
    order.drift = drifted.map(|c| c.message.clone()).unwrap_or_default();
    if let Some(found) = status.and_then(|status| status.found.as_deref()) {
        order.found = found.text.clone();
        order.found_mode = found.mode.to_string();
    }
    let assignment = fleet
        .assignments()
        .find(|(name, _)| **name == address.machine);
    if let Some((_, assignment)) = assignment
        && let Some(plumb_model::Entry::Resource(resource)) = assignment.get(address)
        && let ResourceSpec::File(file) = &resource.spec
        && let FileContent::Text(text) = &file.content
    {
        order.recorded = Some(text.clone());
    }
}

async fn list(tenant: &Arc<Tenant>, now: Timestamp) -> Result<Vec<v1::HandOrder>, Refusal> {
    let recorded = tenant.hands.recorded();
    let looked = tenant.gateway.look(move |fleet| {
        let mut orders = Vec::new();
        for (owner, stopped) in &recorded.everywhere {
            orders.push(v1::HandOrder {
                what: "stop".to_owned(),
                owner: owner.to_string(),
                by: stopped.by.clone(),
                since: stopped.since.to_string(),
                delivered: true,
                ..v1::HandOrder::default()
            });
        }
        for (machine, written) in &recorded.machines {
            let view = fleet.hands_of(machine);
            let delivered = view.as_ref().is_some_and(|view| view.delivered);
            let trouble = view.and_then(|view| view.trouble).unwrap_or_default();
            let hands = &written.orders.hands;
            for (owner, stopped) in &hands.stopped {
                orders.push(v1::HandOrder {
                    what: "stop".to_owned(),
                    machine: machine.to_string(),
                    owner: owner.to_string(),
                    by: stopped.by.clone(),
                    since: stopped.since.to_string(),
                    delivered,
                    trouble: trouble.clone(),
                    ..v1::HandOrder::default()
                });
            }
            for (address, hold) in &hands.holds {
                if hold
                    .until
                    .checked_add(super::TOLD_AFTER)
                    .is_ok_and(|end| now >= end)
                {
                    continue;
                }
                let mut order = v1::HandOrder {
                    delivered,
                    trouble: trouble.clone(),
                    ..hold_to_wire(address, hold)
                };
                seen(fleet, address, &mut order);
                orders.push(order);
            }
        }
        orders
    });
    looked.await.ok_or_else(closing)
}

/// What the pages are in the order of: it holds no NUL elsewhere.
fn key(order: &v1::HandOrder) -> String {
    format!(
        "{}\0{}\0{}\0{}",
        order.machine, order.what, order.owner, order.resource
    )
}

fn finding(finding: &plumb_model::hands::Finding) -> v1::CheckFinding {
    v1::CheckFinding {
        resource: finding.address.to_string(),
        found: finding.found.clone(),
        came: finding.came.as_str().to_owned(),
        why: finding.why.clone(),
    }
}

fn answer(machine: MachineName, result: Result<Reconciled, String>) -> v1::ReconcileResponse {
    let machine = machine.into();
    match result {
        Ok(result) => v1::ReconcileResponse {
            machine,
            checked: result.checked,
            findings: result.findings.iter().map(finding).collect(),
            more: result.more,
            ..v1::ReconcileResponse::default()
        },
        Err(failed) => v1::ReconcileResponse {
            machine,
            failed,
            ..v1::ReconcileResponse::default()
        },
    }
}

/// The machines that a check is about.
async fn checked(
    tenant: &Arc<Tenant>,
    machine: Option<MachineName>,
    owner: Option<OwnerName>,
) -> Result<Vec<MachineName>, Refusal> {
    let looked = tenant.gateway.look(move |fleet| {
        let all: Vec<_> = fleet.assignments().collect();
        let not_found = |message: String| Refusal::new(Reason::NotFound, message);
        if let Some(machine) = &machine
            && !all.iter().any(|(name, _)| *name == machine)
        {
            let names = all.iter().map(|(name, _)| name.as_str());
            let near = plumb_blueprint::nearest(machine.as_str(), names);
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            return Err(not_found(format!(
                "nothing is recorded for a machine {machine}{hint}; `plumb machine list` shows which are"
            )));
        }
        let has = |assignment: &plumb_model::Assignment| {
            owner.as_ref().is_none_or(|owner| {
                let mut entries = assignment.entries();
                entries.any(|entry| entry.address().owner == *owner)
            })
        };
        let meant: Vec<MachineName> = all
            .iter()
            .filter(|(name, assignment)| {
                machine.as_ref().is_none_or(|only| only == *name) && has(assignment)
            })
            .map(|(name, _)| (*name).clone())
            .collect();
        match (&owner, meant.is_empty()) {
            (Some(owner), true) => {
                let entries = all.iter().flat_map(|(_, assignment)| assignment.entries());
                let names: std::collections::BTreeSet<&str> =
                    entries.map(|entry| entry.address().owner.as_str()).collect();
                let near = plumb_blueprint::nearest(owner.as_str(), names);
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                let place = machine.map_or("any machine".to_owned(), |m| format!("machine {m}"));
                Err(not_found(format!(
                    "nothing of {owner} is recorded on {place}{hint}; `plumb status` shows what is"
                )))
            }
            (None, true) => Err(not_found(
                "nothing is recorded yet; apply blueprints first".to_owned(),
            )),
            (_, false) => Ok(meant),
        }
    });
    looked.await.ok_or_else(closing)?
}

#[tonic::async_trait]
impl v1::hands_server::Hands for HandsService {
    async fn stop_app(
        &self,
        request: Request<v1::StopAppRequest>,
    ) -> Result<Response<v1::StopAppResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let asked = request.into_inner();
        let about = (asked.owner.as_str(), asked.machine.as_str());
        let (machines, detail, owner) = order(&tenant, Verb::Stop, about, by).await?;
        Ok(noted(v1::StopAppResponse { machines }, detail, &owner))
    }

    async fn start_app(
        &self,
        request: Request<v1::StartAppRequest>,
    ) -> Result<Response<v1::StartAppResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let asked = request.into_inner();
        let about = (asked.owner.as_str(), asked.machine.as_str());
        let (machines, detail, owner) = order(&tenant, Verb::Start, about, by).await?;
        Ok(noted(v1::StartAppResponse { machines }, detail, &owner))
    }

    async fn restart_app(
        &self,
        request: Request<v1::RestartAppRequest>,
    ) -> Result<Response<v1::RestartAppResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let asked = request.into_inner();
        let about = (asked.owner.as_str(), asked.machine.as_str());
        let (machines, detail, owner) = order(&tenant, Verb::Restart, about, by).await?;
        Ok(noted(v1::RestartAppResponse { machines }, detail, &owner))
    }

    async fn hold_resource(
        &self,
        request: Request<v1::HoldResourceRequest>,
    ) -> Result<Response<v1::HoldResourceResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let asked = request.into_inner();
        let (reason, length) = (reason(&asked.reason)?, length(asked.for_ms)?);
        let (address, hold, online) = tenant
            .hands
            .hold(asked.resource, length, reason, by)
            .await?;
        let detail = format!("{address} is held until {}: {}", hold.until, hold.reason);
        let order = Some(hold_to_wire(&address, &hold));
        let response = v1::HoldResourceResponse { order, online };
        Ok(noted(response, detail, &address.owner))
    }

    async fn release_resource(
        &self,
        request: Request<v1::ReleaseResourceRequest>,
    ) -> Result<Response<v1::ReleaseResourceResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let asked = request.into_inner();
        let (address, hold, online) = tenant.hands.release(asked.resource).await?;
        let order = Some(hold_to_wire(&address, &hold));
        let detail = format!("{address} is not held any more");
        let response = v1::ReleaseResourceResponse { order, online };
        Ok(noted(response, detail, &address.owner))
    }

    async fn list_hands(
        &self,
        request: Request<v1::ListHandsRequest>,
    ) -> Result<Response<v1::ListHandsResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let asked = request.into_inner();
        let mut all: Vec<(String, v1::HandOrder)> = list(&tenant, tenant.access.now())
            .await?
            .into_iter()
            .map(|order| (key(&order), order))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        let (orders, next_page_token) = page(
            all.into_iter(),
            |(key, _)| key.as_str(),
            asked.page_size,
            &asked.page_token,
        );
        Ok(Response::new(v1::ListHandsResponse {
            orders: orders.into_iter().map(|(_, order)| order).collect(),
            next_page_token,
        }))
    }

    type ReconcileStream = ReceiverStream<Result<v1::ReconcileResponse, Status>>;

    async fn reconcile(
        &self,
        request: Request<v1::ReconcileRequest>,
    ) -> Result<Response<Self::ReconcileStream>, Status> {
        let tenant = tenant_of(&request)?;
        let asked = request.into_inner();
        let machine = parse_optional("machine", &asked.machine).map_err(Refusal::from)?;
        let owner: Option<OwnerName> =
            parse_optional("owner", &asked.owner).map_err(Refusal::from)?;
        let machines = checked(&tenant, machine, owner.clone()).await?;
        let (tx, rx) = mpsc::channel(ANSWERS);
        let detail = match machines.as_slice() {
            [one] => format!("checked {one}"),
            all => format!("checked {} machines", all.len()),
        };
        let mut checks = tokio::task::JoinSet::new();
        for machine in machines {
            let (gateway, owner) = (tenant.gateway.clone(), owner.clone());
            checks.spawn(async move {
                let asked = gateway.reconcile(machine.clone(), owner);
                let result = match tokio::time::timeout(CHECK_WITHIN, asked).await {
                    Ok(result) => result,
                    Err(_) => Err("it did not answer in time".to_owned()),
                };
                answer(machine, result)
            });
        }
        tokio::spawn(async move {
            while let Some(answered) = checks.join_next().await {
                let Ok(mut answered) = answered else { continue };
                answered.remaining = u32::try_from(checks.len()).unwrap_or(u32::MAX);
                // The caller has gone: the checks go on by themselves.
                if tx.send(Ok(answered)).await.is_err() {
                    return;
                }
            }
        });
        let mut response = Response::new(ReceiverStream::new(rx));
        response.extensions_mut().insert(Detail(detail));
        Ok(response)
    }
}
