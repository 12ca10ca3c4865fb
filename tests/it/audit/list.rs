//! `ListEvents`: who may read which events.

use std::collections::HashSet;

use prost_types::Timestamp;
use tenantry::proto::v1::{
    ListEventsRequest, LoginRequest, RoleLevel, UpdateTenantRequest, UpdateUserRequest,
};
use tonic::Code;

use super::{events, kinds};
use crate::harness::{PASSWORD, TestApp, refused, struct_of, unknown_id};

#[tokio::test]
async fn an_administrator_sees_the_tenants_events_newest_first() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    app.tenant("other").await;
    let wrong = LoginRequest {
        email: acme.email.clone(),
        password: "wrong".into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    app.anonymous().auth().login(wrong).await.expect_err("the wrong password");
    let caller = acme.with("x-request-id", "made-by-ada");
    let role = caller.create_role("ops", RoleLevel::Member, &[]).await;

    let list = ListEventsRequest::default();
    let found = acme.audit().list_events(list).await.expect("events").into_inner();
    let expected =
        ["role_created", "sign_in_failed", "signed_in", "user_registered", "tenant_created"];
    assert_eq!(kinds(&found.events), expected);
    assert_eq!(found.next_page_token, "");
    assert!(found.events.iter().all(|event| event.tenant_id == acme.tenant_id));

    let made = &found.events[0];
    assert_eq!(made.actor_id, acme.user_id);
    assert_eq!(made.actor_tenant_id, acme.tenant_id);
    assert_eq!(made.target_id, role);
    assert_eq!(made.session_id, acme.tokens.session_id);
    assert_eq!(made.request_id, "made-by-ada");
    assert_eq!(made.ip, "127.0.0.1");
    let failed = &found.events[1];
    assert_eq!((failed.actor_id.as_str(), failed.target_id.as_str()), ("", acme.user_id.as_str()));
    let times: Vec<_> = found.events.iter().map(|e| e.create_time.expect("a time")).collect();
    assert!(times.is_sorted_by_key(|at| std::cmp::Reverse((at.seconds, at.nanos))));
}

#[tokio::test]
async fn each_event_is_on_exactly_one_page() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    for n in 0..7 {
        acme.create_role(&format!("role-{n}"), RoleLevel::Member, &[]).await;
    }
    let mut seen = Vec::new();
    let mut request = ListEventsRequest { page_size: 3, ..ListEventsRequest::default() };
    loop {
        let page = acme.audit().list_events(request.clone()).await.expect("events").into_inner();
        assert!(page.events.len() <= 3);
        seen.extend(page.events.into_iter().map(|event| event.id));
        // An event recorded after the first page is on no later page.
        acme.create_role(&format!("late-{}", seen.len()), RoleLevel::Member, &[]).await;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen.len(), 10);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 10);
    let other = ListEventsRequest { filter: "kind = signed_in".into(), ..request };
    refused(acme.audit().list_events(other).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

#[tokio::test]
async fn filters_find_by_kind_actor_target_session_request_and_time() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["role:create", "audit:read"]).await;
    let role = ada.with("x-request-id", "r-1").create_role("ops", RoleLevel::Viewer, &[]).await;

    assert_eq!(kinds(&events(&acme, "kind = role_*").await).last(), Some(&"role_created"));
    let of_ada = events(&acme, &format!("actor_id = {}", ada.user_id)).await;
    assert_eq!(kinds(&of_ada), ["signed_in", "role_created"]);
    let of_role = events(&acme, &format!("target_id = \"{role}\"")).await;
    assert_eq!(kinds(&of_role), ["role_created"]);
    let session = &ada.tokens.session_id;
    let of_session = events(&acme, &format!("session_id = {session}")).await;
    assert_eq!(kinds(&of_session), ["signed_in", "role_created"]);
    assert_eq!(kinds(&events(&acme, "request_id = r-1").await), ["role_created"]);
    let both = format!("kind = signed_in AND actor_id = {}", ada.user_id);
    assert_eq!(events(&acme, &both).await.len(), 1);
    assert!(events(&acme, "kind = role%").await.is_empty());
    assert!(events(&acme, &format!("actor_id = {}", unknown_id())).await.is_empty());

    let at = of_role[0].create_time.expect("a time");
    let after = Timestamp { nanos: at.nanos + 1000, ..at };
    for (start, end, found) in [
        (Some(at), None, true),
        (None, Some(at), false),
        (None, Some(after), true),
        (Some(after), None, false),
        (Some(at), Some(after), true),
    ] {
        let request = ListEventsRequest {
            filter: format!("target_id = {role}"),
            start_time: start,
            end_time: end,
            ..ListEventsRequest::default()
        };
        let events = acme.audit().list_events(request).await.expect("events").into_inner().events;
        assert_eq!(!events.is_empty(), found, "{start:?} to {end:?}");
    }
}

#[tokio::test]
async fn invalid_filters_and_times_are_refused() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let far = Timestamp { seconds: i64::MAX, nanos: 0 };
    let (early, late) = (Timestamp { seconds: 1, nanos: 0 }, Timestamp { seconds: 2, nanos: 0 });
    for (filter, start_time, end_time) in [
        ("ip = 127.0.0.1", None, None),
        ("actor_id = ada", None, None),
        ("kind > a", None, None),
        ("", Some(far), None),
        ("", Some(late), Some(early)),
        ("", Some(late), Some(late)),
    ] {
        let filter = filter.into();
        let request =
            ListEventsRequest { filter, start_time, end_time, ..ListEventsRequest::default() };
        let reply = acme.audit().list_events(request).await;
        refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

#[tokio::test]
async fn the_trail_is_readable_only_with_its_permission_and_in_its_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let member_without_permission = acme.member("nobody", &["user:read"]).await;
    let reply = member_without_permission.audit().list_events(ListEventsRequest::default()).await;
    refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    let auditor = acme.member("auditor", &["audit:read"]).await;
    assert!(!events(&auditor, "").await.is_empty());

    // When platform staff read a tenant's trail, that trail records it.
    let staff = app.platform_admin().await.with("x-tenant-id", &other.tenant_id);
    let seen = events(&staff, "").await;
    assert!(seen.iter().all(|event| event.tenant_id == other.tenant_id));
    let last = seen.last().expect("an event");
    assert_eq!(last.kind, "acted_across_tenants");
    assert_eq!(last.actor_id, staff.user_id);
    assert_ne!(last.actor_tenant_id, other.tenant_id);
    let method = &last.detail.as_ref().expect("a detail").fields["method"];
    let expected =
        prost_types::value::Kind::StringValue("/tenantry.v1.AuditService/ListEvents".into());
    assert_eq!(method.kind, Some(expected));
}

/// The trail must not contain emails, passwords or names of people.
#[tokio::test]
async fn events_contain_no_personal_data_and_no_secrets() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["user:read"]).await;
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
    let all = format!("{:?}", events(&acme, "").await);
    let token = ada.tokens.access_token.as_str();
    for word in [ada.email.as_str(), "Lovelace", PASSWORD, "Secret plan", token] {
        assert!(!all.contains(word), "{word}");
    }
}
