//! Writing a plan file.

use std::fs::File;
use std::io::{self, BufWriter, Seek as _};
use std::path::Path;

use plumb_model::Hash;
use plumb_model::plan::Plan;
use plumb_wire::plan_file::{self, Document, Signature};
use plumb_wire::v1;

use crate::args::Output;
use crate::beside::{self, Place, Sort};
use crate::commands::Env;
use crate::commands::apply::show_plan;
use crate::error::CliError;
use crate::out;
use crate::repository::Sources;

/// Refuses a place where no plan file should go, before anything is planned, and says what is there.
pub fn check_target(path: &Path) -> Result<Place, CliError> {
    let sort = Sort {
        what: "the plan",
        name: "plan file",
        // The name of its first member.
        beginning: b"plan.json\0",
        no_output: "a plan file is no text for a terminal or a pipe",
    };
    beside::check(path, &sort)
}

/// Saves a signed plan, with the blobs of `sources` in a bundle, and shows it.
pub fn save(
    path: &Path,
    signed: v1::SignedPlan,
    sources: Option<&mut Sources>,
    env: &Env<'_>,
) -> Result<Plan, CliError> {
    let answer = |e: &dyn std::error::Error| CliError::Answer(crate::error::chain(e));
    let signature = Signature::from_wire(&signed).map_err(|e| answer(&e))?;
    // What came is what will be read: anything wrong is noticed here, and not in a month.
    let document = Document::open(&signed.document, &signature).map_err(|e| answer(&e))?;
    let write = |file: &mut File| write(file, &signed.document, &signature, &document, sources);
    // Something may have come there while the control plane was asked.
    let place = check_target(path)?;
    beside::write(path, place, write).map_err(CliError::file("write the plan file", path))?;
    show_plan(&document.plan, env);
    let plan = &document.plan;
    let allow: Vec<&str> = plan.consents.iter().map(|c| c.allow.as_str()).collect();
    let allow = match allow.as_slice() {
        [] => String::new(),
        all => format!(" --allow {}", all.join(",")),
    };
    let next = match plan.obstacles().next() {
        // What keeps it from being applied has just been shown.
        Some(_) => "It cannot be applied as it stands.".to_owned(),
        None => format!(
            "Record exactly this with `plumb apply {}{allow}`.",
            path.display()
        ),
    };
    let said = format!(
        "Saved to {}, signed with the key {}. {next}",
        path.display(),
        signature.key.id()
    );
    match env.output {
        Output::Text => out::line(&format!("\n{}", plumb_model::escape::line(&said))),
        _ => out::note(&plumb_model::escape::line(&said)),
    }
    Ok(document.plan)
}

fn write(
    file: &mut File,
    bytes: &[u8],
    signature: &Signature,
    document: &Document,
    sources: Option<&mut Sources>,
) -> io::Result<()> {
    let mut sources = sources;
    let wanted: Vec<(Hash, u64)> = match &sources {
        Some(_) => document.blobs.iter().map(|(d, s)| (*d, *s)).collect(),
        None => Vec::new(),
    };
    let blobs = wanted.into_iter().map(|(digest, size)| {
        let blob = sources
            .as_mut()
            .and_then(|sources| sources.blobs.get_mut(&digest))
            .ok_or_else(|| {
                io::Error::other(format!(
                    "the content {digest} is not in this repository, so there is no bundle of it"
                ))
            })?;
        blob.rewind()?;
        Ok((digest, size, blob.try_clone()?))
    });
    let mut out = BufWriter::new(file);
    plan_file::write(&mut out, bytes, signature, blobs)
}
