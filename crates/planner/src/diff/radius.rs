//! How much a plan touches.

use plumb_model::plan::{BlastRadius, ChangeAction};

use super::Noted;
use super::owners::loses_data;

/// Counts; the machines are known once the next state is.
pub(super) fn radius(noted: &[Noted]) -> BlastRadius {
    let mut radius = BlastRadius::default();
    for Noted {
        change, restarts, ..
    } in noted
    {
        radius.restarts += restarts;
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
        // Until rollouts are driven, everything on every machine may be stopped at the same moment.
        if change.downtime.is_some() && change.address.kind.runs() {
            let owner = change.address.owner.clone();
            *radius.peak_unavailable.entry(owner).or_default() += 1;
        }
    }
    radius
}
