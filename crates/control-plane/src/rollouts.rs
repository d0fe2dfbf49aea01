//! The `Rollouts` service: how machines move to a release, what an operator says to that, and what became of an apply.
//!
//! It holds no state and decides nothing: the recorder keeps rollouts, and `dispatch` decides on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_dispatch::rollout::Order;
use plumb_dispatch::view::RolloutView;
use plumb_ledger::Ledger;
use plumb_model::rollout::Phase;
use plumb_model::state::{Outcome, RevisionRecord, RolloutStrategy};
use plumb_model::{OwnerName, ReleaseNumber, Revision};
use plumb_wire::convert::{parse, parse_optional};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tonic::{Request, Response, Status};

use crate::access_service::page;
use crate::api::outcome_word;
use crate::audit::Detail;
use crate::guard::caller_of;
use crate::refuse;
use crate::tenants::{Tenant, tenant_of};

/// The `Rollouts` service.
pub(crate) struct Rollouts;

/// Says in the audit log what was done.
fn noted<T>(message: T, detail: String) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(Detail(detail));
    response
}

fn strategy(strategy: RolloutStrategy) -> &'static str {
    match strategy {
        RolloutStrategy::BlueGreen => "blue-green",
        RolloutStrategy::Rolling => "rolling",
        RolloutStrategy::Canary => "canary",
    }
}

fn to_wire(view: &RolloutView) -> v1::Rollout {
    v1::Rollout {
        owner: view.owner.to_string(),
        release: view.release.0,
        apply: view.apply.0,
        strategy: strategy(view.strategy).to_owned(),
        batch: view.batch,
        max_unavailable: view.max_unavailable,
        min_healthy_ms: view.min_healthy_ms,
        deadline_ms: view.deadline_ms,
        auto_revert: view.auto_revert,
        phase: view.phase.as_str().to_owned(),
        why: view.why.clone().unwrap_or_default(),
        waits: view.waits.clone().unwrap_or_default(),
        waves: view.waves,
        instances: view.instances,
        moved: view.moved,
        healthy: view.healthy,
        behind: view.behind.iter().map(ToString::to_string).collect(),
        reverts: view.reverts.map(|release| release.0),
        started: view.started.to_string(),
        changed: view.changed.to_string(),
    }
}

fn rollout(tenant: &Tenant, owner: &OwnerName) -> Option<v1::Rollout> {
    let views = tenant.recorder.rollouts().views();
    views.get(owner).map(to_wire)
}

async fn tell(
    tenant: &Arc<Tenant>,
    owner: &str,
    order: Order,
    by: String,
) -> Result<Option<v1::Rollout>, Refusal> {
    let owner: OwnerName = parse("owner", owner)?;
    tenant
        .recorder
        .tell_rollout(owner.clone(), order, by)
        .await?;
    Ok(rollout(tenant, &owner))
}

/// An apply, and what has become of it. Blocks.
fn apply(
    ledger: &Ledger,
    rollouts: &BTreeMap<OwnerName, RolloutView>,
    id: Revision,
) -> Result<v1::Apply, Refusal> {
    let id = match id {
        Revision(0) => ledger
            .head()
            .map_err(|e| refuse::ledger(&e))?
            .map_or(id, |head| head.revision),
        id => id,
    };
    let record = ledger
        .revision(id)
        .map_err(|e| refuse::ledger(&e))?
        .ok_or_else(|| {
            let message = format!("there is no apply {id}; `plumb history` lists them");
            Refusal::new(Reason::NotFound, message)
        })?;
    let mut releases = Vec::new();
    let mut states = Vec::new();
    for (owner, (release, _)) in &record.released {
        let outcomes = ledger.outcomes(owner).map_err(|e| refuse::ledger(&e))?;
        let outcome = outcomes.get(release).copied();
        let outcome = outcome.unwrap_or(Outcome::Converging);
        let now = rollouts.get(owner);
        let reverted_by = now
            .filter(|now| now.reverts == Some(*release))
            .map(|now| now.release.0);
        let own = now.filter(|now| now.release == *release);
        states.push(state(outcome, own));
        releases.push(v1::AppliedRelease {
            owner: owner.to_string(),
            release: release.0,
            outcome: outcome_word(outcome).to_owned(),
            rollout: own.map(to_wire),
            reverted_by,
        });
    }
    let RevisionRecord { by, at, .. } = record;
    Ok(v1::Apply {
        id: id.0,
        by,
        at: at.to_string(),
        // The worst of them; an apply that released nothing had nothing to wait for.
        state: states.into_iter().max().unwrap_or(State::Done).word(),
        releases,
    })
}

/// How an apply is, in the order in which one hides another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Done,
    Superseded,
    Running,
    Failed,
}

