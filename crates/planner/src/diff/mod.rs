//! The difference between desired and recorded: changes with their reasons, costs and consequences.

mod attributes;
mod change;
mod consents;
mod felt;
mod machines;
mod notes;
mod order;
mod owners;
mod radius;
mod rollouts;
mod secrets;

pub use consents::CONSENTS;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::plan::{Change, FORMAT, Plan};
use plumb_model::state::{Next, ReleaseBody, RevisionKind};
use plumb_model::{Address, Hash, MachineName, OwnerName, Resource, ResourceKind, parallel};

use crate::desired::Desired;
use crate::{Input, Request, capability};

/// So many resources are compared in one go.
const PART: usize = 64;

/// The resources of some releases, by address.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a>(&'a BTreeMap<OwnerName, Arc<ReleaseBody>>);

impl<'a> Resources<'a> {
    pub fn new(releases: &'a BTreeMap<OwnerName, Arc<ReleaseBody>>) -> Self {
        Self(releases)
    }

    pub fn get(self, address: &Address) -> Option<&'a Resource> {
        self.0
            .get(&address.owner)?
            .resource(address)
            .map(AsRef::as_ref)
    }

    /// All of them, in the order of their owners.
    pub fn iter(self) -> impl Iterator<Item = &'a Resource> {
        let all = self.0.values().flat_map(|body| &body.resources);
        all.map(AsRef::as_ref)
    }

    /// Those of one owner on one machine.
    fn of(self, machine: &MachineName, owner: &OwnerName) -> &'a [Arc<Resource>] {
        let all = self.0.get(owner).map(|body| body.resources.as_slice());
        let all = all.unwrap_or_default();
        let first = all.partition_point(|r| r.address.machine < *machine);
        let here = all[first..].partition_point(|r| r.address.machine == *machine);
        &all[first..first + here]
    }
}

/// What is compared: both sides, and what is known besides.
struct Sides<'a> {
    desired: &'a Desired,
    input: &'a Input<'a>,
    before: Resources<'a>,
    after: Resources<'a>,
    /// Apps that routes lead to.
    fronted: BTreeSet<&'a OwnerName>,
}

impl<'a> Sides<'a> {
    fn new(desired: &'a Desired, input: &'a Input<'a>) -> Self {
        let before = Resources::new(&input.recorded.releases);
        let after = Resources::new(&desired.owners);
        let routed = |body: &&Arc<ReleaseBody>| {
            let mut kinds = body.resources.iter().map(|r| r.address.kind);
            kinds.any(|kind| kind == ResourceKind::Route)
        };
        let owners = desired.owners.iter();
        let fronted = owners
            .filter(|(_, body)| routed(body))
            .map(|(name, _)| name)
            .collect();
        Self {
            desired,
            input,
            before,
            after,
            fronted,
        }
    }

    /// The owner that a resource belongs to from now on, whatever name it is recorded under.
    fn owner<'b>(&'b self, address: &'b Address) -> &'b OwnerName {
        let renamed = self.desired.renamed.iter();
        let mut now = renamed.filter(|(_, old)| **old == address.owner);
        now.next().map_or(&address.owner, |(new, _)| new)
    }

    /// The desired resources of one owner on one machine.
    fn of(
        &self,
        machine: &MachineName,
        owner: &OwnerName,
    ) -> impl Iterator<Item = &'a Resource> + use<'a> {
        self.after.of(machine, owner).iter().map(AsRef::as_ref)
    }

    /// What is recorded for a desired resource, under the address that it has there.
    fn old(&self, address: &Address) -> Option<&'a Resource> {
        self.before.get(self.desired.recorded_address(address))
    }
}

/// One change, with what is felt of it.
struct Noted {
    change: Change,
    /// What it stops.
    stopped: felt::Stopped,
}

