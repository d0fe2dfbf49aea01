//! Validating and planning a large workspace, in one process: no bar of this version, but a curve to keep an eye on.

use std::fmt::Write;
use std::time::{Duration, Instant};

use plumb_blueprint::{Options, SourceFile};
use plumb_model::state::Recorded;
use plumb_model::{Hash, Lineage};
use plumb_planner::{Input, Observed, Request, Source};

use super::{Table, ms};

/// Plans 500, 1,000, 2,000 and 4,000 apps with five resources each, onto nothing.
pub fn run(table: &mut Table) -> Result<(), String> {
    for apps in [500, 1000, 2000, 4000] {
        let files = fleet(apps);
        let mut parsed = Vec::new();
        let mut planned = Vec::new();
        let mut resources = 0;
        for round in 0..6 {
            let (parse, plan, count) = once(&files)?;
            if round > 0 {
                parsed.push(parse);
                planned.push(plan);
            }
            resources = count;
        }
        table.row(&format!("validate {apps} apps"), &ms(&parsed), "");
        table.row(
            &format!("plan their {resources} resources"),
            &ms(&planned),
            "",
        );
    }
    Ok(())
}

/// Apps of two processes and an artifact in two places, twenty to a machine, one file for each app.
fn fleet(apps: usize) -> Vec<SourceFile> {
    let machines = apps / 20;
    let mut manifest = "kind: Workspace\nname: bench\n".to_owned();
    for m in 0..machines {
        let _ = write!(manifest, "---\nkind: Machine\nname: m{m}\n");
    }
    let file = |path: String, text: String| SourceFile {
        path,
        text: text.into_bytes(),
    };
    let app = |n: usize| {
        let text = format!(
            "kind: App\nname: a{n}\nmachines: m{}\nreplicas: 2\nsource: {{ path: app }}\n\
             processes: {{ web: x, work: y }}\nports: {{ http: auto, admin: auto }}\nenv: {{ A: \"${{app.a{n}.url}}\" }}\n",
            n % machines
        );
        file(format!("a{n}.yaml"), text)
    };
    [file("plumb.yaml".to_owned(), manifest)]
        .into_iter()
        .chain((0..apps).map(app))
        .collect()
}

fn once(files: &[SourceFile]) -> Result<(Duration, Duration, usize), String> {
    let began = Instant::now();
    let blueprint =
        plumb_blueprint::parse(files, &Options::default()).map_err(|e| e.to_string())?;
    let parse = began.elapsed();
    let source = Source {
        digest: Hash::of(b"app"),
        size: 3,
        text: None,
    };
    let sources = blueprint
        .paths
        .iter()
        .map(|path| (path.clone(), source.clone()))
        .collect();
    let workspace = blueprint.workspace.name.clone();
    let request = Request::Apply { blueprint, sources };
    let began = Instant::now();
    let planned = plumb_planner::plan(Input {
        request: &request,
        recorded: &Recorded::default(),
        lineage: &Lineage::from_random([1; 16]),
        workspace: &workspace,
        observed: &Observed::default(),
        commit: None,
    })
    .map_err(|e| e.to_string())?;
    Ok((parse, began.elapsed(), planned.plan.changes.len()))
}
