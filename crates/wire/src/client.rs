//! How a client reaches a control plane: over TLS, with the pinned CA and the fixed name, within a deadline, and
//! with errors that say what to do next. Agents and the command line call it.

use std::error::Error;
use std::time::Duration;

use plumb_model::{Secret, Timestamp, WorkspaceName};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};

use crate::error::{Reason, Refusal};
use crate::v1::agents_client::AgentsClient;
use crate::v1::control_plane_client::ControlPlaneClient;
use crate::v1::enrollment_client::EnrollmentClient;
use crate::{MAX_AGENT_MESSAGE, MAX_API_MESSAGE, SERVER_NAME};

/// How long reaching the control plane may take, for TCP and for TLS each: a lost packet or two, not a lost host.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The header that says which workspace a call is for. Without it, it is for the one that the token belongs to.
pub const WORKSPACE_HEADER: &str = "plumb-workspace";

/// How often a quiet connection is probed, so that one that died silently is noticed.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a probe may stay unanswered.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client's own certificate.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The certificate and those above it, PEM.
    pub chain_pem: String,
    /// Its key, PKCS #8 in PEM.
    pub key_pem: Secret,
}

/// A control plane to reach.
#[derive(Debug, Clone)]
pub struct Target {
    /// `HOST:PORT`.
    pub address: String,
    /// The CA that its certificate must come from, PEM.
    pub ca_pem: String,
    /// The client's certificate, where it has one.
    pub identity: Option<ClientIdentity>,
}

/// Why a control plane was not reached. Each shows as one line with the next step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be one.
    #[error("{0:?} is no address of a control plane; write HOST:PORT, such as 127.0.0.1:7700")]
    BadAddress(String),
    /// The CA, certificate or key at hand cannot be used.
    #[error(
        "the certificates at hand cannot be used: {0}; make the context or enrol the machine anew"
    )]
    BadCredentials(String),
    /// Nobody answers.
    #[error(
        "cannot reach the control plane at {address}: {cause}; start it with `plumb server` or choose another with --context"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// What happened.
        cause: String,
    },
    /// Somebody answers who is not the control plane that is meant.
    #[error(
        "whoever answers at {address} is not the control plane of this context or token ({cause}); nothing was sent to it; check the address, or get a new context file or token"
    )]
    WrongCa {
        /// Where.
        address: String,
        /// What is wrong with its certificate.
        cause: String,
    },
    /// One of the two clocks is wrong: by this one, the control plane's certificate does not hold.
    #[error(
        "by this machine's clock the certificate of the control plane at {address} {cause}; set the clock of whichever of the two is wrong"
    )]
    Clock {
        /// Where.
        address: String,
        /// What the certificate says, and what the clock does.
        cause: String,
    },
    /// The control plane does not take the client's certificate.
    #[error(
        "the control plane at {address} refuses this machine's certificate ({cause}); check the clock, or enrol the machine again with `plumb token create --join`"
    )]
    CertificateRefused {
        /// Where.
        address: String,
        /// What it says.
        cause: String,
    },
}

/// An endpoint at `HOST:PORT`, and nothing else.
pub(crate) fn at(address: &str) -> Result<Endpoint, ConnectError> {
    let bad = || ConnectError::BadAddress(address.to_owned());
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| bad())?;
    let uri = endpoint.uri();
    if uri.port_u16().is_none() || uri.host().is_none_or(str::is_empty) || uri.path() != "/" {
        return Err(bad());
    }
    Ok(endpoint)
}

/// Makes an endpoint; it connects when it is told to.
pub fn endpoint(target: &Target) -> Result<Endpoint, ConnectError> {
    let endpoint = at(&target.address)?;
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&target.ca_pem))
        .domain_name(SERVER_NAME)
        .timeout(CONNECT_TIMEOUT);
    if let Some(identity) = &target.identity {
        tls = tls.identity(Identity::from_pem(
            &identity.chain_pem,
            identity.key_pem.expose(),
        ));
    }
    let endpoint = endpoint
        .tls_config(tls)
        .map_err(|e| ConnectError::BadCredentials(innermost(&e)))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        // Room for the problems of a refused plan, which come in the trailers.
        .http2_max_header_list_size(1024 * 1024)
        .buffer_size(64);
    Ok(endpoint)
}

/// Connects, and proves that it is the right control plane before anything is sent to it.
pub async fn connect(target: &Target) -> Result<Channel, ConnectError> {
    endpoint(target)?
        .connect()
        .await
        .map_err(|e| classify(&target.address, &e))
}

