//! How often one may call: for each token, for each source address, and for what was refused.
//!
//! Each has a bucket that holds so many calls and fills up at a steady rate. Calls that were proven by a machine's
//! certificate are not counted: sessions bound themselves. Time is handed in. Memory is bounded: past so many buckets
//! the full ones are forgotten, which changes nothing, and whoever is new beyond that shares one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The most buckets at once: some 100 bytes each.
const MAX_BUCKETS: usize = 16 * 1024;

/// How many calls a bucket holds, and how many come back in a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How many may come each second for ever.
    pub per_second: u32,
}

/// The limits of a control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRates {
    /// Calls with one token. A first apply of a large workspace uploads thousands of files, one call each.
    pub token: Rate,
    /// Calls from one source address that no machine's certificate has proven: joins of a whole rack behind one
    /// address among them.
    pub source: Rate,
    /// Refusals of calls from one source address that have proven nothing.
    pub refused_source: Rate,
    /// Refusals of calls with one token or one machine's certificate: each is a durable entry in the audit log.
    pub refused_caller: Rate,
}

impl Default for LimitRates {
    fn default() -> Self {
        Self {
            token: Rate {
                burst: 5000,
                per_second: 500,
            },
            source: Rate {
                burst: 20_000,
                per_second: 2000,
            },
            refused_source: Rate {
                burst: 100,
                per_second: 10,
            },
            refused_caller: Rate {
                burst: 50,
                per_second: 1,
            },
        }
    }
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Calls with a token, by workspace and id.
    Token(String, String),
    /// Calls from an address.
    Source(IpAddr),
    /// Refusals of what came from an address and proved nothing.
    RefusedSource(IpAddr),
    /// Refusals of what a token or a machine called, by workspace and name.
    RefusedCaller(String, String),
    /// Whatever found no room for a bucket of its own.
    Others,
}

impl Counted {
    /// An address as it is counted: of IPv6 only the network, since whoever has one has all of it.
    #[must_use]
    pub fn network(address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = v6.to_bits() & !u128::from(u64::MAX);
                IpAddr::V6(network.into())
            }
            v4 => v4,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    /// What is left, in thousandths of a call.
    left: u64,
    at_ms: u64,
}

/// The buckets.
#[derive(Debug)]
pub struct Limits {
    rates: LimitRates,
    buckets: Mutex<HashMap<Counted, Bucket>>,
    unproven: AtomicU64,
    limited: AtomicU64,
}

impl Limits {
    /// All buckets full.
    #[must_use]
    pub fn new(rates: LimitRates) -> Self {
        Self {
            rates,
            buckets: Mutex::default(),
            unproven: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        }
    }

    /// How many calls were refused that had proven nothing, since the start.
    #[must_use]
    pub fn refused_unproven(&self) -> u64 {
        self.unproven.load(Ordering::Relaxed)
    }

    /// How many calls were refused since they came too often, since the start.
    #[must_use]
    pub fn refused_too_often(&self) -> u64 {
        self.limited.load(Ordering::Relaxed)
    }

    /// Counts a refusal of a call that had proven nothing.
    pub fn note_unproven(&self) {
        self.unproven.fetch_add(1, Ordering::Relaxed);
    }

    fn rate(&self, counted: &Counted) -> Rate {
        match counted {
            Counted::Token(..) => self.rates.token,
            Counted::Source(_) | Counted::Others => self.rates.source,
            Counted::RefusedSource(_) => self.rates.refused_source,
            Counted::RefusedCaller(..) => self.rates.refused_caller,
        }
    }

    /// Takes one call out of a bucket, or says how long it takes until there is one.
    ///
    /// # Errors
    /// The time to wait: never zero.
    pub fn take(&self, counted: Counted, now_ms: u64) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = if buckets.contains_key(&counted) || self.make_room(&mut buckets, now_ms) {
            counted
        } else {
            Counted::Others
        };
        let rate = self.rate(&counted);
        let full = u64::from(rate.burst) * 1000;
        let bucket = buckets.entry(counted).or_insert(Bucket {
            left: full,
            at_ms: now_ms,
        });
        bucket.fill(rate, now_ms);
        if bucket.left >= 1000 {
            bucket.left -= 1000;
            return Ok(());
        }
        self.limited.fetch_add(1, Ordering::Relaxed);
        let wait = (1000 - bucket.left).div_ceil(u64::from(rate.per_second).max(1));
        Err(Duration::from_millis(wait.max(1)))
    }

    /// Whether there is room for one more bucket.
    fn make_room(&self, buckets: &mut HashMap<Counted, Bucket>, now_ms: u64) -> bool {
        if buckets.len() < MAX_BUCKETS {
            return true;
        }
        buckets.retain(|counted, bucket| {
            let rate = self.rate(counted);
            bucket.fill(rate, now_ms);
            bucket.left < u64::from(rate.burst) * 1000
        });
        buckets.len() < MAX_BUCKETS
    }
}

impl Bucket {
    fn fill(&mut self, rate: Rate, now_ms: u64) {
        // One call is a thousand, and a second has a thousand milliseconds: so many come back in each.
        let gained = now_ms
            .saturating_sub(self.at_ms)
            .saturating_mul(u64::from(rate.per_second));
        self.left = self
            .left
            .saturating_add(gained)
            .min(u64::from(rate.burst) * 1000);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let rate = Rate {
            burst: 3,
            per_second: 2,
        };
        Limits::new(LimitRates {
            token: rate,
            source: rate,
            refused_source: rate,
            refused_caller: rate,
        })
    }

    fn token(id: &str) -> Counted {
        Counted::Token("shop".into(), id.into())
    }

    /// Mutation: leave the subtraction in `take` out, or the `min` in `fill`.
    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate_and_says_how_long_to_wait() {
        let limits = limits();
        for _ in 0..3 {
            assert_eq!(limits.take(token("a"), 0), Ok(()));
        }
        assert_eq!(limits.take(token("a"), 0), Err(Duration::from_millis(500)));
        assert_eq!(limits.take(token("a"), 499), Err(Duration::from_millis(1)));
        assert_eq!(limits.take(token("a"), 500), Ok(()));
        assert!(limits.take(token("a"), 500).is_err());
        // A day later there is a burst and no more.
        for _ in 0..3 {
            assert_eq!(limits.take(token("a"), 86_400_000), Ok(()));
        }
        assert!(limits.take(token("a"), 86_400_000).is_err());
        // A clock that goes back gives nothing.
        assert!(limits.take(token("a"), 0).is_err());
        assert_eq!(limits.refused_too_often(), 5);
        assert_eq!(limits.take(token("b"), 0), Ok(()), "each has its own");
    }

    #[test]
    fn however_many_addresses_come_memory_stays_bounded_and_the_rest_share_a_bucket() {
        let limits = limits();
        let address = |n: u32| Counted::RefusedSource(IpAddr::V4(n.into()));
        for n in 0..2 * MAX_BUCKETS as u32 {
            let _ = limits.take(address(n), 0);
        }
        assert!(limits.buckets.lock().unwrap().len() <= MAX_BUCKETS + 1);
        assert!(limits.refused_too_often() > 0);
        // Those that are full again make room.
        assert_eq!(limits.take(token("late"), 10_000), Ok(()));
        assert!(limits.buckets.lock().unwrap().len() < 10);
    }

    #[test]
    fn an_address_of_ipv6_counts_as_its_network() {
        let of = |text: &str| Counted::network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
