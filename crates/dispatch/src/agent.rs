//! The agent's end of the session: what is held, what may be taken, and what the server still has to be told.
//!
//! It never touches disk, socket or clock, and never decides how anything converges. The agent's shell feeds it
//! [`Event`]s and carries out its [`Effect`]s in order.
//!
//! Invariants: the held generation never goes back; nothing is acknowledged or adopted that the shell has not
//! reported as persisted; what waits for a lost link is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use plumb_model::capability::{HostFacts, MachineFacts};
use plumb_model::condition::MachineEvent;
use plumb_model::journal::Mark;
use plumb_model::{
    Address, Assignment, Delta, Entry, Generation, Hash, OwnerName, ResourceStatus, Secret,
};

use crate::fence::{Identity, Offer, Verdict, fence};
use crate::hands::{AgentHands, HeldOrders, Offer as HandsOffer, WrittenOrders};
use crate::journal::{AgentJournal, Chunk};
use crate::protocol::{
    Hello, LogsRequest, MAX_EVENTS, MAX_SECRETS, MAX_STATUSES, Now, Reconciled, Refusal,
    RefusalKind, Releases, SecretVersion, ToAgent, ToServer,
};
use crate::skew;
use crate::version::{self, SPOKEN, Versions};

/// How many events wait for a link; the oldest go first, and are counted.
pub const KEPT_EVENTS: usize = 1000;

/// An assignment as it is held, or about to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Its generation.
    pub generation: Generation,
    /// The hash of its bytes.
    pub hash: Hash,
    /// The releases that it holds.
    pub releases: Releases,
    /// What it says.
    pub assignment: Arc<Assignment>,
}

impl Held {
    /// Puts one together; the hash is the assignment's own.
    #[must_use]
    pub fn new(generation: Generation, releases: Releases, assignment: Arc<Assignment>) -> Self {
        Self {
            generation,
            hash: assignment.hash(),
            releases,
            assignment,
        }
    }
}

/// Something that happened to the agent.
#[derive(Debug, Clone)]
pub enum Event {
    /// The control stream is open. `instance` is made anew each time that the agent's process starts.
    Connected {
        /// Says which run of the agent this is.
        instance: String,
    },
    /// The control stream is gone.
    Disconnected,
    /// The server said something.
    Received(ToAgent),
    /// The assignment of the last [`Effect::Persist`] is on the disk, synced.
    Persisted {
        /// Its generation.
        generation: Generation,
    },
    /// It could not be written. What was held before still is.
    PersistFailed {
        /// Its generation.
        generation: Generation,
        /// What the disk said, with the path.
        message: String,
    },
    /// These resources moved.
    StatusChanged(Vec<ResourceStatus>),
    /// These things happened.
    EventsHappened(Vec<MachineEvent>),
    /// A log that the server asked for cannot be sent.
    LogsFailed {
        /// Which request.
        request: u64,
        /// Why, for people.
        message: String,
    },
    /// The orders of the last [`Effect::KeepHands`] are on the disk, synced, or why they are not.
    HandsKept(Result<(), String>),
    /// What a full check that was asked for has come to.
    Reconciled(Reconciled),
    /// The machine's journal has grown to this.
    JournalGrew(Mark),
    /// These are the entries of the last [`Effect::ReadJournal`].
    JournalRead(Chunk),
    /// Secrets that the assignment which is held names are not on this machine.
    SecretsWanted(Vec<SecretVersion>),
    /// Time has passed; see [`AgentSession::next_tick_ms`].
    Tick,
}

