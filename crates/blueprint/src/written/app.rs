//! App.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::around::{Hooks, Limits, OnDisconnect, Rollout, Route, Schedule, Secrets};
use super::process::{Health, Port, Process};
use super::tuning::{Log, Restart, Stop};
use super::workload::{Build, Command, Dockerfile, Mount, Source};
use super::{ApiVersion, AppKind, Drift, Machines, Name, State, Text};

/// An app. Exactly one of `run` or `processes`, `image`, `dockerfile`, `compose` and `static` says what it consists of.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct App {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: AppKind,
    /// The app's name; no other App, Setup, Service, Volume or Network has it.
    #[schemars(extend("examples" = ["storefront"]))]
    name: Name,
    /// The name that it had: it is renamed, and nothing is made anew.
    #[schemars(extend("examples" = ["shop"]))]
    renamed_from: Option<Name>,
    /// Where it runs.
    #[schemars(extend("examples" = [{ "role": "web" }, "web-1"]))]
    machines: Machines,
    /// How many instances over all its machines; one on each, if left out.
    #[schemars(range(min = 1, max = 1000), extend("examples" = [2]))]
    replicas: Option<u32>,
    /// A label of the machines: instances are spread evenly over its values first.
    #[schemars(extend("examples" = ["zone"]))]
    spread: Option<String>,
    /// Where its files come from: a folder of this repository, or another git repository.
    #[schemars(extend("examples" = [{ "path": "../web" }, { "git": "https://git.example.com/acme/storefront.git", "branch": "main" }]))]
    source: Option<Source>,
    /// The language runtime that build and processes use, and its version: node, python, go, ruby, php, java, dotnet, rust, bun or deno. The exact version is pinned in the plan.
    #[schemars(extend("examples" = ["node@20", "python@3.12"]))]
    runtime: Option<String>,
    /// How it is built out of its source.
    #[schemars(extend("examples" = [["npm ci", "npm run build"]]))]
    build: Option<Build>,
    /// The one process, which is then called `app`.
    #[schemars(extend("examples" = ["npm start"]))]
    run: Option<Command>,
    /// Several processes, by name.
    #[schemars(extend("minProperties" = 1, "examples" = [{ "web": "npm start", "worker": { "run": "npm run worker", "replicas": 1 } }]))]
    processes: Option<BTreeMap<String, Process>>,
    /// A container image; its digest is pinned in the plan.
    #[schemars(extend("examples" = ["registry.example.com/acme/catalog:2.3"]))]
    image: Option<String>,
    /// A Dockerfile that the image is built from.
    #[schemars(extend("examples" = ["Dockerfile"]))]
    dockerfile: Option<Dockerfile>,
    /// A Compose file, relative to this file.
    #[schemars(extend("examples" = ["../wiki/compose.yaml"]))]
    compose: Option<String>,
    /// A folder of the source whose files are served; `.` is all of it.
    #[schemars(rename = "static", extend("examples" = ["public"]))]
    static_files: Option<String>,
    /// Containers only: runs in place of the image's own entry point.
    #[schemars(extend("examples" = [["/usr/bin/tini", "--"]]))]
    entrypoint: Option<Command>,
    /// Containers only: runs in place of the image's own command.
    #[schemars(extend("examples" = [["catalog", "--verbose"]]))]
    command: Option<Command>,
    /// Containers only: the folder in which it starts.
    #[schemars(extend("examples" = ["/srv"]))]
    workdir: Option<String>,
    /// Containers only: volumes by name, with the path inside. That of a Volume document, or else one of the app's own, which is kept when the app is deleted.
    #[schemars(extend("examples" = [{ "index": "/var/lib/catalog" }]))]
    volumes: Option<BTreeMap<String, Mount>>,
    /// Containers only: Networks that it is in, besides the workspace's own.
    #[schemars(extend("examples" = [["backend"]]))]
    networks: Option<Vec<Name>>,
    /// Containers only: labels besides Plumb's own.
    #[schemars(extend("examples" = [{ "com.example.team": "search" }]))]
    labels: Option<BTreeMap<String, String>>,
    /// Ports by name; of the container, of the only process, or of the process called `web`. Handed in as PORT_NAME, and as PORT where there is but one.
    #[schemars(extend("examples" = [{ "http": "auto" }, { "http": { "port": 8080, "publish": "private" } }]))]
    ports: Option<BTreeMap<String, Port>>,
    /// Environment variables of all processes.
    #[schemars(extend("examples" = [{ "NODE_ENV": "production", "CATALOG_URL": "${app.catalog.url}" }]))]
    env: Option<BTreeMap<String, Text>>,
    /// The secrets that it is handed. A blueprint never holds a value.
    #[schemars(extend("examples" = [["STRIPE_KEY"]]))]
    secrets: Option<Secrets>,
    /// Services whose addresses and credentials are injected: `db` as DB_URL, DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME.
    #[schemars(extend("examples" = [["db"]]))]
    uses: Option<Vec<Name>>,
    /// The hosts and paths that lead to its port `http`, or to its only one; a native app without a port is given one. The first is its primary domain.
    #[schemars(extend("examples" = [["shop.example.com", "example.com/shop"]]))]
    routes: Option<Vec<Route>>,
    /// Whose web server answers for its routes; where the app runs, if left out.
    #[schemars(extend("examples" = [{ "role": "web" }]))]
    ingress: Option<Machines>,
    /// The health check of the container, of the only process, or of the process called `web`.
    #[schemars(extend("examples" = ["/healthz", { "tcp": "http" }]))]
    health: Option<Health>,
    /// What each process or container may use up.
    #[schemars(extend("examples" = [{ "memory": "512Mi", "cpu": 1.5, "processes": 200 }]))]
    limits: Option<Limits>,
    /// When it is started, if it does not run all the time.
    #[schemars(extend("examples" = [{ "cron": "15 3 * * *", "timezone": "Europe/Berlin" }]))]
    schedule: Option<Schedule>,
    /// Native processes only: what becomes of them while their machine does not hear the control plane. They run on for ever, if left out.
    #[schemars(extend("examples" = [{ "stop_after": "1h" }]))]
    on_disconnect: Option<OnDisconnect>,
    /// Commands around each release.
    #[schemars(extend("examples" = [{ "before": { "run": "npm run migrate", "reversible": false } }]))]
    hooks: Option<Hooks>,
    /// How machines move from one release to the next.
    #[schemars(extend("default" = "blue-green"))]
    rollout: Option<Rollout>,
    /// When a process that ended is started again.
    #[schemars(extend("default" = "always"))]
    restart: Option<Restart>,
    /// How a process is stopped.
    #[schemars(extend("default" = "10s"))]
    stop: Option<Stop>,
    /// How much output is kept.
    #[schemars(extend("default" = "10Mi"))]
    log: Option<Log>,
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
    /// Whether it should run; a stopped app stays recorded.
    #[schemars(extend("default" = "running"))]
    state: Option<State>,
    /// The user that it runs as; of a container also a number or USER:GROUP. A user of its own, or the image's, if left out.
    #[schemars(extend("examples" = ["www-data"]))]
    user: Option<String>,
}
