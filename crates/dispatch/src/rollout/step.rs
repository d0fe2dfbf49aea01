//! The next step of every rollout: what to move, and what has become of it.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::rollout::{Phase, Position, RolloutRecord, budget};
use plumb_model::state::RolloutStrategy;
use plumb_model::{Hash, MachineName, Now, OwnerName, ReleaseNumber};

use super::{Going, Health, Rollouts, Seen, Sight, Standing, compose};

/// A release that is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revert {
    /// Whose.
    pub owner: OwnerName,
    /// Which release.
    pub release: ReleaseNumber,
    /// Why, for people.
    pub why: String,
}

/// What a step comes to. Bodies and positions are stored first, then the records; then it counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Where the machines are that it moves.
    pub positions: Vec<Position>,
    /// The assignments that they hold from now on.
    pub bodies: BTreeMap<Hash, Vec<u8>>,
    /// The rollouts that are no longer as they were.
    pub records: Vec<RolloutRecord>,
    /// What is to be taken back. It is said again with every step until it has been, or cannot be.
    pub reverts: Vec<Revert>,
    /// What people see has changed, whether or not anything is to be stored.
    pub shows: bool,
}

impl Step {
    /// Whether nothing is to be stored.
    #[must_use]
    pub fn stores_nothing(&self) -> bool {
        self.positions.is_empty() && self.records.is_empty()
    }
}

/// One owner's instances, as a step counts them.
struct Counted {
    /// By machine: those that it holds, and whether they are available.
    held: BTreeMap<MachineName, (u32, Health)>,
    /// The instances that each machine which is behind will have; 0 where its last one goes.
    behind: BTreeMap<MachineName, u32>,
}

impl Counted {
    /// Those that are to stay, and are down, away or of unknown health.
    fn unavailable(&self) -> u32 {
        let down = |name: &MachineName, health: &Health| {
            *health != Health::Available && self.behind.get(name) != Some(&0)
        };
        let held = self.held.iter();
        held.filter(|(name, (_, health))| down(name, health))
            .map(|(_, (count, _))| count)
            .sum()
    }

    fn most(&self) -> u32 {
        let held = self.held.values().map(|(count, _)| *count);
        held.chain(self.behind.values().copied()).max().unwrap_or(0)
    }
}

impl Rollouts {
    /// What is to be done now, and the state once it is. A pure function.
    ///
    /// # Guarantees
    /// It moves a machine only while the instances that are unavailable, those of unknown health among them, and those that it
    /// stops are within the budget together; and only once all that were moved before have proven themselves. One whose
    /// instances are known to be down costs nothing more. A machine that is away is not moved: nobody knows what runs there.
    #[must_use]
    pub fn step(&self, sight: &Sight, now: Now) -> (Self, Step) {
        let mut next = self.clone();
        let mut step = Step::default();
        let mut moving: BTreeMap<MachineName, BTreeSet<OwnerName>> = BTreeMap::new();
        let owners: Vec<OwnerName> = self.going.keys().cloned().collect();
        for owner in &owners {
            let Some(mut going) = next.going.remove(owner) else {
                continue;
            };
            let before = going.clone();
            let moves = self.decide(owner, &mut going, sight, now);
            let goes_on = going.record.phase.goes_on();
            going.looked_ms = goes_on.then_some(now.mono_ms);
            if !moves.is_empty() {
                going.record.waves += 1;
            }
            for (machine, along) in moves {
                moving.entry(machine).or_default().extend(along);
            }
            if going.record.phase == Phase::Reverting {
                step.reverts.push(Revert {
                    owner: owner.clone(),
                    release: going.record.release,
                    why: going.record.why.clone().unwrap_or_default(),
                });
            }
            // Waiting alone is not worth a write: it is counted on from the last one after a restart.
            let news = going.record.phase != before.record.phase
                || going.record.waves != before.record.waves;
            if news {
                going.record.changed = now.wall;
                step.records.push(going.record.clone());
            }
            let shown = |going: &Going| {
                let waits = going.waits.clone();
                (waits, going.total, going.moved, going.healthy)
            };
            step.shows |= news || shown(&going) != shown(&before);
            next.going.insert(owner.clone(), going);
        }
        next.carry_out(moving, &mut step);
        (next, step)
    }

