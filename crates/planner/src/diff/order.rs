//! The required order among what changes: first what others need, last what needs others; the other way round where they
//! go. Acyclic.

use std::collections::BTreeMap;

use plumb_model::plan::{Change, ChangeAction};
use plumb_model::{Address, Resource};

use super::Sides;
use crate::desired::claims;

/// Which changed resource is acted on before which.
pub(super) fn order(sides: &Sides<'_>, changes: &[Change]) -> Vec<(Address, Address)> {
    // What is forgotten is not acted on at all.
    let acted: BTreeMap<&Address, ChangeAction> = changes
        .iter()
        .filter(|c| c.action != ChangeAction::Forget)
        .map(|c| (&c.address, c.action))
        .collect();
    let mut order: Vec<(&Address, &Address)> = Vec::new();
    // What is let go is gone before another resource takes it. From deletes to the others only, so that two
    // resources that swap what they hold make no cycle.
    let let_go: BTreeMap<_, &Address> = acted
        .iter()
        .filter(|(_, action)| **action == ChangeAction::Delete)
        .filter_map(|(address, _)| sides.before.get(address))
        .flat_map(|resource| claims(resource).into_iter().map(|c| (c, &resource.address)))
        .collect();
    for (address, action) in &acted {
        let deleted = *action == ChangeAction::Delete;
        let side = if deleted { sides.before } else { sides.after };
        let Some(resource) = side.get(address) else {
            continue;
        };
        for other in &resource.after {
            match (deleted, acted.get(other)) {
                (true, Some(ChangeAction::Delete)) => {
                    order.push((address, other));
                }
                (false, Some(action)) if *action != ChangeAction::Delete => {
                    order.push((other, address));
                }
                _ => {}
            }
        }
        if !deleted && !let_go.is_empty() {
            taken_over(resource, &let_go, &mut order);
        }
    }
    order.sort_unstable();
    order.dedup();
    let owned = |(first, second): (&Address, &Address)| (first.clone(), second.clone());
    order.into_iter().map(owned).collect()
}

fn taken_over<'a>(
    resource: &'a Resource,
    let_go: &BTreeMap<(plumb_model::MachineName, String), &'a Address>,
    order: &mut Vec<(&'a Address, &'a Address)>,
) {
    for claim in claims(resource) {
        if let Some(holder) = let_go.get(&claim) {
            order.push((holder, &resource.address));
        }
    }
}
