//! App: what it consists of, and everything around that.

use std::collections::BTreeMap;

use plumb_model::{OnDisconnect, OwnerName, PortName, ProcessName, RunState, Schedule};

use super::around::{self, ReadSecret};
use super::container::{self, ReadContainer};
use super::keys::{self, Form};
use super::process::{self, Inside, ReadPort, ReadProcess};
use super::tuning::{self, Tuning};
use super::{Node, Reader, Selected, Use, infra, schedule, source, texts, variables};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::set::{
    App, Compose, Hook, Port, Process, Publish, RouteDecl, RuntimeDecl, Selector, Source, Text,
    Workload,
};

/// An app as far as it is right, with what `cross` wants to know.
#[derive(Debug)]
pub(crate) struct ReadApp {
    pub selected: Option<Selected>,
    pub ingress: Option<Selected>,
    pub replicas: Option<u32>,
    /// The label to spread over, and where it is written.
    pub spread: Option<(String, Spot)>,
    pub source: Option<Source>,
    pub tuning: Tuning,
    state: RunState,
    form: Option<Form>,
    pub processes: BTreeMap<ProcessName, ReadProcess>,
    pub container: Option<ReadContainer>,
    /// The Compose file, and where it is named.
    pub compose: Option<(String, Spot)>,
    static_dir: String,
    runtime: Option<RuntimeDecl>,
    build: Vec<Vec<Text>>,
    /// With the one out of the base domain as the last.
    pub routes: Vec<(RouteDecl, Spot)>,
    pub secrets: BTreeMap<String, ReadSecret>,
    /// The Services that it uses, with their places.
    pub services: Vec<(OwnerName, Spot)>,
    schedule: Option<Schedule>,
    on_disconnect: Option<OnDisconnect>,
    hooks: Vec<Hook>,
    pub renamed_from: Option<(OwnerName, Spot)>,
    /// The references in its texts.
    pub uses: Vec<Use>,
}

/// A fixed port of the machine.
#[derive(Debug, Clone)]
pub(crate) struct FixedPort {
    pub number: u16,
    pub udp: bool,
    pub spot: Spot,
    /// How many instances claim it, over all machines.
    pub replicas: Option<u32>,
}

impl ReadApp {
    /// Every port by name; none where they are in a Compose file.
    pub fn ports(&self) -> Option<Vec<(&PortName, &ReadPort)>> {
        if self.compose.is_some() {
            return None;
        }
        let processes = self.processes.values().flat_map(|p| &p.ports);
        let container = self.container.iter().flat_map(|c| &c.ports);
        Some(processes.chain(container).collect())
    }

    /// The ports of the machine that it claims.
    pub fn fixed(&self) -> Vec<FixedPort> {
        let mut out = Vec::new();
        for process in self.processes.values() {
            for port in process.ports.values() {
                if let Port::Fixed(number) = port.port {
                    out.push(FixedPort {
                        number,
                        udp: false,
                        spot: port.spot.clone(),
                        replicas: process.replicas.or(self.replicas),
                    });
                }
            }
        }
        for port in self.container.iter().flat_map(|c| c.ports.values()) {
            if let Some(Port::Fixed(number)) = port.machine {
                out.push(FixedPort {
                    number,
                    udp: port.udp,
                    spot: port.spot.clone(),
                    replicas: self.replicas,
                });
            }
        }
        out
    }

