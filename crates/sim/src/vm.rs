//! One VM as its drivers see it: a map from address to what is there, which outlives its agent.
//!
//! It answers observations and actions, and lets strangers tamper. What no driver may ever be told to do it writes down
//! as broken.

use std::collections::{BTreeMap, BTreeSet};

use plumb_converge::Work;
use plumb_model::observation::{Difference, Exit, ExitStatus, Incarnation};
use plumb_model::{
    Action, Address, Fault, Found, FoundKind, Hash, Mode, Observation, Reason, Resource,
    ResourceKind, ResourceSpec, RunState, Timestamp,
};

use crate::bugs::Bug;

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// Made by a driver exactly so.
    Made(Box<ResourceSpec>),
    /// Made by a driver, and edited by a stranger.
    Edited,
    /// A process under its shim.
    Alive(Incarnation),
    /// A process that has ended.
    Dead(Incarnation, Exit),
    /// A file that a stranger made before any driver did; each has a number.
    Foreign(u64),
}

/// Whether the simulated agent has a driver for a kind.
#[must_use]
pub fn drives(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Artifact
            | ResourceKind::Directory
            | ResourceKind::File
            | ResourceKind::Process
    )
}

/// A VM.
#[derive(Debug, Clone, Default)]
pub struct Vm {
    things: BTreeMap<Address, Thing>,
    /// Content that has arrived.
    pub blobs: BTreeSet<Hash>,
    /// What stands for each secret that has come.
    pub secrets: BTreeSet<Hash>,
    /// When a stranger last interfered with an address, in virtual milliseconds.
    pub touched: BTreeMap<Address, u64>,
    /// Processes whose health check fails.
    pub sick: BTreeSet<Address>,
    /// Processes that were ever sick, and may be restarted for it.
    ever_sick: BTreeSet<Address>,
    /// Strangers' files that have not been moved away by their owners, and those of which an original was kept.
    strangers: BTreeSet<u64>,
    kept: BTreeSet<u64>,
    appeared: u64,
    /// How often something was taken over from an old address, and how often a stranger's file was.
    pub renames: u64,
    /// See [`renames`](Self::renames).
    pub adoptions: u64,
    /// Which address has taken over from which.
    moved: BTreeMap<Address, Address>,
    pids: u32,
    /// How many actions were carried out.
    pub acts: u64,
    /// What should never have happened.
    pub broken: Vec<String>,
    /// What is wrong with its drivers.
    bug: Option<Bug>,
}

impl Vm {
    /// One on which nothing is.
    #[must_use]
    pub fn new(bug: Option<Bug>) -> Self {
        Self {
            bug,
            ..Self::default()
        }
    }

    /// What is at an address. A stranger's file is in the way of whatever is to be in its place, whoever owns that.
    #[must_use]
    pub fn thing(&self, address: &Address) -> Option<&Thing> {
        let there = self.things.get(address);
        there.or_else(|| Some(self.stranger(address)?.1))
    }

    /// The stranger's file in the place of an address.
    fn stranger(&self, address: &Address) -> Option<(&Address, &Thing)> {
        self.things
            .iter()
            .find(|(at, thing)| matches!(thing, Thing::Foreign(_)) && same_place(at, address))
    }

