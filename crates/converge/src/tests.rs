//! The reconciler against a VM that exists only as a map: every effect is answered at once, or when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::assignment::{self, Header, Tombstone};
use plumb_model::condition::EventKind;
use plumb_model::observation::{Difference, Exit, ExitStatus, Incarnation};
use plumb_model::{
    Action, Address, Assignment, ConditionKind, DirectorySpec, DriftPolicy, Entry, Fault,
    FileContent, FileSpec, Found, FoundKind, Generation, Hash, HealthProbe, HealthSpec, Lineage,
    LogSpec, MachineName, Mode, Observation, OwnerName, ProbeOutcome, ProbeResult, ProcessSpec,
    Reason, Resource, ResourceKind, ResourceSpec, RestartPolicy, RestartSpec, RunState, StopSpec,
    Timestamp, WorkspaceName,
};

use crate::{Effect, Event, Now, Reconciler, Settings, Work};

mod adopt;
mod forget;
mod hands;
mod renames;
mod undriven;

#[derive(Debug, Clone, PartialEq)]
enum Thing {
    /// A file or directory whose content stands for its whole spec.
    Made(Box<ResourceSpec>),
    Edited,
    Foreign,
    Alive(Incarnation),
    Dead(Incarnation, Exit),
}

/// A VM in a map, with a clock.
struct Vm {
    reconciler: Reconciler,
    things: BTreeMap<Address, Thing>,
    faults: BTreeMap<Address, Fault>,
    /// Faults of acting alone.
    act_faults: BTreeMap<Address, Fault>,
    healthy: bool,
    now_ms: u64,
    pids: u32,
    acts: Vec<(Address, Action)>,
    events: Vec<(Address, EventKind, String)>,
    in_flight: BTreeSet<Address>,
    /// What the driver has moved: to where, from where.
    moved: BTreeMap<Address, Address>,
    /// What stands where something foreign is.
    found: FoundKind,
}

impl Vm {
    fn new() -> Self {
        let settings = Settings {
            resync_ms: 30_000,
            full_every: 20,
            seed: 1,
        };
        Self {
            reconciler: Reconciler::new(settings, BTreeMap::new()),
            things: BTreeMap::new(),
            faults: BTreeMap::new(),
            act_faults: BTreeMap::new(),
            healthy: true,
            now_ms: 1_000_000,
            pids: 100,
            acts: Vec::new(),
            events: Vec::new(),
            in_flight: BTreeSet::new(),
            moved: BTreeMap::new(),
            found: FoundKind::File,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono_ms: self.now_ms,
            wall: Timestamp::from_millisecond(i64::try_from(self.now_ms).unwrap()).unwrap(),
        }
    }

    fn assign(&mut self, generation: u64, entries: Vec<Entry>) {
        let assignment = Arc::new(Assignment::build(header(), entries));
        self.feed(Event::Assigned {
            generation: Generation(generation),
            assignment,
            missing: Vec::new(),
        });
    }

    fn feed(&mut self, event: Event) {
        let mut queue = vec![event];
        let mut steps = 0;
        while !queue.is_empty() {
            steps += 1;
            assert!(steps < 10_000, "it never comes to rest");
            let event = queue.remove(0);
            if let Event::Observed(all) = &event {
                all.iter()
                    .for_each(|(a, _)| assert!(self.in_flight.remove(a)));
            }
            if let Event::Acted(all) = &event {
                all.iter()
                    .for_each(|(a, ..)| assert!(self.in_flight.remove(a)));
            }
            for effect in self.reconciler.handle(event, self.now()) {
                queue.extend(self.answer(effect));
            }
        }
    }

    /// Lets time pass, waking the reconciler whenever it asked for it.
    fn pass(&mut self, ms: u64) {
        let until = self.now_ms + ms;
        while let Some(wake) = self.reconciler.next_wake().filter(|w| *w <= until) {
            self.now_ms = self.now_ms.max(wake);
            self.feed(Event::Tick);
            assert!(
                self.reconciler.next_wake().is_none_or(|w| w > self.now_ms),
                "it wakes itself without end"
            );
        }
        self.now_ms = until;
    }

