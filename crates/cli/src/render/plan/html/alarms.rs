//! What must be seen before anything else: data that goes, what keeps the plan from being applied, consents, drift.

use std::fmt::Write as _;

use plumb_model::Address;
use plumb_model::plan::instead_of;

use super::{MAX_LIST, escaped, on, origin, resource, text};
use crate::render::plan::outline::{Lacks, Outline};
use crate::render::plan::words;

/// A box with a title and a list that must be seen before anything else.
pub(super) fn alarm(page: &mut String, class: &str, title: &str, items: &[String], all: usize) {
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

pub(super) fn alarms(page: &mut String, outline: &Outline<'_>) {
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
    items.extend(
        outline
            .plan
            .unset_secrets
            .iter()
            .map(|unset| format!("{}: {}", text(&unset.what()), text(&unset.remedy()))),
    );
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

pub(super) fn drift(page: &mut String, outline: &Outline<'_>) {
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
