//! What happens to one resource, and why.

use std::collections::BTreeSet;

use plumb_model::coverage::Cost;
use plumb_model::plan::{AttributeChange, Change, ChangeAction, Felt};
use plumb_model::spec_service::DataAfter;
use plumb_model::{Address, Found, FoundKind, Resource, ResourceKind, ResourceSpec};
use serde_json::json;

use super::attributes::{self, Hiding};
use super::felt::{downtime, felt, is_running, stopped};
use super::{Noted, Sides};
use crate::compile::after_renames;
use crate::desired::is_forgotten;

/// What happens to the resource at an address; none if nothing does.
pub(super) fn change(sides: &Sides<'_>, address: &Address) -> Option<Noted> {
    let new = sides.after.get(address);
    let old = match new {
        Some(_) => sides.old(address),
        None => sides.before.get(address),
    };
    let change = match (old, new) {
        (None, None) => return None,
        (None, Some(new)) => created(sides, new),
        (Some(old), None) => gone(sides, old),
        (Some(old), Some(new)) if std::ptr::eq(old, new) || old == new => return None,
        (Some(old), Some(new)) => changed(sides, old, new)?,
    };
    Some(noted(sides, old, new, change))
}

/// Adds what is felt.
fn noted(
    sides: &Sides<'_>,
    old: Option<&Resource>,
    new: Option<&Resource>,
    mut change: Change,
) -> Noted {
    change.felt = felt(sides, &change, old, new);
    change.downtime = downtime(sides, &change, old, new);
    if change.felt == Felt::Start && old.is_some_and(is_running) {
        change
            .reasons
            .push("its agent did not get it to run until now".to_owned());
    }
    let stopped = stopped(sides, &change);
    Noted { change, stopped }
}

fn base(sides: &Sides<'_>, address: &Address, action: ChangeAction, reason: String) -> Change {
    Change {
        address: address.clone(),
        action,
        reasons: vec![reason],
        attributes: Vec::new(),
        blocked_by: Vec::new(),
        cost: None,
        felt: Felt::Nothing,
        downtime: None,
        origin: sides.desired.origin(address).cloned(),
    }
}

fn created(sides: &Sides<'_>, new: &Resource) -> Change {
    let address = &new.address;
    if new.adopt {
        return adopted(sides, new);
    }
    let hiding = Hiding { sides, address };
    let reason = format!("new in `{}`", address.owner);
    let mut change = base(sides, address, ChangeAction::Create, reason);
    change.attributes = attributes::of_specs(&hiding, None, Some(&new.spec));
    if let Some(elsewhere) = data_elsewhere(sides, new) {
        change.reasons.push(format!(
            "empty: its data is on machine `{elsewhere}`, and stays there"
        ));
    }
    change
}

/// The machine that the same data is recorded on, if this one starts empty because it moves.
fn data_elsewhere<'a>(sides: &Sides<'a>, new: &Resource) -> Option<&'a plumb_model::MachineName> {
    let address = &new.address;
    if !address.kind.holds_data() {
        return None;
    }
    let body = sides.input.recorded.releases.get(&address.owner)?;
    body.resources
        .iter()
        .map(|r| &r.address)
        .find(|a| a.kind == address.kind && a.name == address.name && sides.after.get(a).is_none())
        .map(|a| &a.machine)
}

fn gone(sides: &Sides<'_>, old: &Resource) -> Change {
    let address = &old.address;
    let hiding = Hiding { sides, address };
    let owner = sides.owner(address);
    let why = if sides.desired.owners.contains_key(owner) {
        format!("no longer in `{owner}`")
    } else {
        format!("`{}` is removed", address.owner)
    };
    if is_forgotten(old) {
        let mut change = base(sides, address, ChangeAction::Forget, why);
        change
            .reasons
            .push("its data stays, and plumb no longer looks after it".to_owned());
        return change;
    }
    let mut change = base(sides, address, ChangeAction::Delete, why);
    change.attributes = attributes::of_specs(&hiding, Some(&old.spec), None);
    if address.kind.holds_data() {
        change
            .reasons
            .push("its data is destroyed, as `on_delete` says".to_owned());
    }
    if old.adopt {
        let what = match address.kind {
            ResourceKind::Directory => "it was there before plumb, and stays",
            _ => "what was there before plumb is kept in its agent's data folder, and not put back",
        };
        change.reasons.push(what.to_owned());
    }
    change
}

