//! What is ordered by hand stands above everything else, and is done once.

use plumb_model::hands::{Came, Hands, Hold, Restart, Stopped};
use plumb_model::{OnDisconnect, OrderNumber};

use super::*;
use crate::hands::Progress;

fn owner() -> OwnerName {
    address(ResourceKind::Process, "app/0").owner
}

fn stopped() -> Hands {
    let since = Timestamp::UNIX_EPOCH;
    let by = "anna".to_owned();
    Hands {
        stopped: BTreeMap::from([(owner(), Stopped { by, since })]),
        ..Hands::default()
    }
}

fn again(id: u64, only_start: bool) -> Hands {
    let restart = Restart {
        id: OrderNumber(id),
        by: "anna".into(),
        at: Timestamp::UNIX_EPOCH,
        only_start,
    };
    Hands {
        restarts: BTreeMap::from([(owner(), restart)]),
        ..Hands::default()
    }
}

impl Vm {
    fn hold(&self, address: &Address, ms: u64) -> Hands {
        let hold = Hold {
            by: "anna".into(),
            since: self.now().wall,
            until: self.now().wall + std::time::Duration::from_millis(ms),
            reason: "a look".into(),
        };
        Hands {
            holds: BTreeMap::from([(address.clone(), hold)]),
            ..Hands::default()
        }
    }

    /// Gives orders, and writes whatever is to be written until nothing more is.
    fn order(&mut self, hands: Hands) {
        self.feed(Event::Hands(hands));
        self.note();
    }

    fn note(&mut self) {
        while let Some((version, _)) = self.reconciler.take_progress() {
            self.feed(Event::Noted(version));
        }
    }

    /// An agent that starts anew, with what its disk holds.
    fn reborn(&mut self, hands: Hands, progress: Progress, resource: &Resource) {
        let applied = self.reconciler.applied().clone();
        let settings = Settings {
            resync_ms: 30_000,
            full_every: 20,
            seed: 2,
        };
        self.reconciler = Reconciler::new(settings, applied);
        self.reconciler.restore_hands(hands, progress);
        self.in_flight.clear();
        self.assign(1, only(resource.clone()));
    }

    fn starts(&self) -> usize {
        let starts = self.acts.iter().filter(|(_, act)| *act == Action::Start);
        starts.count()
    }

    fn restarted(&self, address: &Address) -> Option<OrderNumber> {
        let status = self.reconciler.statuses().find(|s| s.address == *address)?;
        status.process.as_ref()?.restarted
    }
}

fn running() -> (Vm, Resource, Address) {
    let app = process(process_spec());
    let at = app.address.clone();
    let mut vm = Vm::new();
    vm.assign(1, only(app.clone()));
    vm.pass(5_000);
    assert!(vm.alive(&at));
    (vm, app, at)
}

/// Mutation: let a new assignment, a death or a start of the agent come before an operator's stop.
#[test]
fn a_stop_stands_above_restarts_new_assignments_and_the_start_of_an_agent() {
    let (mut vm, app, at) = running();
    vm.order(stopped());
    vm.pass(1_000);
    assert!(!vm.alive(&at));
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
    assert_eq!(vm.reason(&at), Reason::Stopped);
    vm.pass(120_000);
    let mut other = process_spec();
    other.env.insert("A".into(), "b".into());
    vm.assign(2, only(process(other)));
    vm.pass(60_000);
    vm.reborn(stopped(), Progress::default(), &app);
    vm.pass(60_000);
    assert!(!vm.alive(&at));
    assert_eq!(vm.starts(), 1, "{:?}", vm.acts);
    vm.order(Hands::default());
    vm.pass(1_000);
    assert!(vm.alive(&at));
}

#[test]
fn what_was_stopped_before_it_ever_ran_is_started_whatever_its_drift_policy() {
    let mut app = process(process_spec());
    app.drift = DriftPolicy::Report;
    let at = app.address.clone();
    let mut vm = Vm::new();
    vm.order(stopped());
    vm.assign(1, only(app));
    vm.pass(60_000);
    assert_eq!(vm.starts(), 0);
    vm.order(Hands::default());
    vm.pass(1_000);
    assert!(vm.alive(&at));
}

/// Whoever stops an app that does not even start is told that it is stopped. Mutation: keep what failed.
#[test]
fn what_could_not_be_started_is_stopped_all_the_same() {
    let app = process(process_spec());
    let at = app.address.clone();
    let mut vm = Vm::new();
    let fault = Fault::new(Reason::CommandNotFound, "cannot be executed");
    vm.act_faults.insert(at.clone(), fault);
    vm.assign(1, only(app));
    vm.pass(60_000);
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(false));
    vm.order(stopped());
    vm.pass(1_000);
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
    assert_eq!(vm.reason(&at), Reason::Stopped);
    let tried = vm.starts();
    vm.pass(600_000);
    assert_eq!(vm.starts(), tried);
    vm.act_faults.clear();
    vm.order(Hands::default());
    vm.pass(1_000);
    assert!(vm.alive(&at));
}

