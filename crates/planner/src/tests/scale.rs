//! That planning stays linear, measured by hand:
//! `cargo test --release -p plumb-planner -- --ignored --nocapture plan_time`.

use std::fmt::Write as _;
use std::time::Instant;

use super::World;

/// `apps` apps on `apps / 20` machines, five resources each.
fn fleet(apps: usize) -> World {
    let names: Vec<String> = (0..apps / 20).map(|i| format!("m{i}")).collect();
    let mut text = String::new();
    for i in 0..apps {
        let on = &names[i % names.len()];
        let _ = writeln!(
            text,
            "kind: App\nname: a{i}\nmachines: {on}\nreplicas: 2\nsource: {{ path: app }}\nprocesses: {{ web: x, work: y }}\nports: {{ http: auto, admin: auto }}\nenv: {{ A: '${{app.a{i}.url}}' }}\n---"
        );
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    World::new(&names, &text)
}

#[test]
#[ignore = "a measurement, which a busy machine would fail"]
fn plan_time_grows_with_the_fleet_and_not_with_its_square() {
    for apps in [500, 1000, 2000, 4000] {
        let mut world = fleet(apps);
        let request = world.request();
        let start = Instant::now();
        let planned = world.try_plan(&request).unwrap();
        let first = start.elapsed();
        world.apply(&planned);
        let start = Instant::now();
        assert!(world.try_plan(&request).unwrap().plan.is_empty());
        let again = start.elapsed();
        let start = Instant::now();
        world.try_plan(&crate::Request::Destroy).unwrap();
        let destroy = start.elapsed();
        let resources = planned.plan.changes.len();
        println!(
            "{apps} apps, {resources} resources: first {first:?}, unchanged {again:?}, destroy {destroy:?}"
        );
    }
}

#[test]
fn a_few_hundred_apps_plan_and_apply() {
    let mut world = fleet(200);
    let plan = world.go();
    assert_eq!(plan.changes.len(), 1000);
}
