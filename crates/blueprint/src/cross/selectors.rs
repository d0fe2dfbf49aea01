//! Which machines a document goes to: unknown names, and labels that no machine has.

use super::{All, listed};
use crate::code::Code;
use crate::convert::Selected;
use crate::diagnostic::{Diagnostic, Diagnostics, quote};
use crate::nearest::nearest;
use crate::schema::Kind;
use crate::set::Selector;
use plumb_model::MachineName;

/// Checks the selectors of an owner.
pub(super) fn check(all: &All<'_>, at: usize, out: &mut Diagnostics) {
    let (owner, places) = (&all.owners[at], &all.places[at]);
    if let Some(selected) = &owner.selected {
        selector(all, selected, &places.on, out);
        let several = places.on.len() > 1 && owner.kind == Kind::Service;
        if several && all.machines.complete {
            let names: Vec<String> = places
                .on
                .iter()
                .take(3)
                .map(|m| quote(m.as_str()))
                .collect();
            out.push(
                Diagnostic::error(
                    Code::NotOneMachine,
                    format!(
                        "the Service {} would be on {} machines, and its data is on one",
                        quote(owner.name.as_str()),
                        places.on.len()
                    ),
                )
                .here(&selected.spot)
                .hint(format!(
                    "name one of them: {}",
                    crate::diagnostic::alternatives(&names)
                )),
            );
        }
    }
    if let Some(ingress) = &owner.ingress {
        selector(all, ingress, &places.ingress, out);
    }
    spread(all, at, out);
}

/// A label to spread over that no machine has: a slip of the finger.
fn spread(all: &All<'_>, at: usize, out: &mut Diagnostics) {
    let (Some((label, spot)), on) = (&all.owners[at].spread, &all.places[at].on) else {
        return;
    };
    let infos = || on.iter().map(|name| &all.machines.infos[*name]);
    if on.is_empty() || !all.machines.complete || infos().any(|i| i.labels.contains_key(label)) {
        return;
    }
    let labels: std::collections::BTreeSet<&str> = infos()
        .flat_map(|i| i.labels.keys().map(String::as_str))
        .collect();
    let hint = match nearest(label, labels.iter().copied()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if labels.is_empty() => format!("add it there: `labels: {{ {label}: … }}`"),
        None => format!("there is {}", listed(labels.iter().copied())),
    };
    out.push(
        Diagnostic::error(
            Code::NothingSelected,
            format!(
                "none of the machines that {} goes to has a label {}",
                quote(all.owners[at].name.as_str()),
                quote(label)
            ),
        )
        .here(spot)
        .hint(hint),
    );
}

fn selector(all: &All<'_>, selected: &Selected, on: &[&MachineName], out: &mut Diagnostics) {
    let (known, machines) = (all.known, all.machines);
    for (name, spot) in &selected.named {
        let name_text = name.as_str();
        if known.machines.contains_key(name_text)
            || known.possible.contains(name_text)
            || known.machines_incomplete
        {
            continue;
        }
        let names = || known.machines.keys().map(String::as_str);
        let hint = match nearest(name.as_str(), names()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if name.as_str() == "all" => {
                "for every machine write `machines: all`, without a list".to_owned()
            }
            None if known.machines.is_empty() => format!(
                "there is no machine yet: add a document `kind: Machine` with `name: {name}`"
            ),
            None => format!("there is {}", listed(names())),
        };
        out.push(
            Diagnostic::error(
                Code::UnknownMachine,
                format!("there is no machine {}", quote(name.as_str())),
            )
            .here(spot)
            .hint(hint),
        );
    }
    if !on.is_empty() || !machines.complete {
        return;
    }
    match &selected.selector {
        Selector::Names(_) => {}
        Selector::All => out.push(
            Diagnostic::error(
                Code::NothingSelected,
                "there is no machine in this workspace",
            )
            .here(&selected.spot)
            .hint("add a document `kind: Machine` with `name: web-1`"),
        ),
        Selector::Labels(labels) => {
            let shown: Vec<String> = labels
                .iter()
                .map(|(k, v)| quote(&format!("{k}: {v}")))
                .collect();
            let all = machines.infos.values().flat_map(|i| &i.labels);
            let seen: std::collections::BTreeSet<String> =
                all.map(|(k, v)| format!("{k}: {v}")).collect();
            let meant = labels.iter().find_map(|(k, v)| {
                let label = format!("{k}: {v}");
                (!seen.contains(&label))
                    .then(|| nearest(&label, seen.iter().map(String::as_str)))
                    .flatten()
            });
            let hint = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if seen.is_empty() => {
                    "no machine has a label; add `labels: { role: web }` to one".to_owned()
                }
                None => format!("there is {}", listed(seen.iter().map(String::as_str))),
            };
            out.push(
                Diagnostic::error(
                    Code::NothingSelected,
                    format!("no machine has {}", shown.join(" and ")),
                )
                .here(&selected.spot)
                .hint(hint),
            );
        }
    }
}
