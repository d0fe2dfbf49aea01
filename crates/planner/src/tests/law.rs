//! The law over generated histories: apply a plan, and the next one is empty. After every step, whatever
//! [`World::apply`] and [`check_plan`](super::check_plan) hold is held too.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Held, MANIFEST, Said, World, facts, machine};
use crate::Request;

const MACHINES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Clone)]
struct App {
    /// 0 and 1: all; 2: those with the role `web`; else the machine of that bit pattern.
    on: u8,
    replicas: Option<u8>,
    two_processes: bool,
    fixed: bool,
    auto: u8,
    env: u8,
    stopped: bool,
    source: bool,
    health: bool,
    refers: bool,
    command: u8,
}

#[derive(Debug, Clone)]
struct Setup {
    on: u8,
    files: u8,
    folders: u8,
    content: u8,
    source: bool,
    drift: bool,
}

/// Something besides native apps and Setups. Each has one of two names, and is renamed from the other.
#[derive(Debug, Clone)]
struct Thing {
    /// 0: a service with an app that uses it; 1: a container; 2: an app from git; 3: a static site; 4: a volume; 5: a network.
    what: u8,
    on: u8,
    name: bool,
    one: u8,
    two: bool,
    stopped: bool,
}

#[derive(Debug, Clone)]
enum Step {
    /// These machines, apps and Setups, with that content behind every source path.
    Write {
        machines: u8,
        apps: Vec<Option<App>>,
        setups: Vec<Option<Setup>>,
        things: Vec<Thing>,
        content: u8,
    },
    /// All agents report that they are done.
    Converge,
    /// A stranger is met on a port of so many processes.
    Strangers(u8),
    /// The n-th release that there ever was, again.
    Rollback(u8),
    Destroy,
}

fn app() -> impl Strategy<Value = App> {
    (
        (
            0..6u8,
            proptest::option::of(0..5u8),
            any::<bool>(),
            any::<bool>(),
            0..3u8,
        ),
        (
            0..4u8,
            prop::bool::weighted(0.2),
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            0..3u8,
        ),
    )
        .prop_map(
            |(
                (on, replicas, two_processes, fixed, auto),
                (env, stopped, source, health, refers, command),
            )| App {
                on,
                replicas,
                two_processes,
                fixed,
                auto,
                env,
                stopped,
                source,
                health,
                refers,
                command,
            },
        )
}

fn setup() -> impl Strategy<Value = Setup> {
    (0..6u8, 0..4u8, 0..4u8, 0..3u8, any::<bool>(), any::<bool>()).prop_map(
        |(on, files, folders, content, source, drift)| Setup {
            on,
            files,
            folders,
            content,
            source,
            drift,
        },
    )
}

fn thing() -> impl Strategy<Value = Thing> {
    (
        0..6u8,
        0..6u8,
        any::<bool>(),
        0..3u8,
        any::<bool>(),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(what, on, name, one, two, stopped)| Thing {
            what,
            on,
            name,
            one,
            two,
            stopped,
        })
}

