//! What a plan's attributes are called in blueprints, and how their values are written there: the names of specs are the
//! planner's own, and nobody who reads a plan has to know them. The JSON of a plan keeps them.

use plumb_model::Address;
use plumb_model::plan::{AttributeChange, Change};
use serde_json::Value;

use super::words;

/// Beginnings of paths, with what stands for them; the first that fits counts.
const NAMES: [(&str, &str); 33] = [
    ("argv", "run"),
    ("toolchain.runtime", "runtime"),
    ("toolchain", "runtime"),
    ("workdir.artifact", "source"),
    ("workdir.of", "source.kind"),
    ("workdir.dir", "source.dir"),
    ("source.artifact", "source"),
    ("source.of", "source.kind"),
    ("method.steps", "build"),
    ("method.dockerfile.path", "dockerfile"),
    ("method.dockerfile", "dockerfile"),
    ("method", "build"),
    ("wanted.branch", "branch"),
    ("wanted.tag", "tag"),
    ("wanted.commit", "commit"),
    ("wanted", "wanted version"),
    ("content.text", "content"),
    ("content.template", "content"),
    ("content.blob.digest", "content"),
    ("content.blob.size", "content.size"),
    ("image.pulled.reference", "image"),
    ("image.pulled.digest", "image.digest"),
    ("image.built", "image"),
    ("restart.initial_ms", "restart.backoff.initial"),
    ("restart.max_ms", "restart.backoff.max"),
    ("log.max_bytes", "log.max_size"),
    ("health.probe.http", "health"),
    ("health.probe.tcp", "health.tcp"),
    ("health.probe", "health"),
    ("limits.memory_bytes", "limits.memory"),
    ("limits.cpu_millis", "limits.cpu"),
    ("price.monthly_cents", "price.monthly"),
    ("after", "comes after"),
];

/// Ends of names that say the unit, which the value says as well.
const UNITS: [&str; 2] = ["_ms", "_bytes"];

/// What an attribute is called.
pub fn name(path: &str) -> String {
    let found = NAMES.iter().find_map(|(from, to)| {
        let rest = path.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{to}{rest}"))
    });
    let mut name = found.unwrap_or_else(|| path.to_owned());
    if !is_free(path) {
        for unit in UNITS {
            if let Some(short) = name.strip_suffix(unit) {
                name.truncate(short.len());
            }
        }
    }
    words::clean(&name)
}

/// Whether the end of a path is a name that somebody chose.
fn is_free(path: &str) -> bool {
    let first = path.split('.').next().unwrap_or_default();
    matches!(
        first,
        "env" | "labels" | "secrets" | "mounts" | "ports" | "address"
    )
}

/// How a value is written, where that is not as it is in the spec.
pub fn value(path: &str, value: &Value) -> Option<String> {
    if path == "after" {
        let all = value.as_array()?.iter();
        let names: Vec<String> = all.filter_map(|v| short(v.as_str()?)).collect();
        return Some(names.join(", "));
    }
    if let Value::Object(fields) = value {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        return match (
            text("runtime"),
            text("version"),
            text("artifact"),
            text("dir"),
        ) {
            (Some(runtime), Some(version), ..) => {
                Some(words::clean(&format!("{runtime}@{version}")))
            }
            (_, _, Some(hash), Some(dir)) => {
                let hash = super::value::resolved(hash, false);
                Some(match dir {
                    "" => hash,
                    dir => words::clean(&format!("{hash} in {dir}")),
                })
            }
            _ => None,
        };
    }
    if path == "health.probe.http.codes" {
        return codes(value);
    }
    let number = value.as_u64().filter(|_| !is_free(path))?;
    if path == "stop.signal" {
        let mut all = plumb_blueprint::SIGNALS.iter();
        let named = all.find(|(_, signal)| u64::try_from(*signal) == Ok(number));
        return named.map(|(name, _)| (*name).to_owned());
    }
    match path.rsplit('_').next() {
        Some("ms") => Some(duration(number)),
        Some("bytes") => Some(size(number)),
        Some("cents") => Some(format!("{}.{:02}", number / 100, number % 100)),
        Some("millis") => Some(cores(number)),
        _ => None,
    }
}

