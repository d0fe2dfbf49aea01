//! Talking to a control plane: one method for each call that a command makes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use plumb_dispatch::WorkspaceView;
use plumb_model::condition::MachineEvent;
use plumb_model::plan::Plan;
use plumb_model::state::{Commit, RevisionRecord};
use plumb_model::{Hash, MachineName, OwnerName, Secret, SecretName};
use plumb_planner::{Ask, Source};
use plumb_wire::client::{self, ApiClient, CallError, Target};
use plumb_wire::error::Reason;
use plumb_wire::{PIECE_BYTES, v1};
use serde::de::DeserializeOwned;
use tonic::Streaming;

use crate::context::Context;
use crate::dial;
use crate::error::CliError;
use crate::repository::{Read as Blueprints, Sources};

/// An upload that is cut goes on so many times, after this pause each.
const UPLOAD_TRIES: u32 = 6;
const UPLOAD_PAUSE: Duration = Duration::from_secs(1);

/// A connection with a token.
pub struct Remote {
    address: String,
    api: ApiClient,
    /// How it was reached, for its other services.
    pub context: Context,
}

/// A plan as the control plane made it, with what it takes to apply it.
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Its exact JSON.
    pub json: Vec<u8>,
    request: v1::PlanRequest,
    approval: String,
    base: u64,
}

/// One piece of news.
pub struct News {
    /// The workspace, if it moved.
    pub view: Option<WorkspaceView>,
    /// What happened, on which machine.
    pub events: Vec<(MachineName, MachineEvent)>,
}

/// A stream of news.
pub struct Watch {
    address: String,
    stream: Streaming<v1::WatchResponse>,
}

/// What was recorded.
pub struct Applied {
    /// The revision that holds it.
    pub revision: u64,
    /// The releases that it made.
    pub releases: BTreeMap<String, u64>,
    /// It was recorded before this call, which has recorded nothing.
    pub before: bool,
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CliError> {
    serde_json::from_slice(bytes).map_err(|e| CliError::Answer(e.to_string()))
}

/// The request to plan blueprints.
pub fn blueprints(
    read: &Blueprints,
    sources: &Sources,
    ask: &Ask,
    commit: Option<Commit>,
) -> Result<v1::PlanRequest, CliError> {
    let source = |s: &Source| v1::Source {
        digest: s.digest.to_string(),
        size: s.size,
        text: s.text.clone(),
    };
    let blueprints = v1::Blueprints {
        blueprint_set_json: serde_json::to_vec(&read.set)
            .map_err(|e| CliError::Other(e.to_string()))?,
        sources: sources
            .by_path
            .iter()
            .map(|(path, s)| (path.clone(), source(s)))
            .collect(),
        ask_json: serde_json::to_vec(ask).map_err(|e| CliError::Other(e.to_string()))?,
    };
    Ok(v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(blueprints)),
        commit: commit.map(v1::Commit::from),
    })
}

/// The request to plan going back.
pub fn rollback(owner: &OwnerName, release: Option<u64>) -> v1::PlanRequest {
    let rollback = v1::Rollback {
        owner: owner.to_string(),
        release,
    };
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Rollback(rollback)),
        commit: None,
    }
}

/// The request to plan going on to the newest versions of secrets.
pub fn renew_secrets(names: &[SecretName]) -> v1::PlanRequest {
    let renew = v1::RenewSecrets {
        names: names.iter().map(ToString::to_string).collect(),
    };
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::RenewSecrets(renew)),
        commit: None,
    }
}

/// The request to plan removing everything.
pub fn destroy() -> v1::PlanRequest {
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Destroy(v1::Destroy {})),
        commit: None,
    }
}

impl Remote {
    /// Connects, and proves that it is the right control plane.
    pub async fn connect(context: &Context) -> Result<Self, CliError> {
        let target = Target {
            address: context.address.clone(),
            ca_pem: context.ca_pem.clone(),
            identity: None,
        };
        let channel = client::connect(&target).await?;
        if context.wants_to_learn() {
            crate::fleet::learn(channel.clone(), context).await;
        }
        let api = client::api_with(channel, dial::bearer(context)?);
        Ok(Self {
            address: context.address.clone(),
            api,
            context: context.clone(),
        })
    }

