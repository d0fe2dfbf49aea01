//! Planning here, with the planner that the control plane runs, against a snapshot or against another commit: no server
//! is asked. Such a plan can be read, and not applied.

use std::io::Read as _;
use std::path::Path;

use plumb_model::Lineage;
use plumb_model::state::{Commit, Recorded};
use plumb_planner::snapshot::{MAX_BYTES, Snapshot};
use plumb_planner::{Input, PlanError, Planned, Request};

use crate::error::CliError;

/// Reads a snapshot.
pub fn snapshot(path: &Path) -> Result<Snapshot, CliError> {
    let mut file = crate::regular::open(path).map_err(CliError::file("open", path))?;
    let size = file
        .metadata()
        .map_err(CliError::file("look at", path))?
        .len();
    if size > MAX_BYTES {
        return Err(CliError::Other(format!(
            "{} has {size} bytes, and no snapshot has more than {MAX_BYTES}",
            path.display()
        )));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    file.read_to_end(&mut bytes)
        .map_err(CliError::file("read", path))?;
    Snapshot::parse(&bytes).map_err(|e| CliError::Other(format!("{}: {e}", path.display())))
}

/// Plans a request against a snapshot.
///
/// # Errors
/// Every problem that only planning finds.
pub fn plan(
    request: &Request,
    snapshot: &Snapshot,
    commit: Option<&Commit>,
) -> Result<Planned, PlanError> {
    // Of one that was put together here nobody knows whose history it is: nothing in a plan shows it.
    let nobody = Lineage::from_random([0; 16]);
    let workspace = match (&snapshot.head, request) {
        (Some(head), _) => head.workspace.clone(),
        (None, Request::Apply { blueprint, .. }) => blueprint.workspace.name.clone(),
        (None, _) => plumb_model::WorkspaceName::new("main").expect("`main` is a name"),
    };
    plumb_planner::plan(Input {
        request,
        recorded: &snapshot.recorded,
        lineage: snapshot.head.as_ref().map_or(&nobody, |head| &head.lineage),
        workspace: &workspace,
        observed: &snapshot.observed,
        secrets: &snapshot.secrets,
        commit,
    })
}

/// What would be recorded if a request were applied where nothing is.
pub fn recorded(request: &Request, commit: Option<&Commit>) -> Result<Recorded, PlanError> {
    let nothing = Snapshot::default();
    let planned = plan(request, &nothing, commit)?;
    Ok(nothing
        .recorded
        .after(&planned.next)
        .expect("the plan was made against exactly this"))
}
