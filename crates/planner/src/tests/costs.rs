//! What a change costs and what is felt of it: the coverage table, and nothing else, decides.

use std::collections::BTreeMap;

use plumb_model::coverage::{self, Cost, Redaction};
use plumb_model::plan::{Change, ChangeAction, Felt};
use plumb_model::secret::REDACTED;
use plumb_model::{DriftPolicy, Resource, ResourceKind, ResourceSpec};
use serde_json::{Value, json};

use super::{World, address, machine, release_of};
use crate::{Planned, Request};

/// A value for each field of each kind, and another one.
fn values(kind: ResourceKind, field: &str) -> (Value, Value) {
    use ResourceKind as K;
    let (one, two) = ("11".repeat(32), "22".repeat(32));
    let health = |port: u16| json!({"probe": {"tcp": {"port": port}}, "interval_ms": 1, "timeout_ms": 1, "healthy_threshold": 1, "unhealthy_threshold": 1});
    let secret =
        |version: u64| json!({"KEY": {"secret": {"name": "key", "version": version}, "as": "env"}});
    let folder = |artifact: &str| json!({"artifact": artifact, "dir": ""});
    match (kind, field) {
        (K::Image, "digest") => (json!("sha256:1"), json!("sha256:2")),
        (_, "digest") => (json!(one), json!(two)),
        (_, "size") => (json!(1), json!(2)),
        (K::Route, "path") => (json!("/"), json!("/api")),
        (_, "path") => (json!("/a"), json!("/b")),
        (_, "mode") => (json!("0644"), json!("0600")),
        (K::Service, "user") | (_, "database") => (json!("a"), json!("b")),
        (_, "owner" | "group" | "user" | "username") => (Value::Null, json!("root")),
        (_, "content") => (
            json!({"text": "a"}),
            json!({"blob": {"digest": one, "size": 1}}),
        ),
        (_, "notify") => (json!(["web"]), json!(["web", "api"])),
        (_, "argv") => (json!(["a"]), json!(["a", "b"])),
        (_, "entrypoint" | "command") => (Value::Null, json!(["a"])),
        (_, "env") => (json!({"A": "b", "C": "d"}), json!({"A": "c", "C": "d"})),
        (K::Container, "workdir") => (json!("/a"), json!("/b")),
        (_, "workdir") => (Value::Null, folder(&one)),
        (K::Container, "ports") => {
            let port = |number: u16| json!({"http": {"container": 80, "machine": number, "address": "127.0.0.1"}});
            (port(8080), port(8081))
        }
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
        (_, "secrets") => (secret(1), secret(2)),
        (_, "password") => (
            json!({"name": "pw", "version": 1}),
            json!({"name": "pw", "version": 2}),
        ),
        (_, "limits") => (json!({"memory_bytes": 1}), json!({"memory_bytes": 2})),
        (_, "schedule") => (
            Value::Null,
            json!({"cron": "* * * * *", "timezone": "UTC", "overlap": "skip"}),
        ),
        (_, "on_disconnect") => (
            json!({"stop_after_ms": 1000}),
            json!({"stop_after_ms": 2000}),
        ),
        (_, "toolchain") => (
            json!({"runtime": "node", "version": "20.1.0"}),
            json!({"runtime": "node", "version": "20.2.0"}),
        ),
        (_, "name") => (json!("curl"), json!("wget")),
        (_, "url") => (json!("https://a/x.git"), json!("https://b/x.git")),
        (K::Checkout, "wanted") => (json!({"branch": "main"}), json!({"tag": "v1"})),
        (_, "wanted") => (json!("20"), json!("21")),
        (_, "commit") => (json!("1234"), json!("5678")),
        (_, "runtime") => (json!("node"), json!("bun")),
        (_, "version") => (json!("20.1.0"), json!("20.2.0")),
        (_, "source") => (folder(&one), folder(&two)),
        (_, "method") => (json!({"steps": [["a"]]}), json!({"steps": [["b"]]})),
        (_, "timeout_ms") => (json!(1), json!(2)),
        (K::Image, "reference") => (json!("a/b:1"), json!("a/b:2")),
        (_, "image") => (Value::Null, json!({"built": one})),
        (_, "subnet") => (Value::Null, json!("10.0.0.0/24")),
        (_, "internal" | "reversible") => (json!(false), json!(true)),
        (_, "on_delete") => (json!("keep"), json!("destroy")),
        (_, "engine") => (json!("postgres"), json!("mysql")),
        (_, "address") => (json!("127.0.0.1"), json!("10.0.0.1")),
        (_, "port") => (json!(1), json!(2)),
        (_, "backup") => (
            Value::Null,
            json!({"cron": "* * * * *", "timezone": "UTC", "keep": 1, "folder": "/b"}),
        ),
        (_, "moment") => (json!("before"), json!("after")),
        (_, "mounts") => (
            json!({"/a": {"source": {"volume": "x/y"}}}),
            json!({"/a": {"source": {"path": "/y"}}}),
        ),
        (_, "networks") => (json!(["x/n"]), json!(["x/n", "x/m"])),
        (_, "labels") => (json!({"a": "b"}), json!({"a": "c"})),
        (_, "hosts") => (json!(["a.example"]), json!(["b.example"])),
        (_, "target") => (
            json!({"upstreams": ["127.0.0.1:1"]}),
            json!({"files": folder(&one)}),
        ),
        (kind, field) => panic!("{kind}.{field} has no values here: add two"),
    }
}

