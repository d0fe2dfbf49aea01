//! Waiting for a descriptor to become readable: the one place of the agent that needs `unsafe`.

#![allow(
    unsafe_code,
    reason = "tokio takes descriptors of other crates only so"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the runtime, for reading.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped; it is moved in here, and whoever holds the
    // `AsyncFd` gets no more than a shared reference to it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
