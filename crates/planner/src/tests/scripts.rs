//! Golden scripts: stories of a repository and its fleet, told to the planner line by line.
//!
//! Each `tests/scripts/NAME.plumb` has its output in `NAME.out` beside it; `PLUMB_UPDATE=1` writes it anew. What a
//! story is about stands in `expect` lines, which no update can silence. Every defect of the planner becomes one.
//!
//! | command | what it does |
//! |---|---|
//! | `# …` | a remark, repeated in the output |
//! | `write FILE <<` … `END` | writes a blueprint file |
//! | `remove FILE` | removes one |
//! | `content PATH WORD` | gives another content to a folder of the repository |
//! | `join MACHINE [lacking CAPABILITY…]` | its agent is heard of |
//! | `observe ADDRESS gone\|converged\|port-taken\|failed\|drifted WORD…\|in-the-way WORD…` | what its agent says, under the recorded generation; what is in the way is a file that everybody may read, with this text |
//! | `resolve KEY = VALUE` | what a moving name means for whoever looks from now on |
//! | `converge` | every agent has done all that it was told |
//! | `plan`, `apply [--allow A,B]` | plans the files as they stand; `apply` records it. Both take `--refresh` and `--target A,B` first |
//! | `other WORKSPACE` | goes on with a workspace of its own |
//! | `rollback OWNER N [--allow A,B]`, `destroy` | planned and recorded |
//! | `recorded` | shows owners, machines, generations, tombstones |
//! | `expect empty\|error TEXT\|consent NAME\|no consent\|change ADDRESS\|no change ADDRESS\|downtime ADDRESS\|no downtime\|ACTION ADDRESS\|unresolved TEXT\|lack TEXT\|data loss ADDRESS\|no data loss` | of the newest plan |
//! | `expect same port ADDRESS`, `expect other port ADDRESS` | against what it was when last asked |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use plumb_model::plan::{AttributeChange, Change, ChangeAction, Plan};
use plumb_model::state::ResolutionKey;
use plumb_model::{Capability, ReleaseNumber, ResourceKind};
use serde_json::Value;

use super::{Held, Said, World, facts, machine};
use crate::{Ask, PlanError, Refresh, Request};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scripts")
}

#[test]
fn every_story_goes_as_it_was_written_down() {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder of scripts")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "plumb"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 40, "scripts are missing");
    let update = std::env::var_os("PLUMB_UPDATE").is_some_and(|v| v == "1");
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for path in scripts {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&path).expect("a script");
        let mut story = Story {
            name: name.to_string(),
            ..Story::default()
        };
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story.tell(&text)));
        if told.is_err() {
            // What it said stands above.
            let _ = writeln!(wrong, "{name}: a line of it does not hold, see above");
            continue;
        }
        seen.append(&mut story.seen);
        let golden = path.with_extension("out");
        if update {
            std::fs::write(&golden, &story.out).expect("to write the golden output");
            continue;
        }
        let before = std::fs::read_to_string(&golden).unwrap_or_default();
        if before != story.out {
            let difference = similar::TextDiff::from_lines(&before, &story.out)
                .unified_diff()
                .header("written down", "now")
                .to_string();
            let _ = writeln!(wrong, "{name}:\n{difference}");
        }
    }
    if wrong.is_empty() {
        check_seen(&seen);
    }
    assert!(
        wrong.is_empty(),
        "{wrong}\nPLUMB_UPDATE=1 writes them anew, if this is what should be"
    );
}

