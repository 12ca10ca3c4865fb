//! The admission of a stream, which is checked again while the stream stays open.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Caller, Gatekeeper};
use crate::{audit::Origin, error::Result};

/// What is needed to admit an open stream again.
#[derive(Clone)]
pub struct Admission {
    keeper: Arc<Gatekeeper>,
    path: String,
    /// The `authorization` header alone.
    headers: HeaderMap,
    origin: Origin,
    /// Whether the call works in another tenant than the caller's own.
    across: bool,
}

impl Admission {
    pub(super) fn new(
        keeper: Arc<Gatekeeper>,
        path: &str,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Self {
        let mut token = HeaderMap::new();
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            token.insert(header::AUTHORIZATION, value.clone());
        }
        Self {
            keeper,
            path: path.to_owned(),
            headers: token,
            origin: caller.origin.clone(),
            across: caller.tenant != caller.home,
        }
    }

    /// Checks that the call would still be admitted.
    ///
    /// # Errors
    /// UNAUTHENTICATED when the token or its session has ended; `PERMISSION_DENIED` when a
    /// permission is gone.
    pub async fn renew(&self) -> Result<()> {
        let origin = self.origin.clone();
        self.keeper.readmit(&self.path, &self.headers, origin, self.across).await
    }
}
