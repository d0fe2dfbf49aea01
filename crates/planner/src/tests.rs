//! The planner through its front door: YAML in, a plan and the next recorded state out.
//!
//! [`World`] holds a repository and what has been recorded of it; [`World::apply`] turns a plan's next state into
//! the next recorded one by way of the stored bytes, and holds it against what must always be true.

mod canonical;
mod costs;
mod history;
mod law;
mod placing;
mod properties;
mod refusals;
mod scale;
mod scripts;
mod secrets;
mod shop;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::{BlueprintSet, Options, SourceFile};
use plumb_model::assignment::Entry;
use plumb_model::capability::{Availability, Capability, MachineFacts};
use plumb_model::coverage::{self, Cost};
use plumb_model::plan::{Change, ChangeAction, Plan};
use plumb_model::state::{Commit, Next, OwnerKind, Recorded, ReleaseBody};
use plumb_model::{
    Address, Assignment, Condition, ConditionKind, Found, FoundKind, Generation, Hash,
    KnownSecrets, Lineage, MachineName, OwnerName, ProcessSpec, Reason, ReleaseNumber,
    ResourceKind, ResourceSpec, ResourceStatus, Revision, Timestamp, WorkspaceName,
};

use crate::{Input, Observed, PlanError, Planned, Request, Source, plan};

/// What a repository path holds.
#[derive(Debug, Clone)]
pub(crate) enum Held {
    /// A folder, or bytes that are no text; the digest is that of this word.
    Bytes(String),
    /// A file of text.
    Text(String),
}

/// A repository, what is recorded of it, and what has been heard of its fleet.
#[derive(Debug, Clone, Default)]
pub(crate) struct World {
    pub files: BTreeMap<String, String>,
    pub sources: BTreeMap<String, Held>,
    pub recorded: Recorded,
    pub observed: Observed,
    /// Which secrets are set; nobody is asked unless a test says so.
    pub secrets: KnownSecrets,
    pub commit: Option<Commit>,
    /// Its name, if it is not `shop`.
    pub workspace: Option<WorkspaceName>,
    /// Every release that there was.
    pub history: BTreeMap<(OwnerName, ReleaseNumber), Arc<ReleaseBody>>,
    /// Every assignment by its hash.
    pub assignments: BTreeMap<Hash, Assignment>,
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().expect("an address")
}

pub(crate) fn owner(name: &str) -> OwnerName {
    OwnerName::new(name).expect("a name")
}

pub(crate) fn machine(name: &str) -> MachineName {
    MachineName::new(name).expect("a name")
}

fn workspace() -> WorkspaceName {
    WorkspaceName::new("shop").expect("a name")
}

/// An agent that can do everything but what is listed.
pub(crate) fn facts(lacks: &[Capability]) -> MachineFacts {
    let capabilities = Capability::ALL.into_iter().map(|capability| {
        let availability = if lacks.contains(&capability) {
            Availability::Lacks {
                why: "the agent does not run as root".to_owned(),
                remedy: "run `plumb agent` as root".to_owned(),
            }
        } else {
            Availability::Has {
                detail: "here".to_owned(),
            }
        };
        (capability, availability)
    });
    MachineFacts {
        version: "0.1.0".to_owned(),
        arch: "x86_64".to_owned(),
        hostname: "host".to_owned(),
        kernel: "6.1".to_owned(),
        capabilities: capabilities.collect(),
        host: None,
    }
}

pub(crate) const MANIFEST: &str = "kind: Workspace\nname: shop\n";

impl World {
    /// A manifest and these machines, all of which have been heard of, beside one file.
    pub fn new(machines: &[&str], text: &str) -> Self {
        let mut world = Self::default();
        world.write("plumb.yaml", MANIFEST);
        world.machines(machines);
        world.write("x.yaml", text);
        world
    }

    pub fn write(&mut self, path: &str, text: &str) {
        self.files.insert(path.to_owned(), text.to_owned());
    }

    /// Declares exactly these machines, and hears of them.
    pub fn machines(&mut self, names: &[&str]) {
        let text: String = names
            .iter()
            .map(|name| format!("kind: Machine\nname: {name}\nlabels: {{ name: {name} }}\n---\n"))
            .collect();
        self.write("machines.yaml", &text);
        for name in names {
            self.observed.machines.insert(machine(name), facts(&[]));
        }
    }

