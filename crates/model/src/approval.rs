//! What approves exactly one plan: a hash over all that it does, and over nothing that may change without that.
//!
//! It covers the workspace, why the plan is made, machines, owners, changes with every attribute, order, resolutions, blast
//! radius and consents. It leaves out what only says where the plan comes from or what else was seen: base revision,
//! commit, origins, reasons, drift, what waits. The planner computes it, the control plane compares it.
//!
//! The changes are nearly all of a plan. They are written as bytes in which each part says its length, so that no two
//! plans give the same bytes, and hashed in groups whose size is fixed, so that several threads can share the work and
//! their number makes no difference.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::address::Address;
use crate::coverage::Cost;
use crate::hash::Hash;
use crate::name::{OwnerName, WorkspaceName};
use crate::parallel;
use crate::plan::{
    AttributeChange, BlastRadius, Change, ChangeAction, Felt, MachineChange, NeedsConsent, Plan,
    Resolution,
};
use crate::state::{OwnerKind, ResolutionKey, RevisionKind};

/// So many changes are hashed together. A part of the format: another number gives other hashes.
const GROUP: usize = 256;

/// All but the changes and their order, as JSON.
#[derive(Serialize)]
struct Head<'a> {
    format: u32,
    workspace: &'a Option<WorkspaceName>,
    kind: &'a RevisionKind,
    machines: &'a [MachineChange],
    owners: Vec<Owner<'a>>,
    resolutions: &'a BTreeMap<ResolutionKey, Resolution>,
    blast_radius: &'a BlastRadius,
    consents: &'a [NeedsConsent],
}

#[derive(Serialize)]
struct Owner<'a> {
    owner: &'a OwnerName,
    kind: OwnerKind,
    action: ChangeAction,
    renamed_from: &'a Option<OwnerName>,
    felt: Felt,
    downtime: &'a BTreeSet<String>,
    data_loss: &'a BTreeSet<Address>,
}

/// The approval hash of a plan's content as it stands.
pub(crate) fn hash(plan: &Plan) -> Hash {
    let owners = plan
        .owners
        .iter()
        .map(|o| Owner {
            owner: &o.owner,
            kind: o.kind,
            action: o.action,
            renamed_from: &o.renamed_from,
            felt: o.felt,
            downtime: &o.downtime,
            data_loss: &o.data_loss,
        })
        .collect();
    let head = Head {
        format: plan.format,
        workspace: &plan.workspace,
        kind: &plan.kind,
        machines: &plan.machines,
        owners,
        resolutions: &plan.resolutions,
        blast_radius: &plan.blast_radius,
        consents: &plan.consents,
    };
    let groups: Vec<&[Change]> = plan.changes.chunks(GROUP).collect();
    let digests = parallel::each(groups, plan.changes.len() * parallel::A_RESOURCE, |group| {
        let mut bytes = Bytes::default();
        group.iter().for_each(|change| bytes.change(change));
        Hash::of(&bytes.0)
    });
    let mut order = Bytes::default();
    for (first, second) in &plan.order {
        order.address(first);
        order.address(second);
    }
    let mut all = Bytes::default();
    all.bytes(Hash::of_json(&head).0.as_slice());
    all.number(plan.changes.len() as u64);
    for digest in digests {
        all.0.extend_from_slice(&digest.0);
    }
    all.number(plan.order.len() as u64);
    all.0.extend_from_slice(&Hash::of(&order.0).0);
    Hash::of(&all.0)
}

