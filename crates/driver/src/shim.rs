//! The shim: the parent of one incarnation of one process. It starts the command, keeps its output and its
//! exit status, and ends it when told to. It decides nothing, knows nothing of blueprints or of the network,
//! and outlives the agent. `plumb shim DIR`, which only the process driver starts, calls [`run`].
//!
//! Flow: the driver prepares the folder described in [`record`] and starts the shim with the locked `lock` as
//! standard input, a socket for the answer as standard output and `shim.err` as standard error. The shim
//! detaches, reads the secrets from that socket if the spec announces some, starts the command, writes `state.json`, answers `ok PID` or `err REASON MESSAGE`, and waits.
//!
//! Guarantees: the lock is held exactly while the shim lives; the command dies with the shim; when the shim
//! ends by itself, `exit.json` is there and nothing that bears the incarnation's mark is alive any more.
//!
//! Caveat: a process that leaves the command's group and clears its own environment escapes.

pub mod log;
pub mod record;
#[allow(
    unsafe_code,
    reason = "setting a child up between fork and exec, and signalling a group, need raw system calls"
)]
mod sys;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use plumb_model::condition::Reason;
use plumb_model::observation::ExitStatus;
use plumb_model::{Fault, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::process::proc;
use log::{LogWriter, Stream};
use record::{Ended, PROTOCOL, PROTOCOL_WITH_SECRETS, ProcessId, Spec, State};
use zeroize::Zeroizing;

/// How long the output is read on after the command has ended, for what is still in the pipes. Only somebody
/// who escaped the sweep can hold them open for longer.
const DRAIN: Duration = Duration::from_millis(500);

/// How long marked leftovers are hunted: each pass kills what the one before could not see yet.
const SWEEP: Duration = Duration::from_secs(2);

/// So much is read from an output at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Runs the incarnation that the folder describes, to its end. Returns a failure if it could not be started,
/// having told the driver why.
pub fn run(incarnation: &Path) -> ExitCode {
    let (lock, mut answer) = match detach(incarnation) {
        Ok(held) => held,
        Err(error) => {
            eprintln!("plumb shim: {}: {error}", incarnation.display());
            return ExitCode::FAILURE;
        }
    };
    // If the driver has gone away meanwhile, the next one finds the answer in the state file.
    let code = match Running::start(incarnation, &mut answer) {
        Ok(running) => {
            let _ = writeln!(answer, "ok {}", running.command.pid);
            drop(answer);
            running.attend()
        }
        Err(fault) => {
            let reason = serde_json::to_string(&fault.reason).unwrap_or_default();
            let message = fault.message.replace('\n', " ");
            let _ = writeln!(answer, "err {} {message}", reason.trim_matches('"'));
            ExitCode::FAILURE
        }
    };
    // The kernel lets the lock go, as the very last thing.
    std::mem::forget(lock);
    code
}

/// Leaves the agent's session, and takes the lock and the answer's pipe out of the way of the command.
fn detach(incarnation: &Path) -> io::Result<(OwnedFd, File)> {
    sys::close_from(3)?;
    sys::restore_child_signal();
    let given = rustix::fs::fstat(io::stdin())?;
    let lock = std::fs::symlink_metadata(incarnation.join(record::LOCK))?;
    if given.st_ino != lock.ino() || given.st_dev != lock.dev() {
        return Err(io::Error::other(
            "standard input is not the incarnation's lock: a shim is started by the agent, never by hand",
        ));
    }
    let lock = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let answer = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Refused only if it leads a session already, which is as good.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"plumb-shim");
    Ok((lock, answer.into()))
}

/// One incarnation whose command runs.
struct Running<'a> {
    folder: &'a Path,
    incarnation: String,
    child: Child,
    pidfd: OwnedFd,
    command: ProcessId,
    out: Option<File>,
    err: Option<File>,
    control: File,
    control_line: Vec<u8>,
    log: LogWriter,
    kill_at: Option<Instant>,
}

fn fault(reason: Reason, error: &io::Error, what: &str) -> Fault {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::DiskFull,
        io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
        _ => reason,
    };
    Fault::new(reason, format!("{what}: {error}"))
}

