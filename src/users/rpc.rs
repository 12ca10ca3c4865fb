//! UserService over gRPC.

use tonic::{Request, Response, Status};

use super::{
    credentials, email,
    store::{self, UserFilter, UserRow},
};
use crate::{
    audit::{self, Event},
    clock::timestamp,
    db::{Db, TenantTx},
    error::{Error, Result},
    gate::{self, Caller, Reach},
    idempotency::{self, Key},
    ids::UserId,
    listing::{self, Filter},
    passwords::{self, Hasher},
    proto::v1::{
        CreateUserRequest, CreateUserResponse, DeleteUserRequest, DeleteUserResponse,
        DisableUserRequest, DisableUserResponse, EnableUserRequest, EnableUserResponse,
        ErrorReason, GetUserRequest, GetUserResponse, ListUsersRequest, ListUsersResponse,
        LookupUserRequest, LookupUserResponse, UpdateUserRequest, UpdateUserResponse, User,
        UserState, create_user_request::Credential, user_service_server::UserService,
    },
    roles::guard::{self, AdminGuard},
    sessions::{self, SessionCache},
    tenants,
    updates::{Mask, check_etag, etag},
};

/// Manages users over gRPC.
pub struct Users {
    /// Postgres.
    pub db: Db,
    /// What ended sessions must leave.
    pub cache: SessionCache,
    /// Hashes new users' passwords.
    pub hasher: Hasher,
    /// The shortest password that the server allows.
    pub min_length: usize,
}

#[tonic::async_trait]
impl UserService for Users {
    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&caller, message).await?))
    }

    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let user = UserId::parse("user_id", &request.into_inner().user_id)?;
        let (caller, user) = reaching.acting_for(Some(user))?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let row = store::get(&mut tx, caller.tenant(), user).await?;
        Ok(Response::new(GetUserResponse { user: Some(row.into()) }))
    }

    async fn lookup_user(
        &self,
        request: Request<LookupUserRequest>,
    ) -> Result<Response<LookupUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let email = &request.get_ref().email;
        let row = store::find_by_email(&mut tx, caller.tenant(), email).await?;
        let user = row.map(User::from).ok_or_else(Error::not_found)?;
        Ok(Response::new(LookupUserResponse { user: Some(user) }))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let filter = Filter::parse(&message.filter, &["state", "email", "display_name"])?;
        let state = filter.choice("state", "USER_STATE_", UserState::from_str_name)?;
        let filter = UserFilter {
            state: state.map(state_text),
            email_like: filter.like_as("email", email::key),
            name_like: filter.like("display_name"),
        };
        let bound = ("users", caller.tenant(), &message.filter);
        let page = listing::page(message.page_size, &message.page_token, &bound)?;
        let mut tx = self.db.begin(caller.tenant()).await?;
        let rows = store::list(&mut tx, caller.tenant(), &filter, &page).await?;
        let (rows, next_page_token) = page.cut(rows, |row| row.user_id);
        let users = rows.into_iter().map(User::from).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn update_user(
        &self,
        request: Request<UpdateUserRequest>,
    ) -> Result<Response<UpdateUserResponse>, Status> {
        let reaching = gate::reaching(&request)?;
        let message = request.into_inner();
        let user = UserId::parse("user_id", &message.user_id)?;
        let (caller, user) = reaching.acting_for(Some(user))?;
        let (_, reach) = reaching.within();
        let row = self.update(caller, reach, user, message).await?;
        Ok(Response::new(UpdateUserResponse { user: Some(row.into()) }))
    }

    async fn disable_user(
        &self,
        request: Request<DisableUserRequest>,
    ) -> Result<Response<DisableUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let user = UserId::parse("user_id", &request.into_inner().user_id)?;
        let row = self.set_state(&caller, user, UserState::Disabled).await?;
        Ok(Response::new(DisableUserResponse { user: Some(row.into()) }))
    }

    async fn enable_user(
        &self,
        request: Request<EnableUserRequest>,
    ) -> Result<Response<EnableUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let user = UserId::parse("user_id", &request.into_inner().user_id)?;
        let row = self.set_state(&caller, user, UserState::Active).await?;
        Ok(Response::new(EnableUserResponse { user: Some(row.into()) }))
    }

    async fn delete_user(
        &self,
        request: Request<DeleteUserRequest>,
    ) -> Result<Response<DeleteUserResponse>, Status> {
        let caller = gate::caller(&request)?;
        let message = request.into_inner();
        let user = UserId::parse("user_id", &message.user_id)?;
        self.delete(&caller, user, &message.etag).await?;
        Ok(Response::new(DeleteUserResponse {}))
    }
}

