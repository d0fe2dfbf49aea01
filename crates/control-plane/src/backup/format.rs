//! The form of a backup: a line that says what it is, then frames, the last of which holds a digest of all before it.
//!
//! A frame is a byte for its kind, four for its length (little endian) and that many bytes. Truncated, changed in any bit,
//! or with something behind its end, a backup is refused. What is read is bounded, and paths are of a closed grammar,
//! since nobody says who made the file.

use std::io::{self, Read, Write};

use plumb_ledger::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
use plumb_model::{Hash, Lineage, Timestamp, WorkspaceName};
use serde::{Deserialize, Serialize};

/// The first line.
const MAGIC: &[u8] = b"plumb backup\n";

/// The newest format that this version reads, and the one that it writes.
pub const FORMAT: u32 = 1;

/// The most bytes of a frame: a key and a value.
const MAX_FRAME: usize = MAX_KEY_BYTES + MAX_VALUE_BYTES + 64 * 1024;

/// The most bytes of a file that is no blob.
const MAX_SMALL: u64 = 16 * 1024 * 1024;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// The version of the control plane that made it.
    pub version: String,
    /// The lineage of the data folder.
    pub lineage: Lineage,
    /// The workspace of the data folder.
    pub workspace: WorkspaceName,
    /// When it was taken.
    pub at: Timestamp,
    /// Whether it holds artifacts and large files.
    pub blobs: bool,
}

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is in the data folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A key of the store and its value.
    Pair(Vec<u8>, Vec<u8>),
    /// A file begins.
    File(Entry),
    /// Bytes of the file that was begun last.
    Data(Vec<u8>),
}

/// Why a backup cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// It is not what was written.
    #[error(
        "the backup is damaged near byte {at}: {why}; nothing was restored: use another copy of it, or an older backup"
    )]
    Damaged {
        /// Where.
        at: u64,
        /// What does not fit.
        why: String,
    },
    /// It is something else.
    #[error("this is no backup of plumb; give a file that `plumb backup` has written")]
    Foreign,
    /// It is of a newer version.
    #[error(
        "the backup was written by plumb {version} (format {found}, this one reads up to {FORMAT}); upgrade plumb"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Who wrote it.
        version: String,
    },
    /// The system refused something.
    #[error("cannot {step} {path}; check the path, its permissions and the disk")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: String,
        /// Why it was refused.
        #[source]
        source: io::Error,
    },
    /// It cannot be put there.
    #[error("{0}")]
    Refused(String),
}

/// A file error.
pub(super) fn failed(
    step: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.display().to_string();
    move |source| BackupError::Io { step, path, source }
}

/// Writes frames, and keeps the digest.
pub struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Writer<W> {
    /// Begins a backup.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hasher: blake3::Hasher::new(),
        };
        writer.raw(MAGIC)?;
        writer.frame(b'H', &[&serde_json::to_vec(header)?])?;
        Ok(writer)
    }

    /// Goes on elsewhere, and hands back where it wrote.
    pub fn onto<V: Write>(self, out: V) -> (W, Writer<V>) {
        let writer = Writer {
            out,
            hasher: self.hasher,
        };
        (self.out, writer)
    }

    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.raw(&[kind])?;
        self.raw(&length.to_le_bytes())?;
        parts.iter().try_for_each(|part| self.raw(part))
    }

    /// A pair of the store.
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let length = u32::try_from(key.len()).map_err(io::Error::other)?;
        self.frame(b'P', &[&length.to_le_bytes(), key, value])
    }

    /// A file of this many bytes.
    pub fn file(&mut self, entry: &Entry, mut from: impl Read) -> io::Result<()> {
        self.frame(b'F', &[&serde_json::to_vec(entry)?])?;
        let mut piece = vec![0; 64 * 1024];
        let mut left = entry.size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            match from.read(&mut piece[..most])? {
                0 => return Err(io::Error::other(format!("{} became shorter", entry.path))),
                read => {
                    self.frame(b'D', &[&piece[..read]])?;
                    left -= read as u64;
                }
            }
        }
        Ok(())
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<W> {
        let digest = *self.hasher.finalize().as_bytes();
        self.frame(b'E', &[&digest])?;
        self.out.flush()?;
        Ok(self.out)
    }
}

