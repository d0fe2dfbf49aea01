//! Where everything in one document stands, as the event pass finds it: a tree in the shape of its value.

use crate::source::Range;

/// Where one value stands, and the key in front of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub key: Option<Range>,
    /// Of a block, only where it starts; it ends there too.
    pub value: Range,
    /// A mapping or list over several lines: its key is the better place to point at.
    pub block: bool,
}

/// A value's place, and those of what is in it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub entry: Entry,
    pub kids: Kids,
}

/// What is in a value.
#[derive(Debug, Clone)]
pub(crate) enum Kids {
    /// It is a scalar or an alias.
    None,
    List(Vec<Place>),
    /// Sorted by key, each once.
    Map(Vec<(Box<str>, Place)>),
}

impl Kids {
    /// A mapping's, in any order.
    pub fn map(mut kids: Vec<(Box<str>, Place)>) -> Self {
        kids.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Self::Map(kids)
    }
}

/// The places of one document.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    pub root: Option<Place>,
    /// Its values cannot be trusted: there is a problem that the next pass would stumble over.
    pub unreadable: bool,
    /// There is nothing in it but comments.
    pub empty: bool,
}

impl Place {
    /// The place of what a mapping has under a key.
    pub fn kid(&self, key: &str) -> Option<&Self> {
        let Kids::Map(kids) = &self.kids else {
            return None;
        };
        let at = kids.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&kids[at].1)
    }

    /// The place at a JSON pointer.
    pub fn find(&self, pointer: &str) -> Option<&Self> {
        pointer
            .split('/')
            .skip(1)
            .try_fold(self, |place, token| match &place.kids {
                Kids::List(kids) => kids.get(token.parse::<usize>().ok()?),
                _ => place.kid(&token.replace("~1", "/").replace("~0", "~")),
            })
    }
}
