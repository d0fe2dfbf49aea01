//! Contexts: files that say how a control plane is reached. They hold a token, so their mode is 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use plumb_model::{Secret, WorkspaceName};
use plumb_wire::plan_file::PlanKey;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// How a control plane is reached.
#[derive(Debug, Clone)]
pub struct Context {
    /// `HOST:PORT`.
    pub address: String,
    /// Its CA.
    pub ca_pem: String,
    /// The token.
    pub token: Secret,
    /// Its workspace.
    pub workspace: WorkspaceName,
    /// The key that signs its plan files; none in a file of a version that signed nothing.
    pub plan_key: Option<PlanKey>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    address: String,
    workspace: WorkspaceName,
    ca_pem: String,
    token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan_key: Option<PlanKey>,
}

/// The folder of an XDG base directory, with its fallback beneath HOME.
pub fn base(
    variable: &str,
    fallback: &str,
    what: &'static str,
    flag: &'static str,
) -> Result<PathBuf, CliError> {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    if let Some(folder) = std::env::var_os(variable).and_then(absolute) {
        return Ok(folder.join("plumb"));
    }
    let home = std::env::var_os("HOME")
        .and_then(absolute)
        .ok_or(CliError::NoHome(what, flag))?;
    Ok(home.join(fallback).join("plumb"))
}

fn folder() -> Result<PathBuf, CliError> {
    Ok(base("XDG_CONFIG_HOME", ".config", "context files", "--context")?.join("contexts"))
}

impl Context {
    /// Finds the chosen context, or the current one.
    pub fn find(chosen: Option<&str>) -> Result<Self, CliError> {
        let Some(name) = chosen.filter(|c| !c.is_empty()) else {
            let path = folder()?.join("current");
            return match fs::read_to_string(&path) {
                Ok(name) => Self::read(&folder()?.join(format!("{}.json", name.trim()))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(CliError::NoContext),
                Err(e) => Err(CliError::file("read", path)(e)),
            };
        };
        if name.contains('/') || Path::new(name).extension().is_some() {
            return Self::read(Path::new(name));
        }
        let folder = folder()?;
        let path = folder.join(format!("{name}.json"));
        if !path.exists() {
            let known: Vec<String> = fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|e| {
                    e.file_name()
                        .into_string()
                        .ok()?
                        .strip_suffix(".json")
                        .map(str::to_owned)
                })
                .collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(CliError::UnknownContext {
                name: name.to_owned(),
                path,
                known,
            });
        }
        Self::read(&path)
    }

    fn read(path: &Path) -> Result<Self, CliError> {
        let bytes = fs::read(path).map_err(|e| CliError::BadContext {
            path: path.to_owned(),
            why: e.to_string(),
        })?;
        // The message of a JSON error names line and column, and never the text, which may hold the token.
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|e| CliError::BadContext {
            path: path.to_owned(),
            why: format!("line {}, column {}", e.line(), e.column()),
        })?;
        Ok(Self {
            address: stored.address,
            ca_pem: stored.ca_pem,
            token: Secret::new(stored.token),
            workspace: stored.workspace,
            plan_key: stored.plan_key,
        })
    }

    /// Writes the context and makes it the current one. `name` may be a path, which is then no current one.
    pub fn write(&self, name: Option<&str>) -> Result<PathBuf, CliError> {
        let name = name
            .filter(|n| !n.is_empty())
            .unwrap_or(self.workspace.as_str());
        let is_path = name.contains('/') || Path::new(name).extension().is_some();
        let path = if is_path {
            PathBuf::from(name)
        } else {
            folder()?.join(format!("{name}.json"))
        };
        let stored = Stored {
            format: 1,
            address: self.address.clone(),
            workspace: self.workspace.clone(),
            ca_pem: self.ca_pem.clone(),
            token: self.token.expose().to_owned(),
            plan_key: self.plan_key,
        };
        let bytes = serde_json::to_vec_pretty(&stored).expect("a context is always JSON");
        private_write(&path, &bytes)?;
        if !is_path {
            private_write(&folder()?.join("current"), name.as_bytes())?;
        }
        Ok(path)
    }
}

fn private_write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(CliError::file("make the folder", folder))?;
    }
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        fs::rename(&beside, path)
    };
    write().map_err(CliError::file("write the context file", path))
}