impl<'a> Running<'a> {
    fn start(folder: &'a Path, driver: &mut File) -> Result<Self, Fault> {
        let spec: Spec = record::read(folder, record::SPEC)
            .ok_or_else(|| Fault::new(Reason::Io, "the shim cannot read its spec.json"))?;
        let known = if spec.secrets {
            PROTOCOL_WITH_SECRETS
        } else {
            PROTOCOL
        };
        if spec.protocol != known {
            let message = format!(
                "the shim speaks protocol {known}, the agent {}: they are of different versions of plumb",
                spec.protocol
            );
            return Err(Fault::new(Reason::LacksCapability, message));
        }
        let control = File::options()
            .read(true)
            .write(true)
            .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
            .open(folder.join(record::CONTROL))
            .map_err(|error| fault(Reason::Io, &error, "the shim cannot open its control FIFO"))?;
        let log = LogWriter::open(spec.log.clone());
        let started = Timestamp::now();
        let secrets = if spec.secrets {
            read_secrets(driver)
                .map_err(|error| fault(Reason::Io, &error, "the shim was not handed its secrets"))?
        } else {
            Secrets::default()
        };
        let mut child = spawn(&spec, &secrets)?;
        drop(secrets);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let command = proc::identify(child.id());
        let pidfd = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let written = command.zip(pidfd).map(|(command, pidfd)| {
            let state = State {
                protocol: PROTOCOL,
                incarnation: spec.incarnation.clone(),
                spec: spec.spec,
                shim: proc::identify(std::process::id()).unwrap_or(ProcessId { pid: 0, ticks: 0 }),
                command,
                boot: proc::boot_id(),
                started,
            };
            record::write(folder, record::STATE, &state).map(|()| (command, pidfd))
        });
        let (command, pidfd) = match written {
            Some(Ok(open)) => open,
            failed => {
                // A command that nobody could find again must not run.
                let _ = sys::signal_group(child.id(), Signal::KILL.as_raw());
                let _ = child.wait();
                let error = failed
                    .and_then(Result::err)
                    .unwrap_or_else(|| io::Error::other("/proc or pidfd_open does not work"));
                return Err(fault(
                    Reason::Io,
                    &error,
                    "the shim cannot record its state",
                ));
            }
        };
        Ok(Self {
            folder,
            incarnation: spec.incarnation,
            child,
            pidfd,
            command,
            out: out.map(|pipe| OwnedFd::from(pipe).into()),
            err: err.map(|pipe| OwnedFd::from(pipe).into()),
            control,
            control_line: Vec::new(),
            log,
            kill_at: None,
        })
    }

    /// Waits for whatever comes first: output, an order, a deadline or the end.
    fn attend(mut self) -> ExitCode {
        loop {
            let now = Instant::now();
            if self.kill_at.is_some_and(|at| now >= at) {
                self.kill_at = None;
                let _ = sys::signal_group(self.command.pid, Signal::KILL.as_raw());
            }
            self.log.tick(Timestamp::now(), now);
            let deadline = [self.kill_at, self.log.deadline()]
                .into_iter()
                .flatten()
                .min();
            let ready = self.wait(deadline, true);
            self.read_outputs(&ready);
            if ready.control {
                self.obey();
            }
            if ready.ended {
                return self.finish();
            }
        }
    }

