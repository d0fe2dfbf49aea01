//! How the control plane is: its parts, whether it is ready, the numbers that Prometheus reads, and the pages for both.
//!
//! It looks when it is asked, and at nothing that blocks for long. Ready means that the store takes writes and the CA is
//! good; machines that are away make nothing unready, since they go on by themselves. The pages tell no more than
//! anybody may know: who wants words needs a token.

use std::sync::Arc;
use std::time::Duration;

use plumb_ledger::{Store, StoreError};
use plumb_model::Timestamp;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::exposition::{CONTENT_TYPE, Exposition, Kind};
use plumb_wire::pages::Page;
use plumb_wire::v1::{self, HealthState};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::audit::Detail;
use crate::backup;
use crate::limits::Limits;
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::refuse;
use crate::rotation::Authorities;
use crate::tenants::{Tenant, Tenants, tenant_of};

/// The page of the numbers.
pub(crate) const METRICS_PAGE: &str = "/metrics";

/// How long before a CA runs out somebody should look, in seconds: 30 days.
const CA_SOON: i64 = 30 * 24 * 3600;

/// How often `grpc.health.v1.Health` is told whether the control plane is ready.
const LOOK: Duration = Duration::from_secs(2);

/// The calls that record an apply.
const APPLIES: [&str; 2] = [
    "/plumb.v1.ControlPlane/Apply",
    "/plumb.v1.ControlPlane/ApplySigned",
];

/// The service `Operations`, and the pages.
#[derive(Clone)]
pub(crate) struct Operations {
    /// The workspaces.
    pub tenants: Arc<Tenants>,
    /// The CAs.
    pub authorities: Arc<Authorities>,
    /// The store beneath all of them.
    pub store: Arc<Measured>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// What was refused.
    pub limits: Arc<Limits>,
    /// The clock.
    pub now: fn() -> Timestamp,
    /// When the control plane was started.
    pub started: Timestamp,
    /// Copies what is held.
    pub backups: Arc<backup::Source>,
}

impl std::fmt::Debug for Operations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operations").finish_non_exhaustive()
    }
}

fn part(name: &str, state: HealthState, message: String) -> v1::HealthPart {
    v1::HealthPart {
        name: name.to_owned(),
        state: state.into(),
        message,
    }
}

/// How the store is.
fn store_part(ready: &Result<(), StoreError>) -> v1::HealthPart {
    match ready {
        Ok(()) => part("store", HealthState::Ok, "takes writes".to_owned()),
        Err(error) => part("store", HealthState::Failed, error.to_string()),
    }
}

/// How the CA is that issues.
fn ca_part(not_after: Timestamp, now: Timestamp) -> v1::HealthPart {
    let left = not_after.as_second() - now.as_second();
    let (state, next) = match left {
        ..=0 => (HealthState::Failed, "; replace it with `plumb ca rotate`"),
        1..CA_SOON => (HealthState::Warn, "; replace it with `plumb ca rotate`"),
        _ => (HealthState::Ok, ""),
    };
    let verb = if left > 0 { "is good" } else { "was good" };
    part("ca", state, format!("{verb} until {not_after}{next}"))
}

/// How the machines of a workspace are.
fn agents_part(connected: usize, enrolled: usize) -> v1::HealthPart {
    let state = match connected < enrolled {
        true => HealthState::Warn,
        false => HealthState::Ok,
    };
    let next = match state {
        HealthState::Warn => "; `plumb machine list` shows which are away",
        _ => "",
    };
    part(
        "agents",
        state,
        format!("{connected} of {enrolled} machines are connected{next}"),
    )
}

/// How many machines of a workspace are connected. None if the control plane is going down.
async fn connected(tenant: &Tenant) -> Option<usize> {
    tenant
        .gateway
        .look(|fleet| {
            fleet
                .facts()
                .filter(|(name, _)| fleet.session_of(name).is_some())
                .count()
        })
        .await
}

