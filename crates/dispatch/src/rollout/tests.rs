//! Rollouts over a fleet of plain values: what is held, what is seen, and every promise after every step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::rollout::{Phase, budget};
use plumb_model::state::{
    FORMAT, MachineState, Next, OwnerKind, OwnerState, Recorded, ReleaseBody, Rollout,
    RolloutStrategy, StateBody,
};
use plumb_model::{
    Address, Assignment, DirectorySpec, DriftPolicy, Entry, Generation, Hash, Header, Lineage,
    MachineName, Mode, Now, OwnerName, ReleaseNumber, Resource, ResourceKind, ResourceSpec,
    Timestamp, Tombstone, WorkspaceName,
};

use super::{About, Health, Order, Rollouts, Seen, Sight, Step, Stored};

mod renames;

fn owner(name: &str) -> OwnerName {
    OwnerName::new(name).unwrap()
}

fn machine(n: usize) -> MachineName {
    MachineName::new(&format!("m{n}")).unwrap()
}

fn settings(strategy: RolloutStrategy) -> Rollout {
    Rollout {
        strategy,
        batch: 1,
        max_unavailable: 1,
        min_healthy_ms: 10_000,
        deadline_ms: 60_000,
        auto_revert: true,
    }
}

/// One owner as a blueprint would have it: a directory for each machine, which stands for what runs there.
#[derive(Clone)]
struct App {
    mode: u32,
    machines: Vec<usize>,
    rollout: Option<Rollout>,
    /// The owners whose directory on the same machine comes before.
    after: Vec<&'static str>,
}

fn app(mode: u32, machines: usize, strategy: RolloutStrategy) -> App {
    App {
        mode,
        machines: (0..machines).collect(),
        rollout: Some(settings(strategy)),
        after: Vec::new(),
    }
}

fn at(machine: &MachineName, owner: &OwnerName) -> Address {
    Address::new(machine, owner, ResourceKind::Directory, "/d")
}

fn body(name: &OwnerName, app: &App) -> ReleaseBody {
    let resource = |n: &usize| {
        let machine = machine(*n);
        let spec = ResourceSpec::Directory(DirectorySpec {
            path: format!("/{name}"),
            mode: Mode(app.mode),
            owner: None,
            group: None,
        });
        let mut resource = Resource::new(at(&machine, name), DriftPolicy::Enforce, spec);
        let after = app.after.iter().map(|other| at(&machine, &owner(other)));
        resource.after = after.collect();
        Arc::new(resource)
    };
    ReleaseBody {
        format: FORMAT,
        owner: name.clone(),
        kind: OwnerKind::App,
        resources: app.machines.iter().map(resource).collect(),
        resolutions: BTreeMap::new(),
        rollout: app.rollout.clone(),
    }
}

