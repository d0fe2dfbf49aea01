//! Tests through the real service: a started control plane, real TLS, the clients of the wire crate.

mod access;
mod apply;
mod enrol;
mod hands;
mod machines;
mod operations;
mod sessions;
mod signed;
mod validator;

use plumb_dispatch::protocol::{Hello, ToAgent, ToServer};
use plumb_model::capability::{Availability, Capability, MachineFacts};
use plumb_model::{Generation, Hash, Lineage, MachineName, Secret, Timestamp, WorkspaceName};
use plumb_wire::client::{ApiClient, ClientIdentity, Target, agents, api, connect, enrollment};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::session::{FromServer, to_server};
use plumb_wire::v1;
use rcgen::KeyPair;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::limits::LimitRates;
use crate::{Config, Running, start};

/// Past it a test fails rather than hangs.
const DEADLINE: Duration = Duration::from_secs(20);

struct World {
    temp: tempfile::TempDir,
    running: Running,
}

fn config(data: &std::path::Path, now: fn() -> Timestamp) -> Config {
    Config {
        data: data.to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        http: None,
        workspace: WorkspaceName::new("shop").unwrap(),
        now,
        limits: LimitRates::default(),
    }
}

async fn world_at(now: fn() -> Timestamp) -> World {
    let temp = tempfile::tempdir().unwrap();
    let running = start(config(&temp.path().join("data"), now)).await.unwrap();
    World { temp, running }
}

async fn world() -> World {
    world_at(Timestamp::now).await
}

/// A machine's key and certificate.
struct Enrolled {
    key: KeyPair,
    chain_pem: String,
    response: v1::JoinResponse,
}

impl World {
    fn address(&self) -> String {
        self.running.local_addr.to_string()
    }

    fn target(&self, identity: Option<ClientIdentity>) -> Target {
        Target {
            address: self.address(),
            ca_pem: self.running.ca_pem.clone(),
            identity,
        }
    }

    async fn channel(&self) -> Channel {
        connect(&self.target(None)).await.unwrap()
    }

    async fn api_as(&self, token: &Secret) -> ApiClient {
        api(self.channel().await, token).unwrap()
    }

    async fn api(&self) -> ApiClient {
        self.api_as(&self.running.admin_token).await
    }

    async fn join_token(&self, machine: &str, ttl_seconds: u32) -> String {
        let kind = v1::create_token_request::Kind::Join(v1::JoinToken {
            machine: machine.to_owned(),
            ttl_seconds,
        });
        self.create_token(kind).await.unwrap().expose().to_owned()
    }

    async fn create_token(&self, kind: v1::create_token_request::Kind) -> Result<Secret, Status> {
        let request = v1::CreateTokenRequest { kind: Some(kind) };
        let response = self.api().await.create_token(request).await?;
        Ok(Secret::new(response.into_inner().token))
    }

    async fn api_token(&self, name: &str, role: v1::Role) -> Secret {
        let kind = v1::create_token_request::Kind::Api(v1::ApiToken {
            name: name.to_owned(),
            role: role.into(),
            ..v1::ApiToken::default()
        });
        self.create_token(kind).await.unwrap()
    }

    async fn join(&self, token: &str, machine: &str) -> Result<Enrolled, Status> {
        let key = KeyPair::generate().unwrap();
        let request = v1::JoinRequest {
            token: token.to_owned(),
            csr_der: csr(&key),
            machine: machine.to_owned(),
        };
        let response = enrollment(self.channel().await)
            .join(request)
            .await?
            .into_inner();
        let chain_pem = response
            .chain_der
            .iter()
            .map(|der| plumb_wire::pin::to_pem(der))
            .collect();
        Ok(Enrolled {
            key,
            chain_pem,
            response,
        })
    }

    async fn enrol(&self, machine: &str) -> Enrolled {
        let token = self.join_token(machine, 0).await;
        self.join(&token, "").await.unwrap()
    }

    async fn agents(&self, enrolled: &Enrolled) -> v1::agents_client::AgentsClient<Channel> {
        let identity = ClientIdentity {
            chain_pem: enrolled.chain_pem.clone(),
            key_pem: Secret::new(enrolled.key.serialize_pem()),
        };
        agents(connect(&self.target(Some(identity))).await.unwrap())
    }

    /// Applies a request, as `plumb apply` does.
    async fn apply(&self, request: v1::PlanRequest) -> Result<v1::ApplyResponse, Status> {
        let mut api = self.api().await;
        let plan = api.plan(request.clone()).await?.into_inner();
        let request = v1::ApplyRequest {
            request: Some(request),
            approval: plan.approval,
            base_revision: plan.base_revision,
            allow: Vec::new(),
        };
        Ok(api.apply(request).await?.into_inner())
    }