    fn answer(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Observe { work, .. } => {
                work.iter().for_each(|w| {
                    assert!(
                        self.in_flight.insert(w.address.clone()),
                        "two at once on one resource"
                    )
                });
                Some(Event::Observed(
                    work.iter()
                        .map(|w| (w.address.clone(), self.observe(w)))
                        .collect(),
                ))
            }
            Effect::Act { work, .. } => {
                work.iter().for_each(|(w, _)| {
                    assert!(
                        self.in_flight.insert(w.address.clone()),
                        "two at once on one resource"
                    )
                });
                let results = work
                    .iter()
                    .map(|(w, action)| {
                        self.acts.push((w.address.clone(), action.clone()));
                        let result = self.act(w, action);
                        (w.address.clone(), action.clone(), result)
                    })
                    .collect();
                Some(Event::Acted(results))
            }
            Effect::Probe {
                address,
                incarnation,
                ..
            } => {
                let outcome = if self.healthy {
                    ProbeOutcome::Passed
                } else {
                    ProbeOutcome::Failed
                };
                let error = (!self.healthy).then(|| "refused".to_owned());
                let result = ProbeResult {
                    at: self.now().wall,
                    outcome,
                    code: None,
                    millis: 1,
                    error,
                };
                Some(Event::Probed {
                    address,
                    incarnation,
                    result,
                })
            }
            Effect::Report(_) => None,
            Effect::Emit(event) => {
                self.events.push((event.address, event.kind, event.message));
                None
            }
        }
    }

    fn observe(&mut self, work: &Work) -> Result<Observation, Fault> {
        Ok(match self.things.get(&work.address) {
            None => Observation::Absent,
            Some(Thing::Made(spec)) => {
                let same = work.resource.as_ref().is_none_or(|r| r.spec == **spec);
                let differs = if same {
                    vec![]
                } else {
                    vec![Difference {
                        field: "content".into(),
                        found: "other".into(),
                    }]
                };
                Observation::Present { differs }
            }
            Some(Thing::Edited) => Observation::Present {
                differs: vec![Difference {
                    field: "content".into(),
                    found: "edited".into(),
                }],
            },
            Some(Thing::Foreign) => Observation::Foreign {
                what: "a stranger's file".into(),
                found: Some(Box::new(Found {
                    kind: self.found,
                    mode: Mode(0o600),
                    owner: "root".into(),
                    group: "root".into(),
                    size: Some(3),
                    digest: None,
                    text: None,
                })),
            },
            Some(Thing::Alive(run)) => Observation::Running(run.clone()),
            Some(Thing::Dead(run, exit)) => Observation::Exited(run.clone(), exit.clone()),
        })
    }

    fn act(&mut self, work: &Work, action: &Action) -> Result<Observation, Fault> {
        if let Some(fault) = self.faults.get(&work.address) {
            return Err(fault.clone());
        }
        if let Some(fault) = self.act_faults.get(&work.address) {
            return Err(fault.clone());
        }
        let address = work.address.clone();
        match action {
            Action::Move { from } => {
                let old = from.iter().find(|old| self.things.contains_key(*old));
                let known = self.moved.insert(address.clone(), from[0].clone());
                if let Some(old) = old
                    && known.as_ref() != Some(&from[0])
                    && !self.things.contains_key(&address)
                {
                    let thing = self.things.remove(old).unwrap();
                    self.moved.remove(old);
                    self.things.insert(address, thing);
                }
            }
            Action::Adopt => {
                assert_eq!(self.things.get(&address), Some(&Thing::Foreign));
                assert!(work.resource.as_ref().unwrap().adopt, "adopted unasked");
                self.things.insert(
                    address,
                    Thing::Made(work.resource.as_ref().unwrap().spec.clone().into()),
                );
            }
            Action::Write => {
                self.things.insert(
                    address,
                    Thing::Made(work.resource.as_ref().unwrap().spec.clone().into()),
                );
            }
            Action::Remove => {
                assert!(!matches!(
                    self.things.get(&address),
                    Some(Thing::Alive(_) | Thing::Foreign)
                ));
                self.things.remove(&address);
            }
            Action::Start => {
                assert!(
                    !matches!(self.things.get(&address), Some(Thing::Alive(_))),
                    "started twice"
                );
                self.pids += 1;
                let ResourceSpec::Process(spec) = &work.resource.as_ref().unwrap().spec else {
                    panic!("no process")
                };
                let run = Incarnation {
                    id: format!("i{}", self.pids),
                    spec: spec.incarnation_hash(),
                    pid: self.pids,
                    started: self.now().wall,
                    stopping: false,
                };
                self.things.insert(address, Thing::Alive(run));
            }
            Action::Stop => {
                let Some(Thing::Alive(run)) = self.things.get(&address).cloned() else {
                    panic!("nothing to stop")
                };
                let exit = Exit {
                    status: ExitStatus::Signal(15),
                    at: self.now().wall,
                };
                self.things.insert(address, Thing::Dead(run, exit));
            }
        }
        self.observe(work)
    }

    /// Ends a process from outside, and wakes the reconciler as its pidfd would.
    fn kill(&mut self, address: &Address, status: ExitStatus) {
        let Some(Thing::Alive(run)) = self.things.get(address).cloned() else {
            panic!("{address} is not alive")
        };
        let exit = Exit {
            status,
            at: self.now().wall,
        };
        self.things.insert(address.clone(), Thing::Dead(run, exit));
        self.feed(Event::Woken(vec![address.clone()]));
    }

    fn alive(&self, address: &Address) -> bool {
        matches!(self.things.get(address), Some(Thing::Alive(_)))
    }

    fn is(&self, address: &Address, kind: ConditionKind) -> Option<bool> {
        let status = self.reconciler.statuses().find(|s| s.address == *address)?;
        status.condition(kind).map(|c| c.status)
    }

    fn reason(&self, address: &Address) -> Reason {
        let status = self
            .reconciler
            .statuses()
            .find(|s| s.address == *address)
            .unwrap();
        status.condition(ConditionKind::Converged).unwrap().reason
    }
}

