//! Writes the lines of a command's two outputs to a size-capped log. Never holds the command up for longer
//! than a write takes: what cannot be written is dropped and counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use plumb_model::Timestamp;

use super::record::Log;

/// Longer lines are split here, so that no output can make the shim or a reader grow.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// How long the start of a line may wait for its end: long enough for a program that prints a line in
/// pieces, short enough for a person who waits for a prompt.
const PARTIAL_WAIT: Duration = Duration::from_millis(200);

/// `2026-11-21T02:24:47.123456Z o `
pub const PREFIX_BYTES: usize = 30;

/// So much is gathered for one write.
const BATCH_BYTES: usize = 16 * 1024;

/// The cap of a line when the cap of the file is absurdly small.
const MIN_LINE_BYTES: usize = 64;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The start of a line whose end has not come yet.
#[derive(Default)]
struct Partial {
    bytes: Vec<u8>,
    since: Option<Instant>,
    /// The line was cut at its limit just now: an end that follows at once is its own, and no empty line.
    cut: bool,
}

/// The log of one slot, open for appending.
pub struct LogWriter {
    spec: Log,
    file: Option<File>,
    size: u64,
    batch: Vec<u8>,
    batch_lines: u64,
    dropped: u64,
    out: Partial,
    err: Partial,
}

impl LogWriter {
    /// Opens the log, going on where the incarnation before left off. If that fails, it is tried again at each write.
    pub fn open(spec: Log) -> Self {
        let mut writer = Self {
            spec,
            file: None,
            size: 0,
            batch: Vec::new(),
            batch_lines: 0,
            dropped: 0,
            out: Partial::default(),
            err: Partial::default(),
        };
        writer.forget_surplus();
        // A failure shows again at the first write, where it is counted.
        let _ = writer.reopen();
        writer
    }

    /// Takes in what was read from an output.
    pub fn feed(&mut self, stream: Stream, bytes: &[u8], at: Timestamp, now: Instant) {
        let limit = self.line_limit();
        let stamp = prefix(stream, at);
        let mut partial = std::mem::take(self.partial(stream));
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut partial.cut) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let window = &rest[..rest.len().min(limit - partial.bytes.len())];
            let end = window.iter().position(|byte| *byte == b'\n');
            let take = end.unwrap_or(window.len());
            partial.bytes.extend_from_slice(&window[..take]);
            rest = &rest[take + usize::from(end.is_some())..];
            if end.is_some() || partial.bytes.len() == limit {
                self.line(stamp.as_bytes(), &partial.bytes);
                partial.bytes.clear();
                partial.since = None;
                partial.cut = end.is_none();
            }
        }
        if partial.bytes.is_empty() {
            partial.bytes = Vec::new();
        } else {
            partial.since = partial.since.or(Some(now));
        }
        *self.partial(stream) = partial;
        self.flush(at);
    }

    /// Writes what is left of an output that has closed.
    pub fn close(&mut self, stream: Stream, at: Timestamp) {
        let partial = std::mem::take(self.partial(stream));
        if !partial.bytes.is_empty() {
            self.line(prefix(stream, at).as_bytes(), &partial.bytes);
        }
        self.flush(at);
    }

    /// Writes the starts of lines that have waited long enough.
    pub fn tick(&mut self, at: Timestamp, now: Instant) {
        for stream in [Stream::Out, Stream::Err] {
            let since = self.partial(stream).since;
            if since.is_some_and(|since| now >= since + PARTIAL_WAIT) {
                self.close(stream, at);
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let waiting = [self.out.since, self.err.since];
        waiting
            .into_iter()
            .flatten()
            .min()
            .map(|since| since + PARTIAL_WAIT)
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn line_limit(&self) -> usize {
        let cap = usize::try_from(self.spec.max_bytes).unwrap_or(usize::MAX);
        let fits = cap.saturating_sub(PREFIX_BYTES + 1);
        fits.clamp(MIN_LINE_BYTES, MAX_LINE_BYTES)
    }

    fn line(&mut self, stamp: &[u8], text: &[u8]) {
        let length = stamp.len() + text.len() + 1;
        let full = self.size + (self.batch.len() + length) as u64 > self.spec.max_bytes;
        if full || self.batch.len() + length > BATCH_BYTES {
            self.write_batch();
        }
        self.batch.extend_from_slice(stamp);
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
        self.batch_lines += 1;
    }

    fn flush(&mut self, at: Timestamp) {
        self.write_batch();
        if self.dropped > 0 && self.file.is_some() {
            let note = format!(
                "{}… {} lines dropped\n",
                prefix(Stream::Err, at),
                self.dropped
            );
            if self.append(note.as_bytes()).is_ok() {
                self.dropped = 0;
            }
        }
    }

    fn write_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if self.append(&batch).is_err() {
            self.dropped += self.batch_lines;
        }
        self.batch_lines = 0;
        self.batch = batch;
        self.batch.clear();
        // One long line must not keep its room for ever.
        self.batch.shrink_to(BATCH_BYTES / 4);
    }

    /// Appends all of it or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.reopen()?;
        }
        if self.size > 0 && self.size + bytes.len() as u64 > self.spec.max_bytes {
            self.rotate()?;
        }
        let Some(file) = self.file.as_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match file.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // A full disk takes a part of it; half a line would spoil the next one.
                let _ = file.set_len(self.size);
                Err(error)
            }
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        let file = match options.open(&self.spec.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the folder.
                if let Some(parent) = self.spec.path.parent() {
                    fs::create_dir_all(parent)?;
                }
                options.open(&self.spec.path)?
            }
            opened => opened?,
        };
        self.size = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        if self.spec.keep == 0 {
            ignore_missing(fs::remove_file(&self.spec.path))?;
        }
        // From the oldest on, so that a reader who looks from the newest on misses none.
        for number in (0..self.spec.keep).rev() {
            ignore_missing(fs::rename(self.rotated(number), self.rotated(number + 1)))?;
        }
        self.reopen()
    }

    /// Removes what was kept when more was to be kept.
    fn forget_surplus(&self) {
        let mut number = self.spec.keep + 1;
        while fs::remove_file(self.rotated(number)).is_ok() {
            number += 1;
        }
    }

    fn rotated(&self, number: u32) -> PathBuf {
        rotated(&self.spec.path, number)
    }
}

