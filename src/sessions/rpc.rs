//! The gRPC methods of `SessionService`.

use tonic::{Request, Response, Status};

use super::{
    Sessions,
    store::{SessionClient, SessionRow},
};
use crate::{
    clock::timestamp,
    gate,
    ids::{SessionId, SubjectId},
    proto::v1::{
        GetSessionRequest, GetSessionResponse, ListSessionsRequest, ListSessionsResponse,
        RevokeAllSessionsRequest, RevokeAllSessionsResponse, RevokeSessionRequest,
        RevokeSessionResponse, Session, SessionState, session_service_server::SessionService,
    },
};

#[tonic::async_trait]
impl SessionService for Sessions {
    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let message = request.into_inner();
        let (caller, user) = self_or_permitted
            .caller_and_subject(SubjectId::parse_optional("user_id", &message.user_id)?)?;
        let (sessions, next_page_token) = self.list(caller, user, &message).await?;
        Ok(Response::new(ListSessionsResponse { sessions, next_page_token }))
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let session = SessionId::parse("session_id", &request.into_inner().session_id)?;
        let (caller, reach) = self_or_permitted.caller_and_reach();
        let session = Session::from(self.get(caller, session, reach.only_accessible_user()).await?);
        Ok(Response::new(GetSessionResponse { session: Some(session) }))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let session = SessionId::parse("session_id", &request.into_inner().session_id)?;
        let consistency_token = self.revoke(&write_caller, session).await?;
        Ok(Response::new(RevokeSessionResponse { consistency_token }))
    }

    async fn revoke_all_sessions(
        &self,
        request: Request<RevokeAllSessionsRequest>,
    ) -> Result<Response<RevokeAllSessionsResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let requested_user = SubjectId::parse_optional("user_id", &request.into_inner().user_id)?;
        let (count, consistency_token) = self.revoke_all(&write_caller, requested_user).await?;
        let revoked_count = i32::try_from(count).unwrap_or(i32::MAX);
        Ok(Response::new(RevokeAllSessionsResponse { revoked_count, consistency_token }))
    }
}

/// The client is `None` when its sealed data can't be opened. Then the session is marked as
/// unreadable.
impl From<(SessionRow, Option<SessionClient>)> for Session {
    fn from((row, client): (SessionRow, Option<SessionClient>)) -> Self {
        let unreadable = client.is_none();
        let client = client.unwrap_or_default();
        let state = match (row.revoked_at, row.expired) {
            (Some(_), _) => SessionState::Revoked,
            (None, true) => SessionState::Expired,
            (None, false) => SessionState::Live,
        };
        Self {
            id: row.session_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            user_id: row.user_id.to_string(),
            device_name: client.device_name,
            ip: client.ip,
            user_agent: client.user_agent,
            state: state.into(),
            create_time: Some(timestamp(row.created_at)),
            last_use_time: Some(timestamp(row.last_used_at)),
            expire_time: Some(timestamp(row.ends_at)),
            max_expire_time: Some(timestamp(row.expires_at)),
            unreadable,
        }
    }
}
