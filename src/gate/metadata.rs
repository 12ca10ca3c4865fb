//! Reads a call's metadata. A repeated or malformed header is an error, because the gate does not
//! guess which value is meant.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

use crate::{
    audit::{CorrelationId, Origin},
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// The metadata key of the correlation id, which identifies a call in the log. The client sends the
/// id, or the gate generates the id. A response has the id if the client sent it, or if the log has
/// a line about the call.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum size of a call's metadata, in bytes, counted as in HTTP/2 (RFC 9113, section 6.5.2).
const MAX_METADATA: usize = 16 * 1024;

/// Bytes that are added for each header to the length of its name and its value (RFC 9113, section
/// 6.5.2).
const ENTRY_OVERHEAD: usize = 32;

/// The headers that name a tenant by its id or its slug.
static TENANT_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("x-tenant-id"), HeaderName::from_static("x-organization-slug")];

/// The binary forms of these headers (gRPC: suffix `-bin`), which are refused.
static BINARY_TENANT_HEADERS: [HeaderName; 2] = [
    HeaderName::from_static("x-tenant-id-bin"),
    HeaderName::from_static("x-organization-slug-bin"),
];

/// Maximum length of a tenant's id or slug, in bytes.
const MAX_TENANT_KEY: usize = 63;

/// Checks the size of the metadata.
///
/// # Errors
/// Returns `OUT_OF_RANGE` when the metadata is larger than 16 KiB.
pub(super) fn check_size(headers: &HeaderMap) -> Result<()> {
    let entry_size = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + ENTRY_OVERHEAD
    };
    if headers.iter().map(entry_size).sum::<usize>() > MAX_METADATA {
        let text = "the metadata has more than 16 KiB";
        return Err(Error::refused(ErrorReason::MessageTooLarge, text));
    }
    Ok(())
}

/// The id or slug of the tenant that the metadata names; `None` when the metadata names no tenant.
///
/// # Errors
/// Returns `INVALID_ARGUMENT` when the metadata names a tenant twice or in both headers, and when
/// the text has the form of neither an id nor a slug.
pub(super) fn tenant_key(headers: &HeaderMap) -> Result<Option<String>> {
    if BINARY_TENANT_HEADERS.iter().any(|name| headers.contains_key(name)) {
        return Err(invalid("tenant metadata must be text"));
    }
    let mut values = TENANT_HEADERS.iter().flat_map(|name| headers.get_all(name));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("name the tenant once: x-tenant-id or x-organization-slug"));
    }
    let has_valid_form = |text: &&str| {
        (1..=MAX_TENANT_KEY).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    match value.to_str().ok().filter(has_valid_form) {
        // Slugs are lower case, and so is the canonical text of an id.
        Some(text) => Ok(Some(text.to_lowercase())),
        None => Err(invalid("the tenant metadata is neither an id nor a slug")),
    }
}

/// The bearer token (RFC 6750, section 2.1).
///
/// # Errors
/// Returns UNAUTHENTICATED unless the metadata has exactly one `authorization` header with a single
/// bearer token.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Err(Error::refused(
            ErrorReason::TokenMissing,
            "send an access token: authorization: Bearer <token>",
        ));
    };
    if values.next().is_some() {
        return Err(token_invalid());
    }
    // A token has hundreds of bytes and is read in each call, so the fast `memchr` searches for the
    // separators.
    let parts = str::from_utf8(value.as_bytes()).ok().and_then(|text| text.split_once(' '));
    let (scheme, token) = parts.ok_or_else(token_invalid)?;
    let is_single_token =
        !token.is_empty() && memchr::memchr2(b' ', b',', token.as_bytes()).is_none();
    if scheme.eq_ignore_ascii_case("bearer") && is_single_token {
        Ok(token)
    } else {
        Err(token_invalid())
    }
}

/// The error for an invalid token: UNAUTHENTICATED. The error is the same for every reason.
pub(super) fn token_invalid() -> Error {
    Error::refused(ErrorReason::TokenInvalid, "the access token is not in force")
}

/// The origin of a call. A client's correlation id that is too long, or that has characters other
/// than letters, digits, `-`, `_` and `.`, is replaced, because the id is written to logs and
/// returned to the client.
pub(super) fn origin<B>(request: &Request<B>, ip: IpAddr) -> Origin {
    let headers = request.headers();
    let client_id = headers.get(REQUEST_ID).and_then(CorrelationId::accept);
    Origin {
        correlation_id: client_id.unwrap_or_else(CorrelationId::new),
        ip: Some(ip),
        user_agent: headers.get(header::USER_AGENT).cloned(),
    }
}

fn invalid(message: &'static str) -> Error {
    Error::refused(ErrorReason::InvalidMetadata, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_bytes(value.as_bytes()).expect("the header value is valid"),
                )
            })
            .collect()
    }

    /// A16: a call has exactly one bearer token in one `authorization` header.
    #[test]
    fn only_a_single_bearer_token_is_accepted() {
        for valid in ["Bearer abc", "bearer abc", "BEARER abc"] {
            assert_eq!(bearer(&headers(&[("authorization", valid)])).ok(), Some("abc"));
        }
        for invalid in
            ["", "abc", "Basic abc", "Bearer", "Bearer ", "Bearer a b", "Bearer a,Bearer b"]
        {
            assert!(bearer(&headers(&[("authorization", invalid)])).is_err(), "{invalid}");
        }
        let repeated = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert!(bearer(&repeated).is_err());
        assert!(bearer(&headers(&[("authorization-bin", "YWJj")])).is_err());
    }

    /// D03: the two headers that name a tenant exclude each other.
    /// D04: the value is plain text of 1 to 63 characters.
    /// D05: each of the two headers is present at most once, with the name of one tenant.
    #[test]
    fn metadata_names_at_most_one_tenant() {
        assert_eq!(tenant_key(&HeaderMap::new()).ok(), Some(None));
        let key = tenant_key(&headers(&[("x-tenant-id", "Acme-1")])).ok().flatten();
        assert_eq!(key.as_deref(), Some("acme-1"));
        for invalid in [
            &[("x-tenant-id", "")] as &[_],
            &[("x-tenant-id", "a,b")],
            &[("x-tenant-id", "ä")],
            &[("x-tenant-id", "a"), ("x-tenant-id", "b")],
            &[("x-tenant-id", "a"), ("x-tenant-id", "a")],
            &[("x-tenant-id", "a"), ("x-organization-slug", "b")],
            &[("x-tenant-id-bin", "YQ")],
            &[("x-organization-slug", &"a".repeat(64))],
        ] {
            assert!(tenant_key(&headers(invalid)).is_err(), "{invalid:?}");
        }
    }
}
