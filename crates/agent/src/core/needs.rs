//! An assignment that is taken up, and what it needs that is not on this machine yet: content and secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use plumb_converge as converge;
use plumb_dispatch::agent::{Event as SessionEvent, Held};
use plumb_dispatch::protocol::SecretVersion;
use plumb_model::{Hash, ResourceKind, ResourceSpec, Secret};

use super::{Core, Input};
use crate::content::fetch_all;
use crate::secrets;

impl Core {
    /// Converges another assignment from now on.
    pub(super) fn adopt(&mut self, held: Held) {
        if self.stopping.is_some() {
            return;
        }
        let wanted: BTreeMap<Hash, u64> = held
            .assignment
            .resources()
            .flat_map(|r| r.spec.blobs())
            .collect();
        self.missing = wanted
            .iter()
            .filter(|(d, _)| !self.blobs.has(**d))
            .map(|(d, s)| (*d, *s))
            .collect();
        self.releases = Arc::new(held.releases);
        self.managed = held
            .assignment
            .resources()
            .filter(|r| matches!(r.address.kind, ResourceKind::File | ResourceKind::Directory))
            .map(|r| (PathBuf::from(&*r.address.name), r.address.clone()))
            .collect();
        self.rewatch();
        let stops = |resource: &plumb_model::Resource| match &resource.spec {
            ResourceSpec::Process(spec) => spec.on_disconnect.is_some(),
            _ => false,
        };
        self.contact.wants(held.assignment.resources().any(stops));
        self.fetch_missing();
        self.awaited = self
            .secrets
            .want(secrets::wanted(&held.assignment))
            .into_iter()
            .filter_map(|secret| Some((secret.clone(), secrets::awaited(&secret)?)))
            .collect();
        self.ask_for_secrets();
        self.converge(converge::Event::Assigned {
            generation: held.generation,
            assignment: held.assignment,
            missing: self.awaited_hashes(),
        });
        let keeper = self.secrets.clone();
        tokio::task::spawn_blocking(move || keeper.retain());
        let (blobs, keep) = (self.blobs.clone(), wanted.into_keys().collect());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = blobs.retain(&keep) {
                tracing::warn!(%error, "cannot remove content that is not needed any more");
            }
        });
    }

    /// What stands for everything that is not on this machine yet.
    pub(super) fn awaited_hashes(&self) -> Vec<Hash> {
        let secrets = self.awaited.values();
        self.missing.keys().chain(secrets).copied().collect()
    }

    /// Asks for secrets that are not here, if anybody listens.
    pub(super) fn ask_for_secrets(&mut self) {
        if self.awaited.is_empty() || !self.session.is_online() {
            return;
        }
        self.asked_at = Some(Instant::now());
        let wanted = self.awaited.keys().cloned().collect();
        self.tell_session(SessionEvent::SecretsWanted(wanted));
    }

    /// Keeps what was asked for; whatever else comes is dropped.
    pub(super) fn secrets_came(
        &self,
        values: Vec<(SecretVersion, Secret)>,
        missing: &[SecretVersion],
    ) {
        for (name, version) in missing {
            tracing::warn!(%name, version, "the control plane has no such secret any more; what uses it waits: set it again and apply");
        }
        let values: Vec<(SecretVersion, Secret)> = values
            .into_iter()
            .filter(|(secret, _)| self.awaited.contains_key(secret))
            .collect();
        let (keeper, other) = (self.secrets.clone(), self.probed.clone());
        tokio::task::spawn_blocking(move || {
            let mut kept = Vec::new();
            for (secret, value) in values {
                keeper.keep(&secret, value);
                kept.push(secret);
            }
            let _ = other.blocking_send(Input::SecretsKept(kept));
        });
    }

    pub(super) fn fetch_missing(&mut self) {
        if let Some(task) = self.fetching.take() {
            task.abort();
        }
        if let (Some(uplink), false) = (&self.uplink, self.missing.is_empty()) {
            let fetch = fetch_all(
                self.blobs.clone(),
                self.missing.clone(),
                uplink.channel.clone(),
                self.inputs.arrived_in.clone(),
            );
            self.fetching = Some(tokio::spawn(fetch));
        }
    }
}
