//! Which key counts for a machine: machines are removed and enrolled anew, copies of them are found and settled.
//!
//! As in production: who has another key than the one that counts is not let in, and the fleet is told when a key is
//! replaced or removed.

use std::collections::{BTreeMap, BTreeSet};

use plumb_dispatch::fleet;
use plumb_model::MachineName;

use super::{Happening, World};
use crate::agent::Machine;
use crate::bugs::Bug;
use crate::workload;

/// Which key counts for each machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    /// The number of its newest.
    newest: BTreeMap<MachineName, u64>,
    /// Those that were removed, and for which none counts.
    pub removed: BTreeSet<MachineName>,
}

impl Keys {
    /// Each has its first.
    pub fn of(names: &[MachineName]) -> Self {
        Self {
            newest: names.iter().map(|name| (name.clone(), 0)).collect(),
            removed: BTreeSet::new(),
        }
    }

    fn newest(&self, name: &MachineName) -> u64 {
        self.newest.get(name).copied().unwrap_or_default()
    }

    /// Another key counts from now on, or none.
    fn moved(&mut self, name: &MachineName, removed: bool) {
        if removed {
            self.removed.insert(name.clone());
        } else {
            self.removed.remove(name);
            *self.newest.entry(name.clone()).or_default() += 1;
        }
    }
}

impl World {
    /// Whether a control plane lets an agent in, by what it knows of keys.
    pub(super) fn is_let_in(&self, machine: usize, control: usize) -> bool {
        if self.options.bug == Some(Bug::AnyKey) {
            return true;
        }
        let at = &self.machines[machine];
        let keys = &self.controls[control].keys;
        keys.newest(&at.name) == at.key && !keys.removed.contains(&at.name)
    }

    /// Another key counts from now on, or none; whoever has an older one is cut off.
    fn identity_moved(&mut self, name: &MachineName, removed: bool) {
        self.keys.moved(name, removed);
        self.transit.retain(|(_, on), _| on != name);
        if let Some(control) = self.leader() {
            self.controls[control].keys.moved(name, removed);
            let machine = name.clone();
            self.tell_fleet(control, fleet::Event::Identity { machine, removed });
        }
        if self.options.bug == Some(Bug::AnyKey) {
            return;
        }
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| self.machines[link.machine].name == *name)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.cut(link, true, true);
            self.agent_notices(link);
        }
    }

    /// Whether an operator who says something about a machine is answered: whoever has the lease does not stand still.
    fn answers(&self) -> bool {
        self.lease.is_none_or(|(holder, _)| {
            let control = &self.controls[holder];
            control.process.is_none() || control.paused_until <= self.now_ms
        })
    }

    /// A machine is lost, and removed for good.
    pub(super) fn remove_machine(&mut self) {
        if !self.answers() {
            return;
        }
        let names = workload::machines(self.options.machines);
        let Some(name) = self.chance.pick(&names).cloned() else {
            return;
        };
        if self.keys.removed.len() * 5 >= names.len() || self.keys.removed.contains(&name) {
            return;
        }
        self.count("removals");
        self.note(&format!("{name} was removed"));
        self.identity_moved(&name, true);
        for machine in &mut self.machines {
            machine.shut_out |= machine.name == name;
        }
    }

    /// A new VM joins under a name that was removed; it has nothing of the one before.
    pub(super) fn enrol(&mut self, name: &MachineName) {
        if !self.answers() {
            return;
        }
        self.note(&format!("another {name} was enrolled"));
        self.identity_moved(name, false);
        let mut fresh = Machine::new(name.clone(), self.options.bug);
        fresh.key = self.keys.newest(name);
        let machine = self.machines.len();
        self.machines.push(fresh);
        self.later(50, Happening::AgentStart { machine });
    }

    /// Somebody copies a VM, and both run.
    pub(super) fn clone_machine(&mut self, machine: usize) {
        let at = &self.machines[machine];
        let copies = self.machines.iter().filter(|m| m.name == at.name).count();
        if at.shut_out || copies > 1 {
            return;
        }
        let copy = at.copied();
        self.count("copies");
        self.copied.insert(copy.name.clone());
        self.note(&format!("{} was copied", copy.name));
        let machine = self.machines.len();
        self.machines.push(copy);
        self.later(100, Happening::AgentStart { machine });
        let wait = self.chance.between(20_000, 60_000);
        self.later(wait, Happening::LookAfter);
    }

    /// Of the VMs under one name an operator says which is the machine: it gets another key, and the rest are shut out.
    fn settle(&mut self, name: &MachineName) {
        let all: Vec<usize> = (0..self.machines.len())
            .filter(|at| self.machines[*at].name == *name && !self.machines[*at].shut_out)
            .collect();
        if all.len() < 2 {
            return;
        }
        let Some(chosen) = self.chance.pick(&all).copied() else {
            return;
        };
        self.note(&format!("{name} is machine {chosen}"));
        self.identity_moved(name, false);
        let key = self.keys.newest(name);
        for at in all {
            let machine = &mut self.machines[at];
            machine.shut_out = at != chosen;
            if at == chosen {
                machine.key = key;
            }
        }
    }

    /// Operators look after what waits for them: machines that are ahead, copies, and removed machines that are wanted.
    pub(super) fn look_after(&mut self) {
        if !self.answers() {
            self.later(1000, Happening::LookAfter);
            return;
        }
        for name in workload::machines(self.options.machines) {
            self.settle(&name);
        }
        if let Some(control) = self.leader() {
            let at = self.wall(self.controls[control].skew_ms);
            let recovered = self.with(control, |process| process.recover(at));
            if let Some(Some((done, machines))) = recovered {
                self.count("recovered");
                self.recorded(control, None, done);
                for machine in machines {
                    self.tell_fleet(control, fleet::Event::Recovered(machine));
                }
            }
        }
    }
}
