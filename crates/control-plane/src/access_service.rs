//! The `Access` service: tokens, workspaces and the audit log, for people.
//!
//! Every call has been let in by the guard, which has found its workspace. What proves a token is never returned here:
//! it is not kept. A token for all workspaces is shown to, and taken back by, only holders of such tokens.

use std::sync::Arc;

use plumb_ledger::{AuditLink, TokenKind, TokenRecord};
use plumb_model::{OwnerName, Timestamp, WorkspaceName};
use plumb_wire::convert::{WireError, parse, parse_optional, time_text};
use plumb_wire::error::{Reason, Refusal};
use plumb_wire::v1;
use tonic::{Request, Response, Status};

use crate::access::Role;
use crate::audit::Detail;
use crate::guard::caller_of;
use crate::refuse;
use crate::tenants::{Tenant, Tenants, tenant_of};

/// The most entries of a page, and how many there are unless told otherwise.
const PAGE: (usize, usize) = (1000, 100);

/// The most entries of the audit log that are looked at for one page.
const LOOK: usize = 10_000;

/// The `Access` service.
pub(crate) struct AccessService {
    pub tenants: Arc<Tenants>,
}

pub(crate) fn page_size(asked: u32) -> usize {
    match asked as usize {
        0 => PAGE.1,
        size => size.min(PAGE.0),
    }
}

/// One page of what is in order, and where the next one begins.
pub(crate) fn page<T>(
    all: impl Iterator<Item = T>,
    name: impl Fn(&T) -> &str,
    size: u32,
    token: &str,
) -> (Vec<T>, String) {
    let size = page_size(size);
    let mut rest = all.skip_while(|item| !token.is_empty() && name(item) <= token);
    let page: Vec<T> = rest.by_ref().take(size).collect();
    let more = rest.next().is_some();
    let next = page.last().filter(|_| more);
    let next = next.map(|last| name(last).to_owned()).unwrap_or_default();
    (page, next)
}

fn shown(record: TokenRecord, used_since: Option<Timestamp>) -> v1::Token {
    let mut token = v1::Token {
        id: record.id,
        created: record.created.to_string(),
        expires: time_text(record.expires_at),
        last_used: time_text(used_since.or(record.last_used)),
        used_by: record
            .consumed
            .map(|used| used.machine.into())
            .unwrap_or_default(),
        ..v1::Token::default()
    };
    match record.kind {
        TokenKind::Api { role, all } => {
            token.role = Role::named(&role).map_or(v1::Role::Unspecified, v1::Role::from) as i32;
            token.all_workspaces = all;
        }
        TokenKind::Join { machine } => {
            token.join = true;
            token.machine = machine.map(String::from).unwrap_or_default();
        }
    }
    token
}

fn entry(link: AuditLink) -> v1::AuditEntry {
    let AuditLink { number, entry, .. } = link;
    v1::AuditEntry {
        number,
        at: entry.at.to_string(),
        who: entry.who.to_string(),
        from: entry.from,
        method: entry.method,
        refused: entry.refused.unwrap_or_default(),
        detail: entry.detail,
        owners: entry.owners.into_iter().map(String::from).collect(),
    }
}

fn no_token(id: &str) -> Refusal {
    Refusal::new(
        Reason::NotFound,
        format!(
            "there is no token {} in this workspace; `plumb token list` shows those that are",
            plumb_model::escape::line(id)
        ),
    )
}

/// Takes a token back: first in the ledger, so that it stays so, and then where it counts.
async fn revoke(tenant: &Arc<Tenant>, id: String, by_all: bool) -> Result<(), Refusal> {
    let revoking = tenant.clone();
    refuse::blocking(move || {
        let ledger = &revoking.ledger;
        ledger
            .get_token(&id)
            .map_err(|e| refuse::ledger(&e))?
            .filter(|record| by_all || !record.is_for_all())
            .ok_or_else(|| no_token(&id))?;
        if !ledger.remove_token(&id).map_err(|e| refuse::ledger(&e))? {
            return Err(no_token(&id));
        }
        revoking.access.token_revoked(&id);
        Ok(())
    })
    .await
}

