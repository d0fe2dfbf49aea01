//! Specs of what a workload is made from: packages, checkouts, toolchains, builds, and the tasks around a release.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::resource_spec;
use crate::spec::{WorkDir, nothing};
use crate::spec_container::ContainerImage;
use crate::spec_parts::{Runtime, SecretUse, ToolchainRef};

resource_spec! {
    /// A package of the machine's operating system, at whatever version its repositories offer.
    pub struct PackageSpec: Package {
        /// The package's name.
        name: String => Replace, By("the package manager's database"), Public;
    }
}

/// What of a git repository is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitRef {
    /// The tip of a branch.
    Branch(String),
    /// A tag.
    Tag(String),
    /// A commit, by its full id.
    Commit(String),
}

resource_spec! {
    /// A git repository at one commit.
    pub struct CheckoutSpec: Checkout {
        /// Where it is fetched from.
        url: String => Replace, By("the mark beside the checkout"), Public;
        /// What is wanted of it.
        wanted: GitRef => InPlace, Cannot("it only says how the commit was found"), Public;
        /// The full id of the commit; none where nobody has resolved it yet.
        commit: Option<String> => Replace, By("the mark beside the checkout"), Public;
    }
}

impl CheckoutSpec {
    /// What stands for its content: a hash of where it comes from and of the commit, and of what is wanted only where nobody
    /// knows the commit yet. A branch that is renamed over the same commit moves nothing.
    #[must_use]
    pub fn content_hash(&self) -> Hash {
        let Self {
            url,
            wanted,
            commit,
        } = self;
        match commit {
            Some(commit) => Hash::of_json(&("checkout", url, commit)),
            None => Hash::of_json(&("checkout", url, wanted)),
        }
    }
}

resource_spec! {
    /// A language runtime.
    pub struct ToolchainSpec: Toolchain {
        /// Which.
        runtime: Runtime => Replace, By("the folder that it is installed in"), Public;
        /// The range that is wanted, as it is written.
        wanted: String => InPlace, Cannot("it only says how the version was found"), Public;
        /// The exact version; none where nobody has resolved it yet.
        version: Option<String> => Replace, By("the folder that it is installed in"), Public;
    }
}

/// How something is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildMethod {
    /// Commands, one after the other, in the source's folder.
    Steps(Vec<Vec<String>>),
    /// A Dockerfile, with the source as its context.
    Dockerfile {
        /// The Dockerfile, relative to the source.
        path: String,
        /// The stage that is built; none is the last.
        target: Option<String>,
        /// Build arguments.
        args: BTreeMap<String, String>,
    },
}

resource_spec! {
    /// What build steps or a Dockerfile make out of a source. Equal specs are built once.
    pub struct BuildSpec: Build {
        /// The source, and the folder in it.
        source: WorkDir => Replace, By("the fingerprint that a finished build leaves"), Public;
        /// How.
        method: BuildMethod => Replace, By("the fingerprint that a finished build leaves"), Public;
        /// The language runtime.
        toolchain: Option<ToolchainRef> => Replace, By("the fingerprint that a finished build leaves"), Public;
        /// The environment.
        env: BTreeMap<String, String> => Replace, By("the fingerprint that a finished build leaves"), Public;
        /// The secrets that it is handed, by the name of their environment variable.
        #[serde(default, skip_serializing_if = "nothing")]
        secrets: BTreeMap<String, SecretUse> => Replace, By("the fingerprint that a finished build leaves"), Sensitive;
        /// It is ended after so many milliseconds.
        timeout_ms: u64 => InPlace, Cannot("it is the agent's own doing, and takes effect at the next build"), Public;
    }
}

impl BuildSpec {
    /// What stands for its result: a hash over everything that goes into it, and not over how long it may take.
    #[must_use]
    pub fn fingerprint(&self) -> Hash {
        let Self {
            source,
            method,
            toolchain,
            env,
            secrets,
            timeout_ms: _,
        } = self;
        Hash::of_json(&("build", source, method, toolchain, env, secrets))
    }
}

/// When a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskMoment {
    /// Before the new release starts.
    Before,
    /// Once the new release is healthy everywhere.
    After,
}

resource_spec! {
    /// A command that runs once for each release, on one machine.
    pub struct TaskSpec: Task {
        /// When.
        moment: TaskMoment => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The command and its arguments.
        argv: Vec<String> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The environment.
        env: BTreeMap<String, String> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The secrets that it is handed, by the name of their environment variable.
        #[serde(default, skip_serializing_if = "nothing")]
        secrets: BTreeMap<String, SecretUse> => InPlace, Cannot("it takes effect at the next release"), Sensitive;
        /// Where it runs; none is a private empty folder.
        workdir: Option<WorkDir> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The language runtime.
        toolchain: Option<ToolchainRef> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The image that it runs in; none is the machine itself.
        #[serde(default, skip_serializing_if = "nothing")]
        image: Option<ContainerImage> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// The user that it runs as; none lets the agent choose.
        user: Option<String> => InPlace, Cannot("it takes effect at the next release"), Public;
        /// Whether going back to the release before is safe after it has run.
        reversible: bool => InPlace, Cannot("it is a promise of the author"), Public;
        /// It is ended after so many milliseconds, and has failed.
        timeout_ms: u64 => InPlace, Cannot("it takes effect at the next release"), Public;
    }
}
