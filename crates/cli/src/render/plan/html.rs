//! A plan as one self-contained page: no script, nothing fetched, light and dark, printable, with the resource graph drawn
//! and everything said in words beneath it. A policy in the page keeps a browser from loading anything, whatever is in it.
//!
//! Foreign text is made clean, then escaped, and stands nowhere but between tags and in `title` and `aria-label`.

use std::fmt::Write as _;

use plumb_model::plan::{AttributeChange, Change, ChangeAction, Origin, Plan, instead_of};
use plumb_model::{Address, escape};

use super::diff::{Line, Part, Tag};
use super::graph::graph;
use super::group::Group;
use super::outline::{Lacks, Outline, Owner, outline};
use super::value::{self, What, shown};
use super::{PlanView, words};

/// Details end when the page has so many bytes; what is felt least is left out, and counted.
const MAX_BYTES: usize = 2_000_000;
/// Owners that are open when the page is.
const MAX_OPEN: usize = 40;
/// Headlines of owners without details.
const MAX_HEADLINES: usize = 3_000;
/// Lines of one diff.
const MAX_DIFF_LINES: usize = 400;
/// Entries of any other list.
const MAX_LIST: usize = 200;
/// Bytes of one value.
const MAX_VALUE_BYTES: usize = 4_000;

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

/// A box with a title and a list that must be seen before anything else.
fn alarm(page: &mut String, class: &str, title: &str, items: &[String], all: usize) {
    let _ = write!(
        page,
        "<section class=\"note {class}\">\n<h2>{title}</h2>\n<ul>\n"
    );
    for item in items {
        let _ = writeln!(page, "<li>{item}</li>");
    }
    if all > items.len() {
        let _ = writeln!(
            page,
            "<li>and {} more</li>",
            words::thousands((all - items.len()) as u64)
        );
    }
    page.push_str("</ul>\n</section>\n");
}

fn alarms(page: &mut String, outline: &Outline<'_>) {
    let named = |a: &&Address| format!("<b>{}</b> of {} on {}", resource(&[a]), a.owner, a.machine);
    if !outline.destroyed.is_empty() {
        let items: Vec<String> = outline.destroyed.iter().take(MAX_LIST).map(named).collect();
        alarm(
            page,
            "loud",
            "Data is destroyed, and nothing brings it back",
            &items,
            outline.destroyed.len(),
        );
    }
    let unresolved: Vec<_> = outline
        .moved
        .iter()
        .filter(|(_, r)| r.resolved.is_none())
        .collect();
    let mut items: Vec<String> = unresolved
        .iter()
        .map(|(key, _)| {
            format!(
                "nobody has looked up what <code>{}</code> means, and this version of Plumb cannot: {}",
                text(&key.0),
                text(instead_of(key))
            )
        })
        .collect();
    items.extend(outline.lacks.iter().map(lack));
    if !items.is_empty() {
        let all = items.len();
        items.truncate(MAX_LIST);
        alarm(
            page,
            "bad",
            "This plan can be read, and not applied",
            &items,
            all,
        );
    }
    if !outline.old_lacks.is_empty() {
        let items: Vec<String> = outline.old_lacks.iter().take(MAX_LIST).map(lack).collect();
        alarm(
            page,
            "",
            "Machines lack what is recorded for them already",
            &items,
            outline.old_lacks.len(),
        );
    }
    if let Some(flag) = words::allow(outline.plan) {
        let mut items: Vec<String> = outline
            .plan
            .consents
            .iter()
            .map(|c| {
                format!(
                    "<code>--allow {}</code>: {}",
                    text(&c.allow),
                    text(&c.reason)
                )
            })
            .collect();
        items.push(format!(
            "all of it: <code>plumb apply {}</code>",
            escaped(&flag)
        ));
        alarm(page, "bad", "Needs consent", &items, items.len());
    }
    if !outline.forgotten.is_empty() {
        let items: Vec<String> = outline.forgotten.iter().take(MAX_LIST).map(named).collect();
        let title = "Data is kept: it leaves the blueprints, stays on its machine, and Plumb no longer looks after it";
        alarm(page, "", title, &items, outline.forgotten.len());
    }
}

