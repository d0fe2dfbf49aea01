//! What is said beneath the changes: data, moving names, what waits, what keeps the plan from being applied, and the totals.

use plumb_model::Address;
use plumb_model::plan::{Plan, unresolved};

use super::page::{Ink, Page, ink};
use super::{MAX_LIST, resource};
use crate::render::plan::outline::{Lacks, Outline};
use crate::render::plan::{value, words};

impl Page<'_> {
    /// Data that goes and what is let go, once more and apart, since nobody may miss it.
    pub(super) fn data(&mut self, outline: &Outline<'_>) {
        if !outline.destroyed.is_empty() {
            self.heading(Ink::Loud, "DATA IS DESTROYED, and nothing brings it back:");
            self.addresses(&outline.destroyed, Ink::Loud, "-");
        }
        if !outline.forgotten.is_empty() {
            let title = "Data is kept: it leaves the blueprints, stays on its machine, and Plumb no longer looks after it:";
            self.heading(Ink::Bold, title);
            self.addresses(&outline.forgotten, Ink::Plain, ".");
        }
    }

    fn addresses(&mut self, all: &[&Address], ink: Ink, mark: &str) {
        let shown = self.shown(all.len(), MAX_LIST);
        for address in &all[..shown] {
            let text = format!(
                "{mark} {} of {} on {}",
                resource(&[address]),
                address.owner,
                address.machine
            );
            self.flow(2, 6, &[(ink, &text)]);
        }
        if shown < all.len() {
            self.folded(
                2,
                &format!("{} more", words::count(all.len() - shown, "resource")),
            );
        }
    }

    pub(super) fn resolutions(&mut self, outline: &Outline<'_>) {
        let all: Vec<_> = if self.view.full {
            outline.plan.resolutions.iter().collect()
        } else {
            // What nobody has resolved is told as an error.
            let mut moved = outline.moved.clone();
            moved.retain(|(_, r)| r.resolved.is_some());
            moved
        };
        if all.is_empty() {
            return;
        }
        self.heading(Ink::Bold, "What moving names mean now");
        let shown = self.shown(all.len(), MAX_LIST);
        for (key, resolution) in &all[..shown] {
            let short = |text: &String| value::resolved(text, self.view.full);
            let before = resolution.before.as_ref().map(short);
            let now = resolution.resolved.as_ref().map(short);
            let (ink, text) = match (before, now) {
                (Some(before), Some(now)) if before != now => {
                    (Ink::Change, format!("{before} → {now}"))
                }
                (_, Some(now)) => (Ink::Plain, now),
                (Some(before), None) => (Ink::Bad, format!("{before} → nobody has looked it up")),
                (None, None) => (Ink::Bad, "nobody has looked it up".to_owned()),
            };
            self.flow(2, 6, &[(Ink::Plain, &words::clean(&key.0)), (ink, &text)]);
        }
        if shown < all.len() {
            self.folded(
                2,
                &format!("{} more", words::count(all.len() - shown, "name")),
            );
        }
    }

    pub(super) fn waits(&mut self, outline: &Outline<'_>) {
        if outline.waits.is_empty() {
            return;
        }
        self.heading(Ink::Bold, "Not done now");
        let shown = self.shown(outline.waits.len(), MAX_LIST);
        for wait in &outline.waits[..shown] {
            let text = format!(
                "{}: {}",
                subjects(&wait.subjects, self.view.full),
                words::clean(&wait.reason)
            );
            self.flow(2, 6, &[(Ink::Plain, &text)]);
        }
        if shown < outline.waits.len() {
            self.folded(
                2,
                &format!(
                    "{} more",
                    words::count(outline.waits.len() - shown, "reason")
                ),
            );
        }
    }

    /// What keeps the plan from being applied.
    pub(super) fn obstacles(&mut self, outline: &Outline<'_>) {
        if !outline.old_lacks.is_empty() {
            self.heading(Ink::Bold, "Machines lack what is recorded for them already");
            for lacks in &outline.old_lacks {
                self.lacks(lacks, "warning");
            }
        }
        let unknown: Vec<_> = outline
            .moved
            .iter()
            .filter(|(_, r)| r.resolved.is_none())
            .collect();
        let unset = &outline.plan.unset_secrets;
        if outline.lacks.is_empty() && unknown.is_empty() && unset.is_empty() {
            return;
        }
        self.heading(Ink::Loud, "This plan can be read, and not applied:");
        for (key, _) in &unknown {
            let text = format!("error: {}", words::clean(&unresolved(key)));
            self.flow(2, 6, &[(Ink::Bad, &text)]);
        }
        for lacks in &outline.lacks {
            self.lacks(lacks, "error");
        }
        for unset in unset {
            let text = format!("error: {}", words::clean(&unset.what()));
            let origin = unset.origin.as_ref().map(ToString::to_string);
            let origin = origin.unwrap_or_default();
            self.flow(2, 6, &[(Ink::Bad, &text), (Ink::Faint, &origin)]);
            let remedy = words::clean(&unset.remedy());
            self.flow(6, 8, &[(Ink::Plain, &remedy)]);
        }
    }

    fn lacks(&mut self, lacks: &Lacks<'_>, level: &str) {
        let lack = lacks.first();
        let machines = lacks.machines();
        let resources: Vec<&Address> = lacks.lacks.iter().map(|l| &l.address).collect();
        let who = match resources.as_slice() {
            [one] => format!("{} of {}", resource(&resources), one.owner),
            _ => format!(
                "{} of {}",
                words::count(resources.len(), "resource"),
                lacks.owners().list(self.view.full)
            ),
        };
        let verb = if resources.len() == 1 { "asks" } else { "ask" };
        let text = format!(
            "{level}: {who} {verb} for {}, which {} cannot do: {}",
            words::clean(&lack.asks_for),
            match machines.count {
                1 => format!("machine {}", machines.list(true)),
                _ => machines.counted("machine", self.view.full),
            },
            words::clean(&lack.why)
        );
        let ink = if level == "error" {
            Ink::Bad
        } else {
            Ink::Change
        };
        let origin = lack.origin.as_ref().map(ToString::to_string);
        self.flow(
            2,
            6,
            &[
                (ink, &text),
                (Ink::Faint, origin.as_deref().unwrap_or_default()),
            ],
        );
        let remedy = format!("to get it: {}", words::clean(&lack.remedy));
        self.flow(6, 8, &[(Ink::Plain, &remedy)]);
    }

    pub(super) fn consents(&mut self, plan: &Plan) {
        let Some(flag) = words::allow(plan) else {
            return;
        };
        self.heading(Ink::Loud, "Needs consent");
        for consent in &plan.consents {
            let name = format!("--allow {}", words::clean(&consent.allow));
            self.flow(
                2,
                6,
                &[
                    (Ink::Bold, &name),
                    (Ink::Plain, &words::clean(&consent.reason)),
                ],
            );
        }
        if plan.consents.len() > 1 {
            self.flow(2, 6, &[(Ink::Plain, &format!("all of it: {flag}"))]);
        }
    }

    pub(super) fn summary(&mut self, plan: &Plan) {
        if plan.is_empty() {
            self.base(plan);
            return;
        }
        self.gap();
        let mut pieces: Vec<(Ink, String)> = words::counts(plan)
            .into_iter()
            .map(|(action, text)| (ink(action), text + ","))
            .collect();
        if let Some((_, last)) = pieces.last_mut() {
            last.pop();
            last.push('.');
        }
        pieces.insert(0, (Ink::Bold, "Plan:".to_owned()));
        if plan.unchanged > 0 {
            let text = format!("{}.", words::capital(&words::unchanged(plan)));
            pieces.push((Ink::Faint, text));
        }
        self.sentence(&pieces);
        let radius = words::radius(plan);
        let last = radius.len() - 1;
        let clauses: Vec<(Ink, String)> = radius
            .into_iter()
            .enumerate()
            .map(|(at, (alarming, text))| {
                let text = if at == 0 { words::capital(&text) } else { text };
                let end = if at == last { "." } else { ";" };
                (if alarming { Ink::Bad } else { Ink::Plain }, text + end)
            })
            .collect();
        self.sentence(&clauses);
        if let Some(cost) = words::cost(plan) {
            self.flow(0, 2, &[(Ink::Plain, &cost)]);
        }
        self.base(plan);
    }

    /// Clauses behind one another, as in prose.
    fn sentence(&mut self, clauses: &[(Ink, String)]) {
        let pieces: Vec<(Ink, &str)> = clauses.iter().map(|(i, t)| (*i, t.as_str())).collect();
        self.spread(0, 2, 1, &pieces);
    }

    fn base(&mut self, plan: &Plan) {
        if self.view.verbose {
            let text = format!("base revision {}, approval {}", plan.base, plan.approval);
            self.flow(0, 2, &[(Ink::Faint, &text)]);
        }
    }
}

/// `machine web-1`, `3 machines: web-1, …`, or whatever else it is about.
fn subjects(subjects: &[&str], full: bool) -> String {
    match subjects {
        [one] => words::clean(one),
        many => {
            let machines: Option<Vec<&str>> =
                many.iter().map(|s| s.strip_prefix("machine ")).collect();
            match machines {
                Some(machines) => words::names(machines).counted("machine", full),
                None => words::names(many.iter().copied()).list(full),
            }
        }
    }
}
