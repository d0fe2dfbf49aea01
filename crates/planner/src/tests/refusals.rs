//! What is refused, and what asks for a consent: threat rows 7 and 8 among it.

use plumb_blueprint::Selector;
use plumb_model::Capability;

use super::{Held, World, facts, machine, owner};
use crate::Request;

fn problems(world: &World, request: &Request) -> String {
    let error = world.try_plan(request).expect_err("it must be refused");
    let lines = error.problems.iter().map(|problem| {
        let at = problem
            .origin
            .as_ref()
            .map_or_else(String::new, |o| format!("{o}: "));
        let hint = problem.hint.as_deref().unwrap_or("no hint");
        format!("{at}{}\n  = {hint}", problem.message)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn consents(world: &World) -> Vec<String> {
    let plan = world.plan().plan;
    plan.consents.into_iter().map(|c| c.allow).collect()
}

/// Threat row 7. Fails under the mutation: drop the loop over `claims` in `check_claims`.
#[test]
fn row_7_one_fixed_port_for_two_apps_fails_and_names_both() {
    let app = |name: &str, port: &str| {
        format!("kind: App\nname: {name}\nmachines: all\nrun: x\nports: {{ http: {port} }}\n")
    };
    let text = format!("{}---\n{}", app("one", "8080"), app("two", "8081"));
    let world = World::new(&["a"], &text);
    // The blueprints are checked where they are written; whoever sends others past that check gets no further here.
    let mut blueprint = world.blueprint();
    let two = blueprint.apps.get_mut(&owner("two")).unwrap();
    for process in two.processes.values_mut() {
        for port in process.ports.values_mut() {
            *port = plumb_blueprint::Port::Fixed(8080);
        }
    }
    let sources = world.read(&blueprint);
    let request = Request::Apply {
        blueprint,
        sources,
        ask: Default::default(),
    };
    insta::assert_snapshot!(problems(&world, &request), @r"
    x.yaml:10:1: port 8080 on machine `a` is claimed by `a/one/process/app/0` and by `a/two/process/app/0`
      = let one of them go, or choose another
    ");
}

/// Threat row 7. Fails under the mutation: let `claims` of a file or a directory be empty.
#[test]
fn row_7_one_path_for_two_setups_fails_and_names_both() {
    let text = "kind: Setup\nname: one\nmachines: a\nfiles: { /srv/x: { content: a } }\n---\nkind: Setup\nname: two\nmachines: b\ndirectories: { /srv/x: {} }\n";
    let world = World::new(&["a", "b"], text);
    let mut blueprint = world.blueprint();
    blueprint.setups.get_mut(&owner("two")).unwrap().machines = Selector::All;
    let sources = world.read(&blueprint);
    let request = Request::Apply {
        blueprint,
        sources,
        ask: Default::default(),
    };
    insta::assert_snapshot!(problems(&world, &request), @r"
    x.yaml:9:16: path /srv/x on machine `a` is claimed by `a/one/file//srv/x` and by `a/two/directory//srv/x`
      = let one of them go, or choose another
    ");
}

/// Threat row 7. Fails under the mutation: place two slots of a fixed port on one machine without a word.
#[test]
fn row_7_more_replicas_of_a_fixed_port_than_machines_fail_and_name_two_of_them() {
    let text = "kind: App\nname: web\nmachines: all\nrun: x\nreplicas: 2\nports: { http: 8080 }\n";
    let mut world = World::new(&["a", "b"], text);
    world.go();
    let mut blueprint = world.blueprint();
    blueprint.apps.get_mut(&owner("web")).unwrap().replicas = Some(3);
    let sources = world.read(&blueprint);
    let said = problems(
        &world,
        &Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        },
    );
    assert!(said.contains("port 8080 on machine"), "{said}");
    assert!(said.contains("/web/process/app/2`"), "{said}");
}

/// Threat row 7. Fails under the mutation: resolve a reference to another machine's loopback.
#[test]
fn row_7_a_reference_across_machines_fails_and_names_both() {
    let text = "kind: App\nname: db\nmachines: a\nrun: x\nports: { http: auto }\n---\nkind: App\nname: web\nmachines: [b, c]\nrun: x\nenv: { DB: '${app.db.url}' }\n";
    let mut world = World::new(
        &["a", "b", "c"],
        &text.replace("machines: a", "machines: all"),
    );
    world.go();
    let mut blueprint = world.blueprint();
    blueprint.apps.get_mut(&owner("db")).unwrap().machines = Selector::Names(vec![machine("a")]);
    let sources = world.read(&blueprint);
    let before = world.recorded.clone();
    let said = problems(
        &world,
        &Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        },
    );
    assert!(said.contains("app `db` runs on machine `a`"), "{said}");
    assert!(said.contains("which machine `b` cannot reach"), "{said}");
    assert!(
        said.contains("which machine `c` cannot reach"),
        "every problem: {said}"
    );
    assert!(said.contains("x.yaml:11:"), "{said}");
    assert_eq!(world.recorded, before);
}

#[test]
fn a_label_that_a_machine_does_not_have_is_refused_by_name() {
    let text = "kind: Setup\nname: s\nmachines: all\nfiles: { /x: { content: '${machine.labels.name}' } }\n";
    let world = World::new(&["a"], text);
    let mut blueprint = world.blueprint();
    blueprint
        .machines
        .get_mut(&machine("a"))
        .unwrap()
        .labels
        .clear();
    let sources = world.read(&blueprint);
    insta::assert_snapshot!(problems(&world, &Request::Apply { blueprint, sources, ask: Default::default() }), @r"
    x.yaml:4:10: machine `a` has no label `name`
      = add `labels: { name: … }` to machine `a`
    ");
}

#[test]
fn a_path_that_was_not_read_is_refused_where_it_is_written() {
    let text = "kind: App\nname: web\nmachines: a\nrun: x\nsource: { path: app }\n";
    let world = World::new(&["a"], text);
    let blueprint = world.blueprint();
    let sources = Default::default();
    insta::assert_snapshot!(problems(&world, &Request::Apply { blueprint, sources, ask: Default::default() }), @r"
    x.yaml:5:1: `app` was not read along with the blueprints
      = plan again from the folder that holds the blueprints
    ");
}

/// Threat row 8. Fails under the mutation: drop the `empty` consent.
#[test]
fn row_8_an_emptied_repository_asks_for_a_consent() {
    let text = "kind: App\nname: web\nmachines: all\nrun: x\n";
    let mut world = World::new(&["a"], text);
    assert!(consents(&world).is_empty());
    world.go();
    world.files.remove("x.yaml");
    assert_eq!(consents(&world), ["empty"]);
    world.write("x.yaml", &text.replace("web", "other"));
    assert!(consents(&world).is_empty(), "something is left");
}

/// Threat row 8. Fails under the mutation: look only at the owners, not at the machines.
#[test]
fn row_8_a_repository_without_machines_asks_for_a_consent() {
    let mut world = World::new(&["a"], "kind: App\nname: web\nmachines: all\nrun: x\n");
    world.go();
    let mut blueprint = world.blueprint();
    blueprint.machines.clear();
    let sources = world.read(&blueprint);
    let request = Request::Apply {
        blueprint,
        sources,
        ask: Default::default(),
    };
    let plan = world.try_plan(&request).unwrap().plan;
    assert_eq!(plan.consents[0].allow, "empty");
    assert!(plan.consents[0].reason.contains("no machine"));
}

/// Threat row 8. Fails under the mutation: drop the `rename` consent, or let a mere rename count as nothing to do.
#[test]
fn row_8_a_renamed_workspace_asks_for_a_consent_even_if_nothing_else_moves() {
    let mut world = World::new(&["a"], "kind: App\nname: web\nmachines: all\nrun: x\n");
    world.go();
    world.write("plumb.yaml", "kind: Workspace\nname: market\n");
    let planned = world.plan();
    assert_eq!(planned.plan.consents[0].allow, "rename");
    insta::assert_snapshot!(planned.plan.consents[0].reason, @"workspace `shop` is recorded here, and these blueprints are of workspace `market`");
    assert!(planned.plan.changes.is_empty() && !planned.plan.is_empty());
    world.go();
    assert!(consents(&world).is_empty());
}

#[test]
fn after_a_destroy_any_workspace_may_come() {
    let mut world = World::new(&["a"], "kind: App\nname: web\nmachines: all\nrun: x\n");
    world.go();
    world.carry_out(&Request::Destroy);
    world.write("plumb.yaml", "kind: Workspace\nname: market\n");
    assert!(consents(&world).is_empty());
}

#[test]
fn more_deletions_than_the_policy_lets_go_ask_for_a_consent() {
    let mut world = World::new(
        &["a"],
        "kind: Setup\nname: s\nmachines: a\nfiles: { /1: { content: x }, /2: { content: x }, /3: { content: x } }\n",
    );
    world.write(
        "plumb.yaml",
        "kind: Workspace\nname: shop\npolicy: { deletes: 1 }\n",
    );
    world.go();
    let two_left =
        "kind: Setup\nname: s\nmachines: a\nfiles: { /1: { content: x }, /2: { content: x } }\n";
    world.write("x.yaml", two_left);
    assert!(consents(&world).is_empty());
    world.write(
        "x.yaml",
        "kind: Setup\nname: s\nmachines: a\nfiles: { /1: { content: x } }\n",
    );
    assert_eq!(consents(&world), ["deletes"]);
    world.write("plumb.yaml", "kind: Workspace\nname: shop\n");
    assert!(
        consents(&world).is_empty(),
        "without a policy there is no limit"
    );
}

#[test]
fn what_a_machine_cannot_do_keeps_the_plan_from_being_applied_with_the_remedy() {
    let text = "kind: App\nname: web\nmachines: all\nrun: x\nuser: www-data\n---\nkind: Setup\nname: s\nmachines: all\nfiles: { /1: { content: x, owner: root } }\ndirectories: { /2: { group: '0' } }\n";
    let mut world = World::new(&["a", "b"], text);
    let lacks = [Capability::Chown, Capability::Users];
    world.observed.machines.insert(machine("b"), facts(&lacks));
    let plan = world.plan().plan;
    let obstacles: Vec<String> = plan.obstacles().collect();
    insta::assert_snapshot!(obstacles.join("\n"), @r"
    `b/s/directory//2` asks for `owner` or `group`, which machine `b` cannot do: the agent does not run as root; run `plumb agent` as root
    `b/s/file//1` asks for `owner` or `group`, which machine `b` cannot do: the agent does not run as root; run `plumb agent` as root
    `b/web/process/app/0` asks for `user`, which machine `b` cannot do: the agent does not run as root; run `plumb agent` as root
    ");
    let blocked = plan.changes.iter().find(|c| !c.blocked_by.is_empty());
    insta::assert_snapshot!(
        blocked.unwrap().blocked_by[0],
        @"cannot be done: machine `b` cannot do `owner` or `group`: the agent does not run as root"
    );
}

#[test]
fn what_a_machine_lacks_without_being_asked_for_it_is_nobodys_business() {
    let mut world = World::new(&["a"], "kind: App\nname: web\nmachines: all\nrun: x\n");
    let lacks = [Capability::Chown, Capability::Users];
    world.observed.machines.insert(machine("a"), facts(&lacks));
    assert_eq!(world.go().obstacles().count(), 0);
    // What is recorded already is said, and keeps nothing from being applied.
    let lacks = [Capability::Processes];
    world.observed.machines.insert(machine("a"), facts(&lacks));
    let plan = world.plan().plan;
    assert!(plan.lacks[0].unchanged && plan.is_empty());
    assert_eq!(plan.obstacles().count(), 0);
}

#[test]
fn a_machine_never_heard_of_is_not_judged_but_reported() {
    let text = "kind: App\nname: web\nmachines: all\nrun: x\nuser: www-data\n";
    let mut world = World::new(&["a", "b"], text);
    world.observed.machines.remove(&machine("b"));
    let plan = world.go();
    assert_eq!(plan.not_done.len(), 1);
    insta::assert_snapshot!(
        format!("{}: {}", plan.not_done[0].subject, plan.not_done[0].reason),
        @"machine b: 1 resource waits until its agent joins: run `plumb token create --join --machine b` here and `plumb agent` there"
    );
}

#[test]
fn every_problem_is_reported_at_once() {
    let text = "kind: Setup\nname: s\nmachines: all\nfiles: { /1: { source: f }, /2: { content: '${machine.address}' } }\n---\nkind: App\nname: web\nmachines: a\nrun: x\nsource: { path: app }\n";
    let mut world = World::new(&["a"], text);
    world.write(
        "machines.yaml",
        "kind: Machine\nname: a\naddress: { private: 10.0.0.1 }\n",
    );
    world.sources.insert("f".into(), Held::Text("x".into()));
    let mut blueprint = world.blueprint();
    blueprint
        .machines
        .get_mut(&machine("a"))
        .unwrap()
        .address
        .clear();
    let sources = Default::default();
    let error = world
        .try_plan(&Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        })
        .unwrap_err();
    assert_eq!(error.problems.len(), 3, "{:#?}", error.problems);
    assert!(error.to_string().ends_with("(and 2 more)"), "{error}");
}
