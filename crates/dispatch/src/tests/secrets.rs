//! Which secrets a machine is handed: those that its own recorded assignment names, in those very versions.

use std::collections::BTreeMap;

use plumb_model::{
    Entry, Generation, ResourceSpec, RunState, SecretForm, SecretName, SecretRef, SecretUse,
};

use super::world::{assignment, facts, lineage, machine, now, process, recording};
use crate::Hello;
use crate::fleet::{Effect, Event, Fleet};
use crate::protocol::{SecretVersion, ToServer};

fn secret(name: &str, version: u64) -> SecretVersion {
    (SecretName::new(name).unwrap(), version)
}

/// A process that uses one version of one secret.
fn uses(name: &str, version: u64) -> Entry {
    let mut entry = process("app", 8080, RunState::Running);
    if let Entry::Resource(resource) = &mut entry
        && let ResourceSpec::Process(spec) = &mut std::sync::Arc::make_mut(resource).spec
    {
        let secret = SecretRef {
            name: SecretName::new(name).unwrap(),
            version: Some(version),
            digest: None,
        };
        let used = SecretUse::new(secret, SecretForm::Env);
        spec.secrets.insert("KEY".to_owned(), used);
    }
    entry
}

fn handed_over(effects: Vec<Effect>) -> Vec<SecretVersion> {
    let all = effects.into_iter().filter_map(|effect| match effect {
        Effect::HandOver {
            session: 7,
            secrets,
        } => Some(secrets),
        _ => None,
    });
    all.flatten().collect()
}

/// Row 32. Mutation: hand over whatever is asked for, without looking at `named_secrets`.
#[test]
fn a_machine_is_handed_the_versions_that_its_assignment_names_and_no_others() {
    let first = assignment([uses("key", 2)]);
    let recorded =
        |revision, assignment| recording(revision, revision, assignment, &[("app", 1)], &[]);
    let mut fleet = Fleet::new(lineage(1), recorded(1, &first), &BTreeMap::new());
    let connected = |fleet: &mut Fleet, generation: u64| {
        let hello = Hello {
            lineage: Some(lineage(1)),
            generation: Generation(generation),
            hash: None,
            instance: "one".into(),
            facts: facts(),
            trusted_cas: Vec::new(),
            versions: crate::version::SPOKEN,
            journal: None,
            hands: None,
            at: None,
        };
        let event = Event::Connected {
            session: 7,
            machine: machine(),
            hello,
        };
        fleet.handle(event, now(0));
    };
    let ask = |fleet: &mut Fleet, asked: &[SecretVersion]| {
        let message = ToServer::WantSecrets(asked.to_vec());
        let event = Event::Message {
            session: 7,
            message,
        };
        handed_over(fleet.handle(event, now(1)))
    };
    let all = [secret("key", 1), secret("key", 2), secret("other", 1)];
    // Nobody who has not said hello is heard.
    assert_eq!(ask(&mut fleet, &all), []);
    connected(&mut fleet, 0);
    assert_eq!(ask(&mut fleet, &all), [secret("key", 2)]);

    // What is recorded counts, and not what the agent still holds.
    let second = assignment([uses("key", 3)]);
    fleet.handle(Event::Recorded(recorded(2, &second)), now(2));
    assert_eq!(ask(&mut fleet, &all), []);
    assert_eq!(ask(&mut fleet, &[secret("key", 3)]), [secret("key", 3)]);

    // A machine that is ahead of what is recorded is left alone in this too.
    connected(&mut fleet, 9);
    assert_eq!(ask(&mut fleet, &[secret("key", 3)]), []);
}
