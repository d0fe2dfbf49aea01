//! `plumb token`.

use crate::args::{Output, TokenCommand};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;

/// Makes a join token and prints it, once. Only the token goes to standard output, so that a script can take it.
pub async fn run(command: &TokenCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let TokenCommand::Create {
        join: _,
        machine,
        ttl,
    } = command;
    let context = Context::find(env.context)?;
    let mut remote = Remote::connect(&context).await?;
    let seconds = u32::try_from(ttl.as_secs().max(1)).unwrap_or(u32::MAX);
    let (token, expires) = remote.create_join_token(machine.as_ref(), seconds).await?;
    match env.output {
        Output::Json => out::json(
            &serde_json::json!({ "format": 1, "token": token.expose(), "expires": expires }),
        ),
        Output::Text => {
            out::line(token.expose());
            let name = machine
                .as_ref()
                .map(|m| format!(" as {m}"))
                .unwrap_or_default();
            out::note(&format!(
                "Good for one machine{name}, once, until {expires}. On that machine:\n  \
                 PLUMB_JOIN_TOKEN=… plumb agent --server {} --data /var/lib/plumb/agent",
                context.address
            ));
        }
    }
    Ok(Exit::Fine)
}
