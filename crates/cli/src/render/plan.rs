//! A plan as a person would like to read it: what happens to each app, why, what will be felt, and the sum last.

use std::fmt::Write;

use plumb_model::coverage::Cost;
use plumb_model::escape;
use plumb_model::plan::{AttributeChange, Change, ChangeAction, Felt, MonthlyCost, Plan};
use plumb_model::state::RevisionKind;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::out::Style;

/// A text value of more lines than this is cut in a plan for people; `--verbose` shows all.
const MAX_LINES: usize = 24;

/// Renders a plan.
pub fn plan(plan: &Plan, verbose: bool, style: &Style) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", style.bold(&title(plan)));
    if let Some(commit) = &plan.commit {
        let dirty = if commit.dirty {
            ", with uncommitted changes"
        } else {
            ""
        };
        let id = commit.id.get(..10).unwrap_or(&commit.id);
        let line = format!(
            "from commit {id} by {}{dirty}: {}",
            commit.author, commit.subject
        );
        let _ = writeln!(text, "{}", style.faint(&escape::line(&line)));
    }
    text.push('\n');
    if plan.is_empty() {
        let _ = writeln!(
            text,
            "No changes: {} resources are recorded as the blueprints say.",
            plan.unchanged
        );
    }
    for machine in &plan.machines {
        let mark = mark(machine.action, style);
        let _ = writeln!(
            text,
            "{mark} machine {}",
            style.bold(machine.machine.as_str())
        );
        attributes(
            &mut text,
            &machine.attributes,
            machine.action,
            "    ",
            verbose,
            style,
        );
    }
    for owner in &plan.owners {
        let numbers = match (owner.from, owner.action) {
            (Some(from), ChangeAction::Delete) => format!("release {from}, removed"),
            (Some(from), _) => format!("release {from} → {}", owner.to),
            (None, _) => format!("release {}", owner.to),
        };
        let felt = felt(owner.felt);
        let _ = writeln!(
            text,
            "{} {}  {}",
            mark(owner.action, style),
            style.bold(owner.owner.as_str()),
            style.faint(&format!("{numbers}; {felt}"))
        );
        for change in plan
            .changes
            .iter()
            .filter(|c| c.address.owner == owner.owner)
        {
            resource(&mut text, change, verbose, style);
        }
    }
    if !plan.drift.is_empty() {
        let _ = writeln!(
            text,
            "\n{}",
            style.bold("Drift (not part of this plan; the agents see to it as the blueprints say)")
        );
        for note in &plan.drift {
            let _ = writeln!(
                text,
                "  {} {}: {}",
                style.change("!"),
                note.address,
                escape::line(&note.message)
            );
        }
    }
    if !plan.not_done.is_empty() {
        let _ = writeln!(text, "\n{}", style.bold("Not done now"));
        for note in &plan.not_done {
            let _ = writeln!(
                text,
                "  {}: {}",
                escape::line(&note.subject),
                escape::line(&note.reason)
            );
        }
    }
    for consent in &plan.consents {
        let _ = writeln!(
            text,
            "\n{} {}; apply it with {}",
            style.bad("Needs consent:"),
            escape::line(&consent.reason),
            style.bold(&format!("--allow {}", consent.allow))
        );
    }
    if !plan.is_empty() {
        let _ = writeln!(text, "\n{}", summary(plan, style));
    }
    if verbose {
        let line = format!("base revision {}, approval {}", plan.base, plan.approval);
        let _ = writeln!(text, "{}", style.faint(&line));
    }
    text
}

fn title(plan: &Plan) -> String {
    let workspace = plan.workspace.as_ref().map_or_else(
        || "nothing recorded".to_owned(),
        |w| format!("workspace {w}"),
    );
    match &plan.kind {
        RevisionKind::Apply => format!("Plan for {workspace}"),
        RevisionKind::Rollback { owner, to } => {
            format!("Plan for {workspace}: {owner} goes back to release {to}")
        }
        RevisionKind::Destroy => format!("Plan for {workspace}: everything is removed"),
    }
}

fn mark(action: ChangeAction, style: &Style) -> String {
    match action {
        ChangeAction::Create | ChangeAction::Adopt => style.good("+"),
        ChangeAction::Update => style.change("~"),
        ChangeAction::ReplaceCreateFirst => style.change("+/-"),
        ChangeAction::ReplaceDeleteFirst => style.change("-/+"),
        ChangeAction::Delete | ChangeAction::Forget => style.bad("-"),
        ChangeAction::NoOp => " ".to_owned(),
    }
}

