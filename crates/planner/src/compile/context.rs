//! What all of compilation shares: the input, the problems found so far, and how a resource is put into a draft.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_blueprint::{BlueprintSet, Selector};
use plumb_model::plan::Origin;
use plumb_model::state::{MachineInfo, OwnerKind, ReleaseBody, Rollout};
use plumb_model::{
    Address, Addresses, DriftPolicy, MachineName, OwnerName, ProcessName, Resource, ResourceKind,
    ResourceSpec,
};

use super::rename::{self, Renamed};
use super::resolve::Resolver;
use crate::{Ask, Input, Problem, Source};

/// One owner's release while it is put together.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub kind: OwnerKind,
    /// Each by itself: a map has room for eleven in its smallest node, and an owner has five.
    pub resources: BTreeMap<Address, Box<Resource>>,
    /// Where each of them comes from.
    pub origins: BTreeMap<Address, Origin>,
    pub rollout: Option<Rollout>,
}

impl Draft {
    pub fn new(kind: OwnerKind) -> Self {
        Self {
            kind,
            resources: BTreeMap::new(),
            origins: BTreeMap::new(),
            rollout: None,
        }
    }
}

/// Those of all owners.
pub(super) type Drafts = BTreeMap<OwnerName, Draft>;

/// What a resource is besides its address.
pub(super) struct Made {
    pub drift: DriftPolicy,
    pub spec: ResourceSpec,
    pub after: Addresses,
    pub origin: Option<Origin>,
}

impl Made {
    /// Something that waits for nothing.
    pub fn new(drift: DriftPolicy, spec: ResourceSpec, origin: Option<Origin>) -> Self {
        Self {
            drift,
            spec,
            after: Addresses::new(),
            origin,
        }
    }
}

pub(super) struct Context<'a> {
    pub set: &'a BlueprintSet,
    pub sources: &'a BTreeMap<String, Source>,
    pub input: &'a Input<'a>,
    pub renamed: Arc<Renamed>,
    pub resolver: Resolver<'a>,
    pub problems: Vec<Problem>,
    /// The fields of a resource whose value nobody knows before somebody resolves a name.
    pub unknown: BTreeMap<Address, BTreeSet<&'static str>>,
}

impl<'a> Context<'a> {
    pub fn new(
        set: &'a BlueprintSet,
        sources: &'a BTreeMap<String, Source>,
        ask: &'a Ask,
        input: &'a Input<'a>,
    ) -> Self {
        let mut problems = Vec::new();
        let renamed = rename::renamed(set, input.recorded, &mut problems);
        Self {
            set,
            sources,
            input,
            renamed: Arc::new(renamed),
            resolver: Resolver::new(ask),
            problems,
            unknown: BTreeMap::new(),
        }
    }

    /// Another one of the same input in which nothing has been found yet: to compile one owner in, beside others.
    pub fn fork(&self) -> Self {
        Self {
            renamed: Arc::clone(&self.renamed),
            resolver: self.resolver.fork(),
            problems: Vec::new(),
            unknown: BTreeMap::new(),
            ..*self
        }
    }

    /// Takes over what was found in a fork.
    pub fn join(&mut self, found: Self) {
        for problem in found.problems {
            self.report(problem);
        }
        self.unknown.extend(found.unknown);
        self.resolver.join(found.resolver);
    }

    /// Reports a problem, once.
    pub fn problem(&mut self, message: String, origin: Option<Origin>, hint: impl Into<String>) {
        let problem = Problem {
            message,
            origin,
            hint: Some(hint.into()),
        };
        self.report(problem);
    }

    fn report(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    pub fn origin(&self, kind: &str, owner: &OwnerName, pointer: &str) -> Option<Origin> {
        self.set.origin(kind, owner.as_str(), pointer)
    }

    /// Where a process is written: under `processes`, or as the app's one `run`.
    pub fn run_origin(&self, owner: &OwnerName, process: &ProcessName) -> Option<Origin> {
        let run = self.set.origins.get("App", owner.as_str(), "/run");
        run.or_else(|| self.origin("App", owner, &format!("/processes/{process}")))
    }

    /// The machines that a selector means.
    pub fn selected(&self, selector: &Selector) -> BTreeMap<&'a MachineName, &'a MachineInfo> {
        let set = self.set;
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

    /// What is recorded of an owner, under the name that it had if it is renamed now.
    pub fn recorded(&self, owner: &OwnerName) -> Option<&'a ReleaseBody> {
        let name = self.renamed.get(owner).unwrap_or(owner);
        self.input.recorded.releases.get(name).map(AsRef::as_ref)
    }

    /// The recorded resources of one kind of an owner.
    pub fn recorded_resources(
        &self,
        owner: &OwnerName,
        kind: ResourceKind,
    ) -> impl Iterator<Item = &'a Resource> {
        self.recorded(owner)
            .map(|body| body.resources.as_slice())
            .unwrap_or_default()
            .iter()
            .map(AsRef::as_ref)
            .filter(move |resource: &&Resource| resource.address.kind == kind)
    }

    /// What a path of the repository holds.
    pub fn source(&mut self, path: &str, origin: Option<Origin>) -> Option<&'a Source> {
        let source = self.sources.get(path);
        if source.is_none() {
            self.problem(
                format!("`{path}` was not read along with the blueprints"),
                origin,
                "plan again from the folder that holds the blueprints",
            );
        }
        source
    }

    /// Puts a resource into a draft.
    pub fn keep(&mut self, draft: &mut Draft, address: Address, made: Made) {
        let Made {
            drift,
            spec,
            after,
            origin,
        } = made;
        if let Some(origin) = origin {
            draft.origins.insert(address.clone(), origin);
        }
        let resource = Resource {
            after,
            ..Resource::new(address.clone(), drift, spec)
        };
        draft.resources.insert(address, Box::new(resource));
    }

    /// Notes that nobody knows a field's value yet.
    pub fn unknown(&mut self, address: &Address, field: &'static str) {
        self.unknown
            .entry(address.clone())
            .or_default()
            .insert(field);
    }
}

/// Escapes one token of a JSON pointer (RFC 6901, section 3).
pub(super) fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}
