//! Which control plane works: one has a lease and renews it; whoever sees it run out takes over.
//!
//! The lease only saves work. What holds when two believe that they have it (one stood still for a minute, or another was
//! impatient) is the ledger's lead and the agents' fence, and that is what is looked at here.

use plumb_dispatch::fleet;
use plumb_ledger::Ledger;
use plumb_model::Revision;

use super::{Happening, World};
use crate::control::{Applied, ControlError, Done, Process, lineage};
use crate::store::Side;
use crate::workload;

/// A lease that was not renewed for so long is anybody's.
const LEASE_MS: u64 = 12_000;

impl World {
    pub(super) fn tick_later(&mut self, control: usize) {
        self.later(fleet::TICK_MS, Happening::Tick { control });
    }

    pub(super) fn tick(&mut self, control: usize) {
        self.tick_later(control);
        let holds = self.lease.is_some_and(|(holder, _)| holder == control);
        if self.controls[control].process.is_none() {
            let run_out = self
                .lease
                .is_none_or(|(_, renewed)| self.now_ms.saturating_sub(renewed) > LEASE_MS);
            let impatient = self.stormy() && self.chance.draw().is_multiple_of(400);
            if !self.controls[control].down && (run_out || impatient) {
                self.take_over(control);
            }
            return;
        }
        // Whoever has lost the lease does not look at once.
        if !holds && (!self.storming() || self.chance.percent(10)) {
            self.step_down(control);
            return;
        }
        if holds {
            self.lease = Some((control, self.now_ms));
        }
        self.tell_fleet(control, fleet::Event::Tick);
        self.roll(control);
    }

    /// The control plane that operators talk to: who has the lease, or else anybody.
    pub(super) fn leader(&self) -> Option<usize> {
        let up = |control: &usize| {
            let control = &self.controls[*control];
            control.process.is_some() && control.paused_until <= self.now_ms
        };
        let holder = self.lease.map(|(holder, _)| holder).filter(up);
        holder.or_else(|| (0..self.controls.len()).find(up))
    }

    pub(super) fn take_over(&mut self, control: usize) {
        let now = self.clocks(self.controls[control].skew_ms);
        let handle = self.shared.handle();
        if self.stormy() && self.chance.percent(10) {
            let (writes, side) = (self.chance.between(0, 4), self.side());
            handle.light(writes, side);
        }
        if let Some((at, side)) = self.options.dies_at.filter(|_| self.runs == 0) {
            handle.light(at, side);
        }
        self.runs += 1;
        let holder = format!("run {}", self.runs);
        let started = Process::start(
            handle.clone(),
            &holder,
            &self.keys.removed,
            now,
            self.options.bug,
        );
        match started {
            Ok(process) => {
                self.lease = Some((control, self.now_ms));
                self.controls[control].process = Some(process);
                self.controls[control].keys = self.keys.clone();
                self.note(&format!("control plane {control} leads"));
                self.count("leads");
                self.check_acknowledged(control);
                self.give(control);
            }
            Err(_) if handle.is_blown() => {
                self.lease = None;
                self.controls[control].down = true;
                self.died(control);
            }
            Err(error) => self.broke(format!(
                "a control plane starts from what is stored: {error}"
            )),
        }
    }

    pub(super) fn side(&mut self) -> Side {
        match self.chance.percent(50) {
            true => Side::Before,
            false => Side::After,
        }
    }

    /// Has a control plane's process do something. None if there is none, if it died of it, or found that another leads.
    pub(super) fn with<T>(
        &mut self,
        control: usize,
        act: impl FnOnce(&mut Process) -> Result<T, ControlError>,
    ) -> Option<T> {
        let process = self.controls[control].process.as_mut()?;
        let done = act(process);
        if process.handle.is_blown() {
            self.crash_control(control);
            return None;
        }
        match done {
            Ok(done) => Some(done),
            Err(error) if error.is_superseded() => {
                self.count("fenced");
                self.note(&format!("control plane {control} was fenced"));
                self.step_down(control);
                None
            }
            Err(error) => {
                self.broke(format!("control plane {control} goes on: {error}"));
                self.crash_control(control);
                None
            }
        }
    }

    /// It has seen that it leads no more, and closes its sessions.
    pub(super) fn step_down(&mut self, control: usize) {
        if self.controls[control].process.take().is_some() {
            self.note(&format!("control plane {control} steps down"));
            self.drop_links(control, 500);
        }
    }

    pub(super) fn crash_control(&mut self, control: usize) {
        if self.controls[control].process.take().is_none() {
            return;
        }
        self.died(control);
        self.drop_links(control, 3000);
    }

    fn died(&mut self, control: usize) {
        self.shared.writer_died();
        self.count("crashes");
        self.note(&format!("control plane {control} died"));
        self.controls[control].down = true;
        let wait = self.chance.between(200, 20_000);
        self.later(wait, Happening::Up { control });
    }

