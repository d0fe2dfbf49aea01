//! Who was heard under the identity of each machine of a workspace, and who is ordered to take another key.
//!
//! It is kept in memory only: after a restart of the control plane it fills again as agents connect. It never decides
//! whether two agents are one machine: the fleet does. Called by the agents' service and by `machines`.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use plumb_model::{MachineName, Timestamp};
use tokio::sync::watch;

/// So many instances of one machine are remembered: two that fight over an identity need two, and a person who looks
/// wants to see the restarts around them.
const KEPT: usize = 4;

/// One run of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it was named when it started.
    pub instance: String,
    /// Where it connected from.
    pub from: Option<SocketAddr>,
    /// When it last connected.
    pub at: Timestamp,
}

/// An order to one agent to take another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Which agent.
    pub instance: String,
    /// What proves that it was the one that was told.
    pub code: String,
}

/// The agents of one workspace.
#[derive(Debug)]
pub struct Roster {
    heard: Mutex<BTreeMap<MachineName, VecDeque<Seen>>>,
    orders: Mutex<BTreeMap<MachineName, Order>>,
    /// Moves whenever a machine's identity is replaced or removed.
    moved: watch::Sender<u64>,
}

impl Default for Roster {
    fn default() -> Self {
        Self {
            heard: Mutex::default(),
            orders: Mutex::default(),
            moved: watch::Sender::new(0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Roster {
    /// Notes that an agent has said hello.
    pub fn note(&self, machine: &MachineName, seen: Seen) {
        let mut heard = lock(&self.heard);
        let instances = heard.entry(machine.clone()).or_default();
        instances.retain(|known| known.instance != seen.instance);
        instances.push_back(seen);
        if instances.len() > KEPT {
            instances.pop_front();
        }
        instances.shrink_to_fit();
    }

    /// The agents that were heard under a machine's identity, the newest last.
    #[must_use]
    pub fn heard(&self, machine: &MachineName) -> Vec<Seen> {
        let heard = lock(&self.heard);
        heard.get(machine).into_iter().flatten().cloned().collect()
    }

    /// Orders an agent to take another key, in place of any order before.
    pub fn order(&self, machine: &MachineName, order: Order) {
        lock(&self.orders).insert(machine.clone(), order);
    }

    /// The order for a machine, if there is one.
    #[must_use]
    pub fn ordered(&self, machine: &MachineName) -> Option<Order> {
        lock(&self.orders).get(machine).cloned()
    }

    /// The identity of a machine was replaced or removed: what was heard and ordered under it counts no more, and whoever
    /// holds a stream of it open looks again.
    pub fn forget(&self, machine: &MachineName) {
        lock(&self.heard).remove(machine);
        lock(&self.orders).remove(machine);
        self.moved
            .send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Moves whenever a machine's identity is replaced or removed.
    #[must_use]
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(instance: usize) -> Seen {
        Seen {
            instance: format!("i{instance}"),
            from: None,
            at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_newest_instances_are_remembered_each_once() {
        let roster = Roster::default();
        let machine = MachineName::new("web-1").unwrap();
        for number in [1, 2, 1, 2, 1, 3, 4, 5] {
            roster.note(&machine, seen(number));
        }
        let names: Vec<_> = roster
            .heard(&machine)
            .into_iter()
            .map(|s| s.instance)
            .collect();
        assert_eq!(names, ["i1", "i3", "i4", "i5"]);
        let mut moves = roster.moves();
        let order = Order {
            instance: "i5".into(),
            code: "c".into(),
        };
        roster.order(&machine, order.clone());
        assert_eq!(roster.ordered(&machine), Some(order));
        roster.forget(&machine);
        assert!(roster.heard(&machine).is_empty() && roster.ordered(&machine).is_none());
        assert!(moves.has_changed().unwrap());
        moves.mark_unchanged();
    }
}
