//! What an app is made from: sources, commands, Dockerfiles, mounts.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::Text;

/// Where an app's files come from. Exactly one of `path` and `git`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Source {
    /// A folder of this repository, relative to this file.
    #[schemars(extend("examples" = ["../web"]))]
    path: Option<String>,
    /// A git repository: an `https://` or `ssh://` URL or `git@HOST:PATH`, without a credential.
    #[schemars(extend("examples" = ["https://git.example.com/acme/storefront.git"]))]
    git: Option<String>,
    /// Its branch. Exactly one of `branch`, `tag` and `commit`.
    #[schemars(extend("examples" = ["main"]))]
    branch: Option<String>,
    /// Its tag.
    #[schemars(extend("examples" = ["v2.3.0"]))]
    tag: Option<String>,
    /// The full id of its commit.
    #[schemars(extend("examples" = ["3f786850e387550fdab836ed7e6dc881de23001b"]))]
    commit: Option<String>,
    /// The folder inside it in which everything starts.
    #[schemars(extend("examples" = ["web"]))]
    dir: Option<String>,
    /// Whether a push to the branch deploys.
    #[schemars(extend("default" = false))]
    follow: Option<bool>,
}

/// A text is run by `sh -c`; a list is one command's words.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["npm start", ["./server", "--verbose"]]))]
pub(crate) enum Command {
    Shell(Text),
    Words(#[schemars(length(min = 1))] Vec<Text>),
}

/// One build step, or several that run one after the other. Each is run by `sh -c`.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["npm ci", ["npm ci", "npm run build"]]))]
pub(crate) enum Build {
    Step(Text),
    Steps(#[schemars(length(min = 1, max = 100))] Vec<Text>),
}

/// A Dockerfile of the source: its path, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["Dockerfile", { "path": "docker/Dockerfile", "target": "runtime" }]))]
pub(crate) enum Dockerfile {
    Path(String),
    Full(FullDockerfile),
}

/// A Dockerfile of the source.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullDockerfile {
    /// Relative to the source.
    #[schemars(extend("default" = "Dockerfile"))]
    path: Option<String>,
    /// The stage that is built; the last one, if left out.
    #[schemars(extend("examples" = ["runtime"]))]
    target: Option<String>,
    /// Build arguments. They stay in the image's history: nothing secret belongs here.
    #[schemars(extend("examples" = [{ "VERSION": "2.3" }]))]
    args: Option<BTreeMap<String, Text>>,
}

/// The path inside the container, or more.
#[derive(JsonSchema)]
#[schemars(untagged, extend("examples" = ["/var/lib/catalog", { "path": "/etc/catalog", "read_only": true }]))]
pub(crate) enum Mount {
    Path(String),
    Full(FullMount),
}

/// What is mounted into a container.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct FullMount {
    /// The absolute path inside the container.
    #[schemars(extend("examples" = ["/var/lib/catalog"]))]
    path: String,
    /// An absolute path of the machine that is mounted in place of a volume.
    #[schemars(extend("examples" = ["/srv/catalog"]))]
    from: Option<String>,
    /// Whether the container may only read it.
    #[schemars(extend("default" = false))]
    read_only: Option<bool>,
}
