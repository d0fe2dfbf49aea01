//! The words for what a plan says: one place, so that every format says the same. Whatever comes from a blueprint is made
//! clean here or by whoever shows it; nothing here is HTML or Markdown.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::coverage::Cost;
use plumb_model::escape;
use plumb_model::plan::{Change, ChangeAction, Felt, OwnerChange, Plan};
use plumb_model::state::RevisionKind;
use plumb_model::{Address, DriftPolicy, OwnerName};

use super::group::{Group, instance};

/// Names before a list of them is folded.
const MAX_NAMES: usize = 8;

/// Foreign text on one line: every character that it holds can be seen.
pub fn clean(text: &str) -> String {
    escape::line(text).replace('\t', "\\t")
}

pub use crate::render::count;

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// What the plan is of.
pub fn title(plan: &Plan) -> String {
    let workspace = plan.workspace.as_ref().map_or_else(
        || "nothing recorded".to_owned(),
        |w| format!("workspace {w}"),
    );
    match &plan.kind {
        RevisionKind::Apply => format!("Plan for {workspace}"),
        RevisionKind::Rollback { owner, to } => {
            format!("Plan for {workspace}: {owner} goes back to release {to}")
        }
        RevisionKind::Destroy => format!("Plan for {workspace}: everything is removed"),
        RevisionKind::Secrets { names } => {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            format!(
                "Plan for {workspace}: the newest version of {}",
                names.join(", ")
            )
        }
        RevisionKind::Recover { .. } => format!("Plan for {workspace}: machines go on"),
    }
}

/// Where the blueprints come from.
pub fn source(plan: &Plan) -> Option<String> {
    plan.commit.as_ref().map(|commit| {
        let dirty = if commit.dirty {
            ", with uncommitted changes"
        } else {
            ""
        };
        let id = commit.id.get(..10).unwrap_or(&commit.id);
        clean(&format!(
            "from commit {id} by {}{dirty}: {}",
            commit.author, commit.subject
        ))
    })
}

/// What only some owners are planned for.
pub fn targets(plan: &Plan) -> Option<String> {
    let all = names(plan.targets.iter().map(OwnerName::as_str));
    (!plan.targets.is_empty()).then(|| {
        format!(
            "only {}, with what they depend on; whatever else differs is left out",
            all.list(false)
        )
    })
}

/// The sign of an action. The action is also said in words wherever it is not plain from the sign.
pub fn mark(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Create => "+",
        ChangeAction::Update => "~",
        ChangeAction::ReplaceCreateFirst => "+/-",
        ChangeAction::ReplaceDeleteFirst => "-/+",
        ChangeAction::Delete => "-",
        ChangeAction::Forget => ".",
        ChangeAction::Adopt => "&",
        ChangeAction::NoOp => "=",
    }
}

/// The word for an action, as a class and in a legend.
pub fn action(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Create => "create",
        ChangeAction::Update => "change",
        ChangeAction::ReplaceCreateFirst | ChangeAction::ReplaceDeleteFirst => "replace",
        ChangeAction::Delete => "delete",
        ChangeAction::Forget => "let go",
        ChangeAction::Adopt => "take over",
        ChangeAction::NoOp => "keep",
    }
}

fn felt(felt: Felt) -> &'static str {
    match felt {
        Felt::Nothing => "nothing that runs is touched",
        Felt::InPlace => "in place",
        Felt::Reload => "reloads",
        Felt::Start => "starts",
        Felt::StopPart => "some of it stops",
        Felt::Restart => "restarts",
        Felt::Replace => "is made anew",
        Felt::Stop => "stops",
    }
}

/// `release 3 → 4`.
pub fn release(owner: &OwnerChange) -> String {
    match (owner.from, owner.action) {
        (Some(from), ChangeAction::Delete) => format!("release {from}, removed"),
        (Some(from), _) if from == owner.to => format!("release {from}"),
        (Some(from), _) => format!("release {from} → {}", owner.to),
        (None, _) => format!("release {}", owner.to),
    }
}

/// What will be felt of an owner's change, without the downtime's reasons. Empty where what happens to it says it all.
pub fn owner_felt(owner: &OwnerChange) -> String {
    let renamed = owner
        .renamed_from
        .as_ref()
        .map(|from| format!("renamed from {from}"));
    let felt = match (owner.action, owner.felt) {
        (ChangeAction::Create | ChangeAction::Delete, Felt::InPlace | Felt::Nothing) => None,
        (ChangeAction::Forget, _) => Some("its data stays".to_owned()),
        (_, felt @ (Felt::Restart | Felt::Replace | Felt::Reload)) if owner.downtime.is_empty() => {
            Some(format!("{}, no downtime", self::felt(felt)))
        }
        (_, felt) => Some(self::felt(felt).to_owned()),
    };
    let parts: Vec<String> = renamed.into_iter().chain(felt).collect();
    parts.join("; ")
}

