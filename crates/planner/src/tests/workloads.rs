//! What each thing that a blueprint can ask for becomes.

use std::collections::BTreeSet;

use plumb_blueprint::{BlueprintSet, Compose, Workload};
use plumb_model::plan::ChangeAction;
use plumb_model::spec::WorkDirOf;
use plumb_model::spec_container::{ContainerImage, MountSource};
use plumb_model::spec_service::RouteTarget;
use plumb_model::{FileContent, OnDelete, ResourceSpec};

use super::{World, address, machine, owner};
use crate::{Ask, Refresh, Request};

const SHOP: &[(&str, &str)] = &[
    (
        "plumb.yaml",
        include_str!("../../../../blueprints-examples/shop/plumb.yaml"),
    ),
    (
        "machines/all.yaml",
        include_str!("../../../../blueprints-examples/shop/machines/all.yaml"),
    ),
    (
        "apps/others.yaml",
        include_str!("../../../../blueprints-examples/shop/apps/others.yaml"),
    ),
    (
        "apps/containers.yaml",
        include_str!("../../../../blueprints-examples/shop/apps/containers.yaml"),
    ),
    (
        "apps/storefront.yaml",
        include_str!("../../../../blueprints-examples/shop/apps/storefront.yaml"),
    ),
];

fn shop() -> World {
    let mut world = World::default();
    for (path, text) in SHOP {
        // Its Compose project has a test of its own.
        let documents = text.split("---\n").filter(|d| !d.contains("compose:"));
        world.write(path, &documents.collect::<Vec<_>>().join("---\n"));
    }
    world
}

fn after(world: &World, at: &str) -> Vec<String> {
    let at = address(at);
    let body = &world.recorded.releases[&at.owner];
    let found = body.resources.iter().find(|r| r.address == at);
    let after = &found.unwrap_or_else(|| panic!("no {at}")).after;
    after.iter().map(ToString::to_string).collect()
}

fn env(world: &World, at: &str, variable: &str) -> String {
    match world.spec(at) {
        ResourceSpec::Process(spec) => spec.env[variable].clone(),
        ResourceSpec::Container(spec) => spec.env[variable].clone(),
        other => panic!("{other:?}"),
    }
}

/// What keeps a plan from being made, first words first.
fn refusal(world: &World) -> String {
    let error = world.try_plan(&world.request()).expect_err("a refusal");
    error.problems[0].message.clone()
}

#[test]
fn the_example_shop_is_planned_whole_and_then_nothing_is_left_to_plan() {
    let mut world = shop();
    let plan = world.go();
    let kinds: BTreeSet<String> = plan
        .changes
        .iter()
        .map(|c| c.address.kind.to_string())
        .collect();
    assert_eq!(kinds.len(), 15, "every kind is in it: {kinds:?}");
    let addresses: Vec<String> = plan.changes.iter().map(|c| c.address.to_string()).collect();
    insta::assert_snapshot!("shop", addresses.join("\n"));
}

const NATIVE: &str = "kind: App
name: web
machines: [a, b]
source: { git: 'https://git.example.com/web.git', branch: main, dir: site }
runtime: node@20
build: [npm ci]
env: { MODE: live }
run: npm start
ports: { http: auto }
hooks: { before: ./migrate, after: ./warm }
";

fn asked(world: &World, ask: Ask) -> Request {
    let blueprint = world.blueprint();
    let sources = world.read(&blueprint);
    Request::Apply {
        blueprint,
        sources,
        ask,
    }
}

fn knowing(pairs: &[(&str, &str)], refresh: Refresh) -> Ask {
    let pair = |(key, value): &(&str, &str)| {
        (
            plumb_model::state::ResolutionKey((*key).to_owned()),
            (*value).to_owned(),
        )
    };
    Ask {
        resolved: pairs.iter().map(pair).collect(),
        refresh,
        targets: BTreeSet::new(),
    }
}

