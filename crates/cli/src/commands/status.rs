//! `plumb status`.

use plumb_model::Timestamp;

use crate::args::Output;
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render;

/// Shows how everything is, once or as it changes.
pub async fn run(watch: bool, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(&Context::find(env.context)?).await?;
    let show = |view: &plumb_dispatch::WorkspaceView| match env.output {
        Output::Json => out::json(view),
        Output::Text => {
            if watch && env.style.live {
                out::print("\x1b[H\x1b[J");
            }
            out::print(&render::status::status(
                view,
                env.verbose,
                env.style,
                Timestamp::now(),
            ));
        }
    };
    if !watch {
        show(&remote.status().await?);
        return Ok(Exit::Fine);
    }
    out::streams();
    let mut news = remote.watch().await?;
    loop {
        tokio::select! {
            next = news.next() => match next? {
                Some(next) => {
                    if let Some(view) = &next.view {
                        show(view);
                    }
                }
                None => return Err(CliError::Other("the control plane ended the watch; run the command again".to_owned())),
            },
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Fine),
        }
    }
}
