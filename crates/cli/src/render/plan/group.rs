//! Puts the same change on many machines together, so that it is read once. Two changes are the same if they differ in
//! nothing but the machine, the instance's number, and numbers inside short values: what a replica's port and address
//! bring with them. Whatever differs is named by the group, never lost.
//!
//! The time is linear in what is grouped.

use std::collections::HashMap;
use std::fmt::Write as _;

use plumb_model::plan::{AttributeChange, Change, ChangeAction, MachineChange};
use plumb_model::{Hash, ResourceKind};
use serde_json::Value;

/// Values longer than this, in bytes, must be equal to the letter.
const MAX_BLURRED_BYTES: usize = 200;

/// Changes that are one to a reader.
#[derive(Debug)]
pub struct Group<'a, T> {
    /// At least one, in the order of the plan.
    pub members: Vec<&'a T>,
    /// For each attribute of the first, whether others have other values.
    pub varying: Vec<bool>,
}

impl<'a, T> Group<'a, T> {
    /// What stands for all.
    pub fn first(&self) -> &'a T {
        self.members[0]
    }
}

/// What can be grouped.
pub trait Alike {
    /// Its attributes.
    fn attributes(&self) -> &[AttributeChange];
    /// The machine that it is on.
    fn machine(&self) -> &str;
    /// Everything else that tells it from others.
    fn key(&self, key: &mut String);
}

impl Alike for Change {
    fn attributes(&self) -> &[AttributeChange] {
        &self.attributes
    }

    fn machine(&self) -> &str {
        self.address.machine.as_str()
    }

    fn key(&self, key: &mut String) {
        let address = &self.address;
        let _ = write!(
            key,
            "{}\0{}\0{}\0{:?}\0{:?}\0{:?}",
            address.owner,
            address.kind,
            instance(address.kind, &address.name).0,
            self.action,
            self.cost,
            self.origin,
        );
        for text in self
            .reasons
            .iter()
            .chain(&self.blocked_by)
            .chain(&self.downtime)
        {
            key.push('\0');
            blur(key, text, self.machine());
        }
    }
}

impl Alike for MachineChange {
    fn attributes(&self) -> &[AttributeChange] {
        &self.attributes
    }

    fn machine(&self) -> &str {
        self.machine.as_str()
    }

    fn key(&self, key: &mut String) {
        // Machines that leave are named one by one.
        if self.action == ChangeAction::Delete {
            key.push_str(self.machine.as_str());
        }
        let _ = write!(key, "{:?}", self.action);
    }
}

/// The name without the number of the instance, and that number.
pub fn instance(kind: ResourceKind, name: &str) -> (&str, Option<&str>) {
    let runs = matches!(kind, ResourceKind::Process | ResourceKind::Container);
    match name.rsplit_once('/') {
        Some((name, number)) if runs && number.bytes().all(|b| b.is_ascii_digit()) => {
            (name, Some(number))
        }
        _ => (name, None),
    }
}

/// Writes text with the machine's name and all numbers made the same.
fn blur(key: &mut String, text: &str, machine: &str) {
    if text.len() > MAX_BLURRED_BYTES || text.contains('\n') {
        key.push_str(text);
        return;
    }
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix(machine) {
            key.push('\x01');
            rest = after;
            continue;
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            key.push('\x02');
            rest = &rest[digits..];
            continue;
        }
        let next = rest.chars().next().map_or(1, char::len_utf8);
        key.push_str(&rest[..next]);
        rest = &rest[next..];
    }
}

fn blur_value(key: &mut String, value: Option<&Value>, machine: &str) {
    match value {
        None => key.push('\x03'),
        Some(Value::Number(_)) => key.push('\x02'),
        Some(Value::String(text)) => blur(key, text, machine),
        Some(other) => blur(key, &other.to_string(), machine),
    }
}

/// Groups, in the order in which the first of each group comes.
pub fn group<'a, T: Alike>(items: impl IntoIterator<Item = &'a T>) -> Vec<Group<'a, T>> {
    let mut groups: Vec<Group<'a, T>> = Vec::new();
    let mut known: HashMap<Hash, usize> = HashMap::new();
    let mut key = String::new();
    for item in items {
        key.clear();
        item.key(&mut key);
        for attribute in item.attributes() {
            let _ = write!(
                key,
                "\0{}\0{}\0{}\0{:?}\0",
                attribute.path, attribute.sensitive, attribute.unknown, attribute.cost
            );
            blur_value(&mut key, attribute.before.as_ref(), item.machine());
            key.push('\0');
            blur_value(&mut key, attribute.after.as_ref(), item.machine());
        }
        let at = *known
            .entry(Hash::of(key.as_bytes()))
            .or_insert(groups.len());
        match groups.get_mut(at) {
            None => groups.push(Group {
                members: vec![item],
                varying: vec![false; item.attributes().len()],
            }),
            Some(group) => {
                let first = group.members[0].attributes();
                for ((varies, a), b) in group.varying.iter_mut().zip(first).zip(item.attributes()) {
                    *varies |= a.before != b.before || a.after != b.after;
                }
                group.members.push(item);
            }
        }
    }
    groups
}
