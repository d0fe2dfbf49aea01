//! What comes after the faults: everything comes to rest as it is recorded, within a bounded time.

use std::collections::{BTreeMap, BTreeSet};

use plumb_converge as converge;
use plumb_dispatch::rollout::Order;
use plumb_dispatch::view::{OwnerView, StateWord, WorkspaceView};
use plumb_model::rollout::Phase;
use plumb_model::state::RevisionKind;
use plumb_model::{Address, ConditionKind, MachineName, Reason, Revision};
use plumb_planner::Request;

use super::{UNNOTICED_MS, WATCH_MS, World};
use crate::control::Process;
use crate::vm::drives;
use crate::workload;

/// How often is looked whether everything has come to rest, in virtual milliseconds.
const LOOK_MS: u64 = 2_000;

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
    /// Everything that is broken is mended, and operators look after the rest.
    pub(super) fn calm(&mut self) {
        for control in &mut self.controls {
            (control.paused_until, control.alone_until) = (0, 0);
            if let Some(process) = &control.process {
                process.handle.spare();
            }
        }
        // Whoever has lost the lease finds out, and somebody leads.
        self.until(self.now_ms + 25_000);
        let names: Vec<MachineName> = self.keys.removed.iter().cloned().collect();
        for name in names {
            self.enrol(&name);
        }
        for machine in 0..self.machines.len() {
            self.machines[machine].alone_until = 0;
            self.start_agent(machine);
            self.check_strangers(machine);
            let left = self.machines[machine].vm.strangers_leave();
            self.tell_reconciler(machine, converge::Event::Woken(left));
            let sick: Vec<_> = self.machines[machine].vm.sick.iter().cloned().collect();
            for address in sick {
                let now = self.now_ms;
                self.machines[machine].vm.sicken(&address, false, now);
            }
        }
        self.look_after();
    }

    /// Strangers' files that are neither where they were nor kept.
    fn check_strangers(&mut self, machine: usize) {
        let lost = self.machines[machine].vm.lost();
        if !lost.is_empty() {
            let name = self.machines[machine].name.clone();
            self.broke(format!(
                "what Plumb did not make is kept: {lost:?} on {name}"
            ));
        }
    }

    fn leading(&self) -> Option<&Process> {
        self.controls[self.leader()?].process.as_ref()
    }

    pub(super) fn view(&self) -> Option<WorkspaceView> {
        self.leading().map(|process| process.fleet.view())
    }

    /// An operator looks after what stands still.
    fn resume(&mut self) {
        let Some(control) = self.leader() else { return };
        let at = self.wall(self.controls[control].skew_ms);
        let stuck = self.leading().map(Process::stuck).unwrap_or_default();
        for owner in stuck {
            self.with(control, |p| p.order(&owner, Order::Resume, at));
        }
        if self
            .leading()
            .is_some_and(|p| p.fleet.regressed().next().is_some())
        {
            self.look_after();
        }
    }

    fn agrees(&self) -> bool {
        let up = self.machines.iter().filter(|machine| !machine.shut_out);
        let Some(process) = self.leading() else {
            return false;
        };
        let given: BTreeMap<_, _> = process
            .current
            .given()
            .map(|(name, generation, hash)| (name, (generation, hash)))
            .collect();
        process.current.rollouts.is_idle()
            && up.clone().all(|machine| {
                let held = machine.disk.held.as_ref().map(|h| (h.generation, h.hash));
                given
                    .get(&machine.name)
                    .is_none_or(|given| held == Some(*given))
            })
    }

    /// Waits until everything is settled and every agent holds what is recorded. What uses secrets is brought to their
    /// newest versions before.
    pub(super) fn come_to_rest(&mut self) -> Option<u64> {
        let began = self.now_ms;
        let mut renewed = false;
        while self.now_ms < began + self.options.rest_ms {
            self.until(self.now_ms + LOOK_MS);
            self.resume();
            if !self.agrees() {
                continue;
            }
            if !renewed && let Some(control) = self.leader() {
                renewed = true;
                let names = workload::secret_names().into();
                self.order_apply(control, Request::Secrets { names }, 10);
                continue;
            }
            let settled = self.view().is_some_and(|view| {
                view.owners.iter().all(is_settled)
                    && view
                        .machines
                        .iter()
                        .all(|m| m.online && (m.acked == m.generation || m.generation.0 == 0))
            });
            if settled {
                return Some(self.now_ms - began);
            }
        }
        let why = self.view().map(|view| unsettled(&view)).unwrap_or_default();
        self.broke(format!("once the faults end everything converges: {why}"));
        None
    }

    /// At rest, the VMs are what is recorded, another plan is empty, and another reconcile does nothing.
    pub(super) fn check_rest(&mut self) {
        // A stranger's last deed may not have been noticed yet.
        self.until(self.now_ms + UNNOTICED_MS);
        let up = |world: &Self| -> u64 {
            let up = world.machines.iter().filter(|m| !m.shut_out);
            up.map(|machine| machine.vm.acts).sum()
        };
        let acts = up(self);
        self.until(self.now_ms + WATCH_MS);
        let more = up(self) - acts;
        if more != 0 {
            self.broke(format!(
                "converge, and the next reconcile does nothing: {more} actions"
            ));
        }
        for machine in 0..self.machines.len() {
            self.check_strangers(machine);
        }
        let Some(control) = self.leader() else {
            self.broke("somebody leads".to_owned());
            return;
        };
        let wrong = match &self.controls[control].process {
            Some(process) => self.differs(process),
            None => Vec::new(),
        };
        for what in wrong {
            self.broke(what);
        }
        if let Some(view) = self.view() {
            self.check_output("the view", &format!("{view:?}"));
        }
        self.check_store();
    }

    /// How VMs, agents and the next plan differ from what is recorded.
    fn differs(&self, process: &Process) -> Vec<String> {
        let recorded = &process.current.recorded;
        let mut wrong = Vec::new();
        let mut desired: BTreeMap<&MachineName, BTreeMap<&Address, _>> = BTreeMap::new();
        for resource in recorded.releases.values().flat_map(|b| &b.resources) {
            let on = desired.entry(&resource.address.machine).or_default();
            on.insert(&resource.address, resource);
        }
        for machine in self.machines.iter().filter(|m| !m.shut_out) {
            let none = BTreeMap::new();
            let desired = desired.get(&machine.name).unwrap_or(&none);
            for resource in desired.values() {
                if drives(resource.address.kind) && !machine.vm.is_as(resource) {
                    wrong.push(format!(
                        "the VM is what is recorded: {} is not",
                        resource.address
                    ));
                }
            }
            let known: BTreeSet<_> = desired.keys().copied().collect();
            let beyond = |address: &&Address| !known.contains(*address) && !self.is_orphan(address);
            for address in machine.vm.addresses().filter(beyond) {
                wrong.push(format!("deletion is proven: {address} is still there"));
            }
        }
        let last = self.last_request(process);
        // A rollback brings back the versions of secrets that it had, so that it says no more what is recorded.
        if let Some(request) = last.filter(|request| !matches!(request, Request::Rollback { .. })) {
            match process.plan(request, &self.known_secrets()) {
                Ok(planned) if planned.plan.is_empty() => {}
                Ok(planned) => {
                    let plan = &planned.plan;
                    let first = plan.changes.first();
                    wrong.push(format!(
                        "apply a plan, and the next plan is empty: {} changes, {} owners, {} machines; {first:?}",
                        plan.changes.len(),
                        plan.owners.len(),
                        plan.machines.len(),
                    ));
                }
                Err(e) => wrong.push(format!("what was planned once is planned again: {e}")),
            }
        }
        wrong
    }
}

