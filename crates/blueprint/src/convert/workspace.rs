//! Workspace and Overlay.

use std::collections::{BTreeMap, BTreeSet};

use plumb_model::{DriftPolicy, WorkspaceName};

use super::infra::{self, ServiceDefaults};
use super::tuning::{self, Tuning};
use super::{Node, Reader};
use crate::code::Code;
use crate::diagnostic::{Spot, quote};
use crate::reference::{Piece, pieces};
use crate::set::{DataLoss, Policy};

/// A Workspace or an Overlay, as far as it is written, its defaults apart: those take variables.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub name: Option<WorkspaceName>,
    pub vars: BTreeMap<String, String>,
    pub deletes: Option<u32>,
    pub restarts: Option<u32>,
    pub machines: Option<u32>,
    pub required_labels: Option<BTreeSet<String>>,
    pub data_loss: Option<DataLoss>,
}

impl Manifest {
    /// This one laid over another one.
    pub fn over(self, base: Self) -> Self {
        let mut vars = base.vars;
        vars.extend(self.vars);
        Self {
            name: self.name.or(base.name),
            vars,
            deletes: self.deletes.or(base.deletes),
            restarts: self.restarts.or(base.restarts),
            machines: self.machines.or(base.machines),
            required_labels: self.required_labels.or(base.required_labels),
            data_loss: self.data_loss.or(base.data_loss),
        }
    }

    pub fn policy(&self) -> Policy {
        Policy {
            deletes: self.deletes,
            restarts: self.restarts,
            machines: self.machines,
            required_labels: self.required_labels.clone().unwrap_or_default(),
            data_loss: self.data_loss.unwrap_or_default(),
        }
    }
}

/// Reads everything but the defaults and the base domain.
pub(crate) fn manifest(r: &mut Reader<'_, '_>) -> Manifest {
    let root = r.root();
    let mut out = Manifest::default();
    if let Some(name) = r.get(&root, "name") {
        out.name = r.name(&name);
    }
    if let Some(vars) = r.get(&root, "vars") {
        out.vars = self::vars(r, &vars);
    }
    if let Some(policy) = r.get(&root, "policy") {
        out.deletes = r.get_number(&policy, "deletes");
        out.restarts = r.get_number(&policy, "restarts");
        out.machines = r.get_number(&policy, "machines");
        if let Some(labels) = r.get(&policy, "required_labels") {
            out.required_labels = Some(required_labels(r, &labels));
        }
        if let Some(data_loss) = r.get(&policy, "data_loss") {
            out.data_loss = r.choice(
                &data_loss,
                &[("deny", DataLoss::Deny), ("allow", DataLoss::Allow)],
            );
        }
    }
    out
}

fn vars<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> BTreeMap<String, String> {
    let mut vars = BTreeMap::new();
    for (key, value) in r.entries(node) {
        let Some(text) = r.text(&value) else { continue };
        if !crate::scalar::is_label_key(key) || key.contains('.') {
            r.bad_key(
                &value,
                Code::BadLabel,
                format!("{} cannot be a variable's name", quote(key)),
                Some("use letters, digits, `-` and `_`"),
            );
            continue;
        }
        let mut plain = String::new();
        let mut good = true;
        for piece in pieces(text) {
            match piece {
                Piece::Literal(text) => plain.push_str(text),
                Piece::Ref(_) | Piece::Open => good = false,
            }
        }
        if good {
            vars.insert(key.to_owned(), plain);
        } else {
            r.bad(
                &value,
                Code::ReferenceOutOfPlace,
                "a variable's value takes no references",
                Some("write it out; $${ is a literal `${`"),
            );
        }
    }
    vars
}

fn required_labels<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> BTreeSet<String> {
    let mut labels = BTreeSet::new();
    for node in r.items(node) {
        let Some(text) = r.text(&node) else { continue };
        if crate::scalar::is_label_key(text) {
            labels.insert(text.to_owned());
        } else {
            r.bad(
                &node,
                Code::BadLabel,
                format!("{} cannot be a label", quote(text)),
                Some("use at most 63 letters, digits, `-`, `_` and `.`"),
            );
        }
    }
    labels
}

/// The domain that apps are reachable under, and where it is written. It takes variables.
pub(crate) fn base_domain(r: &mut Reader<'_, '_>) -> Option<(String, Spot)> {
    let node = r.get(&r.root(), "base_domain")?;
    let text = r.with_vars(&node)?;
    let problem = match crate::scalar::route_host(&text) {
        Ok(host) if host.starts_with("*.") => "leave the `*.` out: each app adds its name",
        Ok(host) => return Some((host, r.spot(&node))),
        Err(problem) => problem,
    };
    r.bad(
        &node,
        Code::BadRoute,
        format!("{} is no domain", quote(&text)),
        Some(problem),
    );
    None
}

/// What documents have unless they say otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub app: Tuning,
    pub setup_drift: Option<DriftPolicy>,
    pub service: ServiceDefaults,
}

impl Defaults {
    /// These, and those of `base` where there are none.
    pub fn over(self, base: &Self) -> Self {
        Self {
            app: self.app.over(&base.app),
            setup_drift: self.setup_drift.or(base.setup_drift),
            service: self.service.over(&base.service),
        }
    }
}

/// Reads the defaults of a Workspace or an Overlay.
pub(crate) fn defaults(r: &mut Reader<'_, '_>) -> Defaults {
    let root = r.root();
    let mut out = Defaults::default();
    let Some(defaults) = r.get(&root, "defaults") else {
        return out;
    };
    if let Some(app) = r.get(&defaults, "App") {
        out.app = tuning::defaults(r, &app);
    }
    if let Some(setup) = r.get(&defaults, "Setup") {
        out.setup_drift = tuning::drift(r, &setup);
    }
    if let Some(service) = r.get(&defaults, "Service") {
        out.service = infra::service_defaults(r, &service);
    }
    out
}