fn header() -> Header {
    Header {
        format: assignment::FORMAT,
        lineage: Lineage::from_random([1; 16]),
        workspace: WorkspaceName::new("w").unwrap(),
        machine: MachineName::new("m").unwrap(),
    }
}

fn address(kind: ResourceKind, name: &str) -> Address {
    Address::new(&header().machine, &OwnerName::new("o").unwrap(), kind, name)
}

fn resource(address: &Address, spec: ResourceSpec, after: &[&Address]) -> Resource {
    Resource {
        adopt: false,
        was: None,
        was_before: Vec::new(),
        address: address.clone(),
        after: after.iter().map(|a| (*a).clone()).collect(),
        drift: DriftPolicy::Enforce,
        spec,
    }
}

fn file(name: &str, text: &str, after: &[&Address]) -> Resource {
    let spec = FileSpec {
        notify: Default::default(),
        path: name.into(),
        content: FileContent::Text(text.into()),
        mode: Mode(0o644),
        owner: None,
        group: None,
    };
    resource(
        &address(ResourceKind::File, name),
        ResourceSpec::File(spec),
        after,
    )
}

fn directory(name: &str) -> Resource {
    let spec = DirectorySpec {
        path: name.into(),
        mode: Mode(0o755),
        owner: None,
        group: None,
    };
    resource(
        &address(ResourceKind::Directory, name),
        ResourceSpec::Directory(spec),
        &[],
    )
}

fn process_spec() -> ProcessSpec {
    ProcessSpec {
        limits: None,
        schedule: None,
        on_disconnect: None,
        secrets: Default::default(),
        toolchain: None,
        argv: vec!["serve".into()],
        env: BTreeMap::new(),
        workdir: None,
        user: None,
        ports: [(plumb_model::PortName::new("http").unwrap(), 20_001)].into(),
        health: Some(HealthSpec {
            probe: HealthProbe::Tcp {
                host: None,
                port: 20_001,
            },
            interval_ms: 30_000,
            timeout_ms: 5_000,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        }),
        restart: RestartSpec {
            policy: RestartPolicy::Always,
            initial_ms: 1_000,
            max_ms: 60_000,
        },
        stop: StopSpec {
            signal: 15,
            grace_ms: 10_000,
        },
        log: LogSpec {
            max_bytes: 1 << 20,
            keep: 1,
        },
        state: RunState::Running,
    }
}

