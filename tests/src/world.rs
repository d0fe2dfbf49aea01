//! One test's world: a home, a blueprint repository and a folder to manage, all of its own, and `plumb` run in it.
//!
//! Everything lies beneath one temporary folder, so that tests run side by side. At the end whatever still runs in that
//! folder is killed by its process id; and whatever was printed, and every file that was written, is searched for the
//! tokens and for what no user should read: a panic, or a value as the debugger sees it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::running::{Mark, Running};

/// How long anything may take that has no deadline of its own: far more than it needs, since tests share the machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What stands in no output: a panic, and values as only a debugger should show them.
const UGLY: [&str; 7] = [
    "panicked",
    "a defect in plumb",
    "RUST_BACKTRACE",
    "Some(",
    "Err(",
    "Ok(",
    "Error {",
];

/// How tokens begin.
const TOKENS: [&str; 2] = ["plumb_local_", "plumb-join_"];

/// Looks again and again until there is an answer, and returns it.
///
/// # Panics
/// When there is none within the deadline.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// GET over HTTP: status and body; none while nobody answers.
#[must_use]
pub fn get(url: &str) -> Option<(u16, String)> {
    let (host, path) = url.strip_prefix("http://")?.split_once('/').map_or_else(
        || {
            (
                url.strip_prefix("http://").unwrap_or_default(),
                String::new(),
            )
        },
        |(host, path)| (host, path.to_owned()),
    );
    let mut connection = TcpStream::connect(host).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(2)))
        .ok()?;
    write!(connection, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let code = head.split_whitespace().nth(1)?.parse().ok()?;
    Some((code, body.to_owned()))
}

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether a process runs: neither gone nor a zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        !matches!(state, Some("Z" | "X") | None)
    })
}

/// What a command left.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; none if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    /// Its standard output, if it ended well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{}\n{}", self.out, self.err);
        self.out
    }

    /// Its standard output as one JSON value, if it ended well.
    ///
    /// # Panics
    /// If it did not, or printed anything else.
    #[track_caller]
    #[must_use]
    pub fn json(self) -> Value {
        let out = self.good();
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }

    /// Its one line of error with the next step, if it failed with exactly that and printed nothing else.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    #[must_use]
    pub fn one_line(self) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.out, "", "nothing goes to standard output");
        let line = self.err.strip_suffix('\n').unwrap_or(&self.err);
        let text = line
            .strip_prefix("error: ")
            .unwrap_or_else(|| panic!("{line}"));
        assert!(!text.is_empty() && !text.contains('\n'), "{line}");
        text.to_owned()
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct World {
    folder: tempfile::TempDir,
    /// The workspace's name.
    pub workspace: String,
    user: Option<u32>,
    secrets: Mutex<BTreeSet<String>>,
    said: Mutex<String>,
    mounts: Mutex<Vec<PathBuf>>,
    /// Everything is logged, so that libraries show their values as they like; tokens are looked for all the same.
    pub traced: bool,
}

