//! What a recorded resource hands on to the one that takes its place: the addresses that it had before, and that it may
//! take over what Plumb did not make.

use std::collections::BTreeMap;

use plumb_model::{Address, Reason, Resource};

use super::context::{Context, Drafts};
use super::rename::Moved;

/// Carries over, and lets what stands in the way be adopted.
///
/// Former addresses are kept for as long as the resource is recorded, also where somebody has one of them anew: an agent
/// that was away meanwhile still holds the old thing there, and must not give it to the new one.
pub(super) fn carry_over(context: &Context<'_>, drafts: &mut Drafts, moved: &Moved) {
    for (name, draft) in drafts.iter_mut() {
        let body = context.recorded(name);
        let recorded: BTreeMap<&Address, &Resource> = body
            .iter()
            .flat_map(|body| &body.resources)
            .map(|r| (&r.address, r))
            .collect();
        for (address, resource) in &mut draft.resources {
            let at = moved.get(address).unwrap_or(address);
            let Some(old) = recorded.get(at) else {
                // Its agent may have met a stranger there before this was let go.
                resource.adopt = in_the_way(context, address);
                continue;
            };
            if at == address {
                resource.was.clone_from(&old.was);
                resource.was_before.clone_from(&old.was_before);
            } else {
                resource.renamed_from(old);
            }
            resource.adopt = old.adopt || in_the_way(context, at);
        }
    }
}

/// Whether the agent found something there that Plumb did not make, under what its machine is recorded at, and that it can
/// take over.
fn in_the_way(context: &Context<'_>, address: &Address) -> bool {
    let Some(machine) = context.input.recorded.state.machines.get(&address.machine) else {
        return false;
    };
    let status = context.input.observed.statuses.get(address);
    status.is_some_and(|status| {
        status.generation >= machine.generation
            && status
                .conditions
                .iter()
                .any(|c| c.reason == Reason::NotOurs)
            && status
                .found
                .as_ref()
                .is_some_and(|found| found.fits(address.kind))
    })
}
