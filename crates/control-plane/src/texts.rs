//! Blueprints that came over the API as they are written: read by the one parser that there is, into what everybody else sends.
//!
//! It decides nothing about them. So a program in any language can plan and apply, and no check is passed by.

use plumb_blueprint::{BlueprintSet, Diagnostics, Options, SourceFile};
use plumb_wire::convert::to_json;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1::{self, plan_request::Request};

use crate::refuse;

/// The most files: as many as the command line reads of a repository.
const MAX_FILES: usize = 20_000;

/// How much of what is wrong travels, in bytes: it rides in the trailers.
const MAX_PROBLEMS_BYTES: usize = 128 * 1024;

/// The request with its blueprints read, if it holds texts; as it is otherwise.
///
/// # Errors
/// With every problem of the texts.
pub(crate) async fn read(request: v1::PlanRequest) -> Result<v1::PlanRequest, Refusal> {
    let v1::PlanRequest { request, commit } = request;
    let texts = match request {
        Some(Request::Texts(texts)) => texts,
        request => return Ok(v1::PlanRequest { request, commit }),
    };
    if texts.files.len() > MAX_FILES {
        let message = format!("at most {MAX_FILES} files may be sent at once");
        return Err(Refusal::new(Reason::TooLarge, message));
    }
    let v1::Texts {
        files,
        sources,
        environment,
    } = texts;
    let set = refuse::blocking(move || parsed(files, environment)).await?;
    let blueprints = v1::Blueprints {
        blueprint_set_json: to_json(&set),
        sources,
        ask_json: Vec::new(),
    };
    Ok(v1::PlanRequest {
        request: Some(Request::Blueprints(blueprints)),
        commit,
    })
}

fn parsed(
    files: impl IntoIterator<Item = (String, String)>,
    environment: String,
) -> Result<BlueprintSet, Refusal> {
    let mut files: Vec<SourceFile> = files
        .into_iter()
        .map(|(path, text)| SourceFile {
            path,
            text: text.into_bytes(),
        })
        .collect();
    let mut options = Options {
        env: Some(environment).filter(|name| !name.is_empty()),
        ..Options::default()
    };
    // Compose files are read along, and are no blueprints themselves.
    let beside = plumb_blueprint::others(&files);
    let (others, blueprints) = files
        .drain(..)
        .partition(|file| beside.contains(&file.path));
    options.others = others;
    plumb_blueprint::parse(&blueprints, &options).map_err(|problems| refused(&problems))
}

/// What is wrong, as `plumb validate --output json` has it.
fn refused(problems: &Diagnostics) -> Refusal {
    let text = problems.to_string();
    let first = text.lines().next().unwrap_or_default();
    let total = problems.items.len();
    let mut kept: &[_] = &problems.items;
    let mut json = to_json(&kept);
    while json.len() > MAX_PROBLEMS_BYTES && kept.len() > 1 {
        kept = &kept[..kept.len() / 2];
        json = to_json(&kept);
    }
    let refusal = Refusal::new(
        Reason::PlanRefused,
        format!("the blueprints have problems ({total}), the first of them: {first}"),
    )
    .with("total", total);
    match String::from_utf8(json) {
        Ok(json) if json.len() <= MAX_PROBLEMS_BYTES => refusal.with("problems", json),
        _ => refusal,
    }
}
