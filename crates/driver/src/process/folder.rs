//! The run folder of a slot, `DATA/processes/OWNER/PROCESS.SLOT/`, and what its files tell. It kills nothing.
//! Where a renamed process has its folder, [`places`](super::places) says.
//!
//! It holds a folder for each incarnation that is alive or was the newest to end (their names sort by age),
//! and `work`, the private folder of processes that name no working directory. It and its parents can be
//! passed through by other users but not listed, for the sake of `work`; incarnations are the agent's alone.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_model::condition::Reason;
use plumb_model::observation::Incarnation;
use plumb_model::{Address, Fault, Hash, ProcessName, ResourceKind, Timestamp};
use rustix::fs::{FlockOperation, flock};

use super::places::Places;
use super::{io_fault, proc, unknown_incarnation};
use crate::logs;
use crate::shim::record::{self, Ended, PROTOCOL, Spec, State, Stopping};

/// How long a living shim is given to write its state: it does so at once after its start.
const STATE_WAIT: Duration = Duration::from_secs(1);

/// The private working directory inside a run folder.
pub const WORK: &str = "work";

/// One slot of a process on disk.
#[derive(Debug, Clone)]
pub struct Slot {
    /// `PROCESS.SLOT`
    pub name: String,
    /// The run folder.
    pub path: PathBuf,
    /// The current log file.
    pub log: PathBuf,
}

impl Slot {
    /// Where the process at an address keeps its things.
    pub fn of(data: &Path, address: &Address, places: &Places) -> Result<Self, Fault> {
        let well_formed = address.name.split_once('/').and_then(|(process, slot)| {
            let process = ProcessName::new(process).ok()?;
            let number: u32 = slot.parse().ok()?;
            // Only the one way of writing a number, so that no two addresses share a folder.
            (number.to_string() == slot && address.kind == ResourceKind::Process).then_some(process)
        });
        if well_formed.is_none() {
            let message = format!("{:?} is not of the form PROCESS/SLOT", address.name);
            return Err(Fault::new(Reason::BadPath, message));
        }
        Ok(Self::at(data, &places.of(address)))
    }

    /// The slot at a place, `OWNER/PROCESS.SLOT`.
    #[must_use]
    pub fn at(data: &Path, place: &str) -> Self {
        Self {
            name: place.rsplit('/').next().unwrap_or(place).to_owned(),
            path: data.join("processes").join(place),
            log: logs::at(data, place),
        }
    }

    /// All incarnations, the newest first. None if there is no run folder.
    pub fn incarnations(&self) -> Result<Vec<Folder>, Fault> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_fault(&error, "cannot read", &self.path)),
        };
        let mut found: Vec<Folder> = entries
            .flatten()
            .filter_map(|entry| {
                let id = entry.file_name().into_string().ok()?;
                sequence(&id)?;
                let path = entry.path();
                Some(Folder { id, path })
            })
            .collect();
        found.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(found)
    }

    /// Makes the folder of the next incarnation, and whatever it stands in.
    pub fn next(&self) -> Result<Folder, Fault> {
        let newest = self
            .incarnations()?
            .first()
            .and_then(|folder| sequence(&folder.id));
        let number = newest.unwrap_or(0) + 1;
        let fail = |error: io::Error| io_fault(&error, "cannot make", &self.path);
        if let Some(owner) = self.path.parent() {
            make(owner.parent().unwrap_or(owner), 0o711).map_err(fail)?;
            make(owner, 0o711).map_err(fail)?;
        }
        make(&self.path, 0o711).map_err(fail)?;
        let id = format!("{number:010}-{:08x}", random().map_err(fail)?);
        let path = self.path.join(&id);
        make(&path, 0o700).map_err(fail)?;
        Ok(Folder { id, path })
    }

    /// The private working directory, made if it is missing. Kept from one incarnation to the next.
    pub fn work(&self) -> Result<PathBuf, Fault> {
        let work = self.path.join(WORK);
        make(&work, 0o700).map_err(|error| io_fault(&error, "cannot make", &work))?;
        Ok(work)
    }

    /// Makes the folder that the log stands in.
    pub fn make_log_folder(&self) -> Result<(), Fault> {
        let Some(owner) = self.log.parent() else {
            return Ok(());
        };
        make(owner.parent().unwrap_or(owner), 0o700)
            .and_then(|()| make(owner, 0o700))
            .map_err(|error| io_fault(&error, "cannot make", owner))
    }

    /// Removes all incarnations but the newest and the newest before it that ended.
    pub fn forget_older(&self) -> Result<(), Fault> {
        let mut kept = 0;
        for folder in self.incarnations()?.into_iter().skip(1) {
            match folder.life()? {
                Life::Ended(..) if kept == 0 => kept = 1,
                Life::Ended(..) | Life::NeverStarted => folder.remove()?,
                Life::Alive(_) | Life::Mute => {}
            }
        }
        Ok(())
    }

    /// Whether a run folder or a log is there.
    pub fn anything_left(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok() || !logs::files(&self.log).is_empty()
    }

    /// Removes logs and run folder; the folder goes last, so that an interrupted removal is seen. Only when
    /// nothing is alive.
    pub fn remove(&self) -> Result<(), Fault> {
        for file in logs::files(&self.log) {
            absent(fs::remove_file(&file))
                .map_err(|error| io_fault(&error, "cannot remove", &file))?;
        }
        absent(fs::remove_dir_all(&self.path))
            .map_err(|error| io_fault(&error, "cannot remove", &self.path))?;
        // The owner's folders go with the last slot; until then they are not empty.
        for folder in [self.path.parent(), self.log.parent()]
            .into_iter()
            .flatten()
        {
            let _ = fs::remove_dir(folder);
        }
        Ok(())
    }
}

