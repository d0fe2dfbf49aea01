//! What people read of plans, as snapshots; and what may never be in any of it.

mod fixture;
mod hostile;
mod real;

use std::collections::BTreeSet;

use plumb_model::plan::ChangeAction;

use super::*;

const FORMATS: [PlanFormat; 4] = [
    PlanFormat::Text,
    PlanFormat::Markdown,
    PlanFormat::Json,
    PlanFormat::Html,
];

fn view(format: PlanFormat, width: usize) -> PlanView {
    PlanView {
        format,
        full: false,
        verbose: false,
        width,
        style: Style {
            color: false,
            live: false,
        },
    }
}

fn text(plan: &Plan, width: usize) -> String {
    render(plan, &view(PlanFormat::Text, width))
}

#[test]
fn a_small_plan_is_small() {
    insta::assert_snapshot!(text(&fixture::small(), 80));
}

#[test]
fn everything_that_a_plan_can_say_fits_every_terminal() {
    let plan = fixture::rich();
    insta::assert_snapshot!("rich_40", text(&plan, 40));
    insta::assert_snapshot!("rich_80", text(&plan, 80));
    insta::assert_snapshot!("rich_160", text(&plan, 160));
}

#[test]
fn full_folds_and_cuts_nothing() {
    let full = PlanView {
        full: true,
        verbose: true,
        ..view(PlanFormat::Text, 100)
    };
    let mut plan = fixture::rich();
    // Two of a hundred are enough to see that each is named.
    plan.changes.retain(|c| {
        let machine = c.address.machine.as_str();
        c.address.owner.as_str() != "checkout" || ["web-1", "web-3"].contains(&machine)
    });
    insta::assert_snapshot!("rich_full", render(&plan, &full));
    let large = render(&fixture::large(300, 1), &PlanView { full: true, ..full });
    assert!(!large.contains("--full"), "nothing is folded");
    assert_eq!(large.matches("process app/0").count(), 300);
}

#[test]
fn without_changes_there_is_one_line_and_drift_stands_apart() {
    let mut plan = fixture::empty();
    insta::assert_snapshot!("empty", text(&plan, 80));
    plan.drift = fixture::rich().drift;
    insta::assert_snapshot!("only_drift", text(&plan, 80));
}

#[test]
fn colour_adds_nothing_that_is_not_there_without_it() {
    let colour = PlanView {
        style: Style {
            color: true,
            live: true,
        },
        ..view(PlanFormat::Text, 80)
    };
    for plan in [fixture::small(), fixture::rich(), fixture::large(30, 3)] {
        let painted = render(&plan, &colour);
        assert!(painted.contains("\x1b["));
        let mut plain = String::new();
        let mut rest = painted.as_str();
        while let Some(at) = rest.find('\x1b') {
            plain.push_str(&rest[..at]);
            let end = rest[at..].find('m').expect("a colour ends with m");
            rest = &rest[at + end + 1..];
        }
        plain.push_str(rest);
        assert_eq!(plain, text(&plan, 80));
    }
}

#[test]
fn lines_fit_the_terminal_also_where_characters_are_wide() {
    let mut plan = fixture::rich();
    for change in &mut plan.changes {
        for attribute in &mut change.attributes {
            if attribute.path.starts_with("env.") {
                attribute.after = Some("日本語の設定値".repeat(20).into());
            }
        }
    }
    for (plan, width) in [(&plan, 80), (&plan, 160), (&fixture::large(40, 2), 60)] {
        for line in text(plan, width).lines() {
            assert!(wide::width(line) <= width, "{width}: {line}");
        }
    }
}

