//! What `apply --output json` tells, and `rollback` and `destroy` with it: JSON lines, format 1, one event each.
//!
//! `planned`, then `recorded`, then `resource`, `health` and `machine` in any number as things happen, and `outcome`
//! last. Fields may be added and never change their meaning; a reader passes over events that it does not know.

use std::collections::BTreeMap;

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{ResourceView, RolloutView, StateWord};
use plumb_model::condition::MachineEvent;
use plumb_model::plan::Plan;
use plumb_model::{Address, ConditionKind, MachineName};
use serde_json::{Value, json};

use crate::out;
use crate::remote::Applied;

/// The version of the events.
const FORMAT: u32 = 1;

fn event(name: &str, mut fields: Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("format".to_owned(), FORMAT.into());
        fields.insert("event".to_owned(), name.into());
    }
    out::json(&fields);
}

/// What is about to be recorded.
pub fn planned(plan: &Plan) {
    event(
        "planned",
        json!({
            "base": plan.base,
            "approval": plan.approval,
            "changes": plan.changes.len(),
            "unchanged": plan.unchanged,
            "blast_radius": plan.blast_radius,
            "consents": plan.consents,
        }),
    );
}

/// What was recorded; none where there was nothing to do.
pub fn recorded(revision: u64, applied: Option<&Applied>) {
    event(
        "recorded",
        json!({
            "revision": revision,
            "releases": applied.map(|a| &a.releases).cloned().unwrap_or_default(),
            "nothing_to_do": applied.is_none_or(|a| a.before),
        }),
    );
}

/// What happened on a machine.
pub fn happened(machine: &MachineName, happened: &MachineEvent) {
    event(
        "machine",
        json!({ "machine": machine, "happened": happened }),
    );
}

/// How far a rollout is.
pub fn rollout(rollout: &RolloutView) {
    event("rollout", json!({ "rollout": rollout }));
}

/// How it ended. The last event.
pub fn outcome(
    outcome: &str,
    revision: u64,
    applied: Option<&Applied>,
    open: &[String],
    view: Option<&WorkspaceView>,
) {
    event(
        "outcome",
        json!({
            "outcome": outcome,
            "revision": revision,
            "releases": applied.map(|a| &a.releases).cloned().unwrap_or_default(),
            "open": open,
            "status": view,
        }),
    );
}

/// Tells of each resource when its state or its health has changed. What was as it should be from the start is told of
/// only once it is not.
#[derive(Default)]
pub struct Changes {
    states: BTreeMap<Address, (StateWord, Option<String>)>,
    health: BTreeMap<Address, bool>,
    /// A status was told before.
    told: bool,
}

impl Changes {
    /// Compares a status with the one before.
    pub fn tell(&mut self, view: &WorkspaceView, machine: Option<&MachineName>) {
        for resource in view.owners.iter().flat_map(|owner| &owner.resources) {
            if machine.is_none_or(|m| resource.address.machine == *m) {
                self.tell_state(resource);
                self.tell_health(resource);
            }
        }
        self.told = true;
    }

    fn tell_state(&mut self, resource: &ResourceView) {
        let now = (resource.state, resource.message.clone());
        let before = self.states.insert(resource.address.clone(), now.clone());
        let settled = matches!(now.0, StateWord::Converged | StateWord::Stopped);
        let news = match &before {
            Some(before) => *before != now,
            None => !settled,
        };
        if news {
            event(
                "resource",
                json!({
                    "address": resource.address,
                    "state": resource.state,
                    "message": resource.message,
                    "generation": resource.generation,
                }),
            );
        }
    }

    fn tell_health(&mut self, resource: &ResourceView) {
        let Some(healthy) = resource.condition(ConditionKind::Healthy) else {
            return;
        };
        let before = self.health.insert(resource.address.clone(), healthy.status);
        let first = !self.told && healthy.status;
        if before != Some(healthy.status) && !first {
            event(
                "health",
                json!({
                    "address": resource.address,
                    "healthy": healthy.status,
                    "message": healthy.message,
                    "since": healthy.since,
                }),
            );
        }
    }
}
