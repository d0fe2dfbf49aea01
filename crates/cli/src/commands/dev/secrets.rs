//! The secrets of `plumb dev`: a `.env` file in the repository, which belongs to nobody but whoever develops there.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::commands::secret::env_file;
use crate::context::Context;
use crate::error::CliError;
use crate::out;
use crate::secrets::Secrets;

/// The file, beneath the root of the repository.
pub const FILE: &str = ".plumb/secrets.env";

/// Sets what the file holds, if there is one. Values that are set already make no new version.
pub async fn take(root: &Path, context: &Context, text: bool) -> Result<(), CliError> {
    let path = root.join(FILE);
    if !path.exists() {
        return Ok(());
    }
    let all = env_file::read(&path)?;
    let mut secrets = Secrets::connect(context).await?;
    let mut fresh = Vec::new();
    for (name, value) in &all {
        if !secrets.set(name, value, false).await?.unchanged {
            fresh.push(name.as_str());
        }
    }
    if text && !fresh.is_empty() {
        out::line(&format!("Secrets from {FILE}: {}", fresh.join(", ")));
        if may_be_committed(root) {
            out::note(&format!(
                "{FILE} is not ignored by git: add the line `/{FILE}` to .gitignore, so that it is never committed."
            ));
        }
    }
    Ok(())
}

/// Whether git would take the file. Without git, or outside a repository, nobody commits it.
fn may_be_committed(root: &Path) -> bool {
    let asked = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["check-ignore", "--quiet", "--", FILE])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // 0: ignored. 1: not. 128: no repository.
    asked.is_ok_and(|status| status.code() == Some(1))
}
