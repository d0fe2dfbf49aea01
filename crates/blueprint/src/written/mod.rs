//! The language as people write it, short forms included: the source of the published schemas, of the reference page,
//! and of what the structural check knows. Values are never of these types; `convert` reads them by key.
//!
//! Every key has a description, and an example or the words that it takes: editors show them, and a test holds it.

#![expect(
    dead_code,
    reason = "these types are only read by their JsonSchema derive"
)]

mod app;
mod around;
mod infra;
mod machine;
mod process;
mod setup;
mod tuning;
mod workload;
mod workspace;

pub(crate) mod example;

use schemars::JsonSchema;

pub(crate) use app::App;
pub(crate) use infra::{Network, Registry, Service, Volume};
pub(crate) use machine::Machine;
pub(crate) use setup::Setup;
pub(crate) use workspace::{Overlay, Workspace};

/// Lower-case letters, digits and `-`; starts and ends with a letter or digit; at most 63 characters.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", "examples" = ["web-1"]))]
pub(crate) struct Name(String);

/// The name of a secret, never its value: letters, digits, `-`, `_` and `.`, beginning with a letter or digit.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[A-Za-z0-9][-_.A-Za-z0-9]{0,127}$", "examples" = ["STRIPE_KEY"]))]
pub(crate) struct SecretName(String);

/// A whole number and a unit: `500ms`, `10s`, `5m`, `1h`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+(ms|s|m|h)$", "examples" = ["10s"]))]
pub(crate) struct Duration(String);

/// A whole number and a unit: `512Ki`, `10Mi`, `1Gi`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-9]+(Ki|Mi|Gi)$", "examples" = ["512Mi"]))]
pub(crate) struct Size(String);

/// A text that may hold references such as `${machine.name}`, `${app.X.url}` or `${vars.X}`. `$${` is a literal `${`.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["https://shop.${vars.domain}"]))]
pub(crate) struct Text(String);

/// Permission bits in octal digits, such as `"0644"`.
#[derive(JsonSchema)]
#[schemars(extend("pattern" = "^[0-7]{3,5}$", "examples" = ["0640"]))]
pub(crate) struct Mode(String);

/// Five fields, as crontab(5) has them: minute, hour, day of the month, month, day of the week.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["15 3 * * *", "*/10 8-18 * * MON-FRI"]))]
pub(crate) struct Cron(String);

/// The IANA name of a time zone.
#[derive(JsonSchema)]
#[schemars(extend("examples" = ["Europe/Berlin", "UTC"]))]
pub(crate) struct TimeZone(String);

/// The version of the language.
#[derive(JsonSchema)]
pub(crate) enum ApiVersion {
    #[schemars(rename = "plumb/v1")]
    V1,
}

macro_rules! kinds {
    ($($type:ident = $variant:ident),* $(,)?) => {$(
        /// What this document is.
        #[derive(JsonSchema)]
        pub(crate) enum $type {
            $variant,
        }
    )*};
}
kinds!(
    WorkspaceKind = Workspace,
    OverlayKind = Overlay,
    MachineKind = Machine,
    AppKind = App,
    SetupKind = Setup,
    ServiceKind = Service,
    VolumeKind = Volume,
    NetworkKind = Network,
    RegistryKind = Registry,
);

/// Which machines: `all`, one name, several names, or labels that must all match.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["web-1", ["web-1", "web-2"], { "role": "web" }, "all"]))]
pub(crate) enum Machines {
    One(String),
    Some(#[schemars(length(min = 1))] Vec<Name>),
    Labels(#[schemars(extend("minProperties" = 1))] std::collections::BTreeMap<String, String>),
}

/// What is done about a difference that somebody else made: put right, only shown, or not even looked at.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum Drift {
    Enforce,
    Report,
    Ignore,
}

/// Whether it should run; what is stopped stays recorded.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum State {
    Running,
    Stopped,
}

/// What becomes of the data when no blueprint names it any more: it stays where it is, or is destroyed by a plan that was approved with `--allow data-loss`.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub(crate) enum OnDelete {
    Keep,
    Destroy,
}
