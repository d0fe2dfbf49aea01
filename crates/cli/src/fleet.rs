//! Talking to a control plane about its machines and its CA: one method for each call.

use plumb_model::MachineName;
use plumb_wire::client::{self, MachinesClient};
use plumb_wire::v1;
use tonic::transport::Channel;

use crate::commands::Env;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;

/// As many machines as are asked for at once.
const PAGE: u32 = 500;

/// A connection with a token.
pub type Fleet = Dialled<MachinesClient>;

impl Fleet {
    /// Connects by the chosen context.
    pub async fn connect(env: &Env<'_>) -> Result<Self, CliError> {
        Self::to(&Context::find(env.context)?, client::machines_with).await
    }

    /// All machines, by name.
    pub async fn list(&mut self) -> Result<Vec<v1::Machine>, CliError> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let asked = v1::ListMachinesRequest {
                page_size: PAGE,
                page_token,
            };
            let answer = self.client.list_machines(asked).await;
            let page = answer.map_err(self.failed())?.into_inner();
            all.extend(page.machines);
            if page.next_page_token.is_empty() {
                return Ok(all);
            }
            page_token = page.next_page_token;
        }
    }

    /// One machine.
    pub async fn get(&mut self, name: &MachineName) -> Result<v1::Machine, CliError> {
        let asked = v1::GetMachineRequest {
            name: name.to_string(),
        };
        let answer = self.client.get_machine(asked).await;
        let machine = answer.map_err(self.failed())?.into_inner().machine;
        machine.ok_or_else(|| CliError::Answer("it holds no machine".to_owned()))
    }

    /// Removes a machine.
    pub async fn remove(
        &mut self,
        name: &MachineName,
        force: bool,
    ) -> Result<v1::RemoveMachineResponse, CliError> {
        let asked = v1::RemoveMachineRequest {
            name: name.to_string(),
            force,
        };
        let answer = self.client.remove_machine(asked).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// Keeps one of several agents of a machine.
    pub async fn keep(
        &mut self,
        name: &MachineName,
        instance: &str,
    ) -> Result<v1::KeepMachineResponse, CliError> {
        let asked = v1::KeepMachineRequest {
            name: name.to_string(),
            instance: instance.to_owned(),
        };
        let answer = self.client.keep_machine(asked).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// Goes on with machines that hold more than is recorded; all of them if none is named.
    pub async fn recover(
        &mut self,
        names: &[MachineName],
    ) -> Result<v1::RecoverMachinesResponse, CliError> {
        let asked = v1::RecoverMachinesRequest {
            names: names.iter().map(ToString::to_string).collect(),
        };
        let answer = self.client.recover_machines(asked).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// The CAs.
    pub async fn ca(&mut self) -> Result<v1::GetCaResponse, CliError> {
        let answer = self.client.get_ca(v1::GetCaRequest {}).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }

    /// Takes a step of replacing the CA.
    pub async fn rotate_ca(
        &mut self,
        step: v1::rotate_ca_request::Step,
    ) -> Result<v1::GetCaResponse, CliError> {
        let asked = v1::RotateCaRequest { step: step.into() };
        let answer = self.client.rotate_ca(asked).await;
        Ok(answer.map_err(self.failed())?.into_inner())
    }
}

/// Asks for the CAs that are to be trusted, and notes them in the context's file. What goes wrong is told by whatever is
/// done next, and tried again by the next command.
pub async fn learn(channel: Channel, context: &Context) {
    let Ok(bearer) = crate::dial::bearer(context) else {
        return;
    };
    let mut machines = client::machines_with(channel, bearer);
    if let Ok(answer) = machines.get_ca(v1::GetCaRequest {}).await {
        let _ = context.clone().learn(&answer.into_inner().cas);
    }
}
