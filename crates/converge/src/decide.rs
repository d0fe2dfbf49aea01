//! The heart: what one observation of one resource calls for.
//!
//! Pure. Precedence, highest first: removal, an operator's stop, a restart by hand, a change of spec, remedies for the
//! unhealthy, restart policy, drift policy. A hold stands above all of these but the two by hand: see [`hold`].

use plumb_model::observation::{Difference, ExitStatus, Incarnation};
use plumb_model::{
    Action, DriftPolicy, Hash, Observation, ProcessSpec, Resource, ResourceSpec, RestartPolicy,
    RunState,
};

/// What should be done about a resource now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is as it should be.
    Settled,
    /// Do this.
    Act(Action, Why),
    /// It differs, and the blueprint says to leave it.
    Leave(Vec<Difference>),
    /// Something that is not Plumb's is in the way.
    Foreign(String),
    /// Something is to be done about it, but somebody holds it. Empty: what is to be done is not about drift.
    Held(Vec<Difference>),
    /// A stop is under way.
    Stopping,
    /// The process ended, and its policy says to leave it so.
    Ended(ExitStatus),
    /// It was to be removed, and nothing of it is left.
    Gone,
}

/// Why something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The assignment says so.
    Desired,
    /// Somebody changed it.
    Drift(Vec<Difference>),
    /// The process ended unasked.
    Died(ExitStatus),
    /// The process is unhealthy.
    Unhealthy,
    /// Somebody has ordered it.
    Again,
}

/// What is known besides the observation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// This very spec has converged before, so that a difference is somebody else's doing.
    pub applied: bool,
    /// The running incarnation has turned unhealthy.
    pub unhealthy: bool,
    /// The incarnation that ended had been asked to.
    pub asked_to_stop: bool,
    /// Whatever its spec says, it is to stand still.
    pub halted: bool,
    /// The incarnation that another one is to follow.
    pub again: Option<&'a str>,
    /// The [`incarnation_hash`](ProcessSpec::incarnation_hash) of its spec, where it has been worked out before.
    pub incarnation: Option<Hash>,
}

/// Decides about a resource that should be there.
#[must_use]
pub fn decide(resource: &Resource, observed: &Observation, known: Known<'_>) -> Decision {
    if let ResourceSpec::Process(spec) = &resource.spec {
        return decide_process(spec, resource.drift, observed, known);
    }
    let differs = match observed {
        Observation::Present { differs } if differs.is_empty() => return Decision::Settled,
        Observation::Foreign { what, found } => {
            let fits = found
                .as_ref()
                .is_some_and(|found| found.fits(resource.address.kind));
            return if resource.adopt && fits {
                Decision::Act(Action::Adopt, Why::Desired)
            } else {
                Decision::Foreign(not_ours(what, fits))
            };
        }
        Observation::Present { differs } => differs.clone(),
        Observation::Absent
        | Observation::Gone { .. }
        | Observation::Running(_)
        | Observation::Exited(..) => {
            vec![Difference {
                field: "existence".into(),
                found: "missing".into(),
            }]
        }
    };
    write_or_leave(resource.drift, known.applied, differs)
}

fn not_ours(what: &str, adoptable: bool) -> String {
    let remedy = if adoptable {
        "adopt it with the next plan (`plumb apply --allow adopt`, or `plumb dev --allow adopt`; what it was is kept), or move it away"
    } else {
        "it cannot be adopted, being of another type: move it away"
    };
    format!("something that Plumb did not make is there: {what}; {remedy}")
}

fn write_or_leave(policy: DriftPolicy, applied: bool, differs: Vec<Difference>) -> Decision {
    match (applied, policy) {
        (false, _) => Decision::Act(Action::Write, Why::Desired),
        (true, DriftPolicy::Enforce) => Decision::Act(Action::Write, Why::Drift(differs)),
        (true, DriftPolicy::Report | DriftPolicy::Ignore) => Decision::Leave(differs),
    }
}

