//! What is accepted, and what it becomes.

use std::collections::BTreeSet;

use insta::assert_json_snapshot;

use super::{MACHINES, MANIFEST, files, good, run};
use crate::{
    Kind, Options, Port, Probe, Publish, Segment, Selector, Source, SourceFile, Workload, parse,
    render, schema,
};

/// Every key of every kind but Workspace, Overlay and Machine; a test below holds that none is left out.
const FULL: &str = r#"api_version: plumb/v1
kind: App
name: storefront
machines: { role: web }
replicas: 2
source: { path: ../web, dir: srv }
processes:
  web: ["./serve", "--on", "${machine.name}", "$${literal}"]
  worker: { run: ./work $PORT_ADMIN, replicas: 1, dir: jobs/./x, env: { LEVEL: low }, ports: { admin: { port: auto } }, health: { tcp: admin, interval: 1m, timeout: 500ms } }
ports: { http: 8080 }
env: { DOMAIN: "shop.${vars.domain}", OTHER: "${app.storefront.ports.http}", RELEASE: "${release}" }
health: { path: "/healthz?d=${vars.domain}", port: http, codes: [200, 301-302], healthy_threshold: 1, unhealthy_threshold: 5 }
restart: { policy: on-failure, backoff: { initial: 2s, max: 10s } }
stop: { signal: INT, grace: 3s }
log: { max_size: 1Mi, keep: 1 }
drift: report
state: stopped
user: www-data
renamed_from: shopfront
spread: zone
runtime: node@20
build: [npm ci, "npm run build -- ${commit}"]
secrets: { STRIPE_KEY: stripe-live, TLS: { secret: tls.key, as: file, on_change: { signal: USR1 }, memory_only: true }, PLAIN: { as: env } }
uses: [db]
routes: ["shop.${vars.domain}", Example.COM/shop/, { host: "*.example.com", path: /a }]
ingress: web-1
limits: { memory: 512Mi, cpu: 1.5, processes: 200 }
schedule: { cron: "15 3 * * *", timezone: Europe/Berlin, overlap: queue, timeout: 10m }
hooks: { before: [npm run check, { run: [npm, run, migrate], reversible: false, timeout: 1m }], after: npm run warm }
rollout: { strategy: canary, batch: 2, max_unavailable: 1, min_healthy: 30s, deadline: 10m, auto_revert: false }
on_disconnect: { stop_after: 2h }
---
kind: App
name: catalog
machines: web-1
image: registry.example.com/acme/catalog:2.3
entrypoint: [tini, --]
command: ./catalog --on ${machine.name}
workdir: /srv
user: "1000:1000"
labels: { com.example/team: search }
volumes: { index: /var/lib/catalog, uploads: { path: /srv/up, read_only: true }, host: { path: /data, from: /srv/data } }
networks: [backend]
ports:
  http: { port: 8080, publish: private, machine_port: 80 }
  dns: { port: 53, protocol: udp, publish: 10.0.0.10 }
