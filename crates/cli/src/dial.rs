//! A connection to the control plane of a context, whichever of its services is called over it.

use plumb_wire::client::{self, Bearer, CallError, Target};
use tonic::transport::Channel;

use crate::context::Context;
use crate::error::CliError;

/// A client of one service, with the token of a context.
pub struct Dialled<C> {
    pub address: String,
    pub client: C,
}

/// What a context shows with every call: its token, and the workspace that it is for.
pub fn bearer(context: &Context) -> Result<Bearer, CliError> {
    Ok(Bearer::new(&context.token)?.for_workspace(&context.workspace))
}

impl<C> Dialled<C> {
    /// Connects, and proves that it is the right control plane. `client` makes the service's client of the connection.
    pub async fn to(
        context: &Context,
        client: impl FnOnce(Channel, Bearer) -> C,
    ) -> Result<Self, CliError> {
        let target = Target {
            address: context.address.clone(),
            ca_pem: context.ca_pem.clone(),
            identity: None,
        };
        let channel = client::connect(&target).await?;
        Ok(Self {
            client: client(channel, bearer(context)?),
            address: context.address.clone(),
        })
    }

    /// What a call that failed means.
    pub fn failed(&self) -> impl Fn(tonic::Status) -> CliError + use<C> {
        let address = self.address.clone();
        move |status| CallError::of(&address, &status).into()
    }
}
