//! What the agent counts, and the page on which Prometheus reads it: only where `--metrics` says so.
//!
//! The core owns the [`Tally`] and counts in plain numbers as it goes; the text is written when somebody asks, by asking the
//! core. So nothing wakes up for it, and without the flag nothing listens. Labels are kinds and outcomes of closed sets, and the
//! addresses of the processes that the assignment names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use plumb_converge as converge;
use plumb_model::condition::{ConditionKind, EventKind};
use plumb_model::{Generation, ResourceKind, ResourceStatus};
use plumb_wire::exposition::{CONTENT_TYPE, Exposition, Kind};
use plumb_wire::pages::{self, Page};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::AgentError;

/// What was counted since the agent was started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    looks: BTreeMap<ResourceKind, u64>,
    /// By kind: how often it went well, and how often it did not.
    acts: BTreeMap<ResourceKind, (u64, u64)>,
    events: BTreeMap<&'static str, u64>,
    links: u64,
}

impl Tally {
    /// So many resources of a kind are looked at.
    pub fn looks(&mut self, kind: ResourceKind, many: usize) {
        *self.looks.entry(kind).or_default() += many as u64;
    }

    /// What was done on the machine, if the event tells of that.
    pub fn done(&mut self, event: &converge::Event) {
        if let converge::Event::Acted(all) = event {
            for (address, _, result) in all {
                let (good, bad) = self.acts.entry(address.kind).or_default();
                match result {
                    Ok(_) => *good += 1,
                    Err(_) => *bad += 1,
                }
            }
        }
    }

    /// Something happened that people want to read.
    pub fn happened(&mut self, kind: EventKind) {
        *self.events.entry(kind.word()).or_default() += 1;
    }

    /// The control plane was reached.
    pub fn linked(&mut self) {
        self.links += 1;
    }

    /// Writes all of it down, with how things are now.
    pub fn write<'a>(
        &self,
        online: bool,
        generation: Option<Generation>,
        statuses: impl Iterator<Item = &'a ResourceStatus>,
    ) -> String {
        let mut text = Exposition::default();
        text.family("plumb_build_info", Kind::Gauge, "Which version runs.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        text.process()
            .single(
                "plumb_agent_connected",
                Kind::Gauge,
                "Whether the control plane is heard.",
                f64::from(u8::from(online)),
            )
            .single(
                "plumb_agent_connections_total",
                Kind::Counter,
                "How often the control plane was reached.",
                self.links as f64,
            )
            .single(
                "plumb_agent_generation",
                Kind::Gauge,
                "The generation that the machine is kept true to; 0 before the first.",
                generation.map_or(0, |generation| generation.0) as f64,
            );
        self.counted(&mut text);
        now(statuses, &mut text);
        text.finish()
    }

    fn counted(&self, text: &mut Exposition) {
        text.family(
            "plumb_agent_reconciles_total",
            Kind::Counter,
            "Resources that were looked at, by kind.",
        );
        for (kind, count) in &self.looks {
            text.sample(&[("kind", kind.as_str())], *count as f64);
        }
        text.family(
            "plumb_agent_actions_total",
            Kind::Counter,
            "What was done on the machine, by kind and outcome.",
        );
        for (kind, (good, bad)) in &self.acts {
            for (result, count) in [("done", good), ("failed", bad)] {
                text.sample(
                    &[("kind", kind.as_str()), ("result", result)],
                    *count as f64,
                );
            }
        }
        text.family(
            "plumb_agent_events_total",
            Kind::Counter,
            "What happened to resources; drift_corrected among them.",
        );
        for (event, count) in &self.events {
            text.sample(&[("event", event)], *count as f64);
        }
    }
}

/// How things are.
fn now<'a>(statuses: impl Iterator<Item = &'a ResourceStatus>, text: &mut Exposition) {
    const STATES: [&str; 5] = ["converged", "failed", "blocked", "drifted", "working"];
    let mut states = [0_u64; STATES.len()];
    let (mut restarts, mut health) = (Vec::new(), Vec::new());
    for status in statuses.filter(|status| !status.gone) {
        let state = [
            ConditionKind::Failed,
            ConditionKind::Blocked,
            ConditionKind::Drifted,
            ConditionKind::Converged,
        ]
        .into_iter()
        .find(|kind| status.is(*kind));
        states[match state {
            Some(ConditionKind::Converged) => 0,
            Some(ConditionKind::Failed) => 1,
            Some(ConditionKind::Blocked) => 2,
            Some(ConditionKind::Drifted) => 3,
            _ => 4,
        }] += 1;
        if let Some(process) = &status.process {
            let address = status.address.to_string();
            if let Some(healthy) = status.condition(ConditionKind::Healthy) {
                health.push((address.clone(), healthy.status));
            }
            restarts.push((address, process.restarts));
        }
    }
    text.family(
        "plumb_agent_resources",
        Kind::Gauge,
        "Resources of the assignment, by how they are.",
    );
    for (state, count) in STATES.iter().zip(states) {
        text.sample(&[("state", state)], count as f64);
    }
    text.family(
        "plumb_agent_process_restarts_total",
        Kind::Counter,
        "How often a process was started again after an exit that nobody asked for.",
    );
    for (address, count) in &restarts {
        text.sample(&[("resource", address)], *count as f64);
    }
    text.family(
        "plumb_agent_process_healthy",
        Kind::Gauge,
        "Whether the health check of a process passes.",
    );
    for (address, healthy) in &health {
        text.sample(&[("resource", address)], f64::from(u8::from(*healthy)));
    }
}

/// Serves the page until the task is aborted. `ask` asks the core for its text.
///
/// # Errors
/// When the address cannot be listened on.
pub(crate) async fn serve<A>(
    address: SocketAddr,
    data: PathBuf,
    ask: impl Fn() -> A + Clone + Send + Sync + 'static,
) -> Result<(SocketAddr, JoinHandle<()>), AgentError>
where
    A: Future<Output = Option<oneshot::Receiver<String>>> + Send,
{
    let refused = |source| AgentError::Metrics { address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let local = listener.local_addr().map_err(refused)?;
    let page = move |path: String| {
        let (ask, data) = (ask.clone(), data.clone());
        async move {
            match path.as_str() {
                "/healthz" => Page::text(200, "ok\n"),
                "/metrics" => match numbers(ask().await).await {
                    Some(mut body) => {
                        body.push_str(&certificate(&data));
                        Page {
                            status: 200,
                            content_type: CONTENT_TYPE,
                            body,
                        }
                    }
                    None => Page::text(503, "the agent is going down\n"),
                },
                _ => Page::text(404, "there are /healthz and /metrics\n"),
            }
        }
    };
    Ok((local, tokio::spawn(pages::serve(listener, page))))
}

async fn numbers(answer: Option<oneshot::Receiver<String>>) -> Option<String> {
    answer?.await.ok()
}

/// When the machine's certificate runs out, as it is on the disk now.
fn certificate(data: &std::path::Path) -> String {
    let mut text = Exposition::default();
    if let Ok(Some(record)) = crate::enrolment(data) {
        text.single(
            "plumb_agent_certificate_not_after_timestamp_seconds",
            Kind::Gauge,
            "When the machine's certificate runs out, in seconds of Unix time.",
            record.not_after.as_second() as f64,
        );
    }
    text.finish()
}
