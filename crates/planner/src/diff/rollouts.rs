//! How machines will move to new releases, where not all of them do at once: in how many waves, and what bounds them.
//!
//! It says what happens if nothing comes in between; what does happen is `dispatch`'s to decide, by the same rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::plan::{Change, ChangeAction, NotDone};
use plumb_model::rollout::{budget, waves};
use plumb_model::state::{Rollout, RolloutStrategy};
use plumb_model::{MachineName, OwnerName, Resource};

use super::Sides;

/// So many machines of a wave, and so many waves, are named.
const NAMED: usize = 4;

/// An owner whose machines move in waves.
pub(super) struct Paced<'a> {
    owner: &'a OwnerName,
    settings: &'a Rollout,
    waves: Vec<Vec<MachineName>>,
    instances: BTreeMap<MachineName, u32>,
}

fn machines(resources: &[Arc<Resource>]) -> BTreeSet<&MachineName> {
    resources.iter().map(|r| &r.address.machine).collect()
}

/// Every owner with a new release that moves in waves. A first release and one that is on one machine alone go at once.
pub(super) fn paced<'a>(sides: &Sides<'a>, changes: &[Change]) -> Vec<Paced<'a>> {
    let mut touched: BTreeMap<&OwnerName, BTreeSet<&MachineName>> = BTreeMap::new();
    for change in changes.iter().filter(|c| c.action != ChangeAction::NoOp) {
        let owner = sides.owner(&change.address);
        let machines = touched.entry(owner).or_default();
        machines.insert(&change.address.machine);
    }
    let mut all = Vec::new();
    for (owner, body) in &sides.desired.owners {
        let (Some(settings), Some(touched)) = (&body.rollout, touched.get(owner)) else {
            continue;
        };
        let old_name = sides.desired.renamed.get(owner).unwrap_or(owner);
        let Some(old) = sides.input.recorded.releases.get(old_name) else {
            continue;
        };
        let held = machines(&old.resources);
        let wanted = machines(&body.resources);
        if held.is_empty() || held.union(&wanted).count() < 2 {
            continue;
        }
        let mut instances: BTreeMap<MachineName, u32> = BTreeMap::new();
        for resource in &body.resources {
            let machine = &resource.address.machine;
            // One that holds nothing yet goes at once: nothing there can become unavailable.
            if touched.contains(machine) && held.contains(machine) {
                let count = instances.entry(machine.clone()).or_default();
                *count += u32::from(resource.address.kind.runs());
            }
        }
        instances
            .values_mut()
            .for_each(|count| *count = (*count).max(1));
        let waves = waves(settings, &instances);
        if !waves.is_empty() {
            all.push(Paced {
                owner,
                settings,
                waves,
                instances,
            });
        }
    }
    all
}

impl Paced<'_> {
    /// Whose.
    pub fn owner(&self) -> &OwnerName {
        self.owner
    }

    /// How many instances are unavailable at once, at the worst moment of those that are planned.
    pub fn most(&self) -> u32 {
        let of = |wave: &Vec<MachineName>| wave.iter().map(|name| self.instances[name]).sum();
        self.waves.iter().map(of).max().unwrap_or(0)
    }

    /// The same in words.
    pub fn note(&self) -> NotDone {
        NotDone {
            subject: format!("rollout of {}", self.owner),
            reason: self.words(),
        }
    }

    fn words(&self) -> String {
        let settings = self.settings;
        let named: Vec<String> = self
            .waves
            .iter()
            .take(NAMED)
            .map(|wave| names(wave))
            .collect();
        let more = match self.waves.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(", then {more} more"),
        };
        let canary = match settings.strategy {
            RolloutStrategy::Canary => ", the first as a canary",
            RolloutStrategy::Rolling | RolloutStrategy::BlueGreen => "",
        };
        let largest = self.instances.values().copied().max().unwrap_or(0);
        let budget = budget(settings, largest);
        let raised = match settings.max_unavailable {
            set if set >= budget => String::new(),
            set => format!(
                " (max_unavailable is {set}, but what is on one machine stops before it starts anew)"
            ),
        };
        let healthy = match settings.min_healthy_ms {
            0 => "healthy".to_owned(),
            ms => format!("healthy for {}", time(ms)),
        };
        let fails = match settings.auto_revert {
            true => "it is taken back by itself",
            false => "it stays where it is",
        };
        format!(
            "moves in {} wave{}{canary}: {}{more}; each has to be {healthy} before the next; at most {budget} unavailable at once{raised}; if it fails, or makes no progress for {}, {fails}",
            self.waves.len(),
            if self.waves.len() == 1 { "" } else { "s" },
            named.join(", then "),
            time(settings.deadline_ms),
        )
    }
}

fn names(wave: &[MachineName]) -> String {
    let mut named: Vec<String> = wave.iter().take(NAMED).map(ToString::to_string).collect();
    if wave.len() > NAMED {
        named.push(format!("{} more", wave.len() - NAMED));
    }
    named.join(" and ")
}

fn time(ms: u64) -> String {
    match ms {
        ms if ms.is_multiple_of(3_600_000) => format!("{} h", ms / 3_600_000),
        ms if ms.is_multiple_of(60_000) => format!("{} min", ms / 60_000),
        ms if ms.is_multiple_of(1000) => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}
