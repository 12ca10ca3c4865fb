//! gRPC-Web: what browsers speak, and which pages may.

mod calls;
mod connections;
mod others;
mod pages;
mod spoken;

use crate::harness::TestApp;

/// Where the pages are that may call.
const ORIGIN: &str = "https://app.example.com";

async fn serving() -> TestApp {
    let origins = format!("{ORIGIN}, http://localhost:3000");
    TestApp::with(|values| values.set("GRPC_WEB_ORIGINS", origins)).await
}
