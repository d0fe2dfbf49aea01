//! A plan as GitHub-flavoured Markdown for a pull request's comment: at most [`MAX_CHARS`] characters, the totals always
//! among them, and what did not fit counted.
//!
//! Foreign text stands in code spans and fenced blocks only, each with a fence longer than any run of backticks inside, so
//! that nothing in it becomes a link, a picture, a mention, HTML or the end of a table.

use std::fmt::Write as _;

use plumb_model::Address;
use plumb_model::plan::{AttributeChange, Change, ChangeAction, Plan, instead_of};

use super::diff::{Line, Tag};
use super::group::Group;
use super::outline::{Lacks, Outline, Owner, outline};
use super::value::{self, What, shown};
use super::{PlanView, words};

/// What GitHub takes in one comment.
pub const MAX_CHARS: usize = 65_536;
/// Rows of the table of owners.
const MAX_ROWS: usize = 100;
/// Entries of any other list.
const MAX_LIST: usize = 20;
/// Lines of one diff.
const MAX_DIFF_LINES: usize = 60;
/// Characters of one value.
const MAX_VALUE_CHARS: usize = 300;
/// Characters of one foreign text outside a diff.
const MAX_TEXT_CHARS: usize = 500;

/// Renders a plan.
pub fn render(plan: &Plan, view: &PlanView) -> String {
    let outline = outline(plan);
    let mut head = String::new();
    write_head(&mut head, &outline);
    let mut foot = String::new();
    write_foot(&mut foot, &outline, view);
    // The last line says what was left out, and must fit too.
    let room = MAX_CHARS.saturating_sub(chars(&head) + chars(&foot) + 200);
    let mut text = head;
    details(&mut text, &outline, view, room);
    text.push_str(&foot);
    // Every list is bounded, so this cuts only what nobody has foreseen.
    if chars(&text) > MAX_CHARS {
        let end = text
            .char_indices()
            .nth(MAX_CHARS - 1)
            .map_or(text.len(), |(at, _)| at);
        text.truncate(end);
        text.push('\n');
    }
    text
}

fn chars(text: &str) -> usize {
    text.chars().count()
}

