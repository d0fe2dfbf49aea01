//! Compose files in, containers or placed problems out.

use plumb_model::{OnDelete, ProcessName, RestartPolicy};

use super::{Project, read};
use crate::diagnostic::Diagnostics;
use crate::set::{Container, ImageDecl, MountSourceDecl, Port, Publish, Segment, Selector};
use crate::source::SourceFile;

fn file(text: &str) -> SourceFile {
    SourceFile {
        path: "wiki/compose.yaml".to_owned(),
        text: text.as_bytes().to_vec(),
    }
}

fn good(text: &str) -> Project {
    let mut out = Diagnostics::default();
    let project = read(&file(text), &Selector::All, &mut out);
    assert!(
        out.items.is_empty(),
        "{}",
        crate::render(&out, &[file(text)], false)
    );
    project
}

fn service(project: &Project, name: &str) -> Container {
    project.services[&ProcessName::new(name).unwrap()].clone()
}

/// `line:column message` of each problem.
fn problems(text: &str) -> Vec<String> {
    let mut out = Diagnostics::default();
    let _ = read(&file(text), &Selector::All, &mut out);
    let place = |d: &crate::Diagnostic| {
        d.spans
            .first()
            .map_or_else(|| "-".to_owned(), |s| format!("{}:{}", s.line, s.column))
    };
    let hinted = out.items.iter().all(|d| d.hint.is_some());
    assert!(hinted, "a problem without a hint: {:?}", out.items);
    out.items
        .iter()
        .map(|d| format!("{} {}", place(d), d.message))
        .collect()
}

