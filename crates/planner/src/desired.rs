//! What is to be: every owner's resources on every machine, whatever it was asked for with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::Policy;
use plumb_model::plan::{Origin, Resolution};
use plumb_model::state::{MachineInfo, OwnerKind, Recorded, ReleaseBody, ResolutionKey};
use plumb_model::{
    Address, KnownSecrets, MachineName, OnDelete, OwnerName, ReleaseNumber, Resource, ResourceKind,
    ResourceSpec, SecretName, WorkspaceName,
};

use crate::compile::release_under;
use crate::{Input, PlanError, Problem};

/// The desired state, before it is compared with anything.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Desired {
    /// The manifest's name; none keeps no name.
    pub manifest: Option<WorkspaceName>,
    /// Machines.
    pub machines: BTreeMap<MachineName, MachineInfo>,
    /// Owners with all their resources.
    pub owners: BTreeMap<OwnerName, Arc<ReleaseBody>>,
    /// Where each resource comes from, by owner.
    pub origins: BTreeMap<OwnerName, BTreeMap<Address, Origin>>,
    /// Where each owner's blueprint stands.
    pub owner_origins: BTreeMap<OwnerName, Origin>,
    /// What moving names meant.
    pub resolutions: BTreeMap<ResolutionKey, Resolution>,
    /// What needs a consent, as the blueprints say; none where no blueprints are planned.
    pub policy: Option<Policy>,
    /// Owners that are renamed, with the names that they are recorded under.
    pub renamed: BTreeMap<OwnerName, OwnerName>,
    /// Their resources, with the addresses that they are recorded at.
    pub moved: BTreeMap<Address, Address>,
    /// The fields whose values nobody knows before somebody resolves a name.
    pub unknown: BTreeMap<Address, BTreeSet<&'static str>>,
    /// The owners that were asked for, with those that they depend on; empty is all.
    pub targets: BTreeSet<OwnerName>,
}

impl Desired {
    /// Where a resource comes from.
    pub(crate) fn origin(&self, address: &Address) -> Option<&Origin> {
        self.origins.get(&address.owner)?.get(address)
    }

    /// Exactly what is recorded.
    fn as_recorded(recorded: &Recorded) -> Self {
        Self {
            manifest: recorded.state.manifest.clone(),
            machines: recorded
                .state
                .machines
                .iter()
                .filter(|(_, machine)| !machine.leaving)
                .map(|(name, machine)| (name.clone(), machine.info.clone()))
                .collect(),
            owners: recorded.releases.clone(),
            ..Self::default()
        }
    }

    /// Nothing but the machines themselves.
    #[must_use]
    pub fn nothing(recorded: &Recorded) -> Self {
        Self {
            manifest: None,
            owners: BTreeMap::new(),
            ..Self::as_recorded(recorded)
        }
    }

    /// What is recorded, but for one owner, which takes an earlier release's content.
    pub fn rolled_back(
        recorded: &Recorded,
        owner: &OwnerName,
        to: ReleaseNumber,
        body: &Arc<ReleaseBody>,
    ) -> Result<Self, PlanError> {
        let mut desired = Self::as_recorded(recorded);
        // The release may be of a name that the owner had before; or of this one, and the owner had another in between.
        let moved = release_under(body, owner, recorded);
        let body = &match moved == **body {
            true => body.clone(),
            false => Arc::new(moved),
        };
        let mut problems = Vec::new();
        for machine in body.resources.iter().map(|r| &r.address.machine) {
            if !desired.machines.contains_key(machine) {
                problems.push(Problem {
                    message: format!("release {to} of `{owner}` ran on machine `{machine}`, which is no longer recorded"),
                    origin: None,
                    hint: Some(format!("add `{machine}` to the blueprints again, or choose another release")),
                });
            }
        }
        problems.dedup();
        problems.extend(claimed_twice(&desired, owner, to, body));
        if !problems.is_empty() {
            return Err(PlanError { problems });
        }
        desired.owners.insert(owner.clone(), body.clone());
        Ok(desired)
    }

    /// What is recorded, with these secrets at their newest versions.
    pub fn with_newest_secrets(
        recorded: &Recorded,
        names: &BTreeSet<SecretName>,
        known: &KnownSecrets,
    ) -> Result<Self, PlanError> {
        let unset = names
            .iter()
            .filter(|name| known.newest(name).version.is_none());
        let problems: Vec<Problem> = unset
            .map(|name| Problem {
                message: format!("there is no secret `{name}`"),
                origin: None,
                hint: Some(format!("set it with `plumb secret set {name}`")),
            })
            .collect();
        if !problems.is_empty() {
            return Err(PlanError { problems });
        }
        let mut desired = Self::as_recorded(recorded);
        for body in desired.owners.values_mut() {
            let uses = |resource: &Arc<Resource>| {
                let secrets = resource.spec.secrets();
                secrets.into_iter().any(|s| names.contains(&s.name))
            };
            if !body.resources.iter().any(uses) {
                continue;
            }
            let mut renewed = ReleaseBody::clone(body);
            for secret in renewed
                .resources
                .iter_mut()
                .filter(|resource| uses(resource))
                .flat_map(|resource| Arc::make_mut(resource).spec.secrets_mut())
                .filter(|secret| names.contains(&secret.name))
            {
                *secret = known.newest(&secret.name);
            }
            if renewed != **body {
                *body = Arc::new(renewed);
            }
        }
        Ok(desired)
    }

