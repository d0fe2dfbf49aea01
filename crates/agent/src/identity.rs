//! Who this machine is: its key, which never leaves it, and its certificate.
//!
//! Flow: make a key and store it; check that the control plane's CA has the digest in the token; send the token and a
//! certificate request; store the certificate. A join whose answer was lost is made good by a renewal with the stored key.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use plumb_model::{Lineage, MachineName, Secret, Timestamp, WorkspaceName};
use plumb_wire::client::{self, CallError, ClientIdentity, ConnectError, Target};
use plumb_wire::error::Reason;
use plumb_wire::token::{CaDigest, JoinToken};
use plumb_wire::{pin, v1};
use rcgen::{CertificateParams, KeyPair};
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::Config;
use crate::error::AgentError;
use crate::folder::replace;
use crate::link::{hex, random_bytes};

/// An enrolled machine.
#[derive(Debug, Clone)]
pub struct Enrolled {
    /// What is stored besides the key.
    pub record: Record,
    key_pem: Secret,
    folder: PathBuf,
}

/// What is stored of an enrolment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// `HOST:PORT` of the control plane.
    pub server: String,
    /// Its history.
    pub lineage: Lineage,
    /// The workspace.
    pub workspace: WorkspaceName,
    /// This machine's name.
    pub machine: MachineName,
    /// The CAs that a control plane may be of: two, while one takes the other's place.
    pub ca_pem: String,
    /// This machine's certificate, then its CA's.
    pub chain_pem: String,
    /// When the certificate was made, as this machine's clock says.
    pub made: Timestamp,
    /// When it runs out.
    pub not_after: Timestamp,
    /// The file beside this one that holds the key; none is `key.pem`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_file: Option<String>,
}

/// The key that a machine is enrolled with at first.
const KEY_FILE: &str = "key.pem";