fn process(spec: ProcessSpec) -> Resource {
    resource(
        &address(ResourceKind::Process, "web/0"),
        ResourceSpec::Process(spec),
        &[],
    )
}

fn tombstone(address: &Address, since: u64) -> Entry {
    Entry::Tombstone(Tombstone {
        address: address.clone(),
        since: Generation(since),
    })
}

fn only(resource: Resource) -> Vec<Entry> {
    vec![Entry::from(resource)]
}

#[test]
fn a_converged_machine_is_left_alone() {
    let mut vm = Vm::new();
    let folder = directory("/a");
    let inner = file("/a/b", "text", &[&folder.address]);
    let entries = vec![
        Entry::from(folder.clone()),
        Entry::from(inner.clone()),
        Entry::from(process(process_spec())),
    ];
    vm.assign(1, entries.clone());
    vm.pass(5_000);
    assert_eq!(vm.acts.len(), 3, "{:?}", vm.acts);
    assert!(
        vm.acts.iter().position(|(a, _)| *a == folder.address)
            < vm.acts.iter().position(|(a, _)| *a == inner.address)
    );
    vm.acts.clear();
    vm.assign(1, entries.clone());
    vm.assign(2, entries);
    vm.pass(3_600_000);
    assert_eq!(vm.acts, []);
    let web = address(ResourceKind::Process, "web/0");
    assert_eq!(
        (
            vm.is(&web, ConditionKind::Converged),
            vm.is(&web, ConditionKind::Healthy)
        ),
        (Some(true), Some(true))
    );
    assert!(
        vm.reconciler
            .statuses()
            .all(|s| s.generation == Generation(2))
    );
}