#[test]
fn the_same_change_on_many_machines_is_one_entry_and_no_other_is_lost() {
    let plan = fixture::rich();
    let shown = text(&plan, 100);
    assert_eq!(shown.matches("~ process app").count(), 1, "{shown}");
    // Another text on one of the machines is another change.
    let mut plan = fixture::large(1, 5);
    let last = plan
        .changes
        .iter_mut()
        .rfind(|c| c.address.kind == plumb_model::ResourceKind::File)
        .unwrap();
    last.attributes[0].after = Some("one\ntwo\n".into());
    let shown = text(&plan, 100);
    assert_eq!(shown.matches("~ file").count(), 2, "{shown}");
    assert!(shown.contains("on 4 machines: m-0 … m-3"), "{shown}");
}

#[test]
fn what_is_felt_most_is_folded_last() {
    let mut plan = fixture::large(2_000, 1);
    let quiet = plan.owners[1_999].owner.clone();
    plan.owners[1_999].action = ChangeAction::Delete;
    let shown = text(&plan, 80);
    let at = shown.find(&format!("- app {quiet}")).unwrap();
    assert!(
        shown[at..].contains("process app/0"),
        "its details are there"
    );
    assert!(shown.len() < 200_000, "{}", shown.len());
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(
        words
            .join(" ")
            .contains("are folded, those that are felt least first; --full shows everything")
    );
}

#[test]
fn a_pull_request_gets_all_that_matters_in_what_a_comment_holds() {
    insta::assert_snapshot!(
        "markdown",
        render(&fixture::rich(), &view(PlanFormat::Markdown, 0))
    );
    for (owners, machines) in [(5, 1_000), (300, 10), (5_000, 1)] {
        let mut plan = fixture::large(owners, machines);
        plan.consents = fixture::rich().consents;
        let shown = render(&plan, &view(PlanFormat::Markdown, 0));
        let count = shown.chars().count();
        assert!(count <= markdown::MAX_CHARS, "{count} characters");
        assert_eq!(shown, render(&plan, &view(PlanFormat::Markdown, 0)));
        assert!(shown.contains("--allow adopt,data-loss"), "the consents");
        assert!(shown.trim_end().ends_with("</sub>"), "the end");
        if owners > 100 {
            assert!(shown.contains("**Left out here for want of room:**"));
            assert!(count > markdown::MAX_CHARS / 2, "the room is used: {count}");
        }
    }
}

/// Every value of an attribute in a page.
fn attributes<'a>(page: &'a str, name: &str) -> BTreeSet<&'a str> {
    page.split(&format!(" {name}=\""))
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect()
}

#[test]
fn the_page_fetches_nothing_and_every_link_in_it_leads_somewhere() {
    for plan in [
        fixture::empty(),
        fixture::small(),
        fixture::rich(),
        fixture::large(500, 10),
    ] {
        let page = render(&plan, &view(PlanFormat::Html, 0));
        for forbidden in [
            "<script",
            "<img",
            "<link",
            "<iframe",
            " src=",
            "@import",
            "http-equiv=\"refresh",
        ] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline';"));
        assert_eq!(
            page.matches("url(").count(),
            page.matches("url(#tip)").count()
        );
        let ids = attributes(&page, "id");
        for link in attributes(&page, "href") {
            let target = link.strip_prefix('#').expect("only links into the page");
            assert!(ids.contains(target), "{link}");
        }
        assert!(page.len() < 2_500_000, "{}", page.len());
        for tag in [
            "div", "section", "table", "details", "ul", "li", "p", "pre", "span", "a", "g", "svg",
            "h2", "h3",
        ] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}

#[test]
fn the_page_says_what_it_leaves_out() {
    let page = render(&fixture::large(20_000, 1), &view(PlanFormat::Html, 0));
    assert!(page.contains("Left out for want of room"));
    assert!(page.contains("each box stands for one app"));
    let style = page.find("<style>").unwrap()..page.find("</style>").unwrap();
    let small = render(&fixture::small(), &view(PlanFormat::Html, 0));
    let body = &small[small.find("<body>").unwrap()..];
    assert!(!style.is_empty());
    insta::assert_snapshot!("page_of_a_small_plan", body);
}
