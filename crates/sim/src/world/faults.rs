//! What goes wrong: agents, control planes and VMs die or stand still, links are cut, clocks jump, strangers tamper.

use plumb_converge as converge;
use plumb_dispatch::{LogsRequest, fleet};
use plumb_model::observation::ExitStatus;
use plumb_model::{Address, OwnerName, ResourceKind};

use super::{Happening, Once, World};
use crate::workload;

/// An hour and ten years, in milliseconds.
const JUMPS: [i64; 4] = [3_600_000, -3_600_000, 315_360_000_000, -315_360_000_000];

impl World {
    pub(super) fn fault(&mut self) {
        if !self.stormy() {
            return;
        }
        // As many faults for each machine, however many there are; but no more than that a run is still a run.
        // Some seeds leave a fleet enough time to get somewhere in between.
        let apart = 16_000 / (self.options.machines as u64).clamp(4, 20);
        let apart = apart << (self.options.seed % 4);
        let wait = self.chance.between(apart / 8, apart);
        self.later(wait, Happening::Fault);
        let machine = self.chance.between(0, self.machines.len() as u64);
        let machine = usize::try_from(machine).unwrap_or(0);
        let control = self.chance.between(0, self.controls.len() as u64);
        let control = usize::try_from(control).unwrap_or(0);
        match self.chance.between(0, 1000) {
            0..150 => self.crash_agent(machine),
            150..170 => self.crash_control(control),
            170..185 => {
                let for_ms = self.chance.between(5_000, 70_000);
                self.pause(control, for_ms);
            }
            185..200 => {
                let (writes, side) = (self.chance.between(0, 12), self.side());
                if let Some(process) = &self.controls[control].process {
                    process.handle.light(writes, side);
                }
            }
            200..300 => {
                if let Some(link) = self.machines[machine].link {
                    self.cut_somehow(link);
                }
            }
            300..360 => self.disturb(machine),
            360..380 => self.slow_down(machine),
            380..400 => {
                let for_ms = self.chance.between(2_000, 30_000);
                self.machines[machine].alone_until = self.now_ms + for_ms;
                if let Some(link) = self.machines[machine].link {
                    self.cut_somehow(link);
                }
            }
            400..412 => self.isolate(control),
            412..440 => {
                self.crash_agent(machine);
                let wall = self.wall(self.machines[machine].skew_ms);
                self.machines[machine].vm.power_off(self.now_ms, wall);
                self.note(&format!("machine {machine} lost power"));
            }
            440..470 => {
                let jump = self.chance.pick(&JUMPS).copied().unwrap_or(0);
                self.machines[machine].skew_ms = jump;
                self.count("jumps");
            }
            470..480 => {
                let jump = self.chance.pick(&JUMPS).copied().unwrap_or(0);
                self.controls[control].skew_ms = jump;
                self.count("jumps");
            }
            480..488 => self.clone_machine(machine),
            488..496 => self.remove_machine(),
            496..504 => {
                let names: Vec<_> = self.keys.removed.iter().cloned().collect();
                if let Some(name) = self.chance.pick(&names).cloned() {
                    self.enrol(&name);
                }
            }
            504..510 => match self.backup {
                None => self.backup = Some(self.shared.backup()),
                Some(_) if self.chance.percent(40) => self.restore(),
                Some(_) => {}
            },
            510..560 => self.flapper(machine),
            560..640 => self.sicken(machine),
            640..740 => self.appear(machine),
            _ => self.tamper(machine),
        }
    }

    pub(super) fn go_wrong(&mut self, once: Once) {
        match once {
            Once::ClocksJump => {
                let ahead = |n: usize| JUMPS[1 + n % 3];
                for (n, machine) in self.machines.iter_mut().enumerate() {
                    machine.skew_ms = ahead(n);
                }
                for (n, control) in self.controls.iter_mut().enumerate() {
                    control.skew_ms = ahead(n + 1);
                }
                self.note("every clock jumps");
            }
            Once::LeaderPauses => {
                if let Some(control) = self.leader() {
                    self.pause(control, 60_000);
                }
            }
        }
    }

    /// A link on which messages are lost, doubled and put out of order; it breaks soon.
    fn disturb(&mut self, machine: usize) {
        let Some(id) = self.machines[machine].link else {
            return;
        };
        if let Some(link) = self.links.get_mut(&id) {
            link.noisy = true;
            self.count("noisy links");
            let wait = self.chance.between(500, 10_000);
            self.later(wait, Happening::Cut { link: id });
        }
    }

    /// An agent whose logs are asked for over and over, and which reads slowly.
    fn slow_down(&mut self, machine: usize) {
        let at = &self.machines[machine];
        let (name, link) = (at.name.clone(), at.link);
        let Some(control) = link.and_then(|id| {
            let link = self.links.get_mut(&id)?;
            link.slow = true;
            Some(link.control)
        }) else {
            return;
        };
        let Ok(owner) = OwnerName::new("app0") else {
            return;
        };
        for request in 0..80 {
            let asked = LogsRequest {
                request,
                owner: owner.clone(),
                process: None,
                follow: true,
                since: None,
                tail: None,
            };
            let process = self.controls[control].process.as_ref();
            let effect = process.and_then(|process| process.fleet.open_logs(&name, asked));
            if let Some(fleet::Effect::Send { session, message }) = effect {
                self.send_to_agent(session, message);
            }
        }
    }

    /// Nobody reaches a control plane for a while; some connections live on one way.
    fn isolate(&mut self, control: usize) {
        let for_ms = self.chance.between(3_000, 30_000);
        self.controls[control].alone_until = self.now_ms + for_ms;
        self.count("partitions");
        self.note(&format!("control plane {control} is cut off"));
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.control == control)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.cut_somehow(link);
        }
    }

    pub(super) fn any_address(&mut self, machine: usize) -> Option<Address> {
        let all: Vec<_> = self.machines[machine].vm.addresses().cloned().collect();
        self.chance.pick(&all).cloned()
    }

    /// A workload that ends again and again.
    fn flapper(&mut self, machine: usize) {
        let Some(address) = self.any_address(machine) else {
            return;
        };
        if address.kind == ResourceKind::Process {
            self.count("flappers");
            let until = self.now_ms + self.chance.between(5_000, 40_000);
            self.flap(machine, address, until);
        }
    }

    pub(super) fn flap(&mut self, machine: usize, address: Address, until: u64) {
        if self.now_ms >= until || !self.storming() {
            return;
        }
        let wall = self.wall(self.machines[machine].skew_ms);
        let at = &mut self.machines[machine];
        if at.vm.end(&address, ExitStatus::Code(1), wall) {
            at.vm.touched.insert(address.clone(), self.now_ms);
            self.tell_reconciler(machine, converge::Event::Woken(vec![address.clone()]));
        }
        let wait = self.chance.between(500, 4_000);
        let address = Box::new(address);
        let flap = Happening::Flap {
            machine,
            address,
            until,
        };
        self.later(wait, flap);
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
        let wall = self.wall(self.machines[machine].skew_ms);
        let now = self.now_ms;
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
