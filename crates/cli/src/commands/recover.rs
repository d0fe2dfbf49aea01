//! `plumb recover`: going on with machines that hold more than is recorded, as after an older backup was restored.

use serde_json::json;

use crate::args::{Output, RecoverArgs};
use crate::commands::Env;
use crate::error::CliError;
use crate::fleet::Fleet;
use crate::out::{self, Exit};

/// Shows which they are, asks, and goes on with them.
pub async fn run(args: &RecoverArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut fleet = Fleet::connect(env).await?;
    let regressed: Vec<_> = fleet
        .list()
        .await?
        .into_iter()
        .filter(|machine| machine.state == "regressed")
        .filter(|machine| {
            args.all
                || args
                    .machines
                    .iter()
                    .any(|name| name.as_str() == machine.name)
        })
        .collect();
    if args.all && regressed.is_empty() {
        match env.output {
            Output::Json => out::json(&json!({ "format": 1, "revision": 0, "machines": [] })),
            Output::Text => out::line("No machine holds more than is recorded: nothing to do."),
        }
        return Ok(Exit::Fine);
    }
    if env.output == Output::Text {
        for machine in &regressed {
            out::line(&format!(
                "{}: its agent holds generation {}, and {} is recorded",
                machine.name, machine.held, machine.generation
            ));
        }
    }
    if !args.yes {
        if !out::can_ask() {
            return Err(CliError::Other(
                "nobody is there to ask: run the command again with --yes".to_owned(),
            ));
        }
        out::note(
            "What these machines hold beyond the record is forgotten: it stays on them, and what is recorded is brought about.",
        );
        if !out::ask("Go on from what is recorded?") {
            return Ok(Exit::Failed);
        }
    }
    let names = match args.all {
        true => Vec::new(),
        false => args.machines.clone(),
    };
    let done = fleet.recover(&names).await?;
    match env.output {
        Output::Json => {
            let machines: Vec<_> = done
                .machines
                .iter()
                .map(|m| json!({ "name": m.name, "held": m.held, "generation": m.generation }))
                .collect();
            out::json(&json!({ "format": 1, "revision": done.revision, "machines": machines }));
        }
        Output::Text => {
            for machine in &done.machines {
                out::line(&format!(
                    "{} goes on at generation {}",
                    machine.name, machine.generation
                ));
            }
        }
    }
    Ok(Exit::Fine)
}