struct World {
    recorded: Recorded,
    targets: BTreeMap<MachineName, Arc<Assignment>>,
    rollouts: Rollouts,
    stored: Stored,
    bodies: BTreeMap<Hash, Arc<Assignment>>,
    now_ms: u64,
    away: BTreeSet<MachineName>,
    /// The machines that have said nothing yet under their generation.
    silent: BTreeSet<MachineName>,
    /// Modes of directories that fail.
    bad: BTreeSet<u32>,
    /// What is down whatever it holds.
    down: BTreeSet<(OwnerName, MachineName)>,
    /// What an operator has stopped.
    stopped: BTreeSet<(OwnerName, MachineName)>,
    /// Which machines each step moved, in words.
    waves: Vec<String>,
    reverts: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self {
            recorded: Recorded::default(),
            targets: BTreeMap::new(),
            rollouts: Rollouts::default(),
            stored: Stored::default(),
            bodies: BTreeMap::new(),
            now_ms: 0,
            away: BTreeSet::new(),
            silent: BTreeSet::new(),
            bad: BTreeSet::new(),
            down: BTreeSet::new(),
            stopped: BTreeSet::new(),
            waves: Vec::new(),
            reverts: Vec::new(),
        }
    }

    fn held(&self, name: &MachineName) -> Option<&Arc<Assignment>> {
        let standing = self.rollouts.standing(name);
        standing
            .map(|standing| &standing.held)
            .or_else(|| self.targets.get(name))
    }

    fn generation(&self, name: &MachineName) -> Generation {
        let state = &self.recorded.state.machines[name];
        self.rollouts.generation(name, state)
    }

    /// As planner, recorder and ledger would: everything that is to be, at once.
    fn apply(&mut self, apps: &[(&str, App)], reverts: Option<(OwnerName, ReleaseNumber)>) {
        let before = self.rollouts.counted(&self.recorded);
        let revision = before.state.revision.next();
        let (mut owners, mut released) = (BTreeMap::new(), BTreeMap::new());
        let mut last_release = before.state.last_release.clone();
        let mut releases = BTreeMap::new();
        for (name, app) in apps {
            let name = owner(name);
            let new = Arc::new(body(&name, app));
            let same = before.releases.get(&name) == Some(&new);
            let state = if same {
                before.state.owners[&name].clone()
            } else {
                let release = last_release.get(&name).copied().unwrap_or_default().next();
                last_release.insert(name.clone(), release);
                released.insert(name.clone(), release);
                OwnerState {
                    release,
                    body: Hash::of(&new.bytes()),
                }
            };
            owners.insert(name.clone(), state);
            releases.insert(name, new);
        }
        let mut names: BTreeSet<MachineName> = before.state.machines.keys().cloned().collect();
        let wanted = releases.values().flat_map(|body| &body.resources);
        names.extend(wanted.map(|r| r.address.machine.clone()));
        let (mut machines, mut targets) = (BTreeMap::new(), BTreeMap::new());
        let mut bodies = BTreeMap::new();
        for name in names {
            let old = before.state.machines.get(&name);
            let generation = old.map_or(Generation(before.state.revision.0), |m| m.generation);
            let header = Header {
                format: plumb_model::assignment::FORMAT,
                lineage: Lineage::from_random([1; 16]),
                workspace: WorkspaceName::new("w").unwrap(),
                machine: name.clone(),
            };
            let mut entries: BTreeMap<Address, Entry> = BTreeMap::new();
            let was = before.releases.values().flat_map(|body| &body.resources);
            for gone in was.filter(|r| r.address.machine == name) {
                let tombstone = Tombstone {
                    address: gone.address.clone(),
                    since: generation.next(),
                };
                entries.insert(gone.address.clone(), Entry::Tombstone(tombstone));
            }
            let here = releases.values().flat_map(|body| &body.resources);
            for resource in here.filter(|r| r.address.machine == name) {
                entries.insert(resource.address.clone(), Entry::Resource(resource.clone()));
            }
            let assignment = Arc::new(Assignment::build(header, entries.into_values()));
            let moved = old.is_none_or(|old| old.assignment != assignment.hash());
            bodies.insert(assignment.hash(), assignment.bytes());
            let state = MachineState {
                info: Default::default(),
                generation: if moved { generation.next() } else { generation },
                assignment: assignment.hash(),
                tombstones: BTreeMap::new(),
                leaving: false,
                rolling: None,
            };
            machines.insert(name.clone(), state);
            targets.insert(name, assignment);
        }
        let mut next = Next {
            state: StateBody {
                revision,
                owners,
                machines,
                last_release,
                ..StateBody::default()
            },
            bodies,
            released: released.clone(),
            moved: BTreeMap::new(),
        };
        let at = self.now().wall;
        let was_held = self.all_held();
        let began = self.rollouts.begin(
            About {
                before: &before,
                was: &self.targets,
                targets: &targets,
                releases: &releases,
                renamed: &BTreeMap::new(),
                reverts: reverts.as_ref(),
                at,
            },
            &mut next,
        );
        for (hash, bytes) in &next.bodies {
            let assignment = Assignment::parse(bytes).unwrap();
            self.bodies.insert(*hash, Arc::new(assignment));
        }
        self.recorded = Recorded {
            state: next.state,
            releases,
        };
        self.targets = targets;
        self.rollouts = began.rollouts;
        self.stored.released = released;
        self.stored.reverts = reverts;
        self.keep(&began.records);
        self.check_moves(&was_held, None);
    }

    fn keep(&mut self, records: &[plumb_model::rollout::RolloutRecord]) {
        for record in records {
            self.stored
                .records
                .retain(|kept| kept.owner != record.owner);
            self.stored.records.push(record.clone());
        }
    }

    fn all_held(&self) -> BTreeMap<MachineName, (Generation, Arc<Assignment>)> {
        let names = self.recorded.state.machines.keys();
        names
            .map(|name| {
                (
                    name.clone(),
                    (self.generation(name), self.held(name).unwrap().clone()),
                )
            })
            .collect()
    }

    fn now(&self) -> Now {
        let wall = Timestamp::from_millisecond(1_800_000_000_000 + self.now_ms as i64).unwrap();
        Now {
            wall,
            mono_ms: self.now_ms,
        }
    }

    fn sight(&self) -> Sight {
        let mut sight = Sight::default();
        for name in self.recorded.state.machines.keys() {
            if !self.away.contains(name) {
                sight.online.insert(name.clone());
            }
            for resource in self.held(name).unwrap().resources() {
                let owner = &resource.address.owner;
                let ResourceSpec::Directory(spec) = &resource.spec else {
                    panic!("only directories");
                };
                let health = if self.away.contains(name) || self.silent.contains(name) {
                    Health::Unknown
                } else if self.bad.contains(&spec.mode.0) {
                    Health::Failed("it ends at once".into())
                } else if self.down.contains(&(owner.clone(), name.clone())) {
                    Health::Unavailable("unhealthy".into())
                } else if self.stopped.contains(&(owner.clone(), name.clone())) {
                    Health::Stopped
                } else {
                    Health::Available
                };
                let seen = Seen {
                    instances: 1,
                    health,
                };
                let owner = sight.owners.entry(owner.clone()).or_default();
                owner.insert(name.clone(), seen);
            }
        }
        sight
    }

    /// One step, `ms` later; every promise is held against it.
    fn step(&mut self, ms: u64) -> Step {
        self.now_ms += ms;
        let sight = self.sight();
        let before = self.all_held();
        let (next, step) = self.rollouts.step(&sight, self.now());
        self.rollouts = next;
        for (hash, bytes) in &step.bodies {
            let assignment = Assignment::parse(bytes).unwrap();
            self.bodies.insert(*hash, Arc::new(assignment));
        }
        for position in &step.positions {
            let same = |p: &plumb_model::rollout::Position| p.machine == position.machine;
            self.stored.positions.retain(|p| !same(p));
            self.stored.positions.push(position.clone());
        }
        self.keep(&step.records);
        let moved = self.check_moves(&before, Some(&sight));
        if !moved.is_empty() {
            self.waves.push(moved.join(" "));
        }
        for revert in &step.reverts {
            self.reverts
                .push(format!("{} {}", revert.owner, revert.release));
        }
        // Whoever moved has something to say only later.
        step
    }

    /// Everything that was moved says how it is.
    fn speak(&mut self) {
        self.silent.clear();
    }

    /// The control plane dies, and reads back what it had stored.
    fn restart(&mut self) {
        let at = self.now().wall;
        let (rollouts, new) = Rollouts::load(
            &self.recorded,
            &self.targets,
            &self.stored,
            &self.bodies,
            at,
        );
        let behind = |rollouts: &Rollouts| -> Vec<_> {
            let standing = |name: &MachineName| {
                let standing = rollouts.standing(name)?;
                Some((name.clone(), standing.rolling()))
            };
            let names = self.recorded.state.machines.keys();
            names.filter_map(standing).collect()
        };
        assert_eq!(
            behind(&rollouts),
            behind(&self.rollouts),
            "nothing moves by a restart"
        );
        self.rollouts = rollouts;
        self.keep(&new);
    }

    /// What moved, in words. A generation moves with its content and only then; the budget is kept; what something waits
    /// for is there.
    fn check_moves(
        &mut self,
        before: &BTreeMap<MachineName, (Generation, Arc<Assignment>)>,
        sight: Option<&Sight>,
    ) -> Vec<String> {
        let mut words = Vec::new();
        let mut stopped: BTreeMap<OwnerName, u32> = BTreeMap::new();
        for (name, (generation, held)) in self.all_held() {
            let old = before.get(&name);
            if let Some((old_generation, old)) = old {
                let moved = old.hash() != held.hash();
                assert_eq!(moved, generation > *old_generation, "{name}: {generation}");
                assert!(generation >= *old_generation);
            }
            let changed: BTreeSet<OwnerName> = match old {
                Some((_, old)) => old.differing_owners(&held),
                None => held.entries().map(|e| e.address().owner.clone()).collect(),
            };
            if !changed.is_empty() {
                self.silent.insert(name.clone());
            }
            for owner in changed {
                words.push(format!("{name}:{owner}"));
                let up = sight.is_some_and(|sight| {
                    let seen = sight.owners.get(&owner).and_then(|seen| seen.get(&name));
                    seen.is_some_and(|seen| seen.health == Health::Available)
                });
                let stays = held.get(&at(&name, &owner));
                if up && matches!(stays, Some(Entry::Resource(_))) {
                    *stopped.entry(owner.clone()).or_default() += 1;
                }
            }
            for resource in held.resources() {
                for before in &resource.after {
                    assert!(
                        matches!(held.get(before), Some(Entry::Resource(_))),
                        "{name} holds {} without {before}",
                        resource.address
                    );
                }
            }
        }
        for (owner, stopped) in stopped {
            let (Some(record), Some(sight)) = (self.rollouts.record(&owner), sight) else {
                continue;
            };
            let target = |name: &MachineName| {
                let target = self.targets[name].get(&at(name, &owner));
                matches!(target, Some(Entry::Resource(_)))
            };
            let down = sight.owners[&owner]
                .iter()
                .filter(|(name, seen)| target(name) && seen.health != Health::Available)
                .count() as u32;
            let most = budget(&record.settings, 1);
            assert!(
                down + stopped <= most,
                "{owner}: {down} are down, {stopped} are stopped, {most} may be"
            );
        }
        words
    }

    fn phase(&self, name: &str) -> Phase {
        self.rollouts.record(&owner(name)).unwrap().phase
    }

    fn why(&self, name: &str) -> String {
        let record = self.rollouts.record(&owner(name)).unwrap();
        record.why.clone().unwrap_or_default()
    }

    /// Steps on, with everybody speaking, until nothing more moves.
    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.speak();
            self.step(5000);
        }
    }
}

