//! Where things go: replicas on machines, ports on each.

use std::collections::BTreeSet;

use plumb_model::{Generation, ResourceSpec};

use super::{Said, World, machine, owner};

const WEB: &str = "kind: App\nname: web\nmachines: all\nrun: serve\nports: { http: auto }\n";

fn spots(world: &World) -> BTreeSet<String> {
    world.recorded.releases[&owner("web")]
        .resources
        .iter()
        .map(|r| r.address.to_string())
        .collect()
}

fn changed(world: &mut World) -> Vec<String> {
    let plan = world.go();
    plan.changes
        .iter()
        .map(|c| format!("{:?} {}", c.action, c.address))
        .collect()
}

#[test]
fn replicas_stay_when_machines_come_and_only_those_of_a_machine_that_goes_move() {
    let mut world = World::new(&["a", "b", "c"], &format!("{WEB}replicas: 4\n"));
    world.go();
    let before = spots(&world);
    world.machines(&["a", "b", "c", "d", "e"]);
    world.go();
    assert_eq!(spots(&world), before, "a machine that comes moves nothing");

    world.machines(&["a", "b", "d", "e"]);
    world.go();
    let after = spots(&world);
    let stayed = before.intersection(&after).count();
    let on_c = before.iter().filter(|at| at.starts_with("c/")).count();
    assert!(on_c > 0, "every machine runs one");
    assert_eq!(stayed, 4 - on_c);
    assert!(after.iter().all(|at| !at.starts_with("c/")));

    world.write("x.yaml", &format!("{WEB}replicas: 2\n"));
    world.go();
    let fewer = spots(&world);
    assert!(fewer.is_subset(&after), "the highest slots go");
    assert!(
        fewer
            .iter()
            .all(|at| at.ends_with("/0") || at.ends_with("/1"))
    );
}

#[test]
fn a_process_without_a_number_runs_once_on_each_machine() {
    let mut world = World::new(&["a", "b"], WEB);
    world.go();
    world.machines(&["a", "b", "c"]);
    assert_eq!(changed(&mut world), ["Create c/web/process/app/0"]);
}

#[test]
fn ports_stay_whatever_else_comes_and_goes() {
    let mut world = World::new(&["a"], &format!("{WEB}replicas: 3\n"));
    world.go();
    let ports = |world: &World| -> Vec<u16> {
        (0..3)
            .map(|slot| world.port(&format!("a/web/process/app/{slot}")))
            .collect()
    };
    let before = ports(&world);
    let others: String = (0..40)
        .map(|i| format!("---\nkind: App\nname: a{i}\nmachines: a\nrun: x\nports: {{ p: auto }}\n"))
        .collect();
    world.write("y.yaml", &others[4..]);
    world.go();
    world.files.remove("y.yaml");
    world.write("x.yaml", &format!("{WEB}replicas: 3\nenv: {{ A: b }}\n"));
    world.go();
    assert_eq!(ports(&world), before);
    assert!(before.iter().all(|port| (20_000..30_000).contains(port)));
}

#[test]
fn a_fixed_port_takes_its_number_from_an_allotted_one() {
    let mut world = World::new(&["a"], WEB);
    world.go();
    let port = world.port("a/web/process/app/0");
    let fixed = format!("kind: App\nname: fixed\nmachines: a\nrun: x\nports: {{ p: {port} }}\n");
    world.write("y.yaml", &fixed);
    let changes = changed(&mut world);
    assert_eq!(
        changes,
        ["Create a/fixed/process/app/0", "Update a/web/process/app/0"]
    );
    assert_eq!(world.port("a/fixed/process/app/0"), port);
    assert_ne!(world.port("a/web/process/app/0"), port);
}

/// Fails under the mutation: start the search at the process's own hash again, and the third port is the first.
#[test]
fn a_stranger_on_a_port_makes_the_next_plan_allot_another_and_never_one_met_before() {
    let at = "a/web/process/app/0";
    let mut world = World::new(&["a"], WEB);
    world.go();
    let mut met = BTreeSet::from([world.port(at)]);
    for _ in 0..5 {
        world.observe(at, Said::PortTaken);
        assert_eq!(changed(&mut world), ["Update a/web/process/app/0"]);
        assert!(met.insert(world.port(at)), "{met:?}");
        world.observe(at, Said::Converged);
    }
}

