//! A standing pair for one test: `plumb server` and `plumb agent` as processes of their own, on folders and ports of
//! their own, with a blueprint repository, and everything that was started gone at the end.
//!
//! It kills only what names the test's own folder on its command line, by process id. What the pair writes to its
//! logs, and what commands print, is searched for every token at the end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take that has no deadline of its own: far more than it needs, since tests share the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks again and again until there is an answer.
///
/// # Panics
/// When there is none within the deadline.
pub fn wait<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Signals a process by its id.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(i32::try_from(pid).unwrap_or(0)) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs: neither gone nor a zombie.
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        !matches!(state, Some("Z" | "X") | None)
    })
}

/// The most memory that a process has ever held, in bytes.
pub fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let number = line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// A TCP port that no other test of this machine is given meanwhile. Below those that Linux and the planner hand out.
#[derive(Debug)]
pub struct Port {
    /// Its number.
    pub number: u16,
    _held: File,
}

impl Port {
    /// Takes a free one.
    ///
    /// # Panics
    /// When there is none.
    pub fn take() -> Self {
        let folder = std::env::temp_dir().join("plumb-tests-ports");
        fs::create_dir_all(&folder).expect("a folder for the locks of ports");
        let first = std::process::id() % 8000;
        for step in 0..8000 {
            let number = 11_000 + u16::try_from((first + step * 7) % 8000).unwrap_or(0);
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(folder.join(number.to_string()))
                .expect("the lock of a port");
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
                && TcpListener::bind(("127.0.0.1", number)).is_ok()
            {
                return Self {
                    number,
                    _held: file,
                };
            }
        }
        panic!("no free port");
    }
}

/// What a command left.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; none if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// Its standard output, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// Its one line on standard error, if it failed with exactly that.
    ///
    /// # Panics
    /// If it did not, or said more.
    #[track_caller]
    pub fn one_line(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        let line = self.err.trim_end().to_owned();
        assert!(
            line.starts_with("error: ") && !line.contains('\n'),
            "{line}"
        );
        line
    }
}