    /// Moves owners on machines, and with them whatever nothing else holds back there.
    fn carry_out(
        &mut self,
        mut moving: BTreeMap<MachineName, BTreeSet<OwnerName>>,
        step: &mut Step,
    ) {
        let paced: BTreeSet<OwnerName> = self.going.keys().cloned().collect();
        let paced = |owner: &OwnerName| paced.contains(owner);
        // What waited for the removal of an owner that is gone by now waits for nothing.
        for (name, standing) in &self.machines {
            if !moving.contains_key(name) && !standing.behind.keys().any(&paced) {
                let all = standing.behind.keys().cloned().collect::<BTreeSet<_>>();
                if !all.is_empty() {
                    moving.insert(name.clone(), all);
                }
            }
        }
        for (name, mut owners) in moving {
            let Some(standing) = self.machines.get_mut(&name) else {
                continue;
            };
            owners.extend(compose::free(&standing.needs, &owners, &paced));
            standing.move_on(&owners);
            step.bodies
                .insert(standing.held.hash(), standing.held.bytes());
            step.shows = true;
            step.positions.extend(self.position(&name));
        }
    }

    /// What one rollout comes to, and which machines it moves, each with the owners that move along.
    fn decide(
        &self,
        owner: &OwnerName,
        going: &mut Going,
        sight: &Sight,
        now: Now,
    ) -> BTreeMap<MachineName, BTreeSet<OwnerName>> {
        let counted = self.count(owner, sight);
        self.look(going, &counted, sight, now);
        if !going.record.phase.goes_on() {
            return BTreeMap::new();
        }
        let since = |before: u64| now.mono_ms.saturating_sub(before);
        let passed = going.looked_ms.map_or(0, since);
        let settings = going.record.settings.clone();
        let at_release = |name: &MachineName| !counted.behind.contains_key(name);
        let proven = |going: &Going, name: &MachineName| {
            let since = going.available.get(name);
            since.is_some_and(|since| now.mono_ms.saturating_sub(*since) >= settings.min_healthy_ms)
        };
        let failed_for = |going: &Going, name: &MachineName| {
            let since = going.failing.get(name);
            since.is_some_and(|since| now.mono_ms.saturating_sub(*since) >= settings.min_healthy_ms)
        };
        let here: Vec<&MachineName> = counted.held.keys().filter(|n| at_release(n)).collect();
        let done = here.iter().filter(|name| proven(going, name)).count();
        if done > going.proven {
            going.record.waited_ms = 0;
            going.resumed();
        } else {
            going.record.waited_ms = going.record.waited_ms.saturating_add(passed);
        }
        going.proven = done;

        let failed: Vec<&MachineName> = here
            .iter()
            .copied()
            .filter(|name| failed_for(going, name))
            .collect();
        let lost: u32 = failed.iter().map(|name| counted.held[*name].0).sum();
        let canary = settings.strategy == RolloutStrategy::Canary && going.record.waves <= 1;
        if let Some(first) = failed.first()
            && (canary || lost >= settings.max_unavailable.max(1))
        {
            let which = if canary && !counted.behind.is_empty() {
                "the canary has failed"
            } else {
                "too many have failed"
            };
            let why = counted.held[*first].1.words();
            going.fail(format!("{which}: on {first} {why}"));
            return BTreeMap::new();
        }

        let unproven: Vec<&MachineName> = here
            .iter()
            .copied()
            .filter(|name| !proven(going, name) && !failed.contains(name))
            .collect();
        let (online, away): (Vec<&MachineName>, Vec<&MachineName>) = unproven
            .iter()
            .partition(|name| sight.online.contains(**name));
        if here.len() == done && counted.behind.is_empty() {
            going.record.phase = Phase::Done;
            going.record.why = None;
            going.waits = None;
            return BTreeMap::new();
        }
        if going.alone && !online.is_empty() {
            // Whoever comes back has all the time that one has who was never away.
            going.record.waited_ms = 0;
            going.resumed();
        }
        going.alone = online.is_empty() && !away.is_empty();
        let mut waits = None;
        let mut moves = BTreeMap::new();
        if online.is_empty() {
            (moves, waits) = self.wave(owner, going, &counted, sight);
        }
        if !moves.is_empty() {
            going.record.waited_ms = 0;
            going.resumed();
            going.waits = None;
            return moves;
        }
        let first_of = |names: &[&MachineName]| names.first().map(|name| (*name).clone());
        going.waits = if let Some(name) = first_of(&online) {
            let more = also(online.len());
            Some(format!(
                "{name}{more} has to prove itself{}",
                counted.held[&name].1.reason()
            ))
        } else if let Some(name) = first_of(&failed) {
            Some(format!(
                "{name} has failed: {}",
                counted.held[&name].1.words()
            ))
        } else if let Some(name) = first_of(&away) {
            Some(format!("{name}{} is away", also(away.len())))
        } else {
            waits
        };
        if going.record.waited_ms >= settings.deadline_ms {
            let seconds = settings.deadline_ms / 1000;
            // One that is healthy just now is let prove itself, or fail to.
            let stuck = online.iter().find(|name| !counted.held[**name].1.is_well());
            match stuck {
                None if !online.is_empty() => {}
                Some(name) => {
                    let words = counted.held[*name].1.words();
                    going.fail(format!("no progress within {seconds} s: on {name} {words}"));
                }
                // What fails is within the budget, or is not the release's doing: taking it back would help nobody.
                None => {
                    let why = going.waits.clone().unwrap_or_default();
                    going.record.phase = Phase::Stalled;
                    going.record.why = Some(format!("no progress within {seconds} s: {why}"));
                }
            }
        }
        BTreeMap::new()
    }

