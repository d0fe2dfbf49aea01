//! The driver for `process`: starts, finds again, stops and removes the incarnations of native processes,
//! each under a shim of its own. It never decides when: the agent tells it to, on a thread that may block.
//!
//! Everything it knows is on disk (see [`folder`]) or in `/proc`, so a new agent takes over what runs without
//! a handshake: a held lock is a living shim, and its state file says the rest.
//!
//! Guarantees: at most one incarnation of a slot is alive; a stranger that got a recorded process id later
//! is neither taken for the process nor signalled.
//!
//! Caveat: a system user that was made for an app stays when the app is removed, since files elsewhere may be its own.

mod command;
pub mod folder;
pub mod places;
mod ports;
pub mod proc;
mod secrets;
mod start;
#[cfg(test)]
mod tests;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use plumb_model::condition::Reason;
use plumb_model::observation::{Exit, ExitStatus, Incarnation};
use plumb_model::{
    Action, Address, Depth, Fault, Observation, ProcessSpec, ResourceSpec, StopSpec, Timestamp,
};
use rustix::fs::OFlags;
use rustix::process::{Signal, pidfd_send_signal};

use crate::host::Host;
use crate::shim::record::{self, Ended, ProcessId, State, Stopping};
use crate::{Driver, Target};
use folder::{Life, Slot};
use places::Places;

/// How much longer than its grace a shim may take before it counts as stuck and is killed itself.
const STUCK_AFTER_GRACE: Duration = Duration::from_secs(2);

/// How long killed processes may take to vanish.
const VANISH: Duration = Duration::from_secs(2);

/// How a process is stopped when neither a spec nor its own folder says.
const DEFAULT_STOP: StopSpec = StopSpec {
    signal: 15,
    grace_ms: 10_000,
};

/// See the [module](self).
pub struct ProcessDriver {
    host: Host,
    /// Shims that this agent started, until they are reaped.
    shims: Vec<Child>,
    /// When the unseen end of an incarnation was first noticed.
    unseen: BTreeMap<String, Timestamp>,
}

