//! What an agent notes of its machine, entry after entry, each holding the hash of the one before: and what a control
//! plane makes of such a chain when it is handed over.
//!
//! An entry is one line of JSON. Its hash is that of these very bytes, so that a chain can be checked without
//! understanding what every entry says. The agent writes and keeps lines (`agent::journal`); the control plane takes them
//! with [`Head::take`] and stores what they say. Nothing here reads a disk or a clock.
//!
//! Invariant: whatever was changed, taken away, put in or brought from another machine between two hand-overs is found,
//! except that a whole chain which was never handed over can be replaced by another one that holds together.

use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::condition::{ConditionKind, EventKind, Reason};
use crate::hash::Hash;
use crate::name::{Lineage, MachineName, WorkspaceName};
use crate::observation::ExitStatus;
use crate::{Generation, Timestamp};

/// The newest format of a journal that this version reads and the one it writes.
pub const FORMAT: u32 = 1;

/// The longest text for people in an entry, in bytes; what is longer is cut.
pub const MAX_TEXT_BYTES: usize = 1024;

/// The longest line, in bytes. What is longer was not written by an agent.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// What happened. No secret is ever in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happening {
    /// The agent started.
    AgentStarted {
        /// Its version.
        version: String,
        /// What the kernel calls this run of the machine.
        boot: String,
        /// The machine was started since the agent last noted anything; none if that is not known any more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        booted: Option<bool>,
    },
    /// The agent is connected to the control plane again.
    LinkBack {
        /// For how long it was not, in milliseconds; none if it has not been since it started.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        away_ms: Option<u64>,
    },
    /// The agent has lost the control plane.
    LinkLost,
    /// An assignment is on the agent's disk, and obeyed from now on.
    AssignmentTaken {
        /// Its generation.
        generation: Generation,
    },
    /// Something happened to a resource.
    Resource {
        /// To which.
        address: Address,
        /// What sort of thing.
        kind: EventKind,
        /// In words: a fragment, without the address.
        message: String,
    },
    /// A process has ended.
    ProcessEnded {
        /// Which.
        address: Address,
        /// How.
        status: ExitStatus,
    },
    /// A condition holds from now on, or no more.
    Condition {
        /// Of which resource.
        address: Address,
        /// Which one.
        condition: ConditionKind,
        /// It holds.
        set: bool,
        /// Why, for machines; none where it was cleared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
        /// Why, for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        message: String,
    },
    /// The journal was full, and its oldest entries were dropped.
    Dropped {
        /// How many.
        entries: u64,
        /// The number of the last of them.
        through: u64,
        /// The hash of that one, which the oldest that is kept holds as the one before it.
        hash: Hash,
    },
    /// So many things happened that could not be noted, since the disk took nothing or too much happened at once.
    Lost {
        /// How many.
        entries: u64,
    },
    /// The agent has found that somebody changed its journal.
    Damaged {
        /// What does not fit, and where.
        why: String,
    },
    /// The journal begins here.
    Begun {
        /// Why, if there was one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Said by the control plane: what it was handed does not hold together.
    ChainBroken {
        /// The number of the entry that does not fit.
        number: u64,
        /// What is wrong there.
        why: String,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

impl Happening {
    /// The word for it, in JSON and on the wire.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::AgentStarted { .. } => "agent_started",
            Self::LinkBack { .. } => "link_back",
            Self::LinkLost => "link_lost",
            Self::AssignmentTaken { .. } => "assignment_taken",
            Self::Resource { kind, .. } => kind.word(),
            Self::ProcessEnded { .. } => "process_ended",
            Self::Condition { set: true, .. } => "condition_set",
            Self::Condition { set: false, .. } => "condition_cleared",
            Self::Dropped { .. } => "dropped",
            Self::Lost { .. } => "lost",
            Self::Damaged { .. } => "journal_damaged",
            Self::Begun { .. } => "journal_begun",
            Self::ChainBroken { .. } => "journal_broken",
            Self::Unknown => "unknown",
        }
    }

    /// What it happened to, if that is a resource.
    #[must_use]
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Resource { address, .. }
            | Self::ProcessEnded { address, .. }
            | Self::Condition { address, .. } => Some(address),
            _ => None,
        }
    }

    /// In words: a sentence's fragment, without the address. It may hold what others wrote, and is not safe to print as
    /// it is.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::AgentStarted {
                version, booted, ..
            } => match booted {
                Some(true) => format!("the machine was started, and agent {version} with it"),
                _ => format!("agent {version} was started"),
            },
            Self::LinkBack { away_ms: Some(ms) } => {
                format!(
                    "connected to the control plane again, after {} s",
                    ms / 1000
                )
            }
            Self::LinkBack { away_ms: None } => "connected to the control plane".to_owned(),
            Self::LinkLost => "lost the control plane".to_owned(),
            Self::AssignmentTaken { generation } => format!("took generation {generation}"),
            Self::Resource { message, .. } => message.clone(),
            Self::ProcessEnded { status, .. } => status.to_string(),
            Self::Condition {
                condition,
                set,
                message,
                ..
            } => {
                let word = format!("{condition:?}");
                match (set, message.as_str()) {
                    (true, "") => word,
                    (true, why) => format!("{word}: {why}"),
                    (false, _) => format!("no longer {word}"),
                }
            }
            Self::Dropped { entries, .. } => format!(
                "the journal was full: its {entries} oldest entries were dropped, as far as they were not handed over"
            ),
            Self::Lost { entries } => format!("{entries} things that happened were not noted"),
            Self::Damaged { why } => format!("the journal on the machine was changed: {why}"),
            Self::Begun { why: None } => "the journal begins".to_owned(),
            Self::Begun { why: Some(why) } => format!("the journal begins anew: {why}"),
            Self::ChainBroken { number, why } => {
                format!("the journal of this machine is broken at entry {number}: {why}")
            }
            Self::Unknown => {
                "something that only a newer plumb knows; upgrade the control plane".to_owned()
            }
        }
    }

    /// Cut to what an entry may hold.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::Resource { message: text, .. }
            | Self::Condition { message: text, .. }
            | Self::Damaged { why: text }
            | Self::Begun { why: Some(text) }
            | Self::AgentStarted { version: text, .. } => cut(text),
            _ => {}
        }
        self
    }
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        let mut end = MAX_TEXT_BYTES;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
}

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number; the first of a chain is 1.
    pub number: u64,
    /// The hash of the line before it; of the first, [`start_of`] its chain.
    pub before: Hash,
    /// When, by the machine's clock.
    pub at: Timestamp,
    /// The agent was not connected to a control plane.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub away: bool,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// All of an entry that every version knows.
