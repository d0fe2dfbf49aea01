//! The page that a plan is laid out on: what fits on a line, how lines are broken, and with what they are drawn.

use std::borrow::Cow;

use plumb_model::plan::ChangeAction;

use crate::render::plan::diff::Part;
use crate::render::plan::{PlanView, wide, words};

/// What a run of text is drawn with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ink {
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

pub(super) fn ink(action: ChangeAction) -> Ink {
    match action {
        ChangeAction::Create | ChangeAction::Adopt => Ink::Good,
        ChangeAction::Update
        | ChangeAction::ReplaceCreateFirst
        | ChangeAction::ReplaceDeleteFirst => Ink::Change,
        ChangeAction::Delete | ChangeAction::Forget => Ink::Bad,
        ChangeAction::NoOp => Ink::Plain,
    }
}

pub(super) struct Page<'a> {
    pub out: String,
    pub width: usize,
    pub view: &'a PlanView,
}

impl Page<'_> {
    pub(super) fn paint<'t>(&self, ink: Ink, text: &'t str) -> Cow<'t, str> {
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

    pub(super) fn put(&mut self, ink: Ink, text: &str) {
        let painted = self.paint(ink, text);
        self.out.push_str(&painted);
    }

    pub(super) fn space(&mut self, columns: usize) {
        self.out.extend(std::iter::repeat_n(' ', columns));
    }

    pub(super) fn end(&mut self) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        self.out.push('\n');
    }

    pub(super) fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }

    /// Lays pieces out over as many lines as they need, two spaces apart. The first line begins at `first`, those after
    /// it at `rest`.
    pub(super) fn flow(&mut self, first: usize, rest: usize, pieces: &[(Ink, &str)]) {
        self.space(first);
        self.flow_at(first, rest, pieces);
    }

    /// The same behind what stands on the line already.
    pub(super) fn flow_at(&mut self, column: usize, rest: usize, pieces: &[(Ink, &str)]) {
        self.spread(column, rest, 2, pieces);
    }

    /// Lays pieces out `apart` spaces apart.
    pub(super) fn spread(
        &mut self,
        mut column: usize,
        rest: usize,
        apart: usize,
        pieces: &[(Ink, &str)],
    ) {
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

    pub(super) fn heading(&mut self, ink: Ink, text: &str) {
        self.gap();
        self.flow(0, 2, &[(ink, text)]);
    }

    /// Says how much is folded away.
    pub(super) fn folded(&mut self, indent: usize, what: &str) {
        let text = format!("… {what}; --full shows everything");
        self.flow(indent, indent + 2, &[(Ink::Faint, &text)]);
    }

    /// So many of a list as are shown.
    pub(super) fn shown(&self, all: usize, limit: usize) -> usize {
        // A fold that hides one line saves none.
        if self.view.full || all <= limit + 1 {
            all
        } else {
            limit
        }
    }

    /// Puts the sign of an action; what comes behind it begins at the column that is returned.
    pub(super) fn mark(&mut self, indent: usize, action: ChangeAction) -> usize {
        let mark = words::mark(action);
        self.space(indent);
        self.put(ink(action), mark);
        self.out.push(' ');
        indent + mark.len() + 1
    }

    pub(super) fn limit(&self, room: usize, sign: usize) -> usize {
        if self.view.full {
            usize::MAX
        } else {
            room.saturating_sub(sign).max(8)
        }
    }

    /// Parts of a value or a line, cut to `limit` so that the first change can be seen.
    pub(super) fn parts(&mut self, parts: &[Part], plain: Ink, part: Ink, limit: usize) {
        for (changed, text) in window(parts, limit) {
            let mixed = parts.iter().any(|p| !p.changed);
            self.put(if changed && mixed { part } else { plain }, &text);
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