/// Reads frames, and holds them against the digest.
pub struct Reader<R> {
    input: R,
    hasher: blake3::Hasher,
    at: u64,
    header: Header,
    /// How many bytes of the file that was begun are still to come.
    left: u64,
}

impl<R: Read> Reader<R> {
    /// Begins to read a backup.
    ///
    /// # Errors
    /// When it is none, or of a newer version.
    pub fn new(input: R) -> Result<Self, BackupError> {
        let header = Header {
            format: 0,
            version: String::new(),
            lineage: Lineage::from_random([0; 16]),
            workspace: WorkspaceName::new("main").map_err(|_| BackupError::Foreign)?,
            at: Timestamp::UNIX_EPOCH,
            blobs: false,
        };
        let mut reader = Self {
            input,
            hasher: blake3::Hasher::new(),
            at: 0,
            header,
            left: 0,
        };
        let mut magic = [0; MAGIC.len()];
        reader.take(&mut magic).map_err(|_| BackupError::Foreign)?;
        if magic != MAGIC {
            return Err(BackupError::Foreign);
        }
        let (kind, bytes) = reader.frame()?;
        if kind != b'H' {
            return Err(reader.damaged("it does not begin with its header"));
        }
        #[derive(Deserialize)]
        struct Version {
            format: u32,
            #[serde(default)]
            version: String,
        }
        let version: Version = serde_json::from_slice(&bytes)
            .map_err(|_| reader.damaged("its header cannot be read"))?;
        if version.format > FORMAT {
            return Err(BackupError::Newer {
                found: version.format,
                version: plumb_model::escape::line(&version.version).into_owned(),
            });
        }
        reader.header = serde_json::from_slice(&bytes)
            .map_err(|_| reader.damaged("its header cannot be read"))?;
        Ok(reader)
    }

    /// What it says of itself. Nothing of it is sure before the end has come.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn damaged(&self, why: impl Into<String>) -> BackupError {
        BackupError::Damaged {
            at: self.at,
            why: why.into(),
        }
    }

    fn take(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        match self.input.read_exact(bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged("it is cut short"));
            }
            Err(e) => return Err(self.damaged(format!("it cannot be read: {e}"))),
        }
        self.hasher.update(bytes);
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>), BackupError> {
        let so_far = self.hasher.clone();
        let mut head = [0; 5];
        self.take(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(self.damaged("a length cannot be"));
        }
        let mut bytes = vec![0; length];
        self.take(&mut bytes)?;
        if kind == b'E' && bytes != so_far.finalize().as_bytes() {
            return Err(self.damaged("its digest is another"));
        }
        Ok((kind, bytes))
    }

    /// The next frame; none once the end has come and all was as it was written.
    ///
    /// # Errors
    /// When it is not.
    pub fn read_next(&mut self) -> Result<Option<Frame>, BackupError> {
        let (kind, bytes) = self.frame()?;
        if self.left > 0 && kind != b'D' {
            return Err(self.damaged("a file is cut short"));
        }
        match kind {
            b'P' => {
                let pair = bytes.split_at_checked(4).and_then(|(length, rest)| {
                    let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
                    rest.split_at_checked(length)
                });
                match pair {
                    Some((key, value)) => Ok(Some(Frame::Pair(key.to_vec(), value.to_vec()))),
                    None => Err(self.damaged("a pair cannot be read")),
                }
            }
            b'F' => {
                let entry: Entry = serde_json::from_slice(&bytes)
                    .map_err(|_| self.damaged("the head of a file cannot be read"))?;
                let blob = match place(&entry.path) {
                    Some(blob) => blob,
                    None => return Err(self.damaged("it names a file that no data folder holds")),
                };
                let most = if blob {
                    plumb_wire::MAX_BLOB_BYTES
                } else {
                    MAX_SMALL
                };
                if entry.size > most {
                    return Err(self.damaged("a file is too large"));
                }
                self.left = entry.size;
                Ok(Some(Frame::File(entry)))
            }
            b'D' => match self.left.checked_sub(bytes.len() as u64) {
                Some(left) if !bytes.is_empty() => {
                    self.left = left;
                    Ok(Some(Frame::Data(bytes)))
                }
                _ => Err(self.damaged("a file is longer than it says")),
            },
            b'E' => {
                let mut behind = [0];
                match self.input.read(&mut behind) {
                    Ok(0) => Ok(None),
                    _ => Err(self.damaged("something follows its end")),
                }
            }
            _ => Err(self.damaged("there is a frame of an unknown kind")),
        }
    }
}

