//! `ListEvents`: contents of events, pages, filters and access.

use std::collections::HashSet;

use prost_types::Timestamp;
use tenantry::proto::v1::{
    ListEventsRequest, LoginRequest, RoleLevel, UpdateTenantRequest, UpdateUserRequest,
};
use tonic::Code;

use super::{events_oldest_first, kinds};
use crate::harness::{PASSWORD, TestApp, assert_refused, struct_of, unknown_id};

#[tokio::test]
async fn an_administrator_reads_the_events_of_the_tenant_newest_first() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.create_tenant("other").await;
    let wrong_password = LoginRequest {
        email: acme.email.clone(),
        password: "wrong".into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    app.anonymous().auth().login(wrong_password).await.expect_err("the password is wrong");
    let caller = acme.with_metadata("x-request-id", "create-ops");
    let role = caller.create_role("ops", RoleLevel::Member, &[]).await;

    let request = ListEventsRequest::default();
    let response = acme.audit().list_events(request).await.expect("events").into_inner();
    let expected =
        ["role_created", "sign_in_failed", "signed_in", "user_registered", "tenant_created"];
    assert_eq!(kinds(&response.events), expected);
    assert_eq!(response.next_page_token, "");
    assert!(response.events.iter().all(|event| event.tenant_id == acme.tenant_id));

    let role_created = &response.events[0];
    assert_eq!(role_created.actor_id, acme.user_id);
    assert_eq!(role_created.actor_tenant_id, acme.tenant_id);
    assert_eq!(role_created.target_id, role);
    assert_eq!(role_created.session_id, acme.tokens.session_id);
    // `request_id` of an event is the correlation id.
    assert_eq!(role_created.request_id, "create-ops");
    assert_eq!(role_created.ip, "127.0.0.1");
    let sign_in_failed = &response.events[1];
    assert_eq!(
        (sign_in_failed.actor_id.as_str(), sign_in_failed.target_id.as_str()),
        ("", acme.user_id.as_str())
    );
    let times: Vec<_> = response.events.iter().map(|e| e.create_time.expect("a time")).collect();
    assert!(times.is_sorted_by_key(|time| std::cmp::Reverse((time.seconds, time.nanos))));
}

#[tokio::test]
async fn each_event_is_on_exactly_one_page() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    for n in 0..7 {
        acme.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
    }
    let mut ids = Vec::new();
    let mut request = ListEventsRequest { page_size: 3, ..ListEventsRequest::default() };
    loop {
        let page = acme.audit().list_events(request.clone()).await.expect("events").into_inner();
        assert!(page.events.len() <= 3);
        ids.extend(page.events.into_iter().map(|event| event.id));
        // Events are listed newest first, so an event that is created now does not appear on the
        // following pages.
        acme.create_role(&format!("late-{}", ids.len()), RoleLevel::Member, &[]).await;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    // The three events of a new tenant, and seven roles.
    assert_eq!(ids.len(), 10);
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 10);
    let other_filter = ListEventsRequest { filter: "kind = signed_in".into(), ..request };
    assert_refused(
        acme.audit().list_events(other_filter).await,
        Code::InvalidArgument,
        "INVALID_PAGE_TOKEN",
    );
}

