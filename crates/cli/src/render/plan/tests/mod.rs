//! What people read of plans, as snapshots; and what may never be in any of it.

mod fixture;

use super::*;

fn view(format: PlanFormat, width: usize) -> PlanView {
    PlanView {
        format,
        full: false,
        verbose: false,
        width,
        style: Style {
            color: false,
            live: false,
        },
    }
}

fn text(plan: &Plan, width: usize) -> String {
    render(plan, &view(PlanFormat::Text, width))
}

#[test]
fn try_out() {
    let dir = std::env::temp_dir();
    for (name, plan) in [
        ("small", fixture::small()),
        ("rich", fixture::rich()),
        ("large", fixture::large(500, 10)),
    ] {
        for (format, end) in [
            (PlanFormat::Text, "txt"),
            (PlanFormat::Markdown, "md"),
            (PlanFormat::Html, "html"),
        ] {
            let start = std::time::Instant::now();
            let out = render(&plan, &view(format, 80));
            println!("{name} {end}: {:?} {} bytes", start.elapsed(), out.len());
            std::fs::write(dir.join(format!("plan-{name}.{end}")), out).unwrap();
        }
    }
}
