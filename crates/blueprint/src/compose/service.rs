//! One service of a Compose file: a container.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{PortName, ProcessName, RestartPolicy, RestartSpec, StopSpec};
use serde_json::{Map, Value};

use super::{Project, Reader, keys};
use crate::check::name;
use crate::code::Code;
use crate::diagnostic::{Diagnostic, alternatives, quote};
use crate::events::join;
use crate::nearest::nearest;
use crate::set::{
    Container, ContainerPort, ImageDecl, MountDecl, MountSourceDecl, Port, Publish, Segment, Text,
};

fn literal(text: String) -> Text {
    if text.is_empty() {
        Vec::new()
    } else {
        vec![Segment::Literal(text)]
    }
}

/// Where one of the pairs under a key stands; of a list the list itself, which one it is not being known any more.
fn pair_at(at: &str, map: &Map<String, Value>, key: &str, name: &str) -> String {
    let at = join(at, key);
    match map.get(key) {
        Some(Value::Array(_)) => at,
        _ => join(&at, name),
    }
}

/// The texts of a value that is one or a list of them, each with its place.
fn texts<'v>(at: &str, value: &'v Value) -> Vec<(String, &'v str)> {
    match value {
        Value::Array(items) => {
            let items = items.iter().enumerate();
            let texts = items.filter_map(|(i, item)| Some((format!("{at}/{i}"), item.as_str()?)));
            texts.collect()
        }
        other => other
            .as_str()
            .map(|text| (at.to_owned(), text))
            .into_iter()
            .collect(),
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

    fn image(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<ImageDecl> {
        match (map.get("image"), map.get("build")) {
            (Some(_), None) => self.get_text(at, map, "image").map(ImageDecl::Reference),
            (image, Some(build)) => {
                if image.is_some() {
                    let at = join(at, "image");
                    self.bad(
                        &at,
                        "a service with `build` takes its image from there",
                        "remove `image`: a built image is named by what it is built from",
                    );
                }
                self.build(&join(at, "build"), build)
            }
            (None, None) => {
                let spot = self.document.key_spot(at);
                self.out.push(
                    Diagnostic::error(Code::ComposeValue, "this service says nowhere what to run")
                        .here(&spot)
                        .hint("add `image: nginx:1.27`, or `build: .`"),
                );
                None
            }
        }
    }

    fn build(&mut self, at: &str, build: &'a Value) -> Option<ImageDecl> {
        let (context, map) = match build {
            Value::Object(map) => (
                map.get("context").map(|c| (join(at, "context"), c)),
                Some(map),
            ),
            context => (Some((at.to_owned(), context)), None),
        };
        if let Some(map) = map {
            self.only(at, map, &["context", "dockerfile", "target", "args"]);
        }
        let folder = match context {
            Some((at, context)) => {
                let text = self.text(&at, context)?;
                match crate::scalar::folder_beneath(text.trim_start_matches("./")) {
                    Ok(folder) => folder,
                    Err(_) if text == "." || text == "./" => String::new(),
                    Err(problem) => {
                        self.bad(
                            &at,
                            format!("{}: {problem}", quote(&text)),
                            "name a folder beside the Compose file",
                        );
                        return None;
                    }
                }
            }
            None => String::new(),
        };
        let file = match map {
            Some(map) if map.contains_key("dockerfile") => self.get_text(at, map, "dockerfile")?,
            _ => "Dockerfile".to_owned(),
        };
        let mut args = BTreeMap::new();
        let mut target = None;
        if let Some(map) = map {
            target = self.get_text(at, map, "target");
            let pairs = self.pairs(at, map, "args");
            for (name, value) in &pairs {
                self.likely_credential(&pair_at(at, map, "args", name), Some(name), name, value);
            }
            args = pairs.into_iter().map(|(k, v)| (k, literal(v))).collect();
        }
        Some(ImageDecl::Dockerfile {
            path: file,
            target,
            args,
            context: folder,
        })
    }

    /// Warns of a text that looks like a credential.
    fn likely_credential(&mut self, at: &str, variable: Option<&str>, what: &str, text: &str) {
        if let Some(warning) = crate::mask::warning(variable, what, text) {
            let spot = self.document.spot(at);
            self.out.push(warning.here(&spot));
        }
    }

    fn command(&mut self, at: &str, map: &'a Map<String, Value>, key: &str) -> Option<Vec<Text>> {
        let value = map.get(key)?;
        let at = join(at, key);
        for (at, text) in texts(&at, value) {
            self.likely_credential(&at, None, &name(&at), text);
        }
        match value {
            Value::Array(items) => Some(
                items
                    .iter()
                    .enumerate()
                    .filter_map(|(i, item)| self.text(&format!("{at}/{i}"), item))
                    .map(literal)
                    .collect(),
            ),
            _ => {
                // Compose splits a text into words as a shell does, without running one.
                let text = self.text(&at, value)?;
                match words(&text) {
                    Some(words) => Some(words.into_iter().map(literal).collect()),
                    None => {
                        self.bad(
                            &at,
                            "a quote in this command is not closed",
                            "write the command as a list of words",
                        );
                        None
                    }
                }
            }
        }
    }

    /// `KEY: value` or `- KEY=value`.
    fn pairs(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        key: &str,
    ) -> BTreeMap<String, String> {
        let at = join(at, key);
        let mut pairs = BTreeMap::new();
        match map.get(key) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (name, value) in entries {
                    let at = join(&at, name);
                    let text = match value {
                        Value::Number(number) => Some(number.to_string()),
                        Value::Bool(word) => Some(word.to_string()),
                        Value::Null => {
                            self.bad(&at, format!("{} takes its value from the environment, and blueprints have none", quote(name)), "write the value out");
                            None
                        }
                        other => self.text(&at, other),
                    };
                    if let Some(text) = text {
                        pairs.insert(name.clone(), text);
                    }
                }
            }
            Some(Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    let at = format!("{at}/{i}");
                    let Some(text) = self.text(&at, item) else {
                        continue;
                    };
                    match text.split_once('=') {
                        Some((name, value)) => {
                            pairs.insert(name.to_owned(), value.to_owned());
                        }
                        None => {
                            // What follows is a value that was written in another way, and may be a secret.
                            let end = text.find([':', ' ', '\t']).unwrap_or(text.len());
                            let (name, value) = text.split_at(end);
                            self.out
                                .credentials
                                .add(value.trim_start_matches([':', ' ', '\t']));
                            self.bad(
                                &at,
                                format!(
                                    "{} takes its value from the environment, and blueprints have none",
                                    quote(name)
                                ),
                                "write it as NAME=VALUE",
                            );
                        }
                    }
                }
            }
            Some(other) => self.mismatch(&at, other, "a mapping or a list"),
        }
        pairs
    }

    fn environment(&mut self, at: &str, map: &'a Map<String, Value>) -> BTreeMap<String, Text> {
        let whole = at;
        let pairs = self.pairs(at, map, "environment");
        let at = join(at, "environment");
        let mut env = BTreeMap::new();
        for (name, value) in pairs {
            if crate::scalar::is_env_name(&name) {
                let pair = pair_at(whole, map, "environment", &name);
                self.likely_credential(&pair, Some(&name), &name, &value);
                env.insert(name, literal(value));
            } else {
                self.bad(
                    &at,
                    format!(
                        "{} cannot be the name of an environment variable",
                        quote(&name)
                    ),
                    "use letters, digits and `_`, and do not start with a digit",
                );
            }
        }
        env
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
            const SIGNALS: [(&str, i32); 7] = [
                ("TERM", 15),
                ("INT", 2),
                ("QUIT", 3),
                ("HUP", 1),
                ("USR1", 10),
                ("USR2", 12),
                ("WINCH", 28),
            ];
            match SIGNALS.iter().find(|(name, _)| *name == bare) {
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

    fn ports(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        container: &mut Container,
        project: &mut Project,
    ) {
        let at = join(at, "ports");
        let items = match map.get("ports") {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(other) => return self.mismatch(&at, other, "a list"),
        };
        for (i, item) in items.iter().enumerate() {
            let at = format!("{at}/{i}");
            let read = match item {
                Value::Number(number) => short_port(&number.to_string()),
                Value::Object(map) => self.long_port(&at, map),
                other => match self.text(&at, other) {
                    Some(text) => short_port(&text),
                    None => continue,
                },
            };
            let Some(port) = read else {
                self.bad(&at, "this is no port", "write \"8080:80\", \"127.0.0.1:8080:80\" or \"53:53/udp\"; ranges are written out");
                continue;
            };
            if let Port::Fixed(number) = port.machine {
                project
                    .claims
                    .push((number, port.udp, self.document.spot(&at)));
            }
            let protocol = if port.udp { "-udp" } else { "" };
            let name = format!("p{}{protocol}", port.container);
            let name = PortName::new(&name).expect("letters, digits and a dash inside");
            if container.ports.insert(name, port).is_some() {
                self.bad(
                    &at,
                    "this port of the container stands here twice",
                    "remove one of them",
                );
            }
        }
    }

    fn long_port(&mut self, at: &str, map: &'a Map<String, Value>) -> Option<ContainerPort> {
        self.only(
            at,
            map,
            &[
                "target",
                "published",
                "host_ip",
                "protocol",
                "name",
                "mode",
                "app_protocol",
            ],
        );
        let number = |value: Option<&Value>| -> Option<u16> {
            match value? {
                Value::Number(n) => n.as_u64().and_then(|n| u16::try_from(n).ok()),
                Value::String(text) => text.parse().ok(),
                _ => None,
            }
            .filter(|n| *n > 0)
        };
        let machine = match map.get("published") {
            None => Port::Auto,
            published => Port::Fixed(number(published)?),
        };
        Some(ContainerPort {
            container: number(map.get("target"))?,
            machine,
            publish: publish(map.get("host_ip").and_then(Value::as_str)),
            udp: match map.get("protocol").and_then(Value::as_str) {
                None | Some("tcp") => false,
                Some("udp") => true,
                Some(_) => return None,
            },
        })
    }

    fn mounts(
        &mut self,
        at: &str,
        map: &'a Map<String, Value>,
        container: &mut Container,
        project: &Project,
    ) {
        let at = join(at, "volumes");
        let items = match map.get("volumes") {
            None | Some(Value::Null) => return,
            Some(Value::Array(items)) => items,
            Some(other) => return self.mismatch(&at, other, "a list"),
        };
        for (i, item) in items.iter().enumerate() {
            let at = format!("{at}/{i}");
            let Some((source, target, read_only)) = self.mount(&at, item) else {
                continue;
            };
            let source = if source.starts_with('/') {
                MountSourceDecl::Path(source)
            } else if source.starts_with(['.', '~']) {
                self.bad(
                    &at,
                    "a folder beside the Compose file is not on the machine",
                    "name an absolute path of the machine, or a volume",
                );
                continue;
            } else if project.volumes.contains_key(&source) {
                MountSourceDecl::Volume(source)
            } else {
                self.missing(
                    &at,
                    "volume",
                    &source,
                    project.volumes.keys().cloned().collect(),
                );
                continue;
            };
            if crate::scalar::machine_path(&target).is_err() {
                self.bad(
                    &at,
                    format!("{} is no path inside a container", quote(&target)),
                    "write an absolute path without `.`, `..` or a final slash",
                );
                continue;
            }
            let mount = MountDecl { source, read_only };
            if container.mounts.insert(target, mount).is_some() {
                self.bad(
                    &at,
                    "something is mounted at this path already",
                    "remove one of them",
                );
            }
        }
    }

    fn mount(&mut self, at: &str, item: &'a Value) -> Option<(String, String, bool)> {
        if let Value::Object(map) = item {
            self.only(at, map, &["type", "source", "target", "read_only"]);
            let read_only = map
                .get("read_only")
                .and_then(Value::as_bool)
                .unwrap_or(false);
            let (source, target) = (
                self.get_text(at, map, "source"),
                self.get_text(at, map, "target"),
            );
            return match (source, target, map.get("type").and_then(Value::as_str)) {
                (Some(source), Some(target), Some("volume" | "bind")) => {
                    Some((source, target, read_only))
                }
                _ => {
                    self.bad(
                        at,
                        "a mount has a `type` (volume or bind), a `source` and a `target`",
                        "write it as \"data:/var/lib/data\"",
                    );
                    None
                }
            };
        }
        let text = self.text(at, item)?;
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [source, target] => Some(((*source).to_owned(), (*target).to_owned(), false)),
            [source, target, "rw"] => Some(((*source).to_owned(), (*target).to_owned(), false)),
            [source, target, "ro"] => Some(((*source).to_owned(), (*target).to_owned(), true)),
            [_] => {
                self.bad(
                    at,
                    "an anonymous volume would be lost with its container",
                    "give it a name: \"data:/var/lib/data\", with `volumes: { data: }` at the top",
                );
                None
            }
            _ => {
                self.bad(
                    at,
                    format!("{} is no mount", quote(&text)),
                    "write \"data:/var/lib/data\" or \"/etc/x.conf:/etc/x.conf:ro\"",
                );
                None
            }
        }
    }
}

