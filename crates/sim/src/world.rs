//! The world of a run: virtual time, and the one queue of everything that is going to happen.

mod operator;

mod links;
mod machines;

mod checks;
mod faults;

use std::collections::BTreeMap;

use plumb_converge as converge;
use plumb_dispatch::{Now as SessionNow, ToAgent, ToServer, agent as session, fleet};
use plumb_model::state::Outcome;
use plumb_model::{Generation, Hash, OwnerName, ReleaseNumber, Timestamp};
use plumb_planner::{Planned, Request};

use crate::agent::Machine;
use crate::chance::Chance;
use crate::control::{Control, ControlError};
use crate::workload;

/// How a run goes.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides on everything else.
    pub seed: u64,
    /// How many agents there are.
    pub machines: usize,
    /// For how long things go wrong, in virtual milliseconds.
    pub storm_ms: u64,
    /// How long the fleet then has to come to rest.
    pub rest_ms: u64,
}

impl Options {
    /// Five agents, two minutes of faults, and five minutes to come to rest: the longest way there is a program that
    /// kept ending, with its pauses of up to twenty seconds and its ten seconds of healthy spell.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            machines: 5,
            storm_ms: 120_000,
            rest_ms: 300_000,
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Every broken invariant, with the virtual time at which it was seen; empty is a pass.
    pub broken: Vec<String>,
    /// A hash over everything that happened, in order: the same seed gives the same one.
    pub trace: Hash,
    /// How many events were handled.
    pub events: u64,
    /// How many assignments were recorded, over all machines.
    pub assignments: u64,
    /// How many applies lost against another one.
    pub conflicts: u64,
    /// How often agents, control plane and VMs died.
    pub crashes: u64,
    /// How often a link was cut.
    pub cuts: u64,
    /// How many machines a wave of a rollout has moved.
    pub waves: u64,
    /// How many actions drivers carried out.
    pub acts: u64,
    /// How often something was taken over from an old address.
    pub renames: u64,
    /// How often a stranger's file was taken over.
    pub adoptions: u64,
    /// How long the fleet took to come to rest once the faults had ended, in virtual milliseconds.
    pub rested_ms: Option<u64>,
}

/// A stranger's interference may go unnoticed until the next resync, of 30 s and a fifth, and is put right soon after.
const UNNOTICED_MS: u64 = 45_000;

/// Once at rest, the fleet is watched for so long to see that nothing is done any more: more than two full resyncs.
const WATCH_MS: u64 = 90_000;

enum Happening {
    ServerTick,
    ServerStart,
    ToAgent {
        link: u64,
        message: Box<ToAgent>,
    },
    ToServer {
        link: u64,
        message: Box<ToServer>,
    },
    /// An end of a link notices that it is gone.
    AgentNotices {
        link: u64,
    },
    ServerNotices {
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
    Operate,
    Apply {
        request: Box<Request>,
        planned: Box<Planned>,
    },
    Fault,
}

struct Link {
    machine: usize,
    /// What is sent this way from now on is lost.
    up_cut: bool,
    down_cut: bool,
    up_last: u64,
    down_last: u64,
}

struct World {
    options: Options,
    chance: Chance,
    now_ms: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    machines: Vec<Machine>,
    control: Control,
    links: BTreeMap<u64, Link>,
    next_link: u64,
    outcomes: BTreeMap<(OwnerName, ReleaseNumber), Outcome>,
    broken: Vec<String>,
    trace: Vec<u8>,
    events: u64,
    conflicts: u64,
    crashes: u64,
    cuts: u64,
    waves: u64,
}

/// Runs one seed.
///
/// # Errors
/// If the ledger fails or is not what it should be, which no fault of this simulation excuses.
pub fn run(options: Options) -> Result<Report, ControlError> {
    let mut world = World::new(options);
    world.control.start(world.wall())?;
    for machine in 0..options.machines {
        let at = world.chance.between(0, 3000);
        world.later(at, Happening::AgentStart { machine });
    }
    world.later(0, Happening::ServerTick);
    world.later(100, Happening::Operate);
    world.later(2000, Happening::Fault);
    world.until(options.storm_ms)?;
    world.calm()?;
    let rested_ms = world.come_to_rest()?;
    if rested_ms.is_some() {
        world.check_rest()?;
    }
    Ok(world.report(rested_ms))
}

impl World {
    fn new(options: Options) -> Self {
        let machines = workload::machines(options.machines)
            .into_iter()
            .map(Machine::new)
            .collect();
        Self {
            options,
            chance: Chance::new(options.seed),
            now_ms: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            machines,
            control: Control::new(),
            links: BTreeMap::new(),
            next_link: 1,
            outcomes: BTreeMap::new(),
            broken: Vec::new(),
            trace: Vec::new(),
            events: 0,
            conflicts: 0,
            crashes: 0,
            cuts: 0,
            waves: 0,
        }
    }

