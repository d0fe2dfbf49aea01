//! `plumb explain`.

use plumb_blueprint::{Explanation, explain, explanations};
use serde_json::json;

use crate::args::Output;
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};
use crate::render::table::table;

/// Says what a code means, with an example and its diagnostic; without one, which codes there are.
pub fn run(code: Option<&str>, env: &Env<'_>) -> Result<Exit, CliError> {
    let Some(code) = code else {
        list(env);
        return Ok(Exit::Fine);
    };
    let one = explain(code).map_err(|near| {
        let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
        CliError::Other(format!(
            "there is no code {code:?}{hint}; `plumb explain` lists all"
        ))
    })?;
    match env.output {
        Output::Json => out::json(&json!({
            "format": 1,
            "explanation": one,
            "diagnostic": one.shown(false),
        })),
        Output::Text => out::print(&text(one, env)),
    }
    Ok(Exit::Fine)
}

fn list(env: &Env<'_>) {
    match env.output {
        Output::Json => {
            let codes: Vec<_> = explanations()
                .iter()
                .map(|one| json!({ "code": one.code, "title": one.title }))
                .collect();
            out::json(&json!({ "format": 1, "codes": codes }));
        }
        Output::Text => {
            let rows: Vec<Vec<String>> = explanations()
                .iter()
                .map(|one| vec![env.style.bold(one.code.as_str()), one.title.clone()])
                .collect();
            out::print(&table("", &rows));
        }
    }
}

fn text(one: &Explanation, env: &Env<'_>) -> String {
    let style = env.style;
    let mut out = format!(
        "{}: {}\n\n{}\n",
        style.bold(one.code.as_str()),
        style.bold(&one.title),
        wrapped(&one.text)
    );
    if let Some(wrong) = &one.wrong {
        let with = one.env.as_ref();
        let with = with.map_or(String::new(), |env| format!(", with --env {env}"));
        out.push_str(&format!(
            "\n{} ({}{with}):\n\n{}\n{}\n",
            style.bad("Wrong"),
            wrong.file,
            indented(&wrong.text),
            indented(&one.shown(style.color))
        ));
    }
    if let Some(right) = &one.right {
        out.push_str(&format!(
            "\n{} ({}):\n\n{}",
            style.good("Right"),
            right.file,
            indented(&right.text)
        ));
    }
    out
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("    {line}").trim_end().to_owned() + "\n")
        .collect()
}

/// Lines of at most eighty characters, as a terminal shows them well.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 80;
    let mut out = String::new();
    let mut column = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if column > 0 && column + 1 + wide > WIDTH {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out
}
