//! What stands around a workload: limits, schedules, secrets, hooks, rollouts, routes and addresses.

use schemars::JsonSchema;

use super::tuning::Signal;
use super::workload::Command;
use super::{Cron, Duration, SecretName, Size, TimeZone};

/// Where a port can be reached: `loopback` is this machine alone, `private` the other machines, `public` everybody; or one IP address of the machine.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["loopback", "private", "public", "10.0.0.20"]))]
pub(crate) struct Publish(String);

/// What may be used up. What is left out is not limited.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Memory. 4Mi to 16384Gi.
    #[schemars(extend("examples" = ["512Mi"]))]
    memory: Option<Size>,
    /// CPU cores, with at most three decimals. 0.01 to 1024.
    #[schemars(range(min = 0.01, max = 1024), extend("examples" = [1.5]))]
    cpu: Option<f64>,
    /// Processes and threads.
    #[schemars(range(min = 1, max = 4_194_304), extend("examples" = [200]))]
    processes: Option<u32>,
}

/// What becomes of processes while their machine does not hear the control plane.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct OnDisconnect {
    /// They are stopped after so long, also over restarts of the agent and reboots, and started again when it is heard. 10s to 8760h.
    #[schemars(extend("examples" = ["1h"]))]
    stop_after: Duration,
}

/// When something is started that does not run all the time: five cron fields, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["15 3 * * *", { "cron": "15 3 * * *", "timezone": "Europe/Berlin", "overlap": "skip", "timeout": "10m" }]))]
pub(crate) enum Schedule {
    Cron(Cron),
    Full(FullSchedule),
}

/// When something is started that does not run all the time.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullSchedule {
    /// Minute, hour, day of the month, month, day of the week.
    cron: Cron,
    /// The time zone in which they are read.
    #[schemars(extend("default" = "UTC"))]
    timezone: Option<TimeZone>,
    /// What happens when a run is due and the last one has not ended: the new one is left out, waits, takes the last one's place, or runs beside it.
    #[schemars(extend("default" = "skip"))]
    overlap: Option<Overlap>,
    /// A run is ended after this time; never, if left out. Up to 168h.
    #[schemars(extend("examples" = ["10m"]))]
    timeout: Option<Duration>,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum Overlap {
    Skip,
    Queue,
    Replace,
    Allow,
}

/// When and where data is backed up.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Backup {
    /// Minute, hour, day of the month, month, day of the week.
    #[schemars(extend("examples" = ["0 2 * * *"]))]
    cron: Cron,
    /// The time zone in which they are read.
    #[schemars(extend("default" = "UTC"))]
    timezone: Option<TimeZone>,
    /// So many backups are kept.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 7))]
    keep: Option<u32>,
    /// Where they are written to.
    #[schemars(extend("examples" = [{ "folder": "/var/backups/db" }]))]
    to: BackupTarget,
}

/// Where backups are written to.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct BackupTarget {
    /// A folder of the machine, by its absolute path.
    #[schemars(extend("examples" = ["/var/backups/db"]))]
    folder: String,
}

/// The secrets that are handed in: names, or variables with which secret each holds. A blueprint never holds a value.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = [["STRIPE_KEY"], { "STRIPE_KEY": "stripe-live", "TLS_KEY": { "secret": "tls", "as": "file" } }]))]
pub(crate) enum Secrets {
    Names(Vec<SecretName>),
    ByVariable(std::collections::BTreeMap<String, Secret>),
}

/// One secret: its name, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["stripe-live", { "secret": "tls", "as": "file", "on_change": "reload" }]))]
pub(crate) enum Secret {
    Name(SecretName),
    Full(FullSecret),
}

/// One secret.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullSecret {
    /// The secret's name; the variable's, if left out.
    #[schemars(extend("examples" = ["stripe-live"]))]
    secret: Option<SecretName>,
    /// As an environment variable, or as a file of mode 0400 on a tmpfs whose path is in the variable NAME_FILE.
    #[schemars(rename = "as", extend("default" = "env"))]
    form: Option<SecretForm>,
    /// What becomes of what runs when the secret gets another version: a restart, or, of a file alone, a signal that tells
    /// it to read the file again.
    #[schemars(extend("default" = "restart"))]
    on_change: Option<OnSecretChange>,
    /// Machines keep the secret in memory alone, and not encrypted on their disk: after a reboot what uses it waits for the
    /// control plane.
    #[schemars(extend("default" = false))]
    memory_only: Option<bool>,
}