impl Operations {
    fn parts(&self) -> [v1::HealthPart; 2] {
        let not_after = self.authorities.now_in_force().issuing().not_after();
        [
            store_part(&self.store.ready()),
            ca_part(not_after, (self.now)()),
        ]
    }

    /// The parts that keep the control plane from being ready, by name.
    fn failed(&self) -> Vec<String> {
        let failed = self.parts().into_iter();
        failed
            .filter(|part| part.state == i32::from(HealthState::Failed))
            .map(|part| part.name)
            .collect()
    }

    /// What is at a path that anybody may read.
    pub fn open_page(&self, path: &str) -> Option<Page> {
        match path {
            "/healthz" => Some(Page::text(200, "ok\n")),
            "/readyz" => {
                let failed = self.failed();
                Some(match failed.is_empty() {
                    true => Page::text(200, "ready\n"),
                    false => Page::text(503, format!("not ready: {}\n", failed.join(", "))),
                })
            }
            _ => None,
        }
    }

    /// The numbers: of one workspace and of what all share, or of all workspaces.
    pub async fn numbers(&self, only: Option<&Arc<Tenant>>) -> Page {
        let mut text = Exposition::default();
        text.family("plumb_build_info", Kind::Gauge, "Which version runs.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        text.single(
            "process_start_time_seconds",
            Kind::Gauge,
            "Start time of the process since unix epoch in seconds.",
            self.started.as_millisecond() as f64 / 1000.0,
        )
        .process()
        .single(
            "plumb_ready",
            Kind::Gauge,
            "Whether the control plane does all that it is there for.",
            f64::from(u8::from(self.failed().is_empty())),
        );
        let not_after = self.authorities.now_in_force().issuing().not_after();
        text.single(
            "plumb_ca_not_after_timestamp_seconds",
            Kind::Gauge,
            "When the CA that issues runs out, in seconds of Unix time.",
            not_after.as_second() as f64,
        );
        let tenants = match only {
            Some(tenant) => vec![tenant.clone()],
            None => self.tenants.list(),
        };
        self.fleets(&tenants, &mut text).await;
        let (recorded, refused) = self.metrics.outcomes(&APPLIES);
        text.family(
            "plumb_applies_total",
            Kind::Counter,
            "Applies that were asked for, by what became of them.",
        )
        .sample(&[("result", "recorded")], recorded as f64)
        .sample(&[("result", "refused")], refused as f64);
        let (sessions, _) = self.metrics.outcomes(&["/plumb.v1.Agents/Session"]);
        text.single(
            "plumb_sessions_total",
            Kind::Counter,
            "Sessions that agents have opened.",
            sessions as f64,
        );
        text.single(
            "plumb_refused_unauthenticated_total",
            Kind::Counter,
            "Calls that were refused and had not proven who they came from.",
            self.limits.refused_unproven() as f64,
        );
        text.single(
            "plumb_rate_limited_total",
            Kind::Counter,
            "Calls that were refused since there were too many.",
            self.limits.refused_too_often() as f64,
        );
        let dropped = &self.metrics.dropped_events;
        text.single(
            "plumb_watch_events_dropped_total",
            Kind::Counter,
            "Events that readers of a watch were too slow for.",
            dropped.load(std::sync::atomic::Ordering::Relaxed) as f64,
        );
        self.store.write(&mut text);
        self.metrics.write(&mut text);
        Page {
            status: 200,
            content_type: CONTENT_TYPE,
            body: text.finish(),
        }
    }

