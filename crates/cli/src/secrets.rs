//! Talking to a control plane about secrets: one method for each call of the service `Secrets`.

use plumb_model::{Secret, SecretName};
use plumb_wire::client::{self, SecretsClient};
use plumb_wire::v1;

use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;

/// How many secrets are asked for at once.
const PAGE: u32 = 500;

/// A connection with a token.
pub type Secrets = Dialled<SecretsClient>;

impl Secrets {
    /// Connects, and proves that it is the right control plane.
    pub async fn connect(context: &Context) -> Result<Self, CliError> {
        Self::to(context, client::secrets_with).await
    }

    /// Sets one.
    pub async fn set(
        &mut self,
        name: &SecretName,
        value: &Secret,
        must_exist: bool,
    ) -> Result<v1::SetSecretResponse, CliError> {
        let request = v1::SetSecretRequest {
            name: name.to_string(),
            value: value.expose().as_bytes().to_vec(),
            must_exist,
        };
        let answer = self.client.set_secret(request).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// All of them, by name.
    pub async fn list(&mut self) -> Result<Vec<v1::SecretInfo>, CliError> {
        let (mut secrets, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListSecretsRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = self.client.list_secrets(request).await;
            let answer = answer.map_err(self.failed())?.into_inner();
            secrets.extend(answer.secrets);
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return Ok(secrets);
            }
        }
    }

    /// Removes one. Says how many versions it had.
    pub async fn remove(&mut self, name: &SecretName, force: bool) -> Result<u32, CliError> {
        let request = v1::RemoveSecretRequest {
            name: name.to_string(),
            force,
        };
        let answer = self.client.remove_secret(request).await;
        Ok(answer.map_err(self.failed())?.into_inner().versions)
    }

    /// Makes another key-encryption key.
    pub async fn rotate_key(&mut self) -> Result<v1::RotateKeyResponse, CliError> {
        let answer = self.client.rotate_key(v1::RotateKeyRequest {}).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }
}
