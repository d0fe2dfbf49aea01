//! The invariants: those that hold at every moment, and those that hold once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use plumb_converge as converge;
use plumb_dispatch::view::{OwnerView, StateWord, WorkspaceView};
use plumb_model::rollout::Phase;
use plumb_model::{Action, Address, ConditionKind, Entry, Reason, ResourceStatus};

use super::{UNNOTICED_MS, WATCH_MS, World};
use crate::control::ControlError;
use crate::vm::{Thing, drives};

/// Whether an owner is as it should be, as far as these agents can make it so.
fn is_settled(owner: &OwnerView) -> bool {
    let rolls = owner.rollout.as_ref();
    if rolls.is_some_and(|rollout| rollout.phase != Phase::Done) {
        return false;
    }
    let fine = |state| matches!(state, StateWord::Converged | StateWord::Stopped);
    fine(owner.state)
        || owner.resources.iter().all(|resource| {
            let lacks = resource.condition(ConditionKind::Blocked);
            fine(resource.state) || lacks.is_some_and(|c| c.reason == Reason::LacksCapability)
        })
}

impl World {
    /// Nothing is made before what it waits for is as it should be, unless a stranger came in between.
    pub(super) fn check_order(&mut self, machine: usize, work: &converge::Work, action: &Action) {
        let at = &self.machines[machine];
        let (Action::Write | Action::Start, Some(resource), Some(held)) =
            (action, &work.resource, &at.disk.held)
        else {
            return;
        };
        let early = resource.after.iter().find(|before| {
            let touched = at.vm.touched.get(before);
            let recently = touched.is_some_and(|touched| self.now_ms - touched < UNNOTICED_MS);
            match held.assignment.get(before) {
                Some(Entry::Resource(before)) => !recently && !at.vm.is_as(before),
                _ => false,
            }
        });
        if let Some(before) = early {
            let (before, address) = (before.clone(), work.address.clone());
            self.broke(format!(
                "what a resource waits for comes first: {address} was made before {before}"
            ));
        }
    }

    /// Nothing that was renamed is ended at its old address, or made anew at the new one while it is at the old.
    pub(super) fn check_rename(&mut self, machine: usize, work: &converge::Work, action: &Action) {
        let at = &self.machines[machine];
        let Some(held) = &at.disk.held else { return };
        let alive = |address: &Address| matches!(at.vm.thing(address), Some(Thing::Alive(_)));
        let wrong = match (action, &work.resource) {
            (Action::Stop | Action::Remove, None) => held.assignment.resources().find(|resource| {
                resource.addresses_before().contains(&&work.address)
                    && at.vm.thing(&resource.address).is_none()
                    && held.assignment.get(&work.address).is_none()
            }),
            (Action::Start, Some(resource)) => held.assignment.resources().find(|other| {
                let before = resource.addresses_before();
                let left = |old: &&Address| alive(old) && held.assignment.get(old).is_none();
                other.address == work.address && before.iter().any(left)
            }),
            _ => None,
        };
        let wrong = wrong.map(|resource| {
            let (generation, address) = (held.generation, &work.address);
            let before = resource.addresses_before();
            format!(
                "{action:?} of {address} under {generation}, where {} was {before:?}",
                resource.address
            )
        });
        if let Some(wrong) = wrong {
            self.broke(format!("a rename restarts nothing: {wrong}"));
        }
    }

    /// What an agent says of a resource is so, unless a stranger came in between.
    pub(super) fn check_statuses(&mut self, machine: usize, statuses: &[ResourceStatus]) {
        let at = &self.machines[machine];
        let Some(held) = &at.disk.held else { return };
        let mut wrong = Vec::new();
        for status in statuses {
            let recently = at
                .vm
                .touched
                .get(&status.address)
                .is_some_and(|touched| self.now_ms - touched < UNNOTICED_MS);
            if status.generation != held.generation || recently {
                continue;
            }
            match held.assignment.get(&status.address) {
                Some(Entry::Resource(resource))
                    if status.is(ConditionKind::Converged) && !at.vm.is_as(resource) =>
                {
                    wrong.push(format!(
                        "converged means that it is so: {} under {} is {:?}",
                        status.address,
                        status.generation,
                        at.vm.thing(&status.address)
                    ));
                }
                Some(Entry::Tombstone(_))
                    if status.gone
                        && !matches!(
                            at.vm.thing(&status.address),
                            None | Some(Thing::Foreign(_))
                        ) =>
                {
                    wrong.push(format!("gone means that it is gone: {}", status.address));
                }
                _ => {}
            }
        }
        for what in wrong {
            self.broke(what);
        }
    }

