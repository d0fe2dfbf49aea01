//! A made-up workspace of any size, always the same for the same numbers: what a team with many apps would write,
//! at the length at which people write it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Machines.
pub const MACHINES: usize = 100;
/// Folders that the apps' sources are in, as in a repository of several teams.
const TEAMS: usize = 20;
/// Setups, each of five resources on five machines.
const SETUPS: usize = 20;

/// Writes a workspace of so many apps with `per_file` of them in each file.
///
/// # Errors
/// What keeps the files from being written.
pub fn write(folder: &Path, apps: usize, per_file: usize) -> std::io::Result<()> {
    for team in 0..TEAMS {
        let source = folder.join(format!("src/team-{team:02}"));
        fs::create_dir_all(&source)?;
        fs::write(
            source.join("server"),
            format!("#!/bin/sh\necho team {team}\n"),
        )?;
    }
    fs::create_dir_all(folder.join("apps"))?;
    fs::write(folder.join("plumb.yaml"), MANIFEST)?;
    fs::write(
        folder.join("machines.yaml"),
        documents(0..MACHINES, machine),
    )?;
    fs::write(folder.join("setups.yaml"), documents(0..SETUPS, setup))?;
    for (at, from) in (0..apps).step_by(per_file).enumerate() {
        let text = documents(from..apps.min(from + per_file), app);
        fs::write(folder.join(format!("apps/{at:05}.yaml")), text)?;
    }
    Ok(())
}

const MANIFEST: &str = "\
# The fleet that benchmarks are taken on.
kind: Workspace
name: bench
vars:
  db_host: db.internal.example.com
  domain: example.com
policy: { deletes: 10 }
defaults:
  App:
    env: { TZ: UTC }
    restart: { policy: always, backoff: { initial: 500ms, max: 30s } }
";

fn documents(numbers: std::ops::Range<usize>, one: impl Fn(usize) -> String) -> String {
    numbers.map(one).collect::<Vec<_>>().join("---\n")
}

fn machine(n: usize) -> String {
    let zone = ["fra", "nbg", "hel"][n % 3];
    format!(
        "kind: Machine\nname: vm-{n:03}\nlabels: {{ role: web, zone: {zone} }}\n\
         address: {{ public: 203.0.113.{}, private: 10.0.0.{} }}\nprice: {{ monthly: 4.51, currency: EUR }}\n",
        n % 250 + 1,
        n % 250 + 1,
    )
}

/// Three files in two directories, on five machines.
fn setup(n: usize) -> String {
    let machines: Vec<String> = (0..5)
        .map(|i| format!("vm-{:03}", (n * 5 + i) % MACHINES))
        .collect();
    format!(
        "kind: Setup\nname: base-{n:02}\nmachines: [{}]\ndirectories:\n  /srv/base-{n:02}: {{ mode: \"0755\" }}\n  \
         /srv/base-{n:02}/conf: {{}}\nfiles:\n  /srv/base-{n:02}/motd:\n    content: |\n      Managed by Plumb.\n      \
         This is ${{machine.name}} in ${{machine.labels.zone}}.\n  /srv/base-{n:02}/conf/limits:\n    content: |\n      \
         * soft nofile 65536\n      * hard nofile 65536\n    mode: \"0600\"\n  /srv/base-{n:02}/conf/sysctl:\n    \
         content: \"vm.swappiness = 10\\n\"\n",
        machines.join(", ")
    )
}

/// One app in four is small: one process on two machines, so four resources with its artifact. The others have two
/// processes in three slots, so five.
fn app(n: usize) -> String {
    let (first, second) = (n % MACHINES, (n + 1) % MACHINES);
    let mut out = String::new();
    let _ = write!(
        out,
        "# App {n} of team {team}.\nkind: App\nname: orders-{n:04}\nmachines: [vm-{first:03}, vm-{second:03}]\n\
         source: {{ path: ../src/team-{team:02} }}\n",
        team = n % TEAMS,
    );
    if n.is_multiple_of(4) {
        out.push_str("run: exec ./server --listen 127.0.0.1:$PORT --workers 4\n");
    } else {
        let _ = write!(
            out,
            "processes:\n  web:\n    run: exec ./server --listen 127.0.0.1:$PORT --workers 4\n    replicas: 2\n  \
             worker:\n    run: [./worker, --queue, orders-{n:04}, --concurrency, \"8\"]\n    replicas: 1\n    \
             env:\n      QUEUE: orders-{n:04}\n      BATCH: \"250\"\n",
        );
    }
    let _ = write!(
        out,
        "ports: {{ http: auto }}\nhealth:\n  path: /healthz\n  interval: 10s\n  timeout: 2s\n  healthy_threshold: 2\n\
         env:\n  LOG_LEVEL: info\n  DATABASE_URL: postgres://orders-{n:04}@${{vars.db_host}}:5432/orders-{n:04}\n  \
         PUBLIC_URL: https://orders-{n:04}.${{vars.domain}}\n  SELF: \"${{app.orders-{n:04}.url}}\"\n  \
         ZONE: ${{machine.labels.zone}}\n  RELEASE: ${{release}}\n  FEATURES: checkout,search,recommendations\n\
         stop: {{ signal: TERM, grace: 20s }}\nlog: {{ max_size: 20Mi, keep: 5 }}\n",
    );
    out
}
