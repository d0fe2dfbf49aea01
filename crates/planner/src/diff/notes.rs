//! What is said beside the changes: what waits and for what, what is not done and why, and what drifts.

use std::collections::BTreeMap;

use plumb_model::plan::{Change, ChangeAction, DriftNote, Lack, NotDone};
use plumb_model::{Address, ConditionKind, MachineName, Reason};

use super::Sides;

/// Fills in what each change waits for or is kept by.
pub(super) fn block(sides: &Sides<'_>, changes: &mut [Change], lacks: &[Lack]) {
    let mut lacking: BTreeMap<&Address, Vec<&Lack>> = BTreeMap::new();
    for lack in lacks {
        lacking.entry(&lack.address).or_default().push(lack);
    }
    for change in changes {
        let machine = &change.address.machine;
        if change.action == ChangeAction::Forget {
            continue;
        }
        if unheard(sides, machine) {
            let why = format!("machine `{machine}` has never been heard of");
            change.blocked_by.push(why);
        }
        for lack in lacking.get(&change.address).into_iter().flatten() {
            change.blocked_by.push(format!(
                "machine `{machine}` cannot do {}: {}",
                lack.asks_for, lack.why
            ));
        }
        if change.attributes.iter().any(|a| a.unknown) {
            let why = "nobody has resolved what it is made from".to_owned();
            change.blocked_by.push(why);
        }
    }
}

/// Whether a machine's agent has never been heard of, though somebody listened.
fn unheard(sides: &Sides<'_>, machine: &MachineName) -> bool {
    let observed = &sides.input.observed;
    !observed.nobody_asked && !observed.machines.contains_key(machine)
}

/// What is not done now, and what will get it done.
pub(super) fn not_done(sides: &Sides<'_>) -> Vec<NotDone> {
    let mut all = waiting(sides);
    all.extend(unresolved(sides));
    all.extend(in_the_way(sides));
    all
}

/// What waits for machines whose agents have never been heard of.
fn waiting(sides: &Sides<'_>) -> Vec<NotDone> {
    let mut waiting: BTreeMap<&MachineName, usize> = BTreeMap::new();
    for address in sides.after.keys() {
        let machine = &address.machine;
        if unheard(sides, machine) {
            *waiting.entry(machine).or_default() += 1;
        }
    }
    waiting
        .into_iter()
        .map(|(machine, count)| NotDone {
            subject: format!("machine {machine}"),
            reason: format!(
                "{count} resource{} wait{} until its agent joins: \
                 run `plumb token create --join --machine {machine}` here and `plumb agent` there",
                if count == 1 { "" } else { "s" },
                if count == 1 { "s" } else { "" },
            ),
        })
        .collect()
}

/// Names that nobody has looked up.
fn unresolved(sides: &Sides<'_>) -> Vec<NotDone> {
    let all = sides.desired.resolutions.iter();
    all.filter(|(_, resolution)| resolution.resolved.is_none())
        .map(|(key, _)| NotDone {
            subject: key.to_string(),
            reason: "nobody has looked up what it means now: plan against a control plane that can reach it".to_owned(),
        })
        .collect()
}

/// Things that Plumb did not make and that it cannot take over.
fn in_the_way(sides: &Sides<'_>) -> Vec<NotDone> {
    let mut all = Vec::new();
    for status in sides.input.observed.statuses.values() {
        let Some(resource) = sides.after.get(&status.address) else {
            continue;
        };
        let said = status
            .conditions
            .iter()
            .find(|c| c.reason == Reason::NotOurs);
        if let Some(said) = said.filter(|_| !resource.adopt) {
            all.push(NotDone {
                subject: status.address.to_string(),
                reason: format!(
                    "something that plumb did not make is in its place, and cannot be taken over: {}; move it away",
                    said.message
                ),
            });
        }
    }
    all
}

/// What drifts, apart from what is intended.
pub(super) fn drift(sides: &Sides<'_>) -> Vec<DriftNote> {
    sides
        .input
        .observed
        .statuses
        .values()
        .filter_map(|status| {
            let drifted = status
                .condition(ConditionKind::Drifted)
                .filter(|c| c.status)?;
            Some(DriftNote {
                address: status.address.clone(),
                message: drifted.message.clone(),
                policy: sides
                    .before
                    .get(&status.address)
                    .map(|resource| resource.drift)
                    .unwrap_or_default(),
            })
        })
        .collect()
}
