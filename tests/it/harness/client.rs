//! A client of the API: a token, a tenant and a stub for every service.

use tenantry::proto::v1::{
    AssignRoleRequest, CreateRoleRequest, CreateUserRequest, LoginRequest, LoginResponse,
    RegisterRequest, RoleLevel, audit_service_client::AuditServiceClient,
    auth_service_client::AuthServiceClient, create_user_request::Credential,
    permission_service_client::PermissionServiceClient, role_service_client::RoleServiceClient,
    service_account_service_client::ServiceAccountServiceClient,
    session_service_client::SessionServiceClient, tenant_service_client::TenantServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, KeyAndValueRef, MetadataKey, MetadataMap},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt;

/// The password of every user that the tests create.
pub const PASSWORD: &str = "correct horse battery staple";

/// A client of the API, with or without a token and extra metadata.
#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub metadata: Metadata,
    /// The tokens of the sign-in. Empty for an anonymous client.
    pub tokens: LoginResponse,
    pub tenant_id: String,
    pub slug: String,
    pub user_id: String,
    pub email: String,
}

/// The metadata that a client sends with each call.
#[derive(Clone, Default)]
pub struct Metadata(pub MetadataMap);

impl Interceptor for Metadata {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for entry in self.0.iter() {
            match entry {
                KeyAndValueRef::Ascii(key, value) => {
                    request.metadata_mut().append(key, value.clone());
                }
                KeyAndValueRef::Binary(key, value) => {
                    request.metadata_mut().append_bin(key, value.clone());
                }
            }
        }
        Ok(request)
    }
}

pub type Service = InterceptedService<Channel, Metadata>;

impl Client {
    pub fn anonymous(channel: Channel) -> Self {
        Self {
            channel,
            metadata: Metadata::default(),
            tokens: LoginResponse::default(),
            tenant_id: String::new(),
            slug: String::new(),
            user_id: String::new(),
            email: String::new(),
        }
    }

    /// The same client with one more metadata entry.
    pub fn with_metadata(&self, key: &str, value: &str) -> Self {
        let mut client = self.clone();
        let key = MetadataKey::<Ascii>::from_bytes(key.as_bytes()).expect("a key");
        client.metadata.0.append(key, value.parse().expect("a value"));
        client
    }

    /// The same client with another access token. An empty `token` removes the token.
    pub fn with_token(&self, token: &str) -> Self {
        let mut client = self.clone();
        client.metadata.0.remove("authorization");
        if token.is_empty() {
            return client;
        }
        client.with_metadata("authorization", &format!("Bearer {token}"))
    }

    /// The same caller on another server.
    pub fn on_server(&self, channel: &Channel) -> Self {
        Self { channel: channel.clone(), ..self.clone() }
    }

