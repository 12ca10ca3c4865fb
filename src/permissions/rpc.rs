//! PermissionService over gRPC.

use std::collections::HashMap;

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Permission, Permissions, Scope, Standing, decide::decide, scope};
use crate::{
    error::{Error, Result},
    gate::{self, Caller, Reaching},
    ids::{SessionId, TenantId, UserId},
    json,
    proto::v1::{
        BatchCheckError, BatchCheckItem, BatchCheckRequest, BatchCheckResponse, BatchCheckResult,
        CheckRequest, CheckResponse, DecisionReason, ListPermissionsRequest,
        ListPermissionsResponse, PermissionGrant, permission_service_server::PermissionService,
    },
    tokens::TokenKind,
};

/// What subjects of one tenant hold, each read once in a call.
type Read = HashMap<UserId, Option<Standing>>;

#[tonic::async_trait]
impl PermissionService for Permissions {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let reason = self.check_one(&reaching, request.into_inner()).await?;
        let decision_id = log_decision(1);
        let allowed = reason == DecisionReason::Granted;
        Ok(Response::new(CheckResponse { allowed, reason: reason.into(), decision_id }))
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let mut read = Read::new();
        let mut results = Vec::new();
        for item in request.into_inner().items {
            results.push(self.check_item(&reaching, item, &mut read).await?);
        }
        let decision_id = log_decision(results.len());
        Ok(Response::new(BatchCheckResponse { results, decision_id }))
    }

    async fn list_permissions(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let named = UserId::parse_optional("user_id", &request.into_inner().user_id)?;
        let (caller, user) = reaching.acting_for(named)?;
        let standing = self.engine.standing(caller.tenant(), user, None).await?;
        let permissions = standing.filter(|s| s.user_active).map_or_else(Vec::new, |s| list(&s));
        Ok(Response::new(ListPermissionsResponse { permissions }))
    }
}

impl Permissions {
    async fn check_one(
        &self,
        reaching: &Reaching,
        request: CheckRequest,
    ) -> Result<DecisionReason> {
        let permission = Permission::concrete("permission", &request.permission)?;
        let requested = scope::requested(request.scope.as_ref())?;
        let named = UserId::parse_optional("user_id", &request.user_id)?;
        if request.access_token.is_empty() {
            let (caller, user) = reaching.acting_for(named)?;
            let standing = self.standing_of(caller, user).await?;
            return Ok(decide(standing.as_ref(), &permission, &requested));
        }
        if named.is_some() {
            return Err(Error::field("access_token", "must be empty when user_id is given"));
        }
        self.check_token(reaching, &request.access_token, &permission, &requested).await
    }

    /// Decides for the subject of a token, which must be in force: one of
    /// another tenant is not, here.
    async fn check_token(
        &self,
        reaching: &Reaching,
        token: &str,
        permission: &Permission<'_>,
        requested: &Scope,
    ) -> Result<DecisionReason> {
        let (caller, _) = reaching.within();
        let claims = self
            .keyring
            .verify(TokenKind::Access, token)
            .filter(|claims| TenantId(claims.org) == caller.tenant());
        let Some(claims) = claims else { return Ok(DecisionReason::TokenInvalid) };
        let (caller, user) = reaching.acting_for(Some(UserId(claims.sub)))?;
        let session = Some(SessionId(claims.sid));
        let standing = self.engine.standing(caller.tenant(), user, session).await?;
        if !standing.as_ref().is_some_and(|s| s.session_live) {
            return Ok(DecisionReason::TokenInvalid);
        }
        Ok(decide(standing.as_ref(), permission, requested))
    }

    /// Answers one question of a batch. What is wrong with the question is its
    /// own answer; what is wrong with us fails the whole call.
    async fn check_item(
        &self,
        reaching: &Reaching,
        item: BatchCheckItem,
        read: &mut Read,
    ) -> Result<BatchCheckResult> {
        let correlation_id = item.correlation_id.clone();
        match self.decide_item(reaching, &item, read).await {
            Ok(reason) => Ok(BatchCheckResult {
                correlation_id,
                allowed: reason == DecisionReason::Granted,
                reason: reason.into(),
                error: None,
            }),
            Err(error @ (Error::Fields(_) | Error::Refused(..))) => {
                let status = Status::from(error);
                Ok(BatchCheckResult {
                    correlation_id,
                    error: Some(BatchCheckError {
                        code: status.code() as i32,
                        message: status.message().to_owned(),
                    }),
                    ..BatchCheckResult::default()
                })
            }
            Err(ours) => Err(ours),
        }
    }

    async fn decide_item(
        &self,
        reaching: &Reaching,
        item: &BatchCheckItem,
        read: &mut Read,
    ) -> Result<DecisionReason> {
        let permission = Permission::concrete("permission", &item.permission)?;
        let requested = scope::requested(item.scope.as_ref())?;
        let (caller, user) =
            reaching.acting_for(UserId::parse_optional("user_id", &item.user_id)?)?;
        if let std::collections::hash_map::Entry::Vacant(e) = read.entry(user) {
            let standing = self.standing_of(caller, user).await?;
            e.insert(standing);
        }
        let standing = read.get(&user).and_then(Option::as_ref);
        Ok(decide(standing, &permission, &requested))
    }

    /// A subject's standing; the caller's own was just read by the gate.
    async fn standing_of(&self, caller: &Caller, user: UserId) -> Result<Option<Standing>> {
        if user == caller.user() && caller.tenant() == caller.home() {
            return Ok(Some(caller.standing()?.as_ref().clone()));
        }
        self.engine.standing(caller.tenant(), user, None).await
    }
}

fn list(standing: &Standing) -> Vec<PermissionGrant> {
    let mut grants: Vec<_> = standing
        .grants
        .iter()
        .flat_map(|grant| {
            grant.permissions.iter().map(|permission| PermissionGrant {
                permission: permission.clone(),
                scope: grant.scope.as_ref().map(json::to_struct),
                role_name: grant.role_name.clone(),
            })
        })
        .collect();
    grants.sort_by(|a, b| (&a.permission, &a.role_name).cmp(&(&b.permission, &b.role_name)));
    grants
}

/// Names a decision, in the log as in the answer.
fn log_decision(questions: usize) -> String {
    let decision_id = Uuid::now_v7().to_string();
    tracing::info!(%decision_id, questions, "decided");
    decision_id
}
