//! Encrypted personal data in the tables, and the keyed hashes by which an email is found.

use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{
    DeleteTenantRequest, DeleteUserRequest, GetSessionRequest, GetUserRequest, ListEventsRequest,
    ListSessionsRequest, ListUsersRequest, LoginRequest, LookupUserRequest, RevokeSessionRequest,
    UpdateUserRequest,
};
use tonic::Code;

use crate::harness::{PASSWORD, TestApp, assert_refused, create_users};

/// The value that a query returns in its one row and column. NULL becomes an empty text.
async fn query_value(app: &TestApp, query: String) -> String {
    let owner_connection = &mut app.owner_connection().await;
    let value: Option<String> =
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(owner_connection).await.expect("a row");
    value.unwrap_or_default()
}

/// K06: the same email has a different blind index in each tenant, and each tenant finds the email
/// with its own index.
#[tokio::test]
async fn each_tenant_has_its_own_index_of_an_email() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let mut indexes = Vec::new();
    for tenant in [&a, &b] {
        let user = tenant.create_user_without_password("Ada@x.test").await;
        indexes.push(
            query_value(
                &app,
                format!("select email_index::text from users where user_id = '{user}'"),
            )
            .await,
        );
        for spelling in ["ada@X.test", "ADA@x.TEST"] {
            let lookup = LookupUserRequest { email: spelling.into() };
            let reply = tenant.users().lookup_user(lookup).await.expect("found").into_inner();
            assert_eq!(reply.user.expect("a user").id, user, "{spelling}");
        }
    }
    assert_ne!(indexes[0], indexes[1]);
}

/// A value that is sealed for one row cannot be opened in another row. So write access to the
/// database cannot give one user another user's email, or one session another session's address.
#[tokio::test]
async fn a_sealed_value_moved_to_another_row_cannot_be_opened() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (ada, bob) = (
        acme.create_user_without_password("ada@x.test").await,
        acme.create_user_without_password("bob@x.test").await,
    );
    let copy_profile = format!(
        "with changed as (update users set profile = (
             select profile from users where user_id = '{bob}') where user_id = '{ada}' returning 1)
         select 'changed' from changed"
    );
    query_value(&app, copy_profile).await;
    let reply = acme.users().get_user(GetUserRequest { user_id: ada }).await;
    assert_refused(reply, Code::DataLoss, "DATA_UNREADABLE");
    let bob = acme
        .users()
        .get_user(GetUserRequest { user_id: bob })
        .await
        .expect("the user is unchanged");
    assert_eq!(bob.into_inner().user.expect("a user").email, "bob@x.test");
}

/// Deleting a tenant destroys its data key, so the addresses in its remaining audit events
/// cannot be opened. Other tenants keep their keys.
#[tokio::test]
async fn after_the_deletion_of_a_tenant_its_sealed_data_cannot_be_opened() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let count_keys =
        |tenant: &str| format!("select count(*)::text from data_keys where tenant_id = '{tenant}'");
    assert_eq!(query_value(&app, count_keys(&a.tenant_id)).await, "1");
    let delete = DeleteTenantRequest { tenant: "a".into(), ..DeleteTenantRequest::default() };
    platform_admin.tenants().delete_tenant(delete).await.expect("deleted");
    assert_eq!(query_value(&app, count_keys(&a.tenant_id)).await, "0");
    assert_eq!(query_value(&app, count_keys(&b.tenant_id)).await, "1");
    let count_addresses =
        "select count(*)::text from audit_events where tenant_id = '$' and ip is not null";
    assert_ne!(
        query_value(&app, count_addresses.replace('$', &a.tenant_id)).await,
        "0",
        "the audit trail still has sealed addresses"
    );

    // A sign-in to the deleted tenant is refused like any other failure, and recorded.
    let login = LoginRequest {
        email: a.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "a".into(),
        ..LoginRequest::default()
    };
    let result = app.anonymous().auth().login(login).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let second_tenant = app.create_tenant("a").await;
    assert_ne!(second_tenant.tenant_id, a.tenant_id);
    assert_eq!(query_value(&app, count_keys(&second_tenant.tenant_id)).await, "1");
}

/// Two servers that start at the same time on an empty database use the same common data key.
#[tokio::test]
async fn servers_that_start_together_calculate_the_same_hash_of_an_email() {
    let database = crate::harness::Cluster::get().new_database().await;
    let accept_any_email =
        |values: &mut tenantry::config::Values| values.set("TENANTLESS_SIGN_IN", "any");
    let (first_server, second_server) = tokio::join!(
        TestApp::on_database(&database, accept_any_email),
        TestApp::on_database(&database, accept_any_email)
    );
    let acme = first_server.create_tenant("acme").await;
    let login = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        ..LoginRequest::default()
    };
    second_server.anonymous().auth().login(login).await.expect("found by the email alone");
}