/// A world whose app `a` is at release 1 on so many machines, and proven.
fn settled(machines: usize, strategy: RolloutStrategy) -> World {
    let mut world = World::new();
    world.apply(&[("a", app(1, machines, strategy))], None);
    world.run(5);
    assert_eq!(world.phase("a"), Phase::Done);
    world.waves.clear();
    world
}

#[test]
fn a_first_release_and_an_app_on_one_machine_go_at_once_and_are_watched() {
    let mut world = World::new();
    world.apply(&[("a", app(1, 3, RolloutStrategy::Rolling))], None);
    assert!(world.rollouts.standing(&machine(0)).is_none());
    assert_eq!(world.phase("a"), Phase::Running);
    world.run(5);
    assert_eq!(world.phase("a"), Phase::Done);
    let mut one = settled(1, RolloutStrategy::Rolling);
    one.bad.insert(2);
    one.apply(&[("a", app(2, 1, RolloutStrategy::Rolling))], None);
    assert!(one.rollouts.standing(&machine(0)).is_none());
    one.run(5);
    assert_eq!(one.phase("a"), Phase::Reverting);
}

#[test]
fn machines_move_one_by_one_each_after_the_one_before_has_proven_itself() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    assert_eq!(
        world.recorded.state.owners[&owner("a")].release,
        ReleaseNumber(2)
    );
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a", "m2:a"]);
    assert_eq!(world.phase("a"), Phase::Done);
    assert_eq!(world.rollouts.record(&owner("a")).unwrap().waves, 3);
}

