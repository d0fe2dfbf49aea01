//! The fence: whether an agent may take an assignment that it is offered.
//!
//! Pure, and the last line of defence: whatever the control plane believes of itself, an agent that asks here obeys
//! one history, takes only what is its own, and never goes back. The agent's session calls it, for each assignment,
//! before anything is written.

use plumb_model::{Assignment, Generation, Hash, Lineage, MachineName, WorkspaceName};

use crate::protocol::{Refusal, RefusalKind};

/// Who the agent is, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// Its machine.
    pub machine: MachineName,
    /// Whose history it obeys; none until it has held an assignment, unless its enrolment told it.
    pub lineage: Option<Lineage>,
}

/// What is offered.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// The generation that it claims.
    pub generation: Generation,
    /// What it says.
    pub assignment: &'a Assignment,
    /// That it is empty is meant.
    pub confirm_empty: bool,
}

/// What to do with an assignment that is not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is new: take it.
    Take,
    /// It is what is held: say so again.
    Same,
}

/// Decides. `newest` is the newest assignment that the agent has accepted, whether or not it is on the disk yet: a
/// write that has begun may be on the disk already, so nothing below it may be taken any more.
pub fn fence(
    identity: &Identity,
    newest: Option<(Generation, Hash)>,
    offer: Offer<'_>,
) -> Result<Verdict, Refusal> {
    let refuse = |kind, message: String| {
        Err(Refusal {
            generation: offer.generation,
            kind,
            message,
        })
    };
    let header = offer.assignment.header();
    if let Some(lineage) = &identity.lineage
        && *lineage != header.lineage
    {
        return refuse(
            RefusalKind::OtherLineage,
            format!(
                "this agent obeys lineage {lineage}, the assignment is of {}",
                header.lineage
            ),
        );
    }
    if (&header.workspace, &header.machine) != (&identity.workspace, &identity.machine) {
        return refuse(
            RefusalKind::OtherMachine,
            format!(
                "this agent is machine {} of workspace {}, the assignment is for {} of {}",
                identity.machine, identity.workspace, header.machine, header.workspace
            ),
        );
    }
    let (held, hash) = newest.map_or((Generation(0), None), |(g, h)| (g, Some(h)));
    if offer.generation < held || offer.generation == Generation(0) {
        return refuse(
            RefusalKind::LowerGeneration,
            format!(
                "generation {held} is held, {} was offered",
                offer.generation
            ),
        );
    }
    if offer.generation == held {
        if hash == Some(offer.assignment.hash()) {
            return Ok(Verdict::Same);
        }
        return refuse(
            RefusalKind::OtherContent,
            format!("generation {held} is held with other content"),
        );
    }
    if offer.assignment.is_empty() && !offer.confirm_empty {
        return refuse(
            RefusalKind::Empty,
            "the assignment is empty, and nothing confirms that it should be".to_owned(),
        );
    }
    Ok(Verdict::Take)
}
