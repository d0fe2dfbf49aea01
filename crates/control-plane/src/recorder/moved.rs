//! Says what was recorded since a plan was made, of all that the plan read: what, from what to what, by whom, when.

use plumb_model::Revision;
use plumb_model::state::StateBody;
use plumb_wire::convert::to_json;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::plan_file::{Moved, ReadSet, Subject};

use super::{Current, Recorder};
use crate::refuse;

/// How many revisions are looked through for who moved something: those before are too long ago to matter.
const LOOKED_THROUGH: u64 = 100;

/// How many things that moved are listed.
const LISTED: usize = 64;

/// How many of them stand in the message itself.
const SAID: usize = 3;

impl Recorder {
    /// Refuses a plan that was made against an earlier revision, and names each thing that moved.
    pub(super) fn moved_since(&self, base: Revision, reads: &ReadSet, now: &Current) -> Refusal {
        let state = &now.recorded.state;
        let mut moved = reads.moved(state);
        for thing in &mut moved {
            if let Subject::Owner { name, kind } = &mut thing.subject {
                let body = now.recorded.releases.get(name);
                *kind = body.map(|body| body.kind.as_str().to_lowercase());
            }
        }
        let total = moved.len();
        moved.truncate(LISTED);
        if let Err(error) = self.attribute(base, state, &mut moved) {
            return error;
        }
        let mut refusal = self.moved(base);
        if let Ok(json) = String::from_utf8(to_json(&moved)) {
            refusal = refusal.with("moved", json).with("total", total);
        }
        if refusal.reason != Reason::BaseMoved || moved.is_empty() {
            return refusal;
        }
        let mut named: Vec<String> = moved.iter().take(SAID).map(Moved::to_string).collect();
        if total > SAID {
            named.push(format!("and {} more", total - SAID));
        }
        refusal.message = format!(
            "the plan was made against revision {base}, and {} is recorded now ({}); plan again, or apply the file with --rebase, which goes on if the plan still comes out the same",
            state.revision,
            named.join("; ")
        );
        refusal
    }

    /// Walks back through the log, and notes of each thing the newest revision that moved it.
    fn attribute(
        &self,
        base: Revision,
        newest: &StateBody,
        moved: &mut [Moved],
    ) -> Result<(), Refusal> {
        let mut after = newest.clone();
        let oldest = base.0.max(newest.revision.0.saturating_sub(LOOKED_THROUGH));
        for number in (oldest..newest.revision.0).rev() {
            if moved.iter().all(|thing| thing.by.is_some()) {
                break;
            }
            let before = self.state_at(Revision(number))?;
            let record = self
                .ledger
                .revision(Revision(number + 1))
                .map_err(|e| refuse::ledger(&e))?;
            let (Some(before), Some(record)) = (before, record) else {
                break;
            };
            for thing in moved.iter_mut().filter(|thing| thing.by.is_none()) {
                if thing.subject.at(&before) != thing.subject.at(&after) {
                    thing.by = Some(record.by.clone());
                    thing.at = Some(record.at);
                    thing.revision = Some(record.revision);
                }
            }
            after = before;
        }
        Ok(())
    }

    fn state_at(&self, revision: Revision) -> Result<Option<StateBody>, Refusal> {
        if revision == Revision(0) {
            return Ok(Some(StateBody::default()));
        }
        let record = self
            .ledger
            .revision(revision)
            .map_err(|e| refuse::ledger(&e))?;
        match record {
            Some(record) => self
                .ledger
                .state(&record.state)
                .map_err(|e| refuse::ledger(&e)),
            None => Ok(None),
        }
    }
}