/// What becomes of what runs with a secret that gets another version: `restart` starts it anew, `reload` sends it HUP,
/// `nothing` leaves it to look at the file by itself, and a signal is sent to it.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["reload", { "signal": "USR1" }]))]
pub(crate) enum OnSecretChange {
    Word(OnSecretChangeWord),
    Signal(SecretSignal),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum OnSecretChangeWord {
    Restart,
    Reload,
    Nothing,
}

/// A signal that tells what runs of a new version of a secret.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct SecretSignal {
    /// Which signal it gets.
    #[schemars(extend("description" = "Which signal it gets.", "examples" = ["USR1"]))]
    signal: Signal,
}

#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case", inline)]
pub(crate) enum SecretForm {
    Env,
    File,
}

/// Commands around each release, run once on one machine.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Hooks {
    /// Before the new release starts.
    #[schemars(extend("examples" = ["npm run migrate", { "run": "npm run migrate", "reversible": false }]))]
    before: Option<HookList>,
    /// Once the new release is healthy everywhere.
    #[schemars(extend("examples" = ["npm run warm-cache"]))]
    after: Option<HookList>,
}

/// One command, one with more to it, or a list of those that run one after the other.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["npm run migrate"]))]
pub(crate) enum HookList {
    Shell(super::Text),
    One(FullHook),
    Several(#[schemars(length(min = 1, max = 32))] Vec<Hook>),
}

/// A command around a release.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["npm run migrate"]))]
pub(crate) enum Hook {
    Shell(super::Text),
    Full(FullHook),
}

/// A command around a release.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullHook {
    /// The command.
    #[schemars(extend("examples" = ["npm run migrate"]))]
    run: Command,
    /// Whether going back to the release before is safe after it has run.
    #[schemars(extend("default" = true))]
    reversible: Option<bool>,
    /// It has failed after this time. 1s to 24h.
    #[schemars(extend("default" = "10m"))]
    timeout: Option<Duration>,
}

/// How machines move from one release to the next: a strategy, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["rolling", { "strategy": "canary", "batch": 2 }]))]
pub(crate) enum Rollout {
    Strategy(Strategy),
    Full(FullRollout),
}

#[derive(JsonSchema)]
#[schemars(rename_all = "kebab-case", inline)]
pub(crate) enum Strategy {
    BlueGreen,
    Rolling,
    Canary,
}

/// How machines move from one release to the next.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullRollout {
    /// The new one starts beside the old one, which goes once the new one answers; the old one stops first, batch by batch; or one goes first, and the others once it has proven itself.
    #[schemars(extend("default" = "blue-green"))]
    strategy: Option<Strategy>,
    /// So many instances at a time.
    #[schemars(range(min = 1, max = 1000), extend("default" = 1))]
    batch: Option<u32>,
    /// So many instances may be unavailable at once; `batch` with the strategy `rolling`.
    #[schemars(range(max = 1000), extend("default" = 0))]
    max_unavailable: Option<u32>,
    /// An instance counts once it has been healthy for so long. Up to 24h.
    #[schemars(extend("default" = "10s"))]
    min_healthy: Option<Duration>,
    /// The rollout has failed after so long without progress. 1s to 24h.
    #[schemars(extend("default" = "5m"))]
    deadline: Option<Duration>,
    /// Whether a failed rollout goes back to the last good release.
    #[schemars(extend("default" = true))]
    auto_revert: Option<bool>,
}

/// A host, `HOST/PATH`, or both apart.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["shop.example.com", "example.com/shop", { "host": "example.com", "path": "/shop" }]))]
pub(crate) enum Route {
    Short(String),
    Full(FullRoute),
}

/// A host and a path that lead to the app.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullRoute {
    /// A domain name, or one that begins with `*.`.
    #[schemars(extend("examples" = ["shop.example.com", "*.example.com"]))]
    host: String,
    /// What the path of a request must begin with.
    #[schemars(extend("default" = "/"))]
    path: Option<String>,
}
