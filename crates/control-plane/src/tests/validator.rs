//! Blueprints that never went through the parser, sent straight to the API.

use serde_json::{Value, json};

use super::*;

/// Two machines, a service, an app that uses it, and a Setup with a file.
const GOOD: &str = "
kind: Workspace
name: shop
---
kind: Machine
name: web-1
---
kind: Machine
name: web-2
---
kind: Service
name: db
machines: web-1
engine: postgres@16
---
kind: Setup
name: base
machines: web-1
files:
  /tmp/plumb-test/motd: { content: hi }
---
kind: App
name: hello
machines: web-1
run: [sleep, \"1000\"]
uses: [db]
ports: { http: 18080 }
env: { PEER: \"${app.hello.ports.http}\" }
routes: [hello.example.com]
";

fn good() -> Value {
    let file = plumb_blueprint::SourceFile {
        path: "plumb.yaml".into(),
        text: GOOD.as_bytes().to_vec(),
    };
    let set = plumb_blueprint::parse(std::slice::from_ref(&file), &Default::default())
        .unwrap_or_else(|d| panic!("{}", plumb_blueprint::render(&d, &[file], false)));
    serde_json::to_value(&set).unwrap()
}

fn request(set: &Value) -> v1::PlanRequest {
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: serde_json::to_vec(set).unwrap(),
            ..Default::default()
        })),
        commit: None,
    }
}

/// Threat 24: the API plans nothing of this that the parser would have refused. Mutation, tried: leave `set.check()` out of
/// `checked`.
#[tokio::test]
async fn blueprints_sent_straight_to_the_api_pass_the_checks_of_the_parser() {
    let world = world().await;
    let mut api = world.api().await;
    api.plan(request(&good())).await.unwrap();
    let mut taken = Vec::new();
    type Change = fn(&mut Value);
    let cases: &[(&str, Change)] = &[
        ("a machine that is none", |s| {
            s["apps"]["hello"]["machines"] = json!({"names": ["nowhere"]})
        }),
        ("a label that no machine has", |s| {
            s["apps"]["hello"]["machines"] = json!({"labels": {"a": "b"}})
        }),
        ("one name for two owners", |s| {
            s["setups"]["hello"] = s["setups"]["base"].clone()
        }),
        ("a service that is none", |s| {
            s["apps"]["hello"]["uses"] = json!(["nothere"])
        }),
        ("one port for two apps", |s| {
            s["apps"]["hello2"] = s["apps"]["hello"].clone()
        }),
        ("one file for two setups", |s| {
            s["setups"]["base2"] = s["setups"]["base"].clone()
        }),
        ("a service on two machines", |s| {
            s["services"]["db"]["machines"] = json!("all")
        }),
        ("a command of nothing", |s| {
            s["apps"]["hello"]["processes"]["app"]["argv"] = json!([])
        }),
        ("a folder outside of the source", |s| {
            s["apps"]["hello"]["processes"]["app"]["dir"] = json!("../../etc")
        }),
        ("a renamed app that is still there", |s| {
            s["apps"]["hello"]["renamed_from"] = json!("base")
        }),
        ("a route with a brace", |s| {
            s["apps"]["hello"]["routes"][0]["host"] = json!("a{b}\n")
        }),
        ("port 0", |s| {
            s["apps"]["hello"]["processes"]["app"]["ports"]["http"] = json!({"fixed": 0})
        }),
        ("more instances than anybody has", |s| {
            s["apps"]["hello"]["replicas"] = json!(20_000)
        }),
        ("a relative file", |s| {
            let file = s["setups"]["base"]["files"]["/tmp/plumb-test/motd"].take();
            s["setups"]["base"]["files"] = json!({"../motd": file});
        }),
        ("a user that is none", |s| {
            s["apps"]["hello"]["user"] = json!("root; rm -rf /")
        }),
        ("an environment variable that is none", |s| {
            let value = s["apps"]["hello"]["env"]["PEER"].clone();
            s["apps"]["hello"]["env"] = json!({"A=B\n": value});
        }),
    ];
    for (what, change) in cases {
        let mut set = good();
        change(&mut set);
        match within(api.plan(request(&set))).await {
            Ok(_) => taken.push(*what),
            Err(status) => {
                let refusal = Refusal::of(&status).unwrap_or_else(|| panic!("{what}: {status:?}"));
                assert!(
                    matches!(refusal.reason, Reason::PlanRefused | Reason::BadMessage),
                    "{what}: {refusal:?}"
                );
            }
        }
    }
    assert!(
        taken.is_empty(),
        "planned as if they were right: {taken:?}\n{:#}",
        good()
    );
}
