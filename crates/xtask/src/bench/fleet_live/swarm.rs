//! The load generator as a process of its own, and what it says.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// `cargo xtask load`, running.
pub struct Swarm {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Swarm {
    /// Starts it, and waits until all are enrolled.
    pub fn start(context: &Path, agents: usize, data: &Path) -> Result<Self, String> {
        let exe = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(exe)
            .arg("load")
            .arg(context)
            .arg(agents.to_string())
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut swarm = Self {
            child,
            input,
            output,
        };
        swarm.line()?;
        Ok(swarm)
    }

    fn line(&mut self) -> Result<Value, String> {
        let mut line = String::new();
        let read = self
            .output
            .read_line(&mut line)
            .map_err(|e| e.to_string())?;
        if read == 0 {
            return Err("the load generator has ended; see what it said".to_owned());
        }
        let value: Value = serde_json::from_str(&line).map_err(|e| format!("{line}: {e}"))?;
        match value["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(value),
        }
    }

    /// Says one thing, and returns the answer.
    pub fn ask(&mut self, what: &str) -> Result<Value, String> {
        let input = self.input.as_mut().ok_or("it has ended")?;
        writeln!(input, "{what}")
            .and_then(|()| input.flush())
            .map_err(|e| e.to_string())?;
        self.line()
    }

    /// Forgets what has happened so far.
    pub fn mark(&mut self) -> Result<(), String> {
        self.ask("mark").map(drop)
    }

    /// What has happened since the mark.
    pub fn stats(&mut self) -> Result<Value, String> {
        self.ask("stats")
    }

    /// How long the agents' own syncs take by themselves, all at once.
    pub fn sync_cost_ms(&mut self) -> Result<f64, String> {
        let answer = self.ask("sync-cost")?;
        answer["ms"].as_f64().ok_or("no time".to_owned())
    }

    /// Waits until the figures say so.
    pub fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut so: impl FnMut(&Value) -> bool,
    ) -> Result<Value, String> {
        let until = Instant::now() + within;
        loop {
            let stats = self.stats()?;
            if so(&stats) {
                return Ok(stats);
            }
            if Instant::now() > until {
                return Err(format!("{what}: not within {within:?}: {stats}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until all are online.
    pub fn all_online(&mut self, agents: usize, within: Duration) -> Result<Value, String> {
        self.until("all online", within, |stats| {
            stats["online"].as_u64() == u64::try_from(agents).ok()
        })
    }

    /// Waits until so many assignments are durable since the mark.
    pub fn durable(&mut self, count: usize, within: Duration) -> Result<Value, String> {
        self.until("all durable", within, |stats| {
            stats["since_mark"]["durable"]["count"].as_u64() >= u64::try_from(count).ok()
        })
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        // It ends with its input.
        self.input = None;
        let _ = self.child.wait();
    }
}
