//! The agent's one task that owns state: select, one closed set of inputs, effects carried out.
//!
//! Flow: what is on the disk is converged before anybody is dialled; then events come from drivers, timers, watches
//! and the link. Guarantees: nothing here blocks; every driver job is answered; a stop leaves workloads running
//! unless it is told to stop them too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_converge::hands::Progress;
use plumb_converge::{self as converge, Reconciler, Settings};
use plumb_dispatch::agent::{AgentSession, Event as SessionEvent, Held};
use plumb_dispatch::fence::Identity;
use plumb_dispatch::hands::HeldOrders;
use plumb_dispatch::protocol::{MAX_FINDINGS, Reconciled, Releases, SecretVersion};
use plumb_driver::blobs::Blobs;
use plumb_driver::host::Host;
use plumb_driver::process::ExitWatch;
use plumb_driver::secrets::{Secrets, runtime_folder};
use plumb_driver::{capability, health};
use plumb_model::assignment::{Assignment, Entry};
use plumb_model::journal::{Happening, Mark};
use plumb_model::{
    Address, Found, Hash, MachineName, Observation, ProbeResult, ResourceKind, ResourceSpec,
    RunState, Timestamp,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::contact::Contact;
use crate::error::AgentError;
use crate::exits::Exits;
use crate::folder::{Folder, Keeper};
use crate::hands::{Book, Page};
use crate::identity::{Enrolled, Record, join};
use crate::journal::scribe::{Notebook, Told};
use crate::journal::{BOUNDS, Journal, Owner};
use crate::lanes::Lanes;
use crate::link::{self, LinkEvent, Uplink, hex, random_bytes};
use crate::metrics::{self, Tally};
use crate::secrets;
use crate::warned::Warned;
use crate::watch::{Watch, concerns};

/// Every so many resyncs everything is read in full: with the default interval, every ten minutes.
const FULL_EVERY: u32 = 20;
/// When workloads are stopped along with the agent, each has this long before it is killed, so that all is over
/// within ten seconds.
const LAST_GRACE_MS: u64 = 6_000;
/// Secrets that were asked for and did not come are asked for again after so long.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// How long the agent waits for workloads to stop.
const LAST_WAIT: Duration = Duration::from_secs(9);

enum Input {
    Done(converge::Event),
    Ended(Address),
    Changed(Vec<PathBuf>),
    Probed {
        address: Address,
        incarnation: String,
        result: ProbeResult,
    },
    Arrived(Hash),
    Link(LinkEvent),
    Journal(Told),
    SecretsKept(Vec<SecretVersion>),
    HandsWritten {
        page: Page,
        result: std::io::Result<()>,
    },
    /// This stands at what somebody holds.
    Shown(Address, Found),
    Persisted {
        held: Held,
        result: std::io::Result<()>,
    },
    LogsEnded {
        request: u64,
        result: Result<(), String>,
    },
    Numbers(oneshot::Sender<String>),
    Timer,
    Stop {
        workloads: bool,
        done: oneshot::Sender<()>,
    },
}

/// A running agent.
#[derive(Debug)]
pub struct Running {
    /// The machine that it plays.
    pub machine: MachineName,
    /// Where it serves its numbers, if anywhere.
    pub metrics: Option<std::net::SocketAddr>,
    page: Option<JoinHandle<()>>,
    stop: mpsc::Sender<(bool, oneshot::Sender<()>)>,
    task: JoinHandle<()>,
    link: JoinHandle<()>,
}

impl Running {
    /// Ends the agent; workloads run on unless `workloads` says to stop them first, for at most nine seconds.
    pub async fn stop(self, workloads: bool) {
        let (done, wait) = oneshot::channel();
        if self.stop.send((workloads, done)).await.is_ok() {
            let _ = wait.await;
        }
        self.link.abort();
        if let Some(page) = &self.page {
            page.abort();
        }
        let _ = self.task.await;
    }
}

/// Starts an agent: opens its folder, enrols if it has to, converges what is on the disk, and dials.
///
/// # Errors
/// When the folder cannot be used, or the machine is not enrolled and cannot be.
pub async fn start(config: Config) -> Result<Running, AgentError> {
    let folder = Folder::open(&config.data)?;
    let enrolled = match Enrolled::load(folder.path())? {
        Some(mut enrolled) => {
            if let Some(server) = &config.server {
                enrolled.moved_to(server)?;
            }
            let machine = &enrolled.record.machine;
            if let Some(asked) = config.machine.as_ref().filter(|asked| *asked != machine) {
                return Err(AgentError::OtherMachine {
                    folder: folder.path().to_owned(),
                    machine: machine.clone(),
                    asked: asked.clone(),
                });
            }
            if config.token.is_some() {
                tracing::info!(
                    "the join token is not used: {} is enrolled as machine {machine}; to enrol anew, start the agent with an empty --data",
                    folder.path().display()
                );
            }
            enrolled
        }
        None => join(&config).await?,
    };
    let machine = enrolled.record.machine.clone();
    let held = folder.load_held()?;
    let host = Host {
        data: folder.path().to_owned(),
        lineage: enrolled.record.lineage.clone(),
        workspace: enrolled.record.workspace.clone(),
        run_as: config.run_as,
        shim: config.shim.clone(),
        secrets: Secrets::new(runtime_folder(folder.path())),
    };
    let (stop, stops) = mpsc::channel(1);
    let (link_out, link_in) = mpsc::channel(64);
    let book = Book::open(folder.path())?;
    let owner = Owner {
        lineage: enrolled.record.lineage.clone(),
        workspace: enrolled.record.workspace.clone(),
        machine: machine.clone(),
    };
    let notes = match Journal::open(folder.path(), owner, BOUNDS) {
        Ok(journal) => Notes::of(journal),
        Err(error @ AgentError::Newer { .. }) => return Err(error),
        // What is noted is worth less than that the machine stays true.
        Err(error) => {
            tracing::error!("nothing is noted in the journal: {error}");
            Notes::none()
        }
    };
    let core = Core::new(folder, &host, &enrolled.record, held, book, notes, &config).map_err(
        |source| AgentError::Folder {
            doing: "watch for changes from",
            path: host.data.clone(),
            source,
        },
    )?;
    let inputs = core.probed.clone();
    let page = match config.metrics {
        Some(address) => {
            let ask = move || {
                let inputs = inputs.clone();
                async move {
                    let (reply, answer) = oneshot::channel();
                    inputs.send(Input::Numbers(reply)).await.ok()?;
                    Some(answer)
                }
            };
            Some(metrics::serve(address, host.data.clone(), ask).await?)
        }
        None => None,
    };
    let (metrics, page) = page.unzip();
    let task = tokio::spawn(core.run(link_in, stops));
    let link = tokio::spawn(link::run(enrolled, link_out, config.now, host.data.clone()));
    Ok(Running {
        machine,
        metrics,
        page,
        stop,
        task,
        link,
    })
}

/// The journal of this run, which has begun with it.
struct Notes {
    notebook: Notebook,
    told: mpsc::Receiver<Told>,
    mark: Option<Mark>,
}

impl Notes {
    /// No journal is kept.
    fn none() -> Self {
        let (notebook, told) = Notebook::silent();
        Self {
            notebook,
            told,
            mark: None,
        }
    }

    fn of(journal: Journal) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = boot.map(|id| id.trim().to_owned()).unwrap_or_default();
        let booted = journal.last_boot().map(|last| last != boot);
        let (newest, mark) = (journal.newest(), journal.mark().clone());
        let (mut notebook, told) = Notebook::start(journal, newest);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let what = Happening::AgentStarted {
            version,
            boot,
            booted,
        };
        notebook.note(Timestamp::now(), what);
        Self {
            notebook,
            told,
            mark: Some(mark),
        }
    }
}

