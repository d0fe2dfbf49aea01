//! Where the daemons log to: standard error as text, or a file as JSON, rotated by size.
//!
//! A log file never grows past its bound: at [`MAX_BYTES`] it is renamed to `FILE.1`, and of the older ones [`KEPT`] stay.
//! What cannot be written is dropped and counted, and told once it can: logging holds nobody up.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::error::CliError;

/// How large a log file grows: some 50,000 lines.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// How many older ones are kept.
const KEPT: u32 = 5;

/// Logs to the file if one is given, and otherwise to standard error. `PLUMB_LOG` chooses how much (`warn`, `info`,
/// `debug`).
///
/// # Errors
/// When the file cannot be opened.
pub fn start(file: Option<&Path>, unless_chosen: &str) -> Result<(), CliError> {
    let filter =
        EnvFilter::try_from_env("PLUMB_LOG").unwrap_or_else(|_| EnvFilter::new(unless_chosen));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false);
    let Some(path) = file else {
        // Whoever has set logging up before has chosen.
        let _ = builder
            .with_target(false)
            .with_writer(io::stderr)
            .try_init();
        return Ok(());
    };
    let file = Rotated::open(path, MAX_BYTES).map_err(CliError::file("log to", path))?;
    let _ = builder
        .json()
        .with_writer(LogFile(Arc::new(Mutex::new(file))))
        .try_init();
    Ok(())
}

/// The file, shared by whoever logs.
#[derive(Clone)]
struct LogFile(Arc<Mutex<Rotated>>);

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file.line(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is rotated.
struct Rotated {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max: u64,
    dropped: u64,
}

impl Rotated {
    fn open(path: &Path, max: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o750)
                .create(folder)?;
        }
        let mut rotated = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            max,
            dropped: 0,
        };
        rotated.reopen()?;
        Ok(rotated)
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o640)
            .open(&self.path)?;
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn older(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        for number in (1..KEPT).rev() {
            match fs::rename(self.older(number), self.older(number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.path, self.older(1))?;
        self.reopen()
    }

    /// Writes a line, or counts it as dropped.
    fn line(&mut self, bytes: &[u8]) {
        let done = self.try_line(bytes);
        if done.is_err() {
            self.dropped += 1;
            // What is open may be of no use any more, as after the folder was moved.
            self.file = None;
        }
    }

    fn try_line(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.max {
            self.rotate()?;
        }
        let Some(file) = &mut self.file else {
            return Err(io::Error::other("the log is not open"));
        };
        if self.dropped > 0 {
            let told = format!("{{\"level\":\"WARN\",\"dropped\":{}}}\n", self.dropped);
            file.write_all(told.as_bytes())?;
            self.size += told.len() as u64;
            self.dropped = 0;
        }
        file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: leave the look at the size out of `try_line`.
    #[test]
    fn a_log_never_grows_past_its_bound_and_keeps_the_newest() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("log/agent.log");
        let mut log = Rotated::open(&path, 100).unwrap();
        for number in 0..200 {
            log.line(format!("{{\"line\":{number:010}}}\n").as_bytes());
        }
        let sizes: Vec<u64> = fs::read_dir(temp.path().join("log"))
            .unwrap()
            .flatten()
            .map(|entry| entry.metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len() as u32, 1 + KEPT);
        assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
        assert!(fs::read_to_string(&path).unwrap().contains("0000000199"));
        // And a restart goes on where it was.
        drop(log);
        let mut log = Rotated::open(&path, 100).unwrap();
        log.line(b"{}\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
        let older = fs::read_to_string(temp.path().join("log/agent.log.1")).unwrap();
        assert!(older.contains("0000000199"), "{older}");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_later() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("agent.log");
        let mut log = Rotated::open(&path, 1000).unwrap();
        log.file = None;
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        log.line(b"{\"lost\":1}\n");
        log.line(b"{\"lost\":2}\n");
        fs::remove_dir(&path).unwrap();
        log.line(b"{\"kept\":1}\n");
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"level\":\"WARN\",\"dropped\":2}\n{\"kept\":1}\n");
    }
}
