//! What a recorded resource hands on to the one that takes its place: the addresses that it had before, and that it may
//! take over what Plumb did not make.

use std::collections::BTreeMap;

use plumb_model::{Address, Reason, Resource};

use super::context::{Context, Drafts};
use super::rename::Moved;

/// Carries over, and lets what stands in the way be adopted.
pub(super) fn carry_over(context: &Context<'_>, drafts: &mut Drafts, moved: &Moved) {
    let mut former: Vec<(Address, Address)> = Vec::new();
    for (name, draft) in drafts.iter_mut() {
        let Some(body) = context.recorded(name) else {
            continue;
        };
        let recorded: BTreeMap<&Address, &Resource> =
            body.resources.iter().map(|r| (&r.address, r)).collect();
        for (address, resource) in &mut draft.resources {
            let at = moved.get(address).unwrap_or(address);
            let Some(old) = recorded.get(at) else {
                continue;
            };
            if at == address {
                resource.was.clone_from(&old.was);
                resource.was_before.clone_from(&old.was_before);
            } else {
                resource.renamed_from(old);
            }
            resource.adopt = old.adopt || in_the_way(context, old);
            let before = resource.was.iter().chain(&resource.was_before);
            former.extend(before.map(|was| (address.clone(), was.clone())));
        }
    }
    // An address that somebody has anew is nobody's former one: an agent would look for the wrong thing there.
    for (address, was) in former {
        let taken = drafts
            .get(&was.owner)
            .is_some_and(|draft| draft.resources.contains_key(&was));
        let owner = &address.owner;
        let Some(resource) = drafts
            .get_mut(owner)
            .filter(|_| taken)
            .and_then(|draft| draft.resources.get_mut(&address))
        else {
            continue;
        };
        if resource.was.as_ref() == Some(&was) {
            resource.was = None;
        }
        resource.was_before.retain(|before| *before != was);
    }
}

/// Whether the agent found something there that Plumb did not make, as the resource is recorded now, and that it can take
/// over.
fn in_the_way(context: &Context<'_>, recorded: &Resource) -> bool {
    let address = &recorded.address;
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
