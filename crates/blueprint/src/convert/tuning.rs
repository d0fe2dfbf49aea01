//! The settings that have defaults in the manifest: restart, stop, log, drift, user and environment.

use std::collections::BTreeMap;

use plumb_model::{DriftPolicy, Limits, LogSpec, RestartPolicy, RestartSpec, StopSpec};

use super::around::{self, RolloutParts};
use super::process::{self, ReadHealth};
use super::{Node, Reader, Rendered};
use crate::code::Code;
use crate::diagnostic::{Spot, quote};

/// The longest time that any setting may ask for.
const HOUR_MS: u64 = 3_600_000;
/// The smallest log worth rotating: one page.
const MIN_LOG_BYTES: u64 = 4 << 10;
/// The largest log: rotation must not be a way to fill a disk.
const MAX_LOG_BYTES: u64 = 512 << 20;

/// The settings as far as they are written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tuning {
    pub env: BTreeMap<String, Rendered>,
    pub policy: Option<RestartPolicy>,
    pub initial_ms: Option<u64>,
    pub max_ms: Option<u64>,
    pub signal: Option<i32>,
    pub grace_ms: Option<u64>,
    pub max_bytes: Option<u64>,
    pub keep: Option<u32>,
    pub drift: Option<DriftPolicy>,
    pub user: Option<String>,
    pub limits: Limits,
    pub rollout: RolloutParts,
    /// The health check of what has none of its own; filled in only for the manifest's defaults.
    pub health: Option<ReadHealth>,
    /// Where the variables are written; filled in only for the manifest's defaults, which are another document.
    pub env_spots: BTreeMap<String, Spot>,
}

impl Tuning {
    /// These settings, and those of `base` where there are none.
    pub fn over(self, base: &Self) -> Self {
        let mut env = base.env.clone();
        env.extend(self.env);
        let mut env_spots = base.env_spots.clone();
        env_spots.extend(self.env_spots);
        Self {
            env,
            env_spots,
            limits: around::limits_over(self.limits, &base.limits),
            rollout: self.rollout.over(&base.rollout),
            health: self.health.or_else(|| base.health.clone()),
            policy: self.policy.or(base.policy),
            initial_ms: self.initial_ms.or(base.initial_ms),
            max_ms: self.max_ms.or(base.max_ms),
            signal: self.signal.or(base.signal),
            grace_ms: self.grace_ms.or(base.grace_ms),
            max_bytes: self.max_bytes.or(base.max_bytes),
            keep: self.keep.or(base.keep),
            drift: self.drift.or(base.drift),
            user: self.user.or_else(|| base.user.clone()),
        }
    }

    /// Always, at once, then after 1 s, 2 s and so on up to 1 m.
    pub fn restart(&self) -> RestartSpec {
        let initial_ms = self.initial_ms.unwrap_or(1000);
        RestartSpec {
            policy: self.policy.unwrap_or(RestartPolicy::Always),
            initial_ms,
            // A longer first wait moves the default bound, so that one of the two may be left out.
            max_ms: self.max_ms.unwrap_or(60_000.max(initial_ms)),
        }
    }

    /// TERM, and 10 s.
    pub fn stop(&self) -> StopSpec {
        StopSpec {
            signal: self.signal.unwrap_or(15),
            grace_ms: self.grace_ms.unwrap_or(10_000),
        }
    }

    /// 10 MiB, and three older ones.
    pub fn log(&self) -> LogSpec {
        LogSpec {
            max_bytes: self.max_bytes.unwrap_or(10 << 20),
            keep: self.keep.unwrap_or(3),
        }
    }
}

/// The signals that a blueprint may name, with their numbers in Linux on x86-64 and aarch64.
pub const SIGNALS: [(&str, i32); 7] = [
    ("TERM", 15),
    ("INT", 2),
    ("QUIT", 3),
    ("HUP", 1),
    ("USR1", 10),
    ("USR2", 12),
    ("WINCH", 28),
];

/// Reads the settings of the apps' defaults.
pub(crate) fn defaults<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Tuning {
    let mut out = read(r, node);
    out.user = user(r, node);
    if let Some(health) = r.get(node, "health") {
        out.health = process::health(r, &health);
    }
    if let Some(env) = r.get(node, "env") {
        for (key, value) in r.entries(&env) {
            out.env_spots.insert(key.to_owned(), r.key_spot(&value));
        }
    }
    out
}