    /// The next machines to move; or what the next wave waits for.
    fn wave(
        &self,
        owner: &OwnerName,
        going: &Going,
        counted: &Counted,
        sight: &Sight,
    ) -> (BTreeMap<MachineName, BTreeSet<OwnerName>>, Option<String>) {
        let settings = &going.record.settings;
        let paced = |other: &OwnerName| self.going.contains_key(other);
        let budget = budget(settings, counted.most());
        let down = counted.unavailable();
        let canary = settings.strategy == RolloutStrategy::Canary && going.record.waves == 0;
        let mut waits = None;
        let mut moves = BTreeMap::new();
        let (mut taken, mut stopped) = (0, 0);
        let mut candidates: Vec<(bool, &MachineName, u32)> = counted
            .behind
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(name, count)| {
                let held = counted.held.get(name);
                // What is known to be down goes first, since it costs nothing more.
                let up = held.is_some_and(|(_, health)| *health == Health::Available);
                (up, name, *count)
            })
            .collect();
        candidates.sort();
        let none_left = candidates.is_empty();
        for (up, name, count) in candidates {
            let held = counted.held.get(name);
            let unknown = held.is_some_and(|(_, health)| *health == Health::Unknown);
            if !sight.online.contains(name) || unknown {
                waits.get_or_insert_with(|| match sight.online.contains(name) {
                    true => format!("{name} has not said how it is"),
                    false => format!("{name} is away"),
                });
                continue;
            }
            let room = taken == 0 || (!canary && taken + count <= settings.batch.max(1));
            if !room {
                continue;
            }
            // One that is not there yet costs what it will be until it is up.
            let cost = match held {
                Some((instances, _)) if up => *instances,
                Some(_) => 0,
                None => count,
            };
            if cost > 0 && down + stopped + cost > budget {
                waits.get_or_insert_with(|| {
                    format!(
                        "{} of the {budget} that may be unavailable at once are",
                        down + stopped
                    )
                });
                continue;
            }
            let Some(standing) = self.machines.get(name) else {
                continue;
            };
            match compose::along(&standing.needs, owner, &paced) {
                Ok(along) => {
                    moves.insert(name.clone(), along);
                    taken += count;
                    stopped += cost;
                }
                Err(first) => {
                    waits.get_or_insert_with(|| format!("on {name} {first} has to move first"));
                }
            }
        }
        if !none_left {
            return (moves, waits);
        }
        // What only goes, goes last: until then it does the work.
        let all_up = counted
            .held
            .iter()
            .all(|(name, (_, health))| counted.behind.contains_key(name) || health.is_well());
        for name in counted.behind.keys().filter(|_| all_up) {
            let Some(standing) = self.machines.get(name) else {
                continue;
            };
            match compose::along(&standing.needs, owner, &paced) {
                Ok(along) => {
                    moves.insert(name.clone(), along);
                }
                Err(first) => {
                    waits.get_or_insert_with(|| format!("on {name} {first} has to move first"));
                }
            }
        }
        (moves, waits)
    }

    fn count(&self, owner: &OwnerName, sight: &Sight) -> Counted {
        let seen = sight.owners.get(owner);
        let behind = self.behind(owner).filter_map(|name| {
            let standing = self.machines.get(name)?;
            Some((name.clone(), compose::instances(&standing.target, owner)))
        });
        let held = seen.into_iter().flatten().map(|(name, seen)| {
            let Seen { instances, health } = seen;
            let health = match sight.online.contains(name) {
                true => health.clone(),
                false => Health::Unknown,
            };
            (name.clone(), (*instances, health))
        });
        Counted {
            behind: behind.collect(),
            held: held.collect(),
        }
    }

    /// Notes since when each machine at the release has been available, or failing.
    fn look(&self, going: &mut Going, counted: &Counted, sight: &Sight, now: Now) {
        let (mut total, mut moved, mut healthy) = (0, 0, 0);
        let here: BTreeSet<&MachineName> = counted
            .held
            .keys()
            .filter(|name| !counted.behind.contains_key(*name))
            .collect();
        going.available.retain(|name, _| here.contains(name));
        going.failing.retain(|name, _| here.contains(name));
        for name in &here {
            let (count, health) = &counted.held[*name];
            (total, moved) = (total + count, moved + count);
            match health {
                Health::Available => {
                    healthy += count;
                    going.failing.remove(*name);
                    going
                        .available
                        .entry((*name).clone())
                        .or_insert(now.mono_ms);
                }
                Health::Stopped => {
                    going.failing.remove(*name);
                    going
                        .available
                        .entry((*name).clone())
                        .or_insert(now.mono_ms);
                }
                Health::Unknown | Health::Unavailable(_) => {
                    going.available.remove(*name);
                }
                Health::Failed(_) => {
                    going.available.remove(*name);
                    going.failing.entry((*name).clone()).or_insert(now.mono_ms);
                }
            }
            if !sight.online.contains(*name) {
                going.failing.remove(*name);
            }
        }
        total += counted.behind.values().sum::<u32>();
        if !counted.held.is_empty() || !counted.behind.is_empty() {
            (going.total, going.moved, going.healthy) = (total, moved, healthy);
        }
    }
}

