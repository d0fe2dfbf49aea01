//! Owns the fleet: one task takes every event in order, hands it to [`Fleet`], and carries its effects out.
//!
//! Nothing else touches the fleet; sessions, the API and the recorder talk to the task through [`Gateway`], over one
//! bounded queue. It never waits for an agent: one that does not take its messages is disconnected, and comes back to
//! a snapshot. It ticks only while somebody is connected.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use plumb_dispatch::fleet::{Effect, Event};
use plumb_dispatch::hands::WrittenOrders;
use plumb_dispatch::protocol::{
    Hello, LogsRequest, Now, Reconciled, SecretVersion, ToAgent, ToServer,
};
use plumb_dispatch::view::{RolloutView, WorkspaceView};
use plumb_dispatch::{Fleet, MachineRecord, Recording};
use plumb_ledger::Ledger;
use plumb_model::condition::MachineEvent;
use plumb_model::state::Outcome;
use plumb_model::{
    Hash, MachineName, OwnerName, ProcessName, ReleaseNumber, ResourceKind, Timestamp,
};
use plumb_planner::Observed;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::access::Access;
use crate::events::desk::{Desk, Reply};
use crate::guard::FromMachine;
use crate::identity::CaKeyId;
use crate::logs::{Logs, Sink, notice};
use crate::outbox::Outbox;
use crate::rotation::Cas;
use crate::secrets::Vault;

/// How many events may wait for the task; past it, whoever sends waits.
const QUEUE: usize = 1024;

/// How many events a reader of `Watch` may be behind before it loses some, counted.
const EVENTS: usize = 1024;

/// How often silence is looked for while somebody is connected. The shortest deadline of the fleet is 45 s, so that
/// this adds little to it.
const TICK: Duration = Duration::from_secs(5);

/// What takes the task longer than this is told of in the log, at debug.
const LONG: Duration = Duration::from_millis(20);

/// How long a machine may take to open a log stream that it was asked for.
const LOGS_WITHIN: Duration = Duration::from_secs(10);

/// How many outcomes may wait for the disk.
const OUTCOMES: usize = 1024;

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

enum Input {
    Connected {
        machine: FromMachine,
        hello: Box<Hello>,
        outbox: Outbox,
        reply: oneshot::Sender<Session>,
    },
    Said {
        session: u64,
        message: Box<ToServer>,
    },
    Gone {
        session: u64,
    },
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
    CloseLogs(Vec<u64>),
    /// What was looked up or stored for the machine behind a session, if that is still there.
    Opened {
        session: u64,
        message: ToAgent,
    },
    Observe(oneshot::Sender<Observed>),
    View(oneshot::Sender<(u64, Arc<Shown>)>),
    Stop(oneshot::Sender<()>),
}

impl Input {
    /// What it is, for the log.
    fn what(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Said { .. } => "said",
            Self::Gone { .. } => "gone",
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
            Self::CloseLogs(_) => "close logs",
            Self::Opened { .. } => "opened",
            Self::Observe(_) => "observe",
            Self::View(_) => "view",
            Self::Stop(_) => "stop",
        }
    }
}

/// The workspace as it stood, and the same as JSON once somebody has asked for it.
struct Shown {
    view: WorkspaceView,
    json: OnceLock<Arc<Vec<u8>>>,
}

impl Shown {
    /// Made once, however many ask; whoever asks meanwhile waits for it. Blocks.
    fn json(&self) -> Arc<Vec<u8>> {
        self.json
            .get_or_init(|| Arc::new(plumb_wire::convert::to_json(&self.view)))
            .clone()
    }
}

