//! Sends logs on streams of their own, so that a stalled reader never delays a heartbeat.
//!
//! Bounded: one batch is read ahead, and the next is read only when the stream has room.

use std::path::PathBuf;
use std::time::Duration;

use plumb_dispatch::protocol::LogsRequest;
use plumb_driver::logs::{self, LogLine, LogQuery, LogReader, SlotLog, Stream};
use plumb_model::{OwnerName, ProcessName};
use plumb_wire::{client, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// How often a followed log is looked at. Only while somebody follows.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);
/// A batch holds at most this many bytes of text.
const BATCH_BYTES: usize = 128 * 1024;

/// Serves one request until it is done or aborted. The error is for the person who asked.
pub async fn serve(data: PathBuf, request: LogsRequest, channel: Channel) -> Result<(), String> {
    let (out, rows) = mpsc::channel(2);
    out.send(v1::PushLogsRequest {
        request: request.request,
        batch: None,
    })
    .await
    .map_err(|e| e.to_string())?;
    let id = request.request;
    let reader = tokio::spawn(read_all(data, request, out));
    let pushed = client::agents(channel)
        .push_logs(ReceiverStream::new(rows))
        .await;
    reader.abort();
    pushed
        .map(|_| ())
        .map_err(|status| format!("log stream {id} broke: {}", status.message()))
}

struct Open {
    process: ProcessName,
    slot: u32,
    reader: LogReader,
}

async fn read_all(data: PathBuf, request: LogsRequest, out: mpsc::Sender<v1::PushLogsRequest>) {
    let mut open: Vec<Open> = Vec::new();
    loop {
        let (folder, asked) = (data.clone(), request.clone());
        let read = tokio::task::spawn_blocking(move || {
            let first = open.is_empty();
            open_new(&folder, &asked, &mut open, first);
            let batches: Vec<v1::LogBatch> = open.iter_mut().filter_map(read_batch).collect();
            (open, batches)
        });
        let Ok((back, batches)) = read.await else {
            return;
        };
        open = back;
        let idle = batches.is_empty();
        for batch in merged(batches) {
            if out
                .send(v1::PushLogsRequest {
                    request: request.request,
                    batch: Some(batch),
                })
                .await
                .is_err()
            {
                return;
            }
        }
        if idle {
            if !request.follow {
                return;
            }
            tokio::select! {
                () = out.closed() => return,
                () = tokio::time::sleep(FOLLOW_EVERY) => {}
            }
        }
    }
}

/// Opens the logs that are there and not open yet. One that appears while following is read from its beginning.
fn open_new(data: &std::path::Path, request: &LogsRequest, open: &mut Vec<Open>, first: bool) {
    let owner: &OwnerName = &request.owner;
    for SlotLog {
        process,
        slot,
        path,
    } in logs::slots(data, owner, request.process.as_ref())
    {
        if open.iter().any(|o| o.process == process && o.slot == slot) {
            continue;
        }
        let query = LogQuery {
            tail: request.tail.filter(|_| first),
            since: request.since,
            follow: request.follow,
        };
        if let Ok(reader) = LogReader::open(&path, query) {
            open.push(Open {
                process,
                slot,
                reader,
            });
        }
    }
}

fn read_batch(open: &mut Open) -> Option<v1::LogBatch> {
    let mut lines = Vec::new();
    let mut bytes = 0;
    while bytes < BATCH_BYTES {
        match open.reader.poll() {
            Ok(Some(LogLine { at, stream, text })) => {
                bytes += text.len() + 48;
                lines.push(v1::LogLine {
                    at: at.to_string(),
                    stderr: stream == Stream::Err,
                    text: text.into_bytes(),
                });
            }
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(process = %open.process, slot = open.slot, %error, "reading a log failed");
                break;
            }
        }
    }
    (!lines.is_empty()).then(|| v1::LogBatch {
        process: open.process.to_string(),
        slot: open.slot,
        lines,
        dropped: 0,
    })
}

/// Lines of several processes in the order in which they were written, as far as one look shows them.
fn merged(batches: Vec<v1::LogBatch>) -> Vec<v1::LogBatch> {
    if batches.len() < 2 {
        return batches;
    }
    let mut lines: Vec<(String, u32, v1::LogLine)> = batches
        .into_iter()
        .flat_map(|b| {
            b.lines
                .into_iter()
                .map(move |line| (b.process.clone(), b.slot, line))
        })
        .collect();
    lines.sort_by(|a, b| a.2.at.cmp(&b.2.at));
    let mut merged: Vec<v1::LogBatch> = Vec::new();
    for (process, slot, line) in lines {
        match merged.last_mut() {
            Some(last) if last.process == process && last.slot == slot => last.lines.push(line),
            _ => merged.push(v1::LogBatch {
                process,
                slot,
                lines: vec![line],
                dropped: 0,
            }),
        }
    }
    merged
}
