//! That a larger workspace plans and applies. How long that takes is measured by `cargo xtask bench plan`.

use std::fmt::Write as _;

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
fn a_few_hundred_apps_plan_and_apply() {
    let mut world = fleet(200);
    let plan = world.go();
    assert_eq!(plan.changes.len(), 1000);
}
