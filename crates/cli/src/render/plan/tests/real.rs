//! Plans that the planner makes of real blueprints: they follow the published schema, and every format shows them.

use std::path::{Path, PathBuf};

use plumb_model::plan::Plan;
use plumb_model::plan_schema::plan_schema;
use plumb_planner::snapshot::Snapshot;
use plumb_planner::{Ask, Request};

use super::{FORMATS, PlanFormat, PlanView, fixture, render, text, view};
use crate::args::{Blueprints, Output};
use crate::out::Style;
use crate::{offline, repository::Repository};

const BEFORE: &str = "kind: Workspace
name: shop
---
kind: Machine
name: web-1
labels: { role: web }
address: { private: 10.0.0.1 }
price: { monthly: 12.50, currency: EUR }
---
kind: Machine
name: web-2
labels: { role: web }
address: { private: 10.0.0.2 }
---
kind: App
name: hello
machines: { role: web }
source: { git: https://git.example.com/me/hello.git, branch: main }
runtime: node@20
build: npm ci
run: npm start
ports: { http: auto }
env: { GREETING: hello }
health: /healthz
---
kind: App
name: search
machines: web-1
image: registry.example.com/search:2
ports: { http: 8080 }
---
kind: Service
name: db
machines: web-1
engine: postgres@16
---
kind: Setup
name: base
machines: all
files:
  /etc/motd: { content: \"one\\ntwo\\nthree\\n\" }
";

/// What it becomes: an app restarts, another goes, a text changes, and a service has another name.
fn after() -> String {
    let start = BEFORE
        .find("---\nkind: App\nname: search")
        .expect("the app");
    let end = BEFORE.find("---\nkind: Service").expect("the service");
    format!("{}{}", &BEFORE[..start], &BEFORE[end..])
        .replace("GREETING: hello", "GREETING: good day")
        .replace("two", "zwei")
        .replace("name: db\n", "name: store\nrenamed_from: db\n")
}

fn request(text: &str) -> Request {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("plumb.yaml"), text).expect("to write");
    from(folder.path())
}

fn from(folder: &Path) -> Request {
    let blueprints = Blueprints {
        path: folder.to_owned(),
        env: None,
    };
    let style = Style {
        color: false,
        live: false,
    };
    let repository = Repository::find(&blueprints).expect("a repository");
    let read = repository.read(Output::Text, &style).expect("valid");
    let sources = repository
        .sources(&read.set, Output::Text, &style)
        .expect("sources");
    sources.request(read.set, Ask::default())
}

fn plan(request: &Request, snapshot: &Snapshot) -> Plan {
    offline::plan(request, snapshot, None).expect("a plan").plan
}

/// Plans of the quickstart, of a repository of every sort of thing, and of a change to that.
fn plans() -> [Plan; 3] {
    let quickstart =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../blueprints-examples/quickstart");
    let nothing = Snapshot::default();
    let first = request(BEFORE);
    let recorded = Snapshot {
        recorded: offline::recorded(&first, None).expect("recorded"),
        ..Snapshot::default()
    };
    [
        plan(&from(&quickstart), &nothing),
        plan(&first, &nothing),
        plan(&request(&after()), &recorded),
    ]
}

#[test]
fn plans_follow_the_published_schema() {
    let validator = jsonschema::draft202012::new(&plan_schema()).expect("a schema");
    let [a, b, c] = plans();
    for plan in [a, b, c, fixture::rich(), fixture::empty()] {
        let json = render(&plan, &view(PlanFormat::Json, 0));
        let value = serde_json::from_str(&json).expect("JSON");
        let errors: Vec<String> = validator
            .iter_errors(&value)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        let back: Plan = serde_json::from_str(&json).expect("a plan");
        assert_eq!(back, plan);
    }
    // It is no schema of anything else.
    assert!(!validator.is_valid(&serde_json::json!({ "format": 1 })));
}

#[test]
fn every_format_shows_what_the_planner_makes() {
    let [_, new, changed] = plans();
    insta::assert_snapshot!("planner_new", text(&new, 100));
    insta::assert_snapshot!("planner_changed", text(&changed, 100));
    for plan in plans() {
        for format in FORMATS {
            let shown = render(&plan, &view(format, 80));
            for owner in &plan.owners {
                assert!(shown.contains(owner.owner.as_str()), "{format:?}");
            }
        }
    }
}

/// Every field that can hold a secret does, or names one.
fn with_secrets(word: &str) -> String {
    format!(
        "kind: Workspace
name: shop
---
kind: Machine
name: a
address: {{ private: 10.0.0.1 }}
---
kind: App
name: web
machines: a
run: x
uses: [db]
secrets: {{ KEY: {{ secret: {word}-key }}, FILE: {{ secret: {word}-file, as: file }} }}
env: {{ URL: '${{service.db.url}}?x={word}', BOTH: '{word}${{service.db.url}}' }}
hooks: {{ before: ./x }}
---
kind: App
name: box
machines: a
image: registry.example.com/box:1
secrets: {{ KEY: {word}-box }}
---
kind: Registry
name: r
host: registry.example.com
username: u
password: {{ secret: {word}-registry }}
---
kind: Service
name: db
machines: a
engine: postgres@16.3
publish: private
---
kind: Setup
name: s
machines: a
files: {{ /f: {{ content: '{word} ${{service.db.url}}' }} }}
"
    )
}

/// Threat row 32, to the very end: what is hidden in a plan is in no form of it. Mutations under which it fails: leave
/// environments and templates out of `holds_credential` in the planner; show rows that are sensitive.
#[test]
fn row_32_a_canary_in_every_secret_like_field_is_in_no_form_of_a_plan() {
    const CANARY: &str = "canary4711";
    let first = request(&with_secrets(CANARY));
    let recorded = Snapshot {
        recorded: offline::recorded(&first, None).expect("recorded"),
        ..Snapshot::default()
    };
    let plans = [
        plan(&first, &Snapshot::default()),
        plan(&request(&with_secrets("another")), &recorded),
        plan(&request(BEFORE), &recorded),
    ];
    for plan in &plans {
        for format in FORMATS {
            for full in [false, true] {
                let view = PlanView {
                    full,
                    verbose: full,
                    ..view(format, 100)
                };
                let shown = render(plan, &view);
                assert!(shown.contains("(secret"), "{format:?}");
                assert!(!shown.contains(CANARY), "{format:?} {shown}");
            }
        }
    }
}

/// Mutation: keep what goes under the name that its owner had.
#[test]
fn what_goes_while_its_owner_is_renamed_stands_under_the_new_name() {
    let text = |name: &str, domain: &str| {
        format!(
            "kind: Workspace\nname: shop\nbase_domain: {domain}\n---\nkind: Machine\nname: a\n---\nkind: App\nname: {name}\nmachines: a\nrun: x\nports: {{ http: auto }}\n"
        )
    };
    let recorded = Snapshot {
        recorded: offline::recorded(&request(&text("web", "one.example.com")), None)
            .expect("recorded"),
        ..Snapshot::default()
    };
    let after = request(&text("shop\nrenamed_from: web", "two.example.com"));
    insta::assert_snapshot!("renamed_and_moved", text_of(&plan(&after, &recorded)));
}

fn text_of(plan: &Plan) -> String {
    text(plan, 100)
}
