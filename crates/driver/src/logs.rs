//! Reads the log of a process: one sequence of lines across its rotated files, which the shim goes on writing
//! meanwhile. Never writes, and never waits: the agent asks again when it wants more. On threads that may block.
//!
//! Caveat: whoever reads more slowly than the files rotate misses what was rotated away meanwhile.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use plumb_model::{OwnerName, ProcessName, Timestamp};

use crate::process::places::Places;
pub use crate::shim::log::Stream;
use crate::shim::log::{MAX_LINE_BYTES, PREFIX_BYTES, rotated};

/// So much is read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// After so many missing numbers in a row there are no more rotated files. While files are being rotated, one is missing.
const MISSING: u32 = 3;

/// What of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only so many of the newest lines; none means all that are kept.
    pub tail: Option<u32>,
    /// Only lines that were written at this time or later.
    pub since: Option<Timestamp>,
    /// Go on with what is written after the end has been reached.
    pub follow: bool,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the shim read it.
    pub at: Timestamp,
    /// Where the process wrote it.
    pub stream: Stream,
    /// Without its end; what is not UTF-8 is replaced. Not safe to show as it is.
    pub text: String,
}

/// Where the current log file of what is at a place is; a place is written `OWNER/PROCESS.SLOT`.
#[must_use]
pub fn at(data: &Path, place: &str) -> PathBuf {
    data.join("logs").join(format!("{place}.log"))
}

/// A log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotLog {
    /// Which process wrote it.
    pub process: ProcessName,
    /// Which of its replicas.
    pub slot: u32,
    /// The current file.
    pub path: PathBuf,
}

/// The logs of an owner, or of one of its processes, in order. Those that it wrote under an earlier name are its own too.
#[must_use]
pub fn slots(data: &Path, owner: &OwnerName, process: Option<&ProcessName>) -> Vec<SlotLog> {
    let places = Places::load(data).unwrap_or_default();
    let log = |name: &str, path: PathBuf| {
        let (process, slot) = name.split_once('.')?;
        Some(SlotLog {
            process: ProcessName::new(process).ok()?,
            slot: slot.parse().ok()?,
            path,
        })
    };
    let named = fs::read_dir(data.join("logs").join(owner.as_str()))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = entry.file_name().into_string().ok()?;
            let name = file.strip_suffix(".log")?;
            let place = format!("{owner}/{name}");
            (!places.is_let(&place)).then(|| log(name, at(data, &place)))?
        });
    let elsewhere = places
        .elsewhere(owner)
        .filter_map(|(name, place)| log(name, at(data, place)))
        .filter(|log| fs::symlink_metadata(&log.path).is_ok());
    let mut slots: Vec<_> = named
        .chain(elsewhere)
        .filter(|log| process.is_none_or(|process| *process == log.process))
        .collect();
    slots.sort();
    slots
}

/// All files of a log that exist now, the current one first.
#[must_use]
pub fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut missing = 0;
    for number in 0.. {
        let file = rotated(path, number);
        if fs::symlink_metadata(&file).is_ok() {
            found.push(file);
            missing = 0;
        } else {
            missing += 1;
            if missing >= MISSING {
                break;
            }
        }
    }
    found
}

/// Which file, however it is called by now.
type Inode = (u64, u64);

/// A log file that is held open, and where to go on in it.
#[derive(Debug)]
struct Open {
    file: File,
    inode: Inode,
    offset: u64,
}

/// Reads one log, oldest line first. Holds at most one block and one line in memory.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    query: LogQuery,
    current: Option<Open>,
    /// The files after the current one, as far as they are known.
    newer: VecDeque<Open>,
    /// A newer file was known before the current one was last read to its end, so nothing more comes in it.
    sealed: bool,
    buffer: Vec<u8>,
    start: usize,
    last: Timestamp,
    done: bool,
}

impl LogReader {
    /// Opens the log whose current file has this [`path`]. A log that is not there yet is empty.
    pub fn open(path: &Path, query: LogQuery) -> io::Result<Self> {
        let mut open = listing(path)?;
        if let Some(tail) = query.tail {
            skip_to_tail(&mut open, u64::from(tail))?;
        }
        let mut newer: VecDeque<Open> = open.into();
        let current = newer.pop_front();
        Ok(Self {
            path: path.to_owned(),
            query,
            current,
            sealed: !newer.is_empty(),
            newer,
            buffer: Vec::new(),
            start: 0,
            last: Timestamp::UNIX_EPOCH,
            done: false,
        })
    }

