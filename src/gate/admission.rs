//! The admission of a call that stays open, to be asked for again.

use std::sync::Arc;

use http::{HeaderMap, header};

use super::{Caller, Gatekeeper};
use crate::{audit::Origin, error::Result};

/// What a call that stays open was admitted with.
#[derive(Clone)]
pub struct Admission {
    keeper: Arc<Gatekeeper>,
    path: String,
    /// Its token, and nothing else.
    headers: HeaderMap,
    origin: Origin,
    /// Whether it works in another tenant than its caller's own.
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

    /// Whether the call would be admitted still.
    ///
    /// # Errors
    /// The refusal, where it would not: UNAUTHENTICATED when the token has ended
    /// or its session has, `PERMISSION_DENIED` when a permission is gone.
    pub async fn renew(&self) -> Result<()> {
        let origin = self.origin.clone();
        self.keeper.readmit(&self.path, &self.headers, origin, self.across).await
    }
}