#[test]
fn drift_is_put_right_and_told_of_once() {
    let mut vm = Vm::new();
    let motd = file("/motd", "true", &[]);
    vm.assign(1, only(motd.clone()));
    vm.things.insert(motd.address.clone(), Thing::Edited);
    vm.feed(Event::Woken(vec![motd.address.clone()]));
    assert_eq!(
        vm.things[&motd.address],
        Thing::Made(motd.spec.clone().into())
    );
    let told: Vec<_> = vm
        .events
        .iter()
        .filter(|(_, kind, _)| *kind == EventKind::DriftCorrected)
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

/// Mutation: drop `applied` from `write_or_leave`, and either the first write is withheld or drift is corrected.
#[test]
fn reported_drift_is_left_but_the_first_write_is_made() {
    for policy in [DriftPolicy::Report, DriftPolicy::Ignore] {
        let mut vm = Vm::new();
        let mut motd = file("/motd", "true", &[]);
        motd.drift = policy;
        vm.assign(1, only(motd.clone()));
        assert_eq!(
            vm.things[&motd.address],
            Thing::Made(motd.spec.clone().into())
        );
        vm.things.insert(motd.address.clone(), Thing::Edited);
        vm.feed(Event::Woken(vec![motd.address.clone()]));
        vm.pass(100_000);
        assert_eq!(vm.things[&motd.address], Thing::Edited);
        let shown = vm.is(&motd.address, ConditionKind::Drifted);
        assert_eq!(shown, (policy == DriftPolicy::Report).then_some(true));
        // A restarted agent still knows that this is drift.
        let applied = vm.reconciler.applied().clone();
        vm.reconciler = Reconciler::new(
            Settings {
                resync_ms: 30_000,
                full_every: 20,
                seed: 2,
            },
            applied,
        );
        vm.assign(1, only(motd.clone()));
        assert_eq!(vm.things[&motd.address], Thing::Edited);
    }
}

#[test]
fn somebody_who_fights_over_a_file_slows_the_corrections_down() {
    let mut vm = Vm::new();
    let motd = file("/motd", "true", &[]);
    vm.assign(1, only(motd.clone()));
    vm.acts.clear();
    for _ in 0..1200 {
        vm.things.insert(motd.address.clone(), Thing::Edited);
        vm.feed(Event::Woken(vec![motd.address.clone()]));
        vm.pass(50);
    }
    assert!(
        vm.acts.len() < 75,
        "{} corrections in a minute",
        vm.acts.len()
    );
    let status = vm.reconciler.statuses().next().unwrap();
    assert_eq!(
        status.condition(ConditionKind::Drifted).unwrap().reason,
        Reason::Flapping
    );
    let told = |(_, kind, _): &&(Address, EventKind, String)| *kind == EventKind::DriftSeen;
    assert!(
        vm.events.iter().filter(told).count() >= 1,
        "{:?}",
        vm.events
    );
    vm.pass(300_000);
    assert_eq!(
        vm.things[&motd.address],
        Thing::Made(motd.spec.clone().into())
    );
    assert_eq!(vm.is(&motd.address, ConditionKind::Drifted), None);
}

#[test]
fn a_killed_process_is_back_at_once_and_then_backs_off() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    vm.assign(1, only(web.clone()));
    vm.pass(15_000);
    vm.kill(&web.address, ExitStatus::Signal(9));
    assert!(
        vm.alive(&web.address),
        "the first restart after a healthy spell is immediate"
    );
    vm.healthy = false;
    vm.kill(&web.address, ExitStatus::Signal(9));
    assert!(!vm.alive(&web.address));
    assert_eq!(vm.is(&web.address, ConditionKind::Failed), Some(true));
    vm.pass(1_300);
    assert!(vm.alive(&web.address), "the second waits about a second");
    vm.kill(&web.address, ExitStatus::Signal(9));
    vm.pass(1_300);
    assert!(!vm.alive(&web.address), "the third waits about two");
    vm.pass(1_300);
    assert!(vm.alive(&web.address));
    vm.pass(11_000);
    vm.kill(&web.address, ExitStatus::Code(1));
    assert!(
        vm.alive(&web.address),
        "a healthy spell makes the next one immediate again"
    );
}

#[test]
fn a_process_that_had_proven_itself_is_back_at_once_until_it_makes_a_habit_of_dying() {
    for health in [true, false] {
        let mut vm = Vm::new();
        let mut spec = process_spec();
        if !health {
            spec.health = None;
        }
        let web = process(spec);
        vm.assign(1, only(web.clone()));
        for round in 0..30 {
            vm.pass(1_500);
            vm.kill(&web.address, ExitStatus::Signal(9));
            assert!(
                vm.alive(&web.address),
                "round {round}, health check: {health}"
            );
        }
        let mut waits = 0;
        for _ in 0..5 {
            vm.pass(1_500);
            if vm.alive(&web.address) {
                vm.kill(&web.address, ExitStatus::Signal(9));
            }
            waits += u32::from(!vm.alive(&web.address));
        }
        assert!(waits >= 3, "{waits}");
    }
}

#[test]
fn a_program_that_exits_at_once_is_named_and_others_go_on() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    let motd = file("/motd", "true", &[]);
    vm.assign(1, vec![Entry::from(web.clone()), Entry::from(motd.clone())]);
    vm.kill(&web.address, ExitStatus::Code(3));
    vm.kill(&web.address, ExitStatus::Code(3));
    assert_eq!(vm.reason(&web.address), Reason::ExitedAtOnce);
    let status = vm
        .reconciler
        .statuses()
        .find(|s| s.address == web.address)
        .unwrap();
    assert!(
        status
            .condition(ConditionKind::Failed)
            .unwrap()
            .message
            .contains("status 3")
    );
    assert_eq!(vm.is(&motd.address, ConditionKind::Converged), Some(true));
}

