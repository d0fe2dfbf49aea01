//! What is counted while the control plane works: calls, by method and outcome, and what was dropped.
//!
//! Labels come from closed sets alone, the table of rules and the gRPC codes, so nobody can grow them. It decides
//! nothing; the guard counts, and `operations` writes it all down when somebody asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plumb_wire::exposition::{Exposition, Histogram, Kind};
use tonic::{Code, Status};

use crate::access::{RULES, Row};

/// How many gRPC codes there are.
const CODES: usize = 17;

/// The method of calls that are for none.
const UNKNOWN: &str = "unknown";

#[derive(Debug, Default)]
struct Method {
    codes: [AtomicU64; CODES],
    took: Histogram,
}

/// The counters. Shared by all of the control plane.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// One for each row of the rules, in their order, and one for everything else.
    methods: Vec<Method>,
    /// Events that readers of a watch were too slow for.
    pub dropped_events: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let methods = (0..=RULES.len()).map(|_| Method::default()).collect();
        Self {
            methods,
            dropped_events: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts a call that was answered, or whose stream has begun.
    pub fn answered(&self, row: Option<&Row>, code: Code, took: Duration) {
        let at = row.and_then(|row| RULES.iter().position(|other| other.path == row.path));
        let method = &self.methods[at.unwrap_or(RULES.len())];
        method.codes[code as usize % CODES].fetch_add(1, Ordering::Relaxed);
        method.took.count(took);
    }

    /// How many calls of these methods were answered with success, and how many otherwise.
    pub fn outcomes(&self, paths: &[&str]) -> (u64, u64) {
        let (mut good, mut bad) = (0, 0);
        for (row, method) in RULES.iter().zip(&self.methods) {
            if paths.contains(&row.path) {
                good += method.codes[0].load(Ordering::Relaxed);
                let others = method.codes[1..].iter();
                bad += others.map(|c| c.load(Ordering::Relaxed)).sum::<u64>();
            }
        }
        (good, bad)
    }

    /// Writes down the calls. Methods that nobody has called are left out.
    pub fn write(&self, text: &mut Exposition) {
        let called = || {
            let names = RULES
                .iter()
                .map(|row| row.path.trim_start_matches('/'))
                .chain([UNKNOWN]);
            names
                .zip(&self.methods)
                .filter(|(_, method)| method.took.total() > 0)
        };
        text.family(
            "plumb_rpc_handled_total",
            Kind::Counter,
            "Calls that were answered, by method and gRPC code; a stream counts when it begins.",
        );
        for (name, method) in called() {
            for (code, count) in method.codes.iter().enumerate() {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let code = code_name(code);
                    text.sample(&[("method", name), ("code", code)], count as f64);
                }
            }
        }
        text.family(
            "plumb_rpc_duration_seconds",
            Kind::Histogram,
            "How long calls took to be answered; of a stream, to begin.",
        );
        for (name, method) in called() {
            text.histogram(&[("method", name)], &method.took);
        }
    }
}

/// The code of an answer, as far as its head says it. What goes wrong later in a stream is not seen here.
pub(crate) fn code_of<B>(response: &tonic::codegen::http::Response<B>) -> Code {
    Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code())
}

/// The name of a code as gRPC writes it.
fn code_name(code: usize) -> &'static str {
    [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ][code % CODES]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_code_and_strange_paths_together() {
        let metrics = Metrics::default();
        let row = crate::access::rule("/plumb.v1.ControlPlane/Apply");
        let ms = Duration::from_millis;
        metrics.answered(row, Code::Ok, ms(3));
        metrics.answered(row, Code::FailedPrecondition, ms(1));
        metrics.answered(None, Code::PermissionDenied, ms(1));
        assert_eq!(metrics.outcomes(&["/plumb.v1.ControlPlane/Apply"]), (1, 1));
        let mut text = Exposition::default();
        metrics.write(&mut text);
        let text = text.finish();
        for line in [
            "plumb_rpc_handled_total{method=\"plumb.v1.ControlPlane/Apply\",code=\"OK\"} 1",
            "plumb_rpc_handled_total{method=\"plumb.v1.ControlPlane/Apply\",code=\"FAILED_PRECONDITION\"} 1",
            "plumb_rpc_handled_total{method=\"unknown\",code=\"PERMISSION_DENIED\"} 1",
            "plumb_rpc_duration_seconds_count{method=\"plumb.v1.ControlPlane/Apply\"} 2",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert!(!text.contains("ControlPlane/Plan"), "{text}");
    }
}
