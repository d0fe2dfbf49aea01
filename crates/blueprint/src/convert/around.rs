//! What stands around a workload: addresses, limits, secrets, hooks, rollouts, routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use plumb_model::spec_source::TaskMoment;
use plumb_model::state::{Rollout, RolloutStrategy};
use plumb_model::{Limits, OnDisconnect, OnSecretChange, SecretForm, SecretName};

use super::process::{self, Command};
use super::tuning::SIGNALS;
use super::{Node, Reader, Use};
use crate::code::Code;
use crate::diagnostic::{Diagnostic, Spot, quote};
use crate::nearest::nearest;
use crate::set::{Hook, Publish, RouteDecl, SecretDecl};

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// How long a hook may take unless the blueprint says otherwise.
const HOOK_TIMEOUT_MS: u64 = 600_000;

/// The shortest and the longest time that processes may run without the control plane, if not for ever: a short break of
/// the line must not stop them.
const STOP_AFTER_MS: std::ops::RangeInclusive<u64> = 10_000..=365 * DAY_MS;

/// What becomes of processes while the control plane is not heard.
pub(crate) fn on_disconnect<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<OnDisconnect> {
    let after = r.get(node, "stop_after")?;
    let stop_after_ms = r.duration(&after, STOP_AFTER_MS)?;
    Some(OnDisconnect { stop_after_ms })
}

/// Where a port can be reached.
pub(crate) fn publish<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<Publish> {
    const WORDS: [&str; 3] = ["loopback", "private", "public"];
    let text = r.text(node)?;
    let hint = match (text, text.parse::<IpAddr>()) {
        ("loopback", _) => return Some(Publish::Loopback),
        ("private", _) => return Some(Publish::Private),
        ("public", _) => return Some(Publish::Public),
        (_, Ok(ip)) if ip.is_loopback() => return Some(Publish::Loopback),
        (_, Ok(ip)) if !ip.is_unspecified() && !ip.is_multicast() => {
            return Some(Publish::Address(ip.to_string()));
        }
        (_, Ok(_)) => "write `public` for every address of the machine".to_owned(),
        _ => match nearest(text, WORDS) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "it takes `loopback`, `private`, `public` or an IP address of the machine"
                .to_owned(),
        },
    };
    r.bad(
        node,
        Code::BadHost,
        format!("{} is no place where a port can be reached", quote(text)),
        Some(&hint),
    );
    None
}

/// What may be used up, as far as it is written.
pub(crate) fn limits<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Limits {
    let memory = r.get(node, "memory");
    let memory_bytes =
        memory.and_then(|memory| r.size(&memory, (4 << 20)..=(16384 << 30), "4Mi and 16384Gi"));
    let cpu_millis = r.get(node, "cpu").and_then(|cpu| {
        let cores = cpu.value.as_f64()?;
        let millis = crate::scalar::cpu_millis(cores);
        if millis.is_none() && !r.is_reported(&cpu) {
            r.bad(
                &cpu,
                Code::OutOfRange,
                "a number of CPU cores has at most three decimals",
                Some("write it like `1.5`"),
            );
        }
        millis
    });
    Limits {
        memory_bytes,
        cpu_millis,
        processes: r.get_number(node, "processes").map(u64::from),
    }
}

/// These limits, and those of `base` where there are none.
pub(crate) fn limits_over(own: Limits, base: &Limits) -> Limits {
    Limits {
        memory_bytes: own.memory_bytes.or(base.memory_bytes),
        cpu_millis: own.cpu_millis.or(base.cpu_millis),
        processes: own.processes.or(base.processes),
    }
}

/// None if nothing is limited.
pub(crate) fn any_limits(limits: Limits) -> Option<Limits> {
    (limits != Limits::default()).then_some(limits)
}

/// A secret that is handed in, and where it is written.
#[derive(Debug, Clone)]
pub(crate) struct ReadSecret {
    pub decl: SecretDecl,
    pub spot: Spot,
}

/// A secret with the defaults for how it is handed over.
fn handed_over(secret: SecretName) -> SecretDecl {
    SecretDecl {
        secret,
        form: SecretForm::Env,
        on_change: OnSecretChange::Restart,
        memory_only: false,
    }
}

/// Reads how a secret is handed over.
fn how_handed_over<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, secret: SecretName) -> SecretDecl {
    let mut out = handed_over(secret);
    if let Some(form) = r.get(node, "as") {
        let choices = [("env", SecretForm::Env), ("file", SecretForm::File)];
        out.form = r.choice(&form, &choices).unwrap_or(out.form);
    }
    out.memory_only = r.get_bool(node, "memory_only").unwrap_or(false);
    let Some(told) = r.get(node, "on_change") else {
        return out;
    };
    out.on_change = if told.value.is_object() {
        r.get(&told, "signal")
            .and_then(|signal| r.choice(&signal, &SIGNALS))
            .map_or(OnSecretChange::Restart, OnSecretChange::Signal)
    } else {
        let words = [
            ("restart", OnSecretChange::Restart),
            ("reload", OnSecretChange::Reload),
            ("nothing", OnSecretChange::Nothing),
        ];
        r.choice(&told, &words).unwrap_or_default()
    };
    if out.form == SecretForm::Env && out.on_change != OnSecretChange::Restart {
        r.bad(
            &told,
            Code::KeyOutOfPlace,
            "a new version of a secret in the environment reaches a process only by a restart"
                .to_owned(),
            Some("hand it over `as: file`, or remove `on_change`"),
        );
        out.on_change = OnSecretChange::Restart;
    }
    out
}

