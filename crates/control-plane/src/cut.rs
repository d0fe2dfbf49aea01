//! Cuts what streams to a caller whose token counts no more: the one place, around every body in both directions.
//!
//! So a new service cannot forget it. Nothing is buffered here; a body that nobody cuts passes as it is.

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use plumb_wire::error::{Reason, Refusal};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::HeaderMap;

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Resolves when `ended` turns true or is dropped.
pub(crate) fn ended(mut ended: watch::Receiver<bool>) -> Ended {
    Box::pin(async move {
        let _ = ended.wait_for(|ended| *ended).await;
    })
}

fn refusal() -> Status {
    Refusal::new(
        Reason::BadToken,
        "the token was revoked or has run out, so this stream ends; use another token",
    )
    .into()
}

/// A body that ends when the token does.
struct Cut {
    inner: Body,
    ended: Option<Ended>,
    /// A response ends in trailers that say why; a request ends in an error.
    response: bool,
}

/// What the caller sends.
pub(crate) fn request(inner: Body, ended: watch::Receiver<bool>) -> Body {
    wrap(inner, ended, false)
}

/// What the caller is sent.
pub(crate) fn response(inner: Body, ended: watch::Receiver<bool>) -> Body {
    wrap(inner, ended, true)
}

fn wrap(inner: Body, ended: watch::Receiver<bool>, response: bool) -> Body {
    // A refusal has no body: there is nothing to cut.
    if http_body::Body::is_end_stream(&inner) {
        return inner;
    }
    Body::new(Cut {
        inner,
        ended: Some(self::ended(ended)),
        response,
    })
}

impl http_body::Body for Cut {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(ended) = &mut self.ended else {
            return Poll::Ready(None);
        };
        if ended.as_mut().poll(cx).is_pending() {
            return Pin::new(&mut self.inner).poll_frame(cx);
        }
        self.ended = None;
        self.inner = Body::empty();
        if !self.response {
            return Poll::Ready(Some(Err(refusal())));
        }
        let mut trailers = HeaderMap::new();
        match refusal().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended.is_none() || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
