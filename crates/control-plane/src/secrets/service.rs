//! The `Secrets` service: turns messages into calls of the vault of the caller's workspace, and back. No answer holds a
//! value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plumb_model::{MachineName, OwnerName, Secret, SecretName};
use plumb_wire::convert::{parse, time_text};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tonic::{Request, Response, Status};

use super::keys::Keys;
use super::{SecretError, Vault, rotate};
use crate::audit::Detail;
use crate::guard::caller_of;
use crate::refuse;
use crate::tenants::{Tenants, tenant_of};

/// How many secrets one page has unless told otherwise, and at most.
const PAGE: (usize, usize) = (100, 1000);

/// Who uses a secret, as far as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Users {
    /// Which apps and others.
    pub owners: BTreeSet<OwnerName>,
    /// Which machines are handed it.
    pub machines: BTreeSet<MachineName>,
    /// In which versions.
    pub versions: BTreeSet<u64>,
}

/// The service.
pub(crate) struct Secrets {
    pub tenants: Arc<Tenants>,
    pub keys: Arc<Keys>,
}

impl From<SecretError> for Refusal {
    fn from(error: SecretError) -> Self {
        let reason = match &error {
            SecretError::Value { .. } => Reason::BadMessage,
            SecretError::Unknown(_) => Reason::NotFound,
            SecretError::Ledger(error) => return refuse::ledger(error),
            SecretError::KeyMissing { .. }
            | SecretError::Damaged(_)
            | SecretError::Keys(_)
            | SecretError::Random(_) => Reason::Storage,
        };
        Self::new(reason, refuse::chain(&error))
    }
}

impl Secrets {
    /// Ends a rotation of the key that was cut short, and says of which secrets the key is missing.
    pub async fn finish_rotation(&self) {
        let keys = self.keys.clone();
        let vaults = self.vaults();
        let done = tokio::task::spawn_blocking(move || -> Result<(), SecretError> {
            for name in vaults
                .iter()
                .map(Vault::unreadable)
                .collect::<Result<Vec<_>, _>>()?
                .concat()
            {
                tracing::error!(%name, "the key that opens this secret is not here: give the control plane the file that holds it, or set the secret again");
            }
            if keys.is_rotating() {
                let (key, count) = rotate(&keys, &vaults)?;
                tracing::info!(%key, count, "ended the rotation of the key of secrets that was cut short");
            }
            Ok(())
        });
        match done.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!("{}", refuse::chain(&error)),
            Err(error) => tracing::error!("{error}"),
        }
    }

    fn vaults(&self) -> Vec<Vault> {
        let tenants = self.tenants.list();
        tenants.iter().map(|tenant| tenant.vault.clone()).collect()
    }
}

/// An answer, with what the audit log says of the call.
fn told<T>(message: T, detail: String) -> Response<T> {
    let mut response = Response::new(message);
    response.extensions_mut().insert(Detail(detail));
    response
}

fn names(owners: &BTreeSet<OwnerName>) -> Vec<String> {
    owners.iter().map(ToString::to_string).collect()
}

#[tonic::async_trait]
impl v1::secrets_server::Secrets for Secrets {
    async fn set_secret(
        &self,
        request: Request<v1::SetSecretRequest>,
    ) -> Result<Response<v1::SetSecretResponse>, Status> {
        let (tenant, by) = (tenant_of(&request)?, caller_of(&request)?.name);
        let v1::SetSecretRequest {
            name,
            value,
            must_exist,
        } = request.into_inner();
        let name: SecretName = parse("name", &name).map_err(Refusal::from)?;
        // The error would hold the bytes: it goes no further.
        let value = String::from_utf8(value).map_err(|_| {
            let message = format!(
                "the value of the secret {name} is not UTF-8; encode it, for example as base64"
            );
            Refusal::new(Reason::BadMessage, message)
        })?;
        let value = Secret::new(value);
        let users = tenant.recorder.users_of_secrets();
        let users = users.get(&name).cloned().unwrap_or_default();
        let in_use = users.versions;
        let detail = name.to_string();
        let vault = tenant.vault.clone();
        let set = refuse::blocking(move || {
            let set = vault.set(&name, &value, &by, must_exist, &in_use);
            set.map_err(Refusal::from)
        })
        .await?;
        let detail = match set.unchanged {
            true => format!(
                "secret {detail} has this value at version {} already",
                set.version
            ),
            false => format!("set secret {detail}, version {}", set.version),
        };
        let response = v1::SetSecretResponse {
            version: set.version,
            unchanged: set.unchanged,
            used_by: names(&users.owners),
        };
        Ok(told(response, detail))
    }