#[tonic::async_trait]
impl v1::access_server::Access for AccessService {
    async fn list_tokens(
        &self,
        request: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let all = caller_of(&request)?.all;
        let v1::ListTokensRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let ledger = tenant.ledger.clone();
        let records =
            refuse::blocking(move || ledger.list_tokens().map_err(|e| refuse::ledger(&e))).await?;
        let visible = records
            .into_iter()
            .filter(|record| all || !record.is_for_all());
        let (tokens, next_page_token) =
            page(visible, |record| record.id.as_str(), page_size, &page_token);
        let tokens = tokens.into_iter().map(|record| {
            let used = tenant.access.used_since(&record.id);
            shown(record, used)
        });
        Ok(Response::new(v1::ListTokensResponse {
            tokens: tokens.collect(),
            next_page_token,
        }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let caller = caller_of(&request)?;
        let id = request.into_inner().id;
        revoke(&tenant, id.clone(), caller.all).await?;
        tracing::info!(by = %caller.name, %id, "token revoked");
        let mut response = Response::new(v1::RevokeTokenResponse {});
        let detail = Detail(format!("revoked token {id}"));
        response.extensions_mut().insert(detail);
        Ok(response)
    }

    async fn list_workspaces(
        &self,
        request: Request<v1::ListWorkspacesRequest>,
    ) -> Result<Response<v1::ListWorkspacesResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let tenants = if caller_of(&request)?.all {
            self.tenants.list()
        } else {
            vec![tenant]
        };
        let v1::ListWorkspacesRequest {
            page_size,
            page_token,
        } = request.into_inner();
        let (tenants, next_page_token) = page(
            tenants.into_iter(),
            |tenant| tenant.workspace.as_str(),
            page_size,
            &page_token,
        );
        let workspaces = tenants.into_iter().map(|tenant| v1::Workspace {
            name: tenant.workspace.to_string(),
            revision: tenant.recorder.revision().0,
            machines: u32::try_from(tenant.access.machines()).unwrap_or(u32::MAX),
        });
        Ok(Response::new(v1::ListWorkspacesResponse {
            workspaces: workspaces.collect(),
            next_page_token,
        }))
    }

    async fn create_workspace(
        &self,
        request: Request<v1::CreateWorkspaceRequest>,
    ) -> Result<Response<v1::CreateWorkspaceResponse>, Status> {
        let caller = caller_of(&request)?;
        let name: WorkspaceName =
            parse("name", &request.into_inner().name).map_err(Refusal::from)?;
        self.tenants.make(name.clone(), caller.name.clone()).await?;
        tracing::info!(by = %caller.name, workspace = %name, "workspace made");
        let mut response = Response::new(v1::CreateWorkspaceResponse {});
        let detail = Detail(format!("made workspace {name}"));
        response.extensions_mut().insert(detail);
        Ok(response)
    }

    async fn list_audit(
        &self,
        request: Request<v1::ListAuditRequest>,
    ) -> Result<Response<v1::ListAuditResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let v1::ListAuditRequest {
            page_size: size,
            page_token,
            since,
            owner,
        } = request.into_inner();
        let since = parse_optional::<Timestamp>("since", &since).map_err(Refusal::from)?;
        let owner = parse_optional::<OwnerName>("owner", &owner).map_err(Refusal::from)?;
        let before = match page_token.as_str() {
            "" => None,
            token => Some(token.parse::<u64>().map_err(|e| {
                Refusal::from(WireError::Field {
                    field: "page_token",
                    why: e.to_string(),
                })
            })?),
        };
        let (links, next) = refuse::blocking(move || {
            let wanted = |entry: &plumb_ledger::AuditEntry| {
                since.is_none_or(|since| entry.at >= since)
                    && owner
                        .as_ref()
                        .is_none_or(|owner| entry.owners.contains(owner))
            };
            tenant
                .ledger
                .audit(before, page_size(size), LOOK, wanted)
                .map_err(|e| refuse::ledger(&e))
        })
        .await?;
        Ok(Response::new(v1::ListAuditResponse {
            entries: links.into_iter().map(entry).collect(),
            next_page_token: next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditResponse>, Status> {
        let tenant = tenant_of(&request)?;
        let verified = refuse::blocking(move || {
            let ledger = &tenant.ledger;
            let head = ledger.audit_head().map_err(|e| refuse::ledger(&e))?;
            let verified = ledger.verify_audit().map_err(|e| refuse::ledger(&e))?;
            Ok((head, verified))
        })
        .await?;
        Ok(Response::new(match verified {
            (_, Ok(head)) => v1::VerifyAuditResponse {
                entries: head.number,
                head: head.hash.to_string(),
                ..v1::VerifyAuditResponse::default()
            },
            (head, Err(broken)) => v1::VerifyAuditResponse {
                entries: head.number,
                head: head.hash.to_string(),
                broken_at: broken.number,
                why: broken.why,
            },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_everything_once_and_in_order() {
        let all: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
        for size in 1..9 {
            let (mut got, mut token) = (Vec::new(), String::new());
            loop {
                let (some, next) = page(all.iter().cloned(), String::as_str, size, &token);
                assert!(some.len() <= size as usize);
                got.extend(some);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(got, all, "{size}");
        }
        // Where one page ended may be gone when the next is asked for.
        let (some, _) = page(all.iter().cloned(), String::as_str, 2, "t3x");
        assert_eq!(some, ["t4", "t5"]);
    }
}
