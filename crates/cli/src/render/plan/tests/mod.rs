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
    println!("{}", text(&fixture::small(), 80));
    println!("{}", text(&fixture::rich(), 100));
}
