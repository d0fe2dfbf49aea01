//! Following an apply until it has converged: progress while it goes on, and the outcome at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use plumb_dispatch::WorkspaceView;
use plumb_dispatch::view::{MachineWord, OwnerView, StateWord};
use plumb_model::{Address, MachineName, OwnerName};

use crate::error::CliError;
use crate::events::Changes;
use crate::out::{self, Style};
use crate::remote::{News, Watch};
use crate::render::status::{event_line, state_word};
use crate::rolling::Rolling;

/// A failure that has lasted this long is one: a first try that fails and a second that does not are no news.
pub const PATIENCE: Duration = Duration::from_millis(1500);

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Everything is as it should be.
    Converged,
    /// Something failed: what, and why.
    Failed(Vec<String>),
    /// Nothing more happens until these machines come.
    Waiting(Vec<String>),
    /// Time ran out: what is not there yet.
    TimedOut(Vec<String>),
}

/// What is followed.
pub struct Follow {
    /// The revision that must have been recorded.
    pub revision: u64,
    /// Only this machine counts; none for all.
    pub machine: Option<MachineName>,
    /// How long to follow.
    pub timeout: Duration,
    /// What to say meanwhile.
    pub tell: Tell,
}

/// What is said while something is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tell {
    /// Lines for people.
    Lines,
    /// Events for programs.
    Events,
    /// Nothing.
    Nothing,
}

/// Follows, and returns the last status too. `view` is the status that the watch has told already, if it has told one: of
/// what has converged by then, no more news comes.
pub async fn follow(
    watch: &mut Watch,
    what: &Follow,
    mut view: Option<WorkspaceView>,
    style: &Style,
) -> Result<(Ended, Option<WorkspaceView>), CliError> {
    let mut until = Instant::now() + what.timeout;
    let mut rolling = Rolling::default();
    let mut progress = Progress::default();
    let mut changes = Changes::default();
    let mut failing_since: Option<Instant> = None;
    let mut first = view.is_some();
    loop {
        let patience = failing_since.map(|since| since + PATIENCE);
        let wake = patience.map_or(until, |p| p.min(until));
        let news = tokio::select! {
            biased;
            () = std::future::ready(()), if std::mem::take(&mut first) => None,
            news = watch.next() => Some(news?.ok_or_else(|| {
                CliError::Other("the control plane went away; run `plumb status` to see how it goes on".to_owned())
            })?),
            () = tokio::time::sleep_until(wake.into()) => None,
        };
        if let Some(News {
            view: newer,
            events,
        }) = news
        {
            for (machine, event) in &events {
                match what.tell {
                    Tell::Lines => out::line(&event_line(machine, event, style)),
                    Tell::Events => crate::events::happened(machine, event),
                    Tell::Nothing => {}
                }
            }
            if newer.is_some() {
                view = newer;
            }
        }
        let Some(view) = view.as_ref().filter(|v| v.revision.0 >= what.revision) else {
            if Instant::now() >= until {
                return Ok((
                    Ended::TimedOut(vec!["the control plane shows no newer status".to_owned()]),
                    view,
                ));
            }
            continue;
        };
        match what.tell {
            Tell::Lines => progress.show(view, what, style),
            Tell::Events => changes.tell(view, what.machine.as_ref()),
            Tell::Nothing => {}
        }
        if let Some(ended) = rolling.look(view, what, &mut until) {
            match ended {
                Some(ended) => return Ok((ended, Some(view.clone()))),
                // What is said of single machines meanwhile is for the rollout to judge.
                None if Instant::now() < until => {
                    failing_since = None;
                    continue;
                }
                None => {}
            }
        }
        let states = states(view, what);
        let with = |wanted: StateWord| -> Vec<String> {
            states
                .iter()
                .filter(|s| s.0 == wanted)
                .map(|s| s.1.clone())
                .collect()
        };
        let failed = with(StateWord::Failed);
        if states
            .iter()
            .all(|s| matches!(s.0, StateWord::Converged | StateWord::Stopped))
        {
            return Ok((Ended::Converged, Some(view.clone())));
        }
        let under_way = states
            .iter()
            .any(|s| matches!(s.0, StateWord::Converging | StateWord::Removing));
        if failed.is_empty() {
            failing_since = None;
            if !under_way && states.iter().any(|s| s.0 == StateWord::Waiting) {
                return Ok((Ended::Waiting(with(StateWord::Waiting)), Some(view.clone())));
            }
        } else {
            let since = *failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= PATIENCE {
                return Ok((Ended::Failed(failed), Some(view.clone())));
            }
        }
        if Instant::now() >= until {
            let open = states
                .iter()
                .filter(|s| !matches!(s.0, StateWord::Converged | StateWord::Stopped))
                .map(|s| s.1.clone())
                .collect();
            return Ok((Ended::TimedOut(open), Some(view.clone())));
        }
    }
}