#[derive(Deserialize)]
struct Frame {
    number: u64,
    before: Hash,
    at: Timestamp,
    #[serde(default)]
    away: bool,
}

impl Entry {
    /// The bytes that are kept, hashed and sent, without a line feed.
    ///
    /// # Panics
    /// Never: an entry is always JSON.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an entry is always JSON")
    }

    /// Reads a line. What happened is [`Happening::Unknown`] if only a newer version knows it.
    ///
    /// # Errors
    /// If it is no entry, in words.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("it is longer than {MAX_LINE_BYTES} bytes"));
        }
        let frame: Frame = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        Ok(Self {
            number: frame.number,
            before: frame.before,
            at: frame.at,
            away: frame.away,
            what: serde_json::from_slice(line).unwrap_or(Happening::Unknown),
        })
    }
}

/// What the first entry of a chain holds as the hash before it: no chain can be passed off as another machine's.
#[must_use]
pub fn start_of(
    lineage: &Lineage,
    workspace: &WorkspaceName,
    machine: &MachineName,
    chain: &str,
) -> Hash {
    Hash::of(format!("journal/{lineage}/{workspace}/{machine}/{chain}").as_bytes())
}

/// Where a journal ends, as its agent says it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Made anew with each journal that is begun.
    pub chain: String,
    /// The number of the newest entry; 0 if there is none.
    pub number: u64,
    /// The hash of its line.
    pub hash: Hash,
}

