//! Decides about requests.

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
    v1::{CheckRequest, permission_service_client::PermissionServiceClient},
    watch,
};

/// How old a remembered decision may be: of a session or an assignment that ends nobody
/// tells.
const MAX_AGE: Duration = Duration::from_secs(10);

/// Tenants that decisions are remembered of, at most.
const MAX_TENANTS: usize = 1000;

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no access token, or it is not in force.
    #[error("an access token in force is missing")]
    Unauthenticated,
    /// The subject may not do this.
    #[error("the permission is missing")]
    Forbidden,
    /// Nobody can tell right now. It is not allowed because of that.
    #[error("no decision can be had right now")]
    Unavailable,
}

/// Decides whether requests may be let through, by the access token that they bring. To
/// clone it is cheap.
///
/// Its client's service account needs `permission:check`, in each tenant whose users call:
/// of several tenants, as one of the platform's with `tenant:act`.
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
    /// A guard of tokens from and for `tenantry`, the server's defaults.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let verifier = Verifier::new(client.clone(), "tenantry", "tenantry");
        Self::with(client, verifier, MAX_AGE)
    }

    /// A guard of the tokens that the verifier knows, which remembers decisions for as
    /// long as `max_age`; zero: not at all.
    ///
    /// Changes of roles, users and tenants are told of within a second, whatever it is. That a
    /// session ended, or that an assignment's time came, counts within `max_age`.
    #[must_use]
    pub fn with(client: Client, verifier: Verifier, max_age: Duration) -> Self {
        Self(Arc::new(Inner { client, verifier, max_age, tenants: Mutex::default() }))
    }

    /// A layer for routes, and for gRPC services, that are for those with a permission.
    #[must_use]
    pub fn require(&self, permission: impl Into<String>) -> RequirePermission {
        RequirePermission::new(self.clone(), permission.into())
    }

    /// Who makes a request with these headers.
    ///
    /// # Errors
    /// [`Denied::Unauthenticated`] without an access token in force.
    pub async fn principal(&self, headers: &HeaderMap) -> Result<Principal, Denied> {
        self.identify(headers).await.map(|(_, principal)| principal)
    }

    /// The token that the headers bring, and whose it is.
    async fn identify<'a>(&self, headers: &'a HeaderMap) -> Result<(&'a str, Principal), Denied> {
        let token = bearer(headers).ok_or(Denied::Unauthenticated)?;
        let principal = self.0.verifier.verify(token).await;
        Ok((token, principal.map_err(|_| Denied::Unauthenticated)?))
    }

    /// Who makes a request with these headers, if its subject holds the permission
    /// within the scope, whose keys the service sets.
    ///
    /// # Errors
    /// Why it is not to be let through.
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
            scope: canonical(scope),
        };
        let decisions = self.decisions(principal.tenant);
        let asked = match decisions
            .as_ref()
            .map(|d| d.find(principal.subject, &question, self.0.max_age))
        {
            Some(Ok(allowed)) => return Ok(allowed),
            Some(Err(asked)) => Some(asked),
            None => None,
        };
        let mut request = Request::new(CheckRequest {
            permission: permission.to_owned(),
            access_token: token.to_owned(),
            scope: (!scope.is_empty()).then(|| structure(scope)),
            consistency_token: asked.as_ref().map(|asked| asked.token.clone()).unwrap_or_default(),
            ..CheckRequest::default()
        });
        watch::in_tenant(&mut request, principal.tenant);
        let answer = PermissionServiceClient::new(self.0.client.clone()).check(request).await;
        let allowed = answer.map_err(|status| undecided(&status))?.into_inner().allowed;
        if let (Some(decisions), Some(asked)) = (decisions, asked) {
            decisions.remember(principal.subject, question, allowed, &asked);
        }
        Ok(allowed)
    }

    /// What is remembered of a tenant; its changes are followed from then on.
    fn decisions(&self, tenant: Uuid) -> Option<Arc<Decisions>> {
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
        let (client, followed) = (self.0.client.clone(), decisions.clone());
        let inner = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            watch::follow(client, tenant, followed).await;
            if let Some(inner) = inner.upgrade() {
                inner.tenants.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant);
            }
        });
        Some(decisions)
    }
}

/// Why the server did not decide. That this service itself may not ask is no fault of the
/// request's.
fn undecided(status: &tonic::Status) -> Denied {
    match status.code() {
        Code::InvalidArgument => {
            tracing::error!(message = status.message(), "a permission that can't be asked for");
        }
        code => tracing::warn!(?code, message = status.message(), "no decision"),
    }
    Denied::Unavailable
}

/// The token of `authorization: Bearer …` (RFC 6750, 2.1), where it is there once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (all.next()?.to_str().ok()?, all.next()) else { return None };
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// A scope as the same text, however its keys are ordered.
fn canonical(scope: &[(&str, &str)]) -> String {
    let mut sorted = scope.to_vec();
    sorted.sort_unstable();
    serde_json::to_string(&sorted).unwrap_or_default()
}

fn structure(scope: &[(&str, &str)]) -> prost_types::Struct {
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
    fn a_scope_is_the_same_in_any_order() {
        let (eu, one) = (("region", "eu"), ("team", "1"));
        assert_eq!(canonical(&[eu, one]), canonical(&[one, eu]));
        assert_ne!(canonical(&[eu]), canonical(&[("region", "us")]));
        assert_ne!(canonical(&[("a", "b\",\"c")]), canonical(&[("a\",\"b", "c")]));
    }

    #[test]
    fn a_token_is_sent_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer(&headers), None);
        headers.append(AUTHORIZATION, "bearer a.b.c".parse().unwrap());
        assert_eq!(bearer(&headers), Some("a.b.c"));
        headers.append(AUTHORIZATION, "Bearer other".parse().unwrap());
        assert_eq!(bearer(&headers), None);
    }
}
