//! The same work on many things, on as many threads as there are cores, with the results in the things' order.
//!
//! The result depends on neither the number of threads nor on which of them is faster.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// More than this many threads only wait for one another to get at memory.
const MAX_THREADS: usize = 16;

/// What planning does with one resource takes about as long as reading so many bytes of blueprints.
pub const A_RESOURCE: usize = 512;

thread_local! {
    static FORCED: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Does something with exactly so many threads wherever it calls [`each`] itself, however little there is to do: for
/// tests of what must not depend on it.
pub fn forced<R>(threads: usize, work: impl FnOnce() -> R) -> R {
    let before = FORCED.replace(Some(threads));
    let result = work();
    FORCED.set(before);
    result
}

/// Does `work` with each item. `size` is about how many bytes all of them have: what is small is not worth a thread.
pub fn each<T: Send, R: Send>(items: Vec<T>, size: usize, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    /// So much is read in about the time that a few threads take to start.
    const WORTH_A_THREAD: usize = 64 << 10;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = cores
        .min(MAX_THREADS)
        .min(items.len())
        .min(size / WORTH_A_THREAD + 1);
    on(FORCED.get().unwrap_or(threads), items, work)
}

fn on<T: Send, R: Send>(threads: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    if threads <= 1 {
        return items.into_iter().map(work).collect();
    }
    let count = items.len();
    let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|i| Mutex::new(Some(i))).collect();
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = items.get(at) else {
                return done;
            };
            // Nothing panics while it holds this lock.
            let item = slot.lock().ok().and_then(|mut item| item.take());
            if let Some(item) = item {
                done.push((at, work(item)));
            }
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut done = Vec::with_capacity(count);
        done.extend(take());
        for other in others {
            match other.join() {
                Ok(more) => done.extend(more),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    });
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_stand_in_the_order_of_the_items_whatever_the_number_of_threads() {
        let items: Vec<usize> = (0..1000).collect();
        let expected: Vec<usize> = items.iter().map(|i| i * 2).collect();
        for threads in [0, 1, 2, 7] {
            assert_eq!(on(threads, items.clone(), |i| i * 2), expected);
        }
        assert_eq!(each(Vec::<u8>::new(), 1 << 30, |i| i), Vec::<u8>::new());
    }
}