    fn failed(&self) -> impl Fn(tonic::Status) -> CliError {
        let address = self.address.clone();
        move |status| CallError::of(&address, &status).into()
    }

    /// Who answers.
    pub async fn info(&mut self) -> Result<v1::GetInfoResponse, CliError> {
        let answer = self.api.get_info(v1::GetInfoRequest {}).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// Plans blueprints.
    pub async fn plan_blueprints(
        &mut self,
        read: &Blueprints,
        sources: &Sources,
        ask: &Ask,
        commit: Option<Commit>,
    ) -> Result<Planned, CliError> {
        self.plan(blueprints(read, sources, ask, commit)?).await
    }

    /// Plans going back.
    pub async fn plan_rollback(
        &mut self,
        owner: &OwnerName,
        release: Option<u64>,
    ) -> Result<Planned, CliError> {
        let mut planned = self.plan(rollback(owner, release)).await?;
        // An apply names the release, so that nothing is chosen anew between the plan and the apply.
        if let plumb_model::state::RevisionKind::Rollback { to, .. } = &planned.plan.kind {
            planned.request = rollback(owner, Some(to.0));
        }
        Ok(planned)
    }

    /// Plans removing everything.
    pub async fn plan_destroy(&mut self) -> Result<Planned, CliError> {
        self.plan(destroy()).await
    }

    /// Plans a request.
    pub async fn plan(&mut self, request: v1::PlanRequest) -> Result<Planned, CliError> {
        let answer = self
            .api
            .plan(request.clone())
            .await
            .map_err(self.failed())?
            .into_inner();
        let plan = decode(&answer.plan_json)?;
        Ok(Planned {
            plan,
            json: answer.plan_json,
            request,
            approval: answer.approval,
            base: answer.base_revision,
        })
    }

    /// Everything that a plan would be made against now, as bytes.
    pub async fn snapshot(&mut self) -> Result<Vec<u8>, CliError> {
        let mut stream = self
            .api
            .snapshot(v1::SnapshotRequest {})
            .await
            .map_err(self.failed())?
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(piece) = stream.message().await.map_err(self.failed())? {
            bytes.extend_from_slice(&piece.data);
            if bytes.len() as u64 > plumb_planner::snapshot::MAX_BYTES {
                return Err(CliError::Answer("the snapshot is too large".to_owned()));
            }
        }
        Ok(bytes)
    }

    /// Plans a request, and has the plan signed.
    pub async fn sign(&mut self, request: v1::PlanRequest) -> Result<v1::SignedPlan, CliError> {
        let answer = self.api.sign_plan(request).await.map_err(self.failed())?;
        answer
            .into_inner()
            .signed
            .ok_or_else(|| CliError::Answer("it holds no plan".to_owned()))
    }

    /// Those of some blobs that the control plane does not have.
    pub async fn missing(
        &mut self,
        digests: impl Iterator<Item = &Hash>,
    ) -> Result<Vec<Missing>, CliError> {
        let digests: Vec<String> = digests.map(ToString::to_string).collect();
        if digests.is_empty() {
            return Ok(Vec::new());
        }
        let asked = v1::MissingBlobsRequest { digests };
        let answer = self.api.missing_blobs(asked).await;
        let missing = answer.map_err(self.failed())?.into_inner();
        // An older control plane says nothing of what came: everything is sent from the beginning.
        let came = missing.came.into_iter().chain(std::iter::repeat(0));
        missing
            .digests
            .iter()
            .zip(came)
            .map(|(digest, came)| {
                let none = |_| CliError::Answer("a digest is none".to_owned());
                let digest = digest.parse().map_err(none)?;
                Ok(Missing { digest, came })
            })
            .collect()
    }

    /// Uploads one blob: what the control plane has not got of it. A connection that breaks meanwhile is made again, and the
    /// upload goes on where it was.
    pub async fn upload_blob(
        &mut self,
        missing: Missing,
        content: &Content,
    ) -> Result<(), CliError> {
        let Missing { digest, mut came } = missing;
        let mut left = UPLOAD_TRIES;
        loop {
            let upload = pieces(
                digest.to_string(),
                content.from(came)?,
                came.min(content.size),
            );
            let Err(status) = self.api.upload_blob(upload).await else {
                return Ok(());
            };
            left -= 1;
            let error = self.failed()(status);
            let lost = match &error {
                CliError::Call(CallError::Lost { .. }) => true,
                CliError::Call(CallError::Refused(refusal)) if came > 0 => {
                    if refusal.reason != Reason::DigestMismatch {
                        return Err(error);
                    }
                    came = 0;
                    false
                }
                _ => return Err(error),
            };
            if left == 0 {
                return Err(error);
            }
            if lost {
                tokio::time::sleep(UPLOAD_PAUSE).await;
                match self.missing([digest].iter()).await {
                    Ok(missing) => match missing.first() {
                        Some(missing) => came = missing.came,
                        // It was whole, and only the answer was lost.
                        None => return Ok(()),
                    },
                    Err(_) => came = 0,
                }
            }
        }
    }

    /// Uploads what the control plane does not have yet.
    pub async fn upload(&mut self, sources: &mut Sources) -> Result<(), CliError> {
        for missing in self.missing(sources.blobs.keys()).await? {
            let Some(file) = sources.blobs.get(&missing.digest) else {
                continue;
            };
            let content =
                Content::whole(file).map_err(CliError::file("read", "a packed source"))?;
            self.upload_blob(missing, &content).await?;
        }
        Ok(())
    }

    /// Applies what was planned.
    pub async fn apply(
        &mut self,
        planned: &Planned,
        allow: &[String],
    ) -> Result<Applied, CliError> {
        let request = v1::ApplyRequest {
            request: Some(planned.request.clone()),
            approval: planned.approval.clone(),
            base_revision: planned.base,
            allow: allow.to_vec(),
        };
        let answer = self
            .api
            .apply(request)
            .await
            .map_err(self.failed())?
            .into_inner();
        Ok(Applied {
            revision: answer.revision,
            releases: answer.releases.into_iter().collect(),
            before: false,
        })
    }

    /// Plans the same again: what is recorded or seen of the machines may be another by now.
    pub async fn plan_again(&mut self, planned: &Planned) -> Result<Planned, CliError> {
        self.plan(planned.request.clone()).await
    }

    /// Applies what was signed.
    pub async fn apply_signed(
        &mut self,
        request: v1::ApplySignedRequest,
    ) -> Result<Applied, CliError> {
        let answer = self.api.apply_signed(request).await;
        let answer = answer.map_err(self.failed())?.into_inner();
        Ok(Applied {
            revision: answer.revision,
            releases: answer.releases.into_iter().collect(),
            before: answer.recorded_before,
        })
    }

    /// The status as it is now.
    pub async fn status(&mut self) -> Result<WorkspaceView, CliError> {
        let answer = self
            .api
            .get_status(v1::GetStatusRequest {})
            .await
            .map_err(self.failed())?;
        decode(&answer.into_inner().view_json)
    }

    /// Stays informed.
    pub async fn watch(&mut self) -> Result<Watch, CliError> {
        let stream = self
            .api
            .watch(v1::WatchRequest::default())
            .await
            .map_err(self.failed())?
            .into_inner();
        Ok(Watch {
            address: self.address.clone(),
            stream,
        })
    }

    /// What was recorded, newest first, each with what became of its releases.
    pub async fn history(
        &mut self,
        owner: Option<&OwnerName>,
        limit: u32,
    ) -> Result<Vec<(RevisionRecord, BTreeMap<String, String>)>, CliError> {
        let request = v1::HistoryRequest {
            owner: owner.map(ToString::to_string).unwrap_or_default(),
            limit,
            ..v1::HistoryRequest::default()
        };
        let answer = self
            .api
            .history(request)
            .await
            .map_err(self.failed())?
            .into_inner();
        answer
            .entries
            .into_iter()
            .map(|entry| {
                Ok((
                    decode(&entry.record_json)?,
                    entry.outcomes.into_iter().collect(),
                ))
            })
            .collect()
    }

    /// Log lines.
    pub async fn logs(
        &mut self,
        request: v1::LogsRequest,
    ) -> Result<Streaming<v1::LogsResponse>, CliError> {
        Ok(self
            .api
            .logs(request)
            .await
            .map_err(self.failed())?
            .into_inner())
    }

    /// Sorts an error that a stream ended with.
    pub fn sort(&self, status: &tonic::Status) -> CliError {
        CallError::of(&self.address, status).into()
    }

    /// Makes a join token; returns its text and when it runs out.
    pub async fn create_join_token(
        &mut self,
        machine: Option<&MachineName>,
        ttl_seconds: u32,
    ) -> Result<(Secret, String), CliError> {
        let join = v1::JoinToken {
            machine: machine.map(ToString::to_string).unwrap_or_default(),
            ttl_seconds,
        };
        let kind = v1::create_token_request::Kind::Join(join);
        let (text, made) = self.create_token(kind).await?;
        Ok((text, made.expires))
    }

    /// Makes a token; returns its text, its id and when it runs out.
    pub async fn create_token(
        &mut self,
        kind: v1::create_token_request::Kind,
    ) -> Result<(Secret, v1::CreateTokenResponse), CliError> {
        let request = v1::CreateTokenRequest { kind: Some(kind) };
        let answer = self.api.create_token(request).await;
        let mut answer = answer.map_err(self.failed())?.into_inner();
        let text = Secret::new(std::mem::take(&mut answer.token));
        Ok((text, answer))
    }
}

impl Watch {
    /// The next piece of news; none when the control plane has ended the stream.
    pub async fn next(&mut self) -> Result<Option<News>, CliError> {
        let Some(news) = self
            .stream
            .message()
            .await
            .map_err(|status| CallError::of(&self.address, &status))?
        else {
            return Ok(None);
        };
        let view = if news.view_json.is_empty() {
            None
        } else {
            Some(decode(&news.view_json)?)
        };
        let events = news
            .events
            .into_iter()
            .map(|e| {
                let machine =
                    MachineName::new(&e.machine).map_err(|e| CliError::Answer(e.to_string()))?;
                Ok((machine, decode(&e.event_json)?))
            })
            .collect::<Result<_, CliError>>()?;
        Ok(Some(News { view, events }))
    }
}

/// A blob that the control plane has not got, and how many bytes of it came in an upload that was cut.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    /// Which.
    pub digest: Hash,
    /// How many of its bytes came.
    pub came: u64,
}

