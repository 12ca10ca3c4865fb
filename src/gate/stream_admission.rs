//! The admission of a stream, which is checked again while the stream is open. The streams decide
//! when: `permissions/watch.rs` and `audit/watch.rs`. `stream_limits.rs` limits their number.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Authorizer, Caller};
use crate::{audit::Origin, error::Result};

/// The data that is needed to check again whether an open stream is admitted.
#[derive(Clone)]
pub struct Admission {
    authorizer: Arc<Authorizer>,
    path: String,
    /// The headers of the call, reduced to `authorization`.
    headers: HeaderMap,
    origin: Origin,
    /// Whether the call works in a tenant other than the caller's own tenant.
    is_in_other_tenant: bool,
}

impl Admission {
    pub(super) fn new(
        authorizer: Arc<Authorizer>,
        path: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Self {
        let mut authorization = HeaderMap::new();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            authorization.insert(header::AUTHORIZATION, value.clone());
        }
        Self {
            authorizer,
            path: path.to_owned(),
            headers: authorization,
            origin: caller.origin.clone(),
            is_in_other_tenant: caller.tenant != caller.own_tenant,
        }
    }

    /// Checks that the call would also be admitted now.
    ///
    /// # Errors
    /// Returns UNAUTHENTICATED when the token has expired or its session has ended, and
    /// `PERMISSION_DENIED` when the caller no longer holds a required permission. Also returns the
    /// errors of authentication itself (rate limit, store unavailable), and the tenant-mismatch
    /// error when the call works in another tenant and the caller may no longer work there.
    pub async fn recheck(&self) -> Result<()> {
        let origin = self.origin.clone();
        self.authorizer.readmit(&self.path, &self.headers, origin, self.is_in_other_tenant).await
    }
}
