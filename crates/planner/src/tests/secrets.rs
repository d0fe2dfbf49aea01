//! That what is nobody's business shows up nowhere.

use std::collections::BTreeSet;

use plumb_model::coverage::Cost;
use plumb_model::plan::Plan;
use plumb_model::secret::REDACTED;
use plumb_model::{Hash, KnownSecret, KnownSecrets, SecretName};

use super::World;
use crate::Request;

/// What stands for a secret in these blueprints.
const CANARY: &str = "canary4711";

/// A secret-like thing in every field that can hold one.
fn blueprints(word: &str) -> String {
    format!(
        "kind: App\nname: web\nmachines: a\nrun: x\nuses: [db]\nsecrets: {{ KEY: {{ secret: {word}-key }}, FILE: {{ secret: {word}-file, as: file }} }}\nenv: {{ URL: '${{service.db.url}}?x={word}', BOTH: '{word}${{service.db.url}}' }}\nhooks: {{ before: ./x }}\n---\nkind: App\nname: box\nmachines: a\nimage: registry.example.com/box:1\nsecrets: {{ KEY: {word}-box }}\n---\nkind: Registry\nname: r\nhost: registry.example.com\nusername: u\npassword: {{ secret: {word}-registry }}\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\npublish: private\n---\nkind: Setup\nname: s\nmachines: a\nfiles: {{ /f: {{ content: '{word} ${{service.db.url}}' }} }}\n"
    )
}

/// Threat row 32. Fails under the mutations, each tried: show sensitive rows; take environments and templates for public; put
/// the new values into a reason.
#[test]
fn row_32_a_canary_in_every_secret_like_field_is_in_no_plan() {
    let mut world = World::new(&["a"], &blueprints(CANARY));
    world.write(
        "machines.yaml",
        "kind: Machine\nname: a\naddress: { private: 10.0.0.1 }\n",
    );
    let look = |world: &World| {
        let planned = world.plan();
        let json = serde_json::to_string(&planned.plan).unwrap();
        assert!(!json.contains(CANARY), "{json}");
        assert!(!format!("{:?}", planned.plan).contains(CANARY));
        let sensitive = planned
            .plan
            .changes
            .iter()
            .flat_map(|c| &c.attributes)
            .filter(|a| a.sensitive);
        assert!(sensitive.clone().all(|a| a.digest.is_some()));
        sensitive.count()
    };
    assert!(look(&world) > 8, "they are in the plan, hidden");
    world.go();
    world.write("x.yaml", &blueprints("another"));
    assert!(look(&world) > 8);
    // And the other way round: what comes is hidden like what goes.
    world.go();
    world.write("x.yaml", &blueprints(CANARY));
    assert!(look(&world) > 8);
    world.files.remove("x.yaml");
    look(&world);
}

/// A digest of what is hidden is one of this place alone: nobody finds equal values by equal digests.
#[test]
fn digests_of_hidden_values_tell_nothing_across_addresses_and_workspaces() {
    let world = World::new(
        &["a", "b"],
        "kind: App\nname: web\nmachines: [a, b]\nrun: x\nsecrets: [KEY]\n",
    );
    let digests = |world: &World| -> Vec<_> {
        let changes = world.plan().plan.changes;
        let all = changes.into_iter().flat_map(|c| c.attributes);
        all.filter_map(|a| a.digest).collect()
    };
    let mut all = digests(&world);
    let mut other = world.clone();
    other.workspace = Some("market".parse().unwrap());
    all.extend(digests(&other));
    assert_eq!(all.len(), 4);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);
}

/// What a control plane knows of secrets that are set, each with its newest version and how many before it are kept.
fn known(all: &[(&str, u64, u64)]) -> KnownSecrets {
    let known = all.iter().map(|(name, current, oldest)| {
        let versions = (*oldest..=*current)
            .map(|version| (version, Hash::of(format!("{name} {version}").as_bytes())))
            .collect();
        let known = KnownSecret {
            current: *current,
            versions,
        };
        (SecretName::new(name).unwrap(), known)
    });
    KnownSecrets(Some(known.collect()))
}

/// An app that uses one secret in each of its forms.
const APP: &str = "kind: App\nname: web\nmachines: a\nprocesses: { app: { run: ./x, secrets: { TOLD: { secret: told, as: file, on_change: reload } } }, other: ./y }\nsecrets: { KEY: key }\n";

fn paths(plan: &Plan, path: &str) -> Vec<(String, Cost)> {
    let changes = plan.changes.iter();
    changes
        .flat_map(|c| c.attributes.iter().map(move |a| (c, a)))
        .filter(|(_, a)| a.path == path)
        .map(|(c, a)| (c.address.to_string(), a.cost))
        .collect()
}

