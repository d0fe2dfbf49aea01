//! The documents tell the truth: every command in their `sh` blocks is run, in the order in which a reader meets it.
//!
//! A section (what is under one `##`) is one sitting: a copy of the examples, a home of its own, each block a terminal.
//! The last command of a block may stay, as `plumb dev` does; it is ended with Ctrl-C when the section ends. A section
//! that asks a control plane and starts none is given a `plumb dev` on the quickstart. `cargo run --release --` and
//! `plumb` stand for the binary beside this test; the paths and the port that the documents name, for free ones.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plumb_tests::pair::{Port, wait};
use plumb_tests::plumb;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// Commands that cannot be run from here, with the reason. A line that begins with one of these is left out.
const NOT_RUN: [(&str, &str); 6] = [
    ("scripts/test", "it is what runs this test"),
    (".ci/run", "it runs scripts/test"),
    (
        "cargo build",
        "takes minutes; the binary beside this test stands for what it builds",
    ),
    ("cargo nextest run", "runs this test"),
    ("cargo xtask", "measures for minutes on a quiet machine"),
    ("PLUMB_UPDATE=1 cargo test", "writes into the checkout"),
];

/// How long one block may take, or one that stays may take until it is ready.
const BLOCK: Duration = Duration::from_secs(60);

/// What a terminal shows before the last command of a block.
const BEGUN: &str = "-- the last command --";

/// What a reader can type in `dev` for: everything that asks a control plane.
const ASKS: [&str; 13] = [
    "plan", "apply", "status", "logs", "history", "rollback", "destroy", "token", "secret",
    "audit", "backup", "doctor", "events",
];

/// Everything under one `##`.
#[derive(Debug, PartialEq)]
struct Section {
    title: String,
    /// The commands of each `sh` block: lines, joined where they end with a backslash.
    blocks: Vec<Vec<String>>,
}

fn sections(page: &str) -> Vec<Section> {
    let mut sections = vec![Section {
        title: "the opening".to_owned(),
        blocks: Vec::new(),
    }];
    let mut fence: Option<&str> = None;
    for line in page.lines() {
        let section = sections.last_mut().expect("there is always one");
        match (fence, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                fence = Some(language);
                if language == "sh" {
                    section.blocks.push(Vec::new());
                }
            }
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => {
                let block = section.blocks.last_mut().expect("the fence has begun one");
                match block.last_mut().filter(|last| last.ends_with('\\')) {
                    Some(last) => {
                        last.pop();
                        last.push_str(line.trim());
                    }
                    None if line.trim().is_empty() || line.starts_with('#') => {}
                    None => block.push(line.to_owned()),
                }
            }
            (None, None) => {
                if let Some(title) = line.strip_prefix("## ") {
                    sections.push(Section {
                        title: title.to_owned(),
                        blocks: Vec::new(),
                    });
                }
            }
            (Some(_), None) => {}
        }
    }
    sections
}

/// The word after `plumb`, or after `cargo run --release --`.
fn subcommand(command: &str) -> Option<&str> {
    let after = command
        .split_once("cargo run --release -- ")
        .or_else(|| command.split_once("plumb "))?
        .1;
    after.split_whitespace().next()
}

/// What a command that stays prints once it is ready; none for one that ends.
fn sign(command: &str) -> Option<&'static str> {
    let has = |word: &str| command.split_whitespace().any(|w| w == word);
    match subcommand(command)? {
        _ if has("--print-config") => None,
        "dev" if !has("--once") => Some("Watching "),
        "server" => Some("listening on"),
        "agent" => Some("started"),
        "logs" | "events" if has("-f") || has("--follow") => Some(""),
        "status" if has("--watch") || has("-w") => Some("Machines"),
        _ => None,
    }
}

fn is_run(command: &str) -> bool {
    !NOT_RUN
        .iter()
        .any(|(start, _)| command.trim_start().starts_with(start))
}

/// A terminal whose last command goes on.
struct Staying {
    block: String,
    shell: Child,
    /// Whether Ctrl-C ends it well, as it does a daemon.
    ends_well: bool,
}

/// A folder in which the documents' commands find what they name.
struct Sitting {
    folder: tempfile::TempDir,
    port: Port,
    app_port: Port,
    staying: Vec<Staying>,
    terminals: u32,
}

