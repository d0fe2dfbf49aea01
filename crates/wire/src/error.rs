//! How a refusal travels: a gRPC code, one line for people that ends with the next step, and a closed reason with
//! metadata for programs.
//!
//! The server builds a [`Refusal`] and turns it into a status; clients read a [`Refusal`] back from any status.

use std::collections::BTreeMap;

use prost::Message;
use tonic::{Code, Status};

use crate::v1::ErrorInfo;

/// The type URL of [`ErrorInfo`] in a status' details.
pub const ERROR_INFO_URL: &str = "type.googleapis.com/plumb.v1.ErrorInfo";

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal, $code:ident;)*) => {
        /// Why a call was refused. Closed: the server has no other reasons.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])* $name,)*
        }

        impl Reason {
            /// When it is given, as the documentation of the API says it.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),*),)* }
            }

            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC code that goes with it.
            #[must_use]
            pub fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }
        }
    };
}

reasons! {
    /// No credential at all.
    NoCredential = "NO_CREDENTIAL", Unauthenticated;
    /// A token that is unknown, revoked or has the wrong secret.
    BadToken = "BAD_TOKEN", Unauthenticated;
    /// The token's role does not reach.
    RoleTooLow = "ROLE_TOO_LOW", PermissionDenied;
    /// The token is for another workspace than the call.
    OtherWorkspace = "OTHER_WORKSPACE", PermissionDenied;
    /// A client certificate that this control plane did not issue for its workspace, or that has been replaced.
    BadCertificate = "BAD_CERTIFICATE", Unauthenticated;
    /// A client certificate that has run out: it may do one thing, renew.
    CertificateExpired = "CERTIFICATE_EXPIRED", Unauthenticated;
    /// The machine has been removed.
    MachineRemoved = "MACHINE_REMOVED", PermissionDenied;
    /// Something is recorded on the machine, so that it is not removed without force.
    MachineInUse = "MACHINE_IN_USE", FailedPrecondition;
    /// What was asked for does not fit how things stand: no rotation of the CA is under way, or one is.
    WrongState = "WRONG_STATE", FailedPrecondition;
    /// There is no such method, or no rule that lets anybody call it.
    NoSuchMethod = "NO_SUCH_METHOD", PermissionDenied;
    /// The join token is unknown or its secret wrong.
    TokenUnknown = "TOKEN_UNKNOWN", Unauthenticated;
    /// The join token has served already.
    TokenUsed = "TOKEN_USED", Unauthenticated;
    /// The join token has run out.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated;
    /// The join token is for another machine.
    TokenForOther = "TOKEN_FOR_OTHER_MACHINE", PermissionDenied;
    /// The name is taken by another machine.
    NameTaken = "NAME_TAKEN", AlreadyExists;
    /// A certificate signing request that cannot be used.
    BadRequestCertificate = "BAD_CSR", InvalidArgument;
    /// The key is not the one that was enrolled.
    WrongKey = "WRONG_KEY", Unauthenticated;
    /// A message that cannot be read.
    BadMessage = "BAD_MESSAGE", InvalidArgument;
    /// Something was recorded since the plan was made.
    BaseMoved = "BASE_MOVED", FailedPrecondition;
    /// The plan is not the one that was approved.
    PlanChanged = "PLAN_CHANGED", FailedPrecondition;
    /// A signed plan that nobody has signed so, or that does not hold together.
    PlanDamaged = "PLAN_DAMAGED", InvalidArgument;
    /// A plan that another control plane has signed, and that the caller does not vouch for.
    ForeignPlan = "FOREIGN_PLAN", FailedPrecondition;
    /// The plan needs `--allow`.
    ConsentNeeded = "CONSENT_NEEDED", FailedPrecondition;
    /// The plan can be read, and not applied: something is unresolved, or a machine lacks what it needs.
    PlanBlocked = "PLAN_BLOCKED", FailedPrecondition;
    /// Something that is recorded uses the secret.
    SecretInUse = "SECRET_IN_USE", FailedPrecondition;
    /// Blobs have to be uploaded first.
    BlobsMissing = "BLOBS_MISSING", FailedPrecondition;
    /// The planner refuses.
    PlanRefused = "PLAN_REFUSED", FailedPrecondition;
    /// There is nothing of that name.
    NotFound = "NOT_FOUND", NotFound;
    /// A blob is not what its digest says.
    DigestMismatch = "DIGEST_MISMATCH", InvalidArgument;
    /// Past a bound.
    TooLarge = "TOO_LARGE", ResourceExhausted;
    /// Too many calls, or too many refusals, in a short time. `retry_after_ms` says when there is room again.
    RateLimited = "RATE_LIMITED", ResourceExhausted;
    /// Too many at once.
    TooMany = "TOO_MANY", ResourceExhausted;
    /// The reader was too slow, or the control plane is going down.
    Closing = "CLOSING", Unavailable;
    /// The data folder cannot be read or written.
    Storage = "STORAGE", Internal;
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// Why and what to do next, for people: one line.
    pub message: String,
    /// What it is about.
    pub metadata: BTreeMap<String, String>,
}

impl Refusal {
    /// A refusal without metadata.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
        }
    }

    /// Adds a piece of metadata.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Reads the refusal out of a status; none where the status was not made by a Plumb that this version knows.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let rpc = RpcStatus::decode(status.details()).ok()?;
        let detail = rpc.details.iter().find(|d| d.type_url == ERROR_INFO_URL)?;
        let info = ErrorInfo::decode(detail.value.as_slice()).ok()?;
        let reason = Reason::ALL.iter().find(|r| r.as_str() == info.reason)?;
        Some(Self {
            reason: *reason,
            message: status.message().to_owned(),
            metadata: info.metadata,
        })
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.reason.code();
        let info = ErrorInfo {
            reason: refusal.reason.as_str().to_owned(),
            metadata: refusal.metadata,
        };
        let rpc = RpcStatus {
            code: code as i32,
            message: refusal.message.clone(),
            details: vec![Any {
                type_url: ERROR_INFO_URL.to_owned(),
                value: info.encode_to_vec(),
            }],
        };
        Status::with_details(code, refusal.message, rpc.encode_to_vec().into())
    }
}

impl From<crate::convert::WireError> for Refusal {
    fn from(error: crate::convert::WireError) -> Self {
        let reason = match &error {
            crate::convert::WireError::TooLarge(_) => Reason::TooLarge,
            _ => Reason::BadMessage,
        };
        Self::new(reason, error.to_string())
    }
}

/// google.rpc.Status, which the details of a gRPC status are by convention.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_back_from_its_status() {
        let refusal = Refusal::new(Reason::BaseMoved, "moved; run `plumb plan` again")
            .with("head", 7)
            .with("by", "local");
        let status = Status::from(refusal.clone());
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(Refusal::of(&status), Some(refusal));
        assert_eq!(Refusal::of(&Status::internal("x")), None);
    }

    #[test]
    fn no_two_reasons_share_a_word() {
        let words: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