env: { DB: "${service.db.url}", AT: "${service.db.host}:${service.db.port}/${service.db.database}?u=${service.db.user}" }
health: { tcp: http }
---
kind: App
name: thumbs
machines: web-1
source: { path: ../thumbs }
dockerfile: { path: docker/Dockerfile, target: runtime, args: { V: "${vars.domain}" } }
ports: { http: 9000 }
---
kind: App
name: wiki
machines: web-1
compose: ../wiki/compose.yaml
---
kind: App
name: docs
machines: web-1
source: { git: "git@git.example.com:acme/docs.git", tag: v1.0, dir: site, follow: false }
static: public
routes: [docs.example.com]
---
kind: App
name: pinned
machines: web-1
source: { git: https://git.example.com/acme/x.git, commit: 3f786850e387550fdab836ed7e6dc881de23001b }
processes: { a: { run: x, limits: { cpu: 2 }, schedule: "*/5 * * * *", secrets: [TOKEN], ports: { http: { port: auto, publish: public } } } }
limits: { memory: 1Gi }
---
kind: App
name: followed
machines: web-1
source: { git: ssh://git@git.example.com/acme/x.git, branch: main, follow: true }
run: x
---
kind: Service
name: db
renamed_from: database
machines: web-1
engine: postgres@16
port: 5433
publish: private
user: shop
database: shop_1
backup: { cron: 0 2 * * *, timezone: UTC, keep: 14, to: { folder: /var/backups/db } }
on_delete: destroy
drift: report
state: running
---
kind: Service
name: main-cache
machines: web-1
engine: valkey@8
---
kind: Volume
name: uploads
renamed_from: files
machines: web-1
on_delete: destroy
---
kind: Network
name: backend
renamed_from: net
machines: web-1
subnet: 10.20.0.0/24
internal: true
---
kind: Registry
name: acme
host: Registry.example.com:5000
username: deploy
password: { secret: REGISTRY_PASSWORD }
---
kind: Setup
name: base
machines: [web-2, web-1]
drift: ignore
renamed_from: basics
packages: [curl, ca-certificates]
files:
  /etc/motd: { content: "on ${machine.labels.zone}\n", mode: "0640", owner: root, group: "0" }
  /etc/app.toml: { source: ../files/app.toml, notify: [storefront] }
directories:
  /srv/acme: { mode: "0750", owner: acme, group: acme }
"#;

#[test]
fn every_key_is_honoured_and_every_short_form_written_out() {
    let set = good(FULL);
    assert_json_snapshot!("full", set);
}

/// Mutation: drop a key from `FULL` that `convert` reads, and the snapshot above no longer guards it.
#[test]
fn the_full_example_uses_every_key() {
    for kind in Kind::ALL {
        if matches!(kind, Kind::Workspace | Kind::Overlay | Kind::Machine) {
            continue;
        }
        let schema = schema(kind);
        let mut keys = BTreeSet::new();
        collect(&schema, &mut keys);
        for key in keys {
            assert!(
                FULL.contains(&format!("{key}:")),
                "`{key}` of {} is not in the example",
                kind.as_str()
            );
        }
    }
}

fn collect(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(|p| p.as_object()) {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|v| collect(v, keys));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| collect(v, keys)),
        _ => {}
    }
}

#[test]
fn short_forms_mean_what_the_language_says() {
    let set = good(
        "kind: App\nname: hello\nmachines: web-1\nrun: python3 -m http.server $PORT\nports: { http: auto }\nhealth: /healthz\nrestart: never\nstop: 30s\nlog: 4Ki\n",
    );
    let app = set.apps.values().next().unwrap();
    let (name, process) = app.processes.iter().next().unwrap();
    let argv: Vec<_> = process.argv.iter().map(|t| format!("{t:?}")).collect();
    assert_eq!(name.as_str(), "app");
    assert_eq!(argv.len(), 3);
    assert_eq!(process.argv[1], [Segment::Literal("-c".into())]);
    assert_eq!(process.ports.values().collect::<Vec<_>>(), [&Port::Auto]);
    assert!(
        matches!(&process.health.as_ref().unwrap().probe, Probe::Http { path, codes, .. } if path == "/healthz" && codes == &[(200, 399)])
    );
    assert!(matches!(&app.machines, Selector::Names(names) if names.len() == 1));
    assert_eq!((app.stop.grace_ms, app.log.max_bytes), (30_000, 4096));
    assert_eq!(
        good("kind: App\nname: x\nmachines: all\nrun: [a]\n")
            .apps
            .values()
            .next()
            .unwrap()
            .machines,
        Selector::All
    );
}

