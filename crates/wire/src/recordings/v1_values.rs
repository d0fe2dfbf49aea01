//! The messages of the agents' other calls, of version 1: joining, renewing, blobs, logs and keys.

use super::{record, recorded};
use crate::v1;

const VERSION: &str = "v1";

macro_rules! values {
    ($($name:literal: $value:expr,)*) => {
        /// The names of the recordings.
        pub(super) fn names() -> impl Iterator<Item = &'static str> {
            [$($name,)*].into_iter()
        }

        /// Threat row 42. Mutation: give a field of one of these messages another number.
        #[test]
        fn what_is_said_in_other_calls_means_what_it_meant() {
            $({
                let value = $value;
                record(VERSION, $name, std::slice::from_ref(&value));
                let mut heard = recorded(VERSION, $name);
                heard.push(value.clone());
                assert_eq!(heard, [value.clone(), value], $name);
            })*
        }
    };
}

fn der() -> Vec<u8> {
    vec![0x30, 0x03, 0x02, 0x01, 0x01]
}

fn time() -> String {
    "2026-09-21T14:13:20Z".to_owned()
}

values! {
    "call-join": v1::JoinRequest {
        token: "plumb-join-not-a-real-token".into(),
        csr_der: der(),
        machine: "web-1".into(),
    },
    "call-joined": v1::JoinResponse {
        machine: "web-1".into(),
        workspace: "shop".into(),
        lineage: "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        chain_der: vec![der(), der()],
        not_after: time(),
        trust_der: vec![der()],
    },
    "call-renew": v1::RenewRequest {
        csr_der: der(),
        machine: "web-1".into(),
    },
    "call-renewed": v1::RenewResponse {
        chain_der: vec![der()],
        not_after: time(),
        trust_der: vec![der()],
    },
    "call-fetch-blob": v1::FetchBlobRequest {
        digest: "b".repeat(64),
        offset: 262_144,
    },
    "call-fetched-blob": v1::FetchBlobResponse {
        data: b"bytes".to_vec(),
        total: 262_149,
    },
    "call-push-logs": v1::PushLogsRequest {
        request: 5,
        batch: Some(v1::LogBatch {
            process: "app".into(),
            slot: 1,
            lines: vec![v1::LogLine {
                at: time(),
                stderr: true,
                text: b"hello".to_vec(),
            }],
            dropped: 3,
        }),
    },
    "call-rekey": v1::RekeyRequest {
        code: "0123456789".into(),
        csr_der: der(),
    },
    "call-rekeyed": v1::RekeyResponse {
        chain_der: vec![der()],
        not_after: time(),
        trust_der: vec![der()],
    },
}
