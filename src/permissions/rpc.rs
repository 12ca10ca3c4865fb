//! The gRPC service `PermissionService`.

use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Permission, Permissions, Scope, basis::Basis, decide::decide, scope, watch::Messages};
use crate::{
    error::{Error, Result},
    gate::{self, Caller, SelfOrPermitted},
    ids::SubjectId,
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
        let access = gate::self_or_permitted(&request)?;
        let request = request.into_inner();
        let basis = self.basis(&access, request.consistency(), &request.consistency_token).await?;
        let (reason, explanation) = self.decide_check(&access, &request, basis.consistency).await?;
        let decision_id = log_decision(&access, &request, reason);
        let (allowed, reason) = (reason == DecisionReason::Granted, reason.into());
        let consistency_token = self.engine.consistency_token(basis)?;
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
        let access = gate::self_or_permitted(&request)?;
        let request = request.into_inner();
        let basis = self.basis(&access, request.consistency(), &request.consistency_token).await?;
        let results = self.decide_batch(&access, request.items, basis.consistency).await?;
        self.record_refused(&access, &results).await;
        let decision_id = log_batch_decision(&results);
        let consistency_token = self.engine.consistency_token(basis)?;
        Ok(Response::new(BatchCheckResponse { results, decision_id, consistency_token }))
    }

    async fn list_permissions(
        &self,
        request: Request<ListPermissionsRequest>,
    ) -> Result<Response<ListPermissionsResponse>, Status> {
        let access = gate::self_or_permitted(&request)?;
        let request = request.into_inner();
        let requested_user = SubjectId::parse_optional("user_id", &request.user_id)?;
        let (caller, user) = access.caller_and_subject(requested_user)?;
        let basis = self.basis(&access, request.consistency(), &request.consistency_token).await?;
        let standing = self.engine.standing(caller.tenant(), user, basis.consistency).await?;
        let standing = standing.filter(|standing| standing.is_active());
        let (permissions, next_page_token) =
            self.held_permissions_page(caller.page_caller(), &request, standing.as_deref()).await?;
        let consistency_token = self.engine.consistency_token(basis)?;
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
        Ok(Response::new(self.subjects_page(&caller, request.into_inner()).await?))
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
struct CheckSubject<'a> {
    caller: &'a Caller,
    user: SubjectId,
    /// The verified access token that the request gave in place of the subject's id.
    token: Option<Authenticated>,
}

impl Permissions {
    /// Waits until the cache is as fresh as the request requires.
    async fn basis(
        &self,
        access: &SelfOrPermitted,
        requested: Consistency,
        token: &str,
    ) -> Result<Basis> {
        let (caller, _) = access.caller_and_reach();
        self.engine.wait_for_basis(caller.own_tenant(), requested, token).await
    }

    /// Decides a Check, and explains the decision if the request asks for an explanation.
    async fn decide_check(
        &self,
        access: &SelfOrPermitted,
        request: &CheckRequest,
        consistency: Consistency,
    ) -> Result<(DecisionReason, Option<Explanation>)> {
        let permission = Permission::parse_without_wildcards("permission", &request.permission)?;
        let requested = scope::parse_requested(request.scope.as_ref())?;
        let Some(subject) = self.resolve_subject(access, request).await? else {
            return Ok((DecisionReason::TokenInvalid, None));
        };
        if request.explain {
            let session = subject.token.map(|authenticated| authenticated.token.session);
            let decision = self.decide_and_explain(
                subject.caller,
                subject.user,
                session,
                &permission,
                &requested,
            );
            return Box::pin(decision).await;
        }
        let reason =
            self.decide_without_explanation(subject, &permission, &requested, consistency).await?;
        Ok((reason, None))
    }

    /// Finds the subject of a Check, by its id or by its access token. Returns `None` when the
    /// access token is invalid, or belongs to another tenant than the caller's.
    async fn resolve_subject<'a>(
        &self,
        access: &'a SelfOrPermitted,
        request: &CheckRequest,
    ) -> Result<Option<CheckSubject<'a>>> {
        let requested_user = SubjectId::parse_optional("user_id", &request.user_id)?;
        if request.access_token.is_empty() {
            let (caller, user) = access.caller_and_subject(requested_user)?;
            return Ok(Some(CheckSubject { caller, user, token: None }));
        }
        if requested_user.is_some() {
            return Err(Error::field("access_token", "must be empty when user_id is given"));
        }
        let (caller, _) = access.caller_and_reach();
        let charged_tenant = || caller.own_tenant();
        let authenticated =
            self.authenticator.authenticate(&request.access_token, charged_tenant).await?;
        let Some(authenticated) =
            authenticated.filter(|authenticated| authenticated.token.tenant == caller.tenant())
        else {
            return Ok(None);
        };
        let (caller, user) = access.caller_and_subject(Some(authenticated.token.user))?;
        Ok(Some(CheckSubject { caller, user, token: Some(authenticated) }))
    }

    /// Decides a Check without an explanation.
    async fn decide_without_explanation(
        &self,
        subject: CheckSubject<'_>,
        permission: &Permission<'_>,
        requested: &Scope,
        consistency: Consistency,
    ) -> Result<DecisionReason> {
        let tenant = subject.caller.tenant();
        let Some(authenticated) = subject.token else {
            let standing = self.engine.standing(tenant, subject.user, consistency).await?;
            return Ok(decide(standing.as_deref(), permission, requested));
        };
        if consistency != Consistency::FullyConsistent {
            return Ok(decide(Some(&authenticated.standing), permission, requested));
        }
        let read = self.engine.read_standing_and_session(
            tenant,
            subject.user,
            Some(authenticated.token.session),
        );
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
    access: &SelfOrPermitted,
    request: &CheckRequest,
    reason: DecisionReason,
) -> String {
    let decision_id = Uuid::now_v7().to_string();
    if reason == DecisionReason::Granted {
        tracing::debug!(%decision_id, "granted");
        return decision_id;
    }
    let (caller, _) = access.caller_and_reach();
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

/// Creates the id of a batch, and logs the number of items that were not granted.
fn log_batch_decision(results: &[BatchCheckResult]) -> String {
    let decision_id = Uuid::now_v7().to_string();
    let denied = results.iter().filter(|result| !result.allowed).count();
    tracing::debug!(%decision_id, questions = results.len(), denied, "decided");
    decision_id
}
