//! One process of an App: command, environment, ports, health.

use std::collections::BTreeMap;

use crate::tree::Value;
use plumb_model::{Limits, PortName, Schedule};

use super::app::ReadApp;
use super::around::{self, ReadSecret};
use super::{Node, Place, Reader, Rendered, Use, schedule, variables};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, alternatives, quote};
use crate::nearest::nearest;
use crate::set::{Health, Port, Probe, Publish, Segment, Text};

/// A process as far as it is right.
#[derive(Debug, Default)]
pub(crate) struct ReadProcess {
    pub argv: Vec<Text>,
    pub env: BTreeMap<String, Rendered>,
    pub ports: BTreeMap<PortName, ReadPort>,
    /// The health check before its port is known, and where it is written.
    pub read_health: Option<(ReadHealth, Spot)>,
    pub health: Option<Health>,
    pub replicas: Option<u32>,
    pub dir: String,
    pub limits: Option<Limits>,
    pub schedule: Option<Schedule>,
    pub secrets: BTreeMap<String, ReadSecret>,
    /// Where `dir` is written.
    dir_spot: Option<Spot>,
    /// The text of a shell command, and where it is written.
    pub shell: Option<(String, Spot)>,
    /// References of the command; those of `env` stay with it.
    uses: Vec<Use>,
}

/// A port, and where its name is written.
#[derive(Debug, Clone)]
pub(crate) struct ReadPort {
    /// Of a container it is the port inside.
    pub port: Port,
    pub publish: Publish,
    /// The machine's own port that leads to a container's.
    pub machine: Option<Port>,
    pub udp: bool,
    pub spot: Spot,
}

/// Whose ports are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inside {
    Process,
    Container,
}

/// A health check before its port is known.
#[derive(Debug, Clone)]
pub(crate) struct ReadHealth {
    /// The path, or none for a connection.
    path: Option<String>,
    port: Option<(PortName, Spot)>,
    codes: Vec<(u16, u16)>,
    interval_ms: u64,
    timeout_ms: u64,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
}

/// Reads a process that is but a command.
pub(crate) fn short<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> ReadProcess {
    let mut out = ReadProcess::default();
    run(r, node, &mut out);
    out
}

fn run<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, out: &mut ReadProcess) {
    let Command { argv, shell } = command(r, node, &mut out.uses);
    out.argv = argv;
    out.shell = shell.map(|text| (text, r.spot(node)));
}

/// Reads a process in any of its forms.
pub(crate) fn read<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> ReadProcess {
    if !node.value.is_object() {
        return short(r, node);
    }
    let mut out = ReadProcess {
        replicas: r.get_number(node, "replicas"),
        ..ReadProcess::default()
    };
    if let Some(node) = r.get(node, "run") {
        run(r, &node, &mut out);
    }
    if let Some(env) = r.get(node, "env") {
        out.env = r.env(&env);
    }
    if let Some(node) = r.get(node, "ports") {
        out.ports = ports(r, &node, Inside::Process);
    }
    if let Some(node) = r.get(node, "limits") {
        out.limits = Some(around::limits(r, &node));
    }
    if let Some(node) = r.get(node, "schedule") {
        out.schedule = schedule::read(r, &node);
    }
    if let Some(node) = r.get(node, "secrets") {
        out.secrets = around::secrets(r, &node);
    }
    if let Some(node) = r.get(node, "health") {
        out.read_health = health(r, &node).map(|health| (health, r.key_spot(&node)));
    }
    if let Some(node) = r.get(node, "dir") {
        out.dir_spot = Some(r.spot(&node));
        out.dir = dir(r, &node).unwrap_or_default();
    }
    out
}

/// A command: its arguments, and its text if a shell runs it.
#[derive(Debug, Default)]
pub(crate) struct Command {
    pub argv: Vec<Text>,
    pub shell: Option<String>,
}

