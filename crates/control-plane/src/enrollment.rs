//! Certificates for machines: the first one for a join token, every other one for a signature by the enrolled key.
//!
//! Guarantees: a token serves once, however many come with it at once; the name in a certificate comes from the
//! token or, where that fixes none, is one that nobody else holds; a machine that is enrolled already gives way only
//! to a token that names it.

use std::sync::Arc;

use plumb_ledger::{Actor, Ledger, MachineIdentity, TokenKind};
use plumb_model::{Lineage, MachineName, Timestamp, WorkspaceName};
use plumb_wire::convert::parse_optional;
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::token::JoinToken;
use plumb_wire::v1;
use tonic::{Request, Response, Status};

use crate::access::{Access, enrolled_key};
use crate::audit::Detail;
use crate::guard::Whose;
use crate::identity::{Identity, Issued, RequestedKey, requested_key};
use crate::refuse;
use crate::rotation::{Authorities, Cas};
use crate::tenants::{Tenant, Tenants};

/// The `Enrollment` service.
pub(crate) struct Enrollment {
    pub authorities: Arc<Authorities>,
    pub tenants: Arc<Tenants>,
    pub now: fn() -> Timestamp,
}

/// What the blocking part of a join needs.
struct Joining {
    cas: Arc<Cas>,
    ledger: Ledger,
    access: Arc<Access>,
    lineage: Lineage,
    workspace: WorkspaceName,
    now: Timestamp,
}

impl Enrollment {
    fn joining(&self, tenant: &Tenant) -> Joining {
        Joining {
            cas: self.authorities.now_in_force(),
            ledger: tenant.ledger.clone(),
            access: tenant.access.clone(),
            lineage: tenant.ledger.lineage().clone(),
            workspace: tenant.workspace.clone(),
            now: (self.now)(),
        }
    }
}

impl Joining {
    fn identity(&self, machine: &MachineName) -> Identity {
        Identity {
            lineage: self.lineage.clone(),
            workspace: self.workspace.clone(),
            machine: machine.clone(),
        }
    }

    fn join(
        self,
        token: &JoinToken,
        request: &v1::JoinRequest,
    ) -> Result<(MachineName, Issued), Refusal> {
        let wanted = parse_optional::<MachineName>("machine", &request.machine)?;
        let key = requested_key(&request.csr_der).map_err(|e| refuse::csr(&e))?;
        // The secret comes first: without it nothing is told about the token.
        let record = self
            .ledger
            .get_token(&token.id)
            .map_err(|e| refuse::ledger(&e))?
            .filter(|record| record.matches(token.secret.expose()))
            .ok_or_else(unknown_token)?;
        let TokenKind::Join { machine: bound } = record.kind else {
            return Err(unknown_token());
        };
        let bound_here = bound.is_some();
        let machine = wanted.or(bound).ok_or_else(|| {
            Refusal::new(
                Reason::BadMessage,
                "this join token fixes no name, and the agent gave none; start it with --machine NAME",
            )
        })?;
        let enrolled = self.access.machine(&machine);
        let taken = enrolled.is_some_and(|identity| identity.removed.is_none());
        if taken && !bound_here && record.consumed.is_none() {
            return Err(Refusal::new(
                Reason::NameTaken,
                format!(
                    "a machine named {machine} is enrolled already; choose another name, or let this one take its place with `plumb token create --join --machine {machine}`"
                ),
            )
            .with("machine", &machine));
        }
        // Made before the token is spent, so that a failure here costs no token.
        let issued = self
            .cas
            .issuing()
            .issue(&key, &self.identity(&machine), self.now)
            .map_err(|e| refuse::identity(&e))?;
        self.ledger
            .consume_join(&token.id, token.secret.expose(), &machine, self.now)
            .map_err(|e| refuse::consume(&e))?;
        self.access.token_revoked(&token.id);
        let identity = MachineIdentity {
            machine: machine.clone(),
            public_key_sha256: key.digest.0,
            certificate_serial: issued.serial.clone(),
            enrolled_at: self.now,
            removed: None,
            seen: None,
        };
        self.ledger
            .put_identity(&identity)
            .map_err(|e| refuse::ledger(&e))?;
        self.access.machine_stored(identity);
        tracing::info!(%machine, token = %token.id, "machine enrolled");
        Ok((machine, issued))
    }

