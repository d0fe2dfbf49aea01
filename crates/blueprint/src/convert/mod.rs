//! From one document's values to typed ones: short forms are written out, small grammars are checked, and
//! what refers to other documents is noted for `cross`.
//!
//! Structure has been checked by then. A value of the wrong type has been reported and is passed over here,
//! so that everything else in the document is still checked in the same run.

pub(crate) mod app;
mod around;
mod container;
pub(crate) mod infra;
mod keys;
pub(crate) mod machine;
pub(crate) mod process;
mod schedule;
pub(crate) mod setup;
mod source;
mod text;
pub(crate) mod tuning;
mod variables;
pub(crate) mod workspace;

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::check::{Checked, name, wrong_type};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, quote};
use crate::document::Document;
use crate::set::{Reference, Selector, Text};
use crate::tree::{Tree, Value};
use plumb_model::{MachineName, NameError, OwnerName, SecretName};

/// A value, and where in the document it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Node<'a> {
    pub value: &'a Value<'a>,
    tree: &'a Tree<'a>,
}

impl<'a> From<&'a Tree<'a>> for Node<'a> {
    fn from(tree: &'a Tree<'a>) -> Self {
        let value = &tree.value;
        Self { value, tree }
    }
}

/// A reference, and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub reference: Reference,
    pub spot: Spot,
}

/// What a text with references became.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rendered {
    pub text: Text,
    pub uses: Vec<Use>,
}

/// Where a text stands, which decides on what it may refer to and hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Env,
    Command,
    Content,
}

/// The workspace's variables.
#[derive(Debug, Default)]
pub(crate) struct Vars {
    pub values: BTreeMap<String, String>,
    /// The manifest could not be read in full, so an unknown one may well be there.
    pub incomplete: bool,
}

/// What reads one document.
pub(crate) struct Reader<'a, 'b> {
    pub document: &'a Document<'a>,
    pub checked: &'b Checked,
    pub vars: &'b Vars,
    pub out: &'b mut Diagnostics,
}