/// Says why a connection failed.
#[must_use]
pub fn classify(address: &str, error: &(dyn Error + 'static)) -> ConnectError {
    let address = address.to_owned();
    let tls = find(error, |e| e.downcast_ref::<rustls::Error>().cloned());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            if let Some(cause) = of_another_time(&why) {
                return ConnectError::Clock { address, cause };
            }
            return ConnectError::WrongCa {
                address,
                cause: rustls::Error::InvalidCertificate(why).to_string(),
            };
        }
        Some(rustls::Error::AlertReceived(alert)) => {
            return ConnectError::CertificateRefused {
                address,
                cause: format!("{alert:?}"),
            };
        }
        Some(other) => {
            return ConnectError::Unreachable {
                address,
                cause: format!("TLS failed: {other}"),
            };
        }
        None => {}
    }
    let io = find(error, |e| {
        let io = e.downcast_ref::<std::io::Error>()?;
        Some(match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::TimedOut => "no answer".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
            _ => io.to_string(),
        })
    });
    let cause = io.unwrap_or_else(|| innermost(error));
    let cause = if cause == "deadline has elapsed" {
        "no answer within 5 s".to_owned()
    } else {
        cause
    };
    ConnectError::Unreachable { address, cause }
}

/// What is wrong with a certificate that holds at another time than now.
fn of_another_time(why: &rustls::CertificateError) -> Option<String> {
    use rustls::CertificateError as Is;
    let said = |at: &rustls::pki_types::UnixTime| {
        let seconds = i64::try_from(at.as_secs()).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_string())
    };
    match why {
        Is::NotValidYet => Some("does not hold yet".to_owned()),
        Is::NotValidYetContext { time, not_before } => Some(format!(
            "does not hold before {}, and it is {} here",
            said(not_before)?,
            said(time)?
        )),
        Is::Expired => Some("has run out".to_owned()),
        Is::ExpiredContext { time, not_after } => Some(format!(
            "ran out at {}, and it is {} here",
            said(not_after)?,
            said(time)?
        )),
        _ => None,
    }
}

/// Walks the chain of causes. An `io::Error` hides the error that it wraps from `source`, hence the look inside.
fn find<T>(
    error: &(dyn Error + 'static),
    mut wanted: impl FnMut(&(dyn Error + 'static)) -> Option<T>,
) -> Option<T> {
    let mut found = None;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hit) = wanted(error) {
            found = Some(hit);
        }
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    found
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    find(error, |e| Some(e.to_string())).unwrap_or_else(|| error.to_string())
}

/// Adds the bearer token to every call, and the workspace that it is for.
#[derive(Debug, Clone)]
pub struct Bearer {
    token: MetadataValue<Ascii>,
    workspace: Option<MetadataValue<Ascii>>,
}

impl Bearer {
    /// The token, for the workspace that it belongs to.
    ///
    /// # Errors
    /// When the token cannot stand in a header, so is none.
    pub fn new(token: &Secret) -> Result<Self, crate::token::TokenError> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
            .parse()
            .map_err(|_| crate::token::TokenError::NotAnApiToken)?;
        value.set_sensitive(true);
        Ok(Self {
            token: value,
            workspace: None,
        })
    }

    /// The same, for this workspace: the token's own, or any for a token of all.
    #[must_use]
    pub fn for_workspace(mut self, workspace: &WorkspaceName) -> Self {
        // Every name can stand in a header.
        self.workspace = workspace.as_str().parse().ok();
        self
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.token.clone());
        if let Some(workspace) = &self.workspace {
            metadata.insert(WORKSPACE_HEADER, workspace.clone());
        }
        Ok(request)
    }
}

/// A connection that shows a token with every call. Every client of the API is made over it.
pub type WithToken = InterceptedService<Channel, Bearer>;

/// The API with a token and its message bounds.
pub type ApiClient = ControlPlaneClient<WithToken>;

/// Tokens, workspaces and audit with a token.
pub type AccessClient = crate::v1::access_client::AccessClient<WithToken>;

/// The client of machines and the CA.
pub type MachinesClient = crate::v1::machines_client::MachinesClient<WithToken>;

/// The client of secrets.
pub type SecretsClient = crate::v1::secrets_client::SecretsClient<WithToken>;

/// A client of the `EventLog` service with a token.
pub type EventLogClient = crate::v1::event_log_client::EventLogClient<WithToken>;

/// The client of rollouts and applies.
pub type RolloutsClient = crate::v1::rollouts_client::RolloutsClient<WithToken>;

/// The client of what concerns the control plane itself.
pub type OperationsClient = crate::v1::operations_client::OperationsClient<WithToken>;

/// The client of orders by hand.
pub type HandsClient = crate::v1::hands_client::HandsClient<WithToken>;

/// The API over a connection.
///
/// # Errors
/// When the token cannot stand in a header, so is none.
pub fn api(channel: Channel, token: &Secret) -> Result<ApiClient, crate::token::TokenError> {
    Ok(api_with(channel, Bearer::new(token)?))
}

/// The API over a connection, with what it is to show.
#[must_use]
pub fn api_with(channel: Channel, bearer: Bearer) -> ApiClient {
    ControlPlaneClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
        .max_encoding_message_size(MAX_API_MESSAGE)
}

