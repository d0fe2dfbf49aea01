//! `plumb snapshot`.

use std::io::Write as _;
use std::path::Path;

use crate::args::Output;
use crate::beside::{self, Place, Sort};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;

/// Saves what is recorded and observed, so that `plumb plan --snapshot` can plan against it without a server.
pub async fn run(file: &Path, env: &Env<'_>) -> Result<Exit, CliError> {
    check_target(file)?;
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let bytes = remote.snapshot().await?;
    // What came is what will be read: a broken stream is noticed here and not in a month.
    let snapshot = plumb_planner::snapshot::Snapshot::parse(&bytes)
        .map_err(|e| CliError::Answer(e.to_string()))?;
    // Something may have come there while the control plane was asked.
    let place = check_target(file)?;
    beside::write(file, place, |out| out.write_all(&bytes))
        .map_err(CliError::file("write", file))?;
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

/// Refuses a place where no snapshot should go, and says what is there.
fn check_target(path: &Path) -> Result<Place, CliError> {
    let sort = Sort {
        what: "the snapshot",
        name: "snapshot",
        beginning: b"plumb-snapshot ",
        no_output: "a snapshot is read again as a file, with `plumb plan --snapshot FILE`",
    };
    beside::check(path, &sort)
}