struct Core {
    folder: Folder,
    keeper: Keeper,
    blobs: Blobs,
    session: AgentSession,
    reconciler: Reconciler,
    instance: String,
    releases: Arc<Releases>,
    lanes: Lanes,
    watch: Watch,
    exits: Exits,
    managed: BTreeMap<PathBuf, Address>,
    missing: BTreeMap<Hash, u64>,
    secrets: secrets::Keeper,
    /// Those that the assignment names and that are not here, each with what stands for it.
    awaited: BTreeMap<SecretVersion, Hash>,
    asked_at: Option<Instant>,
    book: Book,
    contact: Contact,
    /// The control plane has been heard since it was last lost.
    heard: bool,
    tally: Tally,
    uplink: Option<Uplink>,
    fetching: Option<JoinHandle<()>>,
    log_streams: BTreeMap<u64, JoinHandle<()>>,
    began: Instant,
    stopping: Option<(Instant, oneshot::Sender<()>)>,
    notebook: Notebook,
    warned: Warned,
    inputs: Inputs,
    probed: mpsc::Sender<Input>,
}

/// Every channel that leads to the core.
struct Inputs {
    done: mpsc::Receiver<converge::Event>,
    ended: mpsc::Receiver<Address>,
    changed: mpsc::Receiver<Vec<PathBuf>>,
    arrived: mpsc::Receiver<Hash>,
    arrived_in: mpsc::Sender<Hash>,
    journal: mpsc::Receiver<Told>,
    other: mpsc::Receiver<Input>,
}

