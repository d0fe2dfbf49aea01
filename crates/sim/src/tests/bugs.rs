//! Each invariant bites: a planted bug breaks it, and the simulator says so.

use crate::{Bug, Options, run};

/// Some of the first seeds break an invariant of this name, and without the bug none of them breaks any.
fn is_caught(bug: Bug, invariant: &str) {
    let mut seen = Vec::new();
    for seed in 0..24 {
        let options = Options {
            machines: 8,
            ..Options::new(seed)
        };
        let bug = Some(bug);
        let broken = run(Options { bug, ..options }).broken;
        if broken.iter().any(|what| what.contains(invariant)) {
            let without = run(options).broken;
            assert_eq!(without, Vec::<String>::new(), "seed {seed} without the bug");
            return;
        }
        seen.extend(broken);
    }
    panic!("{bug:?} broke nothing called \"{invariant}\", but {seen:#?}");
}

#[test]
fn a_control_plane_that_reuses_a_generation_is_caught() {
    is_caught(Bug::ReusesGeneration, "a generation is given once");
}

#[test]
fn an_agent_that_removes_what_nobody_said_is_caught() {
    is_caught(
        Bug::RemovesUnasked,
        "nothing is destroyed without a tombstone",
    );
}

#[test]
fn a_control_plane_that_leaves_out_tombstones_is_caught() {
    is_caught(Bug::DropsTombstones, "nothing owned is untracked");
}

#[test]
fn a_rollout_that_ignores_its_budget_is_caught() {
    is_caught(Bug::IgnoresBudget, "unavailability stays in budget");
}

#[test]
fn a_control_plane_that_logs_a_secret_is_caught() {
    is_caught(Bug::LogsSecrets, "no secret in any output");
}

#[test]
fn an_agent_that_acknowledges_before_its_disk_has_is_caught() {
    is_caught(Bug::AcknowledgesEarly, "an ack implies persisted");
}

#[test]
fn a_store_that_acknowledges_before_it_keeps_is_caught() {
    is_caught(Bug::StoreForgets, "acknowledged means durable");
}

/// Row 39 of the threats, the mutation: no control plane takes the lead, so that one that stood still goes on writing.
#[test]
fn a_paused_leader_that_nothing_fences_is_caught() {
    is_caught(Bug::Unfenced, "an outcome is never taken back");
}

/// Row 40 of the threats, the mutation.
#[test]
fn timers_by_the_clock_on_the_wall_are_caught() {
    is_caught(Bug::WallTimers, "everything converges");
}

#[test]
fn a_copy_of_a_machine_that_keeps_its_key_is_caught() {
    is_caught(Bug::AnyKey, "everything converges");
}

/// Row 38 of the threats, the mutation: what a link delivers late is taken for new.
#[test]
fn an_assignment_that_comes_late_and_is_taken_is_caught() {
    is_caught(Bug::TakesOlder, "generation never goes back");
}

#[test]
fn an_agent_that_forgets_what_comes_first_is_caught() {
    is_caught(Bug::IgnoresOrder, "what a resource waits for comes first");
}

#[test]
fn an_agent_that_forgets_old_names_is_caught() {
    is_caught(Bug::IgnoresRenames, "a rename restarts nothing");
}

#[test]
fn a_driver_that_says_it_has_written_is_caught() {
    is_caught(Bug::SaysSo, "converged means that it is so");
}

#[test]
fn a_driver_that_writes_where_it_is_to_look_is_caught() {
    is_caught(Bug::WritesWhenItLooks, "the next reconcile does nothing");
}

#[test]
fn a_driver_that_takes_a_strangers_file_is_caught() {
    is_caught(Bug::TakesOver, "what Plumb did not make is kept");
}

#[test]
fn an_agent_that_looks_twice_at_once_is_caught() {
    is_caught(Bug::LooksTwice, "never two at once on one resource");
}

#[test]
fn a_control_plane_that_records_other_than_was_planned_is_caught() {
    is_caught(Bug::RecordsOther, "the next plan is empty");
}
