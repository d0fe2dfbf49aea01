//! `plumb reconcile`: has machines checked in full, now, and tells what that has come to.

use plumb_model::escape;
use plumb_wire::v1;
use serde_json::{Value, json};

use super::connect;
use crate::args::{Output, ReconcileArgs};
use crate::commands::Env;
use crate::error::CliError;
use crate::out::{self, Exit};

/// Asks, and shows each machine's answer as it comes.
pub async fn reconcile(args: &ReconcileArgs, env: &Env<'_>) -> Result<Exit, CliError> {
    let mut hands = connect(env).await?;
    let text = |name: Option<String>| name.unwrap_or_default();
    let asked = v1::ReconcileRequest {
        machine: text(args.machine.as_ref().map(ToString::to_string)),
        owner: text(args.app.as_ref().map(ToString::to_string)),
    };
    let answer = hands.client.reconcile(asked).await;
    let mut answers = answer.map_err(hands.failed())?.into_inner();
    let (mut machines, mut bad) = (0_usize, 0_usize);
    let (mut checked, mut found, mut corrected) = (0, 0, 0);
    while let Some(answer) = answers.message().await.map_err(hands.failed())? {
        machines += 1;
        checked += answer.checked;
        found += answer.findings.len() as u64 + answer.more;
        let well = |f: &&v1::CheckFinding| matches!(f.came.as_str(), "corrected" | "left" | "held");
        let came = |word: &str| answer.findings.iter().filter(|f| f.came == word).count();
        corrected += came("corrected");
        let is_bad = !answer.failed.is_empty()
            || answer.more > 0
            || answer.findings.iter().filter(well).count() < answer.findings.len();
        bad += usize::from(is_bad);
        match env.output {
            Output::Json => out::json(&machine_json(&answer)),
            Output::Text => out::print(&machine_text(&answer, env)),
        }
    }
    if env.output == Output::Text && machines > 1 {
        out::line(&format!(
            "{checked} resources on {machines} machines were checked: {found} were not as they should be, {corrected} of them are put right."
        ));
    }
    Ok(if bad == 0 { Exit::Fine } else { Exit::Failed })
}

fn machine_text(answer: &v1::ReconcileResponse, env: &Env<'_>) -> String {
    let style = env.style;
    let name = style.bold(&answer.machine);
    if !answer.failed.is_empty() {
        let why = escape::line(&answer.failed);
        return format!("{name}  {}: {why}\n", style.bad("not checked"));
    }
    let mut text = match answer.findings.len() {
        0 => format!(
            "{name}  {} resources checked, all as they should be\n",
            answer.checked
        ),
        n => format!(
            "{name}  {} resources checked, {n} not as they should be:\n",
            answer.checked
        ),
    };
    for finding in &answer.findings {
        let came = match finding.came.as_str() {
            "corrected" => style.good("corrected"),
            "left" | "held" => style.change(&finding.came),
            other => style.bad(other),
        };
        let why = match finding.why.as_str() {
            "" => String::new(),
            why => format!(" ({why})"),
        };
        let said = format!("{}: {}", finding.resource, finding.found);
        text.push_str(&format!(
            "  {came}  {}{}\n",
            escape::line(&said),
            escape::line(&why)
        ));
    }
    if answer.more > 0 {
        text.push_str(&format!("  and {} more\n", answer.more));
    }
    text
}

fn machine_json(answer: &v1::ReconcileResponse) -> Value {
    let findings = answer.findings.iter().map(|finding| {
        json!({
            "resource": finding.resource,
            "found": finding.found,
            "came": finding.came,
            "why": finding.why,
        })
    });
    let findings: Vec<Value> = findings.collect();
    json!({
        "format": 1,
        "machine": answer.machine,
        "checked": answer.checked,
        "findings": findings,
        "more": answer.more,
        "failed": answer.failed,
    })
}