/// A server or an agent.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Daemon {
    fn start(command: &mut Command, logs: &Path, name: &str) -> Self {
        let number = (0..)
            .find(|n| !logs.join(format!("{name}.{n}.out")).exists())
            .unwrap_or(0);
        let (out, err) = (
            logs.join(format!("{name}.{number}.out")),
            logs.join(format!("{name}.{number}.err")),
        );
        let file = |path: &Path| File::create(path).expect("a log of the test");
        let child = command
            .stdin(Stdio::null())
            .stdout(file(&out))
            .stderr(file(&err))
            .spawn()
            .expect("plumb starts");
        Self { child, out, err }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// What it has printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the child is ours")
    }

    /// Kills it at once.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits.
    pub fn end(mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        wait("a daemon ends on TERM", Duration::from_secs(12), || {
            self.ended()
        })
    }

    fn ready(mut self, sign: &str) -> Self {
        wait(&format!("{sign:?} is printed"), PATIENCE, || {
            if let Some(status) = self.ended() {
                panic!("ended with {status}: {}", self.log());
            }
            self.printed().contains(sign).then_some(())
        });
        self
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Pair {
    folder: tempfile::TempDir,
    /// Where the control plane listens.
    pub port: Port,
    /// The control plane, while it lives.
    pub server: Option<Daemon>,
    /// The agent, while it lives.
    pub agent: Option<Daemon>,
    /// More arguments of the agent.
    pub agent_arguments: Vec<String>,
    /// More arguments of the control plane.
    pub server_arguments: Vec<String>,
    /// How much the two log.
    pub log_level: &'static str,
    /// Which of the host's addresses the control plane listens on.
    pub listen_on: &'static str,
    secrets: Mutex<Vec<String>>,
    said: Mutex<String>,
}

impl Pair {
    /// Folders and a port; nothing runs yet. The repository has a manifest and the machine `local`.
    ///
    /// # Panics
    /// When the folders cannot be made, as everything here when the test cannot go on.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("plumb-pair-")
            .tempdir()
            .expect("a folder");
        // Apps may run as other users, who have to get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let pair = Self {
            folder,
            port: Port::take(),
            server: None,
            agent: None,
            agent_arguments: vec!["--run-as".to_owned(), "agent".to_owned()],
            server_arguments: Vec::new(),
            log_level: "info",
            listen_on: "127.0.0.1",
            secrets: Mutex::default(),
            said: Mutex::default(),
        };
        for name in ["repo", "logs", "managed"] {
            fs::create_dir(pair.path(name)).expect("a folder");
        }
        pair.write(
            "plumb.yaml",
            "kind: Workspace\nname: main\n---\nkind: Machine\nname: local\n",
        );
        pair
    }

    /// A pair that runs and is joined.
    pub fn started() -> Self {
        let mut pair = Self::new();
        pair.start_server();
        pair.join();
        pair
    }

    /// A path in the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the repository.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path("repo").join(path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("a folder of the repository");
        }
        fs::write(path, text).expect("a file of the repository");
    }

    /// Declares the app `app` that runs the test's own program with these arguments, with more keys.
    pub fn write_app(&self, arguments: &[&str], more: &str) {
        let mut run = vec![
            crate::plumb()
                .with_file_name("standing-app")
                .display()
                .to_string(),
        ];
        run.extend(arguments.iter().map(|a| (*a).to_owned()));
        // Without an argument of its own it would not name the test's folder, by which its end is made sure.
        run.extend([
            "--lock".to_owned(),
            self.path("alone").display().to_string(),
        ]);
        let run = serde_json::to_string(&run).expect("texts are JSON");
        self.write(
            "app.yaml",
            format!("kind: App\nname: app\nmachines: local\nrun: {run}\n{more}"),
        );
    }

    /// Whether two instances of the app ever lived at once.
    pub fn was_doubled(&self) -> bool {
        self.path("alone.double").exists()
    }

    /// `plumb`, with the test's folders for its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new(crate::plumb());
        command
            .current_dir(self.path("repo"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("PLUMB_LOG", self.log_level)
            .env_remove("PLUMB_CONTEXT")
            .env_remove("PLUMB_JOIN_TOKEN")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> Outcome {
        let output = command.output().expect("plumb runs");
        let outcome = Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        let mut said = self.said.lock().expect("no test panics with it held");
        said.push_str(&outcome.out);
        said.push_str(&outcome.err);
        outcome
    }

    /// Runs `plumb` with these arguments.
    pub fn plumb(&self, arguments: &[&str]) -> Outcome {
        self.run(self.command().args(arguments))
    }

    /// `plumb apply` to its end.
    #[track_caller]
    pub fn apply(&self) -> String {
        self.plumb(&["apply", "--yes", "--allow", "deletes,empty"])
            .good()
    }

    /// `plumb apply --detach`.
    #[track_caller]
    pub fn apply_detached(&self) -> String {
        self.plumb(&["apply", "--yes", "--detach", "--allow", "deletes,empty"])
            .good()
    }

    /// Starts the control plane on its folder.
    pub fn start_server(&mut self) {
        let daemon = self.spawn_server("server");
        self.server = Some(daemon.ready("listening on"));
        let context = fs::read_to_string(self.path("config/plumb/contexts/main.json"));
        let context: Value = serde_json::from_str(&context.expect("a context")).expect("JSON");
        self.keep_secret(context["token"].as_str().expect("a token"));
    }

    fn spawn_server(&self, data: &str) -> Daemon {
        let mut command = self.command();
        command.arg("server").arg("--data").arg(self.path(data));
        let listen = format!("{}:{}", self.listen_on, self.port.number);
        command.args(["--listen", &listen]);
        command.args(&self.server_arguments);
        Daemon::start(&mut command, &self.path("logs"), "server")
    }

    /// Where the control plane answers.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number)
    }

    /// Notes what must be seen nowhere.
    fn keep_secret(&self, token: &str) {
        // The longest run of digits is the secret itself.
        let secret = token
            .split('_')
            .find(|part| part.len() == 64 && !part.contains('-'));
        let mut secrets = self.secrets.lock().expect("no test panics with it held");
        secrets.push(secret.unwrap_or(token).to_owned());
    }

    /// `plumb token create --join`, for a machine and with a life.
    pub fn token(&self, machine: &str, ttl: &str) -> String {
        let mut command = self.command();
        command.args([
            "token",
            "create",
            "--join",
            "--machine",
            machine,
            "--ttl",
            ttl,
        ]);
        let output = command.output().expect("plumb runs");
        assert!(output.status.success(), "{output:?}");
        let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        self.keep_secret(&token);
        token
    }

    /// Starts the agent with a new token.
    pub fn join(&mut self) {
        let token = self.token("local", "1m");
        let server = self.address();
        self.start_agent_with(&["--server", &server], &[("PLUMB_JOIN_TOKEN", &token)]);
    }

    /// Starts the agent again, on what it knows.
    pub fn start_agent(&mut self) {
        self.start_agent_with(&[], &[]);
    }

    /// Starts the agent with more arguments and environment.
    pub fn start_agent_with(&mut self, arguments: &[&str], env: &[(&str, &str)]) {
        let mut command = self.agent_command("agent");
        command.args(arguments).envs(env.iter().copied());
        let daemon = Daemon::start(&mut command, &self.path("logs"), "agent");
        self.agent = Some(daemon.ready("started"));
    }

    /// Starts an agent on another folder that holds an identity, beside the pair's own.
    pub fn start_other_agent(&self, data: &str) -> Daemon {
        Daemon::start(&mut self.agent_command(data), &self.path("logs"), data).ready("started")
    }

    /// Starts the agent of another machine, on a folder that bears its name.
    pub fn join_as(&self, machine: &str) -> Daemon {
        let token = self.token(machine, "1m");
        let mut command = self.agent_command(machine);
        command.args(["--server", &self.address()]);
        command.env("PLUMB_JOIN_TOKEN", token);
        Daemon::start(&mut command, &self.path("logs"), machine).ready("started")
    }

    /// Starts a command that a test has put together, and waits for what it prints once it is ready.
    pub fn start_daemon(&self, command: &mut Command, name: &str, sign: &str) -> Daemon {
        Daemon::start(command, &self.path("logs"), name).ready(sign)
    }

    /// `plumb agent` on a folder.
    pub fn agent_command(&self, data: &str) -> Command {
        let mut command = self.command();
        command.arg("agent").arg("--data").arg(self.path(data));
        command.args(&self.agent_arguments);
        command
    }

    /// Kills the control plane with -9.
    pub fn kill_server(&mut self) {
        self.server.take().expect("the server runs").kill();
    }

    /// Kills the agent with -9.
    pub fn kill_agent(&mut self) {
        self.agent.take().expect("the agent runs").kill();
    }

    /// `plumb status --output json`, if the control plane answers.
    pub fn try_status(&self) -> Option<Value> {
        let outcome = self.plumb(&["status", "--output", "json"]);
        (outcome.code == Some(0)).then(|| serde_json::from_str(&outcome.out).expect("JSON"))
    }

    /// Waits until the status says so.
    pub fn status_until(&self, what: &str, mut good: impl FnMut(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(status) = self.try_status() {
                if good(&status) {
                    return status;
                }
                last = status;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("never {what}: {last:#}\n{}", self.logs());
    }

    /// What server and agent have logged.
    pub fn logs(&self) -> String {
        let of = |daemon: &Option<Daemon>| daemon.as_ref().map(Daemon::log).unwrap_or_default();
        format!("server:\n{}agent:\n{}", of(&self.server), of(&self.agent))
    }

    /// What stands in the folders of the incarnations of `app`, as the shim wrote it: those that run, newest last.
    pub fn running(&self) -> Vec<Incarnation> {
        self.running_in("agent")
    }

    /// The same, of the agent with this data folder.
    pub fn running_in(&self, data: &str) -> Vec<Incarnation> {
        let Ok(slots) = fs::read_dir(self.path(data).join("processes/app")) else {
            return Vec::new();
        };
        let folders = slots
            .flatten()
            .filter_map(|slot| fs::read_dir(slot.path()).ok())
            .flat_map(|folders| folders.flatten());
        let mut found: Vec<Incarnation> = folders
            .filter_map(|folder| {
                let state = fs::read(folder.path().join("state.json")).ok()?;
                let state: Value = serde_json::from_slice(&state).ok()?;
                let pid = |who: &str| {
                    state[who]["pid"]
                        .as_u64()
                        .and_then(|p| u32::try_from(p).ok())
                };
                Some(Incarnation {
                    pid: pid("command")?,
                    shim: pid("shim")?,
                    folder: folder.path(),
                })
            })
            .filter(|incarnation| alive(incarnation.pid))
            .collect();
        found.sort_by(|a, b| a.folder.cmp(&b.folder));
        found
    }

    /// The one incarnation of `app` that runs.
    ///
    /// # Panics
    /// When none comes in time, or there are several.
    pub fn incarnation(&self) -> Incarnation {
        let mut found = wait("the app runs", PATIENCE, || {
            Some(self.running()).filter(|found| !found.is_empty())
        });
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    /// Every process that names the test's folder on its command line.
    fn strays(&self) -> Vec<u32> {
        let mark = self.folder.path().as_os_str().as_encoded_bytes().to_owned();
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id())
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.windows(mark.len()).any(|part| part == mark))
            })
            .collect()
    }

    /// Whether a token stands in a text.
    pub fn tells_a_secret(&self, text: &[u8]) -> bool {
        let secrets = self.secrets.lock().expect("no test panics with it held");
        secrets.iter().any(|secret| {
            text.windows(secret.len())
                .any(|part| part == secret.as_bytes())
        })
    }

    fn check_secrets(&self) {
        let said = self
            .said
            .lock()
            .expect("no test panics with it held")
            .clone();
        assert!(!self.tells_a_secret(said.as_bytes()), "a token in: {said}");
        for log in fs::read_dir(self.path("logs")).expect("the logs").flatten() {
            let text = fs::read(log.path()).expect("a log");
            assert!(!self.tells_a_secret(&text), "a token in {:?}", log.path());
        }
    }
}

