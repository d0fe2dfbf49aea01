//! Compose files, compiled into containers, volumes and networks, so that a plan shows what changes inside one.
//!
//! A file is read with the same passes as a blueprint, so every problem has its place. A key is honoured or refused by
//! name; nothing is dropped. It never reads a file: the App's conversion hands the text in.

mod keys;
mod service;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use plumb_model::{OnDelete, ProcessName};
use serde_json::{Map, Value};

use crate::check::{name, wrong_type};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Diagnostics, Spot, alternatives, quote};
use crate::document::{self, Document};
use crate::events::join;
use crate::nearest::nearest;
use crate::set::{Container, ImageDecl, Network, Selector};
use crate::source::{Source, SourceFile};

/// A Compose project as far as it is right.
#[derive(Debug, Default)]
pub(crate) struct Project {
    /// Its services.
    pub services: BTreeMap<ProcessName, Container>,
    /// Its named volumes: they are kept when the app is deleted.
    pub volumes: BTreeMap<String, OnDelete>,
    /// Its networks; which machines they are on is the app's business.
    pub networks: BTreeMap<String, Network>,
    /// Ports of the machine that it claims: the number, whether it is UDP, and its place.
    pub claims: Vec<(u16, bool, Spot)>,
    /// Where each service, its image or build, and each volume and network stands: by `NAME`, `NAME/image`,
    /// `:volumes/NAME` and `:networks/NAME`. No service is called `:volumes`.
    pub places: BTreeMap<String, Spot>,
}

impl Project {
    /// Whether it builds anything out of the folder that its file is in.
    pub fn builds(&self) -> bool {
        self.services
            .values()
            .any(|service| matches!(service.image, ImageDecl::Dockerfile { .. }))
    }
}

/// Reads a Compose file. What is wrong in it is reported and left out.
pub(crate) fn read(file: &SourceFile, machines: &Selector, out: &mut Diagnostics) -> Project {
    let mut project = Project::default();
    let Some(source) = Source::decode(file, out) else {
        return project;
    };
    let documents = document::read(&source, out);
    let [document] = documents.as_slice() else {
        if let Some(second) = documents.get(1) {
            out.push(
                Diagnostic::error(
                    Code::ComposeShape,
                    "a Compose file is one YAML document, and here a second one begins",
                )
                .here(&second.spot(""))
                .hint("put it into a file of its own"),
            );
        } else {
            out.push(
                Diagnostic::error(Code::ComposeShape, "this Compose file is empty")
                    .in_file(&file.path)
                    .hint("add `services: { web: { image: nginx:1.27 } }`"),
            );
        }
        return project;
    };
    // It has been reported why it cannot be read.
    let Some(value) = document.value() else {
        return project;
    };
    let mut reader = Reader { document, out };
    reader.project(&value.to_json(), machines, &mut project);
    project
}

/// What reads one Compose file.
struct Reader<'a, 'b> {
    document: &'b Document<'a>,
    out: &'b mut Diagnostics,
}

