//! What the agents of one process have seen, since they were started and since the last mark. Times are of the system's
//! monotonic clock, so that another process can compare them with its own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Milliseconds of the monotonic clock.
pub fn now_ms() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 * 1e3 + now.tv_nsec as f64 / 1e6
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Figures {
    online: AtomicU64,
    welcomed: AtomicU64,
    lost: AtomicU64,
    syncs: AtomicU64,
    refused: AtomicU64,
    /// Statuses a second of one agent, as the bits of a float.
    chatter: AtomicU64,
    since: Mutex<Since>,
}

/// What happened since the mark.
#[derive(Debug, Default)]
struct Since {
    welcomed: Vec<f64>,
    received: Vec<f64>,
    durable: Vec<f64>,
    ordered: Vec<f64>,
    warnings: BTreeMap<String, Vec<f64>>,
}

impl Figures {
    fn since(&self, note: impl FnOnce(&mut Since)) {
        note(&mut self.since.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets what has happened so far.
    pub fn mark(&self) {
        self.since(|since| *since = Since::default());
    }

    /// An agent was welcomed.
    pub fn welcomed(&self) {
        self.online.fetch_add(1, Ordering::Relaxed);
        self.welcomed.fetch_add(1, Ordering::Relaxed);
        self.since(|since| since.welcomed.push(now_ms()));
    }

    /// An agent that was welcomed has lost its stream.
    pub fn lost(&self) {
        self.online.fetch_sub(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// An assignment has come.
    pub fn received(&self) {
        self.since(|since| since.received.push(now_ms()));
    }

    /// An assignment is on the disk.
    pub fn durable(&self) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.since(|since| since.durable.push(now_ms()));
    }

    /// Orders by hand have come.
    pub fn ordered(&self) {
        self.since(|since| since.ordered.push(now_ms()));
    }

    /// An assignment was not taken, or could not be stored.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// An agent has complained.
    pub fn warned(&self, what: String) {
        self.since(|since| since.warnings.entry(what).or_default().push(now_ms()));
    }

    /// How often each agent says anew how a resource of its is, a second; 0 for only when something changes.
    pub fn set_chatter(&self, rate: f64) {
        self.chatter.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// See [`Figures::set_chatter`].
    pub fn chatter(&self) -> f64 {
        f64::from_bits(self.chatter.load(Ordering::Relaxed))
    }

    /// What agents have complained of after a moment, and how often.
    pub fn complaints_after(&self, ms: f64) -> Value {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let late = |times: &Vec<f64>| times.iter().filter(|at| **at > ms).count();
        let counts: BTreeMap<&str, usize> = since
            .warnings
            .iter()
            .map(|(what, times)| (what.as_str(), late(times)))
            .filter(|(_, count)| *count > 0)
            .collect();
        json!(counts)
    }

    /// All of it.
    pub fn show(&self) -> Value {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |times: &[f64]| {
            let first = times.iter().copied().reduce(f64::min);
            let last = times.iter().copied().reduce(f64::max);
            json!({ "count": times.len(), "first_ms": first, "last_ms": last })
        };
        json!({
            "now_ms": now_ms(),
            "online": self.online.load(Ordering::Relaxed),
            "welcomed": self.welcomed.load(Ordering::Relaxed),
            "lost": self.lost.load(Ordering::Relaxed),
            "refused": self.refused.load(Ordering::Relaxed),
            "syncs": self.syncs.load(Ordering::Relaxed),
            "since_mark": {
                "welcomed": of(&since.welcomed),
                "received": of(&since.received),
                "durable": of(&since.durable),
                "ordered": of(&since.ordered),
            },
        })
    }
}
