//! The list of services, and the routing of a call to its service.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    body::Body, codec::CompressionEncoding::Gzip, codegen::BoxFuture, server::NamedService,
    service::Routes,
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::{
    v1::{ServerReflection, ServerReflectionServer as V1},
    v1alpha::{ServerReflection as AlphaReflection, ServerReflectionServer as V1Alpha},
};
use tower::Service;

use crate::{
    app::ServiceHandlers,
    audit::Events,
    auth::Auth,
    envoy::{EnvoyAuthorization, proto::AuthorizationServer},
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
/// require no token, so anyone can make the server buffer messages of this size.
const MAX_PROBE_BYTES: usize = 4 * 1024;

/// All services.
pub(super) struct Services {
    /// Clients call `PermissionService` for each request that they serve themselves. So calls of
    /// this service skip the router, which saves time.
    permissions: PermissionServiceServer<Permissions>,
    other_services: Routes,
}

impl Services {
    /// Creates the services.
    ///
    /// # Errors
    /// When the descriptors are not valid for reflection.
    pub(super) fn new(
        handlers: ServiceHandlers,
        health: HealthServer<impl Health>,
        envoy: Option<EnvoyAuthorization>,
        max_message_bytes: usize,
        serves_reflection: bool,
    ) -> anyhow::Result<Self> {
        let (reflection_v1, reflection_v1alpha) = reflection_services(serves_reflection)?;
        let mut other_services = Routes::builder();
        other_services
            .add_service(health.max_decoding_message_size(MAX_PROBE_BYTES).accept_compressed(Gzip));
        if let Some(envoy) = envoy {
            let server = AuthorizationServer::new(envoy);
            other_services.add_service(server.max_decoding_message_size(max_message_bytes));
        }
        if let Some(reflection) = reflection_v1 {
            let reflection = reflection.accept_compressed(Gzip).send_compressed(Gzip);
            other_services.add_service(reflection.max_decoding_message_size(MAX_PROBE_BYTES));
        }
        if let Some(reflection) = reflection_v1alpha {
            let reflection = reflection.accept_compressed(Gzip).send_compressed(Gzip);
            other_services.add_service(reflection.max_decoding_message_size(MAX_PROBE_BYTES));
        }
        other_services
            .add_service(
                TenantServiceServer::new(handlers.tenants)
                    .max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                AuthServiceServer::new(handlers.auth).max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                SessionServiceServer::new(handlers.sessions)
                    .max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                UserServiceServer::new(handlers.users).max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                RoleServiceServer::new(handlers.roles).max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                ServiceAccountServiceServer::new(handlers.service_accounts)
                    .max_decoding_message_size(max_message_bytes),
            )
            .add_service(
                AuditServiceServer::new(handlers.events)
                    .max_decoding_message_size(max_message_bytes),
            );
        let permissions = PermissionServiceServer::new(handlers.permissions);
        Ok(Self {
            permissions: permissions.max_decoding_message_size(max_message_bytes),
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
        let service_name = request.uri().path().trim_start_matches('/').split('/').next();
        if service_name == Some(PermissionServiceServer::<Permissions>::NAME) {
            self.permissions.clone().call(request)
        } else {
            Box::pin(self.other_services.clone().call(request))
        }
    }
}

/// Server reflection: v1, and v1alpha for older clients. `None` when reflection is not served.
fn reflection_services(
    serves_reflection: bool,
) -> anyhow::Result<(Option<V1<impl ServerReflection>>, Option<V1Alpha<impl AlphaReflection>>)> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // Lets clients decode the error details.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
    Ok((serves_reflection.then_some(v1), serves_reflection.then_some(v1alpha)))
}
