//! What is shown of messages that hold the value of a secret: everything but that. They are generated without `Debug`
//! (see `build.rs`), so that no log line and no failed assertion can print one by accident.

use std::fmt;

use plumb_model::secret::REDACTED;

use crate::v1;

impl fmt::Debug for v1::SetSecretRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            value: _,
            must_exist,
        } = self;
        f.debug_struct("SetSecretRequest")
            .field("name", name)
            .field("value", &REDACTED)
            .field("must_exist", must_exist)
            .finish()
    }
}

impl fmt::Debug for v1::SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            version,
            value: _,
        } = self;
        f.debug_struct("SecretValue")
            .field("name", name)
            .field("version", version)
            .field("value", &REDACTED)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 32. Mutation: let `build.rs` derive `Debug` for either message, and leave the impl out.
    #[test]
    fn no_message_shows_the_value_that_it_carries() {
        const CANARY: &str = "canary-3b91";
        let value = v1::SecretValue {
            name: "KEY".to_owned(),
            version: 3,
            value: CANARY.into(),
        };
        let down = v1::ServerMessage {
            message: Some(v1::server_message::Message::SecretValues(
                v1::SecretValues {
                    secrets: vec![value],
                    missing: Vec::new(),
                },
            )),
        };
        let set = v1::SetSecretRequest {
            name: "KEY".to_owned(),
            value: CANARY.into(),
            must_exist: true,
        };
        let bytes = format!("{:?}", CANARY.as_bytes());
        for shown in [
            format!("{down:?}"),
            format!("{down:#?}"),
            format!("{set:?}"),
        ] {
            let inner = bytes.trim_matches(['[', ']']);
            assert!(!shown.contains(CANARY) && !shown.contains(inner), "{shown}");
            assert!(shown.contains("KEY") && shown.contains(REDACTED));
        }
    }
}
