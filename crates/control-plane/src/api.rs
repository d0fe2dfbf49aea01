//! The service behind the command line: turns messages into calls of recorder, gateway, ledger and blobs, and back.
//!
//! Every call has been let in by the guard. It holds no state of its own, and never returns the secret of a token
//! that is stored.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use plumb_ledger::{Ledger, TokenKind, TokenRecord};
use plumb_model::condition::MachineEvent;
use plumb_model::state::Outcome;
use plumb_model::{Hash, MachineName, OwnerName, ReleaseNumber, Revision, Secret, Timestamp};
use plumb_wire::convert::{WireError, parse, parse_optional, time_text, to_json};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::token::{ApiToken, JoinToken};
use plumb_wire::{PIECE_BYTES, v1};
use tokio::sync::{Semaphore, broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::Role;
use crate::audit::{Detail, Owners};
use crate::gateway::{Gateway, WantedLogs};
use crate::guard::{Caller, caller_of};
use crate::metrics::Metrics;
use crate::recorder::Applied;
use crate::refuse;
use crate::rotation::Authorities;
use crate::tenants::{Tenants, tenant_of};
use crate::texts;

/// The name of the token that is made anew at each start.
pub(crate) const LOCAL: &str = "local";

/// The shortest time between two views of one `Watch`.
const COALESCE: Duration = Duration::from_millis(100);

/// The most events in one message of `Watch`.
const WATCH_EVENTS: usize = 256;

/// How many messages wait for a reader of `Watch` or `Logs`.
const READER: usize = 16;

/// The most uploads at once: each holds a thread while it comes in.
pub(crate) const UPLOADS: usize = 16;

/// How long an upload may pause: whoever stalls gives his place to the next.
const UPLOAD_PAUSE: Duration = Duration::from_secs(30);

/// The most digests that are asked about at once.
const MAX_DIGESTS: usize = 65_536;

/// The most entries of the history in one answer, and how many there are unless told otherwise.
const HISTORY: (usize, usize) = (1000, 50);

/// How long a join token is good for unless told otherwise, and at most.
const JOIN_LIFE: (u32, u32) = (3600, 30 * 24 * 3600);

/// How long a token for the API that runs out is good for at most, in seconds.
const API_LIFE: u64 = 10 * 365 * 24 * 3600;

/// The `ControlPlane` service.
pub(crate) struct Api {
    pub tenants: Arc<Tenants>,
    pub authorities: Arc<Authorities>,
    pub now: fn() -> Timestamp,
    pub uploads: Arc<Semaphore>,
    /// Which run of the control plane this is: numbers of changes count anew in each.
    pub instance: String,
    /// Where it is counted what readers were too slow for.
    pub metrics: Arc<Metrics>,
    /// Turns true when the control plane goes down.
    pub stopping: watch::Receiver<bool>,
}

fn closing() -> Refusal {
    Refusal::new(
        Reason::Closing,
        "the control plane is going down; start it with `plumb server`, and try again",
    )
}

/// Makes a secret: 32 random bytes as hex.
pub(crate) fn secret() -> Result<Secret, Refusal> {
    let bytes = crate::identity::random::<32>().map_err(|e| refuse::storage(&e))?;
    Ok(Secret::new(hex(&bytes)))
}

/// Names a run of the control plane.
pub(crate) fn run_id() -> Result<String, crate::identity::IdentityError> {
    let bytes = crate::identity::random::<8>()
        .map_err(|e| crate::identity::IdentityError::Make(e.to_string()))?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A new token and its record, which holds only the secret's hash.
pub(crate) fn api_token(
    name: &str,
    role: Role,
    all: bool,
    now: Timestamp,
) -> Result<(ApiToken, TokenRecord), Refusal> {
    let secret = secret()?;
    let record = TokenRecord {
        id: name.to_owned(),
        secret: Hash::of(secret.expose().as_bytes()),
        kind: TokenKind::Api {
            role: role.as_str().to_owned(),
            all,
        },
        created: now,
        expires_at: None,
        last_used: None,
        consumed: None,
    };
    let token = ApiToken {
        id: name.to_owned(),
        secret,
    };
    Ok((token, record))
}

impl Api {
    fn new_token(
        &self,
        request: v1::CreateTokenRequest,
        caller: &Caller,
    ) -> Result<(Secret, TokenRecord), Refusal> {
        use v1::create_token_request::Kind;
        let now = (self.now)();
        match request.kind.ok_or(WireError::Missing("kind"))? {
            Kind::Api(api) => {
                let role = Role::try_from_wire(api.role)?;
                plumb_model::name::check(&api.name).map_err(|e| WireError::Field {
                    field: "api.name",
                    why: e.to_string(),
                })?;
                if api.name == LOCAL {
                    return Err(Refusal::new(
                        Reason::NameTaken,
                        "the token `local` is the control plane's own; choose another name",
                    ));
                }
                if api.all_workspaces && (!caller.all || role != Role::Admin) {
                    return Err(Refusal::new(
                        Reason::RoleTooLow,
                        "a token for all workspaces is an admin's, and made only with such a token, as the control plane's own context has it; make one for this workspace",
                    ));
                }
                if api.ttl_seconds > API_LIFE {
                    return Err(Refusal::new(
                        Reason::BadMessage,
                        "a token that runs out does so within ten years; ask for less, or for one that does not",
                    ));
                }
                let (token, mut record) = api_token(&api.name, role, api.all_workspaces, now)?;
                record.expires_at =
                    (api.ttl_seconds > 0).then(|| now + Duration::from_secs(api.ttl_seconds));
                Ok((token.text(), record))
            }
            Kind::Join(join) => {
                let machine = parse_optional::<MachineName>("join.machine", &join.machine)?;
                let seconds = match join.ttl_seconds {
                    0 => JOIN_LIFE.0,
                    seconds if seconds <= JOIN_LIFE.1 => seconds,
                    _ => {
                        return Err(Refusal::new(
                            Reason::BadMessage,
                            "a join token is good for at most 30 days; ask for less",
                        ));
                    }
                };
                let id = crate::identity::random::<8>().map_err(|e| refuse::storage(&e))?;
                let token = JoinToken {
                    id: hex(&id),
                    secret: secret()?,
                    ca: self.authorities.now_in_force().issuing().digest(),
                };
                let record = TokenRecord {
                    id: token.id.clone(),
                    secret: Hash::of(token.secret.expose().as_bytes()),
                    kind: TokenKind::Join { machine },
                    created: now,
                    expires_at: Some(now + Duration::from_secs(u64::from(seconds))),
                    last_used: None,
                    consumed: None,
                };
                Ok((token.text(), record))
            }
        }
    }
}

impl Role {
    fn try_from_wire(role: i32) -> Result<Self, Refusal> {
        Self::ALL
            .into_iter()
            .find(|known| v1::Role::from(*known) as i32 == role)
            .ok_or_else(|| {
                Refusal::new(
                    Reason::BadMessage,
                    "there is no such role; there are viewer, planner, deployer, operator and admin",
                )
            })
    }
}

#[tonic::async_trait]
impl v1::control_plane_server::ControlPlane for Api {
    async fn get_info(
        &self,
        request: Request<v1::GetInfoRequest>,
    ) -> Result<Response<v1::GetInfoResponse>, Status> {
        let caller = caller_of(&request)?;
        let tenant = tenant_of(&request)?;
        Ok(Response::new(v1::GetInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            lineage: tenant.recorder.lineage.to_string(),
            workspace: tenant.recorder.workspace.to_string(),
            revision: tenant.recorder.revision().0,
            token: caller.name,
            role: v1::Role::from(caller.role).into(),
            plan_key: tenant.recorder.signer.key().to_string(),
        }))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = texts::read(request.into_inner()).await?;
        let planned = tenant.recorder.plan(request).await?;
        Ok(Response::new(v1::PlanResponse {
            plan_json: to_json(&planned.plan),
            approval: planned.plan.approval.to_string(),
            base_revision: planned.plan.base.0,
        }))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        let caller = caller_of(&request)?;
        let tenant = tenant_of(&request)?;
        let mut request = request.into_inner();
        if let Some(planned) = request.request.take() {
            request.request = Some(texts::read(planned).await?);
        }
        let applied = tenant.recorder.apply(caller.name, request).await?;
        let response = Response::new(v1::ApplyResponse {
            revision: applied.revision.0,
            releases: releases(&applied),
        });
        Ok(recorded(response, &applied))
    }

    type SnapshotStream = ReceiverStream<Result<v1::SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        request: Request<v1::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let tenant = tenant_of(&request)?;
        let bytes = tenant.recorder.snapshot().await?;
        let (tx, rx) = mpsc::channel(READER);
        tokio::spawn(async move {
            for piece in bytes.chunks(PIECE_BYTES) {
                let piece = v1::SnapshotResponse {
                    data: piece.to_vec(),
                };
                // The reader has gone.
                if tx.send(Ok(piece)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn sign_plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::SignPlanResponse>, Status> {
        let caller = caller_of(&request)?;
        let tenant = tenant_of(&request)?;
        let request = texts::read(request.into_inner()).await?;
        let signed = tenant.recorder.sign(caller.name, request).await?;
        Ok(Response::new(v1::SignPlanResponse {
            signed: Some(signed),
        }))
    }

    async fn apply_signed(
        &self,
        request: Request<v1::ApplySignedRequest>,
    ) -> Result<Response<v1::ApplySignedResponse>, Status> {
        let caller = caller_of(&request)?;
        let tenant = tenant_of(&request)?;
        let applied = tenant
            .recorder
            .apply_signed(caller.name, request.into_inner())
            .await?;
        let response = Response::new(v1::ApplySignedResponse {
            revision: applied.revision.0,
            releases: releases(&applied),
            recorded_before: applied.recorded_before,
        });
        Ok(recorded(response, &applied))
    }

    async fn missing_blobs(
        &self,
        request: Request<v1::MissingBlobsRequest>,
    ) -> Result<Response<v1::MissingBlobsResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let digests = request.into_inner().digests;
        if digests.len() > MAX_DIGESTS {
            let message = format!("at most {MAX_DIGESTS} digests may be asked about at once");
            return Err(Refusal::new(Reason::TooLarge, message).into());
        }
        let blobs = tenant.blobs.clone();
        let missing = refuse::blocking(move || {
            let mut missing = v1::MissingBlobsResponse::default();
            for text in digests {
                let digest = parse("digests", &text)?;
                if !blobs.has(&digest) {
                    missing.digests.push(text);
                    missing.came.push(blobs.came(&digest));
                }
            }
            Ok(missing)
        })
        .await?;
        Ok(Response::new(missing))
    }

    async fn upload_blob(
        &self,
        request: Request<Streaming<v1::UploadBlobRequest>>,
    ) -> Result<Response<v1::UploadBlobResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let mut incoming = request.into_inner();
        let first = incoming
            .message()
            .await?
            .ok_or_else(|| Refusal::from(WireError::FirstMessage("a digest")))?;
        let digest: Hash = parse("digest", &first.digest).map_err(Refusal::from)?;
        let _place = self.uploads.acquire().await.map_err(|_| closing())?;
        let (tx, mut rx) = mpsc::channel::<Option<Vec<u8>>>(4);
        let blobs = tenant.blobs.clone();
        let offset = first.offset;
        // Dropping `tx` without the final `None` says that the caller went away: what came is kept, to be gone on with.
        let stored = tokio::task::spawn_blocking(move || {
            let mut upload = blobs.upload(digest, offset).map_err(|e| refuse::blob(&e))?;
            while let Some(data) = rx.blocking_recv() {
                match data {
                    Some(data) => upload.write(&data).map_err(|e| refuse::blob(&e))?,
                    None => return upload.finish().map_err(|e| refuse::blob(&e)),
                }
            }
            Err(closing())
        });
        let mut data = Some(first.data);
        while let Some(bytes) = data {
            // The writer has failed, and says why below.
            if tx.send(Some(bytes)).await.is_err() {
                break;
            }
            data = tokio::time::timeout(UPLOAD_PAUSE, incoming.message())
                .await
                .map_err(|_| {
                    let message =
                        "the upload paused for more than 30 s and was dropped; send it again";
                    Refusal::new(Reason::Closing, message)
                })??
                .map(|message| message.data);
        }
        let _ = tx.send(None).await;
        let size = stored.await.map_err(|e| refuse::panicked(&e))??;
        Ok(Response::new(v1::UploadBlobResponse { size }))
    }

    type WatchStream = ReceiverStream<Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let tenant = tenant_of(&request)?;
        let (tx, rx) = mpsc::channel(READER);
        let resume = Resume {
            of: format!("{}-", self.instance),
            dropped: self.metrics.clone(),
        };
        let shown = resume.shown(&request.get_ref().resume_token);
        tokio::spawn(watch(
            tenant.gateway.clone(),
            self.stopping.clone(),
            tx,
            resume,
            shown,
        ));
        Ok(Response::new(ReceiverStream::new(rx)))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let (_, view) = tenant.gateway.view().await.ok_or_else(closing)?;
        Ok(Response::new(v1::GetStatusResponse { view_json: view }))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let owner = parse_optional::<OwnerName>("owner", &request.owner).map_err(Refusal::from)?;
        let limit = match request.limit as usize {
            0 => HISTORY.1,
            limit => limit.min(HISTORY.0),
        };
        let before = parse_optional::<u64>("page_token", &request.page_token)
            .map_err(Refusal::from)?
            .map_or(Revision(u64::MAX), Revision);
        let ledger = tenant.ledger.clone();
        let answer =
            refuse::blocking(move || history(&ledger, owner.as_ref(), before, limit)).await?;
        Ok(Response::new(answer))
    }

    type LogsStream = LogStream;

    async fn logs(
        &self,
        request: Request<v1::LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let wanted = wanted_logs(&request).map_err(Refusal::from)?;
        let (tx, rx) = mpsc::channel(READER);
        let owner = wanted.owner.clone();
        let requests = tenant
            .gateway
            .open_logs(wanted, tx)
            .await
            .ok_or_else(closing)?
            .ok_or_else(|| {
                Refusal::new(
                    Reason::NotFound,
                    format!(
                        "no process of {owner} is recorded there; `plumb status` shows what is"
                    ),
                )
            })?;
        Ok(Response::new(LogStream {
            inner: ReceiverStream::new(rx),
            gateway: tenant.gateway.clone(),
            requests,
        }))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        let tenant = tenant_of(&request)?;
        let (text, record) = self.new_token(request.into_inner(), &caller)?;
        // What is for all belongs to no workspace alone.
        let tenant = if record.is_for_all() {
            self.tenants.home().clone()
        } else {
            tenant
        };
        let ledger = tenant.ledger.clone();
        let record = refuse::blocking(move || {
            ledger
                .put_token(&record)
                .map_err(|e| refuse::token(&e))
                .map(|()| record)
        })
        .await?;
        tenant.access.token_stored(record.clone());
        tracing::info!(by = %caller.name, id = %record.id, "token made");
        let detail = Detail(token_made(&record));
        let mut response = Response::new(v1::CreateTokenResponse {
            token: text.expose().to_owned(),
            id: record.id,
            expires: time_text(record.expires_at),
        });
        response.extensions_mut().insert(detail);
        Ok(response)
    }
}

/// What the audit log says of a new token.
fn token_made(record: &TokenRecord) -> String {
    let until = match record.expires_at {
        Some(expires) => format!(" until {expires}"),
        None => String::new(),
    };
    match &record.kind {
        TokenKind::Api { role, all } => {
            let of = if *all { " for all workspaces" } else { "" };
            format!("made token {}, role {role}{of}{until}", record.id)
        }
        TokenKind::Join { machine } => {
            let machine = machine.as_ref().map_or("any machine", |name| name.as_str());
            format!("made join token {} for {machine}{until}", record.id)
        }
    }
}

fn releases(applied: &Applied) -> BTreeMap<String, u64> {
    let releases = applied.releases.iter();
    releases
        .map(|(owner, release)| (owner.to_string(), release.0))
        .collect()
}

/// What the audit log says of what was recorded: the revision, and each release.
fn recorded<T>(mut response: Response<T>, applied: &Applied) -> Response<T> {
    let releases: Vec<String> = applied
        .releases
        .iter()
        .map(|(owner, release)| format!("{owner} {release}"))
        .collect();
    let what = match (applied.recorded_before, releases.is_empty()) {
        (true, _) => "which was recorded before".to_owned(),
        (false, true) => "without a release".to_owned(),
        (false, false) => format!("releases {}", releases.join(", ")),
    };
    let detail = Detail(format!("revision {}, {what}", applied.revision));
    response.extensions_mut().insert(detail);
    let owners = Owners(applied.releases.keys().cloned().collect());
    response.extensions_mut().insert(owners);
    response
}

fn wanted_logs(request: &v1::LogsRequest) -> Result<WantedLogs, WireError> {
    Ok(WantedLogs {
        owner: parse("owner", &request.owner)?,
        process: parse_optional("process", &request.process)?,
        machine: parse_optional("machine", &request.machine)?,
        follow: request.follow,
        since: parse_optional("since", &request.since)?,
        tail: request.tail,
    })
}

fn history(
    ledger: &Ledger,
    owner: Option<&OwnerName>,
    before: Revision,
    limit: usize,
) -> Result<v1::HistoryResponse, Refusal> {
    let mut records = ledger
        .history(owner, before, limit + 1)
        .map_err(|e| refuse::ledger(&e))?;
    let more = records.len() > limit;
    records.truncate(limit);
    let next_page_token = match records.last() {
        Some(last) if more => last.revision.to_string(),
        _ => String::new(),
    };
    let mut known: BTreeMap<OwnerName, BTreeMap<ReleaseNumber, Outcome>> = BTreeMap::new();
    let mut entries = Vec::new();
    for record in records {
        let mut outcomes = BTreeMap::new();
        for (owner, (release, _)) in &record.released {
            if !known.contains_key(owner) {
                let noted = ledger.outcomes(owner).map_err(|e| refuse::ledger(&e))?;
                known.insert(owner.clone(), noted);
            }
            let outcome = known
                .get(owner)
                .and_then(|noted| noted.get(release))
                .copied()
                .unwrap_or(Outcome::Converging);
            outcomes.insert(owner.to_string(), outcome_word(outcome).to_owned());
        }
        entries.push(v1::HistoryEntry {
            record_json: to_json(&record),
            outcomes,
        });
    }
    Ok(v1::HistoryResponse {
        entries,
        next_page_token,
    })
}

pub(crate) fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Converging => "converging",
        Outcome::Converged => "converged",
        Outcome::Failed => "failed",
        Outcome::Superseded => "superseded",
        Outcome::Removed => "removed",
    }
}

