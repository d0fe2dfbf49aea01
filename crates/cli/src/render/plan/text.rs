//! A plan on a terminal: laid out for its width, with colour as an extra that nothing depends on.

use std::borrow::Cow;
use std::collections::BTreeSet;

use plumb_model::Address;
use plumb_model::coverage::Cost;
use plumb_model::plan::{AttributeChange, Change, ChangeAction, MachineChange, Plan, unresolved};
use serde_json::Value;

use super::diff::{Line, Part, Tag};
use super::group::Group;
use super::outline::{Lacks, Outline, Owner, outline};
use super::value::{self, What, shown};
use super::{PlanView, named, wide, words};

/// Lines of one diff before the rest is folded.
const MAX_DIFF_LINES: usize = 24;
/// The same for a new text, which can be read in the blueprint.
const MAX_NEW_LINES: usize = 8;
/// Resources of one owner before the rest is folded.
const MAX_ENTRIES: usize = 24;
/// Attributes of one resource before the rest is folded.
const MAX_ATTRIBUTES: usize = 30;
/// Resources in all that are shown in detail; where there are more, those that are felt least are folded first.
const MAX_DETAILS: usize = 240;
/// Owners without details that have a line of their own.
const MAX_HEADLINES: usize = 200;
/// Entries of a list, such as of drift, before the rest is folded.
const MAX_LIST: usize = 20;
/// Names of attributes are padded at most this far.
const MAX_PAD: usize = 28;
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

/// What a run of text is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Plain,
    Bold,
    Good,
    Change,
    Bad,
    Loud,
    Faint,
    OldPart,
    NewPart,
}

fn ink(action: ChangeAction) -> Ink {
    match action {
        ChangeAction::Create | ChangeAction::Adopt => Ink::Good,
        ChangeAction::Update
        | ChangeAction::ReplaceCreateFirst
        | ChangeAction::ReplaceDeleteFirst => Ink::Change,
        ChangeAction::Delete | ChangeAction::Forget => Ink::Bad,
        ChangeAction::NoOp => Ink::Plain,
    }
}

struct Page<'a> {
    out: String,
    width: usize,
    view: &'a PlanView,
}

