//! `docs/diagnostics.md`: all codes with their examples, generated so that it cannot lag behind.

use super::{MANIFEST, explanations};

/// The page.
#[must_use]
pub fn diagnostics_page() -> String {
    let mut out = format!(
        "# Diagnostics

What each code of `plumb validate` means. `plumb explain CODE` shows the same. A code never changes its meaning. This page
is generated from the table that the tests run.

Unless an example brings its own plumb.yaml, this one stands beside it:

```yaml
{MANIFEST}```
"
    );
    for one in explanations() {
        out.push_str(&format!(
            "\n## {}: {}\n\n{}\n",
            one.code, one.title, one.text
        ));
        if let Some(wrong) = &one.wrong {
            let env = one.env.as_ref().map(|env| format!(" with `--env {env}`"));
            out.push_str(&format!(
                "\nWrong, as {}{}:\n\n```yaml\n{}```\n\n```text\n{}\n```\n",
                wrong.file,
                env.unwrap_or_default(),
                wrong.text,
                one.shown(false)
            ));
        }
        if let Some(right) = &one.right {
            out.push_str(&format!(
                "\nRight, as {}:\n\n```yaml\n{}```\n",
                right.file, right.text
            ));
        }
    }
    out
}
