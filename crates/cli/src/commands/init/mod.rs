//! `plumb init`: a repository to start from, which `plumb dev` can run at once.
//!
//! It never writes over anything: if one of its files is there already, nothing is written.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use plumb_model::WorkspaceName;
use serde_json::json;

use crate::args::Output;
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};

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
    for (path, text) in &files {
        write(&folder.join(path), text)?;
    }
    if env.output == Output::Json {
        let paths: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
        out::json(&json!({ "format": 1, "workspace": name, "files": paths }));
        return Ok(Exit::Fine);
    }
    let shown = plumb_model::escape::line(&folder.to_string_lossy()).into_owned();
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

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(CliError::file("make", folder))?;
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
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
    fn a_workspace_is_named_after_its_folder() {
        for (folder, name) in [
            ("/srv/My Shop", Some("my-shop")),
            ("/srv/-shop_2-", Some("shop-2")),
            ("/srv/商店", None),
            ("/", None),
        ] {
            let made = named_after(Path::new(folder)).ok();
            assert_eq!(made.as_ref().map(WorkspaceName::as_str), name, "{folder}");
        }
    }
}
