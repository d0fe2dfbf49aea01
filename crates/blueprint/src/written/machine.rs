//! Machine.

use std::collections::BTreeMap;

use schemars::JsonSchema;

use super::{ApiVersion, MachineKind, Name};

/// A VM that an agent manages.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Machine {
    /// The version of the language; may be left out.
    #[schemars(extend("default" = "plumb/v1"))]
    api_version: Option<ApiVersion>,
    /// What this document is.
    kind: MachineKind,
    /// The machine's name, which its certificate bears: another name is another machine.
    #[schemars(extend("examples" = ["web-1"]))]
    name: Name,
    /// Free-form labels, which `machines: { LABEL: VALUE }` matches.
    #[schemars(extend("examples" = [{ "role": "web", "zone": "fra" }]))]
    labels: Option<BTreeMap<String, String>>,
    /// Where the machine is reached.
    #[schemars(extend("examples" = [{ "public": "203.0.113.10", "private": "10.0.0.10" }]))]
    address: Option<MachineAddress>,
    /// What the machine costs; plans add it up.
    #[schemars(extend("examples" = [{ "monthly": 4.51, "currency": "EUR" }]))]
    price: Option<Price>,
}

/// Where the machine is reached.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct MachineAddress {
    /// From anywhere: an IP address or a host name.
    #[schemars(extend("examples" = ["203.0.113.10"]))]
    public: Option<String>,
    /// From the other machines: an IP address or a host name.
    #[schemars(extend("examples" = ["10.0.0.10"]))]
    private: Option<String>,
}

/// What the machine costs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct Price {
    /// Each month, with at most two decimals.
    #[schemars(range(min = 0, max = 1_000_000_000), extend("examples" = [4.51]))]
    monthly: f64,
    /// The ISO 4217 code, such as EUR.
    #[schemars(extend("pattern" = "^[A-Z]{3}$", "examples" = ["EUR"]))]
    currency: String,
}
