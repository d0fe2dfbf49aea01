//! The same meaning gives the same bytes; another meaning gives another approval.

use plumb_model::state::Commit;
use plumb_model::{Generation, Hash, Revision};

use super::{MANIFEST, Said, World, facts, machine};
use crate::Planned;

const TEXT: &str = "kind: App\nname: web\nmachines: all\nrun: serve\nports: { http: auto, admin: 9000 }\nenv: { A: x, B: '${machine.name}', C: '${app.web.ports.http}' }\nsource: { path: app }\n---\nkind: Setup\nname: base\nmachines: [b, a]\nfiles:\n  /srv/d/f: { content: v0 }\n  /srv/g: { source: g.bin }\ndirectories: { /srv/d: { mode: \"0700\" } }\npackages: [curl, git]\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\n---\nkind: App\nname: box\nmachines: a\nimage: box@sha256:1111111111111111111111111111111111111111111111111111111111111111\nvolumes: { data: /data, own: /own }\nports: { http: 8081 }\nroutes: [b.example.com, a.example.com]\nsecrets: [ONE, TWO]\n---\nkind: Volume\nname: data\nmachines: [b, a]\n";

const OTHER_WAY: [(&str, &str); 4] = [
    (
        "apps/web.yaml",
        "source: { path: ../app }\nenv:\n  C: '${app.web.ports.http}'\n  B: ${machine.name}\n  A: x\nports: { admin: 9000, http: auto }\nrun: serve\nmachines: all\nname: web\nkind: App\n",
    ),
    (
        "z.yaml",
        "kind: Machine\nlabels: { name: b }\nname: b\n---\nname: a\nkind: Machine\nlabels: { name: a }\n",
    ),
    (
        "more.yaml",
        "name: data\nmachines: [a, b]\nkind: Volume\n---\nengine: postgres@16.3\nmachines: [a]\nname: db\nkind: Service\n---\nsecrets: [TWO, ONE]\nroutes: [b.example.com, a.example.com]\nports: { http: { port: 8081, publish: loopback } }\nvolumes: { own: { path: /own }, data: /data }\nimage: box@sha256:1111111111111111111111111111111111111111111111111111111111111111\nkind: App\nname: box\nmachines: [a]\n",
    ),
    (
        "base.yaml",
        "packages: [git, curl]\nname: base\nkind: Setup\ndirectories:\n  /srv/d:\n    mode: \"0700\"\nmachines:\n  - a\n  - b\nfiles: { /srv/g: { source: g.bin }, /srv/d/f: { content: v0 } }\n",
    ),
];

fn same(one: &Planned, two: &Planned) {
    assert_eq!(one.plan.approval, two.plan.approval);
    assert_eq!(one.next.state.bytes(), two.next.state.bytes());
    assert_eq!(one.next, two.next);
    let bare = |planned: &Planned| {
        let mut plan = planned.plan.clone();
        plan.changes.iter_mut().for_each(|c| c.origin = None);
        plan.owners.iter_mut().for_each(|o| o.origin = None);
        plan
    };
    assert_eq!(bare(one), bare(two));
}

/// Fails under the mutation: put `origin` into the approved part.
#[test]
fn the_order_of_keys_and_the_split_over_files_change_nothing_but_the_places() {
    let one = World::new(&["a", "b"], TEXT);
    let mut two = World {
        observed: one.observed.clone(),
        ..World::default()
    };
    two.write("plumb.yaml", MANIFEST);
    for (path, text) in OTHER_WAY {
        two.write(path, text);
    }
    let (one, two) = (one.plan(), two.plan());
    same(&one, &two);
    assert_ne!(one.plan.changes[0].origin, two.plan.changes[0].origin);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let mut world = World::new(&["a", "b"], TEXT);
    for _ in 0..2 {
        let (one, two) = (world.plan(), world.clone().plan());
        assert_eq!(one, two);
        let json = |p: &Planned| serde_json::to_vec(&p.plan).unwrap();
        assert_eq!(json(&one), json(&two));
        world.go();
        world.write(
            "x.yaml",
            &TEXT.replace("v0", "ho").replace("serve", "other"),
        );
    }
}