/// Entries that did not come, and that nothing has accounted for yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Gap {
    first: u64,
    last: u64,
    /// What the entry after them holds as the hash of the last of them.
    hash: Hash,
}

/// How far a control plane was handed a machine's journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Which chain.
    pub chain: String,
    /// The number of the newest entry that was taken.
    pub number: u64,
    /// The hash of its line.
    pub hash: Hash,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gap: Option<Gap>,
    /// Where it was broken, the last time that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<Broken>,
}

/// A place at which a chain does not hold together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Broken {
    /// The number of the entry that does not fit.
    pub number: u64,
    /// What is wrong there.
    pub why: String,
}

impl Head {
    /// Nothing was taken of this chain yet.
    #[must_use]
    pub fn start(chain: String, start: Hash) -> Self {
        Self {
            chain,
            number: 0,
            hash: start,
            gap: None,
            broken: None,
        }
    }

    /// Holds what an agent says of its journal, as it connects, against what was taken of it. `start` is what the chain that
    /// it names begins with. What is found is to be stored.
    pub fn greet(head: Option<Self>, mark: &Mark, start: Hash) -> (Self, Vec<Happening>) {
        let Some(mut head) = head else {
            return (Self::start(mark.chain.clone(), start), Vec::new());
        };
        let mut found = Vec::new();
        if head.chain != mark.chain {
            let why = format!(
                "it was begun anew; what the one before held beyond entry {} was never handed over",
                head.number
            );
            let number = head.number + 1;
            head = Self::start(mark.chain.clone(), start);
            head.breaks(number, why, &mut found);
        } else if mark.number < head.number {
            let why = format!(
                "it ends at entry {}, though {} were handed over: it was cut off, or the machine was set back to an earlier state",
                mark.number, head.number
            );
            head.breaks(mark.number + 1, why, &mut found);
            head.number = mark.number;
            head.hash = mark.hash;
            head.gap = None;
        } else if mark.number == head.number && mark.hash != head.hash {
            let why = "it is not the entry that was handed over under this number".to_owned();
            head.breaks(mark.number, why, &mut found);
            head.hash = mark.hash;
        }
        (head, found)
    }

    fn breaks(&mut self, number: u64, why: String, found: &mut Vec<Happening>) {
        found.push(Happening::ChainBroken {
            number,
            why: why.clone(),
        });
        self.broken = Some(Broken { number, why });
    }

    /// Takes the next line. The entry, if it is one that was not taken before, and what was found wrong; a chain that is
    /// broken is told of once and goes on behind the break.
    pub fn take(&mut self, line: &[u8]) -> (Option<Entry>, Vec<Happening>) {
        let mut found = Vec::new();
        let entry = match Entry::parse(line) {
            Ok(entry) => entry,
            Err(why) => {
                self.breaks(
                    self.number + 1,
                    format!("it cannot be read: {why}"),
                    &mut found,
                );
                self.number += 1;
                self.hash = Hash::of(line);
                return (None, found);
            }
        };
        if entry.number <= self.number {
            return (None, found);
        }
        if entry.number > self.number + 1 {
            let first = self.gap.take().map_or(self.number + 1, |gap| gap.first);
            self.gap = Some(Gap {
                first,
                last: entry.number - 1,
                hash: entry.before,
            });
        } else if entry.before != self.hash {
            let why = "the hash that it holds is not that of the entry before it: one of the two was changed, or others were put in";
            self.breaks(entry.number, why.to_owned(), &mut found);
        }
        self.number = entry.number;
        self.hash = Hash::of(line);
        match &entry.what {
            Happening::Dropped { through, hash, .. } => {
                let explained = self.gap.as_ref().is_some_and(|gap| {
                    *through > gap.last || (*through == gap.last && *hash == gap.hash)
                });
                if explained {
                    self.gap = None;
                }
            }
            Happening::Damaged { why } => {
                self.broken = Some(Broken {
                    number: entry.number,
                    why: why.clone(),
                });
            }
            _ => {}
        }
        (Some(entry), found)
    }

