//! Kinds that the machine cannot drive.

use super::*;

/// Mutation: let `retry_ms` treat every fault alike.
#[test]
fn what_the_machine_cannot_do_is_tried_once_a_minute_and_blocks_only_what_waits_for_it() {
    let mut vm = Vm::new();
    let web = process(process_spec());
    let first = file("/needs", "x", &[&web.address]);
    let other = file("/other", "x", &[]);
    let lacks = Fault::new(
        Reason::LacksCapability,
        "this version of plumb cannot make it",
    );
    vm.act_faults.insert(web.address.clone(), lacks);
    vm.assign(
        1,
        [&web, &first, &other]
            .map(|r| Entry::from(r.clone()))
            .to_vec(),
    );
    vm.pass(600_000);
    let tries = vm.acts.iter().filter(|(a, _)| *a == web.address).count();
    assert!((9..=14).contains(&tries), "{tries} tries in ten minutes");
    let told = vm
        .events
        .iter()
        .filter(|(a, kind, _)| *a == web.address && *kind == EventKind::Failed);
    assert_eq!(told.count(), 1);
    assert_eq!(vm.is(&web.address, ConditionKind::Blocked), Some(true));
    assert_eq!(vm.reason(&web.address), Reason::LacksCapability);
    assert_eq!(vm.is(&other.address, ConditionKind::Converged), Some(true));
    assert_eq!(vm.reason(&first.address), Reason::WaitsFor);

    // Its tombstone settles at once, and what waited for it is free.
    vm.assign(
        2,
        vec![
            tombstone(&web.address, 2),
            Entry::from(file("/needs", "x", &[])),
        ],
    );
    vm.pass(5_000);
    let gone = vm.reconciler.statuses().find(|s| s.address == web.address);
    assert!(gone.unwrap().gone);
}
