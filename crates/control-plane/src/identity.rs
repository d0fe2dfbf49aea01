//! Who is who: the control plane's own CA, its server certificate, the certificates of machines, and what a
//! client certificate proves.
//!
//! It never decides who may do what (that is `access`), and never takes a name from a request: of a certificate
//! signing request only the key is read. The CA's key is in `DATA/identity/ca.key` (mode 0600) and never leaves.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use plumb_model::{Lineage, MachineName, Timestamp, WorkspaceName};
use plumb_wire::SERVER_NAME;
use plumb_wire::token::CaDigest;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};
use zeroize::Zeroizing;

/// How long the CA lasts.
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a machine's certificate lasts: short, since renewing is cheap and goes on after it ran out.
pub const MACHINE_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Certificates begin this much earlier than now, for machines whose clock is behind.
pub const SKEW: Duration = Duration::from_secs(5 * 60);

/// The largest certificate signing request that is looked at, in bytes.
pub const MAX_CSR_BYTES: usize = 8 * 1024;

/// The number of the CA that a control plane begins with; each rotation makes the next.
pub const FIRST_CA: u32 = 1;

/// The files of a CA: its certificate and its key.
fn files(number: u32) -> (String, String) {
    match number {
        FIRST_CA => ("ca.pem".to_owned(), "ca.key".to_owned()),
        _ => (format!("ca-{number}.pem"), format!("ca-{number}.key")),
    }
}

/// Why certificates cannot be made, kept or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the CA cannot be read or written.
    #[error("cannot {step} {path}; check the data folder, its permissions and the disk")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The CA's files do not belong together or are no CA.
    #[error("{path} is damaged: {why}; restore the data folder from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Make(String),
}

/// Why a certificate signing request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than [`MAX_CSR_BYTES`].
    #[error("the certificate signing request has {0} bytes, more than {MAX_CSR_BYTES}")]
    TooLarge(usize),
    /// It is no PKCS #10 request in DER.
    #[error("the certificate signing request cannot be read; send PKCS #10 in DER")]
    Unreadable,
    /// Its signature does not fit its key: the sender does not hold the key.
    #[error("the certificate signing request is not signed by the key in it")]
    NotSigned,
    /// A sort of key that is not taken.
    #[error(
        "the certificate signing request has a key of an unsupported sort; use ECDSA P-256 or Ed25519"
    )]
    Key,
}

/// Why a client certificate proves nothing here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It does not carry exactly one name, or not one of ours.
    #[error("the client certificate names no machine of this workspace")]
    Name,
    /// It does not say whose it is or when it runs out, as every certificate of ours does.
    #[error("the client certificate was not made by this control plane")]
    Foreign,
}

/// Who a machine is: what stands in its certificate, as a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The control plane's lineage.
    pub lineage: Lineage,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The machine.
    pub machine: MachineName,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "plumb://{}/{}/machine/{}",
            self.lineage, self.workspace, self.machine
        )
    }
}

impl Identity {
    /// Parses the URI: exactly these parts and no others.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let parts: Vec<&str> = uri.strip_prefix("plumb://")?.split('/').collect();
        let [lineage, workspace, "machine", machine] = parts[..] else {
            return None;
        };
        Some(Self {
            lineage: Lineage::new(lineage).ok()?,
            workspace: WorkspaceName::new(workspace).ok()?,
            machine: MachineName::new(machine).ok()?,
        })
    }
}

/// A public key as it is enrolled: SHA-256 of its SubjectPublicKeyInfo in DER, in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDigest(pub String);

fn sha256_hex(bytes: &[u8]) -> String {
    CaDigest::of(bytes).to_string()
}

/// The key of a CA, as certificates name it that it has issued: the subject key identifier.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CaKeyId([u8; 20]);

impl fmt::Debug for CaKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl CaKeyId {
    fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The identifier of a CA's own key, as its certificate says it.
    fn of_ca(certificate: &X509Certificate<'_>) -> Option<Self> {
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Self::of(id.0),
                _ => None,
            })
    }

    /// The identifier of the CA key that a certificate was signed with, as it says.
    fn of_issuer(certificate: &X509Certificate<'_>) -> Option<Self> {
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    Self::of(id.key_identifier.as_ref()?.0)
                }
                _ => None,
            })
    }
}

