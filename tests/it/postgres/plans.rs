//! Queries use indexes despite row-level security.

use sqlx::AssertSqlSafe;

use super::{run, set_session_tenant};
use crate::harness::TestApp;

/// E15: row-level security does not prevent the use of indexes.
#[tokio::test]
async fn frequent_queries_use_an_index_that_begins_with_the_tenant() {
    let app = TestApp::spawn().await;
    let mut owner_connection = app.owner_connection().await;
    for statement in [
        "insert into tenants (tenant_id, name, slug)
         select gen_random_uuid(), 'Tenant', 't-' || n from generate_series(1, 3000) n",
        "insert into users (tenant_id, user_id, profile, email_index, email_lookup)
         select tenant_id, gen_random_uuid(), '', sha256(n::text::bytea), sha256(n::text::bytea)
         from (select tenant_id from tenants limit 100) t, generate_series(1, 300) n",
        "insert into sessions (tenant_id, session_id, user_id, client, amr, refresh_jti, refresh_issued_at,
             refresh_expires_at, refresh_kid, access_jti, access_expires_at, access_kid, expires_at)
         select tenant_id, gen_random_uuid(), user_id, '', '{}', '', now(), now(), '', '', now(), '', now()
         from users",
        "insert into roles (tenant_id, role_id, name, level)
         select tenant_id, gen_random_uuid(), 'r-' || n, 1 from tenants, generate_series(1, 10) n",
        "insert into role_assignments (tenant_id, assignment_id, user_id, role_id)
         select u.tenant_id, gen_random_uuid(), user_id, role_id from users u
         join roles r on r.tenant_id = u.tenant_id and r.name = 'r-1'",
        // One statement inserts both, because the server adds events that are not in the chain.
        "with new_events as (
             insert into audit_events
                 (tenant_id, event_id, kind, actor_id, target_id, request_id, created_at)
             select u.tenant_id, gen_random_uuid(), 'kind-' || n, user_id, user_id, '',
                 now() - n * interval '1 minute'
             from users u, generate_series(1, 3) n
             returning tenant_id, event_id
         )
         insert into audit_chain select tenant_id, row_number() over (partition by tenant_id),
             event_id, sha256('') from new_events",
        "analyze",
    ] {
        run(&mut owner_connection, statement.into()).await.expect(statement);
    }
    // The first user, so that the page after this user is full.
    let query = "select tenant_id::text, user_id::text from users order by 1, 2 limit 1";
    let (tenant, user): (String, String) =
        sqlx::query_as(query).fetch_one(&mut owner_connection).await.expect("a user");
    let pool = app.app_role_pool().await;
    let mut conn = pool.acquire().await.expect("a connection");
    set_session_tenant(&mut conn, &tenant).await;

    for query in [
        "select * from tenants where tenant_id = '$t'",
        "select * from users where tenant_id = '$t' and email_index = sha256('7')",
        "select * from users where tenant_id = '$t' and user_id > '$u' order by user_id limit 50",
        // An index is used even when the query has no condition on the tenant.
        "select * from users where user_id = '$u'",
        "select * from sessions where tenant_id = '$t' and session_id = '$u' and user_id = '$u'",
        "select * from sessions where tenant_id = '$t' and user_id = '$u' and session_id > '$u'
         order by session_id limit 50",
        "select * from role_assignments a
         join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
         where a.tenant_id = '$t' and a.user_id = '$u'",
        "select * from role_assignments where tenant_id = '$t' and role_id = '$u'",
        "select user_id from role_assignments
         where tenant_id = '$t' and role_id = '$u' and user_id > '$u' order by user_id limit 50",
        "select * from audit_events where tenant_id = '$t'
         order by created_at desc, event_id desc limit 50",
        "select * from audit_events where tenant_id = '$t' and actor_id = '$u'
         order by created_at desc, event_id desc limit 50",
        "select * from audit_events where tenant_id = '$t' and target_id = '$u'
             and created_at < now() order by created_at desc, event_id desc limit 50",
        // N42: the events of a session and of a request.
        "select * from audit_events where tenant_id = '$t' and session_id = '$u'
         order by created_at desc, event_id desc limit 50",
        "select * from audit_events where tenant_id = '$t' and request_id = 'x'
         order by created_at desc, event_id desc limit 50",
        "select * from audit_chain where tenant_id = '$t' and position > 7
         order by position limit 50",
    ] {
        let query = query.replace("$t", &tenant).replace("$u", &user);
        let explain = AssertSqlSafe(format!("explain (costs off) {query}"));
        let plan: Vec<String> =
            sqlx::query_scalar(explain).fetch_all(&mut *conn).await.expect("a plan");
        let plan = plan.join("\n");
        assert!(plan.contains("Index") && !plan.contains("Seq Scan"), "{query}\n{plan}");
        // Postgres reads the tenant setting once, not for each row.
        assert!(plan.contains("InitPlan"), "{query}\n{plan}");
        // A page must not sort all rows of the tenant.
        assert!(!plan.contains("Sort"), "{query}\n{plan}");
    }
}
