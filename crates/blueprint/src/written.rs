//! The language as people write it, short forms included: the source of the published schemas, and of what
//! the structural check knows. Values are never of these types; `convert` reads them by key.

#![expect(
    dead_code,
    reason = "these types are only read by their JsonSchema derive"
)]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// Lower-case letters, digits and `-`; starts and ends with a letter or digit.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"))]
pub(crate) struct Name(String);

/// A number and a unit: `500ms`, `10s`, `5m`, `1h`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+(ms|s|m|h)$"))]
pub(crate) struct Duration(String);

/// A number and a unit: `512Ki`, `10Mi`, `1Gi`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+(Ki|Mi|Gi)$"))]
pub(crate) struct Size(String);

/// A text that may hold references such as `${machine.name}`, `${app.X.url}` or `${vars.X}`. `$${` is a literal.
#[derive(JsonSchema)]
pub(crate) struct Text(String);

/// Permission bits in octal digits, such as `"0644"`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-7]{3,5}$"))]
pub(crate) struct Mode(String);

/// The version of the language.
#[derive(JsonSchema)]
pub(crate) enum ApiVersion {
    #[schemars(rename = "plumb/v1")]
    V1,
}

macro_rules! kind {
    ($type:ident, $variant:ident) => {
        /// What this document is.
        #[derive(JsonSchema)]
        pub(crate) enum $type {
            $variant,
        }
    };
}
kind!(WorkspaceKind, Workspace);
kind!(OverlayKind, Overlay);
kind!(MachineKind, Machine);
kind!(AppKind, App);
kind!(SetupKind, Setup);

/// The manifest, at the root of a blueprint repository.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Workspace {
    api_version: Option<ApiVersion>,
    kind: WorkspaceKind,
    /// The workspace's name.
    name: Name,
    /// Values that `${vars.X}` stands for.
    vars: Option<BTreeMap<String, String>>,
    policy: Option<Policy>,
    defaults: Option<Defaults>,
}

/// Changes to the manifest for one environment, in `plumb.NAME.yaml` beside it; chosen by `--env NAME`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Overlay {
    api_version: Option<ApiVersion>,
    kind: OverlayKind,
    /// Replaces the workspace's name.
    name: Option<Name>,
    /// Added to the manifest's, and used in their place.
    vars: Option<BTreeMap<String, String>>,
    policy: Option<Policy>,
    defaults: Option<Defaults>,
}

/// What a plan needs a consent for.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Policy {
    /// A plan that deletes more resources needs `--allow deletes`.
    #[schemars(range(max = 1_000_000))]
    deletes: Option<u32>,
    /// Whether a plan may destroy data without `--allow data-loss`.
    data_loss: Option<DataLoss>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum DataLoss {
    Deny,
    Allow,
}

/// What blueprints of a kind have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Defaults {
    #[schemars(rename = "App")]
    app: Option<AppDefaults>,
    #[schemars(rename = "Setup")]
    setup: Option<SetupDefaults>,
}

/// What apps have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct AppDefaults {
    /// Environment variables; an app's own are added, and win.
    env: Option<BTreeMap<String, Text>>,
    restart: Option<Restart>,
    stop: Option<Stop>,
    log: Option<Log>,
    drift: Option<Drift>,
    /// The user that processes run as.
    user: Option<String>,
}

/// What Setups have unless they say otherwise.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SetupDefaults {
    drift: Option<Drift>,
}

/// A VM that an agent manages.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Machine {
    api_version: Option<ApiVersion>,
    kind: MachineKind,
    /// The machine's name.
    name: Name,
    /// Free-form labels, which `machines: { LABEL: VALUE }` matches.
    labels: Option<BTreeMap<String, String>>,
    address: Option<MachineAddress>,
    price: Option<Price>,
}

/// Where the machine is reached.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct MachineAddress {
    /// From anywhere: an IP address or a host name.
    public: Option<String>,
    /// From the other machines: an IP address or a host name.
    private: Option<String>,
}

/// What the machine costs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Price {
    /// Each month, with at most two decimals.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    monthly: f64,
    /// The ISO 4217 code, such as EUR.
    #[schemars(extend("pattern" = "^[A-Z]{3}$"))]
    currency: String,
}

/// Which machines: `all`, one name, several names, or labels that must all match.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Machines {
    One(String),
    Some(#[schemars(length(min = 1))] Vec<Name>),
    Labels(#[schemars(extend("minProperties" = 1))] BTreeMap<String, String>),
}

/// An app: processes out of one source.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct App {
    api_version: Option<ApiVersion>,
    kind: AppKind,
    /// The app's name; no other App, Service or Setup has it.
    name: Name,
    machines: Machines,
    /// How many instances over all its machines; one on each, if left out.
    #[schemars(range(min = 1, max = 1000))]
    replicas: Option<u32>,
    source: Option<Source>,
    /// The one process, which is then called `app`.
    run: Option<Command>,
    /// Several processes, by name.
    #[schemars(extend("minProperties" = 1))]
    processes: Option<BTreeMap<String, Process>>,
    /// Ports by name; of the only process, or of the one called `web`.
    ports: Option<BTreeMap<String, Port>>,
    /// Environment variables of all processes.
    env: Option<BTreeMap<String, Text>>,
    /// The health check of the only process, or of the one called `web`.
    health: Option<Health>,
    restart: Option<Restart>,
    stop: Option<Stop>,
    log: Option<Log>,
    drift: Option<Drift>,
    state: Option<State>,
    /// The user that processes run as.
    user: Option<String>,
}

