//! The settings of the daemons: flag, then environment, then file, then default, and where each came from.
//!
//! A config file is one YAML mapping of names to plain values. A name that is not known, or that comes twice, is refused
//! with its place: a setting that is misspelt must not be one that silently does not count. No secret is a setting: a
//! join token is handed over in the environment, once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use plumb_model::escape;
use saphyr_parser::{Event, Parser, ScalarStyle};

use crate::error::CliError;

/// The most bytes of a config file.
const MAX_BYTES: u64 = 64 * 1024;

/// One setting of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name in the file.
    pub key: &'static str,
    /// Its flag.
    pub flag: &'static str,
    /// Its variable.
    pub env: &'static str,
    /// What holds if nobody says anything; none if somebody has to, or if it is off then.
    pub default: Option<&'static str>,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The command line.
    Flag(&'static str),
    /// The environment.
    Env(&'static str),
    /// The file, at line and column.
    File(PathBuf, usize, usize),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(variable) => f.write_str(variable),
            Self::File(path, line, column) => write!(f, "{}:{line}:{column}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// What was said.
    pub text: String,
    /// By whom.
    pub source: Source,
}

/// All settings of a daemon, as they hold.
#[derive(Debug)]
pub struct Resolved {
    settings: &'static [Setting],
    values: BTreeMap<&'static str, Value>,
}

/// Where settings are looked for besides the command line.
pub struct Places<'a> {
    /// The file that was asked for.
    pub asked: Option<&'a Path>,
    /// The file that is read where there is one and none was asked for.
    pub usual: &'a Path,
    /// Looks a variable of the environment up.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// Finds out what holds. `flags` are those that were given, by key.
///
/// # Errors
/// When the file cannot be read or says something that nobody knows.
pub fn resolve(
    settings: &'static [Setting],
    flags: &[(&'static str, Option<String>)],
    places: &Places<'_>,
) -> Result<Resolved, CliError> {
    let file = match places.asked {
        Some(path) => read(path)?.map(|text| (path, text)).ok_or_else(|| {
            CliError::Other(format!(
                "there is no config file {}; write one, or leave --config out",
                path.display()
            ))
        })?,
        None => (places.usual, read(places.usual)?.unwrap_or_default()),
    };
    let mut in_file = parse(file.0, &file.1, settings)?;
    let mut values = BTreeMap::new();
    for setting in settings {
        let by_flag = || {
            let (_, text) = flags.iter().find(|(key, _)| *key == setting.key)?;
            Some((text.clone()?, Source::Flag(setting.flag)))
        };
        let by_env = || {
            let text = (places.env)(setting.env).filter(|text| !text.is_empty())?;
            Some((text, Source::Env(setting.env)))
        };
        let by_default = || Some((setting.default?.to_owned(), Source::Default));
        let written = in_file.remove(setting.key);
        let found = by_flag().or_else(by_env).or(written).or_else(by_default);
        if let Some((text, source)) = found {
            values.insert(setting.key, Value { text, source });
        }
    }
    Ok(Resolved { settings, values })
}

fn read(path: &Path) -> Result<Option<String>, CliError> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_BYTES => Err(CliError::Other(format!(
            "the config file {} has more than 64 KiB; it is none",
            path.display()
        ))),
        Ok(_) => std::fs::read_to_string(path)
            .map(Some)
            .map_err(CliError::file("read the config file", path)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CliError::file("read the config file", path)(e)),
    }
}

type Written = BTreeMap<&'static str, (String, Source)>;

/// Reads the file's one mapping.
fn parse(path: &Path, text: &str, settings: &'static [Setting]) -> Result<Written, CliError> {
    let at = |line: usize, column: usize, what: String| {
        CliError::Other(format!("{}:{line}:{column}: {what}", path.display()))
    };
    let known = || {
        settings
            .iter()
            .map(|s| s.key)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut written = Written::new();
    let mut depth = 0_u32;
    let mut key: Option<(&'static Setting, usize, usize)> = None;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            at(
                marker.line(),
                marker.col() + 1,
                format!("this is not YAML: {}", error.info()),
            )
        })?;
        let (line, column) = (span.start.line(), span.start.col() + 1);
        let plain_only = || {
            at(
                line,
                column,
                "a setting is one name with one plain value, as in `listen: 0.0.0.0:7700`"
                    .to_owned(),
            )
        };
        match event {
            Event::MappingStart(..) if depth == 0 => depth = 1,
            Event::MappingEnd => depth = 0,
            Event::DocumentStart(_) if !written.is_empty() => {
                return Err(at(line, column, "a config file is one document".to_owned()));
            }
            Event::Scalar(value, style, ..) => match key.take() {
                // An empty file is one empty scalar.
                None if depth == 0 && value.is_empty() => {}
                None if depth == 0 => return Err(plain_only()),
                None => {
                    let setting = settings.iter().find(|s| s.key == value).ok_or_else(|| {
                        let name = escape::line(&value).into_owned();
                        let hint = match name.as_str() {
                            "token" | "join" => {
                                "; a join token is handed over in PLUMB_JOIN_TOKEN, once"
                            }
                            _ => "",
                        };
                        at(
                            line,
                            column,
                            format!("there is no setting {name:?}; there are: {}{hint}", known()),
                        )
                    })?;
                    if let Some((_, first)) = written.get(setting.key) {
                        return Err(at(
                            line,
                            column,
                            format!(
                                "{} is set a second time; the first is at {first}",
                                setting.key
                            ),
                        ));
                    }
                    key = Some((setting, line, column));
                }
                Some((setting, ..)) if value.is_empty() && style == ScalarStyle::Plain => {
                    return Err(at(
                        line,
                        column,
                        format!(
                            "{} has no value; write one, or leave the line out",
                            setting.key
                        ),
                    ));
                }
                Some((setting, ..)) => {
                    let source = Source::File(path.to_owned(), line, column);
                    written.insert(setting.key, (value.into_owned(), source));
                }
            },
            Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(_) => {
                return Err(plain_only());
            }
            _ => {}
        }
    }
    Ok(written)
}

