//! The messages of Envoy that this service reads and writes, generated from `third_party/envoy`.
//! That folder contains only the fields that the server uses. The full definition has some thousand
//! messages, which would take half a minute to compile.

#[expect(clippy::all, clippy::pedantic, clippy::allow_attributes, reason = "generated")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/envoy.rs"));
}

pub use generated::envoy::{
    config::core::v3::{
        HeaderValue, HeaderValueOption, address::Address, header_value_option::HeaderAppendAction,
    },
    service::auth::v3::{
        AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
        attribute_context::HttpRequest,
        authorization_server::{Authorization, AuthorizationServer},
        check_response::HttpResponse,
    },
    r#type::v3::HttpStatus,
};
