//! `plumb snapshot`.

use std::io::Write as _;
use std::path::Path;

use crate::args::Output;
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;

/// Saves what is recorded and observed, so that `plumb plan --snapshot` can plan against it without a server.
pub async fn run(file: &Path, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let bytes = remote.snapshot().await?;
    // What came is what will be read: a broken stream is noticed here and not in a month.
    let snapshot = plumb_planner::snapshot::Snapshot::parse(&bytes)
        .map_err(|e| CliError::Answer(e.to_string()))?;
    write_beside(file, &bytes).map_err(CliError::file("write", file))?;
    let state = &snapshot.recorded.state;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1, "file": file, "bytes": bytes.len(), "revision": state.revision,
            "owners": state.owners.len(), "machines": state.machines.len(),
        })),
        Output::Text => out::line(&format!(
            "Saved what is recorded of {} owner{} on {} machine{}; plan against it with `plumb plan --snapshot {}`.",
            state.owners.len(),
            if state.owners.len() == 1 { "" } else { "s" },
            state.machines.len(),
            if state.machines.len() == 1 { "" } else { "s" },
            plumb_model::escape::line(&file.display().to_string()),
        )),
    }
    Ok(Exit::Fine)
}

/// Writes a file beside its place and moves it there, so that nobody ever reads half of one.
fn write_beside(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut beside = tempfile::NamedTempFile::new_in(folder)?;
    beside.write_all(bytes)?;
    beside.as_file().sync_all()?;
    beside.persist(file).map_err(|e| e.error)?;
    Ok(())
}