/// Reads a command in either of its forms.
pub(crate) fn command<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, uses: &mut Vec<Use>) -> Command {
    let mut out = Command::default();
    match node.value {
        Value::Array(_) => {
            for (at, item) in r.items(node).iter().enumerate() {
                let Some(rendered) = r.rendered(item, Place::Command) else {
                    continue;
                };
                if at == 0 && rendered.text.is_empty() {
                    r.bad(
                        item,
                        Code::EmptyCommand,
                        "a command begins with the name of a program",
                        Some("write it like `run: [./server, --port, \"8080\"]`"),
                    );
                }
                out.argv.push(rendered.text);
                uses.extend(rendered.uses);
            }
        }
        Value::String(text) => {
            if text.trim().is_empty() {
                r.bad(
                    node,
                    Code::EmptyCommand,
                    "this command is empty",
                    Some("write it like `run: ./server`"),
                );
                return out;
            }
            let Some(rendered) = r.rendered(node, Place::Command) else {
                return out;
            };
            let word = |text: &str| vec![Segment::Literal(text.to_owned())];
            out.argv = vec![word("/bin/sh"), word("-c"), rendered.text];
            uses.extend(rendered.uses);
            out.shell = Some(text.clone().into_owned());
        }
        _ => r.mismatch(node, "text or a list"),
    }
    out
}

/// A folder inside the source.
pub(crate) fn dir<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    let text = r.text(node)?;
    match crate::scalar::folder_beneath(text) {
        Ok(dir) => Some(dir),
        Err(problem) => {
            r.bad(
                node,
                Code::BadPath,
                format!("{}: {problem}", quote(text)),
                None,
            );
            None
        }
    }
}

/// Ports by name.
pub(crate) fn ports<'a>(
    r: &mut Reader<'a, '_>,
    node: &Node<'a>,
    inside: Inside,
) -> BTreeMap<PortName, ReadPort> {
    let mut out = BTreeMap::new();
    for (key, entry) in r.entries(node) {
        let full = entry.value.is_object();
        let number = if full {
            r.get(&entry, "port")
        } else {
            Some(entry)
        };
        let port = number.and_then(|number| {
            let port = port_number(r, &number)?;
            if inside == Inside::Container && port == Port::Auto {
                r.bad(
                    &number,
                    Code::BadChoice,
                    "the port of a container is the one that it listens on inside, so it is a number",
                    Some("write its number; the machine's own port is `auto` unless `machine_port` says otherwise"),
                );
                return None;
            }
            Some(port)
        });
        let mut read = ReadPort {
            // A port whose number is wrong still exists for those who refer to it by name.
            port: port.unwrap_or(Port::Auto),
            publish: Publish::Loopback,
            machine: None,
            udp: false,
            spot: r.key_spot(&entry),
        };
        if full {
            more(r, &entry, inside, &mut read);
        }
        if let Some(name) = r.name_key::<PortName>(key, &entry) {
            out.insert(name, read);
        }
    }
    if inside == Inside::Process {
        one_host(r, &out);
    }
    out
}

/// The keys of a port besides its number.
fn more<'a>(r: &mut Reader<'a, '_>, entry: &Node<'a>, inside: Inside, read: &mut ReadPort) {
    if let Some(node) = r.get(entry, "publish") {
        read.publish = around::publish(r, &node).unwrap_or_default();
    }
    for key in ["machine_port", "protocol"] {
        let Some(node) = r.get(entry, key) else {
            continue;
        };
        if inside == Inside::Process {
            r.bad_key(
                &node,
                Code::KeyOutOfPlace,
                format!(
                    "`{key}` goes with the port of a container, and this app is native processes"
                ),
                Some("remove it: a native process listens on the machine's own port"),
            );
        } else if key == "machine_port" {
            read.machine = port_number(r, &node);
        } else {
            let protocol = r.choice(&node, &[("tcp", false), ("udp", true)]);
            read.udp = protocol.unwrap_or(false);
        }
    }
}

/// A number, or `auto`.
fn port_number<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<Port> {
    match node.value {
        Value::String(text) if text == "auto" => Some(Port::Auto),
        Value::Number(n) => {
            let port = n
                .as_u64()
                .and_then(|n| u16::try_from(n).ok())
                .filter(|n| *n > 0);
            if port.is_none() {
                r.mismatch(node, "a whole number from 1 to 65535");
            }
            port.map(Port::Fixed)
        }
        _ => {
            r.mismatch(node, "a number or `auto`");
            None
        }
    }
}

