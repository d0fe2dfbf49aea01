//! Puts the control plane together, serves it, and takes it down again.
//!
//! Flow of a start: data folder (lock, format, lineage) → store → CA → blobs → recorded state → fleet → listen. What
//! fails is one line with the next step, and nothing was served. It writes nothing to standard output.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumb_ledger::{
    Actor, AuditEntry, DataFolder, FolderError, LedgerError, SledStore, StoreError,
};
use plumb_model::{Lineage, Secret, Timestamp, WorkspaceName};
use plumb_wire::pages::Page;
use plumb_wire::plan_file::PlanKey;
use plumb_wire::v1::access_server::AccessServer;
use plumb_wire::v1::agents_server::AgentsServer;
use plumb_wire::v1::control_plane_server::ControlPlaneServer;
use plumb_wire::v1::enrollment_server::EnrollmentServer;
use plumb_wire::v1::event_log_server::EventLogServer;
use plumb_wire::v1::hands_server::HandsServer;
use plumb_wire::v1::machines_server::MachinesServer;
use plumb_wire::v1::operations_server::OperationsServer;
use plumb_wire::v1::rollouts_server::RolloutsServer;
use plumb_wire::v1::secrets_server::SecretsServer;
use plumb_wire::{DESCRIPTOR_SET, MAX_AGENT_MESSAGE, MAX_API_MESSAGE};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server;

use crate::access::Role;
use crate::access_service::AccessService;
use crate::agents::Agents;
use crate::api::{Api, LOCAL, api_token};
use crate::backup;
use crate::blobs::BlobError;
use crate::enrollment::Enrollment;
use crate::events::Events;
use crate::guard::{Gate, GuardLayer};
use crate::hands::service::HandsService;
use crate::identity::IdentityError;
use crate::incoming;
use crate::limits::{LimitRates, Limits};
use crate::machines::{Machines, Rotating};
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::operations::Operations;
use crate::rollouts::Rollouts;
use crate::rotation::Authorities;
use crate::secrets::keys::Keys;
use crate::secrets::service::Secrets;
use crate::signing::Signer;
use crate::tenants::{Opened, Plane, Tenants};
use crate::tls::{Tls, TlsError};

/// How often a quiet connection is probed, and how long the answer may take.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// The most streams of one connection at once: a session, some blobs and logs.
const MAX_STREAMS: u32 = 256;

/// The most bytes of headers of one call.
const MAX_HEADERS: u32 = 64 * 1024;

/// How many bytes may be under way on one stream and on one connection, which bounds what a caller can have buffered.
const WINDOWS: (u32, u32) = (1024 * 1024, 4 * 1024 * 1024);

/// How long calls may take to end once the control plane goes down.
const DRAIN: Duration = Duration::from_secs(5);

/// What a control plane is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder; made if there is none.
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to serve `/healthz`, `/readyz` and, on loopback, `/metrics` over plain HTTP, if anywhere.
    pub http: Option<SocketAddr>,
    /// The workspace that it serves.
    pub workspace: WorkspaceName,
    /// The clock: [`Timestamp::now`] outside tests.
    pub now: fn() -> Timestamp,
    /// How often one may call: [`LimitRates::default`] outside tests.
    pub limits: LimitRates,
}