#[test]
fn a_batch_moves_together_and_a_canary_goes_alone() {
    let mut world = settled(6, RolloutStrategy::Rolling);
    let two = |mode, strategy| {
        let mut app = app(mode, 6, strategy);
        app.rollout = Some(Rollout {
            batch: 2,
            max_unavailable: 2,
            ..settings(strategy)
        });
        app
    };
    world.apply(&[("a", two(2, RolloutStrategy::Rolling))], None);
    world.run(20);
    assert_eq!(world.waves, ["m0:a m1:a", "m2:a m3:a", "m4:a m5:a"]);
    world.waves.clear();
    world.apply(&[("a", two(3, RolloutStrategy::Canary))], None);
    world.run(30);
    assert_eq!(world.waves, ["m0:a", "m1:a m2:a", "m3:a m4:a", "m5:a"]);
}

/// Mutation: let a release that takes another back be taken back itself.
#[test]
fn what_fails_is_taken_back_once() {
    let mut world = settled(3, RolloutStrategy::Canary);
    world.bad.extend([2, 3]);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Canary))], None);
    world.run(6);
    assert_eq!(world.phase("a"), Phase::Reverting);
    assert_eq!(world.waves, ["m0:a"], "only the canary moved");
    assert!(
        world.why("a").contains("the canary has failed: on m0"),
        "{}",
        world.why("a")
    );
    assert!(world.reverts.iter().all(|r| r == "a 2") && !world.reverts.is_empty());
    world.restart();
    assert_eq!(
        world.phase("a"),
        Phase::Reverting,
        "a restart forgets nothing"
    );
    // What takes it back fails as well, which nobody had thought of.
    world.reverts.clear();
    let back = Some((owner("a"), ReleaseNumber(2)));
    world.apply(&[("a", app(3, 3, RolloutStrategy::Canary))], back);
    world.restart();
    world.run(20);
    assert_eq!(world.phase("a"), Phase::Failed);
    assert_eq!(world.reverts, [""; 0]);
}