/// Keeps one reader informed until it goes or the control plane does.
/// How readers of a watch go on where they were: a token is the run of this control plane and the number of a change.
struct Resume {
    of: String,
    dropped: Arc<Metrics>,
}

impl Resume {
    fn token(&self, number: u64) -> String {
        format!("{}{number}", self.of)
    }

    /// The change that the reader has seen; 0 if it says none that is known here.
    fn shown(&self, token: &str) -> u64 {
        let number = token.strip_prefix(&self.of);
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

async fn watch(
    gateway: Gateway,
    mut stopping: watch::Receiver<bool>,
    tx: mpsc::Sender<Result<v1::WatchResponse, Status>>,
    resume: Resume,
    mut shown: u64,
) {
    let mut changes = gateway.changes();
    let mut events = gateway.events();
    let mut message = v1::WatchResponse::default();
    loop {
        // What came before the view is in the view.
        changes.borrow_and_update();
        let Some((number, view)) = gateway.view().await else {
            return;
        };
        if number != shown {
            message.view_json = view;
            shown = number;
        }
        drain(&mut events, &mut message);
        let sent = Instant::now();
        if !message.view_json.is_empty() || !message.events.is_empty() {
            let mut message = std::mem::take(&mut message);
            message.resume_token = resume.token(shown);
            resume
                .dropped
                .dropped_events
                .fetch_add(message.dropped, Ordering::Relaxed);
            if tx.send(Ok(message)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            event = events.recv() => match event {
                Ok(event) => take(event, &mut message),
                Err(broadcast::error::RecvError::Lagged(lost)) => message.dropped += lost,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tx.closed() => return,
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        tokio::time::sleep_until(sent + COALESCE).await;
    }
}

fn take((machine, event): (MachineName, MachineEvent), message: &mut v1::WatchResponse) {
    message.events.push(v1::WatchEvent {
        machine: machine.into(),
        event_json: to_json(&event),
    });
}

fn drain(
    events: &mut broadcast::Receiver<(MachineName, MachineEvent)>,
    message: &mut v1::WatchResponse,
) {
    while message.events.len() < WATCH_EVENTS {
        match events.try_recv() {
            Ok(event) => take(event, message),
            Err(broadcast::error::TryRecvError::Lagged(lost)) => message.dropped += lost,
            Err(_) => return,
        }
    }
}

/// The lines of one `Logs` call; dropping it tells the machines to stop.
pub(crate) struct LogStream {
    inner: ReceiverStream<Result<v1::LogsResponse, Status>>,
    gateway: Gateway,
    requests: Vec<u64>,
}

impl Stream for LogStream {
    type Item = Result<v1::LogsResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.inner).poll_next(cx)
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        self.gateway.close_logs(std::mem::take(&mut self.requests));
    }
}