impl ProcessDriver {
    /// Looks at nothing yet.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self {
            host,
            shims: Vec::new(),
            unseen: BTreeMap::new(),
        }
    }

    /// Takes the exit statuses of shims that have ended, so that they do not stay as zombies. `observe` and
    /// `act` do it too.
    pub fn reap(&mut self) {
        self.shims
            .retain_mut(|shim| matches!(shim.try_wait(), Ok(None)));
    }

    fn look(
        &mut self,
        target: &Target<'_>,
        depth: Depth,
        places: &Places,
    ) -> Result<Observation, Fault> {
        let slot = Slot::of(&self.host.data, target.address, places)?;
        let seen = self.see(&slot, target.spec.is_some())?;
        if let (Observation::Running(run), Some(ResourceSpec::Process(spec))) = (&seen, target.spec)
            && run.spec == spec.incarnation_hash()
        {
            // The way to stop it may change without a restart. What cannot be noted now is noted at the next look.
            let folder = slot.path.join(&run.id);
            if record::read::<StopSpec>(&folder, record::STOP).as_ref() != Some(&spec.stop) {
                let _ = record::write(&folder, record::STOP, &spec.stop);
            }
            // So may the files of its secrets.
            if !run.stopping && !spec.secrets.is_empty() {
                let user = places.user(&target.address.owner);
                self.refresh_secrets(&slot, &user, spec, &folder, depth)?;
            }
        }
        Ok(seen)
    }

    /// Writes new versions of secrets for what runs, and tells it.
    fn refresh_secrets(
        &self,
        slot: &Slot,
        user: &str,
        spec: &ProcessSpec,
        folder: &Path,
        depth: Depth,
    ) -> Result<(), Fault> {
        let person = || users::resolve(&self.host, user, spec.user.as_deref());
        let closely = depth == Depth::Full;
        let signals = secrets::refresh(&self.host, slot, person, spec, closely)?;
        for signal in signals {
            order(folder, &format!("signal {signal}\n"))
                .map_err(|error| io_fault(&error, "cannot signal the command of", folder))?;
        }
        secrets::told(&self.host, slot, &person()?, spec)
    }

    /// What is there. Without a spec, whatever is left of the slot counts as something.
    fn see(&mut self, slot: &Slot, wanted: bool) -> Result<Observation, Fault> {
        let mut ended = None;
        let mut alive = None;
        for folder in slot.incarnations()? {
            match folder.life()? {
                // Several can never be, by the lock. If they are all the same, the oldest goes first.
                Life::Alive(state) => alive = Some((folder, Some(state))),
                Life::Mute => alive = Some((folder, None)),
                Life::Ended(state, exit) => ended = ended.or(Some((folder, state, exit))),
                Life::NeverStarted => {}
            }
        }
        if let Some((folder, state)) = alive {
            let stopping = folder.stopping().is_some();
            return Ok(Observation::Running(
                folder.incarnation(state.as_ref(), stopping),
            ));
        }
        if let Some((folder, state, exit)) = ended {
            let incarnation = folder.incarnation(state.as_ref(), folder.stopping().is_some());
            let exit = match exit {
                Some(Ended { status, at }) => Exit { status, at },
                None => Exit {
                    status: ExitStatus::Unknown,
                    at: *self
                        .unseen
                        .entry(folder.id.clone())
                        .or_insert_with(Timestamp::now),
                },
            };
            return Ok(Observation::Exited(incarnation, exit));
        }
        if !wanted && slot.anything_left() {
            return Ok(Observation::Present {
                differs: Vec::new(),
            });
        }
        Ok(Observation::Absent)
    }

    fn perform(
        &mut self,
        target: &Target<'_>,
        action: &Action,
        places: &mut Places,
    ) -> Result<Observation, Fault> {
        let slot = Slot::of(&self.host.data, target.address, places)?;
        let spec = match target.spec {
            Some(ResourceSpec::Process(spec)) => Some(spec),
            Some(_) => {
                let message = "the spec is not that of a process: a defect of plumb";
                return Err(Fault::new(Reason::Io, message));
            }
            None => None,
        };
        match (action, spec) {
            (Action::Start, Some(spec)) => {
                let user = places.user(&target.address.owner);
                self.start(&slot, target, spec, &user)
            }
            (Action::Stop, spec) => self.stop(&slot, spec),
            (Action::Remove, _) => self.remove(&slot, target.address, places),
            (Action::Move { from }, _) => self.take_over(target, from, places),
            (Action::Start | Action::Write | Action::Adopt, _) => {
                let message = format!("{action:?} cannot be done to it: a defect of plumb");
                Err(Fault::new(Reason::Io, message))
            }
        }
    }

    fn start(
        &mut self,
        slot: &Slot,
        target: &Target<'_>,
        spec: &ProcessSpec,
        user: &str,
    ) -> Result<Observation, Fault> {
        self.clear(slot)?;
        let started = start::start(&self.host, slot, user, target.release, spec)?;
        self.shims.push(started);
        slot.forget_older()?;
        self.unseen.clear();
        self.see(slot, true)
    }

    /// Makes sure that nothing of the slot is alive any more, leftovers of a killed shim included.
    fn clear(&mut self, slot: &Slot) -> Result<(), Fault> {
        let mut marks = BTreeSet::new();
        for folder in slot.incarnations()? {
            match folder.life()? {
                Life::Alive(State { command, .. }) => {
                    let message = format!("it is still running as process {}", command.pid);
                    return Err(Fault::new(Reason::Working, message));
                }
                Life::Mute => {
                    return Err(Fault::new(Reason::Working, "its shim is just starting"));
                }
                // A shim that saw the end has seen to the rest itself.
                Life::Ended(_, Some(_)) => {}
                Life::Ended(_, None) | Life::NeverStarted => {
                    marks.insert(folder.id);
                }
            }
        }
        kill_leftovers(&marks)
    }

    fn stop(&mut self, slot: &Slot, spec: Option<&ProcessSpec>) -> Result<Observation, Fault> {
        for folder in slot.incarnations()?.into_iter().rev() {
            let state = match folder.life()? {
                Life::Alive(state) => Some(state),
                Life::Mute => None,
                Life::Ended(..) | Life::NeverStarted => continue,
            };
            match folder.stopping() {
                Some(asked) if overdue(&asked) => force(&folder, state.as_ref())?,
                Some(_) => {}
                None => {
                    // To be removed, it has no spec any more: then what was noted beside it counts.
                    let stop = spec
                        .map(|spec| spec.stop.clone())
                        .or_else(|| record::read(&folder.path, record::STOP))
                        .unwrap_or(DEFAULT_STOP);
                    ask(&folder, state.as_ref(), &stop)?;
                }
            }
            // The oldest first; the next call sees to the next.
            break;
        }
        self.reap();
        self.see(slot, true)
    }

    fn remove(
        &mut self,
        slot: &Slot,
        address: &Address,
        places: &mut Places,
    ) -> Result<Observation, Fault> {
        self.clear(slot)?;
        secrets::forget(&self.host, slot)?;
        slot.remove()?;
        forget(&self.host.data, places, address)?;
        Ok(Observation::Absent)
    }

    /// The process runs on where it is: only the note of where that is changes.
    fn take_over(
        &mut self,
        target: &Target<'_>,
        from: &[Address],
        places: &mut Places,
    ) -> Result<Observation, Fault> {
        let data = &self.host.data;
        for old in from {
            Slot::of(data, old, places)?;
        }
        note(data, places, |places| {
            places.take_over(target.address, from, |place| {
                Slot::at(data, place).anything_left()
            });
        })?;
        let slot = Slot::of(&self.host.data, target.address, places)?;
        self.see(&slot, target.spec.is_some())
    }
}