/// Mutation: move what is broken only when the budget has room for it.
#[test]
fn what_takes_a_release_back_moves_nothing_that_never_left() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.bad.insert(2);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    world.run(6);
    assert_eq!(world.phase("a"), Phase::Reverting);
    let generations: Vec<Generation> = (0..3).map(|n| world.generation(&machine(n))).collect();
    world.waves.clear();
    let back = Some((owner("a"), ReleaseNumber(2)));
    world.apply(&[("a", app(1, 3, RolloutStrategy::Rolling))], back);
    world.run(10);
    assert_eq!(world.phase("a"), Phase::Done);
    assert_eq!(world.waves, ["m0:a"]);
    assert_eq!(world.generation(&machine(0)), generations[0].next());
    assert_eq!(world.generation(&machine(1)), generations[1]);
    assert_eq!(
        world.recorded.state.owners[&owner("a")].release,
        ReleaseNumber(3)
    );
}

#[test]
fn a_pause_holds_across_a_restart_and_its_time_does_not_count() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    world.run(1);
    let now = world.now().wall;
    let (next, record) = world
        .rollouts
        .order(&owner("a"), Order::Pause, "ann", now)
        .unwrap();
    world.rollouts = next;
    world.keep(&[record]);
    world.restart();
    world.run(60);
    assert_eq!(world.phase("a"), Phase::Paused);
    assert_eq!(world.waves, ["m0:a"]);
    let (next, record) = world
        .rollouts
        .order(&owner("a"), Order::Resume, "ann", now)
        .unwrap();
    world.rollouts = next;
    world.keep(&[record]);
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a", "m2:a"]);
    assert_eq!(world.phase("a"), Phase::Done);
}

