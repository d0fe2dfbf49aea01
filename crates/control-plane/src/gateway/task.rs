//! The task that owns the fleet: takes every event in order, hands it to [`Fleet`], and carries its effects out. It ticks only
//! while somebody is connected.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use plumb_dispatch::fleet::{Effect, Event};
use plumb_dispatch::protocol::{Hello, LogsRequest, Now, Reconciled, SecretVersion, ToAgent};
use plumb_dispatch::{Fleet, MachineRecord, Recording};
use plumb_ledger::Ledger;
use plumb_model::condition::MachineEvent;
use plumb_model::{Assignment, MachineName, OwnerName, ResourceKind, Timestamp};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::outcomes::{Noted, outcome_writer};
use super::shown::Shown;
use super::{Asked, Assigned, Gateway, Said, Session, WantedLogs};
use crate::access::Access;
use crate::events::desk::{Desk, Reply};
use crate::guard::FromMachine;
use crate::identity::CaKeyId;
use crate::logs::{Logs, Sink, notice};
use crate::outbox::Outbox;
use crate::secrets::Vault;

/// How often silence is looked for while somebody is connected. The shortest deadline of the fleet is 45 s, so that
/// this adds little to it.
const TICK: Duration = Duration::from_secs(5);

/// What takes the task longer than this is told of in the log, at debug.
const LONG: Duration = Duration::from_millis(20);

/// How long a machine may take to open a log stream that it was asked for.
const LOGS_WITHIN: Duration = Duration::from_secs(10);

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

pub(super) struct Task {
    fleet: Fleet,
    access: Arc<Access>,
    vault: Vault,
    desk: Desk,
    said: mpsc::WeakSender<Said>,
    now: fn() -> Timestamp,
    started: Instant,
    sessions: BTreeMap<u64, Link>,
    last_session: u64,
    /// Log requests that were sent to a session.
    requests: BTreeMap<u64, u64>,
    /// Checks that were asked for: of which session, and who waits.
    checks: BTreeMap<u64, (u64, oneshot::Sender<Result<Reconciled, String>>)>,
    last_check: u64,
    changed: watch::Sender<u64>,
    view: Option<Arc<Shown>>,
    events: broadcast::Sender<(MachineName, MachineEvent)>,
    logs: Arc<Logs>,
    assigned: Assigned,
    outcomes: mpsc::Sender<Noted>,
    writer: Option<JoinHandle<()>>,
}

impl Task {
    pub fn new(
        fleet: Fleet,
        gateway: &Gateway,
        changed: watch::Sender<u64>,
        (access, vault, desk): (Arc<Access>, Vault, Desk),
        ledger: Ledger,
        now: fn() -> Timestamp,
    ) -> Self {
        let (outcomes, writer) = outcome_writer(ledger);
        Self {
            fleet,
            access,
            vault,
            desk,
            said: gateway.said.downgrade(),
            now,
            started: Instant::now(),
            sessions: BTreeMap::new(),
            last_session: 0,
            requests: BTreeMap::new(),
            checks: BTreeMap::new(),
            last_check: 0,
            changed,
            view: None,
            events: gateway.events.clone(),
            logs: gateway.logs.clone(),
            assigned: gateway.assigned.clone(),
            outcomes,
            writer: Some(writer),
        }
    }

    pub async fn run(mut self, mut asked: mpsc::Receiver<Asked>, mut said: mpsc::Receiver<Said>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let began;
            let what = tokio::select! {
                biased;
                input = asked.recv() => match input {
                    Some(Asked::Stop(done)) => {
                        self.stop().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(input) => {
                        began = Instant::now();
                        let what = input.what();
                        self.asked(input).await;
                        what
                    }
                    None => return,
                },
                _ = tick.tick(), if !self.sessions.is_empty() => {
                    began = Instant::now();
                    self.tick().await;
                    "tick"
                }
                input = said.recv() => match input {
                    Some(input) => {
                        began = Instant::now();
                        let what = input.what();
                        self.said(input).await;
                        what
                    }
                    None => return,
                },
            };
            let took = began.elapsed();
            if took >= LONG {
                tracing::debug!(what, ms = took.as_millis(), "agents waited for this");
            }
        }
    }

    async fn tick(&mut self) {
        let now = (self.now)();
        let reason = "this agent's certificate has run out; it renews it by itself";
        self.cut(reason, |link| now >= link.not_after).await;
        self.handle(Event::Tick).await;
    }