impl Enrolled {
    /// Reads a stored enrolment.
    pub fn load(data: &Path) -> Result<Option<Self>, AgentError> {
        let folder = data.join("identity");
        let path = folder.join("enrolled.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(AgentError::Folder {
                    doing: "read",
                    path,
                    source,
                });
            }
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| AgentError::Damaged {
            path,
            why: e.to_string(),
        })?;
        let key_path = folder.join(record.key_file.as_deref().unwrap_or(KEY_FILE));
        let key_pem = fs::read_to_string(&key_path).map_err(|source| AgentError::Folder {
            doing: "read",
            path: key_path,
            source,
        })?;
        Ok(Some(Self {
            record,
            key_pem: Secret::new(key_pem),
            folder,
        }))
    }

    /// How the control plane is reached.
    pub fn target(&self) -> Target {
        Target {
            address: self.record.server.clone(),
            ca_pem: self.record.ca_pem.clone(),
            identity: Some(ClientIdentity {
                chain_pem: self.record.chain_pem.clone(),
                key_pem: self.key_pem.clone(),
            }),
        }
    }

    /// When to renew: at a point of the second half of the certificate's life that `chance` (0 to 1) picks.
    pub fn renew_at(&self, chance: f64) -> Timestamp {
        let (from, to) = (
            self.record.made.as_millisecond(),
            self.record.not_after.as_millisecond(),
        );
        let life = (to - from).max(0) as f64;
        let at = from as f64 + life * (0.5 + 0.5 * chance.clamp(0.0, 1.0) * 0.9);
        Timestamp::from_millisecond(at as i64).unwrap_or(self.record.made)
    }

    /// The digests of the CAs that it trusts, as a hello says them.
    pub fn trusted_cas(&self) -> Vec<String> {
        x509_parser::pem::Pem::iter_from_buffer(self.record.ca_pem.as_bytes())
            .filter_map(Result::ok)
            .map(|pem| CaDigest::of(&pem.contents).to_string())
            .collect()
    }

    /// Fetches and stores the next certificate, and the CAs to trust from now on.
    ///
    /// Assumptions: the key of this record may have been replaced by an order whose answer was lost. Then the control plane
    /// knows one of the other keys that lie beside it.
    pub async fn renew(&mut self, now: Timestamp) -> Result<(), AgentError> {
        let error = match self.renew_with(&self.key_pem.clone(), now).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let replaced = matches!(&error, AgentError::Call(CallError::Refused(refusal)) if refusal.reason == Reason::WrongKey);
        if !replaced {
            return Err(error);
        }
        for (name, key_pem) in self.other_keys() {
            if self.renew_with(&key_pem, now).await.is_ok() {
                return self.took_key(name, key_pem);
            }
        }
        Err(error)
    }

    async fn renew_with(&mut self, key_pem: &Secret, now: Timestamp) -> Result<(), AgentError> {
        let target = Target {
            identity: None,
            ..self.target()
        };
        let csr_der = request(key_pem)?;
        let channel = client::connect(&target).await?;
        let asked = v1::RenewRequest {
            csr_der,
            machine: self.record.machine.to_string(),
        };
        let answer = client::enrollment(channel)
            .renew(asked)
            .await
            .map_err(|status| CallError::of(&target.address, &status))?
            .into_inner();
        let issued = Issued {
            chain_der: answer.chain_der,
            trust_der: answer.trust_der,
            not_after: parse_time(&answer.not_after)?,
        };
        self.take(issued, now);
        // With another key than the record's it is stored together with that.
        if key_pem.expose() == self.key_pem.expose() {
            self.save()?;
        }
        Ok(())
    }

    /// Makes another key and has it enrolled, over a connection of this machine's.
    ///
    /// Guarantees: the new key is on the disk before anybody hears of it, and record and key change places in one write.
    pub async fn rekey(
        &mut self,
        channel: Channel,
        code: String,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let name = format!("key-{}.pem", hex(&random_bytes::<8>()));
        let key_pem = new_key(&self.folder.join(&name))?;
        let csr_der = request(&key_pem)?;
        let answer = client::agents(channel)
            .rekey(v1::RekeyRequest { code, csr_der })
            .await
            .map_err(|status| CallError::of(&self.record.server, &status))?
            .into_inner();
        let issued = Issued {
            chain_der: answer.chain_der,
            trust_der: answer.trust_der,
            not_after: parse_time(&answer.not_after)?,
        };
        self.take(issued, now);
        self.took_key(name, key_pem)
    }

    fn take(&mut self, issued: Issued, now: Timestamp) {
        self.record.chain_pem = chain(&issued.chain_der);
        if !issued.trust_der.is_empty() {
            self.record.ca_pem = chain(&issued.trust_der);
        }
        self.record.made = now;
        self.record.not_after = issued.not_after;
    }

    /// Goes on with another key, and removes those that count no more.
    fn took_key(&mut self, name: String, key_pem: Secret) -> Result<(), AgentError> {
        self.key_pem = key_pem;
        self.record.key_file = Some(name);
        self.save()?;
        for (name, _) in self.other_keys() {
            // One that stays is of no use to anybody: the control plane does not know it.
            let _ = fs::remove_file(self.folder.join(name));
        }
        Ok(())
    }

    /// The keys beside the one of the record.
    fn other_keys(&self) -> Vec<(String, Secret)> {
        let own = self.record.key_file.as_deref().unwrap_or(KEY_FILE);
        fs::read_dir(&self.folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| name.starts_with("key") && name.ends_with(".pem") && name != own)
            .filter_map(|name| {
                let pem = fs::read_to_string(self.folder.join(&name)).ok()?;
                Some((name, Secret::new(pem)))
            })
            .collect()
    }

    /// Notes that the control plane is reached elsewhere from now on.
    pub fn moved_to(&mut self, server: &str) -> Result<(), AgentError> {
        if self.record.server == server {
            return Ok(());
        }
        server.clone_into(&mut self.record.server);
        self.save()
    }

    fn save(&self) -> Result<(), AgentError> {
        let path = self.folder.join("enrolled.json");
        let bytes = serde_json::to_vec_pretty(&self.record)
            .map_err(|e| AgentError::Crypto(e.to_string()))?;
        replace(&path, &bytes, 0o600).map_err(|source| AgentError::Folder {
            doing: "write",
            path,
            source,
        })
    }
}

/// What the control plane has issued.
struct Issued {
    chain_der: Vec<Vec<u8>>,
    trust_der: Vec<Vec<u8>>,
    not_after: Timestamp,
}

