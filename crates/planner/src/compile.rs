//! From blueprints to every machine's resources: machines selected, replicas placed, ports allotted,
//! references resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::BlueprintSet;
use plumb_blueprint::{
    App, Content, FileDecl, Health, Port, Probe, Process, Selector, Setup, Source as AppSource,
};
use plumb_model::plan::{Origin, Resolution};
use plumb_model::spec::{WorkDir, WorkDirOf};
use plumb_model::state::{FORMAT, MachineInfo, OwnerKind, Recorded, ReleaseBody, ResolutionKey};
use plumb_model::{
    Address, ArtifactSpec, DirectorySpec, DriftPolicy, FileContent, FileSpec, HealthProbe,
    HealthSpec, MachineName, OwnerName, PortName, ProcessName, ProcessSpec, Resource, ResourceKind,
    ResourceSpec,
};

use crate::desired::{Desired, claims};
use crate::place::place;
use crate::ports::{Want, allot};
use crate::text::{Endpoints, Scope, render};
use crate::{Input, PlanError, Problem, Source};

/// One process in one slot on one machine.
struct Instance<'a> {
    app: &'a OwnerName,
    process: &'a ProcessName,
    address: Address,
}

struct Compiler<'a> {
    set: &'a BlueprintSet,
    sources: &'a BTreeMap<String, Source>,
    input: &'a Input<'a>,
    problems: Vec<Problem>,
    origins: BTreeMap<Address, Origin>,
}

/// Compiles a valid set of blueprints.
///
/// # Errors
/// Everything that depends on what is recorded or on a whole machine: clashing claims, references without a value,
/// a range of ports that is used up.
pub fn compile(
    set: &BlueprintSet,
    sources: &BTreeMap<String, Source>,
    input: &Input<'_>,
) -> Result<Desired, PlanError> {
    let mut compiler = Compiler {
        set,
        sources,
        input,
        problems: Vec::new(),
        origins: BTreeMap::new(),
    };
    let instances = compiler.place_all();
    let ports = compiler.ports(&instances);
    let endpoints = endpoints(&instances, &ports);
    let mut owners: BTreeMap<&OwnerName, (OwnerKind, BTreeMap<Address, Resource>)> =
        BTreeMap::new();
    for name in set.apps.keys() {
        owners.insert(name, (OwnerKind::App, BTreeMap::new()));
    }
    for (name, setup) in &set.setups {
        let resources = compiler.setup(name, setup, &endpoints);
        owners.insert(name, (OwnerKind::Setup, resources));
    }
    for instance in &instances {
        let resources = compiler.instance(instance, &ports, &endpoints);
        if let Some((_, all)) = owners.get_mut(instance.app) {
            all.extend(resources.into_iter().map(|r| (r.address.clone(), r)));
        }
    }
    let mut owners: BTreeMap<OwnerName, ReleaseBody> = owners
        .into_iter()
        .map(|(name, (kind, resources))| {
            let resources = resources.into_values().collect();
            (
                name.clone(),
                ReleaseBody {
                    rollout: None,
                    format: FORMAT,
                    owner: name.clone(),
                    kind,
                    resources,
                    resolutions: BTreeMap::new(),
                },
            )
        })
        .collect();
    nest_paths(&mut owners);
    compiler.check_claims(&owners);
    if !compiler.problems.is_empty() {
        return Err(PlanError {
            problems: compiler.problems,
        });
    }
    Ok(Desired {
        manifest: Some(set.workspace.name.clone()),
        machines: set.machines.clone(),
        owners: owners
            .into_iter()
            .map(|(name, body)| (name, Arc::new(body)))
            .collect(),
        origins: compiler.origins,
        resolutions: set
            .paths
            .iter()
            .filter_map(|p| {
                let digest = sources.get(p)?.digest;
                let resolution = Resolution {
                    resolved: Some(digest.to_string()),
                    before: None,
                };
                Some((ResolutionKey(format!("path {p}")), resolution))
            })
            .collect(),
        free_deletes: set.workspace.policy.deletes,
    })
}

fn selected<'a>(
    set: &'a BlueprintSet,
    selector: &Selector,
) -> BTreeMap<&'a MachineName, &'a MachineInfo> {
    if let Selector::Names(names) = selector {
        return names
            .iter()
            .filter_map(|name| set.machines.get_key_value(name))
            .collect();
    }
    set.machines
        .iter()
        .filter(|(name, info)| selector.matches(name, info))
        .collect()
}

