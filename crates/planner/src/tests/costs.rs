//! What a change costs and what is felt of it: the coverage table, and nothing else, decides.

use std::collections::BTreeMap;

use plumb_model::coverage::{self, Cost};
use plumb_model::plan::{Change, ChangeAction, Felt};
use plumb_model::{DriftPolicy, Resource, ResourceKind, ResourceSpec};
use serde_json::{Value, json};

use super::{World, address, machine, release_of};
use crate::{Planned, Request};

/// A value for each field of each kind, and another one.
fn values(kind: ResourceKind, field: &str) -> (Value, Value) {
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let health = |port: u16| json!({"probe": {"tcp": {"port": port}}, "interval_ms": 1, "timeout_ms": 1, "healthy_threshold": 1, "unhealthy_threshold": 1});
    match (kind, field) {
        (_, "digest") => (json!(one), json!(two)),
        (_, "size") => (json!(1), json!(2)),
        (_, "path") => (json!("/a"), json!("/b")),
        (_, "mode") => (json!("0644"), json!("0600")),
        (_, "owner" | "group" | "user") => (Value::Null, json!("root")),
        (_, "content") => (
            json!({"text": "a"}),
            json!({"blob": {"digest": one, "size": 1}}),
        ),
        (_, "argv") => (json!(["a"]), json!(["a", "b"])),
        (_, "env") => (json!({"A": "b", "C": "d"}), json!({"A": "c", "C": "d"})),
        (_, "workdir") => (Value::Null, json!({"artifact": one, "dir": ""})),
        (_, "ports") => (json!({"http": 1}), json!({"http": 1, "admin": 2})),
        (_, "health") => (health(1), health(2)),
        (_, "restart") => (
            json!({"policy": "always", "initial_ms": 1, "max_ms": 1}),
            json!({"policy": "never", "initial_ms": 1, "max_ms": 1}),
        ),
        (_, "stop") => (
            json!({"signal": 15, "grace_ms": 1}),
            json!({"signal": 2, "grace_ms": 1}),
        ),
        (_, "log") => (
            json!({"max_bytes": 1, "keep": 1}),
            json!({"max_bytes": 1, "keep": 2}),
        ),
        (_, "state") => (json!("running"), json!("stopped")),
        (kind, field) => panic!("{kind}.{field} has no values here: add two"),
    }
}

fn spec(kind: ResourceKind, fields: BTreeMap<&str, Value>) -> ResourceSpec {
    // A spec is written as its kind's word around its fields.
    serde_json::from_value(json!({ kind.as_str(): fields })).expect("a spec")
}

fn resource(kind: ResourceKind, fields: BTreeMap<&str, Value>) -> Resource {
    Resource::new(
        address(&format!("a/x/{kind}/name")),
        DriftPolicy::Enforce,
        spec(kind, fields),
    )
}

/// Records the first, and plans the second in its place.
fn between(first: Resource, second: Resource) -> Planned {
    let mut world = World::new(&["a"], "");
    world.go();
    let owner = first.address.owner.clone();
    let request = |resource, to| Request::Rollback {
        owner: owner.clone(),
        to: plumb_model::ReleaseNumber(to),
        body: release_of(resource),
    };
    world.carry_out(&request(first, 1));
    let planned = world.try_plan(&request(second, 2)).expect("a plan");
    super::check_plan(&planned.plan, &world.recorded);
    planned
}

