//! A few pages over plain HTTP/1.1, for probes and for Prometheus: GET and HEAD, one answer for each connection.
//!
//! Bounded in every way, since whoever reaches the port may speak: so many connections at once, so many bytes of a
//! request, so long for it. It knows no page: whoever serves says what is at a path. It never reads a body.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The most connections at once; more wait in the backlog.
const CONNECTIONS: usize = 32;

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 8 * 1024;

/// How long a whole exchange may take.
const WITHIN: Duration = Duration::from_secs(10);

/// How long accepting pauses after it failed.
const PAUSE: Duration = Duration::from_millis(200);

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// What sort of text it is.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

impl Page {
    /// A page of plain text.
    #[must_use]
    pub fn text(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

fn words(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}

/// Serves until it is dropped. `page` says what is at a path, without what follows a `?`.
pub async fn serve<F, A>(listener: TcpListener, page: F)
where
    F: Fn(String) -> A + Clone + Send + 'static,
    A: Future<Output = Page> + Send,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // A full table of files passes; it must not become a busy loop.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let page = page.clone();
        tokio::spawn(async move {
            // Whoever is too slow, or goes away, gets nothing: it is a probe, and comes again.
            let _ = tokio::time::timeout(WITHIN, answer(stream, page)).await;
            drop(place);
        });
    }
}

async fn answer<F, A>(mut stream: TcpStream, page: F) -> io::Result<()>
where
    F: Fn(String) -> A,
    A: Future<Output = Page>,
{
    let mut head = Vec::new();
    let end = loop {
        if let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break Some(end);
        }
        if head.len() > HEAD_BYTES {
            break None;
        }
        let mut piece = [0; 1024];
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            read => head.extend_from_slice(&piece[..read]),
        }
    };
    let (page, with_body) = match end {
        None => (Page::text(431, "the request is too long\n"), true),
        Some(end) => match asked(&head[..end]) {
            Some(("GET", path)) => (page(path.to_owned()).await, true),
            Some(("HEAD", path)) => (page(path.to_owned()).await, false),
            Some(_) => (
                Page::text(405, "only GET and HEAD are answered here\n"),
                true,
            ),
            None => (Page::text(400, "this is no HTTP request\n"), true),
        },
    };
    let allow = if page.status == 405 {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    let mut text = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{allow}Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        page.status,
        words(page.status),
        page.content_type,
        page.body.len(),
    );
    if with_body {
        text.push_str(&page.body);
    }
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The method and the path of a request.
fn asked(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|b| *b == b'\r').next()?;
    let mut parts = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !version.starts_with("HTTP/1.") || !target.starts_with('/') {
        return None;
    }
    Some((method, target.split('?').next().unwrap_or(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn exchange(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(serve(listener, |path: String| async move {
            match path.as_str() {
                "/healthz" => Page::text(200, "ok\n"),
                _ => Page::text(404, "nothing is here\n"),
            }
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // Who sends too much may find the connection reset; what came before counts.
        let _ = stream.read_to_string(&mut answer).await;
        served.abort();
        answer
    }

    #[tokio::test]
    async fn pages_are_served_and_nothing_else() {
        for (request, status, body) in [
            ("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "ok\n"),
            ("GET /healthz?full HTTP/1.0\r\n\r\n", "200 OK", "ok\n"),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "200 OK", ""),
            (
                "GET / HTTP/1.1\r\n\r\n",
                "404 Not Found",
                "nothing is here\n",
            ),
            (
                "POST /healthz HTTP/1.1\r\n\r\n",
                "405 Method Not Allowed",
                "only GET",
            ),
            (
                "GET http://x/ HTTP/1.1\r\n\r\n",
                "400 Bad Request",
                "this is no",
            ),
            ("\x16\x03\x01\r\n\r\n", "400 Bad Request", "this is no"),
        ] {
            let answer = exchange(request.as_bytes()).await;
            let (head, got) = answer.split_once("\r\n\r\n").unwrap();
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{request:?}: {head}"
            );
            assert!(
                got.starts_with(body) && got.is_empty() == body.is_empty(),
                "{got}"
            );
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_cut() {
        let long = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &[b'x'; 3 * HEAD_BYTES]].concat();
        let answer = exchange(&long).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431 "),
            "{answer}"
        );
    }
}
