//! How a workload is started again, stopped and logged.

use schemars::JsonSchema;

use super::{Duration, Size};

/// When a process that ended is started again: a policy, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["on-failure", { "policy": "always", "backoff": { "initial": "1s", "max": "1m" } }]))]
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
    /// After every end, only after a failure, or not at all.
    #[schemars(extend("default" = "always"))]
    policy: Option<RestartPolicy>,
    /// How long restarts wait.
    #[schemars(extend("examples" = [{ "initial": "1s", "max": "1m" }]))]
    backoff: Option<Backoff>,
}

/// How long restarts wait.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Backoff {
    /// Before the second restart in a row; each further one waits twice as long. 10ms to 1h.
    #[schemars(extend("default" = "1s"))]
    initial: Option<Duration>,
    /// At most. 10ms to 1h.
    #[schemars(extend("default" = "1m"))]
    max: Option<Duration>,
}

/// How a process is stopped: a grace period, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["30s", { "signal": "INT", "grace": "30s" }]))]
pub(crate) enum Stop {
    Grace(Duration),
    Full(FullStop),
}

/// How a process is stopped.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullStop {
    /// The signal that asks it to end.
    #[schemars(extend("default" = "TERM"))]
    signal: Option<Signal>,
    /// How long it may take until it is killed. Up to 1h.
    #[schemars(extend("default" = "10s"))]
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
#[schemars(untagged, extend("examples" = ["50Mi", { "max_size": "50Mi", "keep": 5 }]))]
pub(crate) enum Log {
    MaxSize(Size),
    Full(FullLog),
}

/// How much output is kept.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullLog {
    /// A log is rotated at this size. 4Ki to 512Mi.
    #[schemars(extend("default" = "10Mi"))]
    max_size: Option<Size>,
    /// So many rotated logs are kept.
    #[schemars(range(max = 100), extend("default" = 3))]
    keep: Option<u32>,
}
