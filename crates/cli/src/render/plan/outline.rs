//! A plan put in the order in which it is read. Every format shows this outline; none looks through the plan by itself.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use plumb_model::plan::{
    Change, ChangeAction, DriftNote, Felt, Lack, MachineChange, OwnerChange, Plan, Resolution,
};
use plumb_model::state::ResolutionKey;
use plumb_model::{Address, DriftPolicy, OwnerName};

use super::group::{Group, group};
use super::words::{Names, names};

/// A plan in reading order.
pub struct Outline<'a> {
    /// All of it.
    pub plan: &'a Plan,
    /// What nobody asked for, apart from what the plan does.
    pub drift: Vec<Drift<'a>>,
    /// Machines that come, change or go.
    pub machines: Vec<Group<'a, MachineChange>>,
    /// Owners with their resources.
    pub owners: Vec<Owner<'a>>,
    /// Data that is destroyed.
    pub destroyed: Vec<&'a Address>,
    /// What stays on its machine, and is nobody's business any more.
    pub forgotten: Vec<&'a Address>,
    /// Moving names that mean something else now, or that nobody has resolved.
    pub moved: Vec<(&'a ResolutionKey, &'a Resolution)>,
    /// What is not done now.
    pub waits: Vec<Wait<'a>>,
    /// What machines cannot do for something that is created or changed.
    pub lacks: Vec<Lacks<'a>>,
    /// What machines cannot do for something that is as it was.
    pub old_lacks: Vec<Lacks<'a>>,
}

/// One owner with everything that happens to it.
pub struct Owner<'a> {
    /// Its name.
    pub name: &'a OwnerName,
    /// What happens to it as a whole; none if only resources of it move.
    pub change: Option<&'a OwnerChange>,
    /// Its resources in the order in which one needs the other.
    pub entries: Vec<Group<'a, Change>>,
    /// Resources that only get another address, since their owner has another name.
    pub renamed: Vec<&'a Change>,
}

impl Owner<'_> {
    /// How much a reader must see it, from least to most.
    pub fn weight(&self) -> u8 {
        let Some(change) = self.change else { return 1 };
        let adopts = self
            .entries
            .iter()
            .any(|e| e.first().action == ChangeAction::Adopt);
        match change.felt {
            _ if !change.data_loss.is_empty() => 7,
            _ if change.action == ChangeAction::Delete => 6,
            _ if !change.downtime.is_empty() || adopts => 5,
            Felt::Restart | Felt::Replace | Felt::Stop | Felt::StopPart => 4,
            Felt::Start | Felt::Reload => 3,
            Felt::InPlace => 2,
            Felt::Nothing => 1,
        }
    }

    /// The number of resources that change.
    pub fn resources(&self) -> usize {
        let grouped: usize = self.entries.iter().map(|e| e.members.len()).sum();
        grouped + self.renamed.len()
    }
}

/// The same drift on some machines.
pub struct Drift<'a> {
    /// Where.
    pub at: Vec<&'a Address>,
    /// What was seen.
    pub note: &'a DriftNote,
}

/// What waits, for the same reason.
pub struct Wait<'a> {
    /// What it is about.
    pub subjects: Vec<&'a str>,
    /// Why; where there are several, with `NAME` in place of each one's name.
    pub reason: Cow<'a, str>,
}

/// The same lack of some machines.
pub struct Lacks<'a> {
    /// All of them; at least one.
    pub lacks: Vec<&'a Lack>,
}

impl<'a> Lacks<'a> {
    /// What stands for all.
    pub fn first(&self) -> &'a Lack {
        self.lacks[0]
    }

    /// The machines.
    pub fn machines(&self) -> Names {
        names(self.lacks.iter().map(|l| l.address.machine.as_str()))
    }

    /// The owners whose resources ask for it.
    pub fn owners(&self) -> Names {
        names(self.lacks.iter().map(|l| l.address.owner.as_str()))
    }
}

/// Puts a plan in order.
pub fn outline(plan: &Plan) -> Outline<'_> {
    let (old, new): (Vec<&Lack>, Vec<&Lack>) = plan.lacks.iter().partition(|l| l.unchanged);
    Outline {
        plan,
        drift: drift(&plan.drift),
        machines: group(&plan.machines),
        owners: owners(plan),
        destroyed: destroyed(plan),
        forgotten: plan
            .changes
            .iter()
            .filter(|c| c.action == ChangeAction::Forget)
            .map(|c| &c.address)
            .collect(),
        moved: plan
            .resolutions
            .iter()
            .filter(|(_, r)| {
                r.resolved.is_none()
                    || r.before
                        .as_ref()
                        .is_some_and(|b| Some(b) != r.resolved.as_ref())
            })
            .collect(),
        waits: waits(plan),
        lacks: lacks(&new),
        old_lacks: lacks(&old),
    }
}

