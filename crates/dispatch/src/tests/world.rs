//! One fleet, one agent with its disk, and a link between them that loses, repeats and reorders as it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use plumb_model::capability::MachineFacts;
use plumb_model::state::{MachineState, Outcome, OwnerKind, OwnerState, Recorded, ReleaseBody};
use plumb_model::{
    Address, Assignment, Condition, ConditionKind, DirectorySpec, DriftPolicy, Entry, Generation,
    Hash, Header, HealthProbe, HealthSpec, Lineage, LogSpec, MachineName, Mode, OwnerName,
    ProcessSpec, Reason, ReleaseNumber, Resource, ResourceKind, ResourceSpec, ResourceStatus,
    RestartPolicy, RestartSpec, Revision, RunState, StopSpec, Timestamp, Tombstone, WorkspaceName,
};

use crate::agent::{self, AgentSession, Held};
use crate::fleet::{self, Fleet};
use crate::{Hello, Identity, Now, Recording, ToAgent, ToServer};

pub(super) fn lineage(n: u8) -> Lineage {
    Lineage::from_random([n; 16])
}

pub(super) fn machine() -> MachineName {
    MachineName::new("m1").unwrap()
}

pub(super) fn owner(name: &str) -> OwnerName {
    OwnerName::new(name).unwrap()
}

pub(super) fn identity() -> Identity {
    Identity {
        workspace: WorkspaceName::new("w").unwrap(),
        machine: machine(),
        lineage: None,
    }
}

pub(super) fn facts() -> MachineFacts {
    MachineFacts {
        version: "0.1.0".into(),
        arch: "x86_64".into(),
        hostname: "host".into(),
        kernel: "6.1".into(),
        capabilities: Default::default(),
        host: None,
    }
}

pub(super) fn header() -> Header {
    Header {
        format: plumb_model::assignment::FORMAT,
        lineage: lineage(1),
        workspace: WorkspaceName::new("w").unwrap(),
        machine: machine(),
    }
}

pub(super) fn at(owner_name: &str, path: &str) -> Address {
    Address::new(
        &machine(),
        &owner(owner_name),
        ResourceKind::Directory,
        path,
    )
}

pub(super) fn directory(owner_name: &str, path: &str, mode: u32) -> Entry {
    Entry::from(Resource {
        adopt: false,
        was: None,
        was_before: Vec::new(),
        address: at(owner_name, path),
        after: Default::default(),
        drift: DriftPolicy::Enforce,
        spec: ResourceSpec::Directory(DirectorySpec {
            path: path.into(),
            mode: Mode(mode),
            owner: None,
            group: None,
        }),
    })
}

pub(super) fn process(owner_name: &str, port: u16, state: RunState) -> Entry {
    let address = Address::new(
        &machine(),
        &owner(owner_name),
        ResourceKind::Process,
        "web/0",
    );
    Entry::from(Resource {
        adopt: false,
        was: None,
        was_before: Vec::new(),
        address,
        after: Default::default(),
        drift: DriftPolicy::Enforce,
        spec: ResourceSpec::Process(ProcessSpec {
            limits: None,
            schedule: None,
            on_disconnect: None,
            secrets: Default::default(),
            toolchain: None,
            argv: vec!["serve".into()],
            env: BTreeMap::new(),
            workdir: None,
            user: None,
            ports: BTreeMap::from([(plumb_model::PortName::new("http").unwrap(), port)]),
            health: Some(HealthSpec {
                probe: HealthProbe::Http {
                    host: None,
                    port,
                    path: "/".into(),
                    codes: vec![(200, 399)],
                },
                interval_ms: 1000,
                timeout_ms: 500,
                healthy_threshold: 1,
                unhealthy_threshold: 3,
            }),
            restart: RestartSpec {
                policy: RestartPolicy::Always,
                initial_ms: 1000,
                max_ms: 60_000,
            },
            stop: StopSpec {
                signal: 15,
                grace_ms: 1000,
            },
            log: LogSpec {
                max_bytes: 1 << 20,
                keep: 1,
            },
            state,
        }),
    })
}