impl State {
    fn word(self) -> String {
        match self {
            Self::Done => "done",
            Self::Superseded => "superseded",
            Self::Running => "running",
            Self::Failed => "failed",
        }
        .to_owned()
    }
}

fn state(outcome: Outcome, rollout: Option<&RolloutView>) -> State {
    match (outcome, rollout.map(|rollout| rollout.phase)) {
        (_, Some(Phase::Failed)) => State::Failed,
        // A single instance that fails may be within the budget: the rollout says what it comes to.
        (_, Some(Phase::Running | Phase::Paused | Phase::Stalled | Phase::Reverting)) => {
            State::Running
        }
        (Outcome::Converged | Outcome::Removed, _) => State::Done,
        (Outcome::Converging, _) => State::Running,
        (Outcome::Failed, _) => State::Failed,
        (Outcome::Superseded, _) => State::Superseded,
    }
}

async fn applied(tenant: &Arc<Tenant>, id: u64) -> Result<v1::Apply, Refusal> {
    let ledger = tenant.ledger.clone();
    let rollouts = tenant.recorder.rollouts().views();
    refuse::blocking(move || apply(&ledger, &rollouts, Revision(id))).await
}

#[tonic::async_trait]
impl v1::rollouts_server::Rollouts for Rollouts {
    async fn list_rollouts(
        &self,
        request: Request<v1::ListRolloutsRequest>,
    ) -> Result<Response<v1::ListRolloutsResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let v1::ListRolloutsRequest {
            owner,
            page_size,
            page_token,
        } = request.into_inner();
        let only = parse_optional::<OwnerName>("owner", &owner).map_err(Refusal::from)?;
        let views = tenant.recorder.rollouts().views();
        let views = views
            .into_values()
            .filter(|view| only.as_ref().is_none_or(|only| *only == view.owner));
        let (views, next_page_token) =
            page(views, |view| view.owner.as_str(), page_size, &page_token);
        Ok(Response::new(v1::ListRolloutsResponse {
            rollouts: views.iter().map(to_wire).collect(),
            next_page_token,
        }))
    }

    async fn pause_rollout(
        &self,
        request: Request<v1::PauseRolloutRequest>,
    ) -> Result<Response<v1::PauseRolloutResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let owner = request.into_inner().owner;
        let rollout = tell(&tenant, &owner, Order::Pause, by).await?;
        let detail = format!("the rollout of {owner} was paused");
        Ok(noted(v1::PauseRolloutResponse { rollout }, detail))
    }

    async fn resume_rollout(
        &self,
        request: Request<v1::ResumeRolloutRequest>,
    ) -> Result<Response<v1::ResumeRolloutResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let owner = request.into_inner().owner;
        let rollout = tell(&tenant, &owner, Order::Resume, by).await?;
        let detail = format!("the rollout of {owner} was resumed");
        Ok(noted(v1::ResumeRolloutResponse { rollout }, detail))
    }

    async fn abort_rollout(
        &self,
        request: Request<v1::AbortRolloutRequest>,
    ) -> Result<Response<v1::AbortRolloutResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let owner = request.into_inner().owner;
        let rollout = tell(&tenant, &owner, Order::Abort, by).await?;
        let detail = format!("the rollout of {owner} was aborted");
        Ok(noted(v1::AbortRolloutResponse { rollout }, detail))
    }

    async fn get_apply(
        &self,
        request: Request<v1::GetApplyRequest>,
    ) -> Result<Response<v1::GetApplyResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let apply = Some(applied(&tenant, request.into_inner().id).await?);
        Ok(Response::new(v1::GetApplyResponse { apply }))
    }

    async fn cancel_apply(
        &self,
        request: Request<v1::CancelApplyRequest>,
    ) -> Result<Response<v1::CancelApplyResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let id = request.into_inner().id;
        // It must be there, whether or not anything of it is under way.
        let known = applied(&tenant, id).await?;
        let rollouts = tenant.recorder.rollouts();
        let open: Vec<(OwnerName, ReleaseNumber)> = rollouts
            .records()
            .filter(|record| record.apply.0 == known.id && !record.phase.is_over())
            .map(|record| (record.owner.clone(), record.release))
            .collect();
        let mut aborted = Vec::new();
        for (owner, _) in open {
            let order = Order::Abort;
            tenant
                .recorder
                .tell_rollout(owner.clone(), order, by.clone())
                .await?;
            aborted.push(owner.to_string());
        }
        let detail = match aborted.as_slice() {
            [] => format!("apply {id} had nothing left to cancel"),
            owners => format!("apply {id} was cancelled: {}", owners.join(", ")),
        };
        let apply = Some(applied(&tenant, known.id).await?);
        Ok(noted(v1::CancelApplyResponse { apply, aborted }, detail))
    }
}
