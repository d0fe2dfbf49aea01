//! Going on with machines that hold more than is recorded, as after an older backup was restored.
//!
//! What is recorded of each gets a generation above the one that its agent holds, with the same content, in one revision
//! of its own; then the agent takes it like any other. Nothing is looked at of what the agent held: whatever it has beyond
//! the record stays on the machine, unless the record has it removed.

use std::collections::BTreeMap;

use plumb_model::Generation;
use plumb_model::state::{Next, RevisionKind};

use super::*;

/// A machine that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// What its agent held.
    pub held: Generation,
    /// What it is to hold now.
    pub generation: Generation,
}

impl Recorder {
    /// Records a generation above what each of these machines holds. Runs to its end even if the caller goes away.
    pub async fn recover(
        self: &Arc<Self>,
        by: String,
        held: BTreeMap<MachineName, Generation>,
    ) -> Result<(Revision, BTreeMap<MachineName, Recovered>), Refusal> {
        let turn = self.applying.clone().lock_owned().await;
        let this = self.clone();
        tokio::spawn(async move {
            let done = this.recover_in_turn(by, held).await;
            drop(turn);
            done
        })
        .await
        .map_err(|e| refuse::panicked(&e))?
    }

    async fn recover_in_turn(
        self: Arc<Self>,
        by: String,
        held: BTreeMap<MachineName, Generation>,
    ) -> Result<(Revision, BTreeMap<MachineName, Recovered>), Refusal> {
        let this = self.clone();
        let before = self.current();
        let (current, recording, recovered) = refuse::blocking(move || {
            let (next, recovered) = next(&before.counted().state, &held);
            this.record_recovery(by, &before, next, recovered)
        })
        .await?;
        let revision = current.recorded.state.revision;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
        self.gateway.recorded(recording).await;
        for machine in recovered.keys() {
            self.gateway.recovered(machine.clone()).await;
        }
        Ok((revision, recovered))
    }

    fn record_recovery(
        &self,
        by: String,
        before: &Current,
        mut next: Next,
        recovered: BTreeMap<MachineName, Recovered>,
    ) -> Result<(Current, Recording, BTreeMap<MachineName, Recovered>), Refusal> {
        let rollouts = before.rollouts.raised(&mut next);
        let (mut current, _) = after(before, &next)?;
        current.rollouts = Arc::new(rollouts);
        let state = Hash::of(&next.state.bytes());
        let record = RevisionRecord {
            revision: next.state.revision,
            at: (self.now)(),
            by,
            commit: None,
            kind: RevisionKind::Recover {
                machines: recovered
                    .iter()
                    .map(|(name, recovered)| (name.clone(), recovered.generation))
                    .collect(),
            },
            // Nothing was planned; what was approved is the state itself.
            approval: state,
            state,
            released: BTreeMap::new(),
            allowed: Vec::new(),
            renamed: BTreeMap::new(),
        };
        let recording = current.recording()?;
        self.ledger
            .apply(before.recorded.state.revision, &next, &record)
            .map_err(|e| refuse::apply(&e))?;
        tracing::info!(revision = %next.state.revision, by = %record.by, "recovered");
        Ok((current, recording, recovered))
    }
}

/// The state in which each of these machines has a generation above the one that it holds.
fn next(
    state: &plumb_model::state::StateBody,
    held: &BTreeMap<MachineName, Generation>,
) -> (Next, BTreeMap<MachineName, Recovered>) {
    let mut state = state.clone();
    state.revision = state.revision.next();
    let mut recovered = BTreeMap::new();
    for (name, machine) in &mut state.machines {
        let Some(held) = held.get(name) else { continue };
        machine.generation = (*held).max(machine.generation).next();
        let done = Recovered {
            held: *held,
            generation: machine.generation,
        };
        recovered.insert(name.clone(), done);
    }
    let next = Next {
        moved: recovered
            .iter()
            .map(|(name, recovered)| (name.clone(), recovered.generation))
            .collect(),
        state,
        bodies: BTreeMap::new(),
        released: BTreeMap::new(),
    };
    (next, recovered)
}
