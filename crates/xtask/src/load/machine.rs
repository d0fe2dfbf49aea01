//! One agent of many: the production link and session, and in place of drivers a word that everything is as it should be.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_agent::parts::{Enrolled, LinkEvent, Uplink, run as run_link};
use plumb_dispatch::agent::{AgentSession, Effect, Event, Held};
use plumb_dispatch::fence::Identity;
use plumb_dispatch::protocol::Now;
use plumb_driver::capability::machine_facts;
use plumb_model::condition::{Condition, ConditionKind, ProcessStatus, Reason, ResourceStatus};
use plumb_model::{Entry, Generation, ResourceKind, Timestamp};
use tokio::sync::{mpsc, oneshot};

use super::disk::Disk;
use super::figures::Figures;

/// How often one that is to chatter looks whether it is.
const CHATTER_LOOK: Duration = Duration::from_secs(5);

type Saved = oneshot::Receiver<std::io::Result<()>>;

struct Machine {
    session: AgentSession,
    uplink: Option<Uplink>,
    instance: String,
    online: bool,
    saving: Option<(Generation, Saved)>,
    /// Orders by hand that are being written.
    keeping: Option<Saved>,
    folder: PathBuf,
    disk: Disk,
    figures: Arc<Figures>,
    began: Instant,
}

/// Plays one machine until the process ends.
pub async fn run(enrolled: Enrolled, folder: PathBuf, disk: Disk, figures: Arc<Figures>) {
    let identity = Identity {
        workspace: enrolled.record.workspace.clone(),
        machine: enrolled.record.machine.clone(),
        lineage: Some(enrolled.record.lineage.clone()),
    };
    let (link_out, mut link) = mpsc::channel(64);
    let mut machine = Machine {
        session: AgentSession::new(identity, machine_facts(env!("CARGO_PKG_VERSION")), None),
        uplink: None,
        instance: format!("load-{}", enrolled.record.machine),
        online: false,
        saving: None,
        keeping: None,
        folder: folder.clone(),
        disk,
        figures,
        began: Instant::now(),
    };
    tokio::spawn(run_link(enrolled, link_out, Timestamp::now, folder));
    let mut said = Instant::now();
    loop {
        let tick = machine.session.next_tick_ms().map_or(CHATTER_LOOK, |due| {
            Duration::from_millis(due.saturating_sub(machine.mono_ms())).min(CHATTER_LOOK)
        });
        let events = tokio::select! {
            event = link.recv() => match event {
                Some(event) => machine.linked(event),
                None => return,
            },
            saved = saved(&mut machine.saving) => vec![saved],
            kept = kept(&mut machine.keeping) => vec![kept],
            () = tokio::time::sleep(tick) => {
                let rate = machine.figures.chatter();
                if rate > 0.0 && said.elapsed().as_secs_f64() * rate >= 1.0 {
                    said = Instant::now();
                    vec![machine.chatter(), Event::Tick]
                } else {
                    vec![Event::Tick]
                }
            }
        };
        for event in events {
            machine.tell(event);
        }
    }
}

/// Resolves when what is being written is written, and never while nothing is.
async fn saved(saving: &mut Option<(Generation, Saved)>) -> Event {
    let Some((generation, answer)) = saving else {
        return std::future::pending().await;
    };
    let generation = *generation;
    let result = answer.await;
    *saving = None;
    match result {
        Ok(Ok(())) => Event::Persisted { generation },
        Ok(Err(error)) => Event::PersistFailed {
            generation,
            message: error.to_string(),
        },
        Err(_) => Event::PersistFailed {
            generation,
            message: "the disk is gone".to_owned(),
        },
    }
}

/// Resolves when orders that are being written are written, and never while none are.
async fn kept(keeping: &mut Option<Saved>) -> Event {
    let Some(answer) = keeping else {
        return std::future::pending().await;
    };
    let result = answer.await;
    *keeping = None;
    Event::HandsKept(match result {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the disk is gone".to_owned()),
    })
}

impl Machine {
    fn mono_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn linked(&mut self, event: LinkEvent) -> Vec<Event> {
        match event {
            LinkEvent::Connected(uplink) => {
                self.session
                    .introduce(uplink.host.clone(), uplink.trusted_cas.clone());
                self.uplink = Some(uplink);
                vec![Event::Connected {
                    instance: self.instance.clone(),
                }]
            }
            LinkEvent::Received(message) => vec![Event::Received(message)],
            LinkEvent::Disconnected => {
                self.uplink = None;
                vec![Event::Disconnected]
            }
        }
    }

    fn tell(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let now = Now {
                mono_ms: self.mono_ms(),
                wall: Timestamp::now(),
            };
            for effect in self.session.handle(event, now) {
                match effect {
                    Effect::Send(message) => {
                        let sent = self.uplink.as_ref().map(|uplink| uplink.send(message));
                        if sent != Some(true) {
                            self.uplink = None;
                        }
                    }
                    Effect::Persist(held) => {
                        self.figures.received();
                        let generation = held.generation;
                        let saved = self.disk.save(self.folder.clone(), held);
                        self.saving = Some((generation, saved));
                    }
                    Effect::KeepHands(orders) => {
                        self.figures.ordered();
                        let kept = self.disk.save_orders(self.folder.clone(), orders);
                        self.keeping = Some(kept);
                    }
                    Effect::Adopt(held) => events.push(Event::StatusChanged(statuses(&held))),
                    Effect::Disconnect { .. } => self.uplink = None,
                    _ => {}
                }
            }
        }
        let online = self.session.is_online();
        if online != self.online {
            self.online = online;
            if online {
                self.figures.welcomed();
            } else {
                self.figures.lost();
            }
        }
    }

    /// The status of one resource, as if its health check had just passed.
    fn chatter(&self) -> Event {
        let all = self.session.held().map(statuses).unwrap_or_default();
        Event::StatusChanged(all.into_iter().take(1).collect())
    }
}

/// What an agent says of an assignment that it has converged.
fn statuses(held: &Held) -> Vec<ResourceStatus> {
    let entries = held.assignment.entries();
    entries
        .map(|entry| status(entry, held.generation))
        .collect()
}

fn status(entry: &Entry, generation: Generation) -> ResourceStatus {
    let address = entry.address().clone();
    let since = Timestamp::now();
    let condition = |kind| Condition {
        kind,
        status: true,
        reason: Reason::AsDesired,
        message: String::new(),
        since,
    };
    let process = (address.kind == ResourceKind::Process).then(|| ProcessStatus {
        incarnation: Some("0123456789abcdef".to_owned()),
        pid: Some(4242),
        started: Some(since),
        ..ProcessStatus::default()
    });
    ResourceStatus {
        generation,
        conditions: vec![condition(ConditionKind::Converged)],
        gone: matches!(entry, Entry::Tombstone(_)),
        process,
        found: None,
        address,
    }
}
