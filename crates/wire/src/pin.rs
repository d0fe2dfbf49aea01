//! How an agent that has nothing but a join token gets the control plane's CA: it looks at the chain that the
//! control plane shows, and takes the CA whose digest the token carries, or nothing.
//!
//! Flow: TCP, TLS handshake with the pin as the only trust, take the CA, hang up. Guarantees: not one byte of the
//! token is sent; a server whose chain does not hold the pinned CA, or whose certificate that CA did not issue for
//! [`SERVER_NAME`], fails the handshake.

use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::SERVER_NAME;
use crate::client::{CONNECT_TIMEOUT, ConnectError, classify};
use crate::token::CaDigest;

/// Fetches the CA certificate with this digest from the control plane at `address` (`HOST:PORT`), as DER.
pub async fn fetch_ca(address: &str, digest: CaDigest) -> Result<Vec<u8>, ConnectError> {
    crate::client::at(address)?;
    let unreachable = |cause: &str| ConnectError::Unreachable {
        address: address.to_owned(),
        cause: cause.to_owned(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned {
        digest,
        provider: provider.clone(),
        found: Mutex::new(None),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| ConnectError::BadCredentials(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols.push(b"h2".to_vec());
    let name = ServerName::try_from(SERVER_NAME)
        .map_err(|e| ConnectError::BadCredentials(e.to_string()))?;

    let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable("no answer within 5 s"))?
        .map_err(|e| classify(address, &e))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    tokio::time::timeout(CONNECT_TIMEOUT, handshake)
        .await
        .map_err(|_| unreachable("no TLS answer within 5 s"))?
        .map_err(|e| classify(address, &e))?;
    let found = verifier
        .found
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    found.ok_or_else(|| unreachable("it showed no certificate"))
}

/// A CA certificate as PEM, which the other helpers take.
#[must_use]
pub fn to_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der)
}

/// PEM with the label that the caller names.
/// The digest of the first certificate in a PEM text; none if there is none in it.
#[must_use]
pub fn digest_of_pem(pem: &str) -> Option<CaDigest> {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(CaDigest::of(&der))
}

fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    // 48 bytes are 64 characters, the length of a line of PEM.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let mut bits = 0_u32;
            for at in 0..3 {
                bits = bits << 8 | u32::from(group.get(at).copied().unwrap_or(0));
            }
            for at in 0..4 {
                let six = (bits >> (18 - 6 * at)) & 0x3f;
                text.push(if at <= group.len() {
                    char::from(ALPHABET[six as usize])
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

#[derive(Debug)]
struct Pinned {
    digest: CaDigest,
    provider: Arc<CryptoProvider>,
    found: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|cert| CaDigest::of(cert) == self.digest)
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
                .build()
                .map_err(|e| rustls::Error::General(e.to_string()))?;
        let verified = verifier.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        *self
            .found
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(ca.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::sync::oneshot;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::client::{Target, connect};

    struct Ca {
        der: Vec<u8>,
        issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    }

    fn ca(name: &str) -> Ca {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let issuer = rcgen::Issuer::new(params, key);
        Ca { der, issuer }
    }

    /// Answers one connection with a certificate for `name` from `ca`, whose chain shows `shown` too. Yields its
    /// address and, later, what the client sent after a handshake, or why there was none.
    async fn server(
        ca: &Ca,
        name: &str,
        shown: &[u8],
    ) -> (String, oneshot::Receiver<io::Result<Vec<u8>>>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &ca.issuer)
            .unwrap();
        let chain = vec![leaf.der().clone(), CertificateDer::from(shown.to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols.push(b"h2".to_vec());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (tx, rx) = oneshot::channel();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let got = match TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
                Ok(mut tls) => {
                    let mut bytes = Vec::new();
                    // How the client hangs up is its own business; what it sent before counts.
                    let _ = tls.read_to_end(&mut bytes).await;
                    Ok(bytes)
                }
                Err(error) => Err(error),
            };
            let _ = tx.send(got);
        });
        (address, rx)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_pinned_ca_is_handed_over_and_nothing_is_sent() {
        let ours = ca("ours");
        let (address, got) = server(&ours, SERVER_NAME, &ours.der).await;
        let der = fetch_ca(&address, CaDigest::of(&ours.der)).await.unwrap();
        assert_eq!(der, ours.der);
        assert_eq!(got.await.unwrap().unwrap(), b"");
    }

    /// Threat 20. A man in the middle who shows the right CA beside his own certificate, one with another CA, and one
    /// whose certificate is for another name: the handshake fails in each case, so nothing can have been sent after
    /// it. Mutation: in `Pinned`, return `ServerCertVerified::assertion()` once the CA is found, or skip the digest.
    #[tokio::test(flavor = "current_thread")]
    async fn the_pin_fails_before_anything_is_sent() {
        let ours = ca("ours");
        let theirs = ca("theirs");
        for (by, name, shown) in [
            (&theirs, SERVER_NAME, &ours.der),
            (&theirs, SERVER_NAME, &theirs.der),
            (&ours, "elsewhere.example.com", &ours.der),
        ] {
            let (address, got) = server(by, name, shown).await;
            let error = fetch_ca(&address, CaDigest::of(&ours.der))
                .await
                .unwrap_err();
            assert!(matches!(error, ConnectError::WrongCa { .. }), "{error}");
            assert!(got.await.unwrap().is_err(), "{error}");

            let (address, got) = server(by, name, shown).await;
            let target = Target {
                address: address.clone(),
                ca_pem: to_pem(&ours.der),
                identity: None,
            };
            let error = connect(&target).await.unwrap_err();
            assert!(matches!(error, ConnectError::WrongCa { .. }), "{error}");
            assert!(!error.to_string().contains('\n'), "{error}");
            assert!(got.await.unwrap().is_err(), "{error}");
        }
    }

    #[test]
    fn pem_reads_back_at_every_remainder() {
        for length in 0..200_u8 {
            let der: Vec<u8> = (0..length).collect();
            let text = to_pem(&der);
            let back = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            assert_eq!(back.as_ref(), der, "{text}");
            assert!(text.lines().all(|line| line.len() <= 64));
        }
    }
}
