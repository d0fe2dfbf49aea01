//! The control planes at work, and the operators who keep them busy.

use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_dispatch::fleet;
use plumb_dispatch::rollout::Order;
use plumb_model::state::Outcome;
use plumb_model::{MachineName, OwnerName, ReleaseNumber};
use plumb_planner::Request;

use super::{Happening, World};
use crate::workload;

/// So many messages may wait for one agent; past it, it is disconnected.
const OUTBOX: usize = 64;

impl World {
    pub(super) fn tell_fleet(&mut self, control: usize, event: fleet::Event) {
        let now = self.clocks(self.controls[control].skew_ms);
        let Some(process) = &mut self.controls[control].process else {
            return;
        };
        for effect in process.fleet.handle(event, now) {
            match effect {
                fleet::Effect::Send { session, message } => self.send_to_agent(session, message),
                fleet::Effect::Close { session, reason } => {
                    self.note(&format!("session {session} closed: {reason}"));
                    self.count("closed");
                    let wait = self.chance.between(1, 200);
                    self.later(wait, Happening::AgentNotices { link: session });
                }
                fleet::Effect::Outcome {
                    owner,
                    release,
                    outcome,
                } => self.outcome(control, owner, release, outcome),
                fleet::Effect::HandOver { session, secrets } => self.hand_over(session, secrets),
                _ => {}
            }
        }
        self.mind_outboxes(control);
    }