/// Tokens, workspaces and audit over a connection.
#[must_use]
pub fn access_with(channel: Channel, bearer: Bearer) -> AccessClient {
    crate::v1::access_client::AccessClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// Machines and the CA over a connection, for a token.
#[must_use]
pub fn machines_with(channel: Channel, bearer: Bearer) -> MachinesClient {
    crate::v1::machines_client::MachinesClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
        .max_encoding_message_size(MAX_AGENT_MESSAGE)
}

/// Secrets over a connection, for a token.
#[must_use]
pub fn secrets_with(channel: Channel, bearer: Bearer) -> SecretsClient {
    crate::v1::secrets_client::SecretsClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// Rollouts and applies over a connection, for a token.
#[must_use]
pub fn rollouts_with(channel: Channel, bearer: Bearer) -> RolloutsClient {
    crate::v1::rollouts_client::RolloutsClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// What happened on machines, over a connection, for a token.
#[must_use]
pub fn events_with(channel: Channel, bearer: Bearer) -> EventLogClient {
    crate::v1::event_log_client::EventLogClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// What concerns the control plane itself, over a connection, for a token.
#[must_use]
pub fn operations_with(channel: Channel, bearer: Bearer) -> OperationsClient {
    crate::v1::operations_client::OperationsClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// Orders by hand over a connection, with what it is to show.
#[must_use]
pub fn hands_with(channel: Channel, bearer: Bearer) -> HandsClient {
    crate::v1::hands_client::HandsClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MAX_API_MESSAGE)
}

/// The agents' service over a connection that was made with the machine's certificate.
#[must_use]
pub fn agents(channel: Channel) -> AgentsClient<Channel> {
    AgentsClient::new(channel)
        .max_decoding_message_size(MAX_AGENT_MESSAGE)
        .max_encoding_message_size(MAX_AGENT_MESSAGE)
}

/// Enrolment over a connection.
#[must_use]
pub fn enrollment(channel: Channel) -> EnrollmentClient<Channel> {
    EnrollmentClient::new(channel)
        .max_decoding_message_size(MAX_AGENT_MESSAGE)
        .max_encoding_message_size(MAX_AGENT_MESSAGE)
}

/// Why a call failed, sorted by what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The token is not one of this control plane's.
    #[error("{0}")]
    WrongToken(String),
    /// The control plane refused, and said why.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The connection broke, or could not be made.
    #[error(
        "lost the connection to the control plane at {address}: {cause}; see whether `plumb server` is running, and try again"
    )]
    Lost {
        /// Where.
        address: String,
        /// What happened.
        cause: String,
    },
    /// Anything else, such as a control plane of another version.
    #[error(
        "the control plane answered {code:?}: {message}; see its log, or upgrade the older side"
    )]
    Other {
        /// The gRPC code.
        code: Code,
        /// Its message.
        message: String,
    },
}

impl CallError {
    /// Sorts a failed call.
    #[must_use]
    pub fn of(address: &str, status: &Status) -> Self {
        if let Some(refusal) = Refusal::of(status) {
            return match refusal.reason {
                Reason::BadToken | Reason::NoCredential => Self::WrongToken(refusal.message),
                _ => Self::Refused(refusal),
            };
        }
        let transport = status.source().is_some();
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled if transport => {
                let cause = match status.source() {
                    Some(source) => match classify(address, source) {
                        ConnectError::Unreachable { cause, .. }
                        | ConnectError::WrongCa { cause, .. }
                        | ConnectError::CertificateRefused { cause, .. } => cause,
                        other => other.to_string(),
                    },
                    None => status.message().to_owned(),
                };
                Self::Lost {
                    address: address.to_owned(),
                    cause,
                }
            }
            code => Self::Other {
                code,
                message: status.message().to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        Target {
            address: address.to_owned(),
            ca_pem: params.self_signed(&key).unwrap().pem(),
            identity: None,
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn nobody_at_the_address_is_one_line_with_the_next_step() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = connect(&target(&address)).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot reach the control plane at {address}: connection refused; start it with `plumb server` or choose another with --context"
            )
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_address_is_said_before_anything_is_dialled() {
        for bad in [
            "",
            "localhost",
            "http://x:1",
            "host:notaport",
            ":7700",
            "a b:1",
            "h:1/x",
            "https://127.0.0.1:7700",
        ] {
            let error = connect(&target(bad)).await.unwrap_err();
            assert_eq!(error, ConnectError::BadAddress(bad.to_owned()), "{bad:?}");
            let digest = crate::token::CaDigest::of(b"ca");
            let error = crate::pin::fetch_ca(bad, digest).await.unwrap_err();
            assert_eq!(error, ConnectError::BadAddress(bad.to_owned()), "{bad:?}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_listener_that_speaks_no_tls_is_unreachable_and_not_a_wrong_ca() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.try_write(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            }
        });
        let error = connect(&target(&address)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    }
}