    /// All resources, sorted by address within each owner.
    pub fn resources(&self) -> impl Iterator<Item = &plumb_model::Resource> {
        let all = self.owners.values().flat_map(|body| &body.resources);
        all.map(AsRef::as_ref)
    }

    /// The address that a resource is recorded at.
    #[must_use]
    pub fn recorded_address<'a>(&'a self, address: &'a Address) -> &'a Address {
        self.moved.get(address).unwrap_or(address)
    }

    /// What kind of blueprint an owner is.
    #[must_use]
    pub fn kind(&self, owner: &OwnerName) -> Option<OwnerKind> {
        self.owners.get(owner).map(|body| body.kind)
    }
}

/// The machines of which anything may be another than it is recorded. On the rest nothing has to be looked at one by one.
pub(crate) fn touched<'a>(
    machines: &'a BTreeMap<MachineName, MachineInfo>,
    owners: &'a BTreeMap<OwnerName, Arc<ReleaseBody>>,
    input: &'a Input<'_>,
) -> BTreeSet<&'a MachineName> {
    let (new, old) = (machines, &input.recorded.state.machines);
    if !input.is_of_the_recorded_workspace() {
        return new.keys().chain(old.keys()).collect();
    }
    let come_or_go = new.keys().filter(|name| !old.contains_key(*name));
    let come_or_go = come_or_go.chain(old.keys().filter(|name| !new.contains_key(*name)));
    let releases = &input.recorded.releases;
    let moved = |owner: &OwnerName| match (releases.get(owner), owners.get(owner)) {
        (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
        _ => true,
    };
    let both = releases.iter().chain(owners);
    let resources = both
        .filter(|(owner, _)| moved(owner))
        .flat_map(|(_, body)| &body.resources);
    come_or_go
        .chain(resources.map(|r| &r.address.machine))
        .collect()
}

/// What an old release claims and somebody else holds by now.
fn claimed_twice(
    desired: &Desired,
    owner: &OwnerName,
    to: ReleaseNumber,
    body: &ReleaseBody,
) -> Vec<Problem> {
    let mut held: BTreeMap<(MachineName, String), &Address> = BTreeMap::new();
    for other in desired
        .owners
        .iter()
        .filter(|(name, _)| *name != owner)
        .flat_map(|(_, body)| &body.resources)
    {
        for claim in claims(other) {
            held.insert(claim, &other.address);
        }
    }
    let mine: BTreeMap<(MachineName, String), &Address> = body
        .resources
        .iter()
        .flat_map(|resource| claims(resource).into_iter().map(|c| (c, &resource.address)))
        .collect();
    let mut problems = Vec::new();
    let mut problem = |message| {
        problems.push(Problem {
            message,
            origin: None,
            hint: Some(
                "roll back the other one too, or apply blueprints in which they do not clash"
                    .to_owned(),
            ),
        });
    };
    for (claim, address) in &mine {
        if let Some(other) = held.get(claim) {
            problem(format!(
                "release {to} of `{owner}` needs {} on `{}`, which `{other}` holds by now",
                claim.1, claim.0
            ));
        }
        if let Some(file) = file_above(address, &held) {
            problem(format!(
                "release {to} of `{owner}` needs `{address}`, which lies below the file `{file}` by now"
            ));
        }
    }
    for address in held.values() {
        if let Some(file) = file_above(address, &mine) {
            problem(format!(
                "release {to} of `{owner}` needs `{file}`, and `{address}` lies below it by now"
            ));
        }
    }
    problems
}

/// The file, among what is held, that a path lies below: nothing can.
fn file_above<'a>(
    address: &Address,
    held: &BTreeMap<(MachineName, String), &'a Address>,
) -> Option<&'a Address> {
    let is_path = |kind| matches!(kind, ResourceKind::File | ResourceKind::Directory);
    let mut above: &str = Some(&*address.name).filter(|_| is_path(address.kind))?;
    while let Some((parent, _)) = above.rsplit_once('/') {
        above = parent;
        let claim = (address.machine.clone(), format!("path {parent}"));
        let file = held.get(&claim).filter(|a| a.kind == ResourceKind::File);
        if let Some(file) = file {
            return Some(*file);
        }
    }
    None
}

/// Whether a recorded resource that is desired no more is left as it is, with its data, and nobody looks after it any
/// more; otherwise it is removed.
pub(crate) fn is_forgotten(recorded: &Resource) -> bool {
    match &recorded.spec {
        ResourceSpec::Volume(spec) => spec.on_delete == OnDelete::Keep,
        ResourceSpec::Service(spec) => spec.on_delete == OnDelete::Keep,
        _ => false,
    }
}

/// The ports of its machine that a resource has.
pub(crate) fn claimed_ports(resource: &Resource) -> Vec<u16> {
    match &resource.spec {
        ResourceSpec::Process(spec) => spec.ports.values().copied().collect(),
        ResourceSpec::Container(spec) => spec.ports.values().map(|port| port.machine).collect(),
        ResourceSpec::Service(spec) => vec![spec.port],
        _ => Vec::new(),
    }
}

pub(crate) use plumb_model::claim::{Claim, each_claim};

/// The same in words, with its machine.
pub(crate) fn claims(resource: &Resource) -> Vec<(MachineName, String)> {
    let mut all = Vec::new();
    each_claim(resource, |claim| {
        all.push((resource.address.machine.clone(), claim.to_string()));
    });
    all
}