/// Mutations: give it to every process; give it to what has another check, no port, or runs at set times.
#[test]
fn a_health_check_of_the_defaults_is_that_of_whatever_has_a_port_to_ask_and_no_other() {
    let manifest =
        "kind: Workspace\nname: shop\ndefaults: { App: { health: { path: /up, interval: 7s } } }\n";
    let app =
        |name: &str, rest: &str| format!("kind: App\nname: {name}\nmachines: all\n{rest}---\n");
    let text = [
        app("plain", "run: x\nports: { http: auto }\n"),
        app("routed", "run: x\nroutes: [a.example.com]\n"),
        app(
            "two",
            "processes: { web: { run: x, ports: { http: auto } }, job: y }\n",
        ),
        app("box", "image: x:1\nports: { http: 80 }\n"),
        app(
            "own",
            "run: x\nports: { http: auto }\nhealth: { tcp: http }\n",
        ),
        app("portless", "run: x\n"),
        app("several", "run: x\nports: { one: auto, two: auto }\n"),
        app(
            "at-times",
            "run: x\nports: { http: auto }\nschedule: 0 3 * * *\n",
        ),
    ];
    let set = run(&[
        ("plumb.yaml", manifest),
        ("m.yaml", MACHINES),
        ("x.yaml", &text.concat()),
    ])
    .unwrap_or_else(|problems| panic!("{problems}"));
    let mut asked = Vec::new();
    for (name, app) in &set.apps {
        let checks: Vec<_> = match &app.workload {
            crate::Workload::Processes => app
                .processes
                .iter()
                .map(|(name, process)| (name.to_string(), process.health.clone()))
                .collect(),
            crate::Workload::Container(container) => {
                vec![("container".to_owned(), container.health.clone())]
            }
            _ => Vec::new(),
        };
        let checks = checks
            .into_iter()
            .filter_map(|(at, health)| Some((at, health?)));
        asked.extend(checks.map(|(at, health)| format!("{name} {at} {}", health.interval_ms)));
    }
    assert_eq!(
        asked,
        [
            "box container 7000",
            "own app 30000",
            "plain app 7000",
            "routed app 7000",
            "two web 7000"
        ]
    );
}

#[test]
fn defaults_are_filled_in_key_by_key() {
    let manifest = "kind: Workspace\nname: shop\ndefaults:\n  App:\n    env: { TZ: UTC, A: base }\n    restart: { backoff: { initial: 3s } }\n    drift: report\n    limits: { memory: 1Gi, cpu: 1 }\n    rollout: { min_healthy: 20s }\n  Setup: { drift: ignore }\n  Service: { drift: ignore, publish: public, on_delete: destroy }\n";
    let set = run(&[
        ("plumb.yaml", manifest),
        ("m.yaml", MACHINES),
        ("x.yaml", "kind: App\nname: a\nmachines: all\nrun: x\nenv: { A: own }\nrestart: on-failure\nlimits: { cpu: 2 }\nrollout: { batch: 2 }\n---\nkind: Setup\nname: s\nmachines: all\n---\nkind: Service\nname: db\nmachines: web-1\nengine: redis@7\npublish: private\n"),
    ])
    .unwrap();
    let app = set.apps.values().next().unwrap();
    assert_json_snapshot!(
        "defaults",
        (
            &app.env,
            &app.restart,
            &app.stop,
            &app.log,
            app.drift,
            app.state,
            (&app.limits, &app.rollout),
            set.services.values().next()
        )
    );
    assert_eq!(
        set.setups.values().next().unwrap().drift,
        plumb_model::DriftPolicy::Ignore
    );
}

