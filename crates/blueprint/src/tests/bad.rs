//! What is refused: each at its place, with a hint, and all of it in one run.

use insta::assert_snapshot;

use super::{MACHINES, MANIFEST, codes, files, only_code, rendered, run, with};
use crate::{Code, Options, parse};

/// The paragraph above all others in the issue: everything is reported in one run.
#[test]
fn every_problem_of_every_file_is_reported_in_one_run() {
    let first = r#"kind: App
name: hello
machines: [web-1, web-3]
prots: { http: auto }
replicas: "2"
run: python3 -m http.server --dir ${var.x}
image: foo
env:
  A: 1.10
  B: ${vars.domian}
  "2C": x
  A: again
  D: ${app.other.url}
restart: allways
stop: { signal: SIGTERM, grace: 10 }
health: { tcp: htp }
---
kind: Setup
name: hello
machines: { role: wbe }
files:
  /etc/motd: { content: "x", mode: 644 }
  etc/x: { source: ../../../x }
  /etc/y: {}
directories:
  /etc/motd: {}
---
kind: App
name: broken
  bad: [
"#;
    let second = r#"kind: Service
name: db
---
kind: App
name: last
machines: all
run: x ${app.broken.url} ${service.db.url}
ports: { http: 80000, x: atuo, y: { port: 3, publish: private }, z: true }
log: { max_size: 3, keep: -1 }
source: ../x
routes: [a]
runtime: node@20
"#;
    assert_snapshot!(
        "everything",
        rendered(&[
            ("plumb.yaml", MANIFEST),
            ("machines.yaml", MACHINES),
            ("apps/a.yaml", first),
            ("apps/b.yaml", second)
        ])
    );
}

/// Each text is a whole file; each problem is told as `CODE line:column+length`.
#[test]
fn each_mistake_is_pointed_at_exactly() {
    let app = |rest: &str| format!("kind: App\nname: a\nmachines: all\n{rest}");
    let mut wrong = Vec::new();
    let setup = |rest: &str| format!("kind: Setup\nname: s\nmachines: all\n{rest}");
    for (text, expected) in [
        ("name: a\n".to_owned(), vec!["P0101 1:1+7"]),
        ("kind: app\nname: a\n".to_owned(), vec!["P0102 1:7+3"]),
        ("kind: Volume\nname: a\n".to_owned(), vec!["P0103 1:7+6"]),
        ("- a\n".to_owned(), vec!["P0011 1:1+3"]),
        (
            "kind: App\nname: a\nrun: x\n".to_owned(),
            vec!["P0106 1:1+9"],
        ),
        (app(""), vec!["P0220 1:1+9"]),
        (app("run: x\nprocesses: { a: x }\n"), vec!["P0220 5:1+9"]),
        (app("run: ''\n"), vec!["P0212 4:6+2"]),
        (app("run: []\n"), vec!["P0109 4:6+2"]),
        (app("run: 3\n"), vec!["P0104 4:6+1"]),
        (app("run:\n"), vec!["P0104 4:1+3"]),
        (app("run: x\nnmae: b\n"), vec!["P0105 5:1+4"]),
        (app("run: x\napi_version: plumb/v2\n"), vec!["P0108 5:14+8"]),
        (app("run: x\nreplicas: 0\n"), vec!["P0109 5:11+1"]),
        (app("run: x\nreplicas: 1.5\n"), vec!["P0104 5:11+3"]),
        (app("run: x\nreplicas: 2.0\n"), vec!["P0104 5:11+3"]),
        (app("run: x\nports: { Http: 80 }\n"), vec!["P0201 5:10+4"]),
        (app("run: x\nports: { http: 0 }\n"), vec!["P0109 5:16+1"]),
        (
            app("run: x\nports: { http: \"80\" }\n"),
            vec!["P0108 5:16+4"],
        ),
        (
            app("run: x\nports: { a: 1, b: 2 }\nhealth: /\n"),
            vec!["P0223 6:1+6"],
        ),
        (
            app("run: x\nports: { a: 1, b: 2 }\nhealth: { path: /, port: c }\n"),
            vec!["P0222 6:26+1"],
        ),
        (app("run: x\nhealth: /\n"), vec!["P0222 5:1+6"]),
        (
            app("run: x\nports: { a: 1 }\nhealth: healthz\n"),
            vec!["P0210 6:9+7"],
        ),
        (
            app("run: x\nports: { a: 1 }\nhealth: { path: /, tcp: a }\n"),
            vec!["P0220 6:20+3"],
        ),
        (
            app("run: x\nports: { a: 1 }\nhealth: {}\n"),
            vec!["P0220 6:1+6"],
        ),
        (
            app("run: x\nports: { a: 1 }\nhealth: { path: /, codes: 2xx }\n"),
            vec!["P0211 6:27+3"],
        ),
        (
            app("run: x\nports: { a: 1 }\nhealth: { path: /, interval: 1d }\n"),
            vec!["P0202 6:30+2"],
        ),
        (
            app("run: x\nports: { a: 1 }\nhealth: { path: /, interval: 1ms }\n"),
            vec!["P0109 6:30+3"],
        ),
        (
            app("processes: { x: a, y: b }\nports: { http: auto }\nhealth: /\n"),
            vec!["P0221 5:1+5", "P0221 6:1+6"],
        ),
        (
            app(
                "processes:\n  web: { run: a, ports: { http: 1 } }\n  y: { run: b, ports: { http: 2 } }\n",
            ),
            vec!["P0224 6:25+4"],
        ),
        (
            app("run: x\nports: { http: 1 }\nenv: { PORT: \"2\" }\n"),
            vec!["P0225 5:10+4"],
        ),
        (
            app("run: x\nenv: { A: no, B: off, C: 0123, D: 12:30:45 }\n"),
            vec![],
        ),
        (app("run: x\nenv: { A: true }\n"), vec!["P0104 5:11+4"]),
        (
            app("run: x\nsource: { path: /etc }\n"),
            vec!["P0204 5:17+4"],
        ),
        (
            app("run: x\nsource: { path: ../../x }\n"),
            vec!["P0204 5:17+7"],
        ),
        (
            app("run: x\nsource: { path: .., dir: ../x }\n"),
            vec!["P0204 5:26+4"],
        ),
        (app("run: x\nsource: { git: a }\n"), vec!["P0107 5:11+3"]),
        (app("run: x\nsource: {}\n"), vec!["P0106 5:9+2"]),
        (
            app("processes: { x: { run: a, dir: b } }\n"),
            vec!["P0226 4:32+1"],
        ),
        (app("run: x\nuser: Root\n"), vec!["P0206 5:7+4"]),
        (app("run: x\nlog: 1Ti\n"), vec!["P0203 5:6+3"]),
        (app("run: x\nlog: 1Gi\n"), vec!["P0109 5:6+3"]),
        (
            app("run: x\nrestart: { backoff: { initial: 1m, max: 1s } }\n"),
            vec!["P0109 5:41+2"],
        ),
        (app("run: x ${machine.nam}\n"), vec!["P0301 4:8+14"]),
        (
            app("run: x ${A} ${A\n"),
            vec!["P0301 4:6+10", "P0301 4:8+4"],
        ),
        (app("run: x ${release}\n"), vec!["P0304 4:8+10"]),
        (app("run: x ${machine.labels.rack}\n"), vec!["P0305 4:8+22"]),
        (app("run: x ${app.b.url}\n"), vec!["P0303 4:8+12"]),
        (app("run: x ${app.a.url}\n"), vec!["P0303 4:8+12"]),
        (
            app("run: x ${app.a.url}\nports: { a: 1, b: 2 }\n"),
            vec!["P0223 4:8+12"],
        ),
        (
            app("run: x ${app.a.ports.htp}\nports: { http: 1 }\n"),
            vec!["P0303 4:8+18"],
        ),
        (app("run: |\n  x\n  y ${vars.nope}\n"), vec!["P0302 6:5+12"]),
        (app("run: !shell x\n"), vec!["P0008 4:6+8"]),
        (app("run: x\n? [a]\n: b\n"), vec!["P0009 5:3+1"]),
        (app("run: x\nenv: { <<: 3 }\n"), vec!["P0010 5:12+1"]),
        (app("run: x\n\tports: {}\n"), vec!["P0004 4:6+1"]),
        (
            "kind: App\nname: a\nrun: x\nmachines: {}\n".to_owned(),
            vec!["P0109 4:11+2"],
        ),
        (
            "kind: App\nname: a\nrun: x\nmachines: []\n".to_owned(),
            vec!["P0109 4:11+2"],
        ),
        (
            "kind: App\nname: a\nrun: x\nmachines: web-9\n".to_owned(),
            vec!["P0403 4:11+5"],
        ),
        (
            "kind: App\nname: a\nrun: x\nmachines: [web-1, web-9]\n".to_owned(),
            vec!["P0403 4:19+5"],
        ),
        (
            "kind: App\nname: a\nrun: x\nmachines: { role: wbe }\n".to_owned(),
            vec!["P0404 4:11+13"],
        ),
        (
            setup("files:\n  /a: { content: x, source: y }\n"),
            vec!["P0220 5:21+6"],
        ),
        (
            setup("files:\n  /a: { content: x, mode: rw }\n"),
            vec!["P0207 5:27+2"],
        ),
        (
            setup("files:\n  /a: { content: x, mode: 0644, owner: 0 }\n"),
            vec!["P0104 5:40+1"],
        ),
        (setup("files:\n  /a: hello\n"), vec!["P0104 5:7+5"]),
        (
            setup("files:\n  /a/../b: { content: x }\n"),
            vec!["P0204 5:3+7"],
        ),
        (
            setup("files:\n  /a: { content: x, notify: [b] }\n"),
            vec!["P0107 5:21+6"],
        ),
        (setup("packages: [curl]\n"), vec!["P0107 4:1+8"]),
        (
            "kind: Machine\nname: m\nlabels: { a: 1 }\n".to_owned(),
            vec!["P0104 3:14+1"],
        ),
        (
            "kind: Machine\nname: m\naddress: { public: 10.0.0.256 }\n".to_owned(),
            vec!["P0208 3:20+10"],
        ),
        (
            "kind: Machine\nname: m\nprice: { monthly: 4.515, currency: eur }\n".to_owned(),
            vec!["P0209 3:19+5", "P0209 3:36+3"],
        ),
        ("kind: Overlay\nvars: {}\n".to_owned(), vec!["P0408 1:7+7"]),
        ("kind: Workspace\nname: b\n".to_owned(), vec!["P0402 1:7+9"]),
    ] {
        let mut found = codes(&text);
        found.retain(|f| !f.ends_with(" -"));
        if found != expected {
            wrong.push(format!("{text}\nfound {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_folder_without_a_manifest_is_told_how_to_get_one() {
    assert_eq!(only_code(run(&[])), Code::NoManifest);
    assert_eq!(only_code(run(&[("a.yaml", MACHINES)])), Code::NoManifest);
    assert_snapshot!("no_manifest", rendered(&[]));
}

/// Mutation: let `salvage` find nothing.
#[test]
fn a_broken_document_still_has_its_name() {
    let broken = "kind: App\nname: broken\nports: { http: 1\n---\nkind: Machine\nname: 'm-3' # quoted\n  x: y\n";
    let user = "kind: App\nname: a\nmachines: [web-1, m-3]\nrun: x ${app.broken.url} ${app.broken.ports.http}\n";
    let problems = run(&[
        ("plumb.yaml", MANIFEST),
        ("m.yaml", MACHINES),
        ("a.yaml", user),
        ("b.yaml", broken),
    ])
    .unwrap_err();
    let found: Vec<_> = problems
        .items
        .iter()
        .map(|d| (d.code, d.file.as_str()))
        .collect();
    assert_eq!(
        found,
        [(Code::Syntax, "b.yaml"), (Code::Syntax, "b.yaml")],
        "{problems}"
    );
}

/// Mutation: let the event pass stop at the first bad document of a file.
#[test]
fn a_broken_document_does_not_hide_the_problems_of_the_others() {
    assert_eq!(
        codes("kind: App\nname: a\nrun: [\n---\nkind: App\nname: b\nmachines: all\nrnu: x\n"),
        ["P0004 4:1+1", "P0220 5:1+9", "P0105 8:1+3"]
    );
}

#[test]
fn diagnostics_have_a_stable_json_form() {
    let problems = with("kind: App\nname: a\nmachines: all\nrun: x\nprots: {}\n").unwrap_err();
    insta::assert_json_snapshot!("json", problems);
}

/// Mutation: leave the escaping out of `render`.
#[test]
fn hostile_text_reaches_no_terminal() {
    let text = "kind: App\nname: \"a\\e[31m\\u202e\"\nmachines: all\nrun: x\n\"k\\eey\": 1\n\u{202e}x: 1\n";
    let list = [
        ("plumb.yaml", MANIFEST),
        ("m.yaml", MACHINES),
        ("a\u{1b}[2J.yaml", text),
    ];
    let shown = rendered(&list);
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    let plain = parse(&files(&list), &Options::default())
        .unwrap_err()
        .to_string();
    assert!(!plain.contains(['\u{1b}', '\u{202e}']), "{plain:?}");
}

#[test]
fn a_thousand_problems_are_enough() {
    let mut text = String::from("kind: App\nname: a\nmachines: all\nrun: x\nenv:\n");
    for n in 0..1500 {
        text.push_str(&format!("  A{n}: 1\n"));
    }
    let problems = with(&text).unwrap_err();
    assert_eq!(
        (problems.items.len(), problems.omitted, problems.errors()),
        (1000, 500, 1500)
    );
}

#[test]
fn what_only_the_overlay_of_another_environment_has_is_checked_too() {
    let overlay = "kind: Overlay\nroutes: x\nvars: { a: 1 }\n";
    let problems = run(&[("plumb.yaml", MANIFEST), ("plumb.prod.yaml", overlay)]).unwrap_err();
    assert_eq!(problems.items.len(), 2, "{problems}");
}