    /// The app with its defaults filled in.
    pub fn finish(self, machines: Selector) -> App {
        let mut tuning = self.tuning;
        let limits = around::any_limits(tuning.limits.clone());
        let env = texts(std::mem::take(&mut tuning.env));
        let decls = |secrets: BTreeMap<String, ReadSecret>| {
            secrets
                .into_iter()
                .map(|(name, secret)| (name, secret.decl))
                .collect()
        };
        let processes = self
            .processes
            .into_iter()
            .map(|(name, read)| {
                let publish = read
                    .ports
                    .iter()
                    .filter(|(_, port)| port.publish != Publish::Loopback)
                    .map(|(name, port)| (name.clone(), port.publish.clone()))
                    .collect();
                let own = read
                    .limits
                    .map(|own| around::limits_over(own, &tuning.limits));
                let process = Process {
                    argv: read.argv,
                    env: texts(read.env),
                    ports: read
                        .ports
                        .into_iter()
                        .map(|(name, port)| (name, port.port))
                        .collect(),
                    health: read.health,
                    replicas: read.replicas,
                    dir: read.dir,
                    publish,
                    limits: own.and_then(around::any_limits),
                    schedule: read.schedule,
                    secrets: decls(read.secrets),
                };
                (name, Box::new(process))
            })
            .collect();
        let workload = match (self.container, self.compose, self.form) {
            (Some(container), ..) => Workload::Container(Box::new(container.finish(env.clone()))),
            (_, Some((path, _)), _) => Workload::Compose(Compose {
                path,
                services: BTreeMap::new(),
                volumes: BTreeMap::new(),
                networks: BTreeMap::new(),
            }),
            (_, _, Some(Form::Static)) => Workload::Static {
                dir: self.static_dir,
            },
            _ => Workload::Processes,
        };
        App {
            machines,
            replicas: self.replicas,
            spread: self.spread.map(|(label, _)| label),
            source: self.source,
            workload,
            processes,
            runtime: self.runtime,
            build: self.build,
            routes: self.routes.into_iter().map(|(route, _)| route).collect(),
            ingress: self.ingress.map(|ingress| ingress.selector),
            secrets: decls(self.secrets),
            uses: self.services.into_iter().map(|(name, _)| name).collect(),
            limits,
            schedule: self.schedule,
            on_disconnect: self.on_disconnect,
            hooks: self.hooks,
            rollout: tuning.rollout.finish(),
            renamed_from: self.renamed_from.map(|(name, _)| name),
            env,
            restart: tuning.restart(),
            stop: tuning.stop(),
            log: tuning.log(),
            drift: tuning.drift.unwrap_or_default(),
            state: self.state,
            user: tuning.user,
        }
    }
}

/// What of the manifest an app needs to know.
pub(crate) struct FromManifest<'a> {
    pub defaults: &'a Tuning,
    /// The domain that apps are reachable under, and where it is written.
    pub base_domain: Option<&'a (String, Spot)>,
}

/// Reads an app. What is wrong in it is reported and left out.
pub(crate) fn read(
    r: &mut Reader<'_, '_>,
    name: Option<&OwnerName>,
    manifest: &FromManifest<'_>,
) -> ReadApp {
    let root = r.root();
    let mut own = tuning::read(r, &root);
    let form = keys::form(r, &root, name.map(OwnerName::as_str));
    let container = matches!(form, Some(Form::Image | Form::Dockerfile));
    if !container {
        own.user = tuning::user(r, &root);
    }
    let mut tuning = own.over(manifest.defaults);
    if form != Some(Form::Native) && form.is_some() {
        // The manifest's user is one of the machine, and nobody in an image.
        tuning.user = None;
    }
    if form == Some(Form::Static) {
        // Nothing runs that could be given any.
        tuning.env.clear();
    }
    let mut uses = Vec::new();
    let mut out = ReadApp {
        selected: r.machines(&root),
        ingress: r.get(&root, "ingress").and_then(|node| r.selector(&node)),
        replicas: r.get_number(&root, "replicas"),
        spread: spread(r, &root),
        source: source::read(r, &root),
        tuning,
        state: infra::state(r, &root),
        form,
        processes: BTreeMap::new(),
        container: None,
        compose: None,
        static_dir: String::new(),
        runtime: source::runtime(r, &root),
        build: source::build(r, &root, &mut uses),
        routes: Vec::new(),
        secrets: BTreeMap::new(),
        services: Vec::new(),
        schedule: None,
        on_disconnect: None,
        hooks: Vec::new(),
        renamed_from: r.renamed_from(&root),
        uses,
    };
    if let Some(node) = r.get(&root, "secrets") {
        out.secrets = around::secrets(r, &node);
    }
    if let Some(node) = r.get(&root, "uses") {
        out.services = r.names(&node);
    }
    if let Some(node) = r.get(&root, "schedule") {
        out.schedule = schedule::read(r, &node);
    }
    if let Some(node) = r.get(&root, "on_disconnect") {
        out.on_disconnect = around::on_disconnect(r, &node);
    }
    if let Some(node) = r.get(&root, "hooks") {
        out.hooks = around::hooks(r, &node, &mut out.uses);
    }
    if let Some(node) = r.get(&root, "routes") {
        out.routes = around::routes(r, &node);
    }
    match form {
        Some(Form::Native) => {
            native(r, &root, &mut out);
            attach(r, &root, &mut out);
            routed(r, &root, &mut out);
            probed(r, &root, &mut out);
        }
        Some(Form::Image | Form::Dockerfile) => {
            let mut read = container::read(r, &root, &mut out.uses);
            if let Some((health, spot)) = read.read_health.take() {
                read.health = process::settle(r, health, &spot, &read.ports, "container");
            } else if out.schedule.is_none() && r.get(&root, "health").is_none() {
                let default = out.tuning.health.as_ref();
                read.health = process::by_default(r, default, &read.ports);
            }
            out.container = Some(read);
        }
        Some(Form::Compose) => {
            let node = r.get(&root, "compose");
            out.compose = node.and_then(|node| {
                let spot = r.spot(&node);
                Some((r.repository_path(&node)?, spot))
            });
        }
        Some(Form::Static) => static_site(r, &root, &mut out),
        // Whose they are is not known, but what is wrong in them is.
        None => {
            native(r, &root, &mut out);
            if let Some(node) = r.get(&root, "ports") {
                process::ports(r, &node, Inside::Process);
            }
            if let Some(node) = r.get(&root, "health") {
                process::health(r, &node);
            }
        }
    }
    process::finish(r, &mut out);
    variables::check(r, &out, manifest.defaults);
    if form.is_some() {
        routes(r, name, &mut out, manifest);
    }
    out.uses
        .extend(out.tuning.env.values().flat_map(|r| r.uses.iter().cloned()));
    out
}

