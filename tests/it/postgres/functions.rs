//! SQL functions: those that look across tenants, and all others.

use sqlx::AssertSqlSafe;

use super::{count, run, work_in};
use crate::harness::TestApp;

/// E10: a function reaches no more rows than its purpose needs.
#[tokio::test]
async fn only_the_lookup_functions_run_with_more_rights_than_their_caller() {
    let app = TestApp::spawn().await;
    let mut owner = app.owner().await;
    let functions: Vec<(String, bool, Option<String>, String, bool)> = sqlx::query_as(
        "select proname::text, prosecdef,
                (select c from unnest(proconfig) c where c like 'search_path=%'),
                proowner::regrole::text,
                exists (select from aclexplode(coalesce(proacl, acldefault('f', proowner)))
                        where grantee = 0)
         from pg_proc where pronamespace = 'public'::regnamespace order by 1",
    )
    .fetch_all(&mut owner)
    .await
    .expect("functions");
    assert!(functions.iter().all(|f| f.2.is_some()), "a search_path is not pinned: {functions:?}");
    let lookups: Vec<_> = functions.into_iter().filter(|f| f.1).collect();
    let names: Vec<_> = lookups.iter().map(|f| f.0.as_str()).collect();
    let known = [
        "audit_backlog",
        "audited_tenants",
        "changes_floor",
        "claim_mails",
        "count_data_keys",
        "data_keys_not_by",
        "find_tenant",
        "forget_request_of_key",
        "forget_requests",
        "list_tenants",
        "mail_backlog",
        "mark_published",
        "queue_mail",
        "read_changes",
        "read_changes_since",
        "read_outbox",
        "read_unsealed",
        "remove_mail",
        "retry_mail",
        "rewrap_data_key",
        "seal_events",
        "sign_in_tenants",
        "trim_changes",
        "trim_requests",
    ];
    assert_eq!(names, known);
    for (name, _, _, runs_as, for_anybody) in &lookups {
        assert_eq!(runs_as, "tenantry_lookup", "{name}");
        assert!(!for_anybody, "{name}");
    }
}

/// E02: no role of the service bypasses row-level security.
#[tokio::test]
async fn the_roles_have_no_right_that_bypasses_row_security() {
    let app = TestApp::spawn().await;
    let mut owner = app.owner().await;
    for role in ["tenantry_app", "tenantry_lookup"] {
        for power in [
            "select count(*) from pg_roles where rolname = '$'
             and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication)",
            "select count(*) from pg_class where relowner = '$'::regrole",
            "select count(*) from pg_auth_members where member = '$'::regrole",
            "select count(*) from pg_namespace where has_schema_privilege('$', oid, 'CREATE')
             and nspname not like 'pg_temp%'",
            "select count(*) from pg_database where datname = current_database()
             and has_database_privilege('$', oid, 'CREATE')",
        ] {
            assert_eq!(count(&mut owner, power.replace('$', role)).await, 0, "{role}: {power}");
        }
    }
    let writes = "select count(*) from pg_class where relnamespace = 'public'::regnamespace
                  and relkind in ('r', 'p') and relname not in ('change_marks', 'audit_chain', 'audit_outbox',
                      'data_keys', 'mail_outbox')
                  and has_any_column_privilege('tenantry_lookup', oid, 'INSERT, UPDATE')";
    assert_eq!(count(&mut owner, writes.into()).await, 0);
    let may_log_in =
        "select count(*) from pg_roles where rolname = 'tenantry_lookup' and rolcanlogin";
    assert_eq!(count(&mut owner, may_log_in.into()).await, 0);
}

/// E10, E17: a function reaches no more rows than its purpose needs.
#[tokio::test]
async fn tenants_are_found_by_exact_name_and_never_listed() {
    let app = TestApp::spawn().await;
    let (a, _b) = (app.tenant("a").await, app.tenant("b").await);
    app.platform_admin().await;
    let pool = app.app_role().await;
    let mut conn = pool.acquire().await.expect("a connection");
    for tenant in ["", &a.tenant_id] {
        work_in(&mut conn, tenant).await;
        for key in ["", "%", "_", "A", "a ", "a'or'a", "a%"] {
            let query = "select count(*) from find_tenant($1)";
            let found: i64 =
                sqlx::query_scalar(query).bind(key).fetch_one(&mut *conn).await.expect("an answer");
            assert_eq!(found, 0, "{key}");
        }
        let nil = "00000000-0000-0000-0000-000000000000";
        let list = format!("select count(*) from list_tenants('{nil}', 100, null, null)");
        assert_eq!(count(&mut conn, list).await, 0);
        assert_eq!(count(&mut conn, "select count(*) from find_tenant('b')".into()).await, 1);
    }
    for role in ["tenantry_lookup", "postgres"] {
        assert_eq!(run(&mut conn, format!("set role {role}")).await, Err("42501".into()));
    }
    let platform = "select tenant_id::text from find_tenant('platform')";
    let platform: String = sqlx::query_scalar(platform).fetch_one(&mut *conn).await.expect("an id");
    work_in(&mut conn, &platform).await;
    let nil = "00000000-0000-0000-0000-000000000000";
    let list = format!("select count(*) from list_tenants('{nil}', 100, null, null)");
    assert_eq!(count(&mut conn, list).await, 3);
}

