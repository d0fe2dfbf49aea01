//! `plumb validate`.
//!
//! A repository is always checked as a whole, since a file alone says nothing of the names in the others. Paths narrow
//! what is shown, and what the exit code is about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use plumb_blueprint::{BlueprintSet, Diagnostic, Diagnostics, Severity};
use plumb_planner::{Problem, Request};

use crate::args::{Blueprints, Output, ReportFormat, ValidateArgs};
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::count;
use crate::render::diagnostics::{self as reports, Finding, Report};
use crate::repository::{self, Parsed, Repository, Sources};

/// Checks the blueprints without a server: every problem of every file, and the problems that only planning finds.
pub fn run(args: &ValidateArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let format = args.format.unwrap_or(match env.output {
        Output::Text => ReportFormat::Text,
        Output::Json => ReportFormat::Json,
    });
    let checked = repositories(args)?
        .into_iter()
        .map(|(root, scope)| check(root, scope, args.env.as_deref()))
        .collect::<Result<Vec<_>, _>>()?;
    if format == ReportFormat::Text {
        checked.iter().for_each(|one| one.show(env));
    } else {
        let report = report(&checked, format == ReportFormat::Json);
        match format {
            ReportFormat::Sarif => out::json(&reports::sarif(&report)),
            ReportFormat::Junit => out::print(&reports::junit(&report)),
            ReportFormat::Github => out::print(&reports::github(&report)),
            ReportFormat::Gitlab => out::json(&reports::gitlab(&report)),
            ReportFormat::Json | ReportFormat::Text => out::json(&reports::json(&report)),
        }
    }
    let failed = checked.iter().any(Checked::failed);
    // As with plans: what is known of the blueprints goes with the process, all at once.
    std::mem::forget(checked);
    Ok(if failed { Exit::Failed } else { Exit::Fine })
}

/// The repositories that the paths belong to, each with what to show of it: paths relative to its root, or all.
fn repositories(args: &ValidateArgs) -> Result<BTreeMap<PathBuf, Vec<String>>, CliError> {
    let mut found: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for path in &args.paths {
        let real = std::fs::canonicalize(path).map_err(CliError::file("open", path))?;
        let folder = if real.is_dir() {
            real.as_path()
        } else {
            real.parent().unwrap_or(&real)
        };
        let repository = Repository::find(&Blueprints {
            path: folder.to_owned(),
            env: args.env.clone(),
        })
        .map_err(|error| match error {
            // As the user wrote it.
            CliError::NoManifest(_) => CliError::NoManifest(path.clone()),
            error => error,
        })?;
        let inside = real.strip_prefix(&repository.root).unwrap_or(&real);
        // Whoever works in a folder means the whole repository; whoever names one means that folder.
        let inside = if path == Path::new(".") {
            String::new()
        } else {
            inside.to_string_lossy().into_owned()
        };
        found.entry(repository.root).or_default().push(inside);
    }
    Ok(found)
}

/// One repository, checked.
struct Checked {
    root: PathBuf,
    /// What is to be shown of it.
    scope: Vec<String>,
    parsed: Parsed,
    /// The problems and warnings within the scope.
    diagnostics: Diagnostics,
    /// What only planning found, within the scope.
    problems: Vec<Problem>,
    /// How many problems are outside the scope.
    elsewhere: usize,
}

fn check(root: PathBuf, scope: Vec<String>, env: Option<&str>) -> Result<Checked, CliError> {
    let repository = Repository {
        root,
        env: env.map(str::to_owned),
    };
    let mut parsed = repository.parse()?;
    let (result, problems) = match parsed.result {
        Ok(set) => match repository.try_sources(&set)? {
            Ok(sources) => {
                let (set, problems) = planning(set, sources);
                (Ok(set), problems)
            }
            Err(mut diagnostics) => {
                diagnostics.items.extend(set.warnings.items);
                (Err(diagnostics), Vec::new())
            }
        },
        Err(diagnostics) => (Err(diagnostics), Vec::new()),
    };
    parsed.result = result;
    let mut checked = Checked {
        diagnostics: match &parsed.result {
            Ok(set) => set.warnings.clone(),
            Err(diagnostics) => diagnostics.clone(),
        },
        problems,
        root: repository.root,
        scope,
        parsed,
        elsewhere: 0,
    };
    let scope = checked.scope.clone();
    let touched = |files: &[&str]| files.iter().any(|file| within(&scope, file));
    let before = checked.diagnostics.items.len() + checked.problems.len();
    checked.diagnostics.items.retain(|d: &Diagnostic| {
        let mut files = vec![d.file.as_str()];
        files.extend(d.spans.iter().map(|span| span.file.as_str()));
        touched(&files)
    });
    checked.problems.retain(|problem| {
        touched(&[problem
            .origin
            .as_ref()
            .map_or(repository::MANIFEST, |o| &o.file)])
    });
    checked.elsewhere = before - checked.diagnostics.items.len() - checked.problems.len();
    Ok(checked)
}