/// A process is handed one HOST, so its published ports are published in one way.
fn one_host(r: &mut Reader<'_, '_>, ports: &BTreeMap<PortName, ReadPort>) {
    let mut published = ports.values().filter(|p| p.publish != Publish::Loopback);
    let Some(first) = published.next() else {
        return;
    };
    if let Some(other) = published.find(|p| p.publish != first.publish) {
        r.out.push(
            Diagnostic::error(
                Code::KeyOutOfPlace,
                "a native process is handed one HOST to listen on, and these ports are published in two ways",
            )
            .at(&other.spot, "one is here")
            .at(&first.spot, "the other is here")
            .hint("publish both in the same way, or let two processes listen"),
        );
    }
}

/// A health check in any of its forms.
pub(crate) fn health<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<ReadHealth> {
    const HOUR_MS: u64 = 3_600_000;
    let mut out = ReadHealth {
        path: None,
        port: None,
        codes: vec![(200, 399)],
        interval_ms: 30_000,
        timeout_ms: 5_000,
        healthy_threshold: 2,
        unhealthy_threshold: 3,
    };
    if !node.value.is_object() {
        out.path = Some(health_path(r, node)?);
        return Some(out);
    }
    let (path, tcp) = (r.get(node, "path"), r.get(node, "tcp"));
    let port = r.get(node, "port");
    match (&path, &tcp) {
        (Some(_), Some(tcp)) => {
            r.bad_key(
                tcp,
                Code::ExactlyOne,
                "a health check asks either a `path` or `tcp`",
                Some("remove one of them"),
            );
            return None;
        }
        (None, None) => {
            r.bad_key(
                node,
                Code::ExactlyOne,
                "this health check does not say what to ask",
                Some("add `path: /healthz`, or `tcp: http` to connect to the port of that name"),
            );
            return None;
        }
        _ => {}
    }
    if let (Some(port), Some(_)) = (&port, &tcp) {
        r.bad_key(
            port,
            Code::ExactlyOne,
            "`tcp` names its port itself",
            Some("remove `port`"),
        );
    }
    let good = match &path {
        Some(path) => {
            out.path = health_path(r, path);
            out.path.is_some()
        }
        None => true,
    };
    for named in port.iter().chain(&tcp) {
        out.port = Some((r.name::<PortName>(named)?, r.spot(named)));
    }
    if let Some(codes) = r.get(node, "codes") {
        if tcp.is_some() {
            r.bad_key(
                &codes,
                Code::ExactlyOne,
                "a connection has no status code",
                Some("remove `codes`"),
            );
        }
        let several = r.items(&codes);
        let several = if codes.value.is_array() {
            several
        } else {
            vec![codes]
        };
        out.codes = several
            .iter()
            .filter_map(|node| self::codes(r, node))
            .collect();
        out.codes.sort_unstable();
        out.codes.dedup();
    }
    if let Some(node) = r.get(node, "interval") {
        out.interval_ms = r.duration(&node, 100..=HOUR_MS).unwrap_or(out.interval_ms);
    }
    if let Some(node) = r.get(node, "timeout") {
        out.timeout_ms = r.duration(&node, 10..=HOUR_MS).unwrap_or(out.timeout_ms);
    }
    out.healthy_threshold = r
        .get_number(node, "healthy_threshold")
        .unwrap_or(out.healthy_threshold);
    out.unhealthy_threshold = r
        .get_number(node, "unhealthy_threshold")
        .unwrap_or(out.unhealthy_threshold);
    good.then_some(out)
}

fn health_path<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    let path = r.with_vars(node)?;
    if crate::scalar::is_request_path(&path) {
        return Some(path);
    }
    r.bad(
        node,
        Code::BadHealthPath,
        format!("{} is no path to ask", quote(&path)),
        Some("start it with `/`, and write spaces and the like as %20"),
    );
    None
}

fn codes<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<(u16, u16)> {
    let text = match node.value {
        Value::Number(n) => n.to_string(),
        _ => r.text(node)?.to_owned(),
    };
    let codes = crate::scalar::status_codes(&text);
    if codes.is_none() && !r.is_reported(node) {
        r.bad(
            node,
            Code::BadStatusCodes,
            format!("{} is no range of status codes", quote(&text)),
            Some("write it like 200-399"),
        );
    }
    codes
}

