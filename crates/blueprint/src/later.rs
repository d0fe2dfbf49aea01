//! The parts of the language that this version has no driver for. They are refused by name, each with what
//! works instead, so that nothing is half-honoured and nobody takes them for a slip of the pen.

use crate::schema::Kind;

/// A kind without a driver, with what works instead.
pub(crate) const KINDS: [(&str, &str); 4] = [
    (
        "Service",
        "run it as an App with a process of its own, or name an existing one's address in `env`",
    ),
    (
        "Registry",
        "there are no images yet: run native processes out of `source: { path: … }`",
    ),
    (
        "Volume",
        "a `Setup` with `directories` makes a folder that stays",
    ),
    ("Network", "native processes use the machine's own network"),
];

/// What works instead of a key without a driver. `parent` is the JSON pointer of the mapping that it is in.
pub(crate) fn instead_of(kind: Kind, parent: &str, key: &str) -> Option<&'static str> {
    let mut segments = parent.split('/').skip(1);
    let path = [
        segments.next(),
        segments.next(),
        segments.next(),
        segments.next(),
    ];
    match (kind, path) {
        (Kind::App, [None, ..]) => app(key),
        (Kind::App, [Some("source"), None, ..]) => match key {
            "git" | "branch" | "tag" | "commit" | "follow" => {
                Some("keep the sources in the blueprint repository: `source: { path: ../web }`")
            }
            _ => None,
        },
        (
            Kind::App,
            [Some("ports"), Some(_), None, ..]
            | [Some("processes"), Some(_), Some("ports"), Some(_)],
        ) => (key == "publish")
            .then_some("leave it out: a native process binds the address that it chooses itself"),
        (Kind::App, [Some("processes"), Some(_), None, ..]) => match key {
            "runtime" | "build" | "secrets" | "uses" | "schedule" | "limits" | "hooks"
            | "volumes" => app(key),
            _ => None,
        },
        (Kind::Setup, [None, ..]) => match key {
            "packages" => Some("install them by hand, for example with `apt install`"),
            "renamed_from" => app(key),
            _ => None,
        },
        (Kind::Setup, [Some("files"), Some(_), None, ..]) => (key == "notify")
            .then_some("leave it out, and restart the app by hand when the file has changed"),
        (Kind::Machine, [None, ..]) => (key == "renamed_from").then(|| app(key)).flatten(),
        (Kind::Workspace, [None, ..]) => {
            (key == "base_domain").then_some("leave it out, and reach each app at its port")
        }
        (Kind::Workspace | Kind::Overlay, [Some("defaults"), Some("App"), None, ..]) => app(key),
        _ => None,
    }
}

fn app(key: &str) -> Option<&'static str> {
    Some(match key {
        "runtime" => "install it on the machine, and call it in `run`: `run: python3 server.py`",
        "build" => "build before you apply, and point `source: { path: … }` at the result",
        "image" | "dockerfile" | "compose" => {
            "run a native process: `run: ./server` with `source: { path: … }`"
        }
        "static" => {
            "serve the folder with a process: `run: python3 -m http.server $PORT` with `ports: { http: auto }`"
        }
        "routes" | "ingress" => "reach the app at its port: `ports: { http: 8080 }`",
        "secrets" => {
            "put a file on the machine that only the app's user may read, and name its path in `env`"
        }
        "uses" => "name the address in `env`",
        "schedule" => "leave it to the machine's cron, or let the process itself wait",
        "limits" => "leave it out; nothing limits a process yet",
        "hooks" => "do it at the start of `run`: `run: ./migrate && exec ./server`",
        "rollout" | "spread" => "leave it out: all machines are changed at once",
        "volumes" => "a `Setup` with `directories` makes a folder that stays",
        "renamed_from" => "leave it out: the old name is removed, and the new one made",
        _ => return None,
    })
}
