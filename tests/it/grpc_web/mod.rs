//! gRPC-Web for browsers, and the origins that may use it.

mod calls;
mod connections;
mod grpc_web_client;
mod origins;
mod other_protocols;

use crate::harness::TestApp;

/// An origin from which browser clients may call the API.
const ORIGIN: &str = "https://app.example.com";

/// A server that accepts gRPC-Web from [`ORIGIN`] and from a local origin.
async fn spawn_with_grpc_web() -> TestApp {
    let origins = format!("{ORIGIN}, http://localhost:3000");
    TestApp::with_settings(|values| values.set("GRPC_WEB_ORIGINS", origins)).await
}
