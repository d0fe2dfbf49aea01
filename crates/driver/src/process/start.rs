//! Starting an incarnation: everything that can be known to fail is checked first, so that the fault names
//! it; then the folder is made and the shim is started and heard.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plumb_model::condition::Reason;
use plumb_model::{Fault, ProcessSpec, ReleaseNumber, Secret};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, Mode, flock, mkfifoat};

use super::folder::{Folder, Slot};
use super::secrets::HandedOver;
use super::users::Person;
use super::{command, io_fault, kill_leftovers, ports, users};
use crate::host::Host;
use crate::shim::record::{self, Log, PROTOCOL, PROTOCOL_WITH_SECRETS, Spec};
use zeroize::Zeroizing;

/// How long a shim may take to start its command and say so.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Longer answers and error texts are cut, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// Starts the next incarnation of a slot of which nothing is alive, and returns its shim. `user` is the system user of the
/// app, where each has its own.
pub fn start(
    host: &Host,
    slot: &Slot,
    user: &str,
    release: Option<ReleaseNumber>,
    spec: &ProcessSpec,
) -> Result<Child, Fault> {
    let person = users::resolve(host, user, spec.user.as_deref())?;
    let artifact = match &spec.workdir {
        Some(workdir) => Some(command::workdir(&host.data, workdir)?),
        None => None,
    };
    ports::check(&spec.ports)?;
    let folder = slot.next()?;
    let started = super::secrets::hand_over(host, slot, &person, spec).and_then(|handed| {
        let lock = prepare(slot, &folder, &person, artifact, release, spec, &handed)?;
        launch(host, &folder, lock, &handed.secret)
    });
    if started.is_err() {
        // What it could not start must not be taken for something that ran.
        folder.remove()?;
    }
    started
}

/// Writes everything that the shim needs, and takes the lock that it will hold.
fn prepare(
    slot: &Slot,
    folder: &Folder,
    person: &Person,
    artifact: Option<std::path::PathBuf>,
    release: Option<ReleaseNumber>,
    spec: &ProcessSpec,
    handed: &HandedOver,
) -> Result<File, Fault> {
    let (cwd, home) = match (artifact, person.home.clone()) {
        (Some(cwd), Some(home)) => (cwd, home),
        (cwd, home) => {
            let work = private(slot, person)?;
            (cwd.unwrap_or_else(|| work.clone()), home.unwrap_or(work))
        }
    };
    let mut env = command::environment(spec, release, person, &home, &folder.id)?;
    env.extend(handed.paths.clone());
    let name = spec.argv.first().map_or("", String::as_str);
    let path = env.get("PATH").map_or("", String::as_str);
    let program = command::program(name, path, &cwd)?;
    if spec.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(Fault::new(
            Reason::BadContent,
            "an argument of the command has a NUL in it",
        ));
    }
    slot.make_log_folder()?;
    let told = Spec {
        protocol: if handed.secret.is_empty() {
            PROTOCOL
        } else {
            PROTOCOL_WITH_SECRETS
        },
        incarnation: folder.id.clone(),
        spec: spec.incarnation_hash(),
        program,
        argv: spec.argv.clone(),
        env,
        secrets: !handed.secret.is_empty(),
        cwd,
        user: person.switch.clone(),
        log: Log {
            path: slot.log.clone(),
            max_bytes: spec.log.max_bytes,
            keep: spec.log.keep,
        },
    };
    let fail = |error: io::Error| io_fault(&error, "cannot write in", &folder.path);
    record::write(&folder.path, record::SPEC, &told).map_err(fail)?;
    record::write(&folder.path, record::STOP, &spec.stop).map_err(fail)?;
    let control = folder.path.join(record::CONTROL);
    mkfifoat(rustix::fs::CWD, &control, Mode::RUSR | Mode::WUSR)
        .map_err(|error| fail(error.into()))?;
    let lock = fresh(&folder.path.join(record::LOCK)).map_err(fail)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| fail(error.into()))?;
    Ok(lock)
}

