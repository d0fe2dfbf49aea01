//! Whatever part of a plan has been carried out when everything dies: a new plan, recorded and converged, leads to what
//! it says, and nothing is removed on the way that Plumb does not own.
//!
//! A case is one history (a first workspace at rest, a second one planned) and one prefix of the second plan. The prefix
//! is what a crash leaves behind: the plan's changes in an order that the plan allows, or the first actions of the
//! agent's own reconciler. Ledger and agents are left out, as `sim` runs them; planner, reconciler and VM are the real
//! ones and the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_converge::{Effect, Event, Now, Reconciler, Settings, Work};
use plumb_model::observation::ExitStatus;
use plumb_model::plan::{ChangeAction, Plan};
use plumb_model::state::{Next, Recorded, ReleaseBody};
use plumb_model::{
    Action, Address, Assignment, ConditionKind, Entry, Generation, Hash, MachineName, ProbeOutcome,
    ProbeResult, Resource, ResourceKind, ResourceSpec, ResourceStatus, RunState, Timestamp,
};
use plumb_planner::{Input, Observed, Planned, Request, plan};

use crate::agent::facts;
use crate::chance::Chance;
use crate::control::lineage;
use crate::vm::Vm;
use crate::workload;

/// So many prefixes on every test run; `PLUMB_SIM_PREFIXES=N` looks at others.
const CASES: usize = 1_000;
/// How long a machine may take to come to rest: longer than any backoff of a process that restarts.
const REST_MS: u64 = 120_000;
/// So long at a time, until it is at rest.
const STEP_MS: u64 = 1_000;
/// A restarted agent looks at everything at once; this leaves room for its jitter and a health check.
const WATCH_MS: u64 = 3_000;

/// A machine: its VM, and the agent's disk.
#[derive(Debug, Clone, Default)]
struct Machine {
    vm: Vm,
    held: Option<(Generation, Arc<Assignment>)>,
    applied: BTreeMap<Address, Hash>,
    statuses: BTreeMap<Address, ResourceStatus>,
}

/// A fleet and what is recorded of it.
#[derive(Debug, Clone, Default)]
struct World {
    recorded: Recorded,
    machines: BTreeMap<MachineName, Machine>,
    assignments: BTreeMap<Hash, Arc<Assignment>>,
    /// Every address that was ever recorded: all that Plumb owns.
    owned: BTreeSet<Address>,
    now_ms: u64,
}

fn wall(now_ms: u64) -> Timestamp {
    let ms = i64::try_from(now_ms).expect("a short run");
    Timestamp::from_millisecond(1_800_000_000_000 + ms).expect("a time of this century")
}

impl World {
    fn plan(&self, request: &Request) -> Planned {
        let observed = Observed {
            machines: self
                .machines
                .keys()
                .map(|name| (name.clone(), facts(name)))
                .collect(),
            statuses: self
                .machines
                .values()
                .flat_map(|machine| machine.statuses.clone())
                .map(|(address, status)| (address, Arc::new(status)))
                .collect(),
            nobody_asked: false,
        };
        let input = Input {
            request,
            recorded: &self.recorded,
            lineage: &lineage(),
            workspace: &workload::workspace(),
            observed: &observed,
            secrets: plumb_model::KnownSecrets::UNASKED,
            commit: None,
        };
        plan(input).unwrap_or_else(|refused| panic!("{refused:#?}"))
    }

    /// Records a plan as the ledger would, and holds that it deletes only what is recorded.
    fn record(&mut self, planned: &Planned) {
        for change in &planned.plan.changes {
            if change.action == ChangeAction::Delete {
                let known = resource(&self.recorded, &change.address).is_some();
                assert!(known, "{} is deleted and not recorded", change.address);
            }
        }
        if planned.plan.is_empty() {
            return;
        }
        let Next { state, bodies, .. } = &planned.next;
        let mut releases = BTreeMap::new();
        for (owner, at) in &state.owners {
            let body: Arc<ReleaseBody> = match bodies.get(&at.body) {
                Some(bytes) => Arc::new(serde_json::from_slice(bytes).expect("a release")),
                None => self.recorded.releases[owner].clone(),
            };
            let addresses = body.resources.iter().map(|r| r.address.clone());
            self.owned.extend(addresses);
            releases.insert(owner.clone(), body);
        }
        for machine in state.machines.values() {
            if let Some(bytes) = bodies.get(&machine.assignment) {
                let assignment = Assignment::parse(bytes).expect("an assignment");
                for entry in assignment.entries() {
                    let owned = self.owned.contains(entry.address());
                    assert!(owned, "{} is assigned and nobody's", entry.address());
                }
                self.assignments
                    .insert(machine.assignment, Arc::new(assignment));
            }
        }
        self.recorded = Recorded {
            state: state.clone(),
            releases,
        };
    }

