//! What a new revision begins: which machines go to it at once, which in waves, and what they hold until then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::rollout::{Phase, Position, RolloutRecord};
use plumb_model::state::{Next, Recorded, ReleaseBody, Rollout};
use plumb_model::{Assignment, Hash, MachineName, OwnerName, ReleaseNumber, Revision, Timestamp};

use super::{Going, Rollouts, Standing, compose};

/// What is recorded, and what is to be.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// What is recorded.
    pub before: &'a Recorded,
    /// What is recorded for each machine in the end, before.
    pub was: &'a BTreeMap<MachineName, Arc<Assignment>>,
    /// The same afterwards.
    pub targets: &'a BTreeMap<MachineName, Arc<Assignment>>,
    /// The current releases, afterwards.
    pub releases: &'a BTreeMap<OwnerName, Arc<ReleaseBody>>,
    /// Owners that are renamed, with the names that they had.
    pub renamed: &'a BTreeMap<OwnerName, OwnerName>,
    /// Whose failed release this takes back.
    pub reverts: Option<&'a (OwnerName, ReleaseNumber)>,
    /// Now.
    pub at: Timestamp,
}

/// What a revision begins.
#[derive(Debug, Clone)]
pub struct Began {
    /// The state once the revision is recorded.
    pub rollouts: Rollouts,
    /// The rollouts that it begins, to be stored once it is recorded.
    pub records: Vec<RolloutRecord>,
}

/// What the ledger keeps of rollouts.
#[derive(Debug, Clone, Default)]
pub struct Stored {
    /// Where machines are.
    pub positions: Vec<Position>,
    /// The newest rollout of each owner.
    pub records: Vec<RolloutRecord>,
    /// What the newest revision released.
    pub released: BTreeMap<OwnerName, ReleaseNumber>,
    /// Whose failed release the newest revision takes back.
    pub reverts: Option<(OwnerName, ReleaseNumber)>,
}

fn machines(body: Option<&Arc<ReleaseBody>>) -> BTreeSet<&MachineName> {
    let resources = body.iter().flat_map(|body| &body.resources);
    resources.map(|r| &r.address.machine).collect()
}

fn record(
    owner: &OwnerName,
    (release, apply): (ReleaseNumber, Revision),
    settings: &Rollout,
    reverts: Option<&(OwnerName, ReleaseNumber)>,
    at: Timestamp,
) -> RolloutRecord {
    RolloutRecord {
        owner: owner.clone(),
        release,
        apply,
        settings: settings.clone(),
        phase: Phase::Running,
        why: None,
        waves: 0,
        waited_ms: 0,
        reverts: reverts
            .filter(|(of, _)| of == owner)
            .map(|(_, release)| *release),
        reverts_why: None,
        started: at,
        changed: at,
    }
}

impl Rollouts {
    /// Takes a planned next state, and says what each machine holds of it at first: sets that in `next`, with the content
    /// that this needs. Nothing has begun before `next` is recorded.
    ///
    /// # Guarantees
    /// What no rollout paces is at its release at once, unless it needs what one does. What was under way and has no new
    /// release goes on; what has one is superseded by it, wherever its machines are.
    #[must_use]
    pub fn begin(&self, about: About<'_>, next: &mut Next) -> Began {
        let revision = next.state.revision;
        let mut going = self.going.clone();
        going.retain(|owner, going| {
            let kept = next.state.owners.get(owner);
            kept.is_some_and(|kept| kept.release == going.record.release)
        });
        let mut records = Vec::new();
        let mut at_once = BTreeSet::new();
        for (owner, release) in &next.released {
            let body = about.releases.get(owner);
            let Some(settings) = body.and_then(|body| body.rollout.as_ref()) else {
                continue;
            };
            let old_name = about.renamed.get(owner).unwrap_or(owner);
            let held = machines(about.before.releases.get(old_name));
            let mut all = machines(body);
            all.extend(&held);
            let mut record = record(
                owner,
                (*release, revision),
                settings,
                about.reverts,
                about.at,
            );
            let failed = self.going.get(old_name).map(|going| &going.record);
            if let Some(failed) = failed.filter(|failed| Some(failed.release) == record.reverts) {
                record.reverts_why.clone_from(&failed.why);
            }
            // Nothing can be spared where there was nothing before, and nothing compared where there is one machine.
            if held.is_empty() || all.len() < 2 {
                at_once.insert(owner.clone());
                record.waves = 1;
            }
            records.push(record.clone());
            going.insert(owner.clone(), Going::new(record));
        }
        let paced = |owner: &OwnerName| going.contains_key(owner) && !at_once.contains(owner);
        let mut machines = BTreeMap::new();
        for (name, machine) in &mut next.state.machines {
            let Some(target) = about.targets.get(name) else {
                machine.rolling = None;
                continue;
            };
            let standing = self.machines.get(name);
            let recorded = about.before.state.machines.get(name);
            let held = match standing {
                Some(standing) => Some((standing.generation, &standing.held)),
                None => recorded
                    .zip(about.was.get(name))
                    .map(|(m, a)| (m.generation, a)),
            };
            // Where nothing is held yet, nothing can be made unavailable.
            let Some((generation, held)) = held else {
                machine.rolling = None;
                continue;
            };
            let behind = behind(held, target, &paced);
            let content = compose::between(held, target, &behind);
            let moves = held.hash() != content.hash();
            let generation = if moves { generation.next() } else { generation };
            if behind.is_empty() {
                machine.generation = generation;
                machine.rolling = None;
                continue;
            }
            let released = |owner: &OwnerName| {
                let before = standing.and_then(|standing| standing.behind.get(owner));
                let recorded = about.before.state.owners.get(owner).map(|o| o.release);
                let there = compose::instances(held, owner) > 0;
                let release = before.copied().or(recorded).filter(|_| there);
                (owner.clone(), release.unwrap_or_default())
            };
            let new = Standing {
                since: revision,
                generation,
                target: target.clone(),
                needs: compose::needs(&content, target, &behind),
                behind: behind.iter().map(released).collect(),
                held: content,
            };
            if moves {
                next.bodies.insert(new.held.hash(), new.held.bytes());
            }
            machine.rolling = Some(new.rolling());
            machines.insert(name.clone(), new);
        }
        let mut rollouts = Self { machines, going };
        for record in &records {
            rollouts.recount(&record.owner, about.releases.get(&record.owner));
        }
        Began { rollouts, records }
    }