/// Mutations: end what runs without its mark on the disk; mark again what another follows already.
#[test]
fn a_restart_ends_one_incarnation_once_wherever_the_agent_dies_in_between() {
    // The agent dies after so many writes of its progress, and the write before that is what its disk holds.
    for dies_after in 0..4 {
        let (mut vm, app, at) = running();
        let hands = again(7, false);
        let mut disk = vm.reconciler.progress_with(&hands);
        vm.feed(Event::Hands(hands.clone()));
        for _ in 0..dies_after {
            if let Some((version, progress)) = vm.reconciler.take_progress() {
                disk = progress;
                vm.feed(Event::Noted(version));
            }
        }
        vm.reborn(hands.clone(), disk, &app);
        vm.note();
        vm.pass(5_000);
        vm.note();
        assert_eq!(vm.starts(), 2, "dies after {dies_after}: {:?}", vm.acts);
        assert_eq!(vm.restarted(&at), Some(OrderNumber(7)));
        assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
        // The same orders come again, as they do with every new session.
        vm.order(hands);
        vm.pass(60_000);
        assert_eq!(vm.starts(), 2, "{:?}", vm.acts);
        vm.order(again(8, false));
        vm.pass(5_000);
        vm.note();
        assert_eq!(vm.starts(), 3);
    }
}

#[test]
fn nothing_is_ended_before_it_is_noted_which_incarnation_that_is() {
    let (mut vm, _, at) = running();
    vm.feed(Event::Hands(again(7, false)));
    vm.pass(60_000);
    assert!(vm.acts.iter().all(|(_, act)| *act != Action::Stop));
    vm.note();
    vm.pass(5_000);
    assert_eq!(vm.starts(), 2);
    assert!(vm.alive(&at));
}

#[test]
fn a_start_leaves_what_runs_alone_and_starts_what_its_policy_left_ended() {
    let (mut vm, _, at) = running();
    vm.order(again(7, true));
    vm.pass(5_000);
    vm.note();
    assert_eq!(vm.starts(), 1);
    assert_eq!(vm.restarted(&at), Some(OrderNumber(7)));

    let mut spec = process_spec();
    spec.restart.policy = RestartPolicy::Never;
    vm.assign(2, only(process(spec)));
    vm.pass(5_000);
    vm.kill(&at, ExitStatus::Code(0));
    vm.pass(60_000);
    assert!(!vm.alive(&at));
    let before = vm.starts();
    vm.order(again(8, true));
    vm.pass(1_000);
    assert!(vm.alive(&at));
    assert_eq!(vm.starts(), before + 1);
}

/// Mutation: leave `hold` out of what a slot decides.
#[test]
fn what_is_held_is_neither_corrected_nor_changed_until_its_time_is_over() {
    let held = file("/a", "one", &[]);
    let at = held.address.clone();
    let mut vm = Vm::new();
    vm.assign(1, only(held));
    vm.pass(1_000);
    let hands = vm.hold(&at, 600_000);
    vm.order(hands);
    vm.things.insert(at.clone(), Thing::Edited);
    vm.feed(Event::Woken(vec![at.clone()]));
    vm.pass(120_000);
    assert_eq!(vm.things.get(&at), Some(&Thing::Edited));
    assert_eq!(vm.is(&at, ConditionKind::Drifted), Some(true));
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
    // What is applied meanwhile waits as well.
    vm.assign(2, only(file("/a", "two", &[])));
    vm.pass(120_000);
    assert_eq!(vm.things.get(&at), Some(&Thing::Edited));
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(false));
    vm.pass(360_010);
    assert!(matches!(vm.things.get(&at), Some(Thing::Made(_))));
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
}