/// Where the slots of one process are recorded.
fn recorded_slots(
    recorded: &Recorded,
    app: &OwnerName,
    process: &ProcessName,
) -> BTreeMap<u32, MachineName> {
    let resources = recorded
        .releases
        .get(app)
        .map(|body| body.resources.as_slice())
        .unwrap_or_default();
    resources
        .iter()
        .filter(|r| r.address.kind == ResourceKind::Process)
        .filter_map(|r| {
            let (name, slot) = r.address.name.split_once('/')?;
            (name == process.as_str())
                .then(|| Some((slot.parse().ok()?, r.address.machine.clone())))?
        })
        .collect()
}

/// The ports of each instance, by name.
type Ports = BTreeMap<Address, BTreeMap<PortName, u16>>;

fn endpoints(instances: &[Instance<'_>], ports: &Ports) -> Endpoints {
    let mut endpoints = Endpoints::new();
    for instance in instances {
        let machine = &instance.address.machine;
        let all = endpoints
            .entry(instance.app.clone())
            .or_default()
            .entry(machine.clone())
            .or_default();
        for (name, number) in ports.get(&instance.address).into_iter().flatten() {
            // Of several slots on one machine the lowest answers.
            all.entry(name.clone()).or_insert(*number);
        }
    }
    endpoints
}

impl<'a> Compiler<'a> {
    fn problem(&mut self, message: String, origin: Option<Origin>, hint: Option<String>) {
        let problem = Problem {
            message,
            origin,
            hint,
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    fn place_all(&mut self) -> Vec<Instance<'a>> {
        let set = self.set;
        let mut instances = Vec::new();
        for (app, spec) in &set.apps {
            let machines: BTreeSet<MachineName> =
                selected(set, &spec.machines).into_keys().cloned().collect();
            for (process, decl) in &spec.processes {
                let replicas = decl.replicas.or(spec.replicas);
                let before = recorded_slots(self.input.recorded, app, process);
                for (machine, slot) in place(app, process, &machines, replicas, &before) {
                    let address = Address::new(
                        &machine,
                        app,
                        ResourceKind::Process,
                        &format!("{process}/{slot}"),
                    );
                    instances.push(Instance {
                        app,
                        process,
                        address,
                    });
                }
            }
        }
        instances
    }

    fn process(&self, instance: &Instance<'_>) -> (&'a App, &'a Process) {
        let app = &self.set.apps[instance.app];
        (app, &app.processes[instance.process])
    }

    fn ports(&mut self, instances: &[Instance<'_>]) -> Ports {
        let mut wants = BTreeSet::new();
        for instance in instances {
            let (_, process) = self.process(instance);
            for (port, number) in &process.ports {
                let fixed = match number {
                    Port::Auto => None,
                    Port::Fixed(number) => Some(*number),
                };
                wants.insert(Want {
                    address: instance.address.clone(),
                    port: port.clone(),
                    fixed,
                });
            }
        }
        let given = allot(
            &wants,
            self.input.recorded,
            self.input.observed,
            self.input.workspace,
        );
        let mut ports = Ports::new();
        for ((address, port), number) in given {
            match number {
                Some(number) => {
                    ports.entry(address).or_default().insert(port, number);
                }
                None => {
                    let origin = self
                        .set
                        .origin("App", address.owner.as_str(), "/ports")
                        .cloned();
                    let message = format!(
                        "every port from 20000 to 29999 on machine `{}` is allotted",
                        address.machine
                    );
                    self.problem(
                        message,
                        origin,
                        Some("write fixed port numbers, or use more machines".to_owned()),
                    );
                }
            }
        }
        ports
    }

    fn origin(&self, kind: &str, owner: &OwnerName, pointer: &str) -> Option<Origin> {
        self.set.origin(kind, owner.as_str(), pointer).cloned()
    }

    /// Where a process is written: under `processes`, or as the app's one `run`.
    fn run_origin(&self, owner: &OwnerName, process: &ProcessName) -> Option<Origin> {
        let run = format!("App/{owner}#/run");
        match self.set.origins.get(&run) {
            Some(origin) => Some(origin.clone()),
            None => self.origin("App", owner, &format!("/processes/{process}")),
        }
    }

    fn text(
        &mut self,
        text: &plumb_blueprint::Text,
        scope: &Scope<'_>,
        origin: Option<Origin>,
    ) -> String {
        match render(text, scope) {
            Ok(text) => text,
            Err((message, hint)) => {
                self.problem(message, origin, Some(hint));
                String::new()
            }
        }
    }

    fn source(&mut self, path: &str, origin: Option<Origin>) -> Option<&'a Source> {
        let source = self.sources.get(path);
        if source.is_none() {
            let hint = "plan again from the folder that holds the blueprints".to_owned();
            self.problem(
                format!("`{path}` was not read along with the blueprints"),
                origin,
                Some(hint),
            );
        }
        source
    }

    fn setup(
        &mut self,
        owner: &OwnerName,
        setup: &Setup,
        endpoints: &Endpoints,
    ) -> BTreeMap<Address, Resource> {
        let mut resources = BTreeMap::new();
        for (machine, info) in selected(self.set, &setup.machines) {
            let scope = Scope {
                machine,
                info,
                endpoints,
                commit: self.input.commit,
                symbolic: false,
            };
            for (path, decl) in &setup.directories {
                let spec = ResourceSpec::Directory(DirectorySpec {
                    path: path.clone(),
                    mode: decl.mode,
                    owner: decl.owner.clone(),
                    group: decl.group.clone(),
                });
                let origin = self.origin("Setup", owner, &format!("/directories/{}", escape(path)));
                let address = Address::new(machine, owner, ResourceKind::Directory, path);
                self.keep(&mut resources, address, setup.drift, spec, origin);
            }
            for (path, decl) in &setup.files {
                let origin = self.origin("Setup", owner, &format!("/files/{}", escape(path)));
                let Some(content) = self.content(decl, &scope, origin.clone()) else {
                    continue;
                };
                let spec = ResourceSpec::File(FileSpec {
                    path: path.clone(),
                    content,
                    mode: decl.mode,
                    owner: decl.owner.clone(),
                    group: decl.group.clone(),
                    notify: BTreeSet::new(),
                });
                let address = Address::new(machine, owner, ResourceKind::File, path);
                self.keep(&mut resources, address, setup.drift, spec, origin);
            }
        }
        resources
    }

    fn keep(
        &mut self,
        resources: &mut BTreeMap<Address, Resource>,
        address: Address,
        drift: DriftPolicy,
        spec: ResourceSpec,
        origin: Option<Origin>,
    ) {
        if let Some(origin) = origin {
            self.origins.insert(address.clone(), origin);
        }
        resources.insert(address.clone(), Resource::new(address, drift, spec));
    }

    fn content(
        &mut self,
        decl: &FileDecl,
        scope: &Scope<'_>,
        origin: Option<Origin>,
    ) -> Option<FileContent> {
        match &decl.content {
            Content::Text(text) => Some(FileContent::Text(self.text(text, scope, origin))),
            Content::Source(path) => self.source(path, origin).map(|source| match &source.text {
                Some(text) => FileContent::Text(text.clone()),
                None => FileContent::Blob {
                    digest: source.digest,
                    size: source.size,
                },
            }),
        }
    }

    /// The resources behind one instance: the process, and the artifact that it runs out of.
    fn instance(
        &mut self,
        instance: &Instance<'_>,
        ports: &Ports,
        endpoints: &Endpoints,
    ) -> Vec<Resource> {
        let (app, process) = self.process(instance);
        let owner = instance.app;
        let machine = &instance.address.machine;
        let scope = Scope {
            machine,
            info: &self.set.machines[machine],
            endpoints,
            commit: self.input.commit,
            symbolic: true,
        };
        let ports = ports.get(&instance.address).cloned().unwrap_or_default();
        let mut env = port_variables(&ports);
        for (name, text) in &process.env {
            let origin = self.origin("App", owner, &format!("/env/{}", escape(name)));
            let value = self.text(text, &scope, origin);
            env.insert(name.clone(), value);
        }
        let run_origin = self.run_origin(owner, instance.process);
        let argv = process
            .argv
            .iter()
            // Arguments are final: nothing in them waits for the start.
            .map(|arg| {
                self.text(
                    arg,
                    &Scope {
                        symbolic: false,
                        ..scope
                    },
                    run_origin.clone(),
                )
            })
            .collect();
        let mut resources = Vec::new();
        let mut after = BTreeSet::new();
        let mut workdir = None;
        if let Some(AppSource::Path { path }) = &app.source {
            let origin = self.origin("App", owner, "/source");
            if let Some(source) = self.source(path, origin.clone()) {
                let address = Address::new(machine, owner, ResourceKind::Artifact, "source");
                if let Some(origin) = origin {
                    self.origins.insert(address.clone(), origin);
                }
                let spec = ResourceSpec::Artifact(ArtifactSpec {
                    digest: source.digest,
                    size: source.size,
                });
                after.insert(address.clone());
                resources.push(Resource::new(address, app.drift, spec));
                workdir = Some(WorkDir {
                    artifact: source.digest,
                    dir: process.dir.clone(),
                    of: WorkDirOf::Artifact,
                });
            }
        }
        let health = process
            .health
            .as_ref()
            .and_then(|health| health_spec(health, &ports));
        let spec = ResourceSpec::Process(ProcessSpec {
            argv,
            env,
            workdir,
            user: app.user.clone(),
            ports,
            health,
            restart: app.restart.clone(),
            stop: app.stop.clone(),
            log: app.log.clone(),
            state: app.state,
            toolchain: None,
            secrets: BTreeMap::new(),
            limits: None,
            schedule: None,
        });
        if let Some(origin) = run_origin {
            self.origins.insert(instance.address.clone(), origin);
        }
        resources.push(Resource {
            after,
            ..Resource::new(instance.address.clone(), app.drift, spec)
        });
        resources
    }

    /// Two resources that want the same path or port of one machine. Blueprints are checked for it where they are
    /// written; this holds whatever way they came.
    fn check_claims(&mut self, owners: &BTreeMap<OwnerName, ReleaseBody>) {
        let mut held: BTreeMap<(MachineName, String), &Address> = BTreeMap::new();
        for resource in owners.values().flat_map(|body| &body.resources) {
            for claim in claims(resource) {
                if let Some(first) = held.get(&claim) {
                    let message = format!(
                        "{} on machine `{}` is claimed by `{first}` and by `{}`",
                        claim.1, claim.0, resource.address
                    );
                    let origin = self.origins.get(&resource.address).cloned();
                    self.problem(
                        message,
                        origin,
                        Some("let one of them go, or choose another".to_owned()),
                    );
                } else {
                    held.insert(claim, &resource.address);
                }
            }
        }
    }
}

/// `PORT_NAME` for each port, and `PORT` if there is only one.
fn port_variables(ports: &BTreeMap<PortName, u16>) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = ports
        .iter()
        .map(|(name, number)| {
            (
                format!("PORT_{}", name.as_str().to_uppercase().replace('-', "_")),
                number.to_string(),
            )
        })
        .collect();
    if let (1, Some(number)) = (ports.len(), ports.values().next()) {
        env.insert("PORT".to_owned(), number.to_string());
    }
    env
}

fn health_spec(health: &Health, ports: &BTreeMap<PortName, u16>) -> Option<HealthSpec> {
    let probe = match &health.probe {
        Probe::Http { port, path, codes } => HealthProbe::Http {
            port: *ports.get(port)?,
            path: path.clone(),
            codes: codes.clone(),
        },
        Probe::Tcp { port } => HealthProbe::Tcp {
            port: *ports.get(port)?,
        },
    };
    Some(HealthSpec {
        probe,
        interval_ms: health.interval_ms,
        timeout_ms: health.timeout_ms,
        healthy_threshold: health.healthy_threshold,
        unhealthy_threshold: health.unhealthy_threshold,
    })
}

/// Escapes one token of a JSON pointer (RFC 6901, section 3).
fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// Lets each file and directory wait for the innermost managed directory above it on the same machine.
fn nest_paths(owners: &mut BTreeMap<OwnerName, ReleaseBody>) {
    let directories: BTreeMap<(MachineName, String), Address> = owners
        .values()
        .flat_map(|body| &body.resources)
        .filter(|r| r.address.kind == ResourceKind::Directory)
        .map(|r| {
            (
                (r.address.machine.clone(), r.address.name.to_string()),
                r.address.clone(),
            )
        })
        .collect();
    for resource in owners.values_mut().flat_map(|body| &mut body.resources) {
        if !matches!(
            resource.address.kind,
            ResourceKind::File | ResourceKind::Directory
        ) {
            continue;
        }
        let mut folder: &str = &resource.address.name;
        while let Some(at) = folder.rfind('/') {
            folder = &folder[..at];
            if let Some(above) =
                directories.get(&(resource.address.machine.clone(), folder.to_owned()))
            {
                resource.after.insert(above.clone());
                break;
            }
        }
    }
}