/// Secrets in any of their forms, by variable.
pub(crate) fn secrets<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> BTreeMap<String, ReadSecret> {
    let mut out = BTreeMap::new();
    if node.value.is_array() {
        for item in r.items(node) {
            let Some(secret) = r.secret_name(&item) else {
                continue;
            };
            if !crate::scalar::is_env_name(secret.as_str()) {
                r.bad(
                    &item,
                    Code::BadEnvName,
                    format!(
                        "{} cannot be the name of an environment variable",
                        quote(secret.as_str())
                    ),
                    Some(&format!(
                        "name the variable too: `secrets: {{ MY_KEY: {secret} }}`"
                    )),
                );
                continue;
            }
            let variable = secret.as_str().to_owned();
            let read = ReadSecret {
                decl: handed_over(secret),
                spot: r.key_spot(&item),
            };
            if let Some(first) = out.insert(variable, read) {
                let again = r.spot(&item);
                r.twice("secret", &again, &first.spot);
            }
        }
        return out;
    }
    for (variable, node) in r.entries(node) {
        if !crate::scalar::is_env_name(variable) {
            r.bad_key(
                &node,
                Code::BadEnvName,
                format!(
                    "{} cannot be the name of an environment variable",
                    quote(variable)
                ),
                Some("use letters, digits and `_`, and do not start with a digit"),
            );
            continue;
        }
        let named = if node.value.is_object() {
            r.get(&node, "secret")
        } else {
            Some(node)
        };
        let secret = match named {
            Some(named) => r.secret_name(&named),
            // Every variable's name is a secret's, but for one that begins with `_`.
            None => match SecretName::new(variable) {
                Ok(name) => Some(name),
                Err(_) => {
                    r.bad_key(
                        &node,
                        Code::BadName,
                        format!("{} is no name of a secret", quote(variable)),
                        Some("name it: `secret: my-key`"),
                    );
                    None
                }
            },
        };
        if let Some(secret) = secret {
            let decl = if node.value.is_object() {
                how_handed_over(r, &node, secret)
            } else {
                handed_over(secret)
            };
            let spot = r.key_spot(&node);
            out.insert(variable.to_owned(), ReadSecret { decl, spot });
        }
    }
    out
}

/// Commands around each release: those before, then those after, each in its order.
pub(crate) fn hooks<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, uses: &mut Vec<Use>) -> Vec<Hook> {
    let mut out = Vec::new();
    for (key, moment) in [("before", TaskMoment::Before), ("after", TaskMoment::After)] {
        let Some(node) = r.get(node, key) else {
            continue;
        };
        let all = if node.value.is_array() {
            r.items(&node)
        } else {
            vec![node]
        };
        for node in all {
            let full = node.value.is_object();
            let run = if full {
                r.get(&node, "run")
            } else {
                Some(node)
            };
            let mut hook = Hook {
                moment,
                argv: Vec::new(),
                reversible: true,
                timeout_ms: HOOK_TIMEOUT_MS,
            };
            if full {
                hook.reversible = r.get_bool(&node, "reversible").unwrap_or(true);
                if let Some(timeout) = r.get(&node, "timeout") {
                    let timeout = r.duration(&timeout, 1000..=DAY_MS);
                    hook.timeout_ms = timeout.unwrap_or(HOOK_TIMEOUT_MS);
                }
            }
            if let Some(Command { argv, .. }) = run.map(|run| process::command(r, &run, uses)) {
                hook.argv = argv;
                out.push(hook);
            }
        }
    }
    out
}

/// A rollout as far as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RolloutParts {
    strategy: Option<RolloutStrategy>,
    batch: Option<u32>,
    max_unavailable: Option<u32>,
    min_healthy_ms: Option<u64>,
    deadline_ms: Option<u64>,
    auto_revert: Option<bool>,
}

impl RolloutParts {
    /// These, and those of `base` where there are none.
    pub fn over(self, base: &Self) -> Self {
        Self {
            strategy: self.strategy.or(base.strategy),
            batch: self.batch.or(base.batch),
            max_unavailable: self.max_unavailable.or(base.max_unavailable),
            min_healthy_ms: self.min_healthy_ms.or(base.min_healthy_ms),
            deadline_ms: self.deadline_ms.or(base.deadline_ms),
            auto_revert: self.auto_revert.or(base.auto_revert),
        }
    }

