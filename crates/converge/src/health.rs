//! Turning single probe results into healthy or unhealthy, and saying when to ask next.

use std::collections::VecDeque;

use plumb_model::condition::KEPT_PROBES;
use plumb_model::{HealthSpec, ProbeOutcome, ProbeResult};

/// The first probe comes this soon after the start; each further one waits a quarter longer, up to a second, until one
/// passes. So a program is known to be healthy after five quarters of the time that it takes to be, which counts: most
/// listen within a fraction of a second, and a rollout or a person waits for it.
const FIRST_PROBE_MS: u64 = 20;
const STARTING_MAX_MS: u64 = 1000;

/// How long to wait after so many probes of which none has passed.
fn starting_wait_ms(asked: u32) -> u64 {
    // More steps than it takes to reach the longest wait change nothing.
    (0..asked.min(32)).fold(FIRST_PROBE_MS, |wait, _| {
        (wait + wait / 4).min(STARTING_MAX_MS)
    })
}

/// The health of one incarnation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Health {
    pub incarnation: Option<String>,
    /// Unknown until the first pass, or until the threshold of failures after one.
    pub healthy: Option<bool>,
    pub results: VecDeque<ProbeResult>,
    pub probing: bool,
    pub next_ms: Option<u64>,
    passes: u32,
    failures: u32,
    asked: u32,
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    None,
    Healthy,
    Unhealthy,
}

impl Health {
    /// Starts over for a new incarnation; results of the one before are kept for people to read.
    pub fn begin(&mut self, incarnation: &str, now_ms: u64) {
        let results = std::mem::take(&mut self.results);
        *self = Self {
            incarnation: Some(incarnation.to_owned()),
            results,
            next_ms: Some(now_ms + FIRST_PROBE_MS),
            ..Self::default()
        };
    }

    /// Forgets the incarnation: it has ended.
    pub fn end(&mut self) {
        self.incarnation = None;
        self.healthy = None;
        self.next_ms = None;
        self.probing = false;
    }

    /// Takes a result in.
    pub fn record(&mut self, result: ProbeResult, spec: &HealthSpec, now_ms: u64) -> Turn {
        let passed = result.outcome == ProbeOutcome::Passed;
        self.results.push_back(result);
        while self.results.len() > KEPT_PROBES {
            self.results.pop_front();
        }
        self.probing = false;
        self.asked += 1;
        (self.passes, self.failures) = if passed {
            (self.passes + 1, 0)
        } else {
            (0, self.failures + 1)
        };
        let turn = match self.healthy {
            None if passed => Turn::Healthy,
            Some(false) if self.passes >= spec.healthy_threshold => Turn::Healthy,
            Some(true) if self.failures >= spec.unhealthy_threshold => Turn::Unhealthy,
            _ => Turn::None,
        };
        match turn {
            Turn::Healthy => self.healthy = Some(true),
            Turn::Unhealthy => self.healthy = Some(false),
            Turn::None => {}
        }
        let wait = match self.healthy {
            None => starting_wait_ms(self.asked).min(spec.interval_ms),
            Some(_) => spec.interval_ms,
        };
        self.next_ms = Some(now_ms + wait);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_model::{HealthProbe, Timestamp};

    fn spec() -> HealthSpec {
        HealthSpec {
            probe: HealthProbe::Tcp {
                host: None,
                port: 1,
            },
            interval_ms: 30_000,
            timeout_ms: 5_000,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        }
    }

    fn result(passed: bool) -> ProbeResult {
        let outcome = if passed {
            ProbeOutcome::Passed
        } else {
            ProbeOutcome::Failed
        };
        ProbeResult {
            at: Timestamp::UNIX_EPOCH,
            outcome,
            code: None,
            millis: 1,
            error: None,
        }
    }

    #[test]
    fn the_first_pass_is_enough_and_then_the_thresholds_rule() {
        let mut health = Health::default();
        health.begin("i", 0);
        let turns: Vec<Turn> = [
            false, true, false, false, true, false, false, false, true, true,
        ]
        .map(|passed| health.record(result(passed), &spec(), 0))
        .to_vec();
        use Turn::{Healthy, None as No, Unhealthy};
        assert_eq!(
            turns,
            [No, Healthy, No, No, No, No, No, Unhealthy, No, Healthy]
        );
    }

    #[test]
    fn until_the_first_pass_it_asks_at_least_every_second() {
        let mut health = Health::default();
        health.begin("i", 0);
        let mut now = health.next_ms.unwrap();
        for _ in 0..20 {
            health.record(result(false), &spec(), now);
            let next = health.next_ms.unwrap();
            assert!(next - now <= 1000);
            // Whatever comes to be in between is known soon after.
            assert!(
                next <= now + now / 4 + FIRST_PROBE_MS + 5,
                "{now} to {next}"
            );
            now = next;
        }
        health.record(result(true), &spec(), now);
        assert_eq!(health.next_ms, Some(now + 30_000));
    }

    #[test]
    fn the_history_is_bounded() {
        let mut health = Health::default();
        for _ in 0..100 {
            health.record(result(true), &spec(), 0);
        }
        assert_eq!(health.results.len(), KEPT_PROBES);
    }
}
