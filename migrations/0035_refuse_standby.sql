-- Nothing is decided from the rows of a standby, because a standby may lack a revocation that
-- was committed long ago. The service checks the server of each new connection and the reply
-- to each BEGIN. The functions of this file also cover a single statement whose connection a
-- pooler has moved to another server. pg_dump is not affected: its role bypasses row-level
-- security.

-- Fails on a standby (SQLSTATE 25006), and returns true on a primary.
--
-- Decides: no row that belongs to a tenant is read on a standby.
-- Called by: current_tenant, and the policies of 0042_policies_refuse_standby.sql.
-- In SQL because: the answer must come from the server that reads the rows, in the same
--     statement.
create function require_primary() returns boolean
    language plpgsql stable parallel safe
    set search_path = pg_catalog
as $$
begin
    if pg_is_in_recovery() then
        raise exception 'the server is a standby' using errcode = 'read_only_sql_transaction';
    end if;
    return true;
end $$;

-- As in 0001_roles_and_context.sql; fails on a standby.
--
-- Decides: every row-level security policy compares `tenant_id` with this value. With null
--     no row is visible, and none can be written. A setting that is not a UUID counts as
--     null. This includes the empty string, which a `set local` leaves behind.
-- Called by: the policies of all tables. src/pg/tx.rs sets the setting.
-- In SQL because: the database itself must enforce the separation of tenants.
create or replace function current_tenant() returns uuid
    language sql stable parallel safe
    set search_path = pg_catalog, public, pg_temp
return case
    when pg_is_in_recovery() and require_primary() then null
    when current_setting('tenantry.tenant', true)
        ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    then current_setting('tenantry.tenant', true)::uuid
end;

-- As in 0020_read_changes.sql; fails on a standby also when it reads no change.
--
-- Decides: which changes a replica must apply to its cache, and when it must drop all of it.
-- Called by: src/feed/follower.rs.
-- In SQL because: security definer, it reads the changes of all tenants. One round trip. The
--     language is plpgsql, which keeps its plans: a function in the language SQL plans its query
--     at each call, which took half of the time of a read.
create or replace function read_changes(p_seen pg_snapshot)
    returns table (
        snapshot pg_snapshot, server timestamptz, missed boolean,
        tenant_id uuid, kind text, subject_id uuid
    )
    language plpgsql stable security definer
    set search_path = pg_catalog, public, pg_temp
as $$
#variable_conflict use_column
begin
    return query
    select pg_current_snapshot(), pg_postmaster_start_time(),
        coalesce(pg_snapshot_xmin(p_seen) < (select changes_floor()), false)
            or coalesce(
                pg_snapshot_xmax(p_seen) > pg_snapshot_xmax(pg_current_snapshot()), false),
        c.tenant_id, c.kind, c.subject_id
    from (values (1)) as one
    left join changes c
        on c.xid >= pg_snapshot_xmin(p_seen) and not pg_visible_in_snapshot(c.xid, p_seen)
    where require_primary()
    order by c.xid, c.change_id;
end $$;