#[test]
fn a_native_app_is_fetched_built_migrated_and_only_then_started() {
    let mut world = World::new(&["a", "b"], NATIVE);
    world.go();
    let body = &world.recorded.releases[&owner("web")];
    let tasks: Vec<_> = body
        .resources
        .iter()
        .filter(|r| r.address.kind == plumb_model::ResourceKind::Task)
        .map(|r| r.address.clone())
        .collect();
    assert_eq!(tasks.len(), 2, "once each, on one machine: {tasks:?}");
    let on = tasks[0].machine.clone();
    let app = |rest: &str| format!("{on}/web/{rest}");
    assert_eq!(
        after(&world, &app("process/app/0")),
        [
            app("build/app"),
            app("checkout/source"),
            app("task/before/0"),
            app("toolchain/node")
        ]
        .into_iter()
        .map(|a| a.parse::<plumb_model::Address>().unwrap())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .map(|a| a.to_string())
        .collect::<Vec<_>>()
    );
    assert!(after(&world, &app("task/after/0")).contains(&app("process/app/0")));
    let ResourceSpec::Process(process) = world.spec(&app("process/app/0")) else {
        panic!("a process");
    };
    let workdir = process.workdir.unwrap();
    assert_eq!(
        (workdir.of, workdir.dir.as_str()),
        (WorkDirOf::Build, "site")
    );
    // It stays where it ran.
    let ran_on = |world: &World| {
        let body = &world.recorded.releases[&owner("web")];
        let task = body
            .resources
            .iter()
            .find(|r| r.address.kind == plumb_model::ResourceKind::Task);
        task.unwrap().address.machine.clone()
    };
    world.machines(&["a", "b", "c"]);
    world.write("x.yaml", &NATIVE.replace("[a, b]", "[a, b, c]"));
    world.go();
    assert_eq!(ran_on(&world), on);
}

/// Fails under the mutation: let what is handed in go before what is recorded.
#[test]
fn a_moving_name_keeps_its_meaning_until_its_text_changes_or_somebody_asks() {
    let key = "git https://git.example.com/web.git branch main";
    let runtime = ("runtime node@20", "20.1.0");
    let commit = |world: &World| match world.spec("a/web/checkout/source") {
        ResourceSpec::Checkout(spec) => spec.commit,
        other => panic!("{other:?}"),
    };
    let mut world = World::new(&["a", "b"], NATIVE);
    let plan = world.plan().plan;
    assert_eq!(plan.obstacles().count(), 2);
    assert!(
        plan.changes
            .iter()
            .any(|c| c.attributes.iter().any(|a| a.unknown))
    );

    let first = knowing(&[(key, "c1"), runtime], Refresh::Nothing);
    world.carry_out(&asked(&world, first));
    assert_eq!(commit(&world).as_deref(), Some("c1"));
    // Nobody can look it up: it stays.
    assert!(world.plan().plan.is_empty());
    let moved = knowing(&[(key, "c2"), runtime], Refresh::Nothing);
    let same = world.try_plan(&asked(&world, moved)).unwrap();
    assert!(same.plan.is_empty(), "{:#?}", same.plan);

    let refreshed = knowing(&[(key, "c2"), runtime], Refresh::All);
    let plan = world.carry_out(&asked(&world, refreshed));
    let resolution = &plan.resolutions[&plumb_model::state::ResolutionKey(key.to_owned())];
    assert_eq!(resolution.before.as_deref(), Some("c1"));
    assert_eq!(commit(&world).as_deref(), Some("c2"));

    // To ask without an answer makes it unknown, and such a plan cannot be applied.
    let asking = knowing(&[], Refresh::All);
    let plan = world.try_plan(&asked(&world, asking)).unwrap().plan;
    assert_eq!(plan.obstacles().count(), 2);
    let change = plan
        .changes
        .iter()
        .find(|c| c.address == address("a/web/checkout/source"))
        .unwrap();
    assert_eq!(change.attributes.len(), 1);
    assert!(change.attributes[0].unknown && change.attributes[0].after.is_none());

    world.write("x.yaml", &NATIVE.replace("branch: main", "tag: v1"));
    let plan = world.plan().plan;
    assert!(plan.resolutions.values().any(|r| r.resolved.is_none()));
}