impl<'a> Reader<'a, '_> {
    pub fn root(&self) -> Node<'a> {
        const NOTHING: &Tree<'static> = &Tree::NOTHING;
        self.document.tree.as_ref().unwrap_or(NOTHING).into()
    }

    pub fn get(&self, node: &Node<'a>, key: &str) -> Option<Node<'a>> {
        node.value.get(key).map(Node::from)
    }

    /// The entries of a mapping.
    pub fn entries(&mut self, node: &Node<'a>) -> Vec<(&'a str, Node<'a>)> {
        match node.value {
            Value::Object(map) => map.iter().map(|(key, tree)| (key, tree.into())).collect(),
            _ => {
                self.mismatch(node, "a mapping");
                Vec::new()
            }
        }
    }

    pub fn items(&self, node: &Node<'a>) -> Vec<Node<'a>> {
        let items = node.value.as_array().unwrap_or_default();
        items.iter().map(Node::from).collect()
    }

    pub fn text(&mut self, node: &Node<'a>) -> Option<&'a str> {
        let text = node.value.as_str();
        if text.is_none() {
            self.mismatch(node, "text");
        }
        text
    }

    pub fn get_text(&mut self, node: &Node<'a>, key: &str) -> Option<(&'a str, Node<'a>)> {
        let node = self.get(node, key)?;
        Some((self.text(&node)?, node))
    }

    pub fn get_number(&mut self, node: &Node<'a>, key: &str) -> Option<u32> {
        let node = self.get(node, key)?;
        let number = node.value.as_u64().and_then(|n| u32::try_from(n).ok());
        if number.is_none() {
            self.mismatch(&node, "a whole number");
        }
        number
    }

    /// Says that a type is wrong, unless that has been said. That the schema and this code agree is nothing
    /// to rely on silently.
    pub fn mismatch(&mut self, node: &Node<'_>, expected: &str) {
        if !self.is_reported(node) {
            let (at, value) = (self.at(node), node.value.to_json());
            let problem = wrong_type(self.document, &at, &value, &[expected.to_owned()]);
            self.out.push(problem);
        }
    }

    /// The pointer of a value, which only messages need.
    fn at(&self, node: &Node<'_>) -> String {
        self.root().tree.pointer(node.tree)
    }

    /// What a value is called in a message.
    pub fn called(&self, node: &Node<'_>) -> String {
        name(&self.at(node))
    }

    /// Whether the structural check has complained about a value.
    pub fn is_reported(&self, node: &Node<'_>) -> bool {
        !self.checked.reported.is_empty() && self.checked.reported.contains(&self.at(node))
    }

    pub fn spot(&self, node: &Node<'_>) -> Spot {
        self.document.spot_of(node.tree)
    }

    pub fn key_spot(&self, node: &Node<'_>) -> Spot {
        self.document.key_spot_of(node.tree)
    }

    /// The place of the `nth` occurrence (from 0) of a text inside a value.
    pub fn inside(&self, node: &Node<'_>, needle: &str, nth: usize) -> Spot {
        self.document.inside(node.tree, needle, nth)
    }

    /// Reports a value.
    pub fn bad(
        &mut self,
        node: &Node<'_>,
        code: Code,
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        let spot = self.spot(node);
        self.out.push(
            Diagnostic::error(code, message)
                .here(&spot)
                .maybe_hint(hint.map(str::to_owned)),
        );
    }

    /// Reports a key.
    pub fn bad_key(
        &mut self,
        node: &Node<'_>,
        code: Code,
        message: impl Into<String>,
        hint: Option<&str>,
    ) {
        let spot = self.key_spot(node);
        self.out.push(
            Diagnostic::error(code, message)
                .here(&spot)
                .maybe_hint(hint.map(str::to_owned)),
        );
    }

    /// Parses a name that stands as a value.
    pub fn name<N: std::str::FromStr<Err = NameError>>(&mut self, node: &Node<'a>) -> Option<N> {
        let text = self.text(node)?;
        let spot = self.spot(node);
        self.parse_name(text, &spot)
    }

    /// Parses a name that stands as a key.
    pub fn name_key<N: std::str::FromStr<Err = NameError>>(
        &mut self,
        key: &str,
        node: &Node<'_>,
    ) -> Option<N> {
        let spot = self.key_spot(node);
        self.parse_name(key, &spot)
    }

    fn parse_name<N: std::str::FromStr<Err = NameError>>(
        &mut self,
        text: &str,
        spot: &Spot,
    ) -> Option<N> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                let better = suggestion(text);
                self.out.push(
                    Diagnostic::error(
                        Code::BadName,
                        format!("{} is no name: {error}", quote(text)),
                    )
                    .here(spot)
                    .maybe_hint(better.map(|b| format!("`{b}` would be one"))),
                );
                None
            }
        }
    }

    pub fn duration(
        &mut self,
        node: &Node<'a>,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let text = self.text(node)?;
        match crate::scalar::duration_ms(text) {
            Ok(ms) if range.contains(&ms) => Some(ms),
            Ok(_) => {
                let message = format!(
                    "{} is {}, and must lie between {} and {}",
                    self.called(node),
                    quote(text),
                    shown_ms(*range.start()),
                    shown_ms(*range.end())
                );
                self.bad(node, Code::OutOfRange, message, None);
                None
            }
            Err(problem) => {
                let hint = text
                    .parse::<u64>()
                    .ok()
                    .map(|n| format!("write `{n}s` for {n} seconds"));
                self.bad(
                    node,
                    Code::BadDuration,
                    format!("{} is no duration", quote(text)),
                    hint.as_deref().or(Some(problem)),
                );
                None
            }
        }
    }

    /// A number of bytes within a range; `shown` is that range in words.
    pub fn size(
        &mut self,
        node: &Node<'a>,
        range: std::ops::RangeInclusive<u64>,
        shown: &str,
    ) -> Option<u64> {
        let text = self.text(node)?;
        match crate::scalar::size_bytes(text) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            Ok(_) => {
                let message = format!(
                    "{} is {}, and must lie between {shown}",
                    self.called(node),
                    quote(text)
                );
                self.bad(node, Code::OutOfRange, message, None);
                None
            }
            Err(problem) => {
                self.bad(
                    node,
                    Code::BadSize,
                    format!("{} is no size", quote(text)),
                    Some(problem),
                );
                None
            }
        }
    }

    /// True or false.
    pub fn get_bool(&mut self, node: &Node<'a>, key: &str) -> Option<bool> {
        let node = self.get(node, key)?;
        let value = node.value.as_bool();
        if value.is_none() {
            self.mismatch(&node, "true or false");
        }
        value
    }

    /// A list of names, each with its place; a name that stands there twice is reported.
    pub fn names(&mut self, node: &Node<'a>) -> Vec<(OwnerName, Spot)> {
        let mut out: Vec<(OwnerName, Spot)> = Vec::new();
        for item in self.items(node) {
            let Some(name) = self.name::<OwnerName>(&item) else {
                continue;
            };
            let spot = self.spot(&item);
            self.once(&mut out, name, spot);
        }
        out
    }

    fn once(&mut self, all: &mut Vec<(OwnerName, Spot)>, name: OwnerName, spot: Spot) {
        match all.iter().find(|(known, _)| *known == name) {
            Some((_, first)) => self.out.push(
                Diagnostic::error(
                    Code::DuplicateName,
                    format!("{} stands here twice", quote(name.as_str())),
                )
                .at(&spot, "again here")
                .at(first, "first here")
                .hint("remove one of them"),
            ),
            None => all.push((name, spot)),
        }
    }

    /// The name that something had.
    pub fn renamed_from(&mut self, root: &Node<'a>) -> Option<(OwnerName, Spot)> {
        let node = self.get(root, "renamed_from")?;
        Some((self.name(&node)?, self.spot(&node)))
    }

    /// The name of a secret. What is none is probably its value, so it is never repeated.
    pub fn secret_name(&mut self, node: &Node<'a>) -> Option<SecretName> {
        let text = self.text(node)?;
        match SecretName::new(text) {
            Ok(name) => Some(name),
            Err(_) => {
                self.hide(node);
                self.bad(
                    node,
                    Code::LiteralCredential,
                    "this is no name of a secret",
                    Some("write the name of a secret, never its value: letters, digits, `-`, `_` and `.`, such as STRIPE_KEY"),
                );
                None
            }
        }
    }

    /// Keeps a value out of everything that is said and shown.
    pub fn hide(&mut self, node: &Node<'a>) {
        match node.value {
            Value::String(text) => self.out.credentials.add(text),
            Value::Array(_) => self.items(node).iter().for_each(|item| self.hide(item)),
            Value::Object(map) => {
                map.iter().for_each(|(_, tree)| self.hide(&tree.into()));
            }
            Value::Null => {}
            other => self.out.credentials.add(&other.to_json().to_string()),
        }
        if let Some(written) = self.document.text_of(&self.at(node)) {
            self.out.credentials.add(&written);
        }
    }

    /// A mapping of texts without references, such as labels.
    pub fn labels(&mut self, node: &Node<'a>) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for (key, value) in self.entries(node) {
            let Some(text) = self.text(&value) else {
                continue;
            };
            if !crate::scalar::is_label_key(key) {
                self.bad_key(
                    &value,
                    Code::BadLabel,
                    format!("{} cannot be a label", quote(key)),
                    Some("use at most 63 letters, digits, `-`, `_` and `.`"),
                );
            } else if !crate::scalar::is_label_value(text) {
                self.bad(
                    &value,
                    Code::BadLabel,
                    "a label's value is one line of at most 255 bytes",
                    None,
                );
            } else {
                labels.insert(key.to_owned(), text.to_owned());
            }
        }
        labels
    }

    /// Which machines, and where each of them is named.
    pub fn machines(&mut self, root: &Node<'a>) -> Option<Selected> {
        let node = self.get(root, "machines")?;
        self.selector(&node)
    }

    /// The same of any key.
    pub fn selector(&mut self, node: &Node<'a>) -> Option<Selected> {
        let spot = self.spot(node);
        let mut named = Vec::new();
        let selector = match node.value {
            Value::String(text) if text == "all" => Selector::All,
            Value::String(_) => {
                let name = self.name::<MachineName>(node)?;
                named.push((name.clone(), spot.clone()));
                Selector::Names(vec![name])
            }
            Value::Array(_) => {
                for item in self.items(node) {
                    if let Some(name) = self.name::<MachineName>(&item) {
                        let (again, first) = (
                            self.spot(&item),
                            named.iter().find(|(other, _)| *other == name),
                        );
                        if let Some((_, first)) = first {
                            self.twice("machine", &again, &first.clone());
                        }
                        named.push((name, again));
                    }
                }
                let mut names: Vec<MachineName> =
                    named.iter().map(|(name, _)| name.clone()).collect();
                names.sort();
                names.dedup();
                if names.is_empty() {
                    return None;
                }
                Selector::Names(names)
            }
            Value::Object(map) => {
                let labels = self.labels(node);
                if labels.len() < map.len().max(1) {
                    return None;
                }
                Selector::Labels(labels)
            }
            _ => {
                self.mismatch(node, "`all`, a name, a list of names or labels");
                return None;
            }
        };
        Some(Selected {
            selector,
            named,
            spot,
        })
    }

    /// The same entry stands in a list twice, where one of them was surely meant to be another.
    pub fn twice(&mut self, what: &str, again: &Spot, first: &Spot) {
        self.out.push(
            Diagnostic::error(
                Code::DuplicateName,
                format!("this {what} stands here twice"),
            )
            .at(again, "again here")
            .at(first, "first here")
            .hint("remove one of them"),
        );
    }

    /// One of several words. What else it may be has been said by the structural check.
    pub fn choice<T: Copy>(&mut self, node: &Node<'a>, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node)?;
        let found = choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value);
        if found.is_none() && !self.is_reported(node) {
            let message = format!("{} is no choice for {}", quote(text), self.called(node));
            self.bad(node, Code::BadChoice, message, None);
        }
        found
    }

    /// The folder of the document's file.
    pub fn folder(&self) -> &str {
        self.document
            .source
            .path
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder)
    }

    /// A path of the repository, relative to its root.
    pub fn repository_path(&mut self, node: &Node<'a>) -> Option<String> {
        let text = self.text(node)?;
        match crate::scalar::repository_path(self.folder(), text) {
            Ok(path) => Some(path),
            Err(problem) => {
                self.bad(
                    node,
                    Code::BadPath,
                    format!("{}: {problem}", quote(text)),
                    None,
                );
                None
            }
        }
    }
}

/// A selector, and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct Selected {
    pub selector: Selector,
    pub named: Vec<(MachineName, Spot)>,
    pub spot: Spot,
}

/// The texts of an environment without the places of their references.
pub(crate) fn texts(env: BTreeMap<String, Rendered>) -> BTreeMap<String, Text> {
    env.into_iter().map(|(key, r)| (key, r.text)).collect()
}

/// A number of milliseconds as one would write it.
fn shown_ms(ms: u64) -> impl Display {
    match ms {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1000 == 0 => format!("{}s", ms / 1000),
        ms => format!("{ms}ms"),
    }
}

/// A name made out of what is none.
fn suggestion(text: &str) -> Option<String> {
    if text.len() > 2 * plumb_model::name::MAX_NAME_BYTES {
        return None;
    }
    let lower: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let words: Vec<&str> = lower.split('-').filter(|w| !w.is_empty()).collect();
    let name = words.join("-");
    plumb_model::name::check(&name).is_ok().then_some(name)
}
