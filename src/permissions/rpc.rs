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
        let requested_user = UserId::parse_optional("user_id", &message.user_id)?;
        let (caller, user) = reaching.acting_for(requested_user)?;
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

/// The subject of a Check, and the caller of the Check.
struct Question<'a> {
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
        let Some(question) = self.subject(reaching, request).await? else {
            return Ok((DecisionReason::TokenInvalid, None));
        };
        if request.explain {
            let session = question.token.map(|token| token.token.session);
            let explained =
                self.explain(question.caller, question.user, session, &permission, &requested);
            return Box::pin(explained).await;
        }
        let reason = self.check_one(question, &permission, &requested, consistency).await?;
        Ok((reason, None))
    }

    /// Finds the subject of a Check. Returns `None` when the request has an access token that is
    /// not valid in the caller's tenant. A token of another tenant is not valid there.
    async fn subject<'a>(
        &self,
        reaching: &'a SelfOrPermitted,
        request: &CheckRequest,
    ) -> Result<Option<Question<'a>>> {
        let requested_user = UserId::parse_optional("user_id", &request.user_id)?;
        if request.access_token.is_empty() {
            let (caller, user) = reaching.acting_for(requested_user)?;
            return Ok(Some(Question { caller, user, token: None }));
        }
        if requested_user.is_some() {
            return Err(Error::field("access_token", "must be empty when user_id is given"));
        }
        let (caller, _) = reaching.within();
        let authenticated = self.authenticator.authenticate(&request.access_token).await?;
        let Some(authenticated) =
            authenticated.filter(|authenticated| authenticated.token.tenant == caller.tenant())
        else {
            return Ok(None);
        };
        let (caller, user) = reaching.acting_for(Some(authenticated.token.user))?;
        Ok(Some(Question { caller, user, token: Some(authenticated) }))
    }

    async fn check_one(
        &self,
        question: Question<'_>,
        permission: &Permission<'_>,
        requested: &Scope,
        consistency: Consistency,
    ) -> Result<DecisionReason> {
        let tenant = question.caller.tenant();
        let Some(authenticated) = question.token else {
            let standing = self.engine.standing(tenant, question.user, consistency).await?;
            return Ok(decide(standing.as_deref(), permission, requested));
        };
        if consistency != Consistency::FullyConsistent {
            return Ok(decide(Some(&authenticated.standing), permission, requested));
        }
        let read = self.engine.read(tenant, question.user, Some(authenticated.token.session));
        let read = Box::pin(read).await?;
        Ok(match read.filter(|read| read.session_live) {
            Some(read) => decide(Some(&read.standing), permission, requested),
            None => DecisionReason::TokenInvalid,
        })
    }
}

/// Creates the id of a decision and logs the decision. A granted decision is logged only at level
/// `debug`, because a replica makes thousands of decisions per second and people investigate only
/// denials.
fn log_decision(
    reaching: &SelfOrPermitted,
    request: &CheckRequest,
    reason: DecisionReason,
) -> String {
    let decision_id = Uuid::now_v7().to_string();
    if reason == DecisionReason::Granted {
        tracing::debug!(%decision_id, "granted");
        return decision_id;
    }
    let (caller, _) = reaching.within();
    let CheckRequest { user_id, permission, .. } = request;
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

/// Creates the id of a batch, and logs the number of questions that were not granted.
fn log_decisions(results: &[BatchCheckResult]) -> String {
    let decision_id = Uuid::now_v7().to_string();
    let denied = results.iter().filter(|result| !result.allowed).count();
    tracing::debug!(%decision_id, questions = results.len(), denied, "decided");
    decision_id
}