fn thing_yaml(i: usize, thing: &Thing, there: &[&str]) -> String {
    // A thing of another kind has another name: nothing is renamed across kinds.
    let names = ["a", "b"].map(|last| format!("thing-{i}-{}-{last}", thing.what));
    let [mut name, mut old] = names;
    if thing.name {
        std::mem::swap(&mut name, &mut old);
    }
    let here = there[thing.on as usize % there.len()];
    let machines = selector(thing.on, there);
    let kept = if thing.two { "keep" } else { "destroy" };
    let state = if thing.stopped { "stopped" } else { "running" };
    let Thing { one, two, .. } = thing;
    let head = |kind: &str| format!("kind: {kind}\nname: {name}\nrenamed_from: {old}\n");
    match thing.what {
        0 => format!(
            "{}machines: {here}\nengine: {}\nport: {}\non_delete: {kept}\nstate: {state}\n---\nkind: App\nname: user-{i}\nmachines: {here}\nrun: x\nuses: [{name}]\nports: {{ http: auto }}\nroutes: [u{i}.example.com]\nsecrets: [KEY]\nrollout: {{ batch: {} }}\n---\n",
            head("Service"),
            if *one == 0 { "redis@7.2" } else { "postgres@16.3" },
            6000 + i,
            one + 1,
        ),
        1 => format!(
            "{}machines: {machines}\nreplicas: {}\nimage: box:{one}\nports: {{ http: 80 }}\nvolumes: {{ own: /own }}\nenv: {{ A: '{one}' }}\nsecrets: [KEY]\nstate: {state}\nlimits: {{ memory: {}Mi }}\n---\n",
            head("App"),
            one + 1,
            64 + u32::from(*one),
        ),
        2 => format!(
            "{}machines: {machines}\nsource: {{ git: 'https://git.example.com/x.git', {} }}\nruntime: node@2{one}\nbuild: [make]\nrun: x\nhooks: {{ before: y }}\nports: {{ http: auto }}\nroutes: [g{i}.example.com{}]\nstate: {state}\n---\n",
            head("App"),
            if *two { "branch: main" } else { "tag: v1" },
            if *one == 0 { ", 'h.example.com/p'" } else { "" },
        )
        .replace("h.example.com", &format!("h{i}.example.com")),
        3 => format!(
            "{}machines: {machines}\nsource: {{ path: site }}\nstatic: .\nroutes: [s{i}.example.com]\n---\n",
            head("App"),
        ),
        4 => format!("{}machines: {machines}\non_delete: {kept}\n---\n", head("Volume")),
        _ => format!("{}machines: {machines}\nsubnet: 10.{one}.0.0/24\n---\n", head("Network")),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let write = (
        1..16u8,
        prop::collection::vec(proptest::option::weighted(0.8, app()), 0..4),
        prop::collection::vec(proptest::option::weighted(0.8, setup()), 0..3),
        prop::collection::vec(thing(), 0..4),
        0..3u8,
    )
        .prop_map(|(machines, apps, setups, things, content)| Step::Write {
            machines,
            apps,
            setups,
            things,
            content,
        });
    prop_oneof![
        6 => write,
        2 => Just(Step::Converge),
        1 => (1..4u8).prop_map(Step::Strangers),
        1 => any::<u8>().prop_map(Step::Rollback),
        1 => Just(Step::Destroy),
    ]
}

fn present(machines: u8) -> Vec<&'static str> {
    (0..4)
        .filter(|i| machines & (1 << i) != 0)
        .map(|i| MACHINES[i])
        .collect()
}

fn selector(on: u8, there: &[&str]) -> String {
    match on {
        0 | 1 => "all".to_owned(),
        2 if there.contains(&"a") || there.contains(&"c") => "{ role: web }".to_owned(),
        n => there[n as usize % there.len()].to_owned(),
    }
}

fn app_yaml(i: usize, app: &App, there: &[&str], all: &[Option<App>]) -> String {
    let mut out = format!(
        "kind: App\nname: app-{i}\nmachines: {}\n",
        selector(app.on, there)
    );
    let run = format!("./run {}", app.command);
    let replicas = app.replicas.filter(|n| *n > 0);
    if app.two_processes {
        let _ = writeln!(out, "processes: {{ web: {run}, work: [./work] }}");
    } else {
        let _ = writeln!(out, "run: {run}");
    }
    let mut ports: Vec<String> = (0..app.auto).map(|p| format!("p{p}: auto")).collect();
    // Several slots of one fixed port on one machine are refused, as other tests hold.
    if app.fixed && replicas.is_none() {
        ports.push(format!("fixed: {}", 20_000 + 7 * i));
    }
    if app.health && !ports.is_empty() {
        let _ = writeln!(
            out,
            "health: {{ tcp: {} }}",
            ports[0].split(':').next().unwrap()
        );
    }
    let _ = writeln!(out, "ports: {{ {} }}", ports.join(", "));
    if let Some(replicas) = replicas {
        let _ = writeln!(out, "replicas: {replicas}");
    }
    let mut env = vec![format!("LEVEL: l{}", app.env), "R: '${release}'".to_owned()];
    if app.env % 2 == 1 {
        env.push("ON: '${machine.name}'".to_owned());
    }
    // Only what runs on every machine can be referred to from everywhere.
    let everywhere =
        |other: &App| other.on < 2 && other.auto > 0 && other.replicas.is_none_or(|n| n == 0);
    if app.refers
        && let Some(other) = all.iter().position(|a| a.as_ref().is_some_and(everywhere))
    {
        env.push(format!("OTHER: '${{app.app-{other}.ports.p0}}'"));
    }
    let _ = writeln!(out, "env: {{ {} }}", env.join(", "));
    if app.stopped {
        out.push_str("state: stopped\n");
    }
    if app.source {
        let _ = writeln!(out, "source: {{ path: src-{i} }}");
    }
    out + "---\n"
}

