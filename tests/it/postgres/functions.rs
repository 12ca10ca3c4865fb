//! SQL functions: the cross-tenant functions, which read or change rows of all tenants, and all
//! other functions.

use sqlx::AssertSqlSafe;

use super::{count, run, set_session_tenant};
use crate::harness::TestApp;

/// A function in the schema `public`.
#[derive(Debug, sqlx::FromRow)]
struct Function {
    name: String,
    /// Whether the function runs with the rights of its owner.
    is_security_definer: bool,
    search_path: Option<String>,
    owner: String,
    /// Whether every role may call the function.
    is_public: bool,
}

/// E10: every function sets its `search_path`, and not every role may call a cross-tenant function.
#[tokio::test]
async fn only_the_cross_tenant_functions_run_with_more_rights_than_their_caller() {
    let app = TestApp::spawn().await;
    let mut owner_connection = app.owner_connection().await;
    let functions: Vec<Function> = sqlx::query_as(
        "select proname::text as name, prosecdef as is_security_definer,
                (select c from unnest(proconfig) c where c like 'search_path=%') as search_path,
                proowner::regrole::text as owner,
                exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner)))
                        where grantee = 0) as is_public
         from pg_proc where pronamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(&mut owner_connection)
    .await
    .expect("functions");
    assert!(
        functions.iter().all(|function| function.search_path.is_some()),
        "a function sets no search_path: {functions:?}"
    );
    let cross_tenant_functions: Vec<_> =
        functions.into_iter().filter(|function| function.is_security_definer).collect();
    let names: Vec<_> =
        cross_tenant_functions.iter().map(|function| function.name.as_str()).collect();
    let expected = [
        "audit_backlog",
        "audit_backlog_ages",
        "audit_trails",
        // The function without arguments is kept for servers of release 0.1.
        "audited_tenants",
        "audited_tenants",
        "begin_epoch",
        "changes_floor",
        "claim_mails",
        "count_data_keys",
        "current_epoch",
        "data_keys_not_by",
        "find_tenant",
        "forget_request_of_key",
        "forget_requests",
        "list_all_tenants",
        "list_tenants",
        "mail_backlog",
        "mark_published",
        "mark_tenant_deleted",
        "note_epoch",
        "queue_mail",
        "queue_mail",
        "read_changes",
        "read_changes_since",
        "read_epochs",
        "read_outbox",
        "read_unsealed",
        "remove_deleted_tenant",
        "remove_mail",
        "retry_mail",
        "rewrap_data_key",
        "schema_version",
        "seal_events",
        "sign_audit_checkpoint",
        "sign_in_tenants",
        "stale_audit_checkpoints",
        "tenants_to_purge",
        "trim_audit_events",
        "trim_changes",
        "trim_requests",
        "trim_rows",
    ];
    assert_eq!(names, expected);
    for Function { name, owner, is_public, .. } in &cross_tenant_functions {
        assert_eq!(owner, "tenantry_lookup", "{name}");
        assert!(!is_public, "{name}");
    }
}

/// E02: the roles own no tables, belong to no other role and create no objects.
#[tokio::test]
async fn the_roles_have_no_right_that_bypasses_row_security() {
    let app = TestApp::spawn().await;
    let mut owner_connection = app.owner_connection().await;
    for role in ["tenantry_app", "tenantry_lookup"] {
        for query in [
            "select count(*) from pg_roles where rolname = '$'
             and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)",
            "select count(*) from pg_class where relowner = '$'::regrole",
            "select count(*) from pg_auth_members where member = '$'::regrole",
            "select count(*) from pg_namespace where has_schema_privilege('$', oid, 'CREATE')
             and nspname not like 'pg_temp%'",
            "select count(*) from pg_database where datname = current_database()
             and has_database_privilege('$', oid, 'CREATE')",
        ] {
            assert_eq!(
                count(&mut owner_connection, query.replace('$', role)).await,
                0,
                "{role}: {query}"
            );
        }
    }
    let writable_tables_query = "select count(*) from pg_class
                  where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
                  and relname not in ('change_marks', 'audit_chain', 'audit_checkpoints', 'audit_outbox',
                      'data_keys', 'epochs', 'mail_outbox', 'tenants')
                  and has_any_column_privilege('tenantry_lookup', oid, 'INSERT, UPDATE')";
    assert_eq!(count(&mut owner_connection, writable_tables_query.into()).await, 0);
    let login_query =
        "select count(*) from pg_roles where rolname = 'tenantry_lookup' and rolcanlogin";
    assert_eq!(count(&mut owner_connection, login_query.into()).await, 0);
}