/// Reads the settings of an app, its user apart: that of a container has another form.
pub(crate) fn read<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Tuning {
    let mut out = Tuning::default();
    if let Some(env) = r.get(node, "env") {
        out.env = r.env(&env);
    }
    if let Some(restart) = r.get(node, "restart") {
        read_restart(r, &restart, &mut out);
    }
    if let Some(stop) = r.get(node, "stop") {
        let full = stop.value.is_object();
        let grace = if full {
            r.get(&stop, "grace")
        } else {
            Some(stop)
        };
        out.grace_ms = grace.and_then(|grace| r.duration(&grace, 0..=HOUR_MS));
        if full && let Some(signal) = r.get(&stop, "signal") {
            out.signal = r.choice(&signal, &SIGNALS);
        }
    }
    if let Some(log) = r.get(node, "log") {
        let full = log.value.is_object();
        let size = if full {
            r.get(&log, "max_size")
        } else {
            Some(log)
        };
        out.max_bytes = size.and_then(|size| log_size(r, &size));
        if full {
            out.keep = r.get_number(&log, "keep");
        }
    }
    out.drift = drift(r, node);
    if let Some(limits) = r.get(node, "limits") {
        out.limits = around::limits(r, &limits);
    }
    if let Some(rollout) = r.get(node, "rollout") {
        out.rollout = around::rollout(r, &rollout);
    }
    out
}

/// The user that native processes run as.
pub(crate) fn user<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<String> {
    let (text, at) = r.get_text(node, "user")?;
    if crate::scalar::is_user(text) {
        return Some(text.to_owned());
    }
    r.bad(
        &at,
        Code::BadUser,
        format!("{} cannot be a user's name", quote(text)),
        Some("use at most 32 of a-z, 0-9, `_` and `-`, and start with a letter or `_`"),
    );
    None
}

/// What is done about drift.
pub(crate) fn drift<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<DriftPolicy> {
    let drift = r.get(node, "drift")?;
    let choices = [
        ("enforce", DriftPolicy::Enforce),
        ("report", DriftPolicy::Report),
        ("ignore", DriftPolicy::Ignore),
    ];
    r.choice(&drift, &choices)
}

fn read_restart<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>, out: &mut Tuning) {
    let full = node.value.is_object();
    let policy = if full {
        r.get(node, "policy")
    } else {
        Some(*node)
    };
    let choices = [
        ("always", RestartPolicy::Always),
        ("on-failure", RestartPolicy::OnFailure),
        ("never", RestartPolicy::Never),
    ];
    out.policy = policy.and_then(|policy| r.choice(&policy, &choices));
    let Some(backoff) = full.then(|| r.get(node, "backoff")).flatten() else {
        return;
    };
    let initial = r.get(&backoff, "initial");
    let max = r.get(&backoff, "max");
    out.initial_ms = initial.and_then(|node| r.duration(&node, 10..=HOUR_MS));
    out.max_ms = max.as_ref().and_then(|node| r.duration(node, 10..=HOUR_MS));
    if let (Some(initial), Some(most), Some(node)) = (out.initial_ms, out.max_ms, max)
        && initial > most
    {
        r.bad(
            &node,
            Code::OutOfRange,
            "the longest wait is shorter than the first one",
            Some("let `max` be at least `initial`"),
        );
    }
}

fn log_size<'a>(r: &mut Reader<'a, '_>, node: &Node<'a>) -> Option<u64> {
    let text = r.text(node)?;
    match crate::scalar::size_bytes(text) {
        Ok(bytes) if (MIN_LOG_BYTES..=MAX_LOG_BYTES).contains(&bytes) => Some(bytes),
        Ok(_) => {
            r.bad(
                node,
                Code::OutOfRange,
                format!("a log of {} must lie between 4Ki and 512Mi", quote(text)),
                None,
            );
            None
        }
        Err(problem) => {
            r.bad(
                node,
                Code::BadSize,
                format!("{} is no size", quote(text)),
                Some(problem),
            );
            None
        }
    }
}