#[test]
fn a_secret_that_nobody_has_set_keeps_the_plan_from_being_applied_and_names_the_command() {
    let mut world = World::new(&["a"], APP);
    world.secrets = known(&[("told", 1, 1)]);
    let plan = world.plan().plan;
    let obstacles: Vec<String> = plan.obstacles().collect();
    insta::assert_snapshot!(obstacles.join("\n"), @"the secret `key`, which `web` needs, is not set: set it with `plumb secret set key`");
    assert_eq!(plan.unset_secrets[0].needed_by.len(), 2);
    assert!(plan.unset_secrets[0].origin.is_some());
    world.secrets = known(&[("told", 1, 1), ("key", 1, 1)]);
    assert_eq!(world.plan().plan.obstacles().count(), 0);
    // Where no control plane is at hand, nobody can tell.
    world.secrets = KnownSecrets::default();
    assert_eq!(world.plan().plan.obstacles().count(), 0);
}

#[test]
fn a_new_version_restarts_or_tells_what_uses_it_and_its_value_shows_nowhere() {
    let mut world = World::new(&["a"], APP);
    world.secrets = known(&[("told", 1, 1), ("key", 1, 1)]);
    world.go();
    assert!(world.plan().plan.is_empty());

    world.secrets = known(&[("told", 1, 1), ("key", 2, 1)]);
    let plan = world.plan().plan;
    assert_eq!(
        paths(&plan, "secrets.KEY"),
        [
            ("a/web/process/app/0".to_owned(), Cost::Restart),
            ("a/web/process/other/0".to_owned(), Cost::Restart)
        ]
    );
    let attribute = &plan.changes[0].attributes[0];
    assert!(attribute.sensitive && attribute.digest.is_some());
    assert_eq!(attribute.after, Some(REDACTED.into()));
    let before = plan.approval;
    world.secrets = known(&[("told", 1, 1), ("key", 3, 1)]);
    assert_ne!(
        world.plan().plan.approval,
        before,
        "another version is another plan"
    );
    world.go();

    // Mutation: `SecretUse::cheaper` that always answers none.
    world.secrets = known(&[("told", 2, 1), ("key", 3, 1)]);
    let plan = world.go();
    assert_eq!(
        paths(&plan, "secrets.TOLD"),
        [("a/web/process/app/0".to_owned(), Cost::Reload)]
    );
    assert_eq!(plan.changes[0].cost, Some(Cost::Reload));
    assert_eq!(plan.blast_radius.restarts, 0);
    assert!(world.plan().plan.is_empty());
}

#[test]
fn what_is_recorded_goes_on_to_newer_secrets_without_its_blueprints_and_the_next_plan_is_empty() {
    let mut world = World::new(&["a"], APP);
    world.secrets = known(&[("told", 1, 1), ("key", 1, 1)]);
    world.go();
    world.secrets = known(&[("told", 2, 1), ("key", 2, 1)]);
    let names = BTreeSet::from([SecretName::new("key").unwrap()]);
    let request = Request::Secrets { names };
    let planned = world.try_plan(&request).unwrap();
    assert_eq!(paths(&planned.plan, "secrets.KEY").len(), 2);
    assert_eq!(paths(&planned.plan, "secrets.TOLD").len(), 0);
    world.apply(&planned);
    assert!(world.try_plan(&request).unwrap().plan.is_empty());
    // The other one is still to come.
    assert_eq!(world.go().changes.len(), 1);
    assert!(world.plan().plan.is_empty());

    let names = BTreeSet::from([SecretName::new("nobody").unwrap()]);
    let refused = world.try_plan(&Request::Secrets { names }).unwrap_err();
    insta::assert_snapshot!(refused, @"there is no secret `nobody`");
}

#[test]
fn an_earlier_release_has_the_secrets_that_it_had_or_the_plan_says_that_they_are_gone() {
    let mut world = World::new(&["a"], APP);
    world.secrets = known(&[("told", 1, 1), ("key", 1, 1)]);
    world.go();
    world.secrets = known(&[("told", 1, 1), ("key", 2, 1)]);
    world.go();
    let back = |world: &World| {
        let request = world.rollback_to("web", 1);
        world.try_plan(&request).unwrap().plan
    };
    let plan = back(&world);
    assert_eq!(paths(&plan, "secrets.KEY").len(), 2);
    assert_eq!(plan.obstacles().count(), 0);
    world.secrets = known(&[("told", 1, 1), ("key", 2, 2)]);
    let obstacles: Vec<String> = back(&world).obstacles().collect();
    insta::assert_snapshot!(obstacles.join("\n"), @"version 1 of the secret `key`, which `web` needs, is no longer kept: apply the blueprints instead, which use the newest version, or go back to a newer release; `plumb secret list` shows what there is of `key`");
}
