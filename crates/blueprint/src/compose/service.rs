//! One service of a Compose file: a container.

mod made;
mod mounts;
mod ports;

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{ProcessName, RestartPolicy, RestartSpec, StopSpec};
use serde_json::{Map, Value};

use super::{Project, Reader, keys};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, alternatives, quote};
use crate::events::join;
use crate::nearest::nearest;
use crate::set::{Container, Segment, Text};

fn literal(text: String) -> Text {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Segment::Literal(text)]
    }
}

impl<'a> Reader<'a, '_> {
    /// Reads a service. What is wrong in it is reported; none if it says nowhere what to run.
    pub(super) fn service(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        names: &[ProcessName],
        project: &mut Project,
    ) -> Option<Container> {
        for key in map.keys().filter(|key| !key.starts_with("x-")) {
            let refused = keys::SERVICE_REFUSED.iter().find(|(name, _)| name == key);
            if let Some((_, instead)) = refused {
                self.refuse(&join(at, key), key, *instead);
            } else if !keys::SERVICE.contains(&key.as_str()) {
                self.unknown(&join(at, key), key, &keys::SERVICE);
            }
        }
        for key in ["container_name", "hostname", "init"] {
            if map.contains_key(key) {
                let instead = (key == "container_name")
                    .then_some("leave it out: containers are named by their app, and reached by the service's name");
                self.refuse(&join(at, key), key, instead);
            }
        }
        let image = self.image(at, map)?;
        let mut container = Container {
            image,
            entrypoint: self.command(at, map, "entrypoint"),
            command: self.command(at, map, "command"),
            env: self.environment(at, map),
            ports: BTreeMap::new(),
            mounts: BTreeMap::new(),
            networks: BTreeSet::new(),
            health: None,
            workdir: self.get_text(at, map, "working_dir"),
            user: self.get_text(at, map, "user"),
            labels: BTreeMap::new(),
            after: BTreeSet::new(),
            restart: self.restart(at, map),
            stop: self.stop(at, map),
        };
        self.ports(at, map, &mut container, project);
        self.mounts(at, map, &mut container, project);
        self.labels(at, map, &mut container);
        for (name, at, _) in self.references(at, map, "networks") {
            if project.networks.contains_key(&name) || name == "default" {
                if name != "default" {
                    container.networks.insert(name);
                }
            } else {
                let known = project.networks.keys().cloned().collect();
                self.missing(&at, "network", &name, known);
            }
        }
        for (name, at, value) in self.references(at, map, "depends_on") {
            if let Some(Value::Object(map)) = value {
                self.condition(&at, map);
            }
            match names.iter().find(|known| known.as_str() == name) {
                Some(known) => {
                    container.after.insert(known.clone());
                }
                None => self.missing(
                    &at,
                    "service",
                    &name,
                    names.iter().map(ToString::to_string).collect(),
                ),
            }
        }
        Some(container)
    }

    fn missing(&mut self, at: &str, what: &str, name: &str, known: Vec<String>) {
        let hint = match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None if known.is_empty() => {
                format!("declare it under `{what}s` at the top of this file")
            }
            None => {
                let words: Vec<String> = known.iter().take(8).map(|word| quote(word)).collect();
                format!("there is {}", alternatives(&words))
            }
        };
        let spot = self.document.spot(at);
        self.out.push(
            Diagnostic::error(
                Code::ComposeValue,
                format!("there is no {what} {} in this file", quote(name)),
            )
            .here(&spot)
            .hint(hint),
        );
    }

    fn condition(&mut self, at: &str, map: &'a Map<String, Value>) {
        self.only(at, map, &["condition"]);
        let condition = map.get("condition").and_then(Value::as_str);
        if !matches!(
            condition,
            None | Some("service_started" | "service_healthy")
        ) {
            let at = join(at, "condition");
            self.bad(
                &at,
                "a service waits here until another one has started, or is healthy",
                "write `service_started` or `service_healthy`",
            );
        }
    }

    fn get_text(&mut self, at: &str, map: &'a Map<String, Value>, key: &str) -> Option<String> {
        let value = map.get(key)?;
        self.text(&join(at, key), value)
    }

    fn labels(&mut self, at: &str, map: &'a Map<String, Value>, container: &mut Container) {
        container.labels = self.pairs(at, map, "labels");
        let own = container
            .labels
            .keys()
            .find(|key| key.starts_with("plumb."))
            .cloned();
        if let Some(own) = own {
            let at = join(at, "labels");
            self.bad(
                &at,
                format!("the label {} is Plumb's own", quote(&own)),
                "choose another name",
            );
            container.labels.remove(&own);
        }
    }

    fn restart(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<RestartSpec> {
        let word = map.get("restart")?;
        let at = join(at, "restart");
        let policy = match word {
            Value::Bool(false) => RestartPolicy::Never,
            Value::String(word) => match word.as_str() {
                "no" => RestartPolicy::Never,
                "always" | "unless-stopped" => RestartPolicy::Always,
                "on-failure" => RestartPolicy::OnFailure,
                _ => {
                    self.bad(
                        &at,
                        format!("{} is no restart policy", quote(word)),
                        "write no, always, on-failure or unless-stopped",
                    );
                    return None;
                }
            },
            other => {
                self.mismatch(&at, other, "text");
                return None;
            }
        };
        Some(RestartSpec {
            policy,
            initial_ms: 1_000,
            max_ms: 60_000,
        })
    }

    fn stop(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<StopSpec> {
        if !map.contains_key("stop_signal") && !map.contains_key("stop_grace_period") {
            return None;
        }
        let mut stop = StopSpec {
            signal: 15,
            grace_ms: 10_000,
        };
        if let Some(word) = self.get_text(at, map, "stop_signal") {
            let bare = word.strip_prefix("SIG").unwrap_or(&word);
            match crate::SIGNALS.iter().find(|(name, _)| *name == bare) {
                Some((_, number)) => stop.signal = *number,
                None => {
                    let at = join(at, "stop_signal");
                    self.bad(
                        &at,
                        format!("{} is no signal that ends a process", quote(&word)),
                        "write SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2 or SIGWINCH",
                    );
                }
            }
        }
        if let Some(word) = self.get_text(at, map, "stop_grace_period") {
            match crate::scalar::duration_ms(&word) {
                Ok(ms) => stop.grace_ms = ms,
                Err(problem) => {
                    let at = join(at, "stop_grace_period");
                    self.bad(&at, format!("{} is no duration", quote(&word)), problem);
                }
            }
        }
        Some(stop)
    }

    /// A list of names, or a mapping with names as keys.
    fn references(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        key: &str,
    ) -> Vec<(String, String, Option<&'a Value>)> {
        let at = join(at, key);
        match map.get(key) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .filter_map(|(i, item)| {
                    let at = format!("{at}/{i}");
                    let name = self.text(&at, item)?;
                    Some((name, at, None))
                })
                .collect(),
            Some(Value::Object(entries)) => {
                if key == "networks" {
                    for (name, value) in entries {
                        let at = join(&at, name);
                        if let Some(options) = self.optional_mapping(&at, value) {
                            self.only(&at, options, &[]);
                        }
                    }
                }
                entries
                    .iter()
                    .map(|(name, value)| (name.clone(), join(&at, name), Some(value)))
                    .collect()
            }
            Some(other) => {
                self.mismatch(&at, other, "a list or a mapping");
                Vec::new()
            }
        }
    }
}
