//! Input that no client should send, for every method: each response has a documented reason, and
//! no row changes.

mod bytes;
mod fields;
mod sizes;

use tenantry::gate::{Access, Policies};

use crate::harness::{Client, Method, TestApp, methods};

/// Every method with a client that may call it.
async fn callers(app: &TestApp) -> Vec<(Method, Client)> {
    let platform_admin = app.platform_admin().await;
    let policies = Policies::load().expect("the policies load");
    let client_for = |method: &Method| match policies.access_of(&method.path()) {
        Some(Access::Public) => app.anonymous(),
        _ => platform_admin.clone(),
    };
    methods().into_iter().map(|method| (method.clone(), client_for(&method))).collect()
}