/// Enrols this machine with a join token.
pub async fn join(config: &Config) -> Result<Enrolled, AgentError> {
    let (Some(server), Some(token)) = (&config.server, &config.token) else {
        return Err(AgentError::NotEnrolled);
    };
    let join: JoinToken = token.expose().parse()?;
    let folder = config.data.join("identity");
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .map_err(|source| AgentError::Folder {
            doing: "make",
            path: folder.clone(),
            source,
        })?;
    let (key_pem, known_key) = key(&folder)?;
    let csr_der = request(&key_pem)?;
    let ca_pem = pin::to_pem(&pin::fetch_ca(server, join.ca).await?);
    let target = Target {
        address: server.clone(),
        ca_pem: ca_pem.clone(),
        identity: None,
    };
    let mut service = client::enrollment(client::connect(&target).await?);
    let machine = config
        .machine
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let asked = v1::JoinRequest {
        token: token.expose().to_owned(),
        csr_der: csr_der.clone(),
        machine: machine.clone(),
    };
    let (chain_der, trust_der, not_after) = match service.join(asked).await {
        Ok(answer) => {
            let answer = answer.into_inner();
            (answer.chain_der, answer.trust_der, answer.not_after)
        }
        Err(status) => {
            let error = CallError::of(server, &status);
            let used = matches!(&error, CallError::Refused(refusal) if refusal.reason == Reason::TokenUsed);
            if !(used && known_key && !machine.is_empty()) {
                return Err(error.into());
            }
            // The token may have been spent by this very machine, whose disk or link failed before it got the answer.
            let renewed = service.renew(v1::RenewRequest { csr_der, machine }).await;
            let answer = renewed.map_err(|_| AgentError::Call(error))?.into_inner();
            (answer.chain_der, answer.trust_der, answer.not_after)
        }
    };
    let (lineage, workspace, machine) =
        who(chain_der.first().map(Vec::as_slice).unwrap_or_default())?;
    let record = Record {
        server: server.clone(),
        lineage,
        workspace,
        machine,
        ca_pem: match trust_der.as_slice() {
            [] => ca_pem,
            trusted => chain(trusted),
        },
        chain_pem: chain(&chain_der),
        made: (config.now)(),
        not_after: parse_time(&not_after)?,
        key_file: None,
    };
    let enrolled = Enrolled {
        record,
        key_pem,
        folder,
    };
    enrolled.save()?;
    Ok(enrolled)
}

/// The stored key, or a new one; and whether it was there.
fn key(folder: &Path) -> Result<(Secret, bool), AgentError> {
    let path = folder.join(KEY_FILE);
    match fs::read_to_string(&path) {
        Ok(pem) => Ok((Secret::new(pem), true)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok((new_key(&path)?, false)),
        Err(source) => Err(AgentError::Folder {
            doing: "read",
            path,
            source,
        }),
    }
}

/// Makes a key and stores it.
fn new_key(path: &Path) -> Result<Secret, AgentError> {
    let pem = KeyPair::generate()
        .map_err(|e| AgentError::Crypto(e.to_string()))?
        .serialize_pem();
    replace(path, pem.as_bytes(), 0o600).map_err(|source| AgentError::Folder {
        doing: "write",
        path: path.to_owned(),
        source,
    })?;
    Ok(Secret::new(pem))
}

/// A certificate request, signed by the key. It asks for nothing: the control plane sets the identity.
fn request(key_pem: &Secret) -> Result<Vec<u8>, AgentError> {
    let crypto = |e: rcgen::Error| AgentError::Crypto(e.to_string());
    let key = KeyPair::from_pem(key_pem.expose()).map_err(crypto)?;
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .map_err(crypto)?;
    Ok(csr.der().to_vec())
}

fn chain(ders: &[Vec<u8>]) -> String {
    ders.iter().map(|der| pin::to_pem(der)).collect()
}

fn parse_time(text: &str) -> Result<Timestamp, AgentError> {
    text.parse().map_err(|_| {
        ConnectError::BadCredentials("the certificate's end is no time".to_owned()).into()
    })
}

/// Reads `plumb://LINEAGE/WORKSPACE/machine/NAME` out of a certificate.
fn who(der: &[u8]) -> Result<(Lineage, WorkspaceName, MachineName), AgentError> {
    let bad = |why: &str| AgentError::Connect(ConnectError::BadCredentials(why.to_owned()));
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|_| bad("the control plane's answer holds no certificate"))?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("plumb://"),
        _ => None,
    });
    let parts: Vec<&str> = uri.unwrap_or_default().split('/').collect();
    let [lineage, workspace, "machine", machine] = parts[..] else {
        return Err(bad("the certificate names no machine"));
    };
    match (
        Lineage::new(lineage),
        WorkspaceName::new(workspace),
        MachineName::new(machine),
    ) {
        (Ok(lineage), Ok(workspace), Ok(machine)) => Ok((lineage, workspace, machine)),
        _ => Err(bad("the certificate's name does not follow the grammar")),
    }
}
