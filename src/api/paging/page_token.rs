//! Page tokens. A token contains the position where the page ended. It is encrypted, and bound to
//! the caller, the tenant, the method and the fields of the request, so that a token that was made
//! for another request is refused.

use std::sync::Arc;

use tokio::time::Instant;

use super::{DEFAULT_SIZE, ENVELOPE_BYTES, ListRequest, MAX_SIZE, Page, Position};
use crate::{
    error::{Error, Result},
    ids::{SubjectId, TenantId},
    proto::v1::ErrorReason,
    tokens::OpaqueTokens,
};

/// The caller that requests a list. A page token is valid only for the same caller and tenant.
#[derive(Clone, Copy, Debug)]
pub struct PageCaller {
    /// The caller's own tenant.
    pub own_tenant: TenantId,
    /// The caller's user or service account.
    pub user: SubjectId,
    /// The tenant that the request works in.
    pub tenant: TenantId,
}

/// Starts pages, and encrypts and decrypts their tokens.
#[derive(Clone)]
pub struct Pages(Arc<OpaqueTokens>);

impl Pages {
    /// The label from which the key of page tokens is derived.
    pub const LABEL: &str = "tenantry page token";

    /// Page tokens are encrypted with the key of `tokens`.
    #[must_use]
    pub fn new(tokens: Arc<OpaqueTokens>) -> Self {
        Self(tokens)
    }

    /// Starts the page of a list request. A page token is valid only for the same caller, tenant,
    /// method and fields of the request; `page_size` may differ.
    ///
    /// # Errors
    /// Returns `INVALID_PAGE_TOKEN` when the token was not made for this request.
    pub fn begin<R: ListRequest>(&self, caller: PageCaller, request: &R) -> Result<Page<R::Item>> {
        let (page_size, page_token) = request.page();
        let max_items = match usize::try_from(page_size).unwrap_or_default() {
            0 => DEFAULT_SIZE,
            size => size.min(MAX_SIZE),
        };
        let binding = binding(caller, request);
        let after = self.decode_position(&binding, page_token, Position::decode)?;
        Ok(Page {
            tokens: self.0.clone(),
            binding,
            max_items,
            started_at: Instant::now(),
            after,
            items: Vec::new(),
            bytes: ENVELOPE_BYTES,
            rows_read: 0,
            end: None,
        })
    }

    /// The position where the previous page ended, for a list whose position is not a [`Position`].
    /// `decode` decodes the position. Returns `None` for the first page.
    ///
    /// # Errors
    /// Returns `INVALID_PAGE_TOKEN` when the token was not made for this request.
    pub fn previous_position<R: ListRequest, P>(
        &self,
        caller: PageCaller,
        request: &R,
        decode: impl Fn(&[u8]) -> Option<P>,
    ) -> Result<Option<P>> {
        self.decode_position(&binding(caller, request), request.page().1, decode)
    }

    /// The token of the next page, for a list whose position is not a [`Position`].
    ///
    /// # Errors
    /// Returns INTERNAL when the token can't be encrypted, which does not happen with a valid key.
    pub fn token<R: ListRequest>(
        &self,
        caller: PageCaller,
        request: &R,
        position: Vec<u8>,
    ) -> Result<String> {
        self.0.seal(&binding(caller, request), position)
    }

    fn decode_position<P>(
        &self,
        binding: &[u8],
        token: &str,
        decode: impl Fn(&[u8]) -> Option<P>,
    ) -> Result<Option<P>> {
        if token.is_empty() {
            return Ok(None);
        }
        let payload = self.0.open(binding, token);
        payload.and_then(|payload| decode(&payload)).map(Some).ok_or_else(wrong_page_token)
    }
}

/// The bytes to which a page token is bound: the type of the request, the caller, the tenant, and
/// the request without `page_size` and `page_token`.
fn binding<R: ListRequest>(caller: PageCaller, request: &R) -> Vec<u8> {
    let mut binding = [R::REQUEST_TYPE.as_bytes(), &[0]].concat();
    for id in [caller.own_tenant.0, caller.user.0, caller.tenant.0] {
        binding.extend_from_slice(id.as_bytes());
    }
    binding.extend(request.without_page().encode_to_vec());
    binding
}

fn wrong_page_token() -> Error {
    let text = "the page_token was not made for this request";
    Error::refused(ErrorReason::InvalidPageToken, text)
}