fn felt(felt: Felt) -> &'static str {
    match felt {
        Felt::Nothing => "nothing that runs is touched",
        Felt::InPlace => "in place",
        Felt::Reload => "reloads",
        Felt::Start => "starts",
        Felt::Restart => "restarts",
        Felt::Replace => "is made anew",
        Felt::Stop => "stops",
    }
}

fn resource(text: &mut String, change: &Change, verbose: bool, style: &Style) {
    let address = &change.address;
    let origin = change
        .origin
        .as_ref()
        .map(|o| style.faint(&format!("  ({o})")))
        .unwrap_or_default();
    let _ = writeln!(
        text,
        "    {} {} {}  on {}{origin}",
        mark(change.action, style),
        address.kind,
        style.bold(&escape::line(&address.name)),
        address.machine,
    );
    if !matches!(change.action, ChangeAction::Create) {
        for reason in &change.reasons {
            let _ = writeln!(text, "        {}", style.faint(&escape::line(reason)));
        }
    }
    if change.action != ChangeAction::Delete || verbose {
        attributes(
            text,
            &change.attributes,
            change.action,
            "        ",
            verbose,
            style,
        );
    }
    if let Some(downtime) = &change.downtime {
        let _ = writeln!(
            text,
            "        {} {}",
            style.bad("downtime expected:"),
            escape::line(downtime)
        );
    } else if let Some(cost) = change.cost {
        let _ = writeln!(text, "        {}", style.faint(cost_words(cost)));
    }
    for blocked in &change.blocked_by {
        let _ = writeln!(
            text,
            "        {} {}",
            style.change("waits:"),
            escape::line(blocked)
        );
    }
}

fn cost_words(cost: Cost) -> &'static str {
    match cost {
        Cost::InPlace => "changed in place; no downtime",
        Cost::Reload => "reloaded; no downtime",
        Cost::Restart => "restarted; nothing of it is running now",
        Cost::Replace => "made anew beside the old one",
    }
}

/// Whether a new resource's attribute says nothing that a reader does not know: a default, or a digest.
fn is_plain(attribute: &AttributeChange) -> bool {
    let path = attribute.path.as_str();
    [
        "restart.", "stop.", "log.", "health.", "size", "workdir.", "path",
    ]
    .iter()
    .any(|p| path.starts_with(p))
        || (path == "state" && attribute.after.as_ref().is_some_and(|v| v == "running"))
}

fn attributes(
    text: &mut String,
    attributes: &[AttributeChange],
    action: ChangeAction,
    indent: &str,
    verbose: bool,
    style: &Style,
) {
    let created = action == ChangeAction::Create;
    for attribute in attributes
        .iter()
        .filter(|a| verbose || !created || !is_plain(a))
    {
        let name = escape::line(&attribute.path).into_owned();
        if attribute.sensitive {
            let _ = writeln!(
                text,
                "{indent}{name}: {}",
                style.change("(secret, changed)")
            );
            continue;
        }
        match (&attribute.before, &attribute.after) {
            (before, after) if is_long(before.as_ref()) || is_long(after.as_ref()) => {
                let _ = writeln!(text, "{indent}{name}:");
                long(
                    text,
                    before.as_ref(),
                    after.as_ref(),
                    indent,
                    verbose,
                    style,
                );
            }
            (Some(before), Some(after)) => {
                let _ = writeln!(
                    text,
                    "{indent}{name}: {} → {}",
                    style.bad(&value(before)),
                    style.good(&value(after))
                );
            }
            (None, Some(after)) if created => {
                let _ = writeln!(text, "{indent}{name}: {}", value(after));
            }
            (None, Some(after)) => {
                let _ = writeln!(text, "{indent}{} {name}: {}", style.good("+"), value(after));
            }
            (Some(before), None) => {
                let _ = writeln!(text, "{indent}{} {name}: {}", style.bad("-"), value(before));
            }
            (None, None) => {}
        }
    }
}

fn is_long(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_str)
        .is_some_and(|t| t.trim_end().contains('\n'))
}

