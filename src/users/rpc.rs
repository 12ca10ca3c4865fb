//! The gRPC methods of `UserService`.

use std::time::Instant;

use tonic::{Request, Response, Status};

use super::{UserState, Users, store::UserRow};
use crate::{
    api::update_mask::etag,
    clock::timestamp,
    gate,
    ids::SubjectId,
    proto::v1::{
        self, CreateUserRequest, CreateUserResponse, DeleteUserRequest, DeleteUserResponse,
        DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse,
        GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse, LookupUserRequest,
        LookupUserResponse, UpdateUserRequest, UpdateUserResponse, User,
        user_service_server::UserService,
    },
};

#[tonic::async_trait]
impl UserService for Users {
    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&write_caller, message).await?))
    }

    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let user = SubjectId::parse("user_id", &request.into_inner().user_id)?;
        let (caller, user) = self_or_permitted.caller_and_subject(Some(user))?;
        let row = self.get(caller, user).await?;
        Ok(Response::new(GetUserResponse { user: Some(row.into()) }))
    }

    async fn lookup_user(
        &self,
        request: Request<LookupUserRequest>,
    ) -> Result<Response<LookupUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let row = self.find_by_email(&caller, &request.get_ref().email).await?;
        Ok(Response::new(LookupUserResponse { user: Some(row.into()) }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (users, next_page_token) = self.list(&caller, request.get_ref()).await?;
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<UpdateUserResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let user = write_caller.target(Some(SubjectId::parse("user_id", &message.user_id)?))?;
        // A wrong current password gets a delayed response, like a failed sign-in.
        let sign_in = self.failure_timing.begin(Instant::now());
        let result = self.update(&write_caller, user, message, &sign_in).await;
        Ok(Response::new(sign_in.delay_failure(result).await?))
    }

    async fn disable_user(
        &self,
        request: Request<DisableUserRequest>,
    ) -> Result<Response<DisableUserResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let user = SubjectId::parse("user_id", &request.into_inner().user_id)?;
        let (row, consistency_token) =
            self.set_state(&write_caller, user, UserState::Disabled).await?;
        Ok(Response::new(DisableUserResponse { user: Some(row.into()), consistency_token }))
    }

    async fn enable_user(
        &self,
        request: Request<EnableUserRequest>,
    ) -> Result<Response<EnableUserResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let user = SubjectId::parse("user_id", &request.into_inner().user_id)?;
        let (row, consistency_token) =
            self.set_state(&write_caller, user, UserState::Active).await?;
        Ok(Response::new(EnableUserResponse { user: Some(row.into()), consistency_token }))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let user = SubjectId::parse("user_id", &message.user_id)?;
        let consistency_token = self.delete(&write_caller, user, &message.etag).await?;
        Ok(Response::new(DeleteUserResponse { consistency_token }))
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        Self {
            id: row.user_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            email: row.email,
            display_name: row.display_name,
            state: v1::UserState::from(row.state).into(),
            email_verified: row.email_verified,
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
            last_sign_in_time: row.last_sign_in_at.map(timestamp),
            unreadable: row.unreadable,
        }
    }
}
