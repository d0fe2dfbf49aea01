//! The commit that a folder is at, and what commits hold, through the `git` command. Without git or a repository there
//! simply is no commit.

mod tree;

use std::path::Path;
use std::process::{Command, Stdio};

use plumb_model::state::Commit;

pub use tree::{Tree, TreeError};

/// Reads the commit, and whether the folder differs from it.
pub fn commit(folder: &Path) -> Option<Commit> {
    let log = git(
        folder,
        &[
            "log",
            "-1",
            "--no-show-signature",
            "--format=%H%x00%an <%ae>%x00%s",
        ],
    )?;
    let mut parts = log.trim_end().splitn(3, '\0');
    let (id, author, subject) = (parts.next()?, parts.next()?, parts.next()?);
    let dirty = git(
        folder,
        &[
            "status",
            "--porcelain",
            "--untracked-files=normal",
            "--",
            ".",
        ],
    )
    .is_none_or(|changes| !changes.trim().is_empty());
    Some(Commit {
        id: id.to_owned(),
        author: author.to_owned(),
        subject: subject.to_owned(),
        dirty,
    })
}

/// The git command in a folder, without anything that its repository configures.
fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(folder)
        // Nothing that the repository configures is run: no hooks, no monitor, no pager, no prompt.
        .args([
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "--no-pager",
        ])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = command(folder, arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
