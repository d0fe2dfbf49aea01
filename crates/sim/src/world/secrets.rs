//! Secrets on their way: what operators set, who is handed what, and that it shows nowhere.

use std::collections::BTreeMap;

use plumb_converge as converge;
use plumb_dispatch::protocol::SecretVersion;
use plumb_dispatch::{ToAgent, agent as session};
use plumb_model::{Hash, KnownSecret, KnownSecrets, Secret, SecretName};

use super::World;
use crate::bugs::Bug;

/// What every value begins with, and nothing else that anybody sees may hold.
const CANARY: &str = "canary-in-the-coal-mine";

/// The value of a version.
pub(super) fn value(name: &SecretName, version: usize) -> String {
    format!("{CANARY} {name} {version}")
}

impl World {
    /// What planners know of secrets: never a value.
    pub(super) fn known_secrets(&self) -> KnownSecrets {
        let known = |(name, values): (&SecretName, &Vec<String>)| {
            let versions: BTreeMap<u64, Hash> = (1..=values.len())
                .map(|n| {
                    (
                        n as u64,
                        Hash::of(format!("digest of {name} {n}").as_bytes()),
                    )
                })
                .collect();
            let current = values.len() as u64;
            (name.clone(), KnownSecret { current, versions })
        };
        KnownSecrets(Some(self.vault.iter().map(known).collect()))
    }

    pub(super) fn rotate(&mut self, name: &SecretName) {
        if let Some(values) = self.vault.get_mut(name) {
            values.push(value(name, values.len() + 1));
            self.count("rotations");
            self.note(&format!("the secret {name} was rotated"));
        }
    }

    /// A control plane hands over what it was asked for.
    pub(super) fn hand_over(&mut self, link: u64, asked: Vec<SecretVersion>) {
        let (mut values, mut missing) = (Vec::new(), Vec::new());
        for (name, version) in asked {
            let kept = self.vault.get(&name);
            let at = usize::try_from(version).unwrap_or(0).checked_sub(1);
            match kept.zip(at).and_then(|(kept, at)| kept.get(at)) {
                Some(value) => values.push(((name, version), Secret::new(value.clone()))),
                None => missing.push((name, version)),
            }
        }
        if self.options.bug == Some(Bug::LogsSecrets) {
            let said: Vec<&str> = values.iter().map(|(_, value)| value.expose()).collect();
            self.note(&format!("handed over {said:?}"));
        }
        let message = ToAgent::Secrets { values, missing };
        self.check_output("a message in a log", &format!("{message:?}"));
        self.send_to_agent(link, message);
    }

    pub(super) fn ask_for_secrets(&mut self, machine: usize) {
        let at = &self.machines[machine];
        let Some(running) = at.running.as_ref().filter(|r| r.session.is_online()) else {
            return;
        };
        if running.missing.is_empty() {
            return;
        }
        let Some(held) = running.session.held() else {
            return;
        };
        let wanted: Vec<_> = at.missing_secrets(held).into_keys().collect();
        if !wanted.is_empty() {
            self.tell_session(machine, session::Event::SecretsWanted(wanted));
        }
    }

    pub(super) fn secrets_came(&mut self, machine: usize, values: &[(SecretVersion, Secret)]) {
        let at = &mut self.machines[machine];
        let Some(held) = at.running.as_ref().and_then(|r| r.session.held()).cloned() else {
            return;
        };
        let wanted = at.missing_secrets(&held);
        let came: Vec<Hash> = values
            .iter()
            .filter_map(|(version, _)| wanted.get(version).copied())
            .collect();
        for awaited in came {
            let at = &mut self.machines[machine];
            at.vm.secrets.insert(awaited);
            if let Some(running) = &mut at.running {
                running.missing.remove(&awaited);
            }
            self.count("secrets");
            self.tell_reconciler(machine, converge::Event::Arrived(awaited));
        }
    }

    /// No secret in anything that anybody sees.
    pub(super) fn check_output(&mut self, what: &str, text: &str) {
        if text.contains(CANARY) {
            self.broke(format!("no secret in any output: {what} holds one"));
        }
    }

    /// No secret in what is stored, either: the vault seals before it stores.
    pub(super) fn check_store(&mut self) {
        if self.shared.holds(CANARY) {
            self.broke("no secret in any output: the store holds one".to_owned());
        }
    }
}