/// Fails under the mutation: judge a status without a look at its generation.
#[test]
fn what_was_said_of_a_port_before_the_last_generation_moves_nothing() {
    let at = "a/web/process/app/0";
    let mut world = World::new(&["a"], WEB);
    world.go();
    world.observe(at, Said::PortTaken);
    world.go();
    let port = world.port(at);
    assert_eq!(world.generation("a"), Generation(2));
    // The agent has not reported since: its old word is about the old port. `go` held that the plan is empty.
    world.write("y.yaml", "kind: App\nname: z\nmachines: a\nrun: x\n");
    world.go();
    assert_eq!(world.port(at), port);
}

#[test]
fn a_stranger_on_a_fixed_port_moves_nothing() {
    let mut world = World::new(&["a"], &WEB.replace("auto", "8080"));
    world.go();
    world.observe("a/web/process/app/0", Said::PortTaken);
    assert!(world.plan().plan.is_empty());
}

#[test]
fn the_number_of_a_stranger_is_avoided_for_everybody_on_that_machine_only() {
    let mut world = World::new(&["a", "b"], WEB);
    world.go();
    let on_b = world.port("b/web/process/app/0");
    world.observe("a/web/process/app/0", Said::PortTaken);
    world.go();
    assert_eq!(world.port("b/web/process/app/0"), on_b);
}

#[test]
fn a_used_up_range_is_an_error_that_names_the_machine() {
    // Ten processes of one app want one port more than there are.
    let ports: String = (0..1001).map(|i| format!("p{i}: auto, ")).collect();
    let text: String = (0..10)
        .map(|i| format!("kind: App\nname: a{i}\nmachines: a\nrun: x\nports: {{ {ports} }}\n---\n"))
        .collect();
    let world = World::new(&["a"], &text);
    let error = world.try_plan(&world.request()).unwrap_err();
    insta::assert_debug_snapshot!(error.problems, @r#"
    [
        Problem {
            message: "every port from 20000 to 29999 on machine `a` is allotted, and 10 more are asked for there with `auto`",
            origin: Some(
                Origin {
                    file: "x.yaml",
                    line: 59,
                    column: 1,
                },
            ),
            hint: Some(
                "write fixed port numbers, or use more machines",
            ),
        },
    ]
    "#);
}

#[test]
fn every_number_of_the_range_can_be_allotted() {
    let ports: String = (0..1000).map(|i| format!("p{i}: auto, ")).collect();
    let text: String = (0..10)
        .map(|i| format!("kind: App\nname: a{i}\nmachines: a\nrun: x\nports: {{ {ports} }}\n---\n"))
        .collect();
    let mut world = World::new(&["a"], &text);
    world.go();
    let ports: BTreeSet<u16> = world
        .recorded
        .releases
        .values()
        .flat_map(|body| &body.resources)
        .filter_map(|r| match &r.spec {
            ResourceSpec::Process(spec) => Some(spec.ports.values().copied()),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(ports, (20_000..30_000).collect());
}

#[test]
fn a_port_reaches_the_process_and_whoever_refers_to_it_on_the_same_machine() {
    let text = format!(
        "{WEB}---\nkind: App\nname: user\nmachines: all\nrun: x\nenv: {{ URL: '${{app.web.url}}/x', P: '${{app.web.ports.http}}', H: '${{app.web.host}}' }}\n"
    );
    let mut world = World::new(&["a", "b"], &text);
    world.go();
    for name in ["a", "b"] {
        let port = world.port(&format!("{name}/web/process/app/0")).to_string();
        let web = world.process(&format!("{name}/web/process/app/0")).env;
        assert_eq!((&web["PORT"], &web["PORT_HTTP"]), (&port, &port));
        let user = world.process(&format!("{name}/user/process/app/0")).env;
        assert_eq!(user["URL"], format!("http://127.0.0.1:{port}/x"));
        assert_eq!((&user["P"], user["H"].as_str()), (&port, "127.0.0.1"));
    }
    assert!(world.recorded.state.machines.contains_key(&machine("b")));
}

#[test]
fn of_several_slots_on_one_machine_the_lowest_answers() {
    let text = format!(
        "{WEB}replicas: 3\n---\nkind: App\nname: user\nmachines: a\nrun: x\nenv: {{ P: '${{app.web.ports.http}}' }}\n"
    );
    let mut world = World::new(&["a"], &text);
    world.go();
    let lowest = world.port("a/web/process/app/0").to_string();
    assert_eq!(world.process("a/user/process/app/0").env["P"], lowest);
}
