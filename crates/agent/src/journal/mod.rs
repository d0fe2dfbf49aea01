//! The agent's journal on its own disk: DATA/journal/FIRST.log, each file a segment of one chain of entries.
//!
//! A line is a checksum, a space and JSON; the first line of a segment says which chain it is of and which entry comes
//! before it. Nothing is synced until it is about to be handed over, so a power cut may take the newest entries, never
//! ones that the control plane has. The oldest segment goes when there are too many, after an entry in the newest one says
//! so. What an entry holds and how chains are checked is `model::journal`'s. One writer, [`scribe`], owns it.

pub mod note;
pub mod scribe;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_dispatch::journal::{Chunk, MAX_CHUNK_BYTES, MAX_ENTRIES};
use plumb_model::journal::{Entry, FORMAT, Happening, MAX_LINE_BYTES, Mark, start_of};
use plumb_model::{Hash, Lineage, MachineName, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

use crate::error::AgentError;
use crate::link::{hex, random_bytes};

/// How large the journal may grow: so many segments of so many bytes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A segment that is larger is followed by another one.
    pub segment_bytes: u64,
    /// How many there are at most.
    pub segments: usize,
}

/// Four MiB in all: some twelve thousand entries, and little beside what an agent's other files take.
pub const BOUNDS: Bounds = Bounds {
    segment_bytes: 1024 * 1024,
    segments: 4,
};

/// The digits of a line's checksum: 64 bits tell a torn line from a whole one, and the chain does the rest.
const CHECKSUM: usize = 16;

/// Whose journal it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Whose history the machine obeys.
    pub lineage: Lineage,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The machine.
    pub machine: MachineName,
}

/// The first line of a segment.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    chain: String,
    #[serde(flatten)]
    owner: Owner,
    /// The number of the first entry that follows.
    first: u64,
    /// The hash of the one before it.
    before: Hash,
}

/// Read by itself first, since nothing else of a newer segment can be relied on.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Debug, Clone)]
struct Segment {
    first: u64,
    before: Hash,
    path: PathBuf,
}

/// Where the next entry to be handed over is.
#[derive(Debug)]
struct Cursor {
    next: u64,
    segment: u64,
    offset: u64,
}

/// The journal, open for writing.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    owner: Owner,
    bounds: Bounds,
    mark: Mark,
    /// Oldest first; never empty.
    segments: VecDeque<Segment>,
    file: File,
    written: u64,
    synced: bool,
    lost: u64,
    cursor: Option<Cursor>,
    /// What the kernel called the run of the machine in which the agent was last started.
    boot: Option<String>,
    newest: Option<Timestamp>,
}

/// What a folder holds.
struct Found {
    segments: VecDeque<Segment>,
    mark: Mark,
    boot: Option<String>,
    newest: Option<Timestamp>,
    /// How long the newest segment is as far as it is whole.
    whole: u64,
    /// Something follows that is not whole.
    torn: bool,
    /// The first thing that does not fit.
    damaged: Option<String>,
}

/// A number further ahead than this is no entry's: nobody has written so many.
const MOST_TAKEN_AWAY: u64 = 1 << 32;

fn checksum(json: &[u8]) -> String {
    let mut digits = Hash::of(json).to_string();
    digits.truncate(CHECKSUM);
    digits
}

fn written_line(json: &[u8]) -> Vec<u8> {
    let mut line = checksum(json).into_bytes();
    line.push(b' ');
    line.extend_from_slice(json);
    line.push(b'\n');
    line
}

/// The JSON of a line as it stands in a file, and whether its checksum is right.
fn read_line(line: &[u8]) -> Option<(&[u8], bool)> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, rest) = line.split_at_checked(CHECKSUM)?;
    let json = rest.strip_prefix(b" ")?;
    Some((json, checksum(json).as_bytes() == sum))
}

/// The number of an entry, which its line begins with.
fn number_of(json: &[u8]) -> Option<u64> {
    let rest = json.strip_prefix(b"{\"number\":")?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&rest[..end]).ok()?.parse().ok()
}

/// Reads one line with its line feed, if there is one, but never more than an entry may have.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let limit = (MAX_LINE_BYTES + CHECKSUM + 2) as u64;
    reader.by_ref().take(limit).read_until(b'\n', line)?;
    Ok(!line.is_empty())
}

