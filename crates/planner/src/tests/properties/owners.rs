//! Each kind of owner, out of its throws.

use std::collections::{BTreeMap, BTreeSet};

use plumb_blueprint::{
    App, BlueprintSet, Compose, Container, ContainerPort, Content, DirDecl, FileDecl, GitSource,
    Health, Hook, ImageDecl, MountDecl, MountSourceDecl, Network, Port, Probe, Process, Publish,
    Reference, RouteDecl, RuntimeDecl, SecretDecl, Segment, Selector, Service, Setup, Source, Text,
    Volume, Workload,
};
use plumb_model::spec_parts::{Overlap, Runtime};
use plumb_model::spec_service::{Backup, Engine};
use plumb_model::spec_source::{GitRef, TaskMoment};
use plumb_model::state::{Rollout, RolloutStrategy};
use plumb_model::{
    DriftPolicy, Limits, LogSpec, Mode, OnDelete, OwnerName, PortName, ProcessName, RestartPolicy,
    RestartSpec, RunState, Schedule, SecretForm, SecretName, StopSpec,
};

use super::CANARY;
use super::draft::{Around, Dice, Sort, Thing, names};

pub(super) fn secret(name: &str) -> SecretName {
    SecretName::new(name).expect("a name")
}

fn text(text: &str) -> Text {
    vec![Segment::Literal(text.to_owned())]
}

fn port(name: &str) -> PortName {
    PortName::new(name).expect("a name")
}

fn unit(name: &str) -> ProcessName {
    ProcessName::new(name).expect("a name")
}

/// One owner while it is made.
struct Making<'a> {
    dice: Dice<'a>,
    around: &'a Around<'a>,
    number: u8,
    renamed_from: Option<OwnerName>,
}

/// Adds one owner to a set.
pub(super) fn add(set: &mut BlueprintSet, around: &Around<'_>, number: u8, thing: &Thing) {
    let (name, renamed_from) = names(number, thing);
    let mut making = Making {
        dice: Dice(&thing.throws),
        around,
        number,
        renamed_from,
    };
    match thing.sort {
        Sort::Native | Sort::Container | Sort::Compose | Sort::Static => {
            let app = making.app(thing.sort, &mut set.paths);
            set.apps.insert(name, app);
        }
        Sort::Service => {
            set.services.insert(name, making.service());
        }
        Sort::Volume => {
            let volume = Volume {
                machines: Selector::All,
                on_delete: making.on_delete(),
                renamed_from: making.renamed_from,
            };
            set.volumes.insert(name, volume);
        }
        Sort::Network => {
            let subnet = making.dice.rarely(3);
            let network = Network {
                machines: Selector::All,
                subnet: subnet.then(|| format!("10.{number}.0.0/24")),
                internal: making.dice.rarely(3),
                renamed_from: making.renamed_from,
            };
            set.networks.insert(name, network);
        }
        Sort::Setup => {
            let setup = making.setup(&mut set.paths);
            set.setups.insert(name, setup);
        }
    }
}

