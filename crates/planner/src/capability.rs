//! Nothing is half-honoured: what a machine cannot do is an error at plan, naming the machine and the remedy.

use plumb_model::{Capability, Resource, ResourceSpec};

use crate::desired::Desired;
use crate::{Observed, PlanError, Problem};

/// What a resource takes of its machine.
fn needs(resource: &Resource) -> Vec<(Capability, &'static str)> {
    match &resource.spec {
        ResourceSpec::Artifact(_) => vec![(Capability::Files, "an artifact")],
        ResourceSpec::Directory(spec) if spec.owner.is_some() || spec.group.is_some() => {
            vec![
                (Capability::Files, "a directory"),
                (Capability::Chown, "`owner` or `group`"),
            ]
        }
        ResourceSpec::Directory(_) => vec![(Capability::Files, "a directory")],
        ResourceSpec::File(spec) if spec.owner.is_some() || spec.group.is_some() => {
            vec![
                (Capability::Files, "a file"),
                (Capability::Chown, "`owner` or `group`"),
            ]
        }
        ResourceSpec::File(_) => vec![(Capability::Files, "a file")],
        ResourceSpec::Process(spec) if spec.user.is_some() => {
            vec![
                (Capability::Processes, "a process"),
                (Capability::Users, "`user`"),
            ]
        }
        ResourceSpec::Process(_) => vec![(Capability::Processes, "a process")],
    }
}

/// Checks every desired resource against what its machine said of itself. A machine that has said nothing yet is
/// not judged: the plan reports that it waits for it.
pub(crate) fn check(desired: &Desired, observed: &Observed) -> Result<(), PlanError> {
    let mut problems = Vec::new();
    for resource in desired.resources() {
        let machine = &resource.address.machine;
        let Some(facts) = observed.machines.get(machine) else {
            continue;
        };
        for (capability, what) in needs(resource) {
            if let Some((why, remedy)) = facts.capabilities.lack(capability) {
                problems.push(Problem {
                    message: format!(
                        "`{}` asks for {what}, which machine `{machine}` cannot do (capability `{}`): {why}",
                        resource.address,
                        capability.as_str()
                    ),
                    origin: desired.origins.get(&resource.address).cloned(),
                    hint: Some(remedy),
                });
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(PlanError { problems })
    }
}