    /// Every agent is handed what is recorded for its machine, as it would be on connecting.
    fn hand_out(&mut self) {
        for (name, state) in &self.recorded.state.machines {
            if state.generation > Generation(0) {
                let assignment = self.assignments[&state.assignment].clone();
                let machine = self.machines.entry(name.clone()).or_default();
                machine.held = Some((state.generation, assignment));
            }
        }
    }

    /// Starts every agent from its disk, and lets it work until it has come to rest or has done so many actions; then
    /// it is killed. Says how many actions all of them did.
    fn run(&mut self, actions: usize) -> usize {
        let mut left = actions;
        let mut longest = self.now_ms;
        for machine in self.machines.values_mut() {
            let mut agent = Agent::start(machine, &self.owned, self.now_ms, &mut left);
            agent.rest();
            longest = longest.max(agent.now_ms);
            agent.die();
        }
        self.now_ms = longest;
        actions - left
    }

    /// At rest the VMs are what is recorded, nothing moves, and the same plan again is empty.
    fn check_rest(&mut self, request: &Request, strangers: &BTreeSet<Address>) {
        for machine in self.machines.values_mut() {
            let mut none = 0;
            let mut agent = Agent::start(machine, &self.owned, self.now_ms, &mut none);
            agent.pass(WATCH_MS);
            let idle = !agent.stopped;
            agent.die();
            assert!(idle, "at rest, the next reconcile does nothing");
            assert_eq!(machine.vm.broken, Vec::<String>::new());
        }
        self.now_ms += WATCH_MS;
        let desired: BTreeMap<&Address, &Resource> = self
            .recorded
            .releases
            .values()
            .flat_map(|body| &body.resources)
            .map(|resource| (&resource.address, resource.as_ref()))
            .collect();
        for (name, machine) in &self.machines {
            for resource in desired.values().filter(|r| r.address.machine == *name) {
                let thing = machine.vm.thing(&resource.address);
                assert!(
                    machine.vm.is_as(resource),
                    "{} is {thing:?}",
                    resource.address
                );
            }
            for address in machine.vm.addresses() {
                let known = desired.contains_key(address) || strangers.contains(address);
                assert!(known, "{address} is still there");
            }
        }
        for address in strangers {
            let there = self.machines[&address.machine].vm.thing(address).is_some();
            assert!(there, "{address} is a stranger's, and gone");
        }
        let again = self.plan(request);
        assert!(again.plan.is_empty(), "{:#?}", again.plan);
    }
}

fn resource<'a>(recorded: &'a Recorded, address: &Address) -> Option<&'a Resource> {
    let body = recorded.releases.get(&address.owner)?;
    let mut all = body.resources.iter().map(AsRef::as_ref);
    all.find(|r: &&Resource| r.address == *address)
}

/// An agent's reconciler while it runs.
struct Agent<'a> {
    machine: &'a mut Machine,
    owned: &'a BTreeSet<Address>,
    reconciler: Reconciler,
    now_ms: u64,
    /// How many actions are left until it dies.
    left: &'a mut usize,
    stopped: bool,
}

impl<'a> Agent<'a> {
    fn start(
        machine: &'a mut Machine,
        owned: &'a BTreeSet<Address>,
        now_ms: u64,
        left: &'a mut usize,
    ) -> Self {
        let settings = Settings {
            resync_ms: 30_000,
            full_every: 20,
            seed: 1,
        };
        let reconciler = Reconciler::new(settings, machine.applied.clone());
        let held = machine.held.clone();
        let mut agent = Self {
            machine,
            owned,
            reconciler,
            now_ms,
            left,
            stopped: false,
        };
        if let Some((generation, assignment)) = held {
            for resource in assignment.resources() {
                let blobs = resource.spec.blobs().map(|(digest, _)| digest);
                agent.machine.vm.blobs.extend(blobs);
            }
            agent.feed(Event::Assigned {
                generation,
                assignment,
                missing: Vec::new(),
            });
        }
        agent
    }

