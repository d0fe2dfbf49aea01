//! `plumb secret`: sets, lists and removes secrets. It prints no value, not even one that it has made.

pub mod env_file;
mod value;

use plumb_model::{Secret, SecretName, escape};
use plumb_wire::v1;

use crate::args::Output;
use crate::args::secret::{SecretCommand, Then};
use crate::commands::{Env, apply, token};
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::count;
use crate::render::table::table;
use crate::secrets::Secrets;

/// Runs one of its commands.
pub async fn run(command: &SecretCommand, env: &Env<'_>) -> Result<Exit, CliError> {
    let context = Context::find(env.context)?;
    match command {
        SecretCommand::Set { name, value, then } => {
            let value = value::read(name, value)?;
            set(&context, vec![(name.clone(), value)], false, then, env).await
        }
        SecretCommand::Rotate { name, value, then } => {
            let value = value::read(name, value)?;
            set(&context, vec![(name.clone(), value)], true, then, env).await
        }
        SecretCommand::Import { file, then } => {
            let all = env_file::read(file)?;
            set(&context, all, false, then, env).await
        }
        SecretCommand::List => list(&context, env).await,
        SecretCommand::Rm { name, force } => {
            let mut secrets = Secrets::connect(&context).await?;
            let versions = secrets.remove(name, *force).await?;
            match env.output {
                Output::Json => out::json(
                    &serde_json::json!({ "format": 1, "removed": name, "versions": versions }),
                ),
                Output::Text => out::line(&format!(
                    "The secret {name} is removed, with {}.",
                    count(versions as usize, "version")
                )),
            }
            Ok(Exit::Fine)
        }
        SecretCommand::RotateKey => {
            let rotated = Secrets::connect(&context).await?.rotate_key().await?;
            match env.output {
                Output::Json => out::json(&serde_json::json!({
                    "format": 1,
                    "key": rotated.key,
                    "rewrapped": rotated.rewrapped,
                    "external": rotated.external,
                })),
                Output::Text => {
                    let secrets = usize::try_from(rotated.rewrapped).unwrap_or(usize::MAX);
                    let wrapped = match secrets {
                        1 => "1 secret was".to_owned(),
                        n => format!("{n} secrets were"),
                    };
                    out::line(&format!(
                        "The keys of all secrets are wrapped in key {}; {wrapped} wrapped anew.",
                        escape::line(&rotated.key),
                    ));
                    if rotated.external {
                        out::note(
                            "The key is your own: older ones are of no use any more, and may be taken out from beside it.",
                        );
                    } else {
                        out::note(
                            "A copy of the keys that was made before opens no backup that is made from now on: copy them anew with `plumb backup --keys FILE --data DIR` on the control plane's machine.",
                        );
                    }
                }
            }
            Ok(Exit::Fine)
        }
    }
}

/// Sets secrets, says what uses them, and goes on to apply that if it is wanted.
async fn set(
    context: &Context,
    all: Vec<(SecretName, Secret)>,
    must_exist: bool,
    then: &Then,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let mut secrets = Secrets::connect(context).await?;
    let mut told = Vec::new();
    let mut used = Vec::new();
    for (name, value) in &all {
        let set = secrets.set(name, value, must_exist).await?;
        if env.output == Output::Text {
            out::line(&sentence(name, &set));
        }
        if !set.used_by.is_empty() {
            used.push(name.clone());
        }
        told.push(serde_json::json!({
            "name": name,
            "version": set.version,
            "unchanged": set.unchanged,
            "used_by": set.used_by,
        }));
    }
    if env.output == Output::Json {
        out::json(&serde_json::json!({ "format": 1, "secrets": told }));
    }
    if !then.apply {
        if env.output == Output::Text && !used.is_empty() {
            out::note(
                "What uses it goes on with the version that it has until the next `plumb apply`; with --apply it gets the new one now.",
            );
        }
        return Ok(Exit::Fine);
    }
    if used.is_empty() {
        if env.output == Output::Text {
            out::line("Nothing that is recorded uses it: there is nothing to apply.");
        }
        return Ok(Exit::Fine);
    }
    apply::renew_secrets(&used, &then.how, env).await
}

fn sentence(name: &SecretName, set: &v1::SetSecretResponse) -> String {
    let version = set.version;
    let what = match (set.unchanged, version) {
        (true, _) => format!("The secret {name} had this very value already, as version {version}"),
        (false, 1) => format!("The secret {name} is set"),
        (false, _) => format!("The secret {name} is set anew, as version {version}"),
    };
    match set.used_by.as_slice() {
        [] => format!("{what}. Nothing that is recorded uses it."),
        users => format!("{what}. It is used by {}.", escape::line(&users.join(", "))),
    }
}

async fn list(context: &Context, env: &Env<'_>) -> Result<Exit, CliError> {
    let secrets = Secrets::connect(context).await?.list().await?;
    match env.output {
        Output::Json => {
            let secrets: Vec<_> = secrets
                .iter()
                .map(|secret| {
                    serde_json::json!({
                        "name": secret.name,
                        "version": secret.version,
                        "versions": secret.versions,
                        "set_at": secret.set_at,
                        "set_by": secret.set_by,
                        "used_by": secret.used_by,
                        "machines": secret.machines,
                        "outdated": secret.outdated,
                    })
                })
                .collect();
            out::json(&serde_json::json!({ "format": 1, "secrets": secrets }));
        }
        Output::Text if secrets.is_empty() => {
            out::line("No secret is set; `plumb secret set NAME` sets one.");
        }
        Output::Text => out::print(&shown(&secrets, env)),
    }
    Ok(Exit::Fine)
}

fn shown(secrets: &[v1::SecretInfo], env: &Env<'_>) -> String {
    let head = ["NAME", "VERSION", "SET (UTC)", "BY", "USED BY"];
    let mut rows = vec![head.iter().map(|h| env.style.faint(h)).collect::<Vec<_>>()];
    for secret in secrets {
        let mut used = match secret.used_by.as_slice() {
            [] => "-".to_owned(),
            users => escape::line(&users.join(", ")).into_owned(),
        };
        if secret.outdated {
            used.push_str(
                &env.style
                    .change(" (an older version, until the next apply)"),
            );
        }
        rows.push(vec![
            escape::line(&secret.name).into_owned(),
            secret.version.to_string(),
            token::minute(&secret.set_at),
            escape::line(&secret.set_by).into_owned(),
            used,
        ]);
    }
    table("", &rows)
}
