//! `plumb token`.

use plumb_model::escape;
use plumb_wire::client::CallError;
use plumb_wire::token::ApiToken;
use plumb_wire::v1;
use plumb_wire::v1::create_token_request::Kind;

use crate::access::Access;
use crate::args::Output;
use crate::args::access::{RoleArg, TokenCommand};
use crate::commands::Env;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::Remote;
use crate::render::table::table;

/// How long a join token is good for unless told otherwise, in seconds.
const JOIN_SECONDS: u64 = 3600;

/// Makes, lists and takes back tokens.
pub async fn run(command: &TokenCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let context = Context::find(env.context)?;
    match command {
        TokenCommand::Create {
            name: None,
            machine,
            ttl,
            ..
        } => {
            let seconds = ttl.map_or(JOIN_SECONDS, |ttl| ttl.as_secs().max(1));
            let join = v1::JoinToken {
                machine: machine
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                ttl_seconds: u32::try_from(seconds).unwrap_or(u32::MAX),
            };
            let name = machine
                .as_ref()
                .map(|m| format!(" as {m}"))
                .unwrap_or_default();
            // One that fixes no name leaves that to the agent.
            let named = match machine {
                Some(_) => "",
                None => " --machine NAME",
            };
            create(&context, Kind::Join(join), env, |expires| {
                format!(
                    "Good for one machine{name}, once, until {expires}. On that machine:\n  \
                     PLUMB_JOIN_TOKEN=… plumb agent --server {} --data /var/lib/plumb/agent{named}",
                    context.address
                )
            })
            .await
        }
        TokenCommand::Create {
            name: Some(name),
            role,
            ttl,
            all_workspaces,
            ..
        } => {
            let api = v1::ApiToken {
                name: name.clone(),
                role: role_of(*role).into(),
                ttl_seconds: ttl.map_or(0, |ttl| ttl.as_secs().max(1)),
                all_workspaces: *all_workspaces,
            };
            let pin = plumb_wire::pin::digest_of_pem(&context.ca_pem)
                .map(|pin| format!(" --pin {pin}"))
                .unwrap_or_default();
            create(&context, Kind::Api(api), env, |expires| {
                let until = match expires {
                    "" => "until it is revoked".to_owned(),
                    expires => format!("until {expires}"),
                };
                format!(
                    "Good {until}, and shown only now. Where it is to be used:\n  plumb login https://{}{pin}",
                    context.address
                )
            })
            .await
        }
        TokenCommand::List => list(&context, env).await,
        TokenCommand::Revoke { id } => {
            let revoked = Access::connect(&context).await?.revoke(id).await;
            match revoked {
                // The call itself is cut along with whatever else came with the token.
                Err(CliError::Call(CallError::WrongToken(_))) if is_own(&context, id) => {}
                revoked => revoked?,
            }
            match env.output {
                Output::Json => out::json(&serde_json::json!({ "format": 1, "revoked": id })),
                Output::Text => out::line(&format!(
                    "Token {} is revoked; what streamed to its holder is cut.",
                    escape::line(id)
                )),
            }
            Ok(Exit::Fine)
        }
    }
}

/// Whether a token is the one that this is called with.
fn is_own(context: &Context, id: &str) -> bool {
    let token: Result<ApiToken, _> = context.token.expose().parse();
    token.is_ok_and(|token| token.id == id)
}

/// Makes a token and prints it, once. Only the token goes to standard output, so that a script can take it.
async fn create(
    context: &Context,
    kind: Kind,
    env: &Env<'_>,
    remark: impl FnOnce(&str) -> String,
) -> Result<Exit, CliError> {
    let mut remote = Remote::connect(context).await?;
    let (token, made) = remote.create_token(kind).await?;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1,
            "token": token.expose(),
            "id": made.id,
            "expires": made.expires,
        })),
        Output::Text => {
            out::line(token.expose());
            out::note(&remark(&made.expires));
        }
    }
    Ok(Exit::Fine)
}

async fn list(context: &Context, env: &Env<'_>) -> Result<Exit, CliError> {
    let tokens = Access::connect(context).await?.tokens().await?;
    match env.output {
        Output::Json => {
            let tokens: Vec<_> = tokens
                .iter()
                .map(|token| {
                    serde_json::json!({
                        "id": token.id,
                        "kind": if token.join { "join" } else { "api" },
                        "role": role_word(token.role),
                        "all_workspaces": token.all_workspaces,
                        "machine": token.machine,
                        "created": token.created,
                        "expires": token.expires,
                        "last_used": token.last_used,
                        "used_by": token.used_by,
                    })
                })
                .collect();
            out::json(&serde_json::json!({ "format": 1, "tokens": tokens }));
        }
        Output::Text => out::print(&shown(&tokens, env)),
    }
    Ok(Exit::Fine)
}

fn shown(tokens: &[v1::Token], env: &Env<'_>) -> String {
    let head = ["ID", "FOR", "MADE (UTC)", "EXPIRES", "LAST USED"];
    let mut rows = vec![head.iter().map(|h| env.style.faint(h)).collect::<Vec<_>>()];
    for token in tokens {
        let purpose = match (token.join, token.used_by.as_str()) {
            (false, _) if token.all_workspaces => {
                format!("{}, all workspaces", role_word(token.role))
            }
            (false, _) => role_word(token.role).to_owned(),
            (true, "") if token.machine.is_empty() => "any machine to join".to_owned(),
            (true, "") => format!("machine {} to join", token.machine),
            (true, used_by) => format!("machine {used_by}, which has joined"),
        };
        rows.push(vec![
            escape::line(&token.id).into_owned(),
            escape::line(&purpose).into_owned(),
            minute(&token.created),
            minute(&token.expires),
            minute(&token.last_used),
        ]);
    }
    table("", &rows)
}

/// A time to the minute, as people read it.
pub(super) fn minute(time: &str) -> String {
    match time.parse() {
        Ok(at) => crate::render::time::full(at),
        Err(_) => "-".to_owned(),
    }
}

fn role_of(role: RoleArg) -> v1::Role {
    match role {
        RoleArg::Viewer => v1::Role::Viewer,
        RoleArg::Planner => v1::Role::Planner,
        RoleArg::Deployer => v1::Role::Deployer,
        RoleArg::Operator => v1::Role::Operator,
        RoleArg::Admin => v1::Role::Admin,
    }
}

/// The word for a role; `-` for none.
pub(super) fn role_word(role: i32) -> &'static str {
    match v1::Role::try_from(role) {
        Ok(v1::Role::Viewer) => "viewer",
        Ok(v1::Role::Planner) => "planner",
        Ok(v1::Role::Deployer) => "deployer",
        Ok(v1::Role::Operator) => "operator",
        Ok(v1::Role::Admin) => "admin",
        Ok(v1::Role::Unspecified) | Err(_) => "-",
    }
}