/// Settles what needs all of the app: health ports, folders, names that are used twice.
pub(crate) fn finish(r: &mut Reader<'_, '_>, app: &mut ReadApp) {
    let sourced = app.source.is_some() || r.root().value.get("source").is_some();
    let mut seen: BTreeMap<PortName, Spot> = BTreeMap::new();
    for process in app.processes.values_mut() {
        for (name, ReadPort { spot, .. }) in &process.ports {
            match seen.get(name) {
                Some(first) => r.out.push(
                    Diagnostic::error(Code::DuplicatePort, format!("two processes of this app have a port {}", quote(name.as_str())))
                        .at(spot, "one is here")
                        .at(first, "the other is here")
                        .hint("give them different names, since others refer to a port by the app's name and its own"),
                ),
                None => {
                    seen.insert(name.clone(), spot.clone());
                }
            }
        }
        variables::port_in_command(r, process, &app.tuning.env);
        if let Some((read, spot)) = process.read_health.take() {
            process.health = settle(r, read, &spot, &process.ports, "process");
        }
        if let Some(spot) = &process.dir_spot
            && !sourced
        {
            r.out.push(
                Diagnostic::error(
                    Code::DirWithoutSource,
                    "`dir` is a folder inside the source, and this app has none",
                )
                .here(spot)
                .hint("add `source: { path: ../web }`"),
            );
        }
        app.uses.append(&mut process.uses);
        app.uses
            .extend(process.env.values().flat_map(|r| r.uses.iter().cloned()));
    }
}

/// The manifest's health check for what has none of its own, if it has the port that is to be asked.
pub(crate) fn by_default(
    r: &mut Reader<'_, '_>,
    default: Option<&ReadHealth>,
    ports: &BTreeMap<PortName, ReadPort>,
) -> Option<Health> {
    let fits = |health: &&ReadHealth| match &health.port {
        Some((port, _)) => ports.contains_key(port),
        None => ports.len() == 1,
    };
    let default = default.filter(fits)?.clone();
    let spot = r.spot(&r.root());
    settle(r, default, &spot, ports, "process")
}

/// The health check with its port, which is one of these. `whose` is what has them.
pub(crate) fn settle(
    r: &mut Reader<'_, '_>,
    read: ReadHealth,
    spot: &Spot,
    ports: &BTreeMap<PortName, ReadPort>,
    whose: &str,
) -> Option<Health> {
    let names: Vec<String> = ports.keys().map(|port| format!("`{port}`")).collect();
    let port = match read.port {
        Some((port, _)) if ports.contains_key(&port) => port,
        Some((port, spot)) => {
            let hint = match nearest(port.as_str(), ports.keys().map(PortName::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None if names.is_empty() => format!("add `ports: {{ {port}: auto }}`"),
                None => format!("there is {}", alternatives(&names)),
            };
            r.out.push(
                Diagnostic::error(
                    Code::UnknownHealthPort,
                    format!("the {whose} has no port {}", quote(port.as_str())),
                )
                .here(&spot)
                .hint(hint),
            );
            return None;
        }
        None => {
            let mut all = ports.keys();
            match (all.next(), all.next()) {
                (Some(only), None) => only.clone(),
                (None, _) => {
                    r.out.push(
                        Diagnostic::error(
                            Code::UnknownHealthPort,
                            format!("this health check has no port to ask: the {whose} has none"),
                        )
                        .here(spot)
                        .hint("add `ports: { http: auto }`"),
                    );
                    return None;
                }
                _ => {
                    r.out.push(
                        Diagnostic::error(Code::WhichPort, format!("the {whose} has several ports, and this health check does not say which one to ask"))
                            .here(spot)
                            .hint(format!("add `port: …`; there is {}", alternatives(&names))),
                    );
                    return None;
                }
            }
        }
    };
    let probe = match read.path {
        Some(path) => Probe::Http {
            port,
            path,
            codes: read.codes,
        },
        None => Probe::Tcp { port },
    };
    Some(Health {
        probe,
        interval_ms: read.interval_ms,
        timeout_ms: read.timeout_ms,
        healthy_threshold: read.healthy_threshold,
        unhealthy_threshold: read.unhealthy_threshold,
    })
}