    pub fn try_blueprint(&self) -> Result<BlueprintSet, String> {
        let files: Vec<SourceFile> = self
            .files
            .iter()
            .map(|(path, text)| SourceFile {
                path: path.clone(),
                text: text.as_bytes().to_vec(),
            })
            .collect();
        plumb_blueprint::parse(&files, &Options::default())
            .map_err(|problems| plumb_blueprint::render(&problems, &files, false))
    }

    pub fn blueprint(&self) -> BlueprintSet {
        self.try_blueprint()
            .unwrap_or_else(|problems| panic!("{problems}"))
    }

    /// What the command line would have read; a path that nobody spoke of is a folder.
    pub fn read(&self, set: &BlueprintSet) -> BTreeMap<String, Source> {
        let source = |path: &String| match self.sources.get(path) {
            Some(Held::Text(text)) => Source {
                digest: Hash::of(text.as_bytes()),
                size: text.len() as u64,
                text: Some(text.clone()),
            },
            Some(Held::Bytes(word)) => Source {
                digest: Hash::of(word.as_bytes()),
                size: 1024,
                text: None,
            },
            None => Source {
                digest: Hash::of(path.as_bytes()),
                size: 1024,
                text: None,
            },
        };
        set.paths
            .iter()
            .map(|path| (path.clone(), source(path)))
            .collect()
    }

    pub fn request(&self) -> Request {
        let blueprint = self.blueprint();
        let sources = self.read(&blueprint);
        Request::Apply {
            blueprint,
            sources,
            ask: Default::default(),
        }
    }

    pub fn rollback_to(&self, name: &str, to: u64) -> Request {
        let key = (owner(name), ReleaseNumber(to));
        Request::Rollback {
            owner: owner(name),
            to: ReleaseNumber(to),
            body: self.history[&key].clone(),
        }
    }

    pub fn try_plan(&self, request: &Request) -> Result<Planned, PlanError> {
        plan(Input {
            request,
            recorded: &self.recorded,
            lineage: &Lineage::from_random([1; 16]),
            workspace: self.workspace.as_ref().unwrap_or(&workspace()),
            observed: &self.observed,
            secrets: &self.secrets,
            commit: self.commit.as_ref(),
        })
    }

    /// The plan for the files as they stand.
    pub fn plan(&self) -> Planned {
        self.try_plan(&self.request())
            .unwrap_or_else(|error| panic!("{error:#?}"))
    }

    /// A spec as it is recorded.
    pub fn spec(&self, at: &str) -> ResourceSpec {
        let at = address(at);
        let body = &self.recorded.releases[&at.owner];
        let found = body.resources.iter().find(|r| r.address == at);
        found
            .unwrap_or_else(|| panic!("no {at} in {body:#?}"))
            .spec
            .clone()
    }

    /// Plans the files as they stand, and records the plan.
    pub fn go(&mut self) -> Plan {
        let request = self.request();
        self.carry_out(&request)
    }

    /// Plans, records, and holds the law: the same again is nothing.
    pub fn carry_out(&mut self, request: &Request) -> Plan {
        let planned = self
            .try_plan(request)
            .unwrap_or_else(|error| panic!("{error:#?}"));
        self.apply(&planned);
        let again = self.try_plan(request).expect("what was planned once");
        assert!(again.plan.is_empty(), "{:#?}", again.plan);
        assert!(again.next.moved.is_empty(), "{:?}", again.next.moved);
        assert!(again.next.released.is_empty(), "{:?}", again.next.released);
        planned.plan
    }

