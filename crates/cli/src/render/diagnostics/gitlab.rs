//! GitLab's Code Quality report: a list of issues, shown in merge requests.

use std::collections::BTreeMap;

use plumb_blueprint::Severity;
use plumb_model::Hash;
use serde_json::{Value, json};

use super::Report;

/// The report as one value.
pub fn gitlab(report: &Report) -> Value {
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    let issues: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            // Without the line, so that an issue stays the same when lines are added above it; with a count, so that
            // two equal ones stay two.
            let identity = format!("{}\0{}\0{}", finding.rule, finding.file, finding.message);
            let count = seen.entry(identity.clone()).or_default();
            *count += 1;
            let line = finding.places.first().map_or(1, |place| place.line);
            json!({
                "description": finding.lines().join("; "),
                "check_name": finding.rule,
                "fingerprint": Hash::of(format!("{identity}\0{count}").as_bytes()).to_string(),
                "severity": match finding.severity {
                    Severity::Error => "major",
                    Severity::Warning => "minor",
                },
                "location": { "path": finding.file, "lines": { "begin": line, "end": line } },
            })
        })
        .collect();
    Value::Array(issues)
}