/// The bytes of a blob in an open file, to be read from any place on, by several at once.
#[derive(Debug)]
pub struct Content {
    file: File,
    start: u64,
    size: u64,
}

impl Content {
    /// A whole file.
    pub fn whole(file: &File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Self::section(file, 0, size)
    }

    /// A part of a file.
    pub fn section(file: &File, start: u64, size: u64) -> io::Result<Self> {
        let file = file.try_clone()?;
        Ok(Self { file, start, size })
    }

    fn from(&self, offset: u64) -> Result<Reading, CliError> {
        let offset = offset.min(self.size);
        Ok(Reading {
            file: self
                .file
                .try_clone()
                .map_err(CliError::file("read", "a packed source"))?,
            at: self.start + offset,
            left: self.size - offset,
        })
    }
}

/// Reads at places of its own, since whoever was cut off may still be reading from the same file.
struct Reading {
    file: File,
    at: u64,
    left: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// A blob as a stream of pieces. The first one names it, so that an empty blob has one piece too.
fn pieces(
    digest: String,
    mut file: impl Read + Send + 'static,
    mut offset: u64,
) -> impl tokio_stream::Stream<Item = v1::UploadBlobRequest> {
    let (out, pieces) = tokio::sync::mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let mut digest = digest;
        loop {
            let mut data = Vec::with_capacity(PIECE_BYTES);
            // A file that cannot be read any further arrives short, and its digest gives that away.
            let read = file
                .by_ref()
                .take(PIECE_BYTES as u64)
                .read_to_end(&mut data)
                .unwrap_or(0);
            if read == 0 && digest.is_empty() {
                return;
            }
            let piece = v1::UploadBlobRequest {
                digest: std::mem::take(&mut digest),
                data,
                offset: std::mem::take(&mut offset),
            };
            if out.blocking_send(piece).is_err() || read == 0 {
                return;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(pieces)
}