    /// The next line, or none at the end. When following, ask again later: more may have come.
    pub fn poll(&mut self) -> io::Result<Option<LogLine>> {
        while !self.done {
            if let Some(line) = self.take_line(false) {
                if self.query.since.is_none_or(|since| line.at >= since) {
                    return Ok(Some(line));
                }
                continue;
            }
            if self.fill()? {
                continue;
            }
            // The end of a file. Once more is known to come in a newer one, this one is complete.
            if self.sealed {
                let rest = self.take_line(true);
                self.advance();
                if rest.is_some() {
                    return Ok(rest);
                }
                continue;
            }
            if self.look_for_newer()? {
                continue;
            }
            if !self.query.follow {
                self.done = true;
                return Ok(self.take_line(true));
            }
            return Ok(None);
        }
        Ok(None)
    }

    /// Takes a whole line out of the buffer; with `rest`, also one without an end.
    fn take_line(&mut self, rest: bool) -> Option<LogLine> {
        let unread = &self.buffer[self.start..];
        let end = unread.iter().position(|byte| *byte == b'\n');
        // Whatever wrote a longer line was no shim.
        let overlong = unread.len() > PREFIX_BYTES + MAX_LINE_BYTES + BLOCK_BYTES;
        let length = match end {
            Some(end) => end,
            None if (rest || overlong) && !unread.is_empty() => unread.len(),
            None => return None,
        };
        let line = parse(&unread[..length], self.last);
        self.last = line.at;
        self.start += length + usize::from(end.is_some());
        Some(line)
    }

    /// Reads on in the current file; false at its end.
    fn fill(&mut self) -> io::Result<bool> {
        let Some(current) = &mut self.current else {
            return Ok(false);
        };
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + BLOCK_BYTES, 0);
        let read = current
            .file
            .read_at(&mut self.buffer[filled..], current.offset);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        let read = read?;
        current.offset += read as u64;
        Ok(read > 0)
    }

    fn advance(&mut self) {
        self.current = self.newer.pop_front();
        self.sealed = !self.newer.is_empty();
    }

    /// Looks whether the log has been rotated. If so, the current file must be read to its end once more,
    /// since something may have been written between reaching it and the rotation.
    fn look_for_newer(&mut self) -> io::Result<bool> {
        let mut open = listing(&self.path)?;
        let Some(current) = &self.current else {
            self.newer = open.into();
            self.advance();
            return Ok(self.current.is_some());
        };
        if let Some(at) = open.iter().position(|file| file.inode == current.inode) {
            open.drain(..=at);
        }
        self.newer = open.into();
        self.sealed = !self.newer.is_empty();
        Ok(self.sealed)
    }
}

