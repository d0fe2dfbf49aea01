//! Takes the journals of a workspace's machines: one task that checks what is handed over, stores it, and answers once it
//! is durable.
//!
//! It decides nothing about machines: the gateway asks it on behalf of sessions that are let in. What cannot be stored is
//! not answered, and the agent hands it over again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use plumb_dispatch::journal::Chunk;
use plumb_dispatch::protocol::ToAgent;
use plumb_ledger::{EventRecord, Ledger, LedgerError, MAX_EVENT_BATCH, MAX_HEAD_BATCH, Retention};
use plumb_model::condition::MachineEvent;
use plumb_model::journal::{Happening, Head, Mark, start_of};
use plumb_model::{MachineName, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};

/// What is kept of a workspace's events: some days of a large fleet, and months of a small one.
pub(crate) const KEEP: Retention = Retention {
    count: 50_000,
    age: Duration::from_secs(30 * 24 * 3600),
};

/// So many bytes of entries wait to be stored at most. What comes beyond is not answered, and comes again.
const WAITING_BYTES: usize = 32 * 1024 * 1024;

/// So many orders are carried out together.
const TOGETHER: usize = 256;

/// How an answer gets to the session that waits for it. Called where it may block.
pub(crate) type Reply = Box<dyn FnOnce(ToAgent) + Send>;

enum Order {
    /// A session begins: from where is its journal wanted?
    Greeted {
        machine: MachineName,
        mark: Mark,
        reply: Reply,
    },
    /// Entries.
    Handed {
        machine: MachineName,
        chunk: Chunk,
        reply: Reply,
    },
    /// The machine was removed, or another one joined under its name, which begins a journal of its own.
    Anew(MachineName),
    /// The control plane goes down.
    Stop(oneshot::Sender<()>),
    /// Events of an agent that keeps no journal.
    Heard {
        machine: MachineName,
        events: Vec<MachineEvent>,
    },
}

/// The way to the task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    orders: mpsc::UnboundedSender<Order>,
    /// Bytes of entries that wait.
    waiting: Arc<AtomicUsize>,
    stored: watch::Receiver<u64>,
}

impl Desk {
    /// Starts the task. It ends once nobody can give it orders any more, and has then stored what it was given.
    pub fn start(ledger: Ledger, now: fn() -> Timestamp) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let (told, stored) = watch::channel(0);
        let waiting = Arc::new(AtomicUsize::new(0));
        let taker = Taker {
            ledger,
            now,
            heads: BTreeMap::new(),
            events: Vec::new(),
            moved: BTreeMap::new(),
            replies: Vec::new(),
        };
        tokio::spawn(run(taker, queue, waiting.clone(), told));
        Self {
            orders,
            waiting,
            stored,
        }
    }

    /// A machine with a journal was welcomed. Never waits.
    pub fn greeted(&self, machine: MachineName, mark: Mark, reply: Reply) {
        let _ = self.orders.send(Order::Greeted {
            machine,
            mark,
            reply,
        });
    }

    /// A machine has handed entries over. Never waits.
    pub fn handed(&self, machine: MachineName, chunk: Chunk, reply: Reply) {
        let bytes = size(&chunk);
        if self.waiting.fetch_add(bytes, Ordering::Relaxed) > WAITING_BYTES {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            tracing::warn!(%machine, "too many journals are handed over at once; this one is taken later");
            return;
        }
        let _ = self.orders.send(Order::Handed {
            machine,
            chunk,
            reply,
        });
    }

    /// A machine without a journal says that these things happened. Never waits.
    pub fn heard(&self, machine: MachineName, events: Vec<MachineEvent>) {
        let _ = self.orders.send(Order::Heard { machine, events });
    }

    /// A machine was removed, or enrolled anew: its journal is over, and what comes under its name is another. Never waits.
    pub fn anew(&self, machine: MachineName) {
        let _ = self.orders.send(Order::Anew(machine));
    }

    /// Ends the task, once what it was given is stored and it holds the store no more.
    pub async fn stop(&self) {
        let (done, over) = oneshot::channel();
        if self.orders.send(Order::Stop(done)).is_ok() {
            let _ = over.await;
        }
    }

    /// Moves whenever events were stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.stored.clone()
    }
}

