//! App: its processes, ports, health and settings.

use std::collections::BTreeMap;

use plumb_model::{OwnerName, PortName, ProcessName, RunState};

use super::process::{self, ReadProcess};
use super::tuning::{self, Tuning};
use super::{Node, Reader, Selected, Use, texts};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::set::{App, Port, Process, Selector, Source};

/// An app as far as it is right, with what `cross` wants to know.
#[derive(Debug)]
pub(crate) struct ReadApp {
    pub selected: Option<Selected>,
    pub replicas: Option<u32>,
    pub source: Option<Source>,
    pub tuning: Tuning,
    pub state: RunState,
    pub processes: BTreeMap<ProcessName, ReadProcess>,
    pub uses: Vec<Use>,
}

impl ReadApp {
    /// Every port with its place, and the number of instances that its process has.
    pub fn ports(&self) -> impl Iterator<Item = (&PortName, Port, &Spot, Option<u32>)> {
        self.processes.values().flat_map(|process| {
            let replicas = process.replicas.or(self.replicas);
            process
                .ports
                .iter()
                .map(move |(name, (port, spot))| (name, *port, spot, replicas))
        })
    }

    /// The app with its defaults filled in.
    pub fn finish(self, machines: Selector) -> App {
        let Self {
            replicas,
            source,
            tuning,
            state,
            processes,
            ..
        } = self;
        let processes = processes
            .into_iter()
            .map(|(name, read)| {
                let mut env = tuning.env.clone();
                env.extend(read.env);
                let process = Process {
                    limits: None,
                    publish: Default::default(),
                    schedule: None,
                    secrets: Default::default(),
                    argv: read.argv,
                    env: texts(&env),
                    ports: read
                        .ports
                        .into_iter()
                        .map(|(name, (port, _))| (name, port))
                        .collect(),
                    health: read.health,
                    replicas: read.replicas,
                    dir: read.dir,
                };
                (name, process)
            })
            .collect();
        App {
            build: Default::default(),
            hooks: Default::default(),
            ingress: None,
            limits: None,
            renamed_from: None,
            rollout: None,
            routes: Default::default(),
            runtime: None,
            schedule: None,
            secrets: Default::default(),
            spread: None,
            uses: Default::default(),
            workload: crate::set::Workload::Processes,
            machines,
            replicas,
            source,
            processes,
            env: texts(&tuning.env),
            restart: tuning.restart(),
            stop: tuning.stop(),
            log: tuning.log(),
            drift: tuning.drift.unwrap_or_default(),
            state,
            user: tuning.user,
        }
    }
}

/// Reads an app. What is wrong in it is reported and left out.
pub(crate) fn read(r: &mut Reader<'_, '_>, name: Option<&OwnerName>, defaults: &Tuning) -> ReadApp {
    let root = r.root();
    let tuning = tuning::read(r, &root).over(defaults);
    let (source, source_dir) = source(r, &root);
    let state = r.get(&root, "state").and_then(|state| {
        r.choice(
            &state,
            &[
                ("running", RunState::Running),
                ("stopped", RunState::Stopped),
            ],
        )
    });
    let mut out = ReadApp {
        selected: r.machines(&root),
        replicas: r.get_number(&root, "replicas"),
        source,
        tuning,
        state: state.unwrap_or(RunState::Running),
        processes: BTreeMap::new(),
        uses: Vec::new(),
    };
    read_processes(r, &root, name, &mut out);
    attach(r, &root, &mut out);
    process::finish(r, &mut out, &source_dir);
    out.uses
        .extend(out.tuning.env.values().flat_map(|r| r.uses.iter().cloned()));
    out
}

fn source<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>) -> (Option<Source>, String) {
    let Some(node) = r.get(root, "source") else {
        return (None, String::new());
    };
    let path = r
        .get(&node, "path")
        .and_then(|path| r.repository_path(&path));
    let dir = r.get(&node, "dir").and_then(|dir| process::dir(r, &dir));
    (
        path.map(|path| Source::Path { path }),
        dir.unwrap_or_default(),
    )
}

fn read_processes<'a>(
    r: &mut Reader<'a, '_>,
    root: &Node<'a>,
    name: Option<&OwnerName>,
    out: &mut ReadApp,
) {
    match (r.get(root, "run"), r.get(root, "processes")) {
        (Some(run), Some(processes)) => {
            let (first, second) = (r.key_spot(&run), r.key_spot(&processes));
            r.out.push(
                Diagnostic::error(Code::ExactlyOne, "an App has either `run` or `processes`")
                    .at(&second, "this one")
                    .at(&first, "or this one")
                    .hint("`run: X` is short for `processes: { app: { run: X } }`"),
            );
        }
        (Some(run), None) => {
            let process = process::short(r, &run);
            let app = ProcessName::new("app").expect("`app` is a name");
            out.processes.insert(app, process);
        }
        (None, Some(processes)) => {
            for (key, node) in r.entries(&processes) {
                let process = process::read(r, &node);
                if let Some(name) = r.name_key::<ProcessName>(key, &node) {
                    out.processes.insert(name, process);
                }
            }
        }
        (None, None) if !r.checked.without_driver => {
            let shown = name.map_or_else(|| "this App".to_owned(), |name| quote(name.as_str()));
            let spot = r.spot(root);
            r.out.push(
                Diagnostic::error(
                    Code::ExactlyOne,
                    format!("{shown} says nowhere what to run"),
                )
                .here(&spot)
                .hint("add `run: ./server`, or `processes: { web: ./server, worker: ./worker }`"),
            );
        }
        (None, None) => {}
    }
}

/// The process that the app's own `ports` and `health` belong to: the only one, or the one called `web`.
fn attach<'a>(r: &mut Reader<'a, '_>, root: &Node<'a>, out: &mut ReadApp) {
    let ports = r.get(root, "ports");
    let health = r.get(root, "health");
    let read_ports = ports
        .as_ref()
        .map(|node| process::ports(r, node))
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
            let key = node.at.trim_start_matches('/').to_owned();
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
    for (port, (value, spot)) in read_ports {
        if let Some((_, (_, first))) = main.ports.get_key_value(&port) {
            r.out.push(
                Diagnostic::error(
                    Code::DuplicatePort,
                    format!(
                        "the port {} of the process {} stands here twice",
                        quote(port.as_str()),
                        quote(name.as_str())
                    ),
                )
                .at(&spot, "again here")
                .at(first, "first here")
                .hint("remove one of them"),
            );
            continue;
        }
        main.ports.insert(port, (value, spot));
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
