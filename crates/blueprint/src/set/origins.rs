//! Where documents and their keys stand. There are tens of thousands of places in a large workspace, and few of them are
//! ever asked for: so a document's are kept together, and an [`Origin`] is made when it is.

use std::collections::BTreeMap;

use plumb_model::plan::Origin;
use serde::{Deserialize, Serialize};

/// The places of all documents, by kind and name, and of their keys two levels deep.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Origins(BTreeMap<String, BTreeMap<String, Written>>);

/// Where one document and its keys stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    file: String,
    line: u32,
    column: u32,
    /// The JSON pointers of the keys, one behind the other.
    pointers: String,
    /// Where each pointer ends, and the line and column of its key.
    keys: Vec<(u32, u32, u32)>,
    /// What of the document stands in another file: the services of a Compose file.
    elsewhere: BTreeMap<String, Origin>,
}

impl Written {
    /// A document whose name stands there.
    pub fn new(file: &str, line: u32, column: u32) -> Self {
        Self {
            file: file.to_owned(),
            line,
            column,
            pointers: String::new(),
            keys: Vec::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Notes where the key at a pointer stands.
    pub fn key(&mut self, pointer: &str, line: u32, column: u32) {
        self.pointers.push_str(pointer);
        // A file has a megabyte at most.
        let end = self.pointers.len().try_into().unwrap_or(u32::MAX);
        self.keys.push((end, line, column));
    }

    fn get(&self, pointer: &str) -> Option<Origin> {
        let origin = |line, column| Origin {
            file: self.file.clone(),
            line,
            column,
        };
        if pointer.is_empty() {
            return Some(origin(self.line, self.column));
        }
        let mut start = 0;
        for &(end, line, column) in &self.keys {
            let end = end as usize;
            // It may come from elsewhere, so what is no range of the text is nothing.
            if self.pointers.get(start..end) == Some(pointer) {
                return Some(origin(line, column));
            }
            start = end;
        }
        self.elsewhere.get(pointer).cloned()
    }
}

impl Origins {
    pub(crate) fn insert(&mut self, kind: &str, name: String, written: Written) {
        let of_kind = self.0.entry(kind.to_owned()).or_default();
        of_kind.insert(name, written);
    }

    /// Notes where something of a document stands that is written in another file.
    pub(crate) fn elsewhere(&mut self, kind: &str, name: &str, pointer: String, origin: Origin) {
        let of_kind = self.0.get_mut(kind);
        if let Some(written) = of_kind.and_then(|all| all.get_mut(name)) {
            written.elsewhere.insert(pointer, origin);
        }
    }

    /// Where the key at a JSON pointer of a document stands; the document's name for the empty pointer.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str, pointer: &str) -> Option<Origin> {
        self.0.get(kind)?.get(name)?.get(pointer)
    }

    /// The same; the closest known place above it otherwise.
    #[must_use]
    pub fn closest(&self, kind: &str, name: &str, pointer: &str) -> Option<Origin> {
        let written = self.0.get(kind)?.get(name)?;
        let mut at = pointer;
        loop {
            match written.get(at) {
                Some(origin) => return Some(origin),
                None => at = &at[..at.rfind('/')?],
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_known_place_above_is_found_and_damage_finds_nothing() {
        let mut written = Written::new("a.yaml", 2, 7);
        written.key("/ports", 3, 1);
        written.key("/ports/http", 4, 3);
        let mut origins = Origins::default();
        origins.insert("App", "hello".to_owned(), written);
        let other = Origin {
            file: "compose.yaml".to_owned(),
            line: 9,
            column: 3,
        };
        origins.elsewhere("App", "hello", "/compose/db".to_owned(), other);
        let check = |pointer: &str, expected: Option<(u32, u32)>| {
            let found = origins.closest("App", "hello", pointer);
            assert_eq!(found.map(|o| (o.line, o.column)), expected, "{pointer}");
        };
        check("", Some((2, 7)));
        check("/ports", Some((3, 1)));
        check("/ports/http", Some((4, 3)));
        check("/ports/http/publish/x", Some((4, 3)));
        check("/ports/other", Some((3, 1)));
        check("/port", Some((2, 7)));
        check("/compose/db", Some((9, 3)));
        check("port", None);
        assert_eq!(origins.get("App", "hello", "/run"), None);
        assert_eq!(origins.closest("App", "other", ""), None);
        let text = serde_json::to_string(&origins).unwrap();
        assert_eq!(serde_json::from_str::<Origins>(&text).unwrap(), origins);
        for damaged in [text.replace("[6,", "[60,"), text.replace("[17,", "[1,")] {
            assert_ne!(damaged, text);
            let damaged: Origins = serde_json::from_str(&damaged).unwrap();
            assert_eq!(damaged.get("App", "hello", "/ports/http"), None);
        }
    }
}
