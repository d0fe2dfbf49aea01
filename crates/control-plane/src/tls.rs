//! TLS as the control plane serves it: its certificate and the CAs that it trusts may change while it runs.
//!
//! Every connection is taken with what is in force when it comes; those that are open stay. It never decides who may call
//! what: a client certificate is checked here against the CAs and the handed-in clock, and told on.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use plumb_model::Timestamp;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::incoming::Connection;
use crate::rotation::Cas;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How many finished handshakes may wait to be served.
const READY: usize = 16;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
    /// What TLS says.
    #[error("cannot set up TLS: {0}; this is a defect of plumb")]
    Setup(String),
}

/// The clock that the control plane was handed, for TLS.
#[derive(Debug)]
struct Clock(fn() -> Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from((self.0)().as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// The TLS settings in force.
pub struct Tls {
    listen: IpAddr,
    now: fn() -> Timestamp,
    config: RwLock<Arc<ServerConfig>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    /// Starts with these CAs.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(listen: IpAddr, cas: &Cas, now: fn() -> Timestamp) -> Result<Self, TlsError> {
        Ok(Self {
            listen,
            now,
            config: RwLock::new(Arc::new(config(listen, cas, now)?)),
        })
    }

    /// Takes connections with these CAs from now on.
    ///
    /// # Errors
    /// See [`TlsError`]; what was in force stays.
    pub fn set(&self, cas: &Cas) -> Result<(), TlsError> {
        let next = Arc::new(config(self.listen, cas, self.now)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn in_force(&self) -> Arc<ServerConfig> {
        self.config
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn config(listen: IpAddr, cas: &Cas, now: fn() -> Timestamp) -> Result<ServerConfig, TlsError> {
    let setup = |e: &dyn fmt::Display| TlsError::Setup(e.to_string());
    let chain = cas.serve_as(listen, now())?;
    let mut roots = RootCertStore::empty();
    for der in cas.trust_der() {
        roots
            .add(CertificateDer::from(der))
            .map_err(|e| setup(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| setup(&e))?;
    let certificates = chain
        .chain_der
        .into_iter()
        .map(CertificateDer::from)
        .collect();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(chain.key_der.to_vec()));
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(Clock(now)))
        .with_safe_default_protocol_versions()
        .map_err(|e| setup(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(certificates, key)
        .map_err(|e| setup(&e))?;
    config.alpn_protocols.push(b"h2".to_vec());
    // A session that is resumed brings no certificate of its own: it would skip the check against the CAs in force.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Takes TLS up on every connection, many at once, each within [`HANDSHAKE`].
pub(crate) fn accept(
    mut connections: ReceiverStream<io::Result<Connection>>,
    tls: Arc<Tls>,
) -> ReceiverStream<io::Result<TlsStream<Connection>>> {
    let (tx, rx) = mpsc::channel(READY);
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                () = tx.closed() => return,
                connection = connections.next() => connection,
            };
            let Some(Ok(connection)) = connection else {
                return;
            };
            let acceptor = TlsAcceptor::from(tls.in_force());
            let tx = tx.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(HANDSHAKE, acceptor.accept(connection)).await {
                    Ok(Ok(stream)) => {
                        let _ = tx.send(Ok(stream)).await;
                    }
                    Ok(Err(error)) => tracing::debug!("a TLS handshake failed: {error}"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            });
        }
    });
    ReceiverStream::new(rx)
}
