//! Rules that the catalog must fulfil for every table, including future ones.

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::{run, tenant_tables};
use crate::harness::{Cluster, wait_until};

/// Tables without rows of tenants.
const TABLES_WITHOUT_TENANT: &[&str] = &["_sqlx_migrations", "change_marks", "epochs"];

/// The condition of policies that give access to all rows, except on a standby.
const ON_PRIMARY: &str = "( SELECT require_primary() AS require_primary)";

/// A policy that gives the cross-tenant functions access to rows of all tenants. The fields have
/// the texts of the catalog.
#[derive(serde::Serialize)]
struct CrossTenantPolicy {
    table: &'static str,
    policy: &'static str,
    command: &'static str,
    using: Option<&'static str>,
    with_check: Option<&'static str>,
}

const fn read_policy(table: &'static str, policy: &'static str) -> CrossTenantPolicy {
    CrossTenantPolicy { table, policy, command: "r", using: Some(ON_PRIMARY), with_check: None }
}

const fn write_policy(table: &'static str, policy: &'static str) -> CrossTenantPolicy {
    CrossTenantPolicy {
        table,
        policy,
        command: "*",
        using: Some(ON_PRIMARY),
        with_check: Some("true"),
    }
}

/// A policy that gives access only to rows that may be deleted, for example expired rows.
const fn trim_policy(
    table: &'static str,
    policy: &'static str,
    using: &'static str,
) -> CrossTenantPolicy {
    CrossTenantPolicy { table, policy, command: "*", using: Some(using), with_check: None }
}

const CROSS_TENANT_POLICIES: &[CrossTenantPolicy] = &[
    read_policy("audit_chain", "audit_chain_of_lookup"),
    CrossTenantPolicy {
        table: "audit_chain",
        policy: "audit_chain_of_sealer",
        command: "a",
        using: None,
        with_check: Some("true"),
    },
    CrossTenantPolicy {
        table: "audit_chain",
        policy: "audit_chain_of_trim",
        command: "d",
        using: Some(
            "(\"position\" <= ( SELECT k.\"position\"\n   FROM audit_checkpoints k\n  \
             WHERE (k.tenant_id = audit_chain.tenant_id)))",
        ),
        with_check: None,
    },
    write_policy("audit_checkpoints", "audit_checkpoints_of_lookup"),
    read_policy("audit_events", "audit_events_of_lookup"),
    CrossTenantPolicy {
        table: "audit_events",
        policy: "audit_events_of_trim",
        command: "d",
        using: Some(
            "((created_at <= (now() - '30 days'::interval)) AND (EXISTS ( SELECT\n   \
             FROM (audit_chain c\n     JOIN audit_checkpoints k ON (((k.tenant_id = c.tenant_id) \
             AND (k.\"position\" >= c.\"position\"))))\n  \
             WHERE ((c.tenant_id = audit_events.tenant_id) AND (c.event_id = audit_events.event_id)))))",
        ),
        with_check: None,
    },
    write_policy("audit_outbox", "audit_outbox_of_lookup"),
    write_policy("audit_queue", "audit_queue_of_lookup"),
    write_policy("change_marks", "change_marks_of_lookup"),
    read_policy("changes", "changes_of_lookup"),
    CrossTenantPolicy {
        table: "changes",
        policy: "changes_of_trim",
        command: "d",
        using: Some("(xid < ( SELECT changes_floor() AS changes_floor))"),
        with_check: None,
    },
    write_policy("data_keys", "data_keys_of_lookup"),
    write_policy("epochs", "epochs_of_lookup"),
    CrossTenantPolicy {
        table: "idempotency_records",
        policy: "idempotency_records_of_lookup",
        command: "*",
        using: Some(ON_PRIMARY),
        with_check: None,
    },
    write_policy("mail_outbox", "mail_outbox_of_lookup"),
    trim_policy("api_keys", "api_keys_of_trim", "(LEAST(expires_at, revoked_at) <= now())"),
    trim_policy("mail_links", "mail_links_of_trim", "(expires_at <= now())"),
    trim_policy("registrations", "registrations_of_trim", "(expires_at <= now())"),
    trim_policy(
        "role_assignments",
        "role_assignments_of_trim",
        "(expires_at <= (now() - '1 day'::interval))",
    ),
    trim_policy(
        "sessions",
        "sessions_of_trim",
        "(LEAST(expires_at, refresh_expires_at, revoked_at) <= now())",
    ),
    trim_policy("spent_assertions", "spent_assertions_of_trim", "(expires_at <= now())"),
    read_policy("tenants", "tenants_of_lookup"),
    CrossTenantPolicy {
        table: "tenants",
        policy: "tenants_of_purge",
        command: "d",
        using: Some("(deleted_at IS NOT NULL)"),
        with_check: None,
    },
    read_policy("users", "users_of_lookup"),
];

