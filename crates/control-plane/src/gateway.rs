//! The way to the one task that owns the fleet.
//!
//! Nothing else touches the fleet; sessions, the API and the recorder talk to the [`task`] through [`Gateway`], over two
//! bounded queues: what operators ask for and what was recorded goes before what thousands of agents say. It never waits for
//! an agent: one that does not take its messages is disconnected, and comes back to a snapshot.

mod outcomes;
mod shown;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use plumb_dispatch::hands::WrittenOrders;
use plumb_dispatch::protocol::{Hello, Reconciled, ToAgent, ToServer};
use plumb_dispatch::view::RolloutView;
use plumb_dispatch::{Fleet, MachineRecord, Recording, Standing};
use plumb_ledger::Ledger;
use plumb_model::condition::MachineEvent;
use plumb_model::{Assignment, Hash, MachineName, OwnerName, ProcessName, Timestamp};
use plumb_planner::Observed;
use plumb_wire::Bytes;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use self::shown::Shown;
use self::task::Task;
use crate::access::Access;
use crate::events::desk::Desk;
use crate::guard::FromMachine;
use crate::logs::{Logs, Sink};
use crate::outbox::Outbox;
use crate::rotation::Cas;
use crate::secrets::Vault;

/// How many events may wait for the task in each queue; past it, whoever sends waits.
const QUEUE: usize = 1024;

/// How many events a reader of `Watch` may be behind before it loses some, counted.
const EVENTS: usize = 1024;

/// A session as its connection sees it.
#[derive(Debug)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// Resolves when the session is over, even if the agent does not read.
    pub over: oneshot::Receiver<()>,
}

/// What is wanted of an owner's logs.
#[derive(Debug, Clone)]
pub struct WantedLogs {
    /// Whose.
    pub owner: OwnerName,
    /// Of one process only.
    pub process: Option<ProcessName>,
    /// From one machine only.
    pub machine: Option<MachineName>,
    /// Go on with what is written from now on.
    pub follow: bool,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
    /// Only so many of the last lines.
    pub tail: Option<u32>,
}

/// What agents say, and what is to be said to them.
enum Said {
    Connected {
        machine: FromMachine,
        hello: Box<Hello>,
        outbox: Outbox,
        reply: oneshot::Sender<Session>,
    },
    Message {
        session: u64,
        message: Box<ToServer>,
    },
    Gone {
        session: u64,
    },
    /// What was looked up or stored for the machine behind a session, if that is still there.
    Opened {
        session: u64,
        message: ToAgent,
    },
    CloseLogs(Vec<u64>),
}

impl Said {
    /// What it is, for the log.
    fn what(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Message { .. } => "message",
            Self::Gone { .. } => "gone",
            Self::Opened { .. } => "opened",
            Self::CloseLogs(_) => "close logs",
        }
    }
}

/// What operators ask for, and what was recorded.
enum Asked {
    Recorded {
        recording: Recording,
        done: oneshot::Sender<()>,
    },
    Identity {
        machine: MachineName,
        removed: bool,
    },
    Tell {
        machine: MachineName,
        message: ToAgent,
        reply: oneshot::Sender<bool>,
    },
    /// Orders by hand were recorded.
    Hands {
        written: BTreeMap<MachineName, Arc<WrittenOrders>>,
        done: oneshot::Sender<()>,
    },
    Reconcile {
        machine: MachineName,
        owner: Option<OwnerName>,
        reply: oneshot::Sender<Result<Reconciled, String>>,
    },
    Renew {
        within_ms: u64,
    },
    CutUntrusted(Arc<Cas>),
    Advanced {
        machines: BTreeMap<MachineName, MachineRecord>,
        rollouts: BTreeMap<OwnerName, RolloutView>,
        done: oneshot::Sender<()>,
    },
    Recovered(MachineName),
    Look(Box<dyn FnOnce(&Fleet) + Send>),
    OpenLogs {
        wanted: WantedLogs,
        sink: Sink,
        /// The requests that were made; none if nothing that is recorded fits.
        reply: oneshot::Sender<Option<Vec<u64>>>,
    },
    Stand(oneshot::Sender<Standing>),
    View(oneshot::Sender<(u64, Arc<Shown>)>),
    Stop(oneshot::Sender<()>),
}