/// What a client certificate, already verified by TLS, proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whose it is.
    pub identity: Identity,
    /// The key that it was made for.
    pub key: KeyDigest,
    /// The CA that issued it. TLS has checked its signature against the CAs that were trusted when the connection was
    /// made.
    pub issuer: CaKeyId,
    /// When it runs out. TLS has looked at that only when the connection was made.
    pub not_after: Timestamp,
}

/// Reads a client certificate.
pub fn peer(certificate_der: &[u8]) -> Result<Peer, PeerError> {
    let (_, certificate) =
        X509Certificate::from_der(certificate_der).map_err(|_| PeerError::Unreadable)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Unreadable)?
        .ok_or(PeerError::Name)?;
    let [GeneralName::URI(uri)] = &names.value.general_names[..] else {
        return Err(PeerError::Name);
    };
    let not_after = certificate.validity().not_after.timestamp();
    Ok(Peer {
        identity: Identity::parse(uri).ok_or(PeerError::Name)?,
        key: KeyDigest(sha256_hex(certificate.public_key().raw)),
        issuer: CaKeyId::of_issuer(&certificate).ok_or(PeerError::Foreign)?,
        not_after: Timestamp::from_second(not_after).map_err(|_| PeerError::Foreign)?,
    })
}

/// The key of a certificate signing request whose signature is good. Nothing else of the request is kept.
#[derive(Debug)]
pub struct RequestedKey {
    spki: SubjectPublicKeyInfo,
    /// The key's digest.
    pub digest: KeyDigest,
}

/// Takes the key out of a request, after its signature has proven that the sender holds it.
pub fn requested_key(csr_der: &[u8]) -> Result<RequestedKey, CsrError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(CsrError::TooLarge(csr_der.len()));
    }
    let (rest, csr) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| CsrError::Unreadable)?;
    if !rest.is_empty() {
        return Err(CsrError::Unreadable);
    }
    let raw = csr.certification_request_info.subject_pki.raw;
    let spki = SubjectPublicKeyInfo::from_der(raw).map_err(|_| CsrError::Key)?;
    let algorithm = rcgen::PublicKeyData::algorithm(&spki);
    if algorithm != &rcgen::PKCS_ECDSA_P256_SHA256 && algorithm != &rcgen::PKCS_ED25519 {
        return Err(CsrError::Key);
    }
    csr.verify_signature().map_err(|_| CsrError::NotSigned)?;
    Ok(RequestedKey {
        spki,
        digest: KeyDigest(sha256_hex(raw)),
    })
}

/// A certificate for a machine.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate and the CA's, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// Its serial number, in hex.
    pub serial: String,
    /// When it runs out.
    pub not_after: Timestamp,
}

/// The control plane's own certificate and key, DER.
pub struct ServerChain {
    /// The certificate, then the CA's, so that a joining agent can compare the CA with its token, then others'.
    pub chain_der: Vec<Vec<u8>>,
    /// The key. Made anew at each start; never stored.
    pub key_der: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for ServerChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerChain").finish_non_exhaustive()
    }
}

/// [`ServerChain`] in PEM.
#[derive(Debug)]
pub struct ServerIdentity {
    /// The chain.
    pub chain_pem: String,
    /// The key.
    pub key_pem: plumb_model::Secret,
}

/// One CA.
pub struct Authority {
    number: u32,
    issuer: Issuer<'static, KeyPair>,
    certificate_der: Vec<u8>,
    not_after: Timestamp,
    key_id: CaKeyId,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("digest", &self.digest())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// [`Self::open_numbered`], of the first.
    pub fn open(folder: &Path, lineage: &Lineage, now: Timestamp) -> Result<Self, IdentityError> {
        Self::open_numbered(folder, lineage, FIRST_CA, now)
    }

