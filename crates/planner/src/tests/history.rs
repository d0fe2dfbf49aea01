//! What is recorded over time: releases, generations, tombstones, machines that leave and come again.

use plumb_model::plan::{ChangeAction, Felt};
use plumb_model::{Generation, Hash, ReleaseNumber, Revision};

use super::{Said, World, machine, owner};
use crate::Request;

const TWO: &str = "kind: App\nname: web\nmachines: all\nrun: serve\nports: { http: auto }\n---\nkind: Setup\nname: base\nmachines: a\nfiles: { /srv/motd: { content: v0 } }\n";

#[test]
fn only_the_machine_whose_content_moves_gets_a_generation() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    world.write("x.yaml", &TWO.replace("v0", "hello"));
    let plan = world.go();
    assert_eq!(plan.blast_radius.machines, [machine("a")].into());
    assert_eq!(
        (world.generation("a"), world.generation("b")),
        (Generation(2), Generation(1))
    );
    let releases = &world.recorded.state.owners;
    assert_eq!(releases[&owner("base")].release, ReleaseNumber(2));
    assert_eq!(releases[&owner("web")].release, ReleaseNumber(1));
}

#[test]
fn a_machine_s_own_record_changes_without_a_generation() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    world.write(
        "machines.yaml",
        "kind: Machine\nname: a\nprice: { monthly: 4.51, currency: EUR }\n",
    );
    let plan = world.go();
    assert_eq!(plan.machines.len(), 1);
    assert!(plan.changes.is_empty() && plan.blast_radius.machines.is_empty());
    assert_eq!(world.generation("a"), Generation(1));
    assert_eq!(plan.monthly_cost.after_cents["EUR"], 451);
    assert!(plan.monthly_cost.before_cents.is_empty());
}

#[test]
fn no_release_number_is_given_twice_not_even_after_a_removal() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    world.write("x.yaml", TWO.split("---\n").nth(1).unwrap());
    let plan = world.go();
    let gone = &plan.owners[0];
    assert_eq!((gone.action, gone.felt), (ChangeAction::Delete, Felt::Stop));
    assert_eq!(
        (gone.from, gone.to),
        (Some(ReleaseNumber(1)), ReleaseNumber(2))
    );
    world.write("x.yaml", TWO);
    let plan = world.go();
    assert_eq!(
        (plan.owners[0].from, plan.owners[0].to),
        (None, ReleaseNumber(3))
    );
    assert_eq!(
        world.recorded.state.owners[&owner("web")].release,
        ReleaseNumber(3)
    );
}

#[test]
fn a_rollback_goes_forward_and_brings_back_all_of_the_release() {
    let mut world = World::new(&["a"], &TWO.replace("serve", "first"));
    world.go();
    world.write("x.yaml", &TWO.replace("http", "web").replace("v0", "hello"));
    world.go();
    let request = world.rollback_to("web", 1);
    let plan = world.carry_out(&request);
    assert_eq!(plan.owners.len(), 1, "nobody else moves: {:?}", plan.owners);
    assert_eq!(plan.owners[0].to, ReleaseNumber(3));
    let history = &world.history;
    assert_eq!(
        history[&(owner("web"), ReleaseNumber(3))],
        history[&(owner("web"), ReleaseNumber(1))]
    );
    let request = world.rollback_to("web", 1);
    assert!(world.try_plan(&request).unwrap().plan.is_empty());
    let request = world.rollback_to("web", 3);
    assert!(world.try_plan(&request).unwrap().plan.is_empty());
}

#[test]
fn an_owner_that_was_removed_can_be_rolled_back_to() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    world.write("x.yaml", "kind: App\nname: other\nmachines: a\nrun: x\n");
    world.go();
    let request = world.rollback_to("base", 1);
    let plan = world.carry_out(&request);
    assert_eq!(plan.owners[0].action, ChangeAction::Create);
    assert_eq!(plan.owners[0].to, ReleaseNumber(3));
}

