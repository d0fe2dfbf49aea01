//! `plumb apply FILE`: exactly what the file says is recorded, or nothing.
//!
//! Flow: the file is verified, its signer is known or vouched for, it is shown, somebody says yes, what it needs is
//! uploaded, and the control plane records it if it still would do the same. It decides: what is checked here is for
//! the person in front of it.

use std::fs::{self, File};
use std::io::{Read, Seek as _};
use std::path::Path;

use plumb_driver::artifact;
use plumb_model::{Hash, escape};
use plumb_wire::client::CallError;
use plumb_wire::error::Reason;
use plumb_wire::plan_file::{Blob, Moved, PlanFile, PlanKey, Request};
use plumb_wire::v1;

use super::trust::{Signer, signer};
use super::{head, open};
use crate::args::{ApplyArgs, ApplyFileArgs, AskArgs, Blueprints, Output};
use crate::commands::Env;
use crate::commands::apply::{approved, finish, show, show_plan, shown};
use crate::context::Context;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::remote::{Content, Remote};
use crate::repository::Repository;

/// The most bytes of a single file that is looked at for a blob: the most that a repository's file may have.
const MAX_SOURCE_FILE: u64 = 256 * 1024 * 1024;

/// Applies a plan file.
pub async fn apply(
    blueprints: &Blueprints,
    ask: &AskArgs,
    how: &ApplyArgs,
    options: &ApplyFileArgs,
    env: &Env<'_>,
) -> Result<Exit, CliError> {
    let chosen = [
        ("--env", blueprints.env.is_some()),
        ("--target", !ask.targets.is_empty()),
        ("--refresh", ask.refresh),
    ];
    if let Some((flag, _)) = chosen.iter().find(|(_, given)| *given) {
        return Err(CliError::Other(format!(
            "{flag} says how to plan, and a plan file has been planned; leave it out"
        )));
    }
    let path = &blueprints.path;
    let (content, file) = open(path)?;
    let context = Context::find(env.context)?;
    let mut remote = Remote::connect(&context).await?;
    let info = remote.info().await?;
    let own: PlanKey = info
        .plan_key
        .parse()
        .map_err(|e| CliError::Answer(format!("{e}")))?;
    let signer = signer(&file, path, &own, options.key.as_deref(), &context.address)?;
    let request = |document: Vec<u8>| v1::ApplySignedRequest {
        signed: Some(file.signature.to_wire(document)),
        allow: how.allow.clone(),
        rebase: options.rebase,
        vouched_key: match signer {
            Signer::Own => String::new(),
            Signer::Vouched => file.signature.key.id().to_string(),
        },
    };
    let plan = &file.document.plan;
    if env.output == Output::Text {
        let signed = match signer {
            Signer::Own => "Signed by this control plane.".to_owned(),
            Signer::Vouched => format!(
                "Signed by another control plane, with the key {} that was given: the plan is made again here, and must come out the same.",
                file.signature.key.id()
            ),
        };
        head(&file, &signed, env);
        show_plan(plan, env);
    }
    // Revisions only grow: what has moved cannot be recorded any more, so nobody is asked in vain.
    let moved = info.revision > plan.base.0;
    if moved && !options.rebase && matches!(signer, Signer::Own) {
        let told = remote.apply_signed(request(file.bytes.clone())).await;
        let applied = told.map_err(|error| explain(error, env))?;
        return finish(&mut remote, plan.base.0, Some(applied), how, env).await;
    }
    if !approved(plan, how, env)? {
        return Ok(Exit::Failed);
    }
    upload(&mut remote, &content, &file, path).await?;
    let applied = match remote.apply_signed(request(file.bytes.clone())).await {
        Ok(applied) => applied,
        Err(error) => return Err(another(&mut remote, &file, error, env).await),
    };
    let revision = applied.revision;
    let recorded = (!plan.is_empty() || applied.before).then_some(applied);
    finish(&mut remote, revision, recorded, how, env).await
}