impl World {
    /// A repository with a manifest and the machine `local`, and an empty folder to manage.
    ///
    /// # Panics
    /// When the folders cannot be made, as everything here when the test cannot go on.
    #[must_use]
    pub fn new(workspace: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("plumb-{workspace}-"))
            .tempdir()
            .expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        let world = Self {
            folder,
            workspace: workspace.to_owned(),
            user: None,
            secrets: Mutex::default(),
            said: Mutex::default(),
            mounts: Mutex::default(),
            traced: false,
        };
        for name in ["repo", "home", "managed"] {
            fs::create_dir(world.path(name)).expect("a folder");
        }
        world.write(
            "plumb.yaml",
            &format!("kind: Workspace\nname: {workspace}\n---\nkind: Machine\nname: local\n"),
        );
        world
    }

    /// A repository that is a copy of the quickstart, with this workspace's name, managing this world's folder.
    #[must_use]
    pub fn quickstart(workspace: &str) -> Self {
        let world = Self::new(workspace);
        let example =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../blueprints-examples/quickstart");
        copy(&example, &world.path("repo"));
        world.edit(
            "plumb.yaml",
            "name: quickstart",
            &format!("name: {workspace}"),
        );
        let managed = world.managed("");
        world.edit(
            "base.yaml",
            "/tmp/plumb-quickstart",
            managed.trim_end_matches('/'),
        );
        world
    }

    /// From now on, everything belongs to, and runs as, a user without privileges.
    ///
    /// # Panics
    /// Without the right to do that.
    pub fn become_nobody(&mut self) {
        assert!(
            rustix::process::geteuid().is_root(),
            "run the tests as root"
        );
        // The build may be where only root may look.
        fs::copy(crate::plumb(), self.path("plumb")).expect("a copy of plumb");
        self.user = Some(65_534);
        for path in walk(self.folder.path()) {
            std::os::unix::fs::lchown(&path, self.user, self.user)
                .expect("root may give files away");
        }
    }

    /// A path in the test's folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the folder that blueprints manage, as it is written in them.
    #[must_use]
    pub fn managed(&self, name: &str) -> String {
        self.path("managed").join(name).display().to_string()
    }

    /// Writes a file of the repository as editors do: beside it, and renamed.
    pub fn write(&self, path: &str, text: &str) {
        let path = self.path("repo").join(path);
        let folder = path.parent().expect("a file is in a folder");
        fs::create_dir_all(folder).expect("a folder of the repository");
        let beside = folder.join(".saving");
        fs::write(&beside, text).expect("a file of the repository");
        fs::rename(&beside, &path).expect("a file of the repository");
    }

    /// Replaces a text in a file of the repository, everywhere.
    ///
    /// # Panics
    /// When it is not there.
    pub fn edit(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("repo").join(path)).expect("a file to edit");
        assert!(text.contains(from), "{from:?} is not in {text}");
        self.write(path, &text.replace(from, to));
    }

    /// Copies the repository as it is now, so that it can be changed without `dev` seeing it. Returns the copy.
    #[must_use]
    pub fn copy_of_repo(&self, name: &str) -> PathBuf {
        let copy_path = self.path(name);
        copy(&self.path("repo"), &copy_path);
        copy_path
    }

    /// `plumb`, at home in this world, in the repository.
    #[must_use]
    pub fn command(&self) -> Command {
        let copied = self.user.map(|_| self.path("plumb"));
        let mut command = Command::new(copied.unwrap_or_else(crate::plumb));
        self.at_home(&mut command);
        command
    }

    pub(crate) fn at_home(&self, command: &mut Command) {
        command
            .current_dir(self.path("repo"))
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            // Wide enough for any temporary folder's path, so that no line breaks at another place on another host.
            .env("COLUMNS", "400")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("TERM", "xterm")
            .env_remove("PLUMB_CONTEXT")
            .env_remove("PLUMB_JOIN_TOKEN")
            .env_remove("PLUMB_LOG")
            .env_remove("NO_COLOR")
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null());
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
    }

    /// Runs `plumb` to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Said {
        self.run_command(self.command().args(arguments))
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run_command(&self, command: &mut Command) -> Said {
        let output = command.output().expect("the command starts");
        let said = Said {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        self.heard(&said.out, &said.err);
        said
    }

    /// Keeps what was printed, to be searched at the end.
    pub(crate) fn heard(&self, out: &str, err: &str) {
        self.learn_secrets();
        let mut all = self.said.lock().expect("no test panics with it held");
        all.push_str(out);
        all.push_str(err);
    }

    /// Starts `plumb dev` in the repository.
    #[must_use]
    pub fn dev(&self, arguments: &[&str]) -> Running<'_> {
        Running::start(self, self.command().arg("dev").args(arguments))
    }

    /// Starts `plumb` with these arguments.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Running<'_> {
        Running::start(self, self.command().args(arguments))
    }

    /// Starts a control plane without any agent, on a folder of this name, and waits until it listens.
    #[track_caller]
    #[must_use]
    pub fn server(&self, data: &str, context: &str) -> Running<'_> {
        let data = self.path(data).display().to_string();
        let arguments = [
            "server",
            "--data",
            &data,
            "--listen",
            "127.0.0.1:0",
            "--context",
            context,
        ];
        let server = self.start(&arguments);
        server.expect(Mark::default(), "listening on", PATIENCE);
        server
    }

    /// Runs git in the repository, as a certain author.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        self.at_home(&mut command);
        command.args([
            "-c",
            "user.name=Ada Lovelace",
            "-c",
            "user.email=ada@example.org",
        ]);
        let said = self.run_command(command.args(arguments));
        assert_eq!(said.code, Some(0), "{said:?}");
    }

    /// Starts `plumb` on a terminal of its own.
    #[must_use]
    pub fn terminal(&self, arguments: &[&str]) -> Running<'_> {
        let words: Vec<String> = std::iter::once(crate::plumb().display().to_string())
            .chain(arguments.iter().map(|a| (*a).to_owned()))
            .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
            .collect();
        let mut command = Command::new("script");
        self.at_home(&mut command);
        command.args(["--quiet", "--flush", "--return", "--command"]);
        command.arg(words.join(" ")).arg("/dev/null");
        Running::start(self, command.stdin(Stdio::piped()))
    }

    /// `plumb status --output json`.
    #[track_caller]
    #[must_use]
    pub fn status(&self) -> Value {
        self.run(&["status", "--output", "json"]).json()
    }

    /// Waits until a status is as wanted.
    #[track_caller]
    pub fn until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, PATIENCE, || Some(self.status()).filter(|s| wanted(s)))
    }

    /// The context that `dev` wrote.
    #[must_use]
    pub fn context(&self) -> PathBuf {
        self.path(&format!("config/plumb/contexts/{}.json", self.workspace))
    }

    /// Mounts a small file system in memory in the folder that is managed, until the end.
    ///
    /// # Panics
    /// Without the right to mount: a full disk cannot be had otherwise, and a test that passes without one shows nothing.
    #[must_use]
    pub fn mount(&self, name: &str, options: &std::ffi::CStr, flags: MountFlags) -> PathBuf {
        let path = PathBuf::from(self.managed(name));
        fs::create_dir(&path).expect("a place to mount at");
        mount("plumb-test", &path, "tmpfs", flags, options)
            .unwrap_or_else(|e| panic!("cannot mount a file system: {e}; run the tests as root"));
        self.mounts
            .lock()
            .expect("no test panics with it held")
            .push(path.clone());
        path
    }

    /// Every process that runs in this world: its working folder, or its command line, is in the test's folder.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let root = self.folder.path();
        let mark = root.as_os_str().as_encoded_bytes();
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter(|pid| *pid != std::process::id() && alive(*pid))
            .filter(|pid| {
                let within = fs::read_link(format!("/proc/{pid}/cwd"))
                    .is_ok_and(|cwd| cwd.starts_with(root));
                within
                    || fs::read(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| line.windows(mark.len()).any(|part| part == mark))
            })
            .collect()
    }

    /// Reads what must be seen nowhere: the tokens of the contexts.
    fn learn_secrets(&self) {
        let Ok(contexts) = fs::read_dir(self.path("config/plumb/contexts")) else {
            return;
        };
        for file in contexts.flatten() {
            let context = fs::read(file.path()).unwrap_or_default();
            let Ok(context) = serde_json::from_slice::<Value>(&context) else {
                continue;
            };
            let secret = context["token"]
                .as_str()
                .and_then(|token| token.rsplit('_').next());
            if let Some(secret) = secret.filter(|s| s.len() >= 32) {
                self.secrets
                    .lock()
                    .expect("no test panics with it held")
                    .insert(secret.to_owned());
            }
        }
    }

    /// Whether a token stands in it.
    fn tells(&self, text: &[u8]) -> bool {
        let secrets = self.secrets.lock().expect("no test panics with it held");
        secrets
            .iter()
            .any(|s| text.windows(s.len()).any(|part| part == s.as_bytes()))
    }

    fn check(&self) {
        self.learn_secrets();
        let said = self
            .said
            .lock()
            .expect("no test panics with it held")
            .clone();
        assert!(!self.tells(said.as_bytes()), "a token was printed: {said}");
        let ugly = if self.traced { &[][..] } else { &UGLY };
        for ugly in ugly.iter().chain(&TOKENS) {
            assert!(!said.contains(ugly), "{ugly:?} was printed: {said}");
        }
        let contexts = self.path("config");
        for path in walk(self.folder.path()) {
            let told = || fs::read(&path).is_ok_and(|bytes| self.tells(&bytes));
            let is_file = fs::symlink_metadata(&path).is_ok_and(|m| m.is_file());
            assert!(
                path.starts_with(&contexts) || !is_file || !told(),
                "a token is in {}",
                path.display()
            );
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
            std::thread::sleep(Duration::from_millis(5));
        }
        if !std::thread::panicking() {
            self.check();
        }
        for path in self.mounts.lock().map(|m| m.clone()).unwrap_or_default() {
            let _ = unmount(&path, UnmountFlags::DETACH);
        }
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder to copy").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file to copy");
        }
    }
}

/// Everything in a folder, and the folder; links are not followed, nor is another file system entered.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let device = fs::metadata(folder).map(|m| m.dev()).ok();
    let mut found = vec![folder.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let same =
            fs::symlink_metadata(&found[next]).is_ok_and(|m| m.is_dir() && Some(m.dev()) == device);
        if same && let Ok(entries) = fs::read_dir(&found[next]) {
            found.extend(entries.flatten().map(|entry| entry.path()));
        }
        next += 1;
    }
    found
}