/// Something for the shell to do, in order.
#[derive(Debug, Clone, PartialEq)]
#[allow(
    clippy::large_enum_variant,
    reason = "a few at a time are held, and they are carried out at once"
)]
pub enum Effect {
    /// Say this on the open stream.
    Send(ToServer),
    /// Write this to the disk, durably, then answer [`Event::Persisted`] or [`Event::PersistFailed`]. There is never
    /// more than one under way.
    Persist(Held),
    /// Converge this from now on.
    Adopt(Held),
    /// Close the stream, and try again later.
    Disconnect {
        /// Why, for people.
        reason: String,
    },
    /// Open a stream for a log.
    OpenLogs(LogsRequest),
    /// Write these orders to the disk, durably, then answer [`Event::HandsKept`]. There is never more than one under way.
    KeepHands(Arc<WrittenOrders>),
    /// Check in full, and answer [`Event::Reconciled`].
    Reconcile {
        /// The request to name in the answer.
        request: u64,
        /// Only what belongs to this owner.
        owner: Option<OwnerName>,
    },
    /// Read the journal after this entry, and answer [`Event::JournalRead`].
    ReadJournal {
        /// The number of the entry.
        after: u64,
    },
    /// Keep these secrets, as far as the assignment that is held names them.
    SecretsCame {
        /// Those that came.
        values: Vec<(SecretVersion, Secret)>,
        /// Those that the control plane has not got.
        missing: Vec<SecretVersion>,
    },
    /// Close the stream of a log.
    CloseLogs {
        /// Which request.
        request: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Down,
    /// Hello is said, the answer awaited.
    Greeted,
    Up {
        heartbeat_ms: u64,
        said_at_ms: u64,
    },
}

/// The agent's end.
#[derive(Debug)]
pub struct AgentSession {
    identity: Identity,
    facts: MachineFacts,
    trusted_cas: Vec<String>,
    held: Option<Held>,
    persisting: Option<Held>,
    queued: Option<Held>,
    link: Link,
    statuses: BTreeMap<Address, ResourceStatus>,
    /// The server has not yet had a complete status on this link.
    owes_complete: bool,
    events: VecDeque<MachineEvent>,
    dropped_events: u64,
    trouble: Option<String>,
    skew_ms: Option<i64>,
    hands: AgentHands,
    journal: AgentJournal,
    versions: Versions,
}

impl AgentSession {
    /// Starts with what the disk holds. An assignment there settles the lineage.
    #[must_use]
    pub fn new(mut identity: Identity, facts: MachineFacts, held: Option<Held>) -> Self {
        if let Some(held) = &held {
            identity.lineage = Some(held.assignment.header().lineage.clone());
        }
        Self {
            identity,
            facts,
            trusted_cas: Vec::new(),
            held,
            persisting: None,
            queued: None,
            link: Link::Down,
            statuses: BTreeMap::new(),
            owes_complete: true,
            events: VecDeque::new(),
            dropped_events: 0,
            trouble: None,
            skew_ms: None,
            hands: AgentHands::default(),
            journal: AgentJournal::default(),
            versions: SPOKEN,
        }
    }

    /// The orders by hand that the disk holds. Said once, before anything is handled.
    pub fn holds_hands(&mut self, held: HeldOrders) {
        self.hands.held = held;
    }

    /// Speaks other versions of the protocol than this version of Plumb does, as an older or newer one would.
    pub fn speaks(&mut self, versions: Versions) {
        self.versions = versions;
    }

    /// Where the journal ends that the machine keeps. Said once, before anything is handled.
    pub fn keeps_journal(&mut self, mark: Mark) {
        self.journal.reads(mark);
    }

    /// What the next hello says of the host, and of the CAs that this agent trusts.
    pub fn introduce(&mut self, host: HostFacts, trusted_cas: Vec<String>) {
        self.facts.host = Some(Box::new(host));
        self.trusted_cas = trusted_cas;
    }

