//! JUnit's XML, which nearly every CI system can show: one suite for each file, one case for each problem.

use plumb_blueprint::Severity;
use plumb_model::escape;

use super::{Finding, Report};

/// The report as one document. A file without problems is a case that passed.
pub fn junit(report: &Report) -> String {
    let mut files: Vec<&str> = report.files.iter().map(String::as_str).collect();
    files.extend(report.findings.iter().map(|f| f.file.as_str()));
    files.sort_unstable();
    files.dedup();
    let mut suites = String::new();
    let (mut tests, mut failures) = (0, 0);
    for file in files {
        let found: Vec<&Finding> = report.findings.iter().filter(|f| f.file == file).collect();
        let failed = found.iter().filter(|f| failed(f)).count();
        let cases = found.len().max(1);
        suites.push_str(&format!(
            "  <testsuite name=\"{}\" tests=\"{cases}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"0\">\n",
            xml(file)
        ));
        if found.is_empty() {
            suites.push_str(&format!(
                "    <testcase name=\"valid\" classname=\"{}\" time=\"0\"/>\n",
                xml(file)
            ));
        }
        found
            .iter()
            .for_each(|finding| suites.push_str(&case(finding)));
        suites.push_str("  </testsuite>\n");
        tests += cases;
        failures += failed;
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"plumb validate\" tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" time=\"0\">\n{suites}</testsuites>\n"
    )
}

fn failed(finding: &Finding) -> bool {
    finding.severity == Severity::Error
}

fn case(finding: &Finding) -> String {
    let place = finding
        .places
        .first()
        .map_or(String::new(), |p| format!(":{}:{}", p.line, p.column));
    let name = format!("{} {}{place}", finding.rule, finding.file);
    let body = xml(&finding.lines().join("\n")).replace("&#10;", "\n");
    let inside = if failed(finding) {
        format!(
            "<failure message=\"{}\" type=\"{}\">{body}</failure>",
            xml(&finding.message),
            xml(finding.rule)
        )
    } else {
        // A warning is told of, and fails nothing.
        format!("<system-out>{body}</system-out>")
    };
    format!(
        "    <testcase name=\"{}\" classname=\"{}\" time=\"0\">{inside}</testcase>\n",
        xml(&name),
        xml(&finding.file)
    )
}

/// A text for an attribute or an element. What XML 1.0 cannot hold is left out or written as an escape.
fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, ends) = match line.strip_suffix('\n') {
            Some(line) => (line, true),
            None => (line, false),
        };
        for c in escape::line(line).chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&apos;"),
                '\t' => out.push_str("&#9;"),
                '\u{fffe}' | '\u{ffff}' => {}
                c => out.push(c),
            }
        }
        if ends {
            out.push_str("&#10;");
        }
    }
    out
}