fn size(chunk: &Chunk) -> usize {
    chunk.lines.iter().map(|line| line.len() + 64).sum()
}

async fn run(
    mut taker: Taker,
    mut queue: mpsc::UnboundedReceiver<Order>,
    waiting: Arc<AtomicUsize>,
    told: watch::Sender<u64>,
) {
    let mut orders = Vec::new();
    loop {
        if queue.recv_many(&mut orders, TOGETHER).await == 0 {
            return;
        }
        let batch = std::mem::take(&mut orders);
        let waiting = waiting.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut stored = false;
            let mut stops = Vec::new();
            for order in batch {
                let order = match order {
                    Order::Stop(done) => {
                        stops.push(done);
                        continue;
                    }
                    order => order,
                };
                if let Order::Handed { chunk, .. } = &order {
                    waiting.fetch_sub(size(chunk), Ordering::Relaxed);
                }
                stored |= taker.take(order);
            }
            stored |= taker.flush();
            if stops.is_empty() {
                return (Some(taker), stored);
            }
            drop(taker);
            for stop in stops {
                let _ = stop.send(());
            }
            (None, stored)
        })
        .await;
        match done {
            Ok((back, stored)) => {
                if stored {
                    told.send_modify(|number| *number += 1);
                }
                match back {
                    Some(back) => taker = back,
                    None => return,
                }
            }
            Err(error) => {
                tracing::error!("events are stored no more: {error}");
                return;
            }
        }
    }
}

/// What the task holds. All of it blocks.
struct Taker {
    ledger: Ledger,
    now: fn() -> Timestamp,
    /// How far each machine's journal was taken, as far as it was looked up.
    heads: BTreeMap<MachineName, Head>,
    /// What is to be stored next.
    events: Vec<EventRecord>,
    moved: BTreeMap<MachineName, Head>,
    replies: Vec<(ToAgent, Reply)>,
}

impl Taker {
    /// Whether something was stored.
    fn take(&mut self, order: Order) -> bool {
        let taken = match order {
            Order::Greeted {
                machine,
                mark,
                reply,
            } => self.greeted(&machine, &mark, reply),
            Order::Handed {
                machine,
                chunk,
                reply,
            } => self.handed(&machine, &chunk, reply),
            Order::Anew(machine) => self.anew(&machine),
            Order::Stop(_) => Ok(false),
            Order::Heard { machine, events } => self.heard(&machine, events),
        };
        taken.unwrap_or_else(|error| {
            self.give_up(&error);
            false
        })
    }

    fn head(&mut self, machine: &MachineName) -> Result<Option<Head>, LedgerError> {
        if let Some(head) = self.heads.get(machine) {
            return Ok(Some(head.clone()));
        }
        self.ledger.journal(machine)
    }

    fn greeted(
        &mut self,
        machine: &MachineName,
        mark: &Mark,
        reply: Reply,
    ) -> Result<bool, LedgerError> {
        let (lineage, workspace) = (self.ledger.lineage(), self.ledger.workspace());
        let start = start_of(lineage, workspace, machine, &mark.chain);
        let known = self.head(machine)?;
        let (head, found) = Head::greet(known.clone(), mark, start);
        let mut stored = false;
        for what in found {
            stored |= self.note(machine, &head, None, what)?;
        }
        if known.as_ref() != Some(&head) {
            stored |= self.moves(machine, &head)?;
        }
        self.answer(head, reply);
        Ok(stored)
    }