fn spread<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> Option<(String, Spot)> {
    let (text, at) = r.get_text(root, "spread")?;
    if crate::scalar::is_label_key(text) {
        return Some((text.to_owned(), r.spot(&at)));
    }
    r.bad(
        &at,
        Code::BadLabel,
        format!("{} cannot be a label", quote(text)),
        Some("name a label of the machines, such as `zone`"),
    );
    None
}

fn static_site<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    let Some(node) = r.get(root, "static") else {
        return;
    };
    out.static_dir = process::dir(r, &node).unwrap_or_default();
    if r.get(root, "source").is_none() {
        r.bad_key(
            &node,
            Code::DirWithoutSource,
            "`static` is a folder inside the source, and this app has none",
            Some("add `source: { path: ../site }`"),
        );
    }
}

/// The processes of a native app.
fn native<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    if let Some(run) = r.get(root, "run") {
        let process = process::short(r, &run);
        let app = ProcessName::new("app").expect("`app` is a name");
        out.processes.insert(app, process);
    }
    if let Some(processes) = r.get(root, "processes") {
        for (key, node) in r.entries(&processes) {
            let process = process::read(r, &node);
            if let Some(name) = r.name_key::<ProcessName>(key, &node) {
                out.processes.insert(name, process);
            }
        }
    }
}

/// The process that the app's own `ports` and `health` belong to: the only one, or the one called `web`.
fn attach<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    let ports = r.get(root, "ports");
    let health = r.get(root, "health");
    let read_ports = ports
        .as_ref()
        .map(|node| process::ports(r, node, Inside::Process))
        .unwrap_or_default();
    let read_health = health.as_ref().and_then(|node| process::health(r, node));
    if out.processes.is_empty() {
        return;
    }
    let only = out.processes.len() == 1;
    let main = out
        .processes
        .iter_mut()
        .find(|(name, _)| only || name.as_str() == "web");
    let Some((name, main)) = main else {
        for node in ports.iter().chain(&health) {
            let key = r.at(node).trim_start_matches('/').to_owned();
            r.bad_key(
                node,
                Code::WhichProcess,
                format!("this app has several processes and none is called `web`, so nobody knows whose `{key}` these are"),
                Some(&format!("move `{key}` into one of them: `processes: {{ NAME: {{ run: …, {key}: … }} }}`")),
            );
        }
        return;
    };
    let name = name.clone();
    for (port, read) in read_ports {
        if let Some(first) = main.ports.get(&port) {
            r.out.push(
                Diagnostic::error(
                    Code::DuplicatePort,
                    format!(
                        "the port {} of the process {} stands here twice",
                        quote(port.as_str()),
                        quote(name.as_str())
                    ),
                )
                .at(&read.spot, "again here")
                .at(&first.spot, "first here")
                .hint("remove one of them"),
            );
            continue;
        }
        main.ports.insert(port, read);
    }
    if let (Some(node), Some(read)) = (&health, read_health) {
        match &main.read_health {
            Some((_, first)) => {
                let spot = r.key_spot(node);
                r.out.push(
                    Diagnostic::error(
                        Code::ExactlyOne,
                        format!("the process {} has two health checks", quote(name.as_str())),
                    )
                    .at(&spot, "one is here")
                    .at(first, "the other is here")
                    .hint("remove one of them"),
                );
            }
            None => main.read_health = Some((read, r.key_spot(node))),
        }
    }
}