const FAULTS: &str = "
with tables as (
    select c.oid, c.relname, c.relrowsecurity and c.relforcerowsecurity as forced
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relname <> all ($1)
      and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_t%'
), across as (
    select * from jsonb_to_recordset($2)
        as across (\"table\" text, policy text, command text, \"using\" text, with_check text)
), policies as (
    select p.polrelid, c.relname, p.polname,
        p.polcmd = '*' and p.polpermissive and p.polroles = '{0}'
            -- The row of a deleted tenant is hidden from the tenant too.
            and pg_get_expr(p.polqual, p.polrelid) = case when c.relname = 'tenants'
                then '(' || own.rows || ' AND (deleted_at IS NULL))' else own.rows end
            and pg_get_expr(p.polwithcheck, p.polrelid) = own.rows as is_own,
        exists (
            select from across a
            where a.table = c.relname and a.policy = p.polname and a.command = p.polcmd::text
              and p.polpermissive
              and p.polroles
                  = array[(select oid from pg_roles where rolname = 'tenantry_lookup')]
              and pg_get_expr(p.polqual, p.polrelid) is not distinct from a.using
              and pg_get_expr(p.polwithcheck, p.polrelid) is not distinct from a.with_check
        ) as is_lookup
    from pg_policy p join pg_class c on c.oid = p.polrelid,
        (values ('(tenant_id = ( SELECT current_tenant() AS current_tenant))')) as own (rows)
)
select t.relname || ' has no tenant_id' from tables t where not exists (
    select from pg_attribute a
    where a.attrelid = t.oid and a.attname = 'tenant_id' and a.attnotnull and not a.attisdropped)
union all
select t.relname || ' does not force row security' from tables t where not t.forced
union all
select t.relname || ' has no policy of its tenant' from tables t
where not exists (select from policies p where p.polrelid = t.oid and p.is_own)
union all
select polname || ' gives access to more rows than those of the tenant' from policies
where not is_own and not is_lookup
union all
select a.policy || ' is missing' from across a
where not exists (select from policies p where p.is_lookup and p.polname = a.policy)
union all
select 'the service has access to ' || relname from pg_class
where relname in ('change_marks', 'epochs') and not (relrowsecurity and relforcerowsecurity
    and not has_any_column_privilege('tenantry_app', oid, 'SELECT, INSERT, UPDATE')
    and not has_table_privilege('tenantry_app', oid, 'DELETE, TRUNCATE'))
union all
select t.relname || ': the service has ' || privilege
from tables t, unnest(array['TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege
where has_table_privilege('tenantry_app', t.oid, privilege)
union all
select c.relname || ' is a view with its owner''s rights' from pg_class c
where c.relnamespace = 'public'::regnamespace
  and (c.relkind in ('m', 'f')
    or c.relkind = 'v' and not coalesce(c.reloptions @> '{security_invoker=true}', false))
union all
select conrelid::regclass || '.' || conname || ' does not begin with tenant_id'
from pg_constraint
where connamespace = 'public'::regnamespace and contype in ('p', 'u', 'f', 'x')
  and conrelid in (select oid from tables) and conname <> 'tenants_slug_key'
  and (select attname from pg_attribute where attrelid = conrelid and attnum = conkey[1])
      <> 'tenant_id'
union all
select i.indexrelid::regclass || ' is unique across tenants' from pg_index i
where i.indisunique and i.indrelid in (select oid from tables)
  and i.indexrelid <> 'tenants_slug_key'::regclass
  and (select attname from pg_attribute where attrelid = i.indrelid and attnum = i.indkey[0])
      is distinct from 'tenant_id'";

/// Violations of the rules by the tables and policies of a database.
pub(super) async fn faults(owner_connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(FAULTS)
        .bind(TABLES_WITHOUT_TENANT)
        .bind(sqlx::types::Json(CROSS_TENANT_POLICIES))
        .fetch_all(owner_connection)
        .await
        .expect("the catalog")
}

/// Calls of cross-tenant functions. Each query returns exactly 1 after [`insert_acme`], in this
/// order: the last queries delete the second tenant.
const CROSS_TENANT_QUERIES: [&str; 21] = [
    "select count(*) from find_tenant('acme')",
    "select count(*) from sign_in_tenants(sha256('ada'), false)",
    "select count(distinct tenant_id) from read_changes('1:1:')",
    "select count(*) from read_unsealed(10)",
    "select count(*) from read_outbox(10)",
    "select count(*) from (
         select set_config('tenantry.tenant', '00000000-0000-0000-0000-000000000000', true)
     ) as none (tenant), lateral data_keys_not_by(substr(tenant, 1, 0), null, 10)",
    "select waiting from mail_backlog()",
    "select trim_requests('0 s', 10)",
    "select trim_changes('0 s', 10)",
    "select deleted from trim_rows('spent_assertions', '1 day', 0, 1)",
    "select deleted from trim_rows('api_keys', '1 day', 0, 1)",
    "select deleted from trim_rows('sessions', '1 day', 0, 1)",
    "select deleted from trim_rows('role_assignments', '1 day', 0, 1)",
    "select deleted from trim_rows('mail_links', '1 day', 0, 1)",
    "select deleted from trim_rows('registrations', '1 day', 0, 1)",
    "select count(*) from (select set_config('tenantry.tenant', '00000000-0000-0000-0000-00000000000a', true))
         as here (tenant), lateral mark_tenant_deleted(tenant::uuid) done where done",
    "select count(*) from tenants_to_purge(10)",
    "select count(*) from remove_deleted_tenant('00000000-0000-0000-0000-00000000000a', false) done where done",
    "select count(*) from read_epochs()",
    "select trim_audit_events('00000000-0000-0000-0000-00000000000b', 0, 1, sha256(''), '', '')",
    "select count(*) from seal_events(array['00000000-0000-0000-0000-00000000000b'::uuid],
         array[gen_random_uuid()], array[2], array[sha256('')])",
];

/// Whether a query of [`CROSS_TENANT_QUERIES`] returns 1. A trim returns 1 only once, because the
/// trim deletes the row.
async fn returns_one(query: &'static str, app: &PgPool) -> bool {
    let count = sqlx::query_scalar::<_, Option<i64>>(query).fetch_one(app).await;
    count.ok() == Some(Some(1))
}

/// Inserts a tenant with one row for each query of [`CROSS_TENANT_QUERIES`], and a second tenant.
async fn insert_acme(owner_connection: &mut PgConnection) {
    for statement in [
        "insert into tenants (tenant_id, name, slug) values (gen_random_uuid(), 'Acme', 'acme')",
        "insert into users (tenant_id, user_id, profile, email_index, email_lookup)
         select tenant_id, gen_random_uuid(), '', sha256('ada'), sha256('ada') from tenants",
        "update users set state = 'active'",
        "insert into mail_outbox (tenant_id, mail_id, kind, content, expires_at)
         select tenant_id, gen_random_uuid(), 'email_changed', '', now() from tenants",
        "insert into data_keys (tenant_id, wrapped, wrapped_by)
         select tenant_id, '', 'none' from tenants",
        "insert into idempotency_records
             (tenant_id, actor_id, method, request_id, fingerprint, response)
         select tenant_id, gen_random_uuid(), '', '', '', '' from tenants",
        "insert into audit_events (tenant_id, event_id, kind, request_id)
         select tenant_id, gen_random_uuid(), 'tenant_created', '' from tenants",
        "insert into audit_events (tenant_id, event_id, kind, request_id)
         select tenant_id, gen_random_uuid(), 'user_created', '' from tenants",
        "select seal_events(array_agg(tenant_id), array_agg(event_id), array[1],
             array[sha256('')]) from audit_events where kind = 'tenant_created'",
        "set session_replication_role = replica",
        "insert into audit_events (tenant_id, event_id, kind, request_id, created_at)
         values ('00000000-0000-0000-0000-00000000000b', '00000000-0000-0000-0000-00000000000c',
             'tenant_deleted', '', now() - interval '31 days')",
        "insert into audit_chain values ('00000000-0000-0000-0000-00000000000b', 1,
             '00000000-0000-0000-0000-00000000000c', sha256(''))",
        "insert into spent_assertions
         select tenant_id, gen_random_uuid(), '', now() - interval '2 days' from tenants",
        "insert into api_keys (tenant_id, key_id, account_id, public_key, expires_at)
         select tenant_id, gen_random_uuid(), tenant_id, '', now() - interval '2 days' from tenants",
        "insert into sessions (tenant_id, session_id, user_id, client, amr, refresh_jti,
             refresh_issued_at, refresh_expires_at, refresh_kid, access_jti, access_expires_at,
             access_kid, expires_at)
         select tenant_id, gen_random_uuid(), tenant_id, '', '{}', '', now(),
             now() - interval '2 days', '', '', now(), '', now() from tenants",
        "insert into role_assignments (tenant_id, assignment_id, user_id, role_id, expires_at)
         select tenant_id, gen_random_uuid(), tenant_id, tenant_id, now() - interval '2 days'
         from tenants",
        "insert into mail_links (tenant_id, user_id, purpose, token_hash, expires_at)
         select tenant_id, tenant_id, 'password_reset', '', now() - interval '2 days' from tenants",
        "insert into registrations (tenant_id, user_id, token_hash, content, expires_at)
         select tenant_id, tenant_id, '', '', now() - interval '2 days' from tenants",
        "set session_replication_role = origin",
        "insert into tenants (tenant_id, name, slug, state)
         values ('00000000-0000-0000-0000-00000000000a', 'Gone', 'gone', 'suspended')",
    ] {
        sqlx::query(statement).execute(&mut *owner_connection).await.expect("a row");
    }
}

