//! What happens, owner by owner and resource by resource, as far as the page has room.

use std::fmt::Write as _;

use plumb_model::Address;
use plumb_model::plan::{AttributeChange, Change, ChangeAction};

use super::{MAX_LIST, class, escaped, mark, on, origin, resource, text};
use crate::render::plan::diff::{Line, Part, Tag};
use crate::render::plan::group::Group;
use crate::render::plan::outline::{Outline, Owner};
use crate::render::plan::value::{self, What, shown};
use crate::render::plan::{PlanView, words};

/// Details end when the page has so many bytes; what is felt least is left out, and counted.
const MAX_BYTES: usize = 2_000_000;
/// Owners that are open when the page is.
const MAX_OPEN: usize = 40;
/// Headlines of owners without details.
const MAX_HEADLINES: usize = 3_000;
/// Lines of one diff.
const MAX_DIFF_LINES: usize = 400;
/// Bytes of one value.
const MAX_VALUE_BYTES: usize = 4_000;

pub(super) fn machines(page: &mut String, outline: &Outline<'_>, view: &PlanView) {
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
pub(super) fn owners(page: &mut String, outline: &Outline<'_>, view: &PlanView) {
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
