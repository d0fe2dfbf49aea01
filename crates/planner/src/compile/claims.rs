//! What holds across owners: paths lie in each other, nothing is claimed twice, nothing waits for itself.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use plumb_model::plan::Origin;
use plumb_model::state::ReleaseBody;
use plumb_model::{Address, MachineName, OwnerName, Resource, ResourceKind};

use super::context::{Context, Draft, Drafts};
use crate::desired::{Claim, each_claim};

/// Lets each file and directory wait for the innermost managed directory above it on the same machine.
pub(super) fn nest_paths(drafts: &mut Drafts) {
    let mut directories: BTreeMap<MachineName, BTreeMap<Arc<str>, Address>> = BTreeMap::new();
    for address in drafts.values().flat_map(|draft| draft.resources.keys()) {
        if address.kind == ResourceKind::Directory {
            let here = directories.entry(address.machine.clone()).or_default();
            here.insert(address.name.clone(), address.clone());
        }
    }
    for resource in drafts.values_mut().flat_map(|d| d.resources.values_mut()) {
        if !matches!(
            resource.address.kind,
            ResourceKind::File | ResourceKind::Directory
        ) {
            continue;
        }
        let Some(here) = directories.get(&resource.address.machine) else {
            continue;
        };
        let mut folder: &str = &resource.address.name;
        while let Some(at) = folder.rfind('/') {
            folder = &folder[..at];
            if let Some(above) = here.get(folder) {
                resource.after.insert(above.clone());
                break;
            }
        }
    }
}

/// Whether something of an owner lies in a folder that may be somebody else's.
pub(super) fn has_paths(draft: &Draft) -> bool {
    let mut addresses = draft.resources.keys();
    addresses.any(|a| matches!(a.kind, ResourceKind::File | ResourceKind::Directory))
}

/// Two resources that want the same path, port or route of one machine, and containers that wait for each other.
/// Blueprints are checked for it where they are written; this holds whatever way they came. What is recorded has passed it,
/// so that only the machines have to be looked at of which anything is another.
pub(super) fn check(
    context: &mut Context<'_>,
    owners: &BTreeMap<OwnerName, Arc<ReleaseBody>>,
    origins: &BTreeMap<OwnerName, BTreeMap<Address, Origin>>,
    touched: &BTreeSet<&MachineName>,
) {
    if touched.is_empty() {
        return;
    }
    let origin = |address: &Address| origins.get(&address.owner)?.get(address).cloned();
    // Only ever looked into: its order, which is another each time, shows nowhere.
    let mut held: HashMap<(&MachineName, Claim<'_>), &Address> = HashMap::new();
    let all = owners.values().flat_map(|body| &body.resources);
    for resource in all.filter(|r| touched.contains(&r.address.machine)) {
        let machine = &resource.address.machine;
        each_claim(resource, |claim| match held.entry((machine, claim)) {
            Entry::Occupied(first) => {
                let message = format!(
                    "{claim} on machine `{machine}` is claimed by `{}` and by `{}`",
                    first.get(),
                    resource.address
                );
                let origin = origin(&resource.address);
                context.problem(message, origin, "let one of them go, or choose another");
            }
            Entry::Vacant(free) => {
                free.insert(&resource.address);
            }
        });
    }
    for body in owners.values() {
        if let Some(cycle) = cycle(&body.resources) {
            let names: Vec<String> = cycle.iter().map(|a| format!("`{a}`")).collect();
            let origin = cycle.first().and_then(|a| origin(a));
            context.problem(
                format!(
                    "each of these waits for the next, in a circle: {}",
                    names.join(", ")
                ),
                origin,
                "let one of them go without the other",
            );
        }
    }
}

/// Resources of one owner that wait for each other. Only containers can: what everything else waits for is fixed by its
/// kind.
fn cycle(resources: &[Arc<Resource>]) -> Option<Vec<&Address>> {
    let containers = || {
        let all = resources.iter();
        all.filter(|resource| resource.address.kind == ResourceKind::Container)
    };
    let there: BTreeSet<&Address> = containers().map(|resource| &resource.address).collect();
    let mut waiting: BTreeMap<&Address, BTreeSet<&Address>> = containers()
        .map(|resource| {
            let first = resource.after.iter().filter(|a| there.contains(*a));
            (&resource.address, first.collect())
        })
        .collect();
    loop {
        let free: Vec<&Address> = waiting
            .iter()
            .filter(|(_, first)| first.is_empty())
            .map(|(address, _)| *address)
            .collect();
        if free.is_empty() {
            break;
        }
        for address in free {
            waiting.remove(address);
            waiting.values_mut().for_each(|first| {
                first.remove(address);
            });
        }
    }
    // What is left waits for a circle or is in one: follow it until something comes again.
    let mut way: Vec<&Address> = vec![waiting.keys().next()?];
    loop {
        let next = *waiting.get(way.last()?)?.first()?;
        if let Some(at) = way.iter().position(|address| *address == next) {
            return Some(way.split_off(at));
        }
        way.push(next);
    }
}
