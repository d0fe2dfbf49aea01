//! The agents' service: sessions, blobs, logs on their way up.
//!
//! Every call has been let in by the guard, which left the machine's name in the request; nothing in a message can
//! name another. It decides nothing: what is said goes to the gateway, what is to be said comes from it.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use plumb_dispatch::protocol::{ToAgent, ToServer};
use plumb_ledger::CertificateSeen;
use plumb_model::{Hash, MachineName};
use plumb_wire::PIECE_BYTES;
use plumb_wire::convert::{WireError, parse};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::session::FromAgent;
use plumb_wire::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::blobs::Blobs;
use crate::gateway::{Gateway, Session};
use crate::guard::FromMachine;
use crate::outbox::{Outbox, Outgoing, outbox};
use crate::refuse;
use crate::roster::Seen;
use crate::rotation::{Authorities, parse_digest};
use crate::tenants::{Tenant, tenant_of};

/// How long a new stream may take to say hello.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// How long a session that is over may take to hand its goodbye to the network.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// How often it is looked whether it has.
const GOODBYE_LOOK: Duration = Duration::from_millis(20);

/// How many messages wait for the network, each at most a piece.
const PIECES: usize = 4;

/// The `Agents` service.
pub(crate) struct Agents {
    pub authorities: Arc<Authorities>,
    /// Turns true when the control plane goes down.
    pub stopping: watch::Receiver<bool>,
}

/// The machine that the guard has let in.
fn machine<T>(request: &Request<T>) -> Result<FromMachine, Status> {
    request
        .extensions()
        .get::<FromMachine>()
        .cloned()
        .ok_or_else(|| {
            Refusal::new(
                Reason::NoCredential,
                "this call came past the access rules and is refused; report it",
            )
            .into()
        })
}

#[tonic::async_trait]
impl v1::agents_server::Agents for Agents {
    type SessionStream = Outgoing;

    async fn session(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let machine = machine(&request)?;
        let tenant = tenant_of(&request)?;
        let from = request.remote_addr();
        let incoming = request.into_inner();
        let (outbox, outgoing) = outbox();
        let greeting = Greeting {
            tenant: tenant.clone(),
            authorities: self.authorities.clone(),
            from,
        };
        tokio::spawn(session(machine, incoming, outbox, greeting));
        Ok(Response::new(outgoing))
    }

    type FetchBlobStream = ReceiverStream<Result<v1::FetchBlobResponse, Status>>;