/// Whether a file is one of these paths or beneath one; the empty path is the root.
fn within(scope: &[String], file: &str) -> bool {
    scope.iter().any(|path| {
        path.is_empty()
            || file
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Plans a set against an empty workspace, for the problems that show only then, and gives it back.
fn planning(set: BlueprintSet, sources: Sources) -> (BlueprintSet, Vec<Problem>) {
    let workspace = set.workspace.name.clone();
    let request = sources.request(set, plumb_planner::Ask::default());
    let checked = plumb_planner::check(plumb_planner::Input {
        request: &request,
        recorded: &plumb_model::state::Recorded::default(),
        lineage: &plumb_model::Lineage::from_random([0; 16]),
        workspace: &workspace,
        observed: &plumb_planner::Observed::default(),
        secrets: plumb_model::KnownSecrets::UNASKED,
        commit: None,
    });
    let problems = checked.err().map(|error| error.problems);
    let Request::Apply { blueprint, .. } = request else {
        unreachable!("it was to apply the set");
    };
    (blueprint, problems.unwrap_or_default())
}

impl Checked {
    /// The files that were asked for and are none that anybody would read.
    fn unread(&self) -> Vec<&str> {
        let Parsed {
            files,
            passed,
            silent,
            ..
        } = &self.parsed;
        let read = |path: &String| {
            files.iter().any(|file| file.path == *path)
                || [passed, &silent.links].iter().any(|all| all.contains(path))
        };
        let asked = self.scope.iter().filter(|path| !path.is_empty());
        asked
            .filter(|path| !read(path) && self.root.join(path).is_file())
            .map(String::as_str)
            .collect()
    }

    fn failed(&self) -> bool {
        let errors = |d: &Diagnostic| d.severity == Severity::Error;
        !self.problems.is_empty()
            || self.diagnostics.omitted > 0
            || self.diagnostics.items.iter().any(errors)
    }

    /// For people: problems to standard error, and to standard output that there are none.
    fn show(&self, env: &Env<'_>) {
        let files = &self.parsed.files;
        if !self.diagnostics.is_empty() {
            out::note(&plumb_blueprint::render(
                &self.diagnostics,
                files,
                env.style.color,
            ));
        }
        crate::commands::apply::show_problems(
            &self.problems,
            &Env {
                output: Output::Text,
                ..*env
            },
        );
        if self.elsewhere > 0 {
            out::note(&format!(
                "{} more elsewhere in {}; `plumb validate` without a path shows all",
                count(self.elsewhere, "problem"),
                plumb_model::escape::line(&self.root.to_string_lossy())
            ));
        }
        if self.diagnostics.errors() > 0 {
            return out::complain(&repository::invalid(&self.diagnostics));
        }
        if self.failed() {
            return;
        }
        match &self.parsed.result {
            Ok(set) => {
                // What nearly every workspace has is always told, the rest where there is some.
                let always = [
                    (set.machines.len(), "machine"),
                    (set.apps.len(), "app"),
                    (set.setups.len(), "Setup"),
                ];
                let some = [
                    (set.services.len(), "Service"),
                    (set.volumes.len(), "Volume"),
                    (set.networks.len(), "Network"),
                ];
                let counts = always
                    .into_iter()
                    .chain(some.into_iter().filter(|(count, _)| *count > 0))
                    .map(|(number, word)| count(number, word));
                let registries = match set.registries.len() {
                    0 => None,
                    1 => Some("1 Registry".to_owned()),
                    count => Some(format!("{count} Registries")),
                };
                out::line(&format!(
                    "{} Workspace {}: {} in {}.",
                    env.style.good("Valid."),
                    set.workspace.name,
                    counts.chain(registries).collect::<Vec<_>>().join(", "),
                    count(files.len(), "file"),
                ));
            }
            Err(_) => out::line(&format!(
                "{} Nothing is wrong here.",
                env.style.good("Valid.")
            )),
        }
        let unread = self.unread();
        if !unread.is_empty() {
            out::line(&format!(
                "Not read, since blueprints end in .yaml or .yml, are not hidden and lie in no hidden folder: {}",
                plumb_model::escape::line(&unread.join(", "))
            ));
        }
        let links = &self.parsed.silent.links;
        if !links.is_empty() {
            out::line(&format!(
                "Passed over, since symbolic links are not followed: {}",
                plumb_model::escape::line(&links.join(", "))
            ));
        }
        if !self.parsed.passed.is_empty() {
            let passed = self.parsed.passed.join(", ");
            out::line(&format!(
                "Passed over, since they have no top-level `kind`: {}",
                plumb_model::escape::line(&passed)
            ));
        }
    }
}

/// All repositories in one report. Code scanners and CI want paths relative to the checkout; everybody else, to the
/// repository, if it is one.
fn report(checked: &[Checked], by_repository: bool) -> Report {
    let base = match checked {
        [one] if by_repository => one.root.clone(),
        [first, ..] => base(first, checked),
        [] => PathBuf::new(),
    };
    let mut report = Report {
        base,
        ..Report::default()
    };
    for one in checked {
        let inside = one.root.strip_prefix(&report.base).unwrap_or(&one.root);
        let mut prefix = inside.to_string_lossy().into_owned();
        if !prefix.is_empty() {
            prefix.push('/');
        }
        let files = one.parsed.files.iter().map(|file| &file.path);
        let files = files.filter(|file| within(&one.scope, file));
        report
            .files
            .extend(files.map(|file| format!("{prefix}{file}")));
        let items = one.diagnostics.items.iter();
        report
            .findings
            .extend(items.map(|d| Finding::of(d, &prefix)));
        let problems = one.problems.iter();
        report
            .findings
            .extend(problems.map(|p| Finding::planned(p, &prefix)));
        report.omitted += one.diagnostics.omitted;
    }
    report
}

/// The checkout that holds all repositories, or the folder that does.
fn base(first: &Checked, all: &[Checked]) -> PathBuf {
    let holds_all = |folder: &&Path| all.iter().all(|one| one.root.starts_with(folder));
    let checkout = first
        .root
        .ancestors()
        .filter(holds_all)
        .find(|folder| folder.join(".git").exists());
    let common = first.root.ancestors().find(holds_all);
    checkout.or(common).unwrap_or(&first.root).to_owned()
}
