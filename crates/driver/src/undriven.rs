//! The kinds of resource that this version plans and cannot drive yet: one driver that finds nothing of them and
//! refuses to make them, so that an assignment which holds one says why it does not converge.

use plumb_model::capability::Availability;
use plumb_model::{Action, Capability, Depth, Fault, Observation, Reason};

use crate::{Driver, Target};

/// The driver of every kind that has none.
#[derive(Debug, Default)]
pub struct UndrivenDriver;

impl Driver for UndrivenDriver {
    /// Nothing of such a kind was ever made here.
    fn observe(&mut self, targets: &[Target<'_>], _: Depth) -> Vec<Result<Observation, Fault>> {
        targets.iter().map(|_| Ok(Observation::Absent)).collect()
    }

    fn act(&mut self, work: &[(Target<'_>, Action)]) -> Vec<Result<Observation, Fault>> {
        work.iter()
            .map(|(target, action)| match action {
                Action::Stop | Action::Remove | Action::Move { .. } => Ok(Observation::Absent),
                Action::Write | Action::Adopt | Action::Start => Err(Fault::new(
                    Reason::LacksCapability,
                    format!(
                        "this version of plumb makes nothing of the kind {}; upgrade plumb on this machine, or take it out of the blueprint",
                        target.address.kind
                    ),
                )),
            })
            .collect()
    }
}

/// What no agent of this version can do, each with what works instead.
pub(crate) fn lacking() -> impl Iterator<Item = (Capability, Availability)> {
    const ALL: [(Capability, &str, &str); 12] = [
        (
            Capability::Packages,
            "install packages",
            "install them by hand, for example with `apt-get install`, and leave `packages` out",
        ),
        (
            Capability::Git,
            "fetch git repositories",
            "keep the sources in the blueprint repository: `source: { path: ../web }`",
        ),
        (
            Capability::Runtimes,
            "install language runtimes",
            "install the runtime by hand, leave `runtime` out, and call it in `run`: `run: python3 server.py`",
        ),
        (
            Capability::Builds,
            "build",
            "build before you apply, and point `source: { path: … }` at the result",
        ),
        (
            Capability::Containers,
            "run containers",
            "run a native process instead: `run: ./server` with `source: { path: … }`",
        ),
        (
            Capability::Services,
            "run services",
            "run it as an App with a process of its own, or name an existing one's address in `env`",
        ),
        (
            Capability::Routes,
            "route requests",
            "leave `routes` and `static` out, and reach the app at its port",
        ),
        (
            Capability::Limits,
            "limit what a process uses up",
            "leave `limits` out",
        ),
        (
            Capability::Schedules,
            "start processes at set times",
            "leave it to the machine's cron, or let the process itself wait",
        ),
        (
            Capability::Tasks,
            "run commands around a release",
            "do it at the start of `run`: `run: ./migrate && exec ./server`",
        ),
        (
            Capability::Notify,
            "tell apps about changed files",
            "leave `notify` out, and restart the app by hand when the file has changed",
        ),
        (
            Capability::Rollouts,
            "run a new release beside the old one and switch over",
            "write `rollout: rolling` or `rollout: canary`, which stop the old one first, machine by machine",
        ),
    ];
    ALL.into_iter().map(|(capability, what, remedy)| {
        let lacks = Availability::Lacks {
            why: format!("plumb {} cannot {what} yet", env!("CARGO_PKG_VERSION")),
            remedy: remedy.to_owned(),
        };
        (capability, lacks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_model::Address;

    #[test]
    fn nothing_is_found_nothing_is_made_and_removal_is_done() {
        let address: Address = "m/shop/container/app/0".parse().unwrap();
        let target = Target {
            address: &address,
            spec: None,
            release: None,
        };
        let mut driver = UndrivenDriver;
        assert_eq!(
            driver.observe(&[target], Depth::Full),
            [Ok(Observation::Absent)]
        );
        assert_eq!(
            driver.act(&[(target, Action::Remove)]),
            [Ok(Observation::Absent)]
        );
        let refused = driver
            .act(&[(target, Action::Write)])
            .remove(0)
            .unwrap_err();
        assert_eq!(refused.reason, Reason::LacksCapability);
        assert!(refused.message.contains("container"), "{refused}");
    }
}
