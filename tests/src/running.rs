//! A `plumb` that runs while the test goes on: what it prints is read as it comes, and waited for.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::world::{PATIENCE, Said, World, eventually, get, signal};

/// So long may stopping take: the bar of `dev`.
pub const STOP: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Heard {
    text: Mutex<[String; 2]>,
    more: Condvar,
}

/// A point in what has been printed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark([usize; 2]);

/// See the [module](self).
pub struct Running<'w> {
    world: &'w World,
    child: Child,
    heard: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
}

impl<'w> Running<'w> {
    pub(crate) fn start(world: &'w World, command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let heard = Arc::new(Heard::default());
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("it is piped"));
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("it is piped"));
        let readers = [out, err]
            .into_iter()
            .enumerate()
            .map(|(which, from)| {
                let heard = heard.clone();
                std::thread::spawn(move || listen(from, which, &heard))
            })
            .collect();
        Self {
            world,
            child,
            heard,
            readers,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the output is now.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let text = self.heard.text.lock().expect("readers do not panic");
        Mark([text[0].len(), text[1].len()])
    }

    /// What was printed since: standard output, then standard error.
    #[must_use]
    pub fn since(&self, mark: Mark) -> String {
        let text = self.heard.text.lock().expect("readers do not panic");
        format!("{}{}", &text[0][mark.0[0]..], &text[1][mark.0[1]..])
    }

    /// Waits until the whole line (or the rest of an unended one) with this text has been printed since the mark, and
    /// returns it.
    ///
    /// # Panics
    /// When that does not come within the deadline.
    #[track_caller]
    pub fn expect(&self, mark: Mark, needle: &str, within: Duration) -> String {
        let until = Instant::now() + within;
        let mut text = self.heard.text.lock().expect("readers do not panic");
        loop {
            for (stream, from) in text.iter().zip(mark.0) {
                if let Some(at) = stream[from..].find(needle) {
                    let start = stream[..from + at].rfind('\n').map_or(0, |n| n + 1);
                    let line = stream[start..].lines().next().unwrap_or_default();
                    return line.to_owned();
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            let printed = || format!("{}{}", &text[0][mark.0[0]..], &text[1][mark.0[1]..]);
            assert!(
                !left.is_zero(),
                "no {needle:?} within {within:?} in:\n{}",
                printed()
            );
            text = self
                .heard
                .more
                .wait_timeout(text, left)
                .expect("readers do not panic")
                .0;
        }
    }

    /// Waits until `dev` has converged and watches.
    #[track_caller]
    #[must_use]
    pub fn ready(self) -> Self {
        self.expect(Mark::default(), "In a second terminal", PATIENCE);
        self
    }

    /// Where `dev` said that an app answers.
    #[track_caller]
    #[must_use]
    pub fn url(&self, app: &str) -> String {
        let line = self.expect(Mark::default(), &format!("{app} answers at "), PATIENCE);
        line.rsplit(' ').next().unwrap_or_default().to_owned()
    }

    /// The process id of the quickstart's app, as it says it itself.
    #[track_caller]
    #[must_use]
    pub fn app_pid(&self) -> u32 {
        let url = self.url("hello");
        let (code, body) = eventually("the app answers", PATIENCE, || get(&url));
        assert_eq!(code, 200, "{body}");
        let pid = body
            .rsplit_once("pid ")
            .and_then(|(_, rest)| rest.trim().trim_end_matches(')').parse().ok());
        pid.unwrap_or_else(|| panic!("no process id in {body:?}"))
    }

    /// Types on its terminal.
    pub fn send(&mut self, text: &str) {
        let keys = self.child.stdin.as_mut().expect("it is piped");
        keys.write_all(text.as_bytes())
            .and_then(|()| keys.flush())
            .expect("it listens");
    }

    /// Sends it a signal.
    pub fn signal(&self, what: Signal) {
        signal(self.pid(), what);
    }

    /// Ctrl-C, and what it left; it may take as long as `dev` may.
    #[track_caller]
    pub fn stop(self) -> Said {
        self.signal(Signal::INT);
        self.end(STOP)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self, within: Duration) -> Said {
        let printed = |running: &Self| running.since(Mark::default());
        let until = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("the child is ours") {
                break status;
            }
            assert!(
                Instant::now() < until,
                "it has not ended within {within:?}:\n{}",
                printed(&self)
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        // An app that runs on must not hold these pipes, or nobody who reads the output of `dev --keep` would see its end.
        eventually("its output is closed", PATIENCE, || {
            self.readers
                .iter()
                .all(JoinHandle::is_finished)
                .then_some(())
        });
        let text = self.heard.text.lock().expect("readers do not panic");
        let said = Said {
            code: status.code(),
            out: text[0].clone(),
            err: text[1].clone(),
        };
        drop(text);
        said
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Ok(text) = self.heard.text.lock() {
            if std::thread::panicking() {
                eprintln!("it printed:\n{}{}", text[0], text[1]);
            }
            self.world.heard(&text[0], &text[1]);
        }
    }
}

fn listen(mut from: impl Read, which: usize, heard: &Heard) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = match from.read(&mut chunk) {
            Ok(count) if count > 0 => count,
            // A terminal ends with EIO; either way there is no more.
            _ => return,
        };
        bytes.extend_from_slice(&chunk[..count]);
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) => error.valid_up_to(),
        };
        let text: Vec<u8> = bytes.drain(..whole).collect();
        if let Ok(mut all) = heard.text.lock() {
            all[which].push_str(&String::from_utf8_lossy(&text));
        }
        heard.more.notify_all();
    }
}