pub(super) fn tombstone(owner_name: &str, path: &str, since: u64) -> Entry {
    Entry::Tombstone(Tombstone {
        address: at(owner_name, path),
        since: Generation(since),
    })
}

pub(super) fn assignment(entries: impl IntoIterator<Item = Entry>) -> Arc<Assignment> {
    Arc::new(Assignment::build(header(), entries))
}

/// A recording of one machine; owners are given with their release, 0 leaving the entry out.
pub(super) fn recording(
    revision: u64,
    generation: u64,
    assignment: &Arc<Assignment>,
    owners: &[(&str, u64)],
    removed: &[(&str, u64)],
) -> Recording {
    let mut recorded = Recorded::default();
    recorded.state.revision = Revision(revision);
    for (name, release) in owners {
        let body = Arc::new(ReleaseBody {
            rollout: None,
            resolutions: Default::default(),
            format: plumb_model::state::FORMAT,
            owner: owner(name),
            kind: OwnerKind::App,
            resources: Vec::new(),
        });
        let at = OwnerState {
            release: ReleaseNumber(*release),
            body: Hash::of(&body.bytes()),
        };
        recorded.state.owners.insert(owner(name), at);
        recorded.releases.insert(owner(name), body);
    }
    for (name, release) in owners.iter().chain(removed) {
        let release = ReleaseNumber(*release);
        recorded.state.last_release.insert(owner(name), release);
    }
    recorded.state.machines.insert(
        machine(),
        MachineState {
            info: Default::default(),
            generation: Generation(generation),
            assignment: assignment.hash(),
            tombstones: BTreeMap::new(),
            leaving: false,
            rolling: None,
        },
    );
    let assignments = BTreeMap::from([(machine(), assignment.clone())]);
    Recording::new(&recorded, &assignments).unwrap()
}

pub(super) fn now(mono_ms: u64) -> Now {
    Now {
        wall: Timestamp::from_millisecond(1_800_000_000_000 + mono_ms as i64).unwrap(),
        mono_ms,
    }
}

pub(super) fn condition(kind: ConditionKind, status: bool, reason: Reason) -> Condition {
    Condition {
        kind,
        status,
        reason,
        message: format!("{reason:?}"),
        since: now(0).wall,
    }
}

pub(super) fn status(
    address: &Address,
    generation: u64,
    conditions: Vec<Condition>,
) -> ResourceStatus {
    ResourceStatus {
        address: address.clone(),
        generation: Generation(generation),
        conditions,
        gone: false,
        process: None,
        found: None,
    }
}

/// What an agent says once everything is as it should be.
pub(super) fn all_well(held: &Held) -> Vec<ResourceStatus> {
    let say = |entry: &Entry| {
        let mut conditions = vec![condition(ConditionKind::Converged, true, Reason::AsDesired)];
        if entry.address().kind == ResourceKind::Process {
            conditions.push(condition(ConditionKind::Healthy, true, Reason::ProbePassed));
        }
        ResourceStatus {
            gone: matches!(entry, Entry::Tombstone(_)),
            ..status(entry.address(), held.generation.0, conditions)
        }
    };
    held.assignment.entries().map(say).collect()
}

pub(super) struct World {
    pub fleet: Fleet,
    pub agent: AgentSession,
    pub recording: Recording,
    /// What the agent's disk holds.
    pub disk: Option<Held>,
    pub persisting: Option<Held>,
    pub adopted: Option<Held>,
    pub to_agent: VecDeque<ToAgent>,
    pub to_server: VecDeque<ToServer>,
    pub session: Option<u64>,
    pub sessions: u64,
    pub starts: u32,
    pub mono_ms: u64,
    /// Every assignment that was ever recorded.
    pub ledger: BTreeMap<Generation, Hash>,
    pub outcomes: Vec<(OwnerName, u64, Outcome)>,
    pub deltas: u32,
    pub snapshots: u32,
    /// Invariants that were broken, by name.
    pub broken: Vec<&'static str>,
}

