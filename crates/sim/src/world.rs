//! The world of a run: virtual time, and the one queue of everything that is going to happen.

mod operator;

mod leaders;
mod links;
mod machines;
mod secrets;

mod budget;
mod checks;
mod faults;
mod identities;
mod rest;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_converge as converge;
use plumb_dispatch::{Now, ToAgent, ToServer, agent as session, fleet};
use plumb_ledger::MemoryStore;
use plumb_model::state::{Outcome, ReleaseBody};
use plumb_model::{
    Address, Generation, Hash, MachineName, OwnerName, ReleaseNumber, Revision, SecretName,
    Timestamp,
};
use plumb_planner::Request;

use self::identities::Keys;
use crate::agent::Machine;
use crate::bugs::Bug;
use crate::chance::Chance;
use crate::control::Process;
use crate::store::Shared;
use crate::workload;

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides on everything else.
    pub seed: u64,
    /// How many agents there are.
    pub machines: usize,
    /// How many control planes share the store.
    pub controls: usize,
    /// For how long things go wrong, in virtual milliseconds.
    pub storm_ms: u64,
    /// How long the fleet then has to come to rest.
    pub rest_ms: u64,
    /// A bug that is planted.
    pub bug: Option<Bug>,
    /// Keep every line of what happened, for people.
    pub traced: bool,
    /// The first control plane dies at its write of this number, before or after it.
    pub dies_at: Option<(u64, crate::store::Side)>,
    /// Nothing goes wrong by chance.
    pub quiet: bool,
    /// One thing goes wrong on purpose, half way.
    pub once: Option<Once>,
}

/// What goes wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Once {
    /// Every clock on a wall jumps: by an hour back, ten years ahead, or ten years back.
    ClocksJump,
    /// The control plane that leads stands still for 60 s.
    LeaderPauses,
}

impl Options {
    /// Three control planes, 50 agents, two minutes of faults, and half an hour to come to rest: the longest way there is
    /// some rollouts one after the other, each of them machine by machine, at four to five seconds a wave.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            machines: 50,
            controls: 3,
            storm_ms: 120_000,
            rest_ms: 1_800_000,
            bug: None,
            traced: false,
            dies_at: None,
            quiet: false,
            once: None,
        }
    }

    /// The same with few agents.
    #[must_use]
    pub fn small(seed: u64) -> Self {
        Self {
            machines: 5,
            ..Self::new(seed)
        }
    }
}

/// How often something happened in a run, by its name.
pub type Counts = BTreeMap<&'static str, u64>;

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every broken invariant, with the virtual time at which it was seen; empty is a pass.
    pub broken: Vec<String>,
    /// A hash over everything that happened, in order: the same seed gives the same one.
    pub trace: Hash,
    /// What happened, line by line, if that was asked for.
    pub lines: Vec<String>,
    /// How often what happened.
    pub counts: Counts,
    /// How long the fleet took to come to rest once the faults had ended, in virtual milliseconds.
    pub rested_ms: Option<u64>,
    /// How many writes the store has kept.
    pub written: u64,
}

/// A stranger's interference may go unnoticed until the next resync, of 30 s and a fifth, and is put right soon after.
const UNNOTICED_MS: u64 = 45_000;

/// Once at rest, the fleet is watched for so long to see that nothing is done any more: more than two full resyncs.
const WATCH_MS: u64 = 90_000;

enum Happening {
    /// A control plane looks at what is due.
    Tick {
        control: usize,
    },
    Up {
        control: usize,
    },
    ToAgent {
        link: u64,
        message: Box<ToAgent>,
    },
    ToServer {
        link: u64,
        message: Box<ToServer>,
    },
    Cut {
        link: u64,
    },
    /// An end of a link notices that it is gone.
    AgentNotices {
        link: u64,
    },
    ServerNotices {
        control: usize,
        link: u64,
    },
    AgentStart {
        machine: usize,
    },
    Connect {
        machine: usize,
        epoch: u64,
    },
    Wake {
        machine: usize,
        epoch: u64,
    },
    Persisted {
        machine: usize,
        epoch: u64,
        generation: Generation,
        well: bool,
    },
    Answer {
        machine: usize,
        epoch: u64,
        event: Box<converge::Event>,
    },
    Fetched {
        machine: usize,
        epoch: u64,
        digest: Hash,
    },
    /// Every process that was asked to stop ends.
    Ended {
        machine: usize,
    },
    /// A workload ends once more.
    Flap {
        machine: usize,
        address: Box<Address>,
        until: u64,
    },
    Operate,
    Apply {
        control: usize,
        request: Box<Request>,
        approved: (Revision, Hash),
    },
    /// An operator looks after machines that hold more than is recorded, and after copies.
    LookAfter,
    Fault,
    OnPurpose(Once),
}