impl World {
    /// What the newest revision was made from. None if nobody was told of it, since its control plane died there.
    fn last_request(&self, process: &Process) -> Option<&Request> {
        let newest = process.current.recorded.state.revision.0;
        for revision in (1..=newest).rev().map(Revision) {
            let record = process.ledger.revision(revision).ok()??;
            if !matches!(
                record.kind,
                RevisionKind::Secrets { .. } | RevisionKind::Recover { .. }
            ) {
                return self.requests.get(&revision);
            }
        }
        None
    }
}

fn unsettled(view: &WorkspaceView) -> String {
    let machines = view.machines.iter().filter_map(|m| {
        let fine = m.online && (m.acked == m.generation || m.generation.0 == 0);
        let (state, message) = (m.state.as_str(), &m.message);
        (!fine).then(|| {
            let (held, given) = (m.acked, m.generation);
            format!(
                "{} is {state} and holds {held} of {given}: {message:?}",
                m.name
            )
        })
    });
    let owners = view.owners.iter().filter(|owner| !is_settled(owner));
    let owners = owners.map(|o| {
        let rollout = o.rollout.as_ref().map(|r| (r.phase, &r.waits, &r.why));
        format!(
            "{} is {}: {:?} {rollout:?}",
            o.name,
            o.state.as_str(),
            o.message
        )
    });
    machines.chain(owners).collect::<Vec<_>>().join("; ")
}
