//! `plumb schema`.

use plumb_blueprint::{Kind, nearest, schema, schema_of_any};

use crate::error::CliError;
use crate::out::{self, Exit};

/// Prints the JSON Schema of a kind, or of any blueprint.
pub fn run(kind: Option<&str>) -> Result<Exit, CliError> {
    let value = match kind {
        None => schema_of_any(),
        Some(word) => {
            let all = Kind::ALL.map(Kind::as_str);
            let kind = Kind::ALL
                .into_iter()
                .find(|k| k.as_str().eq_ignore_ascii_case(word));
            schema(kind.ok_or_else(|| {
                let hint = nearest(word, all)
                    .map(|n| format!("; did you mean {n}?"))
                    .unwrap_or_default();
                CliError::Other(format!(
                    "there is no kind {word:?}{hint}; there are {}",
                    all.join(", ")
                ))
            })?)
        }
    };
    let text = serde_json::to_string_pretty(&value).expect("a schema is always JSON");
    out::line(&text);
    Ok(Exit::Fine)
}
