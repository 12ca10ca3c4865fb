//! The list of services, and the routing of a call to its service.

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

/// The service names in health checks. The empty name stands for the whole server.
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

/// Maximum size of a message to the health and reflection services, in bytes. These services
/// require no token, so the limit bounds the memory of unfinished messages.
const PROBE: usize = 4 * 1024;

/// All services.
pub(super) struct Services {
    /// Other services call `PermissionService` on each of their own requests, so these calls skip
    /// the router.
    permissions: PermissionServiceServer<Permissions>,
    other_services: Routes,
}

impl Services {
    /// Creates the services; `limit` is the maximum size of a request message, in bytes.
    ///
    /// # Errors
    /// When the descriptors are not valid for reflection.
    pub(super) fn new(
        serving: Serving,
        health: HealthServer<impl Health>,
        envoy: Option<Authorizer>,
        limit: usize,
        serves_reflection: bool,
    ) -> anyhow::Result<Self> {
        let (reflection, reflection_alpha) = reflection(serves_reflection)?;
        let mut other_services = Routes::builder();
        other_services.add_service(health.max_decoding_message_size(PROBE));
        if let Some(envoy) = envoy {
            let server = AuthorizationServer::new(envoy);
            other_services.add_service(server.max_decoding_message_size(limit));
        }
        if let Some(reflection) = reflection {
            other_services.add_service(reflection.max_decoding_message_size(PROBE));
        }
        if let Some(reflection) = reflection_alpha {
            other_services.add_service(reflection.max_decoding_message_size(PROBE));
        }
        other_services
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
            other_services: other_services.routes().prepare(),
        })
    }
}

impl Service<Request<Body>> for &Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // All services are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        if service == Some(PermissionServiceServer::<Permissions>::NAME) {
            self.permissions.clone().call(request)
        } else {
            Box::pin(self.other_services.clone().call(request))
        }
    }
}

/// Server reflection: v1, and v1alpha for older clients.
fn reflection(
    enabled: bool,
) -> anyhow::Result<(Option<V1<impl ServerReflection>>, Option<V1Alpha<impl AlphaReflection>>)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Lets clients decode the error details.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok((enabled.then_some(v1), enabled.then_some(alpha)))
}
