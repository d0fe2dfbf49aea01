//! Doing the same to many paths on a few threads: what a thousand small files cost is mostly system calls.

use std::num::NonZero;
use std::thread;

/// Fewer items than this are done where they are: starting a thread costs as much as a few dozen small files.
const WORTH_A_THREAD: usize = 64;
/// More threads than this only queue at the file system's journal.
const MOST_THREADS: usize = 4;

/// Applies `work` to each item, and returns the results in the items' order.
pub(super) fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores.min(MOST_THREADS).min(items.len() / WORTH_A_THREAD);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let chunks = items.chunks(items.len().div_ceil(threads));
        let running: Vec<_> = chunks
            .map(|chunk| scope.spawn(move || chunk.iter().map(work).collect::<Vec<R>>()))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_the_order_of_the_items_however_many_there_are() {
        for count in [0, 1, 63, 64, 127, 128, 129, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(
                super::map(&items, |n| n * 2),
                (0..count).map(|n| n * 2).collect::<Vec<_>>()
            );
        }
    }
}