/// Bytes from which what they were written of could be read again.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn address(&mut self, address: &Address) {
        let Address {
            machine,
            owner,
            kind,
            name,
        } = address;
        self.text(machine.as_str());
        self.text(owner.as_str());
        self.text(kind.as_str());
        self.text(name);
    }

    /// What is left out here is outside the approval; a new field has to be told apart to compile.
    fn change(&mut self, change: &Change) {
        let Change {
            address,
            action,
            reasons: _,
            attributes,
            blocked_by: _,
            cost: _,
            felt: _,
            downtime,
            origin: _,
        } = change;
        self.address(address);
        self.0.push(match action {
            ChangeAction::Create => 1,
            ChangeAction::Update => 2,
            ChangeAction::ReplaceCreateFirst => 3,
            ChangeAction::ReplaceDeleteFirst => 4,
            ChangeAction::Delete => 5,
            ChangeAction::Forget => 6,
            ChangeAction::Adopt => 7,
            ChangeAction::NoOp => 8,
        });
        self.0.push(u8::from(downtime.is_some()));
        self.text(downtime.as_deref().unwrap_or_default());
        self.number(attributes.len() as u64);
        for attribute in attributes {
            self.attribute(attribute);
        }
    }

    fn attribute(&mut self, attribute: &AttributeChange) {
        let AttributeChange {
            path,
            before,
            after,
            sensitive,
            digest,
            unknown,
            cost,
        } = attribute;
        self.text(path);
        self.optional(before.as_ref());
        self.optional(after.as_ref());
        self.0.push(u8::from(*sensitive));
        self.0.push(u8::from(digest.is_some()));
        self.0.extend_from_slice(&digest.unwrap_or(Hash([0; 32])).0);
        self.0.push(u8::from(*unknown));
        self.0.push(match cost {
            Cost::InPlace => 1,
            Cost::Reload => 2,
            Cost::Restart => 3,
            Cost::Replace => 4,
        });
    }

    fn optional(&mut self, value: Option<&Value>) {
        match value {
            None => self.0.push(0),
            Some(value) => self.value(value),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.0.push(1),
            Value::Bool(is) => self.0.extend_from_slice(&[2, u8::from(*is)]),
            Value::Number(number) => {
                self.0.push(3);
                self.text(&number.to_string());
            }
            Value::String(text) => {
                self.0.push(4);
                self.text(text);
            }
            Value::Array(all) => {
                self.0.push(5);
                self.number(all.len() as u64);
                all.iter().for_each(|value| self.value(value));
            }
            Value::Object(all) => {
                self.0.push(6);
                self.number(all.len() as u64);
                for (key, value) in all {
                    self.text(key);
                    self.value(value);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Revision;
    use serde_json::json;

    fn attribute(path: &str, before: Option<Value>, after: Option<Value>) -> AttributeChange {
        AttributeChange {
            path: path.to_owned(),
            before,
            after,
            sensitive: false,
            digest: None,
            unknown: false,
            cost: Cost::InPlace,
        }
    }

    fn change(name: &str, attributes: Vec<AttributeChange>) -> Change {
        Change {
            address: format!("m/o/file/{name}").parse().unwrap(),
            action: ChangeAction::Create,
            reasons: Vec::new(),
            attributes,
            blocked_by: Vec::new(),
            cost: None,
            felt: Felt::Nothing,
            downtime: None,
            origin: None,
        }
    }

    fn plan(changes: Vec<Change>) -> Plan {
        Plan {
            format: crate::plan::FORMAT,
            workspace: None,
            kind: RevisionKind::Apply,
            base: Revision(0),
            commit: None,
            machines: Vec::new(),
            owners: Vec::new(),
            changes,
            order: Vec::new(),
            targets: BTreeSet::new(),
            resolutions: BTreeMap::new(),
            blast_radius: BlastRadius::default(),
            monthly_cost: crate::plan::MonthlyCost::default(),
            drift: Vec::new(),
            not_done: Vec::new(),
            lacks: Vec::new(),
            unset_secrets: Vec::new(),
            consents: Vec::new(),
            unchanged: 0,
            approval: Hash([0; 32]),
        }
    }

    /// Mutations: leave out any of the writes of `Bytes::attribute`, `Bytes::value` or the lengths.
    #[test]
    fn everything_that_is_done_moves_it() {
        let one = || attribute("a", Some(json!("x")), Some(json!({"k": [1, null]})));
        let with = |edit: &dyn Fn(&mut AttributeChange)| {
            let mut attribute = one();
            edit(&mut attribute);
            plan(vec![change("f", vec![attribute])])
        };
        let edited = |edit: &dyn Fn(&mut Plan)| {
            let mut plan = plan(vec![change("f", vec![one()])]);
            edit(&mut plan);
            plan
        };
        let address = |name: &str| change(name, Vec::new()).address;
        let all = [
            plan(Vec::new()),
            plan(vec![change("f", vec![one()])]),
            plan(vec![change("g", vec![one()])]),
            plan(vec![change("f", vec![one(), one()])]),
            plan(vec![change("f", vec![one()]), change("g", vec![])]),
            plan(vec![change("f", vec![]), change("g", vec![one()])]),
            with(&|a| a.path = "b".to_owned()),
            with(&|a| a.before = None),
            with(&|a| a.before = Some(Value::Null)),
            with(&|a| a.before = Some(json!("xy"))),
            with(&|a| std::mem::swap(&mut a.before, &mut a.after)),
            with(&|a| a.after = Some(json!({"k": [1, false]}))),
            with(&|a| a.after = Some(json!({"k": [1], "l": null}))),
            with(&|a| a.after = Some(json!({"k": ["1", null]}))),
            with(&|a| a.after = Some(json!([["k"], [1, null]]))),
            with(&|a| a.sensitive = true),
            with(&|a| a.digest = Some(Hash([0; 32]))),
            with(&|a| a.digest = Some(Hash([1; 32]))),
            with(&|a| a.unknown = true),
            with(&|a| a.cost = Cost::Restart),
            edited(&|p| p.changes[0].action = ChangeAction::Adopt),
            edited(&|p| p.changes[0].downtime = Some(String::new())),
            edited(&|p| p.changes[0].downtime = Some("why".to_owned())),
            edited(&|p| p.order = vec![(address("f"), address("g"))]),
            edited(&|p| p.order = vec![(address("g"), address("f"))]),
            edited(&|p| p.blast_radius.restarts = 1),
            edited(&|p| p.kind = RevisionKind::Destroy),
        ];
        let hashes: BTreeSet<Hash> = all.iter().map(Plan::approval_hash).collect();
        assert_eq!(hashes.len(), all.len());
    }

    #[test]
    fn where_it_comes_from_and_what_else_was_seen_do_not_move_it() {
        let made = plan(vec![change("f", Vec::new())]);
        let mut other = made.clone();
        other.base = Revision(7);
        other.changes[0].reasons = vec!["said otherwise".to_owned()];
        other.changes[0].blocked_by = vec!["something".to_owned()];
        assert_eq!(made.approval_hash(), other.approval_hash());
    }

    #[test]
    fn each_change_of_a_long_plan_counts() {
        let long = |name: &str| {
            let last = std::iter::once(change(name, Vec::new()));
            let all = (0..3 * GROUP).map(|n| change(&n.to_string(), Vec::new()));
            plan(all.chain(last).collect())
        };
        assert_eq!(long("a").approval_hash(), long("a").approval_hash());
        assert_ne!(long("a").approval_hash(), long("b").approval_hash());
    }
}
