//! The app of the system tests: a small program whose misbehaviour can be asked for.
//!
//! `standing-app [--port N] [--lock FILE] [--count MICROS] [--flood] [--say TEXT]` answers every HTTP request with its
//! process id and VERSION; notes in FILE.double when another instance of it is alive; counts on standard output; and
//! lives until it is killed.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut held: Option<File> = None;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match flag.as_str() {
            "--lock" => held = Some(alone(&value())?),
            "--port" => {
                let port: u16 = value().parse().map_err(std::io::Error::other)?;
                let listener = TcpListener::bind(("127.0.0.1", port))?;
                std::thread::spawn(move || serve(&listener));
            }
            "--count" => {
                let every = Duration::from_micros(value().parse().map_err(std::io::Error::other)?);
                std::thread::spawn(move || count(every));
            }
            "--flood" => {
                std::thread::spawn(|| count(Duration::ZERO));
            }
            "--say" => println!("{}", value()),
            other => return Err(std::io::Error::other(format!("what is {other}?"))),
        }
    }
    loop {
        std::thread::park();
        // Parking may end for no reason; the lock is held to the very end.
        let _ = &held;
    }
}

/// Takes the lock that an instance holds while it lives, or notes that there are two.
fn alone(path: &str) -> std::io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let mut double = OpenOptions::new()
            .create(true)
            .append(true)
            .open(format!("{path}.double"))?;
        writeln!(double, "{}", std::process::id())?;
        return Err(std::io::Error::other("another instance is alive"));
    }
    Ok(file)
}

fn serve(listener: &TcpListener) {
    let version = std::env::var("VERSION").unwrap_or_default();
    let body = format!("{} {version}", std::process::id());
    for connection in listener.incoming().flatten() {
        let mut connection = connection;
        let mut request = [0; 1024];
        let _ = connection.read(&mut request);
        let _ = write!(
            connection,
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }
}

/// Counts up, a line each; an absolute schedule, so that it does not slow down under load.
fn count(every: Duration) {
    let began = Instant::now();
    let mut out = std::io::stdout();
    for number in 0_u32.. {
        let due = began + every * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if writeln!(out, "line {number}").is_err() {
            return;
        }
    }
}
