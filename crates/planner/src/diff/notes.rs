//! What is said beside the changes: what waits and for what, what is not done and why, and what drifts.

use std::collections::BTreeMap;

use plumb_blueprint::nearest;
use plumb_model::plan::{Change, ChangeAction, DriftNote, Lack, NotDone, instead_of};

use plumb_model::{Address, ConditionKind, MachineName, OwnerName, Reason};

use super::Sides;
use crate::Request;
use crate::compile::from_nothing;

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
            let why = format!("waits for machine `{machine}`, which has never been heard of");
            change.blocked_by.push(why);
        }
        for lack in lacking.get(&change.address).into_iter().flatten() {
            change.blocked_by.push(format!(
                "cannot be done: machine `{machine}` cannot do {}: {}",
                lack.asks_for, lack.why
            ));
        }
        if change.attributes.iter().any(|a| a.unknown) {
            let why = "cannot be done: nobody has looked up what it is made from".to_owned();
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
    all.extend(renamed_from_nothing(sides));
    all
}

/// Renames of what is not recorded.
fn renamed_from_nothing(sides: &Sides<'_>) -> Vec<NotDone> {
    let Request::Apply { blueprint, .. } = sides.input.request else {
        return Vec::new();
    };
    let recorded = sides.input.recorded;
    let desired = &sides.desired.owners;
    from_nothing(blueprint, recorded)
        .filter(|(name, _)| desired.contains_key(*name))
        .map(|(name, old)| {
            // Only what leaves the blueprints can have been meant.
            let leaving = recorded.releases.keys();
            let leaving = leaving.filter(|owner| !desired.contains_key(*owner));
            let meant = nearest(old.as_str(), leaving.map(OwnerName::as_str));
            let hint = match (meant, recorded.state.last_release.contains_key(old)) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, true) => format!("`{old}` was removed or renamed before"),
                (None, false) => "leave `renamed_from` out, or correct the name".to_owned(),
            };
            NotDone {
                subject: format!("rename of {old} to {name}"),
                reason: format!("nothing is recorded as `{old}`, so `{name}` is made anew; {hint}"),
            }
        })
        .collect()
}

/// What waits for machines whose agents have never been heard of.
fn waiting(sides: &Sides<'_>) -> Vec<NotDone> {
    let mut waiting: BTreeMap<&MachineName, usize> = BTreeMap::new();
    for resource in sides.after.iter() {
        *waiting.entry(&resource.address.machine).or_default() += 1;
    }
    waiting
        .into_iter()
        .filter(|(machine, _)| unheard(sides, machine))
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
            reason: format!(
                "nobody has looked up what it means, and this version of Plumb cannot: {}",
                instead_of(key)
            ),
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
