//! A web service for agents. A caller with the permission `agent:manage` may create one.
//!
//! `TENANTRY_API_KEY` is the secret of a service account with `permission:check`.

#![expect(clippy::print_stdout, reason = "that is what it is for")]

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
