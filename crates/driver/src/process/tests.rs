//! Real processes under real shims: the example `shim` of this crate, which `cargo test` builds.

use super::*;

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use plumb_model::{
    Lineage, LogSpec, MachineName, OwnerName, PortName, ReleaseNumber, ResourceKind, RestartPolicy,
    RestartSpec, RunState, WorkspaceName,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::RunAs;
use crate::logs::{LogQuery, LogReader};

mod renames;
mod secrets;

const DEADLINE: Duration = Duration::from_secs(15);

fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < until, "no {what} within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spec(argv: &[&str]) -> ProcessSpec {
    ProcessSpec {
        limits: None,
        schedule: None,
        on_disconnect: None,
        secrets: Default::default(),
        toolchain: None,
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        env: BTreeMap::new(),
        workdir: None,
        user: None,
        ports: BTreeMap::new(),
        health: None,
        restart: RestartSpec {
            policy: RestartPolicy::Always,
            initial_ms: 1000,
            max_ms: 60_000,
        },
        stop: StopSpec {
            signal: 15,
            grace_ms: 10_000,
        },
        log: LogSpec {
            max_bytes: 1 << 20,
            keep: 2,
        },
        state: RunState::Running,
    }
}

fn shell(script: &str) -> ProcessSpec {
    spec(&["/bin/sh", "-c", script])
}

/// One slot on a machine of its own; whatever is alive at the end is killed.
struct Stage {
    data: tempfile::TempDir,
    address: Address,
    driver: ProcessDriver,
}

impl Stage {
    fn new() -> Self {
        Self::with("hello", RunAs::Agent)
    }

    fn with(owner: &str, run_as: RunAs) -> Self {
        let data = tempfile::tempdir().unwrap();
        let shim = std::env::current_exe().unwrap();
        let shim = shim.ancestors().nth(2).unwrap().join("examples/shim");
        assert!(
            shim.exists(),
            "run `cargo test -p plumb-driver`, which builds {shim:?}"
        );
        let host = Host {
            data: data.path().to_owned(),
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("test").unwrap(),
            run_as,
            shim: vec![shim.into()],
            secrets: crate::secrets::Secrets::default(),
        };
        Self {
            address: Address::new(
                &MachineName::new("m").unwrap(),
                &OwnerName::new(owner).unwrap(),
                ResourceKind::Process,
                "web/0",
            ),
            driver: ProcessDriver::new(host),
            data,
        }
    }

    fn act(&mut self, spec: Option<&ProcessSpec>, action: Action) -> Result<Observation, Fault> {
        let spec = spec.map(|spec| ResourceSpec::Process(spec.clone()));
        let target = Target {
            address: &self.address,
            spec: spec.as_ref(),
            release: Some(ReleaseNumber(7)),
        };
        self.driver.act(&[(target, action)]).pop().unwrap()
    }

    fn start(&mut self, spec: &ProcessSpec) -> Incarnation {
        match self.act(Some(spec), Action::Start) {
            Ok(Observation::Running(incarnation) | Observation::Exited(incarnation, _)) => {
                incarnation
            }
            other => panic!("not started: {other:?}"),
        }
    }

    fn observe(&mut self) -> Observation {
        self.look(None)
    }

    fn look(&mut self, spec: Option<&ProcessSpec>) -> Observation {
        let spec = spec.map(|spec| ResourceSpec::Process(spec.clone()));
        let target = Target {
            address: &self.address,
            spec: spec.as_ref(),
            release: None,
        };
        self.driver
            .observe(&[target], Depth::Full)
            .pop()
            .unwrap()
            .unwrap()
    }

    fn exit(&mut self) -> (Incarnation, ExitStatus) {
        wait_for("exit", || match self.observe() {
            Observation::Exited(incarnation, exit) => Some((incarnation, exit.status)),
            _ => None,
        })
    }

    fn slot(&self) -> Slot {
        Slot::of(
            self.data.path(),
            &self.address,
            &Places::load(self.data.path()).unwrap(),
        )
        .unwrap()
    }

    fn newest(&self) -> PathBuf {
        self.slot().incarnations().unwrap()[0].path.clone()
    }