/// Whether a path may be in a backup; if so, whether it is a blob's.
fn place(path: &str) -> Option<bool> {
    let parts: Vec<&str> = path.split('/').collect();
    let is_hash = |text: &str| {
        text.parse::<Hash>()
            .is_ok_and(|hash| hash.to_string() == text)
    };
    match parts.as_slice() {
        ["blobs", hash] => is_hash(hash).then_some(true),
        ["workspaces", name, "blobs", hash] => {
            (WorkspaceName::new(name).is_ok() && is_hash(hash)).then_some(true)
        }
        ["identity", name] => is_public(name).then_some(false),
        _ => None,
    }
}

/// Whether a file of `identity` is known to everybody: the certificates of CAs, and how far a rotation is.
pub(super) fn is_public(name: &str) -> bool {
    name == "rotation.json" || number(name, ".pem")
}

/// Whether a file of `identity` is one of the keys that are never in a backup.
pub(super) fn is_key(name: &str) -> bool {
    name == "secrets.key" || name == "plan.key" || number(name, ".key")
}

/// `ca.EXT` or `ca-N.EXT`.
fn number(name: &str, extension: &str) -> bool {
    let Some(stem) = name.strip_suffix(extension) else {
        return false;
    };
    let digits = stem.strip_prefix("ca-");
    stem == "ca"
        || digits
            .is_some_and(|d| !d.is_empty() && d.len() < 10 && d.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            format: FORMAT,
            version: "1".to_owned(),
            lineage: Lineage::from_random([1; 16]),
            workspace: WorkspaceName::new("shop").unwrap(),
            at: Timestamp::UNIX_EPOCH,
            blobs: true,
        }
    }

    fn backup() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        writer.pair(b"key", b"value").unwrap();
        writer.pair(b"empty", b"").unwrap();
        let path = "identity/ca.pem".to_owned();
        let entry = Entry { path, size: 4 };
        writer.file(&entry, b"text".as_slice()).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Frame>, BackupError> {
        let mut reader = Reader::new(bytes)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.read_next()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    #[test]
    fn what_was_written_is_read() {
        let frames = read(&backup()).unwrap();
        let path = "identity/ca.pem".to_owned();
        let expected = [
            Frame::Pair(b"key".to_vec(), b"value".to_vec()),
            Frame::Pair(b"empty".to_vec(), Vec::new()),
            Frame::File(Entry { path, size: 4 }),
            Frame::Data(b"text".to_vec()),
        ];
        assert_eq!(frames, expected);
        assert_eq!(
            Reader::new(backup().as_slice()).unwrap().header(),
            &header()
        );
    }

    /// Row 37: cut anywhere, with any bit flipped, or with more behind it. Mutation: leave the comparison of the digest
    /// out of `frame`.
    #[test]
    fn a_backup_that_is_not_what_was_written_is_refused() {
        let whole = backup();
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut bad = whole.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad).is_err(), "bit {bit} of byte {at}");
            }
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_backup_of_a_newer_version_says_so() {
        let newer = Header {
            format: FORMAT + 1,
            ..header()
        };
        let bytes = Writer::new(Vec::new(), &newer).unwrap().finish().unwrap();
        let error = read(&bytes).unwrap_err();
        assert!(
            matches!(error, BackupError::Newer { found: 2, .. }),
            "{error}"
        );
        assert!(matches!(read(b"tar"), Err(BackupError::Foreign)));
    }

    #[test]
    fn only_files_of_a_data_folder_have_a_place_and_no_key_has() {
        let hash = Hash::of(b"x");
        for good in [
            format!("blobs/{hash}"),
            format!("workspaces/crm/blobs/{hash}"),
            "identity/ca.pem".to_owned(),
            "identity/ca-12.pem".to_owned(),
            "identity/rotation.json".to_owned(),
        ] {
            assert!(place(&good).is_some(), "{good}");
        }
        for bad in [
            "identity/ca.key",
            "identity/secrets.key",
            "identity/plan.key",
            "identity/../lineage",
            "identity/ca-.pem",
            "/etc/passwd",
            "blobs/../../x",
            "blobs/x",
            "lock",
            "",
        ] {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert!(is_key("ca.key") && is_key("ca-2.key") && !is_key("ca.pem"));
    }
}
