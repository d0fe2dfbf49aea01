//! What stands in the way and was not made by Plumb.

use super::*;

fn foreign(vm: &mut Vm, resource: &Resource) {
    vm.things.insert(resource.address.clone(), Thing::Foreign);
}

fn status(vm: &Vm, address: &Address) -> plumb_model::ResourceStatus {
    let found = vm.reconciler.statuses().find(|s| s.address == *address);
    found.expect("it was reported").clone()
}

/// Mutation: adopt whatever stands there, or leave the report of it out.
#[test]
fn what_is_not_ours_is_left_and_told_of_until_it_may_be_adopted() {
    let mut vm = Vm::new();
    let mut motd = file("/motd", "true", &[]);
    foreign(&mut vm, &motd);
    vm.assign(1, only(motd.clone()));
    vm.pass(200_000);
    assert_eq!(vm.acts, []);
    let said = status(&vm, &motd.address);
    let blocked = said.condition(ConditionKind::Blocked).unwrap();
    assert_eq!(blocked.reason, Reason::NotOurs);
    assert_eq!(
        blocked.message,
        "something that Plumb did not make is there: a stranger's file; adopt it with the next plan \
         (`plumb apply --allow adopt`, or `plumb dev --allow adopt`; what it was is kept), or move it away"
    );
    assert_eq!(said.found.unwrap().mode, Mode(0o600));

    motd.adopt = true;
    vm.assign(2, only(motd.clone()));
    vm.pass(1_000);
    assert_eq!(vm.acts, [(motd.address.clone(), Action::Adopt)]);
    assert_eq!(
        vm.things[&motd.address],
        Thing::Made(motd.spec.clone().into())
    );
    let said = status(&vm, &motd.address);
    assert!(said.is(ConditionKind::Converged) && said.found.is_none());
    assert!(
        vm.events
            .iter()
            .any(|(_, _, text)| text.contains("adopted"))
    );

    // From now on it is like anything else: drift is put right, and nothing is adopted twice.
    vm.things.insert(motd.address.clone(), Thing::Edited);
    vm.feed(Event::Woken(vec![motd.address.clone()]));
    assert_eq!(vm.acts.last().unwrap().1, Action::Write);
    vm.acts.clear();
    vm.pass(600_000);
    assert_eq!(vm.acts, []);
}

/// Mutation: leave `fits` out of the decision.
#[test]
fn what_is_of_another_type_is_never_adopted_and_the_message_says_so() {
    for kind in [
        FoundKind::Directory,
        FoundKind::Symlink,
        FoundKind::Fifo,
        FoundKind::Device,
    ] {
        let mut vm = Vm::new();
        let mut motd = file("/motd", "true", &[]);
        motd.adopt = true;
        vm.found = kind;
        foreign(&mut vm, &motd);
        vm.assign(1, only(motd.clone()));
        vm.pass(200_000);
        assert_eq!(vm.acts, [], "{kind:?}");
        let said = status(&vm, &motd.address);
        let blocked = said.condition(ConditionKind::Blocked).unwrap();
        assert!(
            blocked.message.contains("cannot be adopted"),
            "{}",
            blocked.message
        );
    }
}

#[test]
fn an_adoption_that_fails_backs_off_and_is_tried_again() {
    let mut vm = Vm::new();
    let mut motd = file("/motd", "true", &[]);
    motd.adopt = true;
    foreign(&mut vm, &motd);
    vm.assign(1, Vec::new());
    let full = Fault::new(Reason::DiskFull, "no space for the copy");
    vm.act_faults.insert(motd.address.clone(), full);
    vm.assign(2, only(motd.clone()));
    vm.pass(10_000);
    assert_eq!(vm.things[&motd.address], Thing::Foreign);
    assert_eq!(vm.reason(&motd.address), Reason::DiskFull);
    assert!((3..8).contains(&vm.acts.len()), "{:?}", vm.acts);
    vm.act_faults.clear();
    vm.pass(60_000);
    assert_eq!(vm.is(&motd.address, ConditionKind::Converged), Some(true));
}

/// Mutations: say "removed" of every removal; take what was let go for something that is still there.
#[test]
fn what_a_removal_left_or_kept_is_said_in_its_event_and_its_condition() {
    let motd = file("/etc/motd", "x", &[]);
    let note = "let go: it holds files that are not Plumb's";
    let gone = Observation::Gone {
        note: note.to_owned(),
    };
    let now = Now {
        mono_ms: 1,
        wall: plumb_model::Timestamp::UNIX_EPOCH,
    };
    let mut slot =
        crate::slot::Slot::new(crate::slot::Desired::Removed { was: None }, Generation(2));
    let mut effects = Vec::new();
    crate::life::told_of_success(
        &motd.address,
        &mut slot,
        &Action::Remove,
        &crate::decide::Why::Desired,
        &gone,
        now,
        0,
        &mut effects,
    );
    assert!(matches!(&effects[..], [Effect::Emit(event)] if event.message == note));
    slot.seen = Some(Ok(gone));
    slot.seen_under = Generation(2);
    assert_eq!(slot.decision(), Some(crate::decide::Decision::Gone));
    let status = crate::status::status(&motd.address, &slot, || None, now).unwrap();
    let converged = status.condition(ConditionKind::Converged).unwrap();
    assert_eq!((converged.status, converged.message.as_str()), (true, note));
}
