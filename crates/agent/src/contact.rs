//! When the control plane was last heard, kept across restarts and reboots, for processes that are to stop without it.
//!
//! Within one boot the time is taken from the kernel's own clock, which no change of the date moves and which counts while
//! the machine sleeps. Over a reboot there is only the date. It is written only where a blueprint asks for it, when the
//! link breaks and at most every half a minute while it stands, along with what wakes the agent anyway.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_model::Timestamp;
use serde::{Deserialize, Serialize};

/// How old the note may be while the link stands: so much longer a process may run on after a crash of the agent.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// A moment, as far as it can be told over a restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Moment {
    boot: String,
    /// Since that boot.
    boot_ms: u64,
    wall: Timestamp,
}

impl Moment {
    fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let uptime = read("/proc/uptime");
        let seconds: f64 = uptime
            .split_whitespace()
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0.0);
        Self {
            boot: read("/proc/sys/kernel/random/boot_id").trim().to_owned(),
            boot_ms: (seconds * 1000.0) as u64,
            wall: Timestamp::now(),
        }
    }

    /// How long after `before` this is, in milliseconds.
    fn since(&self, before: &Self) -> u64 {
        if self.boot == before.boot {
            return self.boot_ms.saturating_sub(before.boot_ms);
        }
        let passed = self.wall.duration_since(before.wall).as_millis();
        u64::try_from(passed).unwrap_or(0)
    }
}

/// The note on the disk.
#[derive(Debug)]
pub struct Contact {
    path: PathBuf,
    noted: Option<Instant>,
    /// Something that is assigned asks for it.
    wanted: bool,
}

impl Contact {
    /// The note in an agent's data folder.
    pub fn new(data: &Path) -> Self {
        Self {
            path: data.join("contact.json"),
            noted: None,
            wanted: false,
        }
    }

    /// For how many milliseconds nothing was heard; none is known: the agent counts from now on.
    pub fn away_ms(&self) -> u64 {
        let noted: Option<Moment> = std::fs::read(&self.path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        noted.map_or(0, |noted| Moment::now().since(&noted))
    }

    /// Whether anything asks for it from now on.
    pub fn wants(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// Notes that the control plane is heard now, or was until now. `at_once`: whenever it was noted before.
    pub fn note(&mut self, at_once: bool) {
        let fresh = self.noted.is_some_and(|at| at.elapsed() < NOTE_EVERY);
        if !self.wanted || (fresh && !at_once) {
            return;
        }
        self.noted = Some(Instant::now());
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&Moment::now()).unwrap_or_default();
            if let Err(error) = crate::folder::replace(&path, &bytes, 0o600) {
                tracing::warn!(%error, "cannot note when the control plane was last heard");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mutation: take the difference of the dates in every case.
    #[test]
    fn a_jump_of_the_date_counts_only_where_there_was_a_reboot() {
        let at = |boot: &str, boot_ms: u64, second: i64| Moment {
            boot: boot.into(),
            boot_ms,
            wall: Timestamp::from_second(second).unwrap(),
        };
        let before = at("a", 5_000, 1_000);
        assert_eq!(at("a", 6_500, 400_000_000).since(&before), 1_500);
        assert_eq!(at("a", 6_500, -5).since(&before), 1_500);
        assert_eq!(at("b", 10, 1_060).since(&before), 60_000);
        assert_eq!(at("b", 10, 5).since(&before), 0, "it went back");
    }
}
