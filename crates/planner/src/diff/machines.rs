//! Machines that come, change or go, and what all of them cost.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::plan::{AttributeChange, ChangeAction, MachineChange, MonthlyCost};
use plumb_model::state::MachineInfo;
use serde_json::{Value, json};

use super::attributes::plain;
use crate::Input;
use crate::desired::Desired;

pub(super) fn changes(desired: &Desired, input: &Input<'_>) -> Vec<MachineChange> {
    let recorded = &input.recorded.state.machines;
    let names: BTreeSet<_> = desired.machines.keys().chain(recorded.keys()).collect();
    let mut changes = Vec::new();
    for name in names {
        let old = recorded.get(name).filter(|m| !m.leaving).map(|m| &m.info);
        let new = desired.machines.get(name);
        let action = match (old, new) {
            (None, None) => continue,
            (Some(old), Some(new)) if old == new => continue,
            (None, Some(_)) => ChangeAction::Create,
            (Some(_), None) => ChangeAction::Delete,
            (Some(_), Some(_)) => ChangeAction::Update,
        };
        changes.push(MachineChange {
            machine: name.clone(),
            action,
            attributes: attributes(old, new),
        });
    }
    changes
}

/// Label by label, address by address.
fn attributes(old: Option<&MachineInfo>, new: Option<&MachineInfo>) -> Vec<AttributeChange> {
    let mut changes = Vec::new();
    let mut each = |field: &str, part: fn(&MachineInfo) -> &BTreeMap<String, String>| {
        let keys: BTreeSet<&String> = old
            .iter()
            .chain(&new)
            .flat_map(|m| part(m).keys())
            .collect();
        for key in keys {
            let value = |info: Option<&MachineInfo>| -> Option<Value> {
                info.and_then(|m| part(m).get(key)).map(|v| json!(v))
            };
            changes.extend(plain(&format!("{field}.{key}"), value(old), value(new)));
        }
    };
    each("labels", |info| &info.labels);
    each("address", |info| &info.address);
    let price = |info: Option<&MachineInfo>, part: fn(&plumb_model::state::Price) -> Value| {
        info.and_then(|m| m.price.as_ref()).map(part)
    };
    for (path, part) in [
        (
            "price.currency",
            (|p| json!(p.currency)) as fn(&plumb_model::state::Price) -> Value,
        ),
        ("price.monthly_cents", |p| json!(p.monthly_cents)),
    ] {
        changes.extend(plain(path, price(old, part), price(new, part)));
    }
    changes
}

pub(super) fn monthly_cost(desired: &Desired, input: &Input<'_>) -> MonthlyCost {
    fn total<'a>(machines: impl Iterator<Item = &'a MachineInfo>) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for price in machines.filter_map(|m| m.price.as_ref()) {
            let sum: &mut u64 = sums.entry(price.currency.clone()).or_default();
            *sum = sum.saturating_add(price.monthly_cents);
        }
        sums
    }
    let recorded = input.recorded.state.machines.values();
    MonthlyCost {
        before_cents: total(recorded.filter(|m| !m.leaving).map(|m| &m.info)),
        after_cents: total(desired.machines.values()),
    }
}