    /// Records a plan as the ledger would: from the bytes, by their hashes. An empty one is not recorded.
    pub fn apply(&mut self, planned: &Planned) {
        check_plan(&planned.plan, &self.recorded);
        check_order(&planned.plan, &self.recorded, &planned.next);
        check_removals(&planned.plan, &self.recorded, &planned.next);
        if planned.plan.is_empty() {
            return;
        }
        let next = &planned.next;
        for (hash, bytes) in &next.bodies {
            assert_eq!(
                *hash,
                Hash::of(bytes),
                "a body is stored under another hash"
            );
        }
        let mut releases = BTreeMap::new();
        for (name, state) in &next.state.owners {
            let body = match next.bodies.get(&state.body) {
                Some(bytes) => {
                    let body: ReleaseBody = serde_json::from_slice(bytes).expect("a release");
                    assert_eq!(&body.bytes(), bytes, "a release does not read back");
                    Arc::new(body)
                }
                None => self.recorded.releases[name].clone(),
            };
            assert_eq!(Hash::of(&body.bytes()), state.body);
            if next.released.contains_key(name) {
                let key = (name.clone(), state.release);
                let twice = self.history.insert(key, body.clone());
                assert!(twice.is_none(), "release {} of {name} twice", state.release);
            }
            releases.insert(name.clone(), body);
        }
        self.check_machines(next, &releases);
        self.recorded = Recorded {
            state: next.state.clone(),
            releases,
        };
        assert_eq!(self.recorded.state.revision, next.state.revision);
    }

    /// Holds each machine's assignment against the releases and the tombstones, and its generation against both.
    fn check_machines(&mut self, next: &Next, releases: &BTreeMap<OwnerName, Arc<ReleaseBody>>) {
        let revision = self.recorded.state.revision;
        assert_eq!(next.state.revision, Revision(revision.0 + 1));
        for (name, state) in &next.state.machines {
            if let Some(bytes) = next.bodies.get(&state.assignment) {
                let parsed = Assignment::parse(bytes).expect("an assignment");
                self.assignments.insert(state.assignment, parsed);
            }
            let old = self.recorded.state.machines.get(name);
            let content_moved = old.map(|o| o.assignment) != Some(state.assignment);
            let generation_moved = old.map(|o| o.generation) != Some(state.generation);
            assert_eq!(content_moved, generation_moved, "machine {name}");
            assert_eq!(content_moved, next.moved.contains_key(name), "{name}");
            assert!(old.is_none_or(|o| o.generation <= state.generation));
            assert!(state.generation.0 <= next.state.revision.0);
            let assignment = &self.assignments[&state.assignment];
            let resources: Vec<_> = assignment.resources().collect();
            let expected: BTreeMap<_, _> = releases
                .values()
                .flat_map(|body| &body.resources)
                .filter(|r| r.address.machine == *name)
                .map(|r| (&r.address, r.as_ref()))
                .collect();
            assert_eq!(resources, expected.into_values().collect::<Vec<_>>());
            let tombstones: BTreeMap<Address, Generation> = assignment
                .entries()
                .filter_map(|entry| match entry {
                    Entry::Tombstone(t) => Some((t.address.clone(), t.since)),
                    Entry::Resource(_) => None,
                })
                .collect();
            assert_eq!(tombstones, state.tombstones);
            let mut ports = BTreeSet::new();
            for resource in &resources {
                for port in crate::desired::claimed_ports(resource) {
                    assert!(
                        ports.insert(port),
                        "port {port} twice, at {}",
                        resource.address
                    );
                }
            }
        }
    }

    pub fn process(&self, at: &str) -> ProcessSpec {
        let at = address(at);
        let found = self.recorded.releases[&at.owner]
            .resources
            .iter()
            .find(|r| r.address == at);
        match found.map(|r| &r.spec) {
            Some(ResourceSpec::Process(spec)) => spec.clone(),
            other => panic!("{at} is {other:?}"),
        }
    }

    /// The one port of a process.
    pub fn port(&self, at: &str) -> u16 {
        *self.process(at).ports.values().next().expect("a port")
    }

    pub fn tombstones(&self, name: &str) -> BTreeMap<String, u64> {
        self.recorded.state.machines[&machine(name)]
            .tombstones
            .iter()
            .map(|(address, since)| (address.to_string(), since.0))
            .collect()
    }

    pub fn generation(&self, name: &str) -> Generation {
        self.recorded.state.machines[&machine(name)].generation
    }

    /// What an agent says of a resource under the generation that its machine is recorded at.
    pub fn observe(&mut self, at: &str, said: Said) {
        let generation = self.generation(address(at).machine.as_str());
        self.observe_under(at, said, generation);
    }

