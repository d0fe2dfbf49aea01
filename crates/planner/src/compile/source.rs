//! What an app runs out of, once on each machine: its sources, its language runtime, and what is built of them.

use plumb_blueprint::{App, Source, Workload};
use plumb_model::spec::{WorkDir, WorkDirOf};
use plumb_model::spec_source::{BuildMethod, GitRef};
use plumb_model::state::ResolutionKey;
use plumb_model::{
    Address, Addresses, ArtifactSpec, BuildSpec, CheckoutSpec, MachineName, OwnerName,
    ResourceKind, ResourceSpec, ToolchainRef, ToolchainSpec,
};

use super::context::{Context, Draft, Made, escape};
use super::env;
use super::reach::{From, Reach};
use super::resolve::{git_key, is_exact};
use super::text::Scope;

/// How long build steps may take, in milliseconds: half an hour, longer than builds that anybody waits for.
const BUILD_TIMEOUT_MS: u64 = 30 * 60 * 1000;

/// What an app has ready on one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Prepared {
    /// What must be there before anything of the app starts.
    pub after: Addresses,
    /// Where it runs: what was built, or otherwise the source; none is an empty folder.
    pub workdir: Option<WorkDir>,
    pub toolchain: Option<ToolchainRef>,
    /// The folder stands for something that nobody has resolved yet.
    pub workdir_unknown: bool,
    pub toolchain_unknown: bool,
}

impl Prepared {
    /// A folder inside it.
    pub fn folder(&self, dir: &str) -> Option<WorkDir> {
        self.workdir.as_ref().map(|workdir| WorkDir {
            dir: join(&workdir.dir, dir),
            ..workdir.clone()
        })
    }

    /// Notes which fields of something that runs out of it are unknown.
    pub fn mark_unknown(&self, context: &mut Context<'_>, address: &Address) {
        if self.workdir_unknown {
            context.unknown(address, "workdir");
        }
        if self.toolchain_unknown {
            context.unknown(address, "toolchain");
        }
    }
}

/// A folder inside a folder, both relative; the inner one may already begin with the outer one.
fn join(outer: &str, inner: &str) -> String {
    match (outer, inner) {
        ("", dir) | (dir, "") => dir.to_owned(),
        (outer, inner) if inner == outer => inner.to_owned(),
        (outer, inner)
            if inner
                .strip_prefix(outer)
                .is_some_and(|rest| rest.starts_with('/')) =>
        {
            inner.to_owned()
        }
        (outer, inner) => format!("{outer}/{inner}"),
    }
}

/// Puts an app's source, toolchain and build on a machine.
pub(super) fn prepare<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    machine: &'a MachineName,
    reach: &Reach<'a>,
) -> Prepared {
    let mut ready = Prepared::default();
    source(context, draft, owner, app, machine, &mut ready);
    toolchain(context, draft, owner, app, machine, &mut ready);
    if !app.build.is_empty() {
        build(context, draft, owner, app, machine, reach, &mut ready);
    }
    ready
}

fn source<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &OwnerName,
    app: &'a App,
    machine: &MachineName,
    ready: &mut Prepared,
) {
    let origin = context.origin("App", owner, "/source");
    match &app.source {
        None => {}
        Some(Source::Path { path, dir }) => {
            let Some(source) = context.source(path, origin.clone()) else {
                return;
            };
            let address = Address::new(machine, owner, ResourceKind::Artifact, "source");
            let spec = ResourceSpec::Artifact(ArtifactSpec {
                digest: source.digest,
                size: source.size,
            });
            ready.after.insert(address.clone());
            ready.workdir = Some(WorkDir {
                artifact: source.digest,
                dir: dir.clone(),
                of: WorkDirOf::Artifact,
            });
            context.keep(draft, address, Made::new(app.drift, spec, origin));
        }
        Some(Source::Git(git)) => {
            let address = Address::new(machine, owner, ResourceKind::Checkout, "source");
            let commit = match (&git.wanted, git_key(&git.url, &git.wanted)) {
                (_, Some(key)) => {
                    let recorded = context.recorded(owner);
                    context.resolver.resolve(owner, recorded, key)
                }
                (GitRef::Commit(id), _) => Some(id.clone()),
                (GitRef::Branch(_) | GitRef::Tag(_), None) => None,
            };
            if commit.is_none() {
                context.unknown(&address, "commit");
                ready.workdir_unknown = true;
            }
            let spec = CheckoutSpec {
                url: git.url.clone(),
                wanted: git.wanted.clone(),
                commit,
            };
            ready.after.insert(address.clone());
            ready.workdir = Some(WorkDir {
                artifact: spec.content_hash(),
                dir: git.dir.clone(),
                of: WorkDirOf::Checkout,
            });
            let spec = ResourceSpec::Checkout(spec);
            context.keep(draft, address, Made::new(app.drift, spec, origin));
        }
    }
}