    /// Opens the CA of this number in `DATA/identity`, or makes it where there is none yet.
    ///
    /// The key is written before the certificate: a certificate without its key is damage, a key without a
    /// certificate is a making that was cut short, and is finished.
    pub fn open_numbered(
        folder: &Path,
        lineage: &Lineage,
        number: u32,
        now: Timestamp,
    ) -> Result<Self, IdentityError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(failed("create", folder))?;
        let (certificate_name, key_name) = files(number);
        let key_path = folder.join(&key_name);
        let certificate_path = folder.join(&certificate_name);
        let key_text = read(&key_path)?;
        let certificate_text = read(&certificate_path)?;
        let damaged = |path: &Path, why: &dyn fmt::Display| IdentityError::Damaged {
            path: path.to_owned(),
            why: why.to_string(),
        };
        let key = match (&key_text, &certificate_text) {
            (Some(text), _) => KeyPair::from_pem(text).map_err(|e| damaged(&key_path, &e))?,
            (None, Some(_)) => return Err(damaged(&key_path, &"it is missing")),
            (None, None) => {
                let key = KeyPair::generate().map_err(make)?;
                write_private(folder, &key_name, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let pem = match certificate_text {
            Some(pem) => pem,
            None => {
                let pem = ca_params(lineage, number, now)?
                    .self_signed(&key)
                    .map_err(make)?
                    .pem();
                write_private(folder, &certificate_name, pem.as_bytes())?;
                pem
            }
        };
        let certificate_der = der_of(&pem).map_err(|e| damaged(&certificate_path, &e))?;
        let (not_after, key_id) = {
            let (_, certificate) = X509Certificate::from_der(&certificate_der)
                .map_err(|e| damaged(&certificate_path, &e))?;
            if !certificate.is_ca() {
                return Err(damaged(&certificate_path, &"it is no CA"));
            }
            let theirs = &certificate.public_key().subject_public_key.data;
            if **theirs != *key.public_key_raw() {
                let why = format!("it is not the key of {certificate_name}");
                return Err(damaged(&key_path, &why));
            }
            let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp())
                .map_err(|e| damaged(&certificate_path, &e))?;
            let key_id = CaKeyId::of_ca(&certificate)
                .ok_or_else(|| damaged(&certificate_path, &"it names no key"))?;
            (not_after, key_id)
        };
        let issuer =
            Issuer::from_ca_cert_pem(&pem, key).map_err(|e| damaged(&certificate_path, &e))?;
        Ok(Self {
            number,
            issuer,
            certificate_der,
            not_after,
            key_id,
        })
    }

    /// Removes the files of a CA that nothing is issued by any more, the key first.
    pub fn remove(folder: &Path, number: u32) -> Result<(), IdentityError> {
        let (certificate, key) = files(number);
        for name in [key, certificate] {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(failed("remove", &path)(source)),
            }
        }
        Ok(())
    }

    /// Which of the control plane's CAs this is, counted from [`FIRST_CA`].
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// How certificates name it that it has issued.
    #[must_use]
    pub fn key_id(&self) -> CaKeyId {
        self.key_id
    }

    /// When it runs out.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Its certificate, DER.
    #[must_use]
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// A certificate by which this CA vouches for `newer`, so that whoever knows only this one can follow from it to what
    /// `newer` has issued. DER.
    pub fn vouch_for(
        &self,
        newer: &Self,
        lineage: &Lineage,
        now: Timestamp,
    ) -> Result<Vec<u8>, IdentityError> {
        let mut params = ca_params(lineage, newer.number, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.not_after = date(self.not_after.min(newer.not_after))?.into();
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(newer.issuer.key(), &self.issuer)
            .map_err(make)?;
        Ok(certificate.der().to_vec())
    }

    /// The CA's certificate, PEM: what clients pin.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        plumb_wire::pin::to_pem(&self.certificate_der)
    }

    /// The digest that join tokens carry.
    #[must_use]
    pub fn digest(&self) -> CaDigest {
        CaDigest::of(&self.certificate_der)
    }

