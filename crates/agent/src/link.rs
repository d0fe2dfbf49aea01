//! Keeps a session with the control plane open: connects, renews the certificate when its time has come, carries
//! messages, and comes back after a break with full jitter.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plumb_dispatch::protocol::{ToAgent, ToServer};
use plumb_driver::capability::host_facts;
use plumb_model::Timestamp;
use plumb_model::capability::HostFacts;
use plumb_wire::client::{self, CallError, ConnectError};
use plumb_wire::error::Reason;
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
/// How often the clock is looked at, so that one that jumped, or a machine that slept, is noticed.
const LOOK: Duration = Duration::from_secs(5);
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
    /// The host as it is now.
    pub host: HostFacts,
    /// The digests of the CAs that are trusted.
    pub trusted_cas: Vec<String>,
    _close: oneshot::Sender<()>,
}

impl Uplink {
    /// A link that ends here: what is said on it can be read.
    #[cfg(test)]
    pub fn to(channel: Channel) -> (Self, mpsc::Receiver<v1::AgentMessage>) {
        let (out, sent) = mpsc::channel(8);
        let (_close, _) = oneshot::channel();
        let uplink = Self {
            out,
            channel,
            host: HostFacts::default(),
            trusted_cas: Vec::new(),
            _close,
        };
        (uplink, sent)
    }