/// What happens to one resource, where its sign does not say it all.
pub fn happens(change: &Change) -> Option<&'static str> {
    Some(match change.action {
        ChangeAction::Create | ChangeAction::NoOp => return None,
        ChangeAction::Update => match change.felt {
            Felt::Nothing if change.address.kind.runs() => "takes effect when it starts",
            Felt::Nothing => return None,
            felt => self::felt(felt),
        },
        ChangeAction::ReplaceCreateFirst => "is made anew, then the old one goes",
        ChangeAction::ReplaceDeleteFirst => "the old one goes, then it is made anew",
        ChangeAction::Delete if change.address.kind.holds_data() => "is removed WITH ITS DATA",
        ChangeAction::Delete if change.felt == Felt::Stop => "stops and is removed",
        ChangeAction::Delete => "is removed",
        ChangeAction::Forget => "stays as it is; Plumb no longer looks after it",
        ChangeAction::Adopt => "is there already and is taken over; the original is kept",
    })
}

/// The reasons from which a reader learns something: not that it is new, nor which of the fields that are shown changed.
pub fn reasons(change: &Change) -> impl Iterator<Item = String> {
    // The address is no field.
    let fields: BTreeSet<&str> = change
        .attributes
        .iter()
        .filter(|a| a.path != "address")
        .map(|a| a.path.split('.').next().unwrap_or(&a.path))
        .collect();
    let fields: Vec<&str> = fields.into_iter().collect();
    let plain = format!("{} changed", fields.join(", "));
    change
        .reasons
        .iter()
        .filter(move |reason| change.action != ChangeAction::Create && **reason != plain)
        .map(|reason| clean(reason))
}

/// Why an owner is down. Reasons that differ in their numbers alone are one.
pub fn downtime(owner: &OwnerChange) -> Vec<String> {
    let mut alike: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for reason in &owner.downtime {
        let general: String = reason.chars().filter(|c| !c.is_ascii_digit()).collect();
        alike.entry(general).or_insert((reason, 0)).1 += 1;
    }
    alike
        .into_values()
        .map(|(reason, number)| match number {
            1 => clean(reason),
            n => format!(
                "{} (and {} more like it, with other numbers)",
                clean(reason),
                n - 1
            ),
        })
        .collect()
}

/// What a group of resources waits for, or is kept from. What names the machine of the first holds for each on its own.
pub fn waits<'a>(entry: &Group<'a, Change>) -> impl Iterator<Item = String> + use<'a> {
    let change = entry.first();
    let machine = change.address.machine.as_str();
    let alone = entry
        .members
        .iter()
        .all(|c| c.address.machine == change.address.machine);
    change.blocked_by.iter().map(move |text| {
        let own = format!("machine `{machine}`");
        if alone {
            clean(text)
        } else {
            clean(&text.replace(&own, "its machine"))
        }
    })
}

/// What all resources of an owner wait for, so that it is said once.
pub fn common_waits(entries: &[Group<'_, Change>]) -> BTreeSet<String> {
    let general = |entry: &Group<'_, Change>| -> BTreeSet<String> { waits(entry).collect() };
    match entries {
        [] | [_] => BTreeSet::new(),
        [first, rest @ ..] => rest.iter().map(general).fold(general(first), |all, one| {
            all.intersection(&one).cloned().collect()
        }),
    }
}

/// What an attribute's cost brings about, where it is what makes the whole change dear.
pub fn forces(change: &Change, cost: Cost) -> Option<&'static str> {
    let cheaper = change.attributes.iter().any(|a| a.cost < cost);
    if change.cost != Some(cost) || !cheaper || change.action == ChangeAction::Create {
        return None;
    }
    let runs = change.address.kind.runs();
    match (cost, change.felt) {
        (Cost::InPlace, _) => None,
        (Cost::Reload, Felt::Reload) => Some("makes it reload"),
        (Cost::Restart, Felt::Restart) => Some("makes it restart"),
        (Cost::Replace, Felt::Replace) => Some("has it made anew"),
        (Cost::Replace, _) if !runs => Some("has it made anew"),
        // What does not run now has nothing made of it.
        _ => None,
    }
}

/// What becomes of drift.
pub fn drift(policy: DriftPolicy) -> &'static str {
    match policy {
        DriftPolicy::Enforce => "the agent puts it right, whether or not this plan is applied",
        DriftPolicy::Report => "it is left so: its drift policy is `report`",
        DriftPolicy::Ignore => "it is left so: its drift policy is `ignore`",
    }
}