/// Status codes from ranges: `200-399`, or `[200, 301-302]`.
fn codes(value: &Value) -> Option<String> {
    let one = |range: &Value| {
        let ends = range.as_array()?;
        let (first, last) = (ends.first()?.as_u64()?, ends.get(1)?.as_u64()?);
        Some(match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
    };
    let all: Option<Vec<String>> = value.as_array()?.iter().map(one).collect();
    let all = all?;
    Some(match all.as_slice() {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    })
}

/// `process app/0 of web on web-1`, from an address.
fn short(text: &str) -> Option<String> {
    let address: Address = text.parse().ok()?;
    Some(words::clean(&format!(
        "{} {} of {}",
        address.kind.as_str(),
        address.name,
        address.owner
    )))
}

/// As blueprints have it: `90s`, `5m`.
fn duration(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    let unit = UNITS
        .iter()
        .find(|(unit, _)| ms > 0 && ms.is_multiple_of(*unit));
    match unit {
        Some((unit, letter)) => format!("{}{letter}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// As blueprints have it: `512Mi`.
fn size(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = UNITS
        .iter()
        .find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    match unit {
        Some((bits, letters)) => format!("{}{letters}", bytes >> bits),
        None => bytes.to_string(),
    }
}

/// Thousandths of a core, as blueprints have it: `0.5`.
fn cores(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Whether an attribute says nothing to somebody who knows blueprints: the order in which agents act follows from the
/// rest. It is shown where nothing else is.
pub fn is_inner(change: &Change, attribute: &AttributeChange) -> bool {
    attribute.path == "after" && change.attributes.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn attributes_are_called_and_written_as_in_blueprints() {
        let hash = "0123456789ab".to_owned() + &"c".repeat(52);
        for (path, given, expected) in [
            ("argv", json!(["x"]), "run: -"),
            ("toolchain.version", json!("20.1.0"), "runtime.version: -"),
            (
                "toolchain",
                json!({"runtime": "node", "version": "20.1.0"}),
                "runtime: node@20.1.0",
            ),
            (
                "workdir",
                json!({"artifact": hash, "dir": "web"}),
                "workdir: 0123456789ab… in web",
            ),
            ("stop.grace_ms", json!(90_000), "stop.grace: 90s"),
            ("health.timeout_ms", json!(1_500), "health.timeout: 1500ms"),
            ("log.max_bytes", json!(10_485_760), "log.max_size: 10Mi"),
            ("limits.cpu_millis", json!(1_500), "limits.cpu: 1.5"),
            ("price.monthly_cents", json!(1_205), "price.monthly: 12.05"),
            ("env.WAIT_ms", json!(5), "env.WAIT_ms: -"),
            ("argvs", json!(5), "argvs: -"),
            (
                "after",
                json!(["m/web/artifact/source", "m/db/volume/data"]),
                "comes after: artifact source of web, volume data of db",
            ),
        ] {
            let written = value(path, &given).unwrap_or_else(|| "-".to_owned());
            assert_eq!(format!("{}: {written}", name(path)), expected);
        }
    }

    /// Mutation: write codes, signals and the names of restarts and logs as specs have them.
    #[test]
    fn fields_and_values_are_those_that_blueprints_have() {
        for (path, shown, from, said) in [
            (
                "health.probe.http.codes",
                "health.codes",
                json!([[200, 399]]),
                "200-399",
            ),
            (
                "health.probe.http.codes",
                "health.codes",
                json!([[200, 200], [301, 302]]),
                "[200, 301-302]",
            ),
            ("stop.signal", "stop.signal", json!(15), "TERM"),
            (
                "restart.initial_ms",
                "restart.backoff.initial",
                json!(1000),
                "1s",
            ),
            ("restart.max_ms", "restart.backoff.max", json!(60_000), "1m"),
            ("log.max_bytes", "log.max_size", json!(10 << 20), "10Mi"),
        ] {
            assert_eq!(name(path), shown);
            assert_eq!(value(path, &from).as_deref(), Some(said), "{path}");
        }
    }
}
