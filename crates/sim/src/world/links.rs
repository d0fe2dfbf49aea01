//! Links: ordered in each direction, slow at times, cut in one direction or both, and noticed late.

use plumb_dispatch::{ToAgent, ToServer, agent as session, fleet};

use super::{Happening, Link, World};
use crate::bugs::Bug;

impl World {
    pub(super) fn connect(&mut self, machine: usize, epoch: u64) {
        if !self.is_now(machine, epoch) || self.machines[machine].link.is_some() {
            return;
        }
        if self.machines[machine].shut_out && self.options.bug != Some(Bug::AnyKey) {
            // Nobody lets it in any more, however often it asks.
            return;
        }
        // It knows all of them, and tries one after the other.
        let count = self.controls.len() as u64;
        let control = usize::try_from(self.chance.between(0, count)).unwrap_or(0);
        let at = &self.controls[control];
        let reached = at.process.is_some()
            && at.paused_until <= self.now_ms
            && at.alone_until <= self.now_ms
            && self.machines[machine].alone_until <= self.now_ms;
        if !reached || !self.is_let_in(machine, control) {
            self.reconnect(machine);
            return;
        }
        let link = self.next_link;
        self.next_link += 1;
        self.links.insert(
            link,
            Link {
                machine,
                control,
                up_cut: false,
                down_cut: false,
                up_last: self.now_ms,
                down_last: self.now_ms,
                noisy: false,
                slow: false,
                waiting: 0,
            },
        );
        self.machines[machine].link = Some(link);
        let instance = format!("{machine}-{epoch}");
        self.tell_session(machine, session::Event::Connected { instance });
    }

    pub(super) fn reconnect(&mut self, machine: usize) {
        let wait = self.chance.between(100, 4000);
        if let Some(running) = &self.machines[machine].running {
            let epoch = running.epoch;
            self.later(wait, Happening::Connect { machine, epoch });
        }
    }

    fn latency(&mut self) -> u64 {
        if self.stormy() && self.chance.percent(5) {
            self.chance.between(100, 5000)
        } else {
            self.chance.between(1, 40)
        }
    }

    /// When a message arrives on a link that is in order, or each time that it does on one that is not.
    fn arrivals(&mut self, noisy: bool, last: u64) -> (Vec<u64>, u64) {
        if noisy {
            let times = match self.chance.between(0, 100) {
                0..20 => 0,
                20..45 => 2,
                _ => 1,
            };
            let all = (0..times).map(|_| self.chance.between(1, 3000)).collect();
            return (all, last);
        }
        let last = last.max(self.now_ms + self.latency());
        (vec![last - self.now_ms], last)
    }

    pub(super) fn send_to_agent(&mut self, id: u64, message: ToAgent) {
        let Some(link) = self.links.get(&id).filter(|link| !link.down_cut) else {
            return;
        };
        let (noisy, slow, last) = (link.noisy, link.slow, link.down_last);
        let last = last + if slow { 1000 } else { 0 };
        let (arrivals, last) = self.arrivals(noisy, last);
        if let Some(link) = self.links.get_mut(&id) {
            link.down_last = last;
            link.waiting += arrivals.len();
        }
        for wait in arrivals {
            let message = Box::new(message.clone());
            self.later(wait, Happening::ToAgent { link: id, message });
        }
    }

    pub(super) fn send_to_server(&mut self, id: u64, message: ToServer) {
        let Some(link) = self.links.get(&id).filter(|link| !link.up_cut) else {
            return;
        };
        // A stream begins with its hello, whatever becomes of the rest.
        let noisy = link.noisy && !matches!(message, ToServer::Hello(_));
        let last = link.up_last;
        let (arrivals, last) = self.arrivals(noisy, last);
        if let Some(link) = self.links.get_mut(&id) {
            link.up_last = last;
        }
        for wait in arrivals {
            let message = Box::new(message.clone());
            self.later(wait, Happening::ToServer { link: id, message });
        }
    }

    pub(super) fn deliver_to_agent(&mut self, id: u64, message: ToAgent) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.waiting = link.waiting.saturating_sub(1);
        if link.down_cut {
            return;
        }
        let machine = link.machine;
        if self.machines[machine].link != Some(id) {
            return;
        }
        let greeted = matches!(message, ToAgent::Welcome { .. });
        self.tell_session(machine, session::Event::Received(message));
        if greeted {
            self.ask_for_secrets(machine);
        }
    }

    pub(super) fn deliver_to_server(&mut self, id: u64, message: ToServer) {
        let Some(link) = self.links.get(&id).filter(|link| !link.up_cut) else {
            return;
        };
        let (control, machine) = (link.control, link.machine);
        let event = match message {
            ToServer::Hello(_) if !self.is_let_in(machine, control) => return,
            ToServer::Hello(hello) => fleet::Event::Connected {
                session: id,
                machine: self.machines[machine].name.clone(),
                hello,
            },
            message => fleet::Event::Message {
                session: id,
                message,
            },
        };
        self.tell_fleet(control, event);
    }

    /// Cuts a link in one direction or both.
    pub(super) fn cut_somehow(&mut self, id: u64) {
        match self.chance.between(0, 3) {
            0 => self.cut(id, true, false),
            1 => self.cut(id, false, true),
            _ => self.cut(id, true, true),
        }
    }

    /// What was under way is lost, and each end notices in its own time.
    pub(super) fn cut(&mut self, id: u64, up: bool, down: bool) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.up_cut |= up;
        link.down_cut |= down;
        let control = link.control;
        self.count("cuts");
        self.note(&format!("link {id} cut"));
        let wait = self.chance.between(10, 20_000);
        self.later(wait, Happening::AgentNotices { link: id });
        if self.chance.percent(60) {
            let wait = self.chance.between(10, 20_000);
            self.later(wait, Happening::ServerNotices { control, link: id });
        }
    }

    pub(super) fn agent_notices(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        let (machine, control) = (link.machine, link.control);
        if self.chance.percent(70) {
            let wait = self.chance.between(1, 2000);
            self.later(wait, Happening::ServerNotices { control, link: id });
        }
        if self.machines[machine].link == Some(id) {
            self.machines[machine].link = None;
            self.tell_session(machine, session::Event::Disconnected);
            self.reconnect(machine);
        }
    }
}
