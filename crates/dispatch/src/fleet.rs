//! The control plane's end: which machine is sent what and when, and what became of each release.
//!
//! It never opens a socket, reads a clock or stores anything. The gateway feeds it sessions, the API feeds it what
//! was recorded, and both carry out its [`Effect`]s in order.
//!
//! Invariants: a machine has at most one session and one assignment in flight; nothing is sent to a machine that is
//! ahead of the ledger; what a fenced session still says is not heard.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use plumb_model::capability::Capabilities;
use plumb_model::condition::MachineEvent;
use plumb_model::journal::Mark;
use plumb_model::state::Outcome;
use plumb_model::{Generation, Hash, Lineage, MachineName, OwnerName, ReleaseNumber, Revision};

use crate::hands::WrittenOrders;
use crate::journal::Chunk;
use crate::machine::{MAX_RESYNCS, Machine, Refused, Session};
use crate::machines::Machines;
use crate::protocol::{
    Hello, Now, Reconciled, Refusal, RefusalKind, SecretVersion, ToAgent, ToServer,
};
use crate::record::{MachineRecord, Recording};
use crate::releases::Track;
use crate::skew;
use crate::version::{self, SPOKEN};
use crate::view::RolloutView;

mod asked;

/// How many events of the workspace are kept.
pub const KEPT_EVENTS: usize = 1000;

/// How often [`Event::Tick`] is wanted, in milliseconds.
pub const TICK_MS: u64 = 1000;

/// How long an assignment may stay unanswered until its session is closed, so that the next hello settles what
/// became of it, in milliseconds. A disk that syncs for longer than this is as good as gone.
pub const ANSWER_WITHIN_MS: u64 = 120_000;

/// A session that is silent for so many heartbeat periods is closed.
pub const SILENT_PERIODS: u64 = 3;

/// The heartbeat period in milliseconds: 15 s for up to 3,000 machines, and beyond that 5 ms for each machine, which
/// keeps the control plane at 200 heartbeats a second; never more than two minutes.
#[must_use]
pub fn heartbeat_ms(machines: usize) -> u64 {
    (machines as u64).saturating_mul(5).clamp(15_000, 120_000)
}

/// Something that happened to the control plane.
#[derive(Debug, Clone)]
pub enum Event {
    /// An agent that has proven to be this machine has opened a stream and said hello.
    Connected {
        /// A number that the gateway gives to no other session.
        session: u64,
        /// Which machine, from its certificate.
        machine: MachineName,
        /// Its first words.
        hello: Hello,
    },
    /// An agent said something more.
    Message {
        /// On which session.
        session: u64,
        /// What.
        message: ToServer,
    },
    /// A stream is gone.
    Disconnected {
        /// Whose.
        session: u64,
    },
    /// Something was recorded: the whole of it, as it is now.
    Recorded(Recording),
    /// Rollouts have gone on: the machines that a wave has moved, and how every rollout stands.
    Advanced {
        /// Only those that moved.
        machines: BTreeMap<MachineName, MachineRecord>,
        /// All of them.
        rollouts: BTreeMap<OwnerName, RolloutView>,
    },
    /// What is ordered by hand has been recorded anew for these machines.
    Hands(BTreeMap<MachineName, Arc<WrittenOrders>>),
    /// An operator says to go on with a regressed machine from what is recorded now.
    Recovered(MachineName),
    /// Another key counts for this machine from now on, or none: nothing of what was heard under the one before is
    /// believed. Its session has been closed.
    Identity {
        /// Whose.
        machine: MachineName,
        /// None counts: it was removed.
        removed: bool,
    },
    /// Time has passed.
    Tick,
}