impl Resolved {
    /// A value, read as what it should be; none if nobody says anything and nothing holds then.
    ///
    /// # Errors
    /// When what was said is not such a value: what, where, and why.
    pub fn get<T: FromStr>(&self, key: &'static str) -> Result<Option<T>, CliError>
    where
        T::Err: fmt::Display,
    {
        self.get_with(key, |text| text.parse().map_err(|e: T::Err| e.to_string()))
    }

    /// The same, with a reading of one's own.
    ///
    /// # Errors
    /// When the reading fails.
    pub fn get_with<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, CliError> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        read(&value.text).map(Some).map_err(|why| {
            CliError::Other(format!(
                "{}: {key} cannot be {:?}: {why}",
                value.source,
                escape::line(&value.text)
            ))
        })
    }

    /// A value that somebody has to give.
    ///
    /// # Errors
    /// When nobody does.
    pub fn need<T: FromStr>(&self, key: &'static str, usual: &Path) -> Result<T, CliError>
    where
        T::Err: fmt::Display,
    {
        self.get(key)?.ok_or_else(|| {
            let setting = self.settings.iter().find(|s| s.key == key);
            let (flag, env) = setting.map_or(("", ""), |s| (s.flag, s.env));
            CliError::Other(format!(
                "{key} is needed and nobody says it: give {flag}, set {env}, or write `{key}: …` into {}",
                usual.display()
            ))
        })
    }

    /// Every setting with its value and where that came from.
    pub fn all(&self) -> impl Iterator<Item = (&'static Setting, Option<&Value>)> {
        self.settings
            .iter()
            .map(|setting| (setting, self.values.get(setting.key)))
    }
}

/// Shows what holds and where it came from: `plumb server --print-config`.
pub fn print(resolved: &Resolved, env: &crate::commands::Env<'_>) {
    if env.output == crate::args::Output::Json {
        let settings: serde_json::Map<_, _> = resolved
            .all()
            .map(|(setting, value)| {
                let value = value.map(|value| {
                    serde_json::json!({ "value": value.text, "from": value.source.to_string() })
                });
                (setting.key.to_owned(), value.unwrap_or_default())
            })
            .collect();
        crate::out::json(&serde_json::json!({ "format": 1, "settings": settings }));
        return;
    }
    let rows: Vec<Vec<String>> = resolved
        .all()
        .map(|(setting, value)| {
            let (text, from) = match value {
                Some(value) => (value.text.as_str(), value.source.to_string()),
                None => ("-", format!("not set: {} or {}", setting.flag, setting.env)),
            };
            vec![
                format!("{}:", setting.key),
                escape::line(text).into_owned(),
                env.style.faint(&format!("# {}", escape::line(&from))),
            ]
        })
        .collect();
    crate::out::print(&crate::render::table::table("", &rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &[Setting] = &[
        Setting {
            key: "data",
            flag: "--data",
            env: "T_DATA",
            default: None,
        },
        Setting {
            key: "listen",
            flag: "--listen",
            env: "T_LISTEN",
            default: Some("127.0.0.1:7700"),
        },
    ];

    fn with(file: &str, flag: Option<&str>, env: Option<&str>) -> Result<Resolved, String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("c.yaml");
        std::fs::write(&path, file).unwrap();
        let variable = |name: &str| env.filter(|_| name == "T_LISTEN").map(str::to_owned);
        let places = Places {
            asked: Some(&path),
            usual: Path::new("/nowhere"),
            env: &variable,
        };
        let flags = [("listen", flag.map(str::to_owned))];
        resolve(SETTINGS, &flags, &places)
            .map_err(|e| e.to_string().replace(&path.display().to_string(), "c.yaml"))
    }

    /// Mutation: ask the environment before the flags.
    #[test]
    fn a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default() {
        let file = "# where\nlisten: \"127.0.0.1:1\"\n";
        for (flag, env, file, text, source) in [
            (Some("f"), Some("e"), file, "f", "--listen"),
            (None, Some("e"), file, "e", "T_LISTEN"),
            (None, Some(""), file, "127.0.0.1:1", ":2:9"),
            (None, None, "", "127.0.0.1:7700", "default"),
            (None, None, "---\n# nothing\n", "127.0.0.1:7700", "default"),
            (None, None, "data: /x\n", "127.0.0.1:7700", "default"),
        ] {
            let resolved = with(file, flag, env).unwrap();
            let value = &resolved.values["listen"];
            assert_eq!(value.text, text);
            assert!(
                value.source.to_string().ends_with(source),
                "{}",
                value.source
            );
        }
    }

    #[test]
    fn what_a_file_may_not_say_is_refused_at_its_place() {
        for (file, says) in [
            (
                "listen: a\ndta: /x\n",
                "c.yaml:2:1: there is no setting \"dta\"; there are: data, listen",
            ),
            (
                "token: plumb-join_x\n",
                "c.yaml:1:1: there is no setting \"token\"; there are: data, listen; a join token is handed over in PLUMB_JOIN_TOKEN, once",
            ),
            (
                "data: /a\ndata: /b\n",
                "c.yaml:2:1: data is set a second time; the first is at c.yaml:1:7",
            ),
            (
                "data:\n",
                "c.yaml:1:5: data has no value; write one, or leave the line out",
            ),
            (
                "data: [a]\n",
                "c.yaml:1:7: a setting is one name with one plain value, as in `listen: 0.0.0.0:7700`",
            ),
            (
                "data: {a: b}\n",
                "c.yaml:1:7: a setting is one name with one plain value, as in `listen: 0.0.0.0:7700`",
            ),
            (
                "- data\n",
                "c.yaml:1:1: a setting is one name with one plain value, as in `listen: 0.0.0.0:7700`",
            ),
            (
                "data\n",
                "c.yaml:1:1: a setting is one name with one plain value, as in `listen: 0.0.0.0:7700`",
            ),
            (
                "data: a\n---\nlisten: b\n",
                "c.yaml:2:1: a config file is one document",
            ),
        ] {
            assert_eq!(with(file, None, None).unwrap_err(), says, "{file:?}");
        }
        assert!(
            with("data: \"\n", None, None)
                .unwrap_err()
                .contains("this is not YAML")
        );
    }

    #[test]
    fn a_wrong_value_names_where_it_came_from() {
        let wrong = |r: Resolved| {
            r.get_with("listen", crate::args::listening)
                .unwrap_err()
                .to_string()
        };
        let by_flag = wrong(with("", Some("here"), None).unwrap());
        let said = "--listen: listen cannot be \"here\": write an IP address and a port";
        assert!(by_flag.starts_with(said), "{by_flag}");
        let by_file = wrong(with("listen: x\n", None, None).unwrap());
        assert!(
            by_file.contains("c.yaml:1:9: listen cannot be \"x\""),
            "{by_file}"
        );
        let missing = with("", None, None)
            .unwrap()
            .need::<PathBuf>("data", Path::new("/etc/x.yaml"));
        assert_eq!(
            missing.unwrap_err().to_string(),
            "data is needed and nobody says it: give --data, set T_DATA, or write `data: …` into /etc/x.yaml"
        );
    }
}