impl Sitting {
    fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("plumb-docs-")
            .tempdir()
            .unwrap();
        let sitting = Self {
            folder,
            port: Port::take(),
            app_port: Port::take(),
            staying: Vec::new(),
            terminals: 0,
        };
        for name in ["home", "bin", "checkout"] {
            fs::create_dir(sitting.path(name)).unwrap();
        }
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../blueprints-examples");
        sitting.copy(&examples, &sitting.path("checkout/blueprints-examples"));
        symlink(plumb(), sitting.path("bin/plumb")).unwrap();
        let cargo = sitting.path("bin/cargo");
        fs::write(
            &cargo,
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || { echo \"cargo $*: not run here\" >&2; exit 1; }\nshift 3\nexec plumb \"$@\"\n",
        )
        .unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        sitting
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The text with places that are this test's alone. A port that the planner allots follows from names, the
    /// workspace's among them, and so is the same for every quickstart and every `shop` on this host.
    fn here(&self, text: &str) -> String {
        let folder = self.folder.path().display();
        text.replace("/tmp/plumb-quickstart", &format!("{folder}/managed"))
            .replace("/tmp/plumb-pair", &format!("{folder}/pair"))
            .replace(
                "/tmp/plumb-start/shop",
                &format!("{folder}/start/shop-{}", self.port.number),
            )
            .replace("/tmp/plumb-start", &format!("{folder}/start"))
            .replace("/var/lib/plumb", &format!("{folder}/lib"))
            .replace("127.0.0.1:7700", &format!("127.0.0.1:{}", self.port.number))
            .replace(
                "{ http: auto }",
                &format!("{{ http: {} }}", self.app_port.number),
            )
    }

    fn copy(&self, from: &Path, to: &Path) {
        fs::create_dir(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                self.copy(&entry.path(), &to);
            } else if let Ok(text) = fs::read_to_string(entry.path()) {
                fs::write(&to, self.here(&text)).unwrap();
            } else {
                fs::copy(entry.path(), &to).unwrap();
            }
        }
    }

    fn run(&mut self, section: &Section) -> Result<(), String> {
        let blocks: Vec<Vec<String>> = section
            .blocks
            .iter()
            .map(|block| block.iter().filter(|c| is_run(c)).cloned().collect())
            .filter(|block: &Vec<String>| !block.is_empty())
            .collect();
        let words: Vec<&str> = blocks
            .iter()
            .flatten()
            .filter_map(|c| subcommand(c))
            .collect();
        let starts = words.iter().any(|w| ["dev", "server"].contains(w));
        if !starts && words.iter().any(|w| ASKS.contains(w)) {
            self.block(&["plumb dev blueprints-examples/quickstart".to_owned()])?;
        }
        for block in &blocks {
            self.block(block)?;
        }
        while let Some(staying) = self.staying.pop() {
            Self::end(staying)?;
        }
        Ok(())
    }