/// The values of a whole spec, with that of one field taken from the other side.
fn fields(kind: ResourceKind, other: Option<&str>) -> BTreeMap<&'static str, Value> {
    coverage::fields(kind)
        .iter()
        .map(|row| {
            let (one, two) = match (kind, row.name) {
                // A container is always made from something.
                (ResourceKind::Container, "image") => (
                    json!({"pulled": {"reference": "a", "digest": null}}),
                    json!({"built": "11".repeat(32)}),
                ),
                (_, name) => values(kind, name),
            };
            (row.name, if other == Some(row.name) { two } else { one })
        })
        .collect()
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

/// What is made beside the old one, and what cannot be.
fn replaced(kind: ResourceKind) -> ChangeAction {
    match kind {
        ResourceKind::Network | ResourceKind::Service => ChangeAction::ReplaceDeleteFirst,
        _ => ChangeAction::ReplaceCreateFirst,
    }
}

/// What is felt of a change of one field.
fn expected_felt(kind: ResourceKind, row: &coverage::Field) -> Felt {
    match (kind, row.name, row.cost) {
        (ResourceKind::Route, ..) => Felt::Reload,
        (kind, "state" | "schedule", _) if kind.runs() => Felt::Stop,
        (kind, _, Cost::Restart) if kind.runs() => Felt::Restart,
        (kind, _, Cost::Replace) if kind.runs() => Felt::Replace,
        (ResourceKind::Network, _, Cost::Replace) => Felt::Replace,
        _ => Felt::InPlace,
    }
}