/// Each action on each kind that can happen, with and without something to hide, is in some story.
fn check_seen(seen: &BTreeSet<(ChangeAction, ResourceKind, bool)>) {
    use ChangeAction as A;
    use ResourceKind as K;
    let mut missing = Vec::new();
    let mut want = |action, kind, hidden| {
        if !seen.contains(&(action, kind, hidden)) {
            missing.push(format!("{action:?} {kind} hidden={hidden}"));
        }
    };
    for kind in ResourceKind::ALL {
        // A service always has its password to hide when it comes or goes.
        let hides = kind == K::Service;
        want(A::Create, kind, hides);
        want(A::Delete, kind, hides);
        want(A::Update, kind, false);
    }
    for kind in [K::Process, K::Container, K::Task, K::Image, K::File] {
        for action in [A::Create, A::Update, A::Delete] {
            want(action, kind, true);
        }
    }
    for kind in [K::Artifact, K::Checkout, K::Toolchain, K::Build, K::Image] {
        want(A::ReplaceCreateFirst, kind, false);
    }
    for kind in [K::Network, K::Service] {
        want(A::ReplaceDeleteFirst, kind, false);
    }
    for kind in [K::Volume, K::Service] {
        want(A::Forget, kind, false);
    }
    for kind in [K::File, K::Directory] {
        want(A::Adopt, kind, false);
    }
    want(A::Adopt, K::File, true);
    assert!(missing.is_empty(), "no story tells of {missing:#?}");
}

#[derive(Default)]
struct Story {
    name: String,
    line: usize,
    world: World,
    out: String,
    newest: Option<Result<Plan, PlanError>>,
    /// Every action on every kind that it tells of, and whether with something hidden.
    seen: BTreeSet<(ChangeAction, ResourceKind, bool)>,
    ask: Ask,
    ports: BTreeMap<String, u16>,
}