/// The way to the task that owns the fleet. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    inputs: mpsc::Sender<Input>,
    changed: watch::Receiver<u64>,
    events: broadcast::Sender<(MachineName, MachineEvent)>,
    logs: Arc<Logs>,
    blobs: Arc<RwLock<BTreeMap<MachineName, Arc<BTreeSet<Hash>>>>>,
}

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
        let (inputs, queue) = mpsc::channel(QUEUE);
        let (changed_tx, changed) = watch::channel(1);
        let (events, _) = broadcast::channel(EVENTS);
        let gateway = Self {
            inputs,
            changed,
            events: events.clone(),
            logs: Arc::default(),
            blobs: Arc::default(),
        };
        let (outcomes, writer) = outcome_writer(ledger);
        let mut task = Task {
            fleet,
            access,
            vault,
            desk,
            inputs: gateway.inputs.downgrade(),
            now,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            last_session: 0,
            open_logs: BTreeMap::new(),
            requests: BTreeMap::new(),
            checks: BTreeMap::new(),
            last_check: 0,
            changed: changed_tx,
            view: None,
            events,
            logs: gateway.logs.clone(),
            blobs: gateway.blobs.clone(),
            outcomes,
            writer: Some(writer),
        };
        task.note_recording(recording);
        tokio::spawn(task.run(queue));
        gateway
    }

    async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.inputs.send(input(reply)).await.ok()?;
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
        self.ask(|reply| Input::Connected {
            machine,
            hello,
            outbox,
            reply,
        })
        .await
    }

    /// Passes on what an agent said; waits while the task is behind.
    pub async fn said(&self, session: u64, message: ToServer) {
        let message = Box::new(message);
        let _ = self.inputs.send(Input::Said { session, message }).await;
    }

    /// A session's connection is gone.
    pub async fn gone(&self, session: u64) {
        let _ = self.inputs.send(Input::Gone { session }).await;
    }

    /// Something was recorded. Returns once the fleet knows.
    pub async fn recorded(&self, recording: Recording) {
        let _ = self.ask(|done| Input::Recorded { recording, done }).await;
    }

    /// Another key counts for a machine from now on, or none: its session is closed, and what was heard under the key
    /// before is forgotten.
    pub async fn identity(&self, machine: MachineName, removed: bool) {
        let _ = self.inputs.send(Input::Identity { machine, removed }).await;
    }

    /// Says something to a machine that does not concern its assignment. Whether it is connected.
    pub async fn tell(&self, machine: MachineName, message: ToAgent) -> bool {
        let told = self.ask(|reply| Input::Tell {
            machine,
            message,
            reply,
        });
        told.await.unwrap_or(false)
    }

    /// Orders by hand were recorded. Returns once they are on their way.
    pub(crate) async fn hands(&self, written: BTreeMap<MachineName, Arc<WrittenOrders>>) {
        let _ = self.ask(|done| Input::Hands { written, done }).await;
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
        let answer = self.ask(|reply| Input::Reconcile {
            machine,
            owner,
            reply,
        });
        let lost = "the machine lost its connection, or the control plane is going down";
        answer.await.unwrap_or_else(|| Err(lost.to_owned()))
    }

    /// Asks every agent that can be asked to renew its certificate.
    pub async fn renew_all(&self, within_ms: u64) {
        let _ = self.inputs.send(Input::Renew { within_ms }).await;
    }

    /// Ends every session whose certificate is of a CA that is trusted no more.
    pub async fn cut_untrusted(&self, cas: Arc<Cas>) {
        let _ = self.inputs.send(Input::CutUntrusted(cas)).await;
    }

    /// Goes on with a machine that held more than was recorded.
    pub async fn recovered(&self, machine: MachineName) {
        let _ = self.inputs.send(Input::Recovered(machine)).await;
    }

    /// Looks at the fleet. None if the control plane is going down.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fleet) -> T + Send + 'static,
    ) -> Option<T> {
        self.ask(|reply| {
            Input::Look(Box::new(move |fleet| {
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
            .ask(|done| Input::Advanced {
                machines,
                rollouts,
                done,
            })
            .await;
    }

    /// What is known of the fleet, for the planner.
    pub async fn observe(&self) -> Option<Observed> {
        self.ask(Input::Observe).await
    }

    /// The workspace as JSON and the number of the change that it shows.
    pub async fn view(&self) -> Option<(u64, Arc<Vec<u8>>)> {
        let (number, shown) = self.ask(Input::View).await?;
        let json = match shown.json.get() {
            Some(json) => json.clone(),
            // That of a large fleet is megabytes: agents are not to wait for it.
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
        let blobs = self.blobs.read().unwrap_or_else(PoisonError::into_inner);
        blobs.get(machine).is_some_and(|set| set.contains(digest))
    }

    /// Asks every machine that runs an owner for its logs. `Ok(None)`: nothing that is recorded fits.
    pub(crate) async fn open_logs(
        &self,
        wanted: WantedLogs,
        sink: Sink,
    ) -> Option<Option<Vec<u64>>> {
        self.ask(|reply| Input::OpenLogs {
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
        let _ = self.inputs.try_send(Input::CloseLogs(requests));
    }

    /// The log requests that wait for their machine.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// As [`Gateway::stop`], for where nothing can be waited for.
    pub(crate) fn stop_soon(&self) {
        let (done, _) = oneshot::channel();
        // A full queue belongs to a task that ends by itself once the services are gone.
        let _ = self.inputs.try_send(Input::Stop(done));
    }

    /// Says goodbye to every agent and ends the task, once what became of releases is on disk.
    pub async fn stop(&self) {
        let _ = self.ask(Input::Stop).await;
    }
}

struct Link {
    machine: MachineName,
    /// The CA of the certificate that it came with, and when that runs out.
    issuer: CaKeyId,
    not_after: Timestamp,
    /// It can be asked to renew.
    renews: bool,
    outbox: Outbox,
    /// Dropped to say that the session is over.
    _over: oneshot::Sender<()>,
}

struct Task {
    fleet: Fleet,
    access: Arc<Access>,
    vault: Vault,
    desk: Desk,
    inputs: mpsc::WeakSender<Input>,
    now: fn() -> Timestamp,
    started: Instant,
    sessions: BTreeMap<u64, Link>,
    last_session: u64,
    /// Owner → the machines that have a process of it.
    open_logs: BTreeMap<OwnerName, BTreeSet<MachineName>>,
    /// Log requests that were sent to a session.
    requests: BTreeMap<u64, u64>,
    /// Checks that were asked for: of which session, and who waits.
    checks: BTreeMap<u64, (u64, oneshot::Sender<Result<Reconciled, String>>)>,
    last_check: u64,
    changed: watch::Sender<u64>,
    view: Option<Arc<Shown>>,
    events: broadcast::Sender<(MachineName, MachineEvent)>,
    logs: Arc<Logs>,
    blobs: Arc<RwLock<BTreeMap<MachineName, Arc<BTreeSet<Hash>>>>>,
    outcomes: mpsc::Sender<Noted>,
    writer: Option<JoinHandle<()>>,
}

type Noted = (OwnerName, ReleaseNumber, Outcome);

impl Task {
    async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let input = tokio::select! {
                input = queue.recv() => input,
                _ = tick.tick(), if !self.sessions.is_empty() => {
                    let now = (self.now)();
                    self.cut("this agent's certificate has run out; it renews it by itself", |link| {
                        now >= link.not_after
                    })
                    .await;
                    self.handle(Event::Tick).await;
                    continue;
                }
            };
            match input {
                Some(Input::Stop(done)) => {
                    self.stop().await;
                    let _ = done.send(());
                    return;
                }
                Some(input) => {
                    let (what, began) = (input.what(), Instant::now());
                    self.take(input).await;
                    let took = began.elapsed();
                    if took >= LONG {
                        tracing::debug!(what, ms = took.as_millis(), "agents waited for this");
                    }
                }
                None => return,
            }
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Connected {
                machine,
                hello,
                outbox,
                reply,
            } => self.connected(machine, *hello, outbox, reply).await,
            Input::Said { session, message } => {
                let message = *message;
                self.handle(Event::Message { session, message }).await;
            }
            Input::Gone { session } => self.gone(session).await,
            Input::Recorded { recording, done } => {
                self.note_recording(&recording);
                self.handle(Event::Recorded(recording)).await;
                let _ = done.send(());
            }
            Input::Advanced {
                machines,
                rollouts,
                done,
            } => {
                for (name, record) in &machines {
                    for machines in self.open_logs.values_mut() {
                        machines.remove(name);
                    }
                    self.note_machine(name, record);
                }
                self.handle(Event::Advanced { machines, rollouts }).await;
                let _ = done.send(());
            }
            Input::Identity { machine, removed } => {
                self.handle(Event::Identity { machine, removed }).await;
            }
            Input::Tell {
                machine,
                message,
                reply,
            } => {
                let session = self.fleet.session_of(&machine);
                let told = session.is_some_and(|session| self.send(session, message));
                let _ = reply.send(told);
            }
            Input::Hands { written, done } => {
                self.handle(Event::Hands(written)).await;
                let _ = done.send(());
            }
            Input::Reconcile {
                machine,
                owner,
                reply,
            } => self.check(&machine, owner, reply),
            Input::Renew { within_ms } => {
                for (session, link) in &self.sessions {
                    if link.renews {
                        self.send(*session, ToAgent::Renew { within_ms });
                    }
                }
            }
            Input::CutUntrusted(cas) => {
                let reason = "the CA that issued this agent's certificate has been replaced";
                self.cut(reason, |link| !cas.trusts(link.issuer)).await;
            }
            Input::Recovered(machine) => self.handle(Event::Recovered(machine)).await,
            Input::Look(look) => look(&self.fleet),
            Input::OpenLogs {
                wanted,
                sink,
                reply,
            } => {
                let requests = self.ask_for_logs(&wanted, &sink);
                if let Err(Some(requests)) = reply.send(requests) {
                    self.close_logs(requests);
                }
            }
            Input::CloseLogs(requests) => self.close_logs(requests),
            Input::Opened { session, message } => {
                if !self.send(session, message) {
                    self.gone(session).await;
                }
            }
            Input::Observe(reply) => {
                let machines = self
                    .fleet
                    .facts()
                    .map(|(name, facts)| (name.clone(), facts.clone()))
                    .collect();
                let statuses = self
                    .fleet
                    .statuses()
                    .map(|status| (status.address.clone(), status.clone()))
                    .collect();
                let _ = reply.send(Observed {
                    machines,
                    statuses,
                    nobody_asked: false,
                });
            }
            Input::View(reply) => {
                let number = *self.changed.borrow();
                let shown = self.view.get_or_insert_with(|| {
                    Arc::new(Shown {
                        view: self.fleet.view(),
                        json: OnceLock::new(),
                    })
                });
                let _ = reply.send((number, shown.clone()));
            }
            Input::Stop(_) => {}
        }
    }

    async fn connected(
        &mut self,
        machine: FromMachine,
        hello: Hello,
        outbox: Outbox,
        reply: oneshot::Sender<Session>,
    ) {
        let record = self.access.machine(&machine.name);
        if crate::access::enrolled_key(record.as_ref(), &machine.name, &machine.key).is_err() {
            return;
        }
        self.last_session += 1;
        let id = self.last_session;
        let (over_tx, over) = oneshot::channel();
        let session = Session { id, over };
        if reply.send(session).is_err() {
            return;
        }
        let link = Link {
            machine: machine.name.clone(),
            issuer: machine.issuer,
            not_after: machine.not_after,
            renews: !hello.trusted_cas.is_empty(),
            outbox,
            _over: over_tx,
        };
        self.sessions.insert(id, link);
        self.handle(Event::Connected {
            session: id,
            machine: machine.name,
            hello,
        })
        .await;
    }

    async fn gone(&mut self, session: u64) {
        if self.forget(session) {
            self.handle(Event::Disconnected { session }).await;
        }
    }

    /// Ends sessions, with a word to the agents.
    async fn cut(&mut self, reason: &str, which: impl Fn(&Link) -> bool) {
        let cut: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, link)| which(link))
            .map(|(session, _)| *session)
            .collect();
        for session in cut {
            let reason = reason.to_owned();
            self.send(session, ToAgent::Goodbye { reason });
            self.gone(session).await;
        }
    }

    /// Drops a session's ends. Whether there was one.
    fn forget(&mut self, session: u64) -> bool {
        let Some(link) = self.sessions.remove(&session) else {
            return false;
        };
        self.requests.retain(|_, at| *at != session);
        // Whoever waits learns of it by the end of the channel.
        self.checks.retain(|_, (at, _)| *at != session);
        self.logs
            .fail_all(&link.machine, "the machine lost its connection");
        true
    }

    fn now(&self) -> Now {
        Now {
            wall: (self.now)(),
            mono_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn handle(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.now();
            for effect in self.fleet.handle(event, now) {
                match effect {
                    Effect::Send { session, message } => {
                        if !self.send(session, message) && self.forget(session) {
                            events.push_back(Event::Disconnected { session });
                        }
                    }
                    Effect::Close { session, reason } => {
                        tracing::info!(session, "session closed: {reason}");
                        self.forget(session);
                    }
                    Effect::Outcome {
                        owner,
                        release,
                        outcome,
                    } => {
                        let _ = self.outcomes.send((owner, release, outcome)).await;
                    }
                    Effect::JournalGreeted {
                        session,
                        machine,
                        mark,
                    } => self.desk.greeted(machine, mark, self.answers(session)),
                    Effect::JournalHanded {
                        session,
                        machine,
                        chunk,
                    } => self.desk.handed(machine, chunk, self.answers(session)),
                    Effect::Events { machine, events } => {
                        if !self.fleet.keeps_journal(&machine) {
                            self.desk.heard(machine.clone(), events.clone());
                        }
                        for event in events {
                            // Nobody listening is no failure.
                            let _ = self.events.send((machine.clone(), event));
                        }
                    }
                    Effect::HandOver { session, secrets } => self.hand_over(session, secrets),
                    Effect::Reconciled { machine, result } => {
                        let asked = self.checks.remove(&result.request);
                        if let Some((session, reply)) = asked
                            && self.fleet.session_of(&machine) == Some(session)
                        {
                            let _ = reply.send(Ok(result));
                        }
                    }
                    Effect::LogsFailed {
                        machine,
                        request,
                        message,
                    } => {
                        self.requests.remove(&request);
                        self.logs.fail(request, &machine, &message);
                    }
                    Effect::Changed => {
                        self.view = None;
                        self.changed.send_modify(|number| *number += 1);
                    }
                }
            }
        }
    }

    /// Asks a machine to check what it holds.
    fn check(
        &mut self,
        machine: &MachineName,
        owner: Option<OwnerName>,
        reply: oneshot::Sender<Result<Reconciled, String>>,
    ) {
        let refuse = match (
            self.fleet.session_of(machine),
            self.fleet.takes_hands(machine),
        ) {
            (None, _) | (_, None) => "the machine is not connected",
            (_, Some(false)) => "its agent is of a version that cannot be asked; upgrade it",
            (Some(session), Some(true)) => {
                self.last_check += 1;
                let request = self.last_check;
                if self.send(session, ToAgent::Reconcile { request, owner }) {
                    self.checks.insert(request, (session, reply));
                    return;
                }
                "the machine takes no messages just now"
            }
        };
        let _ = reply.send(Err(refuse.to_owned()));
    }

    /// Opens secrets off the event loop, and has them sent. Which machine may have which was decided before.
    fn hand_over(&self, session: u64, secrets: Vec<SecretVersion>) {
        let (vault, inputs) = (self.vault.clone(), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            for message in vault.messages(secrets) {
                // Held weakly, so that this keeps no control plane alive.
                let Some(inputs) = inputs.upgrade() else {
                    return;
                };
                let _ = inputs.blocking_send(Input::Opened { session, message });
            }
        });
    }

    /// How the desk answers a session, if that is still there.
    fn answers(&self, session: u64) -> Reply {
        // Held weakly, so that this keeps no control plane alive.
        let inputs = self.inputs.clone();
        Box::new(move |message| {
            if let Some(inputs) = inputs.upgrade() {
                let _ = inputs.blocking_send(Input::Opened { session, message });
            }
        })
    }

    /// Puts a message into a session's outbox. Whether it went in, or the session is gone already.
    fn send(&self, session: u64, message: ToAgent) -> bool {
        let Some(link) = self.sessions.get(&session) else {
            return true;
        };
        let sent = link.outbox.send(message);
        if !sent {
            tracing::warn!(machine = %link.machine, "the agent takes no messages; its session ends");
        }
        sent
    }

    /// What the services look up without asking the task.
    fn note_recording(&mut self, recording: &Recording) {
        self.open_logs.clear();
        self.blobs
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        for (name, machine) in &recording.machines {
            self.note_machine(name, machine);
        }
    }

    fn note_machine(&mut self, name: &MachineName, machine: &MachineRecord) {
        let Some(assignment) = &machine.assignment else {
            return;
        };
        let mut named = BTreeSet::new();
        for resource in assignment.resources() {
            named.extend(resource.spec.blobs().map(|(digest, _)| digest));
            if resource.address.kind == ResourceKind::Process {
                self.open_logs
                    .entry(resource.address.owner.clone())
                    .or_default()
                    .insert(name.clone());
            }
        }
        let mut blobs = self.blobs.write().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(name.clone(), Arc::new(named));
    }

    fn ask_for_logs(&mut self, wanted: &WantedLogs, sink: &Sink) -> Option<Vec<u64>> {
        let machines: Vec<MachineName> = self
            .open_logs
            .get(&wanted.owner)?
            .iter()
            .filter(|name| wanted.machine.as_ref().is_none_or(|only| only == *name))
            .cloned()
            .collect();
        if machines.is_empty() {
            return None;
        }
        let mut requests = Vec::new();
        for machine in machines {
            let Some(session) = self.fleet.session_of(&machine) else {
                notice(
                    sink,
                    &machine,
                    "the machine is not connected; its logs are shown when it is",
                );
                continue;
            };
            let Some(request) = self.logs.open(machine.clone(), sink.clone()) else {
                notice(
                    sink,
                    &machine,
                    "too many logs are being opened at once; try again",
                );
                continue;
            };
            let message = ToAgent::OpenLogs(LogsRequest {
                request,
                owner: wanted.owner.clone(),
                process: wanted.process.clone(),
                follow: wanted.follow,
                since: wanted.since,
                tail: wanted.tail,
            });
            if !self.send(session, message) {
                self.logs
                    .fail(request, &machine, "the machine takes no messages just now");
                continue;
            }
            self.requests.insert(request, session);
            requests.push(request);
            let logs = self.logs.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LOGS_WITHIN).await;
                logs.fail(request, &machine, "the machine did not answer in time");
            });
        }
        Some(requests)
    }

    fn close_logs(&mut self, requests: Vec<u64>) {
        for request in requests {
            self.logs.forget(request);
            if let Some(session) = self.requests.remove(&request) {
                self.send(session, ToAgent::CloseLogs { request });
            }
        }
    }

    async fn stop(&mut self) {
        let goodbye = "the control plane is going down; everything runs on, and this agent tries again by itself";
        for link in std::mem::take(&mut self.sessions).into_values() {
            link.outbox.send(ToAgent::Goodbye {
                reason: goodbye.to_owned(),
            });
        }
        self.logs.clear();
        // The writer ends when its queue does, and has then written everything.
        self.outcomes = mpsc::channel(1).0;
        if let Some(writer) = self.writer.take() {
            let _ = writer.await;
        }
    }
}

/// Writes outcomes in order, as many at a time as have gathered while the disk was busy.
fn outcome_writer(ledger: Ledger) -> (mpsc::Sender<Noted>, JoinHandle<()>) {
    let (tx, mut rx) = mpsc::channel::<Noted>(OUTCOMES);
    let writer = tokio::spawn(async move {
        loop {
            let mut batch = Vec::new();
            if rx.recv_many(&mut batch, OUTCOMES).await == 0 {
                return;
            }
            let ledger = ledger.clone();
            let written = tokio::task::spawn_blocking(move || ledger.set_outcomes(batch)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!("cannot note what became of releases: {error}"),
                Err(error) => tracing::error!("cannot note what became of releases: {error}"),
            }
        }
    });
    (tx, writer)
}