/// F06: a role has permissions and no other roles, so there are no chains to follow and no cycles.
/// This test fails when a column or a constraint lets one role refer to another.
#[tokio::test]
async fn roles_contain_no_roles() {
    let database = Cluster::get().new_database().await;
    let mut owner_connection = Cluster::get().connect_owner(&database).await;
    let query = "select conrelid::regclass::text from pg_constraint
                     where contype = 'f' and confrelid = 'roles'::regclass";
    let referring_tables: Vec<String> =
        sqlx::query_scalar(query).fetch_all(&mut owner_connection).await.expect("the catalog");
    assert_eq!(referring_tables, ["role_assignments"]);
    let columns = "select attname::text from pg_attribute
                   where attrelid = 'roles'::regclass and attnum > 0 and not attisdropped
                     and atttypid = any (array['uuid', 'uuid[]']::regtype[]) order by attname";
    let columns: Vec<String> =
        sqlx::query_scalar(columns).fetch_all(&mut owner_connection).await.expect("the catalog");
    assert_eq!(columns, ["role_id", "tenant_id"]);
}

/// E01: every table has forced row-level security and a policy of its tenant. All other policies
/// are known.
/// E07: every key and every unique index begins with the tenant.
/// E09: no view has the rights of its owner.
/// E14: partitions are checked like tables.
#[tokio::test]
async fn every_table_is_closed_to_other_tenants() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut owner_connection = cluster.connect_owner(&database).await;
    assert_eq!(faults(&mut owner_connection).await, [""; 0]);
    insert_acme(&mut owner_connection).await;
    let app = PgPool::connect(&cluster.app_url(&database)).await.expect("connected");
    for query in CROSS_TENANT_QUERIES {
        // A trim deletes nothing while an older transaction of another test is open.
        wait_until(20, || returns_one(query, &app)).await;
    }
}

