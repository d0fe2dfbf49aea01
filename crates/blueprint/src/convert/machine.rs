//! Machine.

use plumb_model::state::{MachineInfo, Price};

use super::Reader;
use crate::code::Code;
use crate::diagnostic::quote;

/// Reads a machine. What is wrong in it is reported and left out.
pub(crate) fn read(r: &mut Reader<'_, '_>) -> MachineInfo {
    let root = r.root();
    let mut info = MachineInfo::default();
    if let Some(labels) = r.get(&root, "labels") {
        info.labels = r.labels(&labels);
    }
    if let Some(address) = r.get(&root, "address") {
        for network in ["public", "private"] {
            let Some((text, at)) = r.get_text(&address, network) else {
                continue;
            };
            if crate::scalar::is_host(text) {
                info.address.insert(network.to_owned(), text.to_owned());
            } else {
                r.bad(
                    &at,
                    Code::BadHost,
                    format!("{} is neither an IP address nor a host name", quote(text)),
                    Some("leave out scheme and port: 10.0.0.10 or web-1.example.com"),
                );
            }
        }
    }
    if let Some(price) = r.get(&root, "price") {
        let monthly = r.get(&price, "monthly");
        let cents = monthly.as_ref().and_then(|node| {
            let cents = node.value.as_f64().and_then(crate::scalar::cents);
            if cents.is_none() && node.value.is_number() && !r.is_reported(node) {
                r.bad(
                    node,
                    Code::BadPrice,
                    "a price has at most two decimals",
                    None,
                );
            }
            cents
        });
        let currency = r.get_text(&price, "currency").and_then(|(text, at)| {
            let good = text.len() == 3 && text.bytes().all(|b| b.is_ascii_uppercase());
            if !good {
                r.bad(
                    &at,
                    Code::BadPrice,
                    format!("{} is no currency", quote(text)),
                    Some("use its ISO 4217 code, such as EUR"),
                );
            }
            good.then(|| text.to_owned())
        });
        if let (Some(monthly_cents), Some(currency)) = (cents, currency) {
            info.price = Some(Price {
                monthly_cents,
                currency,
            });
        }
    }
    info
}