    async fn list_secrets(
        &self,
        request: Request<v1::ListSecretsRequest>,
    ) -> Result<Response<v1::ListSecretsResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let request = request.into_inner();
        let size = match request.page_size as usize {
            0 => PAGE.0,
            size => size.min(PAGE.1),
        };
        let users = tenant.recorder.users_of_secrets();
        let vault = tenant.vault.clone();
        let all = refuse::blocking(move || vault.list().map_err(Refusal::from)).await?;
        // The token is the last name of the page before; records come sorted by name.
        let mut rest = all
            .into_iter()
            .filter(|record| record.name.as_str() > request.page_token.as_str());
        let page: Vec<_> = rest.by_ref().take(size).collect();
        let more = rest.next().is_some();
        let next_page_token = match page.last() {
            Some(last) if more => last.name.to_string(),
            _ => String::new(),
        };
        let secrets = page
            .into_iter()
            .map(|record| {
                let newest = record.versions.last_key_value();
                let used = users.get(&record.name).cloned().unwrap_or_default();
                let version = record.last;
                v1::SecretInfo {
                    version,
                    set_at: time_text(newest.map(|(_, v)| v.set_at)),
                    set_by: newest.map(|(_, v)| v.set_by.clone()).unwrap_or_default(),
                    versions: u32::try_from(record.versions.len()).unwrap_or(u32::MAX),
                    used_by: names(&used.owners),
                    machines: used.machines.iter().map(ToString::to_string).collect(),
                    outdated: used.versions.iter().any(|used| *used < version),
                    name: record.name.into(),
                }
            })
            .collect();
        Ok(Response::new(v1::ListSecretsResponse {
            secrets,
            next_page_token,
        }))
    }

    async fn remove_secret(
        &self,
        request: Request<v1::RemoveSecretRequest>,
    ) -> Result<Response<v1::RemoveSecretResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let v1::RemoveSecretRequest { name, force } = request.into_inner();
        let name: SecretName = parse("name", &name).map_err(Refusal::from)?;
        let users = tenant.recorder.users_of_secrets();
        if let Some(users) = users.get(&name).filter(|_| !force) {
            let owners = names(&users.owners).join(", ");
            let message = format!(
                "the secret {name} is used by {owners}; take it out of their blueprints and apply first, or remove it all the same with --force: what runs keeps it until it is started again"
            );
            return Err(Refusal::new(Reason::SecretInUse, message)
                .with("used_by", owners)
                .into());
        }
        let detail = format!("removed secret {name}");
        let vault = tenant.vault.clone();
        let versions = refuse::blocking(move || vault.remove(&name).map_err(Refusal::from)).await?;
        Ok(told(v1::RemoveSecretResponse { versions }, detail))
    }

    async fn rotate_key(
        &self,
        _request: Request<v1::RotateKeyRequest>,
    ) -> Result<Response<v1::RotateKeyResponse>, Status> {
        let keys = self.keys.clone();
        let vaults = self.vaults();
        let (key, rewrapped) =
            refuse::blocking(move || rotate(&keys, &vaults).map_err(Refusal::from)).await?;
        let detail = format!("wrapped the keys of {rewrapped} secrets in {key}");
        let response = v1::RotateKeyResponse {
            key,
            rewrapped,
            external: self.keys.are_given(),
        };
        Ok(told(response, detail))
    }
}

/// Who uses which secret, of everything that is recorded.
pub(crate) fn users(recorded: &plumb_model::state::Recorded) -> BTreeMap<SecretName, Users> {
    let mut all: BTreeMap<SecretName, Users> = BTreeMap::new();
    for (owner, body) in &recorded.releases {
        for resource in &body.resources {
            for secret in resource.spec.secrets() {
                let users = all.entry(secret.name.clone()).or_default();
                users.owners.insert(owner.clone());
                users.machines.insert(resource.address.machine.clone());
                users.versions.extend(secret.version);
            }
        }
    }
    all
}