struct Link {
    machine: usize,
    control: usize,
    /// What is sent this way from now on is lost.
    up_cut: bool,
    down_cut: bool,
    up_last: u64,
    down_last: u64,
    /// Messages are lost, doubled and put out of order; such a link does not live long.
    noisy: bool,
    /// The agent reads slowly: so many messages wait for it.
    slow: bool,
    waiting: usize,
}

/// A host of a control plane.
#[derive(Default)]
struct Control {
    process: Option<Process>,
    /// It does nothing before this virtual time, and does not know.
    paused_until: u64,
    /// Nobody reaches it before.
    alone_until: u64,
    /// It is down until it is started.
    down: bool,
    skew_ms: i64,
    /// Whose keys count, as far as it knows: it reads them as it starts, and hears of what it changes itself.
    keys: Keys,
}

struct World {
    options: Options,
    chance: Chance,
    now_ms: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    machines: Vec<Machine>,
    controls: Vec<Control>,
    shared: Arc<Shared>,
    /// Who has the lease, and since when nobody has seen it renewed.
    lease: Option<(usize, u64)>,
    runs: u64,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    /// The key that counts for each machine.
    keys: Keys,
    /// The values of each secret, in the order of their versions.
    vault: BTreeMap<SecretName, Vec<String>>,
    /// What each generation was given for, in this history and in all of them.
    given: BTreeMap<(MachineName, Generation), Hash>,
    ever: BTreeMap<(MachineName, Generation), BTreeSet<Hash>>,
    /// Every revision that somebody was told is recorded.
    acknowledged: BTreeMap<Revision, Hash>,
    requests: BTreeMap<Revision, Request>,
    bodies: BTreeMap<(OwnerName, ReleaseNumber), (Revision, Arc<ReleaseBody>)>,
    outcomes: BTreeMap<(OwnerName, ReleaseNumber), Outcome>,
    backup: Option<MemoryStore>,
    /// All that was ever recorded, and that of it which no record speaks of since an older copy was put back.
    owned: BTreeSet<Address>,
    orphans: BTreeSet<Address>,
    /// Machines of which there were two: what one of them proved gone the other may have.
    copied: BTreeSet<MachineName>,
    /// Where a wave has moved an owner that has not been seen well since.
    transit: BTreeMap<(OwnerName, MachineName), Generation>,
    broken: Vec<String>,
    trace: Vec<u8>,
    lines: Vec<String>,
    counts: Counts,
}

/// Runs one seed.
#[must_use]
pub fn run(options: Options) -> Report {
    let mut world = World::new(options);
    world.open();
    world.until(options.storm_ms);
    world.calm();
    let rested_ms = world.come_to_rest();
    if rested_ms.is_some() {
        world.check_rest();
    }
    world.report(rested_ms)
}

impl World {
    fn new(options: Options) -> Self {
        let names = workload::machines(options.machines);
        let vault = workload::secret_names()
            .into_iter()
            .map(|name| (name.clone(), vec![secrets::value(&name, 1)]))
            .collect();
        Self {
            options,
            chance: Chance::new(options.seed),
            now_ms: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            keys: Keys::of(&names),
            machines: names
                .into_iter()
                .map(|name| Machine::new(name, options.bug))
                .collect(),
            controls: (0..options.controls).map(|_| Control::default()).collect(),
            shared: Arc::new(Shared::new(options.bug == Some(Bug::StoreForgets))),
            lease: None,
            runs: 0,
            links: BTreeMap::new(),
            next_link: 1,
            vault,
            given: BTreeMap::new(),
            ever: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            requests: BTreeMap::new(),
            bodies: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            backup: None,
            owned: BTreeSet::new(),
            orphans: BTreeSet::new(),
            copied: BTreeSet::new(),
            transit: BTreeMap::new(),
            broken: Vec::new(),
            trace: Vec::new(),
            lines: Vec::new(),
            counts: Counts::new(),
        }
    }

    fn open(&mut self) {
        self.take_over(0);
        for control in 0..self.controls.len() {
            self.tick_later(control);
        }
        for machine in 0..self.machines.len() {
            let at = self.chance.between(0, 3000);
            self.later(at, Happening::AgentStart { machine });
        }
        self.later(100, Happening::Operate);
        if !self.options.quiet {
            self.later(2000, Happening::Fault);
        }
        if let Some(once) = self.options.once {
            self.later(self.options.storm_ms / 2, Happening::OnPurpose(once));
        }
    }

    fn report(mut self, rested_ms: Option<u64>) -> Report {
        for machine in &mut self.machines {
            let name = machine.name.clone();
            let broken = machine.vm.broken.drain(..);
            self.broken
                .extend(broken.map(|b| format!("on {name}: {b}")));
        }
        let vms = || self.machines.iter().map(|machine| &machine.vm);
        let mut counts = self.counts;
        counts.insert("actions", vms().map(|vm| vm.acts).sum());
        counts.insert("renames", vms().map(|vm| vm.renames).sum());
        counts.insert("adoptions", vms().map(|vm| vm.adoptions).sum());
        counts.insert("assignments", self.given.len() as u64);
        Report {
            broken: self.broken,
            trace: Hash::of(&self.trace),
            lines: self.lines,
            counts,
            rested_ms,
            written: self.shared.written(),
        }
    }

