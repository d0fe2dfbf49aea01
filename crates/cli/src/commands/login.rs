//! `plumb login`, `plumb logout` and `plumb context`.

use plumb_model::{Secret, WorkspaceName, escape};
use plumb_wire::client::{self, Bearer, CallError, Target};
use plumb_wire::pin::{fetch_ca, to_pem};
use plumb_wire::token::CaDigest;
use plumb_wire::v1;

use crate::access::read_secret;
use crate::args::Output;
use crate::args::access::{ContextCommand, LoginArgs};
use crate::commands::Env;
use crate::commands::token::role_word;
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};

/// Proves that the control plane is the right one, then shows it the token, and keeps both as a context.
pub async fn login(args: &LoginArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let address = address(&args.url)?;
    // Before anybody types a token: nobody should for a control plane that is the wrong one.
    let ca_pem = ca(args, &address).await?;
    let target = Target {
        address: address.clone(),
        ca_pem: ca_pem.clone(),
        identity: None,
    };
    let channel = client::connect(&target).await?;
    let token: Secret = read_secret("token", args.token_stdin)?;
    let mut bearer = Bearer::new(&token).map_err(|_| not_a_token())?;
    if let Some(workspace) = &args.workspace {
        bearer = bearer.for_workspace(workspace);
    }
    let info = client::api_with(channel, bearer)
        .get_info(v1::GetInfoRequest {})
        .await
        .map_err(|status| CallError::of(&address, &status))?
        .into_inner();
    let workspace: WorkspaceName = info
        .workspace
        .parse()
        .map_err(|_| CliError::Answer(format!("{:?} is no workspace", info.workspace)))?;
    let context = Context {
        address,
        ca_pem,
        token,
        workspace,
        plan_key: info.plan_key.parse().ok(),
        origin: None,
    };
    let name = env.context.unwrap_or(context.workspace.as_str());
    if name.contains('/') || name.contains('.') {
        return Err(CliError::Other(format!(
            "{:?} cannot name a context; choose a plain name with --context",
            name
        )));
    }
    let path = context.log_in(name)?;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1,
            "context": name,
            "workspace": context.workspace,
            "token": info.token,
            "role": role_word(info.role),
        })),
        Output::Text => out::line(&format!(
            "Logged in to workspace {} at {} as {}, role {}; context {name} written to {}",
            context.workspace,
            context.address,
            escape::line(&info.token),
            role_word(info.role),
            path.display()
        )),
    }
    Ok(Exit::Fine)
}

fn not_a_token() -> CliError {
    CliError::Other(
        "that is no token: expected plumb_NAME_SECRET, as `plumb token create NAME` printed it"
            .to_owned(),
    )
}

/// The certificate of the CA: from a file, or from the control plane if it has the pinned digest.
async fn ca(args: &LoginArgs, address: &str) -> Result<String, CliError> {
    if let Some(path) = &args.ca {
        return std::fs::read_to_string(path).map_err(CliError::file("read", path));
    }
    let pin = args.pin.as_deref().unwrap_or_default();
    let pin = pin.strip_prefix("sha256:").unwrap_or(pin);
    let pin: CaDigest = pin
        .to_ascii_lowercase()
        .parse()
        .map_err(|e| CliError::Other(format!("--pin: {e}")))?;
    Ok(to_pem(&fetch_ca(address, pin).await?))
}

/// `HOST:PORT` of `https://HOST:PORT`.
pub(crate) fn address(url: &str) -> Result<String, CliError> {
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some((scheme, _)) => {
            return Err(CliError::Other(format!(
                "a control plane is reached by https, not by {}: write https://HOST:PORT",
                escape::line(scheme)
            )));
        }
        None => url,
    };
    Ok(rest.strip_suffix('/').unwrap_or(rest).to_owned())
}

/// Removes the context and the token in it from this machine. The token itself is good until it is revoked.
pub fn logout(env: &Env<'_>) -> Result<Exit, CliError> {
    let name = Context::forget(env.context)?;
    match env.output {
        Output::Json => out::json(&serde_json::json!({ "format": 1, "removed": name })),
        Output::Text => out::line(&format!(
            "Context {} is removed from here. Its token is good until an admin revokes it with `plumb token revoke`.",
            escape::line(&name)
        )),
    }
    Ok(Exit::Fine)
}

/// Lists contexts, or chooses one.
pub fn context(command: &ContextCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    match command {
        ContextCommand::List => {
            let (known, current) = Context::known()?;
            match env.output {
                Output::Json => out::json(&serde_json::json!({
                    "format": 1,
                    "contexts": known,
                    "current": current,
                })),
                Output::Text => {
                    if known.is_empty() {
                        out::line(
                            "No context is here yet; `plumb login`, `plumb dev` and `plumb server` write one.",
                        );
                    }
                    for name in known {
                        let mark = if Some(&name) == current.as_ref() {
                            "*"
                        } else {
                            " "
                        };
                        out::line(&format!("{mark} {}", escape::line(&name)));
                    }
                }
            }
        }
        ContextCommand::Use { name } => {
            Context::make_current(name)?;
            match env.output {
                Output::Json => out::json(&serde_json::json!({ "format": 1, "current": name })),
                Output::Text => {
                    out::line(&format!(
                        "Context {} is the current one.",
                        escape::line(name)
                    ));
                }
            }
        }
    }
    Ok(Exit::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_leads_to_a_control_plane() {
        for (url, expected) in [
            ("https://plumb.example.com:7700", "plumb.example.com:7700"),
            ("https://[::1]:7700/", "[::1]:7700"),
            ("10.0.0.1:7700", "10.0.0.1:7700"),
        ] {
            assert_eq!(address(url).unwrap(), expected);
        }
        for bad in ["http://x:1", "ssh://x:1", "\u{1b}[31m://x:1"] {
            let error = address(bad).unwrap_err().to_string();
            assert!(error.contains("https://HOST:PORT"), "{error}");
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
}
