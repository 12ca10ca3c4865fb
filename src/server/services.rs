//! The services, one a line, and how a call finds its own.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use envoy_types::ext_authz::v3::pb::AuthorizationServer;
use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture, server::NamedService, service::Routes};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::{
    v1::{ServerReflection, ServerReflectionServer as V1},
    v1alpha::{ServerReflection as AlphaReflection, ServerReflectionServer as V1Alpha},
};
use tower::Service;

use crate::{
    app::Serving,
    audit::Events,
    auth::Auth,
    envoy::Authorizer,
    permissions::Permissions,
    proto::{
        DESCRIPTORS,
        v1::{
            audit_service_server::AuditServiceServer, auth_service_server::AuthServiceServer,
            permission_service_server::PermissionServiceServer,
            role_service_server::RoleServiceServer,
            service_account_service_server::ServiceAccountServiceServer,
            session_service_server::SessionServiceServer,
            tenant_service_server::TenantServiceServer, user_service_server::UserServiceServer,
        },
    },
    roles::Roles,
    service_accounts::ServiceAccounts,
    sessions::Sessions,
    tenants::Tenants,
    users::Users,
};

/// The names that health knows: the server's, empty, and each service's.
pub(super) const NAMES: &[&str] = &[
    "",
    TenantServiceServer::<Tenants>::NAME,
    AuthServiceServer::<Auth>::NAME,
    SessionServiceServer::<Sessions>::NAME,
    UserServiceServer::<Users>::NAME,
    RoleServiceServer::<Roles>::NAME,
    PermissionServiceServer::<Permissions>::NAME,
    ServiceAccountServiceServer::<ServiceAccounts>::NAME,
    AuditServiceServer::<Events>::NAME,
];

/// The longest message of a probe or of reflection, in bytes. They need no token, so we hold
/// no more of what never ends.
const PROBE: usize = 4 * 1024;

/// Every service.
pub(super) struct Services {
    /// The one that other services wait on is found first, past the router.
    permissions: PermissionServiceServer<Permissions>,
    others: Routes,
}

impl Services {
    /// The services; `limit` is a request message's size in bytes, at most.
    ///
    /// # Errors
    /// When the descriptors can't be reflected on.
    pub(super) fn new(
        serving: Serving,
        health: HealthServer<impl Health>,
        envoy: Option<Authorizer>,
        limit: usize,
        reflected: bool,
    ) -> anyhow::Result<Self> {
        let (reflection, reflection_alpha) = reflection(reflected)?;
        let mut others = Routes::builder();
        others.add_service(health.max_decoding_message_size(PROBE));
        if let Some(envoy) = envoy {
            let server = AuthorizationServer::new(envoy);
            others.add_service(server.max_decoding_message_size(limit));
        }
        if let Some(reflection) = reflection {
            others.add_service(reflection.max_decoding_message_size(PROBE));
        }
        if let Some(reflection) = reflection_alpha {
            others.add_service(reflection.max_decoding_message_size(PROBE));
        }
        others
            .add_service(TenantServiceServer::new(serving.tenants).max_decoding_message_size(limit))
            .add_service(AuthServiceServer::new(serving.auth).max_decoding_message_size(limit))
            .add_service(
                SessionServiceServer::new(serving.sessions).max_decoding_message_size(limit),
            )
            .add_service(UserServiceServer::new(serving.users).max_decoding_message_size(limit))
            .add_service(RoleServiceServer::new(serving.roles).max_decoding_message_size(limit))
            .add_service(
                ServiceAccountServiceServer::new(serving.service_accounts)
                    .max_decoding_message_size(limit),
            )
            .add_service(AuditServiceServer::new(serving.events).max_decoding_message_size(limit));
        let permissions = PermissionServiceServer::new(serving.permissions);
        Ok(Self {
            permissions: permissions.max_decoding_message_size(limit),
            others: others.routes().prepare(),
        })
    }
}

impl Service<Request<Body>> for &Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All of them always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        if service == Some(PermissionServiceServer::<Permissions>::NAME) {
            self.permissions.clone().call(request)
        } else {
            Box::pin(self.others.clone().call(request))
        }
    }
}

/// Reflection in the version of today and in the one that older clients speak.
fn reflection(
    enabled: bool,
) -> anyhow::Result<(Option<V1<impl ServerReflection>>, Option<V1Alpha<impl AlphaReflection>>)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that clients can show the errors' details.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok((enabled.then_some(v1), enabled.then_some(alpha)))
}