    /// What is on the disk and being converged.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Who this agent is, with the lineage as far as it is settled.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the server has welcomed this agent on the present stream.
    #[must_use]
    pub fn is_online(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// The last thing that went wrong between agent and server and has not been righted since, for people.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// A message about clocks that differ too much, if they do.
    #[must_use]
    pub fn skew(&self) -> Option<String> {
        skew::said("this machine's clock", self.skew_ms?)
    }

    /// When [`Event::Tick`] is wanted next, on the monotonic clock; none while there is nothing to wait for.
    #[must_use]
    pub fn next_tick_ms(&self) -> Option<u64> {
        match self.link {
            Link::Up {
                heartbeat_ms,
                said_at_ms,
            } => Some(said_at_ms.saturating_add(heartbeat_ms)),
            Link::Down | Link::Greeted => None,
        }
    }

    /// Takes one event, and says what is to be done about it.
    pub fn handle(&mut self, event: Event, now: Now) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Connected { instance } => {
                self.link = Link::Greeted;
                self.owes_complete = true;
                self.journal.cut();
                out.push(Effect::Send(ToServer::Hello(self.hello(instance, now))));
            }
            Event::Disconnected => self.link = Link::Down,
            Event::Received(_) if self.link == Link::Down => {}
            Event::Received(message) => self.receive(message, now, &mut out),
            Event::Persisted { generation } => self.persisted(generation, &mut out),
            Event::PersistFailed {
                generation,
                message,
            } => self.not_persisted(generation, message, &mut out),
            Event::StatusChanged(statuses) => self.status_changed(statuses, &mut out),
            Event::EventsHappened(events) => {
                self.events.extend(events);
                while self.events.len() > KEPT_EVENTS {
                    self.events.pop_front();
                    self.dropped_events = self.dropped_events.saturating_add(1);
                }
                self.flush_events(&mut out);
            }
            Event::LogsFailed { request, message } => {
                self.say(ToServer::LogsFailed { request, message }, &mut out);
            }
            Event::HandsKept(result) => self.hands_kept(result, &mut out),
            Event::Reconciled(result) => self.say(ToServer::Reconciled(result), &mut out),
            Event::JournalGrew(mark) => {
                let next = self.journal.grew(mark, now.mono_ms);
                out.extend(next.map(|after| Effect::ReadJournal { after }));
            }
            Event::JournalRead(chunk) => {
                self.journal.reads(chunk.newest.clone());
                if self.is_online() {
                    self.say(ToServer::Journal(chunk), &mut out);
                }
            }
            Event::SecretsWanted(secrets) => {
                // Before the welcome nothing but a hello is heard; who wants them asks again once it has come.
                for some in secrets.chunks(MAX_SECRETS) {
                    if self.is_online() {
                        self.say(ToServer::WantSecrets(some.to_vec()), &mut out);
                    }
                }
            }
            Event::Tick => {
                if self.next_tick_ms().is_some_and(|due| now.mono_ms >= due) {
                    self.say(ToServer::Heartbeat, &mut out);
                }
                let again = self.journal.unanswered(now.mono_ms);
                out.extend(again.map(|after| Effect::ReadJournal { after }));
            }
        }
        if out.iter().any(|e| matches!(e, Effect::Send(_)))
            && let Link::Up { said_at_ms, .. } = &mut self.link
        {
            *said_at_ms = now.mono_ms;
        }
        out
    }

    fn hello(&self, instance: String, now: Now) -> Hello {
        Hello {
            lineage: self.identity.lineage.clone(),
            generation: self.held.as_ref().map_or(Generation(0), |h| h.generation),
            hash: self.held.as_ref().map(|h| h.hash),
            instance,
            facts: self.facts.clone(),
            trusted_cas: self.trusted_cas.clone(),
            hands: Some(self.hands.held),
            versions: self.versions,
            journal: self.journal.mark().cloned(),
            at: Some(now.wall),
        }
    }

    /// Says something if anybody listens. Acks and refusals that are lost with the link are made good by the next hello.
    fn say(&self, message: ToServer, out: &mut Vec<Effect>) {
        if self.link != Link::Down {
            out.push(Effect::Send(message));
        }
    }

