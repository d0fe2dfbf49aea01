//! Keeps a session with the control plane open: connects, renews the certificate when its time has come, carries
//! messages, and comes back after a break with full jitter.

use std::time::{Duration, Instant};

use plumb_dispatch::protocol::{ToAgent, ToServer};
use plumb_model::Timestamp;
use plumb_wire::client::{self, CallError};
use plumb_wire::session::{FromServer, to_server};
use plumb_wire::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::error::AgentError;
use crate::identity::Enrolled;

/// The first pause after a break is drawn from below this; the bound doubles up to [`RETRY_MAX`].
const RETRY_INITIAL: Duration = Duration::from_millis(250);
/// Thirty seconds, so that a control plane that comes back has its whole fleet within about half a minute.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A session that was up for this long was a good one, and the next is tried soon. Longer than any attempt takes
/// that does not come to be: connecting is given up after 5 s.
const LASTED: Duration = Duration::from_secs(10);
/// A renewal that failed is tried again after five minutes: there are twelve hours left when it is first tried.
const RENEW_RETRY: Duration = Duration::from_secs(300);
/// Messages that wait for the link. A complete status of 50,000 resources is about 200 of them.
const QUEUE: usize = 1024;

/// What the link tells the core.
pub enum LinkEvent {
    /// A stream is being opened. The first thing said on it must be the hello.
    Connected(Uplink),
    /// The control plane said something.
    Received(ToAgent),
    /// The stream is gone.
    Disconnected,
}

/// One stream's way up. Dropping it closes the stream.
pub struct Uplink {
    out: mpsc::Sender<v1::AgentMessage>,
    /// The connection, for streams of their own.
    pub channel: Channel,
    _close: oneshot::Sender<()>,
}

impl Uplink {
    /// Sends, or says that the link is too slow to go on with.
    pub fn send(&self, message: ToServer) -> Result<(), ()> {
        to_server(message)
            .into_iter()
            .try_for_each(|m| self.out.try_send(m).map_err(|_| ()))
    }
}

/// Draws random numbers; the only chance in the agent's shell.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Seeded by the operating system.
    pub fn new() -> Self {
        Self(u64::from_le_bytes(random_bytes()))
    }

    /// From 0 to 1.
    pub fn roll(&mut self) -> f64 {
        // xorshift64*: jitter needs to be spread, not secret.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("Linux always gives random bytes once it has booted");
    bytes
}

/// Runs until the core is gone.
pub async fn run(mut enrolled: Enrolled, core: mpsc::Sender<LinkEvent>) {
    let mut dice = Dice::new();
    let mut renew_at = enrolled.renew_at(dice.roll());
    let mut bound = RETRY_INITIAL;
    let mut told = String::new();
    while !core.is_closed() {
        if Timestamp::now() >= renew_at {
            match enrolled.renew().await {
                Ok(()) => renew_at = enrolled.renew_at(dice.roll()),
                Err(error) => {
                    tell(&mut told, &error);
                    // The session need not suffer from it meanwhile.
                    renew_at = Timestamp::now()
                        .checked_add(RENEW_RETRY)
                        .unwrap_or(renew_at);
                }
            }
        }
        let began = Instant::now();
        match session(&enrolled, renew_at, &core).await {
            Ok(()) => told.clear(),
            Err(error) => tell(&mut told, &error),
        }
        // How a session ended does not matter: a crash of the control plane breaks it with an error, and one that
        // refuses this agent may end it well, again and again.
        if began.elapsed() >= LASTED {
            bound = RETRY_INITIAL;
        }
        let pause = bound.mul_f64(dice.roll());
        tokio::select! {
            () = core.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        bound = (bound * 2).min(RETRY_MAX);
    }
}

/// Says what is wrong once, not at every try.
fn tell(told: &mut String, error: &AgentError) {
    let text = error.to_string();
    if *told != text {
        tracing::warn!("{text}");
        *told = text;
    }
}

/// One connection, until it breaks, the core closes it or the certificate is to be renewed.
///
/// # Errors
/// When the control plane was not reached, or refused.
async fn session(
    enrolled: &Enrolled,
    renew_at: Timestamp,
    core: &mpsc::Sender<LinkEvent>,
) -> Result<(), AgentError> {
    let target = enrolled.target();
    let channel = client::connect(&target).await?;
    let (out, messages) = mpsc::channel(QUEUE);
    let (close, mut closed) = oneshot::channel();
    let uplink = Uplink {
        out,
        channel: channel.clone(),
        _close: close,
    };
    if core.send(LinkEvent::Connected(uplink)).await.is_err() {
        return Ok(());
    }
    let result = carry(channel, messages, &mut closed, renew_at, core).await;
    let _ = core.send(LinkEvent::Disconnected).await;
    result.map_err(|status| CallError::of(&target.address, &status).into())
}

async fn carry(
    channel: Channel,
    messages: mpsc::Receiver<v1::AgentMessage>,
    closed: &mut oneshot::Receiver<()>,
    renew_at: Timestamp,
    core: &mpsc::Sender<LinkEvent>,
) -> Result<(), tonic::Status> {
    let mut service = client::agents(channel);
    let mut inbound = tokio::select! {
        opened = service.session(ReceiverStream::new(messages)) => opened?.into_inner(),
        _ = &mut *closed => return Ok(()),
    };
    let mut decoder = FromServer::default();
    let until_renewal = Timestamp::now()
        .until(renew_at)
        .ok()
        .and_then(|span| Duration::try_from(span).ok());
    let renewal = tokio::time::sleep(
        until_renewal
            .unwrap_or_default()
            .max(Duration::from_secs(1)),
    );
    tokio::pin!(renewal);
    loop {
        tokio::select! {
            message = inbound.message() => {
                let Some(message) = message? else { return Ok(()) };
                let message = decoder.take(message).map_err(|e| tonic::Status::data_loss(e.to_string()))?;
                if let Some(message) = message
                    && core.send(LinkEvent::Received(message)).await.is_err()
                {
                    return Ok(());
                }
            }
            _ = &mut *closed => return Ok(()),
            () = &mut renewal => return Ok(()),
        }
    }
}