/// Mutation: count what an operator has stopped as available, or wait for it.
#[test]
fn what_an_operator_has_stopped_spends_the_budget_and_is_not_waited_for() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.stopped.insert((owner("a"), machine(2)));
    world.run(1);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    // It goes first, since nothing is lost with it; with it down no other one may go.
    world.run(20);
    assert_eq!(world.waves, ["m2:a"]);
    world
        .stopped
        .extend((0..3).map(|n| (owner("a"), machine(n))));
    world.run(20);
    assert_eq!(world.phase("a"), Phase::Done, "{:?}", world.waves);
    assert_eq!(world.reverts, Vec::<String>::new());
}

#[test]
fn without_progress_until_the_deadline_a_rollout_fails() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.down.insert((owner("a"), machine(0)));
    world.run(1);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    // What is down goes first, since nothing is lost with it; and it stays down.
    world.run(12);
    assert_eq!(world.phase("a"), Phase::Running);
    assert_eq!(world.waves, ["m0:a"]);
    world.run(2);
    assert_eq!(world.phase("a"), Phase::Reverting);
    assert!(
        world
            .why("a")
            .contains("no progress within 60 s: on m0 unhealthy"),
        "{}",
        world.why("a")
    );
}

/// Mutation: count the time since the last step of any rollout.
#[test]
fn time_in_which_nothing_went_on_does_not_count() {
    const HOUR_MS: u64 = 3_600_000;
    let mut world = settled(2, RolloutStrategy::Rolling);
    world.now_ms += HOUR_MS;
    world.apply(&[("a", app(1, 3, RolloutStrategy::Rolling))], None);
    world.silent.insert(machine(2));
    world.step(5000);
    assert_eq!(world.phase("a"), Phase::Running, "{}", world.why("a"));
    for order in [Order::Pause, Order::Resume] {
        let now = world.now().wall;
        let told = world.rollouts.order(&owner("a"), order, "ann", now);
        world.rollouts = told.unwrap().0;
        world.now_ms += HOUR_MS;
    }
    world.step(5000);
    assert_eq!(world.phase("a"), Phase::Running, "{}", world.why("a"));
    world.run(5);
    assert_eq!(world.phase("a"), Phase::Done);
}

/// Mutation: let whoever comes back have no more time than was left.
#[test]
fn a_machine_that_comes_back_has_its_time_to_get_healthy() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    world.run(1);
    assert_eq!(world.waves, ["m0:a"]);
    world.away.insert(machine(0));
    world.run(14);
    assert_eq!(world.phase("a"), Phase::Stalled);
    world.away.clear();
    world.down.insert((owner("a"), machine(0)));
    world.run(12);
    assert_eq!(world.phase("a"), Phase::Running, "{}", world.why("a"));
    world.run(2);
    assert_eq!(world.phase("a"), Phase::Reverting);
}

/// Mutation: let unknown health count as available.
#[test]
fn a_machine_that_is_away_spends_the_budget_and_fails_nothing() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.away.insert(machine(2));
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    world.run(14);
    assert_eq!(world.waves, [""; 0]);
    assert_eq!(world.phase("a"), Phase::Stalled);
    assert!(world.reverts.is_empty());
    world.away.clear();
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a", "m2:a"]);
    assert_eq!(world.phase("a"), Phase::Done);
}

