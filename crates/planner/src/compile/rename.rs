//! Renames: which owner had which name, and which resource had which address. What is recorded moves along; nothing is
//! made anew.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_blueprint::BlueprintSet;
use plumb_model::spec_container::MountSource;
use plumb_model::state::{Recorded, ReleaseBody};
use plumb_model::{Address, OwnerName, Resource, ResourceKind, ResourceSpec};

use super::context::{Context, Drafts};
use crate::Problem;

/// Owners by the name that they are recorded under, for those that are renamed by this very plan.
pub(crate) type Renamed = BTreeMap<OwnerName, OwnerName>;

/// Resources by the address that they are recorded at, for those whose owner is renamed by this very plan.
pub(crate) type Moved = BTreeMap<Address, Address>;

/// The renames that are still to be made. One that was made before says nothing any more.
pub(super) fn renamed(
    set: &BlueprintSet,
    recorded: &Recorded,
    problems: &mut Vec<Problem>,
) -> Renamed {
    let mut renamed = Renamed::new();
    let mut taken: BTreeMap<&OwnerName, &OwnerName> = BTreeMap::new();
    for (kind, name, old) in wanted(set) {
        if recorded.releases.contains_key(name) || !recorded.releases.contains_key(old) {
            continue;
        }
        let mut problem = |message: String, hint: String| {
            problems.push(Problem {
                message,
                origin: set.origin(kind, name.as_str(), "/renamed_from"),
                hint: Some(hint),
            });
        };
        if is_there(set, old) {
            problem(
                format!("`{name}` is renamed from `{old}`, and `{old}` is still there"),
                format!("take `{old}` out of the blueprints, or leave out `renamed_from`"),
            );
        } else if let Some(first) = taken.insert(old, name) {
            problem(
                format!("`{first}` and `{name}` are both renamed from `{old}`"),
                "only one of them can take over what it had".to_owned(),
            );
        } else if recorded.releases[old].kind.as_str() != kind {
            problem(
                format!(
                    "`{name}` is of kind {kind}, and `{old}` is recorded as {}",
                    recorded.releases[old].kind.as_str()
                ),
                "leave out `renamed_from`: the old one is removed, and the new one made".to_owned(),
            );
        } else {
            renamed.insert(name.clone(), old.clone());
        }
    }
    renamed
}

/// Owners that are to be renamed from what nothing is recorded under, and are not recorded themselves either: they are
/// made anew. Each with that name.
pub(crate) fn from_nothing<'a>(
    set: &'a BlueprintSet,
    recorded: &Recorded,
) -> impl Iterator<Item = (&'a OwnerName, &'a OwnerName)> {
    wanted(set)
        .map(|(_, name, old)| (name, old))
        .filter(|(name, old)| {
            let is_recorded = |name| recorded.releases.contains_key(name);
            !is_recorded(*name) && !is_recorded(*old)
        })
}

/// Every `renamed_from`, in the order of kinds and names.
fn wanted(set: &BlueprintSet) -> impl Iterator<Item = (&'static str, &OwnerName, &OwnerName)> {
    let apps = set.apps.iter().map(|(n, d)| ("App", n, &d.renamed_from));
    let setups = set
        .setups
        .iter()
        .map(|(n, d)| ("Setup", n, &d.renamed_from));
    let services = set
        .services
        .iter()
        .map(|(n, d)| ("Service", n, &d.renamed_from));
    let volumes = set
        .volumes
        .iter()
        .map(|(n, d)| ("Volume", n, &d.renamed_from));
    let networks = set
        .networks
        .iter()
        .map(|(n, d)| ("Network", n, &d.renamed_from));
    apps.chain(setups)
        .chain(services)
        .chain(volumes)
        .chain(networks)
        .filter_map(|(kind, name, old)| Some((kind, name, old.as_ref()?)))
}

/// Whether something of this name owns resources.
pub(super) fn is_there(set: &BlueprintSet, name: &OwnerName) -> bool {
    set.apps.contains_key(name)
        || set.setups.contains_key(name)
        || set.services.contains_key(name)
        || set.volumes.contains_key(name)
        || set.networks.contains_key(name)
}