#[test]
fn a_container_comes_after_its_image_its_volumes_and_its_networks() {
    let text = "kind: App\nname: box\nmachines: a\nimage: registry.example.com/box:1\nports: { http: { port: 80, publish: private } }\nvolumes: { own: /own, shared: { path: /shared, read_only: true } }\nnetworks: [back]\n---\nkind: Volume\nname: shared\nmachines: a\n---\nkind: Network\nname: back\nmachines: a\n---\nkind: Registry\nname: r\nhost: registry.example.com\nusername: u\npassword: { secret: PW }\n";
    let mut world = World::new(&["a"], text);
    world.write(
        "machines.yaml",
        "kind: Machine\nname: a\naddress: { private: 10.0.0.1 }\n",
    );
    world.go();
    assert_eq!(
        after(&world, "a/box/container/app/0"),
        [
            "a/back/network/back",
            "a/box/image/app",
            "a/box/volume/own",
            "a/shared/volume/shared"
        ]
    );
    let ResourceSpec::Container(spec) = world.spec("a/box/container/app/0") else {
        panic!("a container");
    };
    assert_eq!(spec.ports.values().next().unwrap().address, "10.0.0.1");
    let mounted = &spec.mounts["/shared"];
    assert_eq!(mounted.source, MountSource::Volume("shared/shared".into()));
    assert!(mounted.read_only && spec.networks.contains("back/back"));
    assert!(matches!(
        spec.image,
        ContainerImage::Pulled { digest: None, .. }
    ));
    let ResourceSpec::Image(image) = world.spec("a/box/image/app") else {
        panic!("an image");
    };
    assert_eq!(image.username.as_deref(), Some("u"));
    assert_eq!(image.password.unwrap().name.as_str(), "PW");
}

const ACROSS: &str = "kind: App\nname: web\nmachines: a\nrun: x\nuses: [db]\nenv: { API: '${app.api.url}' }\n---\nkind: App\nname: api\nmachines: b\nrun: x\nports: { http: { port: 8080, publish: private } }\n---\nkind: Service\nname: db\nmachines: b\nengine: postgres@16.3\npublish: private\n";

fn two_machines(text: &str) -> World {
    let mut world = World::new(&["a", "b"], text);
    world.write("machines.yaml", "kind: Machine\nname: a\naddress: { private: 10.0.0.1 }\n---\nkind: Machine\nname: b\naddress: { private: 10.0.0.2, public: 203.0.113.2 }\n");
    world
}

/// Threat row 7. Fails under the mutation: let `host` take loopback for reachable from anywhere.
#[test]
fn what_is_published_is_reached_from_other_machines_and_nothing_else_is() {
    let mut world = two_machines(ACROSS);
    world.go();
    let at = "a/web/process/app/0";
    assert_eq!(env(&world, at, "API"), "http://10.0.0.2:8080");
    assert_eq!(env(&world, at, "DB_HOST"), "10.0.0.2");
    assert_eq!(
        env(&world, at, "DB_URL"),
        "postgres://db:${service.db.password}@10.0.0.2:5432/db"
    );
    assert_eq!(env(&world, at, "DB_PASSWORD"), "${service.db.password}");
    assert_eq!(env(&world, "b/api/process/app/0", "HOST"), "10.0.0.2");

    let hidden = two_machines(&ACROSS.replace("\npublish: private", "\npublish: loopback"));
    let said = hidden
        .try_blueprint()
        .map(|_| refusal(&hidden))
        .unwrap_or_else(|problems| problems);
    assert!(
        said.contains("db") && said.contains('a') && said.contains('b'),
        "{said}"
    );
}

/// Inside a container, 127.0.0.1 is the container itself.
#[test]
fn a_container_reaches_another_by_name_and_a_process_only_where_it_is_published() {
    let text = "kind: App\nname: box\nmachines: a\nimage: box:1\nports: { http: 80 }\nenv: { OTHER: '${app.other.url}' }\n---\nkind: App\nname: other\nmachines: a\nimage: other:1\nports: { http: 9000 }\n";
    let mut world = two_machines(text);
    world.go();
    let other = env(&world, "a/box/container/app/0", "OTHER");
    assert!(other.starts_with("http://other:"), "{other}");
    let native = text.replace("image: other:1", "run: x");
    let world = two_machines(&native);
    let said = refusal(&world);
    assert!(
        said.contains("a container on machine `a` cannot reach"),
        "{said}"
    );
}

