//! `plumb validate`.

use crate::args::{Blueprints, Output};
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::repository::{self, Parsed, Repository};

/// Checks the blueprints without a server: every problem of every file, and the problems that only planning finds.
pub fn run(blueprints: &Blueprints, env: &Env<'_>) -> Result<Exit, CliError> {
    let repository = Repository::find(blueprints)?;
    let Parsed {
        result,
        files,
        passed,
    } = repository.parse()?;
    let set = match result {
        Ok(set) => set,
        Err(diagnostics) => {
            repository::show(&diagnostics, &files, env.output, env.style);
            if env.output == Output::Text {
                out::complain(&repository::invalid(&diagnostics));
            }
            return Ok(Exit::Failed);
        }
    };
    let sources = repository.sources(&set)?;
    if let Err(error) = offline(&set, &sources) {
        crate::commands::apply::show_problems(&error.problems, env);
        return Ok(Exit::Failed);
    }
    match env.output {
        Output::Json => out::json(&serde_json::json!({ "format": 1, "diagnostics": set.warnings })),
        Output::Text => {
            if !set.warnings.is_empty() {
                out::note(&plumb_blueprint::render(
                    &set.warnings,
                    &files,
                    env.style.color,
                ));
            }
            let (apps, setups, machines) = (set.apps.len(), set.setups.len(), set.machines.len());
            let plural =
                |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
            out::line(&format!(
                "{} Workspace {}: {}, {}, {} in {}.",
                env.style.good("Valid."),
                set.workspace.name,
                plural(machines, "machine"),
                plural(apps, "app"),
                plural(setups, "Setup"),
                plural(files.len(), "file"),
            ));
            if !passed.is_empty() {
                out::line(&format!(
                    "Passed over, since they have no top-level `kind`: {}",
                    passed.join(", ")
                ));
            }
        }
    }
    Ok(Exit::Fine)
}

/// Plans against an empty workspace, for the problems that show only then.
fn offline(
    set: &plumb_blueprint::BlueprintSet,
    sources: &repository::Sources,
) -> Result<(), plumb_planner::PlanError> {
    let request = plumb_planner::Request::Apply {
        blueprint: set.clone(),
        sources: sources.by_path.clone(),
        ask: Default::default(),
    };
    plumb_planner::plan(plumb_planner::Input {
        request: &request,
        recorded: &plumb_model::state::Recorded::default(),
        lineage: &plumb_model::Lineage::from_random([0; 16]),
        workspace: &set.workspace.name,
        observed: &plumb_planner::Observed::default(),
        commit: None,
    })
    .map(|_| ())
}
