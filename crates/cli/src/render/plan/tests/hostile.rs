//! Row 31 of the threats: control sequences, bidirectional and invisible characters, HTML and Markdown in whatever a plan
//! quotes.
//!
//! Mutations under which these fail, each tried: `words::clean` and `value::quoted` give the text back as it is; `diff`
//! leaves out `escape::line`; `html::escaped` lets `<` or `"` through; `markdown::code` takes one backtick, whatever the
//! text holds; `markdown::folded` takes a fence of three; `markdown::cell` leaves `|`; `Origin` shows its file as it is.

use plumb_model::escape;
use plumb_model::plan::{ChangeAction, Origin, Plan, Resolution};
use plumb_model::state::ResolutionKey;
use serde_json::{Value, json};

use super::{FORMATS, PlanFormat, PlanView, fixture, render, view};

/// Found again wherever it is shown.
const CANARY: &str = "CANARY";

/// What somebody may want to bring onto a reviewer's screen.
fn payload() -> String {
    format!(
        "{CANARY}\x1b[2J\x1b]8;;http://evil.example\x07x\r\u{9b}31m\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}\
         </summary></details><script>alert(1)</script><img src=x onerror=alert(1)>\" onload=\"x' \
         ![i](http://evil.example/i.png) [l](javascript:x) @everyone #1 | a | b ||| \\| ```` ``` ` ~~~ -->{CANARY}"
    )
}

/// A plan in which every text that is not a name with a grammar is hostile.
fn hostile() -> Plan {
    let bad = payload();
    let mut plan = fixture::rich();
    let name = format!("/etc/{bad}");
    let lines = format!("{bad}\nsame\n````\n</pre>{bad}\n");
    for (n, change) in plan.changes.iter_mut().enumerate() {
        if change.address.owner.as_str() == "base" {
            change.address.name = name.as_str().into();
        }
        change.reasons.push(bad.clone());
        change.blocked_by.push(bad.clone());
        change.downtime = Some(bad.clone());
        change.origin = Some(Origin {
            file: bad.clone(),
            line: 1,
            column: n as u32 % 2,
        });
        let hostile = fixture::attribute(
            &format!("env.{bad}"),
            if change.action == ChangeAction::Create {
                Value::Null
            } else {
                json!(bad)
            },
            json!(format!("{bad}, and more")),
            plumb_model::coverage::Cost::InPlace,
        );
        let mut text = hostile.clone();
        // A line that stays as it was stands behind one space, where a fence can still end.
        if change.action != ChangeAction::Create {
            text.before = Some(json!(lines.replace("same", "other")));
        }
        text.after = Some(json!(lines));
        let mut list = hostile.clone();
        list.after = Some(json!([bad, "a", "b", "c", "d", {bad.clone(): [bad]}]));
        change.attributes.extend([hostile, text, list]);
    }
    for owner in &mut plan.owners {
        owner.downtime.insert(bad.clone());
        owner.origin = Some(Origin {
            file: bad.clone(),
            line: 1,
            column: 1,
        });
    }
    for address in plan
        .owners
        .iter_mut()
        .flat_map(|o| std::mem::take(&mut o.data_loss))
        .collect::<Vec<_>>()
    {
        let mut address = address;
        address.name = name.as_str().into();
        plan.owners[0].data_loss.insert(address);
    }
    if let Some(commit) = &mut plan.commit {
        commit.author = bad.clone();
        commit.subject = bad.clone();
        commit.id = bad.clone();
    }
    for note in &mut plan.drift {
        note.message = bad.clone();
        note.address.name = name.as_str().into();
    }
    for note in &mut plan.not_done {
        note.subject = format!("machine {bad}");
        note.reason = bad.clone();
    }
    for lack in &mut plan.lacks {
        lack.why = bad.clone();
        lack.remedy = bad.clone();
        lack.asks_for = bad.clone();
        lack.address.name = name.as_str().into();
    }
    for consent in &mut plan.consents {
        consent.reason = bad.clone();
    }
    for resolved in [None, Some(bad.clone())] {
        plan.resolutions.insert(
            ResolutionKey(format!("git {bad} {}", resolved.is_some())),
            Resolution {
                resolved,
                before: Some(bad.clone()),
            },
        );
    }
    plan.monthly_cost.after_cents.insert(bad, 5);
    plan
}

fn all_views(format: PlanFormat) -> [PlanView; 3] {
    let usual = view(format, 80);
    [
        usual,
        PlanView {
            full: true,
            verbose: true,
            ..usual
        },
        PlanView { width: 33, ..usual },
    ]
}