fn decide_process(
    spec: &ProcessSpec,
    drift: DriftPolicy,
    observed: &Observation,
    known: Known<'_>,
) -> Decision {
    let incarnation = || {
        let known = known.incarnation;
        known.unwrap_or_else(|| spec.incarnation_hash())
    };
    let state = if known.halted {
        RunState::Stopped
    } else {
        spec.state
    };
    match (observed, state) {
        (Observation::Foreign { what, .. }, _) => Decision::Foreign(what.clone()),
        (Observation::Running(Incarnation { stopping: true, .. }), _) => Decision::Stopping,
        (Observation::Running(_), RunState::Stopped) => Decision::Act(Action::Stop, Why::Desired),
        (_, RunState::Stopped) => Decision::Settled,
        (Observation::Running(run), RunState::Running) if known.again == Some(run.id.as_str()) => {
            Decision::Act(Action::Stop, Why::Again)
        }
        (Observation::Exited(run, _), RunState::Running)
            if known.again == Some(run.id.as_str()) =>
        {
            Decision::Act(Action::Start, Why::Again)
        }
        (Observation::Running(run), RunState::Running) => {
            if run.spec != incarnation() {
                Decision::Act(Action::Stop, Why::Desired)
            } else if known.unhealthy && spec.restart.policy != RestartPolicy::Never {
                Decision::Act(Action::Stop, Why::Unhealthy)
            } else {
                Decision::Settled
            }
        }
        (Observation::Exited(run, exit), RunState::Running) => {
            if run.spec != incarnation() || known.asked_to_stop {
                return Decision::Act(Action::Start, Why::Desired);
            }
            let again = match spec.restart.policy {
                RestartPolicy::Always => true,
                RestartPolicy::OnFailure => exit.status != ExitStatus::Code(0),
                RestartPolicy::Never => false,
            };
            match (again, drift) {
                (false, _) => Decision::Ended(exit.status),
                (true, DriftPolicy::Enforce) => {
                    Decision::Act(Action::Start, Why::Died(exit.status))
                }
                (true, DriftPolicy::Report | DriftPolicy::Ignore) => {
                    Decision::Leave(vec![Difference {
                        field: "state".into(),
                        found: exit.status.to_string(),
                    }])
                }
            }
        }
        (
            Observation::Absent | Observation::Gone { .. } | Observation::Present { .. },
            RunState::Running,
        ) => {
            // An app that never converged is simply started; one that did has lost its run folder.
            let differs = vec![Difference {
                field: "state".into(),
                found: "not running".into(),
            }];
            match write_or_leave(drift, known.applied, differs) {
                Decision::Act(_, why) => Decision::Act(Action::Start, why),
                other => other,
            }
        }
    }
}

/// What becomes of a decision about a resource that somebody holds: nothing is done to it.
#[must_use]
pub fn hold(decision: Decision) -> Decision {
    let state = |found: String| Difference {
        field: "state".into(),
        found,
    };
    match decision {
        Decision::Act(_, Why::Drift(differs)) => Decision::Held(differs),
        Decision::Act(_, Why::Died(exit)) => Decision::Held(vec![state(exit.to_string())]),
        Decision::Act(_, Why::Unhealthy) => Decision::Held(vec![state("unhealthy".into())]),
        Decision::Act(_, Why::Desired | Why::Again) => Decision::Held(Vec::new()),
        other => other,
    }
}

/// Decides about a resource that was ordered removed. What is not Plumb's is left alone, and counts as gone.
#[must_use]
pub fn decide_removal(observed: &Observation) -> Decision {
    match observed {
        Observation::Absent | Observation::Gone { .. } | Observation::Foreign { .. } => {
            Decision::Gone
        }
        Observation::Running(Incarnation { stopping: true, .. }) => Decision::Stopping,
        Observation::Running(_) => Decision::Act(Action::Stop, Why::Desired),
        Observation::Present { .. } | Observation::Exited(..) => {
            Decision::Act(Action::Remove, Why::Desired)
        }
    }
}
