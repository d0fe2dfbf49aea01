//! Numbers as Prometheus reads them: its text format, version 0.0.4, and a histogram to count into.
//!
//! Both programs use it. It keeps no time and asks nobody: who counts, counts with atomics, and the text is written when
//! somebody asks. Names and help are literals; label values are escaped.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a text of this sort is called in HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size; in seconds.
    Histogram,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A text being written.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Begins a family; the samples that follow are its own.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) -> &mut Self {
        self.family = name;
        let _ = writeln!(self.text, "# HELP {name} {help}");
        let _ = writeln!(self.text, "# TYPE {name} {}", kind.as_str());
        self
    }

    /// A sample of the family that was begun last.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.line("", labels, None, value)
    }

    /// A family of one number without labels.
    pub fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &'static str,
        value: f64,
    ) -> &mut Self {
        self.family(name, kind, help).sample(&[], value)
    }

    /// All samples of a histogram, of the family that was begun last.
    pub fn histogram(&mut self, labels: &[(&str, &str)], counted: &Histogram) -> &mut Self {
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&counted.buckets) {
            below += bucket.load(Ordering::Relaxed);
            self.line("_bucket", labels, Some(&bound.to_string()), below as f64);
        }
        let all = below + counted.buckets[BOUNDS.len()].load(Ordering::Relaxed);
        self.line("_bucket", labels, Some("+Inf"), all as f64);
        let sum = counted.micros.load(Ordering::Relaxed) as f64 / 1e6;
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, all as f64)
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: f64,
    ) -> &mut Self {
        let _ = write!(self.text, "{}{suffix}", self.family);
        let all = labels.iter().copied().chain(bound.map(|b| ("le", b)));
        for (number, (name, value)) in all.enumerate() {
            let before = if number == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    c => self.text.push(c),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
        self
    }

    /// What every process tells of itself, by the names that all Prometheus clients use.
    pub fn process(&mut self) -> &mut Self {
        let pages = |at: usize| {
            let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
            statm.split_whitespace().nth(at)?.parse::<f64>().ok()
        };
        if let Some(pages) = pages(1) {
            let bytes = pages * 4096.0;
            self.single(
                "process_resident_memory_bytes",
                Kind::Gauge,
                "Resident memory size in bytes.",
                bytes,
            );
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = open.count() as f64;
            self.single(
                "process_open_fds",
                Kind::Gauge,
                "Number of open file descriptors.",
                open,
            );
        }
        let ticks = std::fs::read_to_string("/proc/self/stat")
            .ok()
            .and_then(|stat| {
                let (_, after) = stat.rsplit_once(") ")?;
                let mut fields = after.split(' ').skip(11);
                let user: f64 = fields.next()?.parse().ok()?;
                let system: f64 = fields.next()?.parse().ok()?;
                Some(user + system)
            });
        if let Some(ticks) = ticks {
            // Linux counts in hundredths of a second for programs, whatever the kernel counts in.
            self.single(
                "process_cpu_seconds_total",
                Kind::Counter,
                "Total user and system CPU time spent in seconds.",
                ticks / 100.0,
            );
        }
        self
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }
}

/// The upper bounds of a histogram's buckets, in seconds.
const BOUNDS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Durations, counted by size.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn count(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        counts.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_help_type_and_escaped_labels() {
        let mut text = Exposition::default();
        text.single("plumb_up", Kind::Gauge, "Whether it is.", 1.0);
        text.family("plumb_calls_total", Kind::Counter, "Calls.")
            .sample(&[("method", "a\"b\\c\nd"), ("code", "OK")], 3.0);
        let expected = "# HELP plumb_up Whether it is.\n# TYPE plumb_up gauge\nplumb_up 1\n# HELP plumb_calls_total Calls.\n# TYPE plumb_calls_total counter\nplumb_calls_total{method=\"a\\\"b\\\\c\\nd\",code=\"OK\"} 3\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn a_histogram_counts_all_that_is_at_most_as_large() {
        let counted = Histogram::default();
        for ms in [1, 2, 40, 20_000] {
            counted.count(Duration::from_millis(ms));
        }
        let mut text = Exposition::default();
        text.family("t_seconds", Kind::Histogram, "T.")
            .histogram(&[("m", "x")], &counted);
        let text = text.finish();
        for line in [
            "t_seconds_bucket{m=\"x\",le=\"0.001\"} 1",
            "t_seconds_bucket{m=\"x\",le=\"0.0025\"} 2",
            "t_seconds_bucket{m=\"x\",le=\"0.1\"} 3",
            "t_seconds_bucket{m=\"x\",le=\"10\"} 3",
            "t_seconds_bucket{m=\"x\",le=\"+Inf\"} 4",
            "t_seconds_sum{m=\"x\"} 20.043",
            "t_seconds_count{m=\"x\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
        assert_eq!(counted.total(), 4);
    }
}
