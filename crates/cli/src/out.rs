//! Printing: colour only on a terminal, `NO_COLOR` honoured. Where nobody reads any more, nothing more is said, and what was begun
//! is finished: an apply whose reader has gone still applies, and ends with the code that it would have ended with.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// How a command ended, when it was not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Fine,
    /// 1; what is wrong has been printed.
    Failed,
    /// 2: there are changes.
    Changes,
}

/// What the terminal can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Colours.
    pub color: bool,
    /// Standard output is a terminal, so lines can be overwritten.
    pub live: bool,
}

impl Style {
    /// Looks at standard output and the environment (https://no-color.org).
    pub fn detect() -> Self {
        let live = io::stdout().is_terminal();
        let refused = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            color: live && !refused && !dumb,
            live: live && !dumb,
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Created, converged, healthy.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Changed, under way.
    pub fn change(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Deleted, failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What must not be missed.
    pub fn loud(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// What comes, inside of what is shown as it was.
    pub fn new_part(self, text: &str) -> String {
        self.paint("4;32", text)
    }

    /// What goes, inside of what is shown as it was.
    pub fn old_part(self, text: &str) -> String {
        self.paint("4;31", text)
    }

    /// Headings.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Asides.
    pub fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }
}

/// The columns of the terminal. Where standard output is none: what COLUMNS says, from 20 to 1,000, and 80 otherwise.
pub fn width() -> usize {
    let said = || {
        let columns = std::env::var("COLUMNS").ok()?.parse().ok()?;
        (20..=1000).contains(&columns).then_some(columns)
    };
    let out = io::stdout();
    let size = out
        .is_terminal()
        .then(|| rustix::termios::tcgetwinsize(&out).ok())
        .flatten();
    size.map(|size| usize::from(size.ws_col))
        .filter(|columns| *columns > 0)
        .or_else(said)
        .unwrap_or(80)
}

/// Whether a command sees to the end of the program itself when nothing can be printed any more.
static TOLD: AtomicBool = AtomicBool::new(false);
/// Whether output was lost that somebody waits for.
static FAILED: AtomicBool = AtomicBool::new(false);
/// Told when nothing could be printed.
static LOST: Notify = Notify::const_new();

/// Nobody reads standard output any more.
static CLOSED: AtomicBool = AtomicBool::new(false);
/// The command only goes on as long as somebody reads.
static STREAMS: AtomicBool = AtomicBool::new(false);

/// Says that the command only goes on as long as somebody reads what it prints: then a closed pipe ends it.
pub fn streams() {
    STREAMS.store(true, Ordering::Relaxed);
}

/// Ends when standard output is gone, and says how the command is to end. From its first poll on, output that cannot be
/// written no longer ends the program: for commands that have something to stop first. `closed` says whether that nobody
/// reads it any more is a reason to end.
pub async fn lost(closed: bool) -> Exit {
    TOLD.store(true, Ordering::Relaxed);
    if closed {
        streams();
    }
    LOST.notified().await;
    match FAILED.load(Ordering::Relaxed) {
        true => Exit::Failed,
        false => Exit::Fine,
    }
}

/// Prints to standard output. Where nobody reads any more nothing happens, unless the command [`streams`]; other output
/// that cannot be written ends the program: see [`written`].
pub fn print(text: &str) {
    if CLOSED.load(Ordering::Relaxed) {
        return;
    }
    let mut out = io::stdout().lock();
    let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    let Some(code) = written(&result) else { return };
    if code == 0 && !STREAMS.load(Ordering::Relaxed) {
        return CLOSED.store(true, Ordering::Relaxed);
    }
    if let Err(error) = result
        && code != 0
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        complain(&format!("cannot write the output: {}", plain(&error)));
    }
    if TOLD.load(Ordering::Relaxed) {
        LOST.notify_one();
    } else {
        std::process::exit(code);
    }
}

/// With what code the program ends after a write to standard output, if it does. Whoever read a closed pipe has gone on
/// purpose, and there is nobody left to tell; anything else is output that was lost.
fn written(result: &io::Result<()>) -> Option<i32> {
    match result {
        Ok(()) => None,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Some(0),
        Err(_) => Some(1),
    }
}

/// What an error of the system says, without the number that Rust puts after it.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Prints a line to standard output.
pub fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// Prints a JSON value on a line of its own.
pub fn json(value: &impl serde::Serialize) {
    let text = serde_json::to_string(value).expect("what is printed is always JSON");
    line(&text);
}

/// Prints an error to standard error. It may quote paths and foreign text, so each line is made safe for a terminal.
pub fn complain(text: &str) {
    let lines: Vec<_> = text.split('\n').map(plumb_model::escape::line).collect();
    let _ = writeln!(io::stderr().lock(), "error: {}", lines.join("\n"));
}

/// Prints a remark to standard error, so that it never mixes with output that a program reads.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks on the terminal; anything but yes is no.
pub fn ask(question: &str) -> bool {
    print(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer);
    matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Whether somebody can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_pipe_ends_quietly() {
        let failed = |number| written(&Err(io::Error::from_raw_os_error(number)));
        assert_eq!(written(&Ok(())), None);
        assert_eq!(failed(32), Some(0), "EPIPE");
        for (number, words) in [(28, "No space left on device"), (5, "Input/output error")] {
            assert_eq!(failed(number), Some(1));
            assert_eq!(plain(&io::Error::from_raw_os_error(number)), words);
        }
    }
}