    pub(super) fn calm(&mut self) -> Result<(), ControlError> {
        if self.control.fleet.is_none() {
            self.control.start(self.wall())?;
        }
        for machine in 0..self.machines.len() {
            self.start_agent(machine);
            let lost = self.machines[machine].vm.lost();
            if !lost.is_empty() {
                self.broke(format!(
                    "what Plumb did not make is kept: {lost:?} on machine {machine}"
                ));
            }
            let left = self.machines[machine].vm.strangers_leave();
            self.tell_reconciler(machine, converge::Event::Woken(left));
            let sick: Vec<_> = self.machines[machine].vm.sick.iter().cloned().collect();
            for address in sick {
                let now = self.now_ms;
                self.machines[machine].vm.sicken(&address, false, now);
            }
        }
        Ok(())
    }

    pub(super) fn view(&self) -> Option<WorkspaceView> {
        self.control.fleet.as_ref().map(plumb_dispatch::Fleet::view)
    }

    /// Waits until everything is settled and every agent holds what is recorded.
    pub(super) fn come_to_rest(&mut self) -> Result<Option<u64>, ControlError> {
        let began = self.now_ms;
        while self.now_ms < began + self.options.rest_ms {
            self.until(self.now_ms + 500)?;
            self.control.resume(self.wall())?;
            let settled = self.view().is_some_and(|view| {
                view.owners.iter().all(is_settled)
                    && view
                        .machines
                        .iter()
                        .all(|m| m.online && m.acked == m.generation)
            });
            if settled {
                return Ok(Some(self.now_ms - began));
            }
        }
        let view = self.view();
        let why: Vec<String> = view
            .iter()
            .flat_map(|view| {
                let machines = view.machines.iter().filter_map(|m| {
                    let fine = m.online && m.acked == m.generation;
                    (!fine).then(|| {
                        format!(
                            "{} is {} and holds {} of {}: {:?}",
                            m.name,
                            m.state.as_str(),
                            m.acked,
                            m.generation,
                            m.message
                        )
                    })
                });
                let owners = view
                    .owners
                    .iter()
                    .map(|o| format!("{} is {}: {:?}", o.name, o.state.as_str(), o.message));
                machines.chain(owners).collect::<Vec<_>>()
            })
            .collect();
        self.broke(format!(
            "once the faults end everything converges: {}",
            why.join("; ")
        ));
        Ok(None)
    }

    /// At rest, the VMs are what is recorded, another plan is empty, and another reconcile does nothing.
    pub(super) fn check_rest(&mut self) -> Result<(), ControlError> {
        // A stranger's last deed may not have been noticed yet.
        self.until(self.now_ms + UNNOTICED_MS)?;
        let acts: u64 = self.machines.iter().map(|m| m.vm.acts).sum();
        self.until(self.now_ms + WATCH_MS)?;
        let after: u64 = self.machines.iter().map(|m| m.vm.acts).sum();
        if after != acts {
            self.broke(format!(
                "converge, and the next reconcile does nothing: {} actions",
                after - acts
            ));
        }
        let recorded = self.control.ledger.load()?;
        let mut wrong = Vec::new();
        for machine in &self.machines {
            let desired: BTreeMap<&Address, _> = recorded
                .releases
                .values()
                .flat_map(|body| &body.resources)
                .filter(|resource| resource.address.machine == machine.name)
                .map(|resource| (&resource.address, resource))
                .collect();
            for resource in desired.values() {
                if drives(resource.address.kind) && !machine.vm.is_as(resource) {
                    wrong.push(format!(
                        "the VM is what is recorded: {} is not",
                        resource.address
                    ));
                }
            }
            let known: BTreeSet<_> = desired.keys().copied().collect();
            for address in machine.vm.addresses().filter(|a| !known.contains(*a)) {
                wrong.push(format!("deletion is proven: {address} is still there"));
            }
            let held = machine.disk.held.as_ref().map(|h| (h.generation, h.hash));
            let ledger = recorded.state.machines.get(&machine.name).map(|m| {
                let generation = self.control.rollouts.generation(&machine.name, m);
                (generation, m.assignment)
            });
            if ledger.is_some() && held != ledger {
                wrong.push(format!(
                    "both ends agree: {} holds {held:?} of {ledger:?}",
                    machine.name
                ));
            }
        }
        for machine in &self.machines {
            for number in machine.vm.lost() {
                wrong.push(format!(
                    "what Plumb did not make is kept: {number} on {}",
                    machine.name
                ));
            }
        }
        if let Some(request) = self.control.last.clone() {
            match self.control.plan(&request)? {
                Some(Ok(planned)) if planned.plan.is_empty() => {}
                Some(Ok(planned)) => wrong.push(format!(
                    "apply a plan, and the next plan is empty: {} changes of {:?}",
                    planned.plan.changes.len(),
                    planned.plan.kind
                )),
                Some(Err(e)) => wrong.push(format!("what was planned once is planned again: {e}")),
                None => wrong.push("the control plane is up".to_owned()),
            }
        }
        for what in wrong {
            self.broke(what);
        }
        Ok(())
    }
}
