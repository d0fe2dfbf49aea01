//! Waiting longer after each failure in a row, with jitter.

/// A splitmix64 generator: the only source of chance here, seeded by the caller.
#[derive(Debug, Clone)]
pub(crate) struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration between 80 % and 120 % of `ms`.
    pub fn jitter(&mut self, ms: u64) -> u64 {
        ms - ms / 5 + self.next() % (ms * 2 / 5 + 1)
    }
}

/// `initial · 2^(failures − 1)`, at most `max`. No failure, no wait.
pub(crate) fn delay_ms(failures: u32, initial_ms: u64, max_ms: u64) -> u64 {
    match failures {
        0 => 0,
        n => initial_ms
            .saturating_mul(1u64.checked_shl(n - 1).unwrap_or(u64::MAX))
            .min(max_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_their_bound() {
        assert_eq!(
            [0, 1, 2, 3, 200].map(|n| delay_ms(n, 500, 60_000)),
            [0, 500, 1000, 2000, 60_000]
        );
    }

    #[test]
    fn jitter_stays_within_a_fifth() {
        let mut chance = Chance(1);
        for _ in 0..1000 {
            assert!((800..=1200).contains(&chance.jitter(1000)));
        }
        assert_eq!(chance.jitter(0), 0);
    }
}