    fn renew(self, machine: &MachineName, key: &RequestedKey) -> Result<Issued, Refusal> {
        enrolled_key(self.access.machine(machine).as_ref(), machine, &key.digest)?;
        let issued = self
            .cas
            .issuing()
            .issue(key, &self.identity(machine), self.now)
            .map_err(|e| refuse::identity(&e))?;
        let identity = self
            .ledger
            .renew_identity(machine, &key.digest.0, &issued.serial)
            .map_err(|e| refuse::record(&e))?;
        self.access.machine_stored(identity);
        Ok(issued)
    }
}

fn unknown_token() -> Refusal {
    Refusal::new(
        Reason::TokenUnknown,
        "the join token is not valid; make one with `plumb token create --join`",
    )
}

/// Whose renewal this is: the machine that it names, in the workspace where it was enrolled with the key that the
/// request is signed with.
fn renewing(
    tenants: &Tenants,
    request: &v1::RenewRequest,
) -> Result<(Arc<Tenant>, MachineName, RequestedKey), Refusal> {
    let machine: MachineName = plumb_wire::convert::parse("machine", &request.machine)?;
    let key = requested_key(&request.csr_der).map_err(|e| refuse::csr(&e))?;
    let Some(tenant) = tenants.enrolled(&machine, &key.digest) else {
        enrolled_key(None, &machine, &key.digest)?;
        return Err(unknown_token());
    };
    Ok((tenant, machine, key))
}

#[tonic::async_trait]
impl v1::enrollment_server::Enrollment for Enrollment {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let whose = Whose::of(&request);
        let request = request.into_inner();
        let token: JoinToken = request.token.parse().map_err(|_| unknown_token())?;
        let tenants = self.tenants.clone();
        let (id, secret) = (token.id.clone(), token.secret.clone());
        let tenant = refuse::blocking(move || {
            tenants
                .join_token(&id, secret.expose())
                .map_err(|e| refuse::ledger(&e))?
                .ok_or_else(unknown_token)
        })
        .await?;
        whose.is(Actor::JoinToken(token.id.clone()), tenant.clone());
        let joining = self.joining(&tenant);
        let trust_der = joining.cas.trust_der();
        let turn = tenant.enrolling.clone().lock_owned().await;
        // The turn is given back by the work, not by this call: a caller who hangs up must not let the next one in
        // between the token and the identity.
        let (machine, issued) = refuse::blocking(move || {
            let _turn = turn;
            joining.join(&token, &request)
        })
        .await?;
        tenant.joined(&machine).await;
        let detail = Detail(format!("enrolled machine {machine}"));
        let mut response = Response::new(v1::JoinResponse {
            chain_der: issued.chain_der,
            lineage: tenant.ledger.lineage().to_string(),
            workspace: tenant.workspace.to_string(),
            machine: machine.into(),
            not_after: issued.not_after.to_string(),
            trust_der,
        });
        response.extensions_mut().insert(detail);
        Ok(response)
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let request = request.into_inner();
        let tenants = self.tenants.clone();
        let (tenant, machine, key) = refuse::blocking(move || renewing(&tenants, &request)).await?;
        let joining = self.joining(&tenant);
        let trust_der = joining.cas.trust_der();
        let turn = tenant.enrolling.clone().lock_owned().await;
        let issued = refuse::blocking(move || {
            let _turn = turn;
            joining.renew(&machine, &key)
        })
        .await?;
        Ok(Response::new(v1::RenewResponse {
            chain_der: issued.chain_der,
            not_after: issued.not_after.to_string(),
            trust_der,
        }))
    }
}
