//! What rollouts see of the fleet: which machines can be reached, and how each owner is on each of them.
//!
//! It decides nothing. The judgement of a single resource is that of [`judge`](crate::judge), under the generation that its
//! machine is to hold: what was seen under an older one says nothing.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{
    ConditionKind, Entry, MachineName, OwnerName, Reason, ResourceSpec, ResourceStatus, RunState,
};

use crate::fleet::Fleet;
use crate::judge::{Progress, judge};
use crate::machine::Machine;
use crate::protocol::RefusalKind;
use crate::rollout::{Health, Seen, Sight};

impl Fleet {
    /// How these owners are on every machine that holds anything of them.
    #[must_use]
    pub fn sight(&self, owners: &BTreeSet<OwnerName>) -> Sight {
        let mut sight = Sight::default();
        for (name, machine) in self.machines.iter() {
            if machine.is_online() && machine.regressed.is_none() && !machine.is_cloned() {
                sight.online.insert(name.clone());
            }
            for (owner, seen) in on_machine(machine, owners) {
                let machines: &mut BTreeMap<MachineName, Seen> =
                    sight.owners.entry(owner.clone()).or_default();
                machines.insert(name.clone(), seen);
            }
        }
        sight
    }
}

fn on_machine<'a>(
    machine: &'a Machine,
    owners: &BTreeSet<OwnerName>,
) -> BTreeMap<&'a OwnerName, Seen> {
    let mut all: BTreeMap<&OwnerName, Seen> = BTreeMap::new();
    let entries = machine.assignment().into_iter().flat_map(|a| a.entries());
    for entry in entries {
        let Entry::Resource(resource) = entry else {
            continue;
        };
        let owner = &resource.address.owner;
        if !owners.contains(owner) {
            continue;
        }
        let seen = all.entry(owner).or_insert(Seen {
            instances: 0,
            health: Health::Available,
        });
        seen.instances += u32::from(resource.address.kind.runs());
        let health = health(machine, entry);
        if badness(&health) > badness(&seen.health) {
            seen.health = health;
        }
    }
    for seen in all.values_mut() {
        // What runs nothing counts as one.
        seen.instances = seen.instances.max(1);
    }
    all
}

fn health(machine: &Machine, entry: &Entry) -> Health {
    if let Some(refused) = &machine.refused
        && refused.refusal.kind != RefusalKind::NotStored
        && refused.refusal.generation == machine.generation()
    {
        return Health::Failed(format!(
            "the machine refuses it: {}",
            refused.refusal.message
        ));
    }
    let address = entry.address();
    let status = machine.statuses.get(address);
    let say = |why: &str| format!("{}/{}: {why}", address.kind.as_str(), address.name);
    match judge(entry, status, machine.generation()) {
        Progress::Done | Progress::Drifted(_) if stands(entry, status) => Health::Stopped,
        Progress::Done | Progress::Drifted(_) => Health::Available,
        Progress::Pending(None) => Health::Unknown,
        Progress::Pending(Some(c)) | Progress::Unhealthy(c) => Health::Unavailable(say(&c.message)),
        Progress::Failed(c) => Health::Failed(say(&c.message)),
    }
}

/// Whether a process stands still that its spec says runs.
fn stands(entry: &Entry, status: Option<&ResourceStatus>) -> bool {
    let Entry::Resource(resource) = entry else {
        return false;
    };
    let ResourceSpec::Process(spec) = &resource.spec else {
        return false;
    };
    let converged = status.and_then(|status| status.condition(ConditionKind::Converged));
    spec.state == RunState::Running && converged.is_some_and(|c| c.reason == Reason::Stopped)
}

fn badness(health: &Health) -> u8 {
    match health {
        Health::Available => 0,
        Health::Stopped => 1,
        Health::Unavailable(_) => 2,
        Health::Unknown => 3,
        Health::Failed(_) => 4,
    }
}