impl Core {
    fn new(
        folder: Folder,
        host: &Host,
        record: &Record,
        held: Option<Held>,
        (book, progress): (Book, Progress),
        notes: Notes,
        config: &Config,
    ) -> std::io::Result<Self> {
        let (done_in, done) = mpsc::channel(64);
        let (ended_in, ended) = mpsc::channel(64);
        let (changed_in, changed) = mpsc::channel(16);
        let (arrived_in, arrived) = mpsc::channel(16);
        let (other_in, other) = mpsc::channel(64);
        let identity = Identity {
            workspace: record.workspace.clone(),
            machine: record.machine.clone(),
            lineage: Some(record.lineage.clone()),
        };
        let settings = Settings {
            resync_ms: u64::try_from(config.interval.as_millis()).unwrap_or(u64::MAX),
            full_every: FULL_EVERY,
            seed: u64::from_le_bytes(random_bytes()),
        };
        let facts = capability::machine_facts(env!("CARGO_PKG_VERSION"));
        let instance = hex(&random_bytes::<16>());
        let mut session = AgentSession::new(identity, facts, held);
        let mut reconciler = Reconciler::new(settings, folder.load_applied());
        if let Some(written) = book.orders() {
            session.holds_hands(HeldOrders::from(&**written));
            reconciler.restore_hands(written.orders.hands.clone(), progress);
        }
        let Notes {
            notebook,
            told,
            mark,
        } = notes;
        // Nothing is to be done about it before there is a link.
        if let Some(mark) = mark {
            session.keeps_journal(mark);
        }
        Ok(Self {
            book,
            contact: Contact::new(folder.path()),
            heard: false,
            keeper: folder.keeper(),
            blobs: Blobs::new(folder.path()),
            session,
            reconciler,
            instance,
            releases: Arc::default(),
            lanes: Lanes::new(host, done_in),
            watch: Watch::start(changed_in)?,
            exits: Exits::new(ExitWatch::new(host), ended_in),
            managed: BTreeMap::new(),
            missing: BTreeMap::new(),
            secrets: secrets::Keeper::open(&host.data, host.secrets.clone(), &|name| {
                std::env::var_os(name)
            })?,
            awaited: BTreeMap::new(),
            asked_at: None,
            tally: Tally::default(),
            uplink: None,
            fetching: None,
            log_streams: BTreeMap::new(),
            began: Instant::now(),
            stopping: None,
            inputs: Inputs {
                done,
                ended,
                changed,
                arrived,
                arrived_in,
                journal: told,
                other,
            },
            notebook,
            warned: Warned::default(),
            probed: other_in,
            folder,
        })
    }

    fn mono_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn now(&self) -> plumb_model::Now {
        plumb_model::Now {
            mono_ms: self.mono_ms(),
            wall: Timestamp::now(),
        }
    }

