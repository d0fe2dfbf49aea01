//! The rollouts of an apply while it is followed: what they come to, and lines that say how far they are.

use std::collections::BTreeMap;
use std::time::Instant;

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::RolloutView;
use plumb_model::rollout::Phase;
use plumb_model::{OwnerName, ReleaseNumber};

use crate::follow::{Ended, Follow, Tell};
use crate::out;

/// The rollouts that one apply has begun, as they were last seen.
#[derive(Default)]
pub struct Rolling {
    mine: BTreeMap<OwnerName, (ReleaseNumber, String)>,
    said: BTreeMap<OwnerName, String>,
}

impl Rolling {
    /// Looks at a status. None: no rollout of this apply is under way, or ended otherwise than well; `Some(None)`: one is
    /// under way. Every step of one gives it the whole time again.
    pub fn look(
        &mut self,
        view: &WorkspaceView,
        what: &Follow,
        until: &mut Instant,
    ) -> Option<Option<Ended>> {
        let all: BTreeMap<&OwnerName, &RolloutView> = view
            .owners
            .iter()
            .filter_map(|owner| Some((&owner.name, owner.rollout.as_ref()?)))
            .collect();
        for (owner, rollout) in &all {
            if rollout.apply.0 == what.revision {
                let why = rollout.why.clone().unwrap_or_default();
                self.mine.insert((*owner).clone(), (rollout.release, why));
                if self.say(rollout, what.tell) {
                    *until = Instant::now() + what.timeout;
                }
            }
        }
        let (mut failed, mut stalled, mut goes_on) = (Vec::new(), Vec::new(), false);
        for (owner, (release, why)) in &self.mine {
            let why = if why.is_empty() { "" } else { why.as_str() };
            match all.get(owner) {
                Some(now) if now.release == *release => match now.phase {
                    Phase::Done => {}
                    Phase::Failed => {
                        failed.push(format!("{owner}: release {release} failed: {why}"))
                    }
                    Phase::Stalled => stalled.push(format!("{owner}: {why}")),
                    Phase::Running | Phase::Paused | Phase::Reverting => goes_on = true,
                },
                // Why is told along: it may be over before anybody has seen it fail.
                Some(now) if now.reverts == Some(*release) => failed.push(format!(
                    "{owner}: release {release} failed and is taken back by release {}: {}",
                    now.release,
                    now.reverts_why.as_deref().unwrap_or(why)
                )),
                _ => failed.push(format!(
                    "{owner}: release {release} was superseded or taken back: {why}"
                )),
            }
        }
        if !failed.is_empty() {
            return Some(Some(Ended::Failed(failed)));
        }
        if goes_on {
            return Some(None);
        }
        (!stalled.is_empty()).then_some(Some(Ended::Waiting(stalled)))
    }

    /// Says how far a rollout is, if that is news.
    fn say(&mut self, rollout: &RolloutView, tell: Tell) -> bool {
        let line = line(rollout);
        let news = self.said.get(&rollout.owner) != Some(&line);
        if news {
            match tell {
                Tell::Lines => out::line(&format!("  {}", plumb_model::escape::line(&line))),
                Tell::Events => crate::events::rollout(rollout),
                Tell::Nothing => {}
            }
            self.said.insert(rollout.owner.clone(), line);
        }
        news
    }
}