    fn state(&self) -> State {
        record::read(&self.newest(), record::STATE).unwrap()
    }

    fn log(&self) -> Vec<String> {
        let mut reader = LogReader::open(&self.slot().log, LogQuery::default()).unwrap();
        std::iter::from_fn(|| reader.poll().unwrap())
            .map(|line| line.text)
            .collect()
    }

    /// A file in the private working directory, once it is written.
    fn written(&self, name: &str) -> String {
        let path = self.slot().path.join(folder::WORK).join(name);
        wait_for(name, || {
            fs::read_to_string(&path)
                .ok()
                .filter(|text| text.ends_with('\n'))
        })
    }

    fn number(&self, name: &str) -> u32 {
        self.written(name).trim().parse().unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for folder in self.slot().incarnations().unwrap_or_default() {
            if let Ok(Life::Alive(state)) = folder.life() {
                let _ = force(&folder, Some(&state));
            }
        }
        self.driver.reap();
    }
}

fn lives(pid: u32) -> bool {
    // A zombie does not; and one that is just becoming another program has no command line either, for a moment.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|line| {
        let after_name = line.rsplit(") ").next().unwrap_or_default();
        !after_name.starts_with(['Z', 'X'])
    })
}

/// A file of a process that is only empty while it becomes another program.
fn proc_text(pid: u32, file: &str) -> String {
    wait_for(file, || {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn gone(pid: u32) {
    wait_for("end of a process", || (!lives(pid)).then_some(()));
}

fn kill(process: ProcessId, signal: Signal) {
    pidfd_send_signal(proc::open(process).unwrap(), signal).unwrap();
}

#[test]
fn a_process_is_started_seen_stopped_and_removed() {
    let mut stage = Stage::new();
    assert_eq!(stage.observe(), Observation::Absent);
    let spec = shell("echo up; echo oops >&2; exec sleep 300");
    let started = stage.start(&spec);
    // While one program takes the place of another, there is no command line.
    wait_for("a process", || lives(started.pid).then_some(()));
    assert_eq!(started.spec, spec.incarnation_hash());
    assert_eq!(stage.observe(), Observation::Running(started.clone()));
    wait_for("output", || (stage.log().len() == 2).then_some(()));
    let refused = stage.act(None, Action::Remove).unwrap_err();
    assert_eq!(refused.reason, Reason::Working);

    let stopping = Incarnation {
        stopping: true,
        ..started.clone()
    };
    let stopped = stage.act(Some(&spec), Action::Stop).unwrap();
    assert!(
        matches!(stopped, Observation::Running(seen) | Observation::Exited(seen, _) if seen == stopping)
    );
    assert_eq!(stage.exit(), (stopping, ExitStatus::Signal(15)));
    assert!(!lives(started.pid));

    assert_eq!(stage.act(None, Action::Remove), Ok(Observation::Absent));
    assert_eq!(stage.observe(), Observation::Absent);
    let owner = |kind: &str| stage.data.path().join(kind).join("hello");
    assert!(!owner("processes").exists() && !owner("logs").exists());
}

#[test]
fn exit_status_and_signal_are_kept_and_only_the_newest_ended_incarnation_is() {
    let mut stage = Stage::new();
    let ends = [
        ("exit 3", ExitStatus::Code(3)),
        ("true", ExitStatus::Code(0)),
        ("kill -9 $$", ExitStatus::Signal(9)),
    ];
    for (script, status) in ends {
        stage.start(&shell(&format!("echo run; {script}")));
        assert_eq!(stage.exit().1, status, "{script}");
    }
    assert_eq!(stage.slot().incarnations().unwrap().len(), 2);
    assert_eq!(stage.log(), ["run"; 3]);
    // No shim is left as a zombie.
    stage.driver.reap();
    assert!(stage.driver.shims.is_empty());
}

/// Row 29. Mutation: leave the death signal out of `sys::detach`, or `kill_leftovers` out of `clear`.
#[test]
fn a_killed_shim_takes_its_command_along_and_the_next_start_sweeps_the_rest() {
    let mut stage = Stage::new();
    let script = "setsid sh -c 'echo $$ > child; exec sleep 300' & exec sleep 300";
    let first = stage.start(&shell(script));
    let grandchild = stage.number("child");
    kill(stage.state().shim, Signal::KILL);
    gone(first.pid);
    assert_eq!(stage.exit().1, ExitStatus::Unknown);
    // The same answer twice: the end that nobody saw has one time.
    assert_eq!(stage.observe(), stage.observe());
    assert!(lives(grandchild));
    let second = stage.start(&shell("exec sleep 300"));
    assert!(!lives(grandchild));
    assert!(second.id != first.id && lives(second.pid));
}

/// Mutation: leave the group's or the marks' KILL out of `Running::finish`.
#[test]
fn nothing_that_a_command_started_outlives_it() {
    let mut stage = Stage::new();
    let script = "setsid sh -c 'echo $$ > far; exec sleep 300' & env -i sh -c 'echo $$ > near; exec sleep 300' & \
         while [ ! -s far ] || [ ! -s near ]; do :; done";
    stage.start(&shell(script));
    let (far, near) = (stage.number("far"), stage.number("near"));
    assert_eq!(stage.exit().1, ExitStatus::Code(0));
    assert!(!lives(far) && !lives(near));
}

/// The lock and the shim's own identity both say so. Mutation: take the lock with a plain `dup` in
/// `shim::detach`, and do not ask in `Folder::life` whether the shim itself is there.
#[test]
fn a_process_that_escapes_does_not_hold_the_lock() {
    let mut stage = Stage::new();
    let script = "env -i setsid sh -c 'echo $$ > far; exec sleep 300' >/dev/null 2>&1 & \
         while [ ! -s far ]; do :; done";
    stage.start(&shell(script));
    let far = stage.number("far");
    assert_eq!(stage.exit().1, ExitStatus::Code(0));
    assert!(lives(far));
    kill(proc::identify(far).unwrap(), Signal::KILL);
}

/// Row 29. Mutation: let `clear` overlook `Life::Alive`.
#[test]
fn a_new_agent_takes_over_what_runs_and_never_starts_it_twice() {
    let mut stage = Stage::new();
    let spec = shell("i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done");
    let started = stage.start(&spec);
    stage.driver = ProcessDriver::new(stage.driver.host.clone());
    assert_eq!(stage.observe(), Observation::Running(started.clone()));
    let refused = stage.act(Some(&spec), Action::Start).unwrap_err();
    assert_eq!(refused.reason, Reason::Working);
    assert!(refused.message.contains(&started.pid.to_string()));
    // The log goes on without a gap.
    let length = stage.log().len();
    wait_for("more output", || {
        (stage.log().len() > length + 3).then_some(())
    });
    let expected: Vec<String> = (0..stage.log().len()).map(|i| i.to_string()).collect();
    assert_eq!(stage.log()[..length], expected[..length]);
    stage.act(Some(&spec), Action::Stop).unwrap();
    assert_eq!(stage.exit().0.pid, started.pid);
}

#[test]
fn a_command_that_ignores_its_stop_signal_is_killed_after_the_grace() {
    let mut stage = Stage::new();
    let mut spec = shell("trap '' TERM; echo ready; while :; do sleep 1; done");
    spec.stop.grace_ms = 300;
    stage.start(&spec);
    wait_for("trap", || (stage.log() == ["ready"]).then_some(()));
    let asked = Instant::now();
    stage.act(Some(&spec), Action::Stop).unwrap();
    assert!(
        asked.elapsed() < Duration::from_millis(200),
        "it must not wait"
    );
    assert_eq!(stage.exit().1, ExitStatus::Signal(9));
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

/// A removed process has no spec any more. Mutations: stop with the default; leave the note out of `look`.
#[test]
fn a_removed_process_is_stopped_as_its_last_spec_said_after_a_restart_of_the_agent_too() {
    let script = "trap 'exit 7' USR1; trap 'exit 8' USR2; trap '' TERM; echo ready; while :; do sleep 0.05; done";
    for (in_place, signal, code) in [(false, Signal::USR1, 7), (true, Signal::USR2, 8)] {
        let mut stage = Stage::new();
        let mut spec = shell(script);
        spec.stop.signal = Signal::USR1.as_raw();
        let started = stage.start(&spec);
        wait_for("traps", || (stage.log() == ["ready"]).then_some(()));
        spec.stop.signal = signal.as_raw();
        if in_place {
            let seen = stage.look(Some(&spec));
            assert_eq!(seen, Observation::Running(started), "no restart");
        }
        stage.driver = ProcessDriver::new(stage.driver.host.clone());
        stage.act(None, Action::Stop).unwrap();
        assert_eq!(stage.exit().1, ExitStatus::Code(code));
        assert_eq!(stage.act(None, Action::Remove), Ok(Observation::Absent));
    }
}

/// An agent that was started with signals ignored, as under nohup, must not hand that down.
/// Mutation: leave the loop over the signals out of `sys::detach`.
#[test]
fn every_signal_is_at_its_default_in_the_command() {
    let mut stage = Stage::new();
    let shim = stage.driver.host.shim[0].to_string_lossy().into_owned();
    let wrapper = format!("trap '' INT HUP QUIT CHLD; exec {shim} \"$@\"");
    stage.driver.host.shim = ["/bin/sh", "-c", &wrapper, "sh"].map(Into::into).to_vec();
    stage.start(&spec(&["cp", "/proc/self/status", "status"]));
    assert_eq!(stage.exit().1, ExitStatus::Code(0));
    let status = stage.written("status");
    for line in ["SigIgn:\t0000000000000000", "SigBlk:\t0000000000000000"] {
        assert!(status.contains(line), "{status}");
    }
}

#[test]
fn a_stuck_shim_is_forced_once_it_is_overdue() {
    let mut stage = Stage::new();
    let mut spec = shell("exec sleep 300");
    spec.stop.grace_ms = 0;
    let started = stage.start(&spec);
    kill(stage.state().shim, Signal::STOP);
    let stopping = stage.act(Some(&spec), Action::Stop).unwrap();
    assert!(matches!(stopping, Observation::Running(seen) if seen.stopping));
    assert!(lives(started.pid));
    let again = wait_for("escalation", || {
        match stage.act(Some(&spec), Action::Stop).unwrap() {
            Observation::Exited(_, exit) => Some(exit.status),
            _ => None,
        }
    });
    assert_eq!(again, ExitStatus::Unknown);
    assert!(!lives(started.pid));
}

#[test]
fn what_cannot_be_started_is_named_at_once_and_leaves_nothing_behind() {
    let mut stage = Stage::new();
    let missing = plumb_model::Hash::of(b"missing");
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let base = || shell("exec sleep 300");
    let cases: [(ProcessSpec, Reason, String); 6] = [
        (
            spec(&["no-such-program"]),
            Reason::CommandNotFound,
            "no-such-program".into(),
        ),
        (
            spec(&["/etc/passwd"]),
            Reason::CommandNotFound,
            "/etc/passwd".into(),
        ),
        (
            ProcessSpec {
                workdir: Some(plumb_model::spec::WorkDir {
                    of: Default::default(),
                    artifact: missing,
                    dir: String::new(),
                }),
                ..base()
            },
            Reason::ContentMissing,
            missing.short(),
        ),
        (
            ProcessSpec {
                user: Some("no-such-user".into()),
                ..base()
            },
            Reason::UnknownUser,
            "no-such-user".into(),
        ),
        (
            ProcessSpec {
                ports: [(PortName::new("http").unwrap(), port)].into(),
                ..base()
            },
            Reason::PortTaken,
            format!("port {port} (http) is held by "),
        ),
        (
            ProcessSpec {
                env: [("A=B".to_owned(), String::new())].into(),
                ..base()
            },
            Reason::BadContent,
            "A=B".into(),
        ),
    ];
    for (spec, reason, names) in cases {
        let asked = Instant::now();
        let fault = stage.act(Some(&spec), Action::Start).unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(2));
        assert_eq!(fault.reason, reason, "{fault}");
        assert!(fault.message.contains(&names), "{fault}");
        if reason == Reason::PortTaken {
            assert!(
                fault
                    .message
                    .contains(&format!("(process {})", std::process::id())),
                "{fault}"
            );
        }
        assert!(stage.slot().incarnations().unwrap().is_empty());
    }
    // A program that only the kernel refuses.
    let script = stage.data.path().join("broken");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let fault = stage
        .act(Some(&spec(&[script.to_str().unwrap()])), Action::Start)
        .unwrap_err();
    assert_eq!(fault.reason, Reason::CommandNotFound, "{fault}");
    assert!(stage.slot().incarnations().unwrap().is_empty());
    assert!(stage.driver.shims.is_empty());
}

/// Somebody else's process.
struct Stranger(Child);

impl Stranger {
    fn new() -> Self {
        let mut sleep = Command::new("sleep");
        sleep.arg("300").stdout(Stdio::null()).stderr(Stdio::null());
        Self(sleep.spawn().unwrap())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Row 29. Mutation: compare pids alone in `proc::open`.
#[test]
fn a_stranger_with_a_recorded_pid_is_neither_adopted_nor_killed() {
    let mut stage = Stage::new();
    stage.start(&shell("exit 0"));
    stage.exit();
    let stranger = Stranger::new();
    let id = proc::identify(stranger.0.id()).unwrap();
    let reused = ProcessId {
        ticks: id.ticks - 1,
        ..id
    };
    let folder = stage.newest();
    let state = State {
        shim: reused,
        command: reused,
        ..stage.state()
    };
    record::write(&folder, record::STATE, &state).unwrap();
    fs::remove_file(folder.join(record::EXIT)).unwrap();
    let watch = ExitWatch::new(&stage.driver.host);
    for held in [false, true] {
        // With the lock held by somebody, too.
        let lock = File::open(folder.join(record::LOCK)).unwrap();
        if held {
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
        }
        assert_eq!(stage.exit().1, ExitStatus::Unknown);
        assert!(
            watch
                .pidfd(&stage.address, &state.incarnation)
                .unwrap()
                .is_none()
        );
        stage.act(None, Action::Stop).unwrap();
    }
    let next = stage.start(&shell("exec sleep 300"));
    assert!(next.id != state.incarnation && lives(next.pid));
    assert!(lives(stranger.0.id()), "a stranger was killed");
}

#[test]
fn what_ran_before_a_reboot_has_ended_unseen() {
    let mut stage = Stage::new();
    stage.start(&shell("exit 0"));
    stage.exit();
    let folder = stage.newest();
    let own = proc::identify(std::process::id()).unwrap();
    let state = State {
        shim: own,
        boot: "another".into(),
        ..stage.state()
    };
    record::write(&folder, record::STATE, &state).unwrap();
    fs::remove_file(folder.join(record::EXIT)).unwrap();
    let lock = File::open(folder.join(record::LOCK)).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(stage.exit().1, ExitStatus::Unknown);
}

/// Rows 6 and 34. Mutation: leave `env_clear` out of `shim::spawn`, or pass values through a shell.
#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let mut stage = Stage::new();
    let shim = stage.driver.host.shim[0].to_string_lossy().into_owned();
    let wrapper = format!("export LEAK=1; exec {shim} \"$@\"");
    stage.driver.host.shim = ["/bin/sh", "-c", &wrapper, "sh"].map(Into::into).to_vec();
    let mut spec = spec(&["cp", "/proc/self/environ", "environ"]);
    let odd = "two\nlines %n $(touch /tmp/x) \"'\\ ä\n";
    for (name, value) in [
        ("ODD", odd),
        ("REL", "r${release}"),
        ("LITERAL", "$${release}"),
        ("PLUMB_INCARNATION", "forged"),
        ("LAST", "\n"),
    ] {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    let started = stage.start(&spec);
    assert_eq!(stage.exit().1, ExitStatus::Code(0));
    let work = stage.slot().path.join(folder::WORK);
    let environ = fs::read(work.join("environ")).unwrap();
    let found: BTreeMap<String, String> = environ
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (name, value) = std::str::from_utf8(entry).unwrap().split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let person = users::resolve(
        &stage.driver.host,
        &users::app_user(&stage.address.owner),
        None,
    )
    .unwrap();
    let home = person.home.unwrap_or(work);
    let expected = [
        ("HOME", home.to_str().unwrap()),
        ("LAST", "\n"),
        ("LITERAL", "${release}"),
        ("LOGNAME", &person.name),
        ("ODD", odd),
        ("PATH", &std::env::var("PATH").unwrap()),
        ("PLUMB_INCARNATION", &started.id),
        ("REL", "r7"),
        ("SHELL", &person.shell),
        ("USER", &person.name),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(found, BTreeMap::from(expected));
}

/// Row 34. Mutation: leave `env_clear` out of `start::launch`, hand the spec over as arguments, or take the
/// lock with a plain `dup` in `shim::detach`.
#[test]
fn a_shim_shows_no_value_on_its_command_line_and_inherits_nothing() {
    let mut stage = Stage::new();
    let mut spec = shell("exec sleep 300");
    spec.env.insert("TOKEN".into(), "canary-5b1e".into());
    let started = stage.start(&spec);
    let shim = stage.state().shim.pid;
    let read = |name: &str| fs::read(format!("/proc/{shim}/{name}")).unwrap();
    assert_eq!(read("environ"), b"");
    assert!(
        !String::from_utf8(read("cmdline"))
            .unwrap()
            .contains("canary")
    );
    let mut open: Vec<PathBuf> = fs::read_dir(format!("/proc/{}/fd", started.pid))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    open.retain(|to| !to.to_string_lossy().starts_with("pipe:"));
    assert_eq!(open, [PathBuf::from("/dev/null")]);
    let modes = [
        (stage.newest(), 0o700),
        (stage.newest().join(record::SPEC), 0o600),
    ];
    for (path, mode) in modes {
        let found =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(found & 0o777, mode, "{path:?}");
    }
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(shim as i32)).unwrap();
    assert_eq!(session.as_raw_pid(), shim as i32);
}

#[test]
fn an_exit_is_told_through_a_descriptor_when_it_is_recorded() {
    let mut stage = Stage::new();
    let started = stage.start(&shell("exec sleep 300"));
    let watch = ExitWatch::new(&stage.driver.host);
    let pidfd = watch.pidfd(&stage.address, &started.id).unwrap().unwrap();
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    assert_eq!(
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0
            })
        ),
        Ok(0)
    );
    kill(stage.state().command, Signal::KILL);
    assert_eq!(
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 15,
                tv_nsec: 0
            })
        ),
        Ok(1)
    );
    assert!(
        matches!(stage.observe(), Observation::Exited(seen, exit) if seen == started && exit.status == ExitStatus::Signal(9))
    );
    assert!(watch.pidfd(&stage.address, &started.id).unwrap().is_none());
}