    /// Runs one block, or starts it if its last command stays.
    fn block(&mut self, commands: &[String]) -> Result<(), String> {
        let (last, before) = commands.split_last().expect("empty ones are left out");
        if let Some(early) = before.iter().find(|c| sign(c).is_some()) {
            return Err(format!(
                "`{early}` stays, so nothing after it in its block is ever run"
            ));
        }
        let (before, last_run) = (self.here(&before.join("\n")), self.here(last));
        // What the commands before it print is no sign that the last one has begun.
        let script = format!("set -euo pipefail\n{before}\necho '{BEGUN}'\n{last_run}\n");
        self.terminals += 1;
        let screen = self.path(&format!("terminal-{}", self.terminals));
        let file = File::create(&screen).unwrap();
        let bin = self.path("bin");
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("bash")
            .args(["-c", &script])
            .current_dir(self.path("checkout"))
            .env("PATH", format!("{}:{path}", bin.display()))
            .env("HOME", self.path("home"))
            .env("PLUMB_LOG", "info")
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("PLUMB_CONTEXT")
            .env_remove("PLUMB_JOIN_TOKEN")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap();
        let shown = || fs::read_to_string(&screen).unwrap_or_default();
        let of_last = || {
            let shown = shown();
            shown
                .split_once(BEGUN)
                .map(|(_, after)| after.trim_start().to_owned())
        };
        let until = Instant::now() + BLOCK;
        let sign = sign(last);
        loop {
            if let Some(status) = shell.try_wait().unwrap() {
                return if status.success() && sign.is_none() {
                    Ok(())
                } else {
                    Err(format!("{script}{status}:\n{}", shown()))
                };
            }
            if sign.is_some_and(|sign| {
                of_last().is_some_and(|shown| !shown.is_empty() && shown.contains(sign))
            }) {
                self.staying.push(Staying {
                    block: script,
                    shell,
                    ends_well: matches!(subcommand(last), Some("dev" | "server" | "agent")),
                });
                return Ok(());
            }
            if Instant::now() > until {
                let _ = shell.kill();
                let _ = shell.wait();
                return Err(format!("{script}not within {BLOCK:?}:\n{}", shown()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ctrl-C, as a terminal sends it: to everything in the foreground.
    fn end(mut staying: Staying) -> Result<(), String> {
        let group = Pid::from_child(&staying.shell);
        kill_process_group(group, Signal::INT).map_err(|e| e.to_string())?;
        let what = format!("Ctrl-C ends this:\n{}", staying.block);
        let status = wait(&what, Duration::from_secs(12), || {
            staying.shell.try_wait().unwrap()
        });
        if staying.ends_well && !status.success() {
            return Err(format!("{}Ctrl-C: {status}", staying.block));
        }
        Ok(())
    }
}

impl Drop for Sitting {
    /// Ends what names this test's folder on its command line or works in it, by process id: apps outlive an agent.
    fn drop(&mut self) {
        for staying in &mut self.staying {
            let _ = kill_process_group(Pid::from_child(&staying.shell), Signal::KILL);
            let _ = staying.shell.wait();
        }
        let here = self.folder.path().display().to_string();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let pid = entry.file_name().to_str().and_then(|n| n.parse().ok());
            let Some(pid) = pid.and_then(Pid::from_raw) else {
                continue;
            };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let works_in = fs::read_link(entry.path().join("cwd")).unwrap_or_default();
            if String::from_utf8_lossy(&words).contains(&here) || works_in.starts_with(&here) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

/// Runs every section of a page that has commands; says how many.
fn run_page(path: &str) -> usize {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let page = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut run = 0;
    for section in sections(&page) {
        if section.blocks.iter().flatten().any(|c| is_run(c)) {
            if let Err(why) = Sitting::new().run(&section) {
                panic!("{path}, {}:\n{why}", section.title);
            }
            run += 1;
        }
    }
    run
}

#[test]
fn every_command_of_the_readme_runs() {
    assert!(run_page("README.md") >= 3);
}

#[test]
fn every_command_of_the_operations_page_runs() {
    assert!(run_page("docs/OPERATIONS.md") >= 3);
}

#[test]
fn every_command_of_the_other_pages_runs() {
    run_page("CONTRIBUTING.md");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for entry in fs::read_dir(docs).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") && name != "OPERATIONS.md" {
            run_page(&format!("docs/{name}"));
        }
    }
}

#[test]
fn the_two_commands_of_the_readme_are_in_it() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let commands: Vec<String> = sections(&page)
        .into_iter()
        .flat_map(|s| s.blocks)
        .flatten()
        .collect();
    for needed in [
        "cargo run --release -- dev blueprints-examples/quickstart",
        "scripts/test",
    ] {
        assert!(
            commands.iter().any(|c| c.starts_with(needed)),
            "{needed}: {commands:?}"
        );
    }
}

#[test]
fn commands_are_read_out_of_sh_blocks_only() {
    let page = "# A\n```sh\n# a comment\nplumb plan \\\n  x\n```\n## B\n```text\nno\n```\n```sh\nplumb dev y\n```\n";
    let read = sections(page);
    let of = |title: &str, command: &str| Section {
        title: title.to_owned(),
        blocks: vec![vec![command.to_owned()]],
    };
    assert_eq!(
        read,
        [of("the opening", "plumb plan x"), of("B", "plumb dev y")]
    );
    assert_eq!(sign("plumb dev y"), Some("Watching "));
    assert_eq!(sign("plumb dev y --once"), None);
    assert_eq!(sign("T=$(plumb token create --join)"), None);
}
