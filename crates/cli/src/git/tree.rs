//! What a git commit holds, read as blobs: nothing is checked out, so no filter, hook or attribute of the repository
//! has a say, and the working tree stays as it is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use plumb_model::state::Commit;

use super::command;

/// A tree with more files is refused: a bound against a repository that is none of blueprints.
const MAX_FILES: usize = 200_000;

/// So many bytes are written out of one commit at most.
const MAX_BYTES: u64 = 1 << 30;

/// Why a commit cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The `git` command is missing or cannot be started.
    #[error("cannot run git: {0}; install it, for example with `apt-get install git`")]
    Git(std::io::Error),
    /// The folder is in no git repository.
    #[error("{path} is in no git repository, so there are no commits to compare", path = .0.display())]
    NoRepository(PathBuf),
    /// There is no such commit.
    #[error("there is no commit {0:?} in this repository; `git log --oneline --all` lists them")]
    NoCommit(String),
    /// git said something that it should not.
    #[error("git {doing} failed for commit {commit}: {why}")]
    Failed {
        /// What was tried.
        doing: &'static str,
        /// Of which commit.
        commit: String,
        /// What git said.
        why: String,
    },
    /// The commit holds too much.
    #[error("commit {0} holds more than {1}; give the folder of the blueprints within it")]
    TooLarge(String, &'static str),
    /// A file cannot be written to the temporary folder.
    #[error("cannot write {path}", path = .path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    File,
    Executable,
    Link,
}

#[derive(Debug)]
struct Entry {
    mode: Mode,
    object: String,
}

/// The files of one commit beneath one folder, of which those that are asked for are written out.
#[derive(Debug)]
pub struct Tree {
    repository: PathBuf,
    /// The commit.
    pub commit: Commit,
    /// Path relative to the folder → what it is.
    entries: BTreeMap<String, Entry>,
    written: u64,
}

impl Tree {
    /// Lists what a commit holds beneath a folder.
    ///
    /// # Errors
    /// There is no repository or no such commit, or git fails.
    pub fn open(folder: &Path, name: &str) -> Result<Self, TreeError> {
        let prefix = said(folder, &["rev-parse", "--show-prefix"])?
            .ok_or_else(|| TreeError::NoRepository(folder.to_owned()))?;
        let prefix = prefix.trim_end_matches('\n').to_owned();
        let wanted = format!("{name}^{{commit}}");
        let id = said(
            folder,
            &[
                "rev-parse",
                "--verify",
                "--quiet",
                "--end-of-options",
                &wanted,
            ],
        )?
        .ok_or_else(|| TreeError::NoCommit(name.to_owned()))?;
        let id = id.trim().to_owned();
        let about = said(
            folder,
            &[
                "log",
                "-1",
                "--no-show-signature",
                "--format=%an <%ae>%x00%s",
                "--end-of-options",
                &id,
            ],
        )?
        .unwrap_or_default();
        let (author, subject) = about.trim_end().split_once('\0').unwrap_or_default();
        let mut tree = Self {
            repository: folder.to_owned(),
            commit: Commit {
                id,
                author: author.to_owned(),
                subject: subject.to_owned(),
                dirty: false,
            },
            entries: BTreeMap::new(),
            written: 0,
        };
        tree.list(&prefix)?;
        Ok(tree)
    }

    fn failed(&self, doing: &'static str, why: impl ToString) -> TreeError {
        TreeError::Failed {
            doing,
            commit: self.short(),
            why: why.to_string(),
        }
    }

    /// The first digits of the commit's id.
    pub fn short(&self) -> String {
        self.commit.id.chars().take(12).collect()
    }

