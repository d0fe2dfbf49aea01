//! Workspace and Overlay: the manifest, and its changes for one environment.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::around::{Backup, Limits, Publish, Rollout};
use super::process::Health;
use super::tuning::{Log, Restart, Stop};
use super::{ApiVersion, Drift, Name, OnDelete, OverlayKind, Text, WorkspaceKind};

/// The manifest, at the root of a blueprint repository.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Workspace {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: WorkspaceKind,
    /// The workspace's name.
    #[schemars(extend("examples" = ["shop"]))]
    name: Name,
    /// Values that `${vars.X}` stands for.
    #[schemars(extend("examples" = [{ "domain": "example.com", "release_channel": "stable" }]))]
    vars: Option<BTreeMap<String, String>>,
    /// What a plan needs a consent for.
    #[schemars(extend("examples" = [{ "deletes": 5, "data_loss": "deny" }]))]
    policy: Option<Policy>,
    /// Every app with an HTTP port is also reachable at `NAME.BASE_DOMAIN`.
    #[schemars(extend("examples" = ["apps.example.com"]))]
    base_domain: Option<String>,
    /// What documents have unless they say otherwise, by kind.
    #[schemars(extend("examples" = [{ "App": { "env": { "TZ": "UTC" } } }]))]
    defaults: Option<Defaults>,
}

/// Changes to the manifest for one environment, in `plumb.NAME.yaml` beside it; chosen by `--env NAME`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Overlay {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: OverlayKind,
    /// Replaces the workspace's name.
    #[schemars(extend("examples" = ["shop-staging"]))]
    name: Option<Name>,
    /// Added to the manifest's, and used in their place.
    #[schemars(extend("examples" = [{ "domain": "staging.example.com" }]))]
    vars: Option<BTreeMap<String, String>>,
    /// What a plan needs a consent for, laid over the manifest's key by key.
    #[schemars(extend("examples" = [{ "deletes": 50 }]))]
    policy: Option<Policy>,
    /// What documents have unless they say otherwise, laid over the manifest's key by key.
    #[schemars(extend("examples" = [{ "App": { "drift": "report" } }]))]
    defaults: Option<Defaults>,
}

/// What a plan needs a consent for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Policy {
    /// A plan that deletes more resources needs `--allow deletes`; no limit, if left out.
    #[schemars(range(max = 1_000_000), extend("examples" = [5]))]
    deletes: Option<u32>,
    /// A plan that restarts or replaces more resources needs `--allow restarts`; no limit, if left out.
    #[schemars(range(max = 1_000_000), extend("examples" = [20]))]
    restarts: Option<u32>,
    /// A plan that touches more machines needs `--allow machines`; no limit, if left out.
    #[schemars(range(max = 1_000_000), extend("examples" = [10]))]
    machines: Option<u32>,
    /// Labels that every machine must have; a plan with one that lacks any needs `--allow labels`.
    #[schemars(length(min = 1), extend("examples" = [["role", "zone"]]))]
    required_labels: Option<Vec<String>>,
    /// Whether a plan may destroy data without `--allow data-loss`.
    #[schemars(extend("default" = "deny"))]
    data_loss: Option<DataLoss>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum DataLoss {
    Deny,
    Allow,
}

/// What documents have unless they say otherwise, by kind. A document's own keys win, key by key.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Defaults {
    /// For every App.
    #[schemars(rename = "App", extend("examples" = [{ "env": { "TZ": "UTC" }, "drift": "enforce" }]))]
    app: Option<AppDefaults>,
    /// For every Setup.
    #[schemars(rename = "Setup", extend("examples" = [{ "drift": "report" }]))]
    setup: Option<SetupDefaults>,
    /// For every Service.
    #[schemars(rename = "Service", extend("examples" = [{ "publish": "private" }]))]
    service: Option<ServiceDefaults>,
}

/// What apps have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct AppDefaults {
    /// Environment variables; an app's own are added, and win.
    #[schemars(extend("examples" = [{ "TZ": "UTC" }]))]
    env: Option<BTreeMap<String, Text>>,
    /// When a process that ended is started again.
    #[schemars(extend("examples" = [{ "policy": "always", "backoff": { "initial": "1s", "max": "1m" } }]))]
    restart: Option<Restart>,
    /// How a process is stopped.
    #[schemars(extend("examples" = ["30s"]))]
    stop: Option<Stop>,
    /// How much output is kept.
    #[schemars(extend("examples" = ["50Mi"]))]
    log: Option<Log>,
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
    /// The user that native processes run as.
    #[schemars(extend("examples" = ["www-data"]))]
    user: Option<String>,
    /// What each process or container may use up.
    #[schemars(extend("examples" = [{ "memory": "512Mi" }]))]
    limits: Option<Limits>,
    /// How machines move from one release to the next.
    #[schemars(extend("examples" = [{ "min_healthy": "30s" }]))]
    rollout: Option<Rollout>,
    /// The health check of each container, only process or process called `web` that has no other, and the port to ask:
    /// the one that is named here, or its only one.
    #[schemars(extend("examples" = ["/healthz"]))]
    health: Option<Health>,
}

/// What Setups have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SetupDefaults {
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
}

/// What Services have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct ServiceDefaults {
    /// Where the service can be reached. `private` if its machine has a private address, and `loopback` otherwise, if left out.
    #[schemars(extend("examples" = ["private"]))]
    publish: Option<Publish>,
    /// When and where its data is backed up.
    #[schemars(extend("examples" = [{ "cron": "0 2 * * *", "keep": 14, "to": { "folder": "/var/backups" } }]))]
    backup: Option<Backup>,
    /// What becomes of the data when no blueprint names the service any more.
    #[schemars(extend("default" = "keep"))]
    on_delete: Option<OnDelete>,
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
}
