//! One VM as its drivers see it: a map from address to what is there, which outlives its agent.
//!
//! It answers observations and actions, and lets strangers tamper. What no driver may ever be told to do it writes down
//! as broken.

use std::collections::{BTreeMap, BTreeSet};

use plumb_converge::Work;
use plumb_model::observation::{Difference, Exit, ExitStatus, Incarnation};
use plumb_model::{
    Action, Address, Fault, Hash, Observation, Resource, ResourceKind, ResourceSpec, RunState,
    Timestamp,
};

/// What is at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Thing {
    /// Made by a driver exactly so.
    Made(ResourceSpec),
    /// Made by a driver, and edited by a stranger.
    Edited,
    /// A process under its shim.
    Alive(Incarnation),
    /// A process that has ended.
    Dead(Incarnation, Exit),
}

/// A VM.
#[derive(Debug, Clone, Default)]
pub struct Vm {
    things: BTreeMap<Address, Thing>,
    /// Content that has arrived.
    pub blobs: BTreeSet<Hash>,
    /// When a stranger last interfered with an address, in virtual milliseconds.
    pub touched: BTreeMap<Address, u64>,
    /// Processes whose health check fails.
    pub sick: BTreeSet<Address>,
    /// Processes that were ever sick, and may be restarted for it.
    ever_sick: BTreeSet<Address>,
    pids: u32,
    /// How many actions were carried out.
    pub acts: u64,
    /// What should never have happened.
    pub broken: Vec<String>,
}

impl Vm {
    /// What is at an address.
    #[must_use]
    pub fn thing(&self, address: &Address) -> Option<&Thing> {
        self.things.get(address)
    }

    /// Every address at which something is.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        self.things.keys()
    }

    /// Whether what is there is what the resource says.
    #[must_use]
    pub fn is_as(&self, resource: &Resource) -> bool {
        match (&resource.spec, self.things.get(&resource.address)) {
            (ResourceSpec::Process(spec), thing) if spec.state == RunState::Stopped => {
                !matches!(thing, Some(Thing::Alive(_)))
            }
            (ResourceSpec::Process(spec), Some(Thing::Alive(run))) => {
                run.spec == spec.incarnation_hash() && !run.stopping
            }
            (spec, Some(Thing::Made(made))) => spec == made,
            _ => false,
        }
    }

    /// Looks.
    #[must_use]
    pub fn observe(&self, work: &Work) -> Observation {
        let differs = |found: &str| Observation::Present {
            differs: vec![Difference {
                field: "content".to_owned(),
                found: found.to_owned(),
            }],
        };
        match self.things.get(&work.address) {
            None => Observation::Absent,
            Some(Thing::Made(made)) => match &work.resource {
                Some(resource) if resource.spec != *made => differs("another version"),
                _ => Observation::Present {
                    differs: Vec::new(),
                },
            },
            Some(Thing::Edited) => differs("a stranger's words"),
            Some(Thing::Alive(run)) => Observation::Running(run.clone()),
            Some(Thing::Dead(run, exit)) => Observation::Exited(run.clone(), exit.clone()),
        }
    }

    /// Acts, and says what is there afterwards.
    ///
    /// # Errors
    /// None so far: this VM's disk is never full.
    pub fn act(
        &mut self,
        work: &Work,
        action: &Action,
        wall: Timestamp,
    ) -> Result<Observation, Fault> {
        self.acts += 1;
        let address = work.address.clone();
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
                    .insert(address, Thing::Made(resource.spec.clone()));
            }
            (Action::Start, Some(resource)) => {
                if alive {
                    self.broken
                        .push(format!("{address} was started while it was alive"));
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
            }
            (Action::Move { .. }, _) => {}
            (Action::Write | Action::Adopt | Action::Start, None) => {
                self.broken
                    .push(format!("{address} was made though nothing says what it is"));
            }
        }
        Ok(self.observe(work))
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