/// Threat row 34. Fails under the mutation: render a password whatever the text is for.
#[test]
fn row_34_a_credential_may_stand_in_no_command() {
    let text = "kind: App\nname: web\nmachines: a\nrun: [x, hello]\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\n";
    let world = World::new(&["a"], text);
    let mut blueprint = world.blueprint();
    let web = blueprint.apps.get_mut(&owner("web")).unwrap();
    for process in web.processes.values_mut() {
        process.argv[1] = vec![plumb_blueprint::Segment::Ref(
            plumb_blueprint::Reference::ServiceUrl(owner("db")),
        )];
    }
    let request = Request::Apply {
        sources: world.read(&blueprint),
        blueprint,
        ask: Ask::default(),
    };
    let error = world.try_plan(&request).unwrap_err();
    insta::assert_snapshot!(
        error.problems[0].message,
        @"the credential of service `db` would be in the open here"
    );
}

#[test]
fn a_file_with_a_credential_is_a_template_and_hides_what_it_holds() {
    let text = "kind: Setup\nname: s\nmachines: a\nfiles: { /f: { content: 'url = ${service.db.url}' } }\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\n";
    let mut world = World::new(&["a"], text);
    let plan = world.go();
    let ResourceSpec::File(spec) = world.spec("a/s/file//f") else {
        panic!("a file");
    };
    assert!(matches!(spec.content, FileContent::Template(_)));
    let change = plan.changes.iter().find(|c| &*c.address.name == "/f");
    let content = change
        .unwrap()
        .attributes
        .iter()
        .find(|a| a.path == "content.template");
    assert!(content.unwrap().sensitive);
}

#[test]
fn each_ingress_machine_leads_to_every_instance_that_it_reaches() {
    let text = "kind: App\nname: web\nmachines: [a, b]\nrun: x\nports: { http: { port: 8080, publish: private } }\nroutes: [one.example.com, two.example.com/api]\ningress: [a]\n";
    let mut world = two_machines(text);
    world.go();
    let ResourceSpec::Route(route) = world.spec("a/web/route/two.example.com/api") else {
        panic!("a route");
    };
    assert_eq!(route.path, "/api");
    let expected = ["10.0.0.1:8080", "10.0.0.2:8080"].map(str::to_owned);
    assert_eq!(route.target, RouteTarget::Upstreams(expected.into()));

    let loopback = two_machines(&text.replace("{ port: 8080, publish: private }", "8080"));
    insta::assert_snapshot!(
        refusal(&loopback),
        @"app `web` runs on machine `b` and publishes its ports on 127.0.0.1 there, which the web server of machine `a` cannot reach"
    );
    // Where each machine answers for itself, loopback is enough.
    let mut own = two_machines(
        &text
            .replace("{ port: 8080, publish: private }", "8080")
            .replace("ingress: [a]\n", ""),
    );
    own.go();
    let ResourceSpec::Route(route) = own.spec("b/web/route/one.example.com") else {
        panic!("a route");
    };
    let expected = ["127.0.0.1:8080".to_owned()];
    assert_eq!(route.target, RouteTarget::Upstreams(expected.into()));
}

#[test]
fn a_static_site_is_served_from_a_folder_of_its_source() {
    let text = "kind: App\nname: docs\nmachines: a\nsource: { path: site }\nstatic: public\nroutes: [docs.example.com]\n";
    let mut world = World::new(&["a"], text);
    world.go();
    let ResourceSpec::Route(route) = world.spec("a/docs/route/docs.example.com") else {
        panic!("a route");
    };
    let RouteTarget::Files(folder) = route.target else {
        panic!("files");
    };
    assert_eq!(
        (folder.of, folder.dir.as_str()),
        (WorkDirOf::Artifact, "public")
    );
}