/// A set of names for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// How many there are.
    pub count: usize,
    /// Runs of names: one name, or the first and last of names that are numbered without a gap.
    runs: Vec<(String, Option<String>)>,
}

/// `web-` and 7 of `web-7`, if it ends with a number.
fn numbered(name: &str) -> Option<(&str, u64)> {
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (head, number) = name.split_at(digits);
    // `007` is not the name of seven.
    if number.len() > 1 && number.starts_with('0') {
        return None;
    }
    number.parse().ok().map(|n| (head, n))
}

/// Puts names in order, without doubles.
pub fn names<'a>(all: impl IntoIterator<Item = &'a str>) -> Names {
    let mut sorted: Vec<&str> = all.into_iter().collect();
    sorted.sort_unstable_by_key(|name| {
        let (head, number) = numbered(name).unwrap_or((name, 0));
        (head, number, *name)
    });
    sorted.dedup();
    let mut runs: Vec<Vec<&str>> = Vec::new();
    for name in &sorted {
        let follows = runs.last().and_then(|run| run.last()).is_some_and(|last| {
            matches!((numbered(last), numbered(name)),
                (Some((a, m)), Some((b, n))) if a == b && m.checked_add(1) == Some(n))
        });
        match runs.last_mut() {
            Some(run) if follows => run.push(name),
            _ => runs.push(vec![name]),
        }
    }
    let runs = runs
        .into_iter()
        .flat_map(|run| match run.as_slice() {
            [first, _, .., last] => vec![(clean(first), Some(clean(last)))],
            few => few.iter().map(|name| (clean(name), None)).collect(),
        })
        .collect();
    Names {
        count: sorted.len(),
        runs,
    }
}

impl Names {
    /// All names, or the first of them and how many more there are.
    pub fn list(&self, full: bool) -> String {
        let shown = if full || self.runs.len() <= MAX_NAMES {
            self.runs.len()
        } else {
            MAX_NAMES - 1
        };
        let mut words: Vec<String> = Vec::new();
        for (first, last) in &self.runs[..shown] {
            words.push(match last {
                None => first.clone(),
                Some(last) => format!("{first} … {last}"),
            });
        }
        let text = words.join(", ");
        let left = self.runs.len() - shown;
        if left == 0 {
            return text;
        }
        // A run counts as many names as it has; what is shown is subtracted from all.
        let told: usize = self.runs[..shown].iter().map(run_length).sum();
        format!("{text} and {} more", self.count - told)
    }

    /// `web-1`, or `3 machines: web-1, …`.
    pub fn counted(&self, one: &str, full: bool) -> String {
        if self.count == 1 {
            self.list(true)
        } else {
            format!("{}: {}", count(self.count, one), self.list(full))
        }
    }
}

fn run_length((first, last): &(String, Option<String>)) -> usize {
    let number = |name: &String| numbered(name).map_or(0, |(_, n)| n);
    last.as_ref().map_or(1, |last| {
        usize::try_from(number(last) - number(first) + 1).unwrap_or(usize::MAX)
    })
}

/// The name of a group of resources, with the instances that it stands for.
pub fn resource_name(addresses: &[&Address]) -> String {
    let Some(first) = addresses.first() else {
        return String::new();
    };
    let (name, _) = instance(first.kind, &first.name);
    let numbers: BTreeSet<&str> = addresses
        .iter()
        .filter_map(|a| instance(a.kind, &a.name).1)
        .collect();
    if numbers.len() < 2 {
        return clean(&first.name);
    }
    let machines: BTreeSet<_> = addresses.iter().map(|a| &a.machine).collect();
    if machines.len() == addresses.len() {
        // One on each machine: the machines say which.
        return clean(name);
    }
    format!("{} ×{}", clean(name), addresses.len())
}

/// The number of resources by what happens to them, in reading order; what does not occur is left out unless it is one of
/// the first three.
pub fn counts(plan: &Plan) -> Vec<(ChangeAction, String)> {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for change in &plan.changes {
        *found.entry(action(change.action)).or_default() += 1;
    }
    [
        (ChangeAction::Create, true),
        (ChangeAction::Update, true),
        (ChangeAction::ReplaceCreateFirst, false),
        (ChangeAction::Adopt, false),
        (ChangeAction::Delete, true),
        (ChangeAction::Forget, false),
    ]
    .into_iter()
    .filter_map(|(kind, always)| {
        let number = found.get(action(kind)).copied().unwrap_or(0);
        (always || number > 0).then(|| {
            (
                kind,
                format!("{} to {}", thousands(number as u64), action(kind)),
            )
        })
    })
    .collect()
}

