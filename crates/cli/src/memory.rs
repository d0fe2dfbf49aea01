//! Huge pages, for whoever is about to fill a hundred megabytes of memory once and then ends.

use std::fs;

/// Memory that is filled a few bytes at a time costs a fault for every page of four kilobytes, together as much as a quarter of
/// planning ten thousand resources. What the kernel hands out two megabytes at a time costs almost nothing, but an agent
/// would hold more than it uses: so only this asks for it, and only where there is much to do.
const WORTH_BYTES: usize = 512 << 10;
/// The allocator reserves its memory in one mapping of a gigabyte; what is smaller is not that.
const LEAST_MAPPING: usize = 256 << 20;

/// Says that so many bytes of blueprints are about to be worked on. If anything is not as expected, everything works as well
/// and takes a little longer.
pub fn expect(bytes: usize) {
    if bytes < WORTH_BYTES {
        return;
    }
    let somewhere = Box::new(0_u64);
    let at = std::ptr::from_ref(&*somewhere).addr();
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapping = maps.lines().find_map(|line| {
        let (first, end) = line.split(' ').next()?.split_once('-')?;
        let first = usize::from_str_radix(first, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (first <= at && at < end).then_some((first, end - first))
    });
    if let Some((first, length)) = mapping.filter(|(_, length)| *length >= LEAST_MAPPING) {
        advise(first, length);
    }
}

#[allow(
    unsafe_code,
    reason = "rustix marks every advice as unsafe, since some of it changes what memory holds; this one does not"
)]
fn advise(first: usize, length: usize) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: huge pages change how memory is backed, and nothing of what it holds.
    _ = unsafe {
        madvise(
            std::ptr::with_exposed_provenance_mut(first),
            length,
            Advice::LinuxHugepage,
        )
    };
}
