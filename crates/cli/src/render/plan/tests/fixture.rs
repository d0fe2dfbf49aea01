//! Plans made by hand, so that each part of a rendering can be looked at by itself.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::coverage::Cost;
use plumb_model::plan::{
    AttributeChange, BlastRadius, Change, ChangeAction, DriftNote, FORMAT, Felt, Lack,
    MachineChange, MonthlyCost, NeedsConsent, NotDone, Origin, OwnerChange, Plan, Resolution,
};
use plumb_model::state::{Commit, OwnerKind, ResolutionKey, RevisionKind};
use plumb_model::{
    Address, Capability, DriftPolicy, Hash, MachineName, OwnerName, ReleaseNumber, Revision,
    WorkspaceName,
};
use serde_json::{Value, json};

pub fn owner(name: &str) -> OwnerName {
    OwnerName::new(name).unwrap()
}

pub fn machine(name: &str) -> MachineName {
    MachineName::new(name).unwrap()
}

pub fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub fn origin(file: &str, line: u32) -> Option<Origin> {
    Some(Origin {
        file: file.to_owned(),
        line,
        column: 1,
    })
}

/// A plan that does nothing.
pub fn empty() -> Plan {
    Plan {
        format: FORMAT,
        workspace: Some(WorkspaceName::new("shop").unwrap()),
        kind: RevisionKind::Apply,
        base: Revision(41),
        commit: Some(Commit {
            id: "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d".to_owned(),
            author: "Ann <ann@example.com>".to_owned(),
            subject: "Give checkout more memory".to_owned(),
            dirty: false,
        }),
        machines: Vec::new(),
        owners: Vec::new(),
        changes: Vec::new(),
        order: Vec::new(),
        targets: BTreeSet::new(),
        resolutions: BTreeMap::new(),
        blast_radius: BlastRadius::default(),
        monthly_cost: MonthlyCost::default(),
        drift: Vec::new(),
        not_done: Vec::new(),
        lacks: Vec::new(),
        unset_secrets: Vec::new(),
        consents: Vec::new(),
        unchanged: 34,
        approval: Hash([7; 32]),
    }
}

pub fn attribute(path: &str, before: Value, after: Value, cost: Cost) -> AttributeChange {
    let some = |v: Value| (!v.is_null()).then_some(v);
    AttributeChange {
        path: path.to_owned(),
        before: some(before),
        after: some(after),
        sensitive: false,
        digest: None,
        unknown: false,
        cost,
    }
}

pub fn secret(path: &str, before: bool, after: bool) -> AttributeChange {
    let hidden = |is: bool| if is { json!("(secret)") } else { Value::Null };
    AttributeChange {
        sensitive: true,
        digest: Some(Hash::of(b"both")),
        ..attribute(path, hidden(before), hidden(after), Cost::Restart)
    }
}

pub fn change(at: &str, action: ChangeAction, attributes: Vec<AttributeChange>) -> Change {
    let fields: BTreeSet<&str> = attributes
        .iter()
        .map(|a| a.path.split('.').next().unwrap())
        .collect();
    let fields: Vec<&str> = fields.into_iter().collect();
    let changed = matches!(
        action,
        ChangeAction::Update | ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst
    );
    let cost = changed
        .then(|| attributes.iter().map(|a| a.cost).max())
        .flatten();
    let address = address(at);
    let felt = match (address.kind.runs(), action, cost) {
        (true, ChangeAction::Create, _) => Felt::Start,
        (true, ChangeAction::Delete, _) => Felt::Stop,
        (true, _, Some(Cost::Restart)) => Felt::Restart,
        (true, _, Some(Cost::Replace)) => Felt::Replace,
        (_, _, Some(Cost::Reload)) => Felt::Reload,
        (_, ChangeAction::Forget, _) => Felt::Nothing,
        _ => Felt::InPlace,
    };
    Change {
        address,
        action,
        reasons: if changed {
            vec![format!("{} changed", fields.join(", "))]
        } else {
            Vec::new()
        },
        cost,
        felt,
        attributes,
        blocked_by: Vec::new(),
        downtime: None,
        origin: None,
    }
}

pub fn owned(name: &str, kind: OwnerKind, action: ChangeAction, felt: Felt) -> OwnerChange {
    OwnerChange {
        owner: owner(name),
        kind,
        action,
        renamed_from: None,
        from: (action != ChangeAction::Create).then_some(ReleaseNumber(3)),
        to: ReleaseNumber(if action == ChangeAction::Create { 1 } else { 4 }),
        felt,
        downtime: BTreeSet::new(),
        data_loss: BTreeSet::new(),
        origin: origin(&format!("apps/{name}.yaml"), 1),
    }
}

