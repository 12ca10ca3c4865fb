//! PermissionService over gRPC.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Permission, Permissions, Scope, Standing, decide::decide, scope, watch::Messages};
use crate::{
    error::{Error, Result},
    gate::{self, Reaching},
    ids::UserId,
    json,
    proto::v1::{
        BatchCheckError, BatchCheckItem, BatchCheckRequest, BatchCheckResponse, BatchCheckResult,
        CheckRequest, CheckResponse, Consistency, DecisionReason, ListPermissionsRequest,
        ListPermissionsResponse, PermissionGrant, WatchPermissionsRequest,
        permission_service_server::PermissionService,
    },
};

/// What subjects of one tenant hold, each read once in a call.
type Standings = HashMap<UserId, Option<Arc<Standing>>>;

#[tonic::async_trait]
impl PermissionService for Permissions {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let basis = self.engine.basis(message.consistency(), &message.consistency_token).await?;
        let reason = self.check_one(&reaching, message, basis.consistency).await?;
        let decision_id = log_decision(1);
        let allowed = reason == DecisionReason::Granted;
        let consistency_token = self.engine.token(basis)?;
        Ok(Response::new(CheckResponse {
            allowed,
            reason: reason.into(),
            decision_id,
            consistency_token,
        }))
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let basis = self.engine.basis(message.consistency(), &message.consistency_token).await?;
        let mut read = Standings::new();
        let mut results = Vec::with_capacity(message.items.len());
        for item in message.items {
            results.push(self.check_item(&reaching, item, basis.consistency, &mut read).await?);
        }
        let decision_id = log_decision(results.len());
        let consistency_token = self.engine.token(basis)?;
        Ok(Response::new(BatchCheckResponse { results, decision_id, consistency_token }))
    }

    async fn list_permissions(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let named = UserId::parse_optional("user_id", &message.user_id)?;
        let (caller, user) = reaching.acting_for(named)?;
        let basis = self.engine.basis(message.consistency(), &message.consistency_token).await?;
        let standing = self.engine.standing(caller.tenant(), user, basis.consistency).await?;
        let permissions = standing.filter(|s| s.is_active()).map_or_else(Vec::new, |s| list(&s));
        let consistency_token = self.engine.token(basis)?;
        Ok(Response::new(ListPermissionsResponse { permissions, consistency_token }))
    }

    type WatchPermissionsStream = Messages;

    async fn watch_permissions(
        &self,
        request: Request<WatchPermissionsRequest>,
    ) -> Result<Response<Messages>, Status> {
        let caller = gate::caller(&request)?;
        let admission = gate::admission(&request)?;
        let token = &request.get_ref().consistency_token;
        Ok(Response::new(self.watch.open(&caller, admission, token).await?))
    }
}

impl Permissions {
    async fn check_one(
        &self,
        reaching: &Reaching,
        request: CheckRequest,
        consistency: Consistency,
    ) -> Result<DecisionReason> {
        let permission = Permission::concrete("permission", &request.permission)?;
        let requested = scope::requested(request.scope.as_ref())?;
        let named = UserId::parse_optional("user_id", &request.user_id)?;
        if request.access_token.is_empty() {
            let (caller, user) = reaching.acting_for(named)?;
            let standing = self.engine.standing(caller.tenant(), user, consistency).await?;
            return Ok(decide(standing.as_deref(), &permission, &requested));
        }
        if named.is_some() {
            return Err(Error::field("access_token", "must be empty when user_id is given"));
        }
        self.check_token(reaching, &request.access_token, &permission, &requested, consistency)
            .await
    }

    /// Decides for the subject of a token, which must be in force: one of
    /// another tenant is not, here.
    async fn check_token(
        &self,
        reaching: &Reaching,
        token: &str,
        permission: &Permission<'_>,
        requested: &Scope,
        consistency: Consistency,
    ) -> Result<DecisionReason> {
        let (caller, _) = reaching.within();
        let found = self.authenticator.authenticate(token).await?;
        let found = found.filter(|found| found.token.tenant == caller.tenant());
        let Some(found) = found else { return Ok(DecisionReason::TokenInvalid) };
        let (caller, user) = reaching.acting_for(Some(found.token.user))?;
        if consistency != Consistency::FullyConsistent {
            return Ok(decide(Some(&found.standing), permission, requested));
        }
        let session = Some(found.token.session);
        let read = self.engine.read(caller.tenant(), user, session).await?;
        Ok(match read.filter(|read| read.session_live) {
            Some(read) => decide(Some(&read.standing), permission, requested),
            None => DecisionReason::TokenInvalid,
        })
    }

    /// Answers one question of a batch. What is wrong with the question is its
    /// own answer; what is wrong with us fails the whole call.
    async fn check_item(
        &self,
        reaching: &Reaching,
        item: BatchCheckItem,
        consistency: Consistency,
        read: &mut Standings,
    ) -> Result<BatchCheckResult> {
        let correlation_id = item.correlation_id.clone();
        match self.decide_item(reaching, &item, consistency, read).await {
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
        consistency: Consistency,
        read: &mut Standings,
    ) -> Result<DecisionReason> {
        let permission = Permission::concrete("permission", &item.permission)?;
        let requested = scope::requested(item.scope.as_ref())?;
        let (caller, user) =
            reaching.acting_for(UserId::parse_optional("user_id", &item.user_id)?)?;
        if let Entry::Vacant(entry) = read.entry(user) {
            entry.insert(self.engine.standing(caller.tenant(), user, consistency).await?);
        }
        let standing = read.get(&user).and_then(Option::as_deref);
        Ok(decide(standing, &permission, &requested))
    }
}

fn list(standing: &Standing) -> Vec<PermissionGrant> {
    let mut permissions: Vec<_> = standing
        .grants()
        .flat_map(|grant| {
            let role = grant.role.get();
            role.permissions.iter().map(|permission| PermissionGrant {
                permission: permission.to_owned(),
                scope: grant.scope.as_deref().map(json::to_struct),
                role_name: role.name.clone(),
            })
        })
        .collect();
    permissions.sort_by(|a, b| (&a.permission, &a.role_name).cmp(&(&b.permission, &b.role_name)));
    permissions
}

/// Names a decision, in the log as in the answer.
fn log_decision(questions: usize) -> String {
    let decision_id = Uuid::now_v7().to_string();
    tracing::info!(%decision_id, questions, "decided");
    decision_id
}
