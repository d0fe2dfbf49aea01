//! What the operator writes: small valid workspaces that differ in every way that matters to a plan.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::BlueprintSet;
use plumb_blueprint::{
    App, Content, DataLoss, DirDecl, FileDecl, Health, Policy, Port, Probe, Process, SecretDecl,
    Segment, Selector, Setup, Source as AppSource, Volume, Workspace,
};
use plumb_model::state::{Rollout, RolloutStrategy};
use plumb_model::{
    DriftPolicy, Hash, LogSpec, MachineName, Mode, OnDelete, OnSecretChange, OwnerName, PortName,
    ProcessName, RestartPolicy, RestartSpec, RunState, SecretForm, SecretName, StopSpec,
    WorkspaceName,
};
use plumb_planner::Source;

use crate::chance::Chance;

/// The workspace of every run.
///
/// # Panics
/// Never: the name is a name.
#[must_use]
pub fn workspace() -> WorkspaceName {
    WorkspaceName::new("sim").expect("sim is a name")
}

/// The machines of a run: `m0` to so many.
///
/// # Panics
/// Never: each is a name.
#[must_use]
pub fn machines(count: usize) -> Vec<MachineName> {
    (0..count)
        .map(|n| MachineName::new(&format!("m{n}")).expect("a letter and digits are a name"))
        .collect()
}

fn owner(name: String) -> OwnerName {
    OwnerName::new(&name).expect("a letter and digits are a name")
}

fn text(text: &str) -> Vec<Segment> {
    vec![Segment::Literal(text.to_owned())]
}

fn selector(chance: &mut Chance, machines: &[MachineName]) -> Selector {
    if chance.percent(40) {
        return Selector::All;
    }
    let some: Vec<_> = machines
        .iter()
        .filter(|_| chance.percent(50))
        .cloned()
        .collect();
    if some.is_empty() {
        Selector::All
    } else {
        Selector::Names(some)
    }
}

fn app(chance: &mut Chance, name: &str, machines: &[MachineName]) -> App {
    let port = PortName::new("http").expect("http is a name");
    let web = Process {
        limits: None,
        publish: Default::default(),
        schedule: None,
        secrets: Default::default(),
        argv: vec![text("serve"), text(&format!("v{}", chance.between(0, 3)))],
        env: BTreeMap::from([("LEVEL".to_owned(), text(&chance.between(0, 2).to_string()))]),
        ports: BTreeMap::from([(port.clone(), Port::Auto)]),
        health: chance.percent(60).then(|| Health {
            probe: Probe::Http {
                port,
                path: "/".to_owned(),
                codes: vec![(200, 399)],
            },
            interval_ms: 5000,
            timeout_ms: 1000,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        }),
        replicas: None,
        dir: String::new(),
    };
    let source = chance.percent(70).then(|| AppSource::Path {
        path: format!("src/{name}"),
        dir: String::new(),
    });
    App {
        build: Default::default(),
        on_disconnect: None,
        hooks: Default::default(),
        ingress: None,
        limits: None,
        renamed_from: None,
        rollout: chance.percent(60).then(|| Rollout {
            strategy: match chance.percent(50) {
                true => RolloutStrategy::Rolling,
                false => RolloutStrategy::Canary,
            },
            batch: u32::try_from(chance.between(1, 3)).unwrap_or(1),
            max_unavailable: u32::try_from(chance.between(0, 4)).unwrap_or(1),
            min_healthy_ms: chance.between(0, 3000),
            deadline_ms: 30_000,
            // The operator of a run looks after it: what failed is superseded, or tried again in the end.
            auto_revert: false,
        }),
        routes: Default::default(),
        runtime: None,
        schedule: None,
        secrets: Default::default(),
        spread: None,
        uses: Default::default(),
        workload: plumb_blueprint::Workload::Processes,
        machines: selector(chance, machines),
        replicas: chance
            .percent(30)
            .then(|| u32::try_from(chance.between(1, 4)).unwrap_or(1)),
        source,
        processes: BTreeMap::from([(
            ProcessName::new("web").expect("web is a name"),
            Box::new(web),
        )]),
        env: BTreeMap::new(),
        restart: RestartSpec {
            policy: RestartPolicy::Always,
            initial_ms: 1000,
            max_ms: 20_000,
        },
        stop: StopSpec {
            signal: 15,
            grace_ms: 2000,
        },
        log: LogSpec {
            max_bytes: 1 << 20,
            keep: 2,
        },
        drift: DriftPolicy::Enforce,
        state: if chance.percent(10) {
            RunState::Stopped
        } else {
            RunState::Running
        },
        user: None,
    }
}

fn setup(chance: &mut Chance, name: &str, machines: &[MachineName]) -> Setup {
    let folder = format!("/srv/{name}");
    let mut files = BTreeMap::new();
    for n in 0..3 {
        let version = chance.between(0, 3);
        if chance.percent(70) {
            let decl = FileDecl {
                notify: Default::default(),
                content: Content::Text(text(&format!("version {version}"))),
                mode: Mode(0o644),
                owner: None,
                group: None,
            };
            files.insert(format!("{folder}/{n}"), decl);
        }
    }
    let decl = DirDecl {
        mode: Mode(if chance.percent(50) { 0o755 } else { 0o750 }),
        owner: None,
        group: None,
    };
    Setup {
        packages: Default::default(),
        renamed_from: None,
        machines: selector(chance, machines),
        drift: DriftPolicy::Enforce,
        files,
        directories: BTreeMap::from([(folder, decl)]),
    }
}