/// E17: the role of the service cannot search for tenants by a part of the slug.
#[tokio::test]
async fn find_tenant_needs_the_exact_slug_and_only_the_platform_tenant_lists_tenants() {
    let app = TestApp::spawn().await;
    let (a, _b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    app.platform_admin().await;
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    for tenant in ["", &a.tenant_id] {
        set_session_tenant(&mut conn, tenant).await;
        for name in ["", "%", "_", "A", "a ", "a'or'a", "a%"] {
            let query = "select count(*) from find_tenant($1)";
            let found_tenants: i64 =
                sqlx::query_scalar(query).bind(name).fetch_one(&mut *conn).await.expect("a count");
            assert_eq!(found_tenants, 0, "{name:?}");
        }
        let nil = "00000000-0000-0000-0000-000000000000";
        let list_query = format!("select count(*) from list_tenants('{nil}', 100, null, null)");
        assert_eq!(count(&mut conn, list_query).await, 0);
        assert_eq!(count(&mut conn, "select count(*) from find_tenant('b')".into()).await, 1);
    }
    for role in ["tenantry_lookup", "postgres"] {
        assert_eq!(run(&mut conn, format!("set role {role}")).await, Err("42501".into()));
    }
    let platform_query = "select tenant_id::text from find_tenant('platform')";
    let platform_id: String =
        sqlx::query_scalar(platform_query).fetch_one(&mut *conn).await.expect("an id");
    set_session_tenant(&mut conn, &platform_id).await;
    let nil = "00000000-0000-0000-0000-000000000000";
    let list_query = format!("select count(*) from list_tenants('{nil}', 100, null, null)");
    assert_eq!(count(&mut conn, list_query).await, 3, "a, b and the platform");
}

/// E10: each function sets its `search_path`, so it uses only tables and functions of the schema.
#[tokio::test]
async fn temporary_objects_do_not_shadow_the_objects_of_the_schema() {
    let app = TestApp::spawn().await;
    let a = app.create_tenant("a").await;
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    for table in ["tenants", "users", "credentials", "roles", "role_assignments", "sessions"] {
        let create_query = format!("create temp table {table} (like public.{table})");
        run(&mut conn, create_query).await.expect("created");
    }
    for create_query in [
        "create function pg_temp.current_tenant() returns uuid language sql return null::uuid",
        "create function pg_temp.count(text) returns bigint language sql return 7",
    ] {
        run(&mut conn, create_query.into()).await.expect("created");
    }
    let (tenant, user) = (&a.tenant_id, &a.user_id);
    let (tenant_email_hash, global_email_hash) = email_hashes(&app, user).await;
    for call in [
        "find_tenant('a')".to_owned(),
        format!("sign_in_tenants('{global_email_hash}', false)"),
        format!("subject_standings('{tenant}', array['{user}']::uuid[], null)"),
        format!("explained_standing('{tenant}', '{user}', null, array['a:b'], 1)"),
        format!("sign_in_candidate('{tenant}', '{tenant_email_hash}')"),
    ] {
        let query = AssertSqlSafe(format!("select true from {call}"));
        let rows = sqlx::query(query).fetch_all(&mut *conn).await.expect("rows");
        assert_eq!(rows.len(), 1, "{call}");
    }
}

/// E10: the functions for lookups find no row of another tenant.
#[tokio::test]
async fn a_subject_is_looked_up_only_in_its_own_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let query = format!(
        "select count(*) from subject_standings('{}', array['{}']::uuid[], '{}')
         where session_live or roles <> '[]' or subjects <> '[]'",
        b.tenant_id, a.user_id, a.tokens.session_id
    );
    assert_eq!(count(&mut conn, query).await, 0);
    let (tenant_email_hash, _) = email_hashes(&app, &a.user_id).await;
    let query =
        format!("select count(*) from sign_in_candidate('{}', '{tenant_email_hash}')", b.tenant_id);
    assert_eq!(count(&mut conn, query).await, 0);
}