fn toolchain<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &OwnerName,
    app: &'a App,
    machine: &MachineName,
    ready: &mut Prepared,
) {
    let Some(decl) = &app.runtime else {
        return;
    };
    let name = decl.runtime.as_str();
    let address = Address::new(machine, owner, ResourceKind::Toolchain, name);
    let version = if is_exact(&decl.version, 3) {
        Some(decl.version.clone())
    } else {
        let recorded = context.recorded(owner);
        let key = ResolutionKey(format!("runtime {name}@{}", decl.version));
        context.resolver.resolve(owner, recorded, key)
    };
    if version.is_none() {
        context.unknown(&address, "version");
        ready.toolchain_unknown = true;
    }
    ready.toolchain = Some(ToolchainRef {
        runtime: decl.runtime,
        version: version.clone().unwrap_or_else(|| decl.version.clone()),
    });
    ready.after.insert(address.clone());
    let spec = ResourceSpec::Toolchain(ToolchainSpec {
        runtime: decl.runtime,
        wanted: decl.version.clone(),
        version,
    });
    let origin = context.origin("App", owner, "/runtime");
    context.keep(draft, address, Made::new(app.drift, spec, origin));
}

fn build<'a>(
    context: &mut Context<'a>,
    draft: &mut Draft,
    owner: &'a OwnerName,
    app: &'a App,
    machine: &'a MachineName,
    reach: &Reach<'a>,
    ready: &mut Prepared,
) {
    let origin = context.origin("App", owner, "/build");
    let Some(source) = ready.workdir.clone() else {
        context.problem(
            format!("`{owner}` has a `build` and no source to build"),
            origin,
            "add `source: { path: … }` or `source: { git: … }`",
        );
        return;
    };
    let scope = scope(context, machine, reach);
    let steps = app
        .build
        .iter()
        .map(|step| context.command(step, &scope, origin.as_ref()))
        .collect();
    let env = env::of_a_build(context, owner, &app.env, &scope);
    let spec = BuildSpec {
        source,
        method: BuildMethod::Steps(steps),
        toolchain: ready.toolchain.clone(),
        env,
        secrets: Default::default(),
        timeout_ms: BUILD_TIMEOUT_MS,
    };
    let address = Address::new(machine, owner, ResourceKind::Build, "app");
    keep_build(context, draft, app, address, spec, ready);
}

/// Keeps a build; afterwards what was ready is what it makes.
pub(super) fn keep_build(
    context: &mut Context<'_>,
    draft: &mut Draft,
    app: &App,
    address: Address,
    spec: BuildSpec,
    ready: &mut Prepared,
) {
    if ready.workdir_unknown {
        context.unknown(&address, "source");
    }
    if ready.toolchain_unknown {
        context.unknown(&address, "toolchain");
        ready.workdir_unknown = true;
    }
    // Where in the sources it was built is where it runs.
    ready.workdir = Some(WorkDir {
        artifact: spec.fingerprint(),
        dir: spec.source.dir.clone(),
        of: WorkDirOf::Build,
    });
    let pointer = match (&spec.method, &app.workload) {
        (BuildMethod::Steps(_), _) => "/build".to_owned(),
        (_, Workload::Compose(_)) => format!("/compose/{}/image", escape(&address.name)),
        (BuildMethod::Dockerfile { .. }, _) => "/dockerfile".to_owned(),
    };
    let made = Made {
        after: std::mem::take(&mut ready.after),
        ..Made::new(
            app.drift,
            ResourceSpec::Build(spec),
            context.origin("App", &address.owner, &pointer),
        )
    };
    ready.after = made.after.clone();
    ready.after.insert(address.clone());
    context.keep(draft, address, made);
}

/// Where a native part of an app is rendered.
pub(super) fn scope<'s>(
    context: &Context<'s>,
    machine: &'s MachineName,
    reach: &'s Reach<'s>,
) -> Scope<'s> {
    Scope {
        from: From {
            machine,
            in_container: false,
        },
        info: &context.set.machines[machine],
        reach,
        commit: context.input.commit,
        symbolic: true,
    }
}
