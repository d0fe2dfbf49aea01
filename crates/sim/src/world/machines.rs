//! Agents: their sessions, reconcilers, disks and drivers, carried out in virtual time.

use std::collections::BTreeSet;
use std::sync::Arc;

use plumb_converge as converge;
use plumb_dispatch::{Held, ToServer, agent as session};
use plumb_model::observation::ExitStatus;
use plumb_model::{
    Action, Address, Addresses, Assignment, Entry, Fault, Generation, Hash, Observation,
    ProbeOutcome, ProbeResult,
};

use super::{Happening, World};
use crate::bugs::Bug;

impl World {
    pub(super) fn is_now(&self, machine: usize, epoch: u64) -> bool {
        self.machines[machine]
            .running
            .as_ref()
            .is_some_and(|running| running.epoch == epoch)
    }

    pub(super) fn start_agent(&mut self, machine: usize) {
        if self.machines[machine].running.is_some() {
            return;
        }
        let seed = self.chance.draw();
        self.machines[machine].start(seed);
        self.note(&format!("agent {machine} started"));
        if let Some(held) = self.machines[machine].disk.held.clone() {
            self.adopt(machine, held);
        }
        self.reconnect(machine);
    }

    pub(super) fn crash_agent(&mut self, machine: usize) {
        let Some(running) = self.machines[machine].running.take() else {
            return;
        };
        self.count("crashes");
        self.note(&format!("agent {machine} crashed"));
        // A write that was under way is on the disk or is not.
        if let Some(held) = running.persisting
            && self.chance.percent(50)
        {
            self.write(machine, held);
        }
        if let Some(link) = self.machines[machine].link.take()
            && let Some(control) = self.links.remove(&link).map(|link| link.control)
            && self.chance.percent(80)
        {
            let wait = self.chance.between(1, 500);
            self.later(wait, Happening::ServerNotices { control, link });
        }
        let wait = self.chance.between(50, 10_000);
        self.later(wait, Happening::AgentStart { machine });
    }

    pub(super) fn write(&mut self, machine: usize, held: Held) {
        let at = &self.machines[machine];
        let name = at.name.clone();
        let key = (name.clone(), held.generation);
        let mut wrong = Vec::new();
        if !self
            .ever
            .get(&key)
            .is_some_and(|all| all.contains(&held.hash))
        {
            wrong.push(format!(
                "content for a generation is the ledger's: {name} wrote {} {:?}",
                key.1, held.hash
            ));
        }
        if held.generation <= at.highest {
            wrong.push(format!(
                "the agent's generation never goes back: {name} wrote {} after {}",
                key.1, at.highest
            ));
        }
        wrong.extend(self.untracked(machine, &held.assignment));
        for what in wrong {
            self.broke(what);
        }
        self.note(&format!("machine {machine} holds {}", held.generation));
        let machine = &mut self.machines[machine];
        machine.highest = machine.highest.max(held.generation);
        machine.disk.held = Some(held);
    }

    pub(super) fn persisted(&mut self, machine: usize, generation: Generation, well: bool) {
        let Some(running) = &mut self.machines[machine].running else {
            return;
        };
        let Some(held) = running.persisting.take() else {
            return;
        };
        if well {
            let before = self.machines[machine].disk.held.clone();
            self.write(machine, held);
            if self.options.bug == Some(Bug::TakesOlder)
                && let Some(before) = before
            {
                self.write(machine, before);
            }
            self.tell_session(machine, session::Event::Persisted { generation });
        } else {
            let message = "no space left on device".to_owned();
            let event = session::Event::PersistFailed {
                generation,
                message,
            };
            self.tell_session(machine, event);
        }
    }

    pub(super) fn tell_session(&mut self, machine: usize, event: session::Event) {
        let now = self.clocks(self.machines[machine].skew_ms);
        let Some(running) = &mut self.machines[machine].running else {
            return;
        };
        let epoch = running.epoch;
        let effects = running.session.handle(event, now);
        for effect in effects {
            match effect {
                session::Effect::Send(message) => self.say(machine, message),
                session::Effect::Persist(held) => {
                    let (generation, hash) = (held.generation, held.hash);
                    if self.options.bug == Some(Bug::AcknowledgesEarly) {
                        self.say(machine, ToServer::Ack { generation, hash });
                    }
                    if let Some(running) = &mut self.machines[machine].running
                        && running.persisting.replace(held).is_some()
                    {
                        self.broke("one write at a time".to_owned());
                    }
                    let well = !(self.stormy() && self.chance.percent(5));
                    let wait = self.chance.between(1, 60);
                    self.later(
                        wait,
                        Happening::Persisted {
                            machine,
                            epoch,
                            generation,
                            well,
                        },
                    );
                }
                session::Effect::Adopt(held) => self.adopt(machine, held),
                session::Effect::Disconnect { .. } => {
                    if let Some(link) = self.machines[machine].link {
                        self.agent_notices(link);
                    }
                }
                session::Effect::SecretsCame { values, .. } => self.secrets_came(machine, &values),
                _ => {}
            }
        }
        self.wake(machine);
    }

