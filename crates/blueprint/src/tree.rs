//! One document as it is written: its values, each with the place where it stands.
//!
//! Texts and keys are borrowed from the file wherever they stand there as they are, since nearly all of them do and a
//! large workspace has a hundred thousand. Whoever needs a plain JSON value, such as the validator, is given a copy.

use std::borrow::Cow;

use serde_json::{Number, Value as Json};

use crate::events::append;
use crate::source::{Mark, Range};
use crate::spans::{Entry, Kids, Place};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree<'a> {
    pub value: Value<'a>,
    /// Where it stands; of what an alias or a merge key pulled in, where that is.
    pub entry: Entry,
    /// It stands there itself.
    pub own: bool,
}

/// What JSON has, and nothing else.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number),
    String(Cow<'a, str>),
    Array(Vec<Tree<'a>>),
    Object(Map<'a>),
}

/// A mapping: sorted by key, each once.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Map<'a>(Vec<(Cow<'a, str>, Tree<'a>)>);

impl<'a> Map<'a> {
    /// A mapping of these in any order; none if a key is there twice.
    pub fn new(mut all: Vec<(Cow<'a, str>, Tree<'a>)>) -> Option<Self> {
        all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let twice = all.windows(2).any(|two| two[0].0 == two[1].0);
        (!twice).then_some(Self(all))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tree<'a>)> {
        self.0.iter().map(|(key, tree)| (&**key, tree))
    }

    pub fn get(&self, key: &str) -> Option<&Tree<'a>> {
        /// Up to here it is quicker to compare lengths, which differ nearly always, than to halve.
        const FEW: usize = 16;
        let (_, tree) = if self.0.len() <= FEW {
            self.0.iter().find(|(k, _)| **k == *key)?
        } else {
            let at = self.0.binary_search_by(|(k, _)| (**k).cmp(key)).ok()?;
            &self.0[at]
        };
        Some(tree)
    }
}

impl<'a> Value<'a> {
    pub fn get(&self, key: &str) -> Option<&Tree<'a>> {
        self.as_object()?.get(key)
    }

    pub fn as_object(&self) -> Option<&Map<'a>> {
        match self {
            Self::Object(map) => Some(map),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Tree<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Self::Object(_))
    }

    pub fn is_array(&self) -> bool {
        matches!(self, Self::Array(_))
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }

    /// The same without places.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Number(number) => Json::Number(number.clone()),
            Self::String(text) => Json::String(text.clone().into_owned()),
            Self::Array(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Object(map) => map
                .iter()
                .map(|(key, tree)| (key.to_owned(), tree.value.to_json()))
                .collect(),
        }
    }
}

impl PartialEq<Json> for Value<'_> {
    fn eq(&self, other: &Json) -> bool {
        match (self, other) {
            (Self::String(one), Json::String(other)) => one == other,
            (Self::String(_), _) | (_, Json::String(_)) => false,
            _ => self.to_json() == *other,
        }
    }
}

impl Tree<'static> {
    /// Of a document without a value.
    pub const NOTHING: Self = {
        const START: Mark = Mark { line: 0, column: 0 };
        Self {
            value: Value::Null,
            entry: Entry {
                key: None,
                value: Range {
                    start: START,
                    end: START,
                },
                block: false,
            },
            own: false,
        }
    };

    /// What two passes have read: the values, and the places of what stands in the document itself.
    pub fn join(value: Json, place: &Place) -> Self {
        Self::within(value, Some(place), place.entry)
    }

    /// `pulled` is the place of what has none of its own.
    fn within(value: Json, place: Option<&Place>, pulled: Entry) -> Self {
        let entry = place.map_or(pulled, |place| place.entry);
        // What was merged in shows where the merge key stands, if there is one.
        let merged = place.and_then(|place| place.kid("<<"));
        let below = merged.map_or(entry, |merged| merged.entry);
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => Value::Number(number),
            Json::String(text) => Value::String(text.into()),
            Json::Array(items) => {
                let places = match place.map(|place| &place.kids) {
                    Some(Kids::List(places)) => places.as_slice(),
                    _ => &[],
                };
                let items = items.into_iter().enumerate();
                Value::Array(
                    items
                        .map(|(at, item)| Self::within(item, places.get(at), below))
                        .collect(),
                )
            }
            Json::Object(map) => {
                let members = map.into_iter().map(|(key, value)| {
                    let own = place.and_then(|place| place.kid(&key));
                    let tree = Self::within(value, own, below);
                    (Cow::Owned(key), tree)
                });
                // Sorted already, and no key of a map is there twice.
                Value::Object(Map(members.collect()))
            }
        };
        Self {
            value,
            entry,
            own: place.is_some(),
        }
    }

    /// A JSON value that stands nowhere.
    #[cfg(test)]
    pub fn of_json(value: &Json) -> Self {
        Self::within(value.clone(), None, Self::NOTHING.entry)
    }
}

impl<'a> Tree<'a> {
    fn kid(&self, token: &str) -> Option<&Self> {
        match &self.value {
            Value::Array(items) => items.get(token.parse::<usize>().ok()?),
            Value::Object(map) if token.contains('~') => {
                map.get(&token.replace("~1", "/").replace("~0", "~"))
            }
            Value::Object(map) => map.get(token),
            _ => None,
        }
    }

    /// What is at a JSON pointer; if there is nothing, the closest value above it.
    pub fn nearest(&self, pointer: &str) -> &Self {
        let mut tree = self;
        for token in pointer.split('/').skip(1) {
            match tree.kid(token) {
                Some(kid) => tree = kid,
                None => break,
            }
        }
        tree
    }

    /// The JSON pointer of a value within this one. It is looked for, since only messages need it.
    pub fn pointer(&self, wanted: &Tree<'_>) -> String {
        let mut out = String::new();
        self.find(wanted, &mut out);
        out
    }

    fn find(&self, wanted: &Tree<'_>, pointer: &mut String) -> bool {
        if std::ptr::addr_eq(self, wanted) {
            return true;
        }
        let above = pointer.len();
        let mut look = |key: &str, tree: &Tree<'a>| {
            append(pointer, key);
            let found = tree.find(wanted, pointer);
            if !found {
                pointer.truncate(above);
            }
            found
        };
        match &self.value {
            Value::Array(items) => items
                .iter()
                .enumerate()
                .any(|(at, item)| look(&at.to_string(), item)),
            Value::Object(map) => map.iter().any(|(key, tree)| look(key, tree)),
            _ => false,
        }
    }

    /// Tells of the keys of the top two levels that stand in the document, with their pointers.
    pub fn upper(&self, mut tell: impl FnMut(&str, &Entry)) {
        let mut pointer = String::new();
        for (key, tree) in self.members() {
            append(&mut pointer, key);
            tell(&pointer, &tree.entry);
            let above = pointer.len();
            for (key, tree) in tree.members() {
                append(&mut pointer, key);
                tell(&pointer, &tree.entry);
                pointer.truncate(above);
            }
            if let Value::Array(items) = &tree.value {
                for (at, item) in items.iter().enumerate().filter(|(_, item)| item.own) {
                    append(&mut pointer, &at.to_string());
                    tell(&pointer, &item.entry);
                    pointer.truncate(above);
                }
            }
            pointer.clear();
        }
    }

    fn members(&self) -> impl Iterator<Item = (&str, &Self)> {
        let all = self.value.as_object().into_iter().flat_map(Map::iter);
        all.filter(|(_, tree)| tree.own)
    }
}