fn read_header(path: &Path, line: &[u8]) -> Result<Header, String> {
    let (json, right) = read_line(line).ok_or("its first line is not whole")?;
    if !right {
        return Err("its first line is not what its checksum says".to_owned());
    }
    serde_json::from_slice(json).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

impl Journal {
    /// Opens the journal in an agent's data folder, or begins one, and checks all that is there.
    ///
    /// # Errors
    /// If the disk refuses, or a newer version wrote it; nothing has been written then.
    pub fn open(data: &Path, owner: Owner, bounds: Bounds) -> Result<Self, AgentError> {
        let folder = data.join("journal");
        let at = |doing, source| AgentError::Folder {
            doing,
            path: folder.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|e| at("make", e))?;
        let names = segment_names(&folder).map_err(|e| at("read", e))?;
        for (_, path) in &names {
            refuse_newer(&folder, path)?;
        }
        let found = look(&names, &owner);
        let journal = match found {
            Ok(Some(found)) => Self::go_on(folder.clone(), owner, bounds, found),
            Ok(None) => Self::begin(folder.clone(), owner, bounds, None),
            Err(why) => {
                tracing::warn!(
                    why,
                    "the journal cannot be read; it is set aside, and another one begins"
                );
                set_aside(&folder).map_err(|e| at("set aside", e))?;
                Self::begin(folder.clone(), owner, bounds, Some(why))
            }
        };
        journal.map_err(|e| at("write to", e))
    }

    fn begin(
        folder: PathBuf,
        owner: Owner,
        bounds: Bounds,
        why: Option<String>,
    ) -> io::Result<Self> {
        let chain = hex(&random_bytes::<16>());
        let before = start_of(&owner.lineage, &owner.workspace, &owner.machine, &chain);
        let mark = Mark {
            chain,
            number: 0,
            hash: before,
        };
        let (segment, file, written) = new_segment(&folder, &owner, &mark)?;
        let mut journal = Self {
            folder,
            owner,
            bounds,
            mark,
            segments: [segment].into(),
            file,
            written,
            synced: false,
            lost: 0,
            cursor: None,
            boot: None,
            newest: None,
        };
        journal.note(Timestamp::now(), true, Happening::Begun { why });
        Ok(journal)
    }

    fn go_on(folder: PathBuf, owner: Owner, bounds: Bounds, found: Found) -> io::Result<Self> {
        let newest = found.segments.back().ok_or(io::ErrorKind::NotFound)?;
        let file = OpenOptions::new().append(true).open(&newest.path)?;
        if found.torn {
            file.set_len(found.whole)?;
        }
        let mut journal = Self {
            folder,
            owner,
            bounds,
            mark: found.mark,
            segments: found.segments,
            file,
            written: found.whole,
            synced: false,
            lost: u64::from(found.torn),
            cursor: None,
            boot: found.boot,
            newest: found.newest,
        };
        if let Some(why) = found.damaged {
            tracing::warn!(why, "the journal was changed by somebody else");
            journal.note(Timestamp::now(), true, Happening::Damaged { why });
        }
        Ok(journal)
    }

    /// Where it ends.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }

    /// What the kernel called the run of the machine in which the agent was last started, if that is known.
    pub fn last_boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// When the agent before this one noted something for the last time, if it is known.
    pub fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Writes an entry. What cannot be written is counted, and told of once something can.
    pub fn note(&mut self, at: Timestamp, away: bool, what: Happening) {
        if self.lost > 0 {
            let lost = Happening::Lost { entries: self.lost };
            if self.append(at, away, lost).is_err() {
                self.lost = self.lost.saturating_add(1);
                return;
            }
            self.lost = 0;
        }
        if let Happening::AgentStarted { boot, .. } = &what {
            self.boot = Some(boot.clone());
        }
        if let Err(error) = self.append(at, away, what) {
            if self.lost == 0 {
                tracing::warn!(path = %self.folder.display(), %error, "the journal cannot be written");
            }
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// So many things were not even tried to be written.
    pub fn lose(&mut self, entries: u64) {
        self.lost = self.lost.saturating_add(entries);
    }

    fn append(&mut self, at: Timestamp, away: bool, what: Happening) -> io::Result<()> {
        if self.written >= self.bounds.segment_bytes {
            self.rotate(at, away)?;
        }
        self.write(at, away, what)
    }

    fn write(&mut self, at: Timestamp, away: bool, what: Happening) -> io::Result<()> {
        let entry = Entry {
            number: self.mark.number + 1,
            before: self.mark.hash,
            at,
            away,
            what: what.bounded(),
        };
        let json = entry.line();
        let line = written_line(&json);
        if let Err(error) = self.file.write_all(&line) {
            // Half of it may have been written: cut back to what is whole.
            let _ = self.file.set_len(self.written);
            return Err(error);
        }
        self.written += line.len() as u64;
        self.synced = false;
        self.mark.number = entry.number;
        self.mark.hash = Hash::of(&json);
        Ok(())
    }

    /// Begins another segment. Where there are too many, the oldest goes once an entry in the new one says so.
    fn rotate(&mut self, at: Timestamp, away: bool) -> io::Result<()> {
        // What is never looked at again is on the disk before anything of it may be dropped or handed over.
        self.file.sync_data()?;
        let (segment, file, written) = new_segment(&self.folder, &self.owner, &self.mark)?;
        self.segments.push_back(segment);
        self.file = file;
        self.written = written;
        while self.segments.len() > self.bounds.segments.max(2) {
            let (Some(oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) else {
                break;
            };
            let what = Happening::Dropped {
                entries: next.first - oldest.first,
                through: next.first - 1,
                hash: next.before,
            };
            self.write(at, away, what)?;
            if let Some(gone) = self.segments.pop_front() {
                fs::remove_file(&gone.path)?;
            }
            self.cursor = None;
        }
        Ok(())
    }

    /// The entries after one, as many as fit into a chunk, all of them on the disk for good. None if there are none.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn read(&mut self, after: u64) -> io::Result<Option<Chunk>> {
        if after >= self.mark.number {
            return Ok(None);
        }
        if !self.synced {
            self.file.sync_data()?;
            self.synced = true;
        }
        let mut lines = Vec::new();
        let mut bytes = 0;
        let mut next = after + 1;
        let mut line = Vec::new();
        'segments: for (at, segment) in self.segments.iter().enumerate() {
            let follows = self.segments.get(at + 1);
            if follows.is_some_and(|follows| follows.first <= next) {
                continue;
            }
            let mut file = File::open(&segment.path)?;
            let cursor = self.cursor.take();
            let mut number = segment.first;
            let mut offset = 0;
            // Somebody may have cut it.
            let length = file.metadata()?.len();
            let fits = |c: &Cursor| c.segment == segment.first && c.next == next && next > number;
            if let Some(cursor) = cursor.filter(|c| fits(c) && c.offset < length) {
                file.seek(SeekFrom::Start(cursor.offset))?;
                (number, offset) = (cursor.next, cursor.offset);
            }
            let mut reader = BufReader::new(file);
            if offset == 0 {
                next_line(&mut reader, &mut line)?;
                offset += line.len() as u64;
            }
            next = next.max(number);
            while next_line(&mut reader, &mut line)? {
                // What somebody else wrote is handed over as it is: the control plane says what is wrong with it.
                let json = match read_line(&line) {
                    Some((json, _)) => json,
                    None => line.strip_suffix(b"\n").unwrap_or(&line),
                };
                // Where somebody took lines away, what was written since must still be found.
                number = number_of(json).unwrap_or(number);
                if number >= next {
                    if lines.len() == MAX_ENTRIES
                        || (bytes + json.len() > MAX_CHUNK_BYTES && !lines.is_empty())
                    {
                        self.cursor = Some(Cursor {
                            next: number,
                            segment: segment.first,
                            offset,
                        });
                        break 'segments;
                    }
                    bytes += json.len();
                    lines.push(json.to_vec());
                }
                number += 1;
                offset += line.len() as u64;
            }
            self.cursor = Some(Cursor {
                next: number,
                segment: segment.first,
                offset,
            });
        }
        if lines.is_empty() {
            return Ok(None);
        }
        Ok(Some(Chunk {
            newest: self.mark.clone(),
            lines,
        }))
    }
}

/// The segments that a folder holds, oldest first, each with the number that its name says.
fn segment_names(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".log")?.parse().ok());
        if let Some(number) = number {
            names.push((number, path));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A segment of a newer version stops the agent before it writes anything there.
fn refuse_newer(folder: &Path, path: &Path) -> Result<(), AgentError> {
    let mut line = Vec::new();
    let opened = File::open(path).map(BufReader::new);
    let read = opened.and_then(|mut reader| next_line(&mut reader, &mut line));
    let format = read
        .ok()
        .and_then(|_| read_line(&line))
        .and_then(|(json, _)| serde_json::from_slice::<Format>(json).ok());
    match format {
        Some(Format { format }) if format > FORMAT => Err(AgentError::Newer {
            folder: folder.to_owned(),
            format,
            known: FORMAT,
        }),
        _ => Ok(()),
    }
}

/// Reads and checks everything. `Err`: nothing can be gone on with, and why.
fn look(names: &[(u64, PathBuf)], owner: &Owner) -> Result<Option<Found>, String> {
    let mut found: Option<Found> = None;
    for (at, (named, path)) in names.iter().enumerate() {
        let newest = at + 1 == names.len();
        let file = File::open(path).map_err(|e| e.to_string())?;
        let mut reader = BufReader::new(file);
        let mut line = Vec::new();
        next_line(&mut reader, &mut line).map_err(|e| e.to_string())?;
        let header = match read_header(path, &line) {
            Ok(header) => header,
            // A power cut may leave the newest one without a whole first line; what it was to hold was never written.
            Err(_) if newest && found.is_some() => {
                let _ = fs::remove_file(path);
                break;
            }
            Err(why) => return Err(why),
        };
        if header.owner != *owner {
            return Err("it is another machine's".to_owned());
        }
        let fresh = || Found {
            segments: VecDeque::new(),
            mark: Mark {
                chain: header.chain.clone(),
                number: header.first.saturating_sub(1),
                hash: header.before,
            },
            boot: None,
            newest: None,
            whole: 0,
            torn: false,
            damaged: None,
        };
        let here = found.get_or_insert_with(fresh);
        if header.chain != here.mark.chain || header.first != *named {
            return Err("its segments are of several journals".to_owned());
        }
        if header.first != here.mark.number + 1 || header.before != here.mark.hash {
            here.damaged.get_or_insert(format!(
                "what is before entry {} is not what was there when it was written",
                header.first
            ));
        }
        here.mark.number = header.first - 1;
        here.mark.hash = header.before;
        here.segments.push_back(Segment {
            first: header.first,
            before: header.before,
            path: path.clone(),
        });
        here.whole = line.len() as u64;
        here.torn = false;
        while next_line(&mut reader, &mut line).map_err(|e| e.to_string())? {
            let number = here.mark.number + 1;
            match read_line(&line) {
                Some((json, right)) => {
                    let entry = Entry::parse(json).ok();
                    let fits = entry
                        .as_ref()
                        .is_some_and(|e| e.number == number && e.before == here.mark.hash);
                    if !right || !fits {
                        here.damaged
                            .get_or_insert(format!("entry {number} is not what was written"));
                    }
                    here.newest = entry.as_ref().map(|e| e.at).or(here.newest);
                    // Where lines were taken away, what comes now gets a number that none of the others has.
                    let written = entry.as_ref().map_or(number, |e| e.number);
                    let number = match written.checked_sub(number) {
                        Some(ahead) if ahead < MOST_TAKEN_AWAY => written,
                        _ => number,
                    };
                    if let Some(Happening::AgentStarted { boot, .. }) = entry.map(|e| e.what) {
                        here.boot = Some(boot);
                    }
                    here.mark.hash = Hash::of(json);
                    here.mark.number = number;
                    here.whole += line.len() as u64;
                }
                None => {
                    // Only the very end may be torn, by a power cut.
                    here.torn = true;
                    break;
                }
            }
        }
        if here.torn && !newest {
            here.damaged.get_or_insert(format!(
                "what follows entry {} cannot be read",
                here.mark.number
            ));
        }
    }
    Ok(found)
}

fn new_segment(folder: &Path, owner: &Owner, mark: &Mark) -> io::Result<(Segment, File, u64)> {
    let first = mark.number + 1;
    let path = folder.join(format!("{first:020}.log"));
    let header = Header {
        format: FORMAT,
        chain: mark.chain.clone(),
        owner: owner.clone(),
        first,
        before: mark.hash,
    };
    let line = written_line(&serde_json::to_vec(&header)?);
    // One of this name is what an attempt that failed has left.
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    file.set_len(0)?;
    if let Err(error) = file.write_all(&line) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    let segment = Segment {
        first,
        before: mark.hash,
        path,
    };
    Ok((segment, file, line.len() as u64))
}

/// Keeps a journal that cannot be read where people can look at it; the one that was kept before goes.
fn set_aside(folder: &Path) -> io::Result<()> {
    let aside = folder.join("damaged");
    match fs::remove_dir_all(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(&aside)?;
    for (_, path) in segment_names(folder)? {
        if let Some(name) = path.file_name() {
            fs::rename(&path, aside.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
