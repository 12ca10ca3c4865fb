-- The worker that deletes the rows of deleted tenants.

-- The purge deletes in the deleted tenant, as tenantry_app.
grant delete on idempotency_records to tenantry_app;

-- As in 0002_change_feed.sql, without the deletions of the purge and of the trim of role
-- assignments (0030_trim_rows.sql).
--
-- Decides: together with the triggers named `..._change`, which changes reach the caches of
--     all replicas. The deletion of a tenant is one change: its rows are no further changes. The
--     deletion of an assignment that expired a day ago changes no decision.
-- Called by: the triggers tenants_change, users_change, service_accounts_change,
--     api_keys_change, roles_change, role_assignments_change and sessions_change.
-- In SQL because: with a trigger, no statement can change a row without a row in the feed. The
--     setting alone does not suppress a change: the tenant must be deleted.
create or replace function record_change() returns trigger
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    changed jsonb := to_jsonb(case when tg_op = 'DELETE' then old else new end);
    tenant uuid := changed ->> 'tenant_id';
begin
    if tg_op = 'DELETE' and current_setting('tenantry.purge', true) = tenant::text
        and not exists (
            select from tenants t where t.tenant_id = tenant and t.deleted_at is null)
    then
        return null;
    end if;
    if tg_op = 'DELETE' and tg_table_name = 'role_assignments'
        and (changed ->> 'expires_at')::timestamptz <= now() - interval '1 day'
    then
        return null;
    end if;
    insert into changes (tenant_id, kind, subject_id)
    values (tenant, tg_argv[0], (changed ->> tg_argv[1])::uuid);
    return null;
end $$;

-- Returns the deleted tenants that still have rows, the oldest deletion first, p_limit at most,
-- each with the time since its deletion in seconds.
--
-- Decides: which tenants are purged, and in which order.
-- Called by: src/tenants/purge/store.rs.
-- In SQL because: security definer, it reads across tenants.
create function tenants_to_purge(p_limit bigint)
    returns table (tenant_id uuid, age double precision)
    language sql stable security definer
    set search_path = pg_catalog, public, pg_temp
begin atomic
    select t.tenant_id, extract(epoch from now() - t.deleted_at)::double precision
    from tenants t
    where t.deleted_at is not null
    order by t.deleted_at, t.tenant_id
    limit p_limit;
end;

-- Deletes at most p_limit rows of the transaction's tenant, of one table. Returns their number;
-- 0 when none is left, and null when another replica is purging. Rows that triggers and foreign
-- keys delete with them, such as the subject of a user, are not counted.
--
-- Decides: only the rows of a deleted tenant are purged, and those that refer to others first.
--     The audit trail stays. A table that is missing in the list fails a test.
-- Called by: src/tenants/purge/store.rs.
-- In SQL because: the setting that suppresses the changes and the deletion must be in one
--     statement. It runs with the rights of the service, so row-level security limits it to the
--     transaction's tenant.
create function purge_rows(p_limit bigint) returns bigint
    language plpgsql
    set search_path = pg_catalog, public, pg_temp
as $$
declare
    tenant constant uuid := current_tenant();
    name text;
    deleted bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('tenantry:purge', 0)) then
        return null;
    end if;
    if tenant is null or exists (
        select from tenants t where t.tenant_id = tenant and t.deleted_at is null)
    then
        return 0;
    end if;
    perform set_config('tenantry.purge', tenant::text, true);
    foreach name in array array[
        'mail_outbox', 'idempotency_records', 'spent_assertions', 'api_keys', 'sessions',
        'mail_links', 'credentials', 'role_assignments', 'service_accounts', 'users',
        'subjects', 'roles', 'registrations'
    ] loop
        execute format(
            'delete from %1$I where tenant_id = $1 and ctid = any (array(
                 select ctid from %1$I where tenant_id = $1 limit $2))', name)
            using tenant, p_limit;
        get diagnostics deleted = row_count;
        if deleted > 0 then
            return deleted;
        end if;
    end loop;
    return 0;
end $$;

-- Deletes the row of a deleted tenant, and any rows that were written since the last call of
-- purge_rows. Returns false when the row is not there, and while events of the tenant's audit
-- trail wait to be sealed or sent, except when p_is_overdue.
--
-- Decides: a tenant is purged when nothing will write to its keys in Redis any more. A stream
--     that accepts no events does not delay the purge for ever.
-- Called by: src/tenants/purge/store.rs.
-- In SQL because: security definer, the service itself does not see the row.
create function remove_deleted_tenant(p_tenant uuid, p_is_overdue boolean) returns boolean
    language plpgsql security definer
    set search_path = pg_catalog, public, pg_temp
as $$
begin
    if not p_is_overdue and (
        exists (select from audit_queue q where q.tenant_id = p_tenant)
        or exists (select from audit_outbox o where o.tenant_id = p_tenant)
    ) then
        return false;
    end if;
    perform set_config('tenantry.purge', p_tenant::text, true);
    delete from tenants t where t.tenant_id = p_tenant and t.deleted_at is not null;
    return found;
end $$;

revoke execute on function tenants_to_purge(bigint) from public;
grant execute on function tenants_to_purge(bigint) to tenantry_app;
revoke execute on function purge_rows(bigint) from public;
grant execute on function purge_rows(bigint) to tenantry_app;
revoke execute on function remove_deleted_tenant(uuid, boolean) from public;
grant execute on function remove_deleted_tenant(uuid, boolean) to tenantry_app;
grant create on schema public to tenantry_lookup;
alter function tenants_to_purge(bigint) owner to tenantry_lookup;
alter function remove_deleted_tenant(uuid, boolean) owner to tenantry_lookup;
revoke create on schema public from tenantry_lookup;