    pub fn observe_under(&mut self, at: &str, said: Said, generation: Generation) {
        let condition = |kind, reason, message: &str| Condition {
            kind,
            status: true,
            reason,
            message: message.to_owned(),
            since: Timestamp::UNIX_EPOCH,
        };
        let conditions = match said {
            Said::Gone => Vec::new(),
            Said::Converged => vec![condition(
                ConditionKind::Converged,
                Reason::AsDesired,
                "as it should be",
            )],
            Said::Failed => vec![condition(
                ConditionKind::Failed,
                Reason::CommandNotFound,
                "there is no command `serve`",
            )],
            Said::PortTaken => vec![condition(
                ConditionKind::Blocked,
                Reason::PortTaken,
                "another program holds its port",
            )],
            Said::InTheWay(_) => vec![condition(
                ConditionKind::Blocked,
                Reason::NotOurs,
                "a file that plumb did not make",
            )],
            Said::Drifted(message) => {
                vec![condition(
                    ConditionKind::Drifted,
                    Reason::ReportOnly,
                    message,
                )]
            }
        };
        let address = address(at);
        let status = ResourceStatus {
            address: address.clone(),
            generation,
            conditions,
            gone: said == Said::Gone,
            process: (said == Said::Failed).then(Default::default),
            found: match said {
                Said::InTheWay(text) => Some(Box::new(found(text))),
                _ => None,
            },
        };
        self.observed.statuses.insert(address, Arc::new(status));
    }

    /// Every agent proves everything gone that it was ordered to remove, and reports the rest converged.
    pub fn converge(&mut self) {
        let mut said = Vec::new();
        for state in self.recorded.state.machines.values() {
            for entry in self.assignments[&state.assignment].entries() {
                let what = match entry {
                    Entry::Tombstone(_) => Said::Gone,
                    Entry::Resource(_) => Said::Converged,
                };
                said.push((entry.address().to_string(), what));
            }
        }
        self.observed.statuses.clear();
        for (at, what) in said {
            self.observe(&at, what);
        }
    }
}