impl Asked {
    /// What it is, for the log.
    fn what(&self) -> &'static str {
        match self {
            Self::Recorded { .. } => "recorded",
            Self::Identity { .. } => "identity",
            Self::Tell { .. } => "tell",
            Self::Hands { .. } => "hands",
            Self::Reconcile { .. } => "reconcile",
            Self::Renew { .. } => "renew",
            Self::CutUntrusted(_) => "cut untrusted",
            Self::Advanced { .. } => "advanced",
            Self::Recovered(_) => "recovered",
            Self::Look(_) => "look",
            Self::OpenLogs { .. } => "open logs",
            Self::Stand(_) => "stand",
            Self::View(_) => "view",
            Self::Stop(_) => "stop",
        }
    }
}

/// The way to the task that owns the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    said: mpsc::Sender<Said>,
    asked: mpsc::Sender<Asked>,
    changed: watch::Receiver<u64>,
    events: broadcast::Sender<(MachineName, MachineEvent)>,
    logs: Arc<Logs>,
    assigned: Assigned,
}

/// What each machine is to hold, for those who look without asking the task.
type Assigned = Arc<RwLock<BTreeMap<MachineName, Arc<Assignment>>>>;

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts the task.
    pub(crate) fn start(
        fleet: Fleet,
        recording: &Recording,
        ledger: Ledger,
        access: Arc<Access>,
        vault: Vault,
        desk: Desk,
        now: fn() -> Timestamp,
    ) -> Self {
        let (said, from_agents) = mpsc::channel(QUEUE);
        let (asked, from_others) = mpsc::channel(QUEUE);
        let (changed_tx, changed) = watch::channel(1);
        let (events, _) = broadcast::channel(EVENTS);
        let gateway = Self {
            said,
            asked,
            changed,
            events,
            logs: Arc::default(),
            assigned: Arc::default(),
        };
        let task = Task::new(
            fleet,
            &gateway,
            changed_tx,
            (access, vault, desk),
            ledger,
            now,
        );
        task.note_recording(recording);
        tokio::spawn(task.run(from_others, from_agents));
        gateway
    }

    async fn ask<T>(&self, asked: impl FnOnce(oneshot::Sender<T>) -> Asked) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.asked.send(asked(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Takes an agent in; what it is to hear goes into its outbox. None if the control plane is going down, or the
    /// machine's identity has been replaced since the call was let in.
    pub async fn connected(
        &self,
        machine: FromMachine,
        hello: Box<Hello>,
        outbox: Outbox,
    ) -> Option<Session> {
        let (reply, answer) = oneshot::channel();
        let said = Said::Connected {
            machine,
            hello,
            outbox,
            reply,
        };
        self.said.send(said).await.ok()?;
        answer.await.ok()
    }

    /// Passes on what an agent said; waits while the task is behind.
    pub async fn said(&self, session: u64, message: Box<ToServer>) {
        let _ = self.said.send(Said::Message { session, message }).await;
    }

    /// A session's connection is gone.
    pub async fn gone(&self, session: u64) {
        let _ = self.said.send(Said::Gone { session }).await;
    }

    /// Something was recorded. Returns once the fleet knows.
    pub async fn recorded(&self, recording: Recording) {
        let _ = self.ask(|done| Asked::Recorded { recording, done }).await;
    }

    /// Another key counts for a machine from now on, or none: its session is closed, and what was heard under the key
    /// before is forgotten.
    pub async fn identity(&self, machine: MachineName, removed: bool) {
        let _ = self.asked.send(Asked::Identity { machine, removed }).await;
    }

    /// Says something to a machine that does not concern its assignment. Whether it is connected.
    pub async fn tell(&self, machine: MachineName, message: ToAgent) -> bool {
        let told = self.ask(|reply| Asked::Tell {
            machine,
            message,
            reply,
        });
        told.await.unwrap_or(false)
    }

    /// Orders by hand were recorded. Returns once they are on their way.
    pub(crate) async fn hands(&self, written: BTreeMap<MachineName, Arc<WrittenOrders>>) {
        let _ = self.ask(|done| Asked::Hands { written, done }).await;
    }

    /// Has a machine check what it holds, in full.
    ///
    /// # Errors
    /// Why it does not, for people.
    pub(crate) async fn reconcile(
        &self,
        machine: MachineName,
        owner: Option<OwnerName>,
    ) -> Result<Reconciled, String> {
        let answer = self.ask(|reply| Asked::Reconcile {
            machine,
            owner,
            reply,
        });
        let lost = "the machine lost its connection, or the control plane is going down";
        answer.await.unwrap_or_else(|| Err(lost.to_owned()))
    }

    /// Asks every agent that can be asked to renew its certificate.
    pub async fn renew_all(&self, within_ms: u64) {
        let _ = self.asked.send(Asked::Renew { within_ms }).await;
    }

    /// Ends every session whose certificate is of a CA that is trusted no more.
    pub async fn cut_untrusted(&self, cas: Arc<Cas>) {
        let _ = self.asked.send(Asked::CutUntrusted(cas)).await;
    }

    /// Goes on with a machine that held more than was recorded.
    pub async fn recovered(&self, machine: MachineName) {
        let _ = self.asked.send(Asked::Recovered(machine)).await;
    }

    /// Looks at the fleet. None if the control plane is going down.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask(|reply| {
            Asked::Look(Box::new(move |fleet| {
                let _ = reply.send(look(fleet));
            }))
        })
        .await
    }

    /// Rollouts have gone on. Returns once the fleet knows.
    pub(crate) async fn advanced(
        &self,
        machines: BTreeMap<MachineName, MachineRecord>,
        rollouts: BTreeMap<OwnerName, RolloutView>,
    ) {
        let _ = self
            .ask(|done| Asked::Advanced {
                machines,
                rollouts,
                done,
            })
            .await;
    }

    /// What is known of the fleet, for the planner.
    pub async fn observe(&self) -> Option<Observed> {
        let standing = self.ask(Asked::Stand).await?;
        // That of a large fleet takes a while: agents are not to wait for it.
        tokio::task::spawn_blocking(move || observed(&standing))
            .await
            .ok()
    }

    /// The workspace as JSON and the number of the change that it shows.
    pub async fn view(&self) -> Option<(u64, Bytes)> {
        let (number, shown) = self.ask(Asked::View).await?;
        let json = match shown.made() {
            Some(json) => json,
            // That of a large fleet is megabytes.
            None => tokio::task::spawn_blocking(move || shown.json())
                .await
                .ok()?,
        };
        Some((number, json))
    }

    /// Moves with every change of the view.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// What happens on machines from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<(MachineName, MachineEvent)> {
        self.events.subscribe()
    }

    /// Whether a machine's recorded assignment names a blob.
    #[must_use]
    pub fn may_fetch(&self, machine: &MachineName, digest: &Hash) -> bool {
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        let assignment = assigned.get(machine).cloned();
        drop(assigned);
        assignment.is_some_and(|assignment| {
            let mut named = assignment.resources().flat_map(|r| r.spec.blobs());
            named.any(|(named, _)| named == *digest)
        })
    }

    /// Asks every machine that runs an owner for its logs. `Ok(None)`: nothing that is recorded fits.
    pub(crate) async fn open_logs(
        &self,
        wanted: WantedLogs,
        sink: Sink,
    ) -> Option<Option<Vec<u64>>> {
        self.ask(|reply| Asked::OpenLogs {
            wanted,
            sink,
            reply,
        })
        .await
    }

    /// Nobody listens to these logs any more. Never waits: it is called where a stream is dropped.
    pub(crate) fn close_logs(&self, requests: Vec<u64>) {
        for request in &requests {
            self.logs.forget(*request);
        }
        // If the queue is full the agent learns of it when it next sends a line.
        let _ = self.said.try_send(Said::CloseLogs(requests));
    }

    /// The log requests that wait for their machine.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// As [`Gateway::stop`], for where nothing can be waited for.
    pub(crate) fn stop_soon(&self) {
        let (done, _) = oneshot::channel();
        // A full queue belongs to a task that ends by itself once the services are gone.
        let _ = self.asked.try_send(Asked::Stop(done));
    }

    /// Says goodbye to every agent and ends the task, once what became of releases is on disk.
    pub async fn stop(&self) {
        let _ = self.ask(Asked::Stop).await;
    }
}

fn observed(standing: &Standing) -> Observed {
    Observed {
        machines: standing
            .facts()
            .map(|(name, facts)| (name.clone(), facts.clone()))
            .collect(),
        statuses: standing
            .statuses()
            .map(|status| (status.address.clone(), status.clone()))
            .collect(),
        nobody_asked: false,
    }
}
