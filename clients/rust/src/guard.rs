//! Decides whether a request is allowed.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderMap, header::AUTHORIZATION};
use tonic::{Code, Request};
use uuid::Uuid;

use crate::{
    client::Client,
    decisions::{Decisions, Question},
    keys::{Principal, Verifier},
    layer::RequirePermission,
    v1::{CheckRequest, Consistency, permission_service_client::PermissionServiceClient},
    watch,
};

/// Default maximum age of a cached decision. The age must be bounded, because the server does not
/// announce the end of a session or the expiry of an assignment.
const MAX_AGE: Duration = Duration::from_secs(10);

/// Maximum number of tenants with cached decisions.
const MAX_TENANTS: usize = 1000;

/// The reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no access token, or it is invalid.
    #[error("a valid access token is missing")]
    Unauthenticated,
    /// The subject does not hold the permission.
    #[error("the permission is missing")]
    Forbidden,
    /// No decision is possible right now, so the request is refused.
    #[error("no decision is possible right now")]
    Unavailable,
}

/// Decides whether requests are allowed, by their access tokens. Cloning is cheap.
///
/// The client's service account needs `permission:check` in each tenant whose users call. For
/// several tenants use a service account of the platform tenant that also has `tenant:act`.
#[derive(Clone)]
pub struct Guard(Arc<Inner>);

struct Inner {
    client: Client,
    verifier: Verifier,
    max_age: Duration,
    tenants: Mutex<HashMap<Uuid, Arc<Decisions>>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("verifier", &self.0.verifier).finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard for tokens with issuer and audience `tenantry`, the defaults of the server.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let verifier = Verifier::new(client.clone(), "tenantry", "tenantry");
        Self::with(client, verifier, MAX_AGE)
    }

    /// A guard for the tokens that the verifier accepts. `max_age` is the maximum age of a cached
    /// decision; zero turns the cache off.
    ///
    /// Changes of roles, users and tenants take effect within a second, whatever `max_age` is. The
    /// end of a session and the expiry of an assignment take effect within `max_age`.
    #[must_use]
    pub fn with(client: Client, verifier: Verifier, max_age: Duration) -> Self {
        Self(Arc::new(Inner { client, verifier, max_age, tenants: Mutex::default() }))
    }

    /// A layer for routes and gRPC services that requires a permission.
    #[must_use]
    pub fn require(&self, permission: impl Into<String>) -> RequirePermission {
        RequirePermission::new(self.clone(), permission.into())
    }

    /// Returns the principal of a request with these headers.
    ///
    /// # Errors
    /// Returns [`Denied::Unauthenticated`] without a valid access token.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Denied> {
        self.identify(headers).await.map(|(_, principal)| principal)
    }

    /// Returns the token in the headers, and its principal.
    async fn identify<'a>(&self, headers: &'a HeaderMap) -> Result<(&'a str, Principal), Denied> {
        let token = bearer(headers).ok_or(Denied::Unauthenticated)?;
        let principal = self.0.verifier.verify(token).await;
        Ok((token, principal.map_err(|_| Denied::Unauthenticated)?))
    }

    /// Returns the principal of a request with these headers, if its subject holds the permission
    /// within the scope. The guarded service must choose the scope, and not its client.
    ///
    /// # Errors
    /// Returns the reason why the request is refused.
    pub async fn permit(
        &self,
        headers: &HeaderMap,
        permission: &str,
        scope: &[(&str, &str)],
    ) -> Result<Principal, Denied> {
        let (token, principal) = self.identify(headers).await?;
        let allowed = self.decide(&principal, token, permission, scope).await?;
        allowed.then_some(principal).ok_or(Denied::Forbidden)
    }

    async fn decide(
        &self,
        principal: &Principal,
        token: &str,
        permission: &str,
        scope: &[(&str, &str)],
    ) -> Result<bool, Denied> {
        let question = Question {
            session: principal.session,
            permission: permission.to_owned(),
            scope: canonical_text(scope),
        };
        let decisions = self.cache_of(principal.tenant);
        let miss = match decisions
            .as_ref()
            .map(|decisions| decisions.find(principal.subject, &question, self.0.max_age))
        {
            Some(Ok(allowed)) => return Ok(allowed),
            Some(Err(miss)) => Some(miss),
            None => None,
        };
        let request = |consistency_token: &str, consistency: Consistency| {
            let mut request = Request::new(CheckRequest {
                permission: permission.to_owned(),
                access_token: token.to_owned(),
                scope: (!scope.is_empty()).then(|| to_struct(scope)),
                consistency_token: consistency_token.to_owned(),
                consistency: consistency.into(),
                ..CheckRequest::default()
            });
            watch::set_tenant(&mut request, principal.tenant);
            request
        };
        let mut client = PermissionServiceClient::new(self.0.client.clone());
        let consistency_token = miss.as_ref().map_or("", |miss| &miss.consistency_token);
        let first_request = request(consistency_token, Consistency::Unspecified);
        let mut response = client.check(first_request).await;
        if response.as_ref().is_err_and(|status| status.code() == Code::FailedPrecondition) {
            // The reason is TOKEN_OF_LOST_DATA: the server's database was restored, or failed over.
            // The next message of the stream has another token, and removes all decisions.
            response = client.check(request("", Consistency::FullyConsistent)).await;
        }
        let allowed = response.map_err(|status| log_check_error(&status))?.into_inner().allowed;
        if let (Some(decisions), Some(miss)) = (decisions, miss) {
            decisions.insert(principal.subject, question, allowed, &miss);
        }
        Ok(allowed)
    }

    /// Returns the cache of a tenant. The first call for a tenant creates the cache and starts to
    /// follow the tenant's changes. `None` when decisions are not cached: the maximum age is zero,
    /// or there are too many tenants.
    fn cache_of(&self, tenant: Uuid) -> Option<Arc<Decisions>> {
        if self.0.max_age.is_zero() {
            return None;
        }
        let mut tenants = self.0.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decisions) = tenants.get(&tenant) {
            return Some(decisions.clone());
        }
        if tenants.len() >= MAX_TENANTS {
            return None;
        }
        let decisions = Arc::new(Decisions::new());
        tenants.insert(tenant, decisions.clone());
        let (client, cache) = (self.0.client.clone(), decisions.clone());
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            watch::follow(client, tenant, cache).await;
            if let Some(inner) = inner.upgrade() {
                inner.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
            }
        });
        Some(decisions)
    }
}