/// The process that the app's own `health` would belong to gets that of the manifest's defaults where it has none.
fn probed<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    if out.schedule.is_some() || r.get(root, "health").is_some() {
        return;
    }
    let default = out.tuning.health.as_ref();
    let only = out.processes.len() == 1;
    let mut processes = out.processes.iter_mut();
    let main = processes.find(|(name, _)| only || name.as_str() == "web");
    if let Some((_, main)) = main
        && main.read_health.is_none()
        && main.schedule.is_none()
    {
        main.health = process::by_default(r, default, &main.ports);
    }
}

/// An app that routes lead to has a port: where none is written, its main process is given the port `http`.
fn routed<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    let any = out.processes.values().any(|p| !p.ports.is_empty());
    let Some(node) = r.get(root, "routes").filter(|_| !any) else {
        return;
    };
    let only = out.processes.len() == 1;
    let mut processes = out.processes.iter_mut();
    if let Some((_, main)) = processes.find(|(name, _)| only || name.as_str() == "web") {
        let http = PortName::new("http").expect("`http` is a name");
        let port = ReadPort {
            port: Port::Auto,
            publish: Publish::Loopback,
            machine: None,
            udp: false,
            spot: r.key_spot(&node),
        };
        main.ports.insert(http, port);
    }
}

/// Which port routes lead to: the only one that speaks TCP, or the one called `http`.
enum HttpPort {
    One,
    None,
    Several,
}

fn http_port(app: &ReadApp) -> HttpPort {
    let Some(ports) = app.ports() else {
        // A Compose file says it.
        return HttpPort::One;
    };
    let mut tcp = ports.iter().filter(|(_, port)| !port.udp);
    match (tcp.next(), tcp.next()) {
        (None, _) => HttpPort::None,
        (Some(_), None) => HttpPort::One,
        _ if ports
            .iter()
            .any(|(name, port)| name.as_str() == "http" && !port.udp) =>
        {
            HttpPort::One
        }
        _ => HttpPort::Several,
    }
}

/// Checks that routes lead somewhere, and adds the one out of the base domain.
fn routes(
    r: &mut Reader<'_, '_>,
    name: Option<&OwnerName>,
    app: &mut ReadApp,
    manifest: &FromManifest<'_>,
) {
    let files = app.form == Some(Form::Static);
    let leads = if files { HttpPort::One } else { http_port(app) };
    if let Some((_, spot)) = app.routes.first() {
        let problem = match leads {
            HttpPort::One => None,
            HttpPort::None => Some(
                Diagnostic::error(Code::RouteWithoutPort, "a route leads to a port, and this app has none")
                    .here(spot)
                    .hint("add `ports: { http: auto }`"),
            ),
            HttpPort::Several => Some(
                Diagnostic::error(Code::WhichPort, "this app has several ports and none is called `http`, so nobody knows where its routes lead")
                    .here(spot)
                    .hint("call the port that answers HTTP `http`"),
            ),
        };
        if let Some(problem) = problem {
            r.out.push(problem);
        }
    } else if let Some(ingress) = &app.ingress
        && manifest.base_domain.is_none()
    {
        r.out.push(
            Diagnostic::error(
                Code::KeyOutOfPlace,
                "`ingress` says whose web server answers for `routes`, and this app has none",
            )
            .here(&ingress.spot)
            .hint("add `routes: [shop.example.com]`, or remove `ingress`"),
        );
    } else if files && manifest.base_domain.is_none() {
        let spot = r.root();
        let spot = r
            .get(&spot, "static")
            .map_or_else(|| r.spot(&spot), |node| r.key_spot(&node));
        r.out.push(
            Diagnostic::error(
                Code::RouteWithoutPort,
                "nobody can reach this static site: it has no route",
            )
            .here(&spot)
            .hint("add `routes: [docs.example.com]`, or `base_domain` to the manifest"),
        );
    }
    // What a Compose file listens on is not known here, so it is reachable only where it says so.
    let (Some(name), Some((base, spot)), HttpPort::One, None) =
        (name, manifest.base_domain, leads, &app.compose)
    else {
        return;
    };
    let host = format!("{name}.{base}");
    if !crate::scalar::is_host_name(&host) {
        r.out.push(
            Diagnostic::error(
                Code::BadRoute,
                format!("{} is longer than a host may be", quote(&host)),
            )
            .here(spot)
            .hint("choose a shorter domain"),
        );
        return;
    }
    let route = RouteDecl {
        host,
        path: "/".to_owned(),
    };
    if !app.routes.iter().any(|(own, _)| *own == route) {
        app.routes.push((route, spot.clone()));
    }
}
