//! The gRPC service `PermissionService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Permission, Permissions, Scope, decide::decide, scope, watch::Messages};
use crate::{
    error::{Error, Result},
    gate::{self, Caller, SelfOrPermitted},
    ids::UserId,
    proto::v1::{
        BatchCheckRequest, BatchCheckResponse, BatchCheckResult, CheckRequest, CheckResponse,
        Consistency, DecisionReason, Explanation, ListPermissionsRequest, ListPermissionsResponse,
        ListSubjectsRequest, ListSubjectsResponse, WatchPermissionsRequest,
        permission_service_server::PermissionService,
    },
    sessions::Authenticated,
};

#[tonic::async_trait]
impl PermissionService for Permissions {
    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<CheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let basis = self.engine.basis(message.consistency(), &message.consistency_token).await?;
        let (reason, explanation) = self.decide(&reaching, &message, basis.consistency).await?;
        let decision_id = log_decision(&reaching, &message, reason);
        let (allowed, reason) = (reason == DecisionReason::Granted, reason.into());
        let consistency_token = self.engine.token(basis)?;
        Ok(Response::new(CheckResponse {
            allowed,
            reason,
            decision_id,
            consistency_token,
            explanation,
        }))
    }

    async fn batch_check(
        &self,
        request: Request<BatchCheckRequest>,
    ) -> Result<Response<BatchCheckResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let basis = self.engine.basis(message.consistency(), &message.consistency_token).await?;
        let results = self.decide_batch(&reaching, message.items, basis.consistency).await?;
        self.record_refused(&reaching, &results).await;
        let decision_id = log_decisions(&results);
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
        let standing = standing.filter(|standing| standing.is_active());
        let (permissions, next_page_token) =
            self.held(caller.asker(), &message, standing.as_deref()).await?;
        let consistency_token = self.engine.token(basis)?;
        Ok(Response::new(ListPermissionsResponse {
            permissions,
            consistency_token,
            next_page_token,
        }))
    }

    async fn list_subjects(
        &self,
        request: Request<ListSubjectsRequest>,
    ) -> Result<Response<ListSubjectsResponse>, Status> {
        let caller = gate::caller(&request)?;
        Ok(Response::new(self.subjects(&caller, request.into_inner()).await?))
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

/// The subject of a question, and the caller that asks.
struct Asked<'a> {
    caller: &'a Caller,
    user: UserId,
    /// The verified access token that the request gave in place of the subject's id.
    token: Option<Authenticated>,
}

impl Permissions {
    async fn decide(
        &self,
        reaching: &SelfOrPermitted,
        request: &CheckRequest,
        consistency: Consistency,
    ) -> Result<(DecisionReason, Option<Explanation>)> {
        let permission = Permission::concrete("permission", &request.permission)?;
        let requested = scope::requested(request.scope.as_ref())?;
        let Some(asked) = self.subject(reaching, request).await? else {
            return Ok((DecisionReason::TokenInvalid, None));
        };
        if request.explain {
            let session = asked.token.map(|found| found.token.session);
            let explained =
                self.explain(asked.caller, asked.user, session, &permission, &requested);
            return Box::pin(explained).await;
        }
        let reason = self.check_one(asked, &permission, &requested, consistency).await?;
        Ok((reason, None))
    }

    /// Finds the subject of a question. Returns `None` when the request gives an access token that
    /// is not valid in the caller's tenant; a token of another tenant is not.
    async fn subject<'a>(
        &self,
        reaching: &'a SelfOrPermitted,
        request: &CheckRequest,
    ) -> Result<Option<Asked<'a>>> {
        let named = UserId::parse_optional("user_id", &request.user_id)?;
        if request.access_token.is_empty() {
            let (caller, user) = reaching.acting_for(named)?;
            return Ok(Some(Asked { caller, user, token: None }));
        }
        if named.is_some() {
            return Err(Error::field("access_token", "must be empty when user_id is given"));
        }
        let (caller, _) = reaching.within();
        let found = self.authenticator.authenticate(&request.access_token).await?;
        let Some(found) = found.filter(|found| found.token.tenant == caller.tenant()) else {
            return Ok(None);
        };
        let (caller, user) = reaching.acting_for(Some(found.token.user))?;
        Ok(Some(Asked { caller, user, token: Some(found) }))
    }

    async fn check_one(
        &self,
        asked: Asked<'_>,
        permission: &Permission<'_>,
        requested: &Scope,
        consistency: Consistency,
    ) -> Result<DecisionReason> {
        let tenant = asked.caller.tenant();
        let Some(found) = asked.token else {
            let standing = self.engine.standing(tenant, asked.user, consistency).await?;
            return Ok(decide(standing.as_deref(), permission, requested));
        };
        if consistency != Consistency::FullyConsistent {
            return Ok(decide(Some(&found.standing), permission, requested));
        }
        let read = self.engine.read(tenant, asked.user, Some(found.token.session));
        let read = Box::pin(read).await?;
        Ok(match read.filter(|read| read.session_live) {
            Some(read) => decide(Some(&read.standing), permission, requested),
            None => DecisionReason::TokenInvalid,
        })
    }
}

/// Creates a decision's id and logs it. A replica makes thousands of decisions per second and
/// people look into denials, so a granted decision is logged at level `debug` only.
fn log_decision(
    reaching: &SelfOrPermitted,
    asked: &CheckRequest,
    reason: DecisionReason,
) -> String {
    let decision_id = Uuid::now_v7().to_string();
    if reason == DecisionReason::Granted {
        tracing::debug!(%decision_id, "granted");
        return decision_id;
    }
    let (caller, _) = reaching.within();
    let CheckRequest { user_id, permission, .. } = asked;
    tracing::info!(
        %decision_id,
        reason = reason.as_str_name(),
        request_id = %caller.origin().correlation_id,
        tenant = %caller.tenant(),
        caller = %caller.user(),
        user_id,
        permission,
        "denied"
    );
    decision_id
}

/// The same for a batch. Logs how many questions were not granted.
fn log_decisions(results: &[BatchCheckResult]) -> String {
    let decision_id = Uuid::now_v7().to_string();
    let denied = results.iter().filter(|result| !result.allowed).count();
    tracing::debug!(%decision_id, questions = results.len(), denied, "decided");
    decision_id
}
