//! How much a plan touches.

use std::collections::BTreeSet;

use plumb_model::Address;
use plumb_model::plan::{BlastRadius, ChangeAction};

use super::owners::loses_data;
use super::{Noted, Sides};

/// Counts; the machines are known once the next state is.
pub(super) fn radius(sides: &Sides<'_>, noted: &[Noted]) -> BlastRadius {
    let mut radius = BlastRadius::default();
    // What several changes stop is stopped once.
    let (mut restarted, mut down) = (BTreeSet::new(), BTreeSet::<&Address>::new());
    for Noted { change, stopped } in noted {
        restarted.extend(&stopped.restarted);
        down.extend(&stopped.down);
        match change.action {
            ChangeAction::Delete => radius.deletes += 1,
            ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst => {
                radius.replacements += 1;
            }
            _ => {}
        }
        if loses_data(change.address.kind.holds_data(), change.action) {
            radius.data_deletes += 1;
        }
    }
    radius.restarts = u32::try_from(restarted.len()).unwrap_or(u32::MAX);
    // What no rollout paces may be stopped on every machine at the same moment.
    for address in down {
        let owner = sides.owner(address).clone();
        *radius.peak_unavailable.entry(owner).or_default() += 1;
    }
    radius
}
