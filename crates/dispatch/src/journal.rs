//! The hand-over of an agent's journal: what the agent's end remembers of it, and what goes over the wire.
//!
//! Flow: the hello says where the journal ends; the control plane answers through which entry it has stored it; the agent
//! sends what comes after, a chunk at a time, and each is answered once it is stored. So what was lost with a link is
//! sent again, and nothing is kept in memory for it. How entries are chained and checked is `model::journal`'s.

use plumb_model::journal::Mark;

/// The most entries in one chunk.
pub const MAX_ENTRIES: usize = 256;

/// The most bytes of entries in one chunk: far less than one message of the wire may hold.
pub const MAX_CHUNK_BYTES: usize = 128 * 1024;

/// A chunk that was not answered for so long is sent again, in milliseconds.
const ANSWER_WITHIN_MS: u64 = 60_000;

/// Entries on their way to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where the journal ended when these were read.
    pub newest: Mark,
    /// The lines, without line feeds, in order. Within [`MAX_ENTRIES`] and [`MAX_CHUNK_BYTES`].
    pub lines: Vec<Vec<u8>>,
}

/// What the agent's end of a session remembers of the journal.
#[derive(Debug, Default)]
pub(crate) struct AgentJournal {
    mark: Option<Mark>,
    /// Through which entry the control plane has stored it; none until it has said so on this stream.
    stored: Option<u64>,
    /// Since when a chunk is being read, or waits for its answer.
    in_flight: Option<u64>,
}

impl AgentJournal {
    /// Where the journal ends, for the hello.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// This is where the journal ends. The control plane is never handed what the hello would not own up to.
    pub fn reads(&mut self, mark: Mark) {
        self.mark = Some(mark);
    }

    /// Another stream begins, or none is left.
    pub fn cut(&mut self) {
        self.stored = None;
        self.in_flight = None;
    }

    /// There are new entries on the disk. After which entry to read, if something is to be handed over now.
    pub fn grew(&mut self, mark: Mark, now_ms: u64) -> Option<u64> {
        self.mark = Some(mark);
        self.next(now_ms)
    }

    /// The control plane has stored everything through this entry. After which to read, if there is more.
    pub fn stored(&mut self, chain: &str, through: u64, now_ms: u64) -> Option<u64> {
        if self.mark.as_ref().is_none_or(|mark| mark.chain != chain) {
            return None;
        }
        self.stored = Some(through);
        self.in_flight = None;
        self.next(now_ms)
    }

    /// After which entry to read again, since what was handed over has not been answered for long: a control plane that
    /// has too much to do, or whose disk is full, answers nothing.
    pub fn unanswered(&mut self, now_ms: u64) -> Option<u64> {
        self.in_flight
            .take_if(|since| now_ms.saturating_sub(*since) >= ANSWER_WITHIN_MS)?;
        self.next(now_ms)
    }

    fn next(&mut self, now_ms: u64) -> Option<u64> {
        let (mark, stored) = (self.mark.as_ref()?, self.stored?);
        if self.in_flight.is_some() || stored >= mark.number {
            return None;
        }
        self.in_flight = Some(now_ms);
        Some(stored)
    }
}

#[cfg(test)]
mod tests {
    use plumb_model::Hash;

    use super::*;

    fn mark(number: u64) -> Mark {
        Mark {
            chain: "c".into(),
            number,
            hash: Hash::of(b"x"),
        }
    }

    /// Mutation: hand over in `grew` without waiting for an answer.
    #[test]
    fn one_chunk_is_under_way_at_a_time_and_none_before_the_control_plane_has_said_from_where() {
        let mut journal = AgentJournal::default();
        assert_eq!(journal.stored("c", 0, 0), None, "there is no journal");
        assert_eq!(journal.grew(mark(3), 0), None, "nobody has said from where");
        assert_eq!(journal.stored("d", 1, 0), None, "another chain");
        assert_eq!(journal.stored("c", 1, 0), Some(1));
        assert_eq!(journal.grew(mark(9), 0), None, "one is under way");
        assert_eq!(journal.stored("c", 3, 0), Some(3));
        assert_eq!(journal.stored("c", 9, 0), None, "that is all");
        assert_eq!(journal.grew(mark(10), 0), Some(9));
        journal.cut();
        assert_eq!(journal.grew(mark(11), 0), None);
        assert_eq!(
            journal.stored("c", 9, 0),
            Some(9),
            "what was lost goes again"
        );
        assert_eq!(journal.unanswered(ANSWER_WITHIN_MS - 1), None);
        assert_eq!(journal.unanswered(ANSWER_WITHIN_MS), Some(9));
    }
}