#[test]
fn a_budget_that_has_room_goes_on_round_a_machine_that_is_away() {
    let mut world = settled(4, RolloutStrategy::Rolling);
    world.away.insert(machine(0));
    let mut wide = app(2, 4, RolloutStrategy::Rolling);
    wide.rollout = wide.rollout.map(|r| Rollout {
        max_unavailable: 2,
        ..r
    });
    world.apply(&[("a", wide)], None);
    world.run(30);
    assert_eq!(world.waves, ["m1:a", "m2:a", "m3:a"]);
    assert_eq!(world.phase("a"), Phase::Stalled);
    assert!(world.why("a").contains("m0 is away"), "{}", world.why("a"));
}

/// Mutation: take the machines that go as lost ones, which spend the budget.
#[test]
fn what_only_goes_goes_last_and_costs_nothing_even_if_it_is_away() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.away.insert(machine(2));
    world.apply(&[("a", app(2, 2, RolloutStrategy::Rolling))], None);
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a", "m2:a"]);
}

#[test]
fn a_new_apply_supersedes_a_rollout_wherever_its_machines_are() {
    let mut world = settled(3, RolloutStrategy::Rolling);
    world.apply(&[("a", app(2, 3, RolloutStrategy::Rolling))], None);
    world.run(2);
    assert_eq!(world.waves, ["m0:a"]);
    world.apply(&[("a", app(3, 3, RolloutStrategy::Rolling))], None);
    world.waves.clear();
    let held = &world.rollouts.standing(&machine(0)).unwrap().behind;
    assert_eq!(held[&owner("a")], ReleaseNumber(2));
    let held = &world.rollouts.standing(&machine(1)).unwrap().behind;
    assert_eq!(held[&owner("a")], ReleaseNumber(1));
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a", "m2:a"]);
    assert_eq!(world.phase("a"), Phase::Done);
}

#[test]
fn two_apps_on_the_same_machines_roll_each_at_its_own_pace() {
    let mut world = World::new();
    let both = |a, b| {
        [
            ("a", app(a, 3, RolloutStrategy::Rolling)),
            ("b", app(b, 3, RolloutStrategy::Rolling)),
        ]
    };
    world.apply(&both(1, 1), None);
    world.run(5);
    world.waves.clear();
    world.apply(&both(2, 1), None);
    world.run(2);
    world.apply(&both(2, 2), None);
    world.run(30);
    let of = |name: &str| -> Vec<&str> {
        let words = world.waves.iter().flat_map(|wave| wave.split(' '));
        words.filter(|word| word.ends_with(name)).collect()
    };
    assert_eq!(of(":a"), ["m0:a", "m1:a", "m2:a"]);
    assert_eq!(of(":b"), ["m0:b", "m1:b", "m2:b"]);
    for n in 0..3 {
        let name = machine(n);
        assert_eq!(
            world.held(&name).unwrap().hash(),
            world.targets[&name].hash()
        );
    }
}

/// Mutation: leave out what a resource needs of another owner.
#[test]
fn what_an_app_waits_for_moves_first_or_along_and_goes_after_it() {
    let db = |rollout| App {
        rollout,
        ..app(7, 3, RolloutStrategy::Rolling)
    };
    let user = |mode, after: &[&'static str]| App {
        after: after.to_vec(),
        ..app(mode, 3, RolloutStrategy::Rolling)
    };
    let mut world = World::new();
    world.apply(&[("a", user(1, &["old"])), ("old", db(None))], None);
    world.run(5);
    world.waves.clear();
    // One that it waits for comes, and one that it waited for goes; neither has a pace of its own.
    world.apply(&[("a", user(2, &["new"])), ("new", db(None))], None);
    assert_eq!(world.waves, [""; 0]);
    for n in 0..3 {
        let held = world.held(&machine(n)).unwrap();
        let old = held.get(&at(&machine(n), &owner("old")));
        assert!(
            matches!(old, Some(Entry::Resource(_))),
            "it is still needed"
        );
    }
    world.run(20);
    assert_eq!(world.phase("a"), Phase::Done);
    assert_eq!(world.waves, ["m0:a m0:old", "m1:a m1:old", "m2:a m2:old"]);
}

