//! Reads Envoy's check request.

use std::{collections::HashMap, net::IpAddr};

use envoy_types::{
    ext_authz::v3::pb::CheckRequest,
    pb::envoy::{
        config::core::v3::address::Address,
        service::auth::v3::{AttributeContext, attribute_context::HttpRequest},
    },
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    error::{Error, Result},
    permissions::Scope,
    proto::v1::ErrorReason,
};

/// The key in the route's context extensions whose value is the required permission.
const PERMISSION: &str = "permission";
/// The key whose value `authenticated` means that no permission is required.
const ACCESS: &str = "access";
/// The prefix of the keys that make up the scope.
const SCOPE: &str = "scope.";

/// The headers that are read: the token, the tenant and the client's address.
const READ: [&str; 6] = [
    "authorization",
    "x-tenant-id",
    "x-organization-slug",
    "x-tenant-id-bin",
    "x-organization-slug-bin",
    "x-forwarded-for",
];

/// A request that Envoy asks about, and what its route requires.
pub(super) struct CheckedRequest {
    pub(super) headers: HeaderMap,
    /// The address of Envoy's peer.
    pub(super) source: Option<IpAddr>,
    pub(super) required: Required,
}

/// What a route requires of a request.
#[derive(Debug, PartialEq)]
pub(super) enum Required {
    /// A valid access token.
    Authenticated,
    /// A valid access token whose subject holds this permission within the scope.
    Permission { name: String, scope: Scope },
}

impl CheckedRequest {
    /// Parses a check request.
    ///
    /// # Errors
    /// When a header is malformed, or when the route does not say what it requires.
    pub(super) fn read(request: &CheckRequest) -> Result<Self> {
        let attributes = request.attributes.as_ref();
        let http = attributes.and_then(|all| all.request.as_ref()?.http.as_ref());
        let required = match attributes {
            Some(attributes) => required(&attributes.context_extensions)?,
            None => return Err(Error::defect("Envoy's check contains no request")),
        };
        let headers = http.map(headers).transpose()?.unwrap_or_default();
        Ok(Self { headers, source: attributes.and_then(source), required })
    }
}

/// Reads what the route requires. A route without a requirement is an error, so that a
/// forgotten configuration never allows a request.
fn required(extensions: &HashMap<String, String>) -> Result<Required> {
    let wrong = |text: &'static str| Err(Error::defect(text));
    match (extensions.get(PERMISSION), extensions.get(ACCESS).map(String::as_str)) {
        (Some(name), None) => {
            let scope = extensions.iter().filter_map(|(key, value)| {
                Some((key.strip_prefix(SCOPE)?.to_owned(), value.clone().into()))
            });
            Ok(Required::Permission { name: name.clone(), scope: scope.collect() })
        }
        (None, Some("authenticated")) => Ok(Required::Authenticated),
        (None, None) => wrong("a route of Envoy's names no permission in its context extensions"),
        (Some(_), Some(_)) => wrong("a route of Envoy's names a permission and an access"),
        (None, Some(_)) => wrong("a route of Envoy's has an access that is not `authenticated`"),
    }
}

fn source(attributes: &AttributeContext) -> Option<IpAddr> {
    match attributes.source.as_ref()?.address.as_ref()?.address.as_ref()? {
        Address::SocketAddress(socket) => socket.address.parse().ok(),
        _ => None,
    }
}

/// The headers that are read. A repeated header stays repeated when Envoy sends raw headers.
fn headers(http: &HttpRequest) -> Result<HeaderMap> {
    let mut read = HeaderMap::new();
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let raw = raw.map(|header| {
        let is_raw = !header.raw_value.is_empty();
        let value = if is_raw { &header.raw_value } else { header.value.as_bytes() };
        (&header.key, value)
    });
    let joined = http.headers.iter().map(|(name, value)| (name, value.as_bytes()));
    for (name, value) in raw.chain(joined) {
        let Some(name) = READ.iter().find(|read| name.eq_ignore_ascii_case(read)) else {
            continue;
        };
        let value = HeaderValue::from_bytes(value).map_err(|_| {
            Error::refused(ErrorReason::InvalidMetadata, "a header value is not valid in HTTP")
        })?;
        read.append(HeaderName::from_static(name), value);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extensions(all: &[(&str, &str)]) -> HashMap<String, String> {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_route_says_what_it_requires() {
        let read = |all: &[(&str, &str)]| required(&extensions(all)).ok();
        assert_eq!(read(&[("access", "authenticated")]), Some(Required::Authenticated));
        let scope: Scope = [("region".to_owned(), "eu".into())].into_iter().collect();
        let wanted = Required::Permission { name: "a:b".into(), scope };
        let said = [("permission", "a:b"), ("scope.region", "eu"), ("virtual_host", "v")];
        assert_eq!(read(&said), Some(wanted));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[("access", "public")]), None);
        assert_eq!(read(&[("access", "authenticated"), ("permission", "a:b")]), None);
    }
}