#[test]
fn an_overlay_changes_what_it_may_and_only_when_it_is_chosen() {
    let list = files(&[
        (
            "ops/plumb.yaml",
            "kind: Workspace\nname: shop\nvars: { domain: example.com, tier: one }\npolicy: { deletes: 5 }\n",
        ),
        (
            "ops/plumb.staging.yaml",
            "kind: Overlay\nname: shop-staging\nvars: { domain: staging.example.com }\npolicy: { data_loss: allow }\ndefaults: { App: { drift: ignore } }\n",
        ),
        ("ops/m.yaml", MACHINES),
        (
            "ops/a.yaml",
            "kind: App\nname: a\nmachines: all\nrun: serve ${vars.domain} ${vars.tier}\n",
        ),
    ]);
    let plain = parse(&list, &Options::default()).unwrap();
    let staging = parse(
        &list,
        &Options {
            env: Some("staging".into()),
            ..Options::default()
        },
    )
    .unwrap();
    assert_eq!(plain.workspace.name.as_str(), "shop");
    assert_json_snapshot!(
        "overlay",
        (
            &staging.workspace,
            staging
                .apps
                .values()
                .next()
                .map(|a| (&a.drift, &a.processes))
        )
    );
    let wrong = parse(
        &list,
        &Options {
            env: Some("stagin".into()),
            ..Options::default()
        },
    )
    .unwrap_err();
    assert_eq!(
        wrong.to_string(),
        "ops/plumb.stagin.yaml: there is no overlay for the environment `stagin` [P0407]"
    );
    assert_eq!(
        wrong.items[0].hint.as_deref(),
        Some("did you mean `--env staging`?")
    );
}

/// DESIGN: same blueprint, any key order, any file split, same result.
#[test]
fn key_order_and_file_split_change_nothing_but_origins() {
    let one = run(&[("plumb.yaml", &format!("{MANIFEST}---\n{MACHINES}---\nkind: App\nname: a\nmachines: [web-1, web-2]\nrun: x\nenv: {{ A: a, B: b }}\n"))]).unwrap();
    let mut two = run(&[
        ("z/plumb.yaml", MANIFEST),
        (
            "a.yaml",
            "env: { B: b, A: a }\nrun: x\nmachines: [web-2, web-1]\nname: a\nkind: App\n",
        ),
        ("m.yaml", MACHINES),
    ])
    .unwrap();
    assert_ne!(one.origins, two.origins);
    two.origins = one.origins.clone();
    assert_eq!(
        serde_json::to_string(&one).unwrap(),
        serde_json::to_string(&two).unwrap()
    );
}

#[test]
fn a_set_survives_its_journey_as_json() {
    let set = good(FULL);
    let text = serde_json::to_string(&set).unwrap();
    assert_eq!(
        serde_json::from_str::<crate::BlueprintSet>(&text).unwrap(),
        set
    );
}

#[test]
fn origins_point_at_the_written_key() {
    let set = good(FULL);
    let motd = FULL
        .lines()
        .position(|l| l.starts_with("  /etc/motd"))
        .unwrap()
        + 1;
    let at = |pointer: &str| {
        set.origin("App", "storefront", pointer)
            .unwrap()
            .to_string()
    };
    assert_eq!(at(""), "apps/x.yaml:3:7");
    assert_eq!(at("/ports/http"), "apps/x.yaml:10:10");
    assert_eq!(at("/processes/worker/ports/admin"), "apps/x.yaml:9:3");
    assert_eq!(
        set.origin("Setup", "base", "/files/~1etc~1motd")
            .unwrap()
            .to_string(),
        format!("apps/x.yaml:{motd}:3")
    );
}

#[test]
fn anchors_and_merges_work_within_their_bounds() {
    let set = good(
        "kind: App\nname: a\nmachines: all\nprocesses:\n  web: &web { run: x, env: { A: a } }\n  other: { <<: *web, run: y }\n",
    );
    let processes = &set.apps.values().next().unwrap().processes;
    assert!(processes.values().all(|p| p.env.contains_key("A")));
}

#[test]
fn empty_documents_and_a_byte_order_mark_are_nothing_to_complain_about() {
    let text = format!("\u{feff}# the manifest\n---\n{MANIFEST}---\n# nothing\n---\n");
    assert!(run(&[("plumb.yaml", &text)]).is_ok());
}