impl Users {
    async fn create(
        &self,
        caller: &Caller,
        mut message: CreateUserRequest,
    ) -> Result<CreateUserResponse> {
        let tenant = caller.tenant();
        let credential = message.credential.take();
        let key = Key {
            tenant,
            actor: Some(caller.user()),
            method: "CreateUser",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let hash = self.hash_of(caller, &message, credential).await?;
        let mut tx = self.db.begin(tenant).await?;
        if let Some(first) = idempotency::recall(&mut tx, &key).await? {
            return Ok(first);
        }
        let user = UserId::new();
        let row = store::insert(&mut tx, tenant, user, &message.email, &message.display_name);
        let row = row.await?;
        if let Some(hash) = hash {
            credentials::set(&mut tx, tenant, user, &hash).await?;
        }
        let event = Event::new("user_created").target(user.0);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let response = CreateUserResponse { user: Some(row.into()) };
        idempotency::remember(&mut tx, &key, &response).await?;
        tx.commit().await?;
        Ok(response)
    }

    async fn hash_of(
        &self,
        caller: &Caller,
        message: &CreateUserRequest,
        credential: Option<Credential>,
    ) -> Result<Option<String>> {
        let password = match credential {
            None => return Ok(None),
            Some(Credential::PasswordHash(hash)) => return Ok(Some(hash)),
            Some(Credential::Password(password)) => passwords::normalise(&password),
        };
        let mut tx = self.db.begin(caller.tenant()).await?;
        let tenant = tenants::store::get(&mut tx, caller.tenant()).await?;
        drop(tx);
        passwords::check_in(&tenant, &password, "password", &message.email, self.min_length)?;
        self.hasher.hash(password).await.map(Some)
    }

    async fn update(
        &self,
        caller: &Caller,
        reach: Reach,
        user: UserId,
        message: UpdateUserRequest,
    ) -> Result<UserRow> {
        let tenant = caller.tenant();
        let mask = Mask::read(message.update_mask.as_ref(), &["display_name", "email"])?;
        let display_name = mask.take("display_name", message.display_name)?;
        let email = mask.take("email", message.email)?;
        // An email is a way into the account: changing one's own takes more
        // than a token that may have been stolen.
        if email.is_some() && reach != Reach::Tenant {
            return Err(Error::refused(
                ErrorReason::PermissionMissing,
                "the caller must hold user:update to change an email",
            ));
        }
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        check_etag(&message.etag, row.version)?;
        if user != caller.user() {
            guard::user_within_level(&mut tx, tenant, caller.standing()?, user).await?;
        }
        if let Some(display_name) = display_name {
            row.display_name = display_name;
        }
        if let Some(email) = email {
            row.email_verified &= email::key(&email) == email::key(&row.email);
            row.email = email;
        }
        let row = store::update(&mut tx, &row).await?;
        let event = Event::new("user_updated").target(user.0);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        tx.commit().await?;
        Ok(row)
    }

    async fn set_state(&self, caller: &Caller, user: UserId, state: UserState) -> Result<UserRow> {
        let tenant = caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::watch(&mut tx, tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        guard::user_within_level(&mut tx, tenant, caller.standing()?, user).await?;
        if row.state == state_text(state) {
            return Ok(row);
        }
        state_text(state).clone_into(&mut row.state);
        let row = store::update(&mut tx, &row).await?;
        let kind = match state {
            UserState::Disabled => {
                sessions::store::revoke_all(&mut tx, tenant, user, None, "user_disabled").await?;
                "user_disabled"
            }
            _ => "user_enabled",
        };
        let event = Event::new(kind).target(user.0);
        self.finish(tx, caller, admins, event).await?;
        Ok(row)
    }

    async fn delete(&self, caller: &Caller, user: UserId, etag: &str) -> Result<()> {
        let tenant = caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::watch(&mut tx, tenant).await?;
        let row = store::lock(&mut tx, tenant, user).await?;
        check_etag(etag, row.version)?;
        guard::user_within_level(&mut tx, tenant, caller.standing()?, user).await?;
        store::delete(&mut tx, tenant, user).await?;
        let event = Event::new("user_deleted").target(user.0);
        self.finish(tx, caller, admins, event).await
    }

    /// Ends a change that may have taken an administrator or ended sessions.
    async fn finish(
        &self,
        mut tx: TenantTx,
        caller: &Caller,
        admins: AdminGuard,
        event: Event,
    ) -> Result<()> {
        admins.check(&mut tx).await?;
        audit::record(&mut tx, caller.tenant(), &caller.actor(), event).await?;
        tx.commit().await?;
        self.cache.forget(caller.tenant()).await;
        Ok(())
    }
}

fn state_text(state: UserState) -> &'static str {
    match state {
        UserState::Disabled => "disabled",
        UserState::Active | UserState::Unspecified => "active",
    }
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let state = match row.state.as_str() {
            "disabled" => UserState::Disabled,
            _ => UserState::Active,
        };
        Self {
            id: row.user_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            email: row.email,
            display_name: row.display_name,
            state: state.into(),
            email_verified: row.email_verified,
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}