#[test]
fn a_process_without_a_check_counts_as_converged_only_once_it_has_lived() {
    let mut vm = Vm::new();
    let web = process(ProcessSpec {
        health: None,
        ..process_spec()
    });
    vm.assign(1, only(web.clone()));
    assert_eq!(vm.is(&web.address, ConditionKind::Converged), Some(false));
    vm.pass(1_100);
    assert_eq!(vm.is(&web.address, ConditionKind::Converged), Some(true));
}

#[test]
fn an_unhealthy_process_is_restarted_with_backoff() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    vm.assign(1, only(web.clone()));
    vm.pass(100);
    assert_eq!(vm.is(&web.address, ConditionKind::Healthy), Some(true));
    vm.healthy = false;
    vm.pass(95_000);
    let stops = vm.acts.iter().filter(|(_, a)| *a == Action::Stop).count();
    assert_eq!(stops, 1, "three checks have failed");
    assert!(vm.alive(&web.address));
    vm.healthy = true;
    vm.pass(2_000);
    assert_eq!(vm.is(&web.address, ConditionKind::Healthy), Some(true));
}

#[test]
fn restart_policies_are_kept() {
    for (policy, status, again) in [
        (RestartPolicy::Never, ExitStatus::Code(1), false),
        (RestartPolicy::OnFailure, ExitStatus::Code(0), false),
        (RestartPolicy::OnFailure, ExitStatus::Code(1), true),
        (RestartPolicy::Always, ExitStatus::Code(0), true),
    ] {
        let mut vm = Vm::new();
        let mut spec = process_spec();
        spec.restart.policy = policy;
        let web = process(spec);
        vm.assign(1, only(web.clone()));
        vm.pass(20_000);
        vm.kill(&web.address, status);
        vm.pass(100_000);
        assert_eq!(vm.alive(&web.address), again, "{policy:?} {status:?}");
    }
}

/// Found by the simulator. Mutation: drop `is_fresh` from `Slot::converged`.
#[test]
fn a_dependent_waits_for_the_new_version_of_what_it_waits_for() {
    let mut vm = Vm::new();
    let folder = directory("/a");
    let inner = file("/a/b", "old", &[&folder.address]);
    let both = |mode: u32, text: &str| {
        let mut folder = folder.clone();
        if let ResourceSpec::Directory(spec) = &mut folder.spec {
            spec.mode = Mode(mode);
        }
        vec![
            Entry::from(folder.clone()),
            Entry::from(file("/a/b", text, &[&folder.address])),
        ]
    };
    vm.assign(1, both(0o755, "old"));
    vm.acts.clear();
    vm.assign(2, both(0o700, "new"));
    let order: Vec<&Address> = vm.acts.iter().map(|(a, _)| a).collect();
    assert_eq!(order, [&folder.address, &inner.address]);
}

/// Found by the simulator. Mutation: drop `stale` from `Reconciler::observed`.
#[test]
fn an_answer_that_was_asked_for_under_another_spec_proves_nothing() {
    let mut vm = Vm::new();
    let old = file("/motd", "old", &[]);
    let new = file("/motd", "new", &[]);
    vm.assign(1, only(old.clone()));
    let event = |generation, resource: &Resource| Event::Assigned {
        generation: Generation(generation),
        assignment: Arc::new(Assignment::build(header(), only(resource.clone()))),
        missing: Vec::new(),
    };
    // The driver is looking at the old version while the new one is assigned.
    let now = vm.now();
    vm.reconciler.handle(event(2, &old), now);
    vm.reconciler.handle(event(3, &new), now);
    let seen = Observation::Present { differs: vec![] };
    let effects = vm
        .reconciler
        .handle(Event::Observed(vec![(new.address.clone(), Ok(seen))]), now);
    assert_ne!(vm.is(&new.address, ConditionKind::Converged), Some(true));
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Observe { .. })),
        "it looks again: {effects:?}"
    );
}