    async fn run(
        mut self,
        mut link: mpsc::Receiver<LinkEvent>,
        mut stops: mpsc::Receiver<(bool, oneshot::Sender<()>)>,
    ) {
        let away_ms = Some(self.contact.away_ms());
        self.converge(converge::Event::Heard { away_ms });
        if let Some(held) = self.session.held().cloned() {
            self.adopt(held);
        }
        let mut link_open = true;
        loop {
            let wake = [self.session.next_tick_ms(), self.reconciler.next_wake()]
                .into_iter()
                .flatten()
                .min();
            let pause = wake.map(|wake| Duration::from_millis(wake.saturating_sub(self.mono_ms())));
            let pause = match &self.stopping {
                Some((until, _)) => {
                    let left = until.saturating_duration_since(Instant::now());
                    Some(pause.map_or(left, |p| p.min(left)))
                }
                None => pause,
            };
            let input = tokio::select! {
                Some(event) = self.inputs.done.recv() => Input::Done(event),
                Some(address) = self.inputs.ended.recv() => Input::Ended(address),
                Some(paths) = self.inputs.changed.recv() => Input::Changed(paths),
                Some(hash) = self.inputs.arrived.recv() => Input::Arrived(hash),
                Some(told) = self.inputs.journal.recv() => Input::Journal(told),
                Some(other) = self.inputs.other.recv() => other,
                event = link.recv(), if link_open => match event {
                    Some(event) => Input::Link(event),
                    None => {
                        link_open = false;
                        continue;
                    }
                },
                asked = stops.recv() => match asked {
                    Some((workloads, done)) => Input::Stop { workloads, done },
                    None => return,
                },
                () = tokio::time::sleep(pause.unwrap_or(Duration::from_secs(3600))) => Input::Timer,
            };
            if let Input::Stop {
                workloads: false,
                done,
            } = input
            {
                self.save_applied();
                self.notebook.stop().await;
                let _ = done.send(());
                return;
            }
            self.take(input);
            if let Some((until, _)) = &self.stopping
                && (self.reconciler.has_stopped() || Instant::now() >= *until)
            {
                self.notebook.stop().await;
                if let Some((_, done)) = self.stopping.take() {
                    let _ = done.send(());
                }
                return;
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Done(event) => {
                self.watch_exits(&event);
                self.tally.done(&event);
                let paths = touches_paths(&event);
                self.converge(event);
                if paths {
                    self.rewatch();
                }
            }
            Input::Ended(address) => self.converge(converge::Event::Woken(vec![address])),
            Input::Changed(paths) => {
                let woken: BTreeSet<Address> = paths
                    .iter()
                    .flat_map(|path| {
                        self.managed
                            .iter()
                            .filter(move |(target, _)| concerns(path, target))
                    })
                    .map(|(_, address)| address.clone())
                    .collect();
                if !woken.is_empty() {
                    self.converge(converge::Event::Woken(woken.into_iter().collect()));
                }
            }
            Input::Probed {
                address,
                incarnation,
                result,
            } => {
                self.converge(converge::Event::Probed {
                    address,
                    incarnation,
                    result,
                });
            }
            Input::Arrived(hash) => {
                self.missing.remove(&hash);
                self.converge(converge::Event::Arrived(hash));
            }
            Input::SecretsKept(secrets) => {
                for secret in secrets {
                    if let Some(hash) = self.awaited.remove(&secret) {
                        self.converge(converge::Event::Arrived(hash));
                    }
                }
            }
            Input::Link(event) => self.linked(event),
            Input::Journal(Told::Grew(mark)) => {
                self.tell_session(SessionEvent::JournalGrew(mark));
            }
            Input::Journal(Told::Read(chunk)) => {
                self.tell_session(SessionEvent::JournalRead(chunk));
            }
            Input::HandsWritten { page, result } => self.hands_written(page, result),
            Input::Shown(address, found) => {
                self.converge(converge::Event::Shown(address, found));
            }
            Input::Persisted { held, result } => {
                let generation = held.generation;
                self.tell_session(match result {
                    Ok(()) => SessionEvent::Persisted { generation },
                    Err(error) => {
                        let message = format!(
                            "cannot write the assignment to {}: {error}",
                            self.folder.path().display()
                        );
                        tracing::error!("{message}");
                        SessionEvent::PersistFailed {
                            generation,
                            message,
                        }
                    }
                });
            }
            Input::LogsEnded { request, result } => {
                self.log_streams.remove(&request);
                if let Err(message) = result {
                    self.tell_session(SessionEvent::LogsFailed { request, message });
                }
            }
            Input::Numbers(reply) => {
                let generation = self.session.held().map(|held| held.generation);
                let online = self.session.is_online();
                // Whoever asked may have gone.
                let _ = reply.send(self.tally.write(
                    online,
                    generation,
                    self.reconciler.statuses(),
                ));
            }
            Input::Timer => {
                self.tell_session(SessionEvent::Tick);
                if self.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN) {
                    self.ask_for_secrets();
                }
                if self.session.is_online() {
                    self.contact.note(false);
                }
                self.converge(converge::Event::Tick);
            }
            Input::Stop { done, .. } => self.stop_workloads(done),
        }
        if self.stopping.is_none() && self.reconciler.take_applied_moved() {
            self.save_applied();
        }
        if let Some(moved) = self.reconciler.take_progress() {
            self.book.moved = Some(moved);
        }
        self.write_hands();
        for checked in self.reconciler.take_checked() {
            let mut findings = checked.findings;
            let more = findings.len().saturating_sub(MAX_FINDINGS) as u64;
            findings.truncate(MAX_FINDINGS);
            self.tell_session(SessionEvent::Reconciled(Reconciled {
                request: checked.request,
                checked: checked.checked,
                findings,
                more,
            }));
        }
    }

