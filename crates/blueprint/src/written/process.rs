//! One process of an app, its ports and its health check.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::around::{Limits, Publish, Schedule, Secrets};
use super::workload::Command;
use super::{Duration, Text};

/// One process: a command, or a command and more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["npm start", ["./server", "--verbose"], { "run": "npm run worker", "replicas": 1 }]))]
pub(crate) enum Process {
    Shell(Text),
    Words(#[schemars(length(min = 1))] Vec<Text>),
    Full(Box<FullProcess>),
}

/// One process.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullProcess {
    /// The command.
    #[schemars(extend("examples" = ["npm run worker"]))]
    run: Command,
    /// How many instances of this process over all machines; as many as the app has, if left out.
    #[schemars(range(min = 1, max = 1000), extend("examples" = [1]))]
    replicas: Option<u32>,
    /// Environment variables besides the app's; they win.
    #[schemars(extend("examples" = [{ "LOG_LEVEL": "debug" }]))]
    env: Option<BTreeMap<String, Text>>,
    /// Ports by name.
    #[schemars(extend("examples" = [{ "metrics": "auto" }]))]
    ports: Option<BTreeMap<String, Port>>,
    /// The health check.
    #[schemars(extend("examples" = ["/healthz"]))]
    health: Option<Health>,
    /// The folder in which it starts, inside the source's `dir`.
    #[schemars(extend("examples" = ["worker"]))]
    dir: Option<String>,
    /// What it may use up; laid over the app's key by key.
    #[schemars(extend("examples" = [{ "memory": "1Gi" }]))]
    limits: Option<Limits>,
    /// When it is started; as the app says, if left out.
    #[schemars(extend("examples" = ["*/5 * * * *"]))]
    schedule: Option<Schedule>,
    /// Secrets besides the app's.
    #[schemars(extend("examples" = [["QUEUE_TOKEN"]]))]
    secrets: Option<Secrets>,
}

/// A port: a number, `auto` for a free one of the machine, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["auto", 8080, { "port": 8080, "publish": "private" }]))]
pub(crate) enum Port {
    Fixed(#[schemars(range(min = 1, max = 65535))] u16),
    Auto(Auto),
    Full(FullPort),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum Auto {
    Auto,
}

/// A port.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullPort {
    /// A number, or `auto` for a free one of the machine. Of a container it is the port inside it, and a number.
    #[schemars(extend("examples" = [8080, "auto"]))]
    port: PortNumber,
    /// Where it can be reached. A native process is handed the address to bind as HOST.
    #[schemars(extend("default" = "loopback", "examples" = ["private"]))]
    publish: Option<Publish>,
    /// Containers only: the port of the machine that leads to it.
    #[schemars(extend("default" = "auto", "examples" = [80]))]
    machine_port: Option<PortNumber>,
    /// Containers only: the protocol.
    #[schemars(extend("default" = "tcp"))]
    protocol: Option<Protocol>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

/// A number, or `auto` for a free one of the machine.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = [8080]))]
pub(crate) enum PortNumber {
    Fixed(#[schemars(range(min = 1, max = 65535))] u16),
    Auto(Auto),
}

/// A health check: the path of an HTTP request, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["/healthz", { "tcp": "http" }]))]
pub(crate) enum Health {
    Path(String),
    Full(FullHealth),
}

/// A health check. Exactly one of `path` and `tcp`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullHealth {
    /// GET this path.
    #[schemars(extend("examples" = ["/healthz"]))]
    path: Option<String>,
    /// Connect to the port of this name.
    #[schemars(extend("examples" = ["http"]))]
    tcp: Option<String>,
    /// The name of the port that `path` is asked of; the only one, if left out.
    #[schemars(extend("examples" = ["http"]))]
    port: Option<String>,
    /// The status codes that count as healthy.
    #[schemars(extend("default" = "200-399"))]
    codes: Option<Codes>,
    /// The time between two checks; every second until the first success. 100ms to 1h.
    #[schemars(extend("default" = "30s"))]
    interval: Option<Duration>,
    /// How long one check may take. 10ms to 1h.
    #[schemars(extend("default" = "5s"))]
    timeout: Option<Duration>,
    /// So many passes make it healthy.
    #[schemars(range(min = 1, max = 100), extend("default" = 2))]
    healthy_threshold: Option<u32>,
    /// So many failures make it unhealthy.
    #[schemars(range(min = 1, max = 100), extend("default" = 3))]
    unhealthy_threshold: Option<u32>,
}

/// One status code, a range such as `200-399`, or a list of those.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = [204, "200-399", [200, "301-302"]]))]
pub(crate) enum Codes {
    One(#[schemars(range(min = 100, max = 599))] u16),
    Range(String),
    Several(#[schemars(length(min = 1, max = 32))] Vec<Code>),
}

/// One status code, or a range such as `200-399`.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = [204, "200-399"]))]
pub(crate) enum Code {
    One(#[schemars(range(min = 100, max = 599))] u16),
    Range(String),
}