#[test]
fn a_changed_command_restarts_and_a_changed_check_does_not() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    vm.assign(1, only(web.clone()));
    vm.pass(2_000);
    vm.acts.clear();
    let mut spec = process_spec();
    spec.health = None;
    spec.stop.grace_ms = 1;
    vm.assign(2, only(process(spec.clone())));
    vm.pass(2_000);
    assert_eq!(vm.acts, []);
    spec.argv.push("--new".into());
    vm.assign(3, only(process(spec.clone())));
    vm.pass(2_000);
    let actions: Vec<&Action> = vm.acts.iter().map(|(_, a)| a).collect();
    assert_eq!(actions, [&Action::Stop, &Action::Start]);
    spec.state = RunState::Stopped;
    vm.assign(4, only(process(spec)));
    vm.pass(100_000);
    assert!(!vm.alive(&web.address));
    assert_eq!(vm.reason(&web.address), Reason::Stopped);
}

#[test]
fn a_failure_blocks_only_what_depends_on_it_and_is_tried_again() {
    let mut vm = Vm::new();
    let folder = directory("/a");
    let inner = file("/a/b", "x", &[&folder.address]);
    let other = file("/c", "x", &[]);
    vm.faults.insert(
        folder.address.clone(),
        Fault::new(Reason::DiskFull, "no space left"),
    );
    vm.assign(
        1,
        vec![
            Entry::from(folder.clone()),
            Entry::from(inner.clone()),
            Entry::from(other.clone()),
        ],
    );
    assert_eq!(vm.is(&other.address, ConditionKind::Converged), Some(true));
    assert_eq!(vm.is(&folder.address, ConditionKind::Blocked), Some(true));
    assert_eq!(vm.reason(&inner.address), Reason::WaitsFor);
    vm.pass(60_000);
    let tries = vm.acts.iter().filter(|(a, _)| *a == folder.address).count();
    assert!((5..12).contains(&tries), "{tries} tries in a minute");
    vm.faults.clear();
    vm.pass(75_000);
    assert_eq!(vm.is(&inner.address, ConditionKind::Converged), Some(true));
}

/// Mutation: let `decide_removal` remove what is foreign, and the stranger's file goes.
#[test]
fn removal_stops_then_removes_then_proves_and_spares_strangers() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    let folder = directory("/a");
    let inner = file("/a/b", "x", &[&folder.address]);
    let theirs = file("/theirs", "x", &[]);
    let all = [&web, &folder, &inner];
    vm.assign(1, all.iter().map(|r| Entry::from((*r).clone())).collect());
    vm.pass(2_000);
    vm.acts.clear();
    vm.things.insert(theirs.address.clone(), Thing::Foreign);
    let mut entries: Vec<Entry> = all.iter().map(|r| tombstone(&r.address, 2)).collect();
    entries.push(tombstone(&theirs.address, 2));
    vm.assign(2, entries);
    vm.pass(2_000);
    let order: Vec<(&str, &Action)> = vm
        .acts
        .iter()
        .map(|(a, action)| (&*a.name, action))
        .collect();
    assert_eq!(
        order,
        [
            ("web/0", &Action::Stop),
            ("web/0", &Action::Remove),
            ("/a/b", &Action::Remove),
            ("/a", &Action::Remove)
        ]
    );
    assert_eq!(vm.things.keys().collect::<Vec<_>>(), [&theirs.address]);
    assert!(
        vm.reconciler
            .statuses()
            .all(|s| s.gone && s.generation == Generation(2))
    );
    vm.assign(3, vec![]);
    assert_eq!(vm.reconciler.statuses().count(), 0);
}

#[test]
fn a_complete_assignment_that_leaves_something_out_removes_it() {
    let mut vm = Vm::new();
    let motd = file("/motd", "x", &[]);
    vm.assign(1, only(motd.clone()));
    vm.assign(2, vec![]);
    vm.pass(1_000);
    assert!(vm.things.is_empty());
}

