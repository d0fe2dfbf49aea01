//! What operators do by hand: `plumb stop`, `start`, `restart`, `reconcile` and `hold`.
//!
//! Orders are recorded by the control plane and carried out by agents; this asks, shows how far they have come, and exits
//! by what came of it.

mod hold;
mod order;
mod patch;
mod reconcile;

pub use hold::{hold, notes};
pub use order::{Verb, order};
pub use reconcile::reconcile;

use plumb_wire::client::{self, HandsClient};
use plumb_wire::v1;

use crate::commands::Env;
use crate::context::Context;
use crate::dial::Dialled;
use crate::error::CliError;

/// A connection with a token.
type Hands = Dialled<HandsClient>;

async fn connect(env: &Env<'_>) -> Result<Hands, CliError> {
    Hands::to(&Context::find(env.context)?, client::hands_with).await
}

/// All that is ordered by hand.
async fn list(hands: &mut Hands) -> Result<Vec<v1::HandOrder>, CliError> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let asked = v1::ListHandsRequest {
            page_size: 0,
            page_token,
        };
        let page = hands.client.list_hands(asked).await;
        let page = page.map_err(hands.failed())?.into_inner();
        all.extend(page.orders);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        page_token = page.next_page_token;
    }
}