impl World {
    pub fn new(recording: Recording) -> Self {
        let mut world = Self {
            fleet: Fleet::new(lineage(1), recording.clone(), &BTreeMap::new()),
            agent: AgentSession::new(identity(), facts(), None),
            recording: Recording::default(),
            disk: None,
            persisting: None,
            adopted: None,
            to_agent: VecDeque::new(),
            to_server: VecDeque::new(),
            session: None,
            sessions: 0,
            starts: 1,
            mono_ms: 0,
            ledger: BTreeMap::new(),
            outcomes: Vec::new(),
            deltas: 0,
            snapshots: 0,
            broken: Vec::new(),
        };
        world.note(recording);
        world
    }

    fn note(&mut self, recording: Recording) {
        if let Some(record) = recording.machines.get(&machine())
            && let Some(assignment) = &record.assignment
        {
            self.ledger.insert(record.generation, assignment.hash());
        }
        self.recording = recording;
    }

    pub fn now(&self) -> Now {
        now(self.mono_ms)
    }

    pub fn record(&mut self, recording: Recording) {
        self.note(recording.clone());
        self.fleet(fleet::Event::Recorded(recording));
    }

    pub fn fleet(&mut self, event: fleet::Event) -> Vec<fleet::Effect> {
        let effects = self.fleet.handle(event, self.now());
        for effect in &effects {
            match effect {
                fleet::Effect::Send { session, message } if Some(*session) == self.session => {
                    self.deltas += u32::from(matches!(message, ToAgent::Delta { .. }));
                    self.snapshots += u32::from(matches!(message, ToAgent::Snapshot { .. }));
                    self.to_agent.push_back(message.clone());
                }
                fleet::Effect::Close { session, .. } if Some(*session) == self.session => {
                    self.session = None;
                }
                fleet::Effect::Outcome {
                    owner,
                    release,
                    outcome,
                } => self.outcomes.push((owner.clone(), release.0, *outcome)),
                _ => {}
            }
        }
        effects
    }

    pub fn agent(&mut self, event: agent::Event) -> Vec<agent::Effect> {
        let effects = self.agent.handle(event, self.now());
        for effect in &effects {
            match effect {
                agent::Effect::Send(message) => {
                    if let ToServer::Ack { generation, hash } = message {
                        let on_disk = self.disk.as_ref().map(|h| (h.generation, h.hash));
                        if on_disk != Some((*generation, *hash)) {
                            self.broken.push("an ack implies persisted");
                        }
                    }
                    if self.session.is_some() {
                        self.to_server.push_back(message.clone());
                    }
                }
                agent::Effect::Persist(held) => {
                    if self.persisting.replace(held.clone()).is_some() {
                        self.broken.push("one persist at a time");
                    }
                }
                agent::Effect::Adopt(held) => {
                    if self.disk.as_ref() != Some(held) {
                        self.broken.push("only what is persisted is adopted");
                    }
                    self.adopted = Some(held.clone());
                }
                agent::Effect::Disconnect { .. } => self.cut_from_agent(),
                agent::Effect::OpenLogs(_)
                | agent::Effect::CloseLogs { .. }
                | agent::Effect::KeepHands(_)
                | agent::Effect::Reconcile { .. }
                | agent::Effect::ReadJournal { .. }
                | agent::Effect::SecretsCame { .. } => {}
            }
        }
        effects
    }

    fn cut_from_agent(&mut self) {
        if let Some(session) = self.session.take() {
            self.fleet(fleet::Event::Disconnected { session });
        }
    }

    pub fn cut(&mut self) {
        self.to_agent.clear();
        self.to_server.clear();
        self.cut_from_agent();
        self.agent(agent::Event::Disconnected);
    }