#[test]
fn the_port_variable_is_warned_about_where_it_is_empty() {
    let set = good("kind: App\nname: a\nmachines: all\nrun: serve $PORT\n");
    assert_eq!(set.warnings.items[0].code, crate::Code::PortNotSet);
    assert!(
        good("kind: App\nname: a\nmachines: all\nrun: serve $PORT_X $PORTS\n")
            .warnings
            .is_empty()
    );
}

#[test]
fn ten_thousand_resources_take_no_more_than_linear_time() {
    let setup = |files: usize| {
        let mut text = String::from("kind: Setup\nname: base\nmachines: all\nfiles:\n");
        for n in 0..files {
            text.push_str(&format!(
                "  /srv/{n}/x: {{ content: \"n${{machine.name}}\", mode: \"0640\" }}\n"
            ));
        }
        text
    };
    let time = |files: usize| {
        let text = setup(files);
        // The best of three: a busy machine must not look like a quadratic pass.
        let once = || {
            let start = std::time::Instant::now();
            let set = good(&text);
            assert_eq!(set.setups.values().next().unwrap().files.len(), files);
            start.elapsed()
        };
        (0..3).map(|_| once()).min().unwrap()
    };
    let (few, many) = (time(1000), time(10_000));
    assert!(
        many < few * 40,
        "1,000 files: {few:?}, 10,000 files: {many:?}"
    );
}

/// The smallest useful blueprint of the language's own description. It has no port, and its route leads to one.
#[test]
fn the_smallest_useful_app_is_whole() {
    let set = good(
        "kind: App\nname: hello\nmachines: web-1\nsource: { git: https://git.example.com/me/hello.git, branch: main }\nruntime: node@20\nbuild: npm ci\nrun: npm start\nroutes: [hello.example.com]\n",
    );
    let app = set.apps.values().next().unwrap();
    let process = app.processes.values().next().unwrap();
    let ports: Vec<_> = process
        .ports
        .iter()
        .map(|(n, p)| (n.as_str(), *p))
        .collect();
    assert_eq!(ports, [("http", Port::Auto)]);
    assert_eq!(app.routes[0].host, "hello.example.com");
    assert_eq!((app.build.len(), app.build[0].len()), (1, 3));
    assert!(matches!(&app.source, Some(Source::Git(git)) if !git.follow && git.dir.is_empty()));
    assert!(set.warnings.is_empty() && set.paths.is_empty());
}

/// Every file of the example repository, as the command line would read them.
fn shop() -> Vec<SourceFile> {
    let root =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints-examples/shop");
    let mut files = Vec::new();
    for folder in ["", "machines", "apps"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "yaml") {
                files.push(SourceFile {
                    path: path
                        .strip_prefix(&root)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_owned(),
                    text: std::fs::read(&path).unwrap(),
                });
            }
        }
    }
    files
}

#[test]
fn the_example_shop_is_valid_in_every_environment_and_what_it_names_exists() {
    let files = shop();
    for env in [None, Some("staging")] {
        let others = crate::others(&files).into_iter().map(|path| {
            let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            let text = root.join("../../blueprints-examples/shop").join(&path);
            SourceFile {
                path,
                text: std::fs::read(text).unwrap(),
            }
        });
        let options = Options {
            env: env.map(str::to_owned),
            others: others.collect(),
            ..Options::default()
        };
        let set = parse(&files, &options)
            .unwrap_or_else(|problems| panic!("{}", render(&problems, &files, false)));
        assert!(set.warnings.is_empty(), "{}", set.warnings);
        assert_eq!((set.machines.len(), set.apps.len()), (3, 6));
        let hosts = set.apps.values().flat_map(|a| &a.routes);
        let staging = hosts
            .filter(|r| r.host.ends_with(".staging.example.com"))
            .count();
        assert_eq!(staging > 0, env.is_some());
        let root =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../blueprints-examples/shop");
        let compose = set.apps.values().filter_map(|app| match &app.workload {
            Workload::Compose(compose) => Some(&compose.path),
            _ => None,
        });
        for path in set.paths.iter().chain(compose) {
            assert!(root.join(path).exists(), "{path}");
        }
    }
}

