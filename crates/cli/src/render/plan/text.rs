//! A plan on a terminal: laid out for its width, with colour as an extra that nothing depends on.

mod entry;
mod page;
mod rest;

use plumb_model::Address;
use plumb_model::plan::{AttributeChange, ChangeAction, MachineChange, Plan};

use super::outline::{Outline, outline};
use super::{PlanView, words};
use page::{Ink, Page};

/// Resources of one owner before the rest is folded.
const MAX_ENTRIES: usize = 24;
/// Resources in all that are shown in detail; where there are more, those that are felt least are folded first.
const MAX_DETAILS: usize = 240;
/// Owners without details that have a line of their own.
const MAX_HEADLINES: usize = 200;
/// Entries of a list, such as of drift, before the rest is folded.
const MAX_LIST: usize = 20;
/// Nothing is laid out for less room than this.
const MIN_WIDTH: usize = 32;

/// Renders a plan.
pub fn render(plan: &Plan, view: &PlanView) -> String {
    let outline = outline(plan);
    let mut page = Page {
        out: String::new(),
        width: view.width.max(MIN_WIDTH),
        view,
    };
    page.head(plan);
    page.drift(&outline);
    if plan.is_empty() {
        page.flow(0, 0, &[(Ink::Plain, &words::nothing(plan))]);
    }
    page.machines(&outline);
    page.owners(&outline);
    page.data(&outline);
    page.resolutions(&outline);
    page.waits(&outline);
    page.obstacles(&outline);
    page.consents(plan);
    page.summary(plan);
    page.out
}

impl Page<'_> {
    fn head(&mut self, plan: &Plan) {
        self.flow(0, 2, &[(Ink::Bold, &words::title(plan))]);
        for line in words::source(plan).iter().chain(&words::targets(plan)) {
            self.flow(0, 2, &[(Ink::Faint, line)]);
        }
        self.out.push('\n');
    }

    fn drift(&mut self, outline: &Outline<'_>) {
        if outline.drift.is_empty() {
            return;
        }
        let title = "Drift: not part of this plan, and nobody asked for it";
        self.heading(Ink::Bold, title);
        let shown = self.shown(outline.drift.len(), MAX_LIST);
        for drift in &outline.drift[..shown] {
            let name = resource(&drift.at);
            let place = format!(
                "of {} {}",
                drift.note.address.owner,
                on(&drift.at, self.view.full)
            );
            self.flow(
                2,
                6,
                &[(Ink::Change, &format!("! {name}")), (Ink::Faint, &place)],
            );
            self.flow(6, 6, &[(Ink::Plain, &words::clean(&drift.note.message))]);
            self.flow(6, 6, &[(Ink::Faint, words::drift(drift.note.policy))]);
        }
        let left: usize = outline.drift[shown..].iter().map(|d| d.at.len()).sum();
        if left > 0 {
            self.folded(2, &format!("{} more", words::count(left, "resource")));
        }
        self.out.push('\n');
    }

    fn machines(&mut self, outline: &Outline<'_>) {
        let shown = self.shown(outline.machines.len(), MAX_LIST);
        for group in &outline.machines[..shown] {
            let first: &MachineChange = group.first();
            let names = words::names(group.members.iter().map(|m| m.machine.as_str()));
            let name = match names.count {
                1 => format!("machine {}", names.list(true)),
                _ => names.counted("machine", self.view.full),
            };
            let column = self.mark(0, first.action);
            self.flow_at(
                column,
                4,
                &[
                    (Ink::Bold, &name),
                    (
                        Ink::Plain,
                        match first.action {
                            ChangeAction::Delete => "leaves the workspace",
                            _ => "",
                        },
                    ),
                ],
            );
            let on: Vec<(&str, &[AttributeChange])> = group
                .members
                .iter()
                .map(|m| (m.machine.as_str(), m.attributes.as_slice()))
                .collect();
            if first.action != ChangeAction::Delete || self.view.full {
                let all: Vec<usize> = (0..first.attributes.len()).collect();
                self.attributes(4, &all, first.action, &group.varying, &on, &|_| None);
            }
        }
        if shown < outline.machines.len() {
            let left: usize = outline.machines[shown..]
                .iter()
                .map(|g| g.members.len())
                .sum();
            self.folded(0, &format!("{} more", words::count(left, "machine")));
        }
        if !outline.machines.is_empty() {
            self.gap();
        }
    }

    fn owners(&mut self, outline: &Outline<'_>) {
        let detailed = detailed(outline, self.view.full);
        let mut folded = (0, 0);
        let mut apart = true;
        let mut headlines = 0;
        for (owner, details) in outline.owners.iter().zip(detailed) {
            if !details {
                folded.0 += 1;
                folded.1 += owner.resources();
                headlines += 1;
                if headlines > MAX_HEADLINES {
                    continue;
                }
            }
            // Headlines without details stand together.
            if details || apart {
                self.gap();
            }
            apart = details;
            self.owner(owner);
            if details {
                self.resources(owner);
            }
        }
        if folded.0 > 0 {
            let lines = match folded.0 {
                n if n > MAX_HEADLINES => format!(
                    " ({} have no line at all)",
                    words::thousands((n - MAX_HEADLINES) as u64)
                ),
                _ => String::new(),
            };
            let text = format!(
                "the details of {}{lines} with {} are folded, those that are felt least first",
                words::count(folded.0, "app"),
                words::count(folded.1, "resource")
            );
            self.gap();
            self.folded(0, &text);
        }
    }
}

/// Which owners are shown with their resources: those that are felt most first, until there are enough.
fn detailed(outline: &Outline<'_>, full: bool) -> Vec<bool> {
    let owners = &outline.owners;
    let mut order: Vec<usize> = (0..owners.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(owners[*at].weight()));
    let mut room = if full { usize::MAX } else { MAX_DETAILS };
    let mut detailed = vec![false; owners.len()];
    for at in order {
        let needed = owners[at].entries.len().clamp(1, MAX_ENTRIES + 1);
        if needed > room {
            break;
        }
        room -= needed;
        detailed[at] = true;
    }
    detailed
}

/// `process app/0`.
fn resource(addresses: &[&Address]) -> String {
    let kind = addresses.first().map_or("", |a| a.kind.as_str());
    format!("{kind} {}", words::resource_name(addresses))
}

/// `on web-1`, `on 3 machines: web-1, …`.
fn on(addresses: &[&Address], full: bool) -> String {
    let machines = words::names(addresses.iter().map(|a| a.machine.as_str()));
    format!("on {}", machines.counted("machine", full))
}
