//! Fetches content by digest from the control plane, resuming where a broken transfer stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use plumb_driver::blobs::{BlobError, Blobs};
use plumb_model::Hash;
use plumb_wire::{client, v1};
use tokio::sync::mpsc;
use tonic::transport::Channel;

/// The pause after a failed transfer.
const RETRY: Duration = Duration::from_secs(2);

/// Why a transfer failed, in words.
type Failure = String;

/// Fetches all of these, one after the other, until each is here or the link is gone. Arrivals come through `arrived`.
pub async fn fetch_all(
    blobs: Blobs,
    missing: BTreeMap<Hash, u64>,
    channel: Channel,
    arrived: mpsc::Sender<Hash>,
) {
    let mut todo: Vec<(Hash, u64)> = missing.into_iter().collect();
    while !todo.is_empty() {
        let mut failed = Vec::new();
        for (digest, size) in todo {
            match fetch(&blobs, digest, size, channel.clone()).await {
                Ok(()) => {
                    if arrived.send(digest).await.is_err() {
                        return;
                    }
                }
                Err(why) => {
                    tracing::warn!(%digest, why, "fetching content failed; it is tried again");
                    failed.push((digest, size));
                }
            }
        }
        todo = failed;
        if !todo.is_empty() {
            tokio::time::sleep(RETRY).await;
        }
    }
}

async fn fetch(blobs: &Blobs, digest: Hash, size: u64, channel: Channel) -> Result<(), Failure> {
    // One that was given up may have come to its end after all.
    if blobs.has(digest) {
        return Ok(());
    }
    let begin = blobs.clone();
    let mut incoming = blocking(move || begin.begin(digest, size)).await?;
    let request = v1::FetchBlobRequest {
        digest: digest.to_string(),
        offset: incoming.offset(),
    };
    let mut pieces = client::agents(channel)
        .fetch_blob(request)
        .await
        .map_err(|s| s.message().to_owned())?
        .into_inner();
    while let Some(piece) = pieces.message().await.map_err(|s| s.message().to_owned())? {
        incoming = blocking(move || incoming.write(&piece.data).map(|()| incoming)).await?;
    }
    blocking(move || incoming.finish()).await
}

async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(job).await {
        Ok(result) => result.map_err(|e| chain(&e)),
        Err(e) => Err(e.to_string()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
