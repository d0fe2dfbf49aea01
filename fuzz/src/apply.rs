//! Plans a set of blueprints on an empty workspace, records the plan as the ledger would, and plans again.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumb_blueprint::BlueprintSet;
use plumb_model::capability::{Availability, Capability, MachineFacts};
use plumb_model::plan::Plan;
use plumb_model::state::{Next, Recorded, ReleaseBody, StateBody};
use plumb_model::{Assignment, Hash, Lineage};
use plumb_planner::{Input, Observed, PlanError, Planned, Request, Source, plan};

fn able() -> MachineFacts {
    let has = |capability: &Capability| {
        let detail = "here".to_owned();
        (*capability, Availability::Has { detail })
    };
    MachineFacts {
        version: "0.1.0".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: "host".to_owned(),
        kernel: "6.1".to_owned(),
        capabilities: Capability::ALL.iter().map(has).collect(),
        host: None,
    }
}

/// What the command line would have read at each path: nothing of it is looked at but its digest and, of a file, its text.
pub(crate) fn sources(set: &BlueprintSet) -> BTreeMap<String, Source> {
    let source = |path: &String| Source {
        digest: Hash::of(path.as_bytes()),
        size: path.len() as u64,
        text: Some(path.clone()),
    };
    set.paths
        .iter()
        .map(|path| (path.clone(), source(path)))
        .collect()
}

/// The next recorded state, by way of the stored bytes.
fn record(next: &Next) -> Recorded {
    for (hash, bytes) in &next.bodies {
        assert_eq!(
            *hash,
            Hash::of(bytes),
            "a body is stored under another hash"
        );
    }
    let mut releases = BTreeMap::new();
    for (owner, state) in &next.state.owners {
        let bytes = &next.bodies[&state.body];
        let body: ReleaseBody = serde_json::from_slice(bytes).expect("a release reads back");
        assert_eq!(&body.bytes(), bytes, "a release reads back as another");
        releases.insert(owner.clone(), Arc::new(body));
    }
    for machine in next.state.machines.values() {
        let bytes = &next.bodies[&machine.assignment];
        let assignment = Assignment::parse(bytes).expect("an assignment reads back");
        assert_eq!(
            &assignment.bytes(),
            bytes,
            "an assignment reads back as another"
        );
    }
    let bytes = next.state.bytes();
    let state: StateBody = serde_json::from_slice(&bytes).expect("a state reads back");
    assert_eq!(state, next.state, "a state reads back as another");
    Recorded { state, releases }
}

/// The history that everything here is planned against.
pub(crate) fn lineage() -> Lineage {
    Lineage::from_random([1; 16])
}

/// A request for all of a set.
fn request(set: &BlueprintSet) -> Request {
    Request::Apply {
        blueprint: set.clone(),
        sources: sources(set),
        ask: Default::default(),
    }
}

/// What the machines have said: all but the first, which has never been heard of.
fn observed(set: &BlueprintSet) -> Observed {
    let mut observed = Observed::default();
    for name in set.machines.keys().skip(1) {
        observed.machines.insert(name.clone(), able());
    }
    observed
}

/// Plans a set on what is recorded.
fn go(set: &BlueprintSet, recorded: &Recorded) -> Result<Planned, PlanError> {
    plan(Input {
        request: &request(set),
        recorded,
        lineage: &lineage(),
        workspace: &set.workspace.name,
        observed: &observed(set),
        secrets: plumb_model::KnownSecrets::UNASKED,
        commit: None,
    })
}

/// The first plan of a set; none if the planner refuses it, which it says why.
pub(crate) fn first(set: &BlueprintSet) -> Option<Planned> {
    match go(set, &Recorded::default()) {
        Ok(planned) => Some(planned),
        Err(refused) => {
            assert!(!refused.problems.is_empty());
            None
        }
    }
}

/// Holds the law: an applied plan leaves nothing to plan. A set that the planner refuses is fine too.
pub fn check(set: &BlueprintSet) {
    let Some(planned) = first(set) else { return };
    let json = serde_json::to_vec(&planned.plan).expect("a plan is JSON");
    let read: Plan = serde_json::from_slice(&json).expect("a plan reads back");
    assert_eq!(read, planned.plan, "a plan reads back as another");
    assert_eq!(read.approval, read.approval_hash());
    let recorded = record(&planned.next);
    let again = go(set, &recorded).expect("what was planned once is planned again");
    assert!(again.plan.is_empty(), "{:#?}", again.plan);
    assert!(again.next.moved.is_empty() && again.next.released.is_empty());
}
