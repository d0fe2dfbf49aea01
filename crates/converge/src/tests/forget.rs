//! What leaves the assignment without an order to remove it.

use super::*;
use plumb_model::{OnDelete, VolumeSpec};

fn volume() -> Resource {
    let spec = VolumeSpec {
        on_delete: OnDelete::Keep,
    };
    resource(
        &address(ResourceKind::Volume, "data"),
        ResourceSpec::Volume(spec),
        &[],
    )
}

/// Mutation: leave `holds_data` out of `assign`.
#[test]
fn what_holds_data_is_removed_by_an_express_order_alone() {
    let mut vm = Vm::new();
    let data = volume();
    let motd = file("/motd", "true", &[]);
    let both = vec![Entry::from(data.clone()), Entry::from(motd.clone())];
    vm.assign(1, both.clone());
    vm.acts.clear();
    // Forgotten: the complete assignment speaks of it no more.
    vm.assign(2, only(motd.clone()));
    vm.pass(600_000);
    assert_eq!(vm.acts, []);
    assert_eq!(
        vm.things[&data.address],
        Thing::Made(data.spec.clone().into())
    );
    assert!(vm.reconciler.statuses().all(|s| s.address != data.address));
    assert!(!vm.reconciler.applied().contains_key(&data.address));

    // Wanted again, it is what it was.
    vm.assign(3, both);
    vm.pass(1_000);
    assert_eq!(vm.acts, []);
    assert_eq!(vm.is(&data.address, ConditionKind::Converged), Some(true));

    // An order that is given and then taken back is none either, even while it is under way.
    vm.faults
        .insert(data.address.clone(), Fault::new(Reason::Io, "away"));
    vm.assign(
        4,
        vec![tombstone(&data.address, 4), Entry::from(motd.clone())],
    );
    vm.assign(5, only(motd.clone()));
    vm.faults.clear();
    vm.pass(600_000);
    assert_eq!(
        vm.things[&data.address],
        Thing::Made(data.spec.clone().into())
    );

    vm.assign(6, vec![tombstone(&data.address, 6), Entry::from(motd)]);
    vm.pass(1_000);
    assert!(!vm.things.contains_key(&data.address));
}

#[test]
fn what_is_forgotten_while_a_driver_looks_at_it_takes_no_harm() {
    let mut vm = Vm::new();
    let data = volume();
    let assign = |generation, entries| Event::Assigned {
        generation: Generation(generation),
        assignment: Arc::new(Assignment::build(header(), entries)),
        missing: vec![],
    };
    let effects = vm
        .reconciler
        .handle(assign(1, only(data.clone())), vm.now());
    assert!(matches!(effects[0], Effect::Observe { .. }));
    let effects = vm.reconciler.handle(assign(2, vec![]), vm.now());
    assert_eq!(effects, []);
    let late = Event::Observed(vec![(data.address, Ok(Observation::Absent))]);
    assert_eq!(vm.reconciler.handle(late, vm.now()), []);
}
