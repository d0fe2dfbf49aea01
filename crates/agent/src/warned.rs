//! What the session says is wrong, in the log of the machine that it is wrong with: each thing once, and again when it changes.

use plumb_dispatch::AgentSession;

/// What was said last.
#[derive(Debug, Default)]
pub struct Warned {
    trouble: Option<String>,
    skew: Option<String>,
}

impl Warned {
    /// Says what is new.
    pub fn look(&mut self, session: &AgentSession) {
        say(&mut self.trouble, session.trouble().map(str::to_owned));
        say(&mut self.skew, session.skew());
    }
}

fn say(said: &mut Option<String>, now: Option<String>) {
    if *said == now {
        return;
    }
    if let Some(text) = &now {
        tracing::warn!("{text}");
    }
    *said = now;
}