/// Something for the control plane to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Say this on that session.
    Send {
        /// Which.
        session: u64,
        /// What.
        message: ToAgent,
    },
    /// Close that session; a goodbye with the reason has been sent before.
    Close {
        /// Which.
        session: u64,
        /// Why, for people.
        reason: String,
    },
    /// Record what became of a release. `Failed` may be followed by `Converged`; nothing else is ever taken back.
    Outcome {
        /// Whose.
        owner: OwnerName,
        /// Which.
        release: ReleaseNumber,
        /// What.
        outcome: Outcome,
    },
    /// A machine says that these things happened.
    Events {
        /// Which machine.
        machine: MachineName,
        /// Oldest first.
        events: Vec<MachineEvent>,
    },
    /// Hand these secrets to the machine behind that session. Its recorded assignment names each of them.
    HandOver {
        /// Which session.
        session: u64,
        /// Which secrets.
        secrets: Vec<SecretVersion>,
    },
    /// A machine says what a full check has come to.
    Reconciled {
        /// Which machine.
        machine: MachineName,
        /// What it has come to. Every address in it is the machine's own.
        result: Reconciled,
    },
    /// An agent that keeps a journal was welcomed: say with [`ToAgent::JournalStored`] through where it is stored.
    JournalGreeted {
        /// On which session.
        session: u64,
        /// Which machine.
        machine: MachineName,
        /// Where its journal ends.
        mark: Mark,
    },
    /// Check and store these entries, and answer them with [`ToAgent::JournalStored`].
    JournalHanded {
        /// On which session.
        session: u64,
        /// Which machine.
        machine: MachineName,
        /// The entries.
        chunk: Chunk,
    },
    /// An agent cannot send a log that was asked for.
    LogsFailed {
        /// Which machine.
        machine: MachineName,
        /// Which request.
        request: u64,
        /// Why, for people.
        message: String,
    },
    /// What [`Fleet::view`] shows has changed. At most once for each event.
    Changed,
}

/// The control plane's end of all sessions of one workspace.
#[derive(Debug)]
pub struct Fleet {
    lineage: Lineage,
    pub(crate) revision: Revision,
    pub(crate) machines: Machines,
    pub(crate) owners: BTreeMap<OwnerName, Track>,
    pub(crate) rollouts: BTreeMap<OwnerName, RolloutView>,
    sessions: BTreeMap<u64, MachineName>,
    /// What machines can do, each once.
    abilities: Abilities,
    events: VecDeque<MachineEvent>,
    pub(crate) dropped_statuses: u64,
    pub(crate) dropped_events: u64,
    last_tick_ms: Option<u64>,
    pub(crate) changed: bool,
}

/// What machines can do, each once: thousands say the same, and it is some kilobytes of reasons.
#[derive(Debug, Clone, Default)]
struct Abilities(Vec<Capabilities>);

impl Abilities {
    /// So many different ones are known at most; what is beyond them is held by each machine for itself.
    const MOST: usize = 64;

    /// The same as these, shared with whoever said the same before.
    fn shared(&mut self, these: Capabilities) -> Capabilities {
        if let Some(known) = self.0.iter().find(|known| **known == these) {
            return known.clone();
        }
        // Those that no machine has any more make room.
        self.0.retain(|known| Arc::strong_count(&known.0) > 1);
        if self.0.len() < Self::MOST {
            self.0.push(these.clone());
        }
        these
    }
}

impl Fleet {
    /// Starts with what the ledger holds: the state, and the outcome of each owner's current release as far as one was
    /// recorded. All machines are offline.
    #[must_use]
    pub fn new(
        lineage: Lineage,
        recording: Recording,
        outcomes: &BTreeMap<(OwnerName, ReleaseNumber), Outcome>,
    ) -> Self {
        let mut fleet = Self {
            lineage,
            revision: Revision(0),
            machines: Machines::default(),
            owners: BTreeMap::new(),
            rollouts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            abilities: Abilities::default(),
            events: VecDeque::new(),
            dropped_statuses: 0,
            dropped_events: 0,
            last_tick_ms: None,
            changed: false,
        };
        // An owner that went without leaving a trace, since it was renamed or its data is kept, is known by nothing but its
        // missing outcome; the control plane may have died before it could tell of it.
        let untold: Vec<_> = recording
            .owners
            .iter()
            .filter(|(owner, record)| {
                let told = outcomes.get(&((*owner).clone(), record.release));
                record.removed && told == Some(&Outcome::Converging)
            })
            .map(|(owner, record)| (owner.clone(), *record))
            .collect();
        // What was recorded before is no news: nobody needs to be told of it.
        fleet.recorded(recording, &mut Vec::new());
        for (owner, record) in untold {
            fleet
                .owners
                .entry(owner)
                .or_insert_with(|| Track::of_removed(&record));
        }
        // Nor is a release that went on under another name judged again by what goes from where it was before.
        fleet.owners.retain(|owner, track| {
            let told = outcomes.get(&(owner.clone(), track.release));
            !(track.removed && matches!(told, Some(Outcome::Converged | Outcome::Superseded)))
        });
        for (owner, track) in &mut fleet.owners {
            if let Some(outcome) = outcomes.get(&(owner.clone(), track.release)) {
                track.outcome = *outcome;
            }
        }
        fleet.forget_removed();
        fleet.changed = false;
        fleet
    }