    /// Carries an event and everything that it leads to out, without any time passing.
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            if self.stopped {
                return;
            }
            let now = Now {
                mono_ms: self.now_ms,
                wall: wall(self.now_ms),
            };
            for effect in self.reconciler.handle(event, now) {
                self.carry_out(effect, &mut events);
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, events: &mut Vec<Event>) {
        let wall = wall(self.now_ms);
        match effect {
            Effect::Observe { work, .. } => {
                let vm = &self.machine.vm;
                let seen = work.iter().map(|w| (w.address.clone(), Ok(vm.observe(w))));
                events.push(Event::Observed(seen.collect()));
            }
            Effect::Act { work, .. } => {
                let mut done = Vec::new();
                for (work, action) in work {
                    if *self.left == 0 {
                        self.stopped = true;
                        return;
                    }
                    *self.left -= 1;
                    self.check_owned(&work, &action);
                    let result = self.machine.vm.act(&work, &action, wall);
                    done.push((work.address, action, result));
                }
                events.push(Event::Acted(done));
                let ended = self.machine.vm.stopping();
                for address in &ended {
                    self.machine.vm.end(address, ExitStatus::Signal(15), wall);
                }
                if !ended.is_empty() {
                    events.insert(0, Event::Woken(ended));
                }
            }
            Effect::Probe {
                address,
                incarnation,
                ..
            } => {
                let result = ProbeResult {
                    at: wall,
                    outcome: ProbeOutcome::Passed,
                    code: Some(200),
                    millis: 1,
                    error: None,
                };
                events.push(Event::Probed {
                    address,
                    incarnation,
                    result,
                });
            }
            Effect::Report(_) | Effect::Emit(_) => {}
        }
    }

    /// Only what Plumb owns is acted on, and only what it has a tombstone for is removed.
    fn check_owned(&self, work: &Work, action: &Action) {
        let address = &work.address;
        assert!(
            self.owned.contains(address),
            "{action:?} of a stranger's {address}"
        );
        if *action == Action::Remove {
            let entry = self
                .machine
                .held
                .as_ref()
                .and_then(|(_, held)| held.get(address));
            let ordered = matches!(entry, Some(Entry::Tombstone(_)));
            assert!(ordered, "{address} is removed, and nothing says so");
        }
    }

    /// Lets time pass until everything has converged or is gone.
    fn rest(&mut self) {
        let end = self.now_ms + REST_MS;
        while self.now_ms < end && !self.stopped && !self.is_settled() {
            self.pass(STEP_MS);
        }
    }

    fn is_settled(&self) -> bool {
        let Some((generation, held)) = &self.machine.held else {
            return true;
        };
        let settled = |status: &&ResourceStatus| {
            status.generation == *generation && (status.gone || status.is(ConditionKind::Converged))
        };
        self.reconciler.statuses().filter(settled).count() >= held.entries().len()
    }

    /// Lets time pass, from one wake-up to the next.
    fn pass(&mut self, ms: u64) {
        let end = self.now_ms + ms;
        while let Some(wake) = self.reconciler.next_wake().filter(|at| *at <= end) {
            if self.stopped {
                return;
            }
            self.now_ms = self.now_ms.max(wake);
            self.feed(Event::Tick);
        }
        self.now_ms = end;
    }

    /// Killed: what it knew is on its disk, or was told to the control plane.
    fn die(self) {
        self.machine.applied = self.reconciler.applied().clone();
        let told = self.reconciler.statuses();
        self.machine.statuses = told.map(|s| (s.address.clone(), s.clone())).collect();
    }
}

/// The plan's changes in one of the orders that it allows.
fn in_order(plan: &Plan, chance: &mut Chance) -> Vec<Address> {
    let mut waits: BTreeMap<&Address, BTreeSet<&Address>> = BTreeMap::new();
    for change in &plan.changes {
        waits.entry(&change.address).or_default();
    }
    for (first, second) in &plan.order {
        waits.entry(second).or_default().insert(first);
    }
    let mut out = Vec::new();
    while !waits.is_empty() {
        let free: Vec<&Address> = waits
            .iter()
            .filter(|(_, firsts)| firsts.is_empty())
            .map(|(address, _)| *address)
            .collect();
        let next = *chance.pick(&free).expect("the order is acyclic");
        waits.remove(next);
        for firsts in waits.values_mut() {
            firsts.remove(next);
        }
        out.push(next.clone());
    }
    out
}

