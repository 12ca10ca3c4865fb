-- The two database roles of the service, and the tenant of a transaction.
--
-- tenantry_app     The service connects as this role. It owns nothing, and row-level
--                  security binds it.
-- tenantry_lookup  Owns the functions that read or change rows of several tenants
--                  (`security definer`). Nobody connects as this role.
do $$
begin
    create role tenantry_app login;
exception when duplicate_object or unique_violation then null;
end $$;

do $$
begin
    create role tenantry_lookup nologin;
exception when duplicate_object or unique_violation then null;
end $$;

-- All databases of a cluster share their roles. A role of this name that was created
-- earlier with more privileges must not be used.
do $$
begin
    if exists (
        select from pg_roles
        where rolname in ('tenantry_app', 'tenantry_lookup')
          and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb)
    ) then
        raise exception 'the roles tenantry_app and tenantry_lookup must not be privileged';
    end if;
end $$;

revoke create on schema public from public;
grant usage on schema public to tenantry_app, tenantry_lookup;

-- The migrations make tenantry_lookup the owner of some functions. For this the migrating
-- role must be a superuser or a member of tenantry_lookup. Also, tenantry_lookup must have
-- CREATE on the schema at that moment: each file that needs it grants it and revokes it.
do $$
begin
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant tenantry_lookup to %I', current_user);
    end if;
end $$;

-- Returns the tenant that this transaction works in, or null.
--
-- Decides: every row-level security policy compares `tenant_id` with this value. With null
--     no row is visible, and none can be written. A setting that is not a UUID counts as
--     null. This includes the empty string, which a `set local` leaves behind.
-- Called by: the policies of all tables. src/pg/tx.rs sets the setting.
-- In SQL because: the database itself must enforce the separation of tenants.
create function current_tenant() returns uuid
    language sql stable parallel safe
    set search_path = pg_catalog
return case
    when current_setting('tenantry.tenant', true)
        ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'
    then current_setting('tenantry.tenant', true)::uuid
end;
