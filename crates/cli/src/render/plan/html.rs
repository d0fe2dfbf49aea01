//! A plan as one self-contained page: no script, nothing fetched, light and dark, printable, with the resource graph drawn
//! and everything said in words beneath it. A policy in the page keeps a browser from loading anything, whatever is in it.
//!
//! Foreign text is made clean, then escaped, and stands nowhere but between tags and in `title` and `aria-label`.

mod alarms;
mod details;

use std::fmt::Write as _;

use plumb_model::plan::{ChangeAction, Origin, Plan};
use plumb_model::{Address, escape};

use super::graph::graph;
use super::outline::{Outline, outline};
use super::{PlanView, value, words};
use alarms::{alarm, alarms, drift};
use details::{machines, owners};

/// Entries of any other list.
const MAX_LIST: usize = 200;

const STYLE: &str = include_str!("page.css");

/// Renders a plan.
pub fn render(plan: &Plan, view: &PlanView) -> String {
    let outline = outline(plan);
    let mut page = String::new();
    let title = words::title(plan);
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#details\">Skip to the details</a>\n\
         <header>\n<h1>{0}</h1>\n",
        text(&title)
    );
    for line in words::source(plan).iter().chain(&words::targets(plan)) {
        let _ = writeln!(page, "<p class=\"source\">{}</p>", text(line));
    }
    page.push_str("</header>\n<main>\n");
    overview(&mut page, &outline);
    alarms(&mut page, &outline);
    drift(&mut page, &outline);
    if let Some(graph) = graph(&outline) {
        let _ = write!(
            page,
            "<section>\n<h2>What depends on what</h2>\n<div class=\"graph\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">{}</div>\n",
            text(&graph.words),
            graph.svg
        );
        legend(&mut page, plan);
        if let Some(remark) = graph.remark {
            let _ = writeln!(page, "<p class=\"aside\">{}</p>", text(&remark));
        }
        page.push_str("</section>\n");
    }
    page.push_str("<div id=\"details\">\n");
    machines(&mut page, &outline, view);
    owners(&mut page, &outline, view);
    page.push_str("</div>\n");
    rest(&mut page, &outline, view);
    last(&mut page, &outline);
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Text as HTML. It may not have been made clean yet.
pub fn text(raw: &str) -> String {
    escaped(&escape::line(raw))
}

/// Clean text as HTML.
pub fn escaped(clean: &str) -> String {
    let mut out = String::with_capacity(clean.len() + 8);
    for c in clean.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// The class for an action.
pub fn class(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Create => "create",
        ChangeAction::Update => "update",
        ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst => "replace",
        ChangeAction::Delete => "delete",
        ChangeAction::Forget => "forget",
        ChangeAction::Adopt => "adopt",
        ChangeAction::NoOp => "keep",
    }
}

fn mark(action: ChangeAction) -> String {
    format!(
        "<span class=\"mark {}\" title=\"{}\">{}</span>",
        class(action),
        words::action(action),
        escaped(words::mark(action))
    )
}

fn origin(origin: Option<&Origin>) -> String {
    origin
        .map(|o| format!(" <span class=\"origin\">{}</span>", text(&o.to_string())))
        .unwrap_or_default()
}