/// Fails under the mutations: leave the addresses of the release as they are; leave out what the present ones were.
#[test]
fn a_rollback_goes_back_beyond_a_rename_and_makes_nothing_anew() {
    let text = |name: &str, run: &str| {
        format!(
            "kind: App\nname: {name}\nmachines: a\nimage: box@sha256:{}\ncommand: {run}\nvolumes: {{ data: /data }}\nports: {{ http: 80 }}\n",
            "1".repeat(64)
        )
    };
    let mut world = World::new(&["a"], &text("web", "one"));
    world.go();
    let port = |world: &World, at: &str| world.spec(at).fields()["ports"].clone();
    let before = port(&world, "a/web/container/app/0");
    world.write("x.yaml", &text("shop\nrenamed_from: web", "two"));
    world.go();
    let body = world.history[&(owner("web"), ReleaseNumber(1))].clone();
    let request = Request::Rollback {
        owner: owner("shop"),
        to: ReleaseNumber(1),
        body,
    };
    let plan = world.carry_out(&request);
    let changed: Vec<_> = plan
        .changes
        .iter()
        .map(|c| (c.address.to_string(), c.action, c.attributes.len()))
        .collect();
    assert_eq!(
        changed,
        [("a/shop/container/app/0".to_owned(), ChangeAction::Update, 1)]
    );
    assert_eq!(plan.changes[0].attributes[0].path, "command");
    assert_eq!(plan.owners[0].to, ReleaseNumber(3));
    assert_eq!(port(&world, "a/shop/container/app/0"), before);
    // An agent that was away meanwhile still finds the thing under its first name.
    let was = &world.recorded.releases[&owner("shop")].resources;
    assert!(
        was.iter()
            .all(|r| r.was.as_ref().is_some_and(|a| a.owner == owner("web"))),
        "{was:#?}"
    );
}

/// An agent may have slept through the renames: of each address that it may hold the thing at is something said. Found by the
/// simulator, seed 118. Fails under the mutations: take the body of the release as it is; say nothing of addresses that only
/// what was recorded had before.
#[test]
fn a_rollback_to_a_release_from_before_two_renames_speaks_of_every_address_in_between() {
    let text =
        |name: &str, run: &str| format!("kind: App\nname: {name}\nmachines: a\nrun: {run}\n");
    let mut world = World::new(&["a"], &text("web", "one"));
    world.go();
    world.write("x.yaml", &text("shop\nrenamed_from: web", "one"));
    world.go();
    world.write("x.yaml", &text("web\nrenamed_from: shop", "two"));
    world.go();
    let request = world.rollback_to("web", 1);
    world.carry_out(&request);
    let web = &world.recorded.releases[&owner("web")].resources;
    let was = |r: &plumb_model::Resource| r.was.as_ref().map(|a| a.owner.to_string());
    assert!(
        web.iter().all(|r| was(r).as_deref() == Some("shop")),
        "{web:#?}"
    );
}

#[test]
fn a_rollback_says_what_it_waits_for() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    world.write("x.yaml", &TWO.replace("v0", "hello"));
    world.go();
    world.observed.machines.clear();
    let request = world.rollback_to("base", 1);
    let not_done = world.try_plan(&request).unwrap().plan.not_done;
    assert_eq!(not_done.len(), 1);
    assert_eq!(not_done[0].subject, "machine a");
    assert!(not_done[0].reason.starts_with("2 resources wait until"));
}

#[test]
fn a_rollback_onto_a_machine_that_left_is_refused_by_name() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    world.machines(&["a"]);
    world.go();
    let request = world.rollback_to("web", 1);
    let error = world.try_plan(&request).unwrap_err();
    insta::assert_snapshot!(error, @"release 1 of `web` ran on machine `b`, which is no longer recorded");
}

#[test]
fn a_rollback_that_needs_what_another_holds_by_now_names_both() {
    let web = "kind: App\nname: web\nmachines: a\nrun: x\nports: { http: 8080 }\n";
    let mut world = World::new(&["a"], web);
    world.go();
    let moved = web.replace("8080", "8081");
    let other = web.replace("web", "other");
    world.write("x.yaml", &format!("{moved}---\n{other}"));
    world.go();
    let request = world.rollback_to("web", 1);
    let error = world.try_plan(&request).unwrap_err();
    insta::assert_snapshot!(error, @"release 1 of `web` needs port 8080 on `a`, which `a/other/process/app/0` holds by now");
}

#[test]
fn a_rollback_onto_paths_that_lie_below_a_file_is_refused_either_way_round() {
    let file = |path: &str| format!("files: {{ {path}: {{ content: x }} }}\n");
    let check = |first: &str, second: &str, expected: &str| {
        let one = "kind: Setup\nname: one\nmachines: a\n";
        let mut world = World::new(&["a"], &format!("{one}{}", file(first)));
        world.go();
        let other = one.replace("one", "other");
        let text = format!("{one}{}---\n{other}{}", file("/elsewhere"), file(second));
        world.write("x.yaml", &text);
        world.go();
        let request = world.rollback_to("one", 1);
        let error = world.try_plan(&request).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    check(
        "/srv/x/y",
        "/srv/x",
        "release 1 of `one` needs `a/one/file//srv/x/y`, which lies below the file `a/other/file//srv/x` by now",
    );
    check(
        "/srv/x",
        "/srv/x/y",
        "release 1 of `one` needs `a/one/file//srv/x`, and `a/other/file//srv/x/y` lies below it by now",
    );
}

#[test]
fn a_tombstone_stays_until_the_removal_is_proven_and_goes_only_along_with_another_change() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    let base = TWO.split("---\n").nth(1).unwrap();
    world.write("x.yaml", base);
    world.go();
    let at = "a/web/process/app/0";
    assert_eq!(world.tombstones("a"), [(at.to_owned(), 2)].into());

    // Proven, but under the generation before the one that ordered it.
    world.observe_under(at, Said::Gone, Generation(1));
    world.write("x.yaml", &base.replace("v0", "one"));
    world.go();
    assert_eq!(world.tombstones("a"), [(at.to_owned(), 2)].into());

    // Proven under the generation that ordered it; that alone makes no revision and moves no generation.
    world.observe_under(at, Said::Gone, Generation(2));
    let planned = world.plan();
    assert!(planned.plan.is_empty() && planned.next.moved.is_empty());
    world.write("x.yaml", &base.replace("v0", "two"));
    world.go();
    assert!(world.tombstones("a").is_empty());
}