    fn report(mut self, rested_ms: Option<u64>) -> Report {
        for machine in &mut self.machines {
            let name = machine.name.clone();
            let broken = machine.vm.broken.drain(..);
            self.broken
                .extend(broken.map(|b| format!("on {name}: {b}")));
        }
        Report {
            broken: self.broken,
            trace: Hash::of(&self.trace),
            events: self.events,
            assignments: self.control.history.len() as u64,
            conflicts: self.conflicts,
            crashes: self.crashes,
            cuts: self.cuts,
            waves: self.waves,
            acts: self.machines.iter().map(|m| m.vm.acts).sum(),
            renames: self.machines.iter().map(|m| m.vm.renames).sum(),
            adoptions: self.machines.iter().map(|m| m.vm.adoptions).sum(),
            rested_ms,
        }
    }

    fn storming(&self) -> bool {
        self.now_ms < self.options.storm_ms
    }

    fn wall(&self) -> Timestamp {
        let ms = i64::try_from(self.now_ms).unwrap_or(i64::MAX / 2);
        Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    fn session_now(&self) -> SessionNow {
        SessionNow {
            wall: self.wall(),
            mono_ms: self.now_ms,
        }
    }

    fn converge_now(&self) -> converge::Now {
        converge::Now {
            wall: self.wall(),
            mono_ms: self.now_ms,
        }
    }

    fn later(&mut self, in_ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue
            .insert((self.now_ms + in_ms, self.sequence), happening);
    }

    fn note(&mut self, what: &str) {
        self.trace
            .extend_from_slice(format!("{} {what}\n", self.now_ms).as_bytes());
        // The hash chain keeps the trace small.
        if self.trace.len() > 1 << 16 {
            self.trace = Hash::of(&self.trace).0.to_vec();
        }
    }

    fn broke(&mut self, what: String) {
        if self.broken.len() < 20 {
            self.broken.push(format!("at {} ms: {what}", self.now_ms));
        }
    }

    fn until(&mut self, until_ms: u64) -> Result<(), ControlError> {
        while let Some(((at, _), _)) = self
            .queue
            .first_key_value()
            .filter(|((at, _), _)| *at <= until_ms)
        {
            let at = *at;
            let Some((_, happening)) = self.queue.pop_first() else {
                break;
            };
            self.now_ms = at;
            self.events += 1;
            self.happen(happening)?;
        }
        self.now_ms = until_ms;
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), ControlError> {
        match happening {
            Happening::ServerTick => {
                self.tell_fleet(fleet::Event::Tick);
                self.roll()?;
                self.later(fleet::TICK_MS, Happening::ServerTick);
            }
            Happening::ServerStart if self.control.fleet.is_none() => {
                self.control.start(self.wall())?;
                self.note("server started");
            }
            Happening::ServerStart => {}
            Happening::ToAgent { link, message } => self.deliver_to_agent(link, *message),
            Happening::ToServer { link, message } => self.deliver_to_server(link, *message),
            Happening::AgentNotices { link } => self.agent_notices(link),
            Happening::ServerNotices { link } => {
                self.tell_fleet(fleet::Event::Disconnected { session: link });
            }
            Happening::AgentStart { machine } => self.start_agent(machine),
            Happening::Connect { machine, epoch } => self.connect(machine, epoch),
            Happening::Wake { machine, epoch } if self.is_due(machine, epoch) => {
                self.tell_session(machine, session::Event::Tick);
                self.tell_reconciler(machine, converge::Event::Tick);
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
            Happening::Operate => self.operate()?,
            Happening::Apply { request, planned } => self.apply(*request, &planned)?,
            Happening::Fault => self.fault(),
        }
        Ok(())
    }
}