    /// The state once machines have higher generations, with the same content: those that `next` says have moved. What is
    /// under way on them goes on from there.
    #[must_use]
    pub fn raised(&self, next: &mut Next) -> Self {
        let mut rollouts = self.clone();
        for (name, generation) in &next.moved {
            let Some(machine) = next.state.machines.get_mut(name) else {
                continue;
            };
            let Some(standing) = rollouts.machines.get_mut(name) else {
                continue;
            };
            standing.generation = *generation;
            standing.since = next.state.revision;
            machine.rolling = Some(standing.rolling());
        }
        rollouts
    }

    /// Counts an owner's instances for the view, before anything was seen of them.
    fn recount(&mut self, owner: &OwnerName, body: Option<&Arc<ReleaseBody>>) {
        let mut by_machine: BTreeMap<&MachineName, u32> = BTreeMap::new();
        for resource in body.iter().flat_map(|body| &body.resources) {
            let count = by_machine.entry(&resource.address.machine).or_default();
            *count += u32::from(resource.address.kind.runs());
        }
        let behind: BTreeSet<MachineName> = self.behind(owner).cloned().collect();
        let counted = by_machine
            .iter()
            .map(|(name, count)| (name, (*count).max(1)));
        let (mut total, mut moved) = (0, 0);
        for (name, count) in counted {
            total += count;
            moved += if behind.contains(*name) { 0 } else { count };
        }
        if let Some(going) = self.going.get_mut(owner) {
            (going.total, going.moved) = (total, moved);
        }
    }
}

/// The owners that do not move to what is recorded yet.
pub(super) fn behind(
    held: &Assignment,
    target: &Assignment,
    paced: &dyn Fn(&OwnerName) -> bool,
) -> BTreeSet<OwnerName> {
    if held.hash() == target.hash() {
        return BTreeSet::new();
    }
    let renamed = compose::renamed(held, target);
    let differing: BTreeSet<OwnerName> = held
        .differing_owners(target)
        .into_iter()
        .filter(|owner| !compose::touches_nothing(held, target, owner, &renamed))
        .collect();
    if !differing.iter().any(paced) {
        return BTreeSet::new();
    }
    let needs = compose::needs(held, target, &differing);
    let free = compose::free(&needs, &BTreeSet::new(), paced);
    differing.difference(&free).cloned().collect()
}

pub(super) fn load(
    recorded: &Recorded,
    targets: &BTreeMap<MachineName, Arc<Assignment>>,
    stored: &Stored,
    assignments: &BTreeMap<Hash, Arc<Assignment>>,
    at: Timestamp,
) -> (Rollouts, Vec<RolloutRecord>) {
    let mut rollouts = Rollouts::default();
    let positions: BTreeMap<&MachineName, &Position> =
        stored.positions.iter().map(|p| (&p.machine, p)).collect();
    for (name, machine) in &recorded.state.machines {
        let (Some(rolling), Some(target)) = (&machine.rolling, targets.get(name)) else {
            continue;
        };
        let position = positions.get(name).map(|position| &position.at);
        let at = position
            .filter(|position| position.since == rolling.since)
            .unwrap_or(rolling);
        let Some(held) = assignments.get(&at.assignment) else {
            continue;
        };
        let behind = at.behind.keys().cloned().collect();
        let standing = Standing {
            since: at.since,
            generation: at.generation,
            needs: compose::needs(held, target, &behind),
            held: held.clone(),
            target: target.clone(),
            behind: at.behind.clone(),
        };
        rollouts.machines.insert(name.clone(), standing);
    }
    for record in &stored.records {
        let now = recorded.state.owners.get(&record.owner);
        if now.is_some_and(|now| now.release == record.release) {
            let going = Going::new(record.clone());
            rollouts.going.insert(record.owner.clone(), going);
        }
    }
    let mut new = Vec::new();
    for (owner, release) in &stored.released {
        let body = recorded.releases.get(owner);
        let settings = body.and_then(|body| body.rollout.as_ref());
        let current = recorded.state.owners.get(owner).map(|now| now.release);
        if let Some(settings) = settings
            && current == Some(*release)
            && !rollouts.going.contains_key(owner)
        {
            let apply = recorded.state.revision;
            let reverts = stored.reverts.as_ref();
            let record = record(owner, (*release, apply), settings, reverts, at);
            new.push(record.clone());
            rollouts.going.insert(owner.clone(), Going::new(record));
        }
    }
    let owners: Vec<OwnerName> = rollouts.going.keys().cloned().collect();
    for owner in owners {
        rollouts.recount(&owner, recorded.releases.get(&owner));
    }
    (rollouts, new)
}
