//! Personal data at rest.

mod at_rest;
mod dump;
mod master_key;
mod transit;

use tenantry::proto::v1::{GetUserRequest, ListEventsRequest};

use crate::harness::{Client, PASSWORD, TestApp};

/// The names of the master keys that wrap the data keys.
async fn wrapping_keys(app: &TestApp) -> Vec<String> {
    let query = "select distinct wrapped_by from data_keys order by 1";
    sqlx::query_scalar(query).fetch_all(&mut app.owner_connection().await).await.expect("data keys")
}

/// Asserts that this server can read the sealed data of a tenant.
async fn assert_readable(app: &TestApp, client: &Client) {
    let client = client.on_server(&app.channel);
    let request = GetUserRequest { user_id: client.user_id.clone() };
    let reply = client.users().get_user(request).await.expect("a user").into_inner();
    assert_eq!(reply.user.expect("a user").email, client.email);
    let events = client.audit().list_events(ListEventsRequest::default()).await;
    let events = events.expect("events").into_inner().events;
    assert!(!events.is_empty());
    assert!(events.iter().all(|event| event.ip == "127.0.0.1"), "{events:?}");
    app.anonymous().login(&client.slug, &client.email, PASSWORD).await;
}
