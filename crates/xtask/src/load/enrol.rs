//! Enrols all agents, each with a join token of its own and a key of its own, many at a time.

use std::path::PathBuf;
use std::time::Duration;

use plumb_agent::parts::{Enrolled, join};
use plumb_driver::host::RunAs;
use plumb_model::{Secret, Timestamp};
use plumb_wire::client::{self, ApiClient};
use plumb_wire::v1;
use tokio::task::JoinSet;

use super::{Options, context, name};

/// How many enrol at once: enough to keep the control plane busy, and few enough that none runs into a deadline.
const AT_ONCE: usize = 48;

/// How long a token is good for.
const TOKEN_SECONDS: u32 = 3600;

/// Enrols those that are not enrolled yet, in the order of their numbers.
pub async fn all(options: &Options) -> Result<Vec<Enrolled>, String> {
    let (target, token) = context(&options.context)?;
    let channel = client::connect(&target).await.map_err(|e| e.to_string())?;
    let api = client::api(channel, &token).map_err(|e| e.to_string())?;
    let mut all: Vec<Option<Enrolled>> = Vec::new();
    all.resize_with(options.agents, || None);
    let mut under_way = JoinSet::new();
    for number in 0..options.agents {
        if under_way.len() >= AT_ONCE {
            take(&mut under_way, &mut all).await?;
        }
        let (api, server) = (api.clone(), target.address.clone());
        let data = options.data.join(name(number));
        under_way.spawn(async move { (number, one(number, data, api, server).await) });
    }
    while !under_way.is_empty() {
        take(&mut under_way, &mut all).await?;
    }
    Ok(all.into_iter().flatten().collect())
}

async fn take(
    under_way: &mut JoinSet<(usize, Result<Enrolled, String>)>,
    all: &mut [Option<Enrolled>],
) -> Result<(), String> {
    let Some(ended) = under_way.join_next().await else {
        return Ok(());
    };
    let (number, enrolled) = ended.map_err(|e| e.to_string())?;
    let enrolled = enrolled.map_err(|e| format!("{}: {e}", name(number)))?;
    if let Some(place) = all.get_mut(number) {
        *place = Some(enrolled);
    }
    Ok(())
}

async fn one(
    number: usize,
    data: PathBuf,
    mut api: ApiClient,
    server: String,
) -> Result<Enrolled, String> {
    if let Some(enrolled) = Enrolled::load(&data).map_err(|e| e.to_string())? {
        return Ok(enrolled);
    }
    let kind = v1::create_token_request::Kind::Join(v1::JoinToken {
        machine: name(number),
        ttl_seconds: TOKEN_SECONDS,
    });
    let made = api
        .create_token(v1::CreateTokenRequest { kind: Some(kind) })
        .await
        .map_err(|status| status.to_string())?;
    let config = plumb_agent::Config {
        data,
        server: Some(server),
        token: Some(Secret::new(made.into_inner().token)),
        machine: None,
        // Nothing is converged and nothing is run.
        interval: Duration::from_secs(30),
        metrics: None,
        run_as: RunAs::Agent,
        shim: Vec::new(),
        now: Timestamp::now,
    };
    join(&config).await.map_err(|e| e.to_string())
}
