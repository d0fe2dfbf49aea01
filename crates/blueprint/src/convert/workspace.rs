//! Workspace and Overlay.

use std::collections::BTreeMap;

use plumb_model::{DriftPolicy, WorkspaceName};

use super::tuning::{self, Tuning};
use super::{Node, Reader};
use crate::code::Code;
use crate::diagnostic::quote;
use crate::reference::{Piece, pieces};
use crate::set::{DataLoss, Policy};

/// A Workspace or an Overlay, as far as it is written, its defaults apart: those take variables.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub name: Option<WorkspaceName>,
    pub vars: BTreeMap<String, String>,
    pub deletes: Option<u32>,
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
            data_loss: self.data_loss.or(base.data_loss),
        }
    }

    pub fn policy(&self) -> Policy {
        Policy {
            machines: None,
            required_labels: Default::default(),
            restarts: None,
            deletes: self.deletes,
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

/// What apps and Setups have unless they say otherwise.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    pub app: Tuning,
    pub setup_drift: Option<DriftPolicy>,
}

/// Reads the defaults of a Workspace or an Overlay.
pub(crate) fn defaults(r: &mut Reader<'_, '_>) -> Defaults {
    let root = r.root();
    let mut out = Defaults::default();
    let Some(defaults) = r.get(&root, "defaults") else {
        return out;
    };
    if let Some(app) = r.get(&defaults, "App") {
        out.app = tuning::read(r, &app);
    }
    if let Some(setup) = r.get(&defaults, "Setup") {
        out.setup_drift = tuning::drift(r, &setup);
    }
    out
}