/// How far a rollout is, in one line.
pub fn line(rollout: &RolloutView) -> String {
    let RolloutView {
        owner,
        release,
        phase,
        waves,
        instances,
        moved,
        healthy,
        ..
    } = rollout;
    let mut line = format!(
        "{owner:<20} {}  wave {waves}  {moved}/{instances} at release {release}, {healthy} healthy",
        phase.as_str()
    );
    if let Some(why) = rollout.why.as_ref().or(rollout.waits.as_ref()) {
        line.push_str(&format!("  {why}"));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use plumb_dispatch::view::{Counts, OwnerView, StateWord};
    use plumb_model::state::{Outcome, RolloutStrategy};
    use plumb_model::{Revision, Timestamp};

    fn rollout(release: u64, apply: u64, phase: Phase) -> RolloutView {
        RolloutView {
            owner: OwnerName::new("web").unwrap(),
            release: ReleaseNumber(release),
            apply: Revision(apply),
            strategy: RolloutStrategy::Rolling,
            batch: 1,
            max_unavailable: 1,
            min_healthy_ms: 0,
            deadline_ms: 1000,
            auto_revert: true,
            phase,
            why: (phase != Phase::Running).then(|| "m1 fails".to_owned()),
            waits: None,
            waves: 1,
            waited_ms: 0,
            instances: 3,
            moved: 1,
            healthy: 0,
            behind: Vec::new(),
            reverts: None,
            reverts_why: None,
            started: Timestamp::UNIX_EPOCH,
            changed: Timestamp::UNIX_EPOCH,
        }
    }

    fn view(rollout: RolloutView) -> WorkspaceView {
        WorkspaceView {
            format: 1,
            revision: Revision(9),
            machines: Vec::new(),
            owners: vec![OwnerView {
                name: rollout.owner.clone(),
                kind: None,
                release: rollout.release,
                outcome: Outcome::Converging,
                state: StateWord::Converging,
                message: None,
                urls: Vec::new(),
                counts: Counts::default(),
                resources: Vec::new(),
                rollout: Some(rollout),
            }],
            dropped_statuses: 0,
            dropped_events: 0,
        }
    }

    fn follow() -> Follow {
        Follow {
            revision: 7,
            machine: None,
            timeout: Duration::from_secs(60),
            tell: Tell::Nothing,
        }
    }

    fn look(seen: &[RolloutView]) -> Option<Option<Ended>> {
        let mut rolling = Rolling::default();
        let mut until = Instant::now();
        let mut last = None;
        for rollout in seen {
            last = rolling.look(&view(rollout.clone()), &follow(), &mut until);
        }
        last
    }

    #[test]
    fn an_apply_ends_as_its_rollouts_do() {
        assert_eq!(look(&[rollout(2, 7, Phase::Running)]), Some(None));
        assert_eq!(look(&[rollout(2, 7, Phase::Reverting)]), Some(None));
        assert_eq!(look(&[rollout(2, 7, Phase::Done)]), None);
        assert_eq!(
            look(&[rollout(2, 6, Phase::Running)]),
            None,
            "another apply's"
        );
        let stalled = look(&[rollout(2, 7, Phase::Stalled)]);
        assert_eq!(
            stalled,
            Some(Some(Ended::Waiting(vec!["web: m1 fails".into()])))
        );
        let mut back = rollout(3, 8, Phase::Running);
        back.reverts = Some(ReleaseNumber(2));
        back.reverts_why = Some("m1 fails".to_owned());
        // Mutation: tell only what was seen while it failed.
        let mut seen = rollout(2, 7, Phase::Running);
        seen.why = None;
        let unseen = look(&[seen, back.clone()]);
        assert_eq!(
            unseen,
            Some(Some(Ended::Failed(vec![
                "web: release 2 failed and is taken back by release 3: m1 fails".into()
            ])))
        );
        let Some(Some(Ended::Failed(failed))) = look(&[rollout(2, 7, Phase::Reverting), back])
        else {
            panic!("what was taken back has failed");
        };
        assert_eq!(
            failed,
            ["web: release 2 failed and is taken back by release 3: m1 fails"]
        );
        let Some(Some(Ended::Failed(_))) = look(&[rollout(2, 7, Phase::Failed)]) else {
            panic!("what has failed has failed");
        };
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let mut running = rollout(2, 7, Phase::Running);
        running.waits = Some("m1 has to prove itself".into());
        insta::assert_snapshot!(
            line(&running),
            @"web                  running  wave 1  1/3 at release 2, 0 healthy  m1 has to prove itself"
        );
    }
}