/// What has failed of a revision, and why; nothing while the status is of an older one.
pub fn failing(view: &WorkspaceView, what: &Follow) -> BTreeMap<Address, String> {
    if view.revision.0 < what.revision {
        return BTreeMap::new();
    }
    let resources = view.owners.iter().flat_map(|owner| &owner.resources);
    resources
        .filter(|r| r.state == StateWord::Failed)
        .filter(|r| {
            what.machine
                .as_ref()
                .is_none_or(|m| r.address.machine == *m)
        })
        .map(|r| {
            let why = r.message.as_deref().unwrap_or(r.state.as_str());
            (r.address.clone(), format!("{}: {why}", r.address))
        })
        .collect()
}

/// State and description of everything that counts.
fn states(view: &WorkspaceView, what: &Follow) -> Vec<(StateWord, String)> {
    view.owners
        .iter()
        .flat_map(|owner| &owner.resources)
        .filter(|r| {
            what.machine
                .as_ref()
                .is_none_or(|m| r.address.machine == *m)
        })
        .map(|r| {
            let offline = view.machines.iter().any(|m| {
                m.name == r.address.machine
                    && matches!(m.state, MachineWord::Offline | MachineWord::NeverSeen)
            });
            let word = if offline && r.state != StateWord::Failed {
                StateWord::Waiting
            } else {
                r.state
            };
            let why = r
                .message
                .clone()
                .unwrap_or_else(|| r.state.as_str().to_owned());
            (word, format!("{}: {why}", r.address))
        })
        .collect()
}

/// Says how far each owner is, when that moves.
#[derive(Default)]
struct Progress {
    said: BTreeMap<OwnerName, String>,
}

impl Progress {
    fn show(&mut self, view: &WorkspaceView, what: &Follow, style: &Style) {
        for owner in &view.owners {
            let line = progress_line(owner, what, style);
            if self.said.get(&owner.name) != Some(&line) {
                out::line(&format!("  {line}"));
                self.said.insert(owner.name.clone(), line);
            }
        }
    }
}

fn progress_line(owner: &OwnerView, what: &Follow, style: &Style) -> String {
    let counted: Vec<_> = owner
        .resources
        .iter()
        .filter(|r| {
            what.machine
                .as_ref()
                .is_none_or(|m| r.address.machine == *m)
        })
        .collect();
    let done = counted
        .iter()
        .filter(|r| matches!(r.state, StateWord::Converged | StateWord::Stopped))
        .count();
    let mut line = format!(
        "{:<20} {}  {done}/{}",
        owner.name,
        state_word(owner.state, style),
        counted.len()
    );
    if let Some(message) = owner
        .message
        .as_ref()
        .filter(|_| owner.state == StateWord::Failed)
    {
        line.push_str(&format!("  {}", plumb_model::escape::line(message)));
    }
    line
}

/// Says how it ended.
pub fn tell(ended: &Ended, style: &Style) {
    let list = |items: &[String]| {
        for item in items.iter().take(20) {
            out::line(&format!("  {}", plumb_model::escape::line(item)));
        }
        if items.len() > 20 {
            out::line(&format!(
                "  and {} more; see `plumb status`",
                items.len() - 20
            ));
        }
    };
    match ended {
        Ended::Converged => out::line(&style.good("Converged.")),
        Ended::Failed(items) => {
            out::line(&style.bad("Not converged:"));
            list(items);
        }
        Ended::Waiting(items) => {
            out::line(&style.change("Recorded. Nothing more happens until these are settled:"));
            list(items);
        }
        Ended::TimedOut(items) => {
            out::line(
                &style.bad("Not converged in time. It goes on; see `plumb status`. Still open:"),
            );
            list(items);
        }
    }
}