    pub fn auth(&self) -> AuthServiceClient<Service> {
        AuthServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn tenants(&self) -> TenantServiceClient<Service> {
        TenantServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn sessions(&self) -> SessionServiceClient<Service> {
        SessionServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn users(&self) -> UserServiceClient<Service> {
        UserServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn roles(&self) -> RoleServiceClient<Service> {
        RoleServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn service_accounts(&self) -> ServiceAccountServiceClient<Service> {
        ServiceAccountServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn permissions(&self) -> PermissionServiceClient<Service> {
        PermissionServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }
    pub fn audit(&self) -> AuditServiceClient<Service> {
        AuditServiceClient::with_interceptor(self.channel.clone(), self.metadata.clone())
    }

    /// Signs up a tenant and signs its administrator in.
    pub async fn sign_up_tenant(&self, slug: &str) -> Self {
        let email = format!("admin@{slug}.test");
        let request = RegisterRequest {
            email: email.clone(),
            password: PASSWORD.into(),
            organization_name: format!("The {slug} company"),
            organization_slug: slug.into(),
            ..RegisterRequest::default()
        };
        self.auth().register(request).await.expect("the tenant is registered");
        self.login(slug, &email, PASSWORD).await
    }

    /// Signs in to the tenant with this slug.
    pub async fn login(&self, slug: &str, email: &str, password: &str) -> Self {
        self.try_login(slug, email, password).await.expect("signs in")
    }

    /// Signs in to the tenant with this slug, or returns the refusal.
    pub async fn try_login(&self, slug: &str, email: &str, password: &str) -> Result<Self, Status> {
        let request = LoginRequest {
            email: email.into(),
            password: password.into(),
            organization_slug: slug.into(),
            ..LoginRequest::default()
        };
        let tokens = self.auth().login(request).await?.into_inner();
        let mut client = self.with_token(&tokens.access_token);
        client.tokens = tokens;
        let me = client.auth().who_am_i(tenantry::proto::v1::WhoAmIRequest {}).await?;
        let me = me.into_inner();
        let (user, tenant) = (me.user.expect("a user"), me.tenant.expect("a tenant"));
        client.tenant_id = tenant.id;
        client.slug = tenant.slug;
        client.user_id = user.id;
        client.email = user.email;
        Ok(client)
    }

    /// As an administrator: creates a user without a role and returns the user's id.
    pub async fn create_user(&self, email: &str) -> String {
        let request = CreateUserRequest {
            email: email.into(),
            credential: Some(Credential::Password(PASSWORD.into())),
            ..CreateUserRequest::default()
        };
        let reply = self.users().create_user(request).await.expect("the user is created");
        reply.into_inner().user.expect("the user").id
    }

    /// As an administrator: creates a role and returns the role's id.
    pub async fn create_role(&self, name: &str, level: RoleLevel, permissions: &[&str]) -> String {
        let request = CreateRoleRequest {
            name: name.into(),
            level: level.into(),
            permissions: permissions.iter().map(|p| (*p).into()).collect(),
            ..CreateRoleRequest::default()
        };
        let reply = self.roles().create_role(request).await.expect("the role is created");
        reply.into_inner().role.expect("the role").id
    }

    /// As an administrator: assigns a role without a scope and without an expiry.
    pub async fn assign(&self, user_id: &str, role_id: &str) {
        let request = AssignRoleRequest {
            user_id: user_id.into(),
            role_id: role_id.into(),
            ..AssignRoleRequest::default()
        };
        self.roles().assign_role(request).await.expect("the role is assigned");
    }

    /// As an administrator: creates a user with a role of exactly these permissions, and
    /// returns the signed-in user. Without permissions the user gets no role.
    pub async fn create_member(&self, name: &str, permissions: &[&str]) -> Self {
        let email = format!("{name}@{}.test", self.slug);
        let user_id = self.create_user(&email).await;
        if !permissions.is_empty() {
            let role = self.create_role(name, RoleLevel::Member, permissions).await;
            self.assign(&user_id, &role).await;
        }
        Self::anonymous(self.channel.clone()).login(&self.slug, &email, PASSWORD).await
    }

    /// Id of the tenant's system role with this name.
    pub async fn system_role(&self, name: &str) -> String {
        let request = tenantry::proto::v1::ListRolesRequest {
            filter: format!("name = \"{name}\""),
            ..Default::default()
        };
        let roles = self.roles().list_roles(request).await.expect("roles").into_inner().roles;
        roles.into_iter().find(|role| role.system).expect("the role").id
    }
}

/// The `ErrorInfo` reason of a refusal.
pub fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!(info.domain, "tenantry");
    info.reason.clone()
}

/// Asserts that a call was refused with this code and reason, and returns the status.
#[track_caller]
pub fn assert_refused<T: std::fmt::Debug>(
    result: Result<Response<T>, Status>,
    code: Code,
    expected_reason: &str,
) -> Status {
    let status = result.expect_err("the call should be refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(reason(&status), expected_reason, "{status:?}");
    status
}