    /// Waits until something is ready or the deadline has come; without a deadline it wakes for nothing else.
    fn wait(&self, deadline: Option<Instant>, all: bool) -> Ready {
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        let mut fds = Vec::with_capacity(4);
        let outputs = [&self.out, &self.err];
        for output in outputs.into_iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN));
        }
        if all {
            fds.push(PollFd::from_borrowed_fd(
                self.control.as_fd(),
                PollFlags::IN,
            ));
            fds.push(PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN));
        }
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Ready::default();
        }
        let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || answers.next().unwrap_or(false);
        Ready {
            out: self.out.is_some() && next(),
            err: self.err.is_some() && next(),
            control: all && next(),
            ended: all && next(),
        }
    }

    fn read_outputs(&mut self, ready: &Ready) {
        let outputs = [
            (Stream::Out, &mut self.out, ready.out),
            (Stream::Err, &mut self.err, ready.err),
        ];
        for (stream, output, ready) in outputs {
            let Some(file) = output.as_mut().filter(|_| ready) else {
                continue;
            };
            let mut chunk = [0; CHUNK_BYTES];
            match file.read(&mut chunk) {
                Ok(0) => {
                    *output = None;
                    self.log.close(stream, Timestamp::now());
                }
                Ok(length) => {
                    let read = &chunk[..length];
                    self.log
                        .feed(stream, read, Timestamp::now(), Instant::now());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => *output = None,
            }
        }
    }

    /// Reads orders: `stop SIGNAL GRACE_MS` and `signal N`. Anything else is somebody else's mistake, and ignored.
    fn obey(&mut self) {
        let mut chunk = [0; 256];
        let Ok(length) = self.control.read(&mut chunk) else {
            return;
        };
        for byte in &chunk[..length] {
            if *byte != b'\n' {
                // No order is this long.
                if self.control_line.len() < chunk.len() {
                    self.control_line.push(*byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.control_line);
            let line = String::from_utf8_lossy(&line);
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["stop", signal, grace] => {
                    if let (Ok(signal), Ok(grace)) = (signal.parse(), grace.parse()) {
                        self.stop(signal, Duration::from_millis(grace));
                    }
                }
                ["signal", signal] => {
                    if let Some(signal) = signal.parse().ok().and_then(Signal::from_named_raw) {
                        let _ = pidfd_send_signal(&self.pidfd, signal);
                    }
                }
                _ => {}
            }
        }
    }

    /// The first order sends the signal; a further one can only shorten the grace.
    fn stop(&mut self, signal: i32, grace: Duration) {
        let kill_at = Instant::now().checked_add(grace);
        match (self.kill_at, kill_at) {
            (Some(earlier), Some(later)) => self.kill_at = Some(earlier.min(later)),
            (None, kill_at) => {
                let _ = sys::signal_group(self.command.pid, signal);
                self.kill_at = kill_at;
            }
            (Some(_), None) => {}
        }
    }

    /// Ends what the command left behind, keeps the rest of its output, and records how it ended.
    fn finish(mut self) -> ExitCode {
        let at = Timestamp::now();
        // Before it is reaped: until then its number, which is its group's, cannot go to another.
        let _ = sys::signal_group(self.command.pid, Signal::KILL.as_raw());
        let status = match self.child.wait() {
            Ok(status) => status
                .code()
                .map(ExitStatus::Code)
                .or(status.signal().map(ExitStatus::Signal))
                .unwrap_or(ExitStatus::Unknown),
            Err(_) => ExitStatus::Unknown,
        };
        let marks = BTreeSet::from([std::mem::take(&mut self.incarnation)]);
        let until = Instant::now() + SWEEP;
        while proc::kill_marked(&marks) > 0 && Instant::now() < until {
            // What was killed takes a moment to vanish, and its output is wanted meanwhile.
            let ready = self.wait(Some(Instant::now() + Duration::from_millis(5)), false);
            self.read_outputs(&ready);
        }
        let until = Instant::now() + DRAIN;
        while (self.out.is_some() || self.err.is_some()) && Instant::now() < until {
            let ready = self.wait(Some(until), false);
            self.read_outputs(&ready);
        }
        for stream in [Stream::Out, Stream::Err] {
            self.log.close(stream, Timestamp::now());
        }
        if let Err(error) = record::write(self.folder, record::EXIT, &Ended { status, at }) {
            eprintln!("plumb shim: exit status {status:?} could not be recorded: {error}");
            return ExitCode::FAILURE;
        }
        ExitCode::SUCCESS
    }
}

/// What a wait found.
#[derive(Default)]
struct Ready {
    out: bool,
    err: bool,
    control: bool,
    ended: bool,
}

/// Variables with their secret values, which are wiped when they are dropped.
type Secrets = BTreeMap<String, Zeroizing<String>>;

/// Reads what the driver hands over apart from the spec.
fn read_secrets(driver: &mut File) -> io::Result<Secrets> {
    let mut length = [0; 4];
    driver.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > record::MAX_SECRETS_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Zeroizing::new(vec![0; length]);
    driver.read_exact(&mut bytes)?;
    let all: BTreeMap<String, String> =
        serde_json::from_slice(&bytes).map_err(|_| io::ErrorKind::InvalidData)?;
    let all = all.into_iter();
    Ok(all.map(|(k, v)| (k, Zeroizing::new(v))).collect())
}

fn spawn(spec: &Spec, secrets: &Secrets) -> Result<Child, Fault> {
    let name = spec.argv.first().map_or("", String::as_str);
    if !std::fs::metadata(&spec.cwd).is_ok_and(|cwd| cwd.is_dir()) {
        let message = format!("the working directory {} is missing", spec.cwd.display());
        return Err(Fault::new(Reason::BadPath, message));
    }
    let mut command = Command::new(&spec.program);
    command
        .arg0(name)
        .args(spec.argv.iter().skip(1))
        .env_clear()
        .envs(&spec.env)
        .envs(secrets.iter().map(|(name, value)| (name, value.as_str())))
        .current_dir(&spec.cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    sys::detach(&mut command, spec.user.as_ref());
    command.spawn().map_err(|error| {
        let (reason, what) = match error.raw_os_error() {
            Some(libc::ENOENT | libc::EACCES | libc::ENOEXEC | libc::ENOTDIR | libc::ELOOP) => (
                Reason::CommandNotFound,
                format!("{} cannot be executed", spec.program.display()),
            ),
            Some(libc::EPERM) => (
                Reason::PermissionDenied,
                format!("{name} cannot be started as its user"),
            ),
            _ => (Reason::Io, format!("{name} cannot be started")),
        };
        fault(reason, &error, &what)
    })
}