impl<'a> Reader<'a, '_> {
    fn project(&mut self, root: &'a Value, machines: &Selector, project: &mut Project) {
        let Some(top) = self.mapping("", root) else {
            return;
        };
        for key in top.keys().filter(|key| !key.starts_with("x-")) {
            if keys::TOP_REFUSED.contains(&key.as_str()) {
                self.refuse(&join("", key), key, None);
            } else if !keys::TOP.contains(&key.as_str()) {
                self.unknown(&join("", key), key, &keys::TOP);
            }
        }
        for (name, at, value) in self.named(top, "volumes") {
            if let Some(map) = self.optional_mapping(&at, value) {
                self.only(&at, map, &["name"]);
            }
            let place = self.document.key_spot(&at);
            project.places.insert(format!(":volumes/{name}"), place);
            project.volumes.insert(name.to_string(), OnDelete::Keep);
        }
        for (name, at, value) in self.named(top, "networks") {
            let mut network = Network {
                machines: machines.clone(),
                subnet: None,
                internal: false,
                renamed_from: None,
            };
            if let Some(map) = self.optional_mapping(&at, value) {
                self.only(&at, map, &["internal"]);
                if let Some(internal) = map.get("internal") {
                    match internal.as_bool() {
                        Some(internal) => network.internal = internal,
                        None => self.mismatch(&join(&at, "internal"), internal, "true or false"),
                    }
                }
            }
            let place = self.document.key_spot(&at);
            project.places.insert(format!(":networks/{name}"), place);
            project.networks.insert(name.to_string(), network);
        }
        let services = self.named(top, "services");
        if services.is_empty() && !top.contains_key("services") {
            let spot = self.document.spot("");
            self.out.push(
                Diagnostic::error(Code::ComposeShape, "this Compose file has no `services`")
                    .here(&spot)
                    .hint("add `services: { web: { image: nginx:1.27 } }`"),
            );
        }
        let names: Vec<ProcessName> = services.iter().map(|(name, ..)| name.clone()).collect();
        for (name, at, value) in services {
            let place = self.document.key_spot(&at);
            project.places.insert(name.to_string(), place);
            if let Some(map) = self.mapping(&at, value) {
                let made_from = ["image", "build"]
                    .into_iter()
                    .find(|key| map.contains_key(*key));
                if let Some(key) = made_from {
                    let place = self.document.key_spot(&join(&at, key));
                    project.places.insert(format!("{name}/image"), place);
                }
                let container = self.service(&at, map, &names, project);
                if let Some(container) = container {
                    project.services.insert(name, container);
                }
            }
        }
        self.cycles(project);
    }

    /// The entries of a mapping at the top whose keys are names.
    fn named(
        &mut self,
        top: &'a Map<String, Value>,
        key: &str,
    ) -> Vec<(ProcessName, String, &'a Value)> {
        let at = join("", key);
        let Some(map) = top
            .get(key)
            .and_then(|value| self.optional_mapping(&at, value))
        else {
            return Vec::new();
        };
        let mut named = Vec::new();
        for (name, value) in map {
            let at = join(&at, name);
            match ProcessName::new(name) {
                Ok(name) => named.push((name, at, value)),
                Err(error) => {
                    let spot = self.document.key_spot(&at);
                    self.out.push(
                        Diagnostic::error(
                            Code::BadName,
                            format!("{} is no name: {error}", quote(name)),
                        )
                        .here(&spot)
                        .hint("rename it in the Compose file"),
                    );
                }
            }
        }
        named
    }

    /// Services that wait for one another for ever.
    fn cycles(&mut self, project: &Project) {
        let mut done: Vec<&ProcessName> = Vec::new();
        let mut open: BTreeMap<&ProcessName, &Container> = project.services.iter().collect();
        loop {
            let ready: Vec<&ProcessName> = open
                .iter()
                .filter(|(_, c)| {
                    c.after
                        .iter()
                        .all(|a| done.contains(&a) || !open.contains_key(a))
                })
                .map(|(name, _)| *name)
                .collect();
            if ready.is_empty() {
                break;
            }
            for name in ready {
                open.remove(name);
                done.push(name);
            }
        }
        // Whoever is still open is on a loop or waits for one: walk until a name comes again.
        let Some(mut at) = open.keys().next().copied() else {
            return;
        };
        let mut walk: Vec<&ProcessName> = Vec::new();
        while !walk.contains(&at) {
            walk.push(at);
            match open[at].after.iter().find(|a| open.contains_key(a)) {
                Some(next) => at = next,
                None => return,
            }
        }
        let start = walk.iter().position(|name| name == &at).unwrap_or_default();
        let mut names: Vec<String> = walk[start..]
            .iter()
            .map(|name| quote(name.as_str()))
            .collect();
        names.push(quote(at.as_str()));
        let spot = self.document.key_spot(&join(
            &join(&join("", "services"), at.as_str()),
            "depends_on",
        ));
        self.out.push(
            Diagnostic::error(
                Code::ComposeCycle,
                format!(
                    "these services wait for one another for ever: {}",
                    names.join(" → ")
                ),
            )
            .here(&spot)
            .hint("remove one of the `depends_on`"),
        );
    }

    fn mapping(&mut self, at: &str, value: &'a Value) -> Option<&'a Map<String, Value>> {
        let map = value.as_object();
        if map.is_none() {
            self.mismatch(at, value, "a mapping");
        }
        map
    }

    /// As [`Reader::mapping`], but nothing at all will do.
    fn optional_mapping(&mut self, at: &str, value: &'a Value) -> Option<&'a Map<String, Value>> {
        if value.is_null() {
            return None;
        }
        self.mapping(at, value)
    }

    fn mismatch(&mut self, at: &str, value: &Value, expected: &str) {
        let problem = wrong_type(self.document, at, value, &[expected.to_owned()]);
        self.out.push(problem);
    }

    fn bad(&mut self, at: &str, message: impl Into<String>, hint: &str) {
        let spot = self.document.spot(at);
        self.out.push(
            Diagnostic::error(Code::ComposeValue, message)
                .here(&spot)
                .hint(hint),
        );
    }

    /// A text without interpolation; `$$` is a dollar.
    fn text(&mut self, at: &str, value: &'a Value) -> Option<String> {
        let Some(text) = value.as_str() else {
            self.mismatch(at, value, "text");
            return None;
        };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(found) = rest.find('$') {
            out.push_str(&rest[..found]);
            let after = &rest[found + 1..];
            if let Some(after) = after.strip_prefix('$') {
                out.push('$');
                rest = after;
            } else if after.starts_with(|c: char| c == '{' || c == '_' || c.is_ascii_alphabetic()) {
                let message = format!(
                    "{} takes a value from the environment, and blueprints have none",
                    name(at)
                );
                self.bad(
                    at,
                    message,
                    "write the value out, or $$ for a literal dollar",
                );
                return None;
            } else {
                out.push('$');
                rest = after;
            }
        }
        out.push_str(rest);
        Some(out)
    }

    /// Says of every other key that it is refused.
    fn only(&mut self, at: &str, map: &Map<String, Value>, read: &[&str]) {
        for key in map.keys() {
            if !read.contains(&key.as_str()) && !key.starts_with("x-") {
                self.refuse(&join(at, key), key, None);
            }
        }
    }

    fn refuse(&mut self, at: &str, key: &str, instead: Option<&str>) {
        let spot = self.document.key_spot(at);
        self.out.push(
            Diagnostic::error(
                Code::ComposeKey,
                format!(
                    "{} is not honoured in a Compose file, and would be lost",
                    quote(key)
                ),
            )
            .here(&spot)
            .hint(instead.unwrap_or("leave it out, or write an App with `image` for this service")),
        );
    }

    fn unknown(&mut self, at: &str, key: &str, known: &[&str]) {
        let spot = self.document.key_spot(at);
        let hint = match nearest(key, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                let words: Vec<String> = known.iter().take(8).map(|word| quote(word)).collect();
                format!("there is {}", alternatives(&words))
            }
        };
        self.out.push(
            Diagnostic::error(
                Code::ComposeKey,
                format!("{} is no key of a Compose file", quote(key)),
            )
            .here(&spot)
            .hint(hint),
        );
    }
}