#[test]
fn a_usual_project_becomes_containers_volumes_and_networks() {
    let project = good(
        r#"
name: wiki
services:
  web:
    image: wiki:3
    command: serve --title 'My wiki'
    environment: { DEBUG: false, WORKERS: 4, PRICE: "5$$" }
    ports: ["8080:80", "127.0.0.1:9000:9000/udp"]
    volumes: [data:/var/lib/wiki, /etc/wiki.conf:/etc/wiki.conf:ro]
    networks: [front, default]
    depends_on: { db: { condition: service_healthy } }
    restart: unless-stopped
    stop_grace_period: 30s
    x-note: kept for people
  db:
    build: { context: ./db, dockerfile: Containerfile, args: [VERSION=16] }
    environment: ["POSTGRES_DB=wiki"]
    restart: "no"
    user: "999"
    labels: { team: docs }
volumes: { data: }
networks: { front: { internal: true } }
x-shared: anything
"#,
    );
    let (web, db) = (service(&project, "web"), service(&project, "db"));
    let words = |text: &Option<Vec<crate::set::Text>>| -> Vec<String> {
        let words = text.iter().flatten();
        words
            .map(|w| match w.as_slice() {
                [Segment::Literal(text)] => text.clone(),
                other => format!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(web.image, ImageDecl::Reference("wiki:3".into()));
    assert_eq!(words(&web.command), ["serve", "--title", "My wiki"]);
    let env: Vec<String> = web.env.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
    assert_eq!(
        env,
        [
            r#"DEBUG=[Literal("false")]"#,
            r#"PRICE=[Literal("5$")]"#,
            r#"WORKERS=[Literal("4")]"#
        ]
    );
    let ports: Vec<_> = web
        .ports
        .iter()
        .map(|(n, p)| (n.as_str(), p.machine, &p.publish, p.udp))
        .collect();
    assert_eq!(
        ports,
        [
            ("p80", Port::Fixed(8080), &Publish::Public, false),
            ("p9000-udp", Port::Fixed(9000), &Publish::Loopback, true)
        ]
    );
    assert_eq!(
        web.mounts["/var/lib/wiki"].source,
        MountSourceDecl::Volume("data".into())
    );
    assert!(web.mounts["/etc/wiki.conf"].read_only);
    assert_eq!(web.networks.iter().collect::<Vec<_>>(), ["front"]);
    assert_eq!(
        web.after
            .iter()
            .map(ProcessName::as_str)
            .collect::<Vec<_>>(),
        ["db"]
    );
    assert_eq!(
        web.restart.as_ref().map(|r| r.policy),
        Some(RestartPolicy::Always)
    );
    assert_eq!(web.stop.as_ref().map(|s| s.grace_ms), Some(30_000));
    let ImageDecl::Dockerfile {
        path,
        args,
        context,
        ..
    } = &db.image
    else {
        panic!("{:?}", db.image);
    };
    assert_eq!(
        (context.as_str(), path.as_str(), args.len()),
        ("db", "Containerfile", 1)
    );
    assert_eq!(
        db.restart.as_ref().map(|r| r.policy),
        Some(RestartPolicy::Never)
    );
    assert_eq!(project.volumes["data"], OnDelete::Keep);
    assert!(project.networks["front"].internal);
    assert_eq!(
        project.claims.iter().map(|(p, ..)| *p).collect::<Vec<_>>(),
        [8080, 9000]
    );
}

#[test]
fn nothing_is_dropped_silently_and_each_problem_has_its_place() {
    for (text, expected) in [
        ("", vec!["- this Compose file is empty"]),
        (
            "services: {}\n---\nservices: {}\n",
            vec!["3:1 a Compose file is one YAML document, and here a second one begins"],
        ),
        ("name: x\n", vec!["1:1 this Compose file has no `services`"]),
        (
            "services: { web: { image: a, privileged: true } }\n",
            vec!["1:30 `privileged` is not honoured in a Compose file, and would be lost"],
        ),
        (
            "services: { web: { imgae: a } }\n",
            vec![
                "1:20 `imgae` is no key of a Compose file",
                "1:13 this service says nowhere what to run",
            ],
        ),
        (
            "services: { web: { image: a } }\nsecrets: { x: {} }\n",
            vec!["2:1 `secrets` is not honoured in a Compose file, and would be lost"],
        ),
        (
            "services: { web: { image: \"$TAG\" } }\n",
            vec!["1:27 `web.image` takes a value from the environment, and blueprints have none"],
        ),
        (
            "services: { Web: { image: a } }\n",
            vec![
                "1:13 `Web` is no name: 'W' may not stand in a name: use a-z, 0-9 and '-', and start and end with a letter or digit",
            ],
        ),
        (
            "services: { web: { image: a, ports: [80-90] } }\n",
            vec!["1:38 this is no port"],
        ),
        (
            "services: { web: { image: a, volumes: [data:/d] } }\n",
            vec!["1:40 there is no volume `data` in this file"],
        ),
        (
            "services: { web: { image: a, volumes: [./x:/d] } }\n",
            vec!["1:40 a folder beside the Compose file is not on the machine"],
        ),
        (
            "services: { web: { image: a, volumes: [/d] } }\n",
            vec!["1:40 an anonymous volume would be lost with its container"],
        ),
        (
            "services: { web: { image: a, depends_on: [db] } }\n",
            vec!["1:43 there is no service `db` in this file"],
        ),
        (
            "services: { web: { image: a, networks: [x] } }\n",
            vec!["1:41 there is no network `x` in this file"],
        ),
        (
            "services: { web: { image: a, restart: sometimes } }\n",
            vec!["1:39 `sometimes` is no restart policy"],
        ),
        (
            "services: { web: { image: a, environment: [HOME] } }\n",
            vec!["1:44 `HOME` takes its value from the environment, and blueprints have none"],
        ),
        (
            "services:\n  a: { image: x, depends_on: [b] }\n  b: { image: x, depends_on: [c] }\n  c: { image: x, depends_on: [b] }\n",
            vec!["3:18 these services wait for one another for ever: `b` → `c` → `b`"],
        ),
    ] {
        assert_eq!(problems(text), expected, "{text}");
    }
}

/// Row 32. Mutations: leave `likely_credential` out of the command, or of the build's arguments.
#[test]
fn row_32_what_looks_like_a_credential_is_warned_of_in_commands_and_build_arguments_too() {
    const CANARY: &str = "canary7f3a9c";
    for (service, place) in [
        (
            format!("command: [serve, \"https://u:{CANARY}@h/\"]"),
            "3:22",
        ),
        (format!("command: serve --key ghp_{CANARY}"), "3:14"),
        (format!("entrypoint: [\"https://u:{CANARY}@h/\"]"), "3:18"),
        (
            format!("build: {{ context: ., args: {{ API_KEY: {CANARY} }} }}"),
            "3:43",
        ),
        (
            format!("build: {{ context: ., args: [API_KEY={CANARY}] }}"),
            "3:32",
        ),
        (format!("environment: {{ A_PASSWORD: {CANARY} }}"), "3:32"),
    ] {
        let image = if service.starts_with("build") {
            ""
        } else {
            "    image: x:1\n"
        };
        let text = format!("services:\n  web:\n    {service}\n{image}");
        let mut out = Diagnostics::default();
        let _ = read(&file(&text), &Selector::All, &mut out);
        let [warning] = out.items.as_slice() else {
            panic!("{text}: {:?}", out.items.len());
        };
        assert_eq!(warning.code, crate::Code::LikelyCredential, "{text}");
        let span = &warning.spans[0];
        assert_eq!(format!("{}:{}", span.line, span.column), place, "{text}");
        let said = crate::render(&out, &[file(&text)], false);
        assert!(!said.contains(CANARY), "{said}");
    }
}

#[test]
fn images_builds_volumes_and_networks_are_known_where_they_stand() {
    let project = good(
        "services:\n  web:\n    image: wiki:3\n    volumes: [data:/data]\n    networks: [back]\n  job:\n    build: .\nvolumes:\n  data:\nnetworks:\n  back: {}\n",
    );
    let places: Vec<String> = project
        .places
        .iter()
        .map(|(what, spot)| format!("{what} {}:{}", spot.line, spot.column))
        .collect();
    assert_eq!(
        places,
        [
            ":networks/back 11:3",
            ":volumes/data 9:3",
            "job 6:3",
            "job/image 7:5",
            "web 2:3",
            "web/image 3:5"
        ]
    );
}
