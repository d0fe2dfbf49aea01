//! Owners that are renamed: nothing that runs is touched, whatever the agent missed.

use super::*;

/// A resource of an owner, which was of the others before, newest first.
fn of(resource: &Resource, owner: &str, before: &[&str]) -> Resource {
    let at = |owner: &str| {
        let owner = OwnerName::new(owner).unwrap();
        Address::new(
            &header().machine,
            &owner,
            resource.address.kind,
            &resource.address.name,
        )
    };
    Resource {
        address: at(owner),
        was: before.first().map(|owner| at(owner)),
        was_before: before.iter().skip(1).map(|owner| at(owner)).collect(),
        ..resource.clone()
    }
}

fn web(owner: &str, before: &[&str]) -> Resource {
    of(&process(process_spec()), owner, before)
}

fn run(vm: &Vm, resource: &Resource) -> String {
    match vm.things.get(&resource.address) {
        Some(Thing::Alive(run)) => run.id.clone(),
        other => panic!("{} is not alive: {other:?}", resource.address),
    }
}

fn restart(vm: &mut Vm) {
    let settings = Settings {
        resync_ms: 30_000,
        full_every: 20,
        seed: 9,
    };
    vm.reconciler = Reconciler::new(settings, vm.reconciler.applied().clone());
}

fn serving(owner: &str) -> (Vm, Resource, String) {
    let mut vm = Vm::new();
    let old = web(owner, &[]);
    vm.assign(1, only(old.clone()));
    vm.pass(20_000);
    let id = run(&vm, &old);
    (vm, old, id)
}

fn acts(vm: &Vm) -> Vec<&Action> {
    vm.acts.iter().map(|(_, action)| action).collect()
}

/// Mutation: leave `renames::find` out, and the old one is stopped and a new one started.
#[test]
fn a_renamed_process_goes_on_and_keeps_what_is_known_of_it() {
    let (mut vm, old, id) = serving("a");
    vm.kill(&old.address, ExitStatus::Code(3));
    vm.pass(20_000);
    let again = run(&vm, &old);
    assert_ne!(again, id);
    vm.acts.clear();
    vm.events.clear();
    let new = web("b", &["a"]);
    vm.assign(2, only(new.clone()));
    vm.pass(20_000);
    assert!(
        matches!(acts(&vm)[..], [Action::Move { .. }]),
        "{:?}",
        vm.acts
    );
    assert_eq!(run(&vm, &new), again);
    let status = vm
        .reconciler
        .statuses()
        .find(|s| s.address == new.address)
        .unwrap();
    let process = status.process.as_ref().unwrap();
    assert_eq!(
        (process.restarts, process.incarnation.as_deref()),
        (1, Some(&*again))
    );
    assert!(process.health.len() > 2 && status.is(ConditionKind::Healthy));
    assert!(
        vm.events
            .iter()
            .any(|(_, _, text)| text.contains("m/a/process/web/0 before")),
        "{:?}",
        vm.events
    );
    // It is still watched and probed under the new name.
    let probes = process.health.back().unwrap().at;
    vm.pass(60_000);
    let status = vm
        .reconciler
        .statuses()
        .find(|s| s.address == new.address)
        .unwrap();
    assert!(status.process.as_ref().unwrap().health.back().unwrap().at > probes);
    vm.kill(&new.address, ExitStatus::Code(1));
    vm.pass(20_000);
    assert_eq!(vm.is(&new.address, ConditionKind::Converged), Some(true));
    vm.acts.clear();
    vm.assign(3, only(new));
    vm.pass(600_000);
    assert_eq!(vm.acts, []);
}