    /// With the defaults; none if nothing is written.
    pub fn finish(&self) -> Option<Rollout> {
        if *self == Self::default() {
            return None;
        }
        let base = Rollout::default();
        let strategy = self.strategy.unwrap_or(base.strategy);
        let batch = self.batch.unwrap_or(base.batch);
        // What stops first cannot do without one that is away.
        let away = match strategy {
            RolloutStrategy::Rolling => batch,
            _ => base.max_unavailable,
        };
        Some(Rollout {
            strategy,
            batch,
            max_unavailable: self.max_unavailable.unwrap_or(away),
            min_healthy_ms: self.min_healthy_ms.unwrap_or(base.min_healthy_ms),
            deadline_ms: self.deadline_ms.unwrap_or(base.deadline_ms),
            auto_revert: self.auto_revert.unwrap_or(base.auto_revert),
        })
    }
}

/// How machines move from one release to the next.
pub(crate) fn rollout<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> RolloutParts {
    let full = node.value.is_object();
    let strategy = if full {
        r.get(node, "strategy")
    } else {
        Some(*node)
    };
    let choices = [
        ("blue-green", RolloutStrategy::BlueGreen),
        ("rolling", RolloutStrategy::Rolling),
        ("canary", RolloutStrategy::Canary),
    ];
    let mut out = RolloutParts {
        strategy: strategy.and_then(|strategy| r.choice(&strategy, &choices)),
        ..RolloutParts::default()
    };
    if !full {
        return out;
    }
    out.batch = r.get_number(node, "batch");
    out.max_unavailable = r.get_number(node, "max_unavailable");
    out.auto_revert = r.get_bool(node, "auto_revert");
    if let Some(node) = r.get(node, "min_healthy") {
        out.min_healthy_ms = r.duration(&node, 0..=DAY_MS);
    }
    let deadline = r.get(node, "deadline");
    if let Some(node) = &deadline {
        out.deadline_ms = r.duration(node, 1000..=DAY_MS);
    }
    let finished = out.finish().unwrap_or_default();
    if finished.min_healthy_ms >= finished.deadline_ms {
        let at = r.get(node, "min_healthy").or(deadline);
        if let Some(at) = at {
            r.bad(
                &at,
                Code::OutOfRange,
                "no instance can prove itself before the deadline",
                Some("let `deadline` be longer than `min_healthy`"),
            );
        }
    }
    if finished.strategy == RolloutStrategy::Rolling
        && out.max_unavailable == Some(0)
        && let Some(at) = r.get(node, "max_unavailable")
    {
        r.bad(
            &at,
            Code::OutOfRange,
            "the strategy `rolling` stops the old one first, so at least one is unavailable",
            Some("write `max_unavailable: 1`, or `strategy: blue-green`"),
        );
    }
    out
}

/// The hosts and paths that lead to an app, in their order.
pub(crate) fn routes<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Vec<(RouteDecl, Spot)> {
    let mut out: Vec<(RouteDecl, Spot)> = Vec::new();
    for item in r.items(node) {
        let Some(route) = route(r, &item) else {
            continue;
        };
        let spot = r.spot(&item);
        match out.iter().find(|(known, _)| *known == route) {
            Some((_, first)) => r.out.push(
                Diagnostic::error(
                    Code::RouteClash,
                    format!("the route {} stands here twice", quote(&shown(&route))),
                )
                .at(&spot, "again here")
                .at(first, "first here")
                .hint("remove one of them"),
            ),
            None => out.push((route, spot)),
        }
    }
    out
}

/// A route as people write it.
pub(crate) fn shown(route: &RouteDecl) -> String {
    match route.path.as_str() {
        "/" => route.host.clone(),
        path => format!("{}{path}", route.host),
    }
}

fn route<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<RouteDecl> {
    let (host, path) = if node.value.is_object() {
        let (host, path) = (r.get(node, "host"), r.get(node, "path"));
        let host = host.and_then(|host| Some((r.with_vars(&host)?, host)));
        let path = path.map(|path| Some((r.with_vars(&path)?, path)));
        let path = match path {
            Some(path) => path?,
            None => ("/".to_owned(), *node),
        };
        (host?, path)
    } else {
        let text = r.with_vars(node)?;
        // A scheme is told of below; its slashes are no path.
        let (host, path) = match text.split_once('/') {
            Some((host, path)) if !text.contains("://") => (host.to_owned(), format!("/{path}")),
            _ => (text, "/".to_owned()),
        };
        ((host, *node), (path, *node))
    };
    let checked = |r: &mut Reader<'a, '_>,
                   (text, at): (String, Node<'a>),
                   check: fn(&str) -> Result<String, &'static str>,
                   what: &str| {
        match check(&text) {
            Ok(good) => Some(good),
            Err(problem) => {
                r.bad(
                    &at,
                    Code::BadRoute,
                    format!("{} is no {what} of a route", quote(&text)),
                    Some(problem),
                );
                None
            }
        }
    };
    let host = checked(r, host, crate::scalar::route_host, "host");
    let path = checked(r, path, crate::scalar::route_path, "path");
    Some(RouteDecl {
        host: host?,
        path: path?,
    })
}