/// Where an app's files come from.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Source {
    /// A folder of this repository, relative to this file.
    path: String,
    /// The folder inside it in which processes start.
    dir: Option<String>,
}

/// A text is run by `sh -c`; a list is one command's words.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Command {
    Shell(Text),
    Words(#[schemars(length(min = 1))] Vec<Text>),
}

/// One process: a command, or a command and more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Process {
    Shell(Text),
    Words(#[schemars(length(min = 1))] Vec<Text>),
    Full(Box<FullProcess>),
}

/// One process.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullProcess {
    run: Command,
    /// How many instances of this process; as many as the app has, if left out.
    #[schemars(range(min = 1, max = 1000))]
    replicas: Option<u32>,
    /// Environment variables besides the app's.
    env: Option<BTreeMap<String, Text>>,
    /// Ports by name.
    ports: Option<BTreeMap<String, Port>>,
    health: Option<Health>,
    /// The folder in which it starts, inside the source's `dir`.
    dir: Option<String>,
}

/// A port: a number, or `auto` for a free one of the machine.
#[derive(JsonSchema)]
#[schemars(untagged)]
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
    port: PortNumber,
}

/// A number, or `auto` for a free one of the machine.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum PortNumber {
    Fixed(#[schemars(range(min = 1, max = 65535))] u16),
    Auto(Auto),
}

/// A health check: the path of an HTTP request, or more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Health {
    Path(String),
    Full(FullHealth),
}

/// A health check. Exactly one of `path` and `tcp`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullHealth {
    /// GET this path.
    path: Option<String>,
    /// Connect to the port of this name.
    tcp: Option<String>,
    /// The name of the port that `path` is asked of; the only one, if left out.
    port: Option<String>,
    /// The status codes that count as healthy; 200-399, if left out.
    codes: Option<Codes>,
    /// Between two checks; 30s, if left out.
    interval: Option<Duration>,
    /// For one check; 5s, if left out.
    timeout: Option<Duration>,
    /// So many passes make it healthy; 2, if left out.
    #[schemars(range(min = 1, max = 100))]
    healthy_threshold: Option<u32>,
    /// So many failures make it unhealthy; 3, if left out.
    #[schemars(range(min = 1, max = 100))]
    unhealthy_threshold: Option<u32>,
}

/// One status code, a range such as `200-399`, or a list of those.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Codes {
    One(#[schemars(range(min = 100, max = 599))] u16),
    Range(String),
    Several(#[schemars(length(min = 1, max = 32))] Vec<Code>),
}

/// One status code, or a range such as `200-399`.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Code {
    One(#[schemars(range(min = 100, max = 599))] u16),
    Range(String),
}

/// When a process that ended is started again.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Restart {
    Policy(RestartPolicy),
    Full(FullRestart),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

/// When a process that ended is started again.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullRestart {
    policy: Option<RestartPolicy>,
    backoff: Option<Backoff>,
}

/// How long restarts wait.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Backoff {
    /// Before the second restart in a row; each further one waits twice as long. 1s, if left out.
    initial: Option<Duration>,
    /// At most; 1m, if left out.
    max: Option<Duration>,
}

/// How a process is stopped: a grace period, or more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Stop {
    Grace(Duration),
    Full(FullStop),
}

/// How a process is stopped.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullStop {
    /// TERM, if left out.
    signal: Option<Signal>,
    /// How long it may take until KILL; 10s, if left out.
    grace: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "UPPERCASE", inline)]
pub(crate) enum Signal {
    Term,
    Int,
    Quit,
    Hup,
    Usr1,
    Usr2,
    Winch,
}

/// How much output is kept: the size at which a log is rotated, or more.
#[derive(JsonSchema)]
#[schemars(untagged)]
pub(crate) enum Log {
    MaxSize(Size),
    Full(FullLog),
}

/// How much output is kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullLog {
    /// A log is rotated at this size, 4Ki to 512Mi; 10Mi, if left out.
    max_size: Option<Size>,
    /// So many rotated logs are kept; 3, if left out.
    #[schemars(range(max = 100))]
    keep: Option<u32>,
}

/// What is done about a difference that somebody else made.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Drift {
    Enforce,
    Report,
    Ignore,
}

/// Whether it should run; a stopped app stays recorded.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum State {
    Running,
    Stopped,
}

/// A machine's own set-up.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Setup {
    api_version: Option<ApiVersion>,
    kind: SetupKind,
    /// The Setup's name; no other App, Service or Setup has it.
    name: Name,
    machines: Machines,
    drift: Option<Drift>,
    /// Files by absolute path.
    files: Option<BTreeMap<String, File>>,
    /// Directories by absolute path.
    directories: Option<BTreeMap<String, Directory>>,
}

/// A file. Exactly one of `content` and `source`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct File {
    content: Option<Text>,
    /// A file of this repository, relative to this file.
    source: Option<String>,
    /// `"0644"`, if left out.
    mode: Option<Mode>,
    /// A user's name or number.
    owner: Option<String>,
    /// A group's name or number.
    group: Option<String>,
}

/// A directory.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Directory {
    /// `"0755"`, if left out.
    mode: Option<Mode>,
    /// A user's name or number.
    owner: Option<String>,
    /// A group's name or number.
    group: Option<String>,
}