/// Opens all files of a log, the oldest first.
fn listing(path: &Path) -> io::Result<Vec<Open>> {
    let mut found: Vec<Open> = Vec::new();
    let mut missing = 0;
    // From the newest on: rotation moves files the same way, so none slips past. One that is met twice has
    // moved meanwhile, and its later place is the right one.
    for number in 0.. {
        let file = match File::open(rotated(path, number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                missing += 1;
                if missing >= MISSING {
                    break;
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        missing = 0;
        let metadata = file.metadata()?;
        let inode = (metadata.dev(), metadata.ino());
        found.retain(|open| open.inode != inode);
        found.push(Open {
            file,
            inode,
            offset: 0,
        });
    }
    found.reverse();
    Ok(found)
}

/// Drops whole files and sets the offset of the first one left so that the last `tail` lines remain.
fn skip_to_tail(open: &mut Vec<Open>, tail: u64) -> io::Result<()> {
    let mut missing = tail;
    for index in (0..open.len()).rev() {
        let (offset, lines) = find_tail(&open[index].file, missing)?;
        open[index].offset = offset;
        missing -= lines;
        if missing == 0 {
            open.drain(..index);
            return Ok(());
        }
    }
    Ok(())
}

/// Where the last `wanted` lines of a file begin, and how many there are, found backwards in blocks.
fn find_tail(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let size = file.metadata()?.len();
    if wanted == 0 {
        return Ok((size, 0));
    }
    let mut block = vec![0; BLOCK_BYTES];
    let mut lines = 0;
    let mut end = size;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let length = usize::try_from(end - start).unwrap_or(BLOCK_BYTES);
        file.read_exact_at(&mut block[..length], start)?;
        for (index, byte) in block[..length].iter().enumerate().rev() {
            let at = start + index as u64;
            // The end of a file's last line begins no other.
            if *byte == b'\n' && at + 1 < size {
                lines += 1;
                if lines == wanted {
                    return Ok((at + 1, lines));
                }
            }
        }
        end = start;
    }
    Ok((0, lines + u64::from(size > 0)))
}

/// Takes a line apart. One that no shim wrote is taken as it is, at the time of the one before.
fn parse(line: &[u8], before: Timestamp) -> LogLine {
    let known = line
        .split_at_checked(PREFIX_BYTES)
        .and_then(|(prefix, text)| {
            let prefix = std::str::from_utf8(prefix).ok()?;
            let (at, stream) = prefix.strip_suffix(' ')?.rsplit_once(' ')?;
            let stream = match stream {
                "o" => Stream::Out,
                "e" => Stream::Err,
                _ => return None,
            };
            Some((at.parse().ok()?, stream, text))
        });
    let (at, stream, text) = known.unwrap_or((before, Stream::Out, line));
    LogLine {
        at,
        stream,
        text: String::from_utf8_lossy(text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::log::LogWriter;
    use crate::shim::record::Log;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    struct Written {
        _folder: tempfile::TempDir,
        path: PathBuf,
        writer: LogWriter,
        second: i64,
    }

    fn written(max_bytes: u64, keep: u32) -> Written {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.0.log");
        let writer = LogWriter::open(Log {
            path: path.clone(),
            max_bytes,
            keep,
        });
        Written {
            _folder: folder,
            path,
            writer,
            second: 0,
        }
    }

    impl Written {
        fn write(&mut self, text: &str) {
            self.second += 1;
            let at = Timestamp::from_second(self.second).unwrap();
            let line = format!("{text}\n");
            self.writer
                .feed(Stream::Out, line.as_bytes(), at, Instant::now());
        }

        fn read(&self, query: LogQuery) -> Vec<String> {
            all(&mut LogReader::open(&self.path, query).unwrap())
        }
    }

    fn all(reader: &mut LogReader) -> Vec<String> {
        std::iter::from_fn(|| reader.poll().unwrap())
            .map(|line| line.text)
            .collect()
    }

    fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
        range.map(|number| number.to_string()).collect()
    }

    #[test]
    fn lines_come_oldest_first_across_files_and_can_be_limited() {
        let mut log = written(200, 50);
        for number in 0..100 {
            log.write(&number.to_string());
        }
        assert!(files(&log.path).len() > 10);
        assert_eq!(log.read(LogQuery::default()), numbers(0..100));
        for tail in [0, 1, 5, 6, 7, 50, 100, 1000] {
            let query = LogQuery {
                tail: Some(tail),
                ..LogQuery::default()
            };
            assert_eq!(log.read(query), numbers(100 - tail.min(100)..100), "{tail}");
        }
        let since = LogQuery {
            since: Some(Timestamp::from_second(91).unwrap()),
            ..LogQuery::default()
        };
        assert_eq!(log.read(since), numbers(90..100));
    }

    #[test]
    fn a_log_that_is_not_there_is_empty_and_can_be_followed_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.0.log");
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let mut reader = LogReader::open(&path, query).unwrap();
        assert_eq!(reader.poll().unwrap(), None);
        fs::write(&path, "1970-01-01T00:00:01.000000Z e hi\nforeign\nno end").unwrap();
        let line = reader.poll().unwrap().unwrap();
        assert_eq!((line.stream, line.text.as_str()), (Stream::Err, "hi"));
        assert_eq!(line.at, Timestamp::from_second(1).unwrap());
        assert_eq!(all(&mut reader), ["foreign"]);
    }

    /// Row 41. Mutation: have `look_for_newer` move on to what it finds.
    #[test]
    fn what_is_written_between_the_end_and_the_rotation_is_not_lost() {
        let mut log = written(400, 60);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let mut reader = LogReader::open(&log.path, query).unwrap();
        log.write("0");
        reader.look_for_newer().unwrap();
        assert_eq!(all(&mut reader), ["0"]);
        // The reader is at the end of the file, which grows and is rotated before it looks for another.
        assert!(!reader.fill().unwrap());
        for number in 1..30 {
            log.write(&number.to_string());
        }
        assert!(reader.look_for_newer().unwrap());
        assert_eq!(all(&mut reader), numbers(1..30));
    }

    /// Row 41. Mutation: begin with the newest file in `look_for_newer`.
    #[test]
    fn following_loses_nothing_however_the_files_rotate_meanwhile() {
        let mut log = written(400, 60);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let path = log.path.clone();
        let until = Instant::now() + Duration::from_secs(20);
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&read);
        let follower = std::thread::spawn(move || {
            let mut reader = LogReader::open(&path, query).unwrap();
            let mut seen: Vec<String> = Vec::new();
            while seen.last().is_none_or(|last| last != "2999") {
                assert!(Instant::now() < until, "stuck after {:?}", seen.last());
                seen.extend(all(&mut reader));
                counter.store(seen.len(), Ordering::Relaxed);
            }
            seen
        });
        for number in 0..3000_usize {
            log.write(&number.to_string());
            // The follower must not fall behind by more than is kept, which is 600 lines.
            while read.load(Ordering::Relaxed) + 300 < number && !follower.is_finished() {
                std::thread::yield_now();
            }
        }
        assert_eq!(follower.join().unwrap(), numbers(0..3000));
    }
}
