//! Each format is held against its rules, with the most hostile texts that a repository can hold.

use plumb_blueprint::Severity;
use serde_json::Value;

use super::*;

/// Quotes, signs that formats escape with, markup, line breaks, a colour, a bidi override, and what XML cannot hold.
const HOSTILE: &str = "a\"'<b>&c%41,d:e]]>\r\n::error::f\u{1b}[31m\u{202e}\u{0}\u{ffff}é";

fn place(file: &str, line: u32) -> Place {
    Place {
        file: file.to_owned(),
        line,
        column: 3,
        end_column: 7,
        label: Some(HOSTILE.to_owned()),
    }
}

fn finding(rule: &'static str, severity: Severity, message: &str, file: &str) -> Finding {
    Finding {
        rule,
        severity,
        message: message.to_owned(),
        hint: Some(HOSTILE.to_owned()),
        file: file.to_owned(),
        places: vec![place(file, 5), place("other file.yaml", 9)],
    }
}

fn report() -> Report {
    let mut bare = finding(PLAN, Severity::Error, "it cannot be", "plumb.yaml");
    bare.places.clear();
    Report {
        base: "/srv/my checkout".into(),
        files: vec!["fine.yaml".to_owned(), "apps/a.yaml".to_owned()],
        findings: vec![
            finding("P0105", Severity::Error, "`x` is no key", "apps/a.yaml"),
            finding("P0105", Severity::Error, "`x` is no key", "apps/a.yaml"),
            finding("P0501", Severity::Warning, HOSTILE, HOSTILE),
            bare,
        ],
        omitted: 2,
    }
}

/// Whether nothing in a text moves a cursor or turns a line around.
fn is_quiet(text: &str) -> bool {
    !text.contains(['\u{1b}', '\u{202e}', '\u{0}', '\r'])
}

#[test]
fn json_is_as_its_published_schema_says() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../schemas/diagnostics.json"
    );
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    for report in [report(), Report::default()] {
        let value = json(&report);
        let wrong: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    assert_eq!(
        json(&report())["diagnostics"]["items"][2]["message"],
        HOSTILE
    );
}

/// What SARIF 2.1.0 (sections 3.13 to 3.51) demands of the parts that we write.
#[test]
fn sarif_has_what_its_specification_demands() {
    let log = sarif(&report());
    assert_eq!(log["version"], "2.1.0");
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "plumb");
    assert_eq!(run["columnKind"], "unicodeCodePoints");
    assert_eq!(
        run["originalUriBaseIds"]["%SRCROOT%"]["uri"],
        "file:///srv/my%20checkout/"
    );
    let rules = driver["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 3);
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(rule[text]["text"].as_str().unwrap().len() > 5, "{rule}");
        }
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 4);
    let check_location = |location: &Value| {
        let uri = location["artifactLocation"]["uri"].as_str().unwrap();
        assert!(
            uri.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~/%".contains(&b)),
            "{uri}"
        );
        if let Some(region) = location["region"].as_object() {
            let number = |key: &str| region[key].as_u64().unwrap();
            assert!(number("startLine") >= 1 && number("startColumn") >= 1);
            assert_eq!(number("endLine"), number("startLine"));
            assert!(number("endColumn") > number("startColumn"));
        }
    };
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let level = result["level"].as_str().unwrap();
        assert!(["error", "warning", "note", "none"].contains(&level));
        assert!(is_quiet(result["message"]["text"].as_str().unwrap()));
        check_location(&result["locations"][0]["physicalLocation"]);
        for related in result["relatedLocations"].as_array().unwrap_or(&Vec::new()) {
            assert!(related["id"].as_u64().is_some());
            check_location(&related["physicalLocation"]);
        }
    }
    assert_eq!(
        results[0]["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"],
        "other%20file.yaml"
    );
    assert!(
        results[2]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            .as_str()
            .unwrap()
            .starts_with("a%22%27%3Cb%3E%26c%2541%2Cd%3Ae")
    );
}

