//! What waits for one agent: a bounded queue of messages that takes next to no memory while it is empty.
//!
//! A control plane has one for each of thousands of agents, and nearly all of them are empty nearly all the time: a channel of
//! tokio's takes some kilobytes for its first message alone, and a task of its own to be read. The gateway puts messages in;
//! the response of the session's call is the other end, and cuts them into the wire's pieces as the network takes them.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use plumb_dispatch::protocol::ToAgent;
use plumb_wire::session::to_agent;
use plumb_wire::v1;
use tokio_stream::Stream;
use tonic::Status;

/// How many messages may wait. The fleet has one assignment in flight at most, so this many mean that the agent reads no
/// more.
const MOST: usize = 64;

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<ToAgent>,
    /// What ends the stream once the messages are gone, or well if there is none.
    error: Option<Box<Status>>,
    /// Nothing more goes in.
    closed: bool,
    reader: Option<Waker>,
}

/// The end that messages go into. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<Mutex<Inner>>);

/// The end that messages come out of. Dropping it closes the outbox.
#[derive(Debug)]
pub struct Outgoing {
    inner: Arc<Mutex<Inner>>,
    pieces: std::vec::IntoIter<v1::ServerMessage>,
}

/// A queue, and its other end.
pub fn outbox() -> (Outbox, Outgoing) {
    let outbox = Outbox::default();
    let outgoing = Outgoing {
        inner: outbox.0.clone(),
        pieces: Vec::new().into_iter(),
    };
    (outbox, outgoing)
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// Puts a message in. Whether there was room and somebody to read it.
    pub fn send(&self, message: ToAgent) -> bool {
        let mut inner = lock(&self.0);
        if inner.closed || inner.messages.len() >= MOST {
            return false;
        }
        inner.messages.push_back(message);
        wake(inner);
        true
    }

    /// Ends the stream after what waits: well, or with an error.
    pub fn end(&self, error: Option<Status>) {
        let mut inner = lock(&self.0);
        if !inner.closed {
            inner.closed = true;
            inner.error = error.map(Box::new);
        }
        wake(inner);
    }

    /// Ends the stream, and drops what waits.
    pub fn cut(&self) {
        let mut inner = lock(&self.0);
        inner.closed = true;
        inner.messages = VecDeque::new();
        wake(inner);
    }

    /// Whether nothing waits any more.
    pub fn is_empty(&self) -> bool {
        lock(&self.0).messages.is_empty()
    }
}

fn wake(mut inner: MutexGuard<'_, Inner>) {
    let reader = inner.reader.take();
    drop(inner);
    if let Some(reader) = reader {
        reader.wake();
    }
}

impl Stream for Outgoing {
    type Item = Result<v1::ServerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(piece) = self.pieces.next() {
            return Poll::Ready(Some(Ok(piece)));
        }
        let message = {
            let mut inner = lock(&self.inner);
            match inner.messages.pop_front() {
                Some(message) => {
                    if inner.messages.is_empty() {
                        // Its memory is of use to nobody until the next one comes.
                        inner.messages = VecDeque::new();
                    }
                    message
                }
                None if inner.closed => {
                    return Poll::Ready(inner.error.take().map(|error| Err(*error)));
                }
                None => {
                    inner.reader = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        let mut pieces = to_agent(message).into_iter();
        let first = pieces.next();
        self.pieces = if pieces.len() == 0 {
            Vec::new().into_iter()
        } else {
            pieces
        };
        match first {
            Some(piece) => Poll::Ready(Some(Ok(piece))),
            // Every message is at least one piece; one that were none would be passed over.
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        inner.messages = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn goodbye(reason: &str) -> ToAgent {
        ToAgent::Goodbye {
            reason: reason.to_owned(),
        }
    }

    /// Row 41. Mutation: leave the bound out of `send`.
    #[test]
    fn an_outbox_that_nobody_reads_takes_so_many_and_no_more() {
        let (outbox, outgoing) = outbox();
        assert!((0..MOST).all(|_| outbox.send(goodbye("x"))));
        assert!(!outbox.send(goodbye("one too many")));
        drop(outgoing);
        assert!(outbox.is_empty() && !outbox.send(goodbye("nobody reads")));
    }

    #[tokio::test]
    async fn what_waits_comes_in_order_and_then_the_end() {
        let (outbox, mut outgoing) = outbox();
        let reader = tokio::spawn(async move {
            let mut heard = Vec::new();
            while let Some(next) = outgoing.next().await {
                heard.push(next.map_err(|status| status.message().to_owned()));
            }
            heard
        });
        tokio::task::yield_now().await;
        assert!(outbox.send(goodbye("one")) && outbox.send(goodbye("two")));
        outbox.end(Some(Status::aborted("three")));
        assert!(!outbox.send(goodbye("four")));
        let heard = reader.await.expect("it ends");
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert_eq!(heard[2], Err("three".to_owned()));
    }

    #[tokio::test]
    async fn what_is_cut_off_is_heard_no_more() {
        let (outbox, mut outgoing) = outbox();
        assert!(outbox.send(goodbye("one")));
        outbox.cut();
        assert!(outbox.is_empty());
        assert!(outgoing.next().await.is_none());
    }

    /// A snapshot larger than a piece comes in several, whole and in order.
    #[tokio::test]
    async fn a_large_message_comes_in_pieces() {
        let (outbox, mut outgoing) = outbox();
        let bytes = vec![7; plumb_wire::PIECE_BYTES * 2 + 1];
        let message = ToAgent::Snapshot {
            generation: plumb_model::Generation(1),
            hash: plumb_model::Hash::of(&bytes),
            releases: Default::default(),
            bytes,
            confirm_empty: false,
        };
        assert!(outbox.send(message.clone()));
        outbox.end(None);
        let mut decoder = plumb_wire::session::FromServer::default();
        let mut heard = None;
        let mut pieces = 0;
        while let Some(next) = outgoing.next().await {
            pieces += 1;
            heard = heard.or(decoder.take(next.expect("no error")).expect("a message"));
        }
        assert_eq!((pieces, heard), (3, Some(message)));
    }
}