impl Page<'_> {
    fn paint<'t>(&self, ink: Ink, text: &'t str) -> Cow<'t, str> {
        let style = self.view.style;
        if !style.color {
            return Cow::Borrowed(text);
        }
        Cow::Owned(match ink {
            Ink::Plain => return Cow::Borrowed(text),
            Ink::Bold => style.bold(text),
            Ink::Good => style.good(text),
            Ink::Change => style.change(text),
            Ink::Bad => style.bad(text),
            Ink::Loud => style.loud(text),
            Ink::Faint => style.faint(text),
            Ink::OldPart => style.old_part(text),
            Ink::NewPart => style.new_part(text),
        })
    }

    fn put(&mut self, ink: Ink, text: &str) {
        let painted = self.paint(ink, text);
        self.out.push_str(&painted);
    }

    fn space(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    fn end(&mut self) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        self.out.push('\n');
    }

    fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Lays pieces out over as many lines as they need, two spaces apart. The first line begins at `first`, those after
    /// it at `rest`.
    fn flow(&mut self, first: usize, rest: usize, pieces: &[(Ink, &str)]) {
        self.space(first);
        self.flow_at(first, rest, pieces);
    }

    /// The same behind what stands on the line already.
    fn flow_at(&mut self, column: usize, rest: usize, pieces: &[(Ink, &str)]) {
        self.spread(column, rest, 2, pieces);
    }

    /// Lays pieces out `apart` spaces apart.
    fn spread(&mut self, mut column: usize, rest: usize, apart: usize, pieces: &[(Ink, &str)]) {
        let mut fresh = true;
        for (ink, text) in pieces.iter().filter(|(_, text)| !text.is_empty()) {
            let whole = wide::width(text);
            let mut gap = if fresh { 0 } else { apart };
            // A piece that fits on a line of its own stays in one.
            if !fresh && column + gap + whole > self.width && rest + whole <= self.width {
                self.end();
                self.space(rest);
                (column, gap) = (rest, 0);
            }
            let mut run = String::new();
            for word in text.split(' ') {
                let room = wide::width(word);
                if column + gap + room > self.width && column > rest {
                    self.put(*ink, &run);
                    run.clear();
                    self.end();
                    self.space(rest);
                    (column, gap) = (rest, 0);
                }
                if run.is_empty() {
                    self.space(gap);
                } else {
                    run.push_str(&" ".repeat(gap));
                }
                run.push_str(word);
                column += gap + room;
                gap = 1;
            }
            self.put(*ink, &run);
            fresh = false;
        }
        self.end();
    }

    fn heading(&mut self, ink: Ink, text: &str) {
        self.gap();
        self.flow(0, 2, &[(ink, text)]);
    }

    /// Says how much is folded away.
    fn folded(&mut self, indent: usize, what: &str) {
        let text = format!("… {what}; --full shows everything");
        self.flow(indent, indent + 2, &[(Ink::Faint, &text)]);
    }

    fn head(&mut self, plan: &Plan) {
        self.flow(0, 2, &[(Ink::Bold, &words::title(plan))]);
        for line in words::source(plan).iter().chain(&words::targets(plan)) {
            self.flow(0, 2, &[(Ink::Faint, line)]);
        }
        self.out.push('\n');
    }

    /// So many of a list as are shown.
    fn shown(&self, all: usize, limit: usize) -> usize {
        // A fold that hides one line saves none.
        if self.view.full || all <= limit + 1 {
            all
        } else {
            limit
        }
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

    /// Puts the sign of an action; what comes behind it begins at the column that is returned.
    fn mark(&mut self, indent: usize, action: ChangeAction) -> usize {
        let mark = words::mark(action);
        self.space(indent);
        self.put(ink(action), mark);
        self.out.push(' ');
        indent + mark.len() + 1
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

    /// One owner's headline.
    fn owner(&mut self, owner: &Owner<'_>) {
        let Some(change) = owner.change else {
            self.flow(
                0,
                4,
                &[(Ink::Change, "~"), (Ink::Bold, owner.name.as_str())],
            );
            return;
        };
        let origin = change.origin.as_ref().map(ToString::to_string);
        let felt = words::owner_felt(change);
        let name = format!("{} {}", change.kind.as_str().to_lowercase(), owner.name);
        let column = self.mark(0, change.action);
        self.flow_at(
            column,
            4,
            &[
                (Ink::Bold, &name),
                (Ink::Plain, &words::release(change)),
                (Ink::Plain, &felt),
                (Ink::Faint, origin.as_deref().unwrap_or_default()),
            ],
        );
        for reason in words::downtime(change) {
            let text = format!("downtime expected: {reason}");
            self.flow(4, 6, &[(Ink::Bad, &text)]);
        }
        for address in &change.data_loss {
            let text = format!(
                "DATA LOSS: {} on {} is destroyed with its data",
                resource(&[address]),
                address.machine
            );
            self.flow(4, 6, &[(Ink::Loud, &text)]);
        }
    }

    fn resources(&mut self, owner: &Owner<'_>) {
        if !owner.renamed.is_empty() {
            let names = words::names(owner.renamed.iter().map(|c| c.address.machine.as_str()));
            let text = format!(
                "{} on {} {} on as {}, under the new name",
                words::count(owner.renamed.len(), "resource"),
                names.counted("machine", self.view.full),
                if owner.renamed.len() == 1 {
                    "goes"
                } else {
                    "go"
                },
                if owner.renamed.len() == 1 {
                    "it is"
                } else {
                    "they are"
                },
            );
            let column = self.mark(4, ChangeAction::Update);
            self.flow_at(column, 8, &[(Ink::Plain, &text)]);
        }
        let waits = words::common_waits(&owner.entries);
        for text in &waits {
            self.flow(4, 6, &[(Ink::Change, text)]);
        }
        let shown = self.shown(owner.entries.len(), MAX_ENTRIES);
        for entry in &owner.entries[..shown] {
            self.entry(owner, entry, &waits);
        }
        let left: usize = owner.entries[shown..].iter().map(|e| e.members.len()).sum();
        if left > 0 {
            self.folded(4, &format!("{} more", words::count(left, "resource")));
        }
    }

    fn entry(
        &mut self,
        owner: &Owner<'_>,
        entry: &Group<'_, Change>,
        told_waits: &BTreeSet<String>,
    ) {
        let change = entry.first();
        let addresses: Vec<&Address> = entry.members.iter().map(|c| &c.address).collect();
        let name = resource(&addresses);
        let place = on(&addresses, self.view.full);
        let origin = change
            .origin
            .as_ref()
            .filter(|o| owner.change.and_then(|c| c.origin.as_ref()) != Some(o))
            .map(ToString::to_string)
            .unwrap_or_default();
        let happens = words::happens(change).unwrap_or_default();
        let loud = change.action == ChangeAction::Delete && change.address.kind.holds_data();
        let column = self.mark(4, change.action);
        self.flow_at(
            column,
            8,
            &[
                (Ink::Bold, &name),
                (Ink::Plain, &place),
                (if loud { Ink::Loud } else { Ink::Plain }, happens),
                (Ink::Faint, &origin),
            ],
        );
        for reason in words::reasons(change) {
            self.flow(8, 10, &[(Ink::Faint, &reason)]);
        }
        if change.action != ChangeAction::Delete || self.view.full {
            let wanted: Vec<usize> = change
                .attributes
                .iter()
                .enumerate()
                .filter(|(_, a)| self.view.full || value::tells(change, a))
                .map(|(at, _)| at)
                .collect();
            let on: Vec<(&str, &[AttributeChange])> = entry
                .members
                .iter()
                .map(|c| (c.address.machine.as_str(), c.attributes.as_slice()))
                .collect();
            let forces = |cost| words::forces(change, cost);
            self.attributes(8, &wanted, change.action, &entry.varying, &on, &forces);
        }
        let told = |downtime: &&String| {
            owner
                .change
                .is_some_and(|c| c.downtime.contains(downtime.as_str()))
        };
        if let Some(downtime) = change.downtime.as_ref().filter(|d| !told(d)) {
            let text = format!("downtime: {}", words::clean(downtime));
            self.flow(8, 10, &[(Ink::Bad, &text)]);
        }
        for blocked in words::waits(entry).filter(|w| !told_waits.contains(w)) {
            self.flow(8, 10, &[(Ink::Change, &blocked)]);
        }
    }

    /// The attributes at `wanted`, aligned. `on` has those of every member; the first stands for all.
    fn attributes(
        &mut self,
        indent: usize,
        wanted: &[usize],
        action: ChangeAction,
        varying: &[bool],
        on: &[(&str, &[AttributeChange])],
        forces: &dyn Fn(Cost) -> Option<&'static str>,
    ) {
        let Some((_, first)) = on.first() else { return };
        let shown_count = self.shown(wanted.len(), MAX_ATTRIBUTES);
        let pad = wanted[..shown_count]
            .iter()
            .map(|at| wide::width(&named::name(&first[*at].path)).min(MAX_PAD))
            .max()
            .unwrap_or(0)
            .min(self.width / 3);
        for at in &wanted[..shown_count] {
            let attribute = &first[*at];
            let what = shown(attribute, action, self.view.full);
            let mut remarks: Vec<String> = Vec::new();
            remarks.extend(forces(attribute.cost).map(|text| format!("({text})")));
            if varying[*at] {
                remarks.push(self.variety(*at, on));
            }
            self.attribute(indent, pad, &what.path, what.what, action, &remarks);
            if varying[*at] && self.view.full {
                for (machine, attributes) in on {
                    let attribute = &attributes[*at];
                    let value = |v: Option<&Value>| {
                        let said = |v| value::said(&attribute.path, v, true);
                        v.map_or_else(|| "none".to_owned(), said)
                    };
                    let text = match (&attribute.before, &attribute.after) {
                        (None, after) => value(after.as_ref()),
                        (before, after) => {
                            format!("{} → {}", value(before.as_ref()), value(after.as_ref()))
                        }
                    };
                    self.flow(
                        indent + 4,
                        indent + 6,
                        &[(Ink::Faint, machine), (Ink::Plain, &text)],
                    );
                }
            }
        }
        if shown_count < wanted.len() {
            self.folded(
                indent,
                &format!("{} more", words::count(wanted.len() - shown_count, "value")),
            );
        }
    }

    /// Says that the value shown is that of the first only.
    fn variety(&self, at: usize, on: &[(&str, &[AttributeChange])]) -> String {
        let machine = on.first().map_or("", |(machine, _)| machine);
        let mut values: Vec<String> = on
            .iter()
            .filter_map(|(_, attributes)| attributes[at].after.as_ref())
            .map(ToString::to_string)
            .collect();
        values.sort_unstable();
        values.dedup();
        format!("(on {machine}; {} different values in all)", values.len())
    }

    fn attribute(
        &mut self,
        indent: usize,
        pad: usize,
        path: &str,
        what: What,
        action: ChangeAction,
        remarks: &[String],
    ) {
        let start = indent + pad + 2;
        let room = self.width.saturating_sub(start);
        // A name that is longer than its column leaves the value to the next line.
        let fits = wide::width(path) <= pad;
        let label = if fits {
            wide::pad(path, pad + 2)
        } else {
            path.to_owned()
        };
        match what {
            What::Word(word) => {
                self.value(indent, pad, &label, fits, &[(Ink::Change, word)], remarks)
            }
            What::One(sign, text) => {
                let limit = self.limit(if fits { room } else { self.width - indent - 4 }, 2);
                let text = wide::cut(&text, limit);
                let (sign, ink) = match sign {
                    Some('+') => ("+ ", Ink::Good),
                    Some(_) => ("- ", Ink::Bad),
                    None => ("", Ink::Plain),
                };
                let text = format!("{sign}{text}");
                self.value(indent, pad, &label, fits, &[(ink, &text)], remarks);
            }
            What::Pair(old, new) => {
                let length =
                    |parts: &[Part]| parts.iter().map(|p| wide::width(&p.text)).sum::<usize>();
                if fits && length(&old) + length(&new) + 3 <= room {
                    self.space(indent);
                    self.put(Ink::Plain, &label);
                    self.parts(&old, Ink::Bad, Ink::OldPart, usize::MAX);
                    self.out.push_str(" → ");
                    self.parts(&new, Ink::Good, Ink::NewPart, usize::MAX);
                    self.remarks(start, start + length(&old) + length(&new) + 3, remarks);
                } else {
                    self.space(indent);
                    self.put(Ink::Plain, path);
                    self.remarks(indent + 4, indent + wide::width(path), remarks);
                    let limit = self.limit(self.width - indent - 4, 0);
                    for (sign, parts, plain, part) in [
                        ("- ", old, Ink::Bad, Ink::OldPart),
                        ("+ ", new, Ink::Good, Ink::NewPart),
                    ] {
                        self.space(indent + 2);
                        self.put(plain, sign);
                        self.parts(&parts, plain, part, limit);
                        self.end();
                    }
                }
            }
            What::Lines(lines) => {
                let (added, removed) = lines.iter().fold((0, 0), |(a, r), line| match line.tag {
                    Tag::New => (a + 1, r),
                    Tag::Old => (a, r + 1),
                    Tag::Place | Tag::Same => (a, r),
                });
                let count = match action {
                    ChangeAction::Create => words::count(added, "line"),
                    _ => format!("+{added} -{removed} lines"),
                };
                let mut pieces = vec![(Ink::Plain, path), (Ink::Faint, count.as_str())];
                pieces.extend(remarks.iter().map(|r| (Ink::Faint, r.as_str())));
                self.flow(indent, indent + 2, &pieces);
                self.lines(indent + 2, &lines, action);
            }
        }
    }

    fn limit(&self, room: usize, sign: usize) -> usize {
        if self.view.full {
            usize::MAX
        } else {
            room.saturating_sub(sign).max(8)
        }
    }

    fn value(
        &mut self,
        indent: usize,
        pad: usize,
        label: &str,
        fits: bool,
        value: &[(Ink, &str)],
        remarks: &[String],
    ) {
        self.space(indent);
        self.put(Ink::Plain, label);
        let mut column = indent + pad + 2;
        if !fits {
            self.end();
            column = indent + 4;
            self.space(column);
        }
        for (ink, text) in value {
            self.put(*ink, text);
            column += wide::width(text);
        }
        self.remarks(indent + pad + 2, column, remarks);
    }

    /// Remarks behind a value that ends at `column`, or beneath it where they do not fit.
    fn remarks(&mut self, indent: usize, mut column: usize, remarks: &[String]) {
        for remark in remarks {
            let room = wide::width(remark);
            if column + 2 + room > self.width && column > indent {
                let indent = indent.min(self.width.saturating_sub(room));
                self.end();
                self.space(indent);
                column = indent + room;
            } else {
                self.out.push_str("  ");
                column += room + 2;
            }
            self.put(Ink::Faint, remark);
        }
        self.end();
    }

    /// Parts of a value or a line, cut to `limit` so that the first change can be seen.
    fn parts(&mut self, parts: &[Part], plain: Ink, part: Ink, limit: usize) {
        for (changed, text) in window(parts, limit) {
            let mixed = parts.iter().any(|p| !p.changed);
            self.put(if changed && mixed { part } else { plain }, &text);
        }
    }

    fn lines(&mut self, indent: usize, lines: &[Line], action: ChangeAction) {
        let limit = if action == ChangeAction::Create {
            MAX_NEW_LINES
        } else {
            MAX_DIFF_LINES
        };
        let shown = self.shown(lines.len(), limit);
        let room = self.limit(self.width - indent - 2, 0);
        for line in &lines[..shown] {
            self.space(indent);
            let (plain, part) = match line.tag {
                Tag::Place => (Ink::Faint, Ink::Faint),
                Tag::Same => (Ink::Faint, Ink::Faint),
                Tag::Old => (Ink::Bad, Ink::OldPart),
                Tag::New => (Ink::Good, Ink::NewPart),
            };
            match line.tag {
                Tag::Place => {}
                Tag::Same => self.out.push_str("  "),
                Tag::Old | Tag::New => {
                    self.put(plain, line.tag.sign());
                    self.out.push(' ');
                }
            }
            self.parts(&line.parts, plain, part, room);
            self.end();
        }
        if shown < lines.len() {
            let left = words::count(lines.len() - shown, "line");
            self.folded(indent, &format!("{left} more"));
        }
    }

    /// Data that goes and what is let go, once more and apart, since nobody may miss it.
    fn data(&mut self, outline: &Outline<'_>) {
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

    fn resolutions(&mut self, outline: &Outline<'_>) {
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

    fn waits(&mut self, outline: &Outline<'_>) {
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
    fn obstacles(&mut self, outline: &Outline<'_>) {
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
        if outline.lacks.is_empty() && unknown.is_empty() {
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

    fn consents(&mut self, plan: &Plan) {
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

    fn summary(&mut self, plan: &Plan) {
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

/// As much of a value as fits, from a little before its first change on.
fn window(parts: &[Part], limit: usize) -> Vec<(bool, String)> {
    let total: usize = parts.iter().map(|p| wide::width(&p.text)).sum();
    if total <= limit {
        return parts.iter().map(|p| (p.changed, p.text.clone())).collect();
    }
    let chars: Vec<(bool, char)> = parts
        .iter()
        .flat_map(|p| p.text.chars().map(|c| (p.changed, c)))
        .collect();
    let first = chars.iter().position(|(changed, _)| *changed).unwrap_or(0);
    let tail: usize = chars[first..].iter().map(|(_, c)| wide::of(*c)).sum();
    // Some of what comes before the change is kept, and all that fits if the rest is short.
    let lead = (limit / 4).max(limit.saturating_sub(tail + 1));
    let mut start = first;
    let mut used = 0;
    while start > 0 && used + wide::of(chars[start - 1].1) < lead {
        start -= 1;
        used += wide::of(chars[start].1);
    }
    if start == 1 {
        start = 0;
    }
    let mut out: Vec<(bool, String)> = Vec::new();
    let mut room = limit;
    if start > 0 {
        out.push((false, "…".to_owned()));
        room -= 1;
    }
    let rest: usize = chars[start..].iter().map(|(_, c)| wide::of(*c)).sum();
    let cut = rest > room;
    if cut {
        room = room.saturating_sub(1);
    }
    for (changed, c) in &chars[start..] {
        if wide::of(*c) > room {
            break;
        }
        room -= wide::of(*c);
        match out.last_mut() {
            Some((last, text)) if last == changed => text.push(*c),
            _ => out.push((*changed, c.to_string())),
        }
    }
    if cut {
        out.push((false, "…".to_owned()));
    }
    out
}