    pub(super) fn say(&mut self, machine: usize, message: ToServer) {
        if let ToServer::Ack { generation, hash } = &message {
            let on_disk = self.machines[machine].disk.held.as_ref();
            if on_disk.map(|h| (h.generation, h.hash)) != Some((*generation, *hash)) {
                self.broke(format!(
                    "an ack implies persisted: {generation} of machine {machine}"
                ));
            }
        }
        if let Some(link) = self.machines[machine].link {
            self.send_to_server(link, message);
        }
    }

    pub(super) fn adopt(&mut self, machine: usize, held: Held) {
        let at = &self.machines[machine];
        let missing = at.missing(&held);
        let secrets = at.missing_secrets(&held).into_values();
        let awaited: BTreeSet<Hash> = missing.iter().copied().chain(secrets).collect();
        let Some(running) = &mut self.machines[machine].running else {
            return;
        };
        let epoch = running.epoch;
        running.missing = awaited.clone();
        for digest in &missing {
            let wait = self.chance.between(5, 500);
            let digest = *digest;
            self.later(
                wait,
                Happening::Fetched {
                    machine,
                    epoch,
                    digest,
                },
            );
        }
        let assignment = match self.options.bug {
            Some(bug @ (Bug::IgnoresOrder | Bug::IgnoresRenames)) => {
                forgetful(&held.assignment, bug).into()
            }
            _ => held.assignment,
        };
        let event = converge::Event::Assigned {
            generation: held.generation,
            assignment,
            missing: awaited.into_iter().collect(),
        };
        self.tell_reconciler(machine, event);
        self.ask_for_secrets(machine);
        if self.options.bug == Some(Bug::RemovesUnasked) {
            self.remove_unasked(machine);
        }
    }

    pub(super) fn fetched(&mut self, machine: usize, epoch: u64, digest: Hash) {
        let at = &mut self.machines[machine];
        let wanted = at
            .running
            .as_ref()
            .is_some_and(|running| running.missing.contains(&digest));
        if !wanted {
            return;
        }
        if at.link.is_none() {
            let event = Happening::Fetched {
                machine,
                epoch,
                digest,
            };
            self.later(1000, event);
            return;
        }
        at.vm.blobs.insert(digest);
        if let Some(running) = &mut at.running {
            running.missing.remove(&digest);
        }
        self.tell_reconciler(machine, converge::Event::Arrived(digest));
    }

    pub(super) fn tell_reconciler(&mut self, machine: usize, event: converge::Event) {
        let clocks = self.clocks(self.machines[machine].skew_ms);
        let now = converge::Now {
            wall: clocks.wall,
            mono_ms: clocks.mono_ms,
        };
        let at = &mut self.machines[machine];
        let Some(running) = &mut at.running else {
            return;
        };
        let epoch = running.epoch;
        let effects = running.reconciler.handle(event, now);
        if running.reconciler.take_applied_moved() {
            at.disk.applied = running.reconciler.applied().clone();
        }
        for effect in effects {
            self.carry_out(machine, epoch, effect);
        }
        self.wake(machine);
    }

    /// Observations are taken, and actions done, at once; the answer takes its time, and may be old news when it comes.
    pub(super) fn carry_out(&mut self, machine: usize, epoch: u64, effect: converge::Effect) {
        let wall = self.wall(self.machines[machine].skew_ms);
        match effect {
            converge::Effect::Observe { work, .. } => {
                self.begin(machine, work.iter().map(|w| &w.address));
                if self.options.bug == Some(Bug::LooksTwice) && self.chance.percent(1) {
                    self.begin(machine, work.iter().map(|w| &w.address));
                }
                let vm = &mut self.machines[machine].vm;
                for removed in work.iter().filter(|w| w.resource.is_none()) {
                    vm.forget(&removed.address);
                }
                let seen = work
                    .iter()
                    .map(|w| (w.address.clone(), Ok(vm.look(w))))
                    .collect();
                self.answer_later(machine, epoch, converge::Event::Observed(seen));
            }
            converge::Effect::Act { work, .. } => {
                self.begin(machine, work.iter().map(|(w, _)| &w.address));
                let mut done: Vec<(Address, Action, Result<Observation, Fault>)> = Vec::new();
                for (work, action) in work {
                    self.check_order(machine, &work, &action);
                    self.check_rename(machine, &work, &action);
                    self.check_removal(machine, &work, &action);
                    self.note(&format!("{} {action:?}", work.address));
                    let result = self.machines[machine].vm.act(&work, &action, wall);
                    done.push((work.address, action, result));
                }
                if !self.machines[machine].vm.stopping().is_empty() {
                    let wait = self.chance.between(1, 1500);
                    self.later(wait, Happening::Ended { machine });
                }
                self.answer_later(machine, epoch, converge::Event::Acted(done));
            }
            converge::Effect::Probe {
                address,
                incarnation,
                ..
            } => {
                let well = !self.machines[machine].vm.sick.contains(&address);
                let result = ProbeResult {
                    at: wall,
                    outcome: if well {
                        ProbeOutcome::Passed
                    } else {
                        ProbeOutcome::Failed
                    },
                    code: None,
                    millis: 1,
                    error: (!well).then(|| "no answer".to_owned()),
                };
                let event = converge::Event::Probed {
                    address,
                    incarnation,
                    result,
                };
                self.answer_later(machine, epoch, event);
            }
            converge::Effect::Report(statuses) => {
                self.check_statuses(machine, &statuses);
                self.arrived(machine);
                self.tell_session(machine, session::Event::StatusChanged(statuses));
            }
            converge::Effect::Emit(event) => {
                self.tell_session(machine, session::Event::EventsHappened(vec![event]));
            }
        }
    }