#[test]
fn a_process_that_comes_again_loses_its_tombstone_and_gets_a_newer_one_when_it_goes_again() {
    let mut world = World::new(&["a"], TWO);
    let without = TWO.split("---\n").nth(1).unwrap();
    world.go();
    world.write("x.yaml", without);
    world.go();
    world.observe("a/web/process/app/0", Said::Gone);
    world.write("x.yaml", TWO);
    world.go();
    assert!(world.tombstones("a").is_empty());
    world.write("x.yaml", without);
    world.go();
    // What was proven of the time before settles nothing.
    assert_eq!(world.tombstones("a")["a/web/process/app/0"], 4);
    world.write("x.yaml", &without.replace("v0", "one"));
    world.go();
    assert_eq!(world.tombstones("a")["a/web/process/app/0"], 4);
}

#[test]
fn a_machine_that_leaves_is_kept_until_all_of_it_is_proven_gone() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    world.machines(&["a"]);
    let plan = world.go();
    assert_eq!(plan.machines[0].action, ChangeAction::Delete);
    let b = &world.recorded.state.machines[&machine("b")];
    assert!(b.leaving);
    assert_eq!(b.generation, Generation(2));
    assert_eq!(world.tombstones("b").len(), 1);

    world.write("x.yaml", &TWO.replace("v0", "one"));
    let plan = world.go();
    assert!(plan.machines.is_empty(), "it left already");
    assert_eq!(world.generation("b"), Generation(2));

    world.observe("b/web/process/app/0", Said::Gone);
    world.write("x.yaml", &TWO.replace("v0", "two"));
    world.go();
    assert!(!world.recorded.state.machines.contains_key(&machine("b")));
}

/// Fails under the mutation: let a machine that comes start at generation 1 again. Its agent, which is still at
/// generation 2, would refuse the assignment, and its old proof of absence would settle new tombstones.
#[test]
fn a_machine_that_comes_again_goes_on_above_every_generation_it_had() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    world.machines(&["a"]);
    world.go();
    world.observe("b/web/process/app/0", Said::Gone);
    world.write("x.yaml", &TWO.replace("v0", "one"));
    world.go();
    assert!(!world.recorded.state.machines.contains_key(&machine("b")));
    world.machines(&["a", "b"]);
    world.go();
    assert_eq!(world.recorded.state.revision, Revision(4));
    assert_eq!(world.generation("b"), Generation(4));
}

#[test]
fn a_machine_that_comes_again_before_it_was_settled_goes_on_where_it_was() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    world.machines(&["a"]);
    world.go();
    world.machines(&["a", "b"]);
    let plan = world.go();
    assert_eq!(plan.machines[0].action, ChangeAction::Create);
    let b = &world.recorded.state.machines[&machine("b")];
    assert!(!b.leaving && b.tombstones.is_empty());
    assert_eq!(b.generation, Generation(3));
}

#[test]
fn destroying_removes_every_resource_and_keeps_the_machines() {
    let mut world = World::new(&["a", "b"], TWO);
    world.go();
    let plan = world.carry_out(&Request::Destroy);
    assert_eq!(plan.blast_radius.deletes, 3);
    assert!(plan.consents.is_empty(), "asking for it was the consent");
    assert!(world.recorded.state.owners.is_empty());
    assert_eq!(world.recorded.state.machines.len(), 2);
    assert_eq!(world.tombstones("a").len(), 2);
    assert_eq!(world.recorded.state.manifest, None);
    let last = &world.recorded.state.last_release;
    assert_eq!(last[&owner("web")], ReleaseNumber(2));
}

#[test]
fn the_same_content_is_stored_under_the_same_hash() {
    let mut world = World::new(&["a"], TWO);
    world.go();
    let first = world.recorded.state.owners[&owner("web")].body;
    world.write("x.yaml", &TWO.replace("serve", "other"));
    world.go();
    world.write("x.yaml", TWO);
    world.go();
    let state = &world.recorded.state.owners[&owner("web")];
    assert_eq!((state.body, state.release), (first, ReleaseNumber(3)));
    assert_ne!(first, Hash::of(b""));
}
