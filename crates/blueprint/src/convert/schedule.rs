//! When something happens by itself: schedules and backups.

use plumb_model::Schedule;
use plumb_model::spec_parts::Overlap;
use plumb_model::spec_service::Backup;

use super::{Node, Reader};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, quote};

/// A week: what runs longer is no run of a schedule.
const LONGEST_RUN_MS: u64 = 7 * 24 * 3_600_000;
/// So many backups are kept unless the blueprint says otherwise: a week of nights.
const KEPT_BACKUPS: u32 = 7;

/// A schedule in any of its forms.
pub(crate) fn read<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<Schedule> {
    if !node.value.is_object() {
        return Some(Schedule {
            cron: cron(r, node)?,
            timezone: "UTC".to_owned(),
            overlap: Overlap::default(),
            timeout_ms: None,
        });
    }
    let timezone = timezone(r, node);
    let overlap = r.get(node, "overlap").and_then(|overlap| {
        let choices = [
            ("skip", Overlap::Skip),
            ("queue", Overlap::Queue),
            ("replace", Overlap::Replace),
            ("allow", Overlap::Allow),
        ];
        r.choice(&overlap, &choices)
    });
    let timeout = r.get(node, "timeout");
    let timeout_ms = timeout.and_then(|timeout| r.duration(&timeout, 1000..=LONGEST_RUN_MS));
    let cron = r.get(node, "cron").and_then(|node| cron(r, &node))?;
    Some(Schedule {
        cron,
        timezone,
        overlap: overlap.unwrap_or_default(),
        timeout_ms,
    })
}

/// Five cron fields. The field that is wrong is pointed at.
fn cron<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    let text = r.text(node)?;
    let problem = match crate::cron::check(text) {
        Ok(cron) => return Some(cron),
        Err(problem) => problem,
    };
    let field = problem
        .field
        .and_then(|at| text.split_ascii_whitespace().nth(at));
    let spot = match field {
        // The same characters may stand in an earlier field too.
        Some(field) => {
            let before = field.as_ptr() as usize - text.as_ptr() as usize;
            let nth = text[..before].matches(field).count();
            r.inside(node, field, nth)
        }
        None => r.spot(node),
    };
    r.out.push(
        Diagnostic::error(Code::BadSchedule, problem.message)
            .here(&spot)
            .hint(problem.hint),
    );
    None
}

fn timezone<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> String {
    let utc = || "UTC".to_owned();
    let Some((text, at)) = r.get_text(node, "timezone") else {
        return utc();
    };
    match crate::cron::check_zone(text) {
        Ok(()) => text.to_owned(),
        Err(meant) => {
            let hint = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "use a name of the IANA database, such as Europe/Berlin or UTC".to_owned(),
            };
            r.bad(
                &at,
                Code::BadTimeZone,
                format!("there is no time zone {}", quote(text)),
                Some(&hint),
            );
            utc()
        }
    }
}

/// When and where data is backed up.
pub(crate) fn backup<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<Backup> {
    let timezone = timezone(r, node);
    let keep = r.get_number(node, "keep").unwrap_or(KEPT_BACKUPS);
    let folder = r.get(node, "to").and_then(|to| {
        let (text, at) = r.get_text(&to, "folder")?;
        match crate::scalar::machine_path(text) {
            Ok(()) => Some(text.to_owned()),
            Err(problem) => {
                r.bad(
                    &at,
                    Code::BadPath,
                    format!("{}: {problem}", quote(text)),
                    None,
                );
                None
            }
        }
    });
    let cron = r.get(node, "cron").and_then(|node| cron(r, &node));
    Some(Backup {
        cron: cron?,
        timezone,
        keep,
        folder: folder?,
    })
}