    fn handed(
        &mut self,
        machine: &MachineName,
        chunk: &Chunk,
        reply: Reply,
    ) -> Result<bool, LedgerError> {
        // Nothing is taken before a greeting has said from where.
        let Some(mut head) = self.head(machine)? else {
            return Ok(false);
        };
        if head.chain != chunk.newest.chain {
            return Ok(false);
        }
        let mut stored = false;
        for line in &chunk.lines {
            let (entry, found) = head.take(line);
            for what in found {
                stored |= self.note(machine, &head, None, what)?;
            }
            if let Some(entry) = entry {
                // An agent speaks of its own machine.
                let own = entry.what.address();
                if own.is_none_or(|address| address.machine == *machine) {
                    let frame = Some((entry.number, entry.at, entry.away));
                    stored |= self.note(machine, &head, frame, entry.what)?;
                }
            }
        }
        for what in head.reached(&chunk.newest) {
            stored |= self.note(machine, &head, None, what)?;
        }
        stored |= self.moves(machine, &head)?;
        self.answer(head, reply);
        Ok(stored)
    }

    fn anew(&mut self, machine: &MachineName) -> Result<bool, LedgerError> {
        let stored = self.commit()?;
        self.heads.remove(machine);
        self.ledger.forget_journal(machine)?;
        Ok(stored)
    }

    fn heard(
        &mut self,
        machine: &MachineName,
        events: Vec<MachineEvent>,
    ) -> Result<bool, LedgerError> {
        let mut stored = false;
        for event in events {
            let what = Happening::Resource {
                address: event.address,
                kind: event.kind,
                message: event.message,
            };
            stored |= self.push(machine, Some((0, event.at, false)), what)?;
        }
        Ok(stored)
    }

    /// Stores an event, and with it that its journal was taken so far.
    fn note(
        &mut self,
        machine: &MachineName,
        head: &Head,
        frame: Option<(u64, Timestamp, bool)>,
        what: Happening,
    ) -> Result<bool, LedgerError> {
        if let Happening::ChainBroken { number, why } = &what {
            tracing::warn!(%machine, entry = number, "the journal of a machine is broken: {why}");
        }
        let stored = self.moves(machine, head)?;
        Ok(self.push(machine, frame, what)? | stored)
    }

    fn push(
        &mut self,
        machine: &MachineName,
        frame: Option<(u64, Timestamp, bool)>,
        what: Happening,
    ) -> Result<bool, LedgerError> {
        let received = (self.now)();
        let (entry, at, away) = frame.unwrap_or((0, received, false));
        self.events.push(EventRecord {
            machine: machine.clone(),
            at,
            received,
            away,
            entry: Some(entry).filter(|entry| *entry > 0),
            what: what.bounded(),
        });
        if self.events.len() < MAX_EVENT_BATCH {
            return Ok(false);
        }
        self.commit()
    }

    fn moves(&mut self, machine: &MachineName, head: &Head) -> Result<bool, LedgerError> {
        let mut stored = false;
        if self.moved.len() >= MAX_HEAD_BATCH && !self.moved.contains_key(machine) {
            stored = self.commit()?;
        }
        self.moved.insert(machine.clone(), head.clone());
        self.heads.insert(machine.clone(), head.clone());
        Ok(stored)
    }

    fn answer(&mut self, head: Head, reply: Reply) {
        let message = ToAgent::JournalStored {
            chain: head.chain,
            through: head.number,
        };
        self.replies.push((message, reply));
    }

    /// Stores what has gathered.
    fn commit(&mut self) -> Result<bool, LedgerError> {
        let moved: Vec<_> = std::mem::take(&mut self.moved).into_iter().collect();
        let events = std::mem::take(&mut self.events);
        if moved.is_empty() && events.is_empty() {
            return Ok(false);
        }
        let stored = self.ledger.add_events(&events, &moved, KEEP, (self.now)());
        if stored.is_err() {
            // What is not stored was not taken: it is looked up again.
            self.heads.clear();
        }
        stored?;
        Ok(!events.is_empty())
    }

    /// Stores what has gathered, and answers.
    fn flush(&mut self) -> bool {
        match self.commit() {
            Ok(stored) => {
                for (message, reply) in self.replies.drain(..) {
                    reply(message);
                }
                stored
            }
            Err(error) => {
                self.give_up(&error);
                false
            }
        }
    }

    fn give_up(&mut self, error: &LedgerError) {
        tracing::warn!("events cannot be stored, and are handed over again: {error}");
        self.heads.clear();
        self.events.clear();
        self.moved.clear();
        self.replies.clear();
    }
}

#[cfg(test)]
mod tests;
