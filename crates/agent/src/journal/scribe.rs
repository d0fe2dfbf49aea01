//! The one task that owns the journal's files: it writes what the core has it note, and reads what is to be handed over.
//!
//! It wakes when there is something to do and at no other time. The core never waits for it: what comes faster than a
//! disk takes it is counted.

use std::time::{Duration, Instant};

use plumb_dispatch::journal::Chunk;
use plumb_model::condition::MachineEvent;
use plumb_model::journal::{Happening, Mark};
use plumb_model::{ResourceStatus, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::Journal;
use super::note::Noticed;

/// So many things wait to be written.
const QUEUE: usize = 1024;
/// New entries are handed over after this pause, many at once: one sync of the disk for all that happened in it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long an agent that ends waits for what it has noted last.
const LAST: Duration = Duration::from_secs(1);

enum Order {
    Note {
        at: Timestamp,
        away: bool,
        what: Happening,
    },
    Lost(u64),
    Read {
        after: u64,
    },
    Stop(oneshot::Sender<()>),
}

/// What the core is told.
pub enum Told {
    /// The journal has grown to this.
    Grew(Mark),
    /// What was to be read.
    Read(Chunk),
}

/// The core's end.
pub struct Notebook {
    orders: mpsc::Sender<Order>,
    noticed: Noticed,
    lost: u64,
    online: bool,
    lost_link: Option<Instant>,
}

impl Notebook {
    /// Starts the task. Also what it tells the core.
    pub fn start(journal: Journal, newest: Option<Timestamp>) -> (Self, mpsc::Receiver<Told>) {
        let (orders, queue) = mpsc::channel(QUEUE);
        let (told, tells) = mpsc::channel(16);
        tokio::spawn(run(journal, queue, told));
        let notebook = Self {
            orders,
            noticed: Noticed::after(newest),
            lost: 0,
            online: false,
            lost_link: None,
        };
        (notebook, tells)
    }

    /// Notes nothing, and tells nothing.
    pub fn silent() -> (Self, mpsc::Receiver<Told>) {
        let notebook = Self {
            orders: mpsc::channel(1).0,
            noticed: Noticed::after(None),
            lost: 0,
            online: false,
            lost_link: None,
        };
        (notebook, mpsc::channel(1).1)
    }

    /// Notes something.
    pub fn note(&mut self, at: Timestamp, what: Happening) {
        if self.lost > 0 && self.orders.try_send(Order::Lost(self.lost)).is_ok() {
            self.lost = 0;
        }
        let away = !self.online;
        if self
            .orders
            .try_send(Order::Note { at, away, what })
            .is_err()
        {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// Notes what happened to resources.
    pub fn happened(&mut self, events: &[MachineEvent]) {
        for event in events {
            let what = Happening::Resource {
                address: event.address.clone(),
                kind: event.kind,
                message: event.message.clone(),
            };
            self.note(event.at, what);
        }
    }

    /// Notes what statuses say that no event does.
    pub fn reported(&mut self, now: Timestamp, statuses: &[ResourceStatus]) {
        for status in statuses {
            for (at, what) in self.noticed.news(status) {
                self.note(at.unwrap_or(now), what);
            }
        }
    }

    /// Notes that the control plane is there again, or is not any more, if that is news.
    pub fn link(&mut self, now: Timestamp, online: bool) {
        if self.online == online {
            return;
        }
        self.online = online;
        if online {
            let away = self.lost_link.take().map(|since| since.elapsed());
            let away_ms = away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX));
            self.note(now, Happening::LinkBack { away_ms });
        } else {
            self.lost_link = Some(Instant::now());
            self.note(now, Happening::LinkLost);
        }
    }

    /// Has entries read that are to be handed over.
    pub fn read(&mut self, after: u64) {
        // A full queue means that the disk is far behind: the next connection hands over.
        let _ = self.orders.try_send(Order::Read { after });
    }

    /// Waits until what was noted is written, for at most a second.
    pub async fn stop(&mut self) {
        let (done, wait) = oneshot::channel();
        let end = async {
            if self.orders.send(Order::Stop(done)).await.is_ok() {
                let _ = wait.await;
            }
        };
        let _ = tokio::time::timeout(LAST, end).await;
    }
}

async fn run(journal: Journal, mut queue: mpsc::Receiver<Order>, told: mpsc::Sender<Told>) {
    let mut journal = Some(journal);
    let mut tell_at: Option<tokio::time::Instant> = None;
    let mut orders = Vec::new();
    loop {
        let due = tell_at.unwrap_or_else(tokio::time::Instant::now);
        tokio::select! {
            count = queue.recv_many(&mut orders, QUEUE) => if count == 0 { return },
            () = tokio::time::sleep_until(due), if tell_at.is_some() => {
                tell_at = None;
                if let Some(journal) = &journal
                    && told.send(Told::Grew(journal.mark().clone())).await.is_err()
                {
                    return;
                }
                continue;
            }
        }
        let Some(mut open) = journal.take() else {
            return;
        };
        let batch = std::mem::take(&mut orders);
        let before = open.mark().number;
        let done = tokio::task::spawn_blocking(move || {
            let (mut read, mut stops) = (None, Vec::new());
            for order in batch {
                match order {
                    Order::Note { at, away, what } => open.note(at, away, what),
                    Order::Lost(entries) => open.lose(entries),
                    Order::Read { after } => read = Some(after),
                    Order::Stop(done) => stops.push(done),
                }
            }
            let chunk = read.and_then(|after| match open.read(after) {
                Ok(chunk) => chunk,
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be read, and is not handed over");
                    None
                }
            });
            (open, chunk, stops)
        })
        .await;
        let Ok((open, chunk, stops)) = done else {
            tracing::error!("the journal is given up: writing it panicked");
            return;
        };
        for stop in stops {
            let _ = stop.send(());
        }
        if open.mark().number > before && tell_at.is_none() {
            tell_at = Some(tokio::time::Instant::now() + PAUSE);
        }
        journal = Some(open);
        if let Some(chunk) = chunk
            && told.send(Told::Read(chunk)).await.is_err()
        {
            return;
        }
    }
}