    /// Its connections are gone, and agents notice within so many milliseconds.
    fn drop_links(&mut self, control: usize, within_ms: u64) {
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.control == control)
            .map(|(id, _)| *id)
            .collect();
        for id in links {
            if let Some(link) = self.links.get_mut(&id) {
                (link.up_cut, link.down_cut) = (true, true);
            }
            let wait = self.chance.between(1, within_ms);
            self.later(wait, Happening::AgentNotices { link: id });
        }
    }

    /// It stands still, and everything that comes for it waits. Agents see for a while that nothing comes back.
    pub(super) fn pause(&mut self, control: usize, for_ms: u64) {
        if self.controls[control].process.is_none() {
            return;
        }
        self.count("pauses");
        self.note(&format!(
            "control plane {control} stands still for {for_ms} ms"
        ));
        self.controls[control].paused_until = self.now_ms + for_ms;
        let links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.control == control)
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            // Some are kept alive by something in between.
            if self.chance.percent(85) {
                let wait = self.chance.between(10_000, 40_000);
                self.later(wait, Happening::AgentNotices { link });
            }
        }
    }

    /// What somebody was told is recorded is there after every start.
    fn check_acknowledged(&mut self, control: usize) {
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let mut lost = Vec::new();
        for (revision, state) in &self.acknowledged {
            let record = process.ledger.revision(*revision);
            if !matches!(&record, Ok(Some(record)) if record.state == *state) {
                lost.push(*revision);
            }
        }
        for revision in lost {
            self.broke(format!(
                "acknowledged means durable: revision {revision} is not what was acknowledged"
            ));
        }
    }

    /// Notes which generation stands for what, by what a control plane has just stored or read.
    pub(super) fn give(&mut self, control: usize) {
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let mut twice = Vec::new();
        for (name, generation, hash) in process.current.given() {
            let key = (name.clone(), generation);
            match self.given.get(&key) {
                Some(before) if *before == hash => continue,
                Some(_) => twice.push(key.clone()),
                None => {}
            }
            self.given.insert(key.clone(), hash);
            self.ever.entry(key).or_default().insert(hash);
        }
        for assignment in process.current.assignments.values() {
            for entry in assignment.entries() {
                if !self.owned.contains(entry.address()) {
                    self.owned.insert(entry.address().clone());
                }
            }
        }
        for (name, generation) in twice {
            self.broke(format!(
                "a generation is given once: {generation} of {name} has two contents"
            ));
        }
    }

    /// A control plane has recorded a revision, and says so.
    pub(super) fn recorded(
        &mut self,
        control: usize,
        request: Option<plumb_planner::Request>,
        done: Done,
    ) {
        let Done {
            revision,
            state,
            released,
            recording,
        } = done;
        self.note(&format!("control plane {control} recorded {revision}"));
        self.count("revisions");
        if self.acknowledged.insert(revision, state).is_some() {
            self.broke(format!(
                "acknowledged means durable: {revision} was acknowledged twice"
            ));
        }
        if let Some(request) = request {
            self.requests.insert(revision, request);
        }
        for (key, body) in released {
            self.bodies.insert(key, (revision, body));
        }
        self.give(control);
        self.forget_transit(control);
        if self.stormy() && self.chance.percent(5) {
            // It dies between recording and telling anybody.
            self.crash_control(control);
            return;
        }
        self.tell_fleet(control, fleet::Event::Recorded(recording));
    }

    pub(super) fn apply(
        &mut self,
        control: usize,
        request: plumb_planner::Request,
        approved: (Revision, plumb_model::Hash),
    ) {
        let (secrets, at) = (
            self.known_secrets(),
            self.wall(self.controls[control].skew_ms),
        );
        let applied = self.with(control, |process| {
            process.apply(&request, approved, &secrets, at)
        });
        match applied {
            None => self.count("unanswered"),
            Some(Applied::Recorded(done)) => self.recorded(control, Some(request), *done),
            Some(Applied::Moved) => {
                self.count("conflicts");
                // Most people look at what it would be now, and say yes to that.
                if self.storming()
                    && self.chance.percent(70)
                    && let Some(control) = self.leader()
                {
                    let think = self.chance.between(10, 1500);
                    self.order_apply(control, request, think);
                }
            }
            Some(Applied::Refused(why)) => {
                self.count("refused");
                self.note(&format!("refused: {why}"));
            }
            Some(Applied::Empty) => {}
        }
    }

    /// An older copy of the store is put back, as after its disk was lost. Everything is started anew.
    pub(super) fn restore(&mut self) {
        let Some(backup) = self.backup.take() else {
            return;
        };
        for control in 0..self.controls.len() {
            self.controls[control].paused_until = 0;
            self.crash_control(control);
        }
        self.shared.restore(&backup);
        self.lease = None;
        let ledger = Ledger::open(self.shared.handle(), lineage(), workload::workspace());
        let head = ledger.head().ok().flatten();
        let head = head.map_or(Revision(0), |head| head.revision);
        self.note(&format!("restored to {head}"));
        self.count("restores");
        self.acknowledged.retain(|revision, _| *revision <= head);
        self.requests.retain(|revision, _| *revision <= head);
        self.bodies.retain(|_, (revision, _)| *revision <= head);
        self.outcomes.clear();
        for (owner, _) in self.bodies.keys() {
            for (release, outcome) in ledger.outcomes(owner).unwrap_or_default() {
                self.outcomes.insert((owner.clone(), release), outcome);
            }
        }
        self.given.clear();
        self.orphans.clone_from(&self.owned);
        self.transit.clear();
        let wait = self.chance.between(5_000, 15_000);
        self.later(wait, Happening::LookAfter);
    }
}