    fn receive(&mut self, message: ToAgent, now: Now, out: &mut Vec<Effect>) {
        match message {
            ToAgent::Welcome {
                session: _,
                lineage,
                heartbeat_ms,
                server_time,
                protocol,
                version,
            } => {
                if !self.versions.has(protocol) {
                    let server = Versions::said(protocol, protocol);
                    let mine = (version::PLUMB, self.versions);
                    self.part(version::refusal(mine, (&version, server)), out);
                    return;
                }
                if let Some(mine) = &self.identity.lineage
                    && *mine != lineage
                {
                    let reason = format!(
                        "this agent obeys lineage {mine}, but the control plane is of lineage {lineage}; \
                         point the agent at its own control plane, or enrol it anew with an empty data folder"
                    );
                    self.part(reason, out);
                    return;
                }
                self.skew_ms = Some(skew::ahead_ms(now.wall, server_time));
                self.link = Link::Up {
                    heartbeat_ms: heartbeat_ms.max(1),
                    said_at_ms: now.mono_ms,
                };
                self.flush_statuses(out);
                self.flush_events(out);
            }
            ToAgent::Snapshot {
                generation,
                hash,
                releases,
                bytes,
                confirm_empty,
            } => {
                if Hash::of(&bytes) != hash {
                    let reason = format!(
                        "the snapshot of generation {generation} is not what its hash says"
                    );
                    self.say(ToServer::Resync { reason }, out);
                    return;
                }
                match Assignment::parse(&bytes) {
                    Ok(assignment) => {
                        let held = Held::new(generation, releases, Arc::new(assignment));
                        self.offered(held, confirm_empty, out);
                    }
                    Err(e) => {
                        let kind = RefusalKind::Unreadable;
                        let message = e.to_string();
                        self.refuse(
                            Refusal {
                                generation,
                                kind,
                                message,
                            },
                            out,
                        );
                    }
                }
            }
            ToAgent::Delta {
                generation,
                releases,
                delta,
            } => match self.apply(&delta) {
                // Every line that a delta leaves out has been proven gone, so an empty result needs no more
                // confirmation than its tombstones were.
                Ok(assignment) => {
                    self.offered(
                        Held::new(generation, releases, Arc::new(assignment)),
                        true,
                        out,
                    );
                }
                Err(reason) => self.say(ToServer::Resync { reason }, out),
            },
            ToAgent::Hands { bytes } => {
                let offer = self.hands.offered(&self.identity, &bytes);
                match offer {
                    HandsOffer::Write(orders) => out.push(Effect::KeepHands(orders)),
                    HandsOffer::Say(orders) => self.answer_hands(orders, None, out),
                    HandsOffer::Refuse(number, why) => {
                        let orders = HeldOrders { number, hash: None };
                        self.answer_hands(orders, Some(why), out);
                    }
                    HandsOffer::Wait => {}
                }
            }
            ToAgent::Reconcile { request, owner } => {
                out.push(Effect::Reconcile { request, owner });
            }
            ToAgent::JournalStored { chain, through } => {
                let next = self.journal.stored(&chain, through, now.mono_ms);
                out.extend(next.map(|after| Effect::ReadJournal { after }));
            }
            ToAgent::OpenLogs(request) => out.push(Effect::OpenLogs(request)),
            ToAgent::CloseLogs { request } => out.push(Effect::CloseLogs { request }),
            ToAgent::Secrets { values, missing } => {
                out.push(Effect::SecretsCame { values, missing });
            }
            ToAgent::Goodbye { reason } => self.part(reason, out),
            // The shell holds certificate and key, and has seen to it.
            ToAgent::Renew { .. } | ToAgent::Rekey { .. } => {}
        }
    }

    fn answer_hands(&mut self, orders: HeldOrders, refused: Option<String>, out: &mut Vec<Effect>) {
        self.say(ToServer::HandsAnswer { orders, refused }, out);
    }

    fn hands_kept(&mut self, result: Result<(), String>, out: &mut Vec<Effect>) {
        let (said, next) = self.hands.written(result.is_ok());
        if let Some(orders) = said {
            self.answer_hands(orders, result.err(), out);
        }
        if let Some(next) = next {
            out.push(Effect::KeepHands(next));
        }
    }

    fn part(&mut self, reason: String, out: &mut Vec<Effect>) {
        self.link = Link::Down;
        self.trouble = Some(reason.clone());
        out.push(Effect::Disconnect { reason });
    }

    /// Applies a delta to whichever accepted assignment it starts from.
    fn apply(&self, delta: &Delta) -> Result<Assignment, String> {
        let base = [&self.queued, &self.persisting, &self.held]
            .into_iter()
            .flatten()
            .find(|held| held.hash == delta.applies_to)
            .ok_or_else(|| match &self.held {
                Some(held) => format!(
                    "the delta applies to {:?}, but {:?} is held",
                    delta.applies_to, held.hash
                ),
                None => format!(
                    "the delta applies to {:?}, but nothing is held",
                    delta.applies_to
                ),
            })?;
        let live = delta
            .removes
            .iter()
            .find(|address| matches!(base.assignment.get(address), Some(Entry::Resource(_))));
        if let Some(address) = live {
            return Err(format!("the delta drops {address} without a tombstone"));
        }
        base.assignment.apply(delta).map_err(|e| e.to_string())
    }

    fn newest(&self) -> Option<&Held> {
        self.queued
            .as_ref()
            .or(self.persisting.as_ref())
            .or(self.held.as_ref())
    }

