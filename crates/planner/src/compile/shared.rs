//! Volumes and networks of their own, which several apps may use: one on each machine that is meant.

use plumb_blueprint::{Network, Volume};
use plumb_model::state::OwnerKind;
use plumb_model::{
    Address, DriftPolicy, NetworkSpec, OwnerName, ResourceKind, ResourceSpec, VolumeSpec,
};

use super::context::{Context, Draft, Made};

pub(super) fn volume<'a>(context: &mut Context<'a>, name: &OwnerName, decl: &'a Volume) -> Draft {
    let mut draft = Draft::new(OwnerKind::Volume);
    for machine in context.selected(&decl.machines).into_keys() {
        let address = Address::new(machine, name, ResourceKind::Volume, name.as_str());
        let spec = ResourceSpec::Volume(VolumeSpec {
            on_delete: decl.on_delete,
        });
        let origin = context.origin("Volume", name, "");
        let made = Made::new(DriftPolicy::Enforce, spec, origin);
        context.keep(&mut draft, address, made);
    }
    draft
}

pub(super) fn network<'a>(context: &mut Context<'a>, name: &OwnerName, decl: &'a Network) -> Draft {
    let mut draft = Draft::new(OwnerKind::Network);
    for machine in context.selected(&decl.machines).into_keys() {
        let address = Address::new(machine, name, ResourceKind::Network, name.as_str());
        let origin = context.origin("Network", name, "");
        let made = Made::new(DriftPolicy::Enforce, network_spec(decl), origin);
        context.keep(&mut draft, address, made);
    }
    draft
}

pub(super) fn network_spec(decl: &Network) -> ResourceSpec {
    ResourceSpec::Network(NetworkSpec {
        subnet: decl.subnet.clone(),
        internal: decl.internal,
    })
}