/// One change of a plan, as a driver would leave it behind.
fn carry_out(world: &mut World, next: &Recorded, address: &Address) {
    let at = wall(world.now_ms);
    let wanted = resource(next, address).cloned().map(Arc::new);
    let machine = world.machines.entry(address.machine.clone());
    let vm = &mut machine.or_default().vm;
    if let Some(wanted) = &wanted {
        let blobs = wanted.spec.blobs().map(|(digest, _)| digest);
        vm.blobs.extend(blobs);
        if vm.is_as(wanted) {
            return;
        }
    }
    let running = match wanted.as_ref().map(|wanted| &wanted.spec) {
        Some(ResourceSpec::Process(spec)) => spec.state == RunState::Running,
        _ => false,
    };
    let actions: &[Action] = match (address.kind, wanted.is_some()) {
        (ResourceKind::Process, true) if running => &[Action::Stop, Action::Start],
        (ResourceKind::Process, true) => &[Action::Stop],
        (ResourceKind::Process, false) => &[Action::Stop, Action::Remove],
        (_, true) => &[Action::Write],
        (_, false) => &[Action::Remove],
    };
    let work = Work {
        address: address.clone(),
        resource: wanted,
    };
    for action in actions {
        vm.act(&work, action, at).expect("this VM has no faults");
        if *action == Action::Stop {
            vm.end(address, ExitStatus::Signal(15), at);
        }
    }
}

/// What a generated operator asks for: another workspace, or the end of it.
fn request(chance: &mut Chance, machines: &[MachineName]) -> Request {
    if chance.percent(5) {
        return Request::Destroy;
    }
    let some: Vec<_> = machines
        .iter()
        .filter(|_| chance.percent(85))
        .cloned()
        .collect();
    let there = if some.is_empty() { machines } else { &some };
    let (blueprint, sources) = workload::blueprints(chance, there);
    Request::Apply {
        blueprint,
        sources,
        ask: Default::default(),
    }
}

/// A stranger's things, on every machine, next to those of Plumb.
fn strangers(world: &mut World, machines: &[MachineName]) -> BTreeSet<Address> {
    let mut all = BTreeSet::new();
    for name in machines {
        for rest in [
            "setup0/file//srv/setup0/theirs",
            "theirs/directory//srv/theirs",
        ] {
            let address: Address = format!("{name}/{rest}").parse().expect("an address");
            let vm = &mut world.machines.entry(name.clone()).or_default().vm;
            vm.settle(address.clone());
            all.insert(address);
        }
    }
    all
}

/// One history, and every prefix of its second plan. Says how many prefixes there were.
fn check(seed: u64) -> usize {
    let mut chance = Chance::new(seed);
    let machines = workload::machines(1 + usize::try_from(chance.between(0, 2)).expect("small"));
    let mut world = World::default();
    let strangers = strangers(&mut world, &machines);
    let first = request(&mut chance, &machines);
    let planned = world.plan(&first);
    world.record(&planned);
    world.hand_out();
    world.run(usize::MAX);
    world.check_rest(&first, &strangers);

    let second = request(&mut chance, &machines);
    let third = request(&mut chance, &machines);
    let planned = world.plan(&second);
    let mut recorded = world.clone();
    recorded.record(&planned);
    let order = in_order(&planned.plan, &mut chance);
    for length in 0..=order.len() {
        let is_recorded = chance.percent(70);
        let mut crashed = if is_recorded {
            recorded.clone()
        } else {
            world.clone()
        };
        if is_recorded && chance.percent(50) {
            // The agents' own order, as far as they got.
            crashed.hand_out();
            crashed.run(length);
        } else {
            for address in &order[..length] {
                carry_out(&mut crashed, &recorded.recorded, address);
            }
            if is_recorded && chance.percent(50) {
                crashed.hand_out();
            }
        }
        // What no state records nobody can know of: an unrecorded plan is made again before another one.
        let last = if is_recorded && chance.percent(60) {
            &third
        } else {
            &second
        };
        let planned = crashed.plan(last);
        crashed.record(&planned);
        crashed.hand_out();
        crashed.run(usize::MAX);
        crashed.check_rest(last, &strangers);
    }
    order.len() + 1
}

/// Fails under the mutations: let `pending_tombstones` of the planner leave out what is held; let the reconciler remove
/// whatever it observes that is not desired.
#[test]
fn every_crash_prefix_followed_by_a_new_plan_converges_and_removes_only_what_is_owned() {
    let wanted = match std::env::var("PLUMB_SIM_PREFIXES") {
        Ok(text) => text.parse().expect("PLUMB_SIM_PREFIXES is a number"),
        Err(_) => CASES,
    };
    let (mut cases, mut seed) = (0, 0);
    while cases < wanted {
        cases += check(seed);
        seed += 1;
    }
    println!("{cases} prefixes of {seed} histories");
}
