//! One owner with its resources, and each resource with what differs.

use std::collections::BTreeSet;

use plumb_model::Address;
use plumb_model::coverage::Cost;
use plumb_model::plan::{AttributeChange, Change, ChangeAction};
use serde_json::Value;

use super::page::{Ink, Page};
use super::{MAX_ENTRIES, on, resource};
use crate::render::plan::diff::{Line, Part, Tag};
use crate::render::plan::group::Group;
use crate::render::plan::outline::Owner;
use crate::render::plan::value::{self, What, shown};
use crate::render::plan::{named, wide, words};

/// Lines of one diff before the rest is folded.
const MAX_DIFF_LINES: usize = 24;
/// The same for a new text, which can be read in the blueprint.
const MAX_NEW_LINES: usize = 8;
/// Attributes of one resource before the rest is folded.
const MAX_ATTRIBUTES: usize = 30;
/// Names of attributes are padded at most this far.
const MAX_PAD: usize = 28;

impl Page<'_> {
    /// One owner's headline.
    pub(super) fn owner(&mut self, owner: &Owner<'_>) {
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

    pub(super) fn resources(&mut self, owner: &Owner<'_>) {
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
    pub(super) fn attributes(
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
}