/// The set with an app of one container made into a Compose project of several, each after others.
fn project(mut set: BlueprintSet, app: &str, services: &[(&str, &[&str])]) -> BlueprintSet {
    let name = |name: &str| plumb_model::ProcessName::new(name).unwrap();
    let app = set.apps.get_mut(&owner(app)).unwrap();
    let Workload::Container(container) = app.workload.clone() else {
        panic!("a container");
    };
    let services = services.iter().map(|(service, after)| {
        let mut container = (*container).clone();
        container.after = after.iter().map(|first| name(first)).collect();
        (name(service), container)
    });
    app.workload = Workload::Compose(Compose {
        path: "compose.yaml".to_owned(),
        services: services.collect(),
        volumes: [("pages".to_owned(), OnDelete::Keep)].into(),
        networks: Default::default(),
    });
    set
}

#[test]
fn the_services_of_a_compose_project_start_in_their_order_and_stay_together() {
    let text = "kind: App\nname: wiki\nmachines: [a, b, c]\nreplicas: 2\nimage: x:1\nvolumes: { pages: /pages }\n";
    let mut world = World::new(&["a", "b", "c"], text);
    let blueprint = project(
        world.blueprint(),
        "wiki",
        &[("search", &[]), ("web", &["search"])],
    );
    let request = Request::Apply {
        sources: world.read(&blueprint),
        blueprint,
        ask: Ask::default(),
    };
    world.carry_out(&request);
    let body = &world.recorded.releases[&owner("wiki")];
    let containers: Vec<_> = body
        .resources
        .iter()
        .filter(|r| r.address.kind == plumb_model::ResourceKind::Container)
        .collect();
    assert_eq!(containers.len(), 4);
    for web in containers
        .iter()
        .filter(|r| r.address.name.starts_with("web/"))
    {
        let search = web.address.to_string().replace("web/", "search/");
        assert!(web.after.contains(&address(&search)), "{web:#?}");
        let volume = format!("{}/wiki/volume/pages", web.address.machine);
        assert!(web.after.contains(&address(&volume)), "{web:#?}");
    }
}

/// Threat row 7. Fails under the mutation: drop the look for a circle.
#[test]
fn row_7_containers_that_wait_for_each_other_fail_and_are_named() {
    let world = World::new(&["a"], "kind: App\nname: wiki\nmachines: a\nimage: x:1\n");
    let blueprint = project(
        world.blueprint(),
        "wiki",
        &[("one", &["two"]), ("two", &["one"])],
    );
    let request = Request::Apply {
        sources: world.read(&blueprint),
        blueprint,
        ask: Ask::default(),
    };
    let before = world.recorded.clone();
    let error = world.try_plan(&request).unwrap_err();
    insta::assert_snapshot!(
        error.problems[0].message,
        @"each of these waits for the next, in a circle: `a/wiki/container/one/0`, `a/wiki/container/two/0`"
    );
    assert_eq!(world.recorded, before, "nothing is recorded");
}

#[test]
fn a_rename_moves_everything_and_makes_nothing_anew() {
    let text = "kind: App\nname: web\nmachines: a\nrun: x\nports: { http: auto }\n---\nkind: Service\nname: db\nmachines: a\nengine: postgres@16.3\n---\nkind: Volume\nname: files\nmachines: a\n---\nkind: App\nname: box\nmachines: a\nimage: box:1\nvolumes: { files: /files }\n";
    let mut world = World::new(&["a"], text);
    world.go();
    let port = world.port("a/web/process/app/0");
    let new = text
        .replace("name: web", "name: shop\nrenamed_from: web")
        .replace("name: db", "name: store\nrenamed_from: db")
        .replace("name: files", "name: data\nrenamed_from: files")
        .replace("{ files: /files }", "{ data: /files }");
    world.write("x.yaml", &new);
    let plan = world.go();
    for change in &plan.changes {
        assert_eq!(change.action, ChangeAction::Update, "{change:#?}");
        let paths: Vec<&str> = change.attributes.iter().map(|a| a.path.as_str()).collect();
        assert_eq!(paths, ["address"], "{change:#?}");
    }
    assert_eq!(plan.changes.len(), 3);
    assert_eq!(plan.blast_radius.restarts, 0);
    assert_eq!(world.port("a/shop/process/app/0"), port);
    assert!(world.tombstones("a").is_empty());
    let ResourceSpec::Service(spec) = world.spec("a/store/service/store") else {
        panic!("a service");
    };
    assert_eq!(
        (spec.user.as_str(), spec.password.name.as_str()),
        ("db", "db.password")
    );
    let release = &world.recorded.state.owners[&owner("shop")];
    assert_eq!(release.release.0, 2, "it counts on");

    // To leave `renamed_from` out afterwards is no change, and neither is to leave it in.
    world.write("x.yaml", &new.replace("renamed_from: web\n", ""));
    assert!(world.plan().plan.is_empty());

    // Somebody else takes the old name. An agent that was away still holds the renamed one there, and is told so.
    let again = format!("{new}---\nkind: App\nname: web\nmachines: a\nrun: y\n");
    world.write("x.yaml", &again.replace("renamed_from: web\n", ""));
    world.go();
    let body = &world.recorded.releases[&owner("shop")];
    assert_eq!(body.resources[0].was, Some(address("a/web/process/app/0")));
    let taken = &world.recorded.releases[&owner("web")];
    assert_eq!(taken.resources[0].was, None);
}