/// E01: when one policy is missing, [`faults`] reports it. Without a cross-tenant policy, also at
/// least one of the queries fails.
#[tokio::test]
async fn each_missing_policy_is_noticed() {
    let cluster = Cluster::get();
    let database = cluster.new_database().await;
    let mut owner_connection = cluster.connect_owner(&database).await;
    let policies: Vec<(String, String)> = sqlx::query_as(
        "select policyname::text, tablename::text from pg_policies where schemaname = 'public'",
    )
    .fetch_all(&mut owner_connection)
    .await
    .expect("policies");
    assert_eq!(
        policies.len(),
        tenant_tables(&mut owner_connection).await.len() + CROSS_TENANT_POLICIES.len()
    );

    for (policy, table) in policies {
        let copy = cluster.new_database().await;
        let mut owner_connection = cluster.connect_owner(&copy).await;
        insert_acme(&mut owner_connection).await;
        run(&mut owner_connection, format!("drop policy {policy} on {table}"))
            .await
            .expect("dropped");
        assert!(!faults(&mut owner_connection).await.is_empty(), "{policy}");
        if CROSS_TENANT_POLICIES.iter().any(|known| known.policy == policy) {
            let app = PgPool::connect(&cluster.app_url(&copy)).await.expect("connected");
            let mut working_queries = 0;
            for query in CROSS_TENANT_QUERIES {
                working_queries += usize::from(returns_one(query, &app).await);
            }
            assert!(working_queries < CROSS_TENANT_QUERIES.len(), "{policy}");
        }
    }
}