/// Compares.
pub(crate) fn diff(desired: &Desired, input: &Input<'_>, next: &Next) -> Plan {
    let sides = Sides::new(desired, input);
    let moved_from: BTreeSet<&Address> = desired.moved.values().collect();
    // What stays as it is recorded to the last byte is the recorded one, and need not be looked at resource by resource.
    let recorded = &input.recorded.releases;
    let stays = |owner: &OwnerName, body: &Arc<ReleaseBody>, others: &BTreeMap<_, _>| {
        let other: Option<&Arc<ReleaseBody>> = others.get(owner);
        other.is_some_and(|other| Arc::ptr_eq(other, body))
    };
    let before = recorded
        .iter()
        .filter(|(owner, body)| !stays(owner, body, &desired.owners))
        .flat_map(|(_, body)| &body.resources)
        .map(|resource| &resource.address)
        .filter(|address| !moved_from.contains(*address));
    let (same, after): (Vec<_>, Vec<_>) = desired
        .owners
        .iter()
        .partition(|(owner, body)| stays(owner, body, recorded));
    let same: usize = same.iter().map(|(_, body)| body.resources.len()).sum();
    let after = after.iter().flat_map(|(_, body)| &body.resources);
    let mut addresses: Vec<&Address> = before.chain(after.map(|r| &r.address)).collect();
    addresses.sort();
    addresses.dedup();
    let size = addresses.len() * parallel::A_RESOURCE;
    let parts = parallel::each(addresses.chunks(PART).collect(), size, |part| {
        let changes = part.iter().filter_map(|at| change::change(&sides, at));
        changes.collect::<Vec<Noted>>()
    });
    let noted: Vec<Noted> = parts.into_iter().flatten().collect();
    let unchanged = (same + addresses.len() - noted.len()) as u64;
    let lacks = capability::lacks(desired, sides.before, input.observed);
    let mut owners = owners::changes(&sides, &noted, next);
    let mut radius = radius::radius(&sides, &noted);
    radius.machines = next.moved.keys().cloned().collect();
    let mut changes: Vec<Change> = noted.into_iter().map(|noted| noted.change).collect();
    let paced = rollouts::paced(&sides, &changes);
    for paced in &paced {
        let own = |change: &&Change| {
            let runs = change.downtime.is_some() && change.address.kind.runs();
            runs && sides.owner(&change.address) == paced.owner()
        };
        let own = changes.iter().filter(own).count();
        // What another owner's file restarts is not paced.
        if let Some(peak) = radius.peak_unavailable.get_mut(paced.owner())
            && *peak as usize <= own
        {
            *peak = (*peak).min(paced.most());
        }
    }
    let mut not_done = notes::not_done(&sides);
    not_done.extend(paced.iter().map(rollouts::Paced::note));
    notes::block(&sides, &mut changes, &lacks);
    let order = order::order(&sides, &changes);
    let machines = machines::changes(desired, input);
    owners.sort_by(|a, b| a.owner.cmp(&b.owner));
    let mut plan = Plan {
        format: FORMAT,
        workspace: desired
            .manifest
            .clone()
            .or_else(|| input.recorded.state.manifest.clone()),
        kind: match input.request {
            Request::Apply { .. } => RevisionKind::Apply,
            Request::Rollback { owner, to, .. } => RevisionKind::Rollback {
                owner: owner.clone(),
                to: *to,
            },
            Request::Destroy => RevisionKind::Destroy,
            Request::Secrets { names } => RevisionKind::Secrets {
                names: names.clone(),
            },
        },
        base: input.recorded.state.revision,
        commit: input.commit.cloned(),
        machines,
        owners,
        changes,
        order,
        targets: desired.targets.clone(),
        resolutions: desired.resolutions.clone(),
        blast_radius: radius,
        monthly_cost: machines::monthly_cost(desired, input),
        drift: notes::drift(&sides),
        not_done,
        lacks,
        unset_secrets: secrets::unset(&sides),
        consents: Vec::new(),
        unchanged,
        approval: Hash([0; 32]),
    };
    plan.consents = consents::consents(desired, input, &plan);
    plan.approval = plan.approval_hash();
    plan
}