    /// A server certificate for the fixed name, the loopback names and `listen`. It lasts as long as the CA, since
    /// its key lives only as long as the process. `beside` is shown along with it: certificates by which others can follow
    /// to it, DER.
    pub fn serve_as(
        &self,
        listen: IpAddr,
        beside: &[Vec<u8>],
        now: Timestamp,
    ) -> Result<ServerChain, IdentityError> {
        let key = KeyPair::generate().map_err(make)?;
        let mut params =
            CertificateParams::new(vec![SERVER_NAME.to_owned(), "localhost".to_owned()])
                .map_err(make)?;
        for address in [IpAddr::from([127, 0, 0, 1]), listen] {
            if !address.is_unspecified() {
                params.subject_alt_names.push(SanType::IpAddress(address));
            }
        }
        params.distinguished_name = common_name("plumb control plane");
        params.not_before = (date(now)? - SKEW).into();
        params.not_after = date(self.not_after)?.into();
        params.serial_number = Some(serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(make)?;
        let mut chain_der = vec![certificate.der().to_vec(), self.certificate_der.clone()];
        chain_der.extend_from_slice(beside);
        Ok(ServerChain {
            chain_der,
            key_der: Zeroizing::new(key.serialize_der()),
        })
    }

    /// [`Self::serve_as`], in PEM.
    pub fn server(&self, listen: IpAddr, now: Timestamp) -> Result<ServerIdentity, IdentityError> {
        let chain = self.serve_as(listen, &[], now)?;
        let key = KeyPair::try_from(chain.key_der.as_slice()).map_err(make)?;
        Ok(ServerIdentity {
            chain_pem: chain
                .chain_der
                .iter()
                .map(|der| plumb_wire::pin::to_pem(der))
                .collect(),
            key_pem: plumb_model::Secret::new(key.serialize_pem()),
        })
    }

    /// A certificate that says that the holder of `key` is `identity`: for client authentication only, for
    /// [`MACHINE_LIFE`], from [`SKEW`] before `now`.
    pub fn issue(
        &self,
        key: &RequestedKey,
        identity: &Identity,
        now: Timestamp,
    ) -> Result<Issued, IdentityError> {
        let serial = serial()?;
        let not_after = now + MACHINE_LIFE;
        let uri = identity.to_string().try_into().map_err(make)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(identity.machine.as_str());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.not_before = (date(now)? - SKEW).into();
        params.not_after = date(not_after)?.into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let hex = serial
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        params.serial_number = Some(serial);
        let certificate = params.signed_by(&key.spki, &self.issuer).map_err(make)?;
        Ok(Issued {
            chain_der: vec![certificate.der().to_vec(), self.certificate_der.clone()],
            serial: hex,
            not_after,
        })
    }
}

fn ca_params(
    lineage: &Lineage,
    number: u32,
    now: Timestamp,
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::default();
    // No two CAs share a name, so that nobody has to try which of them has signed.
    params.distinguished_name = common_name(&match number {
        FIRST_CA => format!("plumb CA {lineage}"),
        _ => format!("plumb CA {lineage} {number}"),
    });
    params.not_before = (date(now)? - SKEW).into();
    params.not_after = (date(now)? + CA_LIFE).into();
    params.serial_number = Some(serial()?);
    // One CA beneath it: its successor, while one takes the other's place.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Certificates count in whole seconds.
fn date(at: Timestamp) -> Result<SystemTime, IdentityError> {
    let seconds = u64::try_from(at.as_second()).map_err(make)?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = random::<16>().map_err(make)?;
    // Positive and without a leading zero, so that its hex form is one and the same everywhere.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// Bytes from the system's random source.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], io::Error> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system's random source failed"))?;
    Ok(bytes)
}

fn make(error: impl fmt::Display) -> IdentityError {
    IdentityError::Make(error.to_string())
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::File { step, path, source }
}

fn read(path: &Path) -> Result<Option<String>, IdentityError> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|e| failed("read", path)(io::Error::new(io::ErrorKind::InvalidData, e)))
}

/// What a file holds; none where there is none.
pub(crate) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed("read", path)(source)),
    }
}

fn der_of(pem: &str) -> Result<Vec<u8>, String> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .map(|(_, pem)| pem.contents)
        .map_err(|e| e.to_string())
}

