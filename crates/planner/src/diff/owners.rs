//! What happens to each App, Setup, Service, Volume and Network as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::plan::{ChangeAction, Felt, OwnerChange};
use plumb_model::state::{Next, OwnerKind, ReleaseBody};
use plumb_model::{Address, OwnerName, ReleaseNumber};

use super::{Noted, Sides};
use crate::desired::is_forgotten;

/// What the changes of one owner's resources come to.
#[derive(Default)]
struct Sum {
    felt: Option<Felt>,
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
            felt: sum.felt.unwrap_or(Felt::Nothing),
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
            let kept = !old.resources.is_empty() && old.resources.iter().all(is_forgotten);
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
    for Noted { change, felt, .. } in noted {
        let sum = sums.entry(sides.owner(&change.address)).or_default();
        sum.felt = sum.felt.max(Some(*felt));
        sum.downtime.extend(change.downtime.clone());
        if loses_data(change.address.kind.holds_data(), change.action) {
            sum.data_loss.insert(change.address.clone());
        }
    }
    sums
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