#[test]
fn threat_31_no_format_hands_on_what_moves_a_cursor_reorders_text_or_cannot_be_seen() {
    for format in FORMATS {
        for view in all_views(format) {
            let shown = render(&hostile(), &view);
            assert!(shown.contains(CANARY));
            let found = shown
                .chars()
                .find(|c| *c != '\n' && (escape::is_unsafe(*c) || *c == '\t'));
            assert_eq!(found, None, "{format:?}");
            if format == PlanFormat::Json {
                let back: Plan = serde_json::from_str(&shown).unwrap();
                assert_eq!(back, hostile(), "it says the same");
            }
        }
    }
}

#[test]
fn threat_31_nothing_in_a_plan_becomes_part_of_the_page() {
    for view in all_views(PlanFormat::Html) {
        let page = render(&hostile(), &view);
        for tag in [
            "<script",
            "<img",
            "</pre>CANARY",
            "</summary></details>",
            "onload=\"",
            "' ![",
        ] {
            assert!(!page.contains(tag), "{tag}");
        }
        assert!(page.contains("&lt;script&gt;alert(1)"));
        let tags = |page: &str| page.matches("<details").count();
        assert_eq!(tags(&page), page.matches("</details>").count());
    }
}

/// What is left of Markdown without its fenced blocks and code spans: what can act.
fn outside_of_code(markdown: &str) -> String {
    let mut left = String::new();
    let mut fence: Option<usize> = None;
    for line in markdown.lines() {
        let indent = line.bytes().take_while(|b| *b == b' ').count();
        let line = if indent < 4 { &line[indent..] } else { line };
        let ticks = line.bytes().take_while(|b| *b == b'`').count();
        match fence {
            Some(open) if ticks >= open && line[ticks..].trim().is_empty() => fence = None,
            Some(_) => {}
            None if ticks >= 3 && !line[ticks..].contains('`') => fence = Some(ticks),
            None => {
                spans(line, &mut left);
                left.push('\n');
            }
        }
    }
    assert_eq!(fence, None, "every fence ends");
    left
}

fn spans(line: &str, left: &mut String) {
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        left.push_str(&rest[..at]);
        let ticks = rest[at..].bytes().take_while(|b| *b == b'`').count();
        let inside = &rest[at + ticks..];
        // A span ends at a run of exactly as many.
        let mut from = 0;
        let end = loop {
            let Some(next) = inside[from..].find('`').map(|n| n + from) else {
                break None;
            };
            let run = inside[next..].bytes().take_while(|b| *b == b'`').count();
            if run == ticks {
                break Some(next);
            }
            from = next + run;
        };
        match end {
            Some(end) => rest = &inside[end + ticks..],
            None => {
                left.push_str(&rest[at..at + ticks]);
                rest = inside;
            }
        }
    }
    left.push_str(rest);
}

#[test]
fn threat_31_nothing_in_a_plan_becomes_markup_of_a_pull_request() {
    for view in all_views(PlanFormat::Markdown) {
        let shown = render(&hostile(), &view);
        let left = outside_of_code(&shown);
        let left: Vec<&str> = left.lines().collect();
        for line in &left {
            // Of the currency nothing is left but letters.
            let bad = line.replace(" CANARY2J ", " ");
            assert!(!bad.contains(CANARY) && !bad.contains("evil"), "{line}");
        }
        // A row of the table has as many cells as its head.
        let rows: Vec<&&str> = left.iter().filter(|l| l.starts_with('|')).collect();
        assert!(rows.len() > 3);
        for row in shown.lines().filter(|l| l.starts_with('|')) {
            assert_eq!(row.matches('|').count(), 6, "{row}");
        }
    }
}

#[test]
fn a_secret_is_shown_by_that_it_changed_alone() {
    let mut plan = fixture::rich();
    for attribute in plan.changes.iter_mut().flat_map(|c| &mut c.attributes) {
        // A value that should have been hidden is not shown for it.
        if attribute.sensitive {
            attribute.after = Some(json!(CANARY));
        }
    }
    for format in [PlanFormat::Text, PlanFormat::Markdown, PlanFormat::Html] {
        for view in all_views(format) {
            let shown = render(&plan, &view);
            assert!(!shown.contains(CANARY));
            assert!(shown.contains("(secret, changed)"), "{format:?}");
        }
    }
}