    /// Opens a new stream. The old one may still be open as far as the server knows.
    pub fn connect(&mut self) {
        self.to_agent.clear();
        self.to_server.clear();
        self.agent(agent::Event::Disconnected);
        self.sessions += 1;
        self.session = None;
        let session = self.sessions;
        let instance = format!("start-{}", self.starts);
        let effects = self.agent(agent::Event::Connected { instance });
        let hello = effects.into_iter().find_map(|e| match e {
            agent::Effect::Send(ToServer::Hello(hello)) => Some(hello),
            _ => None,
        });
        self.to_server.clear();
        self.session = Some(session);
        let hello: Hello = hello.unwrap();
        self.fleet(fleet::Event::Connected {
            session,
            machine: machine(),
            hello,
        });
    }

    pub fn deliver_to_agent(&mut self) -> bool {
        let Some(message) = self.to_agent.pop_front() else {
            return false;
        };
        self.agent(agent::Event::Received(message));
        true
    }

    pub fn deliver_to_server(&mut self) -> bool {
        let (Some(session), Some(message)) = (self.session, self.to_server.pop_front()) else {
            return false;
        };
        self.fleet(fleet::Event::Message { session, message });
        true
    }

    pub fn persist(&mut self) -> bool {
        let Some(held) = self.persisting.take() else {
            return false;
        };
        if self
            .disk
            .as_ref()
            .is_some_and(|disk| disk.generation > held.generation)
        {
            self.broken
                .push("the generation on the disk never goes back");
        }
        let generation = held.generation;
        self.disk = Some(held);
        self.agent(agent::Event::Persisted { generation });
        true
    }

    pub fn fail_to_persist(&mut self) {
        if let Some(held) = self.persisting.take() {
            self.agent(agent::Event::PersistFailed {
                generation: held.generation,
                message: "no space left on device".into(),
            });
        }
    }

    /// The agent dies at any point, and starts from its disk.
    pub fn crash_agent(&mut self) {
        self.cut_from_agent();
        self.to_agent.clear();
        self.to_server.clear();
        self.persisting = None;
        self.starts += 1;
        self.adopted = self.disk.clone();
        self.agent = AgentSession::new(identity(), facts(), self.disk.clone());
    }

    pub fn crash_server(&mut self) {
        self.cut();
        self.fleet = Fleet::new(lineage(1), self.recording.clone(), &BTreeMap::new());
    }

    pub fn converge(&mut self) {
        if let Some(held) = self.adopted.clone() {
            self.agent(agent::Event::StatusChanged(all_well(&held)));
        }
    }

    pub fn tick(&mut self, ms: u64) {
        self.mono_ms += ms;
        self.fleet(fleet::Event::Tick);
        self.agent(agent::Event::Tick);
    }

    /// Lets everything flow until nothing moves.
    pub fn flow(&mut self) {
        for _ in 0..1000 {
            if !(self.deliver_to_agent() || self.persist() || self.deliver_to_server()) {
                return;
            }
        }
        panic!("the two ends talk without end");
    }

    /// Ends all faults, and lets everything come to rest.
    pub fn heal(&mut self) {
        self.cut();
        self.persist();
        self.connect();
        self.flow();
        self.converge();
        self.flow();
    }

    pub fn check(&mut self) {
        if let Some(held) = self.agent.held() {
            if self.ledger.get(&held.generation) != Some(&held.hash) {
                self.broken.push("what is held is what the ledger recorded");
            }
            if self.disk.as_ref() != Some(held) {
                self.broken.push("what is held is on the disk");
            }
        }
        let believed = self.fleet.held().next().map(|(_, g)| g);
        let on_disk = self.disk.as_ref().map_or(Generation(0), |h| h.generation);
        if believed.is_some_and(|g| g > on_disk) {
            self.broken
                .push("the fleet believes only what is on the disk");
        }
        assert_eq!(self.broken, Vec::<&str>::new());
    }
}