/// Removes a user that a test made.
struct Made(String);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = Command::new("userdel")
            .arg(&self.0)
            .stderr(Stdio::null())
            .status();
    }
}

/// Needs root; without it there is nothing to switch to.
#[test]
fn a_root_agent_runs_each_app_as_a_user_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let owner = format!("test-{}", std::process::id());
    let mut stage = Stage::with(&owner, RunAs::AppUsers);
    let _made = Made(format!("plumb-{owner}"));
    stage.start(&shell("cp /proc/self/status status; id -un > name; echo $HOME > home; echo x > work; cat /etc/shadow"));
    assert_eq!(stage.exit().1, ExitStatus::Code(1), "{:?}", stage.log());
    assert_eq!(stage.written("name"), format!("plumb-{owner}\n"));
    let status = stage.written("status");
    assert!(
        status.contains("NoNewPrivs:\t1") && status.contains("CapEff:\t0000000000000000"),
        "{status}"
    );
    assert!(
        !status.contains("Uid:\t0") && !status.contains("Groups:\t0"),
        "{status}"
    );
    let work = stage.slot().path.join(folder::WORK);
    assert_eq!(stage.written("home").trim(), work.to_str().unwrap());
    // Both its own again and another's: the folder follows.
    let mut other = shell("id -un > other");
    other.user = Some("nobody".into());
    stage.start(&other);
    assert_eq!(stage.exit().1, ExitStatus::Code(0), "{:?}", stage.log());
    assert_eq!(stage.written("other"), "nobody\n");
}