#[test]
fn a_new_process_waits_for_the_old_one_that_holds_its_port() {
    let mut vm = Vm::new();
    let old = process(process_spec());
    vm.assign(1, only(old.clone()));
    vm.pass(2_000);
    let mut new = process(process_spec());
    new.address.owner = OwnerName::new("aaa-first").unwrap();
    vm.acts.clear();
    vm.assign(
        2,
        vec![Entry::from(new.clone()), tombstone(&old.address, 2)],
    );
    vm.pass(2_000);
    let order: Vec<(&str, &Action)> = vm
        .acts
        .iter()
        .map(|(a, action)| (a.owner.as_str(), action))
        .collect();
    assert_eq!(
        order,
        [
            ("o", &Action::Stop),
            ("o", &Action::Remove),
            ("aaa-first", &Action::Start)
        ]
    );
}

#[test]
fn a_running_process_is_taken_over_by_a_new_agent_and_not_started_twice() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    vm.assign(1, only(web.clone()));
    vm.pass(2_000);
    let before = vm.things.clone();
    let applied = vm.reconciler.applied().clone();
    vm.reconciler = Reconciler::new(
        Settings {
            resync_ms: 30_000,
            full_every: 20,
            seed: 3,
        },
        applied,
    );
    vm.events.clear();
    vm.assign(1, only(web));
    vm.pass(5_000);
    assert_eq!(vm.things, before);
    assert_eq!(vm.events[0].1, EventKind::Reattached);
}

#[test]
fn content_that_is_still_on_its_way_is_waited_for() {
    let mut vm = Vm::new();
    let digest = Hash::of(b"blob");
    let mut motd = file("/motd", "x", &[]);
    motd.spec = ResourceSpec::File(FileSpec {
        notify: Default::default(),
        path: "/motd".into(),
        content: FileContent::Blob { digest, size: 4 },
        mode: Mode(0o644),
        owner: None,
        group: None,
    });
    let assignment = Arc::new(Assignment::build(header(), only(motd.clone())));
    vm.feed(Event::Assigned {
        generation: Generation(1),
        assignment,
        missing: vec![digest],
    });
    vm.pass(1_000);
    assert_eq!(
        (vm.acts.len(), vm.reason(&motd.address)),
        (0, Reason::ContentMissing)
    );
    vm.feed(Event::Arrived(digest));
    assert_eq!(vm.is(&motd.address, ConditionKind::Converged), Some(true));
}

proptest::proptest! {
    /// Whatever happens in whatever order, once the disturbances stop everything converges, and then nothing moves.
    #[test]
    fn when_disturbances_stop_it_converges_and_rests(steps in proptest::collection::vec((0u8..8, 0usize..4, 0u64..40_000), 0..60)) {
        let mut vm = Vm::new();
        let folder = directory("/a");
        let inner = file("/a/b", "x", &[&folder.address]);
        let other = file("/c", "y", &[]);
        let web = process(process_spec());
        let all = [folder, inner, other, web];
        let mut generation = 1;
        let entries = |gone: usize| -> Vec<Entry> {
            all.iter().enumerate().map(|(i, r)| if i == gone { tombstone(&r.address, 1) } else { Entry::from(r.clone()) }).collect()
        };
        vm.assign(generation, entries(9));
        for (what, which, wait) in steps {
            let target = all[which].address.clone();
            match what {
                0 => { vm.things.remove(&target); vm.feed(Event::Woken(vec![target])); }
                1 if target.kind != ResourceKind::Process => { vm.things.insert(target.clone(), Thing::Edited); }
                2 if vm.alive(&target) => vm.kill(&target, ExitStatus::Code(1)),
                3 => { vm.faults.insert(target, Fault::new(Reason::DiskFull, "full")); }
                4 => { vm.faults.clear(); }
                5 => { generation += 1; vm.assign(generation, entries(which)); }
                6 => { generation += 1; vm.assign(generation, entries(9)); }
                _ => vm.healthy = !vm.healthy,
            }
            vm.pass(wait);
        }
        vm.faults.clear();
        vm.healthy = true;
        vm.assign(generation + 1, entries(9));
        vm.pass(300_000);
        for status in vm.reconciler.statuses() {
            proptest::prop_assert!(status.is(ConditionKind::Converged), "{status:?}");
        }
        vm.acts.clear();
        vm.pass(600_000);
        proptest::prop_assert_eq!(&vm.acts, &vec![]);
    }
}
