//! What is refused: each at its place, with a hint, and all of it in one run.

use insta::assert_snapshot;

use super::{MACHINES, MANIFEST, codes, files, only_code, rendered, run, with};
use crate::{Code, Options, SourceFile, parse};

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
        ("kind: Volume\nname: a\n".to_owned(), vec!["P0106 1:1+12"]),
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
            vec!["P0225 6:8+4"],
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
        (
            app("run: x\nsource: { git: a, tag: b }\n"),
            vec!["P0217 5:16+1"],
        ),
        (app("run: x\nsource: {}\n"), vec!["P0220 5:9+2"]),
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
        (app("run: x\n\tports: {}\n"), vec!["P0004 5:1+1"]),
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
            vec!["P0303 5:30+1"],
        ),
        (setup("packages: [-y]\n"), vec!["P0231 4:12+2"]),
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

/// The same for what stands around processes, and for the other workloads and kinds.
#[test]
fn each_mistake_of_the_other_workloads_and_kinds_is_pointed_at_exactly() {
    let app = |rest: &str| format!("kind: App\nname: a\nmachines: all\n{rest}");
    let service = |rest: &str| format!("kind: Service\nname: db\nmachines: web-1\n{rest}");
    let mut wrong = Vec::new();
    for (text, expected) in [
        // What an app consists of, and which keys go with it.
        (app("run: x\nimage: nginx\n"), vec!["P0220 5:1+5"]),
        (
            app("image: nginx\ncompose: c.yaml\nstatic: .\n"),
            vec!["P0220 5:1+7"],
        ),
        (app("image: nginx\nruntime: node@20\n"), vec!["P0227 5:1+7"]),
        (
            app("image: nginx\nhooks: { before: x }\n"),
            vec!["P0227 5:1+5"],
        ),
        (
            app("image: nginx\nsource: { path: . }\n"),
            vec!["P0227 5:1+6"],
        ),
        (app("run: x\nvolumes: { a: /a }\n"), vec!["P0227 5:1+7"]),
        (
            app("run: x\nnetworks: []\ncommand: y\n"),
            vec!["P0227 5:1+8", "P0227 6:1+7"],
        ),
        (
            app("compose: c.yaml\nports: { http: 1 }\n"),
            vec!["P0227 5:1+5"],
        ),
        (
            app("source: { path: . }\nstatic: .\nenv: { A: a }\nroutes: [a.b]\n"),
            vec!["P0227 6:1+3"],
        ),
        (app("static: .\nroutes: [a.b]\n"), vec!["P0226 4:1+6"]),
        (app("source: { path: . }\nstatic: .\n"), vec!["P0234 5:1+6"]),
        (app("dockerfile: Dockerfile\n"), vec!["P0226 4:1+10"]),
        (
            app("source: { path: . }\ndockerfile: ../D\n"),
            vec!["P0204 5:13+4"],
        ),
        (app("compose: ../../c.yaml\n"), vec!["P0204 4:10+12"]),
        // Sources, runtimes, images.
        (app("run: x\nruntime: nod@20\n"), vec!["P0230 5:10+6"]),
        (app("run: x\nruntime: node\n"), vec!["P0230 5:10+4"]),
        (app("run: x\nruntime: 20\n"), vec!["P0104 5:10+2"]),
        (app("run: x\nbuild: []\n"), vec!["P0109 5:8+2"]),
        (app("run: x\nbuild: [a, '']\n"), vec!["P0212 5:12+2"]),
        (
            app("run: x\nsource: { git: https://a.b/c }\n"),
            vec!["P0220 5:11+3"],
        ),
        (
            app("run: x\nsource: { git: https://a.b/c, tag: a, branch: b }\n"),
            vec!["P0220 5:31+3"],
        ),
        (
            app("run: x\nsource: { path: ., branch: b }\n"),
            vec!["P0227 5:20+6"],
        ),
        (
            app("run: x\nsource: { path: ., git: https://a.b/c, tag: x }\n"),
            vec!["P0220 5:20+3"],
        ),
        (
            app("run: x\nsource: { git: https://a.b/c, tag: a, follow: true }\n"),
            vec!["P0227 5:39+6"],
        ),
        (
            app("run: x\nsource: { git: https://a.b/c, branch: -x }\n"),
            vec!["P0218 5:39+2"],
        ),
        (
            app("run: x\nsource: { git: https://a.b/c, commit: abc }\n"),
            vec!["P0218 5:39+3"],
        ),
        (app("image: 'a b'\n"), vec!["P0219 4:8+5"]),
        (app("image: 3\n"), vec!["P0104 4:8+1"]),
        // Ports, volumes, networks of containers.
        (
            app("image: nginx\nports: { http: auto }\n"),
            vec!["P0108 5:16+4"],
        ),
        (
            app("run: x\nports: { http: { port: 1, protocol: udp } }\n"),
            vec!["P0227 5:27+8"],
        ),
        (
            app("run: x\nports: { http: { port: 1, publish: privat } }\n"),
            vec!["P0208 5:36+6"],
        ),
        (
            app("run: x\nports: { http: { port: 1, publish: 0.0.0.0 } }\n"),
            vec!["P0208 5:36+7"],
        ),
        (
            app(
                "run: x\nports: { a: { port: 1, publish: private }, b: { port: 2, publish: public } }\n",
            ),
            vec!["P0227 5:44+1"],
        ),
        (
            app("image: nginx\nvolumes: { a: b }\n"),
            vec!["P0204 5:15+1"],
        ),
        (
            app("image: nginx\nvolumes: { a: /x, b: /x }\n"),
            vec!["P0406 5:19+1"],
        ),
        (
            app("image: nginx\nnetworks: [nope]\n"),
            vec!["P0303 5:12+4"],
        ),
        (
            app("image: nginx\nlabels: { plumb.x: a }\n"),
            vec!["P0214 5:11+7"],
        ),
        (app("image: nginx\nuser: a:b:c\n"), vec!["P0206 5:7+5"]),
        (
            app("image: nginx\nhealth: { tcp: http }\n"),
            vec!["P0222 5:16+4"],
        ),
        // Limits, schedules, secrets, hooks, rollouts.
        (
            app("run: x\nlimits: { memory: 512 }\n"),
            vec!["P0104 5:19+3"],
        ),
        (
            app("run: x\nlimits: { memory: 1Mi }\n"),
            vec!["P0109 5:19+3"],
        ),
        (
            app("run: x\nlimits: { cpu: \"1.5\" }\n"),
            vec!["P0104 5:16+5"],
        ),
        (app("run: x\nlimits: { cpu: 0 }\n"), vec!["P0109 5:16+1"]),
        (
            app("run: x\nlimits: { cpu: 1.0005 }\n"),
            vec!["P0109 5:16+6"],
        ),
        (
            app("run: x\nschedule: '0 25 * * *'\n"),
            vec!["P0215 5:14+2"],
        ),
        (
            app("run: x\nschedule: { cron: '5 5 5 5 5 5' }\n"),
            vec!["P0215 5:19+13"],
        ),
        (
            app("run: x\nschedule: { cron: '@daily' }\n"),
            vec!["P0215 5:19+8"],
        ),
        (
            app("run: x\nschedule: { cron: '1 1 1 1 9' }\n"),
            vec!["P0215 5:28+1"],
        ),
        (
            app("run: x\nschedule: { cron: '1 1 * * *', timezone: Europe/Berln }\n"),
            vec!["P0216 5:42+12"],
        ),
        (app("run: x\nsecrets: [a-b]\n"), vec!["P0205 5:11+3"]),
        (app("run: x\nsecrets: [A, A]\n"), vec!["P0402 5:14+1"]),
        (
            app("run: x\nsecrets: { A: { on_change: reload } }\n"),
            vec!["P0227 5:28+6"],
        ),
        (
            app("run: x\nsecrets: { A: { as: file, on_change: { signal: STOP } } }\n"),
            vec!["P0108 5:48+4"],
        ),
        (
            app("run: x\nsecrets: { A: { as: fil } }\n"),
            vec!["P0108 5:21+3"],
        ),
        (
            app("run: x\nsecrets: [A]\nenv: { A: b }\n"),
            vec!["P0233 6:8+1"],
        ),
        (
            app("run: x\nsecrets: { A: { as: file } }\nenv: { A: b, A_FILE: c }\n"),
            vec!["P0233 6:14+6"],
        ),
        (
            app("processes: { w: { run: x, env: { A: b } } }\nsecrets: [A]\n"),
            vec!["P0233 4:34+1"],
        ),
        (app("run: x\nuses: [db]\n"), vec!["P0303 5:8+2"]),
        (app("run: x\nuses: db\n"), vec!["P0104 5:7+2"]),
        (app("run: x\nhooks: { befor: x }\n"), vec!["P0105 5:10+5"]),
        (app("run: x\nhooks: { before: '' }\n"), vec!["P0212 5:18+2"]),
        (app("run: x\nrollout: bluegreen\n"), vec!["P0108 5:10+9"]),
        (
            app("run: x\nrollout: { min_healthy: 10m }\n"),
            vec!["P0109 5:25+3"],
        ),
        (
            app("run: x\nrollout: { strategy: rolling, max_unavailable: 0 }\n"),
            vec!["P0109 5:48+1"],
        ),
        (app("run: x\nspread: zoen\n"), vec!["P0404 5:9+4"]),
        (app("run: x\nrenamed_from: a\n"), vec!["P0412 5:15+1"]),
        // Routes.
        (app("run: x\nroutes: [\"a b\"]\n"), vec!["P0229 5:10+5"]),
        (
            app("run: x\nroutes: [https://a.b]\n"),
            vec!["P0229 5:10+11"],
        ),
        (
            app("run: x\nroutes: [{ host: a.b, path: x }]\n"),
            vec!["P0229 5:29+1"],
        ),
        (app("run: x\nroutes: [a.b, A.b/]\n"), vec!["P0409 5:15+4"]),
        (
            app("run: x\nroutes: [a.b]\ningress: { role: wbe }\n"),
            vec!["P0404 6:10+13"],
        ),
        (app("run: x\ningress: web-1\n"), vec!["P0227 5:10+5"]),
        (app("image: nginx\nroutes: [a.b]\n"), vec!["P0234 5:10+3"]),
        (
            app("run: x\nports: { a: 1, b: 2 }\nroutes: [a.b]\n"),
            vec!["P0223 6:10+3"],
        ),
        // References to services.
        (
            app("run: x\nenv: { A: \"${service.bd.url}\" }\n"),
            vec!["P0303 5:12+17"],
        ),
        (
            app("run: x\nenv: { A: \"${service.db.password}\" }\n"),
            vec!["P0301 5:12+22"],
        ),
        (
            app("run: psql ${service.db.url}\n---\n") + &service("engine: postgres@16\n"),
            vec!["P0304 4:11+17"],
        ),
        (
            app("run: x\nuses: [db]\nenv: { DB_URL: a }\n---\n")
                + &service("engine: postgres@16\n"),
            vec!["P0225 6:8+6"],
        ),
        (
            app("run: x\nenv: { HOST: a }\nports: { http: { port: 1, publish: private } }\n"),
            vec!["P0225 5:8+4"],
        ),
        // Services, volumes, networks, registries.
        (service(""), vec!["P0106 1:1+13"]),
        (service("engine: postgre@16\n"), vec!["P0230 4:9+10"]),
        (
            service("engine: postgres@16\nport: 0\n"),
            vec!["P0109 5:7+1"],
        ),
        (
            service("engine: postgres@16\nuser: a-b\n"),
            vec!["P0201 5:7+3"],
        ),
        (
            service("engine: postgres@16\nbackup: { cron: 0 2 * * * }\n"),
            vec!["P0106 5:9+19"],
        ),
        (
            service("engine: postgres@16\nbackup: { cron: 0 2 * * *, to: { folder: x } }\n"),
            vec!["P0204 5:42+1"],
        ),
        (
            "kind: Service\nname: db\nmachines: all\nengine: redis@7\n".to_owned(),
            vec!["P0411 3:11+3"],
        ),
        (
            "kind: Network\nname: n\nmachines: all\nsubnet: 10.0.0.1/24\n".to_owned(),
            vec!["P0232 4:9+11"],
        ),
        (
            "kind: Network\nname: n\nmachines: all\ninternal: yes\n".to_owned(),
            vec!["P0104 4:11+3"],
        ),
        (
            "kind: Network\nname: n\nmachines: web-1\n---\n".to_owned()
                + &app("image: nginx\nnetworks: [n]\n"),
            vec!["P0305 9:12+1"],
        ),
        (
            "kind: Volume\nname: v\nmachines: web-1\n---\n".to_owned()
                + &app("image: nginx\nvolumes: { v: /v }\n"),
            vec!["P0305 9:12+1"],
        ),
        (
            "kind: Registry\nname: r\nhost: https://a.b\n".to_owned(),
            vec!["P0208 3:7+11"],
        ),
        (
            "kind: Registry\nname: r\nhost: a.b\npassword: { secret: X }\n".to_owned(),
            vec!["P0106 4:1+8"],
        ),
        (
            "kind: Registry\nname: r\nhost: a.b\n---\nkind: Registry\nname: s\nhost: A.b\n"
                .to_owned(),
            vec!["P0410 7:7+3"],
        ),
        (
            "kind: Registry\nname: r\nhost: a.b\n---\nkind: Registry\nname: r\nhost: a.c\n"
                .to_owned(),
            vec!["P0402 6:7+1"],
        ),
        (
            "kind: Setup\nname: s\nmachines: all\nrenamed_from: a\n---\n".to_owned()
                + &app("run: x\n"),
            vec!["P0412 4:15+1"],
        ),
        (
            "kind: Setup\nname: s\nmachines: all\npackages: [1]\n".to_owned(),
            vec!["P0104 4:12+1"],
        ),
        (
            "kind: Machine\nname: m\nrenamed_from: n\n".to_owned(),
            vec!["P0105 3:1+12"],
        ),
    ] {
        let mut found = codes(&text);
        found.retain(|f| !f.ends_with(" -"));
        if found != expected {
            wrong.push(format!("{text}\nfound {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// `no`, `on` and `0123` are texts where a text is expected, and a number there is an error with the hint to quote it.
#[test]
fn words_stay_words_and_numbers_are_to_be_quoted() {
    let app = |rest: &str| format!("kind: App\nname: a\nmachines: all\n{rest}");
    let words = |word: &str| {
        [
            app(&format!(
                "image: nginx\nentrypoint: {word}\ncommand: [{word}]\nlabels: {{ a: {word} }}\nenv: {{ A: {word} }}\n"
            )),
            app(&format!(
                "run: {word}\nbuild: {word}\nhooks: {{ before: {word} }}\nspread: zone\n"
            )),
            app(&format!(
                "source: {{ path: {word}, dir: {word} }}\nrun: x\n"
            )),
            app(&format!(
                "run: x\nsource: {{ git: https://a.b/c, branch: {word} }}\n"
            )),
            app(&format!(
                "source: {{ path: . }}\ndockerfile: {{ path: {word}, target: {word}, args: {{ A: {word} }} }}\n"
            )),
        ]
    };
    for word in ["no", "on", "0123", "12:30:45"] {
        for text in words(word) {
            // The name of a stage or branch has no `:`.
            let found = codes(&text);
            assert!(
                found
                    .iter()
                    .all(|f| (f.starts_with("P0201") || f.starts_with("P0218"))
                        && word.contains(':')),
                "{text}{found:?}"
            );
        }
    }
    for text in words("1.10") {
        let problems = with(&text).unwrap_err();
        for problem in &problems.items {
            assert_eq!(problem.code, Code::WrongType, "{text}{problems}");
            assert_eq!(
                problem.hint.as_deref(),
                Some("quote it: \"1.10\""),
                "{text}"
            );
        }
    }
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
        ["P0004 3:6+1", "P0220 5:1+9", "P0105 8:1+3"]
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

/// Mutation: take the Workspace of the file whose name sorts first.
#[test]
fn the_manifest_is_the_first_workspace_whatever_sorts_before_it() {
    let problems = run(&[
        (
            "plumb.yaml",
            "kind: Workspace\nname: w\nvars: { A: x }\n---\nkind: Machine\nname: m\n",
        ),
        (
            "a.yaml",
            "kind: Workspace\nname: other\n---\nkind: App\nname: a\nmachines: m\nrun: ${vars.A}\n",
        ),
    ])
    .unwrap_err();
    let found: Vec<_> = problems
        .items
        .iter()
        .map(|d| (d.code, d.file.as_str(), d.spans[0].line))
        .collect();
    assert_eq!(found, [(Code::DuplicateName, "a.yaml", 1)], "{problems}");
}

/// Mutation: compare a list's entries with the last one alone.
#[test]
fn what_stands_in_a_list_twice_is_told() {
    let twice = "kind: Setup\nname: a\nmachines: all\npackages: [curl, git, curl]\n";
    assert_eq!(codes(twice), ["P0402 4:23+4"]);
    assert_eq!(
        codes("kind: App\nname: a\nmachines: [web-1, web-2, web-1]\nrun: x\n"),
        ["P0402 3:26+5"]
    );
}

/// Mutation: say of an overlay's file that is empty that it is not there.
#[test]
fn a_file_without_an_overlay_is_not_said_to_be_missing() {
    let options = Options {
        env: Some("stg".to_owned()),
        ..Options::default()
    };
    let files = files(&[("plumb.yaml", MANIFEST), ("plumb.stg.yaml", "# later\n")]);
    let problems = crate::parse(&files, &options).unwrap_err();
    let one = &problems.items[0];
    assert_eq!(one.code, Code::UnknownOverlay);
    assert!(
        one.message.contains("its file declares none"),
        "{}",
        one.message
    );
}

/// Mutation: look at the first two bytes alone.
#[test]
fn what_is_no_utf_8_is_called_by_its_name() {
    for (bytes, said) in [
        (&b"\xff\xfek\0i\0"[..], "UTF-16"),
        (b"\xff\xfe\0\0k\0\0\0", "UTF-32"),
        (b"\0\0\xfe\xff\0\0\0k", "UTF-32"),
        (b"k\xe9", "byte 0xe9"),
    ] {
        let file = SourceFile {
            path: "plumb.yaml".to_owned(),
            text: bytes.to_vec(),
        };
        let problems = crate::parse(&[file], &Options::default()).unwrap_err();
        let message = &problems.items[0].message;
        assert!(message.contains(said), "{message}");
    }
}

/// Mutations: believe any `kind:` of a document that cannot be read; hold its name against the others.
#[test]
fn what_cannot_be_read_is_not_blamed_for_what_it_is_called() {
    assert_eq!(
        codes("kind: [\nname: a\nmachines: all\nrun: x\n"),
        ["P0004 1:7+1"]
    );
    let twice = "kind: App\nname: a\nmachines: all\nrun: x\n---\nkind: App\nname: a\nrun: [\n";
    assert_eq!(codes(twice), ["P0004 8:6+1"]);
}
