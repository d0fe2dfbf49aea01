//! SARIF 2.1.0 (OASIS), the format of code scanners.

use plumb_blueprint::{Explanation, Severity};
use plumb_model::escape;
use serde_json::{Value, json};

use super::{Place, Report, rule_texts};

/// What artifact locations are relative to; the name that others use for the root of a checkout.
const ROOT: &str = "%SRCROOT%";

/// The report as one log with one run.
pub fn sarif(report: &Report) -> Value {
    let mut rules: Vec<&str> = report.findings.iter().map(|f| f.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let mut text = escape::line(&finding.message).into_owned();
            if let Some(hint) = &finding.hint {
                text.push_str(&format!(". Help: {}", escape::line(hint)));
            }
            let place = finding.places.first();
            let location = match place {
                Some(place) => physical(place),
                None => json!({ "artifactLocation": artifact(&finding.file) }),
            };
            let mut result = json!({
                "ruleId": finding.rule,
                "ruleIndex": rules.iter().position(|r| *r == finding.rule),
                "level": level(finding.severity),
                "message": { "text": text },
                "locations": [{ "physicalLocation": location }],
            });
            let related: Vec<Value> = finding
                .places
                .iter()
                .enumerate()
                .skip(1)
                .map(|(id, place)| {
                    let label = place.label.as_deref().unwrap_or("see also");
                    json!({
                        "id": id,
                        "physicalLocation": physical(place),
                        "message": { "text": escape::line(label) },
                    })
                })
                .collect();
            if !related.is_empty() {
                result["relatedLocations"] = Value::Array(related);
            }
            result
        })
        .collect();
    let mut base = uri(&report.base.to_string_lossy());
    if !base.ends_with('/') {
        base.push('/');
    }
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "plumb",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|rule| describe(rule)).collect::<Vec<_>>(),
            } },
            "columnKind": "unicodeCodePoints",
            "originalUriBaseIds": { ROOT: { "uri": format!("file://{base}") } },
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn describe(rule: &str) -> Value {
    let (title, text) = rule_texts(rule);
    let help = plumb_blueprint::explain(rule).map_or_else(|_| text.clone(), help);
    json!({
        "id": rule,
        "shortDescription": { "text": title },
        "fullDescription": { "text": text },
        "help": { "text": help },
    })
}

fn help(one: &Explanation) -> String {
    let mut help = one.text.clone();
    for (word, example) in [("Wrong", &one.wrong), ("Right", &one.right)] {
        if let Some(example) = example {
            help.push_str(&format!(
                "\n\n{word}, as {}:\n\n{}",
                example.file, example.text
            ));
        }
    }
    help
}

fn physical(place: &Place) -> Value {
    json!({
        "artifactLocation": artifact(&place.file),
        "region": {
            "startLine": place.line,
            "startColumn": place.column,
            "endLine": place.line,
            "endColumn": place.end_column,
        },
    })
}

fn artifact(file: &str) -> Value {
    json!({ "uri": uri(file), "uriBaseId": ROOT })
}

/// A path as (part of) a URI: each byte that is not unreserved is percent-encoded, `:` too, which could end a scheme.
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte as char);
            }
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
