//! The mark: a small file that says how many transactions were acknowledged, so that a store whose log was cut
//! short, by damage or by a partly restored backup, is found out when it is opened.
//!
//! It is written after the sync of the data and not synced itself: it may lag behind after a power cut, but it
//! never promises what is not on disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

const BYTES: usize = 16;

/// The open mark of one store.
pub(super) struct Mark {
    file: File,
}

fn encode(number: u64) -> [u8; BYTES] {
    let number = number.to_be_bytes();
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&number);
    bytes[8..].copy_from_slice(&blake3::hash(&number).as_bytes()[..8]);
    bytes
}

fn decode(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    (bytes == encode(number)).then_some(number)
}

impl Mark {
    /// Opens the file or makes it, and says what it held: nothing if it is new or cannot be made out, which takes
    /// away a safeguard and no data.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut bytes = [0; BYTES];
        let held = match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => decode(&bytes),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(e) => return Err(e),
        };
        // Its block is allotted now, so that a full disk cannot keep it from being written later.
        if held.is_none() {
            file.write_all_at(&encode(0), 0)?;
        }
        Ok((Self { file }, held))
    }

    /// Notes the number of the last transaction that is durable.
    pub(super) fn write(&self, number: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(number), 0)
    }
}
