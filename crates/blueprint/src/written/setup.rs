//! Setup.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{ApiVersion, Drift, Machines, Mode, Name, SetupKind, Text};

/// A machine's own set-up: packages, files and directories.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Setup {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: SetupKind,
    /// The Setup's name; no other App, Setup, Service, Volume or Network has it.
    #[schemars(extend("examples" = ["base"]))]
    name: Name,
    /// The name that it had: it is renamed, and nothing is made anew.
    #[schemars(extend("examples" = ["basics"]))]
    renamed_from: Option<Name>,
    /// Where it goes.
    #[schemars(extend("examples" = ["all", { "role": "web" }]))]
    machines: Machines,
    /// What is done about a difference that somebody else made.
    #[schemars(extend("default" = "enforce"))]
    drift: Option<Drift>,
    /// Packages of the operating system that are installed.
    #[schemars(extend("examples" = [["curl", "ca-certificates"]]))]
    packages: Option<Vec<String>>,
    /// Files by absolute path.
    #[schemars(extend("examples" = [{ "/etc/motd": { "content": "true to the blueprint\n" } }]))]
    files: Option<BTreeMap<String, File>>,
    /// Directories by absolute path.
    #[schemars(extend("examples" = [{ "/srv/acme": { "mode": "0750" } }]))]
    directories: Option<BTreeMap<String, Directory>>,
}

/// A file. Exactly one of `content` and `source`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct File {
    /// What it holds.
    #[schemars(extend("examples" = ["region = \"${machine.labels.zone}\"\n"]))]
    content: Option<Text>,
    /// A file of this repository that it is a copy of, relative to this file.
    #[schemars(extend("examples" = ["../files/app.toml"]))]
    source: Option<String>,
    /// The permission bits, in quotes.
    #[schemars(extend("default" = "0644"))]
    mode: Option<Mode>,
    /// A user's name, or a number in quotes; the agent's own user, if left out.
    #[schemars(extend("examples" = ["root"]))]
    owner: Option<String>,
    /// A group's name, or a number in quotes; the agent's own group, if left out.
    #[schemars(extend("examples" = ["adm"]))]
    group: Option<String>,
    /// Apps that are restarted when the content has changed.
    #[schemars(extend("examples" = [["storefront"]]))]
    notify: Option<Vec<Name>>,
}

/// A directory.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Directory {
    /// The permission bits, in quotes.
    #[schemars(extend("default" = "0755"))]
    mode: Option<Mode>,
    /// A user's name, or a number in quotes; the agent's own user, if left out.
    #[schemars(extend("examples" = ["acme"]))]
    owner: Option<String>,
    /// A group's name, or a number in quotes; the agent's own group, if left out.
    #[schemars(extend("examples" = ["acme"]))]
    group: Option<String>,
}