    fn save_applied(&self) {
        let (keeper, applied) = (self.keeper.clone(), self.reconciler.applied().clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = keeper.save_applied(&applied) {
                tracing::warn!(%error, "cannot note what has converged; drift may be shown as a pending change after a restart");
            }
        });
    }

    fn rewatch(&self) {
        let folders = self
            .managed
            .keys()
            .filter_map(|path| path.parent().map(PathBuf::from))
            .collect();
        self.watch.set(&folders);
    }

    fn watch_exits(&self, event: &converge::Event) {
        let watch = |address: &Address, seen: &Result<Observation, _>| {
            if let Ok(Observation::Running(run)) = seen {
                self.exits.watch(address, &run.id);
            }
        };
        match event {
            converge::Event::Observed(all) => {
                all.iter().for_each(|(address, seen)| watch(address, seen))
            }
            converge::Event::Acted(all) => all
                .iter()
                .for_each(|(address, _, seen)| watch(address, seen)),
            _ => {}
        }
    }

    fn converge(&mut self, event: converge::Event) {
        let mut events = Vec::new();
        for effect in self.reconciler.handle(event, self.now()) {
            match effect {
                converge::Effect::Observe { kind, depth, work } => {
                    self.tally.looks(kind, work.len());
                    self.lanes.observe(kind, depth, work, self.releases.clone());
                }
                converge::Effect::Act { kind, work } => {
                    self.lanes.act(kind, work, self.releases.clone())
                }
                converge::Effect::Probe {
                    address,
                    incarnation,
                    probe,
                    timeout_ms,
                } => {
                    let other = self.probed.clone();
                    tokio::spawn(async move {
                        let result = health::probe(&probe, Duration::from_millis(timeout_ms)).await;
                        let _ = other
                            .send(Input::Probed {
                                address,
                                incarnation,
                                result,
                            })
                            .await;
                    });
                }
                converge::Effect::Report(statuses) => {
                    self.show_held(&statuses);
                    self.notebook.reported(Timestamp::now(), &statuses);
                    self.tell_session(SessionEvent::StatusChanged(statuses))
                }
                converge::Effect::Emit(event) => {
                    tracing::info!(address = %event.address, kind = ?event.kind, "{}", event.message);
                    self.tally.happened(event.kind);
                    events.push(event);
                }
            }
        }
        if !events.is_empty() {
            self.notebook.happened(&events);
            self.tell_session(SessionEvent::EventsHappened(events));
        }
    }

    /// Converges towards the same assignment with every process stopped, without writing that down.
    fn stop_workloads(&mut self, done: oneshot::Sender<()>) {
        let Some(held) = self.session.held().cloned() else {
            self.stopping = Some((Instant::now(), done));
            return;
        };
        let entries = held.assignment.entries().cloned().map(|mut entry| {
            if let Entry::Resource(resource) = &mut entry
                && resource.address.kind == ResourceKind::Process
                && let ResourceSpec::Process(spec) = &mut Arc::make_mut(resource).spec
            {
                spec.state = RunState::Stopped;
                spec.stop.grace_ms = spec.stop.grace_ms.min(LAST_GRACE_MS);
            }
            entry
        });
        let assignment = Arc::new(Assignment::build(held.assignment.header().clone(), entries));
        self.stopping = Some((Instant::now() + LAST_WAIT, done));
        self.converge(converge::Event::Assigned {
            generation: held.generation,
            assignment,
            missing: self.awaited_hashes(),
        });
    }
}

fn touches_paths(event: &converge::Event) -> bool {
    match event {
        converge::Event::Acted(all) => all
            .iter()
            .any(|(a, ..)| matches!(a.kind, ResourceKind::File | ResourceKind::Directory)),
        _ => false,
    }
}

mod by_hand;
mod needs;
mod session;
#[cfg(test)]
mod tests;