    async fn said(&mut self, input: Said) {
        match input {
            Said::Connected {
                machine,
                hello,
                outbox,
                reply,
            } => self.connected(machine, *hello, outbox, reply).await,
            Said::Message { session, message } => {
                let message = *message;
                self.handle(Event::Message { session, message }).await;
            }
            Said::Gone { session } => self.gone(session).await,
            Said::Opened { session, message } => {
                if !self.send(session, message) {
                    self.gone(session).await;
                }
            }
            Said::CloseLogs(requests) => self.close_logs(requests),
        }
    }

    async fn asked(&mut self, input: Asked) {
        match input {
            Asked::Recorded { recording, done } => {
                self.note_recording(&recording);
                self.handle(Event::Recorded(recording)).await;
                let _ = done.send(());
            }
            Asked::Advanced {
                machines,
                rollouts,
                done,
            } => {
                self.note_moved(&machines);
                self.handle(Event::Advanced { machines, rollouts }).await;
                let _ = done.send(());
            }
            Asked::Identity { machine, removed } => {
                self.handle(Event::Identity { machine, removed }).await;
            }
            Asked::Tell {
                machine,
                message,
                reply,
            } => {
                let session = self.fleet.session_of(&machine);
                let told = session.is_some_and(|session| self.send(session, message));
                let _ = reply.send(told);
            }
            Asked::Hands { written, done } => {
                self.handle(Event::Hands(written)).await;
                let _ = done.send(());
            }
            Asked::Reconcile {
                machine,
                owner,
                reply,
            } => self.check(&machine, owner, reply),
            Asked::Renew { within_ms } => {
                for (session, link) in &self.sessions {
                    if link.renews {
                        self.send(*session, ToAgent::Renew { within_ms });
                    }
                }
            }
            Asked::CutUntrusted(cas) => {
                let reason = "the CA that issued this agent's certificate has been replaced";
                self.cut(reason, |link| !cas.trusts(link.issuer)).await;
            }
            Asked::Recovered(machine) => self.handle(Event::Recovered(machine)).await,
            Asked::Look(look) => look(&self.fleet),
            Asked::OpenLogs {
                wanted,
                sink,
                reply,
            } => {
                let requests = self.ask_for_logs(&wanted, &sink);
                if let Err(Some(requests)) = reply.send(requests) {
                    self.close_logs(requests);
                }
            }
            Asked::Stand(reply) => {
                let _ = reply.send(self.fleet.standing());
            }
            Asked::View(reply) => {
                let number = *self.changed.borrow();
                let standing = || Arc::new(Shown::of(self.fleet.standing()));
                let shown = self.view.get_or_insert_with(standing).clone();
                let _ = reply.send((number, shown));
            }
            // Taken before.
            Asked::Stop(_) => {}
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
        let (vault, said) = (self.vault.clone(), self.said.clone());
        tokio::spawn(async move {
            let opened = tokio::task::spawn_blocking(move || vault.messages(secrets));
            for message in opened.await.into_iter().flatten() {
                // Held weakly, so that this keeps no control plane alive.
                let Some(said) = said.upgrade() else {
                    return;
                };
                // Not where it blocks: this task may wait for what a thread like that one does.
                let _ = said.send(Said::Opened { session, message }).await;
            }
        });
    }

    /// How the desk answers a session, if that is still there.
    fn answers(&self, session: u64) -> Reply {
        // Held weakly, so that this keeps no control plane alive.
        let said = self.said.clone();
        Box::new(move |message| {
            if let Some(said) = said.upgrade() {
                let _ = said.blocking_send(Said::Opened { session, message });
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
    pub fn note_recording(&self, recording: &Recording) {
        let machines = recording.machines.iter();
        let assigned = machines
            .filter_map(|(name, machine)| Some((name.clone(), machine.assignment.clone()?)))
            .collect();
        *self
            .assigned
            .write()
            .unwrap_or_else(PoisonError::into_inner) = assigned;
    }

    fn note_moved(&self, machines: &BTreeMap<MachineName, MachineRecord>) {
        let mut assigned = self
            .assigned
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let moved = machines.iter();
        assigned.extend(
            moved.filter_map(|(name, machine)| Some((name.clone(), machine.assignment.clone()?))),
        );
    }

    /// The machines that have a process of an owner.
    fn running(&self, owner: &OwnerName) -> Vec<MachineName> {
        let runs = |assignment: &Assignment| {
            let mut resources = assignment.resources();
            resources.any(|r| r.address.kind == ResourceKind::Process && r.address.owner == *owner)
        };
        let all = self.fleet.assignments();
        all.filter(|(_, assignment)| runs(assignment))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn ask_for_logs(&mut self, wanted: &WantedLogs, sink: &Sink) -> Option<Vec<u64>> {
        let mut machines = self.running(&wanted.owner);
        machines.retain(|name| wanted.machine.as_ref().is_none_or(|only| only == name));
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
