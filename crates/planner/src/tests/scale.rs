//! That a larger workspace plans and applies. How long that takes is measured by `cargo xtask bench plan`.

use std::fmt::Write as _;

use plumb_model::parallel;

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

/// Fails under the mutation: let the compiled apps be joined in the order in which threads are done with them, or put a
/// shared counter of threads into anything that is planned.
#[test]
fn a_plan_is_the_same_on_one_thread_and_on_many() {
    let mut world = fleet(40);
    for applied in [false, true] {
        let one = parallel::forced(1, || world.plan());
        assert_eq!(one.plan.changes.is_empty(), applied);
        for threads in [2, 3, 8] {
            let many = parallel::forced(threads, || world.plan());
            assert_eq!(many, one, "on {threads} threads");
        }
        if !applied {
            world.go();
        }
    }
}