/// A text of several lines: a unified diff.
fn long(
    text: &mut String,
    before: Option<&Value>,
    after: Option<&Value>,
    indent: &str,
    verbose: bool,
    style: &Style,
) {
    let as_text = |v: Option<&Value>| v.and_then(Value::as_str).unwrap_or_default().to_owned();
    let (old, new) = (as_text(before), as_text(after));
    let diff = TextDiff::from_lines(&old, &new);
    let mut lines = Vec::new();
    for group in diff.grouped_ops(2) {
        for op in &group {
            for change in diff.iter_changes(op) {
                let line = change.value().trim_end_matches('\n');
                let (sign, paint): (&str, fn(Style, &str) -> String) = match change.tag() {
                    ChangeTag::Delete => ("-", Style::bad),
                    ChangeTag::Insert => ("+", Style::good),
                    ChangeTag::Equal => (" ", Style::faint),
                };
                lines.push(paint(*style, &format!("{sign} {}", escape::line(line))));
            }
        }
    }
    let shown = if verbose {
        lines.len()
    } else {
        lines.len().min(MAX_LINES)
    };
    for line in &lines[..shown] {
        let _ = writeln!(text, "{indent}  {line}");
    }
    if shown < lines.len() {
        let _ = writeln!(
            text,
            "{indent}  … {} more lines; see them with --verbose",
            lines.len() - shown
        );
    }
}

/// One value on one line.
fn value(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let text = text.trim_end_matches('\n');
            if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
                return format!("{}…", &text[..12]);
            }
            format!(
                "{:?}",
                escape::line(text).chars().take(200).collect::<String>()
            )
        }
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let words: Vec<String> = items
                .iter()
                .filter_map(Value::as_str)
                .map(|w| escape::line(w).into_owned())
                .collect();
            match words.as_slice() {
                [shell, dash, command] if shell == "/bin/sh" && dash == "-c" => command.clone(),
                _ => words.join(" "),
            }
        }
        other => escape::line(&other.to_string()).into_owned(),
    }
}

fn summary(plan: &Plan, style: &Style) -> String {
    let count = |wanted: &[ChangeAction]| {
        plan.changes
            .iter()
            .filter(|c| wanted.contains(&c.action))
            .count()
    };
    let replace = [
        ChangeAction::ReplaceCreateFirst,
        ChangeAction::ReplaceDeleteFirst,
    ];
    let mut parts = vec![
        style.good(&format!(
            "{} to create",
            count(&[ChangeAction::Create, ChangeAction::Adopt])
        )),
        style.change(&format!("{} to change", count(&[ChangeAction::Update]))),
    ];
    let replaced = count(&replace);
    if replaced > 0 {
        parts.push(style.change(&format!("{replaced} to replace")));
    }
    parts.push(style.bad(&format!(
        "{} to delete",
        count(&[ChangeAction::Delete, ChangeAction::Forget])
    )));
    let radius = &plan.blast_radius;
    let plural = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
    let mut line = format!("{}: {}.", style.bold("Plan"), parts.join(", "));
    let _ = write!(
        line,
        " Touches {}",
        plural(radius.machines.len(), "machine")
    );
    let _ = write!(line, "; {}", plural(radius.restarts as usize, "restart"));
    if radius.peak_unavailable.is_empty() {
        line.push_str("; no downtime");
    } else {
        let apps: Vec<String> = radius
            .peak_unavailable
            .keys()
            .map(ToString::to_string)
            .collect();
        let _ = write!(line, "; {} of {}", style.bad("downtime"), apps.join(", "));
    }
    line.push('.');
    if let Some(cost) = cost(&plan.monthly_cost) {
        let _ = write!(line, "\n{cost}");
    }
    line
}

/// The monthly cost and its difference, if anything has a price.
fn cost(cost: &MonthlyCost) -> Option<String> {
    let money = |cents: u64| format!("{}.{:02}", cents / 100, cents % 100);
    let currencies: std::collections::BTreeSet<&String> = cost
        .before_cents
        .keys()
        .chain(cost.after_cents.keys())
        .collect();
    let parts: Vec<String> = currencies
        .into_iter()
        .map(|currency| {
            let before = cost.before_cents.get(currency).copied().unwrap_or(0);
            let after = cost.after_cents.get(currency).copied().unwrap_or(0);
            let sign = if after >= before { "+" } else { "-" };
            format!(
                "{} {currency} a month ({sign}{})",
                money(after),
                money(after.abs_diff(before))
            )
        })
        .collect();
    (!parts.is_empty()).then(|| format!("Machines cost {}.", parts.join(" and ")))
}
