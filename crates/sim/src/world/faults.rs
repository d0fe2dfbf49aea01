//! What goes wrong: agents, control plane and VMs die, links are cut, strangers tamper.

use plumb_converge as converge;
use plumb_model::{Address, ResourceKind};

use super::{Happening, World};
use crate::workload;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.storming() {
            return;
        }
        let wait = self.chance.between(100, 4000);
        self.later(wait, Happening::Fault);
        let machine =
            usize::try_from(self.chance.between(0, self.options.machines as u64)).unwrap_or(0);
        match self.chance.between(0, 100) {
            0..20 => self.crash_agent(machine),
            20..25 => self.crash_server(),
            25..45 => {
                if let Some(link) = self.machines[machine].link {
                    self.cut(link);
                }
            }
            45..50 => {
                self.crash_agent(machine);
                let wall = self.wall();
                self.machines[machine].vm.power_off(self.now_ms, wall);
                self.note(&format!("machine {machine} lost power"));
            }
            50..60 => self.sicken(machine),
            60..70 => self.appear(machine),
            _ => self.tamper(machine),
        }
    }

    pub(super) fn any_address(&mut self, machine: usize) -> Option<Address> {
        let all: Vec<_> = self.machines[machine].vm.addresses().cloned().collect();
        self.chance.pick(&all).cloned()
    }

    pub(super) fn sicken(&mut self, machine: usize) {
        let Some(address) = self.any_address(machine) else {
            return;
        };
        if address.kind == ResourceKind::Process {
            let sick = !self.machines[machine].vm.sick.contains(&address);
            let now = self.now_ms;
            self.machines[machine].vm.sicken(&address, sick, now);
        }
    }

    /// A stranger makes a file that a Setup wants to make there, or will want to.
    pub(super) fn appear(&mut self, machine: usize) {
        let path = workload::wanted_path(&mut self.chance);
        let held = self.machines[machine].disk.held.as_ref();
        let wanted = held
            .into_iter()
            .flat_map(|held| held.assignment.entries())
            .map(|entry| entry.address())
            .find(|address| address.kind == ResourceKind::File && *address.name == *path)
            .cloned();
        let Some(address) = wanted else { return };
        if self.machines[machine].vm.appear(&address) {
            self.note(&format!("a stranger made {address}"));
            if self.chance.percent(80) {
                self.tell_reconciler(machine, converge::Event::Woken(vec![address]));
            }
        }
    }

    pub(super) fn tamper(&mut self, machine: usize) {
        let Some(address) = self.any_address(machine) else {
            return;
        };
        let remove = self.chance.percent(50);
        let (now, wall) = (self.now_ms, self.wall());
        self.note(&format!("{address} tampered with"));
        self.machines[machine]
            .vm
            .tamper(&address, remove, now, wall);
        // Most of it is noticed at once; the resync finds the rest.
        if self.chance.percent(80) {
            self.tell_reconciler(machine, converge::Event::Woken(vec![address]));
        }
    }
}