    /// An agent that does not take its messages is disconnected.
    fn mind_outboxes(&mut self, control: usize) {
        let full: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.control == control && link.waiting > OUTBOX && !link.down_cut)
            .map(|(id, _)| *id)
            .collect();
        for id in full {
            self.count("slow readers");
            self.note(&format!("link {id} reads too slowly"));
            self.cut(id, true, true);
        }
    }

    /// One step of every rollout.
    pub(super) fn roll(&mut self, control: usize) {
        let now = self.clocks(self.controls[control].skew_ms);
        let Some(Some(advanced)) = self.with(control, |process| process.roll(now)) else {
            return;
        };
        self.check_wave(control, &advanced);
        if !advanced.machines.is_empty() {
            let names: Vec<&str> = advanced.machines.keys().map(MachineName::as_str).collect();
            self.note(&format!("a wave moved {names:?}"));
            *self.counts.entry("waves").or_default() += advanced.machines.len() as u64;
            self.give(control);
            if self.stormy() && self.chance.percent(3) {
                // It dies between storing a wave and telling anybody.
                self.crash_control(control);
                return;
            }
        }
        let reverts = advanced.reverts;
        if advanced.shows || !advanced.machines.is_empty() {
            let (machines, rollouts) = (advanced.machines, advanced.rollouts);
            self.tell_fleet(control, fleet::Event::Advanced { machines, rollouts });
        }
        for revert in reverts {
            let secrets = self.known_secrets();
            let back = self.with(control, |p| p.take_back(&revert, &secrets, now.wall));
            if let Some(Some((request, done))) = back {
                self.count("reverts");
                self.note(&format!(
                    "release {} of {} is taken back",
                    revert.release, revert.owner
                ));
                self.recorded(control, Some(request), done);
            }
        }
    }

    pub(super) fn outcome(
        &mut self,
        control: usize,
        owner: OwnerName,
        release: ReleaseNumber,
        outcome: Outcome,
    ) {
        // Whoever leads no more notes nothing.
        let stored = self.with(control, |process| {
            Ok(process.ledger.set_outcome(&owner, release, outcome)?)
        });
        if stored.is_none() {
            return;
        }
        self.note(&format!("{owner} {release} {outcome:?}"));
        let before = self.outcomes.get(&(owner.clone(), release)).copied();
        let fine = match before {
            None | Some(Outcome::Converging) => true,
            Some(Outcome::Failed) => outcome != Outcome::Converging,
            Some(done) => outcome == done,
        };
        if !fine {
            self.broke(format!(
                "an outcome is never taken back: release {release} of {owner} was {before:?} and became {outcome:?}"
            ));
        }
        self.outcomes.insert((owner, release), outcome);
    }

    /// Any control plane that believes that it leads.
    fn any_leader(&mut self) -> Option<usize> {
        let up: Vec<usize> = (0..self.controls.len())
            .filter(|control| self.controls[*control].process.is_some())
            .collect();
        self.chance.pick(&up).copied()
    }

    pub(super) fn operate(&mut self) {
        if !self.storming() {
            return;
        }
        let wait = self.chance.between(1500, 12_000);
        self.later(wait, Happening::Operate);
        // Now and then two operators plan against the same base.
        let operators = if self.chance.percent(15) { 2 } else { 1 };
        for _ in 0..operators {
            let Some(control) = self.any_leader() else {
                return;
            };
            match self.chance.between(0, 100) {
                0..12 => self.order(control),
                _ => {
                    let request = self.request();
                    let think = self.chance.between(10, 1500);
                    self.order_apply(control, request, think);
                }
            }
        }
    }

    /// Plans, and applies what came of it after a while.
    pub(super) fn order_apply(&mut self, control: usize, request: Request, think: u64) {
        let secrets = self.known_secrets();
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let base = process.current.recorded.state.revision;
        match process.plan(&request, &secrets) {
            Ok(planned) if planned.plan.is_empty() => {}
            Ok(planned) => {
                let shown = format!("{:?}", planned.plan.owners);
                self.check_output("a plan", &shown);
                let apply = Happening::Apply {
                    control,
                    request: Box::new(request),
                    approved: (base, planned.plan.approval),
                };
                self.later(think, apply);
            }
            // An old release may claim what others hold by now.
            Err(_) if matches!(request, Request::Rollback { .. }) => {}
            Err(e) => self.broke(format!("valid blueprints were not planned: {e}")),
        }
    }

    /// An operator pauses, resumes or aborts a rollout.
    fn order(&mut self, control: usize) {
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let records = process.current.rollouts.records();
        let owners: Vec<OwnerName> = records.map(|record| record.owner.clone()).collect();
        let Some(owner) = self.chance.pick(&owners).cloned() else {
            return;
        };
        let order = match self.chance.between(0, 3) {
            0 => Order::Pause,
            1 => Order::Resume,
            _ => Order::Abort,
        };
        let at = self.wall(self.controls[control].skew_ms);
        if self.with(control, |p| p.order(&owner, order, at)) == Some(true) {
            self.count("orders");
            self.note(&format!("{order:?} of {owner}"));
        }
    }

    pub(super) fn request(&mut self) -> Request {
        let roll = self.chance.between(0, 100);
        if roll < 4 {
            return Request::Destroy;
        }
        if roll < 14 {
            let names = workload::secret_names();
            let name = self.chance.pick(&names).cloned();
            if let Some(name) = name {
                self.rotate(&name);
                let names = BTreeSet::from([name]);
                return Request::Secrets { names };
            }
        }
        if roll < 30 {
            let bodies: Vec<_> = self.bodies.iter().collect();
            if let Some(((owner, release), (_, body))) = self.chance.pick(&bodies) {
                let body = Arc::clone(body);
                return Request::Rollback {
                    owner: (*owner).clone(),
                    to: *release,
                    body,
                };
            }
        }
        self.blueprints()
    }

    /// Blueprints of a workspace without the machines that were removed.
    pub(super) fn blueprints(&mut self) -> Request {
        let mut machines = workload::machines(self.options.machines);
        machines.retain(|name| !self.keys.removed.contains(name));
        let (mut blueprint, sources) = workload::blueprints(&mut self.chance, &machines);
        let leader = self
            .leader()
            .and_then(|at| self.controls[at].process.as_ref());
        let recorded = leader.map(|process| process.current.recorded.state.owners.keys());
        let names = recorded.into_iter().flatten().cloned().collect();
        workload::rename(&mut self.chance, &mut blueprint, &names);
        workload::volumes(&mut self.chance, &mut blueprint, &machines);
        workload::secrets(&mut self.chance, &mut blueprint);
        workload::reverts(&mut self.chance, &mut blueprint);
        Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        }
    }
}