impl Default for Pair {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for daemon in [self.agent.as_mut(), self.server.as_mut()]
            .into_iter()
            .flatten()
        {
            daemon.kill();
        }
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let strays: Vec<u32> = self
                .strays()
                .into_iter()
                .filter(|pid| alive(*pid))
                .collect();
            if strays.is_empty() {
                break;
            }
            strays.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(5));
        }
        if !std::thread::panicking() {
            self.check_secrets();
        }
    }
}

/// One run of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation {
    /// The app's process.
    pub pid: u32,
    /// Its shim's.
    pub shim: u32,
    /// Its folder.
    pub folder: PathBuf,
}

/// The app's answer over HTTP: its process id and version; none while it does not serve.
pub fn ask(port: u16) -> Option<(u32, String)> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(2)))
        .ok()?;
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let (pid, version) = body.split_once(' ')?;
    Some((pid.parse().ok()?, version.to_owned()))
}

/// The status of the process of `app`.
pub fn process(status: &Value) -> &Value {
    let owners = status["owners"].as_array().map_or(&[][..], Vec::as_slice);
    owners
        .iter()
        .filter(|owner| owner["name"] == "app")
        .flat_map(|owner| owner["resources"].as_array().map_or(&[][..], Vec::as_slice))
        .find(|resource| resource["kind"] == "process")
        .map_or(&Value::Null, |resource| &resource["process"])
}

/// Whether the machine is connected and everything is as it should be.
pub fn settled(status: &Value) -> bool {
    let owners = status["owners"].as_array().map_or(&[][..], Vec::as_slice);
    online(status)
        && owners
            .iter()
            .all(|o| o["state"] == "converged" || o["state"] == "stopped")
}

/// Whether the machine is connected.
pub fn online(status: &Value) -> bool {
    status["machines"][0]["online"] == true
}