fn lack(lacks: &Lacks<'_>) -> String {
    let first = lacks.first();
    let all: Vec<&Address> = lacks.lacks.iter().map(|l| &l.address).collect();
    let who = match all.as_slice() {
        [one] => format!("{} of {}", resource(&all), one.owner),
        _ => format!(
            "{} of {}",
            words::count(all.len(), "resource"),
            escaped(&lacks.owners().list(false))
        ),
    };
    let machines = lacks.machines();
    let machine = match machines.count {
        1 => format!("machine {}", machines.list(true)),
        _ => machines.counted("machine", false),
    };
    format!(
        "<b>{who}</b> asks for {}, which {} cannot do: {}.{} To get it: <code>{}</code>",
        text(&first.asks_for),
        escaped(&machine),
        text(&first.why),
        origin(first.origin.as_ref()),
        text(&first.remedy)
    )
}

fn drift(page: &mut String, outline: &Outline<'_>) {
    if outline.drift.is_empty() {
        return;
    }
    let items: Vec<String> = outline
        .drift
        .iter()
        .take(MAX_LIST)
        .map(|d| {
            format!(
                "<b>{}</b> of {} {}: {} <span class=\"aside\">{}</span>",
                resource(&d.at),
                d.note.address.owner,
                on(&d.at),
                text(&d.note.message),
                words::drift(d.note.policy)
            )
        })
        .collect();
    alarm(
        page,
        "drift",
        "Drift: not part of this plan, and nobody asked for it",
        &items,
        outline.drift.len(),
    );
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

fn machines(page: &mut String, outline: &Outline<'_>, view: &PlanView) {
    if outline.machines.is_empty() {
        return;
    }
    page.push_str("<h2>Machines</h2>\n");
    for group in outline.machines.iter().take(MAX_LIST) {
        let first = group.first();
        let names = words::names(group.members.iter().map(|m| m.machine.as_str()));
        let name = match names.count {
            1 => format!("machine {}", names.list(true)),
            _ => names.counted("machine", false),
        };
        let _ = writeln!(
            page,
            "<div class=\"owner {}\"><div class=\"head\">{} <b>{}</b></div>",
            class(first.action),
            mark(first.action),
            escaped(&name)
        );
        if first.action != ChangeAction::Delete {
            let rows = first.attributes.iter().zip(&group.varying);
            table(page, rows, first.action, |_| None, view);
        }
        page.push_str("</div>\n");
    }
    if outline.machines.len() > MAX_LIST {
        let _ = writeln!(
            page,
            "<p class=\"aside\">and {} more</p>",
            words::count(outline.machines.len() - MAX_LIST, "group")
        );
    }
}

/// All owners, those that are felt most with all that happens to them, as far as the page has room.
fn owners(page: &mut String, outline: &Outline<'_>, view: &PlanView) {
    if outline.owners.is_empty() {
        return;
    }
    page.push_str("<h2>What happens</h2>\n");
    let mut first = Vec::with_capacity(outline.owners.len());
    let mut index = 0;
    for owner in &outline.owners {
        first.push(index);
        index += owner.entries.len();
    }
    let mut order: Vec<usize> = (0..outline.owners.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(outline.owners[*at].weight()));
    let mut blocks: Vec<Option<String>> = vec![None; outline.owners.len()];
    let mut left = MAX_BYTES.saturating_sub(page.len());
    let mut omitted = (0, 0);
    for at in order {
        let owner = &outline.owners[at];
        let mut block = String::new();
        if left > 0 {
            let open = outline.owners.len() <= MAX_OPEN;
            whole(&mut block, owner, first[at], open, view);
        }
        if !block.is_empty() && block.len() <= left {
            left -= block.len();
            blocks[at] = Some(block);
        } else {
            left = 0;
            omitted.0 += 1;
            omitted.1 += owner.resources();
        }
    }
    let mut headlines = 0;
    for (owner, block) in outline.owners.iter().zip(&blocks) {
        match block {
            Some(block) => page.push_str(block),
            None if headlines < MAX_HEADLINES => {
                headlines += 1;
                let _ = writeln!(
                    page,
                    "<div class=\"owner {}\" id=\"o-{}\"><div class=\"head\">{}</div></div>",
                    owner.change.map_or("update", |c| class(c.action)),
                    owner.name,
                    headline(owner)
                );
            }
            None => {}
        }
    }
    if omitted.0 > 0 {
        let _ = writeln!(
            page,
            "<p class=\"note\">Left out for want of room: the details of {} with {}, those that are felt least. <code>plumb plan --full</code> shows them.</p>",
            words::count(omitted.0, "app"),
            words::count(omitted.1, "resource")
        );
    }
}

fn headline(owner: &Owner<'_>) -> String {
    let Some(change) = owner.change else {
        return format!("{} <b>{}</b>", mark(ChangeAction::Update), owner.name);
    };
    format!(
        "{} <b>{} {}</b> <span class=\"release\">{}</span> <span class=\"felt\">{}</span>{}{}{}",
        mark(change.action),
        change.kind.as_str().to_lowercase(),
        owner.name,
        words::release(change),
        text(&words::owner_felt(change)),
        if change.downtime.is_empty() {
            ""
        } else {
            " <span class=\"badge\">downtime</span>"
        },
        if change.data_loss.is_empty() {
            ""
        } else {
            " <span class=\"badge loud\">data loss</span>"
        },
        origin(change.origin.as_ref())
    )
}

fn whole(page: &mut String, owner: &Owner<'_>, first: usize, open: bool, view: &PlanView) {
    let _ = writeln!(
        page,
        "<details class=\"owner {}\" id=\"o-{}\"{}><summary class=\"head\">{}</summary>",
        owner.change.map_or("update", |c| class(c.action)),
        owner.name,
        if open { " open" } else { "" },
        headline(owner)
    );
    if let Some(change) = owner.change {
        for reason in words::downtime(change) {
            let _ = writeln!(
                page,
                "<p class=\"downtime\">downtime expected: {}</p>",
                escaped(&reason)
            );
        }
        for address in &change.data_loss {
            let _ = writeln!(
                page,
                "<p class=\"downtime\"><b>data loss:</b> {} on {} is destroyed with its data</p>",
                resource(&[address]),
                address.machine
            );
        }
    }
    if !owner.renamed.is_empty() {
        let names = words::names(owner.renamed.iter().map(|c| c.address.machine.as_str()));
        let _ = writeln!(
            page,
            "<p>{} on {}: under the new name, as {} before</p>",
            words::count(owner.renamed.len(), "resource"),
            escaped(&names.counted("machine", false)),
            if owner.renamed.len() == 1 {
                "it was"
            } else {
                "they were"
            }
        );
    }
    for (at, entry) in owner.entries.iter().enumerate() {
        // One owner alone may not fill the page for the others.
        if page.len() > MAX_BYTES / 4 {
            let left: usize = owner.entries[at..].iter().map(|e| e.members.len()).sum();
            let _ = writeln!(
                page,
                "<p class=\"aside\">and {} more, left out for want of room</p>",
                words::count(left, "resource")
            );
            break;
        }
        self::entry(page, owner, entry, first + at, view);
    }
    page.push_str("</details>\n");
}

fn entry(
    page: &mut String,
    owner: &Owner<'_>,
    entry: &Group<'_, Change>,
    index: usize,
    view: &PlanView,
) {
    let change = entry.first();
    let addresses: Vec<&Address> = entry.members.iter().map(|c| &c.address).collect();
    let happens = words::happens(change)
        .map(|h| format!(" <span class=\"felt\">{h}</span>"))
        .unwrap_or_default();
    let _ = write!(
        page,
        "<div class=\"res\" id=\"r{index}\">\n<h3>{} {} <span class=\"on\">{}</span>{happens}{}</h3>\n",
        mark(change.action),
        resource(&addresses),
        on(&addresses),
        origin(change.origin.as_ref())
    );
    for reason in words::reasons(change) {
        let _ = writeln!(page, "<p class=\"aside\">{}</p>", escaped(&reason));
    }
    if change.action != ChangeAction::Delete {
        let rows = change
            .attributes
            .iter()
            .zip(&entry.varying)
            .filter(|(a, _)| view.full || value::tells(change, a));
        table(
            page,
            rows,
            change.action,
            |a| words::forces(change, a.cost),
            view,
        );
    }
    let told = |d: &&String| {
        owner
            .change
            .is_some_and(|c| c.downtime.contains(d.as_str()))
    };
    if let Some(downtime) = change.downtime.as_ref().filter(|d| !told(d)) {
        let _ = writeln!(
            page,
            "<p class=\"downtime\">downtime: {}</p>",
            text(downtime)
        );
    }
    for blocked in words::waits(entry) {
        let _ = writeln!(page, "<p class=\"waits\">{}</p>", escaped(&blocked));
    }
    page.push_str("</div>\n");
}

fn table<'a>(
    page: &mut String,
    rows: impl Iterator<Item = (&'a AttributeChange, &'a bool)>,
    action: ChangeAction,
    forces: impl Fn(&AttributeChange) -> Option<&'static str>,
    view: &PlanView,
) {
    let mut body = String::new();
    for (attribute, varies) in rows {
        let what = shown(attribute, action, view.full);
        let mut remarks = String::new();
        if let Some(forces) = forces(attribute) {
            let _ = write!(remarks, " <span class=\"aside\">({forces})</span>");
        }
        if *varies {
            remarks
                .push_str(" <span class=\"aside\">(differs by machine; this is the first)</span>");
        }
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}{remarks}</td></tr>",
            escaped(&what.path),
            cell(what.what)
        );
    }
    if !body.is_empty() {
        let _ = write!(page, "<table>\n{body}</table>\n");
    }
}