    fn offered(&mut self, offered: Held, confirm_empty: bool, out: &mut Vec<Effect>) {
        let offer = Offer {
            generation: offered.generation,
            assignment: &offered.assignment,
            confirm_empty,
        };
        let newest = self.newest().map(|h| (h.generation, h.hash));
        match fence(&self.identity, newest, offer) {
            Ok(Verdict::Take) if self.persisting.is_some() => self.queued = Some(offered),
            Ok(Verdict::Take) => {
                self.persisting = Some(offered.clone());
                out.push(Effect::Persist(offered));
            }
            // The ack of one that is still being written follows by itself.
            Ok(Verdict::Same) if self.persisting.is_some() => {}
            Ok(Verdict::Same) => {
                let (generation, hash) = (offered.generation, offered.hash);
                self.say(ToServer::Ack { generation, hash }, out);
            }
            Err(refusal) => self.refuse(refusal, out),
        }
    }

    fn refuse(&mut self, refusal: Refusal, out: &mut Vec<Effect>) {
        self.trouble = Some(format!(
            "refused generation {}: {}",
            refusal.generation, refusal.message
        ));
        self.say(ToServer::Refused(refusal), out);
    }

    fn persisted(&mut self, generation: Generation, out: &mut Vec<Effect>) {
        let Some(held) = self.persisting.take_if(|p| p.generation == generation) else {
            return;
        };
        self.identity.lineage = Some(held.assignment.header().lineage.clone());
        self.statuses
            .retain(|address, _| held.assignment.get(address).is_some());
        self.trouble = None;
        self.held = Some(held.clone());
        let hash = held.hash;
        self.say(ToServer::Ack { generation, hash }, out);
        out.push(Effect::Adopt(held));
        self.persist_queued(out);
    }

    fn not_persisted(&mut self, generation: Generation, message: String, out: &mut Vec<Effect>) {
        if self
            .persisting
            .take_if(|p| p.generation == generation)
            .is_none()
        {
            return;
        }
        let kind = RefusalKind::NotStored;
        let message = format!("the assignment could not be stored: {message}");
        self.refuse(
            Refusal {
                generation,
                kind,
                message,
            },
            out,
        );
        self.persist_queued(out);
    }

    fn persist_queued(&mut self, out: &mut Vec<Effect>) {
        if let Some(next) = self.queued.take() {
            self.persisting = Some(next.clone());
            out.push(Effect::Persist(next));
        }
    }

    fn status_changed(&mut self, statuses: Vec<ResourceStatus>, out: &mut Vec<Effect>) {
        let Some(held) = &self.held else { return };
        let known: Vec<_> = statuses
            .into_iter()
            .filter(|s| held.assignment.get(&s.address).is_some())
            .collect();
        for status in &known {
            self.statuses.insert(status.address.clone(), status.clone());
        }
        if !self.is_online() {
            return;
        }
        if self.owes_complete && self.knows_all() {
            self.flush_statuses(out);
        } else {
            send_statuses(known, false, out);
        }
    }

    fn knows_all(&self) -> bool {
        self.held
            .as_ref()
            .is_none_or(|held| held.assignment.entries().len() == self.statuses.len())
    }

    /// Says all that is known. It is called complete only when every resource is spoken of: an agent that has just
    /// started knows little, and must not void what the server still knows of the rest.
    fn flush_statuses(&mut self, out: &mut Vec<Effect>) {
        let complete = self.knows_all();
        self.owes_complete = !complete;
        send_statuses(self.statuses.values().cloned().collect(), complete, out);
    }

    fn flush_events(&mut self, out: &mut Vec<Effect>) {
        if !self.is_online() {
            return;
        }
        while !self.events.is_empty() || self.dropped_events > 0 {
            let count = self.events.len().min(MAX_EVENTS);
            let events = self.events.drain(..count).collect();
            let dropped = std::mem::take(&mut self.dropped_events);
            out.push(Effect::Send(ToServer::Events { events, dropped }));
        }
    }
}

fn send_statuses(mut statuses: Vec<ResourceStatus>, complete: bool, out: &mut Vec<Effect>) {
    let mut complete = complete;
    while complete || !statuses.is_empty() {
        let rest = statuses.split_off(statuses.len().min(MAX_STATUSES));
        out.push(Effect::Send(ToServer::Status {
            complete,
            resources: statuses,
        }));
        statuses = rest;
        complete = false;
    }
}
