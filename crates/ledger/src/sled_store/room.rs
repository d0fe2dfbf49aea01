//! How much room the disk must have before anything is handed to sled.
//!
//! sled does not come back from a write that fails: what it has in memory is ahead of the disk for good, and even a read
//! may have to split a node, which is a write and is refused then. So a full disk is found out before sled is asked: the
//! transaction is refused whole, reads go on, and writes go on too as soon as there is room again.

use std::io;
use std::path::Path;

use crate::store::{StoreError, Txn};

/// What is kept free for what sled writes beside a transaction: whole nodes of up to half a MiB, pages that it moves, and
/// the rest of a segment of 2 MiB, which it fills when it is opened. So there is room for a restart, too.
pub(super) const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// sled writes a value into its log, and once more when it rewrites the node that holds it.
const COPIES: u64 = 2;

/// The bytes that may still be written to the disk of a folder.
pub(super) fn free(folder: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(folder)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Whether there is room for transactions; none are needed to ask whether there would be for a small one.
pub(super) fn check<'a>(
    free: io::Result<u64>,
    transactions: impl Iterator<Item = &'a Txn>,
) -> Result<(), StoreError> {
    // Where nobody can say how much is free, the write itself must show it.
    let Ok(free) = free else { return Ok(()) };
    let bytes: usize = transactions.map(Txn::bytes).sum();
    let needed = RESERVE_BYTES + COPIES * bytes as u64;
    if free < needed {
        return Err(StoreError::Full { free, needed });
    }
    Ok(())
}