    async fn fetch_blob(
        &self,
        request: Request<v1::FetchBlobRequest>,
    ) -> Result<Response<Self::FetchBlobStream>, Status> {
        let machine = machine(&request)?;
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let digest: Hash = parse("digest", &request.digest).map_err(Refusal::from)?;
        if !tenant.gateway.may_fetch(&machine.name, &digest) {
            return Err(Refusal::new(
                Reason::NotFound,
                format!(
                    "no assignment of machine {} names the blob {digest}",
                    machine.name
                ),
            )
            .into());
        }
        let (tx, rx) = mpsc::channel(PIECES);
        let blobs = tenant.blobs.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = send_blob(blobs, digest, request.offset, &tx) => sent,
                () = tenant.shut_out(&machine) => Err(shut_out()),
            };
            if let Err(refusal) = sent {
                let _ = tx.send(Err(refusal.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::PushLogsRequest>>,
    ) -> Result<Response<v1::PushLogsResponse>, Status> {
        let machine = machine(&request)?;
        let tenant = tenant_of(&request)?;
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(HELLO_WITHIN, incoming.message())
            .await
            .map_err(|_| Refusal::from(WireError::FirstMessage("a request")))??
            .ok_or_else(|| Refusal::from(WireError::FirstMessage("a request")))?;
        let Some(sink) = tenant.gateway.logs().claim(first.request, &machine.name) else {
            // Whoever asked has gone meanwhile: that is nothing to be told off for.
            return Ok(Response::new(v1::PushLogsResponse {}));
        };
        let mut stopping = self.stopping.clone();
        let mut out = std::pin::pin!(tenant.shut_out(&machine));
        let mut next = Some(first);
        while let Some(message) = next {
            if let Some(batch) = message.batch {
                let news = v1::LogsResponse {
                    machine: machine.name.to_string(),
                    news: Some(v1::logs_response::News::Batch(batch)),
                };
                // Waiting here holds the agent back through the stream's own flow control; it counts what it drops.
                let sent = tokio::select! {
                    sent = sink.send(Ok(news)) => sent,
                    () = &mut out => return Err(shut_out().into()),
                };
                if sent.is_err() {
                    break;
                }
            }
            next = tokio::select! {
                () = &mut out => return Err(shut_out().into()),
                message = incoming.message() => message?,
                () = sink.closed() => None,
                _ = stopping.wait_for(|stop| *stop) => None,
            };
        }
        Ok(Response::new(v1::PushLogsResponse {}))
    }

    async fn rekey(
        &self,
        request: Request<v1::RekeyRequest>,
    ) -> Result<Response<v1::RekeyResponse>, Status> {
        let machine = machine(&request)?;
        let tenant = tenant_of(&request)?;
        let cas = self.authorities.now_in_force();
        let trust_der = cas.trust_der();
        let issued = crate::machines::rekey(tenant, cas, machine, request.into_inner()).await?;
        Ok(Response::new(v1::RekeyResponse {
            chain_der: issued.chain_der,
            not_after: issued.not_after.to_string(),
            trust_der,
        }))
    }
}

/// What a stream is ended with whose machine was removed, or has another key by now.
fn shut_out() -> Refusal {
    Refusal::new(
        Reason::WrongKey,
        "the machine was removed, or another key counts for it by now",
    )
}

/// What is looked at when an agent says hello.
struct Greeting {
    tenant: Arc<Tenant>,
    authorities: Arc<Authorities>,
    from: Option<SocketAddr>,
}

/// What an agent that is taken in is told besides its assignment.
struct Heard {
    machine: FromMachine,
    instance: String,
    trusts: Vec<String>,
}

impl Greeting {
    /// Notes who came, and with what.
    async fn note(&self, heard: &Heard) {
        let at = self.tenant.access.now();
        let seen = Seen {
            instance: heard.instance.clone(),
            from: self.from,
            at,
        };
        self.tenant.roster.note(&heard.machine.name, seen);
        let cas = self.authorities.now_in_force();
        let issuer = cas
            .trusted()
            .find(|ca| ca.key_id() == heard.machine.issuer)
            .map(|ca| ca.digest().to_string());
        let came_with = CertificateSeen {
            ca: issuer.unwrap_or_default(),
            not_after: heard.machine.not_after,
            trusts: heard.trusts.clone(),
        };
        let known = self.tenant.access.machine(&heard.machine.name);
        // Of an agent that only comes again there is nothing to write.
        if known.is_some_and(|known| known.seen.as_ref() == Some(&came_with)) {
            return;
        }
        let (ledger, machine) = (self.tenant.ledger.clone(), heard.machine.clone());
        let noted = refuse::blocking(move || {
            ledger
                .note_seen(&machine.name, &machine.key.0, &came_with)
                .map_err(|e| refuse::record(&e))
        });
        match noted.await {
            Ok(Some(identity)) => self.tenant.access.machine_stored(identity),
            Ok(None) => {}
            // The next hello notes it; a rotation of the CA waits that long.
            Err(refusal) => {
                tracing::warn!("cannot note what an agent came with: {}", refusal.message)
            }
        }
    }

    /// Tells an agent that was taken in what is wanted of its certificate and key.
    async fn ask(&self, heard: &Heard) {
        // One of an older version knows neither message.
        if heard.trusts.is_empty() {
            return;
        }
        let gateway = &self.tenant.gateway;
        let name = &heard.machine.name;
        let order = self.tenant.roster.ordered(name);
        if let Some(order) = order.filter(|order| order.instance == heard.instance) {
            gateway
                .tell(name.clone(), ToAgent::Rekey { code: order.code })
                .await;
            return;
        }
        let trusts: Vec<_> = heard
            .trusts
            .iter()
            .filter_map(|d| parse_digest(d))
            .collect();
        let cas = self.authorities.now_in_force();
        if cas.wants_renewal(heard.machine.issuer, &trusts) {
            let within_ms = crate::machines::RENEW_SOON_MS;
            gateway
                .tell(name.clone(), ToAgent::Renew { within_ms })
                .await;
        }
    }
}

/// Reads off the event loop one piece at a time, so that a reader who stalls holds no thread.
async fn send_blob(
    blobs: Arc<Blobs>,
    digest: Hash,
    offset: u64,
    tx: &mpsc::Sender<Result<v1::FetchBlobResponse, Status>>,
) -> Result<(), Refusal> {
    let (mut reader, total) =
        refuse::blocking(move || blobs.read(&digest, offset).map_err(|e| refuse::blob(&e))).await?;
    let mut total = Some(total);
    loop {
        let (back, data) = refuse::blocking(move || {
            let mut data = Vec::new();
            reader
                .by_ref()
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut data)
                .map_err(|e| refuse::storage(&e))?;
            Ok((reader, data))
        })
        .await?;
        reader = back;
        // The first piece is sent even if it is empty: it says how large the blob is.
        if data.is_empty() && total.is_none() {
            return Ok(());
        }
        let piece = v1::FetchBlobResponse {
            data,
            total: total.take().unwrap_or_default(),
        };
        // The reader has gone: nothing more to do.
        if tx.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
}

/// One session, from hello to its end.
async fn session(
    machine: FromMachine,
    mut incoming: Streaming<v1::AgentMessage>,
    outbox: Outbox,
    greeting: Greeting,
) {
    let gateway = greeting.tenant.gateway.clone();
    let mut decoder = FromAgent::default();
    let first = tokio::time::timeout(HELLO_WITHIN, incoming.message()).await;
    let hello = match first {
        Ok(Ok(Some(message))) => decoder.take(message),
        _ => Err(WireError::FirstMessage("a hello")),
    };
    let hello = match hello {
        Ok(Some(ToServer::Hello(hello))) => hello,
        Ok(_) => return refuse_session(&outbox, WireError::FirstMessage("a hello")),
        Err(error) => return refuse_session(&outbox, error),
    };
    let name = machine.name.clone();
    let heard = Heard {
        machine: machine.clone(),
        instance: hello.instance.clone(),
        trusts: hello.trusted_cas.clone(),
    };
    greeting.note(&heard).await;
    let taken = gateway.connected(machine, Box::new(hello), outbox.clone());
    let Some(session) = taken.await else {
        let refusal = Refusal::new(
            Reason::Closing,
            "the control plane is going down, or the machine's identity was just replaced; try again",
        );
        return outbox.end(Some(refusal.into()));
    };
    tracing::info!(machine = %name, session = session.id, "agent connected");
    greeting.ask(&heard).await;
    // A session stays for long, and what greeted it has done its work: what goes on is a task that holds no more than it needs.
    tokio::spawn(carry(name, session, gateway, incoming, decoder, outbox));
}

/// What an agent says, until its session is over.
async fn carry(
    name: MachineName,
    Session { id, mut over }: Session,
    gateway: Gateway,
    mut incoming: Streaming<v1::AgentMessage>,
    mut decoder: FromAgent,
    outbox: Outbox,
) {
    loop {
        let heard = tokio::select! {
            message = incoming.message() => heard(message, &mut decoder, &outbox),
            _ = &mut over => {
                outbox.end(None);
                Said::Last
            }
        };
        match heard {
            Said::Whole(message) => gateway.said(id, message).await,
            Said::Part => {}
            Said::Last => {
                let _ = tokio::time::timeout(GOODBYE_WITHIN, said(&outbox)).await;
                break;
            }
            Said::Gone => break,
        }
    }
    outbox.cut();
    gateway.gone(id).await;
    tracing::info!(machine = %name, session = id, "agent disconnected");
}

/// What came of an agent's stream. Boxed, as all that thousands of tasks hold while they wait.
enum Said {
    Whole(Box<ToServer>),
    Part,
    /// The session is over, and the agent is told.
    Last,
    Gone,
}

fn heard(
    message: Result<Option<v1::AgentMessage>, Status>,
    decoder: &mut FromAgent,
    outbox: &Outbox,
) -> Said {
    let Ok(Some(message)) = message else {
        return Said::Gone;
    };
    match decoder.take(message) {
        Ok(Some(message)) => Said::Whole(Box::new(message)),
        Ok(None) => Said::Part,
        Err(error) => {
            refuse_session(outbox, error);
            Said::Last
        }
    }
}

/// Resolves when everything has been handed to the network.
async fn said(outbox: &Outbox) {
    while !outbox.is_empty() {
        tokio::time::sleep(GOODBYE_LOOK).await;
    }
}

fn refuse_session(outbox: &Outbox, error: WireError) {
    tracing::warn!("a session ends: {error}");
    outbox.end(Some(Refusal::from(error).into()));
}