#[test]
fn every_kind_s_example_is_valid() {
    let mut list = vec![(
        "machines.yaml".to_owned(),
        "kind: Machine\nname: data-1\n".to_owned(),
    )];
    for kind in Kind::ALL {
        let name = match kind {
            Kind::Workspace => "plumb.yaml".to_owned(),
            Kind::Overlay => "plumb.staging.yaml".to_owned(),
            kind => format!("apps/{}.yaml", kind.as_str()),
        };
        list.push((name, crate::written::example::of(kind).to_owned()));
    }
    let list: Vec<(&str, &str)> = list.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    if let Err(problems) = run(&list) {
        panic!("{}", render(&problems, &files(&list), false));
    }
}

#[test]
fn every_app_with_a_port_is_also_reachable_under_the_base_domain() {
    let manifest = "kind: Workspace\nname: shop\nvars: { domain: example.com }\nbase_domain: \"apps.${vars.domain}\"\n";
    let app =
        |name: &str, rest: &str| format!("kind: App\nname: {name}\nmachines: all\n{rest}---\n");
    let apps = app("own", "run: x\nroutes: [own.example.com]\n")
        + &app("one", "run: x\nports: { any: 8080 }\n")
        + &app("two", "run: x\nports: { http: 8081, admin: 8082 }\n")
        + &app("vague", "run: x\nports: { a: 8083, b: 8084 }\n")
        + &app("none", "run: x\n")
        + &app("site", "source: { path: site }\nstatic: .\n")
        + &app(
            "box",
            "image: nginx\nports: { dns: { port: 53, protocol: udp } }\n",
        );
    let set = run(&[
        ("plumb.yaml", manifest),
        ("m.yaml", MACHINES),
        ("a.yaml", &apps),
    ])
    .unwrap_or_else(|problems| panic!("{problems}"));
    let routes: Vec<String> = set
        .apps
        .iter()
        .map(|(name, app)| {
            let hosts: Vec<&str> = app.routes.iter().map(|r| r.host.as_str()).collect();
            format!("{name}: {}", hosts.join(" "))
        })
        .collect();
    assert_eq!(
        routes,
        [
            "box: ",
            "none: ",
            "one: one.apps.example.com",
            "own: own.example.com own.apps.example.com",
            "site: site.apps.example.com",
            "two: two.apps.example.com",
            "vague: ",
        ]
    );
}

#[test]
fn a_service_is_there_for_other_machines_where_its_own_has_an_address_for_them() {
    let service = |rest: &str| {
        good(&format!(
            "kind: Service\nname: db\nmachines: web-1\nengine: postgres@16\n{rest}"
        ))
        .services
        .into_values()
        .next()
        .unwrap()
    };
    assert_eq!(service("").publish, Publish::Private);
    assert_eq!(service("publish: loopback\n").publish, Publish::Loopback);
    let lonely =
        "kind: Machine\nname: m-3\n---\nkind: Service\nname: x\nmachines: m-3\nengine: redis@7\n";
    let set = good(lonely);
    let service = set.services.values().next().unwrap();
    assert_eq!((&service.publish, service.port), (&Publish::Loopback, 6379));
    assert_eq!(
        (service.user.as_str(), service.database.as_str()),
        ("x", "x")
    );
}

#[test]
fn the_strategy_rolling_may_miss_what_it_replaces() {
    let rollout = |text: &str| {
        let set = good(&format!(
            "kind: App\nname: a\nmachines: all\nrun: x\n{text}"
        ));
        let app = set.apps.into_values().next().unwrap();
        app.rollout.map(|r| (r.batch, r.max_unavailable))
    };
    assert_eq!(rollout(""), None);
    assert_eq!(rollout("rollout: blue-green\n"), Some((1, 0)));
    assert_eq!(
        rollout("rollout: { strategy: rolling, batch: 3 }\n"),
        Some((3, 3))
    );
}