/// The folder of one incarnation.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The incarnation's id.
    pub id: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What is known of whether an incarnation lives.
#[derive(Debug)]
pub enum Life {
    /// The shim lives, and the command runs or has only just ended.
    Alive(State),
    /// Somebody holds the lock and has not said who.
    Mute,
    /// It ran, and has ended. Without an [`Ended`], nobody saw how.
    Ended(Option<State>, Option<Ended>),
    /// The agent ended while it prepared it.
    NeverStarted,
}

impl Folder {
    /// Looks. Waits up to [`STATE_WAIT`] for a shim that has only just started.
    pub fn life(&self) -> Result<Life, Fault> {
        let until = Instant::now() + STATE_WAIT;
        loop {
            // The lock first: whoever lets it go has recorded everything before.
            let held = self.lock_is_held()?;
            let state: Option<State> = record::read(&self.path, record::STATE);
            if let Some(newer) = state.as_ref().filter(|state| state.protocol > PROTOCOL) {
                let message = format!(
                    "its shim was started by a newer plumb (shim protocol {}, this one knows {PROTOCOL}): upgrade the agent",
                    newer.protocol
                );
                return Err(Fault::new(Reason::LacksCapability, message));
            }
            let exit: Option<Ended> = record::read(&self.path, record::EXIT);
            match (held, state) {
                (false, None) if exit.is_none() => return Ok(Life::NeverStarted),
                (false, state) => return Ok(Life::Ended(state, exit)),
                (true, Some(state)) => {
                    let same = state.boot == proc::boot_id() && proc::open(state.shim).is_some();
                    // Whoever holds the lock of a shim that is gone is a stranger to it.
                    return Ok(if same {
                        Life::Alive(state)
                    } else {
                        Life::Ended(Some(state), exit)
                    });
                }
                (true, None) if Instant::now() >= until => return Ok(Life::Mute),
                (true, None) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Whether a stop has been asked for.
    pub fn stopping(&self) -> Option<Stopping> {
        record::read(&self.path, record::STOPPING)
    }

    /// What is told of it.
    pub fn incarnation(&self, state: Option<&State>, stopping: bool) -> Incarnation {
        match state {
            Some(state) => Incarnation {
                id: self.id.clone(),
                spec: state.spec,
                pid: state.command.pid,
                started: state.started,
                stopping,
            },
            None => {
                let spec: Option<Spec> = record::read(&self.path, record::SPEC);
                let hash = spec.map_or(Hash([0; 32]), |spec| spec.spec);
                let made = fs::metadata(&self.path).and_then(|folder| folder.modified());
                let made = made.ok().and_then(|made| Timestamp::try_from(made).ok());
                Incarnation {
                    stopping,
                    started: made.unwrap_or(Timestamp::UNIX_EPOCH),
                    ..unknown_incarnation(&self.id, hash)
                }
            }
        }
    }

    /// Removes it. Only when it is not alive.
    pub fn remove(&self) -> Result<(), Fault> {
        absent(fs::remove_dir_all(&self.path))
            .map_err(|error| io_fault(&error, "cannot remove", &self.path))
    }

    /// Asked with a shared lock, which changes nothing and disturbs no other who asks.
    fn lock_is_held(&self) -> Result<bool, Fault> {
        let path = self.path.join(record::LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io_fault(&error, "cannot open", &path)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(io_fault(&error.into(), "cannot test the lock", &path)),
        }
    }
}

/// The number in an id, `NUMBER-RANDOM`; none if it is no id.
fn sequence(id: &str) -> Option<u64> {
    let (number, random) = id.split_once('-')?;
    let good = number.len() == 10
        && random.len() == 8
        && random.bytes().all(|byte| byte.is_ascii_hexdigit());
    number.parse().ok().filter(|_| good)
}

fn random() -> io::Result<u32> {
    let mut bytes = [0; 4];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

fn make(path: &Path, mode: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        // In a second step, since the agent's umask may take bits away from the first.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
    }
}

fn absent(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