#[tokio::test]
async fn events_are_filtered_by_kind_actor_target_session_request_and_time() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["role:create", "audit:read"]).await;
    let role =
        ada.with_metadata("x-request-id", "r-1").create_role("ops", RoleLevel::Viewer, &[]).await;

    assert_eq!(
        kinds(&events_oldest_first(&acme, "kind = role_*").await).last(),
        Some(&"role_created")
    );
    let of_ada = events_oldest_first(&acme, &format!("actor_id = {}", ada.user_id)).await;
    assert_eq!(kinds(&of_ada), ["signed_in", "role_created"]);
    let of_role = events_oldest_first(&acme, &format!("target_id = \"{role}\"")).await;
    assert_eq!(kinds(&of_role), ["role_created"]);
    let session = &ada.tokens.session_id;
    let of_session = events_oldest_first(&acme, &format!("session_id = {session}")).await;
    assert_eq!(kinds(&of_session), ["signed_in", "role_created"]);
    assert_eq!(kinds(&events_oldest_first(&acme, "request_id = r-1").await), ["role_created"]);
    let two_conditions = format!("kind = signed_in AND actor_id = {}", ada.user_id);
    assert_eq!(events_oldest_first(&acme, &two_conditions).await.len(), 1);
    assert!(events_oldest_first(&acme, "kind = role%").await.is_empty());
    assert!(events_oldest_first(&acme, &format!("actor_id = {}", unknown_id())).await.is_empty());

    let create_time = of_role[0].create_time.expect("a time");
    let next_microsecond = Timestamp { nanos: create_time.nanos + 1000, ..create_time };
    for (start_time, end_time, is_listed) in [
        (Some(create_time), None, true),
        (None, Some(create_time), false),
        (None, Some(next_microsecond), true),
        (Some(next_microsecond), None, false),
        (Some(create_time), Some(next_microsecond), true),
    ] {
        let request = ListEventsRequest {
            filter: format!("target_id = {role}"),
            start_time,
            end_time,
            ..ListEventsRequest::default()
        };
        let events = acme.audit().list_events(request).await.expect("events").into_inner().events;
        assert_eq!(!events.is_empty(), is_listed, "{start_time:?} to {end_time:?}");
    }
}

#[tokio::test]
async fn invalid_filters_and_times_are_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let out_of_range = Timestamp { seconds: i64::MAX, nanos: 0 };
    let (early, late) = (Timestamp { seconds: 1, nanos: 0 }, Timestamp { seconds: 2, nanos: 0 });
    for (filter, start_time, end_time) in [
        ("ip = 127.0.0.1", None, None),
        ("actor_id = ada", None, None),
        ("kind > a", None, None),
        ("", Some(out_of_range), None),
        ("", Some(late), Some(early)),
        ("", Some(late), Some(late)),
    ] {
        let filter = filter.into();
        let request =
            ListEventsRequest { filter, start_time, end_time, ..ListEventsRequest::default() };
        let reply = acme.audit().list_events(request).await;
        assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn only_a_caller_with_the_permission_audit_read_reads_the_audit_trail_of_the_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let member_without_permission = acme.create_member("nobody", &["user:read"]).await;
    let reply = member_without_permission.audit().list_events(ListEventsRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    let auditor = acme.create_member("auditor", &["audit:read"]).await;
    assert!(!events_oldest_first(&auditor, "").await.is_empty());

    // When platform staff read a tenant's trail, that trail records the call.
    let platform_admin_in_other =
        app.platform_admin().await.with_metadata("x-tenant-id", &other.tenant_id);
    let events_of_other = events_oldest_first(&platform_admin_in_other, "").await;
    assert!(events_of_other.iter().all(|event| event.tenant_id == other.tenant_id));
    let last_event = events_of_other.last().expect("an event");
    assert_eq!(last_event.kind, "acted_across_tenants");
    assert_eq!(last_event.actor_id, platform_admin_in_other.user_id);
    assert_ne!(last_event.actor_tenant_id, other.tenant_id);
    let method = &last_event.detail.as_ref().expect("a detail").fields["method"];
    let expected =
        prost_types::value::Kind::StringValue("/tenantry.v1.AuditService/ListEvents".into());
    assert_eq!(method.kind, Some(expected));
}

/// The trail contains no emails, passwords, tokens or names of people.
#[tokio::test]
async fn events_contain_no_personal_data_and_no_secrets() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["user:read"]).await;
    let request = UpdateUserRequest {
        user_id: ada.user_id.clone(),
        display_name: Some("Ada Lovelace".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("updated");
    // For settings that the service does not know, an event has only their names.
    let settings = struct_of(serde_json::json!({ "plan": "Secret plan" }));
    let request = UpdateTenantRequest { settings, ..UpdateTenantRequest::default() };
    acme.tenants().update_tenant(request).await.expect("updated");
    let all_events = format!("{:?}", events_oldest_first(&acme, "").await);
    let token = ada.tokens.access_token.as_str();
    for word in [ada.email.as_str(), "Lovelace", PASSWORD, "Secret plan", token] {
        assert!(!all_events.contains(word), "{word}");
    }
}
