//! `docs/coverage.md`: the coverage contract as a page, written out of the rows themselves so that it cannot lag behind.

use std::fmt::Write as _;

use crate::address::ResourceKind;
use crate::coverage::{Cost, Observed, Redaction, fields};
use crate::injected::INJECTED;

const OPENING: &str = "# Cost and coverage

For each field of each resource kind: what a change of it costs, how the agent sees it on the VM, and whether its value may
be shown. Planner, renderer and agent all read these rows (`crates/model/src/spec.rs`), and this page is generated from them.
";

const INJECTED_OPENING: &str = "
# What Plumb hands in

Every environment variable that Plumb sets by itself (`crates/model/src/injected.rs`). What a blueprint writes under `env`
goes before it. A build is handed the app's `env` without what holds a credential, and none of these: it runs other
people's code.

| variable | who gets it | what is in it |
|---|---|---|
";

/// The whole page, in Markdown.
#[must_use]
pub fn coverage_page() -> String {
    let mut page = OPENING.to_owned();
    for kind in ResourceKind::ALL {
        let _ = write!(
            page,
            "\n## {kind}\n\n| field | a change | observed | shown |\n|---|---|---|---|\n"
        );
        for field in fields(kind) {
            let cost = match field.cost {
                Cost::InPlace => "in place",
                Cost::Reload => "reload",
                Cost::Restart => "restart",
                Cost::Replace => "replace",
            };
            let observed = match field.observed {
                Observed::By(how) => how.to_owned(),
                Observed::Cannot(why) => format!("not: {why}"),
            };
            let shown = match field.redaction {
                Redaction::Public => "yes",
                Redaction::Sensitive => "only that it changed",
            };
            let observed = observed.replace('|', "\\|");
            let _ = writeln!(page, "| `{}` | {cost} | {observed} | {shown} |", field.name);
        }
    }
    page.push_str(INJECTED_OPENING);
    for (variable, who, what) in INJECTED {
        let _ = writeln!(page, "| {variable} | {who} | {what} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refresh with `PLUMB_UPDATE=1 cargo test -p plumb-model coverage_doc`.
    #[test]
    fn the_published_table_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/coverage.md");
        let page = coverage_page();
        if std::env::var_os("PLUMB_UPDATE").is_some() {
            std::fs::write(&path, &page).unwrap();
        }
        assert!(
            std::fs::read_to_string(&path).unwrap_or_default() == page,
            "docs/coverage.md is stale: run `PLUMB_UPDATE=1 cargo test -p plumb-model coverage_doc`"
        );
    }
}
