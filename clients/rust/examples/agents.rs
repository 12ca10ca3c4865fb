//! An example service: a caller with the permission `agent:manage` may create an agent.
//!
//! `TENANTRY_API_KEY` is the secret of an API key. Its service account needs `permission:check`.

#![expect(clippy::print_stdout, reason = "the example prints its address")]

use std::env;

use axum::{Router, routing::post};
use tenantry_client::{Client, Guard, Principal};

async fn create_agent(caller: Principal) -> String {
    format!("an agent of {}, in {}\n", caller.subject, caller.tenant)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = env::var("TENANTRY_ADDR").unwrap_or_else(|_| "127.0.0.1:50051".into());
    let client = Client::builder(format!("http://{address}"))
        .api_key(env::var("TENANTRY_API_KEY")?)
        .connect()?;
    let guard = Guard::new(client);
    let app = Router::new()
        .route("/agents", post(create_agent).layer(guard.require("agent:manage")))
        .with_state(guard);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}
