//! That what is nobody's business shows up nowhere.

use super::World;

/// What stands for a secret in these blueprints.
const CANARY: &str = "canary4711";

/// A secret-like thing in every field that can hold one.
fn blueprints(word: &str) -> String {
    format!(
        "kind: App\nname: web\nmachines: a\nrun: x\nuses: [db]\nsecrets: {{ KEY: {{ secret: {word}-key }}, FILE: {{ secret: {word}-file, as: file }} }}\nenv: {{ URL: '${{service.db.url}}?x={word}', BOTH: '{word}${{service.db.url}}' }}\nhooks: {{ before: ./x }}\n---\nkind: App\nname: box\nmachines: a\nimage: registry.example.com/box:1\nsecrets: {{ KEY: {word}-box }}\n---\nkind: Registry\nname: r\nhost: registry.example.com\nusername: u\npassword: {{ secret: {word}-registry }}\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\npublish: private\n---\nkind: Setup\nname: s\nmachines: a\nfiles: {{ /f: {{ content: '{word} ${{service.db.url}}' }} }}\n"
    )
}

/// Threat row 32. Fails under the mutations: show sensitive rows; take environments and templates for public; put the
/// values into a reason.
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