/// Logs an error of Check, and denies the request as `Unavailable`. An error of Check is never an
/// error of the request: for example, the service account of this client may lack the permission
/// `permission:check`.
fn log_check_error(status: &tonic::Status) -> Denied {
    match status.code() {
        Code::InvalidArgument => {
            tracing::error!(
                message = status.message(),
                "Check refused the permission or the scope as invalid"
            );
        }
        code => tracing::warn!(?code, message = status.message(), "Check failed"),
    }
    Denied::Unavailable
}

/// The token of `authorization: Bearer …` (RFC 6750, 2.1). `None` if the header is absent or sent
/// more than once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// The canonical text of a scope, independent of the order of its keys.
fn canonical_text(scope: &[(&str, &str)]) -> String {
    let mut sorted = scope.to_vec();
    sorted.sort_unstable();
    serde_json::to_string(&sorted).unwrap_or_default()
}

fn to_struct(scope: &[(&str, &str)]) -> prost_types::Struct {
    let value = |text: &str| prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(text.to_owned())),
    };
    prost_types::Struct {
        fields: scope.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_scopes_keys_does_not_matter() {
        let (region, team) = (("region", "eu"), ("team", "1"));
        assert_eq!(canonical_text(&[region, team]), canonical_text(&[team, region]));
        assert_ne!(canonical_text(&[region]), canonical_text(&[("region", "us")]));
        // Quotes are escaped, so different scopes have different texts.
        assert_ne!(canonical_text(&[("a", "b\",\"c")]), canonical_text(&[("a\",\"b", "c")]));
    }

    #[test]
    fn a_token_that_is_sent_twice_is_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(AUTHORIZATION, "bearer a.b.c".parse().unwrap());
        assert_eq!(bearer(&headers), Some("a.b.c"));
        headers.append(AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
