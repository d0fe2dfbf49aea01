//! That waves of rollouts make no more unavailable than they may, by what the VMs are and not by what is said of them.

use std::collections::BTreeSet;

use plumb_dispatch::rollout::Health;
use plumb_model::rollout::budget;
use plumb_model::{
    Assignment, MachineName, OwnerName, Resource, ResourceKind, ResourceSpec, RunState,
};

use super::World;
use crate::control::Advanced;

/// An owner's instances in an assignment.
fn instances<'a>(
    assignment: &'a Assignment,
    owner: &'a OwnerName,
) -> impl Iterator<Item = &'a Resource> {
    let of_owner = move |resource: &&Resource| resource.address.owner == *owner;
    let runs = |resource: &&Resource| resource.address.kind == ResourceKind::Process;
    assignment.resources().filter(of_owner).filter(runs)
}

/// Whether it is noticed that it is not well: of what is to stand still nobody asks that.
fn is_checked(instance: &Resource) -> bool {
    matches!(
        &instance.spec,
        ResourceSpec::Process(spec) if spec.health.is_some() && spec.state == RunState::Running
    )
}

fn count(assignment: &Assignment, owner: &OwnerName) -> u32 {
    u32::try_from(instances(assignment, owner).count()).unwrap_or(u32::MAX)
}

impl World {
    /// Whether all of an owner on a machine is as its agent was told, and well.
    fn is_well(&self, machine: usize, owner: &OwnerName) -> bool {
        let at = &self.machines[machine];
        at.disk.held.as_ref().is_some_and(|held| {
            instances(&held.assignment, owner).all(|instance| {
                at.vm.is_as(instance)
                    && !(is_checked(instance) && at.vm.sick.contains(&instance.address))
            })
        })
    }

    /// The machine that counts under a name.
    pub(super) fn machine_named(&self, name: &MachineName) -> Option<usize> {
        let at = |machine: &crate::agent::Machine| machine.name == *name && !machine.shut_out;
        self.machines.iter().position(at)
    }

    /// Notes what a wave moves. It may cost no more than the budget, together with what earlier waves moved and nobody has
    /// seen well since.
    pub(super) fn check_wave(&mut self, control: usize, wave: &Advanced) {
        let between: BTreeSet<MachineName> =
            self.transit.keys().map(|(_, name)| name.clone()).collect();
        for machine in between
            .iter()
            .filter_map(|name| self.machine_named(name))
            .collect::<Vec<_>>()
        {
            self.arrived(machine);
        }
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let after = &process.current.rollouts;
        let mut wrong = Vec::new();
        let mut moved: Vec<(OwnerName, MachineName)> = Vec::new();
        for record in wave.before.records().filter(|r| r.phase.goes_on()) {
            let owner = &record.owner;
            let moves: BTreeSet<&MachineName> = wave
                .machines
                .keys()
                .filter(|name| {
                    let before = wave.before.standing(name);
                    let now = after.standing(name);
                    before.is_some_and(|b| b.behind.contains_key(owner))
                        && now.is_none_or(|now| !now.behind.contains_key(owner))
                })
                .collect();
            if moves.is_empty() {
                continue;
            }
            let assignments = process.current.assignments.values();
            let held = process.current.assignments.keys();
            let held = held.filter_map(|name| wave.before.standing(name));
            let most = assignments.map(|a| count(a, owner));
            let most = most.chain(held.map(|s| count(&s.held, owner))).max();
            let allowed = budget(&record.settings, most.unwrap_or(0).max(1));
            // What only goes is not missed, even where an earlier apply's wave has left it down; it goes last, all at once.
            let stays = |name: &MachineName| {
                let target = process.current.assignments.get(name);
                target.is_some_and(|target| count(target, owner) > 0)
            };
            let not_back: Vec<&str> = self
                .transit
                .keys()
                .filter(|(of, on)| of == owner && !moves.contains(on) && stays(on))
                .map(|(_, on)| on.as_str())
                .collect();
            let down = u32::try_from(not_back.len()).unwrap_or(u32::MAX);
            let cost: u32 = moves
                .iter()
                .filter(|name| stays(name))
                .filter_map(|name| {
                    let before = &wave.before.standing(name)?.held;
                    let seen = wave.sight.owners.get(owner)?.get(*name)?;
                    let up = seen.health == Health::Available
                        && self
                            .machine_named(name)
                            .is_some_and(|at| self.is_well(at, owner));
                    up.then(|| count(before, owner))
                })
                .sum();
            if cost > 0 && down + cost > allowed {
                wrong.push(format!(
                    "unavailability stays in budget: a wave of {owner} stops {cost} while {down} are not back ({}), and {allowed} may be",
                    not_back.join(" ")
                ));
            }
            moved.extend(moves.into_iter().map(|name| (owner.clone(), name.clone())));
        }
        for (owner, name) in moved {
            let target = process.current.assignments.get(&name);
            let runs = target.is_some_and(|target| count(target, &owner) > 0);
            let record = wave.machines.get(&name).filter(|_| runs);
            match record.map(|record| record.generation) {
                Some(generation) => self.transit.insert((owner, name), generation),
                None => self.transit.remove(&(owner, name)),
            };
        }
        for what in wrong {
            self.broke(what);
        }
    }

    /// What an agent has brought up is not in between any more.
    pub(super) fn arrived(&mut self, machine: usize) {
        let at = &self.machines[machine];
        let Some(held) = at.disk.held.as_ref().filter(|_| !at.shut_out) else {
            return;
        };
        let back: Vec<_> = self
            .transit
            .iter()
            .filter(|((_, name), generation)| *name == at.name && **generation <= held.generation)
            .filter(|((owner, _), _)| self.is_well(machine, owner))
            .map(|(key, _)| key.clone())
            .collect();
        for key in back {
            self.transit.remove(&key);
        }
    }

    /// Of owners that no rollout takes anywhere nothing is in between.
    pub(super) fn forget_transit(&mut self, control: usize) {
        let Some(process) = &self.controls[control].process else {
            return;
        };
        let rollouts = &process.current.rollouts;
        self.transit
            .retain(|(owner, _), _| rollouts.record(owner).is_some());
    }
}
