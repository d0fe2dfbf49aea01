//! What is accepted, and what it becomes.

use std::collections::BTreeSet;

use insta::assert_json_snapshot;

use super::{MACHINES, MANIFEST, files, good, run};
use crate::{Kind, Options, Port, Probe, Segment, Selector, parse, schema};

/// Every key of App and Setup at once; a test below holds that none is left out.
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
---
kind: Setup
name: base
machines: [web-2, web-1, web-2]
drift: ignore
files:
  /etc/motd: { content: "on ${machine.labels.zone}\n", mode: "0640", owner: root, group: "0" }
  /etc/app.toml: { source: ../files/app.toml }
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
fn the_full_example_uses_every_key_of_app_and_setup() {
    for (kind, text) in [(Kind::App, FULL), (Kind::Setup, FULL)] {
        let schema = schema(kind);
        let mut keys = BTreeSet::new();
        collect(&schema, &mut keys);
        for key in keys {
            assert!(
                text.contains(&format!("{key}:")),
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

#[test]
fn defaults_are_filled_in_key_by_key() {
    let manifest = "kind: Workspace\nname: shop\ndefaults:\n  App:\n    env: { TZ: UTC, A: base }\n    restart: { backoff: { initial: 3s } }\n    drift: report\n  Setup: { drift: ignore }\n";
    let set = run(&[
        ("plumb.yaml", manifest),
        ("m.yaml", MACHINES),
        ("x.yaml", "kind: App\nname: a\nmachines: all\nrun: x\nenv: { A: own }\nrestart: on-failure\n---\nkind: Setup\nname: s\nmachines: all\n"),
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
            app.state
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
        "apps/x.yaml:25:3"
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