/// The filter decrypts row by row, so a page may have few items. Only a page without a page token
/// is the last page.
#[tokio::test]
async fn a_filter_on_a_sealed_field_finds_each_match_once() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let first_match = acme.create_user_without_password("needle-1@x.test").await;
    // More users between the matches than one statement reads (1000).
    create_users(&[&acme], 1010).await;
    let last_match = acme.create_user_without_password("needle-2@x.test").await;

    for page_size in [1, 2, 50] {
        let mut request = ListUsersRequest {
            filter: "email = \"NEEDLE*\"".into(),
            page_size,
            ..ListUsersRequest::default()
        };
        let mut user_ids = Vec::new();
        loop {
            let page = acme.users().list_users(request.clone()).await.expect("a page").into_inner();
            assert!(page.users.len() <= usize::try_from(page_size).expect("a size"));
            user_ids.extend(page.users.into_iter().map(|user| user.id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(user_ids, [first_match.as_str(), last_match.as_str()], "pages of {page_size}");
    }
}

/// N25: a value that is sealed for an older version of its row, or for another keyed hash, cannot
/// be opened. A list shows all other rows.
#[tokio::test]
async fn an_altered_row_is_detected_and_does_not_make_a_list_fail() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut users = Vec::new();
    for name in ["ada", "bob", "eve", "joe"] {
        users.push(acme.create_user_without_password(&format!("{name}@x.test")).await);
    }
    let [ada, bob, eve, joe] = &users[..] else { panic!("four users") };
    let old_profile =
        query_value(&app, format!("select profile::text from users where user_id = '{ada}'")).await;
    let rename_request = UpdateUserRequest {
        user_id: ada.clone(),
        display_name: Some("Ada".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(rename_request).await.expect("renamed");
    // Ada gets an older profile, and Bob another index. Eve gets the lookup hash of Joe.
    query_value(
        &app,
        format!(
            "with back as (update users set profile = '{old_profile}'
                 where user_id = '{ada}' returning 1),
             swapped as (
                 update users a set email_index = sha256(a.email_index) from users b
                 where a.user_id = '{bob}' and b.user_id = '{eve}' returning 1)
             select 'altered'"
        ),
    )
    .await;
    query_value(
        &app,
        format!(
            "with swapped as (
                 update users a set email_lookup = b.email_lookup from users b
                 where a.user_id = '{eve}' and b.user_id = '{joe}' returning 1)
             select 'altered'"
        ),
    )
    .await;

    let list = acme.users().list_users(ListUsersRequest::default()).await.expect("a page");
    let list = list.into_inner().users;
    assert_eq!(list.len(), 5, "four users and the administrator");
    for user in &list {
        let is_altered = [ada, bob, eve].contains(&&user.id);
        assert_eq!(user.unreadable, is_altered, "{user:?}");
        assert_eq!(user.email.is_empty(), is_altered, "{user:?}");
    }
    for user in [ada, bob, eve] {
        let reply = acme.users().get_user(GetUserRequest { user_id: user.clone() }).await;
        assert_refused(reply, Code::DataLoss, "DATA_UNREADABLE");
        let delete = DeleteUserRequest { user_id: user.clone(), ..DeleteUserRequest::default() };
        acme.users().delete_user(delete).await.expect("deleted");
    }
    acme.users()
        .get_user(GetUserRequest { user_id: joe.clone() })
        .await
        .expect("the user is unchanged");
    // Three values in the list, and three in `GetUser`.
    let unreadable_values = r#"tenantry_unreadable_values_total{table="users"}"#;
    assert!(app.metric(unreadable_values).await > Some(5.0));
}

/// N25: after a change of the keyed hashes in the database, no user is found by another user's
/// email.
#[tokio::test]
async fn users_with_swapped_email_hashes_cannot_sign_in() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let (ada, eve) = (acme.create_member("ada", &[]).await, acme.create_member("eve", &[]).await);
    let swap = format!(
        "update users a set email_index = b.email_index, email_lookup = b.email_lookup
         from users b where (a.user_id, b.user_id) in
             (('{0}', '{1}'), ('{1}', '{0}'))",
        ada.user_id, eve.user_id
    );
    let owner_connection = &mut app.owner_connection().await;
    let drop_constraint = "alter table users drop constraint users_email_key";
    for statement in [drop_constraint, &swap] {
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut *owner_connection)
            .await
            .expect(statement);
    }
    for user in [&ada, &eve] {
        for organization_slug in ["acme", ""] {
            let login = LoginRequest {
                email: user.email.clone(),
                password: PASSWORD.into(),
                organization_slug: organization_slug.into(),
                ..LoginRequest::default()
            };
            let reply = app.anonymous().auth().login(login).await;
            assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
        let lookup = LookupUserRequest { email: user.email.clone() };
        let reply = acme.users().lookup_user(lookup).await;
        assert_refused(reply, Code::DataLoss, "DATA_UNREADABLE");
    }
}

/// N25: an altered sealed value is detected.
#[tokio::test]
async fn lists_show_sessions_and_events_with_altered_sealed_values() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let second_session = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    let altered_session = &second_session.tokens.session_id;
    let alter = format!(
        "with s as (update sessions set client = ''
             where session_id = '{altered_session}' returning 1),
         e as (update audit_events set ip = '' where kind = 'signed_in' returning 1)
         select 'altered'"
    );
    query_value(&app, alter).await;
    let sessions = acme.sessions().list_sessions(ListSessionsRequest::default()).await;
    let sessions = sessions.expect("a page").into_inner().sessions;
    assert!(sessions.len() > 1);
    for session in sessions {
        assert_eq!(session.unreadable, session.id == *altered_session, "{session:?}");
    }
    let get = GetSessionRequest { session_id: altered_session.clone() };
    assert_refused(acme.sessions().get_session(get).await, Code::DataLoss, "DATA_UNREADABLE");
    let revoke = RevokeSessionRequest { session_id: altered_session.clone() };
    acme.sessions().revoke_session(revoke).await.expect("revoked");
    let events = acme.audit().list_events(ListEventsRequest::default()).await;
    let events = events.expect("a page").into_inner().events;
    assert!(events.iter().any(|event| event.unreadable));
    for event in events {
        assert_eq!(event.unreadable, event.kind == "signed_in", "{event:?}");
    }
}