fn cell(what: What) -> String {
    match what {
        What::Word(word) => format!("<span class=\"hidden\">{}</span>", escaped(word)),
        What::One(None, value) => format!("<code>{}</code>", escaped(cut(&value))),
        What::One(Some('+'), value) => format!("<ins>+ {}</ins>", escaped(cut(&value))),
        What::One(Some(_), value) => format!("<del>- {}</del>", escaped(cut(&value))),
        What::Pair(old, new) => format!(
            "<del>{}</del> <span class=\"to\">→</span> <ins>{}</ins>",
            parts(&old),
            parts(&new)
        ),
        What::Lines(diff) => lines(&diff),
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_VALUE_BYTES)]
}

fn parts(parts: &[Part]) -> String {
    let mixed = parts.iter().any(|p| !p.changed);
    let mut out = String::new();
    for part in parts {
        let text = escaped(cut(&part.text));
        if part.changed && mixed {
            let _ = write!(out, "<mark>{text}</mark>");
        } else {
            out.push_str(&text);
        }
    }
    out
}

fn lines(diff: &[Line]) -> String {
    let mut out = String::from("<pre>");
    for line in diff.iter().take(MAX_DIFF_LINES) {
        let class = match line.tag {
            Tag::Place => "place",
            Tag::Same => "same",
            Tag::Old => "old",
            Tag::New => "new",
        };
        let _ = writeln!(
            out,
            "<span class=\"{class}\">{}{}</span>",
            line.tag.sign(),
            parts(&line.parts)
        );
    }
    if diff.len() > MAX_DIFF_LINES {
        let _ = writeln!(
            out,
            "<span class=\"place\">… {} more</span>",
            words::count(diff.len() - MAX_DIFF_LINES, "line")
        );
    }
    out.push_str("</pre>");
    out
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
