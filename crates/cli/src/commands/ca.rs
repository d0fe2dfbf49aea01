//! `plumb ca`: the control plane's CA, and how another takes its place.

use plumb_wire::v1::{self, rotate_ca_request::Step};
use serde_json::json;

use crate::args::{CaCommand, Output};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::fleet::Fleet;
use crate::out::{self, Exit};

/// How many hex digits of a digest are shown to people.
const SHORT: usize = 16;

/// Runs one of the commands.
pub async fn run(command: &CaCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut fleet = Fleet::connect(env).await?;
    let state = match command {
        CaCommand::Status => fleet.ca().await?,
        CaCommand::Rotate { finish: false } => fleet.rotate_ca(Step::Begin).await?,
        CaCommand::Rotate { finish: true } => fleet.rotate_ca(Step::Finish).await?,
    };
    // Whoever asks knows the newest from now on.
    Context::find(env.context)?.learn(&state.cas)?;
    match env.output {
        Output::Json => out::json(&json(&state)),
        Output::Text => out::print(&text(&state)),
    }
    Ok(Exit::Fine)
}

fn json(state: &v1::GetCaResponse) -> serde_json::Value {
    let cas: Vec<_> = state
        .cas
        .iter()
        .map(|ca| json!({ "digest": ca.digest, "not_after": ca.not_after, "issuing": ca.issuing }))
        .collect();
    json!({
        "format": 1,
        "phase": state.phase,
        "since": state.since,
        "cas": cas,
        "unaware_machines": state.unaware_machines,
        "machines_on_old": state.machines_on_old,
        "unaware_tokens": state.unaware_tokens,
        "join_tokens": state.join_tokens,
    })
}

fn text(state: &v1::GetCaResponse) -> String {
    let mut text = match state.phase.as_str() {
        "steady" => "The CA is not being replaced.\n".to_owned(),
        "spreading" => format!(
            "Since {} the next CA is being told of; the older one issues.\n",
            state.since
        ),
        _ => format!(
            "Since {} the next CA issues; the older one is trusted still.\n",
            state.since
        ),
    };
    for ca in &state.cas {
        let digest: String = ca.digest.chars().take(SHORT).collect();
        let what = if ca.issuing { "issues" } else { "is trusted" };
        text.push_str(&format!("  {digest}  {what}, until {}\n", ca.not_after));
    }
    let mut waits = |what: &str, names: &[String]| {
        if !names.is_empty() {
            let names: Vec<_> = names
                .iter()
                .map(|name| plumb_model::escape::line(name))
                .collect();
            text.push_str(&format!("{what}: {}\n", names.join(", ")));
        }
    };
    waits(
        "Machines that do not know the next one yet",
        &state.unaware_machines,
    );
    waits(
        "Machines with a certificate of the older one",
        &state.machines_on_old,
    );
    waits(
        "Tokens whose contexts do not know the next one (any `plumb ca status` with them mends that)",
        &state.unaware_tokens,
    );
    waits("Join tokens that name the older one", &state.join_tokens);
    if state.phase != "steady" {
        text.push_str("The older one goes as soon as nobody depends on it, or with `plumb ca rotate --finish`.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_says_how_far_it_is_and_who_it_waits_for() {
        let ca = |digit: &str, issuing| v1::Ca {
            digest: digit.repeat(64),
            certificate_der: Vec::new(),
            not_after: "2036-11-18T12:00:00Z".to_owned(),
            issuing,
        };
        let state = v1::GetCaResponse {
            phase: "issuing".to_owned(),
            since: "2026-11-21T12:00:00Z".to_owned(),
            cas: vec![ca("a", false), ca("b", true)],
            unaware_machines: Vec::new(),
            machines_on_old: vec!["web-1".to_owned(), "web-2".to_owned()],
            unaware_tokens: vec!["ci".to_owned()],
            join_tokens: Vec::new(),
        };
        insta::assert_snapshot!(text(&state));
    }
}
