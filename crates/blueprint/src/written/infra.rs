//! What apps share: Service, Volume, Network and Registry.

use schemars::JsonSchema;

use super::around::{Backup, Publish};
use super::{
    ApiVersion, Drift, Machines, Name, NetworkKind, OnDelete, RegistryKind, SecretName,
    ServiceKind, State, VolumeKind,
};

/// Shared infrastructure such as a database: provisioned once, and attached to apps with `uses`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Service {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: ServiceKind,
    /// The service's name; no other App, Setup, Service, Volume or Network has it. `uses: [db]` injects DB_URL, DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_NAME.
    #[schemars(extend("examples" = ["db"]))]
    name: Name,
    /// The name that it had: it is renamed, and keeps its data.
    #[schemars(extend("examples" = ["database"]))]
    renamed_from: Option<Name>,
    /// Where it runs: exactly one machine.
    #[schemars(extend("examples" = ["data-1"]))]
    machines: Machines,
    /// What it is, and in which version: postgres, mysql, mariadb, redis, valkey, mongodb, rabbitmq or memcached.
    #[schemars(extend("examples" = ["postgres@16"]))]
    engine: String,
    /// The port that it listens on; the engine's usual one, if left out.
    #[schemars(range(min = 1, max = 65535), extend("examples" = [5432]))]
    port: Option<u16>,
    /// Where it can be reached. `private` if its machine has a private address, and `loopback` otherwise, if left out.
    #[schemars(extend("examples" = ["private"]))]
    publish: Option<Publish>,
    /// The user that its clients are; the service's name, with `-` as `_`, if left out.
    #[schemars(extend("examples" = ["shop"]))]
    user: Option<String>,
    /// The database that its clients use; the service's name, with `-` as `_`, if left out.
    #[schemars(extend("examples" = ["shop"]))]
    database: Option<String>,
    /// When and where its data is backed up; not at all, if left out.
    #[schemars(extend("examples" = [{ "cron": "0 2 * * *", "keep": 14, "to": { "folder": "/var/backups/db" } }]))]
    backup: Option<Backup>,
    /// What becomes of the data when no blueprint names the service any more.
    #[schemars(extend("default" = "keep"))]
    on_delete: Option<OnDelete>,
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
    /// Whether it should run.
    #[schemars(extend("default" = "running"))]
    state: Option<State>,
}

/// A volume of its own, which several apps may use: `volumes: { NAME: /path }`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Volume {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: VolumeKind,
    /// The volume's name; no other App, Setup, Service, Volume or Network has it.
    #[schemars(extend("examples" = ["uploads"]))]
    name: Name,
    /// The name that it had: it is renamed, and keeps its data.
    #[schemars(extend("examples" = ["files"]))]
    renamed_from: Option<Name>,
    /// Where it is; each machine has one of its own.
    #[schemars(extend("examples" = ["data-1"]))]
    machines: Machines,
    /// What becomes of the data when no blueprint names the volume any more.
    #[schemars(extend("default" = "keep"))]
    on_delete: Option<OnDelete>,
}

/// A network of its own, over which the containers of several apps reach each other: `networks: [NAME]`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Network {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: NetworkKind,
    /// The network's name; no other App, Setup, Service, Volume or Network has it.
    #[schemars(extend("examples" = ["backend"]))]
    name: Name,
    /// The name that it had.
    #[schemars(extend("examples" = ["internal"]))]
    renamed_from: Option<Name>,
    /// Where it is; each machine has one of its own.
    #[schemars(extend("examples" = [{ "role": "data" }]))]
    machines: Machines,
    /// Its address range; the container engine's choice, if left out.
    #[schemars(extend("examples" = ["10.20.0.0/24"]))]
    subnet: Option<String>,
    /// Whether it is cut off from everything outside.
    #[schemars(extend("default" = false))]
    internal: Option<bool>,
}

/// A credential for a registry of container images.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Registry {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: RegistryKind,
    /// The registry's name; no other Registry has it.
    #[schemars(extend("examples" = ["acme"]))]
    name: Name,
    /// Its host, as it stands in front of an image's name, with a port if need be.
    #[schemars(extend("examples" = ["registry.example.com"]))]
    host: String,
    /// The user; none for a registry that anybody may read.
    #[schemars(extend("examples" = ["deploy"]))]
    username: Option<String>,
    /// The secret that holds the password.
    #[schemars(extend("examples" = [{ "secret": "REGISTRY_PASSWORD" }]))]
    password: Option<SecretOf>,
}

/// Where a value that must not stand in a blueprint comes from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SecretOf {
    /// The name of a secret of the workspace.
    #[schemars(extend("examples" = ["REGISTRY_PASSWORD"]))]
    secret: SecretName,
}
