//! The admission of a stream. The admission is checked again while the stream stays open.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Caller, Gatekeeper};
use crate::{audit::Origin, error::Result};

/// The data that is needed to check again whether an open stream is admitted.
#[derive(Clone)]
pub struct Admission {
    keeper: Arc<Gatekeeper>,
    path: String,
    /// Only the `authorization` header of the call.
    headers: HeaderMap,
    origin: Origin,
    /// Whether the call works in a tenant other than the caller's own tenant.
    across: bool,
}

impl Admission {
    pub(super) fn new(
        keeper: Arc<Gatekeeper>,
        path: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Self {
        let mut authorization = HeaderMap::new();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            authorization.insert(header::AUTHORIZATION, value.clone());
        }
        Self {
            keeper,
            path: path.to_owned(),
            headers: authorization,
            origin: caller.origin.clone(),
            across: caller.tenant != caller.home,
        }
    }

    /// Checks that the call would still be admitted.
    ///
    /// # Errors
    /// Returns UNAUTHENTICATED when the token has expired or its session has ended, and
    /// `PERMISSION_DENIED` when the caller no longer holds a required permission.
    pub async fn renew(&self) -> Result<()> {
        let origin = self.origin.clone();
        self.keeper.readmit(&self.path, &self.headers, origin, self.across).await
    }
}