impl Story {
    fn tell(&mut self, text: &str) {
        let mut lines = text.lines().enumerate();
        while let Some((at, line)) = lines.next() {
            self.line = at + 1;
            let line = line.trim();
            if line.is_empty() {
                self.out.push('\n');
                continue;
            }
            if line.starts_with('#') {
                let _ = writeln!(self.out, "{line}");
                continue;
            }
            let _ = writeln!(self.out, "> {line}");
            if let Some(file) = line.strip_prefix("write ") {
                let file = file.strip_suffix("<<").unwrap_or_else(|| self.bad("`<<`"));
                let text: String = lines
                    .by_ref()
                    .map(|(_, line)| line)
                    .take_while(|line| *line != "END")
                    .map(|line| format!("{line}\n"))
                    .collect();
                self.world.write(file.trim(), &text);
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            self.command(&words);
        }
    }

    fn bad<T>(&self, wanted: &str) -> T {
        panic!("{}:{}: {wanted} is expected here", self.name, self.line)
    }

    fn command(&mut self, words: &[&str]) {
        match words {
            ["remove", file] => {
                if self.world.files.remove(*file).is_none() {
                    self.bad::<()>("a file that was written");
                }
            }
            ["content", path, word] => {
                let held = Held::Bytes((*word).to_owned());
                self.world.sources.insert((*path).to_owned(), held);
            }
            ["join", name, rest @ ..] => {
                let lacks: Vec<Capability> = rest
                    .iter()
                    .skip(1)
                    .map(|word| {
                        serde_json::from_value(Value::from(*word))
                            .unwrap_or_else(|_| self.bad("a capability"))
                    })
                    .collect();
                let machines = &mut self.world.observed.machines;
                machines.insert(machine(name), facts(&lacks));
            }
            ["observe", at, said @ ..] => {
                let words = said.get(1..).unwrap_or_default().join(" ");
                let said = match said.first() {
                    Some(&"gone") => Said::Gone,
                    Some(&"converged") => Said::Converged,
                    Some(&"port-taken") => Said::PortTaken,
                    Some(&"failed") => Said::Failed,
                    Some(&"drifted") => Said::Drifted(&words),
                    Some(&"in-the-way") => Said::InTheWay(&words),
                    _ => self.bad("what was seen"),
                };
                self.world.observe(at, said);
            }
            ["converge"] => self.world.converge(),
            ["other", name] => {
                self.world = World {
                    workspace: Some(name.parse().unwrap_or_else(|_| self.bad("a name"))),
                    ..World::default()
                };
            }
            ["resolve", key @ .., "=", value] => {
                let key = ResolutionKey(key.join(" "));
                self.ask.resolved.insert(key, (*value).to_owned());
            }
            ["plan", options @ ..] => {
                let rest = self.options(options);
                if !rest.is_empty() {
                    self.bad::<()>("`--refresh` or `--target A,B`");
                }
                self.plan(None, None);
            }
            ["apply", options @ ..] => {
                let allow = self.options(options);
                self.plan(None, Some(allow));
            }
            ["destroy"] => self.plan(Some(Request::Destroy), Some(&[])),
            ["rollback", name, to, allow @ ..] => {
                let to = to.parse().unwrap_or_else(|_| self.bad("a release"));
                let request = self.world.rollback_to(name, to);
                self.plan(Some(request), Some(allow));
            }
            ["recorded"] => self.recorded(),
            ["expect", expected @ ..] => self.expect(expected),
            _ => self.bad("a command"),
        }
    }

    /// Takes in what is planned, and in which way; what is left is for `apply`.
    fn options<'w>(&mut self, mut words: &'w [&'w str]) -> &'w [&'w str] {
        self.ask.refresh = Refresh::Nothing;
        self.ask.targets.clear();
        loop {
            words = match words {
                ["--refresh", rest @ ..] => {
                    self.ask.refresh = Refresh::All;
                    rest
                }
                ["--target", names, rest @ ..] => {
                    self.ask.targets = names.split(',').map(super::owner).collect();
                    rest
                }
                rest => return rest,
            };
        }
    }

    /// Plans, shows it, and records it if `allow` is given and is enough.
    fn plan(&mut self, request: Option<Request>, allow: Option<&[&str]>) {
        let request = match request {
            Some(request) => request,
            None => match self.world.try_blueprint() {
                Ok(blueprint) => Request::Apply {
                    sources: self.world.read(&blueprint),
                    blueprint,
                    ask: self.ask.clone(),
                },
                Err(problems) => {
                    let _ = writeln!(self.out, "{}", problems.trim_end());
                    let problems = vec![crate::Problem {
                        message: problems,
                        origin: None,
                        hint: None,
                    }];
                    self.newest = Some(Err(PlanError { problems }));
                    return;
                }
            },
        };
        let planned = match self.world.try_plan(&request) {
            Ok(planned) => planned,
            Err(error) => {
                for problem in &error.problems {
                    let origin = problem.origin.as_ref();
                    let at = origin.map_or_else(String::new, |o| format!("{o}: "));
                    let _ = writeln!(self.out, "! {at}{}", problem.message);
                    if let Some(hint) = &problem.hint {
                        let _ = writeln!(self.out, "    {hint}");
                    }
                }
                self.newest = Some(Err(error));
                return;
            }
        };
        show(&mut self.out, &planned.plan);
        for change in &planned.plan.changes {
            let hidden = change.attributes.iter().any(|a| a.sensitive);
            let seen = (change.action, change.address.kind, hidden);
            self.seen.insert(seen);
        }
        if let Some(words) = allow {
            let allowed: Vec<&str> = match words {
                [] => Vec::new(),
                ["--allow", names] => names.split(',').collect(),
                _ => self.bad("`--allow A,B`"),
            };
            let refused: Vec<&str> = planned
                .plan
                .consents
                .iter()
                .map(|c| c.allow.as_str())
                .filter(|name| !allowed.contains(name))
                .collect();
            let obstacles: Vec<String> = planned.plan.obstacles().collect();
            if planned.plan.is_empty() {
                let _ = writeln!(self.out, "nothing is recorded");
            } else if let Some(first) = obstacles.first() {
                let more = obstacles.len() - 1;
                let _ = writeln!(self.out, "refused: {first} (and {more} more)");
            } else if refused.is_empty() {
                self.world.carry_out(&request);
                let revision = self.world.recorded.state.revision;
                let _ = writeln!(self.out, "recorded: revision {revision}");
            } else {
                let _ = writeln!(self.out, "refused without --allow {}", refused.join(","));
            }
        }
        self.newest = Some(Ok(planned.plan));
    }

    fn recorded(&mut self) {
        let state = &self.world.recorded.state;
        for (name, owner) in &state.owners {
            let _ = writeln!(self.out, "  {name} at release {}", owner.release);
        }
        let never = ReleaseNumber(0);
        for (name, last) in &state.last_release {
            if !state.owners.contains_key(name) && *last != never {
                let _ = writeln!(self.out, "  {name} is gone, its last release was {last}");
            }
        }
        for (name, machine) in &state.machines {
            let leaving = if machine.leaving { ", leaving" } else { "" };
            let generation = machine.generation;
            let _ = writeln!(
                self.out,
                "  machine {name} at generation {generation}{leaving}"
            );
            for (address, since) in &machine.tombstones {
                let _ = writeln!(self.out, "    tombstone {address} since {since}");
            }
        }
    }

    fn expect(&mut self, expected: &[&str]) {
        let here = format!("{}:{}", self.name, self.line);
        if let [which @ ("same" | "other"), "port", at] = expected {
            let now = self.world.port(at);
            let before = self.ports.insert((*at).to_owned(), now);
            let same = before.is_none_or(|before| before == now);
            let first = before.is_none();
            assert!(
                first || same == (*which == "same"),
                "{here}: {before:?} → {now}"
            );
            return;
        }
        let newest = self
            .newest
            .as_ref()
            .unwrap_or_else(|| panic!("{here}: no plan yet"));
        if let ["error", text @ ..] = expected {
            let text = text.join(" ");
            let found = match newest {
                Ok(_) => false,
                Err(error) => error.problems.iter().any(|p| p.message.contains(&text)),
            };
            assert!(found, "{here}: {newest:#?}");
            return;
        }
        let plan = newest
            .as_ref()
            .unwrap_or_else(|error| panic!("{here}: {error}"));
        let change = |at: &str| plan.changes.iter().find(|c| c.address.to_string() == *at);
        let holds = match expected {
            ["empty"] => plan.is_empty(),
            ["consent", name] => plan.consents.iter().any(|c| c.allow == *name),
            ["no", "consent"] => plan.consents.is_empty(),
            ["change", at] => change(at).is_some(),
            ["no", "change", at] => change(at).is_none(),
            ["downtime", at] => change(at).is_some_and(|c| c.downtime.is_some()),
            ["unresolved", text @ ..] => plan
                .resolutions
                .iter()
                .any(|(key, r)| r.resolved.is_none() && key.0 == text.join(" ")),
            ["lack", text @ ..] => {
                let text = text.join(" ");
                plan.obstacles().any(|obstacle| obstacle.contains(&text))
            }
            ["data", "loss", at] => plan
                .owners
                .iter()
                .any(|o| o.data_loss.iter().any(|a| a.to_string() == *at)),
            ["no", "data", "loss"] => plan.owners.iter().all(|o| o.data_loss.is_empty()),
            [action, at] if mark_of(action).is_some() => {
                change(at).is_some_and(|c| Some(mark(c.action)) == mark_of(action))
            }
            ["no", "downtime"] => plan.changes.iter().all(|c| c.downtime.is_none()),
            _ => self.bad("something to expect"),
        };
        assert!(holds, "{here}: {plan:#?}");
    }
}

fn mark(action: ChangeAction) -> &'static str {
    match action {
        ChangeAction::Create => "+",
        ChangeAction::Update => "~",
        ChangeAction::ReplaceCreateFirst => "+/-",
        ChangeAction::ReplaceDeleteFirst => "-/+",
        ChangeAction::Delete => "-",
        ChangeAction::Forget => "forget",
        ChangeAction::Adopt => "adopt",
        ChangeAction::NoOp => "=",
    }
}

/// The mark of an action by its word.
fn mark_of(word: &str) -> Option<&'static str> {
    Some(match word {
        "create" => mark(ChangeAction::Create),
        "update" => mark(ChangeAction::Update),
        "create-first" => mark(ChangeAction::ReplaceCreateFirst),
        "delete-first" => mark(ChangeAction::ReplaceDeleteFirst),
        "delete" => mark(ChangeAction::Delete),
        "forget" => mark(ChangeAction::Forget),
        "adopt" => mark(ChangeAction::Adopt),
        _ => return None,
    })
}