/// A workspace with what its repository paths hold.
#[must_use]
pub fn blueprints(
    chance: &mut Chance,
    machines: &[MachineName],
) -> (BlueprintSet, BTreeMap<String, Source>) {
    let mut apps = BTreeMap::new();
    let mut setups = BTreeMap::new();
    for n in 0..3 {
        if chance.percent(80) {
            let name = format!("app{n}");
            apps.insert(owner(name.clone()), app(chance, &name, machines));
        }
        if chance.percent(70) {
            let name = format!("setup{n}");
            setups.insert(owner(name.clone()), setup(chance, &name, machines));
        }
    }
    let paths: BTreeSet<String> = apps
        .values()
        .filter_map(|app| app.source.as_ref())
        .filter_map(|source| match source {
            AppSource::Path { path, .. } => Some(path.clone()),
            AppSource::Git(_) => None,
        })
        .collect();
    let sources = paths
        .iter()
        .map(|path| {
            let bytes = format!("{path} version {}", chance.between(0, 2));
            let source = Source {
                digest: Hash::of(bytes.as_bytes()),
                size: bytes.len() as u64,
                text: None,
            };
            (path.clone(), source)
        })
        .collect();
    let set = BlueprintSet {
        networks: Default::default(),
        registries: Default::default(),
        services: Default::default(),
        volumes: Default::default(),
        workspace: Workspace {
            base_domain: None,
            name: workspace(),
            vars: BTreeMap::new(),
            policy: Policy {
                machines: None,
                required_labels: Default::default(),
                restarts: None,
                deletes: None,
                data_loss: DataLoss::Deny,
            },
        },
        machines: machines
            .iter()
            .map(|name| (name.clone(), Default::default()))
            .collect(),
        apps,
        setups,
        origins: Default::default(),
        paths,
        warnings: Default::default(),
    };
    (set, sources)
}

/// Gives some owners another name than the one that they are recorded under, and the others the one that they have. A name
/// is one of three with the same start.
pub fn rename(chance: &mut Chance, set: &mut BlueprintSet, recorded: &BTreeSet<OwnerName>) {
    let mut new_name = |name: &OwnerName| {
        let names: Vec<OwnerName> = ["", "-b", "-c"]
            .iter()
            .map(|end| owner(format!("{name}{end}")))
            .collect();
        let now = names.iter().find(|name| recorded.contains(*name)).cloned();
        let Some(now) = now.filter(|_| !recorded.is_empty()) else {
            return (name.clone(), None);
        };
        if chance.percent(70) {
            return (now, None);
        }
        match chance.pick(&names) {
            Some(next) if !recorded.contains(next) => (next.clone(), Some(now)),
            _ => (now, None),
        }
    };
    set.apps = std::mem::take(&mut set.apps)
        .into_iter()
        .map(|(name, mut app)| {
            let (name, from) = new_name(&name);
            app.renamed_from = from;
            (name, app)
        })
        .collect();
    set.setups = std::mem::take(&mut set.setups)
        .into_iter()
        .map(|(name, mut setup)| {
            let (name, from) = new_name(&name);
            setup.renamed_from = from;
            (name, setup)
        })
        .collect();
}

/// Now and then a volume, for which these agents have no driver.
pub fn volumes(chance: &mut Chance, set: &mut BlueprintSet, machines: &[MachineName]) {
    if chance.percent(8) {
        let volume = Volume {
            machines: selector(chance, machines),
            on_delete: OnDelete::Keep,
            renamed_from: None,
        };
        set.volumes.insert(owner("data".to_owned()), volume);
    }
}

/// The secrets of a run.
///
/// # Panics
/// Never: each is a name.
#[must_use]
pub fn secret_names() -> [SecretName; 2] {
    ["DB_PASSWORD", "API_KEY"].map(|name| SecretName::new(name).expect("it is a name"))
}

/// Some apps are handed secrets.
pub fn secrets(chance: &mut Chance, set: &mut BlueprintSet) {
    for app in set.apps.values_mut() {
        for secret in secret_names() {
            if chance.percent(25) {
                let decl = SecretDecl {
                    secret: secret.clone(),
                    form: match chance.percent(50) {
                        true => SecretForm::Env,
                        false => SecretForm::File,
                    },
                    on_change: OnSecretChange::Restart,
                    memory_only: false,
                };
                app.secrets.insert(secret.to_string(), decl);
            }
        }
    }
}

/// What becomes of rollouts that fail or wait.
pub fn reverts(chance: &mut Chance, set: &mut BlueprintSet) {
    for rollout in set.apps.values_mut().filter_map(|app| app.rollout.as_mut()) {
        rollout.auto_revert = chance.percent(50);
        rollout.deadline_ms = chance.between(10_000, 60_000);
    }
}

/// A path that a Setup may want to put a file at, sooner or later.
#[must_use]
pub fn wanted_path(chance: &mut Chance) -> String {
    format!(
        "/srv/setup{}/{}",
        chance.between(0, 3),
        chance.between(0, 3)
    )
}