#[test]
fn what_stood_there_while_it_was_held_is_told_until_the_hold_is_forgotten() {
    let held = file("/a", "one", &[]);
    let at = held.address.clone();
    let mut vm = Vm::new();
    vm.assign(1, only(held.clone()));
    let found = Found {
        kind: FoundKind::File,
        mode: Mode(0o644),
        owner: "root".into(),
        group: "root".into(),
        size: Some(3),
        digest: None,
        text: Some("own".into()),
    };
    vm.feed(Event::Shown(at.clone(), found.clone()));
    let told = |vm: &Vm| {
        let status = vm.reconciler.statuses().find(|s| s.address == at);
        status.and_then(|s| s.found.clone())
    };
    assert_eq!(told(&vm), None, "nobody holds it");
    let hands = vm.hold(&at, 10_000);
    vm.order(hands.clone());
    vm.feed(Event::Shown(at.clone(), found.clone()));
    let (_, progress) = vm.reconciler.take_progress().unwrap();
    vm.pass(60_000);
    vm.reborn(hands, progress, &held);
    vm.pass(1_000);
    assert_eq!(told(&vm).as_deref(), Some(&found));
    vm.order(Hands::default());
    vm.pass(1_000);
    assert_eq!(told(&vm), None);
}

#[test]
fn a_held_process_that_dies_stays_dead_and_an_express_order_is_obeyed_all_the_same() {
    let (mut vm, _, at) = running();
    let mut hands = vm.hold(&at, 600_000);
    vm.order(hands.clone());
    vm.kill(&at, ExitStatus::Code(1));
    vm.pass(60_000);
    assert!(!vm.alive(&at));
    hands.restarts = again(9, false).restarts;
    vm.order(hands);
    vm.pass(1_000);
    assert!(vm.alive(&at));
}

/// Mutation: count from the start of the agent, whatever it is told.
#[test]
fn a_process_that_asks_for_it_stands_still_without_the_control_plane_and_runs_with_it() {
    let mut spec = process_spec();
    spec.on_disconnect = Some(OnDisconnect {
        stop_after_ms: 3_600_000,
    });
    let app = process(spec);
    let at = app.address.clone();
    let mut vm = Vm::new();
    vm.feed(Event::Heard { away_ms: None });
    vm.assign(1, only(app.clone()));
    vm.pass(7_200_000);
    assert!(vm.alive(&at), "it is heard");
    vm.feed(Event::Heard { away_ms: Some(0) });
    vm.pass(1_800_000);
    assert!(vm.alive(&at));
    // The agent starts anew in between, and knows how long it was away.
    vm.reborn(Hands::default(), Progress::default(), &app);
    let away_ms = Some(1_800_000);
    vm.feed(Event::Heard { away_ms });
    vm.pass(1_799_000);
    assert!(vm.alive(&at));
    vm.pass(2_000);
    assert!(!vm.alive(&at));
    assert_eq!(vm.is(&at, ConditionKind::Converged), Some(true));
    vm.pass(7_200_000);
    assert!(!vm.alive(&at));
    vm.feed(Event::Heard { away_ms: None });
    vm.pass(1_000);
    assert!(vm.alive(&at));
    // One that does not ask for it runs on for ever.
    let (mut vm, _, at) = running();
    vm.feed(Event::Heard { away_ms: Some(0) });
    vm.pass(7_200_000);
    assert!(vm.alive(&at));
}

#[test]
fn a_check_tells_what_it_found_and_what_came_of_it() {
    let (a, b, c) = (
        file("/a", "a", &[]),
        file("/b", "b", &[]),
        file("/c", "c", &[]),
    );
    let (at, other, third) = (a.address.clone(), b.address.clone(), c.address.clone());
    let mut vm = Vm::new();
    vm.assign(1, [a, b, c].map(Entry::from).into());
    vm.pass(1_000);
    let check = |vm: &mut Vm| {
        vm.feed(Event::Check {
            request: 3,
            owner: None,
        });
        vm.pass(61_000);
        let mut all = vm.reconciler.take_checked();
        assert_eq!(all.len(), 1, "{all:?}");
        let checked = all.remove(0);
        assert_eq!((checked.request, checked.checked), (3, 3));
        let came = checked.findings.into_iter().map(|f| (f.address, f.came));
        came.collect::<Vec<_>>()
    };
    assert_eq!(check(&mut vm), []);
    vm.things.insert(at.clone(), Thing::Edited);
    vm.things.insert(other.clone(), Thing::Edited);
    vm.things.insert(third.clone(), Thing::Edited);
    let fault = Fault::new(Reason::DiskFull, "no space left");
    vm.act_faults.insert(other.clone(), fault);
    let hands = vm.hold(&third, 600_000);
    vm.order(hands);
    assert_eq!(
        check(&mut vm),
        [
            (at, Came::Corrected),
            (other, Came::Failed),
            (third, Came::Held)
        ]
    );
    // Of something that is not there nothing has to be checked.
    vm.feed(Event::Check {
        request: 4,
        owner: Some(OwnerName::new("nobody").unwrap()),
    });
    assert_eq!(vm.reconciler.take_checked()[0].checked, 0);
}