    fn list(&mut self, prefix: &str) -> Result<(), TreeError> {
        let spec = format!("{}:{prefix}", self.commit.id);
        let output = command(
            &self.repository,
            &["ls-tree", "-r", "-z", "--full-tree", &spec],
        )
        .output()
        .map_err(TreeError::Git)?;
        if !output.status.success() {
            // The folder is not in this commit: there is nothing in it.
            return Ok(());
        }
        for line in output.stdout.split(|b| *b == 0).filter(|l| !l.is_empty()) {
            let line = String::from_utf8_lossy(line);
            let Some((about, path)) = line.split_once('\t') else {
                return Err(self.failed("ls-tree", "a line has no path"));
            };
            let mut words = about.split(' ');
            let (mode, object) = (words.next(), words.nth(1));
            let mode = match mode {
                Some("100644" | "100664") => Mode::File,
                Some("100755") => Mode::Executable,
                Some("120000") => Mode::Link,
                // A submodule is another repository, and none of its files are here.
                _ => continue,
            };
            // git refuses such paths itself; they are not believed to be impossible.
            let safe = path
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".." | ".git"));
            if !safe {
                continue;
            }
            if self.entries.len() == MAX_FILES {
                return Err(TreeError::TooLarge(self.short(), "200,000 files"));
            }
            let object = object.unwrap_or_default().to_owned();
            self.entries.insert(path.to_owned(), Entry { mode, object });
        }
        Ok(())
    }

    /// Whether a path is a file of it.
    pub fn holds(&self, path: &str) -> bool {
        self.entries.contains_key(path)
    }

    /// Writes those of its files to a folder that are wanted and not there yet.
    ///
    /// # Errors
    /// git fails, the files are too large together, or the disk is full.
    pub fn write(&mut self, to: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), TreeError> {
        let chosen: Vec<(&String, &Entry)> = self
            .entries
            .iter()
            .filter(|(path, _)| wanted(path))
            .collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let mut child = command(&self.repository, &["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(TreeError::Git)?;
        let copied = self.copy(&mut child, &chosen, to);
        if copied.is_err() {
            let _ = child.kill();
        }
        let _ = child.wait();
        self.written = copied?;
        Ok(())
    }

    fn copy(
        &self,
        child: &mut Child,
        chosen: &[(&String, &Entry)],
        to: &Path,
    ) -> Result<u64, TreeError> {
        let (Some(mut ask), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(self.failed("cat-file", "it has no pipes"));
        };
        let mut answers = BufReader::new(answers);
        let mut written = self.written;
        for (path, entry) in chosen {
            // One question at a time: neither side ever waits for a full pipe.
            writeln!(ask, "{}", entry.object).map_err(|e| self.failed("cat-file", e))?;
            let mut head = String::new();
            answers
                .read_line(&mut head)
                .map_err(|e| self.failed("cat-file", e))?;
            let size: u64 = head
                .trim_end()
                .strip_prefix(&format!("{} blob ", entry.object))
                .and_then(|size| size.parse().ok())
                .ok_or_else(|| self.failed("cat-file", format!("{path} is no blob")))?;
            written = written.saturating_add(size);
            if written > MAX_BYTES {
                return Err(TreeError::TooLarge(self.short(), "1 GiB of files"));
            }
            let target = to.join(path);
            put(&mut answers, size, entry.mode, &target).map_err(|source| TreeError::Write {
                path: target,
                source,
            })?;
            let mut end = [0];
            answers
                .read_exact(&mut end)
                .map_err(|e| self.failed("cat-file", e))?;
        }
        Ok(written)
    }
}

/// Writes one blob, or passes over it if it is there already.
fn put(from: &mut impl Read, size: u64, mode: Mode, target: &Path) -> std::io::Result<()> {
    let mut blob = from.take(size);
    if fs::symlink_metadata(target).is_ok() {
        std::io::copy(&mut blob, &mut std::io::sink())?;
        return Ok(());
    }
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    if mode == Mode::Link {
        let mut to = String::new();
        blob.read_to_string(&mut to)?;
        return symlink(to, target);
    }
    let bits = if mode == Mode::Executable {
        0o755
    } else {
        0o644
    };
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(bits)
        .open(target)?;
    std::io::copy(&mut blob, &mut file).map(|_| ())
}

/// What git answers; none where it fails.
fn said(folder: &Path, arguments: &[&str]) -> Result<Option<String>, TreeError> {
    let output = command(folder, arguments)
        .output()
        .map_err(TreeError::Git)?;
    Ok(output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
