//! Workflow commands of GitHub Actions, which show as annotations of the changed lines.

use plumb_blueprint::Severity;
use plumb_model::escape;

use super::{Finding, Report};

/// One command a line. GitHub shows ten errors and ten warnings of a step.
pub fn github(report: &Report) -> String {
    report.findings.iter().map(one).collect()
}

fn one(finding: &Finding) -> String {
    let command = match finding.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut properties = format!("file={}", property(&finding.file));
    if let Some(place) = finding.places.first() {
        // A last column means something only together with the last line.
        properties.push_str(&format!(
            ",line={line},endLine={line},col={},endColumn={}",
            place.column,
            place.end_column,
            line = place.line,
        ));
    }
    let title = format!("plumb {}", finding.rule);
    format!(
        "::{command} {properties},title={}::{}\n",
        property(&title),
        data(&finding.lines().join("\n"))
    )
}

/// As the runner's own toolkit escapes the text of a command.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// As the runner's own toolkit escapes a property. What is left of control characters would show in logs.
fn property(text: &str) -> String {
    let text = data(text).replace(':', "%3A").replace(',', "%2C");
    escape::line(&text).into_owned()
}
