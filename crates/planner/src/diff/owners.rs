//! What happens to each App, Setup, Service, Volume and Network as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::plan::{ChangeAction, Felt, OwnerChange};
use plumb_model::state::{Next, OwnerKind, ReleaseBody};
use plumb_model::{Address, OwnerName, ReleaseNumber};

use super::felt::{is_running, is_up};
use super::{Noted, Sides};
use crate::desired::is_forgotten;

/// What the changes of one owner's resources come to.
#[derive(Default)]
struct Sum {
    /// The most that is felt of what does not stop.
    felt: Felt,
    /// So many things are stopped.
    stopped: usize,
    downtime: BTreeSet<String>,
    data_loss: BTreeSet<Address>,
}

/// Every owner that comes, changes or goes.
pub(super) fn changes(sides: &Sides<'_>, noted: &[Noted], next: &Next) -> Vec<OwnerChange> {
    let mut sums = sums(sides, noted);
    let desired = sides.desired;
    let recorded = sides.input.recorded;
    let renamed: BTreeSet<&OwnerName> = desired.renamed.values().collect();
    let names: BTreeSet<&OwnerName> = desired
        .owners
        .keys()
        .chain(recorded.state.owners.keys())
        .filter(|name| !renamed.contains(name))
        .collect();
    let mut owners = Vec::new();
    for owner in names {
        let recorded_as = desired.renamed.get(owner).unwrap_or(owner);
        let old = recorded.releases.get(recorded_as);
        let new = desired.owners.get(owner);
        let Some(action) = action(old, new) else {
            continue;
        };
        let sum = sums.remove(owner).unwrap_or_default();
        owners.push(OwnerChange {
            owner: owner.clone(),
            kind: new.or(old).map_or(OwnerKind::App, |body| body.kind),
            action,
            renamed_from: desired.renamed.get(owner).cloned(),
            from: recorded.state.owners.get(recorded_as).map(|o| o.release),
            to: next
                .released
                .get(owner)
                .copied()
                .unwrap_or(ReleaseNumber(0)),
            felt: felt(sides, &sum, old.map(Arc::as_ref), new.map(Arc::as_ref)),
            downtime: sum.downtime,
            data_loss: sum.data_loss,
            origin: desired.owner_origins.get(owner).cloned(),
        });
    }
    owners
}

fn action(old: Option<&Arc<ReleaseBody>>, new: Option<&Arc<ReleaseBody>>) -> Option<ChangeAction> {
    match (old, new) {
        (None, None) => None,
        (None, Some(_)) => Some(ChangeAction::Create),
        (Some(old), None) => {
            let kept = !old.resources.is_empty() && old.resources.iter().all(|r| is_forgotten(r));
            Some(if kept {
                ChangeAction::Forget
            } else {
                ChangeAction::Delete
            })
        }
        (Some(old), Some(new)) if Arc::ptr_eq(old, new) || old == new => None,
        (Some(_), Some(_)) => Some(ChangeAction::Update),
    }
}

fn sums<'a>(sides: &'a Sides<'_>, noted: &'a [Noted]) -> BTreeMap<&'a OwnerName, Sum> {
    let mut sums: BTreeMap<&OwnerName, Sum> = BTreeMap::new();
    for Noted { change, .. } in noted {
        let sum = sums.entry(sides.owner(&change.address)).or_default();
        if change.felt == Felt::Stop {
            sum.stopped += 1;
        } else {
            sum.felt = sum.felt.max(change.felt);
        }
        sum.downtime.extend(change.downtime.clone());
        if loses_data(change.address.kind.holds_data(), change.action) {
            sum.data_loss.insert(change.address.clone());
        }
    }
    sums
}

/// What is felt of an owner as a whole: it stops where nothing of it runs afterwards.
fn felt(
    sides: &Sides<'_>,
    sum: &Sum,
    old: Option<&ReleaseBody>,
    new: Option<&ReleaseBody>,
) -> Felt {
    let mut runs = new.iter().flat_map(|body| &body.resources);
    if sum.stopped == 0 {
        return sum.felt;
    }
    if !runs.any(|r| is_running(r)) {
        return Felt::Stop;
    }
    let ran = old.iter().flat_map(|body| &body.resources);
    let ran = ran.filter(|resource| is_up(sides, resource)).count();
    let part = if sum.stopped < ran {
        Felt::StopPart
    } else {
        // Other things run in their place, such as the same on another machine.
        Felt::Replace
    };
    sum.felt.max(part)
}

/// Whether data is destroyed.
pub(super) fn loses_data(holds_data: bool, action: ChangeAction) -> bool {
    holds_data
        && matches!(
            action,
            ChangeAction::Delete
                | ChangeAction::ReplaceCreateFirst
                | ChangeAction::ReplaceDeleteFirst
        )
}
