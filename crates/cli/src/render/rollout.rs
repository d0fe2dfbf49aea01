//! Rollouts and applies on a terminal.

use plumb_wire::v1;

use crate::out::Style;
use crate::render::table::table;

fn phase(phase: &str, style: &Style) -> String {
    match phase {
        "done" => style.good(phase),
        "running" | "paused" | "stalled" => style.change(phase),
        _ => style.bad(phase),
    }
}

/// Rollouts, one line for each and what there is to say of it below.
pub fn list(rollouts: &[v1::Rollout], style: &Style) -> String {
    if rollouts.is_empty() {
        return "No rollout: no app that is recorded says `rollout` and has a release.\n"
            .to_owned();
    }
    let mut text = String::new();
    let rows: Vec<Vec<String>> = rollouts
        .iter()
        .map(|rollout| {
            vec![
                style.bold(&rollout.owner),
                format!("release {}", rollout.release),
                rollout.strategy.clone(),
                phase(&rollout.phase, style),
                format!("wave {}", rollout.waves),
                format!("{}/{} moved", rollout.moved, rollout.instances),
                format!("{} healthy", rollout.healthy),
            ]
        })
        .collect();
    for (rollout, line) in rollouts.iter().zip(table("", &rows).lines()) {
        text.push_str(line);
        text.push('\n');
        for note in notes(rollout) {
            text.push_str(&format!("  {}\n", plumb_model::escape::line(&note)));
        }
    }
    text
}

fn notes(rollout: &v1::Rollout) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(release) = rollout.reverts {
        notes.push(format!("takes back release {release}, which had failed"));
    }
    if !rollout.why.is_empty() {
        notes.push(rollout.why.clone());
    }
    if !rollout.waits.is_empty() && !rollout.why.contains(&rollout.waits) {
        notes.push(format!("waits: {}", rollout.waits));
    }
    if !rollout.behind.is_empty() {
        const NAMED: usize = 8;
        let mut named: Vec<String> = rollout.behind.iter().take(NAMED).cloned().collect();
        if rollout.behind.len() > NAMED {
            named.push(format!("and {} more", rollout.behind.len() - NAMED));
        }
        notes.push(format!("still to move: {}", named.join(", ")));
    }
    let next = match rollout.phase.as_str() {
        "paused" => Some(format!(
            "go on with `plumb rollout resume {}`",
            rollout.owner
        )),
        "failed" => Some(format!(
            "try it again with `plumb rollout resume {0}`, or go back with `plumb rollback {0}`",
            rollout.owner
        )),
        _ => None,
    };
    notes.extend(next);
    notes
}

/// What became of an apply.
pub fn apply(apply: &v1::Apply, style: &Style) -> String {
    let mut text = format!(
        "Apply {} by {} at {}: {}\n",
        apply.id,
        plumb_model::escape::line(&apply.by),
        apply.at,
        phase(&apply.state, style)
    );
    let at_once = apply.releases.iter().filter(|r| r.rollout.is_none());
    let rows: Vec<Vec<String>> = at_once
        .map(|release| {
            let back = release.reverted_by;
            vec![
                style.bold(&release.owner),
                format!("release {}", release.release),
                release.outcome.clone(),
                back.map(|by| format!("taken back by release {by}"))
                    .unwrap_or_default(),
            ]
        })
        .collect();
    text.push_str(&table("", &rows));
    let rollouts: Vec<v1::Rollout> = apply
        .releases
        .iter()
        .filter_map(|release| release.rollout.clone())
        .collect();
    if !rollouts.is_empty() {
        text.push_str(&list(&rollouts, style));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Style {
        Style {
            color: false,
            live: false,
        }
    }

    fn rollout() -> v1::Rollout {
        v1::Rollout {
            owner: "web".into(),
            release: 3,
            apply: 12,
            strategy: "rolling".into(),
            phase: "running".into(),
            waits: "web-2 has to prove itself".into(),
            waves: 2,
            instances: 5,
            moved: 2,
            healthy: 1,
            behind: vec!["web-3".into(), "web-4".into(), "web-5".into()],
            ..v1::Rollout::default()
        }
    }

    #[test]
    fn a_rollout_says_how_far_it_is_and_what_comes_next() {
        let plain = plain();
        let mut failed = rollout();
        failed.owner = "worker".into();
        failed.phase = "failed".into();
        failed.why = "too many have failed: on web-1 process/app/0: it ended".into();
        failed.waits.clear();
        insta::assert_snapshot!(list(&[rollout(), failed], &plain), @r"
        web     release 3  rolling  running  wave 2  2/5 moved  1 healthy
          waits: web-2 has to prove itself
          still to move: web-3, web-4, web-5
        worker  release 3  rolling  failed   wave 2  2/5 moved  1 healthy
          too many have failed: on web-1 process/app/0: it ended
          still to move: web-3, web-4, web-5
          try it again with `plumb rollout resume worker`, or go back with `plumb rollback worker`
        ");
    }

    #[test]
    fn an_apply_says_what_became_of_each_release() {
        let apply_12 = v1::Apply {
            id: 12,
            by: "ann".into(),
            at: "2026-11-21T18:00:00Z".into(),
            state: "failed".into(),
            releases: vec![
                v1::AppliedRelease {
                    owner: "base".into(),
                    release: 4,
                    outcome: "converged".into(),
                    ..v1::AppliedRelease::default()
                },
                v1::AppliedRelease {
                    owner: "web".into(),
                    release: 2,
                    outcome: "failed".into(),
                    reverted_by: Some(3),
                    ..v1::AppliedRelease::default()
                },
            ],
        };
        insta::assert_snapshot!(apply(&apply_12, &plain()), @r"
        Apply 12 by ann at 2026-11-21T18:00:00Z: failed
        base  release 4  converged
        web   release 2  failed     taken back by release 3
        ");
    }
}