/// E10: a function reaches no more rows than its purpose needs.
#[tokio::test]
async fn temporary_tables_and_functions_do_not_replace_the_real_ones() {
    let app = TestApp::spawn().await;
    let a = app.tenant("a").await;
    let pool = app.app_role().await;
    let mut conn = pool.acquire().await.expect("a connection");
    for table in ["tenants", "users", "credentials", "roles", "role_assignments", "sessions"] {
        let plant = format!("create temp table {table} (like public.{table})");
        run(&mut conn, plant).await.expect("planted");
    }
    for plant in [
        "create function pg_temp.current_tenant() returns uuid language sql return null::uuid",
        "create function pg_temp.count(text) returns bigint language sql return 7",
    ] {
        run(&mut conn, plant.into()).await.expect("planted");
    }
    let (tenant, user) = (&a.tenant_id, &a.user_id);
    let (index, lookup) = names_of(&app, user).await;
    for call in [
        "find_tenant('a')".to_owned(),
        format!("sign_in_tenants('{lookup}', false)"),
        format!("subject_standings('{tenant}', array['{user}']::uuid[], null)"),
        format!("explained_standing('{tenant}', '{user}', null, array['a:b'], 1)"),
        format!("sign_in_candidate('{tenant}', '{index}')"),
    ] {
        let query = AssertSqlSafe(format!("select true from {call}"));
        let found = sqlx::query(query).fetch_all(&mut *conn).await.expect("an answer");
        assert_eq!(found.len(), 1, "{call}");
    }
}

/// E10: a function reaches no more rows than its purpose needs.
#[tokio::test]
async fn a_subject_is_looked_up_only_in_its_own_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let pool = app.app_role().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let asks = format!(
        "select count(*) from subject_standings('{}', array['{}']::uuid[], '{}')
         where session_live or roles <> '[]' or subjects <> '[]'",
        b.tenant_id, a.user_id, a.tokens.session_id
    );
    assert_eq!(count(&mut conn, asks).await, 0);
    let (index, _) = names_of(&app, &a.user_id).await;
    let asks = format!("select count(*) from sign_in_candidate('{}', '{index}')", b.tenant_id);
    assert_eq!(count(&mut conn, asks).await, 0);
}

/// E10, N15: only a caller with the keyed hash of an email learns which tenants have it, and at
/// most three of them.
#[tokio::test]
async fn at_most_three_tenants_are_found_by_a_whole_email() {
    let app = TestApp::spawn().await;
    let mut users = Vec::new();
    for slug in ["a", "b", "c", "d", "e"] {
        users.push(app.tenant(slug).await.create_user("ada@both.test").await);
    }
    let (_, lookup) = names_of(&app, &users[0]).await;
    let mut owner = app.owner().await;
    for change in [
        format!("update users set email_verified = true where user_id = '{}'", users[3]),
        format!("update users set state = 'disabled' where user_id = '{}'", users[0]),
        "update tenants set state = 'suspended' where slug = 'b'".to_owned(),
    ] {
        run(&mut owner, change).await.expect("changed");
    }
    let pool = app.app_role().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let mut found = async |verified: bool| -> Vec<String> {
        let query = "select slug from sign_in_tenants($1::text::bytea, $2) with ordinality s,
                     lateral find_tenant(s.tenant_id::text) order by s.ordinality";
        let query = sqlx::query_scalar(query).bind(&lookup).bind(verified);
        query.fetch_all(&mut *conn).await.expect("an answer")
    };
    assert_eq!(found(false).await, ["d", "c", "e"]);
    assert_eq!(found(true).await, ["d"]);
    let empty_email_query = "select count(*) from sign_in_tenants('', false)";
    assert_eq!(count(&mut owner, empty_email_query.into()).await, 0);
}

/// E10: the rotation of the master key works only outside of any tenant. Inside a tenant's
/// transaction its functions find and change nothing.
#[tokio::test]
async fn data_keys_of_all_tenants_are_visible_only_outside_of_a_tenant() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let pool = app.app_role().await;
    let mut conn = pool.acquire().await.expect("a connection");
    let rewrap = "select count(*) from data_keys_not_by('', null, 10) k
         where rewrap_data_key(k.tenant_id, k.wrapped, 'x', 'x')"
        .to_owned();
    let direct = format!(
        "select count(*) from (select rewrap_data_key('{}', wrapped, 'x', 'x') as done
         from data_keys) k where done",
        b.tenant_id
    );
    for tenant in [&a.tenant_id, &b.tenant_id] {
        work_in(&mut conn, tenant).await;
        for query in [&rewrap, &direct] {
            assert_eq!(count(&mut conn, query.clone()).await, 0, "{query}");
        }
        let listed = "select count(*) from count_data_keys()";
        assert_eq!(count(&mut conn, listed.into()).await, 0);
    }
    work_in(&mut conn, "00000000-0000-0000-0000-000000000000").await;
    assert_eq!(count(&mut conn, rewrap).await, 3);
}

/// The two lookup keys of a user's email: in its tenant, and across tenants.
async fn names_of(app: &TestApp, user: &str) -> (String, String) {
    let query = "select email_index::text, email_lookup::text from users where user_id = $1::uuid";
    let owner = &mut app.owner().await;
    sqlx::query_as(query).bind(user).fetch_one(owner).await.expect("a user")
}