/// Compose publishes on every address unless one is named.
fn publish(address: Option<&str>) -> Publish {
    match address {
        None | Some("0.0.0.0" | "") => Publish::Public,
        Some("127.0.0.1") => Publish::Loopback,
        Some(other) => Publish::Address(other.to_owned()),
    }
}

/// `80`, `8080:80`, `127.0.0.1:8080:80`, each with `/tcp` or `/udp`.
fn short_port(text: &str) -> Option<ContainerPort> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return None,
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|n| *n > 0);
    let mut parts = text.rsplitn(3, ':');
    let container = number(parts.next()?)?;
    let machine = match parts.next() {
        None | Some("") => Port::Auto,
        Some(text) => Port::Fixed(number(text)?),
    };
    let address = parts.next();
    if address.is_some_and(|a| a.parse::<std::net::IpAddr>().is_err()) {
        return None;
    }
    Some(ContainerPort {
        container,
        machine,
        publish: publish(address),
        udp,
    })
}

/// Splits a command as a shell would split it, without anything else that a shell does; none if a quote stays open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"'), '\\') => {
                let next = chars.next()?;
                let word = word.get_or_insert_default();
                if !matches!(next, '"' | '\\' | '$' | '`') {
                    word.push('\\');
                }
                word.push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_as_a_shell_splits_it() {
        for (text, expected) in [
            (
                "nginx -g 'daemon off;'",
                Some(vec!["nginx", "-g", "daemon off;"]),
            ),
            (
                r#"a "b \"c\" \d" e\ f ''"#,
                Some(vec!["a", r#"b "c" \d"#, "e f", ""]),
            ),
            ("", Some(vec![])),
            ("a 'b", None),
            ("a \\", None),
        ] {
            let expected = expected.map(|w| w.into_iter().map(str::to_owned).collect());
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn ports_are_read_in_each_short_form() {
        let port = |container, machine, publish, udp| {
            Some(ContainerPort {
                container,
                machine,
                publish,
                udp,
            })
        };
        for (text, expected) in [
            ("80", port(80, Port::Auto, Publish::Public, false)),
            (
                "8080:80",
                port(80, Port::Fixed(8080), Publish::Public, false),
            ),
            (
                "127.0.0.1:53:53/udp",
                port(53, Port::Fixed(53), Publish::Loopback, true),
            ),
            (
                "127.0.0.1::80",
                port(80, Port::Auto, Publish::Loopback, false),
            ),
            ("80-90", None),
            ("0", None),
            ("x:80", None),
            ("host:80:80", None),
            ("80/sctp", None),
        ] {
            assert_eq!(short_port(text), expected, "{text}");
        }
    }
}