    /// Every address at which something of Plumb's is.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let ours = |thing: &Thing| !matches!(thing, Thing::Foreign(_));
        self.things
            .iter()
            .filter(move |(_, thing)| ours(thing))
            .map(|(address, _)| address)
    }

    /// A stranger makes a file where nothing is yet. Says whether there was room.
    pub fn appear(&mut self, address: &Address) -> bool {
        if self.things.keys().any(|at| same_place(at, address)) {
            return false;
        }
        self.appeared += 1;
        self.strangers.insert(self.appeared);
        self.things
            .insert(address.clone(), Thing::Foreign(self.appeared));
        true
    }

    /// Whoever made files that are in the way reads so, and moves them away. Says where from.
    pub fn strangers_leave(&mut self) -> Vec<Address> {
        let mut left = Vec::new();
        self.things.retain(|address, thing| {
            let Thing::Foreign(number) = thing else {
                return true;
            };
            self.strangers.remove(number);
            left.push(address.clone());
            false
        });
        left
    }

    /// Strangers' files that are neither where they were nor kept.
    #[must_use]
    pub fn lost(&self) -> Vec<u64> {
        let there: BTreeSet<u64> = self
            .things
            .values()
            .filter_map(|thing| match thing {
                Thing::Foreign(number) => Some(*number),
                _ => None,
            })
            .collect();
        let found = |number: &&u64| !there.contains(number) && !self.kept.contains(number);
        self.strangers.iter().filter(found).copied().collect()
    }

    /// Whether what is there is what the resource says.
    #[must_use]
    pub fn is_as(&self, resource: &Resource) -> bool {
        match (&resource.spec, self.thing(&resource.address)) {
            (ResourceSpec::Process(spec), thing) if spec.state == RunState::Stopped => {
                !matches!(thing, Some(Thing::Alive(_)))
            }
            (ResourceSpec::Process(spec), Some(Thing::Alive(run))) => {
                run.spec == spec.incarnation_hash() && !run.stopping
            }
            (spec, Some(Thing::Made(made))) => *spec == **made,
            _ => false,
        }
    }

    /// Is told to look.
    pub fn look(&mut self, work: &Work) -> Observation {
        if self.bug == Some(Bug::WritesWhenItLooks) {
            self.acts += 1;
        }
        self.observe(work)
    }

    /// What is there, to who is to bring it to what it should be.
    #[must_use]
    pub fn observe(&self, work: &Work) -> Observation {
        let differs = |found: &str| Observation::Present {
            differs: vec![Difference {
                field: "content".to_owned(),
                found: found.to_owned(),
            }],
        };
        match self.thing(&work.address) {
            None => Observation::Absent,
            Some(Thing::Made(made)) => match &work.resource {
                Some(resource) if resource.spec != **made => differs("another version"),
                _ => Observation::Present {
                    differs: Vec::new(),
                },
            },
            // A driver that is to remove something never takes this for it.
            Some(Thing::Foreign(_)) if work.resource.is_none() => Observation::Absent,
            Some(Thing::Foreign(_)) if self.bug == Some(Bug::TakesOver) => {
                differs("another version")
            }
            Some(Thing::Foreign(number)) => Observation::Foreign {
                what: format!("stranger {number}"),
                found: Some(Box::new(Found {
                    kind: FoundKind::File,
                    mode: Mode(0o600),
                    owner: "root".to_owned(),
                    group: "root".to_owned(),
                    size: Some(*number),
                    digest: None,
                    text: None,
                })),
            },
            Some(Thing::Edited) => differs("a stranger's words"),
            Some(Thing::Alive(run)) => Observation::Running(run.clone()),
            Some(Thing::Dead(run, exit)) => Observation::Exited(run.clone(), exit.clone()),
        }
    }

    /// Acts, and says what is there afterwards.
    ///
    /// # Errors
    /// Where a stranger's file is in the way, or there is no driver.
    pub fn act(
        &mut self,
        work: &Work,
        action: &Action,
        wall: Timestamp,
    ) -> Result<Observation, Fault> {
        let address = work.address.clone();
        let makes = matches!(action, Action::Write | Action::Adopt | Action::Start);
        if !drives(address.kind) {
            return if makes {
                Err(Fault::new(Reason::LacksCapability, "there is no driver"))
            } else {
                Ok(Observation::Absent)
            };
        }
        self.acts += 1;
        if let Some((place, Thing::Foreign(number))) = self.stranger(&address) {
            let (place, number) = (place.clone(), *number);
            match action {
                Action::Adopt => {
                    if !work.resource.as_ref().is_some_and(|r| r.adopt) {
                        let what = "what nobody agreed to was adopted";
                        self.broken.push(format!("{address}: {what}"));
                    }
                    self.adoptions += 1;
                    self.kept.insert(number);
                    self.things.remove(&place);
                }
                Action::Write if self.bug == Some(Bug::TakesOver) => {
                    self.things.remove(&place);
                }
                Action::Write => {
                    return Err(Fault::new(Reason::NotOurs, "a stranger was quicker"));
                }
                _ => return Ok(self.observe(work)),
            }
        }
        if self.bug == Some(Bug::SaysSo) && *action == Action::Write {
            return Ok(Observation::Present {
                differs: Vec::new(),
            });
        }
        let alive = matches!(self.things.get(&address), Some(Thing::Alive(_)));
        match (action, &work.resource) {
            (Action::Write | Action::Adopt, Some(resource)) => {
                for (digest, _) in resource.spec.blobs() {
                    if !self.blobs.contains(&digest) {
                        self.broken
                            .push(format!("{address} was written before its content came"));
                    }
                }
                self.things
                    .insert(address, Thing::Made(resource.spec.clone().into()));
            }
            (Action::Start, Some(resource)) => {
                if alive {
                    self.broken
                        .push(format!("{address} was started while it was alive"));
                }
                for secret in resource.spec.secrets() {
                    let here = secret.awaited().is_none_or(|a| self.secrets.contains(&a));
                    if !here {
                        let name = &secret.name;
                        let what = format!("{address} was started before its secret {name} came");
                        self.broken.push(what);
                    }
                }
                self.start(resource, wall);
            }
            (Action::Stop, resource) => self.stop(&address, resource.as_deref()),
            (Action::Remove, _) => {
                if alive {
                    self.broken
                        .push(format!("{address} was removed while it was alive"));
                }
                self.things.remove(&address);
                self.forget(&address);
            }
            (Action::Move { from }, _) => self.take_over(&address, from),
            (Action::Write | Action::Adopt | Action::Start, None) => {
                self.broken
                    .push(format!("{address} was made though nothing says what it is"));
            }
        }
        Ok(self.observe(work))
    }

    /// Nothing is left at an address, and nothing is to be: what it took over is forgotten.
    pub fn forget(&mut self, address: &Address) {
        if !self.things.contains_key(address) {
            self.moved.remove(address);
        }
    }

    fn take_over(&mut self, to: &Address, from: &[Address]) {
        let Some(newest) = from.first() else { return };
        if self.moved.get(to) == Some(newest) {
            return;
        }
        let ours = |thing: Option<&Thing>| !matches!(thing, None | Some(Thing::Foreign(_)));
        let old = from.iter().find(|old| ours(self.things.get(*old)));
        if let Some(old) = old.filter(|_| self.thing(to).is_none()) {
            if let Some(thing) = self.things.remove(old) {
                self.things.insert(to.clone(), thing);
            }
            for set in [&mut self.sick, &mut self.ever_sick] {
                if set.remove(old) {
                    set.insert(to.clone());
                }
            }
            if let Some(at_ms) = self.touched.remove(old) {
                self.touched.insert(to.clone(), at_ms);
            }
            self.moved.remove(old);
            self.renames += 1;
        }
        self.moved.insert(to.clone(), newest.clone());
    }

    fn start(&mut self, resource: &Resource, wall: Timestamp) {
        let ResourceSpec::Process(spec) = &resource.spec else {
            self.broken.push(format!(
                "{} was started and is no process",
                resource.address
            ));
            return;
        };
        self.pids += 1;
        let run = Incarnation {
            id: format!("run-{}", self.pids),
            spec: spec.incarnation_hash(),
            pid: self.pids,
            started: wall,
            stopping: false,
        };
        self.things
            .insert(resource.address.clone(), Thing::Alive(run));
    }

    fn stop(&mut self, address: &Address, resource: Option<&Resource>) {
        let Some(Thing::Alive(run)) = self.things.get_mut(address) else {
            return;
        };
        let wanted = resource.is_some_and(|resource| match &resource.spec {
            ResourceSpec::Process(spec) => {
                spec.state == RunState::Running && run.spec == spec.incarnation_hash()
            }
            _ => false,
        });
        let already = std::mem::replace(&mut run.stopping, true);
        if wanted && !already && !self.ever_sick.contains(address) {
            self.broken.push(format!(
                "{address} was stopped though it was wanted and well"
            ));
        }
    }

    /// The processes that were asked to stop and have not ended.
    #[must_use]
    pub fn stopping(&self) -> Vec<Address> {
        self.things
            .iter()
            .filter(|(_, thing)| matches!(thing, Thing::Alive(run) if run.stopping))
            .map(|(address, _)| address.clone())
            .collect()
    }

    /// A process ends, for whatever reason. Says whether it was alive.
    pub fn end(&mut self, address: &Address, status: ExitStatus, wall: Timestamp) -> bool {
        let Some(Thing::Alive(run)) = self.things.get(address).cloned() else {
            return false;
        };
        let exit = Exit { status, at: wall };
        self.things.insert(address.clone(), Thing::Dead(run, exit));
        true
    }

    /// A stranger edits or removes what is at an address.
    pub fn tamper(&mut self, address: &Address, remove: bool, at_ms: u64, wall: Timestamp) {
        self.touched.insert(address.clone(), at_ms);
        if address.kind == ResourceKind::Process {
            self.end(address, ExitStatus::Signal(9), wall);
        } else if remove {
            self.things.remove(address);
        } else if let Some(thing) = self.things.get_mut(address) {
            *thing = Thing::Edited;
        }
    }

    /// A stranger makes something of its own.
    pub fn settle(&mut self, address: Address) {
        self.things.insert(address, Thing::Edited);
    }

    /// A process turns sick, or well again.
    pub fn sicken(&mut self, address: &Address, sick: bool, at_ms: u64) {
        if sick {
            self.touched.insert(address.clone(), at_ms);
            self.ever_sick.insert(address.clone());
            self.sick.insert(address.clone());
        } else {
            self.sick.remove(address);
        }
    }

    /// The VM goes down: every process ends unseen.
    pub fn power_off(&mut self, at_ms: u64, wall: Timestamp) {
        let addresses: Vec<_> = self.things.keys().cloned().collect();
        for address in addresses {
            if self.end(&address, ExitStatus::Unknown, wall) {
                self.touched.insert(address, at_ms);
            }
        }
    }
}

/// Whether two addresses are one place: a file is at its path, whoever owns it.
fn same_place(one: &Address, other: &Address) -> bool {
    one == other
        || (one.kind == ResourceKind::File && (one.kind, &one.name) == (other.kind, &other.name))
}