/// Fails under the mutation: give one field its cost in `diff` instead of in its row.
#[test]
fn every_field_of_every_kind_costs_exactly_what_its_row_says() {
    for kind in ResourceKind::ALL {
        let rows = coverage::fields(kind);
        let base: BTreeMap<&str, Value> = rows
            .iter()
            .map(|row| (row.name, values(kind, row.name).0))
            .collect();
        for row in rows {
            let mut other = base.clone();
            other.insert(row.name, values(kind, row.name).1);
            let planned = between(resource(kind, base.clone()), resource(kind, other));
            let [change] = planned.plan.changes.as_slice() else {
                panic!("{kind}.{}: {:#?}", row.name, planned.plan.changes);
            };
            let what = format!("{kind}.{}", row.name);
            assert_eq!(change.cost, Some(row.cost), "{what}");
            assert!(
                change.attributes.iter().all(|a| a.cost == row.cost),
                "{what}"
            );
            assert!(
                change
                    .attributes
                    .iter()
                    .all(|a| a.path.starts_with(row.name)),
                "{what}"
            );
            assert!(
                change.attributes.iter().all(|a| a.before != a.after),
                "{what}"
            );
            assert_eq!(change.reasons, [format!("{} changed", row.name)]);
            let replaced = row.cost == Cost::Replace;
            assert_eq!(
                change.action == ChangeAction::ReplaceCreateFirst,
                replaced,
                "{what}"
            );
            assert_eq!(planned.plan.blast_radius.replacements, u32::from(replaced));
            let felt = planned.plan.owners[0].felt;
            let expected = match (kind, row.cost) {
                (ResourceKind::Process, Cost::Restart) if row.name == "state" => Felt::Stop,
                (ResourceKind::Process, Cost::Restart | Cost::Replace) => Felt::Restart,
                _ => Felt::InPlace,
            };
            assert_eq!(felt, expected, "{what}");
            let restarts = u32::from(expected == Felt::Restart);
            assert_eq!(planned.plan.blast_radius.restarts, restarts, "{what}");
        }
    }
}

const WEB: &str = "kind: App\nname: web\nmachines: a\nrun: serve\nports: { http: auto }\n";

/// The felt word and the change of the process between two ways of writing one app.
fn felt(first: &str, second: &str) -> (Felt, u32, Option<Change>) {
    let mut world = World::new(&["a"], first);
    world.go();
    world.write("x.yaml", second);
    let plan = world.go();
    let change = plan
        .changes
        .into_iter()
        .find(|c| c.address.kind == ResourceKind::Process);
    (plan.owners[0].felt, plan.blast_radius.restarts, change)
}

#[test]
fn what_is_felt_is_what_happens_to_the_processes() {
    let stopped = format!("{WEB}state: stopped\n");
    let other = WEB.replace("serve", "other");
    let check = |first: &str, second: &str, expected: Felt, restarts: u32| {
        let (felt, counted, _) = felt(first, second);
        assert_eq!((felt, counted), (expected, restarts), "{first}{second}");
    };
    check(WEB, &other, Felt::Restart, 1);
    check(WEB, &stopped, Felt::Stop, 0);
    check(&stopped, WEB, Felt::Start, 0);
    check(
        &stopped,
        &format!("{other}state: stopped\n"),
        Felt::Nothing,
        0,
    );
    check(WEB, &format!("{WEB}stop: 3s\n"), Felt::InPlace, 0);
    check(WEB, &format!("{WEB}drift: report\n"), Felt::InPlace, 0);
    check(WEB, &format!("{WEB}replicas: 2\n"), Felt::Start, 0);
    check(&format!("{WEB}replicas: 2\n"), WEB, Felt::Stop, 0);
}

#[test]
fn the_reason_for_a_downtime_names_the_port_that_both_need() {
    let downtime = |first: &str, second: &str| felt(first, second).2.unwrap().downtime.unwrap();
    let fixed = WEB.replace("auto", "8080");
    insta::assert_snapshot!(
        downtime(&fixed, &fixed.replace("serve", "other")),
        @"it is stopped before the new one starts, since both need port 8080"
    );
    insta::assert_snapshot!(
        downtime(&fixed, &WEB.replace("auto", "8081")),
        @"it is stopped before the new one starts, since nothing stands in front of it to switch over"
    );
    insta::assert_snapshot!(
        downtime(WEB, &format!("{WEB}state: stopped\n")),
        @"it is stopped, as the blueprint says"
    );
}