impl Going {
    fn fail(&mut self, why: String) {
        let back = self.record.settings.auto_revert && self.record.reverts.is_none();
        self.record.phase = if back {
            Phase::Reverting
        } else {
            Phase::Failed
        };
        self.record.why = Some(why);
        self.waits = None;
    }

    /// It goes on after it had stalled.
    fn resumed(&mut self) {
        if self.record.phase == Phase::Stalled {
            self.record.phase = Phase::Running;
            self.record.why = None;
        }
    }
}

impl Health {
    /// Whether nobody has to wait for it: it is healthy, or stands still as somebody wants.
    fn is_well(&self) -> bool {
        matches!(self, Self::Available | Self::Stopped)
    }

    fn words(&self) -> &str {
        match self {
            Self::Available => "it has to stay healthy a while longer",
            Self::Stopped => "an operator has stopped it",
            Self::Unknown => "nobody knows how it is",
            Self::Unavailable(why) | Self::Failed(why) => why,
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Unavailable(why) | Self::Failed(why) => format!(": {why}"),
            Self::Available | Self::Stopped | Self::Unknown => String::new(),
        }
    }
}

impl Standing {
    /// Moves owners to what is recorded; the generation goes on if that changes anything.
    fn move_on(&mut self, owners: &BTreeSet<OwnerName>) {
        self.behind.retain(|owner, _| !owners.contains(owner));
        let behind: BTreeSet<OwnerName> = self.behind.keys().cloned().collect();
        let content = compose::between(&self.held, &self.target, &behind);
        self.needs = compose::needs(&content, &self.target, &behind);
        if self.held.hash() != content.hash() {
            self.generation = self.generation.next();
            self.held = content;
        }
    }
}

fn also(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        more => format!(" (and {} more)", more - 1),
    }
}
