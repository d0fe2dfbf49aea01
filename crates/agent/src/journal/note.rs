//! What of a resource's status is news for the journal. It decides nothing: events, which the reconciler emits, are noted
//! as they are, and this finds what it says of conditions and exits in statuses alone.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::journal::Happening;
use plumb_model::{Address, ConditionKind, ResourceStatus, Timestamp};

/// The conditions whose coming and going is noted. Of converging and health the reconciler's events tell, with more words.
const NOTED: [ConditionKind; 3] = [
    ConditionKind::Drifted,
    ConditionKind::Blocked,
    ConditionKind::Failed,
];

/// What was last noted of each resource of which there is something to remember.
#[derive(Debug, Default)]
pub struct Noticed {
    set: BTreeMap<Address, BTreeSet<ConditionKind>>,
    exits: BTreeMap<Address, Timestamp>,
    /// Exits before this were noted by an agent before this one.
    since: Option<Timestamp>,
}

impl Noticed {
    /// Begins after an agent that noted something at this time for the last time.
    pub fn after(since: Option<Timestamp>) -> Self {
        Self {
            since,
            ..Self::default()
        }
    }

    /// What is new in a status, each with its time; none: now.
    pub fn news(&mut self, status: &ResourceStatus) -> Vec<(Option<Timestamp>, Happening)> {
        let mut news = Vec::new();
        let address = &status.address;
        if let Some(exit) = status.process.as_ref().and_then(|p| p.last_exit.as_ref())
            && self.exits.get(address) != Some(&exit.at)
        {
            self.exits.insert(address.clone(), exit.at);
            if self.since.is_none_or(|since| exit.at > since) {
                let what = Happening::ProcessEnded {
                    address: address.clone(),
                    status: exit.status,
                };
                news.push((Some(exit.at), what));
            }
        }
        for kind in NOTED {
            let condition = status.condition(kind).filter(|c| c.status);
            let was = self.set.get(address).is_some_and(|set| set.contains(&kind));
            if condition.is_some() == was {
                continue;
            }
            let set = self.set.entry(address.clone()).or_default();
            if condition.is_some() {
                set.insert(kind);
            } else {
                set.remove(&kind);
            }
            let what = Happening::Condition {
                address: address.clone(),
                condition: kind,
                set: condition.is_some(),
                reason: condition.map(|c| c.reason),
                message: condition.map(|c| c.message.clone()).unwrap_or_default(),
            };
            news.push((None, what));
        }
        if status.gone {
            self.exits.remove(address);
            self.set.remove(address);
        } else {
            self.set.retain(|_, kinds| !kinds.is_empty());
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use plumb_model::condition::ProcessStatus;
    use plumb_model::observation::{Exit, ExitStatus};
    use plumb_model::{Condition, Generation, Reason};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(kinds: &[(ConditionKind, bool)], exit: Option<i64>) -> ResourceStatus {
        ResourceStatus {
            address: "m/web/process/app/0".parse().unwrap(),
            generation: Generation(1),
            conditions: kinds
                .iter()
                .map(|(kind, status)| Condition {
                    kind: *kind,
                    status: *status,
                    reason: Reason::Io,
                    message: "m".into(),
                    since: at(0),
                })
                .collect(),
            gone: false,
            process: Some(ProcessStatus {
                last_exit: exit.map(|second| Exit {
                    status: ExitStatus::Signal(9),
                    at: at(second),
                }),
                ..ProcessStatus::default()
            }),
            found: None,
        }
    }

    /// Mutation: note every condition that is set, whether it was before or not.
    #[test]
    fn a_condition_is_noted_when_it_comes_and_when_it_goes_and_an_exit_once() {
        use ConditionKind::{Blocked, Converged, Failed, Healthy};
        let mut noticed = Noticed::after(Some(at(10)));
        let mut words = |status: &ResourceStatus| {
            let news = noticed.news(status).into_iter();
            news.map(|(at, what)| {
                format!(
                    "{}{}",
                    what.words(),
                    if at.is_some() { " then" } else { "" }
                )
            })
            .collect::<Vec<_>>()
            .join(", ")
        };
        assert_eq!(words(&status(&[(Converged, true)], Some(10))), "");
        assert_eq!(
            words(&status(&[(Blocked, true), (Healthy, false)], Some(11))),
            "was killed by signal 9 then, Blocked: m"
        );
        assert_eq!(words(&status(&[(Blocked, true)], Some(11))), "");
        assert_eq!(
            words(&status(&[(Failed, true), (Blocked, false)], Some(11))),
            "no longer Blocked, Failed: m"
        );
        assert_eq!(words(&status(&[], None)), "no longer Failed");
    }
}