/// The address that a resource has under its owner's other name. What is named after its owner changes that name too.
pub(crate) fn under(address: &Address, owner: &OwnerName) -> Address {
    let named_after = matches!(
        address.kind,
        ResourceKind::Volume | ResourceKind::Network | ResourceKind::Service
    ) && *address.name == *address.owner.as_str();
    Address {
        machine: address.machine.clone(),
        owner: owner.clone(),
        kind: address.kind,
        name: if named_after {
            owner.as_str().into()
        } else {
            address.name.clone()
        },
    }
}

/// Which of the drafted resources are recorded under their owner's old name.
pub(super) fn moved(context: &Context<'_>, drafts: &Drafts) -> Moved {
    let mut moved = Moved::new();
    for (name, old) in context.renamed.iter() {
        let (Some(draft), Some(body)) = (drafts.get(name), context.recorded(name)) else {
            continue;
        };
        for address in draft.resources.keys() {
            let before = under(address, old);
            if body.resources.iter().any(|r| r.address == before) {
                moved.insert(address.clone(), before);
            }
        }
    }
    moved
}

/// A recorded resource as it would be written after the renames of this plan: what only refers to a renamed owner has not
/// changed. Its address stays what it is.
pub(crate) fn after_renames<'a>(renames: &Renamed, old: &'a Resource) -> Cow<'a, Resource> {
    let mut old = Cow::Borrowed(old);
    for (new, before) in renames {
        let refers = |address: &Address| address.owner == *before;
        if old.after.iter().any(refers) {
            let after = std::mem::take(&mut old.to_mut().after);
            old.to_mut().after = after
                .into_iter()
                .map(|a| if refers(&a) { under(&a, new) } else { a })
                .collect();
        }
        let prefix = format!("{before}/");
        // What is named after its owner has a new name too.
        let moved = |name: &str| {
            let rest = name.strip_prefix(&prefix)?;
            let rest = if rest == before.as_str() {
                new.as_str()
            } else {
                rest
            };
            Some(format!("{new}/{rest}"))
        };
        let ResourceSpec::Container(spec) = &old.spec else {
            continue;
        };
        let volumes = spec.mounts.values().any(|mount| match &mount.source {
            MountSource::Volume(name) => moved(name).is_some(),
            MountSource::Path(_) => false,
        });
        if !volumes && !spec.networks.iter().any(|name| moved(name).is_some()) {
            continue;
        }
        let ResourceSpec::Container(spec) = &mut old.to_mut().spec else {
            continue;
        };
        for mount in spec.mounts.values_mut() {
            if let MountSource::Volume(name) = &mut mount.source
                && let Some(new) = moved(name)
            {
                *name = new;
            }
        }
        spec.networks = std::mem::take(&mut spec.networks)
            .into_iter()
            .map(|name| moved(&name).unwrap_or(name))
            .collect();
    }
    old
}

/// An earlier release of an owner as it would be under the name that the owner has now. What is recorded under that name
/// hands on the addresses that it had before.
pub(crate) fn release_under(
    body: &ReleaseBody,
    owner: &OwnerName,
    recorded: &Recorded,
) -> ReleaseBody {
    let renames = Renamed::from([(owner.clone(), body.owner.clone())]);
    let now: BTreeMap<&Address, &Resource> = recorded
        .releases
        .get(owner)
        .iter()
        .flat_map(|body| &body.resources)
        .map(|resource| (&resource.address, resource.as_ref()))
        .collect();
    let mut resources: Vec<Resource> = body
        .resources
        .iter()
        .map(|resource| {
            let mut resource = after_renames(&renames, resource).into_owned();
            resource.address = under(&resource.address, owner);
            if let Some(now) = now.get(&resource.address) {
                resource.was.clone_from(&now.was);
                resource.was_before.clone_from(&now.was_before);
                resource.adopt |= now.adopt;
            }
            resource
        })
        .collect();
    resources.sort_by(|a, b| a.address.cmp(&b.address));
    ReleaseBody {
        owner: owner.clone(),
        resources: resources.into_iter().map(Arc::new).collect(),
        ..body.clone()
    }
}
