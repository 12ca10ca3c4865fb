//! Input that no client should send, for every method: each answer is precise, and nothing
//! changes.

mod bytes;
mod fields;
mod sizes;

use tenantry::gate::{Access, Policies};

use crate::harness::{Client, Method, TestApp, methods};

/// Every method with a client that may call it.
async fn callers(app: &TestApp) -> Vec<(Method, Client)> {
    let root = app.platform_admin().await;
    let policies = Policies::load().expect("the table");
    let caller = |method: &Method| match policies.of(&method.path()) {
        Some(Access::Public) => app.anonymous(),
        _ => root.clone(),
    };
    methods().into_iter().map(|method| (method.clone(), caller(&method))).collect()
}