/// A small change with a downtime.
pub fn small() -> Plan {
    let why = "it is stopped before the new one starts, since both need port 8080";
    let mut process = change(
        "web-1/hello/process/app/0",
        ChangeAction::Update,
        vec![
            attribute(
                "env.GREETING",
                json!("hello"),
                json!("hello, world"),
                Cost::Restart,
            ),
            attribute(
                "health.interval_ms",
                json!(30_000),
                json!(10_000),
                Cost::InPlace,
            ),
        ],
    );
    process.downtime = Some(why.to_owned());
    process.origin = origin("apps/hello.yaml", 7);
    let mut hello = owned("hello", OwnerKind::App, ChangeAction::Update, Felt::Restart);
    hello.downtime.insert(why.to_owned());
    Plan {
        owners: vec![hello],
        changes: vec![process],
        blast_radius: BlastRadius {
            machines: [machine("web-1")].into(),
            restarts: 1,
            peak_unavailable: [(owner("hello"), 1)].into(),
            ..BlastRadius::default()
        },
        ..empty()
    }
}

const NGINX: &str = "user www-data;\nworker_processes 4;\n\nevents {\n\tworker_connections 768;\n}\n\nhttp {\n\tsendfile on;\n\tkeepalive_timeout 65;\n\tserver_tokens off;\n}\n";