/// Writes a file of mode 0600, durably.
pub(crate) fn write_private(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), IdentityError> {
    let path = folder.join(name);
    plumb_ledger::write_durably(&path, bytes).map_err(failed("write", &path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn lineage() -> Lineage {
        Lineage::from_random([5; 16])
    }

    fn web1() -> Identity {
        Identity {
            lineage: lineage(),
            workspace: WorkspaceName::new("shop").unwrap(),
            machine: MachineName::new("web-1").unwrap(),
        }
    }

    fn authority() -> (tempfile::TempDir, Authority) {
        let temp = tempfile::tempdir().unwrap();
        let authority = Authority::open(&temp.path().join("identity"), &lineage(), now()).unwrap();
        (temp, authority)
    }

    /// Threat 17. Mutations: in `issue`, start from the request's own parameters
    /// (`CertificateSigningRequestParams::from_der`) instead of `CertificateParams::default()`; or add our usage to
    /// server authentication instead of setting it alone.
    #[test]
    fn a_request_for_another_name_a_ca_and_server_auth_gets_our_identity_and_nothing_else() {
        let (_temp, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let mut wish = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        let other = format!("plumb://{}/shop/machine/db-1", lineage());
        wish.subject_alt_names
            .push(SanType::URI(other.try_into().unwrap()));
        wish.distinguished_name = common_name("db-1");
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wish.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        wish.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        wish.custom_extensions = vec![rcgen::CustomExtension::from_oid_content(
            &[1, 3, 6, 1, 4, 1, 99_999, 1],
            b"\x05\x00".to_vec(),
        )];
        let csr = wish.serialize_request(&key).unwrap();

        let requested = requested_key(csr.der()).unwrap();
        let issued = authority.issue(&requested, &web1(), now()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&issued.chain_der[0]).unwrap();
        let proven = peer(&issued.chain_der[0]).unwrap();
        assert_eq!(proven.identity, web1());
        assert_eq!(proven.key, requested.digest);
        assert!(!certificate.is_ca());
        // Authority and subject key id, names, key usage, extended key usage, basic constraints.
        assert_eq!(certificate.extensions().len(), 6);
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let usage = certificate.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());
        let subject: Vec<_> = certificate
            .subject()
            .iter_common_name()
            .map(|cn| cn.as_str().unwrap())
            .collect();
        assert_eq!(subject, ["web-1"]);
        let validity = certificate.validity();
        let at = now().as_second();
        assert_eq!(validity.not_before.timestamp(), at - 300);
        assert_eq!(validity.not_after.timestamp(), at + 86_400);
        let ca = X509Certificate::from_der(&issued.chain_der[1]).unwrap().1;
        certificate.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(CaDigest::of(&issued.chain_der[1]), authority.digest());
    }

    #[test]
    fn a_request_that_is_torn_unsigned_large_or_of_a_weak_key_is_refused() {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let der = csr.der().to_vec();
        let check = |der: &[u8], expected: CsrError| {
            assert_eq!(requested_key(der).unwrap_err(), expected);
        };
        check(&der[..der.len() - 1], CsrError::Unreadable);
        check(&[&der[..], b"x"].concat(), CsrError::Unreadable);
        check(
            &[0; MAX_CSR_BYTES + 1],
            CsrError::TooLarge(MAX_CSR_BYTES + 1),
        );
        check(b"", CsrError::Unreadable);
        let mut forged = der.clone();
        let at = forged.len() - 3;
        forged[at] ^= 1;
        assert!(matches!(
            requested_key(&forged),
            Err(CsrError::NotSigned | CsrError::Unreadable)
        ));
        let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&other)
            .unwrap();
        check(csr.der(), CsrError::Key);
    }

    #[test]
    fn the_ca_stays_the_same_and_its_key_is_private() {
        let (temp, first) = authority();
        let folder = temp.path().join("identity");
        let again = Authority::open(&folder, &lineage(), now()).unwrap();
        assert_eq!(again.certificate_pem(), first.certificate_pem());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("ca.key")), 0o600);
        let (_, ca) = X509Certificate::from_der(&first.certificate_der).unwrap();
        let name = ca.subject().iter_common_name().next().unwrap();
        assert_eq!(name.as_str().unwrap(), format!("plumb CA {}", lineage()));
        let life = ca.validity().not_after.timestamp() - now().as_second();
        assert_eq!(life as u64, CA_LIFE.as_secs());
    }

    #[test]
    fn damage_is_named_and_a_first_start_cut_short_is_finished() {
        let (temp, first) = authority();
        let folder = temp.path().join("identity");
        let (other_temp, _other) = authority();
        fs::copy(
            other_temp.path().join("identity").join("ca.key"),
            folder.join("ca.key"),
        )
        .unwrap();
        let open = || Authority::open(&folder, &lineage(), now());
        let error = open().unwrap_err().to_string();
        assert!(error.contains("not the key of ca.pem"), "{error}");
        fs::remove_file(folder.join("ca.key")).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(
            error.contains("ca.key is damaged: it is missing"),
            "{error}"
        );
        fs::write(folder.join("ca.key"), first.issuer.key().serialize_pem()).unwrap();
        fs::remove_file(folder.join("ca.pem")).unwrap();
        open().unwrap();
    }

    #[test]
    fn only_the_whole_uri_is_an_identity() {
        let good = web1().to_string();
        assert_eq!(Identity::parse(&good), Some(web1()));
        for bad in [
            format!("{good}/"),
            format!("{good}/x"),
            good.replace("machine", "user"),
            good.replace("plumb:", "http:"),
            good.replace("shop", ""),
            good.replace("web-1", "WEB-1"),
            String::new(),
        ] {
            assert_eq!(Identity::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn two_certificates_for_one_key_differ_in_their_serial() {
        let (_temp, authority) = authority();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let key = requested_key(csr.der()).unwrap();
        let serial = || authority.issue(&key, &web1(), now()).unwrap().serial;
        assert_ne!(serial(), serial());
    }
}