    fn storming(&self) -> bool {
        self.now_ms < self.options.storm_ms
    }

    fn stormy(&self) -> bool {
        self.storming() && !self.options.quiet
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// What a clock on the wall shows that is so far off.
    fn wall(&self, skew_ms: i64) -> Timestamp {
        let ms = i64::try_from(self.now_ms).unwrap_or(i64::MAX / 2);
        let ms = 1_800_000_000_000_i64.saturating_add(ms);
        Timestamp::from_millisecond(ms.saturating_add(skew_ms)).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The clocks of somebody whose clock on the wall is so far off.
    fn clocks(&self, skew_ms: i64) -> Now {
        let mono_ms = match self.options.bug {
            Some(Bug::WallTimers) => self.now_ms.saturating_add_signed(skew_ms),
            _ => self.now_ms,
        };
        Now {
            wall: self.wall(skew_ms),
            mono_ms,
        }
    }

    fn later(&mut self, in_ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue
            .insert((self.now_ms + in_ms, self.sequence), happening);
    }

    fn note(&mut self, what: &str) {
        self.check_output("a log", what);
        let line = format!("{} {what}\n", self.now_ms);
        self.trace.extend_from_slice(line.as_bytes());
        // The hash chain keeps the trace small.
        if self.trace.len() > 1 << 16 {
            self.trace = Hash::of(&self.trace).0.to_vec();
        }
        if self.options.traced {
            self.lines.push(line.trim_end().to_owned());
        }
    }

    fn broke(&mut self, what: String) {
        if self.options.traced {
            self.lines.push(format!("{} BROKEN: {what}", self.now_ms));
        }
        if self.broken.len() < 20 {
            self.broken.push(format!("at {} ms: {what}", self.now_ms));
        }
    }

    fn until(&mut self, until_ms: u64) {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > until_ms {
                break;
            }
            let happening = entry.remove();
            self.now_ms = at;
            self.happen(happening);
        }
        self.now_ms = until_ms;
    }

    /// Whose process has to be awake for it.
    fn control_of(&self, happening: &Happening) -> Option<usize> {
        match happening {
            Happening::Tick { control }
            | Happening::Apply { control, .. }
            | Happening::ServerNotices { control, .. } => Some(*control),
            Happening::ToServer { link, .. } => Some(self.links.get(link)?.control),
            _ => None,
        }
    }

    fn happen(&mut self, happening: Happening) {
        if let Some(control) = self.control_of(&happening) {
            let until = self.controls[control].paused_until;
            if until > self.now_ms {
                self.later(until - self.now_ms, happening);
                return;
            }
        }
        match happening {
            Happening::Tick { control } => self.tick(control),
            Happening::Up { control } => self.controls[control].down = false,
            Happening::ToAgent { link, message } => self.deliver_to_agent(link, *message),
            Happening::ToServer { link, message } => self.deliver_to_server(link, *message),
            Happening::Cut { link } => self.cut(link, true, true),
            Happening::AgentNotices { link } => self.agent_notices(link),
            Happening::ServerNotices { control, link } => {
                self.tell_fleet(control, fleet::Event::Disconnected { session: link });
            }
            Happening::AgentStart { machine } => self.start_agent(machine),
            Happening::Connect { machine, epoch } => self.connect(machine, epoch),
            Happening::Wake { machine, epoch } if self.is_due(machine, epoch) => {
                self.tell_session(machine, session::Event::Tick);
                self.tell_reconciler(machine, converge::Event::Tick);
                self.ask_for_secrets(machine);
            }
            Happening::Persisted {
                machine,
                epoch,
                generation,
                well,
            } if self.is_now(machine, epoch) => self.persisted(machine, generation, well),
            Happening::Answer {
                machine,
                epoch,
                event,
            } if self.is_now(machine, epoch) => self.answer(machine, *event),
            Happening::Fetched {
                machine,
                epoch,
                digest,
            } if self.is_now(machine, epoch) => self.fetched(machine, epoch, digest),
            Happening::Wake { .. }
            | Happening::Persisted { .. }
            | Happening::Answer { .. }
            | Happening::Fetched { .. } => {}
            Happening::Ended { machine } => self.processes_end(machine),
            Happening::Flap {
                machine,
                address,
                until,
            } => self.flap(machine, *address, until),
            Happening::Operate => self.operate(),
            Happening::Apply {
                control,
                request,
                approved,
            } => self.apply(control, *request, approved),
            Happening::LookAfter => self.look_after(),
            Happening::Fault => self.fault(),
            Happening::OnPurpose(once) => self.go_wrong(once),
        }
    }
}
