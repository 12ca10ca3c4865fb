//! The size of a page is limited, because clients limit the size of a message.

use std::collections::HashSet;

use prost_reflect::{DynamicMessage, Value};
use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{ListRolesRequest, RoleLevel};
use uuid::Uuid;

use super::{list_methods, text_field, text_value};
use crate::harness::{Client, Ids, Method, TestApp};

/// Maximum size of a reply, in bytes.
const MAX_REPLY_BYTES: usize = 3 << 20;

/// Reads a list to its end. Returns the number of items and of pages.
async fn read_all_pages(
    method: &Method,
    client: &Client,
    mut request: DynamicMessage,
) -> (usize, usize) {
    let (mut distinct_items, mut items, mut pages) = (HashSet::new(), 0, 0);
    loop {
        let bytes = method.call(client, &request).await.expect("a page").into_inner();
        assert!(bytes.len() < MAX_REPLY_BYTES, "{}: {} bytes", method.path(), bytes.len());
        let reply = DynamicMessage::decode(method.0.output(), bytes.as_slice()).expect("a reply");
        let listed_items =
            reply.fields().find_map(|(_, value)| value.as_list().map(<[Value]>::to_vec));
        for item in listed_items.unwrap_or_default() {
            items += 1;
            distinct_items.insert(format!("{item:?}"));
        }
        pages += 1;
        let token = text_field(&reply, "next_page_token");
        if token.is_empty() {
            assert_eq!(distinct_items.len(), items, "{}: an item is listed twice", method.path());
            return (items, pages);
        }
        request.set_field_by_name("page_token", text_value(&token));
    }
}

/// Inserts rows of the largest sizes that the service ever accepted, directly into the tables. 40
/// rows of 100 kB are larger than a page may be.
async fn insert_large_rows(app: &TestApp, acme: &Client, account: &str, role: &str) {
    let owner_connection = &mut app.owner_connection().await;
    for statement in [
        "insert into roles (tenant_id, role_id, name, level, permissions)
         select $t, gen_random_uuid(), 'large-' || n, 1,
             array(select 'r:' || repeat('x', 190) || k from generate_series(1, 1000) k)
         from generate_series(1, 26) n",
        "insert into role_assignments
             (tenant_id, assignment_id, user_id, role_id, scope, scope_key)
         select $t, gen_random_uuid(), $u, $r, jsonb_build_object('s' || n, repeat('x', 100000)),
             n::text::bytea
         from generate_series(1, 40) n",
        "with new_users as (
             insert into users (tenant_id, user_id, profile, email_index, email_lookup)
             select $t, gen_random_uuid(), '', n::text::bytea, n::text::bytea
             from generate_series(1, 40) n returning user_id
         )
         insert into role_assignments
             (tenant_id, assignment_id, user_id, role_id, scope, scope_key)
         select $t, gen_random_uuid(), user_id, $r,
             jsonb_build_object('s', jsonb_build_array('a', repeat('x', 100000))), 'x'
         from new_users",
        "insert into tenants (tenant_id, name, slug, settings)
         select gen_random_uuid(), 'Large', 'large-' || n,
             jsonb_build_object('x', repeat('x', 100000))
         from generate_series(1, 40) n",
        "insert into audit_events (tenant_id, event_id, kind, request_id, detail)
         select $t, gen_random_uuid(), 'large', '', jsonb_build_object('x', repeat('x', 100000))
         from generate_series(1, 40) n",
        "insert into service_accounts (tenant_id, account_id, name, description)
         select $t, gen_random_uuid(), 'large-' || n, repeat('x', 100000)
         from generate_series(1, 40) n",
        "insert into api_keys (tenant_id, key_id, account_id, public_key, expires_at)
         select $t, gen_random_uuid(), $a, repeat('x', 100000) || n, now() + interval '1 day'
         from generate_series(1, 40) n",
    ] {
        let (tenant, user) = (&acme.tenant_id, &acme.user_id);
        let values = [("$t", tenant.as_str()), ("$u", user), ("$r", role), ("$a", account)];
        let statement = values.iter().fold(statement.to_owned(), |statement, (name, id)| {
            let id: Uuid = id.parse().expect("an id");
            statement.replace(name, &format!("'{id}'::uuid"))
        });
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *owner_connection).await.expect("rows");
    }
}

/// N08: the size of a page is bounded.
#[tokio::test]
async fn pages_end_before_they_exceed_the_size_limit_of_clients() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let role = acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await;
    let account = acme.create_service_account("one", &[]).await;
    insert_large_rows(&app, &acme, &account, &role).await;
    let mut ids = Ids::of_client(&acme, &role);
    ids.0.insert("service_account_id", account);

    for method in list_methods() {
        let mut request = method.sample(&ids);
        request.set_field_by_name("page_size", Value::I32(1000));
        let client = if method.0.name() == "ListTenants" { &platform_admin } else { &acme };
        let (items, pages) = match method.0.name() {
            // The rows of these lists are encrypted and small.
            "ListUsers" | "ListSessions" => continue,
            "ListRoleAssignments" => {
                request.clear_field_by_name("user_id");
                request.clear_field_by_name("role_id");
                read_all_pages(&method, client, request).await
            }
            "ListSubjects" => {
                let scope = serde_json::json!({ "s": "a" });
                let scope = crate::harness::struct_of(scope).expect("a scope");
                let scope = prost::Message::encode_to_vec(&scope);
                let field = method.0.input().get_field_by_name("scope").expect("a scope");
                let kind = field.kind();
                let descriptor = kind.as_message().expect("a message").clone();
                let scope = DynamicMessage::decode(descriptor, scope.as_slice()).expect("a scope");
                request.set_field(&field, Value::Message(scope));
                read_all_pages(&method, client, request).await
            }
            _ => read_all_pages(&method, client, request).await,
        };
        assert!(items >= 30 && pages > 1, "{}: {items} items on {pages} pages", method.path());
    }

    // A call without any paging fields is limited as well.
    let reply = acme.roles().list_roles(ListRolesRequest::default()).await.expect("roles");
    let reply = reply.into_inner();
    assert!(reply.roles.len() > 10 && !reply.next_page_token.is_empty());
}
