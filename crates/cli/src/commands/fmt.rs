//! `plumb fmt`.
//!
//! A file is replaced in one step, with its mode, and only when formatting has changed it. What cannot be read is told
//! of and left alone; the other files are formatted all the same.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use plumb_blueprint::{FormatError, MAX_FILE_BYTES, SourceFile, blinded, format};
use plumb_model::escape;
use serde_json::json;
use similar::{ChangeTag, DiffableStr as _, TextDiff};

use crate::args::{FmtArgs, Output};
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::repository;

/// So many files are formatted at most in one run: a bound against pointing it at a whole disk.
const MAX_FILES: usize = 20_000;

/// Formats blueprint files, or shows what would change.
pub fn run(args: &FmtArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    if args.paths.iter().any(|path| path == Path::new("-")) {
        return standard_input(args, env);
    }
    let mut files = Vec::new();
    for path in &args.paths {
        let metadata = fs::metadata(path).map_err(CliError::file("open", path))?;
        if metadata.is_dir() {
            walk(path, &mut files)?;
        } else {
            no_link(path)?;
            files.push(path.clone());
        }
    }
    let mut changed = Vec::new();
    let mut refused = false;
    for path in &files {
        let source = read(path)?;
        match format(&source) {
            Ok(text) if text.as_bytes() == source.text => {}
            Ok(text) => {
                if args.check {
                    show_difference(&source, &text, env);
                } else {
                    replace(path, &text)?;
                }
                changed.push(source.path);
            }
            Err(error) => {
                refused = true;
                refuse(&source, &error, env);
            }
        }
    }
    if env.output == Output::Json {
        out::json(&json!({ "format": 1, "changed": changed, "files": files.len() }));
    } else if !args.check {
        changed
            .iter()
            .for_each(|path| out::line(&escape::line(path)));
    }
    let failed = refused || (args.check && !changed.is_empty());
    Ok(if failed { Exit::Failed } else { Exit::Fine })
}

/// Refuses a symbolic link: no command follows one to a blueprint, and what it names may belong to somebody else.
fn no_link(path: &Path) -> Result<(), CliError> {
    let link = fs::symlink_metadata(path).map_err(CliError::file("look at", path))?;
    if !link.is_symlink() {
        return Ok(());
    }
    let target = fs::canonicalize(path).map_err(CliError::file("open", path))?;
    Err(CliError::Other(format!(
        "{} is a symbolic link, which is not followed: blueprints are regular files; format {} itself, if it is yours",
        path.display(),
        target.display()
    )))
}

/// For editors: standard input, formatted, to standard output.
fn standard_input(args: &FmtArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    if args.paths.len() > 1 {
        return Err(CliError::Other(
            "`-` is standard input, and stands alone".to_owned(),
        ));
    }
    let mut source = SourceFile {
        path: "(standard input)".to_owned(),
        text: Vec::new(),
    };
    std::io::stdin()
        .lock()
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut source.text)
        .map_err(CliError::file("read", "standard input"))?;
    match format(&source) {
        Ok(text) if args.check => {
            let same = text.as_bytes() == source.text;
            if !same {
                show_difference(&source, &text, env);
            }
            Ok(if same { Exit::Fine } else { Exit::Failed })
        }
        Ok(text) => {
            out::print(&text);
            Ok(Exit::Fine)
        }
        Err(error) => {
            refuse(&source, &error, env);
            Ok(Exit::Failed)
        }
    }
}

/// The blueprint files beneath a folder: YAML with a top-level `kind`. Hidden files and folders are passed over.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> = fs::read_dir(&folder)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(CliError::file("list", &folder))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let kind = entry
                .file_type()
                .map_err(CliError::file("look at", &path))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file()
                && repository::is_yaml(&name)
                && repository::read_blueprint(&path)
                    .map_err(CliError::file("read", &path))?
                    .is_some()
            {
                if files.len() >= MAX_FILES {
                    return Err(CliError::Other(format!(
                        "these folders hold more than {MAX_FILES} blueprint files; give the folder of one repository"
                    )));
                }
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(())
}

fn read(path: &Path) -> Result<SourceFile, CliError> {
    // One byte more than a blueprint may have, so that a larger file is refused and not taken for its beginning.
    let limit = MAX_FILE_BYTES as u64 + 1;
    let mut text = Vec::new();
    crate::regular::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut text))
        .map_err(CliError::file("read", path))?;
    Ok(SourceFile {
        path: path
            .strip_prefix(".")
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned(),
        text,
    })
}

fn refuse(source: &SourceFile, error: &FormatError, env: &Env<'_>) {
    if let FormatError::Unreadable(problems) = error {
        let files = std::slice::from_ref(source);
        out::note(&plumb_blueprint::render(problems, files, env.style.color));
    }
    out::complain(&format!("{} is not formatted: {error}", source.path));
}

/// A unified diff, safe for a terminal and without the credentials that stand in the file. What differs is found out
/// before they are covered, so that no change is lost.
fn show_difference(source: &SourceFile, formatted: &str, env: &Env<'_>) {
    if env.output == Output::Json {
        return;
    }
    let before = String::from_utf8_lossy(&source.text);
    let difference = TextDiff::from_lines(before.as_ref(), formatted);
    let formatted = SourceFile {
        path: source.path.clone(),
        text: formatted.as_bytes().to_vec(),
    };
    let (old, new) = (blinded(source), blinded(&formatted));
    let (old, new) = (old.tokenize_lines(), new.tokenize_lines());
    let show = |line: &str, tag: ChangeTag| {
        let line = escape::line(line.trim_end_matches(['\n', '\r']));
        out::line(&match tag {
            ChangeTag::Insert => env.style.good(&line),
            ChangeTag::Delete => env.style.bad(&line),
            ChangeTag::Equal => line.into_owned(),
        });
    };
    show(&format!("--- {}", source.path), ChangeTag::Delete);
    show(
        &format!("+++ {} (formatted)", source.path),
        ChangeTag::Insert,
    );
    for hunk in difference.unified_diff().iter_hunks() {
        show(&hunk.header().to_string(), ChangeTag::Equal);
        for change in hunk.iter_changes() {
            let line = match (change.old_index(), change.new_index()) {
                (_, Some(at)) => new.get(at),
                (Some(at), None) => old.get(at),
                (None, None) => None,
            };
            let text = line.copied().unwrap_or_default();
            show(&format!("{}{text}", change.tag()), change.tag());
            if change.missing_newline() {
                show("\\ No newline at end of file", ChangeTag::Equal);
            }
        }
    }
}

/// Writes a file beside, makes it durable, and renames it over: whoever reads sees the old text or the new one. Mode and
/// owner stay.
fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let real = fs::canonicalize(path).map_err(CliError::file("open", path))?;
    let folder = real.parent().unwrap_or(Path::new("/"));
    let write = || {
        let metadata = fs::metadata(&real)?;
        let mut beside = tempfile::Builder::new()
            .prefix(".plumb-fmt-")
            .tempfile_in(folder)?;
        beside.write_all(text.as_bytes())?;
        let file = beside.as_file();
        keep_owner(file, &metadata)?;
        file.set_permissions(metadata.permissions())?;
        file.sync_all()?;
        beside.persist(&real).map_err(|e| e.error)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(CliError::file("replace", path))
}

/// Gives the new file to whom the old one belongs.
fn keep_owner(file: &File, old: &fs::Metadata) -> std::io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    fchown(file, Some(old.uid()), Some(old.gid()))
}