/// The slot's private folder, belonging to whom the process runs as.
fn private(slot: &Slot, person: &Person) -> Result<std::path::PathBuf, Fault> {
    let work = slot.work()?;
    if let Some(user) = &person.switch {
        let fail = |error: io::Error| io_fault(&error, "cannot give away", &work);
        let owner = fs::symlink_metadata(&work).map_err(fail)?;
        if owner.uid() != user.uid || owner.gid() != user.gid {
            std::os::unix::fs::lchown(&work, Some(user.uid), Some(user.gid)).map_err(fail)?;
        }
    }
    Ok(work)
}

/// Starts the shim and hears what it says.
fn launch(
    host: &Host,
    folder: &Folder,
    lock: File,
    secrets: &BTreeMap<String, Secret>,
) -> Result<Child, Fault> {
    let fail = |error: io::Error| io_fault(&error, "cannot start the shim of", &folder.path);
    let Some((program, arguments)) = host.shim.split_first() else {
        let message = "the agent was given no command for the shim: a defect of plumb";
        return Err(Fault::new(Reason::Io, message));
    };
    let (mut answer, theirs) = UnixStream::pair().map_err(fail)?;
    let errors = fresh(&folder.path.join(record::ERRORS)).map_err(fail)?;
    // The lock and the pipe travel as standard streams: every other descriptor of the agent closes on exec.
    let mut shim = Command::new(program)
        .args(arguments)
        .arg(&folder.path)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(lock))
        .stdout(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(fail)?;
    // Whether it took them shows in what it answers.
    if !secrets.is_empty() && tell(&mut answer, secrets).is_err() {
        tracing::debug!(incarnation = %folder.id, "the shim did not take its secrets");
    }
    let heard = hear(answer.into());
    if heard.starts_with("ok ") {
        return Ok(shim);
    }
    // Either it has failed and is ending, or it hangs and must not go on.
    let _ = shim.kill();
    let _ = shim.wait();
    kill_leftovers(&[folder.id.clone()].into())?;
    let mut words = heard.trim_end().splitn(3, ' ');
    if let (Some("err"), Some(reason), Some(message)) = (words.next(), words.next(), words.next()) {
        let reason = serde_json::from_str(&format!("{reason:?}")).unwrap_or(Reason::Io);
        return Err(Fault::new(reason, message));
    }
    let said = said(&folder.path.join(record::ERRORS));
    let message = format!("its shim did not start within {ANSWER_WAIT:?}: {said}");
    Err(Fault::new(Reason::Io, message))
}

/// Hands secrets over, as the shim reads them.
fn tell(shim: &mut UnixStream, secrets: &BTreeMap<String, Secret>) -> io::Result<()> {
    let all: BTreeMap<&str, &str> = secrets
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose()))
        .collect();
    let bytes = Zeroizing::new(serde_json::to_vec(&all)?);
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    shim.set_write_timeout(Some(ANSWER_WAIT))?;
    shim.write_all(&length.to_le_bytes())?;
    shim.write_all(&bytes)
}

/// Reads the one line of an answer, as much of it as comes in time.
fn hear(answer: OwnedFd) -> String {
    let until = Instant::now() + ANSWER_WAIT;
    let mut heard = Vec::new();
    let mut answer = File::from(answer);
    while heard.last() != Some(&b'\n') && heard.len() < MAX_ANSWER_BYTES {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let mut fds = [PollFd::from_borrowed_fd(answer.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) => break,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => break,
        }
        let mut chunk = [0; 1024];
        match answer.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(length) => heard.extend_from_slice(&chunk[..length]),
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}

/// What a shim left in its error file, on one line.
fn said(errors: &Path) -> String {
    let text = fs::read(errors).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[..text.len().min(MAX_ANSWER_BYTES)]);
    let text = text.trim();
    if text.is_empty() {
        return "it said nothing".to_owned();
    }
    plumb_model::escape::line(&text.replace('\n', "; ")).into_owned()
}

fn fresh(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