fn changed(sides: &Sides<'_>, old: &Resource, new: &Resource) -> Option<Change> {
    let address = &new.address;
    let hiding = Hiding { sides, address };
    let old = after_renames(&sides.desired.renamed, old);
    if new.adopt && !old.adopt {
        return Some(adopted(sides, new));
    }
    let mut all = Vec::new();
    if old.address != *address {
        let (before, after) = (json!(old.address), json!(address));
        all.extend(attributes::plain("address", Some(before), Some(after)));
    }
    all.extend(attributes::of_specs(
        &hiding,
        Some(&old.spec),
        Some(&new.spec),
    ));
    all.extend(attributes::around(&old, new));
    if all.is_empty() {
        return None;
    }
    let migrates = upgrade(&old.spec, &new.spec, &mut all);
    let cost = all.iter().map(|a| a.cost).max();
    let action = match cost {
        Some(Cost::Replace) => replacement(address.kind),
        _ => ChangeAction::Update,
    };
    let mut change = base(sides, address, action, String::new());
    change.reasons = reasons(&old, address, &all);
    change.reasons.extend(migrates);
    if action == ChangeAction::ReplaceDeleteFirst && address.kind.holds_data() {
        change.reasons.push("its data is destroyed".to_owned());
    }
    change.attributes = all;
    change.cost = cost;
    Some(change)
}

/// What another version does to a service's data, in words; the attributes that bring it about cost as much as that.
fn upgrade(
    old: &ResourceSpec,
    new: &ResourceSpec,
    attributes: &mut [AttributeChange],
) -> Option<String> {
    let (ResourceSpec::Service(old), ResourceSpec::Service(new)) = (old, new) else {
        return None;
    };
    let (engine, from, to) = (new.engine.as_str(), old.best_version(), new.best_version());
    let (cost, words) = match new.data_after(old) {
        _ if old.engine != new.engine => return None,
        DataAfter::Same => return None,
        DataAfter::Converted => (
            Cost::Restart,
            format!(
                "{engine} {to} changes the form of the data when it starts, and {from} cannot read it afterwards: \
                 save a copy first"
            ),
        ),
        DataAfter::Unreadable => (
            Cost::Replace,
            format!(
                "{engine} {to} cannot read the data of {from}, and plumb does not move it: to keep it, make the new \
                 version a Service of its own beside this one, and move the data over"
            ),
        ),
    };
    for attribute in attributes {
        if matches!(attribute.path.as_str(), "version" | "wanted") {
            attribute.cost = attribute.cost.max(cost);
        }
    }
    Some(words)
}

/// Which of the two is there first. What has a place of its own by its content is made beside the old one; what has one
/// name or one place alone cannot be.
fn replacement(kind: ResourceKind) -> ChangeAction {
    match kind {
        ResourceKind::Artifact
        | ResourceKind::Checkout
        | ResourceKind::Toolchain
        | ResourceKind::Build
        | ResourceKind::Image
        | ResourceKind::Package
        | ResourceKind::Directory
        | ResourceKind::File
        | ResourceKind::Route => ChangeAction::ReplaceCreateFirst,
        ResourceKind::Network
        | ResourceKind::Volume
        | ResourceKind::Service
        | ResourceKind::Task
        | ResourceKind::Process
        | ResourceKind::Container => ChangeAction::ReplaceDeleteFirst,
    }
}

/// In words, which fields changed; a rename by the name that it had.
fn reasons(old: &Resource, address: &Address, all: &[AttributeChange]) -> Vec<String> {
    let renamed = old.address != *address;
    // The first attribute is the address then, which is no field.
    let fields: BTreeSet<&str> = all
        .iter()
        .skip(usize::from(renamed))
        .map(|a| a.path.split('.').next().unwrap_or(&a.path))
        .collect();
    let fields: Vec<&str> = fields.into_iter().collect();
    let changed = (!fields.is_empty()).then(|| format!("{} changed", fields.join(", ")));
    let renamed = renamed.then(|| format!("`{}` is renamed", old.address.owner));
    renamed.into_iter().chain(changed).collect()
}

fn adopted(sides: &Sides<'_>, new: &Resource) -> Change {
    let address = &new.address;
    let hiding = Hiding { sides, address };
    let at = sides.desired.recorded_address(address);
    let statuses = sides.input.observed.statuses.values().map(AsRef::as_ref);
    let found = crate::compile::stranger(sides.input, statuses, at);
    let reason =
        "something that plumb did not make is there; it is taken over, and what it was is kept";
    let mut change = base(sides, address, ChangeAction::Adopt, reason.to_owned());
    if let Some(found) = found.filter(|found| found.kind == FoundKind::File && found.text.is_none())
    {
        change.reasons.push(not_shown(found));
    }
    change.attributes = match found {
        Some(found) => attributes::of_found(&hiding, found, &new.spec),
        None => attributes::of_specs(&hiding, None, Some(&new.spec)),
    };
    change
}

/// Why what a file holds now cannot be compared with what it is to hold.
fn not_shown(found: &Found) -> String {
    let size = found
        .size
        .map(|n| format!(" ({n} bytes)"))
        .unwrap_or_default();
    let why = match found.digest {
        None => "not everybody on its machine may read it",
        Some(_) => "it is no text, or a long one",
    };
    format!("what it holds now{size} is not shown: {why}")
}