#[test]
fn an_old_name_that_is_still_there_or_wanted_twice_is_refused() {
    let mut world = World::new(&["a"], "kind: App\nname: web\nmachines: a\nrun: x\n");
    world.go();
    world.write("x.yaml", "kind: App\nname: one\nrenamed_from: web\nmachines: a\nrun: x\n---\nkind: App\nname: two\nmachines: a\nrun: x\n");
    let mut blueprint = world.blueprint();
    let two = blueprint.apps.get_mut(&owner("two")).unwrap();
    two.renamed_from = Some(owner("web"));
    let request = Request::Apply {
        sources: world.read(&blueprint),
        blueprint,
        ask: Ask::default(),
    };
    let error = world.try_plan(&request).unwrap_err();
    insta::assert_snapshot!(error.problems[0].message, @"`one` and `two` are both renamed from `web`");
}

#[test]
fn targets_plan_only_themselves_and_what_they_depend_on() {
    let mut world = two_machines(ACROSS);
    world.write(
        "y.yaml",
        "kind: Setup\nname: base\nmachines: all\nfiles: { /f: { content: x } }\n",
    );
    let target = |name: &str| Ask {
        targets: BTreeSet::from([owner(name)]),
        ..Ask::default()
    };
    let plan = world.carry_out(&asked(&world, target("web")));
    let planned: Vec<&str> = plan.owners.iter().map(|o| o.owner.as_str()).collect();
    assert_eq!(planned, ["api", "db", "web"]);
    assert_eq!(plan.targets.len(), 3);
    world.go();
    // Everything else is gone from the blueprints, and nothing of it is deleted.
    world.files.remove("y.yaml");
    world.write("x.yaml", &ACROSS.replace("run: x\nuses", "run: z\nuses"));
    let plan = world.carry_out(&asked(&world, target("web")));
    let changed: Vec<String> = plan.changes.iter().map(|c| c.address.to_string()).collect();
    assert_eq!(changed, ["a/web/process/app/0"]);
    assert!(world.recorded.releases.contains_key(&owner("base")));

    let unknown = world.try_plan(&asked(&world, target("wep"))).unwrap_err();
    assert_eq!(
        unknown.problems[0].hint.as_deref(),
        Some("did you mean `web`?")
    );
    // One that is only recorded is planned to go.
    let planned = world.try_plan(&asked(&world, target("base"))).unwrap();
    world.apply(&planned);
    let plan = planned.plan;
    assert!(
        plan.changes
            .iter()
            .all(|c| c.action == ChangeAction::Delete)
    );
    assert_eq!(plan.changes.len(), 2);
    assert!(world.recorded.state.machines.contains_key(&machine("b")));
}

