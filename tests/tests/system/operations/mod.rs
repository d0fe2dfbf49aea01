//! What whoever runs a control plane has: pages and numbers, a doctor, settings, backups, manuals, and the API from elsewhere.

mod backups;
mod numbers;
mod python;
mod settings;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// GET over plain HTTP: the status and the body; none while nobody answers.
fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