#[test]
fn github_commands_are_one_line_each_and_cannot_be_forged() {
    let text = github(&report());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(is_quiet(&text), "{text:?}");
    assert!(
        lines[0].starts_with("::error file=apps/a.yaml,line=5,endLine=5,col=3,endColumn=7,title=plumb P0105::`x` is no key%0Ahelp: "),
        "{}",
        lines[0]
    );
    // Neither the file's name nor the message ends its part: `%`, `:`, `,` and line breaks are escaped.
    let (properties, _) = lines[2]["::warning ".len()..].split_once("::").unwrap();
    let keys: Vec<&str> = properties
        .split(',')
        .map(|p| p.split_once('=').unwrap().0)
        .collect();
    assert_eq!(
        keys,
        ["file", "line", "endLine", "col", "endColumn", "title"]
    );
    assert!(properties.contains("c%2541%2Cd%3Ae"), "{properties}");
    assert!(
        lines[3].starts_with("::error file=plumb.yaml,title="),
        "{}",
        lines[3]
    );
    assert_eq!(github(&Report::default()), "");
}

#[test]
fn gitlab_issues_have_unique_fingerprints_that_outlive_a_moved_line() {
    let mut report = report();
    let issues = gitlab(&report);
    let prints = |issues: &Value| -> Vec<String> {
        let all = issues.as_array().unwrap().iter();
        all.map(|i| i["fingerprint"].as_str().unwrap().to_owned())
            .collect()
    };
    let before = prints(&issues);
    let unique: std::collections::BTreeSet<&String> = before.iter().collect();
    assert_eq!(unique.len(), 4);
    for issue in issues.as_array().unwrap() {
        assert!(
            issue["description"].as_str().is_some_and(is_quiet),
            "{issue}"
        );
        assert!(issue["check_name"].is_string() && issue["location"]["path"].is_string());
        assert!(issue["location"]["lines"]["begin"].as_u64() >= Some(1));
        let severity = issue["severity"].as_str().unwrap();
        assert!(["info", "minor", "major", "critical", "blocker"].contains(&severity));
    }
    for finding in &mut report.findings {
        finding.places.iter_mut().for_each(|place| place.line += 10);
    }
    assert_eq!(prints(&gitlab(&report)), before);
    assert_eq!(gitlab(&Report::default()), serde_json::json!([]));
}

/// Mutation: leave `escape::line` or one of the entities out of `xml`.
#[test]
fn junit_is_well_formed_and_counts_what_it_holds() {
    let text = junit(&report());
    assert!(is_quiet(&text), "{text:?}");
    assert!(!text.contains("]]>") && !text.contains('\u{ffff}'));
    let names = elements(&text);
    let count = |name: &str| names.iter().filter(|n| *n == name).count();
    // Two files with problems besides the hostile one, and one without.
    assert_eq!(
        (count("testsuite"), count("testcase"), count("failure")),
        (4, 5, 3)
    );
    assert_eq!(count("system-out"), 1);
    assert!(text.contains("<testsuites name=\"plumb validate\" tests=\"5\" failures=\"3\""));
    assert!(text.contains("<testsuite name=\"fine.yaml\" tests=\"1\" failures=\"0\""));
}

/// The elements of an XML text in their order, after a check that tags, attributes and entities are as they must be.
fn elements(text: &str) -> Vec<String> {
    let text = text
        .strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>")
        .unwrap();
    let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        entities(&rest[..at]);
        let end = rest.find('>').unwrap();
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let bare = tag.strip_suffix('/').unwrap_or(tag);
        let (name, attributes) = bare.split_once(' ').unwrap_or((bare, ""));
        let parts: Vec<&str> = attributes.split('"').collect();
        assert!(parts.len() % 2 == 1 && parts.last() == Some(&""), "{tag}");
        for pair in parts.chunks_exact(2) {
            let key = pair[0].trim_start().strip_suffix('=').unwrap();
            assert!(key.chars().all(|c| c.is_ascii_lowercase()), "{tag}");
            assert!(!pair[1].contains('<'), "{tag}");
            entities(pair[1]);
        }
        all.push(name.to_owned());
        if bare == tag {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    all
}

/// Each `&` begins an entity that XML knows, and no character stands there that it does not.
fn entities(text: &str) {
    for part in text.split('&').skip(1) {
        let name = part.split(';').next().unwrap();
        let known = ["amp", "lt", "gt", "quot", "apos", "#9", "#10"];
        assert!(known.contains(&name), "{part}");
    }
    let bad = text.chars().find(|c| {
        matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
    });
    assert_eq!(bad, None, "{text:?}");
}
