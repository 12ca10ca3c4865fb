//! gRPC-Web for browsers, and the origins that may use it.

mod calls;
mod connections;
mod others;
mod pages;
mod spoken;

use crate::harness::TestApp;

/// An origin whose pages may call the API.
const ORIGIN: &str = "https://app.example.com";

async fn serving() -> TestApp {
    let origins = format!("{ORIGIN}, http://localhost:3000");
    TestApp::with(|values| values.set("GRPC_WEB_ORIGINS", origins)).await
}