    async fn fleets(&self, tenants: &[Arc<Tenant>], text: &mut Exposition) {
        text.family(
            "plumb_machines",
            Kind::Gauge,
            "Machines that are enrolled, by workspace.",
        );
        for tenant in tenants {
            let machines = tenant.access.machines() as f64;
            text.sample(&[("workspace", tenant.workspace.as_str())], machines);
        }
        text.family(
            "plumb_agents_connected",
            Kind::Gauge,
            "Machines whose agent is connected, by workspace.",
        );
        for tenant in tenants {
            if let Some(connected) = connected(tenant).await {
                text.sample(
                    &[("workspace", tenant.workspace.as_str())],
                    connected as f64,
                );
            }
        }
        text.family(
            "plumb_audit_entries_total",
            Kind::Counter,
            "Entries that were written to the audit log since the start, by workspace.",
        );
        for tenant in tenants {
            let written = tenant.audit.written() as f64;
            text.sample(&[("workspace", tenant.workspace.as_str())], written);
        }
    }

    /// What is at a path for whoever reaches a port of loopback, and so may read everything here, or of elsewhere.
    pub async fn page(&self, path: &str, on_loopback: bool) -> Page {
        if let Some(page) = self.open_page(path) {
            return page;
        }
        match (path, on_loopback) {
            (METRICS_PAGE, true) => self.numbers(None).await,
            (METRICS_PAGE, false) => Page::text(
                403,
                "the numbers are not told in the clear: read them from a loopback address, or over TLS with a token\n",
            ),
            _ => Page::text(404, "there are /healthz, /readyz and /metrics\n"),
        }
    }

    /// Keeps `grpc.health.v1.Health` true: the empty service is served while the control plane is ready.
    pub async fn keep_told(
        self,
        health: tonic_health::server::HealthReporter,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            let status = match self.failed().is_empty() {
                true => tonic_health::ServingStatus::Serving,
                false => tonic_health::ServingStatus::NotServing,
            };
            health.set_service_status("", status).await;
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

fn closing() -> Refusal {
    Refusal::new(
        Reason::Closing,
        "the control plane is going down; try again in a moment",
    )
}

#[tonic::async_trait]
impl v1::operations_server::Operations for Operations {
    async fn get_health(
        &self,
        request: Request<v1::GetHealthRequest>,
    ) -> Result<Response<v1::GetHealthResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let connected = connected(&tenant).await.ok_or_else(closing)?;
        let [store, ca] = self.parts();
        let agents = agents_part(connected, tenant.access.machines());
        Ok(Response::new(v1::GetHealthResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: (self.now)().to_string(),
            started: self.started.to_string(),
            ready: self.failed().is_empty(),
            parts: vec![store, agents, ca],
        }))
    }

    type BackupStream = backup::Pieces;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let with_blobs = !request.get_ref().without_blobs;
        let source = self.backups.clone();
        let taken = refuse::blocking(move || {
            source
                .take(with_blobs)
                .map_err(|error| refuse::storage(&error))
        })
        .await?;
        let mut response = Response::new(taken.pieces());
        let what = match with_blobs {
            true => "took a backup of all workspaces",
            false => "took a backup of all workspaces, without blobs",
        };
        response.extensions_mut().insert(Detail(what.to_owned()));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_says_what_to_do() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-21T12:00:00Z");
        for (part, state, says) in [
            (store_part(&Ok(())), HealthState::Ok, "takes writes"),
            (
                store_part(&Err(StoreError::Full { free: 1, needed: 2 })),
                HealthState::Failed,
                "free disk space",
            ),
            (
                ca_part(at("2036-11-21T12:00:00Z"), now),
                HealthState::Ok,
                "is good until 2036",
            ),
            (
                ca_part(at("2026-12-01T12:00:00Z"), now),
                HealthState::Warn,
                "plumb ca rotate",
            ),
            (
                ca_part(at("2026-11-21T12:00:00Z"), now),
                HealthState::Failed,
                "was good until",
            ),
            (agents_part(3, 3), HealthState::Ok, "3 of 3"),
            (agents_part(2, 3), HealthState::Warn, "plumb machine list"),
        ] {
            assert_eq!(part.state, i32::from(state), "{part:?}");
            assert!(part.message.contains(says), "{part:?}");
        }
    }
}