/// A plan in few lines. Hashes are left out, so that only what a plan says makes a difference.
fn show(out: &mut String, plan: &Plan) {
    let mut line = |text: String| {
        let _ = writeln!(out, "  {text}");
    };
    if plan.is_empty() {
        line(format!("nothing to do, {} as they are", plan.unchanged));
    }
    for change in &plan.machines {
        line(format!(
            "{} machine {}",
            mark(change.action),
            change.machine
        ));
    }
    for change in &plan.owners {
        let from = change
            .from
            .map_or_else(String::new, |from| format!("{from} → "));
        let felt = serde_json::to_value(change.felt).unwrap_or_default();
        let felt = felt.as_str().unwrap_or_default().to_owned();
        line(format!(
            "{} {}{}: release {from}{}, {felt}",
            mark(change.action),
            change.owner,
            change
                .renamed_from
                .as_ref()
                .map_or_else(String::new, |old| format!(" (was {old})")),
            change.to
        ));
        for address in &change.data_loss {
            line(format!("    data loss: {address}"));
        }
    }
    for change in &plan.changes {
        show_change(change, &mut line);
    }
    for (key, resolution) in &plan.resolutions {
        let path = key.0.starts_with("path ");
        match (&resolution.resolved, &resolution.before) {
            _ if path => {}
            (None, _) => line(format!("{key}: nobody knows")),
            (Some(now), Some(before)) => line(format!("{key}: {before} → {now}")),
            (Some(now), None) => line(format!("{key}: {now}")),
        }
    }
    if !plan.targets.is_empty() {
        let names: Vec<&str> = plan.targets.iter().map(|t| t.as_str()).collect();
        line(format!("only [{}]", names.join(" ")));
    }
    for (first, second) in &plan.order {
        line(format!("order: {first} < {second}"));
    }
    let radius = &plan.blast_radius;
    let machines: Vec<&str> = radius.machines.iter().map(|m| m.as_str()).collect();
    if !plan.is_empty() {
        line(format!(
            "touches [{}]: {} restarted, {} replaced, {} deleted",
            machines.join(" "),
            radius.restarts,
            radius.replacements,
            radius.deletes
        ));
        let (before, after) = (
            &plan.monthly_cost.before_cents,
            &plan.monthly_cost.after_cents,
        );
        if before != after {
            line(format!(
                "costs a month, in hundredths: {before:?} → {after:?}"
            ));
        }
    }
    for note in &plan.drift {
        line(format!("drift: {}: {}", note.address, note.message));
    }
    for note in &plan.not_done {
        line(format!("not done: {}: {}", note.subject, note.reason));
    }
    for lack in plan.lacks.iter().filter(|lack| !lack.unchanged) {
        line(format!(
            "lacks: {} asks for {}: {}; {}",
            lack.address, lack.asks_for, lack.why, lack.remedy
        ));
    }
    for consent in &plan.consents {
        line(format!(
            "needs --allow {}: {}",
            consent.allow, consent.reason
        ));
    }
}

