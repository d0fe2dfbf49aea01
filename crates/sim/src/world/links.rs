//! Links: ordered in each direction, slow at times, cut in one direction or both, and noticed late.

use plumb_dispatch::{ToAgent, ToServer, agent as session, fleet};

use super::{Happening, Link, World};

impl World {
    pub(super) fn connect(&mut self, machine: usize, epoch: u64) {
        if !self.is_now(machine, epoch) || self.machines[machine].link.is_some() {
            return;
        }
        if self.control.fleet.is_none() {
            self.reconnect(machine);
            return;
        }
        let link = self.next_link;
        self.next_link += 1;
        self.links.insert(
            link,
            Link {
                machine,
                up_cut: false,
                down_cut: false,
                up_last: self.now_ms,
                down_last: self.now_ms,
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

    pub(super) fn latency(&mut self) -> u64 {
        if self.storming() && self.chance.percent(5) {
            self.chance.between(100, 5000)
        } else {
            self.chance.between(1, 40)
        }
    }

    pub(super) fn send_to_agent(&mut self, id: u64, message: ToAgent) {
        let latency = self.latency();
        let now = self.now_ms;
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.down_cut) else {
            return;
        };
        link.down_last = link.down_last.max(now + latency);
        let wait = link.down_last - now;
        let message = Box::new(message);
        self.later(wait, Happening::ToAgent { link: id, message });
    }

    pub(super) fn send_to_server(&mut self, id: u64, message: ToServer) {
        let latency = self.latency();
        let now = self.now_ms;
        let Some(link) = self.links.get_mut(&id).filter(|link| !link.up_cut) else {
            return;
        };
        link.up_last = link.up_last.max(now + latency);
        let wait = link.up_last - now;
        let message = Box::new(message);
        self.later(wait, Happening::ToServer { link: id, message });
    }

    pub(super) fn deliver_to_agent(&mut self, id: u64, message: ToAgent) {
        let Some(link) = self.links.get(&id).filter(|link| !link.down_cut) else {
            return;
        };
        let machine = link.machine;
        if self.machines[machine].link == Some(id) {
            self.tell_session(machine, session::Event::Received(message));
        }
    }

    pub(super) fn deliver_to_server(&mut self, id: u64, message: ToServer) {
        let Some(link) = self.links.get(&id).filter(|link| !link.up_cut) else {
            return;
        };
        let machine = self.machines[link.machine].name.clone();
        let event = match message {
            ToServer::Hello(hello) => fleet::Event::Connected {
                session: id,
                machine,
                hello,
            },
            message => fleet::Event::Message {
                session: id,
                message,
            },
        };
        self.tell_fleet(event);
    }

    /// Cuts a link in one direction or both; what was under way is lost, and each end notices in its own time.
    pub(super) fn cut(&mut self, id: u64) {
        let (up, down) = match self.chance.between(0, 3) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.up_cut |= up;
        link.down_cut |= down;
        self.cuts += 1;
        self.note(&format!("link {id} cut"));
        let wait = self.chance.between(10, 20_000);
        self.later(wait, Happening::AgentNotices { link: id });
        if self.chance.percent(60) {
            let wait = self.chance.between(10, 20_000);
            self.later(wait, Happening::ServerNotices { link: id });
        }
    }

    pub(super) fn agent_notices(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        let machine = link.machine;
        if self.control.fleet.is_some() && self.chance.percent(70) {
            let wait = self.chance.between(1, 2000);
            self.later(wait, Happening::ServerNotices { link: id });
        }
        if self.machines[machine].link == Some(id) {
            self.machines[machine].link = None;
            self.tell_session(machine, session::Event::Disconnected);
            self.reconnect(machine);
        }
    }
}