/// So much of a text as a comment has room for.
fn short(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The longest run of backticks in a text.
fn backticks(text: &str) -> usize {
    let mut longest = 0;
    let mut run = 0;
    for c in text.chars() {
        run = if c == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Foreign text as a code span.
fn code(text: &str) -> String {
    let clean = short(&words::clean(text), MAX_TEXT_CHARS);
    if clean.is_empty() {
        return String::new();
    }
    let fence = "`".repeat(backticks(&clean) + 1);
    // A backtick beside the fence would belong to it, and a space at both ends is taken away again.
    let space = if clean.starts_with(['`', ' ']) || clean.ends_with(['`', ' ']) {
        " "
    } else {
        ""
    };
    format!("{fence}{space}{clean}{space}{fence}")
}

/// Foreign text as a code span in a table's cell, where not even a span keeps `|` from ending the cell.
fn cell(text: &str) -> String {
    code(&text.replace('|', "¦"))
}

fn write_head(text: &mut String, outline: &Outline<'_>) {
    let plan = outline.plan;
    // Names have a grammar in which nothing can act; so they may stand in a heading.
    let _ = writeln!(text, "## {}\n", words::title(plan));
    if plan.is_empty() {
        let _ = writeln!(text, "**{}**\n", words::nothing(plan));
    } else {
        let counts: Vec<String> = words::counts(plan).into_iter().map(|(_, t)| t).collect();
        let radius: Vec<String> = words::radius(plan)
            .into_iter()
            .map(|(alarming, text)| {
                if alarming {
                    format!("**{text}**")
                } else {
                    text
                }
            })
            .collect();
        let _ = writeln!(text, "**{}**; {}.\n", counts.join(", "), radius.join(", "));
    }
    if let Some(source) = words::source(plan) {
        let _ = writeln!(text, "{}\n", code(&source));
    }
    if let Some(targets) = words::targets(plan) {
        let _ = writeln!(text, "{}.\n", words::capital(&targets));
    }
    obstacles(text, outline);
    data(text, outline);
    drift(text, outline);
    owners(text, outline);
}

fn owners(text: &mut String, outline: &Outline<'_>) {
    if outline.owners.is_empty() {
        return;
    }
    let _ = writeln!(text, "| | | release | what is felt | resources |");
    let _ = writeln!(text, "|---|---|---|---|---|");
    for owner in outline.owners.iter().take(MAX_ROWS) {
        let Some(change) = owner.change else {
            let _ = writeln!(text, "| `~` | {} | | | {} |", owner.name, owner.resources());
            continue;
        };
        let mut felt = words::owner_felt(change);
        let reasons = words::downtime(change);
        if let Some(reason) = reasons.first() {
            let more = match reasons.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            let _ = write!(felt, ", **downtime expected**: {}{more}", cell(reason));
        }
        if !change.data_loss.is_empty() {
            felt.push_str(", **data loss**");
        }
        let _ = writeln!(
            text,
            "| `{}` | {} {} | {} | {felt} | {} |",
            words::mark(change.action),
            change.kind.as_str().to_lowercase(),
            owner.name,
            words::release(change),
            owner.resources()
        );
    }
    text.push('\n');
    more(text, outline.owners.len(), MAX_ROWS, "app");
}

/// Says how many of a list were left out.
fn more(text: &mut String, all: usize, limit: usize, one: &str) {
    if all > limit {
        let _ = writeln!(text, "… and {} more\n", words::count(all - limit, one));
    }
}

fn resource(addresses: &[&Address]) -> String {
    let kind = addresses.first().map_or("", |a| a.kind.as_str());
    format!("{kind} {}", words::resource_name(addresses))
}

fn on(addresses: &[&Address]) -> String {
    let machines = words::names(addresses.iter().map(|a| a.machine.as_str()));
    format!("on {}", machines.counted("machine", false))
}

fn drift(text: &mut String, outline: &Outline<'_>) {
    if outline.drift.is_empty() {
        return;
    }
    let _ = writeln!(text, "**Drift**, not part of this plan:\n");
    for drift in outline.drift.iter().take(MAX_LIST) {
        let _ = writeln!(
            text,
            "- {} of {} {}: {}; {}",
            code(&resource(&drift.at)),
            drift.note.address.owner,
            on(&drift.at),
            code(&drift.note.message),
            words::drift(drift.note.policy)
        );
    }
    text.push('\n');
    more(text, outline.drift.len(), MAX_LIST, "kind of drift");
}

fn data(text: &mut String, outline: &Outline<'_>) {
    for (title, all) in [
        (
            "> [!CAUTION]\n> **Data is destroyed, and nothing brings it back:**",
            &outline.destroyed,
        ),
        (
            "> [!NOTE]\n> **Data is kept**: it leaves the blueprints, stays on its machine, and Plumb no longer looks after it:",
            &outline.forgotten,
        ),
    ] {
        if all.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{title}");
        for address in all.iter().take(MAX_LIST) {
            let _ = writeln!(
                text,
                "> - {} of {} on {}",
                code(&resource(&[address])),
                address.owner,
                address.machine
            );
        }
        if all.len() > MAX_LIST {
            let _ = writeln!(
                text,
                "> - and {} more",
                words::count(all.len() - MAX_LIST, "resource")
            );
        }
        text.push('\n');
    }
}

fn obstacles(text: &mut String, outline: &Outline<'_>) {
    let unresolved: Vec<_> = outline
        .moved
        .iter()
        .filter(|(_, r)| r.resolved.is_none())
        .collect();
    let unset = &outline.plan.unset_secrets;
    if unresolved.is_empty() && outline.lacks.is_empty() && unset.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "> [!WARNING]\n> **This plan can be read, and not applied:**"
    );
    for (key, _) in unresolved.iter().take(MAX_LIST) {
        let _ = writeln!(
            text,
            "> - nobody has looked up what {} means, and this version of Plumb cannot: {}",
            code(&key.0),
            instead_of(key)
        );
    }
    for lacks in outline.lacks.iter().take(MAX_LIST) {
        let _ = writeln!(text, "> - {}", lack(lacks));
    }
    for unset in unset.iter().take(MAX_LIST) {
        let _ = writeln!(
            text,
            "> - {}: {}",
            words::clean(&unset.what()),
            words::clean(&unset.remedy())
        );
    }
    let left = [unresolved.len(), outline.lacks.len(), unset.len()]
        .into_iter()
        .map(|count| count.saturating_sub(MAX_LIST))
        .sum::<usize>();
    if left > 0 {
        let _ = writeln!(text, "> - and {} more", words::count(left, "reason"));
    }
    text.push('\n');
}

fn lack(lacks: &Lacks<'_>) -> String {
    let first = lacks.first();
    let who: Vec<&Address> = lacks.lacks.iter().map(|l| &l.address).collect();
    let who = match who.as_slice() {
        [one] => format!("{} of {}", code(&resource(&who)), one.owner),
        _ => format!(
            "{} of {}",
            words::count(who.len(), "resource"),
            lacks.owners().list(false)
        ),
    };
    format!(
        "{who} asks for {}, which {} cannot do: {}; to get it: {}",
        code(&first.asks_for),
        match lacks.machines() {
            one if one.count == 1 => format!("machine {}", one.list(true)),
            many => many.counted("machine", false),
        },
        code(&first.why),
        code(&first.remedy)
    )
}

/// Machines, then owners, those that are felt most first, until the room is used up; but shown in the plan's order.
fn details(text: &mut String, outline: &Outline<'_>, view: &PlanView, room: usize) {
    let mut blocks: Vec<(usize, u8, usize, String)> = Vec::new();
    if !outline.machines.is_empty() {
        let number = outline.machines.iter().map(|g| g.members.len()).sum();
        blocks.push((0, u8::MAX, number, machines(outline, view)));
    }
    let mut order: Vec<(usize, &Owner<'_>)> = outline.owners.iter().enumerate().collect();
    order.sort_by_key(|(_, owner)| std::cmp::Reverse(owner.weight()));
    let mut left = room.saturating_sub(blocks.iter().map(|b| chars(&b.3)).sum());
    let mut omitted = (0, 0);
    for (at, owner) in order {
        // Nobody renders thousands of owners to throw them away.
        let block = if left < 200 {
            None
        } else {
            block(owner, view, left)
        };
        match block {
            Some(block) => {
                left -= chars(&block);
                blocks.push((at + 1, owner.weight(), owner.resources(), block));
            }
            None => {
                omitted.0 += 1;
                omitted.1 += owner.resources();
            }
        }
    }
    blocks.sort_by_key(|b| b.0);
    for (_, _, _, block) in blocks {
        text.push_str(&block);
    }
    if omitted.0 > 0 {
        let _ = writeln!(
            text,
            "**Left out here for want of room:** the details of {} with {}, those that are felt least. `plumb plan --full` shows them.\n",
            words::count(omitted.0, "app"),
            words::count(omitted.1, "resource")
        );
    }
}

fn machines(outline: &Outline<'_>, view: &PlanView) -> String {
    let mut lines = Vec::new();
    for group in outline.machines.iter().take(MAX_LIST) {
        let first = group.first();
        let names = words::names(group.members.iter().map(|m| m.machine.as_str()));
        lines.push(format!(
            "{} {}",
            words::mark(first.action),
            names.counted("machine", false)
        ));
        for (attribute, varies) in first.attributes.iter().zip(&group.varying) {
            if first.action != ChangeAction::Delete {
                push(&mut lines, attribute, first.action, *varies, None, view);
            }
        }
    }
    if outline.machines.len() > MAX_LIST {
        lines.push(format!(
            "… and {} more",
            words::count(outline.machines.len() - MAX_LIST, "group")
        ));
    }
    let number: usize = outline.machines.iter().map(|g| g.members.len()).sum();
    folded(&words::count(number, "machine"), &lines)
}

/// One owner's details; none if they need more than `room` characters.
fn block(owner: &Owner<'_>, view: &PlanView, room: usize) -> Option<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut used = 0;
    if !owner.renamed.is_empty() {
        let what = words::count(owner.renamed.len(), "resource");
        lines.push(format!(
            "~ {what} only take the name, and run on as they are"
        ));
    }
    let mut shown = 0;
    for entry in &owner.entries {
        let before = lines.len();
        push_entry(&mut lines, entry, view);
        used += lines[before..].iter().map(|l| chars(l) + 1).sum::<usize>();
        // An owner that does not fit is cut between two resources, if some of them fit.
        if used + 400 > room {
            if shown == 0 {
                return None;
            }
            lines.truncate(before);
            break;
        }
        shown += 1;
    }
    let left: usize = owner.entries[shown..].iter().map(|e| e.members.len()).sum();
    if left > 0 {
        lines.push(format!(
            "… {} more left out for want of room",
            words::count(left, "resource")
        ));
    }
    let title = match owner.change {
        None => format!("~ {}", owner.name),
        Some(change) => {
            let felt = words::owner_felt(change);
            let colon = if felt.is_empty() { "" } else { ": " };
            format!(
                "{} {} {}, {}{colon}{felt}",
                words::mark(change.action),
                change.kind.as_str().to_lowercase(),
                owner.name,
                words::release(change),
            )
        }
    };
    let block = folded(&title, &lines);
    (chars(&block) <= room).then_some(block)
}

/// Lines in a fenced diff that folds. The title is made of names and our own words.
fn folded(title: &str, lines: &[String]) -> String {
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    let longest = lines.iter().map(|line| backticks(line)).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    let body = lines.join("\n");
    format!("<details><summary>{title}</summary>\n\n{fence}diff\n{body}\n{fence}\n\n</details>\n\n")
}

fn push_entry(lines: &mut Vec<String>, entry: &Group<'_, Change>, view: &PlanView) {
    let change = entry.first();
    let addresses: Vec<&Address> = entry.members.iter().map(|c| &c.address).collect();
    let mut line = format!(
        "{} {} {}",
        sign(change.action),
        resource(&addresses),
        on(&addresses)
    );
    if let Some(happens) = words::happens(change) {
        let _ = write!(line, ": {happens}");
    }
    if let Some(origin) = &change.origin {
        let _ = write!(line, "  ({origin})");
    }
    lines.push(short(&line, MAX_TEXT_CHARS));
    for reason in words::reasons(change) {
        lines.push(format!("    {}", short(&reason, MAX_TEXT_CHARS)));
    }
    if change.action != ChangeAction::Delete {
        for (attribute, varies) in change.attributes.iter().zip(&entry.varying) {
            if view.full || value::tells(change, attribute) {
                let forces = words::forces(change, attribute.cost);
                push(lines, attribute, change.action, *varies, forces, view);
            }
        }
    }
    if let Some(downtime) = &change.downtime {
        lines.push(format!(
            "    downtime: {}",
            short(&words::clean(downtime), MAX_TEXT_CHARS)
        ));
    }
    for blocked in words::waits(entry) {
        lines.push(format!("    {}", short(&blocked, MAX_TEXT_CHARS)));
    }
}

/// A diff's colours know only lines that begin with `+`, `-` or `!`.
fn sign(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Create => "+",
        ChangeAction::Update => "!",
        ChangeAction::ReplaceCreateFirst => "! +/-",
        ChangeAction::ReplaceDeleteFirst => "! -/+",
        ChangeAction::Delete => "-",
        ChangeAction::Forget => "! .",
        ChangeAction::Adopt => "! &",
        ChangeAction::NoOp => " ",
    }
}

fn push(
    lines: &mut Vec<String>,
    attribute: &AttributeChange,
    action: ChangeAction,
    varies: bool,
    forces: Option<&'static str>,
    view: &PlanView,
) {
    let mut remark = forces.map(|f| format!("  ({f})")).unwrap_or_default();
    if varies {
        remark.push_str("  (differs by machine)");
    }
    let what = shown(attribute, action, view.full);
    let path = short(&what.path, MAX_TEXT_CHARS);
    let cut = |text: &str| match chars(text).saturating_sub(MAX_VALUE_CHARS) {
        0 => text.to_owned(),
        left => format!(
            "{} ({} more)",
            short(text, MAX_VALUE_CHARS),
            words::count(left, "character")
        ),
    };
    match what.what {
        What::Word(word) => lines.push(format!("    {path}: {word}{remark}")),
        What::One(None, text) => lines.push(format!("    {path}: {}{remark}", cut(&text))),
        What::One(Some(sign), text) => {
            lines.push(format!("{sign}   {path}: {}{remark}", cut(&text)))
        }
        What::Pair(old, new) => {
            let text = |parts: Vec<super::diff::Part>| {
                parts.into_iter().map(|p| p.text).collect::<String>()
            };
            let (old, new) = (text(old), text(new));
            lines.push(format!("-   {path}: {}", cut(&old)));
            lines.push(format!("+   {path}: {}{remark}", cut(&new)));
        }
        What::Lines(diff) => {
            lines.push(format!("    {path}:{remark}"));
            push_diff(lines, &diff);
        }
    }
}

fn push_diff(lines: &mut Vec<String>, diff: &[Line]) {
    for line in diff.iter().take(MAX_DIFF_LINES) {
        let text = short(&line.text(), MAX_VALUE_CHARS);
        lines.push(match line.tag {
            Tag::Place => text,
            tag => format!("{}{text}", tag.sign()),
        });
    }
    if diff.len() > MAX_DIFF_LINES {
        lines.push(format!(
            "… {} more",
            words::count(diff.len() - MAX_DIFF_LINES, "line")
        ));
    }
}

fn write_foot(text: &mut String, outline: &Outline<'_>, view: &PlanView) {
    let plan = outline.plan;
    if !outline.moved.is_empty() {
        let _ = writeln!(text, "**What moving names mean now**\n");
        for (key, resolution) in outline.moved.iter().take(MAX_LIST) {
            let show = |t: &Option<String>| {
                t.as_ref().map_or_else(
                    || "nobody has looked it up".to_owned(),
                    |t| code(&value::resolved(t, view.full)),
                )
            };
            let before = resolution
                .before
                .as_ref()
                .map(|_| format!("{} → ", show(&resolution.before)));
            let _ = writeln!(
                text,
                "- {}: {}{}",
                code(&key.0),
                before.unwrap_or_default(),
                show(&resolution.resolved)
            );
        }
        text.push('\n');
        more(text, outline.moved.len(), MAX_LIST, "name");
    }
    if !outline.waits.is_empty() {
        let _ = writeln!(text, "**Not done now**\n");
        for wait in outline.waits.iter().take(MAX_LIST) {
            let subjects = words::names(wait.subjects.iter().copied()).list(false);
            let _ = writeln!(text, "- {}: {}", code(&subjects), code(&wait.reason));
        }
        text.push('\n');
        more(text, outline.waits.len(), MAX_LIST, "reason");
    }
    if let Some(flag) = words::allow(plan) {
        let _ = writeln!(text, "**Needs consent**: `plumb apply {flag}`\n");
        for consent in plan.consents.iter().take(MAX_LIST) {
            let _ = writeln!(
                text,
                "- {}: {}",
                code(&consent.allow),
                code(&consent.reason)
            );
        }
        text.push('\n');
    }
    if !plan.is_empty() && plan.unchanged > 0 {
        let _ = writeln!(text, "{}.\n", words::capital(&words::unchanged(plan)));
    }
    if let Some(cost) = words::cost(plan) {
        let _ = writeln!(text, "{cost}\n");
    }
    let _ = writeln!(
        text,
        "<sub>base revision {}, approval {}</sub>",
        plan.base, plan.approval
    );
}
