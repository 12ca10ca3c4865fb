//! The client of the mix: sends each call when it is due, and measures it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tenantry::proto::v1::{
    LoginRequest, LoginResponse, audit_service_client::AuditServiceClient,
    auth_service_client::AuthServiceClient, permission_service_client::PermissionServiceClient,
    role_service_client::RoleServiceClient,
    service_account_service_client::ServiceAccountServiceClient,
    session_service_client::SessionServiceClient, tenant_service_client::TenantServiceClient,
    user_service_client::UserServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt;

use super::{meter::Meter, pace::Pace};

/// Deadline of a call.
const DEADLINE: Duration = Duration::from_secs(20);

/// Pauses after the failed attempts of a call. A call has as many attempts as there are pauses.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Connections to each replica.
const CONNECTIONS: usize = 4;

/// A client with or without an access token. A clone is cheap.
#[derive(Clone)]
pub struct Api {
    connections: Arc<Connections>,
    token: Authorization,
}

struct Connections {
    channels: Vec<Channel>,
    next: AtomicUsize,
    pace: Pace,
    meter: Arc<Meter>,
}

/// Adds the token to the metadata of each call, if there is one, and sets the deadline.
#[derive(Clone, Default)]
pub struct Authorization(Option<MetadataValue<Ascii>>);

/// The error of a failed call. The meter has recorded the reason.
#[derive(Debug)]
pub struct CallFailed;

pub type Service = InterceptedService<Channel, Authorization>;

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        request.set_timeout(DEADLINE);
        Ok(request)
    }
}

impl Api {
    /// A client without a token, which sends `rate` calls per second to all replicas in turn.
    ///
    /// # Errors
    /// Returns an error when an address is invalid.
    pub fn new(replicas: &[SocketAddr], rate: u32, meter: Arc<Meter>) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for addr in replicas.iter().cycle().take(replicas.len() * CONNECTIONS) {
            channels.push(Endpoint::from_shared(format!("http://{addr}"))?.connect_lazy());
        }
        let next = AtomicUsize::new(0);
        let connections = Arc::new(Connections { channels, next, pace: Pace::new(rate), meter });
        Ok(Self { connections, token: Authorization::default() })
    }

    /// A client with this access token or API key.
    pub fn with_token(&self, token: &str) -> Self {
        let value = format!("Bearer {token}").parse().ok();
        Self { connections: self.connections.clone(), token: Authorization(value) }
    }

    /// Sends a call when it is due. Repeats it, with pauses, after an error that allows it.
    pub async fn call<T>(
        &self,
        method: &str,
        send: impl AsyncFn() -> Result<Response<T>, Status>,
    ) -> Result<T, CallFailed> {
        let due = self.connections.pace.wait_until_due().await;
        let meter = &self.connections.meter;
        for pause in PAUSES {
            let Ok(result) = timeout(DEADLINE, send()).await else { break };
            match result {
                Ok(response) => {
                    meter.succeeded(method, due.elapsed());
                    return Ok(response.into_inner());
                }
                Err(status) if may_be_repeated(&status) => {
                    meter.repeated(method, &describe(&status));
                    sleep(pause).await;
                }
                Err(status) => {
                    meter.failed(method, &describe(&status));
                    return Err(CallFailed);
                }
            }
        }
        meter.failed(method, "no success in time");
        Err(CallFailed)
    }

    /// Signs in. Returns the tokens, and a client with the access token.
    pub async fn sign_in(
        &self,
        slug: &str,
        email: &str,
        password: &str,
    ) -> Result<(LoginResponse, Self), CallFailed> {
        let request = LoginRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            organization_slug: slug.to_owned(),
            ..Default::default()
        };
        let tokens = self.call("Login", async || self.auth().login(request.clone()).await).await?;
        let client = self.with_token(&tokens.access_token);
        Ok((tokens, client))
    }

    /// The next connection in turn, and the token.
    fn next_channel(&self) -> (Channel, Authorization) {
        let channels = &self.connections.channels;
        let next = self.connections.next.fetch_add(1, Ordering::Relaxed);
        (channels[next % channels.len()].clone(), self.token.clone())
    }

    pub fn audit(&self) -> AuditServiceClient<Service> {
        let (channel, token) = self.next_channel();
        AuditServiceClient::with_interceptor(channel, token)
    }

    pub fn auth(&self) -> AuthServiceClient<Service> {
        let (channel, token) = self.next_channel();
        AuthServiceClient::with_interceptor(channel, token)
    }

    pub fn permissions(&self) -> PermissionServiceClient<Service> {
        let (channel, token) = self.next_channel();
        PermissionServiceClient::with_interceptor(channel, token)
    }

    pub fn roles(&self) -> RoleServiceClient<Service> {
        let (channel, token) = self.next_channel();
        RoleServiceClient::with_interceptor(channel, token)
    }

    pub fn accounts(&self) -> ServiceAccountServiceClient<Service> {
        let (channel, token) = self.next_channel();
        ServiceAccountServiceClient::with_interceptor(channel, token)
    }

    pub fn sessions(&self) -> SessionServiceClient<Service> {
        let (channel, token) = self.next_channel();
        SessionServiceClient::with_interceptor(channel, token)
    }

    pub fn tenants(&self) -> TenantServiceClient<Service> {
        let (channel, token) = self.next_channel();
        TenantServiceClient::with_interceptor(channel, token)
    }

    pub fn users(&self) -> UserServiceClient<Service> {
        let (channel, token) = self.next_channel();
        UserServiceClient::with_interceptor(channel, token)
    }
}

/// Whether the call had no effect, and may succeed when it is repeated: another transaction changed
/// the same data, the server is overloaded, or the connection was closed because of its age.
fn may_be_repeated(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Aborted | Code::ResourceExhausted | Code::Unavailable | Code::Cancelled
    )
}

/// The code, the reason and the message of a status.
fn describe(status: &Status) -> String {
    let details = status.get_error_details();
    let reason = details.error_info().map_or("no reason", |info| info.reason.as_str());
    format!("{:?} {reason} {}", status.code(), status.message())
}
