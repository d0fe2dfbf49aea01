//! The blueprint that would keep what stands at a file which somebody holds. It is text for people: nothing is written.

use plumb_model::escape;
use plumb_wire::v1;

use crate::out::Style;
use crate::render::plan::diff::{Tag, unified};

/// How what stands there differs from what is recorded, and what to write to keep it; none where that is not known.
pub fn patch(order: &v1::HandOrder, style: &Style) -> Option<String> {
    let found = order.found.as_deref()?;
    let path = order.resource.splitn(4, '/').nth(3)?;
    if order.recorded.as_deref() == Some(found) {
        return None;
    }
    let mut text = String::new();
    if let Some(recorded) = &order.recorded {
        for line in unified(recorded, found) {
            let said = format!("    {}{}", line.tag.sign(), line.text());
            let said = match line.tag {
                Tag::Old => style.bad(&said),
                Tag::New => style.good(&said),
                Tag::Place | Tag::Same => said,
            };
            text.push_str(&said);
            text.push('\n');
        }
    }
    text.push_str(&format!(
        "  to keep it, write into the Setup {}:\n",
        order.owner
    ));
    text.push_str("    files:\n");
    text.push_str(&format!("      {}:\n", key(path)));
    if order.drift.contains("mode") && !order.found_mode.is_empty() {
        text.push_str(&format!("        mode: \"{}\"\n", order.found_mode));
    }
    text.push_str(&content(found));
    Some(text)
}

/// A key of YAML.
fn key(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if path.chars().all(plain) {
        return path.to_owned();
    }
    quoted(path)
}

/// JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `${` begins a reference in a blueprint.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

fn content(found: &str) -> String {
    let text = literal(found);
    // A block keeps every line as it is, if none of them holds what nobody sees and the first does not begin with a space.
    let seen = |line: &str| escape::line(line) == line && !line.ends_with(' ');
    let block = text.ends_with('\n')
        && !text.ends_with("\n\n")
        && !text.contains('\r')
        && !text.starts_with([' ', '\n'])
        && text.lines().all(seen);
    if !block {
        return format!("        content: {}\n", quoted(&text));
    }
    let mut out = String::from("        content: |\n");
    for line in text.lines() {
        if line.is_empty() {
            out.push('\n');
        } else {
            out.push_str(&format!("          {line}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style() -> Style {
        Style {
            color: false,
            live: false,
        }
    }

    fn order(found: &str, recorded: Option<&str>) -> v1::HandOrder {
        v1::HandOrder {
            owner: "base".into(),
            resource: "web-1/base/file//etc/motd".into(),
            drift: "content: 12 bytes".into(),
            found: Some(found.into()),
            recorded: recorded.map(Into::into),
            ..v1::HandOrder::default()
        }
    }

    #[test]
    fn what_stands_there_is_shown_as_a_diff_and_as_the_blueprint_that_keeps_it() {
        let shown = patch(&order("one\n${x}\n", Some("one\ntwo\n")), &style()).unwrap();
        insta::assert_snapshot!(shown, @r"
            @@ -1,2 +1,2 @@
             one
            -two
            +${x}
          to keep it, write into the Setup base:
            files:
              /etc/motd:
                content: |
                  one
                  $${x}
        ");
    }

    #[test]
    fn what_a_block_would_not_keep_is_quoted_and_nothing_hostile_is_shown_raw() {
        for hostile in ["no end", " leading\n", "a\x1b[2Jb\n", "a \n", "", "x\r\n"] {
            let shown = patch(&order(hostile, None), &style()).unwrap();
            assert!(
                !shown.contains('\x1b') && !shown.contains('\r'),
                "{shown:?}"
            );
            let line = shown.lines().last().unwrap();
            let json = line.trim().trim_start_matches("content: ");
            let value: Option<String> = serde_json::from_str(json).ok();
            assert_eq!(value.as_deref(), Some(hostile), "{shown}");
        }
        assert_eq!(patch(&order("same\n", Some("same\n")), &style()), None);
    }
}