fn overview(page: &mut String, outline: &Outline<'_>) {
    let plan = outline.plan;
    page.push_str("<section aria-label=\"Summary\">\n");
    if plan.is_empty() {
        let _ = writeln!(
            page,
            "<p class=\"nothing\">{}</p>",
            text(&words::nothing(plan))
        );
    } else {
        page.push_str("<ul class=\"tiles\">\n");
        for (action, counted) in words::counts(plan) {
            let (number, rest) = counted.split_once(' ').unwrap_or((&counted, ""));
            let zero = if number == "0" { " zero" } else { "" };
            let _ = writeln!(
                page,
                "<li class=\"tile {}{zero}\"><b>{number}</b> {}</li>",
                class(action),
                text(rest)
            );
        }
        page.push_str("</ul>\n<ul class=\"chips\">\n");
        for (alarming, clause) in words::radius(plan) {
            let alarm = if alarming { " class=\"alarm\"" } else { "" };
            let _ = writeln!(page, "<li{alarm}>{}</li>", text(&clause));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("</section>\n");
}

fn resource(addresses: &[&Address]) -> String {
    let kind = addresses.first().map_or("", |a| a.kind.as_str());
    escaped(&format!("{kind} {}", words::resource_name(addresses)))
}

fn on(addresses: &[&Address]) -> String {
    let machines = words::names(addresses.iter().map(|a| a.machine.as_str()));
    escaped(&format!("on {}", machines.counted("machine", false)))
}

/// What the signs mean, as far as they occur.
fn legend(page: &mut String, plan: &Plan) {
    page.push_str("<ul class=\"legend\">\n");
    for kind in [
        ChangeAction::Create,
        ChangeAction::Update,
        ChangeAction::ReplaceCreateFirst,
        ChangeAction::ReplaceDeleteFirst,
        ChangeAction::Adopt,
        ChangeAction::Delete,
        ChangeAction::Forget,
    ] {
        if plan.changes.iter().any(|c| c.action == kind) {
            let order = match kind {
                ChangeAction::ReplaceCreateFirst => ", the new one first",
                ChangeAction::ReplaceDeleteFirst => ", the old one goes first",
                _ => "",
            };
            let _ = writeln!(
                page,
                "<li>{} {}{order}</li>",
                mark(kind),
                words::action(kind)
            );
        }
    }
    page.push_str("<li>an arrow points from what comes first</li>\n</ul>\n");
}

fn rest(page: &mut String, outline: &Outline<'_>, view: &PlanView) {
    let plan = outline.plan;
    if !plan.resolutions.is_empty() {
        page.push_str("<h2>What moving names mean</h2>\n<table>\n");
        for (key, resolution) in plan.resolutions.iter().take(MAX_LIST) {
            let show =
                |t: &String| format!("<code>{}</code>", escaped(&value::resolved(t, view.full)));
            let now = resolution.resolved.as_ref().map_or_else(
                || "<span class=\"hidden\">nobody has looked it up</span>".to_owned(),
                show,
            );
            let before = resolution
                .before
                .as_ref()
                .filter(|b| Some(*b) != resolution.resolved.as_ref())
                .map(|b| format!("{} <span class=\"to\">→</span> ", show(b)))
                .unwrap_or_default();
            let _ = writeln!(
                page,
                "<tr><th scope=\"row\">{}</th><td>{before}{now}</td></tr>",
                text(&key.0)
            );
        }
        page.push_str("</table>\n");
        if plan.resolutions.len() > MAX_LIST {
            let _ = writeln!(
                page,
                "<p class=\"aside\">and {} more</p>",
                words::count(plan.resolutions.len() - MAX_LIST, "name")
            );
        }
    }
    if !outline.waits.is_empty() {
        let items: Vec<String> = outline
            .waits
            .iter()
            .take(MAX_LIST)
            .map(|w| {
                let subjects = words::names(w.subjects.iter().copied()).list(false);
                format!("<b>{}</b>: {}", escaped(&subjects), text(&w.reason))
            })
            .collect();
        alarm(page, "", "Not done now", &items, outline.waits.len());
    }
}

fn last(page: &mut String, outline: &Outline<'_>) {
    let plan = outline.plan;
    page.push_str("<footer>\n");
    if !plan.is_empty() {
        let counts: Vec<String> = words::counts(plan).into_iter().map(|(_, t)| t).collect();
        let _ = writeln!(
            page,
            "<p><b>Plan:</b> {}. {}.</p>",
            text(&counts.join(", ")),
            words::capital(&words::unchanged(plan))
        );
        let clauses: Vec<String> = words::radius(plan).into_iter().map(|(_, t)| t).collect();
        let _ = writeln!(
            page,
            "<p>{}.</p>",
            text(&words::capital(&clauses.join("; ")))
        );
    }
    if let Some(cost) = words::cost(plan) {
        let _ = writeln!(page, "<p>{}</p>", text(&cost));
    }
    let _ = writeln!(
        page,
        "<p class=\"aside\">base revision {}, approval <code>{}</code></p>\n</footer>",
        plan.base, plan.approval
    );
}
