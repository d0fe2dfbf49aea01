//! `plumb workspace`.

use plumb_model::escape;

use crate::access::Access;
use crate::args::Output;
use crate::args::access::WorkspaceCommand;
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::table::table;

/// Lists and makes the workspaces of a control plane.
pub async fn run(command: &WorkspaceCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let context = Context::find(env.context)?;
    let mut access = Access::connect(&context).await?;
    match command {
        WorkspaceCommand::List => {
            let workspaces = access.workspaces().await?;
            if env.output == Output::Json {
                let listed: Vec<_> = workspaces
                    .iter()
                    .map(|w| {
                        serde_json::json!({
                            "name": w.name,
                            "revision": w.revision,
                            "machines": w.machines,
                        })
                    })
                    .collect();
                out::json(&serde_json::json!({ "format": 1, "workspaces": listed }));
                return Ok(Exit::Fine);
            }
            let head = ["WORKSPACE", "MACHINES"];
            let mut rows = vec![head.iter().map(|h| env.style.faint(h)).collect::<Vec<_>>()];
            for workspace in workspaces {
                rows.push(vec![
                    escape::line(&workspace.name).into_owned(),
                    workspace.machines.to_string(),
                ]);
            }
            out::print(&table("", &rows));
        }
        WorkspaceCommand::Create { name } => {
            access.create_workspace(name.as_str()).await?;
            let context = Context {
                workspace: name.clone(),
                ..context
            };
            let written = context.write_beside(name.as_str());
            if env.output == Output::Json {
                out::json(&serde_json::json!({ "format": 1, "workspace": name }));
            } else {
                out::line(&format!("Workspace {name} is made."));
            }
            match written {
                Ok(path) => out::note(&format!(
                    "Work in it with --context {name} (written to {}), or make a token of its own:\n  plumb --context {name} token create NAME --role deployer",
                    path.display()
                )),
                Err(error) => out::note(&format!(
                    "No context was written for it ({error}); log in with `plumb login --workspace {name}`."
                )),
            }
        }
    }
    Ok(Exit::Fine)
}