    /// Sends; false if the link is too slow to go on with.
    #[must_use]
    pub fn send(&self, message: ToServer) -> bool {
        let mut messages = to_server(message).into_iter();
        messages.all(|message| self.out.try_send(message).is_ok())
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

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// When the certificate is to be renewed.
struct Renewal {
    at: Timestamp,
}

impl Renewal {
    fn is_due(&self, now: Timestamp) -> bool {
        now >= self.at
    }

    /// At the latest within this time from now.
    fn hurry(&mut self, now: Timestamp, within: Duration) {
        self.at = self.at.min(now.checked_add(within).unwrap_or(now));
    }

    fn put_off(&mut self, now: Timestamp) {
        self.at = now.checked_add(RENEW_RETRY).unwrap_or(now);
    }

    /// How long to wait before looking again.
    fn pause(&self, now: Timestamp) -> Duration {
        let left = now.until(self.at).ok();
        let left = left.and_then(|span| Duration::try_from(span).ok());
        left.unwrap_or_default()
            .clamp(Duration::from_millis(10), LOOK)
    }
}

/// Runs until the core is gone.
pub async fn run(
    mut enrolled: Enrolled,
    core: mpsc::Sender<LinkEvent>,
    now: fn() -> Timestamp,
    data: PathBuf,
) {
    let mut dice = Dice::new();
    let mut renewal = Renewal {
        at: enrolled.renew_at(dice.roll()),
    };
    let mut bound = RETRY_INITIAL;
    let mut told = String::new();
    let mut held = None;
    while !core.is_closed() {
        if renewal.is_due(now()) {
            match enrolled.renew(now()).await {
                Ok(()) => {
                    tracing::info!(until = %enrolled.record.not_after, "the certificate is renewed");
                    renewal.at = enrolled.renew_at(dice.roll());
                }
                Err(error) => {
                    tell(&mut told, &error);
                    // The session need not suffer from it meanwhile.
                    renewal.put_off(now());
                }
            }
        }
        let began = Instant::now();
        let link = Link {
            core: &core,
            now,
            data: &data,
        };
        let before = held.take();
        match link
            .session(&mut enrolled, &mut renewal, &mut dice, before)
            .await
        {
            Ok(Ended::Anew(stream)) => {
                told.clear();
                bound = RETRY_INITIAL;
                held = stream;
                continue;
            }
            Ok(Ended::Closed) => told.clear(),
            Err(error) => {
                tell(&mut told, &error);
                // Its clock may differ from this one's, or it may have another CA by now.
                if is_about_the_certificate(&error) {
                    renewal.at = now();
                }
            }
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

/// Whether another certificate may help.
fn is_about_the_certificate(error: &AgentError) -> bool {
    match error {
        AgentError::Connect(ConnectError::CertificateRefused { .. }) => true,
        AgentError::Call(CallError::Refused(refusal)) => matches!(
            refusal.reason,
            Reason::CertificateExpired | Reason::BadCertificate | Reason::WrongKey
        ),
        _ => false,
    }
}

/// Says what is wrong once, not at every try.
fn tell(told: &mut String, error: &AgentError) {
    let text = error.to_string();
    let about = match error {
        // Each time with another time in it.
        AgentError::Connect(ConnectError::Clock { address, .. }) => format!("clock {address}"),
        _ => text.clone(),
    };
    if *told != about {
        tracing::warn!("{text}");
        *told = about;
    }
}

/// How a session has ended.
enum Ended {
    /// It broke, or one of the two closed it.
    Closed,
    /// Another one is wanted at once: with another certificate. The stream that there is, if it is open still, is held until
    /// the next one is welcomed, so that the machine is not offline in between.
    Anew(Option<Box<Held>>),
}

/// A stream that is held open.
struct Held {
    _out: mpsc::Sender<v1::AgentMessage>,
    _inbound: tonic::Streaming<v1::ServerMessage>,
}

/// Why the messages of a session stop.
enum Stopped {
    Closed,
    Due(Box<tonic::Streaming<v1::ServerMessage>>),
    Rekey(String),
}

/// What a session is carried with.
struct Link<'a> {
    core: &'a mpsc::Sender<LinkEvent>,
    now: fn() -> Timestamp,
    data: &'a Path,
}

impl Link<'_> {
    /// One connection, until it breaks, the core closes it or the certificate is to be renewed.
    ///
    /// # Errors
    /// When the control plane was not reached, or refused.
    async fn session(
        &self,
        enrolled: &mut Enrolled,
        renewal: &mut Renewal,
        dice: &mut Dice,
        before: Option<Box<Held>>,
    ) -> Result<Ended, AgentError> {
        let target = enrolled.target();
        let channel = match client::connect(&target).await {
            Ok(channel) => channel,
            Err(error) => {
                if before.is_some() {
                    let _ = self.core.send(LinkEvent::Disconnected).await;
                }
                return Err(error.into());
            }
        };
        let (out, messages) = mpsc::channel(QUEUE);
        let held_out = out.clone();
        let (close, mut closed) = oneshot::channel();
        let uplink = Uplink {
            out,
            channel: channel.clone(),
            host: host_facts(self.data),
            trusted_cas: enrolled.trusted_cas(),
            _close: close,
        };
        if self.core.send(LinkEvent::Connected(uplink)).await.is_err() {
            return Ok(Ended::Closed);
        }
        let stopped = self
            .carry(
                channel.clone(),
                messages,
                &mut closed,
                (renewal, dice),
                before,
            )
            .await;
        let ended = match stopped {
            // The core hears of the next stream, and not of the end of this one.
            Ok(Stopped::Due(inbound)) => {
                return Ok(Ended::Anew(Some(Box::new(Held {
                    _out: held_out,
                    _inbound: *inbound,
                }))));
            }
            Ok(Stopped::Rekey(code)) => {
                let done = enrolled.rekey(channel, code, (self.now)()).await;
                if done.is_ok() {
                    renewal.at = enrolled.renew_at(dice.roll());
                    tracing::info!("this machine has another key");
                }
                done.map(|()| Ended::Anew(None))
            }
            Ok(Stopped::Closed) => Ok(Ended::Closed),
            Err(status) => Err(CallError::of(&target.address, &status).into()),
        };
        let _ = self.core.send(LinkEvent::Disconnected).await;
        ended
    }

    async fn carry(
        &self,
        channel: Channel,
        messages: mpsc::Receiver<v1::AgentMessage>,
        closed: &mut oneshot::Receiver<()>,
        (renewal, dice): (&mut Renewal, &mut Dice),
        mut before: Option<Box<Held>>,
    ) -> Result<Stopped, tonic::Status> {
        let mut service = client::agents(channel);
        let mut inbound = tokio::select! {
            opened = service.session(ReceiverStream::new(messages)) => opened?.into_inner(),
            _ = &mut *closed => return Ok(Stopped::Closed),
        };
        let mut decoder = FromServer::default();
        loop {
            tokio::select! {
                message = inbound.message() => {
                    let Some(message) = message? else { return Ok(Stopped::Closed) };
                    let message = decoder.take(message).map_err(|e| tonic::Status::data_loss(e.to_string()))?;
                    // Welcomed: the control plane has closed the stream before this one by itself.
                    drop(before.take());
                    match message {
                        None => {}
                        Some(ToAgent::Renew { within_ms }) => {
                            let within = Duration::from_millis(within_ms).mul_f64(dice.roll());
                            renewal.hurry((self.now)(), within);
                        }
                        Some(ToAgent::Rekey { code }) => return Ok(Stopped::Rekey(code)),
                        Some(message) => {
                            let told = self.core.send(LinkEvent::Received(message)).await;
                            if told.is_err() {
                                return Ok(Stopped::Closed);
                            }
                        }
                    }
                }
                _ = &mut *closed => return Ok(Stopped::Closed),
                () = tokio::time::sleep(renewal.pause((self.now)())) => {
                    if renewal.is_due((self.now)()) {
                        return Ok(Stopped::Due(Box::new(inbound)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    #[test]
    fn a_renewal_is_due_by_the_handed_in_clock_and_can_be_hurried_and_put_off() {
        let mut renewal = Renewal { at: at(12) };
        assert!(!renewal.is_due(at(11)) && renewal.is_due(at(12)) && renewal.is_due(at(1000)));
        assert_eq!(renewal.pause(at(0)), LOOK);
        renewal.hurry(at(1), Duration::from_secs(60));
        assert!(renewal.is_due(at(2)));
        renewal.hurry(at(1), Duration::from_secs(7200));
        assert!(renewal.is_due(at(2)), "it is never put off by a hurry");
        renewal.put_off(at(2));
        assert!(!renewal.is_due(at(2)) && renewal.is_due(at(3)));
    }
}