    /// All that the agent has was taken; it says that this is where its journal ends.
    pub fn reached(&mut self, mark: &Mark) -> Vec<Happening> {
        let mut found = Vec::new();
        if mark.number != self.number {
            return found;
        }
        if mark.hash != self.hash {
            let why = "it is not what the agent had written: it was changed on the machine's disk";
            self.breaks(self.number, why.to_owned(), &mut found);
            self.hash = mark.hash;
        }
        if let Some(gap) = self.gap.take() {
            let why = format!(
                "entries {} to {} are missing, and nothing in the journal says that they were dropped",
                gap.first, gap.last
            );
            self.breaks(gap.first, why, &mut found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Hash {
        Hash::of(b"start")
    }

    fn mark(lines: &[Vec<u8>]) -> Mark {
        Mark {
            chain: "c".into(),
            number: lines.len() as u64,
            hash: lines.last().map_or(start(), |line| Hash::of(line)),
        }
    }

    fn entry(number: u64, before: Hash, what: Happening) -> Vec<u8> {
        Entry {
            number,
            before,
            at: Timestamp::UNIX_EPOCH,
            away: number.is_multiple_of(2),
            what,
        }
        .line()
    }

    fn taken(generation: u64) -> Happening {
        Happening::AssignmentTaken {
            generation: Generation(generation),
        }
    }

    fn chain(whats: impl IntoIterator<Item = Happening>) -> Vec<Vec<u8>> {
        let mut before = start();
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for what in whats {
            let line = entry(lines.len() as u64 + 1, before, what);
            before = Hash::of(&line);
            lines.push(line);
        }
        lines
    }

    fn five() -> Vec<Vec<u8>> {
        chain((1..=5).map(taken))
    }

    /// What is found when these are handed over after the first `had`, all of them in one go.
    fn hand_over(lines: &[Vec<u8>], mark: &Mark, had: &[Vec<u8>]) -> (Head, Vec<Happening>) {
        let mut head = Head::start("c".into(), start());
        for line in had {
            assert_eq!(head.take(line).1, []);
        }
        let (mut head, mut found) = Head::greet(Some(head), mark, start());
        for line in lines {
            found.extend(head.take(line).1);
        }
        found.extend(head.reached(mark));
        (head, found)
    }

    #[test]
    fn a_chain_that_nobody_touched_is_taken_whole_whatever_comes_twice() {
        let lines = five();
        for had in 0..=5 {
            let (head, found) = hand_over(&lines, &mark(&lines), &lines[..had]);
            assert_eq!(found, [], "{had}");
            assert_eq!((head.number, head.broken), (5, None));
        }
    }

    #[test]
    fn an_entry_reads_back_and_one_of_a_newer_version_keeps_its_place() {
        let line = entry(7, start(), taken(3));
        assert!(line.starts_with(br#"{"number":7,"before":""#));
        let read = Entry::parse(&line).unwrap();
        assert_eq!((read.number, read.what), (7, taken(3)));
        let text = String::from_utf8(line).unwrap();
        for (from, to) in [
            ("assignment_taken", "levitated"),
            ("\"generation\":3", "\"generation\":\"a word\""),
        ] {
            let newer = text.replace(from, to);
            assert_ne!(newer, text);
            let read = Entry::parse(newer.as_bytes()).unwrap();
            assert_eq!((read.number, read.what), (7, Happening::Unknown));
        }
    }

    /// Mutation: leave out any one of the comparisons in `take`, `greet` and `reached`.
    #[test]
    fn whatever_was_changed_taken_away_or_put_in_is_found_where_it_is() {
        let lines = five();
        let whole = mark(&lines);
        let number = |found: &[Happening]| match found {
            [Happening::ChainBroken { number, .. }] => *number,
            other => panic!("{other:?}"),
        };
        let found = |lines: &[Vec<u8>], mark: &Mark, had: &[Vec<u8>]| {
            let (head, found) = hand_over(lines, mark, had);
            assert_eq!(head.number, mark.number);
            assert_eq!(head.broken.as_ref().map(|b| b.number), Some(number(&found)));
            number(&found)
        };
        let mut changed = lines.clone();
        changed[1] = entry(2, Hash::of(&lines[0]), taken(99));
        assert_eq!(found(&changed, &whole, &[]), 3, "its successor notices");
        let mut changed = lines.clone();
        changed[4] = entry(5, Hash::of(&lines[3]), taken(99));
        assert_eq!(found(&changed, &whole, &[]), 5, "the agent remembers");
        let mut unreadable = lines.clone();
        unreadable[4] = b"{}".to_vec();
        let (_, said) = hand_over(&unreadable, &whole, &[]);
        assert_eq!(said.len(), 2, "{said:?}");
        let mut without = lines.clone();
        without.remove(2);
        assert_eq!(found(&without, &whole, &[]), 3, "it is missing");
        assert_eq!(found(&lines[2..], &whole, &[]), 1, "the first are missing");
        // A fork: the same up to 3, and then something else.
        let fork = chain([taken(1), taken(2), taken(3), taken(8), taken(9), taken(10)]);
        assert_eq!(found(&fork, &mark(&fork), &lines[..4]), 5);
        assert_eq!(found(&fork[..4], &mark(&fork[..4]), &lines[..4]), 4);
        assert_eq!(found(&lines[..3], &mark(&lines[..3]), &lines), 4, "cut off");
        let mut other = whole.clone();
        other.chain = "d".into();
        let (head, said) = hand_over(&lines, &other, &lines[..2]);
        assert_eq!(number(&said), 3, "begun anew");
        assert_eq!((head.chain.as_str(), head.number), ("d", 5));
    }

    /// Mutation: close every gap in `take` when any `Dropped` comes.
    #[test]
    fn what_was_dropped_is_no_break_if_the_chain_itself_says_so() {
        let mut lines = five();
        let marker = |lines: &[Vec<u8>], through: usize, hash| {
            entry(
                6,
                Hash::of(&lines[4]),
                Happening::Dropped {
                    entries: through as u64,
                    through: through as u64,
                    hash,
                },
            )
        };
        lines.push(marker(&lines, 3, Hash::of(&lines[2])));
        for had in 0..=3 {
            let (head, found) = hand_over(&lines[3..], &mark(&lines), &lines[..had]);
            assert_eq!(found, [], "{had}");
            assert_eq!(head.number, 6);
        }
        // It speaks of fewer, or of others.
        for (through, hash) in [(2, Hash::of(&lines[1])), (3, Hash::of(b"x"))] {
            let mut lied = lines[..5].to_vec();
            lied.push(marker(&lied, through, hash));
            let (_, found) = hand_over(&lied[3..], &mark(&lied), &[]);
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_so_that_every_line_is_within_its_bound() {
        let what = Happening::Resource {
            address: format!("m/o/file//{}", "x".repeat(3000)).parse().unwrap(),
            kind: EventKind::Failed,
            message: "\u{1}".repeat(100_000),
        };
        let line = entry(1, start(), what.bounded());
        // A control character takes six bytes in JSON.
        assert!(line.len() > 6 * MAX_TEXT_BYTES && line.len() <= MAX_LINE_BYTES);
    }
}
