//! Where everything in one document stands: a tree in the shape of its value, looked up by JSON pointer.
//!
//! A tree and no map of pointers: a pointer for each value would cost more than the value.

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
    fn kid(&self, token: &str) -> Option<&Self> {
        match &self.kids {
            Kids::None => None,
            Kids::List(kids) => kids.get(token.parse::<usize>().ok()?),
            Kids::Map(kids) if token.contains('~') => {
                let key = token.replace("~1", "/").replace("~0", "~");
                Self::by_key(kids, &key)
            }
            Kids::Map(kids) => Self::by_key(kids, token),
        }
    }

    fn by_key<'a>(kids: &'a [(Box<str>, Self)], key: &str) -> Option<&'a Self> {
        let at = kids.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
        Some(&kids[at].1)
    }
}

impl Spans {
    /// The entry at a pointer.
    pub fn get(&self, pointer: &str) -> Option<&Entry> {
        let mut place = self.root.as_ref()?;
        for token in pointer.split('/').skip(1) {
            place = place.kid(token)?;
        }
        Some(&place.entry)
    }

    /// The entry at a pointer; for what came out of an alias or a merge, the place that pulled it in.
    pub fn nearest(&self, pointer: &str) -> Option<&Entry> {
        let mut place = self.root.as_ref()?;
        for token in pointer.split('/').skip(1) {
            match place.kid(token) {
                Some(kid) => place = kid,
                None => return Some(&place.kid("<<").unwrap_or(place).entry),
            }
        }
        Some(&place.entry)
    }

    /// Tells of the keys of the top two levels, with their pointers.
    pub fn upper(&self, mut tell: impl FnMut(&str, &Entry)) {
        let mut pointer = String::new();
        if let Some(place) = &self.root {
            named(&mut pointer, &place.kids, &mut |pointer, place| {
                tell(pointer, &place.entry);
                named(pointer, &place.kids, &mut |pointer, place| {
                    tell(pointer, &place.entry);
                });
            });
        }
    }
}

/// Tells of what is in a value, with its pointer; `pointer` is the value's own, before and after. A key that is no text
/// has a NUL in front, and is left out.
fn named(pointer: &mut String, kids: &Kids, tell: &mut dyn FnMut(&mut String, &Place)) {
    let above = pointer.len();
    let mut one = |key: &str, place| {
        crate::events::append(pointer, key);
        tell(pointer, place);
        pointer.truncate(above);
    };
    match kids {
        Kids::None => {}
        Kids::List(list) => {
            for (at, place) in list.iter().enumerate() {
                one(&at.to_string(), place);
            }
        }
        Kids::Map(map) => {
            for (key, place) in map.iter().filter(|(key, _)| !key.starts_with('\0')) {
                one(key, place);
            }
        }
    }
}