/// A written default is no change: it is filled in before anything is compared.
#[test]
fn writing_a_default_out_is_no_change() {
    let mut world = World::new(&["a", "b"], TEXT);
    world.go();
    let text = TEXT
        .replace("run: serve", "run: serve\nstate: running\ndrift: enforce")
        .replace("{ content: v0 }", "{ content: v0, mode: \"0644\" }");
    world.write("x.yaml", &text);
    let plan = world.plan().plan;
    assert!(plan.is_empty(), "{plan:#?}");
}

fn approval(world: &World) -> Hash {
    world.plan().plan.approval
}

fn commit(id: &str) -> Option<Commit> {
    Some(Commit {
        id: id.to_owned(),
        author: "A <a@example.com>".to_owned(),
        subject: "change".to_owned(),
        dirty: false,
    })
}

#[test]
fn the_approval_does_not_move_with_the_commit_the_base_or_what_drifts() {
    let mut world = World::new(&["a", "b"], TEXT);
    world.go();
    world.write("x.yaml", &TEXT.replace("v0", "ho"));
    let before = approval(&world);

    world.commit = commit("1234");
    assert_eq!(approval(&world), before);

    world.observe("a/base/file//srv/g", Said::Drifted("mode is 0600"));
    let plan = world.plan().plan;
    assert_eq!(plan.drift[0].message, "mode is 0600");
    assert_eq!(plan.approval, before);

    world.observed.machines.remove(&machine("b"));
    let plan = world.plan().plan;
    assert!(!plan.not_done.is_empty());
    assert_eq!(plan.approval, before);

    world.recorded.state.revision = Revision(17);
    assert_eq!(approval(&world), before);
}

#[test]
fn the_approval_moves_with_everything_that_is_done() {
    let mut world = World::new(&["a", "b"], TEXT);
    world.go();
    let mut seen = std::collections::BTreeSet::from([approval(&world)]);
    let ways = [
        TEXT.replace("v0", "ho"),
        TEXT.replace("serve", "other"),
        TEXT.replace("0700", "0750"),
        TEXT.replace("A: x", "A: y"),
        TEXT.replace("http: auto", "http: 9001"),
        TEXT.replace("machines: all", "machines: a"),
        TEXT.replace("run: serve", "run: serve\ndrift: report"),
        TEXT.replace("run: serve", "run: serve\nstate: stopped"),
    ];
    for text in ways {
        world.write("x.yaml", &text);
        assert!(seen.insert(approval(&world)), "{text}");
    }
    world.write("x.yaml", TEXT);
    world
        .sources
        .insert("app".into(), super::Held::Bytes("v2".into()));
    assert!(seen.insert(approval(&world)), "new content of a source");
}

#[test]
fn a_commit_that_is_written_into_a_file_is_content() {
    let text = "kind: Setup\nname: s\nmachines: a\nfiles: { /x: { content: '${commit}' } }\n";
    let mut world = World::new(&["a"], text);
    assert_eq!(world.go().changes.len(), 1);
    world.commit = commit("1234");
    let change = &world.go().changes[0];
    assert_eq!(change.attributes[0].before, Some("uncommitted".into()));
    assert_eq!(change.attributes[0].after, Some("1234".into()));
}

#[test]
fn what_an_agent_says_of_itself_changes_nothing_that_is_recorded() {
    let mut world = World::new(&["a", "b"], TEXT);
    let before = world.plan().next;
    let mut other = facts(&[]);
    other.kernel = "7.0".to_owned();
    world.observed.machines.insert(machine("a"), other);
    world.observed.machines.remove(&machine("b"));
    assert_eq!(world.plan().next, before);
    assert_eq!(before.moved[&machine("a")], Generation(1));
}
