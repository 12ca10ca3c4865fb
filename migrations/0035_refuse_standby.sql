-- Nothing is decided from the rows of a standby, because a standby may lack a revocation that
-- was committed long ago. The service checks the server of each new connection and the reply
-- to each BEGIN. The functions of this file also cover a single statement whose connection a
-- pooler has moved to another server. pg_dump is not affected: its role bypasses row-level
-- security.

-- Fails on a standby (SQLSTATE 25006), and returns true on a primary.
--
-- Decides: no row that belongs to a tenant is read on a standby.
-- Called by: current_tenant, and the policies of tenantry_lookup below.
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

-- These policies apply to the functions that read the rows of several tenants.
alter policy changes_of_lookup on changes using ((select require_primary()));
alter policy change_marks_of_lookup on change_marks
    using ((select require_primary())) with check (true);
alter policy tenants_of_lookup on tenants using ((select require_primary()));
alter policy users_of_lookup on users using ((select require_primary()));
alter policy data_keys_of_lookup on data_keys
    using ((select require_primary())) with check (true);
alter policy audit_events_of_lookup on audit_events using ((select require_primary()));
