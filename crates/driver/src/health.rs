//! Asks a process whether it is well: one HTTP request or one connection, on this machine only. It neither
//! follows redirects nor keeps what it is sent. When to ask and what to make of it is `converge`'s business.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plumb_model::{HealthProbe, ProbeOutcome, ProbeResult, Timestamp};
use tokio::net::TcpStream;

/// So much of an answer's body is read, so that the server sees its answer taken; then the connection is closed.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The most that the head of an answer may take, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;

/// How long the body may go on after the head has decided.
const BODY_WAIT: Duration = Duration::from_millis(100);

/// Runs one health check. Takes no longer than `timeout`, and a tenth of a second for the rest of an answer.
pub async fn probe(probe: &HealthProbe, timeout: Duration) -> ProbeResult {
    let at = Timestamp::now();
    let began = Instant::now();
    let asked = async {
        match probe {
            HealthProbe::Tcp { host, port } => connect(&asked(host, *port)).await.map(|_| None),
            HealthProbe::Http {
                host,
                port,
                path,
                codes,
            } => get(&asked(host, *port), path, codes).await,
        }
    };
    let answered = tokio::time::timeout(timeout, asked).await;
    let took = began.elapsed();
    let (code, error) = match answered {
        Ok(Ok(code)) => (code, None),
        Ok(Err(Failure { code, error })) => (code, Some(error)),
        Err(_) => (
            None,
            Some(format!("no answer within {} ms", timeout.as_millis())),
        ),
    };
    ProbeResult {
        at,
        outcome: match error {
            None => ProbeOutcome::Passed,
            Some(_) => ProbeOutcome::Failed,
        },
        code,
        millis: u32::try_from(took.as_millis()).unwrap_or(u32::MAX),
        error,
    }
}

struct Failure {
    code: Option<u16>,
    error: String,
}

fn failed(error: String) -> Failure {
    Failure { code: None, error }
}

/// `HOST:PORT` of what is asked: an address of this machine, 127.0.0.1 unless told otherwise.
fn asked(host: &Option<String>, port: u16) -> String {
    match host.as_deref() {
        None => format!("127.0.0.1:{port}"),
        Some(host) if host.contains(':') => format!("[{host}]:{port}"),
        Some(host) => format!("{host}:{port}"),
    }
}

async fn connect(spot: &str) -> Result<TcpStream, Failure> {
    TcpStream::connect(spot)
        .await
        .map_err(|error| failed(format!("cannot connect to {spot}: {error}")))
}

async fn get(spot: &str, path: &str, codes: &[(u16, u16)]) -> Result<Option<u16>, Failure> {
    let request = Request::get(path)
        .header(HOST, spot)
        .header(USER_AGENT, "plumb-health/1")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(format!("{path:?} cannot be asked for: {error}")))?;
    let stream = TokioIo::new(connect(spot).await?);
    let no_http = |error: hyper::Error| failed(format!("no HTTP answer from {spot}: {error}"));
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(stream)
        .await
        .map_err(no_http)?;
    let mut connection = std::pin::pin!(connection);
    let answer = sender.send_request(request);
    let mut answer = std::pin::pin!(answer);
    let mut open = true;
    // The connection is driven here rather than in a task of its own, so that nothing is left behind.
    let response = tokio::select! {
        biased;
        response = &mut answer => response,
        ended = &mut connection => {
            open = false;
            // The answer may have come with the end; otherwise the connection knows better what went wrong.
            match (answer.await, ended) {
                (Err(_), Err(error)) => Err(error),
                (answered, _) => answered,
            }
        },
    }
    .map_err(no_http)?;
    let code = response.status().as_u16();
    let _ = tokio::time::timeout(BODY_WAIT, async {
        tokio::select! {
            () = discard(response) => {}
            _ = &mut connection, if open => {}
        }
    })
    .await;
    if codes.iter().any(|(from, to)| (*from..=*to).contains(&code)) {
        return Ok(Some(code));
    }
    let wanted: Vec<String> = codes
        .iter()
        .map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("{from}-{to}")
            }
        })
        .collect();
    Err(Failure {
        code: Some(code),
        error: format!("answered {code} instead of {}", wanted.join(", ")),
    })
}

async fn discard(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut length = 0;
    while length < MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// A server that hears one request and answers with these bytes; returns what it heard.
    fn serve(answer: Vec<u8>, linger: Duration) -> (u16, std::thread::JoinHandle<String>) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = socket.accept().unwrap();
            let mut heard = Vec::new();
            let mut byte = [0];
            while !heard.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
                heard.push(byte[0]);
            }
            let _ = stream.write_all(&answer);
            // Until the client has gone, or the time is up.
            stream.set_read_timeout(Some(linger)).unwrap();
            let _ = stream.read(&mut byte);
            String::from_utf8(heard).unwrap()
        });
        (port, server)
    }

    fn ask(port: u16, timeout: Duration) -> ProbeResult {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let wanted = HealthProbe::Http {
            host: None,
            port,
            path: "/up?x=1".to_owned(),
            codes: vec![(200, 299)],
        };
        runtime.block_on(probe(&wanted, timeout))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_in_range_passes_and_any_other_fails_with_its_code() {
        let cases: [(&str, Option<u16>, bool); 4] = [
            ("HTTP/1.1 204 No Content\r\n\r\n", Some(204), true),
            ("HTTP/1.0 200 OK\r\n\r\nhello", Some(200), true),
            (
                "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
                Some(302),
                false,
            ),
            ("SSH-2.0-OpenSSH\r\n", None, false),
        ];
        for (answer, code, passes) in cases {
            let (port, server) = serve(answer.as_bytes().to_vec(), SECOND);
            let result = ask(port, 5 * SECOND);
            assert_eq!(result.code, code, "{answer}: {result:?}");
            assert_eq!(result.outcome == ProbeOutcome::Passed, passes, "{result:?}");
            assert_eq!(result.error.is_none(), passes);
            let heard = server.join().unwrap();
            assert!(heard.starts_with("GET /up?x=1 HTTP/1.1\r\n"), "{heard}");
            assert!(
                heard.contains(&format!("host: 127.0.0.1:{port}\r\n")),
                "{heard}"
            );
        }
    }

    #[test]
    fn a_silent_server_fails_at_the_timeout_and_an_endless_answer_ends() {
        let (port, server) = serve(Vec::new(), 5 * SECOND);
        let result = ask(port, SECOND / 10);
        assert_eq!(result.error.as_deref(), Some("no answer within 100 ms"));
        server.join().unwrap();
        let endless = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 300_000]].concat();
        let (port, server) = serve(endless, 5 * SECOND);
        assert_eq!(ask(port, 5 * SECOND).outcome, ProbeOutcome::Passed);
        server.join().unwrap();
    }

    #[test]
    fn a_connection_is_all_that_a_tcp_probe_needs() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let wanted = HealthProbe::Tcp { host: None, port };
        let result = runtime.block_on(probe(&wanted, SECOND));
        assert_eq!((result.outcome, result.code), (ProbeOutcome::Passed, None));
        drop(socket);
        let result = runtime.block_on(probe(&wanted, SECOND));
        assert_eq!(result.outcome, ProbeOutcome::Failed);
        assert!(result.error.unwrap().contains("refused"));
    }
}