impl Driver for ProcessDriver {
    fn observe(&mut self, targets: &[Target<'_>], depth: Depth) -> Vec<Result<Observation, Fault>> {
        self.reap();
        let mut places = match Places::load(&self.host.data) {
            Ok(places) => places,
            Err(fault) => return targets.iter().map(|_| Err(fault.clone())).collect(),
        };
        targets
            .iter()
            .map(|target| {
                let seen = self.look(target, depth, &places)?;
                // What is gone for good took nothing over, should the name ever be given again.
                if target.spec.is_none() && seen == Observation::Absent {
                    forget(&self.host.data, &mut places, target.address)?;
                }
                Ok(seen)
            })
            .collect()
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        self.reap();
        let mut places = match Places::load(&self.host.data) {
            Ok(places) => places,
            Err(fault) => return work.iter().map(|_| Err(fault.clone())).collect(),
        };
        work.iter()
            .map(|(target, action)| self.perform(target, action, &mut places))
            .collect()
    }
}

/// Forgets an address of which nothing is left.
fn forget(data: &Path, places: &mut Places, address: &Address) -> Result<(), Fault> {
    note(data, places, |places| {
        places.forget(address, |place| Slot::at(data, place).anything_left());
    })
}

/// Changes the note of where processes are, durably or not at all.
fn note(data: &Path, places: &mut Places, change: impl FnOnce(&mut Places)) -> Result<(), Fault> {
    let mut changed = places.clone();
    change(&mut changed);
    if changed != *places {
        changed.save(data)?;
        *places = changed;
    }
    Ok(())
}

/// Kills what bears one of the marks and waits until none does.
fn kill_leftovers(marks: &BTreeSet<String>) -> Result<(), Fault> {
    if marks.is_empty() {
        return Ok(());
    }
    let until = Instant::now() + VANISH;
    while proc::kill_marked(marks) > 0 {
        if Instant::now() >= until {
            let message = "what the incarnation before left running cannot be killed";
            return Err(Fault::new(Reason::Io, message));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn overdue(asked: &Stopping) -> bool {
    let stuck = u64::try_from(STUCK_AFTER_GRACE.as_millis()).unwrap_or(u64::MAX);
    proc::uptime_ms()
        >= asked
            .at_ms
            .saturating_add(asked.grace_ms)
            .saturating_add(stuck)
}

/// Writes the order to stop, and notes that it was given.
fn ask(folder: &folder::Folder, state: Option<&State>, stop: &StopSpec) -> Result<(), Fault> {
    let asked = Stopping {
        at_ms: proc::uptime_ms(),
        grace_ms: stop.grace_ms,
    };
    record::write(&folder.path, record::STOPPING, &asked)
        .map_err(|error| io_fault(&error, "cannot note the stop in", &folder.path))?;
    let control = folder.path.join(record::CONTROL);
    let stop_order = format!("stop {} {}\n", stop.signal, stop.grace_ms);
    match order(&folder.path, &stop_order) {
        Ok(()) => Ok(()),
        // The shim does not read; it is forced once it is overdue.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => {
            // The FIFO was removed. The command can still be asked without its shim, and forced later.
            let pidfd = state.and_then(|state| proc::open(state.command));
            match pidfd.zip(Signal::from_named_raw(stop.signal)) {
                Some((pidfd, signal)) => pidfd_send_signal(&pidfd, signal).map_err(|error| {
                    io_fault(&error.into(), "cannot signal the command of", &folder.path)
                }),
                None => Err(io_fault(&error, "cannot write to", &control)),
            }
        }
    }
}

/// Writes an order to the FIFO that a shim reads.
fn order(folder: &Path, order: &str) -> io::Result<()> {
    File::options()
        .write(true)
        .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(folder.join(record::CONTROL))
        .and_then(|mut fifo| fifo.write_all(order.as_bytes()))
}

/// Kills a shim that does not obey; its command goes with it, and whatever bears the mark after it.
fn force(folder: &folder::Folder, state: Option<&State>) -> Result<(), Fault> {
    let mut shims: Vec<ProcessId> = state.iter().map(|state| state.shim).collect();
    if shims.is_empty() {
        let lock = folder.path.join(record::LOCK);
        let holders = proc::holders(&lock, &folder.path);
        shims.extend(holders.into_iter().filter_map(proc::identify));
    }
    for pidfd in shims.into_iter().filter_map(proc::open) {
        let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    kill_leftovers(&BTreeSet::from([folder.id.clone()]))?;
    let until = Instant::now() + VANISH;
    while matches!(folder.life()?, Life::Alive(_)) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Tells when an incarnation has ended. Apart from the driver, so that the agent can hold one of its own.
#[derive(Debug, Clone)]
pub struct ExitWatch {
    data: PathBuf,
}

impl ExitWatch {
    /// For the agent's data folder.
    #[must_use]
    pub fn new(host: &Host) -> Self {
        Self {
            data: host.data.clone(),
        }
    }

    /// A descriptor that becomes readable when the incarnation's shim has ended, at which time its exit status
    /// is recorded and its lock is free; for `tokio::io::unix::AsyncFd` and the like. None if it has ended
    /// already. The descriptor means the very process that was recorded, whoever gets its number later.
    pub fn pidfd(&self, address: &Address, incarnation: &str) -> Result<Option<OwnedFd>, Fault> {
        let slot = Slot::of(&self.data, address, &Places::load(&self.data)?)?;
        let found = slot
            .incarnations()?
            .into_iter()
            .find(|folder| folder.id == incarnation);
        let Some(folder) = found else {
            return Ok(None);
        };
        Ok(match folder.life()? {
            Life::Alive(state) => proc::open(state.shim),
            Life::Mute => {
                let message = "its shim has not said yet who it is; ask again";
                return Err(Fault::new(Reason::Working, message));
            }
            Life::Ended(..) | Life::NeverStarted => None,
        })
    }
}

/// A fault out of an error of the operating system.
fn io_fault(error: &io::Error, what: &str, path: &Path) -> Fault {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
        io::ErrorKind::PermissionDenied => Reason::PermissionDenied,
        io::ErrorKind::NotADirectory => Reason::BadPath,
        _ => Reason::Io,
    };
    Fault::new(reason, format!("{what} {}: {error}", path.display()))
}

/// The incarnation as far as it is known without its state.
fn unknown_incarnation(id: &str, spec: plumb_model::Hash) -> Incarnation {
    Incarnation {
        id: id.to_owned(),
        spec,
        pid: 0,
        started: Timestamp::UNIX_EPOCH,
        stopping: false,
    }
}