    pub(super) fn begin<'a>(
        &mut self,
        machine: usize,
        addresses: impl Iterator<Item = &'a Address>,
    ) {
        let mut twice = Vec::new();
        if let Some(running) = &mut self.machines[machine].running {
            for address in addresses {
                if !running.busy.insert(address.clone()) {
                    twice.push(address.clone());
                }
            }
        }
        for address in twice {
            self.broke(format!("never two at once on one resource: {address}"));
        }
    }

    pub(super) fn answer_later(&mut self, machine: usize, epoch: u64, event: converge::Event) {
        let wait = self.chance.between(1, 50);
        let event = Box::new(event);
        self.later(
            wait,
            Happening::Answer {
                machine,
                epoch,
                event,
            },
        );
    }

    pub(super) fn answer(&mut self, machine: usize, event: converge::Event) {
        if let Some(running) = &mut self.machines[machine].running {
            let mut done = |address: &Address| {
                running.busy.remove(address);
            };
            match &event {
                converge::Event::Observed(all) => all.iter().for_each(|(a, _)| done(a)),
                converge::Event::Acted(all) => all.iter().for_each(|(a, ..)| done(a)),
                _ => {}
            }
        }
        self.tell_reconciler(machine, event);
    }

    pub(super) fn processes_end(&mut self, machine: usize) {
        let wall = self.wall(self.machines[machine].skew_ms);
        let ended = self.machines[machine].vm.stopping();
        for address in &ended {
            self.machines[machine]
                .vm
                .end(address, ExitStatus::Signal(15), wall);
        }
        if !ended.is_empty() {
            self.tell_reconciler(machine, converge::Event::Woken(ended));
        }
    }

    pub(super) fn wake(&mut self, machine: usize) {
        let Some(running) = &self.machines[machine].running else {
            return;
        };
        let epoch = running.epoch;
        let due = [
            running.reconciler.next_wake(),
            running.session.next_tick_ms(),
        ];
        // Neither looks at a clock on the wall.
        let Some(due) = due.into_iter().flatten().min() else {
            return;
        };
        let clock = self.clocks(self.machines[machine].skew_ms).mono_ms;
        let due = self.now_ms + due.saturating_sub(clock).max(1);
        if running.wake_ms.is_none_or(|before| due < before) {
            if let Some(running) = &mut self.machines[machine].running {
                running.wake_ms = Some(due);
            }
            self.later(due - self.now_ms, Happening::Wake { machine, epoch });
        }
    }

    /// Whether this is the wake-up that was asked for last; an earlier one has taken the place of others.
    pub(super) fn is_due(&mut self, machine: usize, epoch: u64) -> bool {
        let now = self.now_ms;
        self.machines[machine]
            .running
            .as_mut()
            .is_some_and(|r| r.epoch == epoch && r.wake_ms.take_if(|due| *due == now).is_some())
    }

    /// What an agent would do that takes away whatever it likes.
    fn remove_unasked(&mut self, machine: usize) {
        let Some(address) = self.any_address(machine) else {
            return;
        };
        let work = converge::Work {
            address,
            resource: None,
        };
        let wall = self.wall(self.machines[machine].skew_ms);
        self.check_removal(machine, &work, &Action::Remove);
        let vm = &mut self.machines[machine].vm;
        let _ = vm.act(&work, &Action::Remove, wall);
    }
}

/// What an agent with a bug makes of an assignment: one in which nothing waits for another, or was called otherwise before.
fn forgetful(assignment: &Assignment, bug: Bug) -> Assignment {
    let entries = assignment.entries().cloned().map(|entry| match entry {
        Entry::Resource(resource) => {
            let mut resource = Arc::unwrap_or_clone(resource);
            if bug == Bug::IgnoresOrder {
                resource.after = Addresses::default();
            } else {
                resource.was = None;
                resource.was_before.clear();
            }
            Entry::Resource(resource.into())
        }
        tombstone @ Entry::Tombstone(_) => tombstone,
    });
    Assignment::build(assignment.header().clone(), entries)
}