/// What an agent may say of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Gone,
    Converged,
    PortTaken,
    /// Of a process: it was never started.
    Failed,
    Drifted(&'a str),
    /// A file with this text, which everybody may read; a directory where there is none.
    InTheWay(&'a str),
}

fn found(text: &str) -> Found {
    let is_file = !text.is_empty();
    Found {
        kind: if is_file {
            FoundKind::File
        } else {
            FoundKind::Directory
        },
        mode: plumb_model::Mode(if is_file { 0o600 } else { 0o700 }),
        owner: "alice".to_owned(),
        group: "users".to_owned(),
        size: is_file.then_some(text.len() as u64),
        digest: is_file.then(|| Hash::of(text.as_bytes())),
        text: is_file.then(|| text.to_owned()),
    }
}

/// What is true of every plan.
pub(crate) fn check_plan(plan: &Plan, recorded: &Recorded) {
    assert_eq!(plan.approval, plan.approval_hash());
    assert_eq!(plan.base, recorded.state.revision);
    let in_order = plan.changes.windows(2).all(|w| w[0].address < w[1].address);
    assert!(in_order, "changes are not sorted");
    acyclic(&plan.order);
    let actions: BTreeMap<&Address, ChangeAction> = plan
        .changes
        .iter()
        .map(|c| (&c.address, c.action))
        .collect();
    for (first, second) in &plan.order {
        // Nothing that stays or comes is ever in the way of a removal.
        if actions[second] == ChangeAction::Delete {
            assert_eq!(actions[first], ChangeAction::Delete, "{first} < {second}");
        }
    }
    for change in &plan.changes {
        check_downtime(change, plan, recorded);
    }
    for change in &plan.owners {
        assert!(
            change.from.is_none_or(|from| from < change.to),
            "{change:?}"
        );
    }
}

/// What is said of a process that its agent never got to run.
const NEVER_UP: &str = "its agent did not get it to run until now";

/// Downtime is stated whenever something that runs is stopped or restarted, and never otherwise.
fn check_downtime(change: &Change, plan: &Plan, recorded: &Recorded) {
    let renamed = plan
        .owners
        .iter()
        .find(|o| o.owner == change.address.owner)
        .and_then(|o| o.renamed_from.clone());
    let owner = renamed.as_ref().unwrap_or(&change.address.owner);
    let at = crate::compile::under(&change.address, owner);
    let old = recorded
        .releases
        .get(owner)
        .and_then(|body| body.resources.iter().find(|r| r.address == at));
    if matches!(
        change.address.kind,
        ResourceKind::File | ResourceKind::Network
    ) {
        // It may tell others, or cut them off, which its own tests hold.
        return;
    }
    if change.reasons.iter().any(|r| r == NEVER_UP) {
        // So said its agent, which the plan's own tests hold.
        return;
    }
    let running = old.is_some_and(|old| {
        let fields = old.spec.fields();
        old.address.kind.runs()
            && fields["state"] == "running"
            && fields
                .get("schedule")
                .is_none_or(serde_json::Value::is_null)
    });
    let dear = |attribute: &plumb_model::plan::AttributeChange| {
        let field = attribute.path.split('.').next().unwrap_or_default();
        // Whether a secret's new version only tells what runs is said where it is used.
        if field == "secrets" {
            return attribute.cost >= Cost::Restart;
        }
        // That it runs only at times from now on stops what runs now.
        field == "schedule"
            || coverage::field(change.address.kind, field).is_some_and(|f| f.cost >= Cost::Restart)
    };
    let stopped = match change.action {
        ChangeAction::Delete => !others_go_on(plan, recorded, &at),
        ChangeAction::Forget => false,
        // The first attribute is the address itself where the owner is renamed.
        _ => {
            let fields = change.attributes.iter();
            fields.skip(usize::from(renamed.is_some())).any(dear)
        }
    };
    assert_eq!(change.downtime.is_some(), running && stopped, "{change:#?}");
}

/// The name of what a process or container is an instance of.
fn instance_of(address: &Address) -> Option<(ResourceKind, &str)> {
    let (name, number) = address.name.rsplit_once('/')?;
    let is_number = number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some((address.kind, name))
}

/// Whether other instances of what goes run before and afterwards, as the changes say.
fn others_go_on(plan: &Plan, before: &Recorded, gone: &Address) -> bool {
    let stays = |address: &Address| {
        let change = plan.changes.iter().find(|change| {
            let old = change.attributes.first();
            let old = old.filter(|a| a.path == "address");
            let old = old.and_then(|a| a.before.as_ref());
            change.address == *address || old.is_some_and(|old| *old == address.to_string())
        });
        change.is_none_or(|change| {
            let stops = |a: &plumb_model::plan::AttributeChange| {
                a.path.starts_with("schedule")
                    || a.path == "state" && a.after == Some("stopped".into())
            };
            change.action != ChangeAction::Delete && !change.attributes.iter().any(stops)
        })
    };
    let body = before.releases.get(&gone.owner);
    let mut others = body.iter().flat_map(|body| &body.resources);
    others.any(|other| {
        let fields = other.spec.fields();
        instance_of(&other.address).is_some()
            && instance_of(&other.address) == instance_of(gone)
            && fields.get("state").is_some_and(|state| state == "running")
            && stays(&other.address)
    })
}

/// Each pair of changes that depend on each other is in the order, the right way round.
fn check_order(plan: &Plan, before: &Recorded, after: &Next) {
    let actions: BTreeMap<&Address, ChangeAction> = plan
        .changes
        .iter()
        .map(|c| (&c.address, c.action))
        .collect();
    let ordered: BTreeSet<(&Address, &Address)> = plan.order.iter().map(|(a, b)| (a, b)).collect();
    let is_deleted = |a: &Address| actions.get(a) == Some(&ChangeAction::Delete);
    let is_made = |a: &Address| {
        actions
            .get(a)
            .is_some_and(|a| !matches!(a, ChangeAction::Delete | ChangeAction::Forget))
    };
    for resource in before.releases.values().flat_map(|b| &b.resources) {
        for first in &resource.after {
            if is_deleted(&resource.address) && is_deleted(first) {
                assert!(ordered.contains(&(&resource.address, first)), "{first}");
            }
        }
    }
    let bodies = after.bodies.values();
    for body in bodies.filter_map(|b| serde_json::from_slice::<ReleaseBody>(b).ok()) {
        for resource in &body.resources {
            for first in &resource.after {
                assert_eq!(first.machine, resource.address.machine, "{first}");
                if is_made(&resource.address) && is_made(first) {
                    assert!(ordered.contains(&(first, &resource.address)), "{first}");
                }
            }
        }
    }
}

/// Only what is recorded is deleted or forgotten, and what is forgotten leaves no tombstone.
fn check_removals(plan: &Plan, before: &Recorded, after: &Next) {
    let recorded: BTreeMap<&Address, &plumb_model::Resource> = before
        .releases
        .values()
        .flat_map(|b| &b.resources)
        .map(|r| (&r.address, r.as_ref()))
        .collect();
    for change in &plan.changes {
        let tombstone = after
            .state
            .machines
            .get(&change.address.machine)
            .is_some_and(|m| m.tombstones.contains_key(&change.address));
        match change.action {
            ChangeAction::Delete => {
                assert!(recorded.contains_key(&change.address), "{change:#?}");
                let loses = plan
                    .owners
                    .iter()
                    .any(|o| o.data_loss.contains(&change.address));
                assert_eq!(loses, change.address.kind.holds_data(), "{change:#?}");
            }
            ChangeAction::Forget => {
                assert!(change.address.kind.holds_data(), "{change:#?}");
                assert!(!tombstone, "{change:#?}");
            }
            _ => assert!(!tombstone, "{change:#?}"),
        }
    }
    check_spoken_of(plan, &recorded, after);
}

/// Of every address at which an agent may hold what is recorded something is said: it is wanted there, or at an address that
/// it has from there on, or is to be removed there, or is forgotten.
fn check_spoken_of(
    plan: &Plan,
    recorded: &BTreeMap<&Address, &plumb_model::Resource>,
    after: &Next,
) {
    let mut said: BTreeSet<Address> = BTreeSet::new();
    for (name, machine) in &after.state.machines {
        said.extend(machine.tombstones.keys().cloned());
        let Some(bytes) = after.bodies.get(&machine.assignment) else {
            // It holds what it held.
            let here = recorded.keys().filter(|address| address.machine == *name);
            said.extend(here.map(|address| (*address).clone()));
            let here = recorded.values().filter(|r| r.address.machine == *name);
            said.extend(here.flat_map(|r| r.addresses_before()).cloned());
            continue;
        };
        for resource in plumb_model::Assignment::parse(bytes).unwrap().resources() {
            said.insert(resource.address.clone());
            said.extend(resource.addresses_before().into_iter().cloned());
        }
    }
    for resource in recorded.values() {
        let forgotten = plan
            .changes
            .iter()
            .any(|c| c.action == ChangeAction::Forget && c.address == resource.address);
        let gone = !after.state.machines.contains_key(&resource.address.machine);
        for address in resource
            .addresses_before()
            .into_iter()
            .chain([&resource.address])
        {
            assert!(
                forgotten || gone || said.contains(address),
                "nothing is said of {address}, where an agent may hold {}",
                resource.address
            );
        }
    }
}

fn acyclic(order: &[(Address, Address)]) {
    let mut waits: BTreeMap<&Address, BTreeSet<&Address>> = BTreeMap::new();
    for (first, second) in order {
        waits.entry(first).or_default();
        waits.entry(second).or_default().insert(first);
    }
    while !waits.is_empty() {
        let free: Vec<&Address> = waits
            .iter()
            .filter(|(_, firsts)| firsts.is_empty())
            .map(|(address, _)| *address)
            .collect();
        assert!(!free.is_empty(), "a cycle among {waits:?}");
        for address in free {
            waits.remove(address);
            for firsts in waits.values_mut() {
                firsts.remove(address);
            }
        }
    }
}

/// A release of one resource, put together without a blueprint.
pub(crate) fn release_of(resource: plumb_model::Resource) -> Arc<ReleaseBody> {
    Arc::new(ReleaseBody {
        rollout: None,
        format: plumb_model::state::FORMAT,
        owner: resource.address.owner.clone(),
        kind: OwnerKind::App,
        resources: vec![Arc::new(resource)],
        resolutions: BTreeMap::new(),
    })
}
