//! JSON for programs: version 1 of the format, published as `schemas/diagnostics.json`.

use serde_json::{Value, json};

use super::{PLAN, Report};

/// The report as one value. Texts are as they are in the files.
pub fn json(report: &Report) -> Value {
    let items: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let spans: Vec<Value> = finding
                .places
                .iter()
                .enumerate()
                .map(|(at, place)| {
                    json!({
                        "file": place.file,
                        "line": place.line,
                        "column": place.column,
                        "length": place.end_column - place.column,
                        "label": place.label,
                        "primary": at == 0,
                    })
                })
                .collect();
            json!({
                "code": (finding.rule != PLAN).then_some(finding.rule),
                "severity": finding.severity,
                "message": finding.message,
                "file": finding.file,
                "spans": spans,
                "hint": finding.hint,
            })
        })
        .collect();
    json!({ "format": 1, "diagnostics": { "items": items, "omitted": report.omitted } })
}
