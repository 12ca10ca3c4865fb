//! Tests of the Rust client against the real server.

mod guard;
mod keys;
mod relay;
mod retries;
mod tokens;

use tenantry_client::{Builder, Client};

use crate::harness::TestApp;

/// A builder for a client of the app's server.
fn client_builder(app: &TestApp) -> Builder {
    Client::builder(format!("http://{}", app.addr))
}

/// Number of calls of a method that ended with this code.
async fn call_count(app: &TestApp, method: &str, code: &str) -> Option<f64> {
    let name = format!(
        "rpc_server_call_duration_seconds_count{{rpc_system_name=\"grpc\",\
         rpc_method=\"tenantry.v1.{method}\",rpc_response_status_code=\"{code}\"}}"
    );
    app.metric(&name).await
}