/// Mutation: count the healthy time from when a machine moved.
#[test]
fn a_spell_of_health_that_breaks_off_begins_anew() {
    let mut world = settled(2, RolloutStrategy::Rolling);
    world.apply(&[("a", app(2, 2, RolloutStrategy::Rolling))], None);
    world.run(2);
    for _ in 0..3 {
        world.step(5000);
        world.down.insert((owner("a"), machine(0)));
        world.step(1000);
        world.down.clear();
        world.step(1000);
    }
    assert_eq!(world.waves, ["m0:a"]);
    world.run(20);
    assert_eq!(world.waves, ["m0:a", "m1:a"]);
}

/// A hundred histories of two apps over five machines, with everything that can come in between; `World` holds every
/// promise against every step. In the end all is well, and then every machine comes to what is recorded.
#[test]
fn no_step_of_any_history_breaks_a_promise_and_all_comes_to_rest() {
    for seed in 0..100_u64 {
        let mut dice = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut roll = |below: u64| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            dice % below
        };
        let mut world = World::new();
        let mut apps: Vec<(&str, App)> = Vec::new();
        for name in ["a", "b"] {
            let mut app = app(1, 5, RolloutStrategy::Rolling);
            let batch = 1 + roll(3) as u32;
            app.rollout = (roll(5) > 0).then(|| Rollout {
                strategy: match roll(2) {
                    0 => RolloutStrategy::Rolling,
                    _ => RolloutStrategy::Canary,
                },
                batch,
                max_unavailable: roll(4) as u32,
                auto_revert: false,
                ..settings(RolloutStrategy::Rolling)
            });
            apps.push((name, app));
        }
        if roll(2) == 0 {
            apps[0].1.after = vec!["b"];
        }
        world.apply(&apps, None);
        for _ in 0..60 {
            match roll(12) {
                0 => {
                    let app = &mut apps[roll(2) as usize].1;
                    app.mode = 1 + roll(4) as u32;
                    app.machines = (0..5).filter(|_| roll(6) > 0).collect();
                    // What another waits for is wherever that is.
                    let all: Vec<usize> = (0..5).collect();
                    if !apps[0].1.after.is_empty() {
                        apps[1].1.machines = all;
                    }
                    world.apply(&apps, None);
                }
                1 => drop(world.away.insert(machine(roll(5) as usize))),
                2 => world.away.clear(),
                3 => {
                    let name = owner(["a", "b"][roll(2) as usize]);
                    world.down.insert((name, machine(roll(5) as usize)));
                }
                4 => world.down.clear(),
                5 => world.restart(),
                6 => world.bad = BTreeSet::from([1 + roll(4) as u32]),
                7 => world.bad.clear(),
                8 => {
                    let name = owner(["a", "b"][roll(2) as usize]);
                    let order = [Order::Pause, Order::Resume][roll(2) as usize];
                    let now = world.now().wall;
                    if let Ok((next, record)) = world.rollouts.order(&name, order, "x", now) {
                        world.rollouts = next;
                        world.keep(&[record]);
                    }
                }
                _ => world.speak(),
            }
            world.step(roll(8000));
        }
        (world.away, world.bad, world.down) = Default::default();
        for name in ["a", "b"] {
            let now = world.now().wall;
            if let Ok((next, _)) = world.rollouts.order(&owner(name), Order::Resume, "x", now) {
                world.rollouts = next;
            }
        }
        world.run(60);
        for (name, target) in &world.targets {
            let held = world.held(name).unwrap();
            let standing = world.rollouts.standing(name);
            let views = world.rollouts.views();
            assert_eq!(
                held.hash(),
                target.hash(),
                "seed {seed}: {name} is behind with {:?}; {views:#?}",
                standing.map(|standing| &standing.behind)
            );
        }
        let open = |record: &&plumb_model::rollout::RolloutRecord| record.phase != Phase::Done;
        assert_eq!(world.rollouts.records().find(open), None, "seed {seed}");
    }
}
