//! Which log streams are asked for and not yet opened: who asked, and which machine is to answer.
//!
//! Bounded; every entry goes when the machine answers, fails, leaves or stays silent, or when nobody listens any
//! more. It never touches a line.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plumb_model::MachineName;
use plumb_wire::v1;
use tokio::sync::mpsc;
use tonic::Status;

/// Where lines go.
pub(crate) type Sink = mpsc::Sender<Result<v1::LogsResponse, Status>>;

/// The most requests that wait for their machine at once.
const MAX_WAITING: usize = 1024;

struct Waiting {
    machine: MachineName,
    sink: Sink,
}

/// The requests.
#[derive(Default)]
pub(crate) struct Logs {
    waiting: Mutex<BTreeMap<u64, Waiting>>,
    last: AtomicU64,
}

impl Logs {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a request; none if too many wait.
    pub fn open(&self, machine: MachineName, sink: Sink) -> Option<u64> {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        waiting.insert(request, Waiting { machine, sink });
        Some(request)
    }

    /// The machine has opened its stream; only the machine that was asked gets the sink, and once.
    pub fn claim(&self, request: u64, machine: &MachineName) -> Option<Sink> {
        let mut waiting = self.lock();
        if waiting.get(&request)?.machine != *machine {
            return None;
        }
        waiting.remove(&request).map(|entry| entry.sink)
    }

    /// The machine cannot answer.
    pub fn fail(&self, request: u64, machine: &MachineName, why: &str) {
        if let Some(sink) = self.claim(request, machine) {
            notice(&sink, machine, why);
        }
    }

    /// The machine is gone.
    pub fn fail_all(&self, machine: &MachineName, why: &str) {
        let requests: Vec<u64> = self
            .lock()
            .iter()
            .filter(|(_, entry)| entry.machine == *machine)
            .map(|(request, _)| *request)
            .collect();
        for request in requests {
            self.fail(request, machine, why);
        }
    }

    /// Nobody listens any more. Returns whether the request was still waiting.
    pub fn forget(&self, request: u64) -> bool {
        self.lock().remove(&request).is_some()
    }

    /// Everybody is to stop.
    pub fn clear(&self) {
        self.lock().clear();
    }
}

/// Tells the reader something in place of lines. Dropped if the reader is behind: lines matter more.
pub(crate) fn notice(sink: &Sink, machine: &MachineName, why: &str) {
    let _ = sink.try_send(Ok(v1::LogsResponse {
        machine: machine.to_string(),
        news: Some(v1::logs_response::News::Notice(why.to_owned())),
    }));
}