/// E10: the function finds tenants only by the keyed hash of the email.
/// N15: tenants where the email is verified come first.
#[tokio::test]
async fn at_most_three_tenants_are_found_by_the_hash_of_an_email() {
    let app = TestApp::spawn().await;
    let mut users = Vec::new();
    for slug in ["a", "b", "c", "d", "e"] {
        users.push(app.create_tenant(slug).await.create_user("ada@both.test").await);
    }
    let (_, global_email_hash) = email_hashes(&app, &users[0]).await;
    let mut owner_connection = app.owner_connection().await;
    for change_query in [
        format!("update users set email_verified = true where user_id = '{}'", users[3]),
        format!("update users set state = 'disabled' where user_id = '{}'", users[0]),
        "update tenants set state = 'suspended' where slug = 'b'".to_owned(),
    ] {
        run(&mut owner_connection, change_query).await.expect("changed");
    }
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let mut find_slugs = async |only_verified: bool| -> Vec<String> {
        let query = "select slug from sign_in_tenants($1::text::bytea, $2) with ordinality s,
                     lateral find_tenant(s.tenant_id::text) order by s.ordinality";
        let query = sqlx::query_scalar(query).bind(&global_email_hash).bind(only_verified);
        query.fetch_all(&mut *conn).await.expect("slugs")
    };
    // The tenant with the verified email is first. The disabled user and the suspended tenant are
    // left out.
    assert_eq!(find_slugs(false).await, ["d", "c", "e"]);
    assert_eq!(find_slugs(true).await, ["d"]);
    let empty_email_query = "select count(*) from sign_in_tenants('', false)";
    assert_eq!(count(&mut owner_connection, empty_email_query.into()).await, 0);
}

/// E10: the functions for the rotation of the master key work only in a transaction whose tenant is
/// the nil UUID. In a transaction of any other tenant, these functions find and change nothing.
#[tokio::test]
async fn data_keys_of_all_tenants_are_visible_only_to_the_nil_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let rewrap_query = "select count(*) from data_keys_not_by('', null, 10) k
         where rewrap_data_key(k.tenant_id, k.wrapped, 'x', 'x')"
        .to_owned();
    let direct_query = format!(
        "select count(*) from (select rewrap_data_key('{}', wrapped, 'x', 'x') as done
         from data_keys) k where done",
        b.tenant_id
    );
    for tenant in [&a.tenant_id, &b.tenant_id] {
        set_session_tenant(&mut conn, tenant).await;
        for query in [&rewrap_query, &direct_query] {
            assert_eq!(count(&mut conn, query.clone()).await, 0, "{query}");
        }
        let count_query = "select count(*) from count_data_keys()";
        assert_eq!(count(&mut conn, count_query.into()).await, 0);
    }
    set_session_tenant(&mut conn, "00000000-0000-0000-0000-000000000000").await;
    assert_eq!(count(&mut conn, rewrap_query).await, 3, "of a, of b, and the common data key");
}

/// The two keyed hashes of a user's email: the hash for lookups in the user's tenant, and the hash
/// for lookups across tenants.
async fn email_hashes(app: &TestApp, user: &str) -> (String, String) {
    let query = "select email_index::text, email_lookup::text from users where user_id = $1::uuid";
    let owner_connection = &mut app.owner_connection().await;
    sqlx::query_as(query).bind(user).fetch_one(owner_connection).await.expect("a user")
}