#[test]
fn new_content_of_a_source_replaces_the_artifact_and_restarts_what_runs_out_of_it() {
    let mut world = World::new(&["a"], &format!("{WEB}source: {{ path: app }}\n"));
    world.go();
    world
        .sources
        .insert("app".into(), super::Held::Bytes("v2".into()));
    let plan = world.go();
    let actions: Vec<_> = plan.changes.iter().map(|c| c.action).collect();
    assert_eq!(
        actions,
        [ChangeAction::ReplaceCreateFirst, ChangeAction::Update]
    );
    assert_eq!(
        plan.order,
        [(
            address("a/web/artifact/source"),
            address("a/web/process/app/0")
        )]
    );
    assert_eq!(plan.blast_radius.peak_unavailable.values().sum::<u32>(), 1);
    let origin = plan.changes[0].origin.as_ref().unwrap();
    assert_eq!((origin.file.as_str(), origin.line), ("x.yaml", 6));
}

#[test]
fn a_release_that_only_moves_its_number_restarts_nothing() {
    let two = "kind: App\nname: web\nmachines: a\nprocesses: { one: x, two: { run: y, env: { A: b } } }\nenv: { R: 'v${release}', L: '$${release}' }\n";
    let mut world = World::new(&["a"], two);
    world.go();
    world.write("x.yaml", &two.replace("A: b", "A: c"));
    let plan = world.go();
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.changes[0].address, address("a/web/process/two/0"));
    let env = world.process("a/web/process/one/0").env;
    assert_eq!(
        (env["R"].as_str(), env["L"].as_str()),
        ("v${release}", "$${release}")
    );
}

#[test]
fn each_process_comes_from_its_own_line() {
    let two = "kind: App\nname: web\nmachines: a\nprocesses:\n  one: x\n  two: y\n";
    let world = World::new(&["a"], two);
    let lines: Vec<u32> = world
        .plan()
        .plan
        .changes
        .iter()
        .map(|c| c.origin.as_ref().unwrap().line)
        .collect();
    assert_eq!(lines, [5, 6]);
    let (_, _, change) = felt(WEB, &WEB.replace("serve", "other"));
    assert_eq!(change.unwrap().origin.unwrap().line, 4);
}

#[test]
fn folders_come_before_what_is_in_them_and_go_after_it() {
    let text = "kind: Setup\nname: s\nmachines: a\ndirectories: { /srv: {}, /srv/a/b: {} }\nfiles: { /srv/a/b/f: { content: x }, /srv/g: { content: x } }\n";
    let mut world = World::new(&["a"], text);
    let short = |plan: &plumb_model::plan::Plan| -> Vec<String> {
        plan.order
            .iter()
            .map(|(a, b)| format!("{} {}", a.name, b.name))
            .collect()
    };
    let plan = world.go();
    assert_eq!(
        short(&plan),
        ["/srv /srv/a/b", "/srv /srv/g", "/srv/a/b /srv/a/b/f"]
    );
    world.write("x.yaml", "kind: App\nname: s\nmachines: a\nrun: x\n");
    let plan = world.go();
    assert_eq!(
        short(&plan),
        ["/srv/a/b /srv", "/srv/a/b/f /srv/a/b", "/srv/g /srv"]
    );
}

/// Fails under the mutation: order only by `after`.
#[test]
fn a_path_and_a_port_are_let_go_before_another_takes_them() {
    let app = |name: &str| {
        format!(
            "kind: App\nname: {name}\nmachines: a\nrun: x\nports: {{ p: 8080 }}\n---\nkind: Setup\nname: {name}-files\nmachines: a\nfiles: {{ /x: {{ content: x }} }}\n"
        )
    };
    let mut world = World::new(&["a"], &app("old"));
    world.go();
    world.write("x.yaml", &app("new"));
    let plan = world.go();
    let edge = |from: &str, to: &str| (address(from), address(to));
    assert_eq!(
        plan.order,
        [
            edge("a/old/process/app/0", "a/new/process/app/0"),
            edge("a/old-files/file//x", "a/new-files/file//x"),
        ]
    );
    assert_eq!(plan.blast_radius.machines, [machine("a")].into());
}
