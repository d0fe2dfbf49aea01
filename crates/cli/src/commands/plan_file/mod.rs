//! Plan files on this side: `plumb plan --out`, `show`, `plan verify`, `plan key` and `apply FILE`.
//!
//! The format, and what can be verified of it without knowing whom to trust, is the wire crate's. Whom to trust is said
//! here: the control plane that the context names, or the key that was given.

mod apply;
mod save;
mod trust;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use plumb_model::escape;
use plumb_wire::plan_file::{Document, PlanFile};

use crate::args::{ApplyFileArgs, Output};
use crate::commands::Env;
use crate::commands::apply::show_plan;
use crate::context::Context;
use crate::error::{CliError, chain};
use crate::out::{self, Exit};
use crate::render::plan::PlanFormat;
use crate::render::time::full;

pub use apply::apply;
pub use save::{check_target, save};
use trust::{Standing, Trusted};

/// How much of a file is read at a time, in bytes.
const BUFFER: usize = 256 * 1024;

/// Whether a path that was given to `apply` is a plan file and no folder of blueprints, nor a blueprint.
pub fn is_one(path: &Path) -> bool {
    let blueprint = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
    path.is_file() && !blueprint
}

/// Refuses what only says something of plan files where blueprints are applied.
pub fn refuse_for_blueprints(file: &ApplyFileArgs, path: &Path) -> Result<(), CliError> {
    let flag = match file {
        ApplyFileArgs { rebase: true, .. } => "--rebase",
        ApplyFileArgs { key: Some(_), .. } => "--key",
        ApplyFileArgs { .. } => return Ok(()),
    };
    Err(CliError::Other(format!(
        "{flag} is for plan files, and {} is none; make one with `plumb plan --out FILE`",
        path.display()
    )))
}

/// Opens a plan file and verifies all of it but whom to trust.
fn open(path: &Path) -> Result<(File, PlanFile), CliError> {
    let file = crate::regular::open(path).map_err(CliError::file("open", path))?;
    let read = PlanFile::read(BufReader::with_capacity(BUFFER, &file))
        .map_err(|e| CliError::Other(format!("{} is refused: {}", path.display(), chain(&e))))?;
    Ok((file, read))
}

/// `plumb show FILE`.
pub fn show(path: &Path, env: &Env<'_>) -> Result<Exit, CliError> {
    let (_, file) = open(path)?;
    let standing = Standing::of(&file, Context::find(env.context).ok().as_ref());
    match env.plan_view().format {
        PlanFormat::Text => head(&file, &standing.words(), env),
        _ => out::note(&standing.words()),
    }
    show_plan(&file.document.plan, env);
    Ok(Exit::Fine)
}

/// `plumb plan verify FILE`.
pub fn verify(path: &Path, key: Option<&str>, env: &Env<'_>) -> Result<Exit, CliError> {
    let (_, file) = open(path)?;
    let trusted = Trusted::find(key, || Context::find(env.context))?;
    trusted.check(&file, path)?;
    let words = trusted.words();
    let Document { plan, .. } = &file.document;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1,
            "verified": true,
            "key": file.signature.key,
            "key_id": file.signature.key.id().to_string(),
            "trusted_as": words,
            "plumb": file.document.plumb,
            "lineage": file.document.lineage,
            "workspace": file.document.workspace,
            "planned_at": file.document.planned_at,
            "planned_by": file.document.planned_by,
            "commit": file.document.commit,
            "base": plan.base,
            "approval": plan.approval,
            "consents": plan.consents,
            "blobs": file.document.blobs,
            "bundled": !file.blobs.is_empty(),
        })),
        _ => {
            let signed = format!("Signed with the key {}, {words}.", file.signature.key.id());
            head(&file, &signed, env);
            out::line(&format!(
                "Verified: {} is as it was signed.",
                path.display()
            ));
        }
    }
    Ok(Exit::Fine)
}

/// `plumb plan key`.
pub fn key(env: &Env<'_>) -> Result<Exit, CliError> {
    let context = Context::find(env.context)?;
    let key = trust::key_of(&context)?;
    match env.output {
        Output::Json => out::json(&serde_json::json!({
            "format": 1, "key": key, "key_id": key.id().to_string(),
        })),
        _ => out::line(&key.to_string()),
    }
    Ok(Exit::Fine)
}

/// What stands before a plan from a file: where it comes from, and who has signed it.
fn head(file: &PlanFile, signed: &str, env: &Env<'_>) {
    let document = &file.document;
    let blobs = match (document.blobs.len(), file.blobs.len()) {
        (0, _) => "it needs no artifacts".to_owned(),
        (needed, 0) => format!("its artifacts ({needed}) are not in the file"),
        (needed, _) => format!("its artifacts ({needed}) are in the file"),
    };
    let lines = [
        format!(
            "Plan file of workspace {}, planned {} by {} with plumb {}; {blobs}.",
            document.workspace,
            full(document.planned_at),
            document.planned_by,
            document.plumb
        ),
        signed.to_owned(),
    ];
    for line in lines {
        out::line(&env.style.faint(&escape::line(&line)));
    }
    if env.verbose {
        let line = format!("lineage {}", document.lineage);
        out::line(&env.style.faint(&line));
    }
}
