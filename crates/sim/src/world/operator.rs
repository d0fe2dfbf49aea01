//! The control plane at work, and the operator who keeps it busy.

use std::sync::Arc;

use plumb_dispatch::fleet;
use plumb_model::state::Outcome;
use plumb_model::{OwnerName, ReleaseNumber};
use plumb_planner::{Planned, Request};

use super::{Happening, World};
use crate::control::ControlError;
use crate::workload;

impl World {
    pub(super) fn tell_fleet(&mut self, event: fleet::Event) {
        let now = self.session_now();
        let Some(fleet) = &mut self.control.fleet else {
            return;
        };
        for effect in fleet.handle(event, now) {
            match effect {
                fleet::Effect::Send { session, message } => self.send_to_agent(session, message),
                fleet::Effect::Close { session, .. } => {
                    let wait = self.chance.between(1, 200);
                    self.later(wait, Happening::AgentNotices { link: session });
                }
                fleet::Effect::Outcome {
                    owner,
                    release,
                    outcome,
                } => self.outcome(owner, release, outcome),
                fleet::Effect::Events { .. }
                | fleet::Effect::LogsFailed { .. }
                | fleet::Effect::HandOver { .. }
                | fleet::Effect::Changed => {}
            }
        }
    }

    /// One step of every rollout.
    pub(super) fn roll(&mut self) -> Result<(), ControlError> {
        if let Some((machines, rollouts)) = self.control.roll(self.session_now())? {
            for name in machines.keys() {
                self.note(&format!("a wave moved {name}"));
            }
            if self.storming() && !machines.is_empty() && self.chance.percent(5) {
                // It dies between storing a wave and telling anybody.
                self.crash_server();
                return Ok(());
            }
            self.waves += machines.len() as u64;
            self.tell_fleet(fleet::Event::Advanced { machines, rollouts });
        }
        Ok(())
    }

    pub(super) fn outcome(&mut self, owner: OwnerName, release: ReleaseNumber, outcome: Outcome) {
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
        // The one write that may be lost with the process, as the ledger does not hold back the fleet for it.
        if let Err(e) = self.control.ledger.set_outcome(&owner, release, outcome) {
            self.broke(format!("the outcome of {owner} was not stored: {e}"));
        }
        self.outcomes.insert((owner, release), outcome);
    }

    pub(super) fn operate(&mut self) -> Result<(), ControlError> {
        if !self.storming() {
            return Ok(());
        }
        let wait = self.chance.between(2000, 15_000);
        self.later(wait, Happening::Operate);
        // Now and then two operators plan against the same base.
        let operators = if self.chance.percent(20) { 2 } else { 1 };
        for _ in 0..operators {
            let request = self.request();
            let Some(planned) = self.control.plan(&request)? else {
                continue;
            };
            match planned {
                Ok(planned) if planned.plan.is_empty() => {}
                Ok(planned) => {
                    let think = self.chance.between(10, 1500);
                    let (request, planned) = (Box::new(request), Box::new(planned));
                    self.later(think, Happening::Apply { request, planned });
                }
                // An old release may claim what others hold by now.
                Err(_) if matches!(request, Request::Rollback { .. }) => {}
                Err(e) => self.broke(format!("valid blueprints were not planned: {e}")),
            }
        }
        Ok(())
    }

    pub(super) fn request(&mut self) -> Request {
        let roll = self.chance.between(0, 100);
        if roll < 5 {
            return Request::Destroy;
        }
        if roll < 25 {
            let bodies: Vec<_> = self.control.bodies.iter().collect();
            if let Some(((owner, release), body)) = self.chance.pick(&bodies) {
                return Request::Rollback {
                    owner: (*owner).clone(),
                    to: *release,
                    body: Arc::clone(body),
                };
            }
        }
        let machines = workload::machines(self.options.machines);
        let (mut blueprint, sources) = workload::blueprints(&mut self.chance, &machines);
        let recorded = self.control.ledger.load().map(|r| r.state.owners);
        let names = recorded.unwrap_or_default().into_keys().collect();
        workload::rename(&mut self.chance, &mut blueprint, &names);
        workload::volumes(&mut self.chance, &mut blueprint, &machines);
        Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        }
    }

    pub(super) fn apply(
        &mut self,
        request: Request,
        planned: &Planned,
    ) -> Result<(), ControlError> {
        if self.control.fleet.is_none() {
            return Ok(());
        }
        let wall = self.wall();
        if !self.control.apply(request, planned, wall)? {
            self.conflicts += 1;
            return Ok(());
        }
        self.note(&format!("recorded {}", planned.next.state.revision));
        if self.storming() && self.chance.percent(5) {
            // It dies between recording and telling anybody.
            self.crash_server();
            return Ok(());
        }
        let recorded = self.control.ledger.load()?;
        let recording = self.control.recording(&recorded)?;
        self.tell_fleet(fleet::Event::Recorded(recording));
        Ok(())
    }

    pub(super) fn crash_server(&mut self) {
        if self.control.fleet.take().is_none() {
            return;
        }
        self.crashes += 1;
        self.note("server crashed");
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            if let Some(link) = self.links.get_mut(&link) {
                (link.up_cut, link.down_cut) = (true, true);
            }
            let wait = self.chance.between(1, 3000);
            self.later(wait, Happening::AgentNotices { link });
        }
        let wait = self.chance.between(200, 20_000);
        self.later(wait, Happening::ServerStart);
    }
}