fn setup_yaml(i: usize, setup: &Setup, there: &[&str]) -> String {
    let mut out = format!(
        "kind: Setup\nname: setup-{i}\nmachines: {}\n",
        selector(setup.on, there)
    );
    // Folders of one Setup hold files of the next, so that owners wait for each other.
    out.push_str("files:\n  /srv/marker-");
    let _ = writeln!(
        out,
        "{i}: {{ content: '{} on ${{machine.name}}' }}",
        setup.content
    );
    for file in 0..setup.files {
        let content = if setup.source {
            format!("source: file-{i}")
        } else {
            format!("content: c{}", setup.content)
        };
        let _ = writeln!(
            out,
            "  /srv/d{file}/f{i}: {{ {content}, mode: \"06{}0\" }}",
            file % 8
        );
    }
    if i == 0 && setup.folders > 0 {
        out.push_str("directories:\n  /srv: {}\n");
        for folder in 0..setup.folders {
            let _ = writeln!(
                out,
                "  /srv/d{folder}: {{ mode: \"07{}0\" }}",
                setup.content
            );
        }
    }
    if setup.drift {
        out.push_str("drift: report\n");
    }
    out + "---\n"
}

fn write(world: &mut World, step: &Step) {
    let Step::Write {
        machines,
        apps,
        setups,
        things,
        content,
    } = step
    else {
        return;
    };
    let there = present(*machines);
    world.files.clear();
    world.write("plumb.yaml", MANIFEST);
    let mut text = String::new();
    for name in &there {
        let role = if matches!(*name, "a" | "c") {
            "web"
        } else {
            "db"
        };
        let _ = writeln!(
            text,
            "kind: Machine\nname: {name}\nlabels: {{ role: {role} }}\n---"
        );
        if *name != "d" {
            world.observed.machines.insert(machine(name), facts(&[]));
        }
    }
    world.write("machines.yaml", &text);
    let mut text = String::new();
    for (i, app) in apps
        .iter()
        .enumerate()
        .filter_map(|(i, a)| Some((i, a.as_ref()?)))
    {
        text += &app_yaml(i, app, &there, apps);
        world
            .sources
            .insert(format!("src-{i}"), Held::Bytes(format!("{content}")));
    }
    for (i, setup) in setups
        .iter()
        .enumerate()
        .filter_map(|(i, s)| Some((i, s.as_ref()?)))
    {
        text += &setup_yaml(i, setup, &there);
        world
            .sources
            .insert(format!("file-{i}"), Held::Text(format!("{content}")));
    }
    for (i, thing) in things.iter().enumerate() {
        text += &thing_yaml(i, thing, &there);
    }
    world
        .sources
        .insert("site".to_owned(), Held::Bytes(format!("{content}")));
    world.write("x.yaml", &text);
}

fn strangers(world: &mut World, count: u8) {
    let processes: Vec<String> = world
        .recorded
        .releases
        .values()
        .flat_map(|body| &body.resources)
        .filter(|r| r.address.kind == plumb_model::ResourceKind::Process)
        .map(|r| r.address.to_string())
        .take(count.into())
        .collect();
    for at in processes {
        world.observe(&at, Said::PortTaken);
    }
}

fn walk(steps: &[Step]) {
    let mut world = World::default();
    for step in steps {
        match step {
            Step::Write { .. } => {
                write(&mut world, step);
                world.go();
            }
            Step::Converge => world.converge(),
            Step::Strangers(count) => {
                strangers(&mut world, *count);
                if !world.files.is_empty() && world.recorded.state.manifest.is_some() {
                    world.go();
                }
            }
            Step::Rollback(n) => {
                let Some((name, to)) = world
                    .history
                    .keys()
                    .nth(*n as usize % world.history.len().max(1))
                    .cloned()
                else {
                    continue;
                };
                let request = world.rollback_to(name.as_str(), to.0);
                // A machine that left, or a port that another holds by now, may be in the way.
                if world.try_plan(&request).is_ok() {
                    world.carry_out(&request);
                }
            }
            Step::Destroy => {
                world.carry_out(&Request::Destroy);
            }
        }
    }
    // At the end everything is proven gone, and one more change takes every tombstone with it.
    world.carry_out(&Request::Destroy);
    world.converge();
    write(
        &mut world,
        &Step::Write {
            machines: 1,
            apps: vec![],
            setups: vec![],
            things: vec![],
            content: 0,
        },
    );
    let last = "kind: Setup\nname: last\nmachines: all\nfiles: { /last: { content: x } }\n";
    world.write("x.yaml", last);
    world.go();
    let left: Vec<_> = world
        .recorded
        .state
        .machines
        .values()
        .flat_map(|m| m.tombstones.keys())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let names: Vec<_> = world
        .recorded
        .state
        .machines
        .keys()
        .map(|m| m.as_str())
        .collect();
    assert_eq!(names, ["a"], "the machines that left are forgotten");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Fails under the mutation: let `is_stranded` look at no generation.
    #[test]
    fn whatever_happens_an_applied_plan_leaves_nothing_to_plan(steps in prop::collection::vec(step(), 1..7)) {
        walk(&steps);
    }
}
