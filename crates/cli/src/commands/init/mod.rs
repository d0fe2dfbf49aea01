//! `plumb init`: a repository to start from, which `plumb dev` can run at once.
//!
//! It never writes over anything: if one of its files is there already, nothing is written.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use plumb_model::WorkspaceName;
use serde_json::json;

use crate::args::Output;
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::repository::MANIFEST;

/// What stands for the workspace's name in the templates.
const NAME: &str = "WORKSPACE_NAME";

/// What is written, besides the schema: paths and texts.
const FILES: [(&str, &str); 6] = [
    ("plumb.yaml", include_str!("templates/plumb.yaml")),
    ("machines.yaml", include_str!("templates/machines.yaml")),
    ("apps/hello.yaml", include_str!("templates/hello.yaml")),
    ("apps/hello/server.py", include_str!("templates/server.py")),
    ("README.md", include_str!("templates/readme.md")),
    (".gitignore", include_str!("templates/gitignore")),
];

/// Where the schema goes that editors use. The blueprints' first lines name it.
const SCHEMA: &str = ".plumb/schemas/plumb.json";

/// Writes the starter repository.
pub fn run(folder: &Path, name: Option<&WorkspaceName>, env: &Env<'_>) -> Result<Exit, CliError> {
    let name = match name {
        Some(name) => name.clone(),
        None => named_after(folder)?,
    };
    let files = files(&name);
    let in_the_way: Vec<&str> = files
        .iter()
        .map(|(path, _)| *path)
        .filter(|path| fs::symlink_metadata(folder.join(path)).is_ok())
        .collect();
    if !in_the_way.is_empty() {
        return Err(CliError::Other(format!(
            "{} already holds {}; nothing was written, choose an empty folder",
            folder.display(),
            in_the_way.join(", ")
        )));
    }
    write_all(folder, &files)?;
    if let Some(outer) = within(folder) {
        out::note(&format!(
            "{} is a blueprint repository too, and passes over this one: a folder with a manifest of its own is a repository of its own.",
            plumb_model::escape::line(&outer.to_string_lossy())
        ));
    }
    if env.output == Output::Json {
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        out::json(&json!({ "format": 1, "workspace": name, "files": paths }));
        return Ok(Exit::Fine);
    }
    // As it can be pasted into a shell.
    let shown = plumb_model::escape::line(&folder.to_string_lossy()).into_owned();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@%:,=~".contains(c);
    let shown = if shown.chars().all(plain) {
        shown
    } else {
        format!("'{}'", shown.replace('\'', r"'\''"))
    };
    let mut text = format!("Workspace {name} in {shown}:\n");
    for (path, _) in &files {
        text.push_str(&format!("  {path}\n"));
    }
    let place = if shown == "." {
        String::new()
    } else {
        format!(" {shown}")
    };
    text.push_str(&format!(
        "\nNext:\n  plumb dev{place}         run it on this machine\n  plumb validate{place}    check it\n"
    ));
    out::print(&text);
    Ok(Exit::Fine)
}

/// The repository around a folder, if there is one.
fn within(folder: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(folder).ok()?;
    let mut above = real.ancestors().skip(1);
    above
        .find(|outer| outer.join(MANIFEST).is_file())
        .map(Path::to_owned)
}

/// All files with their texts.
fn files(name: &WorkspaceName) -> Vec<(&'static str, String)> {
    let schema = serde_json::to_string_pretty(&plumb_blueprint::schema_of_any())
        .expect("a schema is always JSON");
    let mut files: Vec<_> = FILES
        .iter()
        .map(|(path, text)| (*path, text.replace(NAME, name.as_str())))
        .collect();
    files.push((SCHEMA, schema + "\n"));
    files
}

/// A name out of the folder's.
fn named_after(folder: &Path) -> Result<WorkspaceName, CliError> {
    let real = match fs::canonicalize(folder) {
        Ok(real) => real,
        // It is yet to be made.
        Err(_) => folder.to_owned(),
    };
    let own = real.file_name().unwrap_or_default().to_string_lossy();
    // What is left of a name without its letters is not that name.
    if own.chars().any(|c| c.is_alphabetic() && !c.is_ascii()) {
        return Err(CliError::Other(format!(
            "no name can be made out of {own:?}, which has letters besides a to z; give one with --name"
        )));
    }
    let name: String = own
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => c,
            _ => '-',
        })
        .collect();
    let name: String = name.trim_matches('-').chars().take(63).collect();
    name.trim_end_matches('-').parse().map_err(|_| {
        CliError::Other(format!(
            "no name can be made out of {own:?}; give one with --name"
        ))
    })
}

/// Writes all files, or removes what it made: half a repository would be in the way of the next try.
fn write_all(folder: &Path, files: &[(&str, String)]) -> Result<(), CliError> {
    let mut made = Vec::new();
    let result = files
        .iter()
        .try_for_each(|(path, text)| write(&folder.join(path), text, &mut made));
    if result.is_err() {
        // Newest first, so that folders are empty by then. A folder into which somebody else put something stays.
        for path in made.iter().rev() {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
    result
}

/// Writes a file, and the folders above that are missing; notes what it made.
fn write(path: &Path, text: &str, made: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
        .collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder).map_err(CliError::file("make", folder))?;
        made.push(folder.to_owned());
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .map_err(CliError::file("write", path))?;
    made.push(path.to_owned());
    file.write_all(text.as_bytes())
        .map_err(CliError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use plumb_blueprint::{Options, SourceFile};

    #[test]
    fn the_starter_repository_is_valid_and_formatted() {
        let name: WorkspaceName = "shop".parse().unwrap();
        let files: Vec<SourceFile> = files(&name)
            .into_iter()
            .filter(|(path, _)| path.ends_with(".yaml"))
            .map(|(path, text)| SourceFile {
                path: path.to_owned(),
                text: text.into_bytes(),
            })
            .collect();
        let set = plumb_blueprint::parse(&files, &Options::default()).unwrap();
        assert!(set.warnings.is_empty(), "{}", set.warnings);
        assert_eq!(set.workspace.name, name);
        for file in files {
            let formatted = plumb_blueprint::format(&file).unwrap();
            assert_eq!(formatted.as_bytes(), file.text, "{}", file.path);
            assert!(
                formatted.starts_with("# yaml-language-server: $schema="),
                "{}",
                file.path
            );
            let up = "../".repeat(file.path.matches('/').count());
            assert!(
                formatted.contains(&format!("$schema={up}{SCHEMA}\n")),
                "{}",
                file.path
            );
        }
    }

    #[test]
    fn what_cannot_be_written_whole_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("own"), "x").unwrap();
        let file = |path| (path, "text".to_owned());
        let folder = temp.path().join("new/shop");
        // A file is no folder, so the last one cannot be written.
        let files = [file("a"), file("b/c/d"), file("a/e")];
        assert!(write_all(&folder, &files).is_err());
        let left: Vec<_> = fs::read_dir(temp.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["own"]);
        write_all(&folder, &files[..2]).unwrap();
        assert_eq!(fs::read(folder.join("b/c/d")).unwrap(), b"text");
    }

    #[test]
    fn a_workspace_is_named_after_its_folder() {
        for (folder, name) in [
            ("/srv/My Shop", Some("my-shop")),
            ("/srv/-shop_2-", Some("shop-2")),
            ("/srv/商店", None),
            ("/srv/über", None),
            ("/", None),
        ] {
            let made = named_after(Path::new(folder)).ok();
            assert_eq!(made.as_ref().map(WorkspaceName::as_str), name, "{folder}");
        }
    }
}
