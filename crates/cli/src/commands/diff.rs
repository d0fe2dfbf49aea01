//! `plumb diff`: the plan between two git commits, made here, without any server.

use plumb_model::state::Recorded;
use plumb_planner::snapshot::Snapshot;
use plumb_planner::{Ask, Observed, Request};

use crate::args::Blueprints;
use crate::commands::{Env, apply};
use crate::error::CliError;
use crate::git::{Tree, TreeError};
use crate::offline;
use crate::out::Exit;
use crate::repository::{MANIFEST, Repository};

/// What is compared: `A..B` two commits, `A` a commit with the working tree.
struct Range<'a> {
    from: &'a str,
    to: Option<&'a str>,
}

fn range(text: &str) -> Result<Range<'_>, CliError> {
    if text.contains("...") {
        return Err(CliError::Other(format!(
            "{text:?} has three dots: write A..B, and `git merge-base A B` for A if you mean where they parted"
        )));
    }
    Ok(match text.split_once("..") {
        Some((from, to)) => Range {
            from: if from.is_empty() { "HEAD" } else { from },
            to: Some(if to.is_empty() { "HEAD" } else { to }),
        },
        None => Range {
            from: text,
            to: None,
        },
    })
}

/// Shows what moving from one commit's blueprints to another's would change.
pub fn run(
    commits: &str,
    blueprints: &Blueprints,
    detailed_exitcode: bool,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let range = range(commits)?;
    let repository = repository(blueprints, &range)?;
    let before = match at_commit(&repository, range.from, env)? {
        Some((request, commit)) => offline::recorded(&request, Some(&commit)).map_err(|e| {
            apply::show_problems(&e.problems, env);
            CliError::Invalid(format!(
                "the blueprints of {} cannot be planned",
                range.from
            ))
        })?,
        // Before the manifest came there was nothing.
        None => Recorded::default(),
    };
    let snapshot = Snapshot {
        recorded: before,
        observed: Observed {
            nobody_asked: true,
            ..Observed::default()
        },
        ..Snapshot::default()
    };
    let (request, commit) = match range.to {
        Some(to) => match at_commit(&repository, to, env)? {
            Some((request, commit)) => (request, Some(commit)),
            None => (Request::Destroy, None),
        },
        None => {
            let read = repository.read(env.output, env.style)?;
            let sources = repository.sources(&read.set, env.output, env.style)?;
            (
                sources.request(read.set, Ask::default()),
                repository.commit(),
            )
        }
    };
    match offline::plan(&request, &snapshot, commit.as_ref()) {
        Ok(planned) => {
            apply::show_plan(&planned.plan, env);
            // Nobody has resolved anything for it, and nobody will apply it.
            Ok(apply::read(&planned.plan, detailed_exitcode))
        }
        Err(e) => {
            apply::show_problems(&e.problems, env);
            Ok(Exit::Failed)
        }
    }
}

/// The repository around a folder. Two commits are compared without the working tree, so one of them having a manifest there
/// will do.
fn repository(blueprints: &Blueprints, range: &Range<'_>) -> Result<Repository, CliError> {
    let (error, to) = match (Repository::find(blueprints), range.to) {
        (Err(error @ CliError::NoManifest(_)), Some(to)) => (error, to),
        (found, _) => return found,
    };
    let start = std::fs::canonicalize(&blueprints.path)
        .map_err(CliError::file("open", &blueprints.path))?;
    for root in start.ancestors() {
        for name in [to, range.from] {
            match Tree::open(root, name) {
                Ok(tree) if tree.holds(MANIFEST) => {
                    return Ok(Repository {
                        root: root.to_owned(),
                        env: blueprints.env.clone(),
                    });
                }
                Ok(_) => {}
                Err(TreeError::NoRepository(_)) => return Err(error),
                Err(other) => return Err(other.into()),
            }
        }
    }
    Err(error)
}

/// The blueprints of a commit; none if it has no manifest.
fn at_commit(
    repository: &Repository,
    name: &str,
    env: &Env<'_>,
) -> Result<Option<(Request, plumb_model::state::Commit)>, CliError> {
    let mut tree = Tree::open(&repository.root, name)?;
    if !tree.holds(MANIFEST) {
        return Ok(None);
    }
    let folder = tempfile::tempdir().map_err(|error| {
        CliError::Other(format!(
            "cannot make a folder in the temporary folder {}: {error}; free space there, or name another folder with TMPDIR",
            std::env::temp_dir().display()
        ))
    })?;
    let root = folder
        .path()
        .canonicalize()
        .map_err(CliError::file("open", folder.path()))?;
    tree.write(&root, crate::repository::is_yaml)?;
    let then = Repository {
        root: root.clone(),
        env: repository.env.clone(),
    };
    let read = then.read(env.output, env.style).map_err(|e| match e {
        CliError::Invalid(text) => {
            CliError::Invalid(format!("commit {} ({name}): {text}", tree.short()))
        }
        other => other,
    })?;
    let paths = &read.set.paths;
    let sources = |path: &str| {
        paths.iter().any(|source| {
            source == "."
                || path == source
                || path
                    .strip_prefix(source.as_str())
                    .is_some_and(|rest| rest.starts_with('/'))
        })
    };
    tree.write(&root, sources)?;
    let sources = then.sources(&read.set, env.output, env.style)?;
    Ok(Some((
        sources.request(read.set, Ask::default()),
        tree.commit,
    )))
}