/// Everything that a plan can say, in one.
pub fn rich() -> Plan {
    let digest = |c: &str| json!(c.repeat(64));
    let mut changes = Vec::new();
    let mut order = Vec::new();
    let mut after = |a: &str, b: &str| order.push((address(a), address(b)));
    // The same on 100 machines, each with a port of its own.
    for n in 1..=100u32 {
        let at = |rest: &str| format!("web-{n}/checkout/{rest}");
        let mut artifact = change(
            &at("artifact/source"),
            ChangeAction::ReplaceCreateFirst,
            vec![attribute("digest", digest("a"), digest("b"), Cost::Replace)],
        );
        artifact.origin = origin("apps/checkout.yaml", 4);
        let mut process = change(
            &at(&format!("process/app/{}", n - 1)),
            ChangeAction::Update,
            vec![
                attribute(
                    "env.PORT",
                    json!((20_000 + n).to_string()),
                    json!((21_000 + n).to_string()),
                    Cost::Restart,
                ),
                attribute(
                    "env.CATALOGUE_URL",
                    json!("http://10.0.0.4:8080/catalogue/v1/products?include=prices&currency=EUR"),
                    json!("http://10.0.0.4:8080/catalogue/v2/products?include=prices&currency=EUR"),
                    Cost::Restart,
                ),
                secret("secrets.STRIPE_KEY", true, true),
                attribute(
                    "limits.memory_bytes",
                    json!(268_435_456),
                    json!(536_870_912),
                    Cost::InPlace,
                ),
            ],
        );
        process.downtime = Some(format!(
            "it is stopped before the new one starts, since both need port {}",
            20_000 + n
        ));
        process.origin = origin("apps/checkout.yaml", 7);
        after(
            &at("artifact/source"),
            &at(&format!("process/app/{}", n - 1)),
        );
        changes.extend([artifact, process]);
    }
    // A set-up with a text, a list, something that is taken over, and something that is removed.
    let mut conf = change(
        "lb-1/base/file//etc/nginx/nginx.conf",
        ChangeAction::Update,
        vec![
            attribute(
                "content.text",
                json!(NGINX),
                json!(
                    NGINX
                        .replace("worker_processes 4", "worker_processes auto")
                        .replace("768", "4096")
                        .replace("on;\n", "on; \n")
                ),
                Cost::InPlace,
            ),
            attribute("mode", json!("0644"), json!("0640"), Cost::InPlace),
        ],
    );
    conf.origin = origin("machines/base.yaml", 9);
    let mut adopted = change(
        "lb-1/base/file//etc/motd",
        ChangeAction::Adopt,
        vec![attribute(
            "content.text",
            json!("Debian GNU/Linux 12\n"),
            json!("Looked after by Plumb\n"),
            Cost::InPlace,
        )],
    );
    adopted.origin = origin("machines/base.yaml", 15);
    changes.extend([conf, adopted]);
    changes.push(change(
        "lb-1/base/package/curl",
        ChangeAction::Delete,
        vec![attribute("name", json!("curl"), Value::Null, Cost::Replace)],
    ));
    // A new app of containers.
    let container = change(
        "web-1/search/container/search/0",
        ChangeAction::Create,
        vec![
            attribute(
                "image.reference",
                Value::Null,
                json!("registry.example.com/search:2"),
                Cost::Restart,
            ),
            attribute(
                "command",
                Value::Null,
                json!(["search", "--data", "/data"]),
                Cost::Restart,
            ),
            attribute("env.LOG", Value::Null, json!("info"), Cost::Restart),
            secret("secrets.TOKEN", false, true),
            attribute("ports.http.host", Value::Null, json!(20_311), Cost::Restart),
            attribute(
                "networks",
                Value::Null,
                json!(["back", "front", "metrics", "audit", "dmz", "lan"]),
                Cost::InPlace,
            ),
            attribute(
                "restart.policy",
                Value::Null,
                json!("always"),
                Cost::InPlace,
            ),
            attribute("stop.grace_ms", Value::Null, json!(10_000), Cost::InPlace),
            attribute("state", Value::Null, json!("running"), Cost::Restart),
        ],
    );
    let mut image = change(
        "web-1/search/image/search",
        ChangeAction::Create,
        vec![
            attribute(
                "reference",
                Value::Null,
                json!("registry.example.com/search:2"),
                Cost::Replace,
            ),
            AttributeChange {
                unknown: true,
                ..attribute("digest", Value::Null, Value::Null, Cost::Replace)
            },
        ],
    );
    image.blocked_by = vec!["cannot be done: nobody has looked up what it is made from".to_owned()];
    let volume = change(
        "web-1/search/volume/data",
        ChangeAction::Create,
        vec![attribute(
            "on_delete",
            Value::Null,
            json!("keep"),
            Cost::InPlace,
        )],
    );
    after(
        "web-1/search/image/search",
        "web-1/search/container/search/0",
    );
    after(
        "web-1/search/volume/data",
        "web-1/search/container/search/0",
    );
    changes.extend([container, image, volume]);
    // Renamed.
    for rest in ["artifact/source", "process/app/0"] {
        changes.push(change(
            &format!("web-2/storefront/{rest}"),
            ChangeAction::Update,
            vec![attribute(
                "address",
                json!(format!("web-2/shopfront/{rest}")),
                json!(format!("web-2/storefront/{rest}")),
                Cost::InPlace,
            )],
        ));
    }
    // Data that goes, and data that is let go.
    let lost = "db-1/orders/service/postgres";
    changes.push(change(
        lost,
        ChangeAction::Delete,
        vec![attribute(
            "engine",
            json!("postgres"),
            Value::Null,
            Cost::Replace,
        )],
    ));
    changes.push(change(
        "db-1/reports/volume/reports",
        ChangeAction::Forget,
        Vec::new(),
    ));
    changes.sort_by(|a, b| a.address.cmp(&b.address));

    let mut checkout = owned(
        "checkout",
        OwnerKind::App,
        ChangeAction::Update,
        Felt::Restart,
    );
    checkout
        .downtime
        .insert("it is stopped before the new one starts, since both need port 20001".to_owned());
    let mut storefront = owned(
        "storefront",
        OwnerKind::App,
        ChangeAction::Update,
        Felt::Nothing,
    );
    storefront.renamed_from = Some(owner("shopfront"));
    let mut orders = owned(
        "orders",
        OwnerKind::Service,
        ChangeAction::Delete,
        Felt::Stop,
    );
    orders.downtime.insert("it is stopped for good".to_owned());
    orders.data_loss.insert(address(lost));
    let mut reports = owned(
        "reports",
        OwnerKind::Volume,
        ChangeAction::Delete,
        Felt::Nothing,
    );
    reports.origin = None;
    let resolution = |before: Option<&str>, resolved: Option<&str>| Resolution {
        resolved: resolved.map(ToOwned::to_owned),
        before: before.map(ToOwned::to_owned),
    };
    let key = |text: &str| ResolutionKey(text.to_owned());
    let lack = |machine: &str, unchanged| Lack {
        address: address(&format!("{machine}/search/container/search/0")),
        asks_for: "a container".to_owned(),
        capability: Capability::Containers,
        why: "no container engine answers on it".to_owned(),
        remedy: "run `apt-get install docker.io` on it".to_owned(),
        unchanged,
        origin: origin("apps/search.yaml", 3),
    };
    Plan {
        commit: empty().commit.map(|commit| Commit { dirty: true, ..commit }),
        machines: vec![
            MachineChange {
                machine: machine("web-100"),
                action: ChangeAction::Create,
                attributes: vec![
                    attribute("address.private", Value::Null, json!("10.0.1.100"), Cost::InPlace),
                    attribute("labels.role", Value::Null, json!("web"), Cost::InPlace),
                    attribute("price.monthly_cents", Value::Null, json!(1_200), Cost::InPlace),
                ],
            },
            MachineChange {
                machine: machine("web-99"),
                action: ChangeAction::Create,
                attributes: vec![
                    attribute("address.private", Value::Null, json!("10.0.1.99"), Cost::InPlace),
                    attribute("labels.role", Value::Null, json!("web"), Cost::InPlace),
                    attribute("price.monthly_cents", Value::Null, json!(1_200), Cost::InPlace),
                ],
            },
        ],
        owners: vec![
            owned("base", OwnerKind::Setup, ChangeAction::Update, Felt::InPlace),
            checkout,
            orders,
            reports,
            owned("search", OwnerKind::App, ChangeAction::Create, Felt::Start),
            storefront,
        ],
        changes,
        order,
        resolutions: [
            (key("git https://git.example.com/shop/checkout.git branch main"), resolution(Some(&"1".repeat(40)), Some(&"2".repeat(40)))),
            (key("runtime node@20"), resolution(None, Some("20.18.1"))),
            (key("image registry.example.com/search:2"), resolution(None, None)),
        ]
        .into(),
        blast_radius: BlastRadius {
            machines: (1..=100).map(|n| machine(&format!("web-{n}"))).chain([machine("lb-1"), machine("db-1")]).collect(),
            restarts: 100,
            replacements: 100,
            deletes: 2,
            data_deletes: 1,
            peak_unavailable: [(owner("checkout"), 100), (owner("orders"), 1)].into(),
        },
        monthly_cost: MonthlyCost {
            before_cents: [("EUR".to_owned(), 120_000)].into(),
            after_cents: [("EUR".to_owned(), 122_400)].into(),
        },
        drift: ["web-1", "web-2", "web-3"]
            .map(|m| DriftNote {
                address: address(&format!("{m}/base/file//etc/motd")),
                message: "its content is another".to_owned(),
                policy: DriftPolicy::Enforce,
            })
            .into(),
        not_done: ["web-99", "web-100"]
            .map(|m| NotDone {
                subject: format!("machine {m}"),
                reason: format!("2 resources wait until its agent joins: run `plumb token create --join --machine {m}` here and `plumb agent` there"),
            })
            .into(),
        lacks: vec![lack("web-1", false), lack("web-7", true)],
        consents: vec![
            NeedsConsent { allow: "adopt".to_owned(), reason: "1 file that Plumb did not make would be taken over".to_owned() },
            NeedsConsent { allow: "data-loss".to_owned(), reason: "the data of 1 resource would be destroyed".to_owned() },
        ],
        ..empty()
    }
}

