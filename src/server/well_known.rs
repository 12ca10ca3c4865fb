//! The `/.well-known/` documents, for other services that verify tokens without a call of this API.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, Method, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Map, Value, json};
use tower_http::cors::{Any, CorsLayer};

use crate::tokens::Keyring;

const JWKS: &str = "/.well-known/jwks.json";

/// Cache lifetime of the responses. A new key is published for at least this time before the key
/// signs.
const CACHE_HEADER: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=300");

pub(super) fn routes(keyring: Arc<Keyring>) -> Router {
    Router::new()
        .route(JWKS, get(jwks))
        .route("/.well-known/openid-configuration", get(configuration))
        // Public documents: pages of any origin may read them (Fetch, CORS protocol).
        .layer(CorsLayer::new().allow_origin(Any).allow_methods([Method::GET]))
        .with_state(keyring)
}

/// The keys that verify access tokens (RFC 7517, section 5).
async fn jwks(State(keyring): State<Arc<Keyring>>) -> impl IntoResponse {
    let keys: Vec<_> = keyring
        .jwks()
        .into_iter()
        .map(|key| {
            let members = [
                ("kty", key.kty),
                ("use", key.r#use),
                ("alg", key.alg),
                ("kid", key.kid),
                ("n", key.n),
                ("e", key.e),
                ("crv", key.crv),
                ("x", key.x),
                ("y", key.y),
            ];
            members
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect::<Map<_, _>>()
        })
        .collect();
    let media_type = (header::CONTENT_TYPE, "application/jwk-set+json");
    ([media_type, CACHE_HEADER], json!({ "keys": keys }).to_string())
}

/// The location of the keys (`OpenID` Connect Discovery 1.0, section 4), for libraries that
/// start from the issuer. The document exists only when the issuer is a URL.
async fn configuration(State(keyring): State<Arc<Keyring>>) -> impl IntoResponse {
    let issuer = keyring.issuer();
    if !issuer.starts_with("https://") && !issuer.starts_with("http://") {
        return Err((StatusCode::NOT_FOUND, "JWT_ISSUER is not a URL"));
    }
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{}{JWKS}", issuer.trim_end_matches('/')),
        "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA"],
        "subject_types_supported": ["public"],
        "response_types_supported": [],
    });
    Ok(([(header::CONTENT_TYPE, "application/json"), CACHE_HEADER], document.to_string()))
}