/// E01: policies are recognized by their definition, not by their name.
/// E07: a unique key without the tenant is noticed.
/// E09: a view with the rights of its owner is noticed.
/// E14: a partition without a policy is noticed.
#[tokio::test]
async fn every_change_that_opens_a_table_is_noticed() {
    let cluster = Cluster::get();
    for change in [
        "alter table users disable row level security",
        "alter table users no force row level security",
        "alter policy users_of_tenant on users using (true)",
        "alter policy users_of_tenant on users with check (true)",
        "alter policy users_of_tenant on users to tenantry_lookup",
        "alter policy users_of_lookup on users to public",
        "alter policy users_of_lookup on users using (true)",
        "alter policy change_marks_of_lookup on change_marks to public",
        "alter policy users_of_lookup on users using (email_lookup is not null)",
        "create policy users_of_lookup on credentials for select to tenantry_lookup using (true)",
        "create policy users_of_lookup on sessions using (true)",
        "create policy users_of_tenant on credentials using (true)",
        "drop policy users_of_lookup on users;
         create policy users_of_lookup on users to tenantry_lookup using ((select require_primary()))",
        "drop policy users_of_lookup on users;
         create policy users_of_lookup on users to tenantry_lookup using ((select require_primary())) with check (true)",
        "drop policy users_of_lookup on users;
         create policy users_of_lookup on users for update to tenantry_lookup
             using ((select require_primary())) with check (true)",
        "drop policy users_of_lookup on users;
         create policy users_of_lookup on users as restrictive for select to tenantry_lookup
             using ((select require_primary()))",
        "drop policy changes_of_trim on changes;
         create policy changes_of_trim on changes to tenantry_lookup using (true)",
        "drop policy users_of_tenant on users;
         create policy users_of_tenant on users
             using (tenant_id = (select current_tenant())) with check (true)",
        "alter table change_marks no force row level security",
        "grant select on change_marks to tenantry_app",
        "grant select on epochs to tenantry_app",
        "create policy more on users using (true)",
        "create table notes (note text)",
        "create table notes (tenant_id uuid not null, note text)",
        "create schema more; create table more.notes (tenant_id uuid not null)",
        "create table parts (tenant_id uuid not null) partition by hash (tenant_id);
         alter table parts enable row level security; alter table parts force row level security;
         create policy parts_of_tenant on parts using (tenant_id = (select current_tenant()))
             with check (tenant_id = (select current_tenant()));
         create table part partition of parts for values with (modulus 1, remainder 0)",
        "grant truncate on users to tenantry_app",
        "create view all_users as select * from users",
        "create materialized view all_users as select * from users",
        "alter table users add constraint email_once unique (email_lookup)",
        "create unique index email_once on users (email_lookup)",
        "create unique index email_once on users (substr(email_lookup, 1))",
    ] {
        let copy = cluster.new_database().await;
        let mut owner_connection = cluster.connect_owner(&copy).await;
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut owner_connection).await.expect(change);
        assert!(!faults(&mut owner_connection).await.is_empty(), "{change}");
    }
}
