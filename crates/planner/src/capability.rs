//! Nothing is half-honoured: what a machine cannot do is said at plan, naming the resource, the machine and the remedy.

use plumb_model::plan::Lack;
use plumb_model::spec::FileContent;
use plumb_model::spec_source::BuildMethod;
use plumb_model::state::RolloutStrategy;
use plumb_model::symbolic::holds_credential;
use plumb_model::{Capability, DirectorySpec, FileSpec, Resource, ResourceSpec};

use crate::Observed;
use crate::desired::Desired;
use crate::diff::Resources;

/// What a resource takes of its machine, each with the words for what in it asks.
fn needs(resource: &Resource) -> Vec<(Capability, &'static str)> {
    use Capability as C;
    let mut needs = match &resource.spec {
        ResourceSpec::Package(_) => vec![(C::Packages, "a package")],
        ResourceSpec::Artifact(_) => vec![(C::Files, "an artifact")],
        ResourceSpec::Checkout(_) => vec![(C::Git, "a git repository")],
        ResourceSpec::Toolchain(_) => vec![(C::Runtimes, "a language runtime")],
        ResourceSpec::Build(spec) => match spec.method {
            BuildMethod::Steps(_) => vec![(C::Builds, "a build")],
            BuildMethod::Dockerfile { .. } => vec![(C::Containers, "a build from a Dockerfile")],
        },
        ResourceSpec::Image(_) => vec![(C::Containers, "a container image")],
        ResourceSpec::Network(_) => vec![(C::Containers, "a network of containers")],
        ResourceSpec::Volume(_) => vec![(C::Containers, "a volume")],
        ResourceSpec::Directory(_) => vec![(C::Files, "a directory")],
        ResourceSpec::File(_) => vec![(C::Files, "a file")],
        ResourceSpec::Service(_) => vec![(C::Services, "a service")],
        ResourceSpec::Task(_) => vec![(C::Tasks, "a command around a release")],
        ResourceSpec::Process(_) => vec![(C::Processes, "a process")],
        ResourceSpec::Container(_) => vec![(C::Containers, "a container")],
        ResourceSpec::Route(_) => vec![(C::Routes, "a route")],
    };
    let mut ask = |wanted: bool, capability, what| {
        if wanted {
            needs.push((capability, what));
        }
    };
    match &resource.spec {
        ResourceSpec::Directory(DirectorySpec { owner, group, .. }) => {
            ask(
                owner.is_some() || group.is_some(),
                C::Chown,
                "`owner` or `group`",
            );
        }
        ResourceSpec::File(FileSpec {
            owner,
            group,
            notify,
            content,
            ..
        }) => {
            ask(
                owner.is_some() || group.is_some(),
                C::Chown,
                "`owner` or `group`",
            );
            ask(!notify.is_empty(), C::Notify, "`notify`");
            let template = matches!(content, FileContent::Template(_));
            ask(template, C::Services, "the credential of a service");
        }
        ResourceSpec::Process(spec) => {
            ask(spec.user.is_some(), C::Users, "`user`");
            ask(spec.toolchain.is_some(), C::Runtimes, "`runtime`");
            ask(spec.limits.is_some(), C::Limits, "`limits`");
            ask(spec.schedule.is_some(), C::Schedules, "`schedule`");
            ask(!spec.secrets.is_empty(), C::Secrets, "`secrets`");
            let credential = spec.env.values().any(|value| holds_credential(value));
            ask(credential, C::Services, "the credential of a service");
        }
        ResourceSpec::Container(spec) => {
            ask(spec.schedule.is_some(), C::Schedules, "`schedule`");
            ask(!spec.secrets.is_empty(), C::Secrets, "`secrets`");
            let credential = spec.env.values().any(|value| holds_credential(value));
            ask(credential, C::Services, "the credential of a service");
        }
        ResourceSpec::Image(spec) => {
            ask(
                spec.password.is_some(),
                C::Secrets,
                "the password of a registry",
            );
        }
        ResourceSpec::Build(spec) => ask(!spec.secrets.is_empty(), C::Secrets, "`secrets`"),
        ResourceSpec::Task(spec) => {
            ask(!spec.secrets.is_empty(), C::Secrets, "`secrets`");
            ask(spec.toolchain.is_some(), C::Runtimes, "`runtime`");
        }
        _ => {}
    }
    needs
}

/// Holds every desired resource against what its machine said of itself, sorted by address. A machine that has said
/// nothing yet is not judged: the plan reports that it waits for it.
pub(crate) fn lacks(desired: &Desired, before: Resources<'_>, observed: &Observed) -> Vec<Lack> {
    let mut lacks = Vec::new();
    for resource in desired.resources() {
        let address = &resource.address;
        let Some(facts) = observed.machines.get(&address.machine) else {
            continue;
        };
        let rollout = resource.address.kind.runs()
            && desired
                .owners
                .get(&address.owner)
                .and_then(|body| body.rollout.as_ref())
                .is_some_and(|rollout| rollout.strategy == RolloutStrategy::BlueGreen);
        // The others need nothing of a machine but that it holds one release and then the next.
        let rollout =
            rollout.then_some((Capability::Rollouts, "the rollout strategy `blue-green`"));
        for (capability, what) in needs(resource).into_iter().chain(rollout) {
            if let Some((why, remedy)) = facts.capabilities.lack(capability) {
                lacks.push(Lack {
                    address: address.clone(),
                    asks_for: what.to_owned(),
                    capability,
                    why,
                    remedy,
                    unchanged: before
                        .get(desired.recorded_address(address))
                        .is_some_and(|old| old == resource),
                    origin: desired.origin(address).cloned(),
                });
            }
        }
    }
    lacks.sort();
    lacks
}
