//! What one resource's status amounts to: done, under way, or failed.
//!
//! Pure. The fleet's outcomes and its view both ask here, so that they never disagree.

use plumb_model::{
    Condition, ConditionKind, Entry, Generation, Reason, ResourceSpec, ResourceStatus, RunState,
};

/// How far one resource or tombstone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress<'a> {
    /// As the generation in question says.
    Done,
    /// Done but for drift that the blueprint says to leave, or that keeps coming back.
    Drifted(&'a Condition),
    /// Converged, but its health check fails.
    Unhealthy(&'a Condition),
    /// Not there yet; the condition says why, if the agent has said anything under that generation.
    Pending(Option<&'a Condition>),
    /// It failed or is blocked, and will stay so until somebody changes something.
    Failed(&'a Condition),
}

/// Whether a reason is a state of passage: the agent goes on by itself, and nobody needs to act.
///
/// Everything else in a `Failed` or `Blocked` condition fails the release. The agent keeps trying all the same, and a
/// release that converges later is converged.
#[must_use]
pub fn is_passing(reason: Reason) -> bool {
    match reason {
        Reason::AsDesired
        | Reason::Working
        | Reason::WaitsFor
        | Reason::BackingOff
        | Reason::ReportOnly
        | Reason::Stopped
        | Reason::Exited
        | Reason::ProbePassed => true,
        Reason::Flapping
        | Reason::PortTaken
        | Reason::CommandNotFound
        | Reason::ExitedAtOnce
        | Reason::ProbeFailed
        | Reason::UnknownUser
        | Reason::PermissionDenied
        | Reason::DiskFull
        | Reason::ReadOnly
        | Reason::SymlinkInPath
        | Reason::BadPath
        | Reason::NotOurs
        | Reason::ContentMissing
        | Reason::BadContent
        | Reason::LacksCapability
        | Reason::Io
        | Reason::Unknown => false,
    }
}

/// Judges a status that was observed at `least` or later; an older one says nothing.
#[must_use]
pub fn judge<'a>(
    entry: &Entry,
    status: Option<&'a ResourceStatus>,
    least: Generation,
) -> Progress<'a> {
    let least = match entry {
        Entry::Tombstone(tombstone) => tombstone.since,
        Entry::Resource(_) => least,
    };
    let Some(status) = status.filter(|s| s.generation >= least) else {
        return Progress::Pending(None);
    };
    let failure = [ConditionKind::Failed, ConditionKind::Blocked]
        .into_iter()
        .filter_map(|kind| status.condition(kind))
        .find(|c| c.status && !is_passing(c.reason));
    let converged = status.condition(ConditionKind::Converged);
    if let (Entry::Resource(_), Some(failure)) = (entry, failure) {
        return Progress::Failed(failure);
    }
    match entry {
        Entry::Tombstone(_) if status.gone => Progress::Done,
        Entry::Tombstone(_) => failure.map_or(Progress::Pending(converged), Progress::Failed),
        Entry::Resource(_) if status.gone || !status.is(ConditionKind::Converged) => {
            Progress::Pending(converged)
        }
        Entry::Resource(resource) => {
            let health = status.condition(ConditionKind::Healthy);
            // A process that ended well and is to stay so has a check in its spec and no health.
            // So has one that stands still since somebody has stopped it.
            let ended =
                converged.is_some_and(|c| matches!(c.reason, Reason::Exited | Reason::Stopped));
            let wants_health = matches!(&resource.spec, ResourceSpec::Process(p)
                if p.health.is_some() && p.state == RunState::Running && !ended);
            match health {
                Some(c) if !c.status && c.reason == Reason::ProbeFailed => Progress::Unhealthy(c),
                Some(c) if !c.status => Progress::Pending(Some(c)),
                None if wants_health => Progress::Pending(converged),
                _ => status
                    .condition(ConditionKind::Drifted)
                    .filter(|c| c.status)
                    .map_or(Progress::Done, Progress::Drifted),
            }
        }
    }
}