    async fn view(&self) -> plumb_dispatch::WorkspaceView {
        let response = self.api().await.get_status(v1::GetStatusRequest {}).await;
        serde_json::from_slice(&response.unwrap().into_inner().view_json).unwrap()
    }

    async fn wait_for_view(&self, done: impl Fn(&plumb_dispatch::WorkspaceView) -> bool) {
        let mut api = self.api().await;
        let mut views = api
            .watch(v1::WatchRequest::default())
            .await
            .unwrap()
            .into_inner();
        within(async {
            loop {
                let message = views.message().await.unwrap().expect("the stream goes on");
                if message.view_json.is_empty() {
                    continue;
                }
                if done(&serde_json::from_slice(&message.view_json).unwrap()) {
                    return;
                }
            }
        })
        .await;
    }
}

fn csr(key: &KeyPair) -> Vec<u8> {
    let params = rcgen::CertificateParams::default();
    params.serialize_request(key).unwrap().der().to_vec()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it takes less than the deadline")
}

fn reason<T>(result: Result<T, Status>) -> Reason {
    match result {
        Ok(_) => panic!("it must be refused"),
        Err(status) => {
            Refusal::of(&status)
                .unwrap_or_else(|| panic!("no refusal in {status:?}"))
                .reason
        }
    }
}

fn facts() -> MachineFacts {
    let has = |capability| {
        let detail = "test".to_owned();
        (capability, Availability::Has { detail })
    };
    MachineFacts {
        version: "0.1.0".into(),
        arch: "x86_64".into(),
        hostname: "h".into(),
        kernel: "6.1".into(),
        capabilities: [
            Capability::Files,
            Capability::Processes,
            Capability::Chown,
            Capability::Users,
        ]
        .map(has)
        .into_iter()
        .collect(),
        host: None,
    }
}

fn hello(lineage: Option<&Lineage>, generation: u64, hash: Option<Hash>) -> ToServer {
    ToServer::Hello(Hello {
        lineage: lineage.cloned(),
        generation: Generation(generation),
        hash,
        instance: "one".into(),
        facts: facts(),
        trusted_cas: Vec::new(),
        versions: plumb_dispatch::version::SPOKEN,
        journal: None,
        hands: None,
        at: None,
    })
}

/// An agent's end of a session.
struct Talk {
    tx: mpsc::Sender<v1::AgentMessage>,
    incoming: Streaming<v1::ServerMessage>,
    decoder: FromServer,
}

impl Talk {
    async fn open(
        client: &mut v1::agents_client::AgentsClient<Channel>,
        first: ToServer,
    ) -> Result<Self, Status> {
        let (tx, rx) = mpsc::channel(16);
        let talk_tx = tx.clone();
        for message in to_server(first) {
            tx.send(message).await.unwrap();
        }
        let incoming = client.session(ReceiverStream::new(rx)).await?.into_inner();
        Ok(Self {
            tx: talk_tx,
            incoming,
            decoder: FromServer::default(),
        })
    }

    async fn say(&self, message: ToServer) {
        for message in to_server(message) {
            self.tx.send(message).await.unwrap();
        }
    }

    /// The next message; none at the end of the stream.
    async fn hear(&mut self) -> Result<Option<ToAgent>, Status> {
        within(async {
            loop {
                let Some(message) = self.incoming.message().await? else {
                    return Ok(None);
                };
                if let Some(message) = self.decoder.take(message).unwrap() {
                    return Ok(Some(message));
                }
            }
        })
        .await
    }
}

fn machine(name: &str) -> MachineName {
    MachineName::new(name).unwrap()
}

/// One workspace of one machine, `web-1`, with a Setup of one file and an App of one process.
fn blueprints(text: &str) -> v1::PlanRequest {
    let yaml = format!(
        "kind: Workspace\nname: shop\n---\nkind: Machine\nname: web-1\n---\nkind: Setup\nname: base\nmachines: web-1\nfiles:\n  /tmp/plumb-test/motd: {{ content: {text:?} }}\n---\nkind: App\nname: hello\nmachines: web-1\nrun: [sleep, \"1000\"]\n"
    );
    parsed(&yaml)
}

/// A request to apply these blueprints, which refer to no file.
fn parsed(yaml: &str) -> v1::PlanRequest {
    let file = plumb_blueprint::SourceFile {
        path: "plumb.yaml".into(),
        text: yaml.as_bytes().to_vec(),
    };
    let set = plumb_blueprint::parse(std::slice::from_ref(&file), &Default::default())
        .unwrap_or_else(|d| panic!("{}", plumb_blueprint::render(&d, &[file], false)));
    v1::PlanRequest {
        request: Some(v1::plan_request::Request::Blueprints(v1::Blueprints {
            blueprint_set_json: serde_json::to_vec(&set).unwrap(),
            sources: Default::default(),
            ask_json: Vec::new(),
        })),
        commit: None,
    }
}