#[test]
fn one_that_waits_to_be_started_again_goes_on_waiting_under_its_new_name() {
    let mut vm = Vm::new();
    let old = web("a", &[]);
    vm.assign(1, only(old.clone()));
    for _ in 0..7 {
        if vm.alive(&old.address) {
            vm.kill(&old.address, ExitStatus::Code(1));
        }
        vm.pass(100);
    }
    vm.pass(30_000);
    vm.kill(&old.address, ExitStatus::Code(1));
    let before = vm.acts.iter().filter(|(_, a)| *a == Action::Start).count();
    let new = web("b", &["a"]);
    vm.assign(2, only(new.clone()));
    vm.pass(10);
    let after = vm.acts.iter().filter(|(_, a)| *a == Action::Start).count();
    assert_eq!(before, after, "its pause was forgotten");
    vm.pass(120_000);
    assert!(vm.alive(&new.address));
}

/// Mutation: look at the newest old address alone.
#[test]
fn renamed_twice_before_the_agent_heard_of_it_it_is_found() {
    let (mut vm, _, id) = serving("a");
    let new = web("c", &["b", "a"]);
    vm.assign(3, only(new.clone()));
    vm.pass(20_000);
    assert_eq!(run(&vm, &new), id);
}

#[test]
fn an_agent_that_was_away_or_crashed_before_the_move_finds_it() {
    for before in [&["a"][..], &["b", "a"][..]] {
        let (mut vm, _, id) = serving("a");
        // The assignment reached the disk, and then the agent died.
        restart(&mut vm);
        let new = web("z", before);
        vm.assign(3, only(new.clone()));
        vm.pass(20_000);
        assert_eq!(run(&vm, &new), id);
        restart(&mut vm);
        vm.assign(3, only(new.clone()));
        vm.pass(20_000);
        assert_eq!(run(&vm, &new), id);
    }
}

#[test]
fn renamed_and_changed_at_once_it_is_moved_and_then_replaced() {
    let (mut vm, _, id) = serving("a");
    vm.acts.clear();
    let mut new = web("b", &["a"]);
    let ResourceSpec::Process(spec) = &mut new.spec else {
        panic!()
    };
    spec.env.insert("LEVEL".into(), "2".into());
    vm.assign(2, only(new.clone()));
    vm.pass(30_000);
    assert!(
        matches!(
            acts(&vm)[..],
            [Action::Move { .. }, Action::Stop, Action::Start]
        ),
        "{:?}",
        vm.acts
    );
    assert_ne!(run(&vm, &new), id);
    assert!(vm.acts.iter().all(|(address, _)| *address == new.address));
}

#[test]
fn renamed_back_and_forth_it_goes_on() {
    let (mut vm, _, id) = serving("a");
    for (n, (owner, before)) in [
        ("b", &["a"][..]),
        ("a", &["b"]),
        ("b", &["a"]),
        ("c", &["b", "a"]),
        ("a", &["c", "b"]),
    ]
    .into_iter()
    .enumerate()
    {
        let new = web(owner, before);
        vm.assign(n as u64 + 2, only(new.clone()));
        vm.pass(20_000);
        assert_eq!(run(&vm, &new), id, "{owner}");
    }
}

/// Mutation: leave `taken_by` out of `advance`, and the new app takes the old one's process for its own.
#[test]
fn a_new_app_under_the_old_name_starts_after_the_move_and_afresh() {
    for down in [false, true] {
        let (mut vm, old, id) = serving("a");
        if down {
            restart(&mut vm);
        }
        vm.acts.clear();
        let new = web("b", &["a"]);
        let mut fresh = old.clone();
        let ResourceSpec::Process(spec) = &mut fresh.spec else {
            panic!()
        };
        spec.argv = vec!["another".into()];
        spec.ports.clear();
        vm.assign(
            2,
            vec![Entry::from(fresh.clone()), Entry::from(new.clone())],
        );
        vm.pass(20_000);
        assert!(
            matches!(acts(&vm)[..], [Action::Move { .. }, Action::Start]),
            "{:?}",
            vm.acts
        );
        assert_eq!(run(&vm, &new), id);
        let second = run(&vm, &fresh);
        assert_ne!(second, id);
        // A restarted agent that has lost its notes does not move the wrong one.
        vm.reconciler = Reconciler::new(
            Settings {
                resync_ms: 30_000,
                full_every: 20,
                seed: 3,
            },
            BTreeMap::new(),
        );
        vm.assign(
            2,
            vec![Entry::from(fresh.clone()), Entry::from(new.clone())],
        );
        vm.pass(20_000);
        assert_eq!((run(&vm, &new), run(&vm, &fresh)), (id, second));
    }
}