/// Why a control plane does not start. One line each, with the next step; causes in the source chain.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder is another workspace's.
    #[error("the data folder {folder} holds workspace {held}, not {asked}; start it with --workspace {held}, or choose another --data", folder = .folder.display())]
    OtherWorkspace {
        /// The folder.
        folder: PathBuf,
        /// Its workspace.
        held: WorkspaceName,
        /// The one that was asked for.
        asked: WorkspaceName,
    },
    /// The note of the workspace in it.
    #[error("cannot read or write {path}; see that it is a file of this user's, and what it says", path = .path.display())]
    Note {
        /// The note.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store in it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is recorded in it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What is recorded does not hold together.
    #[error("the recorded state cannot be used; restore the data folder from a backup")]
    Recorded(#[from] plumb_dispatch::RecordingError),
    /// The CA.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS and its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The folder of blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The admin token could not be made.
    #[error("cannot make the local admin token: {0}")]
    Token(String),
    /// The address.
    #[error("cannot listen on {address}; stop what listens there, or choose another {flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Which flag says so.
        flag: &'static str,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// TLS.
    #[error("cannot set up TLS or reflection: {0}; this is a defect of plumb")]
    Setup(String),
    /// A task that did not come back.
    #[error("the start failed inside: {0}; see the log, and report it")]
    Inside(String),
}

/// A control plane that is being served. Dropping it takes it down at once; [`Running::stop`] says goodbye first.
#[derive(Debug)]
pub struct Running {
    /// Where it listens.
    pub local_addr: SocketAddr,
    /// Where it serves its pages over plain HTTP, if anywhere.
    pub http_addr: Option<SocketAddr>,
    /// The CA that clients pin, PEM.
    pub ca_pem: String,
    /// The text of the token `local`, role admin; the one of the start before is revoked.
    pub admin_token: Secret,
    /// The data folder's lineage.
    pub lineage: Lineage,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The public key that signs its plan files.
    pub plan_key: PlanKey,
    stopping: watch::Sender<bool>,
    tenants: Arc<Tenants>,
    keeper: JoinHandle<()>,
    /// What serves pages over plain HTTP, and what it serves them from: its connections hold no share of that.
    paged: Option<(JoinHandle<()>, Arc<Operations>)>,
    told: JoinHandle<()>,
    served: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    /// Resolves when serving has ended without having been told to: with the reason.
    pub async fn failed(&mut self) -> String {
        match (&mut self.served).await {
            Ok(Ok(())) => "the server ended".to_owned(),
            Ok(Err(error)) => crate::refuse::chain(&error),
            Err(error) => error.to_string(),
        }
    }

    /// Takes it down: agents are told, calls get a few seconds to end, what became of releases is on disk when it
    /// returns, and the data folder is free.
    pub async fn stop(mut self) {
        let _ = self.stopping.send(true);
        if let Some((paged, _)) = self.paged.take() {
            paged.abort();
        }
        for tenant in self.tenants.list() {
            tenant.gateway.stop().await;
        }
        if tokio::time::timeout(DRAIN, &mut self.served).await.is_err() {
            self.served.abort();
        }
        // Only now: the last answers have waited for their entries.
        let _ = (&mut self.keeper).await;
        // It looks at the store, which is not free before.
        let _ = (&mut self.told).await;
        for tenant in self.tenants.list() {
            tenant.desk.stop().await;
            tenant.audit.stop().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.stopping.send(true);
        for tenant in self.tenants.list() {
            tenant.gateway.stop_soon();
        }
        self.served.abort();
        self.told.abort();
        if let Some((paged, _)) = &self.paged {
            paged.abort();
        }
    }
}

async fn bind(
    address: SocketAddr,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen {
        address,
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// What the blocking part of a start brings along.
struct Ready {
    store: Arc<Measured>,
    authorities: Authorities,
    tls: Tls,
    plane: Plane,
    home: Opened,
    others: Vec<Opened>,
    admin_token: Secret,
}

/// Notes in the folder which workspace it holds, or refuses one that holds another: it would look empty, and its
/// agents would be turned away.
fn claim(data: &Path, asked: &WorkspaceName) -> Result<(), StartError> {
    let path = data.join("workspace");
    let note = |source| StartError::Note {
        path: path.clone(),
        source,
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => match WorkspaceName::new(text.trim()) {
            Ok(held) if held == *asked => Ok(()),
            Ok(held) => Err(StartError::OtherWorkspace {
                folder: data.to_owned(),
                held,
                asked: asked.clone(),
            }),
            Err(error) => Err(note(std::io::Error::other(error.to_string()))),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            plumb_ledger::write_durably(&path, format!("{asked}\n").as_bytes()).map_err(note)
        }
        Err(error) => Err(note(error)),
    }
}

/// A name that no other run of a control plane has.
fn run_name() -> Result<String, IdentityError> {
    let random = crate::identity::random::<16>();
    let random = random.map_err(|e| IdentityError::Make(e.to_string()))?;
    Ok(plumb_model::Hash::of(&random).to_string())
}

fn open(config: &Config) -> Result<Ready, StartError> {
    let now = (config.now)();
    let folder = DataFolder::open(&config.data)?;
    claim(&config.data, &config.workspace)?;
    let lineage = folder.lineage().clone();
    let store = Arc::new(Measured::new(SledStore::open(&folder)?));
    let identity = folder.path().join("identity");
    let authorities = Authorities::open(&identity, &lineage, now)?;
    let tls = Tls::new(config.listen.ip(), &authorities.now_in_force(), config.now)?;
    let plane = Plane {
        data: folder.path().to_owned(),
        store: store.clone(),
        lineage,
        signer: Arc::new(Signer::open(&identity)?),
        keys: Arc::new(Keys::open(&identity, &|name| std::env::var_os(name))?),
        now: config.now,
        run: run_name()?,
    };
    let ledger = plane.ledger(&config.workspace);
    let (token, record) =
        api_token(LOCAL, Role::Admin, true, now).map_err(|e| StartError::Token(e.message))?;
    ledger.remove_token(LOCAL)?;
    ledger
        .put_token(&record)
        .map_err(|e| StartError::Token(e.to_string()))?;
    // The context that is written at every start knows all CAs.
    authorities.told(LOCAL)?;
    ledger.append_audit(&[AuditEntry {
        at: now,
        who: Actor::ControlPlane,
        from: String::new(),
        method: "start".to_owned(),
        refused: None,
        detail: format!("started; the token {LOCAL} was made anew"),
        owners: Vec::new(),
    }])?;
    let home = Opened::read(&plane, &config.workspace, &plane.data.join("blobs"))?;
    let others = ledger
        .workspaces()?
        .iter()
        .map(|record| Opened::read(&plane, &record.name, &plane.blobs(&record.name)))
        .collect::<Result<_, _>>()?;
    Ok(Ready {
        store,
        authorities,
        tls,
        plane,
        home,
        others,
        admin_token: token.text(),
    })
}

/// Starts a control plane, and returns once it takes calls.
///
/// # Errors
/// See [`StartError`].
pub async fn start(config: Config) -> Result<Running, StartError> {
    // A second installation is refused, and the first is ours or as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // The port first: a second server on one port must not rotate the first one's token.
    let (listener, local_addr) = bind(config.listen, "--listen").await?;
    let pages = match config.http {
        Some(address) => Some(bind(address, "--http").await?),
        None => None,
    };
    let blocking = config.clone();
    let opened = tokio::task::spawn_blocking(move || open(&blocking))
        .await
        .map_err(|e| StartError::Inside(e.to_string()))??;

    let plane = opened.plane;
    let authorities = Arc::new(opened.authorities);
    let tls = Arc::new(opened.tls);
    let (stopping, stop) = watch::channel(false);
    let plan_key = plane.signer.key();
    tracing::info!(key = %plan_key.id(), "plan files are signed with this key");
    let tenants = Arc::new(Tenants::new(plane.clone(), opened.home.serve(&plane)));
    for other in opened.others {
        tenants.add(other.serve(&plane));
    }
    let keeper = tokio::spawn(crate::tenants::keep(tenants.clone(), stop.clone()));
    let limits = Arc::new(Limits::new(config.limits));
    let metrics = Arc::new(Metrics::default());
    let operations = Operations {
        tenants: tenants.clone(),
        authorities: authorities.clone(),
        store: opened.store.clone(),
        metrics: metrics.clone(),
        limits: limits.clone(),
        now: config.now,
        started: (config.now)(),
        backups: Arc::new(backup::Source::new(
            &plane.data,
            plane.lineage.clone(),
            config.workspace.clone(),
            config.now,
            opened.store,
        )),
    };
    let gate = Gate {
        tenants: tenants.clone(),
        authorities: authorities.clone(),
        limits,
        operations: operations.clone(),
        now: config.now,
        started: Instant::now(),
    };
    let api = Api {
        tenants: tenants.clone(),
        authorities: authorities.clone(),
        now: config.now,
        uploads: Arc::new(Semaphore::new(crate::api::UPLOADS)),
        instance: crate::api::run_id()?,
        metrics: metrics.clone(),
        stopping: stop.clone(),
    };
    let agents = Agents {
        authorities: authorities.clone(),
        stopping: stop.clone(),
    };
    let enrollment = Enrollment {
        authorities: authorities.clone(),
        tenants: tenants.clone(),
        now: config.now,
    };
    let rotating = Rotating {
        authorities: authorities.clone(),
        tls: tls.clone(),
        tenants: tenants.clone(),
        now: config.now,
    };
    tokio::spawn(rotating.clone().keep_going(stop.clone()));
    let machines = Machines { rotating };
    let secrets = Secrets {
        tenants: tenants.clone(),
        keys: plane.keys.clone(),
    };
    secrets.finish_rotation().await;
    let (served, told) = serve(
        listener,
        tls,
        gate,
        (enrollment, agents, api, machines, secrets),
        stop,
    )
    .await?;
    let http_addr = pages.as_ref().map(|(_, address)| *address);
    let paged = pages.map(|(listener, address)| {
        let on_loopback = address.ip().is_loopback();
        let operations = Arc::new(operations);
        let held = Arc::downgrade(&operations);
        let pages = plumb_wire::pages::serve(listener, move |path| {
            let operations = held.upgrade();
            async move {
                match operations {
                    Some(operations) => operations.page(&path, on_loopback).await,
                    None => Page::text(503, "the control plane is going down\n"),
                }
            }
        });
        (tokio::spawn(pages), operations)
    });
    Ok(Running {
        local_addr,
        http_addr,
        ca_pem: authorities.now_in_force().trust_pem(),
        admin_token: opened.admin_token,
        lineage: plane.lineage,
        workspace: config.workspace,
        plan_key,
        stopping,
        tenants,
        keeper,
        paged,
        told,
        served: tokio::spawn(served),
    })
}

async fn serve(
    listener: TcpListener,
    tls: Arc<Tls>,
    gate: Gate,
    (enrollment, agents, api, machines, secrets): (Enrollment, Agents, Api, Machines, Secrets),
    mut stop: watch::Receiver<bool>,
) -> Result<
    (
        impl Future<Output = Result<(), tonic::transport::Error>> + use<>,
        JoinHandle<()>,
    ),
    StartError,
> {
    let setup = |e: &dyn std::error::Error| StartError::Setup(e.to_string());
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| setup(&e))?;
    let access = AccessService {
        tenants: gate.tenants.clone(),
    };
    let events = Events {
        stopping: stop.clone(),
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<EnrollmentServer<Enrollment>>().await;
    health.set_serving::<AgentsServer<Agents>>().await;
    health.set_serving::<ControlPlaneServer<Api>>().await;
    health.set_serving::<MachinesServer<Machines>>().await;
    health.set_serving::<AccessServer<AccessService>>().await;
    health.set_serving::<SecretsServer<Secrets>>().await;
    health.set_serving::<RolloutsServer<Rollouts>>().await;
    health.set_serving::<EventLogServer<Events>>().await;
    health.set_serving::<HandsServer<HandsService>>().await;
    health.set_serving::<OperationsServer<Operations>>().await;
    let operations = gate.operations.clone();
    let told = tokio::spawn(operations.clone().keep_told(health, stop.clone()));
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .http2_max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .layer(GuardLayer(Arc::new(gate)))
        .add_service(
            EnrollmentServer::new(enrollment)
                .max_decoding_message_size(MAX_AGENT_MESSAGE)
                .max_encoding_message_size(MAX_AGENT_MESSAGE),
        )
        .add_service(
            AgentsServer::new(agents)
                .max_decoding_message_size(MAX_AGENT_MESSAGE)
                .max_encoding_message_size(MAX_AGENT_MESSAGE),
        )
        .add_service(
            ControlPlaneServer::new(api)
                .max_decoding_message_size(MAX_API_MESSAGE)
                .max_encoding_message_size(MAX_API_MESSAGE),
        )
        .add_service(
            MachinesServer::new(machines)
                .max_decoding_message_size(MAX_AGENT_MESSAGE)
                .max_encoding_message_size(MAX_API_MESSAGE),
        )
        .add_service(AccessServer::new(access))
        .add_service(SecretsServer::new(secrets))
        .add_service(RolloutsServer::new(Rollouts))
        .add_service(EventLogServer::new(events))
        .add_service(HandsServer::new(HandsService))
        .add_service(OperationsServer::new(operations))
        .add_service(health_service)
        .add_service(reflection);
    let incoming = crate::tls::accept(incoming::accept(listener), tls);
    let served = router.serve_with_incoming_shutdown(incoming, async move {
        // An error means that `Running` was dropped, which is the same.
        let _ = stop.wait_for(|stop| *stop).await;
    });
    Ok((served, told))
}