fn show_change(change: &Change, line: &mut impl FnMut(String)) {
    let origin = change.origin.as_ref();
    let at = origin.map_or_else(String::new, |o| format!(" ({o})"));
    line(format!(
        "{} {}: {}{at}",
        mark(change.action),
        change.address,
        change.reasons.join(", ")
    ));
    let whole = matches!(change.action, ChangeAction::Create | ChangeAction::Delete);
    // Of what comes or goes whole, only what cannot be read off the blueprint is told.
    let told = |a: &&AttributeChange| !whole || a.sensitive || a.unknown;
    for attribute in change.attributes.iter().filter(told) {
        let path = &attribute.path;
        if attribute.unknown {
            line(format!("    {path}: unknown"));
            continue;
        }
        if attribute.sensitive {
            let what = match (&attribute.before, &attribute.after) {
                (None, _) => "new",
                (_, None) => "removed",
                _ => "changed",
            };
            line(format!("    {path}: (secret, {what})"));
            continue;
        }
        let value = |v: &Option<Value>| {
            v.as_ref().map_or_else(
                || "none".to_owned(),
                |v| match v.as_str() {
                    // A digest says nothing to whoever reads a story.
                    Some(text) if text.len() == 64 => "a digest".to_owned(),
                    _ => v.to_string(),
                },
            )
        };
        let cost = serde_json::to_value(attribute.cost).unwrap_or_default();
        line(format!(
            "    {}: {} → {} ({})",
            attribute.path,
            value(&attribute.before),
            value(&attribute.after),
            cost.as_str().unwrap_or_default()
        ));
    }
    if let Some(downtime) = &change.downtime {
        line(format!("    downtime: {downtime}"));
    }
}