/// Fails under the mutations: take the app's own name for what has no key of its own; point at the app for what a Compose
/// file brings.
#[test]
fn what_the_manifest_and_compose_bring_about_comes_from_where_it_is_written() {
    let manifest = "kind: Workspace\nname: shop\nbase_domain: apps.example.com\n";
    let compose =
        "services:\n  web:\n    image: wiki:3\n    volumes: [data:/data]\nvolumes:\n  data:\n";
    let text = "kind: Machine\nname: a\n---\nkind: App\nname: web\nmachines: a\nrun: x\nports: { http: auto }\n---\nkind: App\nname: wiki\nmachines: a\ncompose: compose.yaml\n";
    let file = |path: &str, text: &str| plumb_blueprint::SourceFile {
        path: path.to_owned(),
        text: text.as_bytes().to_vec(),
    };
    let options = plumb_blueprint::Options {
        others: vec![file("compose.yaml", compose)],
        ..Default::default()
    };
    let files = [file("plumb.yaml", manifest), file("x.yaml", text)];
    let blueprint = plumb_blueprint::parse(&files, &options).unwrap();
    let world = World::default();
    let request = Request::Apply {
        sources: world.read(&blueprint),
        blueprint,
        ask: Ask::default(),
    };
    let plan = world.try_plan(&request).unwrap().plan;
    let origins: Vec<String> = plan
        .changes
        .iter()
        .map(|c| format!("{} {}", c.address, c.origin.as_ref().unwrap()))
        .collect();
    assert_eq!(
        origins,
        [
            "a/web/process/app/0 x.yaml:7:1",
            "a/web/route/web.apps.example.com plumb.yaml:3:1",
            "a/wiki/image/web compose.yaml:3:5",
            "a/wiki/volume/data compose.yaml:6:3",
            "a/wiki/container/web/0 compose.yaml:2:3",
        ]
    );
}

/// Fails under the mutation: leave the folder of a source out of what is not a process.
#[test]
fn what_starts_in_a_folder_of_its_source_is_built_and_served_there() {
    let source = "source: { path: repo, dir: web }\n";
    let text = format!(
        "kind: App\nname: site\nmachines: a\nstatic: public\nroutes: [a.example.com]\n{source}---\nkind: App\nname: built\nmachines: a\nruntime: node@20.1.0\nbuild: make\nrun: x\n{source}---\nkind: App\nname: box\nmachines: a\ndockerfile: Dockerfile\n{source}---\nkind: App\nname: plain\nmachines: a\nprocesses: {{ one: x, two: {{ run: y, dir: sub }} }}\n{source}"
    );
    let mut world = World::new(&["a"], &text);
    world.go();
    let dir = |at: &str| match world.spec(at) {
        ResourceSpec::Process(spec) => spec.workdir.unwrap().dir,
        ResourceSpec::Build(spec) => spec.source.dir,
        ResourceSpec::Route(spec) => match spec.target {
            RouteTarget::Files(folder) => folder.dir,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    for (at, expected) in [
        ("a/site/route/a.example.com", "web/public"),
        ("a/built/build/app", "web"),
        ("a/built/process/app/0", "web"),
        ("a/box/build/app", "web"),
        ("a/plain/process/one/0", "web"),
        ("a/plain/process/two/0", "web/sub"),
    ] {
        assert_eq!(dir(at), expected, "{at}");
    }
}

/// What is in the way and cannot be read is told of. Fails under the mutation: say nothing of what nobody may read.
#[test]
fn a_file_that_is_taken_over_and_cannot_be_shown_says_so() {
    let mut world = World::new(
        &["a"],
        "kind: Setup\nname: s\nmachines: a\nfiles: { /etc/x: { content: ours } }\n",
    );
    world.go();
    world.observe("a/s/file//etc/x", super::Said::InTheWay("theirs"));
    let reasons = |world: &World| world.plan().plan.changes[0].reasons.clone();
    assert_eq!(reasons(&world).len(), 1);
    let found = |world: &mut World, digest| {
        let status = world.observed.statuses.values_mut().next().unwrap();
        let found = std::sync::Arc::make_mut(status).found.as_mut().unwrap();
        (found.text, found.digest, found.size) = (None, digest, Some(7));
    };
    found(&mut world, None);
    insta::assert_snapshot!(
        reasons(&world)[1],
        @"what it holds now (7 bytes) is not shown: not everybody on its machine may read it"
    );
    found(&mut world, Some(plumb_model::Hash::of(b"theirs")));
    insta::assert_snapshot!(
        reasons(&world)[1],
        @"what it holds now (7 bytes) is not shown: it is no text, or a long one"
    );
}
