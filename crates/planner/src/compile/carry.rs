//! What a recorded resource hands on to the one that takes its place: the addresses that it had before, and that it may
//! take over what Plumb did not make.

use plumb_model::{Address, Found, OwnerName, Reason, ResourceKind, ResourceStatus};

use super::context::{Context, Draft};
use super::rename::Moved;
use crate::Input;

/// What agents said of things that Plumb did not make.
pub(super) struct Strangers<'a> {
    input: &'a Input<'a>,
    statuses: Vec<&'a ResourceStatus>,
}

impl<'a> Strangers<'a> {
    pub fn new(input: &'a Input<'a>) -> Self {
        let statuses = input.observed.statuses.values().map(AsRef::as_ref);
        Self {
            input,
            statuses: statuses.filter(|status| is_foreign(status)).collect(),
        }
    }

    fn in_the_way(&self, address: &Address) -> bool {
        stranger(self.input, self.statuses.iter().copied(), address).is_some()
    }
}

/// Carries over to what an owner has now, and lets what stands in the way be adopted.
///
/// Former addresses are kept for as long as the resource is recorded, also where somebody has one of them anew: an agent
/// that was away meanwhile still holds the old thing there, and must not give it to the new one.
pub(super) fn carry_over(
    context: &Context<'_>,
    name: &OwnerName,
    draft: &mut Draft,
    moved: &Moved,
    strangers: &Strangers<'_>,
) {
    let body = context.recorded(name);
    for (address, resource) in &mut draft.resources {
        let at = moved.get(address).unwrap_or(address);
        let Some(old) = body.and_then(|body| body.resource(at)) else {
            resource.adopt = strangers.in_the_way(address);
            continue;
        };
        if at == address {
            resource.was.clone_from(&old.was);
            resource.was_before.clone_from(&old.was_before);
        } else {
            resource.renamed_from(old);
        }
        resource.adopt = old.adopt || strangers.in_the_way(at);
    }
}

/// What an agent said of something that Plumb did not make and that a resource can take over: at its address, or at that
/// path under another owner, which let it go since. Only what it said under what its machine is recorded at counts.
pub(crate) fn stranger<'a>(
    input: &Input<'a>,
    statuses: impl IntoIterator<Item = &'a ResourceStatus>,
    address: &Address,
) -> Option<&'a Found> {
    let machine = input.recorded.state.machines.get(&address.machine)?;
    let is_path = matches!(address.kind, ResourceKind::File | ResourceKind::Directory);
    let is_here = |at: &Address| {
        let same = at.machine == address.machine && at.kind == address.kind;
        at == address || is_path && same && at.name == address.name
    };
    statuses
        .into_iter()
        .filter(|status| is_here(&status.address) && status.generation >= machine.generation)
        .filter(|status| is_foreign(status))
        .filter_map(|status| status.found.as_deref())
        .find(|found| found.fits(address.kind))
}

fn is_foreign(status: &ResourceStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|c| c.reason == Reason::NotOurs)
}