/// Mutation: let a move begin while the old address is busy.
#[test]
fn a_move_waits_for_what_is_under_way_at_the_old_address() {
    let mut vm = Vm::new();
    let old = web("a", &[]);
    let assignment = |entries| Arc::new(Assignment::build(header(), entries));
    let effects = vm.reconciler.handle(
        Event::Assigned {
            generation: Generation(1),
            assignment: assignment(only(old.clone())),
            missing: vec![],
        },
        vm.now(),
    );
    assert!(matches!(effects[0], Effect::Observe { .. }));
    let new = web("b", &["a"]);
    let effects = vm.reconciler.handle(
        Event::Assigned {
            generation: Generation(2),
            assignment: assignment(only(new.clone())),
            missing: vec![],
        },
        vm.now(),
    );
    assert!(
        !effects.iter().any(|e| matches!(e, Effect::Act { .. })),
        "{effects:?}"
    );
    vm.in_flight.insert(old.address.clone());
    vm.feed(Event::Observed(vec![(
        old.address.clone(),
        Ok(Observation::Absent),
    )]));
    vm.pass(20_000);
    assert!(vm.alive(&new.address) && !vm.alive(&old.address));
}

#[test]
fn a_move_that_fails_backs_off_holds_the_old_name_back_and_heals() {
    let (mut vm, old, id) = serving("a");
    let new = web("b", &["a"]);
    let fault = Fault::new(Reason::DiskFull, "no space left");
    vm.act_faults.insert(new.address.clone(), fault);
    vm.acts.clear();
    vm.assign(2, vec![Entry::from(old.clone()), Entry::from(new.clone())]);
    vm.pass(60_000);
    assert!(
        acts(&vm).iter().all(|a| matches!(a, Action::Move { .. })),
        "{:?}",
        vm.acts
    );
    assert!((4..12).contains(&vm.acts.len()), "{:?}", vm.acts);
    assert_eq!(vm.is(&new.address, ConditionKind::Blocked), Some(true));
    assert!(vm.things.contains_key(&old.address) && !vm.things.contains_key(&new.address));
    vm.act_faults.clear();
    vm.pass(60_000);
    assert_eq!(run(&vm, &new), id);
    assert!(vm.alive(&old.address));
}

#[test]
fn reported_drift_is_left_by_a_rename() {
    let mut vm = Vm::new();
    let mut motd = file("/motd", "true", &[]);
    motd.drift = DriftPolicy::Report;
    let old = of(&motd, "a", &[]);
    vm.assign(1, only(old.clone()));
    vm.things.insert(old.address.clone(), Thing::Edited);
    vm.feed(Event::Woken(vec![old.address.clone()]));
    let new = of(&motd, "b", &["a"]);
    vm.assign(2, only(new.clone()));
    vm.pass(100_000);
    assert_eq!(vm.things[&new.address], Thing::Edited);
}

#[test]
fn a_tombstone_of_the_old_name_settles_after_the_move_and_takes_nothing_along() {
    let (mut vm, old, id) = serving("a");
    let new = web("b", &["a"]);
    vm.assign(
        2,
        vec![tombstone(&old.address, 2), Entry::from(new.clone())],
    );
    vm.pass(20_000);
    assert_eq!(run(&vm, &new), id);
    let gone = vm.reconciler.statuses().find(|s| s.address == old.address);
    assert!(gone.unwrap().gone);
}