impl Making<'_> {
    fn on_delete(&mut self) -> OnDelete {
        if self.dice.rarely(3) {
            OnDelete::Destroy
        } else {
            OnDelete::Keep
        }
    }

    fn drift(&mut self) -> DriftPolicy {
        match self.dice.roll(6) {
            5 => DriftPolicy::Report,
            4 => DriftPolicy::Ignore,
            _ => DriftPolicy::Enforce,
        }
    }

    fn state(&mut self) -> RunState {
        if self.dice.rarely(6) {
            RunState::Stopped
        } else {
            RunState::Running
        }
    }

    fn selector(&mut self) -> Selector {
        match self.dice.roll(4) {
            0 | 1 => Selector::All,
            2 => Selector::Names(self.one_machine()),
            _ => {
                let role = self.around.roles.first().cloned();
                let role = role.expect("there is a machine, and it has a role");
                Selector::Labels([("role".to_owned(), role)].into())
            }
        }
    }

    fn one_machine(&mut self) -> Vec<plumb_model::MachineName> {
        self.dice.pick(&self.around.machines).into_iter().collect()
    }

    fn source(&mut self, paths: &mut BTreeSet<String>) -> Source {
        match self.dice.roll(4) {
            2 | 3 => Source::Git(GitSource {
                url: "https://git.example.com/x.git".to_owned(),
                wanted: match self.dice.roll(4) {
                    0 => GitRef::Branch("main".to_owned()),
                    1 => GitRef::Branch("next".to_owned()),
                    2 => GitRef::Tag("v1".to_owned()),
                    _ => GitRef::Commit("c".repeat(40)),
                },
                dir: ["", "sub"][usize::from(self.dice.roll(2))].to_owned(),
                follow: false,
            }),
            _ => {
                let path = format!("src-{}", self.number % 2);
                paths.insert(path.clone());
                Source::Path {
                    path,
                    dir: ["", "sub"][usize::from(self.dice.roll(2))].to_owned(),
                }
            }
        }
    }

    fn publish(&mut self) -> Publish {
        match self.dice.roll(5) {
            3 => Publish::Private,
            4 => Publish::Public,
            _ => Publish::Loopback,
        }
    }

    /// What an app is told, some of it with a credential in it.
    fn env(&mut self) -> BTreeMap<String, Text> {
        let mut env = BTreeMap::new();
        let level = self.dice.roll(3);
        env.insert("LEVEL".to_owned(), text(&format!("l{level}")));
        let services = self.around.all(&[Sort::Service]);
        let references = [
            Reference::MachineName,
            Reference::Release,
            Reference::Commit,
        ];
        match self.dice.roll(6) {
            5 => {
                let it = self.dice.pick(&references).expect("three");
                env.insert("IT".to_owned(), vec![Segment::Ref(it)]);
            }
            4 | 3 => {
                if let Some(service) = self.dice.pick(&services) {
                    let url = Segment::Ref(Reference::ServiceUrl(service));
                    let more = Segment::Literal(format!("?token={CANARY}"));
                    env.insert("DB".to_owned(), vec![url, more]);
                }
            }
            _ => {}
        }
        env
    }

    fn secrets(&mut self) -> BTreeMap<String, SecretDecl> {
        let mut secrets = BTreeMap::new();
        for key in ["KEY", "OTHER"] {
            if self.dice.rarely(3) {
                let number = self.dice.roll(2);
                let form = if self.dice.rarely(3) {
                    SecretForm::File
                } else {
                    SecretForm::Env
                };
                let secret = secret(&format!("{CANARY}-{number}"));
                secrets.insert(
                    key.to_owned(),
                    SecretDecl {
                        secret,
                        form,
                        on_change: plumb_model::OnSecretChange::Restart,
                        memory_only: false,
                    },
                );
            }
        }
        secrets
    }

    fn health(&mut self, port: &PortName) -> Option<Health> {
        let port = port.clone();
        let probe = match self.dice.roll(6) {
            5 => Probe::Http {
                port,
                path: "/".to_owned(),
                codes: vec![(200, 399)],
            },
            4 => Probe::Tcp { port },
            _ => return None,
        };
        Some(Health {
            probe,
            interval_ms: 1000 * (1 + u64::from(self.dice.roll(2))),
            timeout_ms: 5000,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        })
    }

    fn schedule(&mut self) -> Option<Schedule> {
        self.dice.rarely(8).then(|| Schedule {
            cron: format!("{} 3 * * *", self.dice.roll(2)),
            timezone: "UTC".to_owned(),
            overlap: Overlap::Skip,
            timeout_ms: None,
        })
    }

    fn limits(&mut self) -> Option<Limits> {
        self.dice.rarely(6).then(|| Limits {
            memory_bytes: Some(1 << (20 + self.dice.roll(2))),
            cpu_millis: None,
            processes: None,
        })
    }

    fn process(&mut self, replicas: Option<u32>, which: u8) -> Process {
        let http = port(if which == 0 { "http" } else { "work" });
        let fixed = self.dice.rarely(5) && replicas.is_none();
        let number = if fixed {
            Port::Fixed(8000 + u16::from(self.number) * 10 + u16::from(which))
        } else {
            Port::Auto
        };
        let command = self.dice.roll(3);
        Process {
            argv: vec![text("./run"), text(&command.to_string())],
            env: self.env(),
            health: self.health(&http),
            publish: [(http.clone(), self.publish())].into(),
            ports: [(http, number)].into(),
            replicas: None,
            dir: String::new(),
            limits: self.limits(),
            schedule: self.schedule(),
            secrets: BTreeMap::new(),
        }
    }

    fn container(&mut self, replicas: Option<u32>, sourced: bool, which: u8) -> Container {
        let http = port("http");
        let image = match self.dice.roll(4) {
            0 => format!("registry.example.com/box@sha256:{}", "1".repeat(64)),
            1 => "box:2".to_owned(),
            _ => "registry.example.com/box:1".to_owned(),
        };
        let image = if sourced {
            ImageDecl::Dockerfile {
                context: String::new(),
                path: "Dockerfile".to_owned(),
                target: None,
                args: [("A".to_owned(), text("1"))].into(),
            }
        } else {
            ImageDecl::Reference(image)
        };
        let fixed = self.dice.rarely(4) && replicas.is_none();
        let machine = if fixed {
            Port::Fixed(9000 + u16::from(self.number) * 10 + u16::from(which))
        } else {
            Port::Auto
        };
        let opened = ContainerPort {
            container: 80,
            machine,
            publish: self.publish(),
            udp: false,
        };
        let mut mounts = BTreeMap::new();
        let shared = self.around.all(&[Sort::Volume]);
        let source = match self.dice.roll(5) {
            2 => Some(MountSourceDecl::Volume("own".to_owned())),
            3 => self
                .dice
                .pick(&shared)
                .map(|name| MountSourceDecl::Volume(name.to_string())),
            4 => Some(MountSourceDecl::Path("/srv/x".to_owned())),
            _ => None,
        };
        if let Some(source) = source {
            let read_only = self.dice.rarely(3);
            mounts.insert("/data".to_owned(), MountDecl { source, read_only });
        }
        let shared = self.around.all(&[Sort::Network]);
        let network = self.dice.rarely(3).then(|| self.dice.pick(&shared));
        let env = self.env();
        let command = self.dice.rarely(3);
        Container {
            image,
            entrypoint: None,
            command: command.then(|| vec![text("serve")]),
            env,
            health: self.health(&http),
            ports: [(http, opened)].into(),
            mounts,
            networks: network
                .flatten()
                .map(|n| n.to_string())
                .into_iter()
                .collect(),
            workdir: None,
            user: None,
            labels: BTreeMap::new(),
            after: BTreeSet::new(),
            restart: None,
            stop: None,
        }
    }

    fn compose(&mut self, replicas: Option<u32>) -> Compose {
        let mut services = BTreeMap::from([(unit("a"), self.container(replicas, false, 1))]);
        if self.dice.rarely(2) {
            let mut second = self.container(replicas, false, 2);
            if self.dice.rarely(2) {
                second.after.insert(unit("a"));
            }
            services.insert(unit("b"), second);
        }
        let network = Network {
            machines: Selector::All,
            subnet: None,
            internal: self.dice.rarely(3),
            renamed_from: None,
        };
        Compose {
            path: "compose.yaml".to_owned(),
            services,
            volumes: [("own".to_owned(), self.on_delete())].into(),
            networks: [("back".to_owned(), network)].into(),
        }
    }

    fn app(&mut self, sort: Sort, paths: &mut BTreeSet<String>) -> App {
        let machines = self.selector();
        let scaled = sort != Sort::Static && self.dice.rarely(4);
        let replicas = scaled.then(|| 1 + u32::from(self.dice.roll(3)));
        let sourced = sort == Sort::Static || self.dice.rarely(3);
        let source = sourced.then(|| self.source(paths));
        let mut processes = BTreeMap::new();
        let workload = match sort {
            Sort::Container => {
                let image = sourced && self.dice.rarely(2);
                Workload::Container(Box::new(self.container(replicas, image, 0)))
            }
            Sort::Compose => Workload::Compose(self.compose(replicas)),
            Sort::Static => Workload::Static {
                dir: ["", "public"][usize::from(self.dice.roll(2))].to_owned(),
            },
            _ => {
                processes.insert(unit("web"), Box::new(self.process(replicas, 0)));
                if self.dice.rarely(3) {
                    processes.insert(unit("work"), Box::new(self.process(replicas, 1)));
                }
                Workload::Processes
            }
        };
        let native = sort == Sort::Native;
        let build = sourced && self.dice.rarely(3) && (native || sort == Sort::Static);
        let runtime = (build || native) && self.dice.rarely(4);
        let mut routes = Vec::new();
        if sort == Sort::Static || self.dice.rarely(3) {
            let host = format!("x{}.example.com", self.number);
            routes.push(RouteDecl {
                host,
                path: ["/", "/sub"][usize::from(self.dice.roll(2))].to_owned(),
            });
        }
        let mut hooks = Vec::new();
        if native && self.dice.rarely(4) {
            hooks.push(Hook {
                moment: if self.dice.rarely(2) {
                    TaskMoment::After
                } else {
                    TaskMoment::Before
                },
                argv: vec![text("./hook")],
                reversible: true,
                timeout_ms: 1000,
            });
        }
        let services = self.around.all(&[Sort::Service]);
        let uses = self.dice.rarely(3).then(|| self.dice.pick(&services));
        let rollout = self.dice.rarely(4).then(|| Rollout {
            strategy: match self.dice.roll(3) {
                0 => RolloutStrategy::BlueGreen,
                1 => RolloutStrategy::Rolling,
                _ => RolloutStrategy::Canary,
            },
            batch: 1 + u32::from(self.dice.roll(2)),
            ..Rollout::default()
        });
        App {
            machines,
            replicas,
            spread: self.dice.rarely(5).then(|| "role".to_owned()),
            source,
            workload,
            processes,
            runtime: runtime.then(|| RuntimeDecl {
                runtime: Runtime::Node,
                version: ["20", "20.1.0"][usize::from(self.dice.roll(2))].to_owned(),
            }),
            build: build.then(|| vec![text("make")]).into_iter().collect(),
            routes,
            ingress: None,
            secrets: self.secrets(),
            uses: uses.flatten().into_iter().collect(),
            limits: None,
            schedule: None,
            on_disconnect: None,
            hooks,
            rollout,
            renamed_from: self.renamed_from.clone(),
            env: BTreeMap::new(),
            restart: RestartSpec {
                policy: RestartPolicy::Always,
                initial_ms: 1000,
                max_ms: 60_000,
            },
            stop: StopSpec {
                signal: 15,
                grace_ms: 10_000,
            },
            log: LogSpec {
                max_bytes: 1 << 20,
                keep: 1 + u32::from(self.dice.roll(2)),
            },
            drift: self.drift(),
            state: self.state(),
            user: None,
        }
    }

    fn service(&mut self) -> Service {
        let engine = match self.dice.roll(4) {
            1 => Engine::Redis,
            2 => Engine::Rabbitmq,
            _ => Engine::Postgres,
        };
        let version = ["16", "16.3", "7.2.4"][usize::from(self.dice.roll(3))].to_owned();
        let publish = match self.dice.roll(4) {
            0 => Publish::Loopback,
            1 => Publish::Public,
            _ => Publish::Private,
        };
        let user = format!("x{}", self.number);
        let backup = self.dice.rarely(4);
        Service {
            machines: Selector::Names(self.one_machine()),
            engine,
            version,
            port: 5000 + u16::from(self.number),
            publish,
            database: user.clone(),
            user,
            backup: backup.then(|| Backup {
                cron: "0 3 * * *".to_owned(),
                timezone: "UTC".to_owned(),
                keep: 1 + u32::from(self.dice.roll(2)),
                folder: "/backup".to_owned(),
            }),
            on_delete: self.on_delete(),
            drift: self.drift(),
            state: self.state(),
            renamed_from: self.renamed_from.clone(),
        }
    }

    fn setup(&mut self, paths: &mut BTreeSet<String>) -> Setup {
        let machines = self.selector();
        let mut files = BTreeMap::new();
        let apps = self
            .around
            .all(&[Sort::Native, Sort::Container, Sort::Compose]);
        let services = self.around.all(&[Sort::Service]);
        for file in 0..1 + self.dice.roll(2) {
            let content = match self.dice.roll(6) {
                5 => {
                    let path = format!("file-{}", self.number % 2);
                    paths.insert(path.clone());
                    Content::Source(path)
                }
                4 => match self.dice.pick(&services) {
                    Some(service) => Content::Text(vec![
                        Segment::Literal(CANARY.to_owned()),
                        Segment::Ref(Reference::ServiceUrl(service)),
                    ]),
                    None => Content::Text(vec![Segment::Ref(Reference::MachineName)]),
                },
                n => Content::Text(text(&format!("c{n}"))),
            };
            let notified = self.dice.rarely(3).then(|| self.dice.pick(&apps));
            let decl = FileDecl {
                content,
                mode: Mode(0o600 + u32::from(self.dice.roll(2)) * 0o40),
                owner: None,
                group: None,
                notify: notified.flatten().into_iter().collect(),
            };
            files.insert(format!("/srv/d/x{}-{file}", self.number), decl);
        }
        let mut directories = BTreeMap::new();
        // Two owners must not claim one path.
        let folder = match self.dice.roll(3) {
            0 => None,
            1 if self.number == 0 => Some("/srv/d".to_owned()),
            _ => Some(format!("/srv/x{}", self.number)),
        };
        if let Some(folder) = folder {
            let decl = DirDecl {
                mode: Mode(0o700 + u32::from(self.dice.roll(2)) * 0o50),
                owner: None,
                group: None,
            };
            directories.insert(folder, decl);
        }
        let package = self.dice.rarely(3);
        Setup {
            machines,
            drift: self.drift(),
            packages: package
                .then(|| format!("p{}", self.number))
                .into_iter()
                .collect(),
            renamed_from: self.renamed_from.clone(),
            files,
            directories,
        }
    }
}