    /// Takes one event, and says what is to be done about it.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Connected {
                session,
                machine,
                hello,
            } => self.connected(session, machine, hello, now, &mut out),
            Event::Message { session, message } => self.message(session, message, now, &mut out),
            Event::Disconnected { session } => self.gone(session),
            Event::Recorded(recording) => {
                self.recorded(recording, &mut out);
                let names: Vec<_> = self.machines.keys().cloned().collect();
                for name in names {
                    self.push(&name, now, &mut out);
                }
                let owners: BTreeSet<_> = self.owners.keys().cloned().collect();
                self.judge_owners(&owners, &mut out);
            }
            Event::Advanced { machines, rollouts } => {
                let moved: Vec<_> = machines.keys().cloned().collect();
                self.advanced(machines, rollouts, &mut out);
                for name in moved {
                    self.push(&name, now, &mut out);
                }
                let owners: BTreeSet<_> = self.owners.keys().cloned().collect();
                self.judge_owners(&owners, &mut out);
            }
            Event::Hands(all) => {
                for (name, written) in all {
                    let machine = self.machines.of(name.clone());
                    machine.hands.written = Some(written);
                    self.changed = true;
                    self.push(&name, now, &mut out);
                }
            }
            Event::Recovered(name) => {
                if let Some(machine) = self.machines.get_mut(&name) {
                    machine.regressed = None;
                    machine.compare();
                    if let Some(session) = &mut machine.session {
                        session.wants_snapshot = true;
                    }
                    self.changed = true;
                    self.push(&name, now, &mut out);
                }
            }
            Event::Identity { machine, removed } => self.identity(&machine, removed, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        if std::mem::take(&mut self.changed) {
            out.push(Effect::Changed);
        }
        out
    }

    fn connected(
        &mut self,
        session: u64,
        name: MachineName,
        hello: Hello,
        now: Now,
        out: &mut Vec<Effect>,
    ) {
        if let Some(theirs) = hello.lineage.as_ref().filter(|l| **l != self.lineage) {
            let reason = format!(
                "machine {name} obeys lineage {theirs}, but this control plane is of lineage {}; \
                 point the agent at its own control plane, or enrol it anew with an empty data folder",
                self.lineage
            );
            close(session, reason, out);
            return;
        }
        let Some(protocol) = SPOKEN.agree(hello.versions) else {
            let agent = (hello.facts.version.as_str(), hello.versions);
            let reason = version::refusal(agent, (version::PLUMB, SPOKEN));
            let machine = self.machines.of(name);
            machine.last_seen = Some(now.wall);
            machine.facts = Some(hello.facts);
            machine.incompatible = Some(reason.clone());
            self.changed = true;
            close(session, reason, out);
            return;
        };
        let machine = self.machines.of(name.clone());
        machine.incompatible = None;
        let mut facts = hello.facts;
        facts.capabilities = self.abilities.shared(facts.capabilities);
        let old = machine.session.take();
        machine.greeted_by(
            &hello.instance,
            old.as_ref().map(|old| old.instance.as_str()),
        );
        if let Some(old) = old {
            self.sessions.remove(&old.id);
            let reason = if old.instance == hello.instance {
                "this agent has connected anew; the old session ends"
            } else {
                "another agent has connected under this machine's identity; the old session ends"
            };
            close(old.id, reason.to_owned(), out);
        }
        machine.session = Some(Session {
            id: session,
            instance: hello.instance,
            heard_ms: now.mono_ms,
            in_flight: None,
            resyncs: 0,
            wants_snapshot: false,
            journal: hello.journal.is_some(),
        });
        // An agent that holds less than it did has lost its disk, and with it whatever it said under what it lost.
        machine
            .statuses
            .retain(|status| status.generation <= hello.generation);
        machine.held = Some((hello.generation, hello.hash));
        machine.hands.greeted(hello.hands);
        machine.facts = Some(facts);
        machine.last_seen = Some(now.wall);
        machine.ahead_ms = hello.at.map(|at| skew::ahead_ms(at, now.wall));
        machine.refused = None;
        machine.compare();
        self.sessions.insert(session, name.clone());
        self.changed = true;
        let message = ToAgent::Welcome {
            session,
            lineage: self.lineage.clone(),
            heartbeat_ms: heartbeat_ms(self.machines.len()),
            server_time: now.wall,
            protocol,
            version: version::PLUMB.to_owned(),
        };
        out.push(Effect::Send { session, message });
        if let Some(mark) = hello.journal
            && !self.machines.get(&name).is_some_and(Machine::is_cloned)
        {
            let machine = name.clone();
            out.push(Effect::JournalGreeted {
                session,
                machine,
                mark,
            });
        }
        self.push(&name, now, out);
    }

    fn identity(&mut self, name: &MachineName, removed: bool, out: &mut Vec<Effect>) {
        let machine = match self.machines.get_mut(name) {
            Some(machine) => machine,
            // A record may come for it yet.
            None if removed => self.machines.of(name.clone()),
            None => return,
        };
        if let Some(session) = machine.session.take() {
            self.sessions.remove(&session.id);
            close(
                session.id,
                "the machine's identity was replaced or removed".to_owned(),
                out,
            );
        }
        machine.forget_identity(removed);
        if machine.record.is_none() && !removed {
            self.machines.remove(name);
        }
        self.changed = true;
        self.judge_machine(name, out);
    }

    /// Sends what is to be sent to a machine, if anything is and nothing is in flight.
    fn push(&mut self, name: &MachineName, now: Now, out: &mut Vec<Effect>) {
        let Some(machine) = self.machines.get_mut(name) else {
            return;
        };
        let Some(session) = machine.session.as_ref().map(|s| s.id) else {
            return;
        };
        if machine.regressed.is_none()
            && !machine.is_cloned()
            && let Some(message) = machine.hands.next(now.mono_ms)
        {
            out.push(Effect::Send { session, message });
        }
        // What is ordered by hand is laid over the assignment, so it has to be there first: an app that is to stand still
        // must not run for a moment on a machine that it is new to.
        if machine.hands.in_flight.is_some() {
            return;
        }
        if let Some(message) = machine.next_assignment(now.mono_ms) {
            out.push(Effect::Send { session, message });
        }
    }

    fn message(&mut self, id: u64, message: ToServer, now: Now, out: &mut Vec<Effect>) {
        // A fenced session is in no map, and whatever it still says is not heard.
        let Some(name) = self.sessions.get(&id).cloned() else {
            return;
        };
        let Some(machine) = self.machines.get_mut(&name) else {
            return;
        };
        machine.last_seen = Some(now.wall);
        let Some(session) = &mut machine.session else {
            return;
        };
        session.heard_ms = now.mono_ms;
        match message {
            ToServer::Hello(_) => {
                let reason = "the agent said hello twice on one stream; upgrade it to this control plane's version";
                self.gone(id);
                close(id, reason.to_owned(), out);
            }
            ToServer::Heartbeat => {}
            ToServer::Ack { generation, hash } => {
                self.acked(&name, generation, hash);
                self.push(&name, now, out);
                self.judge_machine(&name, out);
            }
            ToServer::Resync { reason } => {
                self.resync(&name, &reason, now);
                self.push(&name, now, out);
                self.judge_machine(&name, out);
            }
            ToServer::Refused(refusal) => {
                let answers = session
                    .in_flight
                    .is_some_and(|f| f.generation == refusal.generation);
                if answers {
                    session.in_flight = None;
                    machine.refused = Some(Refused {
                        refusal,
                        at_ms: now.mono_ms,
                    });
                    self.changed = true;
                    self.push(&name, now, out);
                    self.judge_machine(&name, out);
                }
            }
            ToServer::Status {
                complete,
                resources,
            } => {
                // Of two that live under one identity nobody knows which one speaks.
                if machine.regressed.is_some() || machine.is_cloned() {
                    return;
                }
                self.changed = true;
                let touched: BTreeSet<_> =
                    resources.iter().map(|s| s.address.owner.clone()).collect();
                let dropped = machine.fold(complete, resources);
                self.dropped_statuses = self.dropped_statuses.saturating_add(dropped);
                self.judge_after(&touched, &name, out);
            }
            ToServer::WantSecrets(asked) => {
                // Which of its own secrets a machine may have is what is recorded for it, and nothing that it says.
                let named = machine.named_secrets();
                let secrets: Vec<_> = asked.into_iter().filter(|s| named.contains(s)).collect();
                if !secrets.is_empty() && machine.regressed.is_none() && !machine.is_cloned() {
                    let session = id;
                    out.push(Effect::HandOver { session, secrets });
                }
            }
            ToServer::HandsAnswer { orders, refused } => {
                machine.hands.answered(orders, refused, now.mono_ms);
                self.changed = true;
                self.push(&name, now, out);
            }
            ToServer::Reconciled(mut result) => {
                result.findings.retain(|f| f.address.machine == name);
                let machine = name;
                out.push(Effect::Reconciled { machine, result });
            }
            // Of two that live under one identity nobody knows whose journal it is.
            ToServer::Journal(_) if machine.is_cloned() => {}
            ToServer::Journal(chunk) => out.push(Effect::JournalHanded {
                session: id,
                machine: name,
                chunk,
            }),
            ToServer::Events { events, dropped } => self.happened(name, events, dropped, out),
            ToServer::LogsFailed { request, message } => out.push(Effect::LogsFailed {
                machine: name,
                request,
                message,
            }),
        }
    }

    fn acked(&mut self, name: &MachineName, generation: Generation, hash: Hash) {
        let Some(machine) = self.machines.get_mut(name) else {
            return;
        };
        // An old ack that comes again takes nothing back.
        if machine.held.is_some_and(|(held, _)| generation < held) {
            return;
        }
        machine.held = Some((generation, Some(hash)));
        if let Some(session) = &mut machine.session {
            session.resyncs = 0;
            session.wants_snapshot = false;
            session
                .in_flight
                .take_if(|flight| flight.generation <= generation);
        }
        machine
            .refused
            .take_if(|refused| refused.refusal.generation <= generation);
        machine.compare();
        self.changed = true;
    }

    fn resync(&mut self, name: &MachineName, reason: &str, now: Now) {
        let Some(machine) = self.machines.get_mut(name) else {
            return;
        };
        let Some(session) = &mut machine.session else {
            return;
        };
        let Some(flight) = session.in_flight.take() else {
            return;
        };
        session.wants_snapshot = true;
        session.resyncs += 1;
        if session.resyncs >= MAX_RESYNCS {
            session.resyncs = 0;
            let message = format!(
                "asked for a snapshot {MAX_RESYNCS} times in a row; the last time: {reason}"
            );
            machine.refused = Some(Refused {
                refusal: Refusal {
                    generation: flight.generation,
                    kind: RefusalKind::Unreadable,
                    message,
                },
                at_ms: now.mono_ms,
            });
            self.changed = true;
        }
    }

    fn happened(
        &mut self,
        name: MachineName,
        mut events: Vec<MachineEvent>,
        dropped: u64,
        out: &mut Vec<Effect>,
    ) {
        let said = events.len();
        events.retain(|event| event.address.machine == name);
        let foreign = (said - events.len()) as u64;
        self.dropped_events = self
            .dropped_events
            .saturating_add(dropped)
            .saturating_add(foreign);
        if events.is_empty() {
            return;
        }
        self.events.extend(events.iter().cloned());
        let over = self.events.len().saturating_sub(KEPT_EVENTS);
        self.events.drain(..over);
        self.changed = true;
        out.push(Effect::Events {
            machine: name,
            events,
        });
    }

    /// Forgets a session; its machine is offline.
    fn gone(&mut self, id: u64) {
        let Some(name) = self.sessions.remove(&id) else {
            return;
        };
        if let Some(machine) = self.machines.get_mut(&name) {
            machine.session = None;
            if machine.record.is_none() && machine.is_forgettable() {
                self.machines.remove(&name);
            }
        }
        self.changed = true;
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.last_tick_ms.is_none() {
            let owners: BTreeSet<_> = self.owners.keys().cloned().collect();
            self.judge_owners(&owners, out);
        }
        let period = heartbeat_ms(self.machines.len());
        let stalled = self
            .last_tick_ms
            .is_some_and(|last| now.mono_ms.saturating_sub(last) > period);
        self.last_tick_ms = Some(now.mono_ms);
        if stalled {
            // It was this process that slept, so the silence proves nothing.
            for session in self.machines.sessions_mut() {
                session.heard_ms = now.mono_ms;
            }
        }
        let overdue = |machine: &Machine| machine.overdue(now.mono_ms, period);
        let ended: Vec<_> = self.machines.values().filter_map(overdue).collect();
        for (id, reason) in ended {
            self.gone(id);
            close(id, reason, out);
        }
        let names: Vec<_> = self
            .machines
            .iter()
            .filter(|(_, machine)| machine.refused.is_some() || machine.hands.refused.is_some())
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.push(&name, now, out);
        }
    }
}

fn close(session: u64, reason: String, out: &mut Vec<Effect>) {
    let goodbye = ToAgent::Goodbye {
        reason: reason.clone(),
    };
    out.push(Effect::Send {
        session,
        message: goodbye,
    });
    out.push(Effect::Close { session, reason });
}