/// So many changes: `owners` apps on `machines` machines each, all with two resources on each.
pub fn large(owners: usize, machines: usize) -> Plan {
    let mut plan = empty();
    for o in 0..owners {
        let name = format!("app-{o:04}");
        plan.owners.push(owned(
            &name,
            OwnerKind::App,
            ChangeAction::Update,
            if o % 50 == 7 {
                Felt::Restart
            } else {
                Felt::InPlace
            },
        ));
        for m in 0..machines {
            let at = |rest: &str| format!("m-{}/{name}/{rest}", (o + m) % 100);
            let mut file = change(
                &at(&format!("file//etc/{name}.conf")),
                ChangeAction::Update,
                vec![attribute(
                    "content.text",
                    json!(format!("{NGINX}# {o}\n")),
                    json!(format!("{NGINX}# {o} more\n")),
                    Cost::InPlace,
                )],
            );
            file.origin = origin("apps.yaml", o as u32);
            let process = change(
                &at(&format!("process/app/{m}")),
                ChangeAction::Update,
                vec![
                    attribute(
                        "env.PORT",
                        json!("20001"),
                        json!(format!("{}", 20_000 + m)),
                        Cost::Restart,
                    ),
                    attribute(
                        "health.interval_ms",
                        json!(30_000),
                        json!(10_000),
                        Cost::InPlace,
                    ),
                ],
            );
            plan.order
                .push((file.address.clone(), process.address.clone()));
            plan.changes.extend([file, process]);
        }
    }
    plan.blast_radius.machines = plan
        .changes
        .iter()
        .map(|c| c.address.machine.clone())
        .collect();
    plan.changes.sort_by(|a, b| a.address.cmp(&b.address));
    plan
}