/// Whether only the name of its owner moves.
fn only_renamed(change: &Change) -> bool {
    change.action == ChangeAction::Update
        && matches!(change.attributes.as_slice(), [one] if one.path == "address")
}

fn owners(plan: &Plan) -> Vec<Owner<'_>> {
    // What goes is recorded under the name that its owner had.
    let renamed = plan.owners.iter();
    let renamed: BTreeMap<&OwnerName, &OwnerName> = renamed
        .filter_map(|o| Some((o.renamed_from.as_ref()?, &o.owner)))
        .collect();
    let mut changes: BTreeMap<&OwnerName, Vec<&Change>> = BTreeMap::new();
    for change in &plan.changes {
        let owner = &change.address.owner;
        let owner = *renamed.get(owner).unwrap_or(&owner);
        changes.entry(owner).or_default().push(change);
    }
    let mut owners = Vec::new();
    for change in &plan.owners {
        let own = changes.remove(&change.owner).unwrap_or_default();
        owners.push(owner(&change.owner, Some(change), own));
    }
    for (name, rest) in changes {
        owners.push(owner(name, None, rest));
    }
    owners
}

fn owner<'a>(
    name: &'a OwnerName,
    change: Option<&'a OwnerChange>,
    changes: Vec<&'a Change>,
) -> Owner<'a> {
    let (renamed, changes): (Vec<_>, Vec<_>) = changes.into_iter().partition(|c| only_renamed(c));
    let mut entries = group(changes);
    entries.sort_by(|a, b| {
        let (a, b) = (&a.first().address, &b.first().address);
        (a.kind, &a.name).cmp(&(b.kind, &b.name))
    });
    Owner {
        name,
        change,
        entries,
        renamed,
    }
}

/// What the owners name, and what the changes say by themselves.
fn destroyed(plan: &Plan) -> Vec<&Address> {
    let named = plan.owners.iter().flat_map(|o| &o.data_loss);
    let removed = plan
        .changes
        .iter()
        .filter(|c| c.action == ChangeAction::Delete && c.address.kind.holds_data())
        .map(|c| &c.address);
    let all: BTreeSet<&Address> = named.chain(removed).collect();
    all.into_iter().collect()
}

fn drift(notes: &[DriftNote]) -> Vec<Drift<'_>> {
    let mut order: Vec<Drift<'_>> = Vec::new();
    let mut known = BTreeMap::new();
    for note in notes {
        let policy = match note.policy {
            DriftPolicy::Enforce => 0,
            DriftPolicy::Report => 1,
            DriftPolicy::Ignore => 2,
        };
        let a = &note.address;
        let key = (&a.owner, a.kind, &a.name, &note.message, policy);
        let at = *known.entry(key).or_insert(order.len());
        match order.get_mut(at) {
            Some(drift) => drift.at.push(a),
            None => order.push(Drift { at: vec![a], note }),
        }
    }
    order
}

fn waits(plan: &Plan) -> Vec<Wait<'_>> {
    let mut order: Vec<Wait<'_>> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for note in &plan.not_done {
        // `machine web-1`: the name is what the reason repeats.
        let name = note.subject.rsplit(' ').next().unwrap_or(&note.subject);
        let general = note.reason.replace(name, "NAME");
        let at = *known.entry(general.clone()).or_insert(order.len());
        match order.get_mut(at) {
            Some(wait) => {
                wait.subjects.push(&note.subject);
                wait.reason = Cow::Owned(general);
            }
            None => order.push(Wait {
                subjects: vec![&note.subject],
                reason: Cow::Borrowed(&note.reason),
            }),
        }
    }
    order
}

fn lacks<'a>(all: &[&'a Lack]) -> Vec<Lacks<'a>> {
    let mut order: Vec<Lacks<'a>> = Vec::new();
    let mut known = BTreeMap::new();
    for lack in all {
        let key = (&lack.asks_for, lack.capability, &lack.why, &lack.remedy);
        let at = *known.entry(key).or_insert(order.len());
        match order.get_mut(at) {
            Some(group) => group.lacks.push(lack),
            None => order.push(Lacks { lacks: vec![lack] }),
        }
    }
    order
}