/// The path of a rotated file; number 0 is the current one.
pub fn rotated(path: &std::path::Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut path = path.as_os_str().to_owned();
    path.push(format!(".{number}"));
    path.into()
}

fn ignore_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn prefix(stream: Stream, at: Timestamp) -> String {
    let letter = match stream {
        Stream::Out => 'o',
        Stream::Err => 'e',
    };
    format!("{at:.6} {letter} ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(folder: &std::path::Path, max_bytes: u64, keep: u32) -> LogWriter {
        LogWriter::open(Log {
            path: folder.join("web.0.log"),
            max_bytes,
            keep,
        })
    }

    fn texts(path: &std::path::Path) -> Vec<String> {
        let whole = fs::read_to_string(path).unwrap();
        whole
            .lines()
            .map(|line| line[PREFIX_BYTES..].to_owned())
            .collect()
    }

    #[test]
    fn lines_are_stamped_cut_at_16_kib_and_flushed_when_they_have_waited() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 1 << 20, 1);
        let now = Instant::now();
        let at = Timestamp::UNIX_EPOCH;
        log.feed(Stream::Out, b"one\n\ntw", at, now);
        log.feed(Stream::Err, b"other\n", at, now);
        log.feed(Stream::Out, b"o\n", at, now);
        let long = vec![b'x'; MAX_LINE_BYTES + 1];
        log.feed(Stream::Out, &long, at, now);
        log.feed(Stream::Out, b"\n", at, now);
        let exact = [vec![b'y'; MAX_LINE_BYTES], vec![b'\n']].concat();
        log.feed(Stream::Out, &exact, at, now);
        assert_eq!(log.deadline(), None);
        log.feed(Stream::Out, b"$ ", at, now);
        log.tick(at, now);
        assert_eq!(texts(&folder.path().join("web.0.log")).len(), 7);
        log.tick(at, log.deadline().unwrap());
        let path = folder.path().join("web.0.log");
        let expected = [
            "one".to_owned(),
            String::new(),
            "other".into(),
            "two".into(),
            "x".repeat(MAX_LINE_BYTES),
            "x".into(),
            "y".repeat(MAX_LINE_BYTES),
            "$ ".into(),
        ];
        assert_eq!(texts(&path), expected);
        let first = fs::read_to_string(&path).unwrap();
        assert!(first.starts_with("1970-01-01T00:00:00.000000Z o one\n"));
        assert!(first.contains("Z e other\n"));
    }

    /// Row 41. Mutation: leave the check of `max_bytes` out of `append`, or count `keep` one too far.
    #[test]
    fn a_flood_stays_within_the_cap() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = writer(folder.path(), 4096, 2);
        for round in 0..200 {
            let text = format!("line {round}\n").repeat(50);
            log.feed(
                Stream::Out,
                text.as_bytes(),
                Timestamp::UNIX_EPOCH,
                Instant::now(),
            );
            assert!(log.batch.capacity() <= 2 * BATCH_BYTES);
        }
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(files.len(), 3);
        for file in files {
            assert!(file.metadata().unwrap().len() <= 4096, "{file:?}");
        }
        let last = texts(&folder.path().join("web.0.log")).pop();
        assert_eq!(last.as_deref(), Some("line 199"));
    }

    /// Row 41. Mutation: forget to count in `write_batch`.
    #[test]
    fn lines_that_cannot_be_written_are_counted_and_told_of_when_it_works_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.0.log");
        let mut log = writer(folder.path(), 1 << 20, 1);
        let at = Timestamp::UNIX_EPOCH;
        // Every write to it fails with "no space left".
        log.file = Some(OpenOptions::new().write(true).open("/dev/full").unwrap());
        log.feed(Stream::Out, b"a\nb\nc\n", at, Instant::now());
        log.feed(Stream::Out, b"d\n", at, Instant::now());
        log.file = None;
        log.feed(Stream::Out, b"back\n", at, Instant::now());
        assert_eq!(texts(&path), ["back", "… 4 lines dropped"]);
    }
}