/// What stays.
pub fn unchanged(plan: &Plan) -> String {
    match plan.unchanged {
        1 => "1 resource stays as it is".to_owned(),
        n => format!("{} resources stay as they are", thousands(n)),
    }
}

/// How much is touched, each a clause. The flag says that it is something to look at.
pub fn radius(plan: &Plan) -> Vec<(bool, String)> {
    let radius = &plan.blast_radius;
    let number = |n: u32, one: &str| count(n as usize, one);
    let mut parts = vec![
        (
            false,
            format!("touches {}", count(radius.machines.len(), "machine")),
        ),
        (false, number(radius.restarts, "restart")),
    ];
    if radius.replacements > 0 {
        parts.push((false, number(radius.replacements, "replacement")));
    }
    let down: Vec<String> = radius
        .peak_unavailable
        .iter()
        .take(MAX_NAMES)
        .map(|(app, at_once)| match at_once {
            0 | 1 => app.to_string(),
            n => format!("{app} ({n} at once)"),
        })
        .collect();
    let more = radius.peak_unavailable.len() - down.len();
    parts.push(match (down.is_empty(), more) {
        (true, _) => (false, "no downtime".to_owned()),
        (false, 0) => (true, format!("downtime of {}", down.join(", "))),
        (false, n) => (
            true,
            format!("downtime of {} and {n} more", down.join(", ")),
        ),
    });
    if radius.data_deletes > 0 {
        let what = number(radius.data_deletes, "resource");
        parts.push((true, format!("the data of {what} is destroyed")));
    }
    parts
}

/// The monthly cost and its difference, if anything has a price.
pub fn cost(plan: &Plan) -> Option<String> {
    let cost = &plan.monthly_cost;
    let money = |cents: u64| format!("{}.{:02}", thousands(cents / 100), cents % 100);
    let currencies: BTreeSet<&String> = cost
        .before_cents
        .keys()
        .chain(cost.after_cents.keys())
        .collect();
    let parts: Vec<String> = currencies
        .into_iter()
        .map(|currency| {
            let before = cost.before_cents.get(currency).copied().unwrap_or(0);
            let after = cost.after_cents.get(currency).copied().unwrap_or(0);
            let difference = match after.cmp(&before) {
                std::cmp::Ordering::Less => format!("-{}", money(before - after)),
                std::cmp::Ordering::Equal => "no difference".to_owned(),
                std::cmp::Ordering::Greater => format!("+{}", money(after - before)),
            };
            format!(
                "{} {} a month ({difference})",
                money(after),
                // An ISO 4217 code; whatever else it holds is none of it.
                currency
                    .chars()
                    .filter(char::is_ascii_alphanumeric)
                    .take(8)
                    .collect::<String>()
            )
        })
        .collect();
    (!parts.is_empty()).then(|| format!("Machines cost {}.", parts.join(" and ")))
}

/// The one line for a plan that does nothing.
pub fn nothing(plan: &Plan) -> String {
    match plan.unchanged {
        1 => "No changes: 1 resource is recorded as the blueprints say.".to_owned(),
        n => format!(
            "No changes: {} resources are recorded as the blueprints say.",
            thousands(n)
        ),
    }
}

/// The flag that allows all that the plan asks consent for.
pub fn allow(plan: &Plan) -> Option<String> {
    let all: BTreeSet<&str> = plan.consents.iter().map(|c| c.allow.as_str()).collect();
    let all: Vec<String> = all.into_iter().map(clean).collect();
    (!all.is_empty()).then(|| format!("--allow {}", all.join(",")))
}

/// First letter upper case, for a clause that begins a sentence.
pub fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_uppercase().chain(chars).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_without_losing_count() {
        let many: Vec<String> = (1..=100).map(|n| format!("web-{n}")).collect();
        let odd: Vec<String> = (1..=40).map(|n| format!("web-{}", n * 2)).collect();
        for (all, expected) in [
            (vec!["web-2", "web-1", "web-1"], "2 machines: web-1, web-2"),
            (vec!["db"], "db"),
            (
                many.iter().map(String::as_str).collect(),
                "100 machines: web-1 … web-100",
            ),
            (
                odd.iter().map(String::as_str).collect(),
                "40 machines: web-2, web-4, web-6, web-8, web-10, web-12, web-14 and 33 more",
            ),
            (
                many.iter()
                    .map(String::as_str)
                    .filter(|n| *n != "web-50")
                    .chain(["db"])
                    .collect(),
                "100 machines: db, web-1 … web-49, web-51 … web-100",
            ),
        ] {
            assert_eq!(names(all).counted("machine", false), expected);
        }
        assert!(
            !names(odd.iter().map(String::as_str))
                .list(true)
                .contains("more")
        );
    }

    #[test]
    fn large_numbers_have_separators() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