/// The coverage contract: each field of each kind has a diff, a cost and a redaction.
///
/// Fails under the mutations: give one field its cost in `diff` instead of in its row; leave a field out of `of_fields`;
/// show a sensitive one.
#[test]
fn every_field_of_every_kind_costs_exactly_what_its_row_says() {
    for kind in ResourceKind::ALL {
        for row in coverage::fields(kind) {
            let what = format!("{kind}.{}", row.name);
            let (first, second) = (fields(kind, None), fields(kind, Some(row.name)));
            let planned = between(resource(kind, first), resource(kind, second));
            let [change] = planned.plan.changes.as_slice() else {
                panic!("{what}: {:#?}", planned.plan.changes);
            };
            assert_eq!(change.cost, Some(row.cost), "{what}");
            assert_eq!(change.reasons[0], format!("{} changed", row.name));
            assert!(!change.attributes.is_empty(), "{what}");
            let sensitive = row.redaction == Redaction::Sensitive;
            for attribute in &change.attributes {
                let field = attribute.path.split('.').next();
                assert_eq!(field, Some(row.name), "{what}");
                assert_eq!(attribute.cost, row.cost, "{what}");
                assert_eq!(attribute.sensitive, sensitive, "{what}");
                assert_eq!(attribute.digest.is_some(), sensitive, "{what}");
                let hidden = |v: &Option<Value>| v.as_ref().is_none_or(|v| v == REDACTED);
                let hides = hidden(&attribute.before) && hidden(&attribute.after);
                assert_eq!(hides, sensitive, "{what}");
                assert!(sensitive || attribute.before != attribute.after, "{what}");
            }
            let expected = match row.cost {
                Cost::Replace => replaced(kind),
                _ => ChangeAction::Update,
            };
            assert_eq!(change.action, expected, "{what}");
            let radius = &planned.plan.blast_radius;
            let is_replaced = row.cost == Cost::Replace;
            assert_eq!(radius.replacements, u32::from(is_replaced), "{what}");
            let loses = is_replaced && kind.holds_data();
            assert_eq!(radius.data_deletes, u32::from(loses), "{what}");
            let felt = expected_felt(kind, row);
            assert_eq!(planned.plan.owners[0].felt, felt, "{what}");
            let stops = matches!(felt, Felt::Restart | Felt::Replace);
            let restarts = u32::from(stops && kind.runs());
            assert_eq!(radius.restarts, restarts, "{what}");
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
    check(&format!("{WEB}replicas: 2\n"), WEB, Felt::StopPart, 0);
    check(
        WEB,
        &WEB.replace("kind: App", "kind: Setup").replace(
            "run: serve\nports: { http: auto }",
            "files: { /x: { content: x } }",
        ),
        Felt::Stop,
        0,
    );
}

/// Fails under the mutation: say of a removed instance that it stops, whatever else runs.
#[test]
fn one_of_three_that_goes_is_no_downtime_and_no_stop_of_the_app() {
    let three = format!("{WEB}replicas: 3\n");
    let mut world = World::new(&["a"], &three);
    world.go();
    world.write("x.yaml", &three.replace('3', "2"));
    let plan = world.plan().plan;
    assert_eq!(plan.owners[0].felt, Felt::StopPart);
    assert_eq!(plan.changes[0].felt, Felt::Stop);
    assert!(plan.owners[0].downtime.is_empty());
    assert!(plan.blast_radius.peak_unavailable.is_empty());
    // The last one is another matter.
    world.files.remove("x.yaml");
    world.write("y.yaml", "kind: Setup\nname: s\nmachines: a\n");
    let plan = world.plan().plan;
    let web = plan
        .owners
        .iter()
        .find(|o| o.owner.as_str() == "web")
        .unwrap();
    assert_eq!(web.felt, Felt::Stop);
    assert_eq!(plan.blast_radius.peak_unavailable[&web.owner], 3);
}

/// Fails under the mutation: take what is recorded as running for what runs.
#[test]
fn what_never_got_up_is_started_and_not_restarted() {
    let mut world = World::new(&["a"], WEB);
    world.go();
    let at = "a/web/process/app/0";
    world.write("x.yaml", &WEB.replace("serve", "other"));
    let felt = |world: &World| {
        let plan = world.plan().plan;
        let radius = &plan.blast_radius;
        let down = radius.peak_unavailable.len();
        (
            plan.changes[0].felt,
            plan.owners[0].felt,
            radius.restarts,
            down,
        )
    };
    let restarts = (Felt::Restart, Felt::Restart, 1, 1);
    assert_eq!(felt(&world), restarts);
    world.observe(at, super::Said::Failed);
    assert_eq!(felt(&world), (Felt::Start, Felt::Start, 0, 0));
    // What was said of an earlier generation says nothing of this one.
    world.observe_under(at, super::Said::Failed, plumb_model::Generation(0));
    assert_eq!(felt(&world), restarts);
    // It is what was to be that counts, not that somebody looks.
    world.observe(at, super::Said::Converged);
    assert_eq!(felt(&world), restarts);
}

/// Fails under the mutation: cost a service's version what its row says, whatever the version.
#[test]
fn another_major_version_of_a_service_takes_its_data_with_it_and_says_so() {
    let service =
        |engine: &str| format!("kind: Service\nname: db\nmachines: a\nengine: {engine}\n");
    let plan = |old: &str, new: &str| {
        let mut world = World::new(&["a"], &service(old));
        world.machines(&["a"]);
        world.go();
        world.write("x.yaml", &service(new));
        world.plan().plan
    };
    let said = |plan: &plumb_model::plan::Plan| {
        let change = &plan.changes[0];
        let consents: Vec<&str> = plan.consents.iter().map(|c| c.allow.as_str()).collect();
        format!(
            "{:?}, {:?}, {:?}, {consents:?}\n{}\n{}",
            change.action,
            change.cost.unwrap(),
            plan.owners[0].felt,
            change.reasons.join("\n"),
            change.downtime.as_deref().unwrap_or("no downtime")
        )
    };
    insta::assert_snapshot!(said(&plan("postgres@16.3", "postgres@17.1")), @r#"
    ReplaceDeleteFirst, Replace, Replace, ["data-loss"]
    version, wanted changed
    postgres 17.1 cannot read the data of 16.3, and plumb does not move it: to keep it, make the new version a Service of its own beside this one, and move the data over
    its data is destroyed
    it is stopped, and the new one starts empty
    "#);
    insta::assert_snapshot!(said(&plan("postgres@16.3", "postgres@16.4")), @r"
    Update, Restart, Restart, []
    version, wanted changed
    it is stopped before the new one starts, since only one can have its data
    ");
    insta::assert_snapshot!(said(&plan("redis@6.2.14", "redis@7.2.4")), @r"
    Update, Restart, Restart, []
    version, wanted changed
    redis 7.2.4 changes the form of the data when it starts, and 6.2.14 cannot read it afterwards: save a copy first
    it is stopped before the new one starts, since only one can have its data
    ");
    // Nobody knows the versions: what is written is told apart all the same.
    let unknown = plan("postgres@16", "postgres@17");
    assert_eq!(unknown.changes[0].action, ChangeAction::ReplaceDeleteFirst);
    assert!(unknown.consents.iter().any(|c| c.allow == "data-loss"));
}

/// Fails under the mutations: count a restart for each file that tells; leave those who are told out of the peak.
#[test]
fn what_two_files_tell_and_what_changes_itself_is_restarted_once_whatever_it_was_called() {
    let files = |name: &str, text: &str| {
        format!(
            "---\nkind: Setup\nname: s\nmachines: a\nfiles: {{ /1: {{ content: {text}, notify: [{name}] }}, /2: {{ content: {text}, notify: [{name}] }} }}\n"
        )
    };
    let mut world = World::new(&["a"], &format!("{WEB}{}", files("web", "one")));
    world.go();
    let radius = |world: &World| world.plan().plan.blast_radius;
    world.write("x.yaml", &format!("{WEB}{}", files("web", "two")));
    let found = radius(&world);
    assert_eq!(found.restarts, 1);
    assert_eq!(found.peak_unavailable, [(super::owner("web"), 1)].into());
    let other = WEB.replace("serve", "other");
    world.write("x.yaml", &format!("{other}{}", files("web", "two")));
    assert_eq!(radius(&world).restarts, 1);
    let renamed = WEB.replace("name: web", "name: shop\nrenamed_from: web");
    world.write("x.yaml", &format!("{renamed}{}", files("shop", "two")));
    let found = radius(&world);
    assert_eq!(found.restarts, 1);
    assert_eq!(found.peak_unavailable, [(super::owner("shop"), 1)].into());
}

#[test]
fn a_network_that_is_made_anew_cuts_off_what_is_in_it() {
    let text = |subnet: &str| {
        format!(
            "kind: Network\nname: back\nmachines: a\nsubnet: {subnet}\n---\nkind: App\nname: box\nmachines: a\nimage: box@sha256:{}\nnetworks: [back]\n",
            "1".repeat(64)
        )
    };
    let mut world = World::new(&["a"], &text("10.20.0.0/24"));
    world.go();
    world.write("x.yaml", &text("10.30.0.0/24"));
    let plan = world.plan().plan;
    let back = plan
        .owners
        .iter()
        .find(|o| o.owner.as_str() == "back")
        .unwrap();
    assert_eq!(back.felt, Felt::Replace);
    insta::assert_snapshot!(
        back.downtime.iter().next().unwrap(),
        @"what is in it reaches nothing through it until it is made anew: `box`"
    );
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
