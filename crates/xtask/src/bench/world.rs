//! A throw-away workspace with the release binary in it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Table;

/// The binary to measure: `PLUMB_BIN`, or the one beside this program.
pub fn plumb() -> Result<PathBuf, String> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("plumb")));
    let path = std::env::var_os("PLUMB_BIN")
        .map(PathBuf::from)
        .or(beside)
        .unwrap_or_default();
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "{} is missing; run `cargo build --release` first",
            path.display()
        ))
    }
}

/// The size of the binary.
pub fn size(table: &mut Table) -> Result<(), String> {
    let bytes = fs::metadata(plumb()?).map_err(|e| e.to_string())?.len();
    table.row(
        "`plumb` binary, stripped",
        &format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        "≤ 25 MiB",
    );
    Ok(())
}

/// Folders for one measurement, gone with it.
pub struct World {
    folder: tempfile::TempDir,
    binary: PathBuf,
}

impl World {
    /// An empty workspace.
    pub fn new() -> Result<Self, String> {
        let folder = tempfile::Builder::new()
            .prefix("plumb-bench-")
            .tempdir()
            .map_err(|e| e.to_string())?;
        fs::create_dir(folder.path().join("repo")).map_err(|e| e.to_string())?;
        fs::create_dir(folder.path().join("managed")).map_err(|e| e.to_string())?;
        Ok(Self {
            folder,
            binary: plumb()?,
        })
    }

    /// Where blueprints go.
    pub fn repo(&self) -> PathBuf {
        self.folder.path().join("repo")
    }

    /// Where managed files go.
    pub fn managed(&self) -> PathBuf {
        self.folder.path().join("managed")
    }

    /// Another folder of this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes into the repository.
    pub fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.repo().join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(|e| e.to_string())?;
        }
        fs::write(path, text).map_err(|e| e.to_string())
    }

    /// A `plumb` command in this world.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("XDG_CONFIG_HOME", self.folder.path().join("config"))
            .env("XDG_STATE_HOME", self.folder.path().join("state"))
            .env_remove("PLUMB_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self
            .command(arguments)
            .output()
            .map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!(
            "plumb {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ))
    }

    /// Starts a command and waits for a line that holds `ready`; returns that line.
    pub fn start(&self, arguments: &[&str], ready: &str) -> Result<(Running, String), String> {
        let mut child = self
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let out = child.stdout.take().ok_or("no output")?;
        let running = Running { child };
        let (lines, seen) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = seen
                .recv_timeout(left)
                .map_err(|_| format!("plumb {}: never said {ready:?}", arguments.join(" ")))?;
            if line.contains(ready) {
                return Ok((running, line));
            }
        }
    }

    /// The quickstart's app and a folder, with names of this world.
    pub fn serving_app(&self) -> Result<(), String> {
        self.write(
            "plumb.yaml",
            "kind: Workspace\nname: bench\n---\nkind: Machine\nname: m\n",
        )?;
        let server = include_str!("../../../../blueprints-examples/quickstart/app/server.py");
        self.write("app/server.py", server)?;
        self.write(
            "app.yaml",
            "kind: App\nname: hello\nmachines: m\nsource: { path: app }\nrun: [python3, server.py]\nports: { http: auto }\n\
             env: { GREETING: hi, RELEASE: \"${release}\" }\nhealth: /healthz\n",
        )
    }
}

/// A child that is asked to end when it goes out of scope.
pub struct Running {
    child: Child,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

/// GET a path; the body of a 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.contains(" 200 ").then(|| body.to_owned())
}

/// Waits, at a millisecond's grain, until something is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) -> Result<Duration, String> {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > Duration::from_secs(30) {
            return Err(format!("{what}: not within 30 s"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(began.elapsed())
}

/// Kills a process that this benchmark had started.
pub fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Whether a file holds exactly this.
pub fn holds(path: &Path, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|t| t == text)
}