/// Lists what has moved since the plan was made, before its one line.
fn explain(error: CliError, env: &Env<'_>) -> CliError {
    let CliError::Call(CallError::Refused(refusal)) = &error else {
        return error;
    };
    let moved = refusal.metadata.get("moved");
    let Some(moved) = moved.and_then(|text| serde_json::from_str::<Vec<Moved>>(text).ok()) else {
        return error;
    };
    if env.output == Output::Json {
        out::json(&serde_json::json!({ "format": 1, "event": "moved", "moved": moved }));
        return error;
    }
    out::note(&env.style.bold("Since the plan was made:"));
    for thing in &moved {
        out::note(&format!("  {}", escape::line(&thing.to_string())));
    }
    let total = refusal.metadata.get("total").and_then(|t| t.parse().ok());
    let more = total.unwrap_or(moved.len()).saturating_sub(moved.len());
    if more > 0 {
        out::note(&format!("  and {more} more"));
    }
    error
}

/// Shows what the plan would be now, where it is another.
async fn another(remote: &mut Remote, file: &PlanFile, error: CliError, env: &Env<'_>) -> CliError {
    let CliError::Call(CallError::Refused(refusal)) = &error else {
        return error;
    };
    if refusal.reason != Reason::PlanChanged || env.output != Output::Text {
        return explain(error, env);
    }
    let planned = shown(remote.plan(file.document.plan_request()).await, env);
    if let Ok(planned) = planned {
        out::line(&format!(
            "\n{}",
            env.style.bold("Now it would be another plan:")
        ));
        show(&planned, env);
        return CliError::Other("the plan in the file is not what would be done now, as shown above; make a new one with `plumb plan --out`; nothing was changed".to_owned());
    }
    error
}

/// Uploads what the control plane lacks: from the file, or from the repository in this folder where that holds the very
/// same bytes.
async fn upload(
    remote: &mut Remote,
    content: &File,
    file: &PlanFile,
    path: &Path,
) -> Result<(), CliError> {
    let missing = remote.missing(file.document.blobs.keys()).await?;
    let repository = Repository::find(&Blueprints {
        path: ".".into(),
        env: None,
    });
    let mut nowhere = Vec::new();
    for missing in missing {
        let digest = missing.digest;
        if let Some(blob) = file.blobs.get(&digest) {
            let Blob { offset, size } = *blob;
            let section = Content::section(content, offset, size);
            let section = section.map_err(CliError::file("read", path))?;
            remote.upload_blob(missing, &section).await?;
            continue;
        }
        let source = source_of(file, &digest);
        let found = match (&repository, source) {
            (Ok(repository), Some(source)) => find(&repository.root, source, &digest),
            _ => None,
        };
        match found {
            Some(found) => {
                let found = Content::whole(&found).map_err(CliError::file("read", "."))?;
                remote.upload_blob(missing, &found).await?;
            }
            None => nowhere.push((digest, source)),
        }
    }
    if nowhere.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = nowhere
        .iter()
        .take(8)
        .map(|(digest, source)| match source {
            Some(source) => format!("`{}` ({})", escape::line(source), digest.short()),
            None => digest.short(),
        })
        .collect();
    let more = nowhere.len().saturating_sub(named.len());
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    Err(CliError::Other(format!(
        "the control plane lacks {}{more}, and neither the plan file nor the repository in this folder holds the very same content; run it where the repository is as it was planned, or make the file with --bundle; nothing was changed",
        named.join(", ")
    )))
}

/// The path in the repository that a blob was made of.
fn source_of<'a>(file: &'a PlanFile, digest: &Hash) -> Option<&'a str> {
    match &file.document.request {
        Request::Blueprints { sources, .. } => sources
            .iter()
            .find(|(_, source)| source.digest == *digest)
            .map(|(path, _)| path.as_str()),
        Request::Rollback { .. } | Request::Destroy {} => None,
    }
}

/// What a path of a repository holds, if it is exactly what a digest names and lies within.
fn find(root: &Path, source: &str, digest: &Hash) -> Option<File> {
    let path = fs::canonicalize(root.join(source)).ok()?;
    if !path.starts_with(root) {
        return None;
    }
    if path.is_dir() {
        let packed = artifact::pack(&path).ok()?;
        if packed.digest != *digest {
            return None;
        }
        let mut file = packed.file;
        file.rewind().ok()?;
        return Some(file);
    }
    let mut file = File::open(&path).ok()?;
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_SOURCE_FILE)
        .read_to_end(&mut bytes)
        .ok()?;
    if Hash::of(&bytes) != *digest {
        return None;
    }
    file.rewind().ok()?;
    Some(file)
}
