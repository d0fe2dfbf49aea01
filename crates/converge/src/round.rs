//! A full check that somebody asked for: everything is looked at closely once, what is wrong is put right as always, and
//! what came of it is told at the end.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::hands::{Came, Finding};
use plumb_model::{Address, Depth, OwnerName};

use crate::decide::{Decision, Why};
use crate::slot::Slot;
use crate::{Now, status};

/// What is not right by then is told as unfinished: whoever asked waits in front of a terminal.
pub const ROUND_MS: u64 = 60_000;

/// What a full check has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Which request it answers.
    pub request: u64,
    /// How many resources were checked.
    pub checked: u64,
    /// Those that were not as they should be, by address.
    pub findings: Vec<Finding>,
}

/// A check under way.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    request: u64,
    until_ms: u64,
    checked: u64,
    /// What has not been looked at closely since.
    looking: BTreeSet<Address>,
    /// What was not right, and is being put right.
    mending: BTreeMap<Address, String>,
    findings: Vec<Finding>,
}

impl Round {
    /// Begins one: each slot is to be looked at, and tried again if it was put off.
    pub fn begin(
        request: u64,
        owner: Option<&OwnerName>,
        slots: &mut BTreeMap<Address, Slot>,
        now: Now,
    ) -> Self {
        let mut looking = BTreeSet::new();
        for (address, slot) in slots {
            if owner.is_some_and(|owner| *owner != address.owner)
                || (slot.is_removal() && slot.gone)
            {
                continue;
            }
            slot.look(Depth::Full);
            slot.not_before_ms = slot.not_before_ms.min(now.mono_ms);
            looking.insert(address.clone());
        }
        Self {
            request,
            until_ms: now.mono_ms + ROUND_MS,
            checked: looking.len() as u64,
            looking,
            mending: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

    /// When it is over at the latest.
    pub fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Something has been looked at; before that a close look had been asked for, and is not any more.
    pub fn looked(&mut self, address: &Address, slot: &Slot) {
        if !self.looking.contains(address) || slot.look == Some(Depth::Full) {
            return;
        }
        self.looking.remove(address);
        let mut tell = |found: String, came, why: String| {
            self.findings.push(Finding {
                address: address.clone(),
                found,
                came,
                why,
            });
        };
        if let Some(Err(fault)) = &slot.seen {
            tell(
                "cannot be looked at".into(),
                Came::Failed,
                fault.message.clone(),
            );
            return;
        }
        match slot.decision() {
            None | Some(Decision::Settled | Decision::Gone | Decision::Stopping) => {}
            Some(Decision::Leave(differs)) => tell(
                status::describe(&differs),
                Came::Left,
                "as the blueprint says".into(),
            ),
            Some(Decision::Held(differs)) => {
                let held = slot.overlay.held.as_ref();
                let why = held.map(status::held_by).unwrap_or_default();
                let found = match differs.as_slice() {
                    [] => "not yet what the blueprint says".to_owned(),
                    differs => status::describe(differs),
                };
                tell(found, Came::Held, why);
            }
            Some(Decision::Foreign(what)) => tell("not Plumb's".into(), Came::Failed, what),
            Some(Decision::Ended(exit)) => {
                if exit != plumb_model::observation::ExitStatus::Code(0) {
                    let why = "its restart policy leaves it so".to_owned();
                    tell(exit.to_string(), Came::Failed, why);
                }
            }
            Some(Decision::Act(_, why)) => {
                let found = match why {
                    Why::Drift(differs) => status::describe(&differs),
                    Why::Died(exit) => exit.to_string(),
                    Why::Unhealthy => "unhealthy".to_owned(),
                    Why::Desired | Why::Again => "not yet what the blueprint says".to_owned(),
                };
                self.mending.insert(address.clone(), found);
            }
        }
    }

    /// Looks at what is being put right. What it has come to, once it is over.
    pub fn step(&mut self, slots: &BTreeMap<Address, Slot>, now: Now) -> Option<Checked> {
        let over = now.mono_ms >= self.until_ms;
        let mut done = Vec::new();
        for (address, found) in &self.mending {
            let (came, why) = match slots.get(address) {
                None => (Came::Corrected, String::new()),
                Some(slot) if slot.converged() => (Came::Corrected, String::new()),
                Some(slot) => match (&slot.failed, &slot.seen) {
                    (Some(fault), _) | (None, Some(Err(fault))) => {
                        (Came::Failed, fault.message.clone())
                    }
                    _ if over => (Came::Unfinished, String::new()),
                    _ => continue,
                },
            };
            done.push(Finding {
                address: address.clone(),
                found: found.clone(),
                came,
                why,
            });
        }
        for finding in &done {
            self.mending.remove(&finding.address);
        }
        self.findings.extend(done);
        if over {
            let unseen = std::mem::take(&mut self.looking);
            self.findings
                .extend(unseen.into_iter().map(|address| Finding {
                    address,
                    found: "was not looked at in time".to_owned(),
                    came: Came::Unfinished,
                    why: String::new(),
                }));
        }
        self.looking.retain(|address| slots.contains_key(address));
        if !(over || self.looking.is_empty() && self.mending.is_empty()) {
            return None;
        }
        self.findings.sort_by(|a, b| a.address.cmp(&b.address));
        Some(Checked {
            request: self.request,
            checked: self.checked,
            findings: std::mem::take(&mut self.findings),
        })
    }
}
